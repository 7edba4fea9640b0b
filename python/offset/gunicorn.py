"""A worker of gunicorn's whose connections are goroutines: `gunicorn -k offset.gunicorn.Worker module:app`.

gunicorn has the processes, their signals, timeouts and logs; what comes on a connection is read and answered as by
`offset.wsgi.serve`. Settings of gunicorn's that concern requests hold here: `worker_connections`, `keepalive`,
`timeout`, `graceful_timeout`, `max_requests`, `limit_request_*`, `proxy_protocol`, `forwarded_allow_ips`,
`secure_scheme_headers`, those of TLS, the hooks, the access log and statsd. HTTP/2 is not spoken, and what RFC 9112
forbids is refused whatever `permit_*` says.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import queue
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from gunicorn import config, glogging, sock
from gunicorn.http.wsgi import base_environ
from gunicorn.workers import base

from offset import _run, _runtime
from offset._errors import DeadlineExceeded
from offset._http import _serve
from offset._http._limits import Limits
from offset._http._server import Server, host_and_port
from offset._http._service import line_of
from offset.wsgi._connection import Service, environ_of
from offset.wsgi._file import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from offset._runtime import Http
    from offset.net._conn import Conn
    from offset.wsgi._connection import Application

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

__all__ = ["Worker"]

# How often, in seconds, there is a sign of life, at least.
_BEAT = 1.0
# How long, in seconds, what is left at the end may clean up.
_GRACE = 1.0


# gunicorn has no types.
class Worker(base.Worker):  # type: ignore[misc]
    """Serves in one process of gunicorn's; see the module."""

    def run(self) -> None:
        """Serve until gunicorn says that it is enough."""
        _run.run(self._serve, grace=_GRACE)

    def _serve(self) -> None:
        cfg = self.cfg
        limits = _limits(cfg)
        service = _Service(self, limits)
        server = Server(
            service,
            _serve.listeners([listening.sock for listening in self.sockets], inherited=True),
            tls=sock.ssl_context(cfg) if cfg.is_ssl else None,
            proxy_protocol=cfg.proxy_protocol not in (False, None, "off"),
        )
        server.base.update(base_environ(cfg))
        server.base.update({"wsgi.multithread": True, "wsgi.file_wrapper": FileWrapper})
        server.base["SCRIPT_NAME"] = service.script_name
        beat = _beat(self.timeout)
        woken = _runtime.Fd(self.PIPE[0])
        try:
            server.start()
            while self.alive and self.ppid == os.getppid():
                self.notify()
                with _unless_over():
                    woken.wait_read(timeout=beat)
                with contextlib.suppress(BlockingIOError):
                    while os.read(self.PIPE[0], 4096):
                        pass
            if self.alive:
                self.log.info("Parent changed, shutting down: %s", self)
            server.drain()
            end = time.monotonic() + cfg.graceful_timeout
            while (left := end - time.monotonic()) > 0 and not server.wait(min(left, beat)):
                self.notify()
        finally:
            woken.close()
            server.close()

    def init_signals(self) -> None:
        """Take over the signals, with those that have come since the fork."""
        arbiter = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        super().init_signals()
        # Until here they went to this process's copy of gunicorn's main loop, which does not run here.
        early = _queued(getattr(arbiter, "SIG_QUEUE", []))
        if signal.SIGTERM in early:
            self.handle_exit(signal.SIGTERM, None)
        if signal.SIGQUIT in early or signal.SIGINT in early:
            self.handle_quit(signal.SIGQUIT, None)

    def enough(self) -> None:
        """Serve no more than what is being served."""
        if self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive: bool = False
            self._wake()

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM, on the main thread."""
        super().handle_exit(number, frame)
        # The byte that came with the signal may have been read before this was called.
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self.PIPE[1], b"1")


def _queued(signals: Any) -> list[int]:
    if isinstance(signals, list):
        # Older versions of gunicorn have one.
        return signals
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(signals.get_nowait())
    return found


@contextlib.contextmanager
def _unless_over() -> Any:
    try:
        yield
    except DeadlineExceeded:
        raise
    except TimeoutError:
        pass


def _beat(timeout: float) -> float:
    # A worker is told half of what gunicorn waits for one; 0 is for ever.
    return min(_BEAT, timeout / 2 or _BEAT)


def _limits(cfg: Any) -> Limits:
    field = cfg.limit_request_field_size
    # As gunicorn's own: none is as many as there may be.
    fields = min(cfg.limit_request_fields or 256, 256)
    return Limits(
        # With the method and the version that its limit includes.
        target=cfg.limit_request_line or None,
        fields=fields,
        head=(cfg.limit_request_line or 65_536) + fields * (field + 2) + 4 if field else None,
        body=None,
        idle_timeout=cfg.keepalive or 10.0,
        connections=cfg.worker_connections,
    )


class _Request:
    """A request as hooks and logs of gunicorn's find it."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ["RAW_URI"]
        self.path = environ.get("PATH_INFO", "")
        self.query = environ.get("QUERY_STRING", "")
        self.fragment = ""
        self.scheme = environ["wsgi.url_scheme"]
        self.version = (1, 0 if environ["SERVER_PROTOCOL"] == "HTTP/1.0" else 1)
        self.headers = [
            (name.removeprefix("HTTP_").replace("_", "-"), value)
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ]
        self.remote_addr = (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))


