"""`serve`: the page, and what programs read, over `offset.net`.

Who may ask is decided in `_refusal`, before anything else of a request is looked at:

* without a token the page listens on this machine's own addresses only, and answers only to names of this machine: a
  site whose name leads here (DNS rebinding) would otherwise read it by way of a browser that runs here;
* with one, everything needs the token. The page itself, which says nothing about the program, comes with the refusal,
  so that it can ask for it.

Invariants:

* Each goroutine here is in `_exit.background` while it lives: a `run` without a main function does not wait for it.
* `_mutex` guards `_looks`, and is held while one is taken: however many look, one at a time goes through the program,
  and for no more than a tenth of the time.
* `_looks` is empty when nobody is connected.
* A forked child closes its copy of the sockets: it serves nothing, and would keep the address from others.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import importlib.resources
import ipaddress
import json
import os
import re
import socket
import time
import weakref
from typing import TYPE_CHECKING, Final, Self

from offset import _dump, _exit, _live, _runtime
from offset._errors import DeadlineExceeded
from offset.debug import _http, _metrics, _vars
from offset.net._listen import Listener, bound
from offset.sync import Mutex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from offset.debug._http import Answer, Request
    from offset.net._conn import Conn

# So many clients at a time; a browser takes up to six.
_MOST = 64
# For so many seconds a look is shown again, and for so many times what it took.
_SHORTEST = 0.5
_SHARE = 10

_JSON = "application/json; charset=utf-8"

# Those that may be open; written and read with the interpreter only.
_servers: Final[weakref.WeakSet[Server]] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    for server in list(_servers):
        server.close()
    _servers.clear()


class Server:
    """A page that is being served; `serve` gives it. A context manager that closes."""

    def __init__(self, listener: Listener, token: str | None) -> None:
        self._listener: Final = listener
        self._token: Final = token.encode() if token is not None else None
        self._page: Final = _page()
        self._connections: Final[set[Conn]] = set()
        self._requests: Final = _runtime.Int()
        self._refused: Final = _runtime.Int()
        self._mutex: Final = Mutex()
        self._looks: Final[dict[str, _live.Look]] = {}
        self._answers: Final[dict[str, Callable[[Request], Answer]]] = {
            "/": lambda request: self._page,
            "/debug/goroutines": _goroutines,
            "/debug/leaks": _leaks,
            "/debug/live": self._snapshot,
            "/debug/vars": lambda request: _http.Answer(_vars.text(), kind=_JSON),
            "/metrics": lambda request: _http.Answer(_metrics.text(), kind=_metrics.CONTENT_TYPE),
        }

    @property
    def addr(self) -> str:
        """The address that it listens on, "host:port"."""
        return self._listener.addr

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._listener.closed

    def close(self) -> None:
        """Stop serving: nobody is let in any more, and who is connected is cut off. A second call does nothing."""
        self._listener.close()
        for conn in self._connections.copy():
            conn.close()

    def stats(self) -> dict[str, object]:
        """Tell about it: its address, clients now, requests so far and how many of these were refused."""
        return {
            "addr": self.addr,
            "clients": len(self._connections),
            "requests": self._requests.load(),
            "refused": self._refused.load(),
            "closed": self.closed,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.debug.Server http://{self.addr}/{' closed' if self.closed else ''}>"

    # What its goroutines do.

    def _accept(self, begun: _runtime.Chan[None]) -> None:
        # What it started may be cancelled before it begins, and then closes nothing itself.
        with _in_background(), self:
            begun.send(None)
            while not self.closed:
                try:
                    conn = self._listener.accept()
                except OSError:
                    # Closed, or a client that is gone already: whatever it is, it is no reason to end the program.
                    _runtime.sleep(0.0 if self.closed else 0.1)
                    continue
                if len(self._connections) >= _MOST:
                    with conn, contextlib.suppress(OSError):
                        _http.refuse(conn, f"there are {_MOST} clients already")
                    continue
                # Before its goroutine has begun: `close` may come first.
                self._connections.add(conn)
                if self.closed:
                    conn.close()
                goroutine = _runtime.go(self._converse, conn)
                goroutine.name = "offset.debug client"
                del conn, goroutine

    def _converse(self, conn: Conn) -> None:
        try:
            with _in_background(), conn, contextlib.suppress(OSError):
                _http.converse(conn, self._respond)
        finally:
            self._connections.discard(conn)
            if not self._connections:
                self._looks.clear()

    def _respond(self, request: Request) -> Answer:
        self._requests.add(1)
        refusal = self._refusal(request)
        if refusal is not None:
            self._refused.add(1)
            return refusal
        answer = self._answers.get(request.path)
        if answer is None:
            return _http.Answer(f"there is no {request.path!r}; there is {', '.join(self._answers)}\n", 404)
        try:
            return answer(request)
        except Exception as error:
            return _http.Answer(_dump.exception(error), 500)

    def _refusal(self, request: Request) -> Answer | None:
        if self._token is None:
            host = request.headers.get("host", "")
            if _is_local(host):
                return None
            return _http.Answer(
                f"this page answers to names of this machine only, such as localhost, and not to {host!r}; "
                "served with a token it answers to any name\n",
                403,
            )
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.query.get("token", "") if request.path == "/" else ""
        if hmac.compare_digest(given.strip().encode(), self._token):
            return None
        challenge = 'WWW-Authenticate: Bearer realm="offset"\r\n'
        if request.path == "/":
            return self._page._replace(status=401, headers=challenge)
        return _http.Answer("this needs the token, as the header Authorization: Bearer TOKEN\n", 401, headers=challenge)

    def _snapshot(self, request: Request) -> Answer:
        shown = request.query.get("show", "").split(",")
        query = request.query.get("q", "")
        result = _live.summary()
        result["server"] = self.stats()
        for name, look in (("goroutines", _live.goroutines), ("channels", _live.channels)):
            if name in shown:
                result[name] = self._looked(name, look).choose(query)
        return _http.Answer(json.dumps(result), kind=_JSON)

    def _looked(self, name: str, look: Callable[[], _live.Look]) -> _live.Look:
        with self._mutex:
            known = self._looks.get(name)
            if known is None or time.monotonic() - known.taken > max(_SHORTEST, _SHARE * known.seconds):
                known = self._looks[name] = look()
            return known


def serve(addr: str = "127.0.0.1:6060", *, token: str | None = None) -> Server:
    """Serve the page, the metrics and the dumps of this program at `addr`, "host:port"; port 0 takes a free one.

    They tell much about a program: without a `token` the address must be one that only this machine reaches, otherwise
    ValueError is raised. With one, requests need `Authorization: Bearer TOKEN`, and the page asks for it, or takes it
    from `?token=TOKEN`. There is no encryption. Raises OSError if the address is in use.

    It is served by goroutines until `close`, or until the run ends in which it was started; a forked child does not
    serve it. A program that is waiting for requests is not found deadlocked, as in Go: the page shows what it waits for
    instead.
    """
    if token is not None:
        if not isinstance(token, str):
            raise TypeError(f"a token is a string, not {type(token).__name__}")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("a token must be of printable ASCII characters, without spaces, and not empty")
    sock = bound("tcp", addr, socket.SOCK_STREAM)
    try:
        if token is None and not ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback:
            raise ValueError(
                f"at {addr} others than this machine could look into the program: "
                'serve at an address like "127.0.0.1:6060", or with token="..."'
            )
        sock.listen(_MOST)
        server = Server(Listener(sock, "tcp"), token)
        _watch_forks()
        _servers.add(server)
    except BaseException:
        sock.close()
        raise
    with contextlib.ExitStack() as unless_begun:
        unless_begun.enter_context(server)
        begun: _runtime.Chan[None] = _runtime.Chan(1)
        goroutine = _runtime.go(server._accept, begun)
        goroutine.name = "offset.debug.serve"
        # From here on it closes the server at its own end; one that is cancelled before it begins would not.
        while goroutine.status != "dead":
            try:
                begun.recv(timeout=0.1)
            except DeadlineExceeded:
                raise
            except TimeoutError:
                continue
            unless_begun.pop_all()
            break
    return server


@contextlib.contextmanager
def _in_background() -> Iterator[None]:
    goroutine = _runtime.current()
    assert goroutine is not None
    _exit.background.add(goroutine.id)
    try:
        yield
    finally:
        _exit.background.discard(goroutine.id)


def _is_local(host: str) -> bool:
    """Tell whether a Host header names this machine, whatever a server of names says."""
    name = re.sub(r":\d*$", "", host).lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _goroutines(request: Request) -> Answer:
    """Give the stacks; `?group=1` and `?full=1` choose the form as the options of `offset dump` do."""
    if request.query.get("full"):
        return _http.Answer(_dump.everything(group=False))
    return _http.Answer(_dump.everything(group=True if request.query.get("group") else None))


def _leaks(request: Request) -> Answer:
    from offset import _leaks

    return _http.Answer(f"{_leaks.leaks()}\n")


def _page() -> Answer:
    text = importlib.resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    def inline(tag: str) -> str:
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {inline('script')}; "
        f"style-src {inline('style')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _http.Answer(text, kind="text/html; charset=utf-8", policy=policy)
