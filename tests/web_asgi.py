"""What the tests of `offset.asgi` share: a server, conversations with it, and applications."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from offset import asgi
from offset.aio import _loop
from web import Answer, Reader, Served, connect, request
from web import serving as serving_any

# What uvloop makes with its first loop, and keeps, is no test's.
_loop._new_event_loop().close()


def serving(app: Any, bind: str = "127.0.0.1:0", **options: Any) -> contextlib.AbstractContextManager[Served]:
    """Serve an application while the block runs, in a goroutine."""
    options.setdefault("lifespan", "off")
    return serving_any(app, bind, asgi.serve, **options)


@contextlib.contextmanager
def talking(app: Any, **options: Any) -> Iterator[tuple[Any, Reader]]:
    """A connection to a server of `app`, and a reader of what comes."""
    with serving(app, **options) as served, connect(served.addr) as conn:
        yield conn, Reader(conn)


def ask(addr: str, data: bytes | None = None, *, head: bool = False, tls: ssl.SSLContext | None = None) -> Answer:
    """The answer to one request on a connection of its own, which has ended then."""
    with connect(addr, tls) as conn:
        conn.write(request() if data is None else data)
        return Reader(conn).answer(head=head)


async def begin(send: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    """Begin a response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def say(send: Any, body: bytes = b"", more: bool = False) -> None:
    """Send a part of its body."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def whole_body(receive: Any) -> bytes:
    """The body of a request."""
    parts = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers always the same."""
    await begin(send)
    await say(send, b"hello")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """One that gives back the body."""
    body = await whole_body(receive)
    await begin(send)
    await say(send, body)
