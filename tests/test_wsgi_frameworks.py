"""Flask, Django and the standard library's validator over `offset.wsgi.serve`, as they are."""

from __future__ import annotations

import io
import json
import sys
from wsgiref.validate import validator

import offset
import pytest
from helpers import PATIENCE, main_goroutine
from net_peers import Call, pattern
from offset import sync
from web import Reader, ask, chunks, connect, request, serving

BOUNDARY = "xyz"


def multipart(data):
    """A form with a file, and the headers that go with it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"


# ---- Flask -----------------------------------------------------------------------------------------


def flask_app(barrier):
    flask = pytest.importorskip("flask")
    app = flask.Flask("here")

    @app.get("/hello/<name>")
    def hello(name):
        return f"hello {name} {flask.request.args.get('q')}"

    @app.post("/json")
    def double():
        return {"twice": flask.request.get_json()["n"] * 2}

    @app.post("/file")
    def upload():
        return flask.request.files["file"].read()

    @app.post("/raw")
    def raw():
        return flask.request.get_data()

    @app.get("/stream")
    def stream():
        @flask.stream_with_context
        def body():
            for number in range(3):
                yield f"{number} {flask.request.path}\n"

        return body(), {"Content-Type": "text/plain"}

    @app.get("/cookie")
    def cookie():
        response = flask.make_response("set")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    @app.get("/send")
    def send():
        return flask.send_file(__file__, conditional=True)

    @app.get("/fails")
    def fails():
        return 1 // 0

    @app.get("/together/<name>")
    def together(name):
        # Each has its own request, and waits for the other.
        barrier.done()
        barrier.wait(timeout=PATIENCE)
        assert flask.request.path.endswith(name)
        return name

    return app


@main_goroutine
def test_flask():
    barrier = sync.WaitGroup()
    barrier.add(2)
    with serving(flask_app(barrier)) as served, connect(served.addr) as conn:
        reader = Reader(conn)

        def say(data, head=False):
            conn.write(data)
            return reader.answer(head=head)

        assert say(request("/hello/%C3%A9?q=%26")).body.decode() == "hello é &"
        assert say(request("/hello/x", method="HEAD"), head=True).headers["content-length"] == "12"
        answer = say(request("/json", "Content-Type: application/json", method="POST", body=b'{"n": 21}'))
        assert json.loads(answer.body) == {"twice": 42}
        data = pattern(200_000)
        assert say(request("/file", FORM, method="POST", body=multipart(data))).body == data
        assert say(request("/raw", method="POST", body=data)).body == data
        sent = request("/raw", "Transfer-Encoding: chunked", method="POST") + chunks(data[:70_000], data[70_000:])
        assert say(sent).body == data
        assert say(request("/stream")).body == b"0 /stream\n1 /stream\n2 /stream\n"
        assert say(request("/cookie")).headers["set-cookie"] == "b=2; Path=/"
        with open(__file__, "rb") as file:
            source = file.read()
        assert say(request("/send")).body == source
        part = say(request("/send", "Range: bytes=3-9"))
        assert (part.status, part.body) == (206, source[3:10])
        assert say(request("/missing")).status == 404
        assert say(request("/hello/x", method="DELETE")).status == 405
        calls = [Call(ask, served.addr, request(f"/together/{name}")) for name in "ab"]
        assert [call.result().body for call in calls] == [b"a", b"b"]


@main_goroutine
def test_errors_in_flask(server_reports, caplog):
    app = flask_app(sync.WaitGroup())
    with serving(app) as served:
        assert ask(served.addr, request("/fails")).status == 500
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()
    # With this set it has the server report them.
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with serving(app) as served:
        assert ask(served.addr, request("/fails")).status == 500
    assert "ZeroDivisionError" in server_reports[0]


# ---- Django ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def django_app():
    """An application of Django's, which has one configuration a process."""
    pytest.importorskip("django")
    from django import conf, http, urls
    from django.core.wsgi import get_wsgi_application

    def hello(request, name):
        return http.HttpResponse(f"hello {name} {request.GET.get('q')} {request.build_absolute_uri('/')}")

    def upload(request):
        return http.HttpResponse(request.FILES["file"].read())

    def raw(request):
        return http.HttpResponse(request.read())

    def stream(request):
        return http.StreamingHttpResponse(f"{number}\n" for number in range(3))

    def send(request):
        return http.FileResponse(open(__file__, "rb"))

    def fails(request):
        return 1 // 0

    pages = type(sys)("offset_test_django")
    pages.urlpatterns = [
        urls.path("hello/<name>", hello),
        urls.path("file", upload),
        urls.path("raw", raw),
        urls.path("stream", stream),
        urls.path("send", send),
        urls.path("fails", fails),
    ]
    sys.modules[pages.__name__] = pages
    conf.settings.configure(
        ROOT_URLCONF=pages.__name__, ALLOWED_HOSTS=["localhost"], SECRET_KEY="x", LOGGING_CONFIG=None, DEBUG=False
    )
    return get_wsgi_application()


