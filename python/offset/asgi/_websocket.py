"""WebSockets: a connection that goes over to RFC 6455, and the task that talks on it.

The frames are those of the package websockets, whose protocol does no I/O. It is the loop's: what comes is read by a
goroutine of its own, which waits until that was dealt with, and what goes out is written by that of the connection.

Invariants:

* The protocol is touched on the loop's thread only.
* Who reads waits while the application has much to take, and while what the protocol has answered by itself, to pings,
  is not written: a client that only sends holds no memory.
* A client is taken for gone if nothing came since the third last ping, and it was listened to in the meantime: what it
  says while nobody reads, or before it has read what it was sent before, is no sign.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import functools
import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset._http._service import say_goodbye
from offset.asgi._exchange import (
    ANSWER,
    FAIL,
    GO,
    HIGH,
    MISSING,
    UPGRADE,
    WRITE,
    ClientDisconnected,
    Exchange,
    is_of,
)

if TYPE_CHECKING:
    from offset._runtime import Http, Note
    from offset.aio._loop import Loop
    from offset.asgi._connection import Service
    from offset.net._conn import Conn

    Message = dict[str, Any]

_PIECE = 65_536

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# So many pings are sent without an answer.
_PINGS = 3

# For so many seconds the other side may take to answer a farewell.
_FAREWELL = 5.0

_NEEDED = "WebSockets need the package websockets: pip install 'offset[asgi]'"

# Where a WebSocket is: asked for; open; answered by HTTP instead; over.
_ASKED, _OPEN, _DENIED, _OVER = range(4)


def is_wanted(scope: dict[str, Any]) -> bool:
    """Tell whether a request that asks for another protocol asks for this one."""
    wanted = _values(scope, b"upgrade")
    return scope["method"] == "GET" and any(value.lower() == b"websocket" for value in wanted)


def _values(scope: dict[str, Any], wanted: bytes) -> list[bytes]:
    """Give the values of a header, which may be lists with commas."""
    return [part.strip() for name, value in scope["headers"] if name == wanted for part in value.split(b",")]


def serve(service: Service, conn: Conn, http: Http, scope: dict[str, Any]) -> None:
    """Answer the request for a WebSocket, and have it, until it is over."""
    if _values(scope, b"sec-websocket-version") != [b"13"]:
        http.start_response("426 Upgrade Required", [("Sec-WebSocket-Version", "13"), ("Content-Type", "text/plain")])
        http.respond([b"426 Upgrade Required: the version of WebSockets is 13\n"])
        return
    keys = _values(scope, b"sec-websocket-key")
    try:
        right = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        right = False
    if not right:
        service._refuse(http, 400, "the key of the WebSocket is none")
        return
    try:
        from websockets.protocol import Protocol, Side
    except ImportError:
        service.report(f"{service.name}: {_NEEDED}\n")
        service._refuse(http, 501, "no WebSockets here")
        return
    del scope["method"]
    scope["type"], scope["scheme"] = "websocket", "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = [value.decode("latin-1") for value in _values(scope, b"sec-websocket-protocol")]
    scope["extensions"] = {"websocket.http.response": {}}
    accept = base64.b64encode(hashlib.sha1(keys[0] + _GUID).digest())
    exchange = WebSocket(service, service.owner, scope, accept, Protocol(Side.SERVER, max_size=service.limits.message))
    service.hand_in(exchange)
    try:
        _Carrier(service, conn, http, exchange).carry()
    except BaseException as error:
        service.owner.mailbox.put(exchange.disconnect)
        if not isinstance(error, OSError):
            raise
        http.detach()


class WebSocket(Exchange):
    """One WebSocket: an exchange whose request and response are messages."""

    __slots__ = (
        "accept",
        "came_bytes",
        "code",
        "more",
        "opcode",
        "parts",
        "pinger",
        "pings",
        "protocol",
        "queue",
        "stage",
        "timer",
    )

    more: Any

    def __init__(self, service: Service, owner: Loop, scope: dict[str, Any], accept: bytes, protocol: Any) -> None:
        super().__init__(service, owner, _runtime.Note(), scope)
        self.accept = accept
        self.protocol = protocol
        self.stage = _ASKED
        # What the application has not taken, and how many bytes that is.
        self.queue: deque[Message] = deque([{"type": "websocket.connect"}])
        self.came_bytes = 0
        # The message that is coming in fragments.
        self.opcode = 0
        self.parts: list[bytes] = []
        # Set when more may be read.
        self.more = _runtime.Note()
        # What the application is told in the end.
        self.code = (1006, "")
        self.timer: asyncio.TimerHandle | None = None
        # What sends the next ping, and how many there were since something came.
        self.pinger: asyncio.TimerHandle | None = None
        self.pings = 0

    # ---- what comes ----

    def came(self, data: bytes, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        """Take what the goroutine has read; nothing is the end."""
        protocol = self.protocol
        self.pings = 0
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        try:
            for frame in protocol.events_received():
                self.take(frame)
        except UnicodeDecodeError as error:
            protocol.fail(1007, error.reason)
        answer = b"".join(protocol.data_to_send())
        if not data or protocol.eof_sent or protocol.close_rcvd is not None:
            # What it was closed with first: broken frames of the other side are closed with a code of ours.
            said = (protocol.close_rcvd, protocol.close_sent)
            close = next((each for each in said if each is not None), None)
            self.end_with(*((1006, "") if close is None else (int(close.code), close.reason)))
            if answer:
                self.tell(WRITE, None, answer)
            self.finish()
        elif answer:
            future = loop.create_future()
            future.add_done_callback(self.go_on)
            self.todo.append((WRITE, None, answer, future))
            self.note.set()
        else:
            self.go_on()
        return True

    def take(self, frame: Any) -> None:
        """Take a frame that came."""
        if frame.opcode not in (0, 1, 2):
            return
        if frame.opcode:
            self.opcode = int(frame.opcode)
        if frame.data:
            self.parts.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self.parts = b"".join(self.parts), []
        message: Message = {"type": "websocket.receive"}
        if self.opcode == 1:
            message["text"] = data.decode()
        else:
            message["bytes"] = data
        if self.stage == _OPEN:
            self.queue.append(message)
            self.came_bytes += len(data)
            self.wake()

    def ping(self) -> None:
        """Send a ping, and another one in a while; close it if nothing has come since some."""
        if self.stage != _OPEN:
            return
        # What is not read may have the answer.
        if self.pings >= _PINGS and self.came_bytes <= HIGH:
            self.close(1011, "no answer to pings")
            self.gone = True
            return
        self.pings += 1
        self.protocol.send_ping(b"")
        # Its time begins when it is written: a client may have much to take before.
        future = self.loop.create_future()
        future.add_done_callback(self.ping_later)
        self.todo.append((WRITE, None, b"".join(self.protocol.data_to_send()), future))
        self.note.set()

    def ping_later(self, _: object = None) -> None:
        """Send a ping when it is time."""
        interval = self.service.limits.ping_interval
        if interval is not None and self.stage == _OPEN:
            self.pinger = self.loop.call_later(interval, self.ping)

    def hush(self) -> None:
        """Send no more pings."""
        if self.pinger is not None:
            self.pinger.cancel()
            self.pinger = None

    def go_on(self, _: object = None) -> None:
        """Have more read, unless the application has much to take."""
        if self.came_bytes <= HIGH:
            self.more.set()

    def end_with(self, code: int, reason: str) -> None:
        """Take note of the end: the application is told once."""
        if self.stage == _OPEN:
            self.code = (code, reason)
        self.stage = _OVER
        self.gone = True
        self.hush()
        self.wake()

    def finish(self) -> None:
        """Have the goroutine of the connection end."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.complete = True
        self.tell(GO)

    def close(self, code: int, reason: str = "") -> None:
        """Close it from this side."""
        self.hush()
        with contextlib.suppress(Exception):
            self.protocol.send_close(code, reason)
        self.tell(WRITE, None, b"".join(self.protocol.data_to_send()))
        self.code, self.stage = (code, reason), _OVER
        self.timer = self.loop.call_later(_FAREWELL, self.finish)
        self.wake()

    def go_away(self) -> None:
        """Close it: the server ends."""
        if self.stage == _OPEN:
            self.close(1012)
            self.gone = True

    def disconnect(self, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        self.end_with(1006, "")
        return True

    def cut(self) -> None:
        self.end_with(1012, "")
        super().cut()

    # ---- the end of the task ----

    def returned(self) -> None:
        if self.stage == _OPEN:
            self.close(1000)
        elif self.stage == _ASKED or (self.stage == _DENIED and not self.complete):
            self.stage = _OVER
            self.tell(MISSING, "before it answered")

    def failed(self, error: BaseException) -> None:
        if self.gone and (isinstance(error, asyncio.CancelledError) or is_of(error, ClientDisconnected)):
            return
        if self.stage == _ASKED or (self.stage == _DENIED and not self.complete):
            self.stage = _OVER
            self.tell(FAIL, error)
            return
        self.service.tell_of(self.scope, error)
        if self.stage == _OPEN:
            self.close(1011)

    # ---- what an application calls ----

    async def receive(self) -> Message:
        """Give the next message, or say that it is over."""
        while not self.queue:
            if self.stage in (_OVER, _DENIED) or self.gone:
                code, reason = self.code
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self.until()
        message = self.queue.popleft()
        if message["type"] == "websocket.receive":
            before = self.came_bytes
            self.came_bytes -= len(message.get("bytes") or message.get("text", "").encode())
            if before > HIGH:
                # Its answers are among what was not read.
                self.pings = 0
                self.go_on()
        return message

    async def send(self, message: Message) -> None:
        """Take a message; wait while much is still to be written."""
        kind = message["type"]
        if kind == "websocket.send" and self.stage == _OPEN:
            await self.say(message.get("bytes"), message.get("text"))
        elif kind == "websocket.close" and self.stage == _OPEN:
            code, reason = message.get("code", 1000), message.get("reason") or ""
            if not isinstance(code, int) or not (1000 <= code < 5000) or code in (1004, 1005, 1006, 1015):
                raise ValueError(f"no WebSocket is closed with the code {code!r}")
            if len(reason.encode()) > 123:
                raise ValueError("the reason of a close has 123 bytes at most")
            self.close(code, reason)
        elif self.gone:
            self.check()
        elif kind == "websocket.accept" and self.stage == _ASKED:
            self.accept_with(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close" and self.stage == _ASKED:
            self.stage, self.complete = _OVER, True
            head = _runtime.response_head(b"403 Forbidden", ())
            self.tell(ANSWER, head, b"")
        elif kind == "websocket.http.response.start" and self.stage == _ASKED:
            self.start(message)
            self.stage = _DENIED
        elif kind == "websocket.http.response.body" and self.stage == _DENIED:
            await self.send_body(message.get("body", b""), message.get("more_body", False))
        else:
            when = ("before it is accepted", "while it is open", "while it is denied", "after its end")[self.stage]
            raise RuntimeError(f"a WebSocket takes no message {kind!r} {when}")

    def accept_with(self, subprotocol: str | None, headers: Any) -> None:
        """Agree to it."""
        # A generator, too, is gone through once.
        fields = [(bytes(name), bytes(value)) for name, value in headers]
        if any(name.lower() == b"sec-websocket-protocol" for name, _ in fields):
            raise ValueError("the subprotocol of a WebSocket is no header, but the message's subprotocol")
        if subprotocol is not None:
            if subprotocol not in self.scope["subprotocols"]:
                raise ValueError(f"the client has not offered the subprotocol {subprotocol!r}")
            fields.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        own = [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", self.accept)]
        head = _runtime.response_head(b"101 Switching Protocols", own + fields)
        self.begun = True
        self.stage = _OPEN
        self.tell(UPGRADE, head)
        if self.service.draining:
            self.go_away()
        else:
            self.ping_later()

    async def say(self, data: bytes | None, text: str | None) -> None:
        """Send a message."""
        if (data is None) == (text is None):
            raise ValueError("websocket.send has either bytes or text")
        if text is not None:
            self.protocol.send_text(text.encode())
        else:
            self.protocol.send_binary(bytes(data or b""))
        out = b"".join(self.protocol.data_to_send())
        self.pending += len(out)
        if self.pending <= HIGH:
            self.tell(WRITE, None, out)
            return
        await self.ask(WRITE, None, out)
        self.pending = 0
        self.check()


class _Carrier:
    """The goroutines' side of a WebSocket."""

    def __init__(self, service: Service, conn: Conn, http: Http, exchange: WebSocket) -> None:
        self.service = service
        self.conn = conn
        self.http = http
        self.exchange = exchange
        self.over = False
        self.opened = False

    def carry(self) -> None:
        """Do what is asked for, until it is over."""
        exchange = self.exchange
        reader = None
        try:
            while not self.over:
                exchange.note.wait_await()
                exchange.note.clear()
                while exchange.todo and not self.over:
                    kind, what, data, future = exchange.todo.popleft()
                    if kind == UPGRADE:
                        self.http.begin(what, b"")
                        self.opened = True
                        reader = _runtime.go(self.read, self.http.detach())
                        reader.name = f"{self.service.name} reader"
                    elif self.opened:
                        self.write(kind, data)
                    else:
                        self.answer(kind, what, data)
                    if future is not None:
                        self.service.owner.mailbox.put(future)
        finally:
            self.over = True
            if reader is not None:
                self.conn.set_read_deadline(0.0)
                exchange.more.set()
                reader.join()
        if reader is not None:
            # It may have more to say than is listened to.
            say_goodbye(self.conn)

    def write(self, kind: int, data: Any) -> None:
        """Write on an open WebSocket."""
        if kind == GO:
            self.over = True
        elif data:
            patience = self.service.write_timeout
            self.conn.set_write_deadline(None if patience is None else _runtime.now() + patience)
            self.conn.write(data)

    def answer(self, kind: int, what: Any, data: Any) -> None:
        """Answer by HTTP instead."""
        from offset.asgi._connection import Speaker

        # There is no body to read, and nobody who reads.
        self.over = Speaker(self.service, self.conn, self.http, self.exchange).do(kind, what, data, None)

    def read(self, data: bytes) -> None:
        """Read what comes: the function of another goroutine."""
        exchange = self.exchange
        while not self.over:
            if not data:
                with contextlib.suppress(OSError):
                    data = self.conn.read(_PIECE)
            self.service.owner.mailbox.put(functools.partial(exchange.came, data))
            if not data:
                return
            data = b""
            exchange.more.wait()
            exchange.more.clear()
