"""`offset.net`: connections over TCP and Unix sockets. What accepts them is in test_net_listen.py.

Invariants: a connection's operations are the same in goroutines and in plain threads; who waits is woken by data, by
the end, by a deadline wherever it is moved, and by `close`, each in its own way.
"""

from __future__ import annotations

import array
import contextlib
import datetime
import errno
import gc
import io
import select
import socket
import weakref

import offset
import pytest
from helpers import PATIENCE, SHORT, main_goroutine, wait_until
from net_peers import MUCH, Call, ThreadCall, pair, pattern, raw_pair, read_all, vanish
from offset import net
from offset.time import now

LONG_AGO = 0.0


# ---- reading ---------------------------------------------------------------------------------


@main_goroutine
def test_what_is_written_is_read(kind):
    with pair(*kind) as (one, other):
        for sender, receiver in ((one, other), (other, one)):
            assert sender.write(b"some bytes") == 10
            assert receiver.read(100) == b"some bytes"


@main_goroutine
def test_a_read_gives_what_is_there_up_to_its_size(kind):
    with pair(*kind) as (one, other):
        one.write(b"abcdef")
        assert other.read(2) == b"ab"
        assert other.read(2) == b"cd"
        assert other.read(200) == b"ef"
        one.write(b"ghi")
        assert other.read(1 << 40) == b"ghi"


@main_goroutine
def test_the_end_is_read_again_and_again(kind):
    with pair(*kind) as (one, other):
        one.write(b"last")
        one.close()
        assert other.read(100) == b"last"
        assert [other.read(100) for _ in range(5)] == [b""] * 5
        assert other.read_into(bytearray(5)) == 0


@main_goroutine
def test_a_read_of_nothing_does_not_wait(kind):
    with pair(*kind) as (one, other):
        assert other.read(0) == b""
        one.write(b"abc")
        # A short answer, after which a read would wait.
        assert other.read(100) == b"abc"
        assert other.read(0) == b""
        assert other.read_into(bytearray()) == 0
        other.close()
        with pytest.raises(OSError, match="closed"):
            other.read(0)


@main_goroutine
def test_reads_refuse_what_is_no_size_or_buffer(kind):
    with pair(*kind) as (one, _):
        with pytest.raises(ValueError, match="negative"):
            one.read(-1)
        with pytest.raises(ValueError, match="negative"):
            one.read_full(-1)
        with pytest.raises(TypeError):
            one.read("4")
        with pytest.raises(TypeError, match="the size of a read is an integer, not str"):
            one.read_full("4")
        with pytest.raises((TypeError, BufferError)):
            one.read_into(b"read-only")
        with pytest.raises(TypeError):
            one.write("text")


@main_goroutine
def test_read_into_fills_any_buffer(kind):
    with pair(*kind) as (one, other):
        one.write(b"abcdefgh")
        space = bytearray(3)
        assert other.read_into(space) == 3
        assert space == b"abc"
        with memoryview(bytearray(10)) as view, view[4:6] as part:
            assert other.read_into(part) == 2
            assert bytes(view) == b"\0\0\0\0de\0\0\0\0"
        numbers = array.array("H", [0, 0, 0])
        assert other.read_into(numbers) == 3
        assert numbers.tobytes() == b"fgh\0\0\0"


@main_goroutine
def test_read_full_reads_exactly_so_much(kind):
    with pair(*kind) as (one, other):
        data = pattern(300_000)
        call = Call(one.write, data)
        assert other.read_full(0) == b""
        assert other.read_full(7) == data[:7]
        assert other.read_full(299_993) == data[7:]
        call.result()


@main_goroutine
def test_read_full_tells_what_came_before_an_early_end(kind):
    with pair(*kind) as (one, other):
        one.write(b"abc")
        one.close_write()
        with pytest.raises(offset.io.IncompleteReadError, match="ended after 3 bytes, before 10 bytes") as caught:
            other.read_full(10)
        assert caught.value.partial == b"abc"
        with pytest.raises(EOFError) as caught:
            other.read_full(1)
        assert caught.value.partial == b""


def test_a_read_waits_for_data(kind, start):
    with pair(*kind) as (one, other):
        for word in (b"one", b"two", b"three"):
            call = start(other.read, 100).parked()
            one.write(word)
            assert call.result() == word


