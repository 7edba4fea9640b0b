"""What the connections of a server share, whatever kind of application it serves.

A kind of application is a subclass of `Service`, which has the requests of a connection (`answers`). What is here is
how requests are refused and errors told, and what a server asks of it at its beginning and its end.
"""

from __future__ import annotations

import contextlib
import http as _http
import sys
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

from offset import _runtime
from offset._errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._http._limits import Limits
    from offset._runtime import Http
    from offset.net._conn import Conn

    Pair = tuple[str, str]
    Line = tuple[str, str, str]

# For so many seconds, and so many bytes, a client that still sends may take to read why it is not listened to.
_FAREWELL = 2.0
_FAREWELL_BYTES = 1 << 20


class Service:
    """What the connections of a server share: the application and how it is served.

    After `most` requests `enough` is called.
    """

    # What messages begin with, and goroutines are called.
    name: ClassVar[str]

    most = sys.maxsize

    def __init__(
        self,
        app: Any,
        limits: Limits,
        software: str,
        log: Callable[[Any], object] | None,
        report: Callable[[str], object],
    ) -> None:
        self.app = app
        self.limits = limits
        self.times = limits._times()
        self.sizes = limits._sizes()
        self.write_timeout = limits.write_timeout
        self.software = software.encode("latin-1")
        self.log = log
        self.report = report
        self.observed = log is not None
        self.requests = 0

    # What a kind of application says: each has its own. What follows behind it may be left as it is.

    def base(self, tls: bool, multiprocess: bool) -> dict[str, Any]:
        """Give what all that is made of requests begins with."""
        raise NotImplementedError

    def about(self, base: dict[str, Any], conn: Conn, own: Pair, peer: Pair) -> dict[str, Any]:
        """Give `base` with what there is to say about a connection: the addresses of its two sides."""
        raise NotImplementedError

    def answers(self, conn: Conn, base: dict[str, Any], http: Http) -> None:
        """Answer the requests of a connection, until it is over or one is refused."""
        raise NotImplementedError

    def described(self, request: dict[str, Any]) -> str:
        """Give the method and the target of a request, for a message."""
        raise NotImplementedError

    def refused(self, base: dict[str, Any], line: Line, status: int, sent: int) -> None:
        """Put a request that was refused before the application saw it into the access log."""

    # What its server asks for.

    def open(self, over: Callable[[Any], bool]) -> bool:
        """Begin; `over(case)` waits for a case of `select`, and tells whether the end has come before. So does this."""
        return False

    def drain(self) -> None:
        """Begin nothing new, and end what would go on for long."""

    def settle(self, timeout: float | None) -> None:
        """Wait, for up to `timeout` seconds, for what goes on after the last connection."""

    def cut(self) -> None:
        """End at once what is being done."""

    def close(self, timeout: float | None) -> None:
        """End, within `timeout` seconds."""

    def enough(self) -> None:
        """Do what there is to do after `most` requests."""

    def believes(self, conn: Conn) -> bool:
        """Tell whether whoever has connected may say by the PROXY protocol who is behind it."""
        return True

    # What connections do.

    def note(self, access: Any) -> None:
        """Tell the access log, if there is one. That it fails, on a full disk say, is nothing to the client."""
        if self.log is None:
            return
        try:
            self.log(access)
        except Exception as error:
            self.report(f"{self.name}: the access log has failed\n{''.join(traceback.format_exception(error))}")

    def talk(self, conn: Conn, base: dict[str, Any], http: Http) -> None:
        """Answer the requests of a connection, until it is over."""
        self.answers(conn, base, http)
        if http.refusal is not None:
            status, reason = http.refusal
            self._refuse(http, status, reason)
            self.refused(base, line_of(http), status, http.sent)
        if http.unread:
            say_goodbye(conn)

    def _failed(self, http: Http, request: dict[str, Any], error: BaseException, answered: bool) -> None:
        """Report an error of the application, and answer for it."""
        status, reason = 500, "the application has failed"
        if isinstance(error, RequestError) and 400 <= error.status <= 599:
            # It is the client's.
            status, reason = error.status, error.reason
        else:
            what = "".join(traceback.format_exception(error))
            self.report(f"{self.name}: error in {self.described(request)}\n{what}")
        if answered:
            self._refuse(http, status, reason)

    def _refuse(self, http: Http, status: int, reason: str) -> None:
        """Answer with an error, if nothing was answered yet; the connection is not kept."""
        try:
            if http.take_back():
                phrase = phrase_of(status)
                body = f"{status} {phrase}: {reason}\n".encode()
                http.start_response(f"{status} {phrase}", [("Content-Type", "text/plain; charset=utf-8")])
                http.respond([body])
                return
        except OSError:
            pass
        http.detach()


def line_of(http: Http) -> Line:
    """Give the method, the target and the version of a request that was refused; "-" where that is not known."""
    words = http.refused_line.decode("latin-1").split(" ")
    method, target, version = words if len(words) == 3 else ["-"] * 3
    # One that is too long is no more worth in a log.
    return method, target[:1000], version


def phrase_of(status: int) -> str:
    """Give the words for a status."""
    try:
        return _http.HTTPStatus(status).phrase
    except ValueError:
        # One that only some know.
        return "Client Error" if status < 500 else "Server Error"


def say_goodbye(conn: Conn) -> None:
    """Let the client read its answer before the connection ends: bytes that nobody reads would have it reset."""
    with contextlib.suppress(OSError):
        conn.set_deadline(_runtime.now() + _FAREWELL)
        conn.close_write()
        left = _FAREWELL_BYTES
        while left > 0 and (data := conn.read(65_536)):
            left -= len(data)
