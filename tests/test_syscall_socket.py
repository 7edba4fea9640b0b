"""`offset.syscall.socket` and `ssl`: the standard sockets, whose calls park only the goroutine.

What the original does is tested by CPython's own tests over the proxies; here is what they are made for. Every
server listens on the loopback interface. Invariants: a waiting call parks for "IO wait" and takes no thread; a socket
of a goroutine may be used by a plain thread, and the other way round.
"""

from __future__ import annotations

import errno
import os
import random
import socket as plain
import ssl as plain_ssl
import time as plain_time
from pathlib import Path

import offset
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_parked, wait_until
from offset import go
from offset.syscall import socket, ssl

CERTIFICATES = Path(__file__).parent / "certificates"


def echo(conn):
    """Send back what comes, until the end."""
    with conn:
        while data := conn.recv(65_536):
            conn.sendall(data)


def serve(listener, count):
    """Accept so many connections, and echo on each."""
    with listener:
        wait_ended(*[go(echo, listener.accept()[0]) for _ in range(count)])


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def pair():
    pair = list(socket.socketpair())
    yield pair
    # The fixture's value outlives the leak check.
    while pair:
        pair.pop().close()


# ---- what they are ---------------------------------------------------------------------------


def test_a_socket_is_one_of_the_originals(pair):
    assert isinstance(pair[0], plain.socket)
    assert socket.error is OSError
    assert socket.timeout is TimeoutError
    assert set(plain.__all__) <= set(vars(socket))
    assert {name for name in vars(plain) if not name.startswith("_")} <= set(vars(socket))
    assert {name for name in vars(plain_ssl) if not name.startswith("_")} <= set(vars(ssl))


def test_the_original_is_left_alone():
    assert plain.socket is not socket.socket
    assert plain.create_connection is not socket.create_connection
    assert plain.create_connection.__globals__ is vars(plain)
    assert plain_ssl.SSLContext.sslsocket_class is plain_ssl.SSLSocket
    assert type(plain.socketpair()[0]) is plain.socket


def test_the_descriptor_is_closed_with_the_socket(pair):
    one, other = pair
    number = one.fileno()
    other.send(b"1")
    assert one.recv(10) == b"1"
    one.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    with pytest.raises(OSError) as failure:
        one.recv(1)
    assert failure.value.errno == errno.EBADF


# ---- waiting ---------------------------------------------------------------------------------


@main_goroutine
def test_an_echo_server_in_goroutines(listener):
    serving = go(serve, listener, 3)
    address = listener.getsockname()

    def talk(text):
        with socket.create_connection(address, timeout=PATIENCE) as conn:
            for number in range(50):
                message = f"{text} {number}\n".encode() * 100
                conn.sendall(message)
                assert conn.recv(len(message), socket.MSG_WAITALL) == message

    wait_ended(*[go(talk, text) for text in ("one", "two", "three")])
    wait_ended(serving)


@main_goroutine
def test_who_waits_takes_no_thread():
    pairs = [socket.socketpair() for _ in range(100)]
    waiting = [go(one.recv, 10) for one, _ in pairs]
    wait_parked(*waiting, reason="IO wait")

    def no_thread():
        stats = offset.runtime.stats()
        return stats["machines"] - stats["idle_machines"] <= stats["processors"] and stats["blocking_calls"] == 0

    # One that has nothing more to do may not be asleep yet.
    wait_until(no_thread, "nobody waits on a thread of its own")
    for _, other in pairs:
        other.send(b"now")
    wait_ended(*waiting)
    for one, other in pairs:
        one.close()
        other.close()


@main_goroutine
def test_what_one_way_to_read_leaves_another_one_reads(listener):
    peer = socket.create_connection(listener.getsockname())
    conn, _ = listener.accept()
    with peer, conn:
        # All that there was: the next such read waits to be told of more.
        peer.sendall(b"a")
        assert conn.recv(10) == b"a"
        reading = go_parked(conn.recvfrom, 1, reason="IO wait")
        peer.sendall(b"bc")
        wait_ended(reading)
        assert conn.recv(10) == b"c"
        reading = go_parked(conn.recvmsg, 1, reason="IO wait")
        peer.sendall(b"de")
        wait_ended(reading)
        assert conn.recv_into(buffer := bytearray(10)) == 1
        assert buffer[:1] == b"e"


