"""A request and the task that answers it: what crosses between the goroutine of a connection and the event loop.

An application runs on the loop's thread, as one task of asyncio for a request; the goroutine reads and writes. A
request goes to the loop through its mailbox, and becomes a task there. What the goroutine is to do then is in `todo`.

Invariants:

* Before it is handed in an exchange is the goroutine's, afterwards the loop's. Both touch `todo` and `chunks`, at whose
  ends one appends and the other takes out, and `note`, which is set after something was appended; the goroutine clears
  it before it looks. Who reads for the goroutine appends, too.
* A command may have a future, which the goroutine puts into the mailbox when it is done. Futures that are waited for
  are in `waits`. `gone` is set on the loop's thread, and ends them; nothing is asked of the goroutine afterwards.
* Nothing waits that is small: what a plain application answers is one command, which is there when its task ends.
"""

from __future__ import annotations

import asyncio
import http as _http
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from offset import _dump, _runtime
from offset._http._service import phrase_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from offset._runtime import Note
    from offset.aio._loop import Loop
    from offset.asgi._connection import Service

    Message = dict[str, Any]
    Command = tuple[int, Any, Any, asyncio.Future[None] | None]

# What a goroutine is asked for: to write all of a response, its beginning, more of it, and the last of it; to read of
# the body; to find out when the client goes; to answer for an error; to say that there is no response; to go. Who
# reads for it says what came. The last is for WebSockets.
ANSWER, BEGIN, WRITE, FINISH, READ, LISTEN, FAIL, MISSING, GO, CAME, UPGRADE = range(11)

# Before, a task takes its first step in another turn of the loop.
_EAGER = sys.version_info >= (3, 12)

# So many bytes may wait to be written before `send` waits.
HIGH = 65_536

_LINES: dict[int, bytes] = {status.value: f"{status.value} {status.phrase}".encode() for status in _http.HTTPStatus}


class ClientDisconnected(OSError):
    """What `send` raises when the client is gone."""