class _Response:
    """A response as they find it."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.sent = 0
        self.response_length: int | None = None
        self.headers_sent = False

    @property
    def status_code(self) -> int:
        """The number in front of the status."""
        return int(self.status.split(None, 1)[0])


class _Service(Service):
    def __init__(self, worker: Worker, limits: Limits) -> None:
        cfg, log = worker.cfg, worker.log
        super().__init__(worker.wsgi, limits, "gunicorn", None, log.error)
        self._worker = worker
        self.script_name = os.environ.get("SCRIPT_NAME", "")
        self.most = worker.max_requests
        # What is left at its default costs nothing.
        debug = log.error_log.isEnabledFor(10)
        self._before = cfg.pre_request if debug or cfg.pre_request is not config.PreRequest.default else None
        self._after = cfg.post_request if cfg.post_request is not config.PostRequest.default else None
        # Other loggers count requests, whether there is an access log or not.
        own = type(log).access is not glogging.Logger.access
        self._access = log.access if own or getattr(log, "access_log_enabled", True) else None
        self._schemes = {
            "HTTP_" + name.upper().replace("-", "_"): value for name, value in cfg.secure_scheme_headers.items()
        }
        self._forwarders, self._proxies = _networks(cfg.forwarded_allow_ips), _networks(cfg.proxy_allow_ips)
        self.observed = bool(self._before or self._after or self._access or self.script_name or not cfg.keepalive)

    def talk(self, conn: Conn, base: dict[str, Any], http: Http) -> None:
        super().talk(conn, base, http)
        if http.refusal is not None:
            status, reason = http.refusal
            self._worker.log.warning("Invalid request from ip=%s: %s", base["REMOTE_ADDR"], reason)
            if self._access is not None:
                environ = environ_of(base, line_of(http))
                response = _Response()
                response.status, response.sent = str(status), http.sent
                self._access(response, _Request(environ), environ, datetime.timedelta())

    def enough(self) -> None:
        self._worker.enough()

    def believes(self, conn: Conn) -> bool:
        return _is_one_of(conn, self._proxies)

    def application(self, conn: Conn) -> Application:
        app, schemes = super().application(conn), list(self._schemes.items())
        if not schemes or not _is_one_of(conn, self._forwarders):
            return app

        def behind_a_proxy(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            for name, value in schemes:
                if environ.get(name) == value:
                    environ["wsgi.url_scheme"] = "https"
            return app(environ, start_response)

        return behind_a_proxy

    def special(self, conn: Conn, http: Http, app: Application, environ: dict[str, Any], special: int) -> None:
        if not self.observed:
            super().special(conn, http, app, environ, special)
            return
        path = environ["PATH_INFO"]
        if self.script_name and (path + "/").startswith(self.script_name + "/"):
            environ["PATH_INFO"] = path[len(self.script_name) :]
        if not self._worker.cfg.keepalive:
            http.drain()
        request, response = _Request(environ), _Response()
        begun = time.perf_counter()
        if self._before is not None:
            try:
                self._before(self._worker, request)
            except Exception as error:
                self._failed(http, environ, error, True)
                return
        try:
            super().special(conn, http, _recording(app, response), environ, special)
        finally:
            took = datetime.timedelta(seconds=time.perf_counter() - begun)
            response.sent, response.headers_sent = http.sent, http.sent_head
            if not response.status or response.status_code != http.status:
                response.status = str(http.status)
            if self._access is not None:
                self._access(response, request, environ, took)
            if self._after is not None:
                try:
                    self._after(self._worker, request, environ, response)
                except Exception:
                    self._worker.log.exception("Exception in post_request hook")


def _networks(allowed: list[str]) -> list[Network] | None:
    """Read a setting of addresses; None is whoever it may be."""
    return None if "*" in allowed else [ipaddress.ip_network(each, strict=False) for each in allowed]


def _is_one_of(conn: Conn, networks: list[Network] | None) -> bool:
    """Tell whether the socket's other side, whoever that may speak for, is in one of the networks."""
    # gunicorn's own rule: whoever comes by a Unix socket is trusted.
    if networks is None or conn._sock.family == socket.AF_UNIX:
        return True
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(host_and_port(conn._peer)[0])
        return any(ip in network for network in networks)
    return False


def _recording(app: Application, response: _Response) -> Application:
    """Have the application's status and headers put into `response`."""

    def recorded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            write = start_response(status, headers, exc_info)
            response.status, response.headers = status, headers
            return write

        return app(environ, start)

    return recorded
