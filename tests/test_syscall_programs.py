"""`offset.syscall.os`, `subprocess`, `socketserver`, `http`, `urllib`: processes, servers and clients in goroutines.

What the originals do is tested by CPython's own tests over the proxies; here is what they are made for. Invariant:
who waits parks, and takes no thread of its own.
"""

from __future__ import annotations

import http.server as plain_server
import os as plain_os
import select as plain_select
import subprocess as plain_subprocess
import sys

import offset
import pytest
from helpers import PATIENCE, go_parked, main_goroutine, wait_ended, wait_parked, wait_until
from offset import go
from offset.syscall import os, select, selectors, socket, socketserver, subprocess, threading
from offset.syscall.http import client, server
from offset.syscall.urllib import request

# Ends when its input does, with as many lines as it had.
COUNTING = [sys.executable, "-c", "import sys; sys.exit(len(sys.stdin.readlines()))"]


@pytest.fixture
def pipe():
    read, write = plain_os.pipe()
    ends = [read, write]
    yield ends
    for end in ends:
        plain_os.close(end)


def busy_machines():
    """Count the runtime's threads that are not idle."""
    stats = offset.runtime.stats()
    return stats["machines"] - stats["idle_machines"]


# ---- os --------------------------------------------------------------------------------------


@main_goroutine
def test_a_read_of_a_blocking_pipe_parks(pipe):
    read, write = pipe
    readers = [go(os.read, read, 1) for _ in range(10)]
    wait_parked(*readers, reason="IO wait")
    for _ in readers:
        os.write(write, b"x")
    wait_ended(*readers)


@main_goroutine
def test_a_write_to_a_full_pipe_parks(pipe):
    read, write = pipe
    plain_os.set_blocking(write, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write, bytes(65_536))
    plain_os.set_blocking(write, True)
    writing = go_parked(os.write, write, b"one more", reason="IO wait")
    os.read(read, 65_536)
    wait_ended(writing)


@main_goroutine
def test_the_end_of_a_pipe_is_read(pipe):
    read, write = pipe
    reading = go_parked(os.read, read, 1, reason="IO wait")
    plain_os.close(pipe.pop())
    wait_ended(reading)
    assert write not in pipe
    assert os.read(read, 1) == b""


@main_goroutine
def test_a_plain_file_is_read_at_once(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    number = os.open(path, os.O_RDONLY)
    assert os.read(number, 100) == b"contents"
    os.close(number)


@main_goroutine
def test_a_child_is_waited_for():
    child = plain_subprocess.Popen(COUNTING, stdin=plain_subprocess.PIPE)
    waiting = go_parked(os.waitpid, child.pid, 0, reason="IO wait")
    child.stdin.close()
    wait_ended(waiting)
    child.returncode = 0


# ---- select ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["poll", "epoll"])
def test_isinstance_with_the_original_holds_for_what_waits(kind):
    made, theirs = getattr(select, kind)(), getattr(plain_select, kind)()
    assert isinstance(made, type(theirs)) and type(made) is not type(theirs)
    assert not isinstance(theirs, type(made))


@pytest.mark.parametrize(
    "kind", ["select", "poll", "epoll", "DefaultSelector", "SelectSelector", "PollSelector", "EpollSelector"]
)
@main_goroutine
def test_a_selection_parks(pipe, kind):
    read, write = pipe
    seen = []

    def wait():
        if kind == "select":
            seen.append(select.select([read], [], [], PATIENCE)[0] == [read])
        elif "Selector" in kind:
            with getattr(selectors, kind)() as selector:
                selector.register(read, selectors.EVENT_READ, "data")
                seen.append([key.data for key, _ in selector.select(PATIENCE)] == ["data"])
        else:
            made = getattr(select, kind)()
            made.register(read, select.POLLIN)
            seen.append(made.poll(PATIENCE * (1000 if kind == "poll" else 1)) == [(read, select.POLLIN)])
            if kind == "epoll":
                made.close()

    waiting = go_parked(wait, reason="IO wait")
    plain_os.write(write, b"x")
    wait_ended(waiting)
    assert seen == [True]


@main_goroutine
def test_a_selection_in_vain(pipe):
    assert select.select([pipe[0]], [], [], 0.001) == ([], [], [])
    assert select.select([], [], [], 0.001) == ([], [], [])
    assert select.select([], [pipe[1]], [], None) == ([], [pipe[1]], [])
    made = select.poll()
    made.register(pipe[0], select.POLLIN)
    assert made.poll(1) == []


# ---- subprocess ------------------------------------------------------------------------------


@main_goroutine
def test_processes_run_side_by_side():
    processes = [subprocess.Popen(COUNTING, stdin=subprocess.PIPE, text=True) for _ in range(10)]
    assert isinstance(processes[0], plain_subprocess.Popen)
    waiting = [go(process.wait) for process in processes]
    wait_parked(*waiting)
    wait_until(lambda: busy_machines() <= offset.runtime.stats()["processors"], "nobody blocks a thread")
    for number, process in enumerate(processes):
        process.stdin.write("line\n" * number)
        process.stdin.close()
    wait_ended(*waiting)
    assert [process.returncode for process in processes] == list(range(10))


@main_goroutine
def test_a_conversation_with_a_process():
    program = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('done')"
    ended = subprocess.run([sys.executable, "-c", program], input="x" * 200_000, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("X" * 200_000, "done", 0)


@main_goroutine
def test_a_process_that_takes_too_long():
    with subprocess.Popen(COUNTING, stdin=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        process.stdin.close()
        assert process.wait() == 0


# ---- servers ---------------------------------------------------------------------------------


class Hello(server.BaseHTTPRequestHandler):
    """Answers each request with its path, all of them at once."""

    meeting = None

    def do_GET(self):
        self.meeting.wait()
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@main_goroutine
def test_requests_to_a_server_in_the_same_program():
    class Server(server.ThreadingHTTPServer):
        request_queue_size = 100

    assert issubclass(server.ThreadingHTTPServer, plain_server.ThreadingHTTPServer)
    Hello.meeting = threading.Barrier(20)
    bodies = set()
    opener = request.build_opener()

    def get(number):
        with opener.open(f"http://127.0.0.1:{port}/{number}", timeout=PATIENCE) as answer:
            bodies.add(answer.read())

    with Server(("127.0.0.1", 0), Hello) as serving:
        port = serving.server_address[1]
        loop = go(serving.serve_forever, 0.01)
        try:
            wait_ended(*[go(get, number) for number in range(20)])
        finally:
            Hello.meeting = None
            serving.shutdown()
        wait_ended(loop)
    assert bodies == {f"/{number}".encode() for number in range(20)}


@main_goroutine
def test_one_connection_for_many_requests():
    class Short(server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[::-1])

        def log_message(self, *_):
            pass

    with server.HTTPServer(("127.0.0.1", 0), Short) as serving:
        loop = go(serving.serve_forever, 0.01)
        conn = client.HTTPConnection("127.0.0.1", serving.server_address[1], timeout=PATIENCE)
        for number in range(10):
            conn.request("POST", "/", body=f"request {number}")
            assert conn.getresponse().read() == f"{number} tseuqer".encode()
        conn.close()
        serving.shutdown()
        wait_ended(loop)


@main_goroutine
def test_a_server_of_lines():
    class Upper(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upper) as serving:
        loop = go(serving.serve_forever, 0.01)
        with socket.create_connection(serving.server_address) as conn, conn.makefile("rw") as file:
            for word in ("one", "two"):
                print(word, file=file, flush=True)
                assert file.readline() == word.upper() + "\n"
        serving.shutdown()
        wait_ended(loop)
