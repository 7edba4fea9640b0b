"""A connection: its requests, one after the other, each a task of the event loop.

Invariants:

* The goroutine of a connection waits on its note while the application is at work. It alone is inside the `Http`. What
  comes meanwhile is read by another goroutine (`Speaker.read`), if somebody wants to know, which has ended before the
  next request is read.
* A task may go on after its response; the connection has the next request then. `live` has those that are at work, and
  belongs to the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
import traceback
from typing import TYPE_CHECKING, Any

from offset import _exit, _runtime
from offset._errors import RequestError
from offset._http import _service
from offset.aio import _loop
from offset.asgi import _websocket
from offset.asgi._access import Access
from offset.asgi._exchange import ANSWER, BEGIN, CAME, FAIL, FINISH, GO, LISTEN, MISSING, READ, WRITE, Exchange
from offset.asgi._lifespan import Lifespan

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._runtime import Goroutine, Http, Note
    from offset.net._conn import Conn

    Pair = tuple[str, str]
    Line = tuple[str, str, str]
    Future = asyncio.Future[None]

# As much is read at once.
PIECE = 65_536

# What `answer` and `finish` of an Http say.
_WRONG = 2

VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Service(_service.Service):
    """How connections are served by an ASGI application."""

    name = "offset.asgi"
    # How the lifespan protocol is spoken: "auto", "on" or "off".
    lifespan = "auto"

    owner: _loop.Loop
    # What tasks begin with.
    context: contextvars.Context
    # It is the end: what is being done may go on, or may not.
    draining = False
    closed = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state: dict[str, Any] = {}
        self.live: set[Exchange] = set()
        # Set when there are none any more.
        self.rest: Note | None = None
        self._life: Lifespan | None = None

    def base(self, tls: bool, multiprocess: bool) -> dict[str, Any]:
        return {"type": "http", "asgi": VERSIONS, "scheme": "https" if tls else "http", "root_path": ""}

    def about(self, base: dict[str, Any], conn: Conn, own: Pair, peer: Pair) -> dict[str, Any]:
        if conn.network == "unix":
            return {**base, "server": (conn.local_addr, None), "client": None}
        client = (peer[0], int(peer[1])) if peer[1] else None
        return {**base, "server": (own[0], int(own[1])), "client": client}

    def described(self, request: dict[str, Any]) -> str:
        return f"{request.get('method', request['type'])} {request.get('raw_path', b'').decode('latin-1')}"

    def refused(self, base: dict[str, Any], line: Line, status: int, sent: int) -> None:
        method, target, version = line
        words = {"method": method, "raw_path": target.encode("latin-1"), "http_version": version.removeprefix("HTTP/")}
        self.note(Access({**base, **words}, status, sent, 0.0))

    def tell_of(self, scope: dict[str, Any], error: BaseException) -> None:
        """Report an error for which no answer can be given any more."""
        self.report(f"{self.name}: error in {self.described(scope)}\n{''.join(traceback.format_exception(error))}")

    # ---- the beginning and the end ----

    def open(self, over: Callable[[Any], bool]) -> bool:
        self.owner = _loop.get()
        self.context = contextvars.copy_context()
        if self.lifespan == "off":
            return False
        self._life = life = Lifespan(self)
        self.owner.mailbox.put(life)
        if over(life.started.if_recv()):
            return True
        life.check(self.lifespan == "on")
        return False

    def drain(self) -> None:
        def tell(loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
            self.draining = True
            for exchange in list(self.live):
                if isinstance(exchange, _websocket.WebSocket):
                    exchange.go_away()
            return True

        self.owner.mailbox.put(tell)

    def settle(self, timeout: float | None) -> None:
        rest = _runtime.Note()

        def look(loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
            self.rest = rest
            if not self.live:
                ended.append(rest)
            return False

        self.owner.mailbox.put(look)
        if not self.owner.closed:
            rest.wait_await(timeout)

    def cut(self) -> None:
        if not hasattr(self, "owner"):
            # It did not begin.
            return

        def end(loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
            self.closed = True
            for exchange in list(self.live):
                exchange.cut()
            return True

        self.owner.mailbox.put(end)

    def close(self, timeout: float | None) -> None:
        if not hasattr(self, "owner"):
            return
        try:
            # Those that were cut.
            self.settle(_exit.GRACE)
        finally:
            if self._life is not None:
                self._life.end(timeout)

    # ---- requests ----

    def answers(self, conn: Conn, base: dict[str, Any], http: Http) -> None:
        next_scope, note, state = http.next_scope, _runtime.Note(), self.state
        while (scope := next_scope()) is not None:
            self.requests += 1
            scope["state"] = state.copy()
            special = http.special
            begun = time.perf_counter() if self.log is not None else 0.0
            if special & 2 and _websocket.is_wanted(scope):
                _websocket.serve(self, conn, http, scope)
            else:
                self.answer(conn, http, scope, note, special)
            if self.log is not None:
                self.note(Access(scope, http.status, http.sent, time.perf_counter() - begun))
            # Its objects may be what others wait for.
            scope = None
            if self.requests >= self.most:
                self.enough()

    def answer(self, conn: Conn, http: Http, scope: dict[str, Any], note: Note, special: int) -> None:
        """Have the application answer a request."""
        exchange = Exchange(self, self.owner, note, scope)
        if special & 1:
            try:
                exchange.body = http.read_there(PIECE) or b""
            except RequestError as error:
                self._refuse(http, error.status, error.reason)
                return
            exchange.more = not http.body_over
        self.hand_in(exchange)
        todo = exchange.todo
        try:
            note.wait_await()
            note.clear()
            if todo and todo[0][0] == ANSWER:
                _, head, data, _ = todo.popleft()
                if http.answer(head, data) == _WRONG:
                    self.wrong(scope)
                return
            speaker = Speaker(self, conn, http, exchange)
            try:
                speaker.speak()
            finally:
                speaker.hush()
        except OSError:
            # The client is gone, or takes nothing.
            http.detach()
            self.owner.mailbox.put(exchange.disconnect)
        except BaseException:
            self.owner.mailbox.put(exchange.disconnect)
            raise

    def hand_in(self, exchange: Exchange) -> None:
        """Give a request to the loop."""
        owner = self.owner
        owner.calls.add(exchange)
        owner.mailbox.put(exchange)
        # In this order: who closes the loop looks for calls afterwards.
        if owner.closed:
            exchange.end(None, None)

    def wrong(self, scope: dict[str, Any]) -> None:
        """Report a response whose length is not what its head said."""
        self.report(
            f"{self.name}: the response to {self.described(scope)} was not as long as its Content-Length said\n"
        )


class Speaker:
    """The goroutine's side of an exchange that is more than one answer."""

    def __init__(self, service: Service, conn: Conn, http: Http, exchange: Exchange) -> None:
        self.service = service
        self.conn = conn
        self.http = http
        self.exchange = exchange
        # Who reads meanwhile, and for whom.
        self.reader: Goroutine | None = None
        self.wanted: list[Future | None] = []
        self.listens = False

    def speak(self) -> None:
        """Do what is asked for, until the response is over."""
        exchange = self.exchange
        todo, note = exchange.todo, exchange.note
        while True:
            while todo:
                if self.do(*todo.popleft()):
                    return
            note.wait_await()
            note.clear()

    def do(self, kind: int, what: Any, data: Any, future: Future | None) -> bool:
        """Do something; tell whether it was the last."""
        http, service, scope = self.http, self.service, self.exchange.scope
        if kind == WRITE:
            http.write(data)
        elif kind == BEGIN:
            http.begin(what, data)
        elif kind == ANSWER:
            if http.answer(what, data) == _WRONG:
                service.wrong(scope)
            return True
        elif kind == FINISH:
            http.write(data)
            if http.finish() == _WRONG:
                service.wrong(scope)
            return True
        elif kind == READ:
            self.wanted.append(future)
            return self.read()
        elif kind == LISTEN:
            self.listens = True
            return self.read()
        elif kind == CAME:
            return self.came(data)
        elif kind == FAIL:
            service._failed(http, scope, what, True)
            return True
        elif kind == MISSING:
            service.report(f"{service.name}: the application has returned {what}, to {service.described(scope)}\n")
            service._refuse(http, 500, "the application has given no response")
            return True
        elif kind == GO:
            http.detach()
            return True
        if future is not None:
            service.owner.mailbox.put(future)
        return False

    def read(self) -> bool:
        """Read what is wanted: what is there already, or what will come, in a goroutine that waits for it."""
        http, exchange = self.http, self.exchange
        try:
            while self.wanted and (data := http.read_there(PIECE)) is not None:
                exchange.chunks.append((data, not http.body_over))
                future = self.wanted.pop(0)
                if future is not None:
                    self.service.owner.mailbox.put(future)
            if self.wanted:
                http.go_on()
        except RequestError as error:
            return self.give_up(error.status, error.reason)
        if (self.wanted or self.listens) and self.reader is None:
            patience = self.service.limits.body_timeout if self.wanted else None
            self.conn.set_read_deadline(None if patience is None else _runtime.now() + patience)
            self.reader = _runtime.go(self._read)
            self.reader.name = f"{self.service.name} reader"
        return False

    def _read(self) -> None:
        data: bytes | OSError
        try:
            data = self.conn.read(PIECE)
        except OSError as error:
            data = error.with_traceback(None)
        self.exchange.todo.append((CAME, None, data, None))
        self.exchange.note.set()

    def came(self, data: bytes | OSError) -> bool:
        """Take what has come; tell whether that is the end."""
        self.reader = None
        if isinstance(data, TimeoutError):
            return self.give_up(408, "the request took too long to come") if self.wanted else False
        if isinstance(data, OSError) or not data:
            # The client may have closed its half only; as for others it is gone.
            self.http.feed(b"")
            self.http.detach()
            self.service.owner.mailbox.put(self.exchange.disconnect)
            return True
        self.http.feed(data)
        if self.wanted:
            return self.read()
        # Another request: whether its client goes is found out when it is written to.
        return False

    def give_up(self, status: int, reason: str) -> bool:
        """Answer a request that cannot be read to its end."""
        self.service._refuse(self.http, status, reason)
        self.service.owner.mailbox.put(self.exchange.disconnect)
        return True

    def hush(self) -> None:
        """End who reads, and keep what has come."""
        if self.reader is None:
            return
        self.conn.set_read_deadline(0.0)
        self.reader.join()
        self.conn.set_read_deadline(None)
        with contextlib.suppress(IndexError):
            while True:
                kind, _, data, _ = self.exchange.todo.popleft()
                if kind == CAME and isinstance(data, bytes):
                    self.http.feed(data)
