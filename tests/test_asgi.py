"""`offset.asgi.serve`: what an application finds and is told, what becomes of its answers, how connections are kept."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ssl

import offset
import pytest
from helpers import PATIENCE, main_goroutine, refusal, wait_until
from net_peers import Call, client_context, pattern, server_context
from offset import aio, asgi, go, makechan
from offset.asgi import Limits
from web import Reader, chunks, connect, request, talk
from web_asgi import ask, begin, echo, hello, say, serving, talking, whole_body

# ---- what an application finds ------------------------------------------------------------------


@main_goroutine
def test_the_scope():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, await receive()))
        await hello(scope, receive, send)

    lines = ["X-Two: a", "x-two: b", "Cookie: a=1", "X_Under: yes", "X-E: \xe9"]
    with serving(app) as served:
        assert ask(served.addr, request("/a%2Fb/%C3%A9%zz?q=%20&r", *lines, method="PUT", body=b"abc")).status == 200
    scope, message = seen[0]
    host, port = served.addr.split(":")
    name, number = scope.pop("client")
    assert (name, type(number)) == ("127.0.0.1", int)
    assert type(scope) is dict
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/a/b/\xe9%zz",
        "raw_path": b"/a%2Fb/%C3%A9%zz",
        "query_string": b"q=%20&r",
        "root_path": "",
        "headers": [
            (b"host", b"localhost"),
            (b"content-length", b"3"),
            (b"x-two", b"a"),
            (b"x-two", b"b"),
            (b"cookie", b"a=1"),
            (b"x_under", b"yes"),
            (b"x-e", b"\xe9"),
        ],
        "server": (host, int(port)),
        "state": {},
    }
    assert message == {"type": "http.request", "body": b"abc", "more_body": False}


@main_goroutine
@pytest.mark.parametrize(
    ("target", "path", "raw", "query"),
    [
        ("/", "/", b"/", b""),
        ("//a", "//a", b"//a", b""),
        ("/?", "/", b"/", b""),
        ("/%00%ff", "/\0\ufffd", b"/%00%ff", b""),
        ("http://elsewhere:8/x?y", "/x", b"/x", b"y"),
        ("http://elsewhere:8", "/", b"/", b""),
    ],
)
def test_targets(target, path, raw, query):
    async def app(scope, receive, send):
        await begin(send)
        host = [value for name, value in scope["headers"] if name == b"host"]
        await say(send, repr([scope["path"], scope["raw_path"], scope["query_string"], host]).encode())

    with serving(app) as served:
        # Where the target names a host, it is that one.
        host = [b"elsewhere:8" if target.startswith("http") else b"localhost"]
        assert ask(served.addr, request(target)).body == repr([path, raw, query, host]).encode()


@main_goroutine
def test_where_it_is_served(tmp_path):
    async def app(scope, receive, send):
        await begin(send)
        await say(send, repr((scope["scheme"], scope["server"][0], scope["client"] and scope["client"][0])).encode())

    with serving(app, tls=server_context()) as served:
        answer = ask(served.addr, tls=client_context())
        assert answer.body == repr(("https", "127.0.0.1", "127.0.0.1")).encode()
    path = str(tmp_path / "socket")
    with serving(app, f"unix:{path}") as served:
        assert ask(served.addr).body == repr(("http", path, None)).encode()
    with serving(app, proxy_protocol=True) as served, connect(served.addr) as conn:
        conn.write(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n" + request())
        assert Reader(conn).answer().body == repr(("http", "5.6.7.8", "1.2.3.4")).encode()


@main_goroutine
def test_requests_of_version_1_0_without_a_host():
    async def app(scope, receive, send):
        await begin(send)
        await say(send, repr((scope["http_version"], scope["headers"])).encode())

    with serving(app) as served:
        assert talk(served.addr, b"GET / HTTP/1.0\r\n\r\n").endswith(b"('1.0', [])")


@main_goroutine
def test_each_request_is_a_task_with_the_context_of_the_server():
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope, receive, send):
        task = asyncio.current_task()
        seen.append((variable.get(), task.done(), scope["path"]))
        variable.set(scope["path"])
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    variable.set("server")
    with serving(app) as served:
        for path in ("/a", "/b"):
            assert ask(served.addr, request(path)).body == b"hello"
    assert seen == [("server", False, "/a"), ("server", False, "/b")]


# ---- bodies of requests ----------------------------------------------------------------------------


@main_goroutine
def test_bodies():
    data = pattern(300_000)
    with talking(echo) as (conn, reader):
        conn.write(request(method="POST", body=b"small"))
        assert reader.answer().body == b"small"
        conn.write(request(method="POST", body=data))
        assert reader.answer().body == data
        for parts in ((b"a", b"bc"), (data[:70_000], data[70_000:])):
            conn.write(request("/", "Transfer-Encoding: chunked", method="POST") + chunks(*parts))
            assert reader.answer().body == b"".join(parts)
        conn.write(request())
        assert reader.answer().body == b""


@main_goroutine
def test_a_body_that_comes_bit_by_bit():
    came = makechan()

    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await came.asend(message["body"])
        await hello(scope, receive, send)

    with talking(app) as (conn, reader):
        data = request(method="POST", body=b"in three parts")
        conn.write(data[:-14])
        for part in (b"in ", b"three", b" parts"):
            conn.write(part)
            assert came.recv(timeout=PATIENCE) == part
        assert reader.answer().body == b"hello"


@main_goroutine
@pytest.mark.parametrize("secure", [False, True])
def test_an_application_that_answers_while_it_reads(secure):
    async def app(scope, receive, send):
        await begin(send)
        while True:
            message = await receive()
            await say(send, message["body"], message["more_body"])
            if not message["more_body"]:
                return

    tls = (server_context(), client_context()) if secure else (None, None)
    with serving(app, tls=tls[0]) as served, connect(served.addr, tls[1]) as conn:
        reader = Reader(conn)
        conn.write(request("/", "Transfer-Encoding: chunked", method="POST"))
        seen = b""
        for part in (b"one", b"two", b"three"):
            # The next one is sent when the answer to this one has come.
            conn.write(b"%x\r\n%b\r\n" % (len(part), part))
            while part not in seen:
                seen += conn.read(1000)
        conn.write(b"0\r\n\r\n")
        while not seen.endswith(b"0\r\n\r\n"):
            seen += conn.read(1000)
        conn.write(request("/next", method="POST", body=b"x"))
        assert reader.answer().body == b"x"


@main_goroutine
@pytest.mark.parametrize("secure", [False, True])
def test_an_answer_goes_out_while_a_body_is_waited_for(secure):
    async def app(scope, receive, send):
        reading = asyncio.ensure_future(whole_body(receive))
        await asyncio.sleep(0)
        await begin(send)
        await say(send, b"early", True)
        body = await reading
        await say(send, body)

    tls = (server_context(), client_context()) if secure else (None, None)
    with serving(app, tls=tls[0]) as served, connect(served.addr, tls[1]) as conn:
        data = request(method="POST", body=b"late")
        conn.write(data[:-4])
        seen = b""
        while b"early" not in seen:
            seen += conn.read(1000)
        conn.write(data[-4:])
        while b"late" not in seen:
            seen += conn.read(1000)


@main_goroutine
def test_a_client_that_waits_to_be_told_to_go_on():
    async def app(scope, receive, send):
        if scope["path"] == "/reads":
            await echo(scope, receive, send)
        else:
            await hello(scope, receive, send)

    with serving(app) as served:
        with connect(served.addr) as conn:
            reader = Reader(conn)
            data = request("/reads", "Expect: 100-continue", method="POST", body=b"body")
            conn.write(data[:-4])
            assert reader.answer().status == 100
            conn.write(b"body")
            assert reader.answer().body == b"body"
        with connect(served.addr) as conn:
            reader = Reader(conn)
            conn.write(data.replace(b"/reads", b"/other")[:-4])
            answer = reader.answer()
            assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
            assert reader.at_end()


@main_goroutine
@pytest.mark.parametrize(
    ("rest", "limits", "status"),
    [
        (b"zz\r\n", {}, 400),
        (b"ff\r\nmore than is to be", {"body": 10}, 413),
        (b"5\r\nab", {"body_timeout": 0.05}, 408),
    ],
)
def test_bodies_that_cannot_be_read(rest, limits, status, server_reports):
    begun, told = makechan(), makechan()

    async def app(scope, receive, send):
        await begun.asend(True)
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        with pytest.raises(OSError):
            await begin(send)
        await told.asend(message)

    head = request("/", "Transfer-Encoding: chunked", method="POST")
    with serving(app, limits=Limits(**limits)) as served:
        with connect(served.addr) as conn:
            reader = Reader(conn)
            conn.write(head)
            begun.recv(timeout=PATIENCE)
            conn.write(rest)
            assert reader.answer().status == status
            assert told.recv(timeout=PATIENCE) == {"type": "http.disconnect"}
            assert reader.at_end()
        if status != 408:
            # What comes with the head is refused before the application is called.
            assert ask(served.addr, head + rest).status == status
    assert server_reports == []


# ---- responses ---------------------------------------------------------------------------------------


@main_goroutine
def test_how_responses_are_framed():
    async def app(scope, receive, send):
        status = int(scope["query_string"] or 200)
        headers = [(b"content-length", b"6")] if scope["path"] == "/length" else []
        await send({"type": "http.response.start", "status": status, "headers": iter(headers)})
        if scope["path"] != "/whole":
            await say(send, b"abc", True)
            await say(send, b"", True)
        await say(send, bytearray(b"def") if status == 200 else b"")

    with talking(app) as (conn, reader):
        for path, headers, body in (
            ("/whole", {"content-length": "3"}, b"def"),
            ("/length", {"content-length": "6"}, b"abcdef"),
            ("/stream", {"transfer-encoding": "chunked"}, b"abcdef"),
        ):
            conn.write(request(path))
            answer = reader.answer()
            assert answer.body == body
            assert headers.items() <= answer.headers.items()
            conn.write(request(path, method="HEAD"))
            assert reader.answer(head=True).body == b""
        conn.write(request("/whole?204"))
        assert reader.answer().status == 204
        conn.write(request("/whole?299"))
        assert reader.answer().status == 299
        conn.write(request("/stream", version="1.0"))
        assert reader.answer().body == b"abcdef"
        assert reader.at_end()


@main_goroutine
def test_the_head_of_a_stream_goes_out_with_an_empty_beginning():
    go_on = makechan()

    async def app(scope, receive, send):
        await begin(send, 201)
        await say(send, b"", True)
        await go_on.arecv()
        await say(send, b"body")

    with talking(app) as (conn, _):
        conn.write(request())
        seen = b""
        while not seen.endswith(b"\r\n\r\n"):
            seen += conn.read(1000)
        assert seen.startswith(b"HTTP/1.1 201 ")
        go_on.send(True)
        while not seen.endswith(b"body\r\n0\r\n\r\n"):
            seen += conn.read(1000)


@main_goroutine
def test_requests_in_a_row():
    with talking(echo) as (conn, reader):
        conn.write(request() * 3 + request(method="POST", body=b"body") + request("/", "Connection: close"))
        assert [reader.answer().body for _ in range(5)] == [b"", b"", b"", b"body", b""]
        assert reader.at_end()


@main_goroutine
def test_a_slow_reader_makes_send_wait():
    sent = []
    wanted = 64 * 1024 * 1024

    async def app(scope, receive, send):
        await begin(send)
        piece = bytes(1 << 20)
        while sum(sent) < wanted:
            await say(send, piece, True)
            sent.append(len(piece))
        await say(send)

    with talking(app) as (conn, reader):
        conn.write(request())
        wait_until(lambda: sum(sent) > 0, "the first part is on its way")
        seen = 0

        def stands():
            nonlocal seen
            before, seen = seen, sum(sent)
            offset.sleep(0.02)
            return before == seen

        wait_until(stands, "the application waits")
        # The buffers of the connection, and little more.
        assert seen < wanted / 2
        assert len(reader.answer().body) == wanted


@main_goroutine
def test_a_task_goes_on_behind_its_response():
    go_on, done = makechan(), makechan(1)

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        if scope["path"] == "/first":
            message = await receive()
            await go_on.arecv()
            done.send(message)

    with serving(app) as served, connect(served.addr) as conn:
        reader = Reader(conn)
        conn.write(request("/first") + request("/second"))
        assert [reader.answer().body for _ in range(2)] == [b"hello", b"hello"]
        # The server waits for it, too.
        served.stop()
        assert reader.at_end()
        go_on.send(True)
        assert done.recv(timeout=PATIENCE) == {"type": "http.disconnect"}
        conn.close()
        served.call.result()


# ---- clients that go -----------------------------------------------------------------------------------


@main_goroutine
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_an_application_is_told_when_its_client_goes(secure, early, server_reports):
    begun, told = makechan(), makechan()

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        if not early:
            await begin(send)
            await say(send, b"beginning", True)
        await begun.asend(True)
        message = await receive()
        assert await receive() == message
        with pytest.raises(OSError, match="disconnected"):
            await (begin(send) if early else say(send, b"more"))
        await told.asend(message)
        # This is not to be reported.
        await (begin(send) if early else say(send, b"more"))

    tls = (server_context(), client_context()) if secure else (None, None)
    with serving(app, tls=tls[0]) as served:
        with connect(served.addr, tls[1]) as conn:
            conn.write(request())
            begun.recv(timeout=PATIENCE)
        assert told.recv(timeout=PATIENCE) == {"type": "http.disconnect"}
    assert server_reports == []


@main_goroutine
def test_a_body_that_is_cut_is_a_client_that_goes(server_reports):
    begun, told = makechan(), makechan()

    async def app(scope, receive, send):
        await begun.asend(True)
        message = await receive()
        while message["type"] == "http.request":
            message = await receive()
        await told.asend(message)

    with serving(app) as served:
        with connect(served.addr) as conn:
            conn.write(request(method="POST", body=b"body")[:-2])
            begun.recv(timeout=PATIENCE)
        assert told.recv(timeout=PATIENCE) == {"type": "http.disconnect"}
    assert server_reports == []


@main_goroutine
def test_a_client_that_takes_nothing():
    told = makechan()

    async def app(scope, receive, send):
        await begin(send)
        with pytest.raises(OSError):
            while True:
                await say(send, bytes(1 << 20), True)
        await told.asend(await receive())

    with talking(app, limits=Limits(write_timeout=0.05)) as (conn, _):
        conn.write(request())
        assert told.recv(timeout=PATIENCE) == {"type": "http.disconnect"}


@main_goroutine
def test_what_comes_while_a_client_is_watched_is_the_next_request():
    begun, go_on = makechan(), makechan()

    async def app(scope, receive, send):
        if scope["path"] == "/watches":
            await receive()
            watch = asyncio.ensure_future(receive())
            await begun.asend(True)
            await go_on.arecv()
            await hello(scope, receive, send)
            assert await watch == {"type": "http.disconnect"}
        else:
            await echo(scope, receive, send)

    with talking(app) as (conn, reader):
        conn.write(request("/watches"))
        begun.recv(timeout=PATIENCE)
        conn.write(request("/next", method="POST", body=b"body"))
        go_on.send(True)
        assert [reader.answer().body for _ in range(2)] == [b"hello", b"body"]
        conn.write(request("/watches"))
        begun.recv(timeout=PATIENCE)
        go_on.send(True)
        assert reader.answer().body == b"hello"
        conn.write(request("/next", method="POST", body=b"more"))
        assert reader.answer().body == b"more"


# ---- errors -----------------------------------------------------------------------------------------------


@main_goroutine
def test_an_application_that_fails(server_reports):
    async def app(scope, receive, send):
        if scope["path"] != "/before":
            await begin(send)
        if scope["path"] == "/in":
            await say(send, b"beginning", True)
        if scope["path"] == "/behind":
            await say(send, b"all")
        raise ZeroDivisionError("a test")

    with serving(app) as served:
        for path in ("/before", "/begun"):
            assert ask(served.addr, request(path)).status == 500
        whole = talk(served.addr, request("/in"))
        # It is cut: there is no last chunk.
        assert whole.endswith(b"beginning\r\n")
        assert ask(served.addr, request("/behind")).body == b"all"
        wait_until(lambda: len(server_reports) == 4, "all are told")
    for path, text in zip(("/before", "/begun", "/in", "/behind"), server_reports, strict=True):
        assert text.startswith(f"offset.asgi: error in GET {path}\n")
        assert "ZeroDivisionError: a test" in text
        assert "in app" in text


@main_goroutine
def test_what_would_end_the_program_ends_the_request(server_reports):
    async def app(scope, receive, send):
        await asyncio.sleep(0)
        raise {"/exit": SystemExit, "/interrupt": KeyboardInterrupt, "/cancel": asyncio.CancelledError}[scope["path"]]

    with serving(app) as served:
        for path in ("/exit", "/interrupt", "/cancel"):
            assert ask(served.addr, request(path)).status == 500
    assert len(server_reports) == 3


@main_goroutine
def test_an_application_that_does_not_answer(server_reports):
    async def app(scope, receive, send):
        if scope["path"] == "/begun":
            await begin(send)
        if scope["path"] == "/in":
            await begin(send)
            await say(send, b"beginning", True)

    with serving(app) as served:
        assert ask(served.addr, request("/nothing")).status == 500
        assert ask(served.addr, request("/begun")).status == 500
        assert talk(served.addr, request("/in")).endswith(b"beginning\r\n")
    assert ["without a response" in text for text in server_reports] == [True, False, False]
    assert "before the end of its response, to GET /in" in server_reports[2]


@main_goroutine
def test_messages_that_are_wrong():
    start = {"type": "http.response.start", "status": 200}
    body = {"type": "http.response.body"}
    cases = [
        ([body], RuntimeError, "before http.response.start"),
        ([start, start], RuntimeError, "twice"),
        ([{"type": "http.nothing"}], RuntimeError, "'http.nothing'"),
        ([{**start, "status": "200 OK"}], TypeError, "is a number"),
        ([{**start, "status": 99}], ValueError, "status"),
        ([{**start, "status": 101}], ValueError, "101"),
        ([{**start, "trailers": True}], RuntimeError, "trailers"),
        ([{**start, "headers": [("a", "b")]}], TypeError, "must be bytes, not str"),
        ([{**start, "headers": [(b"a",)]}], TypeError, "a pair"),
        ([{**start, "headers": [(b"a:", b"b")]}], ValueError, "belongs in no name"),
        ([{**start, "headers": [(b"a", b"b\r\nc: d")]}], ValueError, "line's end"),
        ([{**start, "headers": 3}], TypeError, "not iterable"),
        ([start, {**body, "body": "text"}], TypeError, "made of bytes, not str"),
    ]
    found = []

    async def app(scope, receive, send):
        messages, error, text = cases[int(scope["query_string"])]
        for message in messages[:-1]:
            await send(message)
        with pytest.raises(error, match=text):
            await send(messages[-1])
        if len(messages) == 1:
            await begin(send)
        await say(send, b"right")
        with pytest.raises(RuntimeError, match="after the end"):
            await say(send)
        found.append(text)

    with talking(app) as (conn, reader):
        for number in range(len(cases)):
            conn.write(request(f"/?{number}"))
            assert reader.answer().body == b"right", cases[number]
        wait_until(lambda: len(found) == len(cases), "all have ended")


@main_goroutine
def test_lengths_that_are_wrong(server_reports):
    async def app(scope, receive, send):
        await begin(send, 200, (b"content-length", b"5"))
        await say(send, b"abc", scope["path"] == "/long")
        if scope["path"] == "/long":
            await say(send, b"defg")

    with serving(app) as served:
        assert talk(served.addr, request("/long")).endswith(b"\r\n\r\nabcde")
        assert talk(served.addr, request("/short")).endswith(b"\r\n\r\nabc")
    assert ["GET /long" in server_reports[0], "GET /short" in server_reports[1], len(server_reports)] == [True, True, 2]


@main_goroutine
def test_requests_that_are_refused():
    seen = []
    with serving(hello, access_log=seen.append) as served:
        assert talk(served.addr, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert talk(served.addr, request("/" + "x" * 9000)).startswith(b"HTTP/1.1 414 ")
    assert [(access.status, access.scope["method"]) for access in seen] == [(400, "GET"), (414, "GET")]
    assert [access.scope["raw_path"] for access in seen] == [b"/", b"/" + b"x" * 999]


# ---- the access log ------------------------------------------------------------------------------------------


@main_goroutine
def test_the_access_log(tmp_path):
    seen = []
    with serving(echo, access_log=seen.append) as served:
        ask(served.addr, request("/a?b", method="POST", body=b"abc"))
    (access,) = seen
    assert (access.status, access.sent, access.scope["path"]) == (200, 3, "/a")
    assert 0 <= access.seconds < PATIENCE
    with open(tmp_path / "log", "w+") as file:
        with serving(echo, access_log=file) as served:
            ask(served.addr, request("/a%20?b", "Referer: here", 'User-Agent: a"b', "User-Agent: second"))
            talk(served.addr, b"nothing\r\n\r\n")
        file.seek(0)
        lines = file.read().splitlines()
    assert lines[0].startswith("127.0.0.1 - - [")
    assert '"GET /a%20?b HTTP/1.1" 200 0 "here" "a\\x22b" 0.' in lines[0]
    assert '"- - -" 400 ' in lines[1]


# ---- what it is told -------------------------------------------------------------------------------------------


class Double:
    """ASGI 2."""

    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass


@pytest.mark.parametrize(
    ("arguments", "options", "error", "what"),
    [
        ((None,), {}, TypeError, "an ASGI application or its name"),
        ((hello, 80), {}, TypeError, "is a string"),
        ((hello,), {"limits": 3}, TypeError, "offset.asgi.Limits"),
        ((hello,), {"lifespan": "maybe"}, ValueError, '"auto", "on" or "off"'),
        ((Double, "127.0.0.1:0"), {}, ValueError, "ASGI 2"),
        ((lambda scope: None, "127.0.0.1:0"), {}, ValueError, "ASGI 2"),
        (
            (lambda environ, start_response: [], "127.0.0.1:0"),
            {},
            ValueError,
            "two arguments, as an application of WSGI",
        ),
    ],
)
def test_what_it_cannot_be_told(arguments, options, error, what):
    kind, text = refusal(lambda: asgi.serve(*arguments, **options))
    assert kind is error
    assert what in text


# ---- goroutines ------------------------------------------------------------------------------------------------


@main_goroutine
def test_an_application_talks_to_goroutines():
    jobs = makechan()

    def worker():
        for reply, number in jobs:
            reply.send(number * number)

    async def app(scope, receive, send):
        reply = makechan(1)
        await jobs.asend((reply, int(scope["query_string"])))
        squared = await reply.arecv()
        done = makechan(1)
        await go(done.send, squared * 2)
        await begin(send)
        await say(send, f"{squared} {done.recv()} {await aio.to_goroutine(pow, squared, 2)}".encode())

    go(worker)
    with serving(app) as served:
        calls = [Call(ask, served.addr, request(f"/?{number}")) for number in range(20)]
        answers = [call.result().body.split() for call in calls]
    jobs.close()
    assert [list(map(int, answer)) for answer in answers] == [[n * n, 2 * n * n, n**4] for n in range(20)]


@main_goroutine
def test_a_client_that_does_not_speak_tls(server_reports):
    with serving(hello, tls=server_context()) as served:
        with contextlib.suppress(OSError, ssl.SSLError):
            talk(served.addr, request())
        assert ask(served.addr, tls=client_context()).body == b"hello"
    (report,) = server_reports
    assert report.endswith("a connection from 127.0.0.1 came to no TLS: HTTP_REQUEST (said once)\n")