@main_goroutine
def test_several_readers_share_what_comes(kind):
    with pair(*kind) as (one, other):
        calls = [Call(other.read, 1).parked() for _ in range(5)]
        one.write(b"abcde")
        assert sorted(call.result() for call in calls) == [b"a", b"b", b"c", b"d", b"e"]


@main_goroutine
def test_data_behind_an_urgent_byte_arrives():
    with raw_pair() as (conn, peer):
        peer.send(b"before")
        peer.send(b"!", socket.MSG_OOB)
        peer.send(b"after")
        wait_until(lambda: select.select([], [], [conn.fileno()], 0)[2], "the urgent byte")
        assert conn.read_full(11) == b"beforeafter"
        call = Call(conn.read_full, 4).parked()
        peer.send(b"!", socket.MSG_OOB)
        peer.send(b"more")
        assert call.result() == b"more"


@main_goroutine
def test_data_behind_a_descriptor_arrives(tmp_path):
    path = str(tmp_path / "socket")
    with net.listen("unix", path) as listener, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        with listener.accept() as conn:
            for round in range(3):
                socket.send_fds(peer, [b"with"], [0])
                peer.send(b"without")
                assert conn.read_full(11) == b"withwithout", round


# ---- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, MUCH])
def test_a_write_writes_everything(kind, start, size):
    data = pattern(size)
    with pair(*kind) as (one, other):
        reader = start(read_all, other)
        writer = start(one.write, data)
        assert writer.result() == size
        one.close_write()
        assert reader.result() == data


@main_goroutine
@pytest.mark.parametrize(
    "data", [bytearray(b"abcd"), memoryview(b"abcd"), array.array("H", [1, 2]), memoryview(b"xabcdx")[1:5]]
)
def test_a_write_takes_any_buffer(kind, data):
    with pair(*kind) as (one, other):
        assert one.write(data) == 4
        assert other.read_full(4) == bytes(data)
        # It is not held on to.
        if isinstance(data, bytearray):
            data.append(0)
            del data[4:]


@main_goroutine
def test_concurrent_writes_do_not_interleave(kind):
    size, writers, rounds = 100_000, 4, 5
    with pair(*kind) as (one, other):

        def write(number):
            for _ in range(rounds):
                one.write(bytes([number]) * size)

        calls = [(Call if number % 2 else ThreadCall)(write, number) for number in range(writers)]
        seen = [0] * writers
        for _ in range(writers * rounds):
            block = other.read_full(size)
            assert len(set(block)) == 1
            seen[block[0]] += 1
        for call in calls:
            call.result()
        assert seen == [rounds] * writers


@main_goroutine
def test_a_slow_reader_holds_the_writer_up():
    with raw_pair() as (conn, peer):
        written = 0

        def write():
            nonlocal written
            for _ in range(64):
                written += conn.write(bytes(1 << 18))
            conn.close_write()

        writer = Call(write).parked()

        def stuck():
            # The system may still be moving what it has from one buffer to the next.
            before = written
            for _ in range(100):
                offset.gosched()
            return written == before and writer.goroutine.wait_reason

        wait_until(stuck, "a writer that is held up")
        assert written < 64 << 18
        reader = ThreadCall(lambda: sum(len(part) for part in iter(lambda: peer.recv(1 << 16), b"")))
        assert reader.result() == 64 << 18
        writer.result()


@main_goroutine
def test_a_write_that_is_cut_short_by_the_deadline_tells_how_much_was_written(start):
    with raw_pair() as (conn, peer):
        writer = start(conn.write, bytes(MUCH)).parked()
        conn.set_write_deadline(LONG_AGO)
        with pytest.raises(TimeoutError) as caught:
            writer.result()
        conn.set_write_deadline(None)
        written = caught.value.characters_written
        assert 0 < written < MUCH
        conn.close_write()
        assert sum(len(part) for part in iter(lambda: peer.recv(1 << 20), b"")) == written


@main_goroutine
def test_a_write_that_is_cut_short_by_a_reset_tells_how_much_was_written(start):
    with raw_pair() as (conn, peer):
        writer = start(conn.write, bytes(MUCH)).parked()
        vanish(peer)
        with pytest.raises(ConnectionError) as caught:
            writer.result()
        assert 0 < caught.value.characters_written < MUCH
        assert conn.remote_addr in str(caught.value)
        # From now on nothing is written, and nothing waits.
        for _ in range(3):
            with pytest.raises(ConnectionError) as caught:
                conn.write(b"more")
            assert caught.value.characters_written == 0


