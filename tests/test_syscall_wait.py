"""`syscall.wait_readable` and `wait_writable`: waits on behalf of libraries that ask their user to wait.

Invariants: what is there is seen without a wait, as often as it is asked for; nobody waits longer than allowed; a
descriptor may be waited for by many, and be used again.
"""

from __future__ import annotations

import contextlib
import os
import socket

import offset
import pytest
from helpers import OVER, PATIENCE, SHORT, main_goroutine
from libraries import Threads, calls, cancel, few, results
from net_peers import Call
from offset import context, syscall
from offset.syscall import wait_readable, wait_writable


@pytest.fixture
def ends():
    """Two sockets that lead to each other."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def fill(sock):
    """Write until there is no room."""
    sock.setblocking(False)
    while True:
        try:
            sock.send(b"x" * 65_536)
        except BlockingIOError:
            return


@main_goroutine
def test_it_waits_until_there_is_something(ends, start):
    one, other = ends
    for number in (one, one.fileno()):
        waiting = start(wait_readable, number).parked()
        other.send(b"x")
        assert waiting.result() is None
        # It is still there.
        wait_readable(number)
        assert one.recv(10) == b"x"


@main_goroutine
def test_it_waits_until_there_is_room(ends, start):
    one, other = ends
    wait_writable(one)
    fill(one)
    waiting = start(wait_writable, one, PATIENCE).parked()
    other.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while other.recv(65_536):
            pass
    waiting.result()


@main_goroutine
def test_its_time_is_bounded(ends):
    one, other = ends
    for timeout in [*OVER, *SHORT]:
        with pytest.raises(TimeoutError):
            wait_readable(one, timeout)
    other.send(b"x")
    for timeout in [*OVER, *SHORT, None]:
        wait_readable(one, timeout)
        wait_writable(one, timeout=timeout)


@main_goroutine
def test_an_end_is_something_to_read(ends, start):
    one, other = ends
    waiting = start(wait_readable, one).parked()
    other.close()
    waiting.result()
    assert one.recv(10) == b""


@main_goroutine
def test_many_wait_without_threads(ends):
    one, other = ends
    count = 50
    threads = Threads()
    waiting = [call.parked() for call in calls(count, lambda _: wait_readable(one))]
    few(threads, count)
    other.send(b"x")
    assert results(waiting) == [None] * count


@main_goroutine
def test_pipes_and_files(tmp_path):
    reader, writer = os.pipe()
    waiting = Call(wait_readable, reader).parked()
    os.write(writer, b"x")
    waiting.result()
    wait_writable(writer)
    os.close(reader)
    wait_writable(writer)
    os.close(writer)
    with open(tmp_path / "file", "w+") as file:
        wait_readable(file)
        wait_writable(file)


@main_goroutine
def test_who_is_cancelled_leaves_the_descriptor_as_it_was(ends):
    one, other = ends
    cancel(Call(wait_readable, one).parked())
    assert offset.runtime.stats()["descriptor_waits"] == 0
    other.send(b"x")
    wait_readable(one, 0)


@main_goroutine
def test_it_obeys_a_context(ends):
    one, other = ends
    with pytest.raises(context.DeadlineExceeded), context.timeout(0.001):
        wait_readable(one, PATIENCE)
    ctx, stop = context.with_cancel(context.background())

    def wait():
        with context.scope(ctx):
            wait_readable(one)

    waiting = Call(wait).parked()
    stop()
    with pytest.raises(context.Canceled):
        waiting.result()
    other.send(b"x")
    wait_readable(one)


def test_a_wrong_argument(ends):
    one, other = ends
    one.close()
    with pytest.raises(ValueError, match="negative"):
        wait_readable(one)
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait_readable(9_999)
    with pytest.raises(TypeError, match="fileno"):
        syscall.wait_writable("socket")
    for timeout in ("soon", [1]):
        with pytest.raises(TypeError, match="timeout must be"):
            wait_readable(other, timeout)
