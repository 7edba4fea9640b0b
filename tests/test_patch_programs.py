"""Programs after `patch_all`: the standard library and libraries, in goroutines and beside them.

Each runs in a process of its own. Invariant: many calls that wait at once take no thread each (`few_threads`, asked
while all of them wait).
"""

from __future__ import annotations

import pytest
from helpers import FREE_THREADED, run_script
from test_patch_all import output

# A server that answers nobody before `many` have asked, and says then how many threads there were.
SERVER = """
    import http.server

    # Classes that derive from its own before that would poll in C, which takes a machine without the GIL.
    patched = patch.patch_all()
    many = 100

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if together.wait(30) == 0:
                seen.append(threads())
            body = self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 200

    def fetch_all(fetch):
        global together
        together = threading.Barrier(many)
        with Server(("127.0.0.1", 0), Handler) as server:
            serving = threading.Thread(target=server.serve_forever, args=(0.01,))
            serving.start()
            url = f"http://127.0.0.1:{server.server_address[1]}"
            got = []
            goroutines = [go(lambda n=n: got.append(fetch(f"{url}/{n}"))) for n in range(many)]
            for goroutine in goroutines:
                goroutine.join()
            server.shutdown()
            serving.join()
        assert sorted(got) == sorted(f"/{n}".encode() for n in range(many))
        assert seen.pop() < 20, "a thread each"

    seen = []
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_urllib_and_http_client(when):
    imports = "import http.client, urllib.request\n"
    program = f"""
    {imports if when == "before" else ""}
    {SERVER}
    {imports if when == "after" else ""}
    def by_urllib(url):
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read()

    def by_http_client(url):
        _, _, host, path = url.split("/")
        conn = http.client.HTTPConnection(host, timeout=30)
        try:
            conn.request("GET", f"/{{path}}")
            return conn.getresponse().read()
        finally:
            conn.close()

    run(fetch_all, by_urllib)
    run(fetch_all, by_http_client)
    patched.undo()
    print(type(http.client) is type(urllib.request) is type(sys))
    """
    assert output(program) == "True\n"


@pytest.mark.parametrize("when", ["before", "after"])
def test_requests(when):
    pytest.importorskip("requests")
    program = f"""
    {"import requests" if when == "before" else ""}
    {SERVER}
    import requests
    def fetch(url):
        with requests.Session() as session:
            return session.get(url, timeout=30).content
    run(fetch_all, fetch)
    # Outside goroutines, a real server beside.
    with Server(("127.0.0.1", 0), Handler) as server:
        together = threading.Barrier(1)
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        print(requests.get(f"http://127.0.0.1:{{server.server_address[1]}}/plain").text)
        server.shutdown()
        serving.join()
    """
    assert output(program) == "/plain\n"


def test_subprocesses_queues_and_selects():
    program = """
    import queue, select, selectors, socket, subprocess

    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read(); print(3)"]

    def child(jobs):
        jobs.put(subprocess.run(command, input="", text=True, capture_output=True).stdout)

    def reader(one, ready):
        ready.put(None)
        with selectors.DefaultSelector() as selector:
            selector.register(one, selectors.EVENT_READ)
            assert selector.select()
        assert select.select([one], [], [])[0] == [one]
        poll = select.poll()
        poll.register(one, select.POLLIN)
        assert poll.poll()
        return one.recv(10)

    def main():
        jobs, ready = queue.Queue(), queue.SimpleQueue()
        pairs = [socket.socketpair() for _ in range(50)]
        readers = [go(reader, one, ready) for one, other in pairs]
        children = [go(child, jobs) for _ in range(10)]
        for _ in readers:
            ready.get()
        with_all = threads()
        for one, other in pairs:
            other.send(b"x")
        for goroutine in [*readers, *children]:
            goroutine.join()
        assert [jobs.get() for _ in children] == ["3\\n"] * 10
        assert os.popen("echo 1").read() == "1\\n"
        for pair in pairs:
            for end in pair:
                end.close()
        return with_all < 20

    with patch.patch_all():
        print(run(main))
        # Outside goroutines.
        print(subprocess.check_output(["echo", "plain"], text=True), end="")
    """
    assert output(program) == "True\nplain\n"


def test_sqlite_and_logging(tmp_path):
    program = """
    import logging, logging.handlers, queue, sqlite3

    early = logging.StreamHandler(open(sys.argv[1] + "/early", "w"))
    logging.getLogger().addHandler(early)
    patch.patch_all()
    late = logging.FileHandler(sys.argv[1] + "/late")
    records = queue.Queue()
    listener = logging.handlers.QueueListener(records, late)
    logging.getLogger().addHandler(logging.handlers.QueueHandler(records))
    logging.getLogger().setLevel(logging.INFO)

    def work(n):
        with sqlite3.connect(f"{sys.argv[1]}/data", timeout=30, isolation_level=None) as db:
            for i in range(5):
                db.execute("insert into t values (?)", (n * 5 + i,))
                logging.info("%d", n * 5 + i)
                time.sleep(0)
        db.close()

    def main():
        with sqlite3.connect(f"{sys.argv[1]}/data") as db:
            db.execute("create table t (n)")
        listener.start()
        goroutines = [go(work, n) for n in range(20)]
        for goroutine in goroutines:
            goroutine.join()
        listener.stop()
        print(db.execute("select count(*), sum(n) from t").fetchone())
        db.close()

    run(main)
    logging.shutdown()
    for name in ("early", "late"):
        with open(f"{sys.argv[1]}/{name}") as file:
            assert sorted(map(int, file)) == list(range(100)), name
    """
    assert output(program, tmp_path) == f"(100, {sum(range(100))})\n"


def test_pools_of_threads_and_of_processes():
    program = """
    import concurrent.futures, multiprocessing, operator

    def main():
        barrier = threading.Barrier(50)
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            futures = [pool.submit(barrier.wait) for _ in range(50)]
            done, _ = concurrent.futures.wait(futures)
            assert sorted(future.result() for future in concurrent.futures.as_completed(done)) == list(range(50))
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            assert list(pool.map(operator.neg, range(10))) == [-n for n in range(10)]
        return "done"

    if __name__ == "__main__":
        patch.patch_all()
        print(run(main))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            print(pool.submit(threading.current_thread).result().name)
    """
    assert output(program) == "done\nThreadPoolExecutor-1_0\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("where", ["plain", "goroutine"])
def test_multiprocessing_beside(tmp_path, method, where):
    # A pool has threads that wait in C. As goroutines they would keep a machine each, without the GIL for good.
    patched = "threading=False" if FREE_THREADED else ""
    # A file, as a spawned process imports it.
    path = tmp_path / "program.py"
    path.write_text(
        f"""