@main_goroutine
def test_django(django_app, caplog):
    with serving(django_app) as served, connect(served.addr) as conn:
        reader = Reader(conn)

        def say(data, head=False):
            conn.write(data)
            return reader.answer(head=head)

        assert say(request("/hello/%C3%A9?q=%26")).body.decode() == "hello é & http://localhost/"
        assert say(request("/hello/x", method="HEAD"), head=True).status == 200
        data = pattern(200_000)
        assert say(request("/file", FORM, method="POST", body=multipart(data))).body == data
        assert say(request("/raw", method="POST", body=data)).body == data
        assert say(request("/stream")).body == b"0\n1\n2\n"
        with open(__file__, "rb") as file:
            assert say(request("/send")).body == file.read()
        assert say(request("/missing")).status == 404
        assert say(request("/fails")).status == 500
        assert say(request("/hello/x")).status == 200
    # What it has logged has the traceback, and that the connection.
    caplog.clear()


# ---- the validator ---------------------------------------------------------------------------------


def every_way(environ, start_response):
    """What the specification has, behind the validator."""
    body = environ["wsgi.input"]
    text = body.readline() + body.read(3) + b"".join(body.readlines()) + body.read(10)
    print("an error", file=environ["wsgi.errors"])
    environ["wsgi.errors"].flush()
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["QUERY_STRING"] == "write":
        write(b"written ")
    if environ["QUERY_STRING"] == "file":
        return environ["wsgi.file_wrapper"](io.BytesIO(text), 4)
    return [b"got ", text]


@main_goroutine
def test_the_validator_finds_nothing(server_reports, capsys):
    with serving(validator(every_way)) as served, connect(served.addr) as conn:
        reader = Reader(conn)
        for query in ("", "?write", "?file", "?x=%20y"):
            for data in (
                request("/a%20b" + query, "Content-Type: text/plain", method="POST", body=b"one\ntwo\nthree\n"),
                request("/" + query),
                request("/" + query, "Transfer-Encoding: chunked", "Content-Type: a/b", method="POST")
                + chunks(b"one\ntwo", b"\nthree\n"),
                request("http://localhost/x" + query, "Accept: */*", "X-Odd: a", "X-Odd: b", method="PUT", body=b"x"),
            ):
                conn.write(data)
                assert reader.answer().status == 200
        conn.write(request("*", method="OPTIONS"))
        assert reader.answer().status == 200
        conn.write(request("/", method="HEAD"))
        assert reader.answer(head=True).status == 200
    assert server_reports == []
    assert "an error" in capsys.readouterr().err


def test_the_validator_over_unix_and_in_run(tmp_path, server_reports):
    def main():
        with serving(validator(every_way), bind=f"unix:{tmp_path / 's'}") as served:
            assert ask(served.addr, request("/", method="POST", body=b"x\n")).body == b"got x\n"

    offset.run(main)
    assert server_reports == []
