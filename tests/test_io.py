"""`offset.io`: copying, reading it all, limits, tees, with the rules of Go's `io`.

Everything is tried on streams that give and take byte by byte, a random number at a time, all at once.
"""

import io as python
import os
import pickle
import socket

import pytest
from helpers import (
    Thread,
    main_goroutine,
    wait_ended,
    wait_until,
)
from offset import go, io
from streams import TEXT, Sink, Source


def test_copy_copies_all(sizes):
    source, sink = Source(TEXT, sizes), Sink()
    assert io.copy(sink, source) == len(TEXT)
    assert sink.data == TEXT
    assert io.copy(sink, source) == 0


@pytest.mark.parametrize("n", [0, 1, 999, 5_000, 10_000])
def test_copy_copies_so_many(n, sizes):
    source, sink = Source(TEXT, sizes), Sink()
    assert io.copy(sink, source, n) == min(n, len(TEXT))
    assert sink.data == TEXT[:n]
    # No byte beyond them has been read.
    assert source.data == TEXT[n:]


def test_copy_writes_the_rest_of_a_short_write(sizes):
    source, sink = Source(TEXT, sizes), Sink(size=7)
    assert io.copy(sink, source) == len(TEXT)
    assert sink.data == TEXT


def test_copy_raises_what_the_streams_raise():
    sink = Sink()
    with pytest.raises(KeyError):
        io.copy(sink, Source(TEXT, end=KeyError()))
    assert sink.data == TEXT
    with pytest.raises(OSError, match="full"):
        io.copy(Sink(fail=10), Source(TEXT))


@pytest.mark.parametrize("size", [7, 700, None])
def test_a_copy_that_is_cut_short_says_how_much_was_written(size):
    sink = Sink(size=size, fail=1_505)
    with pytest.raises(OSError, match="full") as caught:
        io.copy(sink, Source(TEXT, lambda: 1_000))
    assert caught.value.characters_written == len(sink.data) == 1_505
    # What a read says of another write is not this copy's.
    error = OSError("the source")
    error.characters_written = 77
    with pytest.raises(OSError, match="the source") as caught:
        io.copy(Sink(size=size), Source(TEXT, end=error))
    assert caught.value.characters_written == len(TEXT)


@main_goroutine
def test_the_error_of_a_pipe_is_counted_anew_with_each_copy():
    r, w = io.pipe()
    error = OSError("no more")
    copier = go(lambda: (r.read(3), r.close_with_error(error)))
    for count in (3, 0):
        with pytest.raises(OSError, match="no more") as caught:
            io.copy(w, Source(TEXT))
        assert caught.value.characters_written == count
    wait_ended(copier)


@pytest.mark.parametrize("claim", [0, -1, 6, 2**40])
def test_copy_does_not_believe_impossible_counts(claim):
    class Liar:
        def write(self, data):
            return claim

    with pytest.raises(OSError, match="claims"):
        io.copy(Liar(), Source(b"hello"))
    with pytest.raises(OSError, match="asked for"):
        io.copy(Sink(), type("Generous", (), {"read": lambda self, n: bytes(n + 1)})())


def test_copy_takes_none_for_all():
    class Silent:
        def __init__(self):
            self.parts = []

        def write(self, data):
            self.parts.append(data)

    silent = Silent()
    assert io.copy(silent, Source(TEXT, lambda: 10)) == len(TEXT)
    assert b"".join(silent.parts) == TEXT


