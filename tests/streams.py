"""Streams for the tests of `offset.io` that give and take in every way they may, and a text to send through them."""

import contextlib
import string

import pytest
from offset import net


class Source:
    """A reader that gives at most so many bytes at a time, as `sizes` says; records what it was asked for."""

    def __init__(self, data, sizes=None, end=None):
        self.data = data
        self.sizes = sizes
        self.end = end
        self.asked = []
        self.closed = False

    def read(self, n):
        self.asked.append(n)
        if not self.data and self.end is not None:
            raise self.end
        size = n if self.sizes is None else min(n, self.sizes())
        part, self.data = self.data[:size], self.data[size:]
        return part

    def close(self):
        self.closed = True


class Sink:
    """A writer that takes at most so many bytes at a time; `fail` raises after so many bytes in all."""

    def __init__(self, size=None, fail=None, error=OSError):
        self.data = b""
        self.size = size
        self.fail = fail
        self.error = error
        self.writes = []
        self.flushes = 0
        self.closed = False

    def write(self, data):
        size = len(data) if self.size is None else min(self.size, len(data))
        if self.fail is not None and len(self.data) + size > self.fail:
            taken = self.fail - len(self.data)
            self.data += data[:taken]
            error = self.error("full")
            if taken:
                error.characters_written = taken
            raise error
        self.data += data[:size]
        self.writes.append(bytes(data[:size]))
        return size

    def flush(self):
        self.flushes += 1

    def close(self):
        self.closed = True


@pytest.fixture(params=["byte by byte", "random", "all at once"])
def sizes(request, rng):
    """How many bytes a stream gives at a time."""
    return {"byte by byte": lambda: 1, "random": lambda: rng.randint(1, 100), "all at once": None}[request.param]


TEXT = "".join(string.printable[i % 95] for i in range(5_000)).encode()


@contextlib.contextmanager
def connected():
    """The two ends of a connection."""
    listener = net.listen("tcp", "127.0.0.1:0")
    with listener, net.dial("tcp", listener.addr) as there, listener.accept() as here:
        yield there, here
