"""`offset.io`: pipes, copying, buffered readers and writers, with the rules of Go's `io` and `bufio`.

Everything is tried on streams that give and take in every way they may: byte by byte, a random number at a time, all
at once. What waits is tried in goroutines and in plain threads.
"""

import contextlib
import datetime
import errno
import io as python
import os
import pickle
import socket
import string
import threading

import offset
import pytest
from helpers import (
    OVER,
    PATIENCE,
    SHORT,
    Thread,
    assert_no_growth,
    go_parked,
    in_thread,
    main_goroutine,
    run_script,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import go, io, makechan, sync


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


# ---- pipe: Go's own cases --------------------------------------------------------------------


def as_goroutine(function, *args):
    return go(function, *args)


def as_thread(function, *args):
    return Thread(function, *args)


def ended(started):
    if isinstance(started, Thread):
        started.result()
    else:
        wait_ended(started)


EITHER = pytest.mark.parametrize("start", [as_goroutine, as_thread])


@EITHER
@main_goroutine
def test_one_write_and_one_read(start):
    r, w = io.pipe()
    written = []
    writer = start(lambda: written.append(w.write(b"hello, world")))
    assert r.read(64) == b"hello, world"
    ended(writer)
    assert written == [12]
    r.close()
    w.close()


@EITHER
@main_goroutine
def test_writes_and_reads_in_turn(start):
    r, w = io.pipe()
    lengths = makechan()

    def read():
        while data := r.read(64):
            lengths.send(len(data))
        lengths.send(0)

    reader = start(read)
    for turn in range(5):
        data = bytes(5 + turn * 10)
        assert w.write(data) == len(data)
        assert lengths.recv() == len(data)
    w.close()
    assert lengths.recv() == 0
    ended(reader)


@EITHER
@main_goroutine
def test_a_large_write_takes_many_reads(start):
    r, w = io.pipe()
    data = bytes(range(128))
    written = []

    def write():
        written.append(w.write(data))
        w.close()

    writer = start(write)
    got = b""
    size = 1
    while size <= 256:
        part = r.read(size)
        # Only the last two are short: one byte, then the end.
        assert len(part) == {128: 1, 256: 0}.get(size, size)
        got += part
        size *= 2
    ended(writer)
    assert got == data
    assert written == [128]


CLOSINGS = {
    "close": (lambda end: end.close(), None),
    "close_with_error(None)": (lambda end: end.close_with_error(None), None),
    "close_with_error": (lambda end: end.close_with_error(KeyError("why")), KeyError),
    "close_with_error(class)": (lambda end: end.close_with_error(KeyError), KeyError),
}


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("closing", CLOSINGS)
@main_goroutine
def test_a_read_ends_when_the_writer_closes(closing, waiting):
    close, error = CLOSINGS[closing]
    r, w = io.pipe()
    outcome = []

    def read():
        try:
            outcome.append(r.read(64))
        except Exception as exc:
            outcome.append(type(exc))

    reader = go_parked(read) if waiting else None
    close(w)
    wait_ended(reader or go(read))
    read()
    assert outcome == [error or b""] * 2
    r.close()


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("closing", CLOSINGS)
@main_goroutine
def test_a_write_ends_when_the_reader_closes(closing, waiting):
    close, error = CLOSINGS[closing]
    r, w = io.pipe()
    outcome = []

    def write():
        try:
            w.write(b"hello, world")
        except Exception as exc:
            outcome.append((type(exc), getattr(exc, "characters_written", None), getattr(exc, "errno", None)))

    writer = go_parked(write) if waiting else None
    close(r)
    wait_ended(writer or go(write))
    write()
    assert outcome == [(error, None, None) if error else (BrokenPipeError, 0, errno.EPIPE)] * 2
    w.close()


@main_goroutine
def test_a_read_ends_when_its_own_end_closes():
    r, w = io.pipe()
    outcome = []

    def read():
        with pytest.raises(io.ClosedPipeError) as caught:
            r.read(64)
        outcome.append(caught.value)

    reader = go_parked(read)
    r.close()
    wait_ended(reader)
    read()
    for error in outcome:
        assert isinstance(error, OSError)
        assert isinstance(error, ValueError)
        assert not isinstance(error, TimeoutError)
    assert len(outcome) == 2
    w.close()


@main_goroutine
def test_a_write_ends_when_its_own_end_closes():
    r, w = io.pipe()
    outcome = []

    def write():
        with pytest.raises(io.ClosedPipeError) as caught:
            w.write(b"hello")
        outcome.append(caught.value.characters_written)

    writer = go_parked(write)
    assert r.read(2) == b"he"
    w.close()
    wait_ended(writer)
    write()
    assert outcome == [2, 0]
    assert r.read(64) == b""


@main_goroutine
def test_an_empty_write_waits_for_nobody_and_is_no_end():
    r, w = io.pipe()
    assert w.write(b"") == 0
    writer = go(lambda: (w.write(b""), w.write(b"x"), w.close()))
    assert r.read(2) == b"x"
    assert r.read(2) == b""
    wait_ended(writer)
    with pytest.raises(io.ClosedPipeError):
        w.write(b"")
    r.close()
    _, other = io.pipe()
    other.close()


@main_goroutine
def test_an_empty_read_takes_nothing():
    r, w = io.pipe()
    assert r.read(0) == b""
    assert r.read_into(bytearray()) == 0
    writer = go_parked(w.write, b"x")
    assert r.read(0) == b""
    assert r.read(1) == b"x"
    wait_ended(writer)
    r.close()
    for read in (lambda: r.read(0), lambda: r.read_into(bytearray())):
        with pytest.raises(io.ClosedPipeError):
            read()


@main_goroutine
def test_what_was_written_before_the_close_is_read():
    r, w = io.pipe()
    refused = []

    def write():
        w.write(b"hello")
        w.close()
        with pytest.raises(io.ClosedPipeError) as caught:
            w.write(b"world")
        refused.append(caught.value.characters_written)

    writer = go(write)
    with pytest.raises(io.IncompleteReadError) as caught:
        io.read_full(r, 100)
    assert caught.value.partial == b"hello"
    wait_ended(writer)
    assert refused == [0]


@pytest.mark.parametrize("end", [0, 1])
def test_the_first_error_counts(end):
    ends = io.pipe()
    first, second = KeyError("first"), IndexError("second")
    ends[end].close_with_error(first)
    ends[end].close_with_error(second)
    ends[end].close()
    raised = []
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            ends[1].write(b"x") if end == 0 else ends[0].read(1)
        raised.append(caught.value)
    assert all(error is first for error in raised)
    # Its traceback does not grow from call to call.
    depth, trace = 0, first.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 10


@main_goroutine
def test_writes_of_many_do_not_interleave():
    r, w = io.pipe()
    group = sync.WaitGroup()
    for letter in b"abcdefgh":
        group.go(w.write, bytes([letter]) * 100)
    for letter in b"ABCDEFGH":
        group.go(lambda letter=letter: in_thread(w.write, bytes([letter]) * 100))
    got = b""
    while len(got) < 1600:
        got += r.read(7)
    group.wait(timeout=PATIENCE)
    runs = [got[at : at + 100] for at in range(0, 1600, 100)]
    assert all(len(set(run)) == 1 for run in runs)
    assert sorted(run[:1] for run in runs) == sorted(bytes([letter]) for letter in b"abcdefghABCDEFGH")


@main_goroutine
def test_reads_of_many_share_a_write():
    r, w = io.pipe()
    data = bytes(range(256)) * 4
    parts = makechan(1024)

    def read():
        while part := r.read(3):
            parts.send(part)

    readers = [go(read) for _ in range(4)] + [Thread(read) for _ in range(2)]
    assert w.write(data) == len(data)
    w.close()
    for reader in readers:
        ended(reader)
    parts.close()
    assert sorted(b"".join(parts)) == sorted(data)


@main_goroutine
def test_many_write_and_many_read_in_lines(rng):
    # Each write is one line; whoever reads takes the mutex for a whole line.
    r, w = io.pipe()
    lines = io.BufferedReader(r, size=rng.randint(1, 50))
    sent = [f"{writer}:{number}\n".encode() for writer in range(5) for number in range(40)]
    got = makechan(len(sent))

    def write(mine):
        for line in mine:
            w.write(line)

    writers = [go(write, sent[at::5]) for at in range(5)]

    def read():
        for line in lines:
            got.send(line)

    readers = [go(read) for _ in range(3)]
    wait_ended(*writers)
    w.close()
    wait_ended(*readers)
    got.close()
    assert sorted(got) == sorted(sent)


# ---- pipe: timeouts, cancellation, the rest -------------------------------------------------------


@pytest.mark.parametrize("timeout", OVER + SHORT)
@main_goroutine
def test_a_read_times_out(timeout):
    r, w = io.pipe()
    for read in (lambda: r.read(1, timeout=timeout), lambda: r.read_into(bytearray(1), timeout=timeout)):
        with pytest.raises(TimeoutError, match="read from a pipe"):
            read()
    # Nothing is lost, and one that is over already tries once.
    writer = go_parked(w.write, b"xy")
    assert r.read(1, timeout=timeout) == b"x"
    assert r.read(1) == b"y"
    wait_ended(writer)


@pytest.mark.parametrize("timeout", OVER + SHORT)
@main_goroutine
def test_a_write_times_out(timeout):
    r, w = io.pipe()
    with pytest.raises(TimeoutError, match="write to a pipe") as caught:
        w.write(b"hello", timeout=timeout)
    assert caught.value.characters_written == 0
    with pytest.raises(TimeoutError, match="read"):
        r.read(1, timeout=0)
    writer = go_parked(w.write, b"another")
    # Behind a write that waits.
    with pytest.raises(TimeoutError) as caught:
        w.write(b"hello", timeout=timeout)
    assert caught.value.characters_written == 0
    assert r.read(64) == b"another"
    wait_ended(writer)


@main_goroutine
def test_a_write_that_times_out_says_how_much_was_taken():
    r, w = io.pipe()
    outcome = []

    def write():
        with pytest.raises(TimeoutError) as caught:
            w.write(b"hello", timeout=datetime.timedelta(milliseconds=50))
        outcome.append(caught.value.characters_written)

    writer = go(write)
    read = len(r.read(3))
    wait_ended(writer)
    assert outcome == [read]
    with pytest.raises(TimeoutError):
        r.read(1, timeout=0)


@main_goroutine
def test_a_write_that_is_cancelled_takes_its_data_back():
    r, w = io.pipe()
    caught = []

    def write():
        try:
            w.write(b"hello")
        except offset.GoroutineExit as exc:
            caught.append(exc.characters_written)
            raise

    writer = go_parked(write)
    assert r.read(2) == b"he"
    wait_parked(writer)
    writer.cancel()
    wait_ended(writer)
    assert caught == [2]
    with pytest.raises(TimeoutError):
        r.read(64, timeout=0)
    # The next one may write.
    writer = go(w.write, b"again")
    assert r.read(64) == b"again"
    wait_ended(writer)


@main_goroutine
def test_a_read_that_is_cancelled_takes_nothing():
    r, w = io.pipe()
    reader = go_parked(r.read, 64)
    other = go_parked(r.read, 64)
    reader.cancel()
    wait_ended(reader)
    assert w.write(b"x") == 1
    wait_ended(other)


def test_readers_come_and_go_while_data_flows(rng):
    def main():
        r, w = io.pipe()
        total = sync.atomic.Int()

        def write():
            for _ in range(100):
                left = TEXT[: rng.randint(1, 200)]
                while left:
                    try:
                        total.add(w.write(left, timeout=rng.choice([None, 0.0005])))
                        break
                    except TimeoutError as exc:
                        total.add(exc.characters_written)
                        left = left[exc.characters_written :]

        writers = [go(write) for _ in range(3)]
        got = sync.atomic.Int()

        def read():
            with contextlib.suppress(TimeoutError):
                while part := r.read(rng.randint(1, 50), timeout=rng.choice([None, 0.0005])):
                    got.add(len(part))

        def keep_reading():
            while not w.closed:
                reader = go(read)
                if not reader.join(timeout=0.001):
                    reader.cancel()
                    wait_ended(reader)

        keeper = go(keep_reading)
        wait_ended(*writers)
        w.close()
        wait_ended(keeper)
        assert r.read(1) == b""
        return got.load(), total.load()

    got, total = offset.run(main)
    # A reader that is cancelled when it has taken its part has taken it.
    assert total - 50 * 1000 <= got <= total


@main_goroutine
def test_reading_into_a_buffer():
    r, w = io.pipe()
    writer = go(w.write, b"hello, world")
    buffer = bytearray(b"........")
    assert r.read_into(memoryview(buffer)[1:6]) == 5
    assert buffer == b".hello.."
    assert r.read_into(buffer) == 7
    assert buffer == b", world."
    wait_ended(writer)
    w.close()
    assert r.read_into(buffer) == 0
    for wrong in (b"immutable", "text", None):
        for reader in (r, io.BufferedReader(Source(b"hello"))):
            with pytest.raises(TypeError):
                reader.read_into(wrong)


@main_goroutine
def test_what_can_be_written():
    r, w = io.pipe()
    numbers = memoryview(bytearray(range(8))).cast("I")
    writer = go(lambda: [w.write(data) for data in (b"a", bytearray(b"b"), memoryview(b"c"), numbers)])
    assert [r.read(8), r.read(8), r.read(8), r.read(8)] == [b"a", b"b", b"c", bytes(range(8))]
    wait_ended(writer)
    for wrong in ("text", None, 3):
        with pytest.raises(TypeError):
            w.write(wrong)
    # The caller's buffer is free again, after an exception too.
    buffer = bytearray(b"hello")
    with pytest.raises(TimeoutError):
        w.write(buffer, timeout=0)
    buffer.clear()


@main_goroutine
def test_reading_to_the_end():
    for read in (lambda r: r.read(), lambda r: r.read(-1), lambda r: r.read(None), io.read_all):
        r, w = io.pipe()
        with r:
            writer = go(lambda w=w: (w.write(TEXT), w.write(TEXT), w.close()))
            assert read(r) == TEXT * 2
            assert read(r) == b""
            wait_ended(writer)


def test_the_ends_as_context_managers():
    r, w = io.pipe()
    with r, w:
        assert not r.closed
        assert not w.closed
    assert r.closed
    assert w.closed
    with pytest.raises(TypeError, match="exception"):
        r.close_with_error("text")


@main_goroutine
def test_a_pipe_s_statistics():
    r, w = io.pipe()
    writer = go_parked(w.write, b"hello")
    r.read(2)
    assert r.stats() == w.stats() == {"passed": 2, "offered": 3, "closed": (False, False)}
    r.read(3)
    wait_ended(writer)
    w.close()
    assert r.stats() == {"passed": 5, "offered": 0, "closed": (False, True)}


def test_a_read_that_nobody_serves_is_a_deadlock():
    # In a process of its own: here a thread of pytest's may still do something.
    program = """
import offset
try:
    offset.run(lambda: offset.io.pipe()[0].read(1))
except offset.DeadlockError as error:
    print("in read" in str(error))
"""
    assert run_script(program) == (0, "True\n", "")


@main_goroutine
def test_nothing_is_left_behind():
    r, w = io.pipe()
    lines = io.BufferedReader(r)
    gathered = io.BufferedWriter(w, size=8)

    def use():
        writer = go(lambda: (gathered.write(b"hello\n"), gathered.write(b"world\n"), gathered.flush()))
        assert [lines.read_line(), lines.read_line()] == [b"hello\n", b"world\n"]
        wait_ended(writer)
        with contextlib.suppress(TimeoutError):
            w.write(b"x", timeout=0)

    assert_no_growth(use, probes=[r, w])


# ---- copy and its relatives --------------------------------------------------------------------


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


# ---- BufferedReader ----------------------------------------------------------------------------

READER_SIZES = [1, 2, 7, 64, 4_096, 100_000]


@pytest.mark.parametrize("size", READER_SIZES)
def test_every_way_to_read_gives_the_same_bytes(size, sizes, rng):
    source = Source(TEXT, sizes)
    reader = io.BufferedReader(source, size=size)
    got = b""
    while True:
        n = rng.randint(1, 40)
        way = rng.randrange(5)
        ahead = reader.peek(n)
        assert ahead == TEXT[len(got) : len(got) + n]
        assert reader.buffered >= len(ahead)
        if way == 0:
            part = reader.read(n)
        elif way == 1:
            buffer = bytearray(n)
            part = bytes(buffer[: reader.read_into(buffer)])
        elif way == 2 and len(ahead) == n:
            part = reader.read_full(n)
        elif way == 3 and ahead:
            delimiter = ahead[-1:]
            part = reader.read_until(delimiter)
            assert part.find(delimiter) == len(part) - 1
        else:
            part = reader.read_line() if rng.random() < 0.1 else reader.read(n)
        if not part:
            break
        got += part
    assert got == TEXT
    assert reader.read(1) == reader.read() == reader.read_line() == reader.peek(1) == b""


def test_a_read_is_at_most_one_read_of_the_source():
    source = Source(b"abcdefgh", lambda: 3)
    reader = io.BufferedReader(source, size=4)
    assert reader.read(0) == b""
    assert source.asked == []
    assert reader.read(2) == b"ab"
    assert reader.read(2) == b"c"
    assert source.asked == [4]
    # As much as the buffer: past it.
    assert reader.read(100) == b"def"
    assert source.asked == [4, 100]
    assert reader.read() == b"gh"


LINES = [b"\n", b"one\n", b"\r\n", b"x" * 100 + b"\n", b"\xff\x00\n", b"last"]


@pytest.mark.parametrize("size", READER_SIZES)
def test_lines(size, sizes):
    data = b"".join(LINES)
    assert list(io.BufferedReader(Source(data, sizes), size=size)) == LINES
    reader = io.BufferedReader(Source(data, sizes), size=size)
    assert [reader.read_line() for _ in range(len(LINES) + 2)] == [*LINES, b"", b""]
    assert list(io.BufferedReader(Source(b"a\n"))) == [b"a\n"]


@pytest.mark.parametrize("size", READER_SIZES)
@pytest.mark.parametrize("delimiter", [b";", b"\r\n", b"aab", b"--boundary--"])
def test_read_until(delimiter, size, sizes):
    parts = [b"", b"one", b"a", b"aaa", b"\r", b"-", b"--boundary", b"x" * 200]
    whole = [part + delimiter for part in parts]
    reader = io.BufferedReader(Source(b"".join(whole) + b"rest", sizes), size=size)
    rest = b"".join(whole) + b"rest"
    while delimiter in rest:
        expected, _, rest = rest.partition(delimiter)
        assert reader.read_until(delimiter) == expected + delimiter
    with pytest.raises(io.IncompleteReadError, match="before a delimiter") as caught:
        reader.read_until(delimiter)
    assert (caught.value.partial, caught.value.expected) == (rest, None)
    with pytest.raises(ValueError, match="delimiter"):
        reader.read_until(b"")


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "endless"])
def test_a_line_may_be_so_long_and_no_longer(ended, sizes):
    fits = b"x" * 49 + b"\n"
    long = b"y" * 50 + (b"\n" if ended else b"y" * 1_000)
    source = Source(fits + long, sizes)
    reader = io.BufferedReader(source, size=8, max_line=50)
    assert reader.read_line() == fits
    for _ in range(2):
        for read in (reader.read_line, lambda: reader.read_until(b"\n"), lambda: next(reader)):
            with pytest.raises(io.LineTooLongError, match="50 bytes"):
                read()
    # Not more than needed to tell was read, and it is all there.
    assert reader.buffered <= 58 or sizes is None
    assert reader.read() == long


