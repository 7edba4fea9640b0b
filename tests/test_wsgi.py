"""`offset.wsgi.serve`: what an application finds, what becomes of its answers, and how connections are
kept."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import sys
import threading
import time as plain_time

import offset
import pytest
from helpers import FREE_THREADED, PATIENCE, main_goroutine, wait_until
from net_peers import Call, client_context, pattern, server_context
from offset import makechan, wsgi
from offset._http._serve import Options
from offset.wsgi import Limits, RequestError
from web import Reader, app_of, ask, chunks, connect, echo, hello, request, serving, talk, talking

# ---- what an application finds ------------------------------------------------------------------


@main_goroutine
def test_the_environ():
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        start_response("200 OK", [])
        return []

    lines = [
        "X-Two: a",
        "x-two: b",
        "Cookie: a=1",
        "Cookie: b=2",
        "Content-Type: x/y",
        "X_Under: no",
        "Proxy: no",
        "X-E: \xe9",
    ]
    with serving(app) as served:
        assert ask(served.addr, request("/a%2Fb/%C3%A9%zz?q=%20&r", *lines, method="PUT", body=b"abc")).status == 200
    environ = seen[0]
    host, port = served.addr.split(":")
    assert type(environ) is dict
    wanted = {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b/\xc3\xa9%zz",
        "QUERY_STRING": "q=%20&r",
        "RAW_URI": "/a%2Fb/%C3%A9%zz?q=%20&r",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "x/y",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "localhost",
        "HTTP_X_TWO": "a,b",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_E": "\xe9",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
    }
    assert {name: environ.get(name) for name in wanted} == wanted
    names = {name for name in environ if name.startswith(("HTTP_", "CONTENT_"))}
    assert names == {"HTTP_HOST", "HTTP_X_TWO", "HTTP_COOKIE", "HTTP_X_E", "CONTENT_TYPE", "CONTENT_LENGTH"}
    assert environ["REMOTE_PORT"].isdigit()
    assert environ["wsgi.input"].read() == b"", "the request is over"


@main_goroutine
@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("//a", "//a", ""),
        ("/?", "/", ""),
        ("/%00", "/\0", ""),
        ("http://elsewhere:8/x?y", "/x", "y"),
        ("http://elsewhere:8", "/", ""),
    ],
)
def test_targets(target, path, query):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [repr([environ[name] for name in ("PATH_INFO", "QUERY_STRING", "HTTP_HOST")]).encode()]

    with serving(app) as served:
        # Where the target names a host, it is that one.
        host = "elsewhere:8" if target.startswith("http") else "localhost"
        assert ask(served.addr, request(target)).body == repr([path, query, host]).encode()
        assert ask(served.addr, request("http://who@elsewhere/")).status == 400


@main_goroutine
def test_the_body_as_a_file():
    taken = []

    def app(environ, start_response):
        body = environ["wsgi.input"]
        taken.append(
            [
                body.readline(),
                body.readline(2),
                body.read(3),
                body.readlines(1),
                list(body),
                body.read(),
                body.readline(),
            ]
        )
        start_response("200 OK", [])
        return []

    text = b"one\ntwo\nthree\nfour\nfive\nsix"
    wanted = [b"one\n", b"tw", b"o\nt", [b"hree\n"], [b"four\n", b"five\n", b"six"], b"", b""]
    with talking(app) as (conn, reader):
        conn.write(request(method="POST", body=text))
        assert reader.answer().status == 200
        conn.write(
            request("/", "Transfer-Encoding: chunked", method="POST") + chunks(*(bytes([each]) for each in text))
        )
        assert reader.answer().status == 200
    assert taken == [wanted, wanted]


@main_goroutine
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_both_ways(chunked):
    data = pattern(3_000_000)

    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [] if chunked else [("Content-Length", str(len(body)))])
        return (body[at : at + 100_000] for at in range(0, len(body), 100_000))

    with talking(app) as (conn, reader):
        for _ in range(2):
            if chunked:
                parts = [data[at : at + 77_777] for at in range(0, len(data), 77_777)]
                sent = request("/", "Transfer-Encoding: chunked", method="POST") + chunks(*parts)
            else:
                sent = request(method="POST", body=data)
            writing = Call(conn.write, sent)
            answer = reader.answer()
            writing.result()
            assert answer.body == data
            assert ("transfer-encoding" in answer.headers) == chunked


@main_goroutine
def test_small_chunks_are_given_as_one():
    def app(environ, start_response):
        body = environ["wsgi.input"]
        start_response("200 OK", [])
        return [b"%d %d" % (len(body.read1(700)), len(body.read1()))]

    with serving(app) as served:
        data = request("/", "Transfer-Encoding: chunked", method="POST") + chunks(*[b"x"] * 1000)
        assert ask(served.addr, data).body == b"700 300"


@main_goroutine
def test_an_input_that_is_kept_reads_nothing_of_the_next_request():
    kept = []

    def app(environ, start_response):
        kept.append(environ["wsgi.input"])
        start_response("200 OK", [])
        return [b"".join(body.read() for body in kept)]

    with talking(app) as (conn, reader):
        conn.write(request(method="POST", body=b"one") + request(method="POST", body=b"two"))
        assert (reader.answer().body, reader.answer().body) == (b"one", b"two")


# ---- what becomes of an answer -------------------------------------------------------------------


def generator(environ, start_response):
    start_response("200 OK", [])
    yield b""
    yield b"hel"
    yield b""
    yield b"lo"


def written(environ, start_response):
    write = start_response("200 OK", [])
    write(b"hel")
    return [b"lo"]


def late(environ, start_response):
    def body():
        start_response("200 OK", [])
        yield b"hello"

    return body()


@main_goroutine
@pytest.mark.parametrize(
    ("app", "length"),
    [
        (hello, "5"),
        (app_of(b"hel", b"", b"lo"), "5"),
        (app_of(*[b"h"], *[b""] * 30, b"ello"), None),
        (app_of(b"hello", headers=[("Content-Length", "5")]), "5"),
        (generator, None),
        (written, None),
        (late, None),
        (lambda environ, start: (start("200 OK", []), (b"hello",))[1], "5"),
        (lambda environ, start: (start("200 OK", []), {b"hello": 1})[1], None),
    ],
)
def test_ways_to_answer(app, length):
    with talking(app) as (conn, reader):
        for method in ("GET", "HEAD", "GET"):
            conn.write(request(method=method))
            answer = reader.answer(head=method == "HEAD")
            assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"hello")
            if method == "GET":
                assert answer.headers.get("content-length") == length
                assert answer.headers.get("transfer-encoding") == ("chunked" if length is None else None)
        # Of HTTP/1.0 there are no chunks: the end of the connection is the end of the body.
        conn.write(request("/", "Connection: keep-alive", version="1.0"))
        answer = reader.answer()
        assert (answer.body, "transfer-encoding" in answer.headers) == (b"hello", False)
        assert answer.headers["connection"] == ("close" if length is None else "keep-alive")


@main_goroutine
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "205 Reset Content"])
def test_statuses_without_a_body(status):
    bodiless = not status.startswith("205")
    with talking(app_of(b"hello" if bodiless else b"", status=status)) as (conn, reader):
        conn.write(request() * 2)
        for _ in range(2):
            answer = reader.answer()
            assert (answer.status, answer.body) == (int(status[:3]), b"")
            assert ("content-length" in answer.headers) != bodiless


@main_goroutine
def test_the_head_of_an_answer():
    own = [
        ("Server", "mine"),
        ("Date", "then"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
        ("X-E", "\xe9"),
        ("Connection", "x"),
    ]
    with serving(app_of(b"", headers=own)) as served:
        answer = ask(served.addr)
        assert (answer.headers["server"], answer.headers["date"], answer.headers["x-e"]) == ("mine", "then", "\xe9")
        assert "connection" not in answer.headers
    with serving(hello) as served:
        assert ask(served.addr).headers["server"] == f"offset/{offset.__version__}"
    with serving(hello, server_header="") as served:
        assert "server" not in ask(served.addr).headers


@main_goroutine
@pytest.mark.parametrize(
    ("app", "what"),
    [
        (lambda environ, start: [b"x"], "has not called start_response"),
        (lambda environ, start: start("200", []) and None, "NoneType"),
        (lambda environ, start: 1 / 0, "ZeroDivisionError"),
        (lambda environ, start: start("OK", []), "three digits"),
        (lambda environ, start: start("200 OK\r\nX: y", []), "three digits"),
        (lambda environ, start: start("103 Early Hints", []), "only 101"),
        (lambda environ, start: start(200, []), "must be a string"),
        (lambda environ, start: start("200 OK", [("A", "b\r\nc: d")]), "line's end"),
        (lambda environ, start: start("200 OK", [("A\r\n", "b")]), "belongs in no name"),
        (lambda environ, start: start("200 OK", [("A", 1)]), "must be a string"),
        (lambda environ, start: start("200 OK", [("A", "\u20ac")]), "latin-1"),
        (lambda environ, start: start("200 OK", [("Content-Length", "x")]), "is no length"),
        (lambda environ, start: start("200 OK", {"A": "b"}), "list of pairs"),
        (lambda environ, start: start("200 OK", ["ab"]), "a tuple of"),
        (lambda environ, start: (start("200 OK", []), start("200 OK", [])), "a second time"),
        (lambda environ, start: (start("200 OK", []), ["text"])[1], "made of bytes"),
        (lambda environ, start: (start("200 OK", []), "text")[1], "made of bytes"),
    ],
)
def test_an_application_that_fails_is_reported_and_answered_for(app, what, server_reports):
    with talking(app) as (conn, reader):
        conn.write(request("/here"))
        answer = reader.answer()
        assert (answer.status, answer.headers["connection"]) == (500, "close")
        assert reader.at_end()
    assert what in server_reports[0]
    assert "GET /here" in server_reports[0]


@main_goroutine
def test_an_access_log_that_fails_is_reported_and_nothing_to_the_client(server_reports):
    def log(access):
        raise OSError(errno.ENOSPC, "no space")

    with serving(hello, access_log=log) as served, connect(served.addr) as conn:
        reader = Reader(conn)
        for count in (1, 2):
            conn.write(request())
            assert reader.answer().status == 200
            wait_until(lambda count=count: len(server_reports) == count, "the failure is reported")
        # Nor is it to one whose request was refused.
        conn.write(b"\r\nbroken\r\n\r\n")
        assert reader.answer().status == 400
        assert reader.at_end()
        wait_until(lambda: len(server_reports) == 3, "the failure is reported")
    assert all("the access log has failed" in report and "no space" in report for report in server_reports)


@main_goroutine
def test_an_answer_that_was_begun_is_cut(server_reports):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"begun"
        raise ValueError("the end")

    with serving(app) as served:
        data = talk(served.addr, request())
    assert data.endswith(b"\r\n\r\n5\r\nbegun\r\n"), "there is no last chunk"
    assert "ValueError: the end" in server_reports[0]


@main_goroutine
def test_errors_that_the_application_answers_itself(server_reports):
    def app(environ, start_response):
        start_response("200 OK", [("X", "y")])
        try:
            raise ValueError("mine")
        except ValueError:
            start_response("500 Mine", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    with serving(app) as served:
        answer = ask(served.addr)
    assert (answer.status, answer.body, "x" in answer.headers, server_reports) == (500, b"sorry", False, [])


@main_goroutine
def test_an_error_after_the_head_is_raised_to_the_application(server_reports):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"begun")
        try:
            raise KeyError("late")
        except KeyError:
            start_response("500 Mine", [], sys.exc_info())
        return []

    with serving(app) as served:
        talk(served.addr, request())
    assert "KeyError: 'late'" in server_reports[0]


@main_goroutine
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["call", "body", "close"])
def test_what_would_end_the_program_ends_the_request(error, where, server_reports):
    class Body:
        def __iter__(self):
            if where == "body":
                raise error("mine")
            yield b"hello"

        def close(self):
            if where == "close":
                raise error("mine")

    def app(environ, start_response):
        if where == "call":
            raise error("mine")
        start_response("200 OK", [])
        return Body()

    with serving(app) as served:
        for count in (1, 2):
            assert ask(served.addr).status == (200 if where == "close" else 500)
            wait_until(lambda count=count: len(server_reports) == count, "it is reported")
    assert f"{error.__name__}: mine" in server_reports[0]


@main_goroutine
@pytest.mark.parametrize(("declared", "got"), [("3", b"hel"), ("9", b"hello")])
def test_a_body_of_another_length_than_was_said(declared, got, server_reports):
    with serving(app_of(b"hello", headers=[("Content-Length", declared)])) as served:
        data = talk(served.addr, request() * 2)
    assert data.count(b"HTTP/1.1 200") == 1, "nobody knows where the next one would begin"
    assert data.endswith(b"\r\n\r\n" + got)
    assert "not as long as its Content-Length said" in server_reports[0]


@main_goroutine
@pytest.mark.parametrize("client", ["stays", "goes"])
def test_what_is_returned_is_closed(client, server_reports):
    closed = makechan(1)

    class Body:
        def __iter__(self):
            while True:
                yield b"x" * 100_000
                if client == "stays":
                    return

        def close(self):
            closed.send(True)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    with serving(app) as served, connect(served.addr) as conn:
        conn.write(request())
        assert conn.read(100)
        if client == "goes":
            conn.close()
        assert closed.recv(timeout=PATIENCE)
        if client == "stays":
            wait_until(lambda: conn.read(65_536).endswith(b"0\r\n\r\n"))
    assert not server_reports, "a client that goes is no error"


@main_goroutine
def test_a_client_that_goes_before_its_answer(server_reports):
    begun, gone = makechan(1), makechan(1)

    def app(environ, start_response):
        begun.send(True)
        gone.recv(timeout=PATIENCE)
        start_response("200 OK", [])
        return [b"x" * 10_000_000]

    with serving(app) as served:
        with connect(served.addr) as conn:
            conn.write(request())
            begun.recv(timeout=PATIENCE)
        gone.send(True)
    assert not server_reports


@main_goroutine
def test_a_client_that_goes_while_the_application_writes(server_reports):
    over = makechan(1)

    def app(environ, start_response):
        write = start_response("200 OK", [])
        try:
            while True:
                write(b"x" * 100_000)
        finally:
            over.send(True)

    with serving(app) as served:
        with connect(served.addr) as conn:
            conn.write(request())
            assert conn.read(100)
        assert over.recv(timeout=PATIENCE)
    assert not server_reports


@main_goroutine
def test_a_start_response_that_is_kept_begins_no_other_response():
    kept = []

    def app(environ, start_response):
        raised = []
        for old in kept:
            with pytest.raises(RuntimeError, match="whose response is over"):
                old("500 Oops", [])
            raised.append(b".")
        start_response("200 OK", [])
        kept.append(start_response)
        return raised

    with talking(app) as (conn, reader):
        for number in range(3):
            conn.write(request())
            assert reader.answer().body == b"." * number
            # Between two requests, too.
            with pytest.raises(RuntimeError):
                kept[-1]("500 Oops", [])
        conn.write(request() * 2)
        assert [reader.answer().body for _ in range(2)] == [b"...", b"...."]


@main_goroutine
def test_a_write_that_is_kept_writes_to_no_other_response():
    kept = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        for old in kept:
            with pytest.raises(RuntimeError, match="over"):
                old(b"old")
        kept.append(write)
        write(b"hel")
        return [b"lo"]

    with talking(app) as (conn, reader):
        conn.write(request() * 3)
        assert [reader.answer().body for _ in range(3)] == [b"hello"] * 3


@main_goroutine
@pytest.mark.parametrize(("status", "answered"), [(499, 499), (599, 599), (200, 500)])
def test_a_status_of_the_applications_own(status, answered, server_reports):
    def app(environ, start_response):
        raise RequestError(status, "mine")

    with serving(app) as served:
        assert ask(served.addr).status == answered
    assert bool(server_reports) == (status != answered)


# ---- connections ----------------------------------------------------------------------------------


@main_goroutine
def test_requests_one_after_the_other_and_in_one_piece():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode(), environ["wsgi.input"].read()]

    with talking(app) as (conn, reader):
        for number in range(3):
            conn.write(request(f"/{number}"))
            assert reader.answer().body == b"/%d" % number
        many = b"".join(request(f"/{number}", method="POST", body=b"x" * number) for number in range(100))
        conn.write(many)
        for number in range(100):
            assert reader.answer().body == b"/%d" % number + b"x" * number
        for byte in request("/slowly", "Connection: close"):
            conn.write(bytes([byte]))
        assert reader.answer().body == b"/slowly"
        assert reader.at_end()


@main_goroutine
@pytest.mark.parametrize(
    ("headers", "version", "kept"),
    [
        ((), "1.1", True),
        (("Connection: close",), "1.1", False),
        (("Connection: Keep-Alive",), "1.0", True),
        ((), "1.0", False),
    ],
)
def test_what_is_kept(headers, version, kept):
    with talking(hello) as (conn, reader):
        conn.write(request("/", *headers, version=version))
        answer = reader.answer()
        assert (answer.headers.get("connection") != "close") == kept
        if kept:
            conn.write(request())
            assert reader.answer().body == b"hello"
        else:
            assert reader.at_end()


@main_goroutine
def test_an_application_can_end_the_connection():
    with talking(app_of(b"x", headers=[("Connection", "close")])) as (conn, reader):
        conn.write(request())
        assert reader.answer().headers["connection"] == "close"
        assert reader.at_end()


@main_goroutine
def test_100_continue():
    with talking(echo) as (conn, reader):
        conn.write(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        assert reader.answer().status == 100
        conn.write(b"abc")
        assert reader.answer().body == b"abc"
        # One that does not wait is not told.
        conn.write(request("/", "Expect: 100-continue", method="POST", body=b"def"))
        assert reader.answer().body == b"def"


@main_goroutine
def test_a_body_that_nobody_wants_is_not_asked_for():
    with talking(hello) as (conn, reader):
        conn.write(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        answer = reader.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        # It may send it all the same: it is no request.
        conn.write(request("/smuggled"))
        assert reader.at_end()


@main_goroutine
def test_a_body_that_nobody_reads():
    with talking(hello) as (conn, reader):
        conn.write(request(method="POST", body=b"x" * 100_000) + request())
        assert [reader.answer().body, reader.answer().body] == [b"hello", b"hello"]
        conn.write(request("/", "Transfer-Encoding: chunked", method="POST") + chunks(b"x" * 5000, b"y") + request())
        assert [reader.answer().body, reader.answer().body] == [b"hello", b"hello"]
    with serving(hello) as served, connect(served.addr) as conn:
        # Too much of it: the connection ends, after the answer.
        conn.write(request("/", "Content-Length: 10000000", method="POST") + b"x" * 100_000)
        reader = Reader(conn)
        assert reader.answer().body == b"hello"
        assert reader.at_end()


@main_goroutine
def test_the_others_go_on_beside_one_that_blocks_and_one_that_computes():
    over = threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/blocks":
            over.wait(PATIENCE)
        elif environ["PATH_INFO"] == "/computes":
            while not over.is_set():
                pass
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    if FREE_THREADED:
        pytest.skip("without the GIL what blocks stops those that began on its thread, as the README says")
    with serving(app) as served:
        try:
            slow = [Call(ask, served.addr, request(path)) for path in ("/blocks", "/computes")]
            for _ in range(5):
                assert ask(served.addr).body == b"/"
            assert not any(call.ended for call in slow)
        finally:
            over.set()
        assert [call.result().body for call in slow] == [b"/blocks", b"/computes"]


@main_goroutine
def test_unix_sockets(tmp_path):
    path = tmp_path / "socket"
    for bind in (f"unix:{path}", f"unix:@offset-test-wsgi-{os.getpid()}"):
        with serving(hello, bind=bind) as served:
            assert served.addr == bind
            assert ask(served.addr).body == b"hello"
    assert not path.exists()
    # What somebody has left who is gone is no obstacle.
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with serving(hello, bind=f"unix:{path}") as served:
        assert ask(served.addr).body == b"hello"
        with pytest.raises(OSError, match="in use"):
            wsgi.serve(hello, f"unix:{path}")
    # Other files stay.
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="is no socket"):
        wsgi.serve(hello, f"unix:{path}")
    assert path.read_text() == "mine"


@main_goroutine
def test_a_unix_socket_whose_queue_is_full(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(path)
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        with pytest.raises(OSError, match="in use"):
            wsgi.serve(hello, f"unix:{path}")


def test_workers_listen_where_they_are_told():
    # Nobody listens here: it is bound, and that is all.
    options = Options(hello, ":0", None, None, None, None, Limits(), None, False, True, None)
    first = options.sockets()
    port = first[0].getsockname()[1]
    (again,) = options.sockets_again(first)
    with again:
        assert again.getsockname()[1] == port
        if again.family == socket.AF_INET6:
            assert not again.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), "IPv4 comes here, too"


@main_goroutine
def test_several_addresses(tmp_path):
    with serving(hello, bind=["127.0.0.1:0", f"unix:{tmp_path / 's'}"]) as served:
        assert ask(served.addr).body == ask(f"unix:{tmp_path / 's'}").body == b"hello"


@main_goroutine
def test_addresses_can_be_shared():
    with serving(hello, reuse_port=True) as served:
        with serving(hello, bind=served.addr, reuse_port=True) as other:
            assert other.addr == served.addr
        with pytest.raises(OSError, match="in use"):
            wsgi.serve(hello, served.addr)


@main_goroutine
def test_tls(capsys):
    seen = []

    def app(environ, start_response):
        seen.append((environ["wsgi.url_scheme"], environ["HTTPS"]))
        return echo(environ, start_response)

    data = pattern(300_000)
    with serving(app, tls=server_context()) as served:
        with connect(served.addr, client_context()) as conn:
            reader = Reader(conn)
            for _ in range(3):
                writing = Call(conn.write, request(method="POST", body=data))
                assert reader.answer().body == data
                writing.result()
        # No TLS: nothing comes back, and the others are served.
        assert b"HTTP" not in talk(served.addr, request()) + talk(served.addr, request())
        assert ask(served.addr, request(method="POST", body=b"x"), tls=client_context()).body == b"x"
    assert capsys.readouterr().err.count("a connection from 127.0.0.1 came to no TLS: HTTP_REQUEST (said once)") == 1
    assert set(seen) == {("https", "on")}


# ---- what it is told -------------------------------------------------------------------------------


async def coloured(scope, receive, send):
    pass


@pytest.mark.parametrize(
    ("arguments", "options", "error", "what"),
    [
        ((None,), {}, TypeError, "a WSGI application or its name"),
        ((coloured, "127.0.0.1:0"), {}, ValueError, "an application of ASGI, a coroutine function"),
        ((hello, 80), {}, TypeError, "is a string"),
        ((hello, "nowhere"), {}, ValueError, "has no port"),
        ((hello, []), {}, ValueError, "no address"),
        ((hello,), {"limits": 3}, TypeError, "offset.wsgi.Limits"),
        ((hello,), {"tls": True}, TypeError, "ssl.SSLContext"),
        ((hello,), {"tls": ssl.create_default_context()}, ValueError, "not one for clients"),
        ((hello,), {"on_ready": 3}, TypeError, "on_ready is a function"),
        ((hello,), {"ready": print}, TypeError, "ready is a channel"),
        ((hello,), {"stop": 3}, TypeError, "stop is a context"),
        ((hello,), {"grace": "x"}, TypeError, "a number of seconds"),
        ((hello,), {"workers": 0}, ValueError, "at least one worker"),
        ((hello,), {"access_log": 3}, TypeError, "access_log"),
        ((hello,), {"reload": True}, ValueError, "module:attribute"),
        (("nothing_of_the_kind:app", "127.0.0.1:0"), {}, ImportError, "nothing_of_the_kind"),
        (("json:no", "127.0.0.1:0"), {}, ValueError, "json has no no"),
        (("json:__name__", "127.0.0.1:0"), {}, ValueError, "is no application"),
    ],
)
def test_what_it_cannot_be_told(arguments, options, error, what):
    with pytest.raises(error, match=what):
        wsgi.serve(*arguments, **options)


def test_the_time_of_a_test_is_not_the_subject():
    # `time.sleep` of the standard library is what applications use; it stops nobody else.
    def app(environ, start_response):
        plain_time.sleep(0.001)
        start_response("200 OK", [])
        return [b"slept"]

    def main():
        with serving(app) as served:
            calls = [Call(ask, served.addr) for _ in range(10)]
            assert {call.result().body for call in calls} == {b"slept"}

    offset.run(main)


def test_inputs_by_themselves():
    body = wsgi.Input(None)
    assert (body.read(), body.readline(), body.readlines(), list(body), body.read1(), body.readinto(bytearray(3))) == (
        b"", b"", [], [], b"", 0,
    )  # fmt: skip
    assert body.readable()
    assert body.stats() == {"open": False, "buffered": 0}
    assert Limits().stats()["fields"] == 100