def test_copy_between_files_and_sockets(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(TEXT)
    left, right = socket.socketpair()
    with left, right, left.makefile("wb") as output, right.makefile("rb") as received, path.open("rb") as file:
        assert io.copy(output, file) == len(TEXT)
        output.flush()
        left.shutdown(socket.SHUT_WR)
        into = python.BytesIO()
        assert io.copy(into, received) == len(TEXT)
        assert into.getvalue() == TEXT


def test_copy_passes_on_what_is_there():
    # A buffered file's `read` waits until all has come.
    read, write = os.pipe()
    with open(read, "rb") as file, open(write, "wb", buffering=0) as end:
        sink = Sink()
        copier = Thread(io.copy, sink, file)
        end.write(b"hello")
        wait_until(lambda: sink.data == b"hello")
        end.close()
        assert copier.result() == 5


def test_copy_says_so_when_a_stream_does_not_wait():
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    with open(read, "rb", buffering=0) as file, open(write, "wb", buffering=0) as end:
        with pytest.raises(BlockingIOError):
            io.copy(Sink(), file)
        with pytest.raises(BlockingIOError):
            io.copy(end, Source(bytes(10_000_000)))


@main_goroutine
def test_copy_through_a_pipe():
    r, w = io.pipe()
    copier = go(lambda: (io.copy(w, Source(TEXT, lambda: 33)), w.close()))
    sink = Sink()
    assert io.copy(sink, r) == len(TEXT)
    assert sink.data == TEXT
    wait_ended(copier)


def test_copy_takes_a_faster_way_where_there_is_one(monkeypatch):
    from offset.io import _copy

    tried = []

    def never(dst, src, n):
        tried.append(n)

    monkeypatch.setattr(_copy, "ways", [never, lambda dst, src, n: 42 if n is None else None])
    sink = Sink()
    assert io.copy(sink, Source(TEXT)) == 42
    assert sink.data == b""
    assert io.copy(sink, Source(TEXT), 3) == 3
    assert tried == [None, 3]


@pytest.mark.parametrize("function", [io.read_full, lambda src, n: io.copy(Sink(), src, n)])
def test_counts_that_make_no_sense(function):
    with pytest.raises(ValueError, match="-1 bytes"):
        function(Source(b"x"), -1)
    with pytest.raises(TypeError):
        function(Source(b"x"), 1.5)


def test_read_all(sizes):
    assert io.read_all(Source(TEXT, sizes)) == TEXT
    assert io.read_all(Source(b"")) == b""


def test_read_full(sizes):
    source = Source(TEXT, sizes)
    assert io.read_full(source, 0) == b""
    assert io.read_full(source, 100) == TEXT[:100]
    assert io.read_full(source, 4_900) == TEXT[100:]
    with pytest.raises(EOFError) as caught:
        io.read_full(source, 1)
    assert (caught.value.partial, caught.value.expected) == (b"", 1)


def test_read_full_at_the_end_gives_what_came(sizes):
    with pytest.raises(io.IncompleteReadError, match="after 5000 bytes, before 6000 bytes") as caught:
        io.read_full(Source(TEXT, sizes), 6_000)
    assert caught.value.partial == TEXT
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.partial, again.expected, str(again)) == (TEXT, 6_000, str(caught.value))


def test_limited_reader(sizes):
    source = Source(TEXT, sizes)
    limited = io.LimitedReader(source, 1_000)
    assert limited.read(0) == b""
    first = limited.read(10)
    assert first
    assert limited.n == 1_000 - len(first)
    assert first + limited.read() == TEXT[:1_000]
    assert limited.read(10) == limited.read() == b""
    assert source.data == TEXT[1_000:]
    limited.n = 5
    assert limited.stats() == {"left": 5}
    assert io.read_full(limited, 5) == TEXT[1_000:1_005]
    assert io.LimitedReader(Source(b"abc"), 10).read() == b"abc"
    assert io.LimitedReader(Source(b"abc"), -1).read() == b""


def test_tee(sizes):
    sink = Sink(size=3)
    tee = io.tee(Source(TEXT, sizes), sink)
    first = tee.read(10)
    assert sink.data == first
    assert tee.read(0) == b""
    assert first + tee.read() == TEXT
    assert sink.data == TEXT
    with pytest.raises(OSError, match="full"):
        io.tee(Source(TEXT), Sink(fail=10)).read(100)
    r, w = io.pipe()
    r.close()
    with pytest.raises(BrokenPipeError):
        io.tee(Source(TEXT), w).read(1)


def test_multi_writer():
    first, second = Sink(size=3), Sink()
    both = io.multi_writer(first, second)
    assert both.write(b"hello") == 5
    assert both.write(memoryview(bytearray(b", world"))) == 7
    assert first.data == second.data == b"hello, world"
    assert io.multi_writer().write(b"x") == 1
    behind = Sink()
    with pytest.raises(OSError, match="full"):
        io.multi_writer(first, Sink(fail=0), behind).write(b"!")
    assert first.data == b"hello, world!"
    assert behind.data == b""
    with pytest.raises(TypeError):
        both.write("text")


@main_goroutine
def test_multi_writer_keeps_the_order_everywhere():
    ends = [io.pipe() for _ in range(3)]
    every = io.multi_writer(*(w for _, w in ends))
    got = [b""] * len(ends)

    def read(at):
        got[at] = ends[at][0].read()

    readers = [go(read, at) for at in range(len(ends))]
    writers = [go(every.write, bytes([letter]) * 10) for letter in b"abcdefgh"]
    wait_ended(*writers)
    for _, w in ends:
        w.close()
    wait_ended(*readers)
    assert len(got[0]) == 80
    assert got[0] == got[1] == got[2]


def test_discard():
    assert io.discard.write(b"hello") == 5
    assert io.discard.write(memoryview(bytearray(8)).cast("I")) == 8
    assert io.copy(io.discard, Source(TEXT)) == len(TEXT)
    with pytest.raises(TypeError):
        io.discard.write("text")
