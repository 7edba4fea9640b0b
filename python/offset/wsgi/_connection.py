"""A connection: its requests, one after the other, each a call of the application.

Invariants:

* Between two requests nothing of the last one is held here: an idle connection keeps no object of the application
  alive.
* What an application returned is closed, if it can be, whatever happened to its response.
* An exception of an application is reported, and answered if nothing of its response has gone out; otherwise the
  connection ends before the response does, so that a client sees that it was cut.
"""

from __future__ import annotations

import contextlib
import http as _http
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset._errors import RequestError
from offset.net._tls import TLSConn
from offset.wsgi import _file
from offset.wsgi._file import FileWrapper
from offset.wsgi._input import Input
from offset.wsgi._log import Access
from offset.wsgi._upgrade import UpgradedSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._runtime import Http
    from offset.net._conn import Conn
    from offset.wsgi._limits import Limits

    Application = Callable[[dict[str, Any], Callable[..., Any]], Any]

# What `respond` and `finish` of an Http say.
_WRONG = 2

# For so many seconds, and so many bytes, a client that still sends may take to read why it is not listened to.
_FAREWELL = 2.0
_FAREWELL_BYTES = 1 << 20


class _Gone(Exception):
    """The client has."""


class Service:
    """What the connections of a server share: the application and how it is served.

    A subclass may put something around each answer: `special`, which has all of them if `observed` is true, and
    those to requests with a body or to another protocol in any case. After `most` requests `enough` is called.
    """

    most = sys.maxsize

    def __init__(
        self,
        app: Application,
        limits: Limits,
        software: str,
        log: Callable[[Access], object] | None,
        report: Callable[[str], object],
    ) -> None:
        self.app = app
        self.times = limits._times()
        self.sizes = limits._sizes()
        self.write_timeout = limits.write_timeout
        self.software = software.encode("latin-1")
        self.log = log
        self.report = report
        self.observed = log is not None
        self.requests = 0

    def enough(self) -> None:
        """Do what there is to do after `most` requests."""

    def believes(self, conn: Conn) -> bool:
        """Tell whether whoever has connected may say by the PROXY protocol who is behind it."""
        return True

    def application(self, conn: Conn) -> Application:
        """Give the application for a connection."""
        return self.app

    def talk(self, conn: Conn, base: dict[str, Any], http: Http) -> None:
        """Answer the requests of a connection, until it is over."""
        next_request, start, respond, app = http.next, http.start_response, http.respond, self.application(conn)
        log, observed = self.log, self.observed
        while (environ := next_request()) is not None:
            self.requests += 1
            special = http.special
            if special or observed:
                self.special(conn, http, app, environ, special)
            else:
                self.answer(conn, http, app, environ, start, respond)
            # Its objects may be what others wait for.
            environ = None
            if self.requests >= self.most:
                self.enough()
        if http.refusal is not None:
            status, reason = http.refusal
            self._refuse(http, status, reason)
            if log is not None:
                unknown = {**base, "REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "-"}
                self._note(log, Access(unknown, status, http.sent, 0.0))
        if http.unread:
            _say_goodbye(conn)

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
            self.answer(conn, http, app, environ, http.start_response, http.respond, upgraded)
        finally:
            if body is not None:
                body._end()
            if self.log is not None:
                self._note(self.log, Access(environ, http.status, http.sent, time.perf_counter() - begun))

    def _note(self, log: Callable[[Access], object], access: Access) -> None:
        """Tell the access log. That it fails, on a full disk say, is nothing to the client."""
        try:
            log(access)
        except Exception as error:
            self.report(f"offset.wsgi: the access log has failed\n{''.join(traceback.format_exception(error))}")

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
                    f"offset.wsgi: the response to {environ['REQUEST_METHOD']} {environ['RAW_URI']} "
                    "was not as long as its Content-Length said\n"
                )
        except _Gone:
            http.detach()
        except Exception as error:
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
                except Exception as error:
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

    def _failed(self, http: Http, environ: dict[str, Any], error: Exception, answered: bool) -> None:
        """Report an error of the application, and answer for it."""
        status, reason = 500, "the application has failed"
        if isinstance(error, RequestError) and 400 <= error.status <= 599:
            # It is the client's.
            status, reason = error.status, error.reason
        else:
            what = f"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI')}"
            self.report(f"offset.wsgi: error in {what}\n{''.join(traceback.format_exception(error))}")
        if answered:
            self._refuse(http, status, reason)

    def _refuse(self, http: Http, status: int, reason: str) -> None:
        """Answer with an error, if nothing was answered yet; the connection is not kept."""
        try:
            if http.take_back():
                phrase = _phrase(status)
                body = f"{status} {phrase}: {reason}\n".encode()
                http.start_response(f"{status} {phrase}", [("Content-Type", "text/plain; charset=utf-8")])
                http.respond([body])
                return
        except OSError:
            pass
        http.detach()


def _phrase(status: int) -> str:
    try:
        return _http.HTTPStatus(status).phrase
    except ValueError:
        # One that only some know.
        return "Client Error" if status < 500 else "Server Error"


def _say_goodbye(conn: Conn) -> None:
    """Let the client read its answer before the connection ends: bytes that nobody reads would have it reset."""
    with contextlib.suppress(OSError):
        conn.set_deadline(_runtime.now() + _FAREWELL)
        conn.close_write()
        left = _FAREWELL_BYTES
        while left > 0 and (data := conn.read(65_536)):
            left -= len(data)
