"""What libraries cost in goroutines: as they are, on the proxies, by their hook; beside plain threads.

    make build && .venv/bin/python benchmarks/libraries.py [NAME ...]

For each library and each way to use it a process of its own measures: how many requests a second 16 workers make, each
with a connection of its own; how much processor time one takes in the client; how long one takes (the median, and what
99 of 100 stay below); and how many OS threads there are while 100 requests wait at the same time. The ways take turns,
and the best of three is shown. The servers are those of the tests; `requests` asks a small one.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import offset
import servers
from offset import patch, syscall

WORKERS, REQUESTS, WAITING, TIMES = 16, 150, 100, 3

# Answers a request when it has come, those for /wait when somebody asks for /free. On epoll, so that it costs little.
SITE = """
import select, socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=500)
print(listener.getsockname()[1], flush=True)
poller, conns, held = select.epoll(), {listener.fileno(): listener}, []
poller.register(listener, select.EPOLLIN)
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"
while True:
    for number, _ in poller.poll():
        if number == listener.fileno():
            conn = listener.accept()[0]
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conns[conn.fileno()] = conn
            poller.register(conn, select.EPOLLIN)
            continue
        data = conns[number].recv(65536)
        if not data:
            conns.pop(number).close()
        elif b"/wait" in data:
            held.append(conns[number])
        elif b"/free" in data:
            for conn in (*held, conns[number]):
                conn.sendall(answer)
            held.clear()
        else:
            conns[number].sendall(answer)
