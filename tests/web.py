"""What the tests of HTTP servers share: a server of an application, and conversations with it as bytes that a test
can choose."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple

from helpers import PATIENCE
from net_peers import Call
from offset import context, makechan, net, time, wsgi


class Served(NamedTuple):
    """A server: its address, and what ends it."""

    addr: str
    stop: Any
    call: Call


@contextlib.contextmanager
def serving(app: Any, bind: str = "127.0.0.1:0", serve: Any = wsgi.serve, **options: Any) -> Iterator[Served]:
    """Serve an application while the block runs, in a goroutine; by `asgi.serve`, if that is said."""
    ready = makechan(1)
    ctx, stop = context.with_cancel(context.background())
    options.setdefault("grace", PATIENCE)
    call = Call(serve, app, bind, ready=ready, stop=ctx, **options)
    try:
        served = None
        while served is None:
            with contextlib.suppress(TimeoutError):
                served = Served(ready.recv(timeout=0.1), stop, call)
            if served is None and call.ended:
                call.result()
                raise AssertionError("the server has ended")
        yield served
    finally:
        stop()
        call.result()


def within_longer_and_longer(attempt: Any) -> None:
    """Call `attempt` with a time, in seconds, until it does not fail.

    For what holds however short a time is, as long as the machine does not stall for longer than that.
    """
    for seconds in (0.3, 1.5):
        with contextlib.suppress(AssertionError, OSError):
            attempt(seconds)
            return
    attempt(6.0)


class Answer(NamedTuple):
    """A response. Names of headers are in lower case; the body is taken out of its chunks."""

    status: int
    headers: dict[str, str]
    body: bytes


def connect(addr: str, tls: ssl.SSLContext | None = None) -> net.Conn:
    """A connection whose waits are bounded."""
    if addr.startswith("unix:"):
        conn = net.dial("unix", addr.removeprefix("unix:"))
    else:
        conn = net.dial("tcp", addr, tls=tls, server_hostname="localhost" if tls else None)
    conn.set_deadline(time.now() + PATIENCE)
    return conn


class Reader:
    """Reads one answer after the other."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.data = b""

    def _more(self) -> bool:
        part = self.conn.read(65_536)
        self.data += part
        return bool(part)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.data:
            assert self._more(), f"the connection ended after {self.data!r}"
        taken, _, self.data = self.data.partition(mark)
        return taken

    def _exactly(self, size: int) -> bytes:
        while len(self.data) < size:
            assert self._more(), f"the connection ended after {self.data!r}, {size} bytes were to come"
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def answer(self, *, head: bool = False) -> Answer:
        """The next one; with `head` one without a body."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers or name.lower() == "set-cookie", lines
            headers[name.lower()] = value
        code = int(status)
        if head or code in (204, 304) or code < 200:
            return Answer(code, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._exactly(2) == b"\r\n"
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            while self._more():
                pass
            body, self.data = self.data, b""
        return Answer(code, headers, body)

    def at_end(self) -> bool:
        """Does the connection end here?"""
        return not self.data and not self._more()


def request(path: str = "/", *headers: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    """A request as it is sent."""
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *length, *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1") + body


def chunks(*parts: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def ask(addr: str, data: bytes | None = None, *, head: bool = False, tls: ssl.SSLContext | None = None) -> Answer:
    """The answer to one request on a connection of its own."""
    with connect(addr, tls) as conn:
        conn.write(request() if data is None else data)
        return Reader(conn).answer(head=head)


def talk(addr: str, data: bytes) -> bytes:
    """All that comes back for what is sent, up to the end of the connection."""
    with connect(addr) as conn:
        parts = []
        # A server that listens no more may have ended the connection by now; what it has said comes all the same.
        with contextlib.suppress(OSError):
            conn.write(data)
            conn.close_write()
        with contextlib.suppress(ConnectionError):
            while part := conn.read(65_536):
                parts.append(part)
        return b"".join(parts)


# ---- applications ------------------------------------------------------------------------------


def app_of(*parts, status="200 OK", headers=(), **_):
    """An application that answers always the same, in a list."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return list(parts)

    return app


hello = app_of(b"hello")


def echo(environ, start_response):
    """Give back the body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@contextlib.contextmanager
def talking(app, **options):
    """A connection to a server of `app`, and a reader of what comes."""
    with serving(app, **options) as served, connect(served.addr) as conn:
        yield conn, Reader(conn)