class Exchange:
    """One request, the task that answers it, and what these two still want of each other."""

    __slots__ = (
        "begun",
        "body",
        "chunks",
        "complete",
        "eager",
        "gone",
        "head",
        "listens",
        "loop",
        "more",
        "note",
        "owner",
        "pending",
        "scope",
        "service",
        "task",
        "todo",
        "unread",
        "waits",
    )

    def __init__(self, service: Service, owner: Loop, note: Note, scope: dict[str, Any]) -> None:
        self.service = service
        self.owner = owner
        self.loop: asyncio.AbstractEventLoop = owner.loop
        self.note = note
        self.scope = scope
        self.todo: deque[Command] = deque()
        # What has come of the request's body by now, whether more is to come, and what was read since.
        self.body = b""
        self.more = False
        self.unread = True
        self.chunks: deque[tuple[bytes, bool]] = deque()
        self.task: asyncio.Task[None] | None = None
        # Its task takes the first step: who has the loop's turn sets the note.
        self.eager = False
        # The head of a response that was begun, until it goes to the goroutine with the first bytes.
        self.head: Any = None
        self.begun = False
        self.complete = False
        self.gone = False
        self.listens = False
        self.pending = 0
        self.waits: set[asyncio.Future[None]] = set()

    # ---- as what a mailbox delivers, and as a call of the loop's ----

    def __call__(self, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        """Begin; tell whether it goes on."""
        service = self.service
        self.owner.calls.discard(self)
        if service.closed or self.owner.closing:
            self.todo.append((GO, None, None, None))
            ended.append(self.note)
            return False
        service.live.add(self)
        coroutine = self.run()
        scope = self.scope
        # For dumps.
        name = f"{scope.get('method', 'websocket')} {scope['path']}"
        try:
            if _EAGER:
                self.eager = True
                # The stubs of 3.11, which mypy reads, lack the argument.
                task = asyncio.Task(  # type: ignore[call-arg]
                    coroutine, loop=loop, name=name, context=service.context.copy(), eager_start=True
                )
            else:
                task = loop.create_task(coroutine, name=name, context=service.context.copy())
            goes_on = not task.done()
            if goes_on:
                self.task = task
        except BaseException as error:
            coroutine.close()
            goes_on = False
            self.failed(error)
            self.leave()
        self.eager = False
        if self.todo:
            ended.append(self.note)
        return goes_on

    def end(self, result: Any, error: BaseException | None) -> None:
        """Say that it will not begin: the loop is closed."""
        self.todo.append((GO, None, None, None))
        self.note.set()

    def disconnect(self, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        """Take note that the client is gone, or is not answered any more."""
        self.gone = True
        self.wake()
        return True

    def cut(self) -> None:
        """End it at once, as far as the application lets us."""
        self.gone = True
        self.wake()
        if not self.complete:
            self.tell(GO)
        if self.task is not None:
            self.task.cancel("the server has ended")

    # ---- the task ----

    async def run(self) -> None:
        """Call the application: the coroutine of the task."""
        try:
            await self.call()
        except BaseException as error:
            self.failed(error)
        else:
            self.returned()
        finally:
            self.leave()

    def call(self) -> Coroutine[Any, Any, Any]:
        """Give the coroutine of the application."""
        coroutine: Coroutine[Any, Any, Any] = self.service.app(self.scope, self.receive, self.send)
        return coroutine

    def leave(self) -> None:
        """Be no longer one of those that are at work."""
        self.task = None
        service = self.service
        service.live.discard(self)
        if service.rest is not None and not service.live:
            service.rest.set()

    def returned(self) -> None:
        """Take note that the application has returned."""
        if not self.complete and not self.gone:
            what = "before the end of its response" if self.begun else "without a response"
            self.complete = True
            self.tell(MISSING, what)

    def failed(self, error: BaseException) -> None:
        """Take note that the application has failed."""
        if self.gone and (isinstance(error, asyncio.CancelledError) or is_of(error, ClientDisconnected)):
            # By what it was told.
            return
        if self.complete or self.gone:
            self.service.tell_of(self.scope, error)
        else:
            self.complete = True
            self.tell(FAIL, error)

    # ---- what an application calls ----

    async def receive(self) -> Message:
        """Give the next part of the request, or say that its client is gone."""
        if self.complete or self.gone:
            return {"type": "http.disconnect"}
        if self.unread:
            self.unread = False
            if self.body or not self.more:
                body, self.body = self.body, b""
                return {"type": "http.request", "body": body, "more_body": self.more}
        if not self.chunks and self.more:
            await self.ask(READ)
        if self.chunks:
            body, self.more = self.chunks.popleft()
            return {"type": "http.request", "body": body, "more_body": self.more}
        if not self.gone and not self.complete:
            if not self.listens:
                self.listens = True
                self.tell(LISTEN)
            await self.until()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message of the response; wait while much is still to be written."""
        kind = message["type"]
        if kind == "http.response.body":
            if not self.begun:
                raise RuntimeError("http.response.body was sent before http.response.start")
            await self.send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            self.start(message)
        else:
            raise RuntimeError(f"an application of HTTP sends http.response.start and http.response.body, not {kind!r}")

    def start(self, message: Message) -> None:
        """Take the beginning of a response."""
        if self.begun:
            raise RuntimeError("http.response.start was sent twice")
        self.check()
        status = message["status"]
        if not isinstance(status, int):
            raise TypeError(f"the status of a response is a number, not {type(status).__name__}")
        if message.get("trailers"):
            raise RuntimeError("trailers are not supported: the scope has no extension http.response.trailers")
        line = _LINES.get(status)
        if line is None:
            line = f"{int(status)} {phrase_of(status)}".encode()
        if status == 101:
            raise ValueError("a response of HTTP has another status than 101; WebSockets have a scope of their own")
        self.head = _runtime.response_head(line, message.get("headers", ()))
        self.begun = True

    async def send_body(self, body: bytes, more: bool) -> None:
        """Take a part of a response's body."""
        if self.complete:
            raise RuntimeError("http.response.body was sent after the end of the response")
        if self.gone:
            self.check()
        if type(body) is not bytes:
            if not isinstance(body, bytes | bytearray | memoryview):
                raise TypeError(f"the body of a response is made of bytes, not {type(body).__name__}")
            # Others may write there before it is sent.
            body = bytes(body)
        head, self.head = self.head, None
        if not more:
            self.complete = True
            self.tell(FINISH if head is None else ANSWER, head, body)
            if self.waits:
                self.wake()
            return
        self.pending += len(body)
        command = WRITE if head is None else BEGIN
        if self.pending <= HIGH:
            self.tell(command, head, body)
        else:
            await self.ask(command, head, body)
            self.pending = 0
            self.check()

    # ---- crossing ----

    def check(self) -> None:
        """Raise an OSError if the client is gone."""
        if self.gone:
            raise ClientDisconnected("the client has disconnected")

    def tell(self, kind: int, what: Any = None, data: Any = None) -> None:
        """Have the goroutine do something."""
        self.todo.append((kind, what, data, None))
        if not self.eager:
            self.note.set()

    async def ask(self, kind: int, what: Any = None, data: Any = None) -> None:
        """Have the goroutine do something, and wait until it is done or the client is gone."""
        future = self.loop.create_future()
        self.todo.append((kind, what, data, future))
        if not self.eager:
            self.note.set()
        await self.until(future)

    async def until(self, future: asyncio.Future[None] | None = None) -> None:
        """Wait for a future, or until the client is gone or the response is complete."""
        if future is None:
            future = self.loop.create_future()
        self.waits.add(future)
        try:
            await future
        finally:
            self.waits.discard(future)

    def wake(self) -> None:
        """Let go on who waits."""
        for future in self.waits:
            if not future.done():
                future.set_result(None)


def is_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Tell whether an error is of a kind, or was raised because of one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


_dump.hidden.add(Exchange.run.__code__)
