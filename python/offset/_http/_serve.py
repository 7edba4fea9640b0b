"""Serving an application at an address, until it is stopped: what all kinds of applications have in common."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import signal
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import offset
from offset import _failure, _run, _runtime, context, syscall
from offset._duration import seconds
from offset._http import _log, _server
from offset._http._limits import Limits
from offset._http._load import LoadError, load
from offset._http._server import Server
from offset.net import _address, _tls
from offset.net._listen import Listener, UnixFile, bound
from offset.os import signal as os_signal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from offset._http._reload import Watcher
    from offset._http._service import Service
    from offset.context import Context

    Signals = tuple[signal.Signals, ...]
    Bind = str | list[str] | tuple[str, ...]

# For so many seconds a program that is to be loaded again when it changes is not looked at.
_LOOK = 0.5

# What ends it, the end of its terminal too. A terminal's SIGINT reaches workers, whom their parent tells.
_OF_PROGRAMS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OF_WORKERS = (signal.SIGTERM,)


class Kind(NamedTuple):
    """A kind of application, and who serves it."""

    name: str
    """What messages begin with, and goroutines are called."""
    what: str
    """What an application of this kind is called."""
    service: Callable[[Any, Options], Service]
    """Makes what serves an application."""


def serve(
    kind: Kind,
    app: Any,
    bind: Bind,
    on_ready: Callable[[str], object] | None,
    *,
    ready: Any,
    stop: Context | None,
    tls: ssl.SSLContext | None,
    limits: Limits | None,
    access_log: Any,
    proxy_protocol: bool,
    reuse_port: bool,
    backlog: int,
    workers: int,
    reload: bool,
    grace: float | None,
    signals: bool | None,
    server_header: str | None,
) -> None:
    """Serve an application of some kind; see `offset.wsgi.serve`."""
    limits = Limits() if limits is None else limits
    if not isinstance(limits, Limits):
        raise TypeError(f"limits must be an {kind.name}.Limits, not {type(limits).__name__}")
    if not isinstance(app, str) and not callable(app):
        raise TypeError(f"serve() needs {kind.what} or its name, not {type(app).__name__}")
    if tls is not None:
        _tls.check(tls, server_side=True)
    if on_ready is not None and not callable(on_ready):
        raise TypeError(f"on_ready is a function that is called with the address, not {type(on_ready).__name__}")
    if ready is not None and not callable(getattr(ready, "send", None)):
        raise TypeError(f"ready is a channel on which the address is sent, not {type(ready).__name__}")
    if stop is not None and not callable(getattr(stop, "done", None)):
        raise TypeError(f"stop is a context whose end stops the server, not {type(stop).__name__}")
    if grace is not None:
        grace = seconds(grace)
    if workers < 1:
        raise ValueError(f"there must be at least one worker, not {workers}")
    options = Options(app, bind, on_ready, ready, stop, tls, limits, access_log, proxy_protocol, reuse_port, backlog)
    options.kind, options.grace, options.server_header = kind, grace, server_header
    _log.logger(access_log, str)
    if workers > 1 or reload:
        if _runtime.current() is not None or threading.current_thread() is not threading.main_thread():
            raise RuntimeError("several workers, and reload, are for the main thread, outside of run()")
        if reload and not isinstance(app, str):
            raise ValueError('reload needs the name of the application, "module:attribute": it is imported again')
        from offset._http import _workers

        _workers.supervise(options, workers, reload)
        return
    if signals is None:
        signals = _is_main()
    # One that was ignored from the start stays so, as under nohup.
    numbers = tuple(each for each in _OF_PROGRAMS if not os_signal.ignored(each)) if signals else ()
    # Not in the run: that would report, as what a goroutine has raised, where it cannot listen.
    listening = listeners(options.sockets())
    try:
        if _runtime.current() is None:
            _run.run(serve_here, options, numbers, listening)
        else:
            serve_here(options, numbers, listening)
    finally:
        for listener in listening:
            listener.close()


class Options:
    """What `serve` was told."""

    kind: Kind
    grace: float | None = 30.0
    server_header: str | None = None
    multiprocess = False

    def __init__(
        self,
        app: Any,
        bind: Bind,
        on_ready: Callable[[str], object] | None,
        ready: Any,
        stop: Context | None,
        tls: ssl.SSLContext | None,
        limits: Limits,
        access_log: Any,
        proxy_protocol: bool,
        reuse_port: bool,
        backlog: int,
    ) -> None:
        self.app = app
        self.addresses: list[str] = list(bind) if isinstance(bind, list | tuple) else [bind]
        self.on_ready = on_ready
        self.ready = ready
        self.stop = stop
        self.tls = tls
        self.limits = limits
        self.access_log = access_log
        self.proxy_protocol = proxy_protocol
        self.reuse_port = reuse_port
        self.backlog = backlog
        if not self.addresses:
            raise ValueError("there is no address to serve at")
        for address in self.addresses:
            if not isinstance(address, str):
                what = type(address).__name__
                raise TypeError(f'an address to serve at is a string, "host:port" or "unix:/path", not {what}')

    def sockets(self, only_bound: bool = False) -> list[socket.socket]:
        """Listen at all addresses; with `only_bound` keep them for those who will."""
        made: list[socket.socket] = []
        try:
            for address in self.addresses:
                made.append(_listening(address, self.reuse_port, None if only_bound else self.backlog))
        except BaseException:
            for sock in made:
                sock.close()
            raise
        return made

    def sockets_again(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Listen where `sockets` do, beside them."""
        made = []
        for address, sock in zip(self.addresses, sockets, strict=True):
            # By the name that it was told, which may mean both versions of IP.
            host, _, _ = address.rpartition(":")
            made.append(_listening(f"{host}:{sock.getsockname()[1]}", True, self.backlog))
        for sock in sockets:
            sock.close()
        return made

    def application(self) -> Callable[..., Any]:
        """Give the application, imported if it has to be."""
        app: Callable[..., Any] = load(self.app) if isinstance(self.app, str) else self.app
        return app

    def service(self, make: type[Service], line: Callable[[Any], str], app: Any) -> Service:
        """Make what serves an application; `line` is how it is put into an access log."""
        software = f"offset/{offset.__version__}" if self.server_header is None else self.server_header
        return make(app, self.limits, software, _log.logger(self.access_log, line), _server.report)


