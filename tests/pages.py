"""A client of `offset.debug.serve`, for its tests: whole conversations, as bytes that a test can choose."""

from __future__ import annotations

from typing import NamedTuple

from helpers import PATIENCE
from offset import net, time


class Reply(NamedTuple):
    """What came back. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: str


def connect(addr: str) -> net.Conn:
    """A connection whose waits are bounded."""
    conn = net.dial("tcp", addr)
    conn.set_deadline(time.now() + PATIENCE)
    return conn


def request(path: str, *headers: str, method: str = "GET", host: str = "localhost") -> bytes:
    """A request as it is sent."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def reply(conn: net.Conn, *, head: bool = False) -> Reply:
    """The next answer on a connection; with `head` one without a body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = conn.read(65_536)
        assert part, f"the connection ended after {data!r}"
        data += part
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    size = 0 if head else int(headers["content-length"])
    while len(body) < size:
        body += conn.read(size - len(body))
    assert len(body) == size
    return Reply(int(first.split()[1]), headers, body.decode())


def ask(addr: str, path: str = "/", *headers: str, method: str = "GET", host: str = "localhost") -> Reply:
    """The answer to one request on a connection of its own."""
    with connect(addr) as conn:
        conn.write(request(path, *headers, method=method, host=host))
        return reply(conn, head=method == "HEAD")
