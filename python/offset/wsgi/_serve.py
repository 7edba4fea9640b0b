"""`serve`: a WSGI application at an address, until it is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offset._http import _serve
from offset.wsgi import _access
from offset.wsgi._connection import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from offset._http._limits import Limits
    from offset._http._serve import Bind, Options
    from offset.context import Context
    from offset.wsgi._connection import Application


def service(app: Application, options: Options) -> Service:
    """Make what serves an application."""
    if _serve.is_coloured(app):
        raise ValueError("this is an application of ASGI, a coroutine function: offset.asgi.serve() serves it")
    made = options.service(Service, _access.line, app)
    assert isinstance(made, Service)
    return made


KIND = _serve.Kind("offset.wsgi", "a WSGI application", service)


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
    by the end of the context `stop`, by SIGTERM, SIGINT and SIGHUP, of which one that was ignored from the start,
    as under nohup, stays ignored, and by the end of the goroutine that called it. Signals are looked after, unless
    `signals` says otherwise, where the call is all there is: outside of `run`, or in its main goroutine. When it is
    stopped it accepts no more, requests that are being answered have `grace` seconds to end, and then it returns. A
    second signal ends that wait.

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
    _serve.serve(
        KIND,
        app,
        bind,
        on_ready,
        ready=ready,
        stop=stop,
        tls=tls,
        limits=limits,
        access_log=access_log,
        proxy_protocol=proxy_protocol,
        reuse_port=reuse_port,
        backlog=backlog,
        workers=workers,
        reload=reload,
        grace=grace,
        signals=signals,
        server_header=server_header,
    )
