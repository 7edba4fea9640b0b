"""`offset.io.copy` from one connection to another, as a relay has it: large amounts stay in the kernel.

Invariant: how the bytes are cut on their way differs from run to run; what arrives does not.
"""

from __future__ import annotations

import errno
import fcntl
import os

import offset
import pytest
from helpers import main_goroutine, open_descriptors, wait_until
from net_peers import MUCH, Call, kind, pair, pattern, raw_pair, read_all, vanish
from offset import context, io, net, time
from offset.net import _relay

__all__ = ["kind"]

LARGE = _relay._LARGE
# More than two connections hold, however large the system lets their buffers grow.
BEYOND = 256 * 1024 * 1024


@pytest.fixture
def moved(monkeypatch):
    """How many bytes each move out of the pipe of a copy had."""
    sizes = []
    plain = _relay._Relay.drain

    def drain(relay, outlet, left):
        sizes.append(left)
        plain(relay, outlet, left)

    monkeypatch.setattr(_relay._Relay, "drain", drain)
    return sizes


def relay_much():
    """Copy more than fits into the buffers, and see that all of it arrives."""
    with pair() as (client, one), pair() as (other, server):
        writing = Call(client.write, pattern(MUCH))
        reading = Call(read_all, server)
        call = Call(io.copy, other, one)
        writing.result()
        client.close_write()
        assert call.result() == MUCH
        other.close_write()
        assert reading.result() == pattern(MUCH)


