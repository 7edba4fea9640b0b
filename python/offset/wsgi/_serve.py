"""`serve`: an application at an address, until it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import stat
import threading
from typing import TYPE_CHECKING, Any

from offset import _failure, _run, _runtime, context, syscall
from offset.net import _address
from offset.net._listen import Listener, UnixFile, bound
from offset.os import signal as os_signal
from offset.wsgi import _log
from offset.wsgi._limits import Limits
from offset.wsgi._load import LoadError, load
from offset.wsgi._server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset.context import Context
    from offset.wsgi._connection import Application
    from offset.wsgi._reload import Watcher

    Signals = tuple[signal.Signals, ...]
    Bind = str | list[str] | tuple[str, ...]

# For so many seconds a program that is to be loaded again when it changes is not looked at.
_LOOK = 0.5

# What ends it. A terminal's SIGINT reaches workers, too, whom their parent tells.
_OF_PROGRAMS = (signal.SIGTERM, signal.SIGINT)
_OF_WORKERS = (signal.SIGTERM,)


def serve(
    app: Application | str,
    bind: Bind = "127.0.0.1:8000",
    on_ready: Callable[[str], object] | None = None,
    *,
    ready: Any = None,
    stop: Context | None = None,
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    access_log: Any = None,
    proxy_protocol: bool = False,
    reuse_port: bool = False,
    backlog: int = 1024,
    workers: int = 1,
    reload: bool = False,
    grace: float | None = 30.0,
    signals: bool | None = None,
    server_header: str | None = None,
) -> None:
    """Serve a WSGI application over HTTP/1.1 until it is stopped. Each connection is a goroutine.

    `app` is the application, or its name as "module:attribute". `bind` is "host:port", "unix:/path" (or
    "unix:@name"), or a list of these; port 0 takes a free one. Once it listens `on_ready` is called with the
    address, and the address is sent on the channel `ready`; of several, with the first.

    It may be called inside a goroutine or, outside of `run`, by the main thread, which then runs it. It is stopped
    by the end of the context `stop`, by SIGTERM and SIGINT, and by the end of the goroutine that called it. Signals
    are looked after, unless `signals` says otherwise, where the call is all there is: outside of `run`, or in its
    main goroutine. When it is stopped it accepts no more, requests that are being answered have `grace` seconds to
    end, and then it returns. A second signal ends that wait.

    `tls` is an `ssl.SSLContext` with a certificate. `limits` says how large and how slow requests may be.
    `access_log` is True for a line on stdout for each request, a file to write it to, or a function that is called
    with an `Access`. With `proxy_protocol` each connection begins with a header of the PROXY protocol, as load
    balancers send; addresses are taken from it, so nobody else may reach the address. `reuse_port` lets others
    listen at the same address. `server_header` is the header Server, "" for none.

    With `workers` more than 1, or `reload`, the calling thread must be the main one, outside of `run`: processes
    serve, and this one starts them again when they end; SIGHUP replaces them one by one. `reload` replaces them when
    a file of the program changes, for which `app` must be a name.

    Raises OSError if it cannot listen, TypeError and ValueError for what it cannot be told.
    """
    limits = Limits() if limits is None else limits
    if not isinstance(limits, Limits):
        raise TypeError(f"limits must be an offset.wsgi.Limits, not {type(limits).__name__}")
    if not isinstance(app, str) and not callable(app):
        raise TypeError(f"serve() needs a WSGI application or its name, not {type(app).__name__}")
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext with a certificate, not {type(tls).__name__}")
    if workers < 1:
        raise ValueError(f"there must be at least one worker, not {workers}")
    options = Options(app, bind, on_ready, ready, stop, tls, limits, access_log, proxy_protocol, reuse_port, backlog)
    options.grace, options.server_header = grace, server_header
    _log.logger(access_log)
    if workers > 1 or reload:
        if _runtime.current() is not None or threading.current_thread() is not threading.main_thread():
            raise RuntimeError("several workers, and reload, are for the main thread, outside of run()")
        if reload and not isinstance(app, str):
            raise ValueError('reload needs the name of the application, "module:attribute": it is imported again')
        from offset.wsgi import _workers

        _workers.supervise(options, workers, reload)
        return
    if signals is None:
        signals = _is_main()
    numbers = _OF_PROGRAMS if signals else ()
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

    grace: float | None = 30.0
    server_header: str | None = None
    multiprocess = False

    def __init__(
        self,
        app: Application | str,
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

    def application(self) -> Application:
        """Give the application, imported if it has to be."""
        return load(self.app) if isinstance(self.app, str) else self.app


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
    """Remove the file of a Unix socket at which nobody listens any more."""
    if path.startswith("@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        # The answer of any other file would be the same.
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
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
        raise SystemExit(f"offset.wsgi: {error}") from None
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

    _runtime.go(watch).name = "offset.wsgi reload"
    serve_here(options, _OF_WORKERS, listening)
    return ctx.err() is not None


def serve_here(options: Options, signals: Signals, listening: list[Listener]) -> None:
    """Serve in this goroutine, until the end, which `signals` bring about."""
    server = Server(
        options.application(),
        listening,
        options.limits,
        tls=options.tls,
        log=_log.logger(options.access_log),
        proxy_protocol=options.proxy_protocol,
        multiprocess=options.multiprocess,
        software=options.server_header,
    )
    came: _runtime.Chan[Any] = _runtime.Chan(8, "offset.wsgi signals")
    try:
        if signals:
            os_signal.notify(came, *signals)
        server.start()
        address = address_of(server._listeners[0]._sock)
        if options.on_ready is not None:
            options.on_ready(address)
        if options.ready is not None:
            options.ready.send(address)
        over: Any = _runtime.nilchan if options.stop is None else (options.stop.done() or _runtime.nilchan)
        _runtime.select(came.if_recv(), over.if_recv())
        if signals:
            # The next one ends the wait for requests.
            hurried = _runtime.go(_hurry, came, server)
            hurried.name = "offset.wsgi signals"
        server.stop(options.grace)
    finally:
        if signals:
            os_signal.stop(came)
            came.close()
        server.close()


def _hurry(came: _runtime.Chan[Any], server: Server) -> None:
    for _ in came:
        server.close()