@main_goroutine
def test_a_write_after_the_other_side_has_closed_raises(kind):
    with pair(*kind) as (one, other):
        other.close()

        def write_on():
            # The first may still be taken, and answered with a reset.
            while True:
                one.write(b"x")
                wait_until(lambda: select.select([one.fileno()], [], [], 0)[0])

        with pytest.raises(ConnectionError) as caught:
            write_on()
        assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)


@main_goroutine
def test_a_read_after_a_reset_raises(start):
    with raw_pair() as (conn, peer):
        reader = start(conn.read, 100).parked()
        vanish(peer)
        with pytest.raises(
            ConnectionResetError, match=r"read tcp 127\.0\.0\.1:\d+->127\.0\.0\.1:\d+: Connection reset"
        ):
            reader.result()


@main_goroutine
def test_reading_and_writing_at_once(kind):
    data = pattern(4_000_000)
    with pair(*kind) as (one, other):
        readers = [Call(conn.read_full, len(data)) for conn in (one, other)]
        writers = [Call(conn.write, data) for conn in (one, other)]
        assert [reader.result() == data for reader in readers] == [True, True]
        assert [writer.result() for writer in writers] == [len(data)] * 2


# ---- files -----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(1_000_000))
    with path.open("rb") as opened:
        yield opened


RANGES = [
    (0, None),
    (0, 0),
    (0, 10),
    (5, None),
    (5, 300_000),
    (999_990, None),
    (999_990, 100),
    (1_000_000, None),
    (2_000_000, None),
]


@main_goroutine
@pytest.mark.parametrize("plain", [True, False], ids=["file", "buffer"])
@pytest.mark.parametrize(("offset_", "count"), RANGES)
def test_sendfile_sends_a_part_of_a_file(kind, file, plain, offset_, count):
    expected = pattern(1_000_000)[offset_ : None if count is None else offset_ + count]
    with pair(*kind) as (one, other):
        reader = Call(read_all, other)
        source = file if plain else io.BytesIO(file.read())
        assert one.sendfile(source, offset_, count) == len(expected)
        one.close_write()
        assert reader.result() == expected


@main_goroutine
def test_sendfile_waits_and_is_cut_short_as_a_write(file, start):
    for plain in (True, False):
        source = file if plain else io.BytesIO(pattern(1_000_000))
        with raw_pair(buffer=4096) as (conn, _):
            conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            call = start(conn.sendfile, source).parked()
            conn.set_write_deadline(LONG_AGO)
            with pytest.raises(TimeoutError) as caught:
                call.result()
            assert 0 < caught.value.characters_written < 1_000_000
            # A deadline that is over fails before anything is sent.
            with pytest.raises(TimeoutError) as caught:
                conn.sendfile(source)
            assert caught.value.characters_written == 0
            conn.set_write_deadline(None)
            call = start(conn.sendfile, source).parked()
            conn.close()
            with pytest.raises(OSError, match="closed") as caught:
                call.result()
            assert not isinstance(caught.value, TimeoutError)


@main_goroutine
def test_sendfile_names_the_connection_in_its_errors(file):
    with raw_pair() as (conn, peer):
        vanish(peer)
        wait_until(lambda: select.select([conn.fileno()], [], [], 0)[0])
        with pytest.raises(ConnectionError, match=r"sendfile tcp .*->.*: "):
            conn.sendfile(file)
        conn.close()
        with pytest.raises(OSError, match="closed"):
            conn.sendfile(file)
        for bad in ({"offset": -1}, {"count": -1}):
            with pytest.raises(ValueError, match="negative"):
                conn.sendfile(file, **bad)


@main_goroutine
def test_a_file_that_is_sent_and_writes_do_not_interleave(file):
    with pair() as (one, other):
        one._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        sender = Call(one.sendfile, file).parked()
        writer = Call(one.write, b"behind it").parked()
        assert other.read_full(1_000_000) == pattern(1_000_000)
        assert other.read_full(9) == b"behind it"
        assert sender.result() == 1_000_000
        writer.result()


# ---- deadlines -------------------------------------------------------------------------------