def test_a_line_without_end_does_not_fill_the_memory():
    class Endless:
        given = 0

        def read(self, n):
            self.given += n
            return bytes(n)

    source = Endless()
    with pytest.raises(io.LineTooLongError):
        io.BufferedReader(source).read_line()
    assert source.given <= 4 * 65536


def test_read_full_of_a_buffered_reader(sizes):
    reader = io.BufferedReader(Source(TEXT, sizes), size=16)
    assert reader.read_full(0) == b""
    assert reader.read_full(3) == TEXT[:3]
    assert reader.read_full(4_000) == TEXT[3:4_003]
    with pytest.raises(io.IncompleteReadError) as caught:
        reader.read_full(2_000)
    assert (caught.value.partial, caught.value.expected) == (TEXT[4_003:], 2_000)
    for read in (reader.read_full, reader.peek):
        with pytest.raises(ValueError, match="-1 bytes"):
            read(-1)


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.read_full(100),
        lambda reader: reader.read_line(),
        lambda reader: reader.read_until(b";"),
        lambda reader: reader.peek(100),
        lambda reader: reader.read(),
    ],
    ids=["read_full", "read_line", "read_until", "peek", "read"],
)
def test_what_came_before_an_exception_stays(read):
    source = Source(b"hello", lambda: 2, end=TimeoutError("late"))
    reader = io.BufferedReader(source)
    with pytest.raises(TimeoutError, match="late"):
        read(reader)
    assert reader.buffered == 5
    source.data, source.end = b", world;\n", None
    assert reader.read() == b"hello, world;\n"