"""


class Way:
    """One way to use a library: what makes a connection, what asks once, what waits until it is released."""

    def __init__(self, connect: Callable[[], Any], ask: Any, wait: Any, release: Callable[[], None]) -> None:
        self.connect, self.ask, self.wait, self.release = connect, ask, wait, release


def of_requests(module: Any) -> Way:
    url = f"http://127.0.0.1:{os.environ['SITE_PORT']}"

    def get(path: str) -> Callable[[Any], Any]:
        return lambda session: session.get(url + path).content

    return Way(module.Session, get("/"), get("/wait"), lambda: get("/free")(module.Session()))


def of_redis(module: Any) -> Way:
    def connect() -> Any:
        return module.Redis.from_url(os.environ["REDIS_URL"])

    def release() -> None:
        connect().rpush("jobs", *range(WAITING))

    return Way(connect, lambda client: client.get("key"), lambda client: client.blpop("jobs"), release)


def of_sql(connect: Callable[[], Any], take: str, give: str) -> Way:
    def execute(statement: str) -> Callable[[Any], Any]:
        def call(conn: Any) -> Any:
            with contextlib.closing(conn.cursor()) as cursor:
                cursor.execute(statement)
                return cursor.fetchall()

        return call

    keeper = connect()
    execute(take)(keeper)

    def wait(conn: Any) -> None:
        execute(take)(conn)
        execute(give)(conn)

    return Way(connect, execute("SELECT 1"), wait, lambda: execute(give)(keeper))


def of_pymysql(module: Any) -> Way:
    def connect() -> Any:
        names = {"host": "MYSQL_HOST", "password": "MYSQL_PASSWORD"}
        found = {name: os.environ[variable] for name, variable in names.items()}
        return module.connect(port=int(os.environ["MYSQL_PORT"]), user="gopher", ssl_disabled=True, **found)

    return of_sql(connect, "SELECT GET_LOCK('gate', 60)", "SELECT RELEASE_LOCK('gate')")


def of_pg8000(module: Any) -> Way:
    def connect() -> Any:
        names = {"host": "PGHOST", "user": "PGUSER", "password": "PGPASSWORD", "database": "PGDATABASE"}
        found = {name: os.environ[variable] for name, variable in names.items()}
        return module.connect(port=int(os.environ["PGPORT"]), **found)

    return of_sql(connect, "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)")


def of_libpq(module: Any) -> Way:
    return of_sql(lambda: module.connect(""), "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)")


def original(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


def hooked_psycopg() -> Any:
    from offset.syscall import psycopg

    return psycopg


def hooked_psycopg2() -> Any:
    import psycopg2
    from psycopg2 import extensions

    def wait(conn: Any) -> None:
        while (state := conn.poll()) != extensions.POLL_OK:
            (syscall.wait_readable if state == extensions.POLL_READ else syscall.wait_writable)(conn)

    extensions.set_wait_callback(wait)
    return psycopg2


LIBRARIES: dict[str, tuple[Any, Any, Callable[[Any], Way]]] = {
    "requests": (None, lambda: patch.patched_import("requests"), of_requests),
    "redis": (servers.redis, lambda: patch.patched_import("redis"), of_redis),
    "pymysql": (servers.mariadb, lambda: patch.patched_import("pymysql"), of_pymysql),
    "pg8000.dbapi": (servers.postgres, lambda: patch.patched_import("pg8000.dbapi"), of_pg8000),
    "psycopg": (servers.postgres, hooked_psycopg, of_libpq),
    "psycopg2": (servers.postgres, hooked_psycopg2, of_libpq),
}
WAYS = ("threads", "as it is", "on the poller")


def together(way: str, count: int, function: Callable[[], object]) -> Callable[[], None]:
    """Start so many workers; give what waits for them."""
    if way == "threads":
        threads = [threading.Thread(target=function) for _ in range(count)]
        for thread in threads:
            thread.start()
        return lambda: [thread.join() for thread in threads] and None
    goroutines = [offset.go(function) for _ in range(count)]
    return lambda: [goroutine.join() for goroutine in goroutines] and None


def measure(name: str, way: str) -> dict[str, float]:
    """Measure one way to use one library, in this process."""
    _, on_poller, make = LIBRARIES[name]
    use = make(on_poller() if way == "on the poller" else original(name))
    latencies: list[float] = []

    def work() -> None:
        conn = use.connect()
        use.ask(conn)
        ready.append(conn)
        while len(ready) < WORKERS:
            (time.sleep if way == "threads" else offset.sleep)(0.001)
        for _ in range(REQUESTS):
            began = time.perf_counter()
            use.ask(conn)
            latencies.append(time.perf_counter() - began)
        conn.close()

    ready: list[Any] = []
    finish = together(way, WORKERS, work)
    while len(ready) < WORKERS:
        (time.sleep if way == "threads" else offset.sleep)(0.001)
    began, processor = time.perf_counter(), time.process_time()
    finish()
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    connections: list[Any] = []

    def wait() -> None:
        conn = use.connect()
        connections.append(conn)
        use.wait(conn)

    before = len(os.listdir("/proc/self/task"))
    finish = together(way, WAITING, wait)
    while len(connections) < WAITING:
        (time.sleep if way == "threads" else offset.sleep)(0.01)
    (time.sleep if way == "threads" else offset.sleep)(0.5)
    threads = len(os.listdir("/proc/self/task")) - before
    use.release()
    finish()
    latencies.sort()
    return {
        "rate": WORKERS * REQUESTS / seconds,
        "processor": processor / (WORKERS * REQUESTS) * 1e6,
        "median": statistics.median(latencies) * 1e6,
        "tail": latencies[len(latencies) * 99 // 100] * 1e6,
        "threads": threads,
    }


@contextlib.contextmanager
def site() -> Iterator[servers.Server]:
    """The small server of pages."""
    process = subprocess.Popen([sys.executable, "-c", SITE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield servers.Server(port, {"SITE_PORT": str(port)})
    finally:
        process.kill()
        process.wait()


def main(names: list[str]) -> None:
    """Measure all, or those named, and print a table."""
    print("| | | requests/s | processor, us | median, us | 99 %, us | OS threads for 100 that wait |")
    print("|---|---|---|---|---|---|---|")
    for name, (server, _, _) in LIBRARIES.items():
        if names and name not in names:
            continue
        with (server or site)() as running:
            measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for way in WAYS * TIMES:
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", name, way],
                    env={**os.environ, **running.environment},
                    stdout=subprocess.PIPE,
                    text=True,
                    timeout=300,
                    check=True,
                )
                measured[way].append(json.loads(done.stdout))
        for way, rows in measured.items():
            best = [max(row["rate"] for row in rows)]
            best += [min(row[key] for row in rows) for key in ("processor", "median", "tail")]
            best.append(statistics.median(row["threads"] for row in rows))
            figures = [f"{figure:,.0f}" for figure in best]
            print(f"| {name.partition('.')[0]} | {way} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        name, way = sys.argv[2:]
        result = measure(name, way) if way == "threads" else offset.run(measure, name, way)
        print(json.dumps(result))
    else:
        main(sys.argv[1:])
