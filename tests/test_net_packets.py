"""`offset.net`: packets, over UDP and Unix sockets, and pipes in memory."""

from __future__ import annotations

import errno
import io
import os
import select
import socket

import offset
import pytest
from helpers import PATIENCE, SHORT, Thread, main_goroutine, wait_parked, wait_until
from net_peers import Call, ThreadCall, pattern, read_all, waits
from offset import net
from offset.time import now

LONG_AGO = 0.0


@pytest.fixture(params=["udp", "unixgram"])
def bind(request, tmp_path):
    """Make a socket for packets with each call."""
    made = []

    def listen():
        address = "127.0.0.1:0" if request.param == "udp" else str(tmp_path / f"socket-{len(made)}")
        made.append(net.listen_packet(request.param, address))
        return made[-1]

    yield listen
    for conn in made:
        conn.close()
    made.clear()


# ---- packets without a connection ------------------------------------------------------------


def test_packets_keep_their_borders_and_tell_where_they_come_from(bind):
    one, other = bind(), bind()
    for packet in (b"first", b"", bytes(1000), b"last"):
        assert one.write_to(packet, other.addr) == len(packet)
    assert other.read_from(100) == (b"first", one.addr)
    assert other.read_from(100) == (b"", one.addr)
    # What does not fit is lost.
    assert other.read_from(10) == (bytes(10), one.addr)
    data, sender = other.read_from(100)
    assert data == b"last"
    other.write_to(b"answer", sender)
    assert one.read_from(100) == (b"answer", other.addr)


def test_a_read_waits_for_a_packet(bind, start):
    one, other = bind(), bind()
    for word in (b"one", b"two"):
        call = start(other.read_from, 100).parked()
        one.write_to(word, other.local_addr)
        assert call.result() == (word, one.local_addr)


@pytest.mark.parametrize("short", [0, *SHORT])
def test_a_read_gives_up_in_time(bind, start, short):
    conn = bind()
    with pytest.raises(TimeoutError, match=f"read {conn.stats()['network']} {conn.addr}: timed out") as caught:
        start(conn.read_from, 100, timeout=short).result()
    assert caught.value.errno == errno.ETIMEDOUT
    conn.write_to(b"x", conn.addr)
    wait_until(lambda: select.select([conn.fileno()], [], [], 0)[0], "the packet")
    assert conn.read_from(1, timeout=short) == (b"x", conn.addr)


def test_a_read_refuses_what_is_no_size_or_timeout(bind):
    conn = bind()
    with pytest.raises(TypeError, match="the size of a read is an integer, not str"):
        conn.read_from("1")
    with pytest.raises(ValueError, match="negative"):
        conn.read_from(-1)
    with pytest.raises(TypeError, match="a duration is a number of seconds or a timedelta, not str"):
        conn.read_from(1, timeout="1")
    with pytest.raises(ValueError, match="not NaN"):
        conn.read_from(1, timeout=float("nan"))


def test_deadlines_hold_for_who_waits_and_for_what_comes(bind, start):
    conn = bind()
    reader = start(conn.read_from, 100).parked()
    conn.set_read_deadline(LONG_AGO)
    with pytest.raises(TimeoutError):
        reader.result()
    conn.write_to(b"x", conn.addr)
    # Over is over, even when there is something.
    with pytest.raises(TimeoutError):
        conn.read_from(1)
    conn.set_read_deadline(None)
    assert conn.read_from(1)[0] == b"x"
    conn.set_write_deadline(LONG_AGO)
    with pytest.raises(TimeoutError, match=f"write to {conn.addr} from"):
        conn.write_to(b"x", conn.addr)
    conn.set_deadline(now() + 1000)
    conn.write_to(b"y", conn.addr)
    assert conn.read_from(1)[0] == b"y"