@main_goroutine
@pytest.mark.parametrize("setter", ["set_deadline", "set_read_deadline"])
@pytest.mark.parametrize("when", [LONG_AGO, -1.0, 1])
def test_a_deadline_that_is_over_fails_whatever_there_is(kind, setter, when):
    with pair(*kind) as (one, other):
        one.write(b"data")
        getattr(other, setter)(when)
        for _ in range(2):
            with pytest.raises(TimeoutError, match="timed out") as caught:
                other.read(10)
            assert caught.value.errno == errno.ETIMEDOUT
            assert other.local_addr in str(caught.value)
        getattr(other, setter)(None)
        assert other.read(10) == b"data"


@pytest.mark.parametrize("short", SHORT)
def test_a_deadline_ends_a_read_that_waits(kind, start, short):
    with pair(*kind) as (one, other):
        seconds = short.total_seconds() if isinstance(short, datetime.timedelta) else short
        before = now()
        other.set_read_deadline(before + seconds)
        with pytest.raises(TimeoutError):
            start(other.read, 10).result()
        assert now() >= before + seconds
        other.set_read_deadline(None)
        one.write(b"later")
        assert other.read(10) == b"later"


def test_a_deadline_is_moved_to_an_earlier_time_while_somebody_waits(kind, start):
    with pair(*kind) as (_, other):
        other.set_read_deadline(now() + 1000)
        reader = start(other.read, 10).parked()
        other.set_read_deadline(now() + 0.001)
        with pytest.raises(TimeoutError):
            reader.result()


def test_a_deadline_is_moved_to_a_later_time_while_somebody_waits(kind, start):
    with pair(*kind) as (one, other):
        first = now() + 0.05
        other.set_read_deadline(first)
        reader = start(other.read, 10)
        other.set_read_deadline(now() + 1000)
        in_time = now() < first
        wait_until(lambda: now() > first + 0.01)
        one.write(b"in time")
        if in_time:
            assert reader.result() == b"in time"
        else:
            with contextlib.suppress(TimeoutError):
                reader.result()


def test_a_deadline_is_cleared_while_somebody_waits(kind, start):
    with pair(*kind) as (one, other):
        other.set_deadline(now() + 1000)
        reader = start(other.read, 10).parked()
        other.set_deadline(None)
        one.write(b"any time")
        assert reader.result() == b"any time"


@main_goroutine
def test_who_is_woken_when_the_time_is_over_leaves_what_came(kind):
    """Data and the deadline at once: who reads next gets the data, without more of it."""
    with pair(*kind) as (one, other):
        for _ in range(30):
            one.write(b"all")
            # A short answer: the next read waits for the poller.
            assert other.read(10) == b"all"
            reader = Call(other.read, 10).parked()
            one.write(b"late")
            # Nobody else runs until the poller has woken it, and then not at once.
            while reader.goroutine.wait_reason is not None:
                pass
            other.set_read_deadline(LONG_AGO)
            try:
                got = reader.result()
            except TimeoutError:
                other.set_read_deadline(now() + PATIENCE)
                got = other.read(10)
            other.set_read_deadline(None)
            assert got == b"late"


def test_a_deadline_of_one_direction_leaves_the_other_alone(start):
    with raw_pair() as (conn, peer):
        reader = start(conn.read, 10).parked()
        writer = start(conn.write, bytes(MUCH)).parked()
        conn.set_write_deadline(LONG_AGO)
        with pytest.raises(TimeoutError):
            writer.result()
        peer.send(b"read on")
        assert reader.result() == b"read on"
        conn.set_write_deadline(None)
        conn.set_read_deadline(LONG_AGO)
        writer = start(conn.write, bytes(MUCH)).parked()
        with pytest.raises(TimeoutError):
            conn.read(10)
        assert not writer.ended
        conn.set_deadline(LONG_AGO)
        with pytest.raises(TimeoutError):
            writer.result()


@main_goroutine
def test_deadlines_refuse_what_is_no_time(kind):
    with pair(*kind) as (one, _):
        for bad in ("soon", [], float("nan")):
            with pytest.raises((TypeError, ValueError)):
                one.set_deadline(bad)
        one.set_deadline(float("inf"))
        one.set_deadline(datetime.timedelta(days=10_000_000))


