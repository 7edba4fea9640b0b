"""`serve`: an ASGI application at an address, until it is stopped; and how one is told from others."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from offset._http import _serve
from offset.asgi import _access
from offset.asgi._connection import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from offset._http._limits import Limits
    from offset._http._serve import Bind, Options
    from offset.context import Context

    Application = Callable[[dict[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[Any]]

LIFESPANS = ("auto", "on", "off")


def is_asgi(app: Any) -> bool:
    """Tell whether something is an application of ASGI 3: a coroutine function, or an object that is called as one.

    A class is one if its objects can be awaited.
    """
    if inspect.isclass(app):
        return hasattr(app, "__await__")
    return _serve.is_coloured(app)


def is_asgi2(app: Any) -> bool:
    """Tell whether something looks like an application of ASGI 2, which is called with a scope alone."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    single = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [each for each in parameters if each.kind in single and each.default is each.empty]
    return len(positional) == 1 and not any(each.kind == each.VAR_POSITIONAL for each in parameters)


def _is_wsgi(app: Any) -> bool:
    """Tell whether something can be called with an environ and a function, and not with what ASGI gives."""
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return False
    return _takes(signature, 2) and not _takes(signature, 3)


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def is_double_class(app: Any) -> bool:
    """Tell whether something is an application of ASGI 2, and none of another kind: a class of coroutine functions."""
    return inspect.isclass(app) and inspect.iscoroutinefunction(app.__call__) and is_asgi2(app)


def service(app: Application, options: Options, lifespan: str = "auto") -> Service:
    """Make what serves an application."""
    if not is_asgi(app) and is_asgi2(app):
        raise ValueError(
            "this is an application of ASGI 2, which takes a scope alone; one of ASGI 3 takes scope, receive and send "
            "(asgiref.compatibility.guarantee_single_callable makes one of the other)"
        )
    if not is_asgi(app) and _is_wsgi(app):
        raise ValueError(
            "this takes two arguments, as an application of WSGI does; one of ASGI takes scope, receive and send "
            "(offset.wsgi.serve() serves the other kind)"
        )
    made = options.service(Service, _access.line, app)
    assert isinstance(made, Service)
    made.lifespan = lifespan
    return made


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
    lifespan: str = "auto",
) -> None:
    """Serve an ASGI application over HTTP/1.1 and WebSockets until it is stopped.

    Each connection is a goroutine; the application runs on the event loop of `offset.aio`, a task for each request.

    `app` is the application, or its name as "module:attribute". `bind` is "host:port", "unix:/path" (or
    "unix:@name"), or a list of these; port 0 takes a free one. Once it listens `on_ready` is called with the
    address, and the address is sent on the channel `ready`; of several, with the first.

    It may be called inside a goroutine or, outside of `run`, by the main thread, which then runs it. It is stopped
    by the end of the context `stop`, by SIGTERM, SIGINT and SIGHUP, of which one that was ignored from the start,
    as under nohup, stays ignored, and by the end of the goroutine that called it. Signals are looked after, unless
    `signals` says otherwise, where the call is all there is: outside of `run`, or in its main goroutine. When it is
    stopped it accepts no more, requests that are being answered have `grace` seconds to end, and then it returns. A
    second signal ends that wait. The application's shutdown has `grace` seconds, too.

    `tls` is an `ssl.SSLContext` with a certificate. `limits` says how large and how slow requests may be.
    `access_log` is True for a line on stdout for each request, a file to write it to, or a function that is called
    with an `Access`. With `proxy_protocol` each connection begins with a header of the PROXY protocol, as load
    balancers send; addresses are taken from it, so nobody else may reach the address. `reuse_port` lets others
    listen at the same address. `server_header` is the header Server, "" for none.

    With `workers` more than 1, or `reload`, the calling thread must be the main one, outside of `run`: processes
    serve, and this one starts them again when they end; SIGHUP replaces them one by one. `reload` replaces them when
    a file of the program changes, for which `app` must be a name.

    `lifespan` says whether the application is told of its beginning and its end: "auto", "on", where an application
    that does not know of that is an error, or "off". Each worker does so for itself. WebSockets need the package
    websockets.

    Raises OSError if it cannot listen, RuntimeError if the application's startup fails, TypeError and
    ValueError for what it cannot be told.
    """
    if lifespan not in LIFESPANS:
        raise ValueError(f'lifespan is "auto", "on" or "off", not {lifespan!r}')
    _serve.serve(
        _serve.Kind("offset.asgi", "an ASGI application", functools.partial(service, lifespan=lifespan)),
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
