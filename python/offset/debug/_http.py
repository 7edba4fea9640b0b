"""As much of HTTP/1.1 as a page for a few people needs: GET and HEAD, one answer after the other on a connection.

Invariants:

* What a client sends is bounded (`_LONGEST_HEAD`), and so is the time it may take (`_PATIENCE`).
* What is no request, or has a body, is answered and then the connection is closed: nothing that comes after it is
  taken for a request.
* Every answer says that it is not to be kept, guessed at, framed, or used by other origins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from offset import _runtime
from offset.io import BufferedReader, IncompleteReadError, LineTooLongError

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset.net._conn import Conn

# Bytes of a request's lines, together.
_LONGEST_HEAD = 16_384
# For how many seconds a client may be silent, or not take its answer.
_PATIENCE = 60.0

_PHRASES = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_ALWAYS = (
    "Cache-Control: no-store\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
)
_NO_CONTENT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Request(NamedTuple):
    """A request. Names of `headers` are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Answer(NamedTuple):
    """An answer; `policy` is its Content-Security-Policy, `headers` are lines with their ends."""

    body: str = ""
    status: int = 200
    kind: str = "text/plain; charset=utf-8"
    policy: str = _NO_CONTENT
    headers: str = ""


class BadRequest(Exception):
    """What came is no request that is answered here; `answer` says why."""

    def __init__(self, status: int, why: str, headers: str = "") -> None:
        super().__init__(why)
        self.answer = Answer(f"{why}\n", status, headers=headers)


def converse(conn: Conn, respond: Callable[[Request], Answer]) -> None:
    """Answer the requests that come on `conn` until it ends, by either side. Raises OSError if it breaks."""
    reader = BufferedReader(conn, max_line=_LONGEST_HEAD)
    while True:
        conn.set_deadline(_runtime.now() + _PATIENCE)
        method, stays = "GET", False
        try:
            head = reader.read_until(b"\r\n\r\n")
            request = _parse(head)
            method, stays = request.method, _stays(head, request)
            answer = respond(request)
            # Who may not ask takes up no room.
            stays = stays and answer.status not in (401, 403)
        except IncompleteReadError:
            return
        except LineTooLongError:
            answer = Answer("the request is too long\n", 431)
        except BadRequest as error:
            answer, stays = error.answer, False
        conn.set_deadline(_runtime.now() + _PATIENCE)
        conn.write(_bytes(answer, method, stays))
        if not stays:
            # Whoever has sent more is to see the answer before the end.
            conn.close_write()
            return


def refuse(conn: Conn, why: str) -> None:
    """Say that there is no room for a client."""
    conn.set_deadline(_runtime.now() + 1.0)
    conn.write(_bytes(Answer(f"{why}\n", 503), "GET", False))


def _parse(head: bytes) -> Request:
    try:
        first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        parts = urlsplit(target)
    except ValueError:
        raise BadRequest(400, "this is no request of HTTP") from None
    if not version.startswith("HTTP/1.") or not target.startswith("/"):
        raise BadRequest(400, "this is no request of HTTP/1.1 for a path")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400, "a header is broken")
        if headers.setdefault(name.lower(), value.strip()) != value.strip() and name.lower() in _ONCE:
            raise BadRequest(400, f"there are several headers {name}")
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, "only GET and HEAD are answered here", "Allow: GET, HEAD\r\n")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise BadRequest(400, "a request with a body is not answered here")
    return Request(method, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers)


# Headers of which a second one would mean something else to somebody else.
_ONCE = {"host", "authorization", "content-length"}


def _stays(head: bytes, request: Request) -> bool:
    wish = request.headers.get("connection", "").lower()
    return wish != "close" and not head.partition(b"\r\n")[0].endswith(b"HTTP/1.0")


def _bytes(answer: Answer, method: str, stays: bool) -> bytes:
    body = answer.body.encode(errors="backslashreplace")
    head = (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\n"
        f"Content-Type: {answer.kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Content-Security-Policy: {answer.policy}\r\n"
        f"{_ALWAYS}{answer.headers}"
        f"Connection: {'keep-alive' if stays else 'close'}\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if method == "HEAD" else body)