@main_goroutine
def test_a_read_that_is_cancelled_leaves_what_came():
    r, w = io.pipe()
    reader = io.BufferedReader(r)
    waiting = go_parked(reader.read_line)
    w.write(b"half of ")
    wait_parked(waiting)
    waiting.cancel()
    wait_ended(waiting)
    writer = go(w.write, b"a line\n")
    assert reader.read_line() == b"half of a line\n"
    wait_ended(writer)


@main_goroutine
def test_close_ends_a_read_that_waits():
    r, _w = io.pipe()
    reader = io.BufferedReader(r)
    outcome = []

    def read():
        with pytest.raises(io.ClosedPipeError):
            reader.read_line()
        outcome.append("closed")

    waiting = go_parked(read)
    reader.close()
    wait_ended(waiting)
    assert outcome == ["closed"]


def test_a_reader_s_ends_and_statistics():
    source = Source(b"hello\n")
    with io.BufferedReader(source, size=100, max_line=10) as reader:
        assert reader.peek(1) == b"h"
        assert reader.buffered == 6
        assert reader.stats() == {"buffered": 6, "size": 100, "max_line": 10}
    assert source.closed
    io.BufferedReader(io.LimitedReader(source, 1)).close()
    for wrong in ({"size": 0}, {"size": -1}, {"max_line": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            io.BufferedReader(source, **wrong)


def test_a_buffered_reader_of_python_s_files(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(TEXT)
    with path.open("rb") as file, open(path, "rb", buffering=0) as raw:
        assert b"".join(io.BufferedReader(file)) == b"".join(io.BufferedReader(raw, size=10)) == TEXT


# ---- BufferedWriter ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64, 4_096])
@pytest.mark.parametrize("takes", [None, 1, 5])
def test_all_that_is_written_arrives(size, takes, rng):
    sink = Sink(size=takes)
    writer = io.BufferedWriter(sink, size=size)
    left = TEXT
    while left:
        n = rng.randint(0, 3 * size)
        assert writer.write(left[:n]) == len(left[:n])
        assert writer.buffered <= size
        left = left[n:]
        assert sink.data == TEXT[: len(TEXT) - len(left) - writer.buffered]
    writer.flush()
    assert sink.data == TEXT
    assert (writer.buffered, sink.flushes) == (0, 1)


def test_small_writes_are_gathered():
    sink = Sink()
    writer = io.BufferedWriter(sink, size=10)
    for _ in range(4):
        writer.write(b"abc")
    assert sink.writes == [b"abcabcabc"]
    assert writer.buffered == 3
    assert writer.stats() == {"buffered": 3, "size": 10}
    # One that does not fit at all is not copied into the buffer.
    writer.write(b"x" * 11)
    assert sink.writes == [b"abcabcabc", b"abc", b"x" * 11]
    assert writer.buffered == 0
    writer.flush()
    assert len(sink.writes) == 3


def test_a_writer_s_end():
    sink = Sink()
    with io.BufferedWriter(sink) as writer:
        writer.write(memoryview(bytearray(b"hello")))
        assert sink.data == b""
    assert (sink.data, sink.closed) == (b"hello", True)
    # Closed though the flush fails.
    broken = Sink(fail=0)
    with pytest.raises(OSError, match="full"), io.BufferedWriter(broken) as writer:
        writer.write(b"x")
    assert broken.closed
    # What cannot be flushed or closed need not be.
    io.BufferedWriter(io.discard).close()
    with pytest.raises(ValueError, match="at least 1"):
        io.BufferedWriter(sink, size=0)
    with pytest.raises(TypeError):
        io.BufferedWriter(sink).write("text")


@pytest.mark.parametrize("error", [OSError, KeyError])
def test_what_was_not_taken_stays_in_the_buffer(error):
    sink = Sink(fail=4, error=error)
    writer = io.BufferedWriter(sink, size=10)
    writer.write(b"hello")
    with pytest.raises(error):
        writer.flush()
    assert sink.data == b"hell"
    assert writer.buffered == 1
    # A write that finds no room takes nothing.
    with pytest.raises(error) as caught:
        writer.write(b"x" * 10)
    assert caught.value.characters_written == 0
    assert writer.buffered == 1
    # ... and one past the buffer says how much it took.
    sink.fail = 7
    with pytest.raises(error) as caught:
        writer.write(b", world, hello")
    assert sink.data == b"hello, "
    assert caught.value.characters_written == 2
    assert writer.buffered == 0
    sink.fail = None
    writer.write(b"world")
    writer.flush()
    assert sink.data == b"hello, world"


@main_goroutine
def test_writes_of_many_into_a_buffer_do_not_interleave():
    r, w = io.pipe()
    writer = io.BufferedWriter(w, size=50)
    lines = io.BufferedReader(r)
    got = []
    reader = go(lambda: got.extend(lines))

    def write(letter):
        for n in (1, 30, 49, 80):
            writer.write(letter * n + b"\n")

    writers = [go(write, bytes([letter])) for letter in b"abcdef"]
    threads = [Thread(write, bytes([letter])) for letter in b"ABC"]
    wait_ended(*writers)
    for thread in threads:
        thread.result()
    writer.close()
    wait_ended(reader)
    expected = [bytes([letter]) * n + b"\n" for letter in b"abcdefABC" for n in (1, 30, 49, 80)]
    assert sorted(got) == sorted(expected)


@main_goroutine
def test_a_flush_that_is_cancelled_keeps_the_rest():
    r, w = io.pipe()
    writer = io.BufferedWriter(w)
    writer.write(b"hello, world")
    flushing = go_parked(writer.flush)
    assert r.read(5) == b"hello"
    wait_parked(flushing)
    flushing.cancel()
    wait_ended(flushing)
    assert writer.buffered == 7
    again = go(writer.flush)
    assert r.read(64) == b", world"
    wait_ended(again)


# ---- a program ---------------------------------------------------------------------------------


def test_plain_threads_need_no_goroutines():
    r, w = io.pipe()
    writer = threading.Thread(target=lambda: (w.write(b"one\ntwo\n"), w.close()))
    writer.start()
    assert list(io.BufferedReader(r)) == [b"one\n", b"two\n"]
    writer.join()
