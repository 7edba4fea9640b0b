"""`offset.wsgi.serve`: what is too large, too slow, too many or broken."""

from __future__ import annotations

import contextlib

import offset
import pytest
from helpers import PATIENCE, main_goroutine
from net_peers import Call, client_context, server_context
from offset import context, makechan
from offset.net import TLSConn
from offset.wsgi import Limits, RequestError, _file
from web import (
    Reader,
    app_of,
    ask,
    chunks,
    connect,
    echo,
    hello,
    request,
    serving,
    talk,
    talking,
    within_longer_and_longer,
)


def long(name, size):
    return f"{name}: {'x' * size}"


@main_goroutine
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/" + "x" * 200), 414),
        (b"GET /" + b"x" * 10_000, 414),
        (request("/", long("X", 2000)), 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 5000, 431),
        (request("/", *(f"X{number}: y" for number in range(20))), 431),
        (request(method="POST", body=b"x" * 1001), 413),
        (request("/", "Content-Length: 99999999999999", method="POST"), 413),
        (request("/", "Transfer-Encoding: chunked", method="POST") + chunks(b"x" * 600, b"x" * 600), 413),
        (request("/", "Transfer-Encoding: chunked", method="POST") + b"FFFFFFFFFFFFFFFF\r\n", 413),
        (request("/", "Transfer-Encoding: chunked", method="POST") + b"0\r\n" + b"x: y\r\n" * 1000, 431),
        (request("/", "Transfer-Encoding: chunked", method="POST") + b"1;" + b"x" * 100_000, 400),
        (b"x" * 100_000, 414),
    ],
)
def test_what_is_too_large_is_refused(data, status, server_reports):
    limits = Limits(target=100, head=1000, fields=10, body=1000)
    with serving(echo, limits=limits) as served:
        answer = talk(served.addr, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1
        assert ask(served.addr, request(method="POST", body=b"x" * 1000)).status == 200
    assert not server_reports


@main_goroutine
@pytest.mark.parametrize(
    ("data", "status", "limits"),
    [
        (b"GET / HTT", 408, {"head_timeout": 0.05}),
        (request("/", "Content-Length: 5", method="POST") + b"ab", 408, {"body_timeout": 0.05}),
        (b"", None, {"idle_timeout": 0.05}),
    ],
)
def test_what_is_too_slow_is_ended(data, status, limits, server_reports):
    with talking(echo, limits=Limits(**limits)) as (conn, reader):
        conn.write(data)
        if status is not None:
            answer = reader.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert reader.at_end()
    assert not server_reports


@main_goroutine
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTT", 408),
        (request("/", "Content-Length: 9999", method="POST"), 413),
        (request("/" + "x" * 200), 414),
        (request("/", long("X", 2000)), 431),
    ],
)
def test_what_is_refused_is_answered_after_others_were(data, status, server_reports):
    limits = Limits(target=100, head=1000, body=1000, head_timeout=0.05 if status == 408 else 10)
    with talking(hello, limits=limits) as (conn, reader):
        for _ in range(2):
            conn.write(request())
            assert reader.answer().body == b"hello"
        conn.write(data)
        answer = reader.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert reader.at_end()
    assert not server_reports


@main_goroutine
def test_bytes_one_by_one_do_not_stretch_the_time_for_a_head():
    with talking(hello, limits=Limits(head_timeout=0.3)) as (conn, reader):

        def drip():
            with contextlib.suppress(OSError):
                for byte in request("/", long("X", 10_000)):
                    conn.write(bytes([byte]))
                    offset.sleep(0.01)

        dripping = Call(drip)
        assert reader.answer().status == 408
        conn.close()
        dripping.result()


@main_goroutine
def test_a_client_that_does_not_take_its_answer(server_reports):
    closed = makechan(1)

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            closed.send(True)

    with talking(app, limits=Limits(write_timeout=0.05)) as (conn, _):
        conn.write(request())
        assert closed.recv(timeout=PATIENCE)


SIZE = 30_000_000


@main_goroutine
def test_a_client_that_takes_its_answer_slowly(server_reports):
    def attempt(seconds):
        with talking(app_of(b"x" * SIZE), limits=Limits(write_timeout=seconds)) as (conn, _):
            conn.write(request("/", "Connection: close"))
            got = 0
            while part := conn.read(1_000_000):
                got += len(part)
                # All of it takes longer than each write may.
                offset.sleep(2 * seconds * len(part) / SIZE)
            assert got > SIZE

    within_longer_and_longer(attempt)
    assert not server_reports


def test_a_client_that_takes_a_file_slowly():
    class Slow:
        deadlines = 0

        def set_write_deadline(self, when):
            self.deadlines += 1

        def sendfile(self, file, start, count):
            if self.deadlines == 4:
                raise TimeoutError
            if self.deadlines == 2:
                error = TimeoutError()
                error.characters_written = 10
                raise error
            return count

    slow = Slow()
    assert _file._send(slow, None, 0, (1 << 20) + 20, 1.0) == (1 << 20) + 20
    with pytest.raises(TimeoutError):
        _file._send(slow, None, 0, 1, 1.0)


@main_goroutine
def test_over_tls_each_piece_has_the_time(monkeypatch):
    sizes = []
    write = TLSConn.write
    monkeypatch.setattr(TLSConn, "write", lambda self, data: sizes.append(len(data)) or write(self, data))
    with serving(app_of(b"x" * 300_000), tls=server_context()) as served:
        assert len(ask(served.addr, tls=client_context()).body) == 300_000
    assert max(sizes) <= 65_536


@main_goroutine
def test_the_deadline_of_a_scope_over_tls(server_reports):
    def app(environ, start_response):
        try:
            with context.timeout(0.01):
                environ["wsgi.input"].read()
        except context.DeadlineExceeded:
            start_response("200 OK", [])
            return [b"mine"]
        raise AssertionError("the body was whole")

    with serving(app, tls=server_context()) as served:
        data = request("/", "Content-Length: 5", method="POST")
        assert ask(served.addr, data, tls=client_context()).body == b"mine"
    assert not server_reports


@main_goroutine
def test_only_so_many_connections():
    with serving(hello, limits=Limits(connections=2)) as served:
        first, second = connect(served.addr), connect(served.addr)
        with first, second:
            for conn in (first, second):
                conn.write(request())
                assert Reader(conn).answer().status == 200
            third = Call(ask, served.addr)
            third.parked()
            assert not third.ended
            first.close()
            assert third.result().status == 200


def test_limits_that_are_none():
    for wrong in (
        {"head": 0},
        {"body": -1},
        {"fields": 257},
        {"idle_timeout": 0},
        {"connections": 0},
        {"fields": None},
    ):
        with pytest.raises(ValueError, match=f"the limit {next(iter(wrong))}"):
            Limits(**wrong)
    assert Limits(body=None, idle_timeout=None).body is None


@main_goroutine
def test_a_broken_body_is_an_error_that_an_application_may_handle(server_reports):
    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except RequestError as error:
            assert isinstance(error, OSError)
            start_response("422 Mine", [])
            return [f"{error.status} {error}".encode()]
        raise AssertionError("the body was whole")

    with serving(app) as served:
        for body in (b"x\r\n", b"3\r\nabcd\r\n", b"5\r\nab"):
            data = talk(served.addr, request("/", "Transfer-Encoding: chunked", method="POST") + body + request())
            assert data.startswith(b"HTTP/1.1 422 Mine\r\n")
            assert b"\r\n\r\n400 " in data
            assert data.count(b"HTTP/1.1") == 1
    assert not server_reports