import multiprocessing, sys
from offset import patch, run

def work(queue, conn, n):
    queue.put(n * n)
    conn.send(conn.recv() + 1)

def main():
    context = multiprocessing.get_context({method!r})
    queue = context.Queue()
    pipes = [context.Pipe() for _ in range(3)]
    processes = [context.Process(target=work, args=(queue, pipes[n][1], n)) for n in range(3)]
    for process in processes:
        process.start()
    for ours, theirs in pipes:
        ours.send(1)
    print(sorted(queue.get(timeout=30) for _ in processes), [ours.recv() for ours, _ in pipes])
    for process in processes:
        process.join()
    print([process.exitcode for process in processes])
    with context.Pool(2) as pool:
        print(pool.map(abs, [-1, -2]))

if __name__ == "__main__":
    patch.patch_all({patched})
    run(main) if {where == "goroutine"} else main()
""",
        encoding="utf-8",
    )
    status, stdout, stderr = run_script(path)
    assert (status, stdout) == (0, "[0, 1, 4] [2, 2, 2]\n[0, 0, 0]\n[1, 2]\n"), stderr


@pytest.mark.parametrize("where", ["plain", "goroutine"])
def test_a_forked_child_is_patched_too(where):
    program = f"""
    import socket, warnings
    warnings.simplefilter("ignore")

    def main():
        lock = threading.Lock()
        thread = threading.Thread(target=time.sleep, args=(0.01,))
        thread.start()
        child = os.fork()
        if not child:
            def inside():
                assert threading.active_count() >= 1
                one, other = socket.socketpair()
                reader = go(one.recv, 10)
                other.send(b"x")
                reader.join()
                with lock:
                    return 7
            try:
                code = run(inside) if offset.current() is None else inside()
                patched.undo()
                assert type(time) is type(sys)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                code = 1
            os._exit(code)
        thread.join()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    patched = patch.patch_all()
    print(run(main) if {where == "goroutine"} else main())
    """
    assert output(program) == "7\n"


def test_outside_goroutines_all_is_as_before():
    program = """
    import queue, select, socket, subprocess
    patch.patch_all()
    for call, error in [
        (lambda: time.sleep(-1), ValueError),
        (lambda: queue.Queue().get(timeout=0.01), queue.Empty),
        (lambda: socket.create_connection(("127.0.0.1", 1)), ConnectionRefusedError),
        (lambda: subprocess.run(["false"], check=True), subprocess.CalledProcessError),
        (lambda: select.select([], [], [], -1), ValueError),
        (lambda: os.read(-1, 1), OSError),
        (lambda: threading.Lock().release(), RuntimeError),
    ]:
        try:
            call()
        except error:
            pass
        else:
            raise AssertionError(error)
    print(threading.current_thread() is threading.main_thread(), time.sleep(0))
    print(os.waitstatus_to_exitcode(os.system("exit 3")))
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    print(thread in threading.enumerate(), len(threading.enumerate()))
    event.set()
    thread.join()
    """
    assert output(program) == "True None\n3\nTrue 2\n"


def test_asyncio_after_patching():
    program = """
    import asyncio
    patch.patch_all()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        line = await reader.readline()
        writer.close()
        server.close()
        return line, await asyncio.to_thread(threading.get_ident) != 0

    async def serve(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    print(asyncio.run(main()))
    print(run(asyncio.run, main()))
    """
    assert output(program) == "(b'hello\\n', True)\n" * 2