@main_goroutine
def test_urgent_data_holds_up_no_reader(listener):
    peer = socket.create_connection(listener.getsockname())
    conn, _ = listener.accept()
    with peer, conn:
        peer.sendall(b"a")
        assert conn.recv(10) == b"a"
        reading = go_parked(conn.recv, 10, reason="IO wait")
        # Urgent is the last of them; it divides what can be read at once.
        peer.send(b"bc!", socket.MSG_OOB)
        peer.sendall(b"de")
        wait_ended(reading)
        assert conn.recv(1, socket.MSG_OOB) == b"!"
        assert conn.recv(10) == b"de"
        peer.close()
        assert conn.recv(10) == b""


@main_goroutine
def test_a_read_of_all_waits_for_all_or_the_end(listener):
    peer = socket.create_connection(listener.getsockname())
    conn, _ = listener.accept()
    with peer, conn:
        data = os.urandom(1_000_000)
        writing = go(lambda: [peer.sendall(data) for _ in range(2)])
        assert conn.recv(len(data), socket.MSG_WAITALL) == data
        buffer = bytearray(len(data) + 1)
        assert conn.recv_into(buffer, len(data), socket.MSG_WAITALL) == len(data)
        assert buffer[:-1] == data
        wait_ended(writing)
        assert conn.recv(0) == b""
        # With a timeout the original takes what there is.
        peer.sendall(b"ab")
        conn.settimeout(PATIENCE)
        assert conn.recv(10, socket.MSG_WAITALL) == b"ab"
        conn.settimeout(None)
        peer.sendall(b"the rest")
        peer.close()
        assert conn.recv(10, socket.MSG_WAITALL) == b"the rest"
        assert conn.recv_into(buffer, 10, socket.MSG_WAITALL) == 0


@main_goroutine
def test_a_slow_reader_holds_the_writer_up(pair):
    one, other = pair
    data = os.urandom(3_000_000)
    writing = go_parked(one.sendall, data, reason="IO wait")
    got = bytearray()
    while len(got) < len(data):
        got += other.recv(10_000)
    wait_ended(writing)
    assert got == data


@pytest.mark.parametrize("value", [None, 0, 0.0, 5, 0.5, 1e-9, 1e-13, 1e9, 1e15, True, -1, -0.5, float("nan"), "1", []])
def test_a_timeout_is_what_the_original_makes_of_it(pair, value):
    def timeout_of(sock):
        try:
            sock.settimeout(value)
        except (TypeError, ValueError, OverflowError) as error:
            return type(error), str(error)
        return sock.gettimeout(), sock.getblocking()

    with plain.socket() as original:
        assert timeout_of(pair[0]) == timeout_of(original)
        original.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            original.settimeout(1)
    assert not os.get_blocking(pair[0].fileno())
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair[0].settimeout(1)


@main_goroutine
def test_timeouts(pair):
    one, other = pair
    one.settimeout(0.001)
    assert one.gettimeout() == one.timeout == 0.001
    assert one.getblocking()
    for operation in (lambda: one.recv(1), lambda: one.recvfrom(1), lambda: one.recv_into(bytearray(1))):
        with pytest.raises(TimeoutError, match="timed out"):
            operation()
    with pytest.raises(TimeoutError):
        one.sendall(b"x" * 10_000_000)
    other.setblocking(False)
    assert not other.getblocking()
    with pytest.raises(BlockingIOError):
        while other.recv(1_000_000):
            pass
    one.settimeout(None)
    other.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b""


