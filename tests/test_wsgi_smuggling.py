"""Requests that two readers may take for different ones, and random ones, beside other parsers.

`OFFSET_HTTP_EXAMPLES` says how many random conversations there are.
"""

from __future__ import annotations

import http.server
import io
import os

import pytest
import smuggling
from helpers import main_goroutine
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from web import serving, talk

EXAMPLES = int(os.environ.get("OFFSET_HTTP_EXAMPLES", "150"))


def tell(environ, start_response):
    """Say what was understood: the method, the target and the body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [repr((environ["REQUEST_METHOD"], environ["RAW_URI"], body)).encode(), b"\n"]


def understood(data):
    """The statuses of the answers, and what was understood where one is 200."""
    answers = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head[9:12])
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
        size = int(length.partition(b": ")[2])
        answers.append((status, rest[:size] if status == 200 else b""))
        data = rest[size:]
    return answers


@pytest.mark.parametrize("kind", smuggling.CORPUS)
def test_what_is_doubtful_is_refused_and_ends_the_connection(kind):
    def main():
        with serving(tell) as served:
            for data in smuggling.CORPUS[kind]:
                answers = understood(talk(served.addr, data))
                assert [status // 100 for status, _ in answers] in ([4], [5]), (data, answers)

    run(main)


def test_what_is_only_odd_is_served():
    def main():
        with serving(tell) as served:
            for data in smuggling.RIGHT:
                (one, first), (other, second) = understood(talk(served.addr, data))
                assert (one, other) == (200, 200)
                assert first.startswith(b"('POST', '") and first.endswith(b"', b'aaaaa')\n"), data
                assert second == b"('GET', '/smuggled', b'')\n"

    run(main)


def run(main):
    main_goroutine(main)()


# ---- beside others ---------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    """What the standard library's server understands of a first request's head."""

    def __init__(self, data):
        self.rfile, self.wfile = io.BytesIO(data), io.BytesIO()
        self.client_address = ("127.0.0.1", 0)
        self.requestline, self.request_version, self.command = "", "", ""
        self.raw_requestline = self.rfile.readline(65_537)
        self.understood = self.parse_request()

    def log_message(self, *_):
        pass


def by_the_standard_library(data):
    """Method and target, or None if it refuses them."""
    handler = _Handler(data)
    return (handler.command, handler.path) if handler.understood else None


def by_gunicorn(data):
    """Method, target and body as gunicorn's parser reads them, or None if it refuses them."""
    from gunicorn.config import Config
    from gunicorn.http.parser import RequestParser

    try:
        request = next(iter(RequestParser(Config(), iter([data]), ("127.0.0.1", 0))))
        return request.method, request.uri, request.body.read()
    except Exception:
        # It has many classes for it, and leaks a few that are not its own.
        return None


PIECES = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b";",
            b",",
            b"0",
            b"5",
            b"a",
            b"\0",
            b"\xe9",
            b"chunked",
            b"identity",
        ),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"Transfer-Encoding: "),
        *(b"X: y\r\n", b"Host: b\r\n", b"Connection: close\r\n", b"5\r\naaaaa\r\n", b"0\r\n\r\n", b"aaaaa"),
        *(b"HTTP/1.0", b"/b"),
    ]
)


@st.composite
def conversations(draw):
    """A conversation that is right, with some of it changed."""
    doubtful = [each for kind in smuggling.CORPUS.values() for each in kind]
    data = draw(st.one_of(st.sampled_from(smuggling.RIGHT), st.sampled_from(doubtful)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 3))
        data = data[:at] + draw(st.one_of(PIECES, st.binary(max_size=2))) + data[at + gone :]
    return data


def differences(served, data):
    """What is understood here is understood so by the others, unless they refuse it."""
    answers = understood(talk(served.addr, data))
    assert all(status == 200 for status, _ in answers[:-1]), "one that is refused is the last"
    if not answers or answers[0][0] != 200:
        return
    mine = eval(answers[0][1])
    theirs = by_gunicorn(data)
    # It looks at the body only when that is read, and takes targets that are none.
    assert theirs is None or theirs == mine, f"gunicorn: {theirs}, here: {mine}"
    theirs = by_the_standard_library(data.removeprefix(b"\r\n"))
    # It takes slashes off that would make a path look like a host.
    same = theirs is None or (theirs[0], theirs[1].lstrip("/")) == (mine[0], mine[1].lstrip("/"))
    assert same, f"http.server: {theirs}, here: {mine}"


def test_random_conversations_are_understood_as_others_do():
    pytest.importorskip("gunicorn")

    wanted = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    number = int(os.environ.get("OFFSET_TEST_SEED", "0"), 0)

    @main_goroutine
    def inside():
        with serving(tell) as served:

            @seed(number)
            @wanted
            @given(conversations())
            def check(data):
                differences(served, data)

            check()

    inside()