def is_coloured(app: Any) -> bool:
    """Tell whether calling something gives a coroutine."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _is_main() -> bool:
    current, active = _runtime.current(), _failure.active()
    if current is None:
        return threading.current_thread() is threading.main_thread()
    return active is not None and active.on_main_thread and active.is_main(current)


def _listening(address: str, reuse_port: bool, backlog: int | None) -> socket.socket:
    network, where = ("unix", address[5:]) if address.startswith("unix:") else ("tcp", address)
    if network == "unix":
        _remove_stale(where)
    sock = bound(network, where, socket.SOCK_STREAM, reuse_port=reuse_port and network == "tcp")
    try:
        if backlog is not None:
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove the file of a Unix socket at which nobody listens any more; raise OSError for one that is none."""
    if path.startswith("@"):
        return
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        # Whoever wants to make it says what is wrong.
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, f"{path} is there, and is no socket: it is left alone")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        # One whose queue is full is at work, and not waited for.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def listeners(sockets: list[socket.socket], inherited: bool = False) -> list[Listener]:
    """Make listeners of sockets that listen; the files of those that are `inherited` are somebody else's."""
    made = []
    for sock in sockets:
        sock.setblocking(False)
        listener = Listener(sock, "unix" if sock.family == socket.AF_UNIX else "tcp")
        if inherited:
            listener._file._path = None
        made.append(listener)
    return made


def listeners_files(sockets: list[socket.socket]) -> list[UnixFile]:
    """Give the files of those that are Unix sockets."""
    return [UnixFile(sock) for sock in sockets]


def address_of(sock: socket.socket) -> str:
    """Give the address of a socket as `bind` takes it."""
    return ("unix:" if sock.family == socket.AF_UNIX else "") + _address.text(sock.getsockname())


def serve_worker(options: Options, sockets: list[socket.socket], watcher: Watcher | None) -> bool:
    """Serve in the main goroutine of a worker; tell whether it ended because a file has changed."""
    try:
        options.app = options.application()
    except LoadError as error:
        raise SystemExit(f"{options.kind.name}: {error}") from None
    listening = listeners(sockets, inherited=True)
    if watcher is None:
        serve_here(options, _OF_WORKERS, listening)
        return False
    ctx, cancel = context.with_cancel(context.background())
    options.stop = ctx

    def watch() -> None:
        while not syscall.blocking(watcher.changed):
            _runtime.sleep(_LOOK)
        cancel()

    _runtime.go(watch).name = f"{options.kind.name} reload"
    serve_here(options, _OF_WORKERS, listening)
    return ctx.err() is not None


def serve_here(options: Options, signals: Signals, listening: list[Listener]) -> None:
    """Serve in this goroutine, until the end, which `signals` bring about."""
    service = options.kind.service(options.application(), options)
    server = Server(
        service,
        listening,
        tls=options.tls,
        proxy_protocol=options.proxy_protocol,
        multiprocess=options.multiprocess,
    )
    came: _runtime.Chan[Any] = _runtime.Chan(8, f"{options.kind.name} signals")
    stopped: Any = _runtime.nilchan if options.stop is None else (options.stop.done() or _runtime.nilchan)

    def over(case: Any) -> bool:
        index: int = _runtime.select(case, came.if_recv(), stopped.if_recv()).index
        return index > 0

    try:
        if signals:
            os_signal.notify(came, *signals)
        try:
            if service.open(over):
                return
            server.start()
            address = address_of(server._listeners[0]._sock)
            if options.on_ready is not None:
                options.on_ready(address)
            if options.ready is not None:
                options.ready.send(address)
            over(_runtime.nilchan.if_recv())
            if signals:
                # The next one ends the wait for requests.
                hurried = _runtime.go(_hurry, came, server)
                hurried.name = f"{options.kind.name} signals"
            server.stop(options.grace)
        finally:
            server.close()
            service.close(options.grace)
    finally:
        if signals:
            os_signal.stop(came)
            came.close()


def _hurry(came: _runtime.Chan[Any], server: Server) -> None:
    for _ in came:
        server.close()
