"""A connection: its requests, one after the other, each a call of the application.

Invariants:

* Between two requests nothing of the last one is held here: an idle connection keeps no object of the application
  alive.
* What an application returned is closed, if it can be, whatever happened to its response.
* An exception of an application is reported, and answered if nothing of its response has gone out; otherwise the
  connection ends before the response does, so that a client sees that it was cut.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from offset._http import _service
from offset.net._tls import TLSConn
from offset.wsgi import _file
from offset.wsgi._access import Access
from offset.wsgi._file import FileWrapper
from offset.wsgi._input import EMPTY, Input
from offset.wsgi._upgrade import UpgradedSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._runtime import Http
    from offset.net._conn import Conn

    Pair = tuple[str, str]
    Line = tuple[str, str, str]
    Application = Callable[[dict[str, Any], Callable[..., Any]], Any]

# What an application raises ends its request, and never the server, as if that request had a thread to itself.
_FAILURES = (Exception, SystemExit, KeyboardInterrupt)

# What `respond` and `finish` of an Http say.
_WRONG = 2


class _Gone(Exception):
    """The client has."""


def environ_of(base: dict[str, Any], line: Line) -> dict[str, Any]:
    """Give what there is of the environ of a request that was refused."""
    method, target, version = line
    return {**base, "REQUEST_METHOD": method, "RAW_URI": target, "SERVER_PROTOCOL": version}


class Service(_service.Service):
    """How connections are served by a WSGI application.

    A subclass may put something around each answer: `special`, which has all of them if `observed` is true, and
    those to requests with a body or to another protocol in any case.
    """

    name = "offset.wsgi"

    def base(self, tls: bool, multiprocess: bool) -> dict[str, Any]:
        base = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": self.software.decode("latin-1"),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if tls else "http",
            "wsgi.input": EMPTY,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
        }
        return {**base, "HTTPS": "on"} if tls else base

    def about(self, base: dict[str, Any], conn: Conn, own: Pair, peer: Pair) -> dict[str, Any]:
        names = {"SERVER_NAME": own[0], "SERVER_PORT": own[1], "REMOTE_ADDR": peer[0], "REMOTE_PORT": peer[1]}
        return {**base, **names}

    def described(self, request: dict[str, Any]) -> str:
        return f"{request.get('REQUEST_METHOD')} {request.get('RAW_URI')}"

    def refused(self, base: dict[str, Any], line: Line, status: int, sent: int) -> None:
        self.note(Access(environ_of(base, line), status, sent, 0.0))

    def application(self, conn: Conn) -> Application:
        """Give the application for a connection."""
        app: Application = self.app
        return app

    def answers(self, conn: Conn, base: dict[str, Any], http: Http) -> None:
        next_request, starter, respond, app = http.next, http.starter, http.respond, self.application(conn)
        observed = self.observed
        while (environ := next_request()) is not None:
            self.requests += 1
            special = http.special
            if special or observed:
                self.special(conn, http, app, environ, special)
            else:
                self.answer(conn, http, app, environ, starter(), respond)
            # Its objects may be what others wait for.
            environ = None
            if self.requests >= self.most:
                self.enough()

    def special(self, conn: Conn, http: Http, app: Application, environ: dict[str, Any], special: int) -> None:
        """Answer a request with all that there may be about it."""
        body = upgraded = None
        if special & 1:
            environ["wsgi.input"] = body = Input(http)
        if special & 2:
            # The second is the name by which libraries find the socket of werkzeug's server.
            environ["offset.socket"] = environ["werkzeug.socket"] = upgraded = UpgradedSocket(http, conn)
        begun = time.perf_counter()
        try:
            self.answer(conn, http, app, environ, http.starter(), http.respond, upgraded)
        finally:
            if body is not None:
                body._end()
            if self.log is not None:
                self.note(Access(environ, http.status, http.sent, time.perf_counter() - begun))

    def answer(
        self,
        conn: Conn,
        http: Http,
        app: Application,
        environ: dict[str, Any],
        start: Callable[..., Any],
        respond: Callable[[Any], int],
        upgraded: UpgradedSocket | None = None,
    ) -> None:
        """Call the application and write what it answers."""
        result = None
        try:
            result = app(environ, start)
            if upgraded is not None and upgraded.taken:
                return
            done = 0
            if type(result) is list or type(result) is tuple:
                try:
                    done = respond(result)
                except OSError as error:
                    raise _Gone from error
            if not done:
                done = self._deliver(conn, http, result)
            if done == _WRONG:
                self.report(
                    f"{self.name}: the response to {self.described(environ)} "
                    "was not as long as its Content-Length said\n"
                )
        except _Gone:
            http.detach()
        except _FAILURES as error:
            if upgraded is not None and upgraded.taken:
                if not isinstance(error, OSError):
                    self._failed(http, environ, error, False)
            elif http.gone and isinstance(error, OSError):
                # It has found that out by `write`.
                http.detach()
            else:
                self._failed(http, environ, error, True)
        finally:
            if type(result) is not list and (close := getattr(result, "close", None)) is not None:
                try:
                    close()
                except _FAILURES as error:
                    self._failed(http, environ, error, False)

    def _deliver(self, conn: Conn, http: Http, result: Any) -> int:
        if type(result) is FileWrapper and type(conn) is not TLSConn:
            try:
                done = _file.send(http, conn, result, self.write_timeout)
            except OSError as error:
                raise _Gone from error
            if done is not None:
                return done
        write = http.write
        for chunk in result:
            try:
                write(chunk)
            except OSError as error:
                raise _Gone from error
        try:
            return http.finish()
        except OSError as error:
            raise _Gone from error
