"""`offset.net`: TLS on either side.

Invariants: what holds for a plain connection holds for one with TLS, however its records are cut on the way; what came
before the other side's farewell is all there is, and an end without one raises.
"""

from __future__ import annotations

import contextlib
import errno
import io
import select
import socket
import ssl

import helpers
import offset
import pytest
from helpers import PATIENCE, assert_no_growth, main_goroutine, wait_ended, wait_until
from net_peers import (
    MUCH,
    Call,
    Cutter,
    assert_nobody_dials,
    client_context,
    pair,
    pattern,
    raw_pair,
    read_all,
    server_context,
    tls_pair,
    vanish,
)
from offset import go, net
from offset.net import _tls
from offset.time import now

LONG_AGO = 0.0


def version(context, wanted):
    context.minimum_version = context.maximum_version = wanted
    return context


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def secure(request):
    """A pair of connections for each `with`, in either version of the protocol."""

    def make(**options):
        return tls_pair(version(client_context(), request.param), version(server_context(), request.param), **options)

    return make


# ---- what TLS shares with plain connections --------------------------------------------------


@main_goroutine
def test_what_is_written_is_read(secure):
    with secure() as (one, other):
        for sender, receiver in ((one, other), (other, one)):
            assert sender.write(b"some bytes") == 10
            assert receiver.read(100) == b"some bytes"
        one.write(b"abcdef")
        assert other.read(2) == b"ab"
        assert other.read(0) == b""
        space = bytearray(10)
        assert other.read_into(space) == 4
        assert space[:4] == b"cdef"
        one.write(b"0123456789")
        assert other.read_full(10) == b"0123456789"
        assert one.write(b"") == 0


@main_goroutine
@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_536, 65_537, 3_000_000])
def test_a_write_writes_everything(secure, size):
    data = pattern(size)
    with secure() as (one, other):
        reader = Call(read_all, other)
        assert one.write(memoryview(data)) == size
        one.close_write()
        assert reader.result() == data


def test_plain_threads_use_tls_too(start):
    data = pattern(500_000)
    with net.listen("tcp", "127.0.0.1:0", tls=server_context()) as listener:

        def serve():
            with listener.accept() as conn:
                conn.write(conn.read_full(len(data))[::-1])

        server = start(serve)

        def ask():
            with net.dial("tcp", listener.addr, tls=client_context()) as conn:
                conn.write(data)
                return read_all(conn)

        assert start(ask).result() == data[::-1]
        server.result()


