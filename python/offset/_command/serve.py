"""`offset serve MODULE:APP`: a WSGI or ASGI application over HTTP/1.1, a goroutine a connection."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import ssl
import sys
from typing import TYPE_CHECKING, Any

from offset._command import _arguments

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from offset._http._log import Watched
    from offset._http._serve import Kind, Options
    from offset._http._service import Service

# How many connections may wait to be accepted.
_BACKLOG = 1024

HELP = "serve a WSGI or ASGI application"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("app", metavar="MODULE:APP", help="the application; MODULE alone has it as application or app")
    text = "what kind of application it is (auto: ASGI if it is a coroutine function, or is called as one)"
    add("--interface", choices=("auto", "wsgi", "asgi"), default="auto", help=text)
    text = "whether an ASGI application is told of its beginning and its end (auto: if it knows of that)"
    add("--lifespan", choices=("auto", "on", "off"), default="auto", help=text)
    text = "where to serve: HOST:PORT or unix:PATH; may be given several times (127.0.0.1:8000)"
    add("--bind", action="append", metavar="ADDRESS", help=text)
    add("--workers", type=_arguments.count, default=1, metavar="N", help="so many processes (1)")
    add("--reload", action="store_true", help="load the program again when one of its files changes")
    add("--access-log", metavar="FILE", help="a line for each request; - is the standard output")
    add("--certfile", metavar="FILE", help="serve TLS with this certificate")
    add("--keyfile", metavar="FILE", help="its key, if it is not in the same file")
    add("--proxy-protocol", action="store_true", help="each connection begins with a header of the PROXY protocol")
    add("--reuse-port", action="store_true", help="let other processes listen at the same address")
    add(
        "--grace",
        type=_arguments.seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long requests may take at the end (30)",
    )
    add("--max-body", type=_arguments.count, metavar="BYTES", help="the longest body of a request (1 GiB)")
    add(
        "--max-connections",
        type=_arguments.count,
        metavar="N",
        help="how many connections there may be a process (10000)",
    )
    add(
        "--idle-timeout",
        type=_arguments.seconds,
        metavar="SECONDS",
        help="how long a connection may wait for a request (75)",
    )
    text = "any of the limits of `offset.wsgi.Limits`, none for no limit; may be given several times"
    add("--limit", type=_limit, action="append", default=[], metavar="NAME=VALUE", help=text)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from offset._http import _serve
    from offset._http._limits import Limits

    chosen = {
        "body": options.max_body,
        "connections": options.max_connections,
        "idle_timeout": options.idle_timeout,
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    with contextlib.ExitStack() as stack:
        try:
            limits = Limits(**{**given, **dict(options.limit)})
            if options.interface == "wsgi" and options.lifespan != "auto":
                raise ValueError("--lifespan is for ASGI applications")
            tls = _tls(options.certfile, options.keyfile)
            log = stack.enter_context(_log(options.access_log)) if options.access_log else None
            # Of several workers each loads it for itself, and can do so again.
            alone = options.workers == 1 and not options.reload
            app = _application(options.app) if alone else options.app
            if app is None:
                return 1
            _serve.serve(
                _kind(options.interface, options.lifespan),
                app,
                options.bind or "127.0.0.1:8000",
                _say,
                ready=None,
                stop=None,
                tls=tls,
                limits=limits,
                access_log=log,
                proxy_protocol=options.proxy_protocol,
                reuse_port=options.reuse_port,
                backlog=_BACKLOG,
                workers=options.workers,
                reload=options.reload,
                grace=options.grace,
                signals=None,
                server_header=None,
            )
        except (OSError, ValueError, RuntimeError) as error:
            # What a goroutine has raised was reported in full.
            print(f"offset serve: {error}", file=sys.stderr)
            return 1
    return 0


def _application(name: str) -> Callable[..., Any] | None:
    """Load the application. What its program raises is shown as Python does, where it was raised: that is not ours."""
    from offset._http import _load

    try:
        return _load.load(name)
    except _load.LoadError:
        raise
    except Exception as error:
        own, found = {__file__, _load.__file__, importlib.__file__}, error.__traceback__
        while found is not None and _is_of(found, own):
            found = found.tb_next
        sys.excepthook(type(error), error.with_traceback(found), found)
        return None


def _is_of(found: types.TracebackType, files: set[str]) -> bool:
    name = found.tb_frame.f_code.co_filename
    return name in files or name.startswith("<frozen importlib")


def _kind(interface: str, lifespan: str) -> Kind:
    """Give the kind of application that was named, or one that looks at the application."""
    from offset._http import _serve

    def service(app: Any, options: Options) -> Service:
        from offset.asgi import _serve as asgi

        if interface == "asgi" or (interface == "auto" and (asgi.is_asgi(app) or asgi.is_double_class(app))):
            return asgi.service(app, options, lifespan)
        from offset.wsgi import _serve as wsgi

        return wsgi.service(app, options)

    return _serve.Kind("offset serve", "an application", service)


def _say(address: str) -> None:
    print(f"offset serve: listening at {address}", file=sys.stderr, flush=True)


def _tls(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile is not None:
            raise ValueError("a key needs its certificate: --certfile")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        # It does not say which file it means.
        files = certfile if keyfile is None else f"{certfile} with {keyfile}"
        raise ValueError(f"no certificate can be read from {files}: {error}") from None
    return context


@contextlib.contextmanager
def _log(name: str) -> Iterator[TextIO | Watched]:
    if name == "-":
        yield sys.stdout
        return
    from offset._http._log import Watched

    with contextlib.closing(Watched(name)) as file:
        yield file


def _limit(text: str) -> tuple[str, float | None]:
    """Give the name and the value of a limit. Raises ArgumentTypeError."""
    from offset._http._limits import Limits

    name, _, value = text.partition("=")
    known = Limits().stats()
    if name not in known:
        raise argparse.ArgumentTypeError(f"there is no limit {name!r}; there are {', '.join(known)}")
    if value == "none":
        return name, None
    return name, _arguments.seconds(value) if name.endswith("_timeout") else _arguments.count(value)