@main_goroutine
def test_both_ways_at_once(kind, rng):
    """A relay as a program has it: a copy each way, each of which passes the end on."""
    there, back = pattern(MUCH, 1), pattern(MUCH // 2, 2)

    def carry(dst, src):
        count = io.copy(dst, src)
        dst.close_write()
        return count

    def send(conn, data):
        at = 0
        while at < len(data):
            at += conn.write(data[at : at + rng.choice((1, 1000, LARGE, MUCH))])
        conn.close_write()

    with pair(*kind) as (client, one), pair("tcp") as (other, server):
        calls = [Call(carry, other, one), Call(carry, one, other), Call(send, client, there), Call(send, server, back)]
        got = Call(read_all, server), Call(read_all, client)
        assert got[0].result() == there
        assert got[1].result() == back
        assert [call.result() for call in calls] == [len(there), len(back), None, None]


@main_goroutine
def test_what_has_piled_up_is_moved_by_the_kernel(kind, moved):
    data = pattern(MUCH)
    with pair(*kind) as (client, one), pair() as (other, server):
        # More than a read gives is there.
        writing = Call(client.write, data)
        writing.parked()
        copying, reading = Call(io.copy, other, one, len(data)), Call(server.read_full, len(data))
        assert reading.result() == data
        assert (copying.result(), writing.result()) == (len(data), len(data))
    assert moved


@main_goroutine
def test_a_close_reaches_the_other_side_while_the_copy_waits(moved):
    """Nothing of the copy's own keeps the source open."""
    with pair() as (client, one), raw_pair(buffer=LARGE) as (other, peer):
        writing = Call(client.write, bytes(BEYOND))
        writing.parked()
        call = Call(io.copy, other, one)
        wait_until(lambda: moved and call.goroutine.wait_reason == "IO wait", "a copy that waits to write")
        one.close()
        with pytest.raises(ConnectionError):
            writing.result()
        peer.close()
        with pytest.raises(OSError):
            call.result()


@main_goroutine
def test_small_parts_are_passed_on_as_they_come(moved):
    with pair() as (client, one), pair() as (other, server):
        call = Call(io.copy, other, one)
        for size in (1, 1000, LARGE - 1):
            client.write(pattern(size))
            assert server.read_full(size) == pattern(size)
        client.close_write()
        assert call.result() == LARGE + 1000
    assert moved == []


@pytest.mark.parametrize("size", [0, 1, LARGE, 3 * LARGE, 1_000_000])
@main_goroutine
def test_so_many_bytes_and_no_more(size):
    data = pattern(2_000_000)
    with pair() as (client, one), pair() as (other, server):
        writing = Call(client.write, data)
        call = Call(io.copy, other, one, size)
        assert server.read_full(size) == data[:size]
        assert call.result() == size
        assert one.read_full(len(data) - size) == data[size:]
        assert writing.result() == len(data)


@main_goroutine
def test_the_end_before_so_many_bytes():
    with pair() as (client, one), pair() as (other, server):
        client.write(pattern(5 * LARGE))
        client.close_write()
        reading = Call(server.read_full, 5 * LARGE)
        assert io.copy(other, one, 6 * LARGE) == 5 * LARGE
        assert reading.result() == pattern(5 * LARGE)


@main_goroutine
def test_a_slow_reader_holds_it_up_and_is_told_of_its_end(moved):
    with pair() as (client, one), raw_pair(buffer=LARGE) as (other, peer):
        call = Call(io.copy, other, one)
        writing = Call(client.write, bytes(BEYOND))
        assert peer.recv(1) == b"\0"
        writing.parked()
        call.parked()
        vanish(peer)
        with pytest.raises(ConnectionError) as caught:
            call.result()
        assert 0 < caught.value.characters_written < BEYOND
        assert f"{other.remote_addr}" in str(caught.value)
        one.close()
        with pytest.raises(OSError):
            writing.result()


@pytest.mark.parametrize("how", ["deadline of the source", "deadline of the destination", "closed", "scope", "cancel"])
@main_goroutine
def test_what_ends_a_wait_ends_it(how):
    with pair() as (client, one), raw_pair(buffer=LARGE) as (other, _):
        cancelled, cancel = context.with_cancel(context.background())

        def copy():
            with context.scope(cancelled):
                io.copy(other, one)

        to_read = how == "deadline of the source"
        call = Call(copy)
        writing = Call(client.write, b"x" if to_read else bytes(BEYOND))
        if to_read:
            writing.result()
        else:
            writing.parked()
        call.parked()
        if how == "cancel":
            call.goroutine.cancel()
            with pytest.raises(offset.GoroutineExit):
                call.result()
        else:
            ended = {"closed": OSError, "scope": context.Canceled}.get(how, TimeoutError)
            if how == "closed":
                other.close()
            elif how == "scope":
                cancel()
            elif to_read:
                one.set_read_deadline(time.now())
            else:
                other.set_write_deadline(time.now())
            with pytest.raises(ended):
                call.result()
        one.close()
        if not to_read:
            with pytest.raises(OSError):
                writing.result()


@main_goroutine
def test_others_write_in_between(moved):
    """A second writer gets its turn between two parts, and its write stays in one piece."""
    mark = b"<" + bytes(range(1, 200)) + b">"
    with pair() as (client, one), pair() as (other, server):
        reading = Call(read_all, server)
        writing = Call(client.write, bytes(MUCH))
        call = Call(io.copy, other, one)
        count = 0
        while not call.ended:
            other.write(mark)
            count += 1
            if writing.ended:
                client.close_write()
            offset.gosched()
        assert call.result() == MUCH
        other.close_write()
        got = reading.result()
    assert got.count(mark) == count
    assert len(got) == MUCH + count * len(mark)


@main_goroutine
def test_the_error_of_a_read_is_counted_anew(monkeypatch):
    """What it says of another write is not believed."""
    told = OSError("of another write")
    told.characters_written = 12_345

    def read(conn, n):
        raise told

    with pair() as (_, one), pair() as (other, _):
        monkeypatch.setattr(net.Conn, "read", read)
        with pytest.raises(OSError) as caught:
            io.copy(other, one)
        monkeypatch.undo()
    assert caught.value is told and told.characters_written == 0


@main_goroutine
def test_a_kernel_that_cannot(monkeypatch):
    def cannot(*_, **__):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "splice", cannot)
    relay_much()


@pytest.mark.parametrize("pipe", ["none", "tiny"])
@main_goroutine
def test_no_good_pipe_is_to_be_had(monkeypatch, moved, pipe):
    """Without a pipe that is worth it, it goes on as it can."""
    plain = os.pipe2

    def make(flags):
        if pipe == "none":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        ends = plain(flags)
        fcntl.fcntl(ends[1], _relay._F_SETPIPE_SZ, 4096)
        return ends

    monkeypatch.setattr(os, "pipe2", make)
    monkeypatch.setattr(_relay, "_PIECE", 4096)
    relay_much()
    assert moved == []


@main_goroutine
def test_packets_are_not_joined(moved):
    with (
        net.listen_packet("udp", "127.0.0.1:0") as there,
        pair() as (client, one),
        net.dial("udp", there.local_addr) as other,
    ):
        assert _relay.copy(other, one, 0) is None
        call = Call(io.copy, other, one, 3 * LARGE)
        for _ in range(3):
            client.write(bytes(LARGE))
            assert len(there.read_from(65_536)[0]) == LARGE
        assert call.result() == 3 * LARGE
    assert moved == []


@main_goroutine
def test_nothing_is_left_open(moved):
    before = open_descriptors()
    while not moved:
        relay_much()
    assert open_descriptors() == before