@main_goroutine
def test_a_flag_makes_one_call_not_wait(pair):
    with pytest.raises(BlockingIOError):
        pair[0].recv(1, socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        pair[0].recvmsg(1, 0, socket.MSG_DONTWAIT)
    waiting = go_parked(pair[0].recv, 10, reason="IO wait")
    pair[1].sendmsg([b"a", b"b"])
    wait_ended(waiting)


@main_goroutine
def test_a_close_wakes_who_waits(pair, listener):
    one, _ = pair
    errors = []

    def wait(operation):
        try:
            operation()
        except OSError as error:
            errors.append(error.errno)

    reading = go_parked(wait, lambda: one.recv(1), reason="IO wait")
    accepting = go_parked(wait, listener.accept, reason="IO wait")
    one.close()
    listener.close()
    wait_ended(reading, accepting)
    assert errors == [errno.EBADF, errno.EBADF]


@main_goroutine
def test_a_connection_that_is_refused(listener):
    address = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with socket.socket() as conn:
        assert conn.connect_ex(address) == errno.ECONNREFUSED


@main_goroutine
def test_a_connection_that_takes_too_long(tmp_path):
    # The queue of a Unix listener that accepts nobody is soon full.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        conns = []
        with pytest.raises(TimeoutError):
            for _ in range(10):
                conn = socket.socket(socket.AF_UNIX)
                conns.append(conn)
                conn.settimeout(0.01)
                conn.connect(str(tmp_path / "full"))
        for conn in conns:
            conn.close()


@main_goroutine
def test_files_over_sockets(pair):
    one, other = pair
    with one.makefile("rwb") as file, other.makefile("rw", encoding="utf-8", newline="\n") as text:
        reading = go(text.readline)
        wait_parked(reading, reason="IO wait")
        file.write(b"a line\nand another\n")
        file.flush()
        wait_ended(reading)
        assert text.readline() == "and another\n"


@main_goroutine
def test_a_file_is_sent(pair, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(os.urandom(1_000_000))
    one, other = pair
    got = bytearray()

    def read():
        while data := other.recv(65_536):
            got.extend(data)

    reading = go(read)
    with path.open("rb") as file:
        assert one.sendfile(file, 100) == 999_900
    one.shutdown(socket.SHUT_WR)
    wait_ended(reading)
    assert got == path.read_bytes()[100:]


@main_goroutine
def test_packets():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        one.bind(("127.0.0.1", 0))
        waiting = go_parked(one.recvfrom, 100, reason="IO wait")
        other.sendto(b"a packet", ("localhost", one.getsockname()[1]))
        wait_ended(waiting)


# ---- names -----------------------------------------------------------------------------------


@main_goroutine
def test_a_lookup_stops_nobody(monkeypatch):
    read, write = os.pipe()
    lookup = plain.getaddrinfo

    def slow(*args):
        os.read(read, 1)
        return lookup("127.0.0.1", *args[1:])

    monkeypatch.setattr(plain, "getaddrinfo", slow)
    looking = go(socket.getaddrinfo, "a.name", 80)
    wait_parked(looking, reason="blocking call")
    os.write(write, b"!")
    wait_ended(looking)
    os.close(read)
    os.close(write)


# ---- plain threads ---------------------------------------------------------------------------


def test_plain_threads_use_them_too(listener):
    address = listener.getsockname()
    serving = Thread(lambda: echo(listener.accept()[0]))
    with socket.create_connection(address, timeout=PATIENCE) as conn:
        conn.sendall(b"from a thread")
        assert conn.recv(100) == b"from a thread"
        conn.settimeout(0.001)
        with pytest.raises(TimeoutError):
            conn.recv(1)
    serving.result()


@main_goroutine
def test_a_goroutine_and_a_thread_talk(pair):
    one, other = pair
    thread = Thread(lambda: other.recv(10))
    one.sendall(b"to you")
    assert thread.result() == b"to you"
    waiting = go_parked(one.recv, 10, reason="IO wait")
    Thread(lambda: other.sendall(b"and back")).result()
    wait_ended(waiting)


# ---- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATES / "cert.pem", CERTIFICATES / "key.pem")
    return server, ssl.create_default_context(cafile=str(CERTIFICATES / "cert.pem"))


@main_goroutine
def test_tls_between_goroutines(listener, contexts):
    server, client = contexts
    assert isinstance(client, plain_ssl.SSLContext)
    address = listener.getsockname()

    def answer():
        with server.wrap_socket(listener.accept()[0], server_side=True) as conn:
            while data := conn.recv(65_536):
                conn.sendall(data)

    serving = go(answer)
    data = os.urandom(1_000_000)
    with client.wrap_socket(socket.create_connection(address), server_hostname="localhost") as conn:
        assert isinstance(conn, plain_ssl.SSLSocket)
        writing = go(conn.sendall, data)
        got = bytearray()
        while len(got) < len(data):
            got += conn.recv(65_536)
        assert got == data
        wait_ended(writing)
        reading = go_parked(conn.recv, 1, reason="IO wait")
        conn.sendall(b"!")
        wait_ended(reading)
        conn.settimeout(0.001)
        with pytest.raises(TimeoutError, match="read operation timed out"):
            conn.recv(1)
    wait_ended(serving)


@pytest.mark.parametrize("limit", [None, PATIENCE])
@main_goroutine
def test_the_descriptor_of_a_tls_socket_never_blocks(contexts, limit):
    """A rescue would hide that it does."""
    server, client = contexts
    plain_listener = socket.create_server(("127.0.0.1", 0))
    plain_listener.settimeout(limit)
    with server.wrap_socket(plain_listener, server_side=True, do_handshake_on_connect=False) as listening:
        assert not os.get_blocking(listening.fileno())
        made = []

        def connect():
            conn = socket.create_connection(listening.getsockname(), timeout=limit)
            made.append(client.wrap_socket(conn, server_hostname="localhost"))

        connecting = go(connect)
        conn, _ = listening.accept()
        assert not os.get_blocking(conn.fileno())
        conn.do_handshake()
        wait_ended(connecting)
        for each in (conn, *made):
            with each:
                assert not os.get_blocking(each.fileno())
                each.settimeout(limit)
                assert not os.get_blocking(each.fileno())


class Attempts:
    """What a TLS socket works with, in which each call takes a while; the most that were made at once."""

    def __init__(self, inner):
        self.inner = inner
        self.now = self.most = 0

    def attempt(self, function, args):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            # The originals let go of the GIL here.
            plain_time.sleep(0.002)
            return function(*args)
        finally:
            self.now -= 1

    def read(self, *args):
        return self.attempt(self.inner.read, args)

    def write(self, *args):
        return self.attempt(self.inner.write, args)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@main_goroutine
def test_tls_reads_and_writes_one_at_a_time(listener, contexts):
    """Its state is one for both directions; to read in one goroutine or thread and write in another is allowed."""
    server, client = contexts
    data = random.Random(1).randbytes(300_000)

    def serve():
        sock, _ = listener.accept()
        with server.wrap_socket(sock, server_side=True) as conn:
            while part := conn.recv(65_536):
                conn.sendall(part)

    serving = go(serve)
    with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost") as conn:
        attempts = conn._sslobj = Attempts(conn._sslobj)
        # A plain thread writes while a goroutine reads.
        writing = Thread(conn.sendall, data)
        got = b""
        while len(got) < len(data):
            got += conn.recv(65_536)
        writing.result()
    wait_ended(serving)
    assert got == data
    assert attempts.most == 1


@main_goroutine
def test_a_handshake_that_takes_too_long(listener, contexts):
    conn = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
    conn.settimeout(0.01)
    with conn, pytest.raises(TimeoutError, match="handshake operation timed out"):
        contexts[1].wrap_socket(conn, server_hostname="localhost")


@main_goroutine
def test_a_context_takes_the_originals_sockets(listener, contexts):
    server, client = contexts
    serving = go(lambda: server.wrap_socket(listener.accept()[0], server_side=True).close())
    theirs = plain.create_connection(listener.getsockname())
    with client.wrap_socket(theirs, server_hostname="localhost") as conn:
        assert isinstance(conn, ssl.SSLSocket)
    wait_ended(serving)


def test_the_end_is_waited_for(pair):
    one, other = pair
    other.close()
    wait_until(lambda: one.recv(1) == b"", "the end")


def test_a_descriptor_that_somebody_has_closed(listener):
    other = socket.socket(fileno=os.dup(listener.fileno()))
    os.close(other.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        other.setblocking(False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        other.setblocking(True)
    assert other.detach() >= 0