@main_goroutine
def test_deadlines_are_moved_at_random_while_both_sides_talk(kind, rng):
    with pair(*kind) as (one, other):
        stop = False

        def read():
            seen = 0
            while True:
                try:
                    data = other.read(1000)
                except TimeoutError:
                    offset.gosched()
                    continue
                if not data:
                    return seen
                seen += len(data)

        def move():
            while not stop:
                offset.sleep(rng.random() * 0.001)
                other.set_read_deadline(rng.choice([None, LONG_AGO, now() + rng.random() * 0.001, now() + 100]))
            other.set_read_deadline(None)

        reader, mover = Call(read), Call(move)
        for _ in range(300):
            one.write(bytes(100))
            offset.gosched()
        one.close_write()
        stop = True
        mover.result()
        assert reader.result() == 30_000


# ---- closing ---------------------------------------------------------------------------------


def test_a_close_wakes_readers_and_writers(kind, start):
    with pair(*kind) as (one, _):
        calls = [start(one.read, 10).parked() for _ in range(3)]
        calls += [start(one.write, bytes(MUCH)).parked(), start(one.write, b"behind it")]
        one.close()
        for call in calls:
            with pytest.raises(OSError, match="closed") as caught:
                call.result()
            assert not isinstance(caught.value, TimeoutError)
            assert caught.value.errno == errno.EBADF


@main_goroutine
def test_everything_but_close_fails_on_a_closed_connection(kind, file):
    with pair(*kind) as (one, _):
        addresses = one.local_addr, one.remote_addr
        one.close()
        one.close()
        assert one.closed
        assert one.fileno() == -1
        assert (one.local_addr, one.remote_addr) == addresses
        assert "closed" in repr(one)
        assert one.stats()["closed"]
        for call in (
            lambda: one.read(1),
            lambda: one.read_into(bytearray(1)),
            lambda: one.read_full(1),
            lambda: one.write(b"x"),
            lambda: one.write(b""),
            lambda: one.sendfile(file),
            lambda: one.set_deadline(now()),
            lambda: one.set_read_deadline(None),
            lambda: one.set_write_deadline(None),
            one.close_read,
            one.close_write,
        ):
            with pytest.raises(OSError, match="closed") as caught:
                call()
            assert caught.value.errno == errno.EBADF


@main_goroutine
def test_addresses_are_told_after_a_close_that_nobody_asked_for_before():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        client, server = net.dial("tcp", listener.addr), listener.accept()
        client.close()
        server.close()
        assert client.remote_addr == server.local_addr == listener.addr
        assert client.local_addr == server.remote_addr


@main_goroutine
def test_an_address_is_told_after_a_reset():
    with raw_pair() as (conn, peer):
        host, port = peer.getsockname()
        vanish(peer)
        with pytest.raises(ConnectionResetError):
            conn.read(1)
        assert conn.remote_addr == f"{host}:{port}"


@main_goroutine
def test_the_writing_half_is_closed_alone(kind):
    with pair(*kind) as (one, other):
        one.write(b"question")
        one.close_write()
        assert read_all(other) == b"question"
        with pytest.raises(BrokenPipeError):
            one.write(b"more")
        other.write(b"answer")
        other.close()
        assert read_all(one) == b"answer"


def test_the_reading_half_is_closed_alone(kind, start):
    with pair(*kind) as (one, other):
        reader = start(one.read, 10).parked()
        one.close_read()
        assert reader.result() == b""
        assert one.read(10) == b""
        one.write(b"still")
        assert other.read(10) == b"still"


@main_goroutine
def test_a_connection_is_a_context_manager(kind):
    with pair(*kind) as (one, _):
        with one as same:
            assert same is one
        assert one.closed


@main_goroutine
def test_a_connection_that_nobody_refers_to_is_closed(kind):
    with pair(*kind) as (one, other):
        with net.listen(kind[0], kind[1] + ("2" if kind[0] == "unix" else "")) as listener:
            client, server = net.dial(kind[0], listener.addr), listener.accept()
        watch = weakref.ref(server)
        with pytest.warns(ResourceWarning):
            del server
            gc.collect()
            wait_until(lambda: gc.collect() or watch() is None)
        assert client.read(1) == b""
        client.close()
        one.write(b"x")
        assert other.read(1) == b"x"


@main_goroutine
def test_a_cancelled_operation_leaves_the_connection_usable(kind):
    with pair(*kind) as (one, other):
        reader = Call(one.read, 10).parked()
        writer = Call(one.write, bytes(MUCH)).parked()
        behind = Call(one.write, b"never").parked()
        for call in (behind, reader, writer):
            call.goroutine.cancel()
            with pytest.raises(offset.GoroutineExit):
                call.result()
        one.close_write()
        assert set(read_all(other)) <= {0}
