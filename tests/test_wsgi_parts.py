"""The further parts of `offset.wsgi.serve`: files, other protocols, the access log, the PROXY protocol."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import re
import shutil
import socket
import struct
import subprocess

import offset
import pytest
from helpers import PATIENCE, in_thread, main_goroutine, wait_until
from net_peers import Call, client_context, pattern, server_context
from offset import makechan, net
from offset._http import _log
from offset.wsgi import FileWrapper, Limits
from web import Reader, ask, connect, request, serving, talk, within_longer_and_longer

# ---- files -------------------------------------------------------------------------------------------


def wrapping(open_file, headers=()):
    """An application that answers with a file."""

    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](open_file(), 1000)

    return app


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(1_000_000))
    return path


@main_goroutine
@pytest.mark.parametrize("secure", [False, True])
def test_a_file(file, secure, monkeypatch):
    opened, calls = [], []
    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda *args: calls.append(args) or sendfile(*args))

    def open_file():
        opened.append(open(file, "rb"))  # noqa: SIM115 - the server closes it
        opened[-1].seek(10)
        return opened[-1]

    tls = server_context() if secure else None
    with serving(wrapping(open_file), tls=tls) as served:
        with connect(served.addr, client_context() if secure else None) as conn:
            reader = Reader(conn)
            for method in ("GET", "HEAD", "GET"):
                conn.write(request(method=method))
                answer = reader.answer(head=method == "HEAD")
                assert answer.body == (b"" if method == "HEAD" else file.read_bytes()[10:])
                if not secure:
                    assert answer.headers["content-length"] == "999990"
        wait_until(lambda: all(each.closed for each in opened))
    assert len(opened) == 3
    assert bool(calls) != secure, "the system copies it, but where it is to be encrypted"


@main_goroutine
def test_a_part_of_a_file(file):
    app = wrapping(functools.partial(open, file, "rb"), [("Content-Length", "1234")])
    with serving(app) as served, connect(served.addr) as conn:
        conn.write(request() * 2)
        reader = Reader(conn)
        assert reader.answer().body == reader.answer().body == file.read_bytes()[:1234]


@main_goroutine
def test_files_that_are_none_of_the_systems(file, tmp_path):
    packed = tmp_path / "packed"
    with gzip.open(packed, "wb") as out:
        out.write(b"plain" * 1000)
    for open_file, wanted in (
        (lambda: io.BytesIO(b"in memory"), b"in memory"),
        (functools.partial(gzip.open, packed), b"plain" * 1000),
        (functools.partial(open, file, "rb", buffering=0), file.read_bytes()),
        (functools.partial(open, os.devnull, "rb"), b""),
    ):
        with serving(wrapping(open_file)) as served:
            assert ask(served.addr).body == wanted


@main_goroutine
def test_a_file_that_shrinks_cuts_its_answer(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with serving(wrapping(lambda: open(path, "rb"), [("Content-Length", "200")])) as served:
        data = talk(served.addr, request() * 2)
    assert data.count(b"HTTP/1.1") == 1
    assert data.endswith(b"\r\n\r\n" + b"x" * 100)


def test_a_wrapper_by_itself():
    wrapper = FileWrapper(io.BytesIO(b"abcde"), 2)
    assert list(wrapper) == [b"ab", b"cd", b"e"]
    wrapper.close()
    assert wrapper.filelike.closed
    assert not hasattr(FileWrapper(object()), "close")


# ---- other protocols ---------------------------------------------------------------------------------

UPGRADE = ("Upgrade: echo", "Connection: Upgrade")


def echoing(environ, start_response):
    """Speaks a protocol of lines, if it is asked to."""
    sock = environ.get("offset.socket")
    if sock is None:
        start_response("426 Upgrade Required", [])
        return []
    assert environ["werkzeug.socket"] is sock
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    while data := sock.recv(4):
        sock.send(data.upper())
    return []


@main_goroutine
@pytest.mark.parametrize("secure", [False, True])
def test_another_protocol(secure):
    with serving(echoing, tls=server_context() if secure else None) as served:
        context = client_context() if secure else None
        assert ask(served.addr, tls=context).status == 426
        with connect(served.addr, context) as conn:
            # What comes right behind the request is the protocol's.
            conn.write(request("/", *UPGRADE) + b"early ")
            reader = Reader(conn)
            assert reader.answer().status == 101
            conn.write(b"late")
            assert reader._exactly(10) == b"EARLY LATE"
            if not secure:
                conn.close_write()
                assert reader.at_end()


@main_goroutine
def test_another_protocol_has_no_deadlines_of_requests():
    def attempt(seconds):
        def app(environ, start_response):
            sock = environ["offset.socket"]
            sock.sendall(b"go")
            offset.sleep(1.5 * seconds)
            sock.sendall(sock.recv(100))
            return []

        limits = Limits(head_timeout=seconds, idle_timeout=seconds, write_timeout=seconds)
        with (
            serving(app, tls=server_context(), limits=limits) as served,
            connect(served.addr, client_context()) as conn,
        ):
            conn.write(request("/", *UPGRADE))
            assert conn.read_full(2) == b"go"
            conn.write(b"late")
            assert conn.read_full(4) == b"late"

    within_longer_and_longer(attempt)


@main_goroutine
def test_a_protocol_that_is_declined():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"no"]

    with serving(app) as served, connect(served.addr) as conn:
        conn.write(request("/", *UPGRADE) + request("/"))
        reader = Reader(conn)
        assert [reader.answer().body, reader.answer().body] == [b"no", b"no"]


@main_goroutine
def test_the_socket_of_another_protocol():
    seen = makechan(1)

    def app(environ, start_response):
        sock = environ["offset.socket"]
        sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert sock.gettimeout() == 0.01
        sock.settimeout(None)
        with pytest.raises(ValueError, match="waits"):
            sock.setblocking(False)
        buffer = bytearray(3)
        sock.write(b"go")
        assert sock.recv_into(buffer) == 3
        # A plain thread may use it, as libraries do.
        in_thread(sock.sendall, bytes(buffer))
        sock.shutdown(socket.SHUT_WR)
        seen.send((sock.getpeername(), sock.getsockname(), sock.fileno() >= 0, sock.taken, sock.read(10)))
        sock.close()

    with serving(app) as served, connect(served.addr) as conn:
        conn.write(request("/", *UPGRADE))
        assert conn.read(2) == b"go"
        conn.write(b"abc")
        assert conn.read_full(3) == b"abc"
        assert conn.read(1) == b""
        conn.close_write()
        peer, own, has_number, taken, rest = seen.recv(timeout=PATIENCE)
        assert (f"{peer[0]}:{peer[1]}", f"{own[0]}:{own[1]}") == (conn.local_addr, served.addr)
        assert (has_number, taken, rest) == (True, True, b"")


# ---- the access log ------------------------------------------------------------------------------------


def answering(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


@main_goroutine
def test_lines_of_the_access_log():
    out = io.StringIO()
    with serving(answering, access_log=out) as served:
        ask(served.addr, request('/a?b="', "User-Agent: x\ty \xe9", "Referer: http://r/"))
        wait_until(lambda: out.getvalue().count("\n") == 1)
        ask(served.addr, b"nonsense\r\n\r\n")
        # Each connection's own goroutine writes its line, after the answer.
        wait_until(lambda: out.getvalue().count("\n") == 2)
        ask(served.addr, b"\r\nGET /without-a-host?\xe9 HTTP/1.1\r\n\r\n")
        wait_until(lambda: out.getvalue().count("\n") == 3)
    first, second, third = out.getvalue().splitlines()
    pattern = (
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "(.*?)" (\d+) (\d+) "(.*?)" "(.*?)" \d+\.\d{6}'
    )
    match = re.fullmatch(pattern, first)
    assert match
    assert match.groups() == (r"GET /a?b=\x22 HTTP/1.1", "200", "5", "http://r/", r"x\x09y \xe9")
    match = re.fullmatch(pattern, second)
    assert match
    assert match.groups()[:2] == ("- - -", "400")
    match = re.fullmatch(pattern, third)
    assert match
    assert match.groups()[:2] == (r"GET /without-a-host?\xe9 HTTP/1.1", "400")


@main_goroutine
def test_a_log_that_is_moved_away_is_begun_anew(tmp_path, server_reports):
    path = tmp_path / "log"
    with contextlib.closing(_log.Watched(str(path))) as log, serving(answering, access_log=log) as served:
        ask(served.addr, request("/1"))
        wait_until(lambda: path.read_text().count("\n") == 1)
        path.rename(tmp_path / "log.1")
        ask(served.addr, request("/2"))
        wait_until(lambda: path.exists() and path.read_text().count("\n") == 1)
        path.unlink()
        path.mkdir()
        ask(served.addr, request("/3"))
        wait_until(lambda: len(server_reports) == 1)
        path.rmdir()
        ask(served.addr, request("/4"))
        wait_until(lambda: path.exists() and path.read_text().count("\n") == 1)
        assert "GET /1 " in (tmp_path / "log.1").read_text()
        assert "GET /4 " in path.read_text()
    assert "the access log has failed" in server_reports[0]
    # Not into whatever has its number by then.
    with pytest.raises(OSError, match="Bad file descriptor"):
        log.write("late")


@main_goroutine
def test_a_function_as_the_access_log(capsys):
    seen = []
    with serving(answering, access_log=seen.append) as served:
        ask(served.addr, request("/x", method="HEAD"), head=True)
        wait_until(lambda: seen)
    (access,) = seen
    assert (access.environ["PATH_INFO"], access.status, access.sent) == ("/x", 200, 0)
    assert access.seconds >= 0
    with serving(answering, access_log=True) as served:
        ask(served.addr)
    assert '"GET / HTTP/1.1" 200 5' in capsys.readouterr().out


# ---- the PROXY protocol ----------------------------------------------------------------------------------


def whose(environ, start_response):
    start_response("200 OK", [])
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")
    return [" ".join(environ[name] for name in names).encode()]


SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(command, family, block):
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(block)) + block


FOUR = struct.pack("!4s4sHH", bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), 1000, 443)
SIX = struct.pack("!16s16sHH", bytes(15) + b"\1", bytes(15) + b"\2", 1000, 443)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n", b"192.0.2.1 1000 192.0.2.2 443"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", b"2001:db8::1 1 2001:db8::2 2"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN a b c d\r\n", None),
        (binary(1, 0x11, FOUR), b"192.0.2.1 1000 192.0.2.2 443"),
        (binary(1, 0x11, FOUR + b"\x04\0\1x"), b"192.0.2.1 1000 192.0.2.2 443"),
        (binary(1, 0x21, SIX), b"::1 1000 ::2 443"),
        (binary(0, 0, b""), None),
        (binary(1, 0x31, bytes(216)), None),
    ],
)
@main_goroutine
def test_who_is_behind_a_load_balancer(header, wanted):
    with serving(whose, proxy_protocol=True) as served:
        for slowly in (False, True):
            with connect(served.addr) as conn:
                for part in [bytes([byte]) for byte in header] if slowly else [header]:
                    conn.write(part)
                    offset.gosched()
                conn.write(request() * 2)
                reader = Reader(conn)
                here = conn.local_addr.replace(":", " ") + " " + served.addr.replace(":", " ")
                for _ in range(2):
                    assert reader.answer().body == (wanted or here.encode())


@main_goroutine
def test_tls_behind_a_load_balancer():
    with (
        serving(whose, proxy_protocol=True, tls=server_context()) as served,
        socket.create_connection(tuple(served.addr.split(":"))) as sock,
    ):
        sock.sendall(binary(1, 0x11, FOUR))

        def ask_over_tls():
            with client_context().wrap_socket(sock, server_hostname="localhost") as secure:
                secure.sendall(request("/", "Connection: close"))
                data = b""
                while part := secure.recv(1000):
                    data += part
                return data

        assert in_thread(ask_over_tls).endswith(b"192.0.2.1 1000 192.0.2.2 443")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000\r\n",
        b"PROXY TCP4 ::1 ::2 1000 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443" + b" " * 100 + b"\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1000 443\r\n",
        binary(2, 0x11, FOUR),
        binary(1, 0x11, FOUR[:-1]),
        binary(1, 0x11, FOUR + bytes(5000)),
        SIGNATURE + b"\x11\x11\0\0",
    ],
)
@main_goroutine
def test_nobody_is_served_who_does_not_say_who_it_is(header):
    with serving(whose, proxy_protocol=True) as served:
        assert talk(served.addr, header + request()) == b""


@main_goroutine
def test_the_first_connection_without_a_header_is_reported(server_reports):
    with serving(whose, proxy_protocol=True) as served:
        for _ in range(2):
            assert talk(served.addr, request()) == b""
    (report,) = server_reports
    assert "a connection from 127.0.0.1 was ended: no header of the PROXY protocol" in report


@main_goroutine
def test_a_header_that_is_cut_is_no_error_of_the_servers(server_reports):
    with serving(whose, proxy_protocol=True) as served:
        for header in (b"PROXY TCP4 192", SIGNATURE[:5], binary(1, 0x11, FOUR)[:14], binary(1, 0x11, FOUR)[:-1]):
            assert talk(served.addr, header) == b""
    assert not server_reports


# ---- under load ------------------------------------------------------------------------------------------------


@main_goroutine
def test_many_idle_connections():
    with serving(answering) as served, contextlib.ExitStack() as stack:
        conns = [stack.enter_context(net.dial("tcp", served.addr)) for _ in range(200)]
        calls = [Call(_converse, conn) for conn in conns]
        assert all(call.result() == b"hello" * 3 for call in calls)


@main_goroutine
@pytest.mark.parametrize(
    ("command", "good"),
    [
        # What takes longer than its timeout is an error to it.
        (["wrk", "-t1", "-c20", "-d1s", "--timeout", "30s", "http://{}/"], r"[1-9]\d* requests in"),
        (
            ["h2load", "--h1", "-n2000", "-c20", "http://{}/"],
            r"2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed",
        ),
    ],
    ids=["wrk", "h2load"],
)
def test_tools_that_make_load(command, good):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not there (Debian: apt install wrk nghttp2-client)")
    with serving(answering) as served:
        run = [part.format(served.addr) for part in command]
        text = in_thread(subprocess.run, run, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    assert re.search(good, text), text
    assert "Socket errors" not in text
    assert "Non-2xx" not in text


def _converse(conn):
    reader = Reader(conn)
    got = b""
    for _ in range(3):
        conn.write(request())
        got += reader.answer().body
    return got