@main_goroutine
def test_both_sides_write_much_and_read_beside_it(secure):
    # More than all buffers hold: a read that waited for the write on its side would wait for ever.
    data = pattern(MUCH // 2)
    with secure() as (one, other):
        writers = [Call(conn.write, data).parked() for conn in (one, other)]
        readers = [Call(conn.read_full, len(data)) for conn in (one, other)]
        assert [reader.result() == data for reader in readers] == [True, True]
        assert [writer.result() for writer in writers] == [len(data)] * 2


@main_goroutine
def test_concurrent_writes_do_not_interleave(secure):
    size, writers = 100_000, 4
    with secure() as (one, other):
        calls = [Call(one.write, bytes([number]) * size) for number in range(writers)]
        blocks = [other.read_full(size) for _ in range(writers)]
        assert sorted(blocks) == [bytes([number]) * size for number in range(writers)]
        for call in calls:
            call.result()


@main_goroutine
def test_several_readers_share_what_comes(secure):
    with secure() as (one, other):
        calls = [Call(other.read, 1).parked() for _ in range(5)]
        one.write(b"abcde")
        assert sorted(call.result() for call in calls) == [b"a", b"b", b"c", b"d", b"e"]


@main_goroutine
def test_a_file_is_sent(secure, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(300_000))
    with secure() as (one, other):
        for start, count in ((0, None), (5, 100_000), (0, 0), (299_999, 10)):
            expected = pattern(300_000)[start : None if count is None else start + count]
            with path.open("rb") as file:
                reader = Call(other.read_full, len(expected))
                assert one.sendfile(file, start, count) == len(expected)
                assert reader.result() == expected
        sender = Call(one.sendfile, io.BytesIO(b"0123456789"), 3)
        assert other.read_full(7) == b"3456789"
        assert sender.result() == 7


@main_goroutine
def test_refuses_what_is_no_size_or_buffer(secure):
    with secure() as (one, _):
        with pytest.raises(ValueError, match="negative"):
            one.read(-1)
        for bad in ("1", 1.5):
            with pytest.raises(TypeError, match=f"the size of a read is an integer, not {type(bad).__name__}"):
                one.read(bad)
        with pytest.raises(TypeError):
            one.write("text")


# ---- the handshake ---------------------------------------------------------------------------


@main_goroutine
def test_the_first_operation_of_the_server_makes_the_handshake(secure):
    for operation in (lambda conn: conn.read(1), lambda conn: conn.write(b"x"), lambda conn: conn.handshake()):
        with net.listen("tcp", "127.0.0.1:0", tls=server_context()) as listener:
            dialing = Call(net.dial, "tcp", listener.addr, tls=client_context())
            with listener.accept() as server:
                assert server.version() is None
                served = Call(operation, server)
                with dialing.result() as client:
                    client.write(b"x")
                    served.result()
                    assert server.version() == client.version() == "TLSv1.3"
                    assert server.cipher() == client.cipher()


@main_goroutine
def test_many_first_operations_make_one_handshake():
    with net.listen("tcp", "127.0.0.1:0", tls=server_context()) as listener:
        dialing = Call(net.dial, "tcp", listener.addr, tls=client_context())
        with listener.accept() as server:
            calls = [Call(server.read, 1) for _ in range(3)] + [Call(server.write, b"x") for _ in range(3)]
            with dialing.result() as client:
                assert client.read_full(3) == b"xxx"
                client.write(b"abc")
                assert sorted(call.result() for call in calls[:3]) == [b"a", b"b", b"c"]
                assert [call.result() for call in calls[3:]] == [1, 1, 1]


def test_a_deadline_holds_for_the_handshake(start):
    with raw_pair() as (conn, _):
        # The other side says nothing.
        server = _tls.over(conn, server_context(), server_side=True)
        with server:
            server.set_deadline(now() + 0.002)
            for operation in (server.handshake, lambda: server.read(1), lambda: server.write(b"x")):
                with pytest.raises(TimeoutError):
                    start(operation).result()
            server.set_deadline(None)
            call = start(server.handshake).parked()
            server.set_deadline(LONG_AGO)
            with pytest.raises(TimeoutError):
                call.result()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        with pytest.raises(TimeoutError):
            start(net.dial, "tcp", f"{host}:{port}", timeout=0.01, tls=client_context()).result()


@main_goroutine
def test_a_handshake_that_timed_out_can_go_on():
    with (
        net.listen("tcp", "127.0.0.1:0", tls=server_context()) as listener,
        net.dial("tcp", listener.addr) as plain,
        listener.accept() as server,
    ):
        server.set_deadline(now() + 0.002)
        with pytest.raises(TimeoutError):
            server.read(1)
        server.set_deadline(None)
        reader = Call(server.read, 1)
        with _tls.over(plain, client_context(), server_hostname="localhost") as client:
            client.write(b"x")
            assert reader.result() == b"x"


@main_goroutine
def test_a_close_wakes_who_makes_the_handshake(start):
    with raw_pair() as (conn, _):
        server = _tls.over(conn, server_context(), server_side=True)
        calls = [start(server.handshake).parked(), start(server.read, 1), start(server.write, b"x")]
        server.close()
        for call in calls:
            with pytest.raises(OSError, match="closed") as caught:
                call.result()
            assert not isinstance(caught.value, TimeoutError | ssl.SSLError)


@main_goroutine
def test_a_cancelled_dial_leaves_nothing_behind():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        call = Call(net.dial, "tcp", f"{host}:{port}", tls=client_context())
        with silent.accept()[0] as peer:
            peer.recv(1)
            call.parked().goroutine.cancel()
            with pytest.raises(offset.GoroutineExit):
                call.result()


@main_goroutine
def test_a_client_that_speaks_http_is_an_error_of_its_connection_only():
    with net.listen("tcp", "127.0.0.1:0", tls=server_context()) as listener:
        with net.dial("tcp", listener.addr) as client, listener.accept() as server:
            client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for operation in (server.handshake, lambda: server.read(1), lambda: server.write(b"x")):
                with pytest.raises(ssl.SSLError, match=r"HTTP_REQUEST|WRONG_VERSION|http request"):
                    operation()
        dialing = Call(net.dial, "tcp", listener.addr, tls=client_context())
        with listener.accept() as server:
            server.handshake()
            dialing.result().close()


@main_goroutine
def test_a_server_that_does_not_speak_tls_is_an_error_of_dial():
    with net.listen("tcp", "127.0.0.1:0") as listener:

        def serve():
            with listener.accept() as conn:
                conn.write(b"220 ready\r\n" * 10)
                conn.read(100_000)
                conn.read(100_000)

        server = Call(serve)
        with pytest.raises(ssl.SSLError) as caught:
            net.dial("tcp", listener.addr, tls=client_context())
        assert caught.value.__notes__ == [f"while dialing tcp {listener.addr}"]
        with contextlib.suppress(ConnectionError):
            server.result()


@main_goroutine
def test_an_end_in_the_handshake_says_with_whom():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        dialing = Call(net.dial, "tcp", listener.addr, tls=client_context())
        with listener.accept() as server:
            server.read(100_000)
        with pytest.raises(ssl.SSLEOFError) as caught:
            dialing.result()
        assert caught.value.__notes__ == [f"while dialing tcp {listener.addr}"]


@main_goroutine
@pytest.mark.parametrize(
    ("certificate", "trusted", "name", "words"),
    [
        ("elsewhere", "localhost", None, "certificate verify failed"),
        ("elsewhere", "elsewhere", None, "IP address mismatch"),
        ("localhost", "localhost", "elsewhere.test", "Hostname mismatch"),
    ],
)
def test_a_wrong_certificate_is_refused(certificate, trusted, name, words):
    with net.listen("tcp", "127.0.0.1:0", tls=server_context(certificate)) as listener:
        dialing = Call(net.dial, "tcp", listener.addr, tls=client_context(trusted), server_hostname=name)
        with listener.accept() as server:
            # It is told.
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                server.read(1)
            with pytest.raises(ssl.SSLCertVerificationError, match=words) as caught:
                dialing.result()
            assert caught.value.__notes__ == [f"while dialing tcp {listener.addr}"]
            assert caught.value.verify_code


@main_goroutine
@pytest.mark.parametrize(
    ("address", "name", "certificate"),
    [
        ("127.0.0.1:0", None, "localhost"),
        ("[::1]:0", None, "localhost"),
        ("localhost:0", None, "localhost"),
        ("127.0.0.1:0", "elsewhere.test", "elsewhere"),
    ],
)
def test_the_certificate_is_that_of_the_name_that_was_dialed(address, name, certificate):
    with net.listen("tcp", address, tls=server_context(certificate)) as listener:
        where = f"localhost:{listener.addr.rpartition(':')[2]}" if address.startswith("localhost") else listener.addr
        dialing = Call(net.dial, "tcp", where, tls=client_context(certificate), server_hostname=name)
        with listener.accept() as server:
            server.handshake()
            with dialing.result() as client:
                assert client.getpeercert()["subject"][0][0] == ("commonName", certificate)
                assert client.getpeercert(binary_form=True)
                assert not server.getpeercert()


@main_goroutine
def test_a_protocol_is_agreed_on():
    client, server = client_context(), server_context()
    client.set_alpn_protocols(["h2", "http/1.1"])
    server.set_alpn_protocols(["http/1.1", "echo"])
    with tls_pair(client, server) as (one, other):
        assert one.selected_alpn_protocol() == other.selected_alpn_protocol() == "http/1.1"
    with tls_pair() as (one, other):
        assert one.selected_alpn_protocol() is None


@main_goroutine
def test_a_client_shows_its_certificate():
    client, server = client_context(), server_context()
    client.load_cert_chain(helpers.Path(__file__).parent / "certificates" / "elsewhere.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(helpers.Path(__file__).parent / "certificates" / "elsewhere.pem")
    with tls_pair(client, server) as (one, other):
        one.write(b"x")
        assert other.read(1) == b"x"
        assert other.getpeercert()["subject"][0][0] == ("commonName", "elsewhere")


@main_goroutine
def test_what_is_no_context_for_this_side_is_refused(tmp_path):
    path = tmp_path / "socket"
    for bad, error, words in (
        (5, TypeError, r"ssl\.SSLContext\(ssl\.PROTOCOL_TLS_SERVER\) with a certificate, not int"),
        (client_context(), ValueError, r"ssl\.SSLContext\(ssl\.PROTOCOL_TLS_SERVER\).*, not one for clients"),
    ):
        with pytest.raises(error, match=words):
            net.listen("unix", str(path), tls=bad)
        assert not path.exists()
    with net.listen("tcp", "127.0.0.1:0") as listener:
        for bad, error, words in (
            (5, TypeError, "tls must be a client's context, .*, not int"),
            (server_context(), ValueError, "tls must be a client's context, .*, not one for servers"),
        ):
            with pytest.raises(error, match=words):
                net.dial("tcp", listener.addr, tls=bad)
        assert_nobody_dials(listener)


@main_goroutine
def test_tls_needs_a_stream_and_works_over_a_unix_socket(tmp_path):
    with pytest.raises(ValueError, match="TLS needs a stream"):
        net.dial("udp", "127.0.0.1:80", tls=client_context())
    with net.listen("unix", str(tmp_path / "socket"), tls=server_context()) as listener:
        with pytest.raises(ValueError, match="server_hostname"):
            net.dial("unix", listener.addr, tls=client_context())
        dialing = Call(net.dial, "unix", listener.addr, tls=client_context(), server_hostname="localhost")
        with listener.accept() as server:
            server.handshake()
            with dialing.result() as client:
                client.write(b"x")
                assert server.read(1) == b"x"


@main_goroutine
def test_the_other_side_may_be_the_standard_library():
    with socket.create_server(("127.0.0.1", 0)) as plain:
        host, port = plain.getsockname()

        def serve():
            sock, _ = plain.accept()
            with server_context().wrap_socket(sock, server_side=True) as secure:
                while data := secure.recv(10_000):
                    secure.sendall(data)
                secure.unwrap().close()

        server = helpers.Thread(serve)
        with net.dial("tcp", f"{host}:{port}", tls=client_context()) as conn:
            data = pattern(200_000)
            writer = Call(lambda: [conn.write(data), conn.close_write()])
            assert read_all(conn) == data
            writer.result()
        server.result()


# ---- ends ------------------------------------------------------------------------------------


@main_goroutine
def test_the_end_is_read_again_and_again(secure):
    with secure() as (one, other):
        one.write(b"last")
        one.close()
        assert read_all(other) == b"last"
        assert [other.read(10) for _ in range(3)] == [b""] * 3
        assert other.read_into(bytearray(3)) == 0


@main_goroutine
def test_an_end_without_a_farewell_raises(secure):
    with secure() as (one, other):
        one.write(b"cut")
        assert other.read(3) == b"cut"
        # What the other side had to say is read, so that the end is no reset.
        reader = Call(one.read, 1).parked()
        one.set_read_deadline(LONG_AGO)
        with pytest.raises(TimeoutError):
            reader.result()
        one._abort()
        for _ in range(3):
            with pytest.raises(ssl.SSLEOFError):
                other.read(10)
        with pytest.raises(ssl.SSLError):
            other.read_full(1)


@main_goroutine
def test_the_writing_half_is_closed_alone(secure):
    with secure() as (one, other):
        # Several records are here when the half is closed, and none is lost.
        for word in (b"one ", b"two ", b"three "):
            other.write(word)
        assert one.read(4) == b"one "
        one.close_write()
        one.close_write()
        assert read_all(other) == b""
        with pytest.raises(BrokenPipeError):
            one.write(b"more")
        other.write(b"four")
        other.close()
        assert read_all(one) == b"two three four"


@main_goroutine
def test_the_reading_half_is_closed_alone(secure):
    with secure() as (one, other):
        reader = Call(one.read, 10).parked()
        one.close_read()
        assert reader.result() == b""
        assert one.read(10) == b""
        one.write(b"still")
        assert other.read(10) == b"still"


@main_goroutine
def test_a_writer_that_closes_at_once_loses_nothing(secure):
    data = pattern(3_000_000)
    with secure() as (one, other):
        # It has never read what the server sent after the handshake.
        Call(lambda: [one.write(data), one.close()])
        assert other.read_full(len(data)) == data
        assert other.read(1) == b""


@main_goroutine
def test_everything_but_close_fails_on_a_closed_connection(secure):
    with secure() as (one, other):
        other.write(b"unread")
        assert one.read(2) == b"un"
        addresses = one.local_addr, one.remote_addr
        one.close()
        one.close()
        assert (one.local_addr, one.remote_addr) == addresses
        assert one.closed
        assert "closed" in repr(one)
        for call in (
            lambda: one.read(1),
            lambda: one.write(b"x"),
            lambda: one.read_into(bytearray(1)),
            lambda: one.sendfile(io.BytesIO(b"x")),
            lambda: one.set_deadline(None),
            one.close_read,
            one.close_write,
        ):
            with pytest.raises(OSError, match="closed") as caught:
                call()
            assert caught.value.errno == errno.EBADF


def test_a_close_wakes_readers_and_writers(start):
    with tls_pair() as (one, _):
        calls = [start(one.read, 10).parked(), start(one.read, 10), start(one.write, bytes(MUCH)).parked()]
        calls.append(start(one.write, b"behind it"))
        one.close()
        for call in calls:
            with pytest.raises(OSError) as caught:
                call.result()
            assert not isinstance(caught.value, TimeoutError)


# ---- deadlines and faults --------------------------------------------------------------------


@main_goroutine
def test_a_read_that_timed_out_can_be_made_again(secure):
    with secure() as (one, other):
        other.set_read_deadline(now() + 0.002)
        with pytest.raises(TimeoutError):
            other.read(10)
        other.set_read_deadline(None)
        reader = Call(other.read, 10).parked()
        other.set_read_deadline(LONG_AGO)
        with pytest.raises(TimeoutError):
            reader.result()
        other.set_deadline(None)
        one.write(b"later")
        assert other.read(10) == b"later"


@main_goroutine
def test_nothing_is_sent_after_a_write_that_was_cut_short(secure):
    with secure() as (one, other):
        writer = Call(one.write, bytes(MUCH)).parked()
        one.set_write_deadline(LONG_AGO)
        with pytest.raises(TimeoutError) as caught:
            writer.result()
        assert 0 < caught.value.characters_written < MUCH
        one.set_write_deadline(None)
        for _ in range(2):
            with pytest.raises(BrokenPipeError, match="an earlier write was cut short") as caught:
                one.write(b"more")
            assert caught.value.characters_written == 0
        # Reading goes on.
        other.write(b"still")
        assert one.read(10) == b"still"
        one.close()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            read_all(other)


@main_goroutine
def test_a_reset_ends_reads_and_writes():
    with raw_pair() as (conn, peer):
        server = _tls.over(conn, server_context(), server_side=True)
        client = helpers.Thread(lambda: client_context().wrap_socket(peer, server_hostname="localhost"))
        server.handshake()
        secured = client.result()
        reader, writer = Call(server.read, 10).parked(), Call(server.write, bytes(MUCH)).parked()
        vanish(secured)
        for call in (reader, writer):
            # The system tells one of them of the reset, and the other of an end.
            with pytest.raises((ConnectionError, ssl.SSLEOFError)):
                call.result()
        server.close()


@main_goroutine
def test_a_cancelled_operation_leaves_the_connection_usable(secure):
    with secure() as (one, other):
        readers = [Call(other.read, 10).parked() for _ in range(2)]
        for reader in readers:
            reader.goroutine.cancel()
            with pytest.raises(offset.GoroutineExit):
                reader.result()
        one.write(b"x")
        assert other.read(10) == b"x"


def fill(conn):
    """Write until there is no room, and let the time to write be over."""
    writer = Call(net.Conn.write, conn, bytes(MUCH)).parked()
    # The system may still be moving what it has from one buffer to the next.
    wait_until(lambda: writer.goroutine.wait_reason and not select.select([], [conn.fileno()], [], 0.01)[1])
    conn.set_write_deadline(LONG_AGO)
    with pytest.raises(TimeoutError):
        writer.result()


@main_goroutine
def test_a_close_that_is_cancelled_closes(monkeypatch):
    with tls_pair() as (one, _):
        # The farewell does not fit.
        fill(one)
        closing = Call(one.close).parked()
        closing.goroutine.cancel()
        with pytest.raises(offset.GoroutineExit):
            closing.result()
        assert one.closed


@main_goroutine
def test_a_close_does_not_wait_for_ever_for_a_peer_that_does_not_read(monkeypatch):
    monkeypatch.setattr(_tls, "_FAREWELL", 0.01)
    with tls_pair() as (one, _):
        fill(one)
        one.close()
        assert one.closed


@main_goroutine
@pytest.mark.parametrize("largest", [1, 7, 2000])
def test_records_are_cut_anywhere(secure, rng, largest):
    data = pattern(5_000 if largest == 1 else 60_000, rng.getrandbits(32))
    with contextlib.closing(Cutter(rng, largest)) as cutter, secure(through=cutter.to) as (one, other):

        def talk(conn):
            at = 0
            while at < len(data):
                size = rng.randint(1, 20_000)
                conn.write(data[at : at + size])
                at += size
            conn.close_write()

        calls = [Call(talk, conn) for conn in (one, other)]
        readers = [Call(read_all, conn, rng.randint(1, 30_000)) for conn in (one, other)]
        assert [reader.result() == data for reader in readers] == [True, True]
        for call in calls:
            call.result()


@main_goroutine
def test_a_connection_that_is_broken_off_anywhere_raises(rng):
    for _ in range(10):
        with (
            contextlib.closing(Cutter(rng, 1000)) as cutter,
            net.listen("tcp", "127.0.0.1:0", tls=server_context()) as listener,
        ):

            def serve(listener=listener):
                with listener.accept(timeout=PATIENCE) as conn:
                    while True:
                        conn.write(bytes(10_000))

            def ask(listener=listener, cutter=cutter):
                with net.dial("tcp", cutter.to(listener.addr), tls=client_context()) as conn:
                    return read_all(conn)

            calls = [Call(serve), Call(ask)]
            for _ in range(rng.randrange(300)):
                offset.gosched()
            cutter.close()
            # It may not have been reached.
            listener.close()
            for call in calls:
                with pytest.raises(OSError):
                    call.result()


@main_goroutine
def test_connections_leave_nothing_behind():
    contexts = client_context(), server_context()
    listener = net.listen("tcp", "127.0.0.1:0", tls=contexts[1])

    def serve():
        for conn in listener:
            go(echo, conn)

    def echo(conn):
        with conn:
            conn.write(conn.read(100))

    server = go(serve)

    def ask():
        with net.dial("tcp", listener.addr, tls=contexts[0]) as conn:
            conn.write(b"x")
            assert conn.read(1) == b"x"
            assert conn.read(1) == b""

    assert_no_growth(ask, repeats=10)
    listener.close()
    wait_ended(server)
    wait_until(lambda: offset.runtime.num_goroutine() == 1)


@main_goroutine
def test_a_plain_connection_becomes_a_secure_one_and_is_over():
    with pair() as (one, other):
        server = Call(lambda: _tls.over(other, server_context(), server_side=True))
        secured = server.result()
        assert other.closed
        with secured:
            handshake = Call(secured.handshake)
            with _tls.over(one, client_context(), server_hostname="localhost") as client:
                client.handshake()
                handshake.result()
                assert client.network == "tcp"
                assert client.stats()["remote_addr"] == secured.local_addr