def test_a_close_wakes_who_reads(bind, start):
    conn = bind()
    calls = [start(conn.read_from, 100).parked() for _ in range(3)]
    conn.close()
    conn.close()
    for call in calls:
        with pytest.raises(OSError, match=f"read .* {conn.addr}: closed") as caught:
            call.result()
        assert not isinstance(caught.value, TimeoutError)
    assert conn.closed
    assert conn.fileno() == -1
    assert conn.stats()["closed"]
    assert "closed" in repr(conn)
    for call in (
        lambda: conn.read_from(1),
        lambda: conn.write_to(b"x", conn.addr),
        lambda: conn.set_deadline(None),
        lambda: conn.set_read_deadline(None),
        lambda: conn.set_write_deadline(None),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_a_packet_that_is_too_long_is_refused(bind):
    one, other = bind(), bind()
    with pytest.raises(OSError, match=f"write to {other.addr} from .* {one.addr}: Message too long") as caught:
        one.write_to(bytes(8_000_000), other.addr)
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(ValueError, match="negative"):
        one.read_from(-1)


@pytest.mark.parametrize(
    ("network", "address", "host"),
    [
        ("udp", ":0", "[::]"),
        ("udp4", ":0", "0.0.0.0"),
        ("udp6", "[::1]:0", "[::1]"),
        ("udp", "localhost:0", "127.0.0.1"),
    ],
)
@main_goroutine
def test_sockets_for_packets_are_bound_and_reached(network, address, host):
    with net.listen_packet(network, address) as server:
        assert server.addr.startswith(f"{host}:")
        port = server.addr.rpartition(":")[2]
        reached = ["[::1]" if network == "udp6" else "127.0.0.1"] + (["[::1]"] if host == "[::]" else [])
        for target in reached:
            with net.listen_packet("udp", f"{target}:0") as client:
                client.write_to(b"ping", f"{target}:{port}")
                data, sender = server.read_from(10)
                assert (data, sender) == (b"ping", client.addr)
                server.write_to(b"pong", sender)
                assert client.read_from(10) == (b"pong", f"{target}:{port}")


@main_goroutine
def test_the_name_of_a_receiver_is_looked_up():
    with net.listen_packet("udp4", "127.0.0.1:0") as server:
        server.write_to(b"x", server.addr.replace("127.0.0.1", "localhost"))
        assert server.read_from(1) == (b"x", server.addr)
        for bad in ("127.0.0.1", "[::1]:80", "127.0.0.1:http/udp"):
            with pytest.raises(ValueError):
                server.write_to(b"x", bad)


def test_who_sends_to_a_queue_that_others_filled_goes_on_when_it_has_room(tmp_path, start):
    with (
        net.listen_packet("unixgram", str(tmp_path / "receiver")) as receiver,
        net.listen_packet("unixgram", str(tmp_path / "one")) as one,
        net.listen_packet("unixgram", str(tmp_path / "other")) as other,
    ):
        # For ever, or it might be through before the other one has begun.
        filler = start(lambda: [one.write_to(b"x", receiver.addr) for _ in iter(int, 1)])
        wait_until(lambda: waits() or not isinstance(filler, ThreadCall), "a full queue")
        if isinstance(filler, Call):
            wait_parked(filler.goroutine, reason="IO")
        # The system tells the first when its packets are read, and the other never.
        late = start(other.write_to, b"late", receiver.addr)
        while receiver.read_from(10)[0] != b"late":
            pass
        assert late.result() == 4
        one.close()
        with pytest.raises(OSError, match="closed"):
            filler.result()


def test_the_file_of_a_socket_for_packets_goes_with_it(tmp_path):
    path = tmp_path / "socket"
    with net.listen_packet("unixgram", str(path)) as conn:
        assert path.is_socket()
        assert conn.local_addr == conn.addr == str(path)
    assert not path.exists()
    with net.listen_packet("unixgram", f"@offset-packets-{os.getpid()}") as conn:
        conn.write_to(b"x", conn.addr)
        assert conn.read_from(1) == (b"x", f"@offset-packets-{os.getpid()}")


def test_a_sender_without_an_address_has_none(tmp_path):
    with net.listen_packet("unixgram", str(tmp_path / "socket")) as conn:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", conn.addr)
        assert conn.read_from(1) == (b"x", "")


# ---- packets over a connection ---------------------------------------------------------------


def test_a_connected_socket_reads_and_writes_packets(bind, start):
    server = bind()
    with net.dial(server.stats()["network"], server.addr) as client:
        assert client.remote_addr == server.addr
        assert client.write(b"one") == 3
        assert client.write(b"") == 0
        assert client.write(b"two") == 3
        packets = [server.read_from(10) for _ in range(3)]
        assert [data for data, _ in packets] == [b"one", b"", b"two"]
        assert {sender for _, sender in packets} == {client.local_addr}
        if not client.local_addr:
            return
        reader = start(client.read, 100).parked()
        server.write_to(b"first", client.local_addr)
        server.write_to(b"second, which is longer", client.local_addr)
        assert reader.result() == b"first"
        assert client.read(6) == b"second"
        # Larger than what is read at once, and not cut.
        server.write_to(bytes(60_000), client.local_addr)
        assert client.read(1 << 20) == bytes(60_000)
        client.set_read_deadline(LONG_AGO)
        with pytest.raises(TimeoutError):
            client.read(1)


@main_goroutine
def test_nobody_at_the_other_end_is_told_by_the_next_operation():
    with net.listen_packet("udp", "127.0.0.1:0") as gone:
        address = gone.addr
    with net.dial("udp", address) as client:
        client.write(b"anybody?")
        with pytest.raises(ConnectionRefusedError, match=f"read udp .*->{address}: Connection refused"):
            client.read(10)


def test_a_full_queue_holds_up_a_connected_sender(tmp_path, start):
    with net.listen_packet("unixgram", str(tmp_path / "socket")) as server:
        with net.dial("unixgram", server.addr) as client:
            sender = start(lambda: [client.write(b"x") for _ in range(1000)]).parked()
            assert [server.read_from(1)[0] for _ in range(1000)] == [b"x"] * 1000
            assert sender.result() == [1] * 1000
            sender = start(lambda: [client.write(b"x") for _ in range(1000)]).parked()
        with pytest.raises(OSError, match="closed"):
            sender.result()


# ---- pipes, as Go's net.Pipe -----------------------------------------------------------------


def pipes_under_test():
    return pytest.mark.parametrize("party", [Call, Thread], ids=["goroutine", "thread"])


@pipes_under_test()
def test_a_pipe_passes_what_is_written_and_the_writer_waits(party):
    one, other = net.pipe()
    writer = party(one.write, b"abcdef")
    assert other.read(2) == b"ab"
    assert not writer.ended
    assert other.read(3) == b"cde"
    space = bytearray(10)
    assert other.read_into(space) == 1
    assert space[:1] == b"f"
    assert writer.result() == 6


@pipes_under_test()
def test_a_pipe_carries_both_ways_at_once(party):
    data = pattern(300_000)
    one, other = net.pipe()
    calls = [party(end.write, data) for end in (one, other)]
    calls += [party(end.read_full, len(data)) for end in (one, other)]
    assert [call.result() for call in calls] == [len(data), len(data), data, data]


@pipes_under_test()
def test_concurrent_writes_to_a_pipe_do_not_interleave(party):
    one, other = net.pipe()
    writers = [party(one.write, bytes([number]) * 1000) for number in range(5)]
    blocks = [other.read_full(1000) for _ in range(5)]
    assert sorted(blocks) == [bytes([number]) * 1000 for number in range(5)]
    for writer in writers:
        writer.result()


@pipes_under_test()
def test_the_end_of_a_pipe_is_read_again_and_again(party):
    one, other = net.pipe()
    reader = party(other.read, 10)
    one.close()
    assert reader.result() == b""
    assert other.read(10) == other.read(10) == b""
    with pytest.raises(BrokenPipeError) as caught:
        other.write(b"x")
    assert caught.value.characters_written == 0
    with pytest.raises(EOFError):
        other.read_full(1)


@pipes_under_test()
def test_closing_an_end_wakes_who_waits_there(party):
    one, _ = net.pipe()
    calls = [party(one.read, 10), party(one.write, b"abc"), party(one.write, b"behind it")]
    one.close()
    one.close()
    for call in calls:
        with pytest.raises(OSError, match="closed") as caught:
            call.result()
        assert not isinstance(caught.value, TimeoutError)
    assert one.closed
    assert one.stats() == {"network": "pipe", "closed": True}
    for call in (lambda: one.read(1), lambda: one.write(b""), lambda: one.set_deadline(None), lambda: one.read(0)):
        with pytest.raises(OSError, match="closed"):
            call()


@main_goroutine
def test_a_write_to_a_pipe_that_is_cut_short_tells_how_much_was_read():
    for cut in (
        lambda one, other: other.close(),
        lambda one, other: other.close_read(),
        lambda one, other: one.close(),
        lambda one, other: one.close_write(),
        lambda one, other: one.set_write_deadline(LONG_AGO),
    ):
        one, other = net.pipe()
        writer = Call(one.write, b"abcdef").parked()
        assert other.read(4) == b"abcd"
        cut(one, other)
        with pytest.raises(OSError) as caught:
            writer.result()
        assert caught.value.characters_written == 4


@main_goroutine
def test_half_a_pipe_is_closed_alone():
    one, other = net.pipe()
    one.close_write()
    assert other.read(5) == b""
    writer = Call(other.write, b"still")
    assert one.read(10) == b"still"
    writer.result()
    reader = Call(one.read, 10).parked()
    one.close_read()
    assert reader.result() == b""
    assert one.read(1) == b""
    with pytest.raises(BrokenPipeError):
        other.write(b"x")


@main_goroutine
def test_nothing_written_to_a_pipe_is_no_end():
    one, other = net.pipe()
    reader = Call(other.read, 10).parked()
    assert one.write(b"") == 0
    assert other.read(0) == b""
    assert not reader.ended
    one.write(b"x")
    assert reader.result() == b"x"


@main_goroutine
@pytest.mark.parametrize("setter", ["set_deadline", "set_read_deadline", "set_write_deadline"])
def test_deadlines_of_a_pipe(setter):
    one, _ = net.pipe()
    operations = {"set_deadline": (one.read, one.write), "set_read_deadline": (one.read,)}.get(setter, (one.write,))
    for operation in operations:
        argument = 10 if operation == one.read else b"abc"
        getattr(one, setter)(now() + 1000)
        call = Call(operation, argument).parked()
        getattr(one, setter)(now() + 0.001)
        with pytest.raises(TimeoutError, match="pipe: timed out"):
            call.result()
        with pytest.raises(TimeoutError):
            operation(argument)
        getattr(one, setter)(None)
        call = Call(operation, argument).parked()
        getattr(one, setter)(LONG_AGO)
        with pytest.raises(TimeoutError):
            call.result()


@pytest.mark.parametrize("setter", ["set_deadline", "set_read_deadline", "set_write_deadline"])
def test_deadlines_of_a_pipe_refuse_what_is_no_time(setter):
    one, _ = net.pipe()
    with pytest.raises(TypeError, match="a duration is a number of seconds or a timedelta, not str"):
        getattr(one, setter)("x")
    with pytest.raises(ValueError, match="not NaN"):
        getattr(one, setter)(float("nan"))
    getattr(one, setter)(float("inf"))


@main_goroutine
def test_a_cancelled_operation_leaves_the_pipe_usable():
    one, other = net.pipe()
    for call in (Call(one.read, 1), Call(one.write, b"gone"), Call(one.write, b"gone too")):
        call.parked().goroutine.cancel()
        with pytest.raises(offset.GoroutineExit):
            call.result()
    writer = Call(one.write, b"abc")
    assert other.read(10) == b"abc"
    writer.result()


@main_goroutine
def test_a_pipe_is_a_connection_like_others():
    one, other = net.pipe()
    with one, other:
        assert (one.network, one.local_addr, one.remote_addr) == ("pipe", "pipe", "pipe")
        assert repr(one) == "<offset.net.PipeConn pipe>"
        sender = Call(one.sendfile, io.BytesIO(b"0123456789"), 2, 5)
        assert other.read_full(5) == b"23456"
        assert sender.result() == 5
        with pytest.raises(ValueError, match="negative"):
            one.read(-1)
        with pytest.raises(TypeError, match="the size of a read is an integer, not str"):
            one.read("1")
        with pytest.raises(TypeError):
            one.write("text")
        writer = Call(lambda: [one.write(b"x"), one.close_write()])
        assert read_all(other) == b"x"
        writer.result()
    assert one.closed
    assert other.closed
    assert repr(one) == "<offset.net.PipeConn pipe closed>"


@main_goroutine
def test_a_pipe_for_random_parties(rng):
    one, other = net.pipe()
    data = pattern(20_000, rng.getrandbits(32))

    def write():
        at = 0
        while at < len(data):
            size = rng.randint(0, 200)
            try:
                at += one.write(data[at : at + size])
            except TimeoutError as error:
                at += error.characters_written
            one.set_write_deadline(rng.choice([None, LONG_AGO, now() + rng.random() * 0.001]))
        one.close()

    def read():
        parts = []
        while True:
            try:
                part = other.read(rng.randint(1, 300))
            except TimeoutError:
                other.set_read_deadline(None)
                continue
            if not part:
                return b"".join(parts)
            parts.append(part)
            other.set_read_deadline(rng.choice([None, LONG_AGO, now() + rng.random() * 0.001]))

    writer, reader = Call(write), Call(read)
    assert reader.goroutine.join(timeout=PATIENCE)
    assert reader.result() == data
    writer.result()
