"""WebSockets over `offset.asgi.serve`, with the client of the package websockets, and with bytes as they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

import offset
import pytest
from helpers import PATIENCE, main_goroutine, run_script, wait_until
from libraries import library
from net_peers import Call, client_context, pattern, server_context
from offset import makechan, patch, syscall
from offset.asgi import Limits
from offset.asgi._exchange import HIGH
from offset.asgi._websocket import WebSocket
from offset.syscall import ssl as proxied_ssl
from web import Reader, connect, request
from web_asgi import ask, begin, say, serving, talking

websockets = library("websockets")
client = library("websockets.sync.client")

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ASK = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)


@pytest.fixture(scope="module")
def copied():
    """The client on the proxies."""
    return patch.patched_import("websockets.sync.client")


def with_client(talk, addr, *, path="/", secure=None):
    """Call `talk` with a client: one of plain sockets in a thread, or with TLS `secure`, the one on the proxies.

    The client reads and writes at the same time, by which plain TLS loses what is written: its handshake hangs once in
    a hundred times.
    """

    def connected():
        options = {"ssl": client_context(ssl=proxied_ssl), "server_hostname": "localhost"} if secure else {}
        with (secure or client).connect(
            f"{'wss' if secure else 'ws'}://{addr}{path}",
            subprotocols=["one", "two"],
            compression=None,
            proxy=None,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            **options,
        ) as ws:
            return talk(ws)

    return connected() if secure else syscall.blocking(connected)


async def accept(receive, send, **more):
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope, receive, send):
    """An application that gives back what comes."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def frame(opcode, data=b"", fin=True):
    """A frame of a client, short enough for one byte of length."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes([opcode | fin << 7, 0x80 | len(data)]) + mask + masked


def frames(data):
    """The frames of a server in `data` that are whole."""
    found = []
    while len(data) >= 2:
        size, at = data[1], 2
        assert size < 0x80, "a server does not mask"
        if size == 126:
            size, at = struct.unpack("!H", data[2:4])[0], 4
        if len(data) < at + size:
            break
        found.append((data[0], data[at : at + size]))
        data = data[at + size :]
    return found


@contextlib.contextmanager
def opened(app, **options):
    """A connection on which a WebSocket was opened."""
    with talking(app, **options) as (conn, reader):
        conn.write(request("/", *ASK))
        answer = reader.answer()
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert answer.headers["connection"] == "Upgrade"
        yield conn, reader


def rest(conn, reader):
    """The frames up to the end of the connection."""
    data = reader.data
    while part := conn.read(65_536):
        data += part
    return frames(data)


def up_to_farewell(conn, reader):
    """The same, of a connection that the server closes first, which this answers."""
    data = reader.data
    while 0x88 not in [code for code, _ in frames(data)]:
        data += conn.read(65_536)
    conn.write(frame(0x8, struct.pack("!H", 1000)))
    while part := conn.read(65_536):
        data += part
    return frames(data)


# ---- what an application finds ----------------------------------------------------------------------


@main_goroutine
@pytest.mark.parametrize("secure", [False, True])
def test_the_scope_and_the_subprotocol(secure, copied):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        await accept(receive, send, subprotocol="two", headers=[(b"x-mine", b"yes")])
        seen.append(await receive())

    def talk(ws):
        return ws.subprotocol, ws.response.headers["x-mine"]

    with serving(app, tls=server_context() if secure else None) as served:
        host, port = served.addr.split(":")
        assert with_client(talk, served.addr, path="/a%20b?c", secure=copied if secure else None) == ("two", "yes")
        wait_until(lambda: len(seen) == 2, "the end has come")
    scope = seen[0]
    assert scope.pop("client")[0] == "127.0.0.1"
    assert (b"upgrade", b"websocket") in scope.pop("headers")
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if secure else "ws",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c",
        "root_path": "",
        "server": (host, int(port)),
        "subprotocols": ["one", "two"],
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }
    assert seen[1] == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


# ---- messages ------------------------------------------------------------------------------------------


@main_goroutine
def test_messages_of_all_kinds():
    data = pattern(1_000_000)

    def talk(ws):
        for message in ("", "text \u20ac", b"", b"bytes", data):
            ws.send(message)
            assert ws.recv(timeout=PATIENCE) == message
        ws.send(["in", " ", "parts"])
        assert ws.recv(timeout=PATIENCE) == "in parts"
        assert ws.ping().wait(PATIENCE)

    with serving(echo) as served:
        with_client(talk, served.addr)


@main_goroutine
def test_many_at_once():
    def talk(ws):
        for number in range(20):
            ws.send(str(number))
        return [int(ws.recv(timeout=PATIENCE)) for _ in range(20)]

    with serving(echo) as served:
        calls = [Call(with_client, talk, served.addr) for _ in range(5)]
        assert [call.result() for call in calls] == [list(range(20))] * 5


@main_goroutine
def test_frames_between_and_behind_fragments():
    with opened(echo) as (conn, reader):
        conn.write(frame(1, b"a", False) + frame(9, b"ping") + frame(0, b"", False) + frame(0, b"b") + frame(2, b"c"))
        wanted = [(0x8A, b"ping"), (0x81, b"ab"), (0x82, b"c")]
        while len(frames(reader.data)) < 3:
            reader.data += conn.read(1000)
        assert frames(reader.data) == wanted
        reader.data = b""
        farewell = struct.pack("!H", 1001) + b"bye"
        conn.write(frame(10, b"nobody asked") + frame(8, farewell))
        assert rest(conn, reader) == [(0x88, farewell)]


@main_goroutine
def test_what_came_with_the_request():
    with talking(echo) as (conn, reader):
        conn.write(request("/", *ASK) + frame(1, b"early"))
        assert reader.answer().status == 101
        while len(reader.data) < 7:
            reader.data += conn.read(1000)
        assert frames(reader.data) == [(0x81, b"early")]


@main_goroutine
def test_an_application_that_takes_nothing_holds_no_memory():
    begun = makechan(1)

    async def app(scope, receive, send):
        await accept(receive, send)
        begun.send(True)
        await makechan().arecv()

    with opened(app, grace=0.05) as (conn, _):
        begun.recv(timeout=PATIENCE)
        sent = makechan(1000)

        def flood():
            data = frame(2, b"x" * 125) * 1000
            with contextlib.suppress(OSError):
                while True:
                    sent.send(conn.write(data))

        call = Call(flood)
        # It is not read any more once the application has enough to take; the system takes some more.
        call.parked()
        wait_until(lambda: stands(lambda: len(sent)), "the client waits")
        assert len(sent) < 200
        conn.close()
        call.result()


def stands(count):
    """Is this the same as a moment ago?"""
    before = count()
    offset.sleep(0.05)
    return before and count() == before


class Pinger:
    """Pings that are due when a test says so."""

    def __init__(self):
        self.waiting = []

    def ping(self):
        """Have the next one sent, when the last one is written; give the WebSocket."""
        wait_until(lambda: self.waiting, "an open WebSocket")
        exchange = self.waiting.pop()
        exchange.loop.call_soon_threadsafe(exchange.ping)
        return exchange


@pytest.fixture
def pinger(monkeypatch):
    made = Pinger()
    monkeypatch.setattr(WebSocket, "ping_later", lambda exchange, _=None: made.waiting.append(exchange))
    yield made
    made.waiting.clear()


@main_goroutine
def test_pings_are_sent_and_their_answers_awaited(pinger):
    """A client of the package answers them, whatever it does; the application sees nothing of them."""
    came = []

    async def app(scope, receive, send):
        await accept(receive, send)
        came.append(await receive())

    def talk(ws):
        for _ in range(5):
            exchange = pinger.ping()
            wait_until(lambda it=exchange: pinger.waiting and not it.pings, "an answer")
        ws.send("still here")
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            ws.recv()

    with serving(app) as server:
        with_client(talk, server.addr)
    assert came == [{"type": "websocket.receive", "text": "still here"}]


@main_goroutine
def test_a_client_that_answers_no_ping_is_gone():
    came = []

    async def app(scope, receive, send):
        await accept(receive, send)
        came.append(await receive())
        with pytest.raises(OSError):
            await send({"type": "websocket.send", "text": "too late"})
        came.append("too late")

    with opened(app, limits=Limits(ping_interval=0.1)) as (conn, reader):
        sent = up_to_farewell(conn, reader)
        wait_until(lambda: len(came) == 2, "the end of the application")
    assert [code for code, _ in sent] == [0x89] * 3 + [0x88]
    assert sent[3][1] == struct.pack("!H", 1011) + b"no answer to pings"
    assert came == [{"type": "websocket.disconnect", "code": 1011, "reason": "no answer to pings"}, "too late"]


@main_goroutine
def test_whoever_says_anything_is_there(pinger):
    """Some clients answer no pings, but talk."""
    with opened(echo) as (conn, reader):
        data = reader.data
        for count in range(5):
            exchange = pinger.ping()
            while len(frames(data)) < 2 * count + 1:
                data += conn.read(65_536)
            conn.write(frame(0x2, b"x"))
            while len(frames(data)) < 2 * count + 2:
                data += conn.read(65_536)
            assert not exchange.pings
    assert frames(data) == [(0x89, b""), (0x82, b"x")] * 5


@main_goroutine
def test_who_is_not_listened_to_need_not_answer(pinger):
    """While an application takes nothing, nothing is read: answers to pings may be among it."""
    go_on = makechan()
    came = []

    async def app(scope, receive, send):
        await accept(receive, send)
        await go_on.arecv()
        while (message := await receive())["type"] == "websocket.receive":
            came.append(len(message["bytes"]))

    with opened(app) as (conn, reader):
        # More than is read ahead.
        for _ in range(3):
            conn.write(bytes([0x82, 0x80 | 126]) + struct.pack("!H", 60_000) + bytes(4) + bytes(60_000))
        wait_until(lambda: pinger.waiting and pinger.waiting[0].came_bytes > HIGH, "as much as is read ahead")
        data = reader.data
        for count in range(5):
            pinger.ping()
            while len(frames(data)) <= count:
                data += conn.read(65_536)
        assert frames(data) == [(0x89, b"")] * 5
        go_on.send(None)
        conn.write(frame(0x8, struct.pack("!H", 1000)))
        assert rest(conn, reader)[-1] == (0x88, struct.pack("!H", 1000))
    assert came == [60_000] * 3


@main_goroutine
@pytest.mark.parametrize("interval", [None, 20.0])
def test_no_pings_are_sent_if_nobody_wants_them(monkeypatch, interval):
    timers = []
    plain = WebSocket.ping_later

    def ping_later(exchange, _=None):
        plain(exchange)
        timers.append(exchange.pinger is not None)

    monkeypatch.setattr(WebSocket, "ping_later", ping_later)

    async def app(scope, receive, send):
        await accept(receive, send)

    with opened(app, limits=Limits(ping_interval=interval)) as (conn, reader):
        assert [code for code, _ in up_to_farewell(conn, reader)] == [0x88]
    assert timers == [interval is not None]


@main_goroutine
def test_a_client_that_takes_nothing_makes_send_wait():
    sent = []

    async def app(scope, receive, send):
        await accept(receive, send)
        with pytest.raises(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": bytes(1 << 20)})
                sent.append(1)
        sent.append("gone")

    with opened(app):
        wait_until(lambda: stands(lambda: len(sent)), "the application waits")
        assert len(sent) < 64
    wait_until(lambda: sent[-1] == "gone", "it was told")


# ---- the end ---------------------------------------------------------------------------------------------


@main_goroutine
def test_an_application_closes():
    told = makechan(1)

    async def app(scope, receive, send):
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        with pytest.raises(RuntimeError, match="after its end"):
            await send({"type": "websocket.send", "text": "more"})
        told.send(await receive())

    def talk(ws):
        assert ws.recv(timeout=PATIENCE) == "last"
        with pytest.raises(websockets.ConnectionClosed) as caught:
            ws.recv(timeout=PATIENCE)
        return caught.value.rcvd.code, caught.value.rcvd.reason

    with serving(app) as served:
        assert with_client(talk, served.addr) == (4001, "enough")
    assert told.recv(timeout=PATIENCE) == {"type": "websocket.disconnect", "code": 4001, "reason": "enough"}


@main_goroutine
def test_a_client_closes(server_reports):
    told = makechan()

    async def app(scope, receive, send):
        await accept(receive, send)
        message = await receive()
        assert await receive() == message
        with pytest.raises(OSError, match="disconnected"):
            await send({"type": "websocket.send", "text": "more"})
        await told.asend(message)
        await send({"type": "websocket.send", "text": "this is not to be reported"})

    with serving(app) as served:
        with_client(lambda ws: ws.close(4002, "enough"), served.addr)
        assert told.recv(timeout=PATIENCE) == {"type": "websocket.disconnect", "code": 4002, "reason": "enough"}
        with connect(served.addr) as conn:
            conn.write(request("/", *ASK))
            reader = Reader(conn)
            assert reader.answer().status == 101
            conn.write(frame(8))
            assert told.recv(timeout=PATIENCE)["code"] == 1005
            assert reader.data + conn.read(100) == b"\x88\x00"
        # Without a word.
        with connect(served.addr) as conn:
            conn.write(request("/", *ASK))
            assert Reader(conn).answer().status == 101
            conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert told.recv(timeout=PATIENCE)["code"] == 1006
    assert server_reports == []


@main_goroutine
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(2, b"x" * 101), 1009),
        (frame(2, b"x" * 60, False) + frame(0, b"y" * 60), 1009),
        (frame(1, b"\xff"), 1007),
        (frame(3), 1002),
        (frame(0, b"x"), 1002),
        (b"\x81\x01x", 1002),
        (frame(9, b"x", False), 1002),
    ],
    ids=["long", "long in parts", "no text", "opcode", "continuation", "not masked", "ping in parts"],
)
def test_frames_that_are_refused(data, code):
    told = makechan(1)

    async def app(scope, receive, send):
        await accept(receive, send)
        told.send(await receive())

    with opened(app, limits=Limits(message=100)) as (conn, reader):
        conn.write(data)
        ((opcode, said),) = rest(conn, reader)
        assert (opcode, struct.unpack("!H", said[:2])[0]) == (0x88, code)
    message = told.recv(timeout=PATIENCE)
    assert (message["type"], message["code"], type(message["code"])) == ("websocket.disconnect", code, int)


@main_goroutine
def test_applications_that_end_first(server_reports):
    async def app(scope, receive, send):
        if scope["path"] != "/early":
            await accept(receive, send)
        if scope["path"] == "/fails":
            raise ZeroDivisionError("a test")

    def talk(ws):
        with pytest.raises(websockets.ConnectionClosed) as caught:
            ws.recv(timeout=PATIENCE)
        return caught.value.rcvd.code

    with serving(app) as served:
        assert with_client(talk, served.addr, path="/returns") == 1000
        assert with_client(talk, served.addr, path="/fails") == 1011
        assert ask(served.addr, request("/early", *ASK)).status == 500
    error, silence = server_reports
    assert "ZeroDivisionError" in error
    assert "before it answered" in silence


@main_goroutine
def test_a_server_that_stops_says_so():
    begun, told = makechan(), makechan(1)

    async def app(scope, receive, send):
        await accept(receive, send)
        await begun.asend(True)
        told.send(await receive())

    def talk(ws):
        with pytest.raises(websockets.ConnectionClosed) as caught:
            ws.recv(timeout=PATIENCE)
        return caught.value.rcvd.code

    with serving(app) as served:
        call = Call(with_client, talk, served.addr)
        begun.recv(timeout=PATIENCE)
        served.stop()
        assert call.result() == 1012
        assert told.recv(timeout=PATIENCE)["code"] == 1012
        served.call.result()


# ---- those that are not opened --------------------------------------------------------------------------


@main_goroutine
def test_an_application_refuses():
    told = makechan(1)

    async def app(scope, receive, send):
        assert await receive() == {"type": "websocket.connect"}
        if scope["path"] == "/denied":
            await send(
                {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"x")]}
            )
            await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"are you?"})
        else:
            await send({"type": "websocket.close", "code": 4000})
        told.send(await receive())

    with talking(app) as (conn, reader):
        for path, status, body in (("/refused", 403, b""), ("/denied", 401, b"who are you?")):
            conn.write(request(path, *ASK))
            answer = reader.answer()
            assert (answer.status, answer.body) == (status, body)
            assert told.recv(timeout=PATIENCE)["type"] == "websocket.disconnect"
        assert answer.headers["www-authenticate"] == "x"


@main_goroutine
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((*ASK[:2], "Sec-WebSocket-Version: 8", KEY), 426),
        ((*ASK[:2], KEY), 426),
        (ASK[:3], 400),
        ((*ASK, KEY), 400),
        ((*ASK[:3], "Sec-WebSocket-Key: short"), 400),
        ((*ASK[:3], "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), 400),
    ],
)
def test_handshakes_that_are_none(lines, status):
    with serving(echo) as served:
        answer = ask(served.addr, request("/", *lines))
        assert answer.status == status
        assert answer.headers.get("sec-websocket-version") == ("13" if status == 426 else None)


@main_goroutine
def test_requests_for_other_protocols_are_plain_ones():
    async def app(scope, receive, send):
        await begin(send)
        await say(send, scope["type"].encode())

    with serving(app) as served:
        for lines in (("Connection: Upgrade", "Upgrade: h2c"), ASK[1:]):
            assert ask(served.addr, request("/", *lines)).body == b"http"
        assert ask(served.addr, request("/", *ASK, method="POST")).body == b"http"


@main_goroutine
def test_messages_that_are_wrong():
    found = []

    async def app(scope, receive, send):
        async def refused(message, error, text):
            with pytest.raises(error, match=text):
                await send(message)
            found.append(text)

        await refused({"type": "websocket.send", "text": "x"}, RuntimeError, "before it is accepted")
        await refused({"type": "http.response.start", "status": 200}, RuntimeError, "'http.response.start'")
        await refused({"type": "websocket.accept", "subprotocol": "other"}, ValueError, "has not offered")
        header = (b"Sec-WebSocket-Protocol", b"x")
        await refused({"type": "websocket.accept", "headers": [header]}, ValueError, "is no header")
        await accept(receive, send)
        await refused({"type": "websocket.accept"}, RuntimeError, "while it is open")
        await refused({"type": "websocket.send"}, ValueError, "either bytes or text")
        await refused({"type": "websocket.send", "text": "", "bytes": b""}, ValueError, "either bytes or text")
        await refused({"type": "websocket.close", "code": 1005}, ValueError, "1005")
        await refused({"type": "websocket.close", "reason": "x" * 124}, ValueError, "123 bytes")
        await send({"type": "websocket.send", "bytes": b"right", "text": None})

    with opened(app) as (conn, reader):
        conn.write(frame(8))
        assert rest(conn, reader)[0] == (0x82, b"right")
    assert len(found) == 9


def test_without_the_package():
    program = """
        import sys
        sys.modules["websockets"] = sys.modules["websockets.protocol"] = None
        import offset
        from offset import asgi, context, go, makechan, net

        async def app(scope, receive, send):
            raise AssertionError

        def main():
            ready, (ctx, stop) = makechan(1), context.with_cancel(context.background())
            server = go(asgi.serve, app, "127.0.0.1:0", ready=ready, stop=ctx)
            with net.dial("tcp", ready.recv()) as conn:
                conn.write(sys.argv[1].encode())
                print(conn.read(12).decode())
            stop()
            server.join()

        offset.run(main)
    """
    status, stdout, stderr = run_script(program, request("/", *ASK).decode())
    assert (status, stdout) == (0, "HTTP/1.1 501\n"), stderr
    assert "pip install 'offset[asgi]'" in stderr


@main_goroutine
def test_the_access_log():
    seen = []
    with serving(echo, access_log=seen.append) as served:
        with_client(lambda ws: None, served.addr)
    assert [(access.status, access.scope["type"]) for access in seen] == [(101, "websocket")]


@main_goroutine
def test_tasks_may_read_and_write_at_once():
    async def app(scope, receive, send):
        await accept(receive, send)

        async def count():
            for number in range(5):
                await send({"type": "websocket.send", "text": str(number)})

        counting = asyncio.ensure_future(count())
        assert (await receive())["text"] == "go"
        await counting
        await receive()

    def talk(ws):
        seen = [ws.recv(timeout=PATIENCE) for _ in range(5)]
        ws.send("go")
        return seen

    with serving(app) as served:
        assert with_client(talk, served.addr) == list("01234")
