"""Goroutines whose OS thread blocks or computes in the middle, for the tests of the rescue and of what it must keep.

Whoever blocks does so in a plain `os.read` of a pipe, which ends when the test says so.
"""

from __future__ import annotations

import os
import threading

import pytest
from helpers import FREE_THREADED, PATIENCE, Thread, go_parked, wait_ended
from offset import go, makechan

gil_only = pytest.mark.skipif(FREE_THREADED, reason="without the GIL, started goroutines do not move")

# A race is tried so often; one undisturbed attempt is enough where the machine may interfere.
ATTEMPTS = 20


class Trap:
    """A pipe; reading it blocks the OS thread, in C and without the GIL, until it is opened."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        self.inside = threading.Event()

    def enter(self):
        """Block until the trap is opened."""
        self.inside.set()
        os.read(self.reader, 1)

    def open(self):
        """Let whoever is inside go on."""
        os.write(self.writer, b"!")

    def close(self):
        """Give the descriptors back."""
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def make_trap():
    """A maker of traps; they are opened and closed at the end."""
    traps = []

    def make():
        traps.append(Trap())
        return traps[-1]

    yield make
    for trap in traps:
        trap.open()
        trap.close()


def displace(make_trap, body, wait=PATIENCE):
    """Run `body(park)` in a goroutine that must go on while the OS thread of its start is blocked.

    Gives what `body` gave, the OS threads on which it parked and went on, and whether it ended before
    the OS thread was free again. `park` may be called once.
    """
    for _ in range(ATTEMPTS):
        trap, gate, ended, seen = make_trap(), makechan(), threading.Event(), {}

        def park(gate=gate, seen=seen):
            seen["home"] = threading.get_native_id()
            gate.recv()
            seen["after"] = threading.get_native_id()

        def moved(ended=ended, seen=seen, park=park):
            try:
                seen["result"] = body(park)
            finally:
                ended.set()

        def block(trap=trap, seen=seen):
            seen["blocked"] = threading.get_native_id()
            trap.enter()

        def conduct(trap=trap, gate=gate, ended=ended):
            assert trap.inside.wait(PATIENCE)
            gate.send(None)
            in_time = ended.wait(wait)
            trap.open()
            return in_time

        goroutine = go_parked(moved, reason="chan receive")
        thread = Thread(conduct)
        wait_ended(go(block), goroutine)
        in_time = thread.result()
        if seen["home"] == seen["blocked"]:
            return seen["result"], seen["home"], seen["after"], in_time
        # A rescue came in between, and the two did not start on one OS thread.
    pytest.fail("two goroutines never started on one OS thread")
