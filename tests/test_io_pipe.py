"""`offset.io.pipe`: Go's own cases of `io.Pipe`, timeouts, cancellation, many at both ends.

What waits is tried in goroutines and in plain threads.
"""

import contextlib
import datetime
import errno
import math
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
)
from offset import go, io, makechan, sync
from streams import TEXT, Source

# ---- Go's own cases --------------------------------------------------------------------


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
    assert outcome == [(error, 0, None) if error else (BrokenPipeError, 0, errno.EPIPE)] * 2
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


# ---- timeouts, cancellation, the rest -------------------------------------------------------


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

    got = []
    writer = go(write)
    reader = go(lambda: got.append(r.read(3)))
    wait_ended(writer)
    w.close()
    # At the end, should it have come too late.
    wait_ended(reader)
    assert outcome == [len(got[0])]
    assert r.read(1) == b""


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


@pytest.mark.parametrize("timeout", ["1", math.nan])
def test_what_is_no_timeout_is_refused(timeout):
    r, w = io.pipe()
    words = "a duration is a number of seconds or a timedelta, not str" if timeout == "1" else "not NaN"
    for call in (r.read, lambda **given: w.write(b"x", **given)):
        with pytest.raises((TypeError, ValueError), match=words):
            call(timeout=timeout)


def test_the_ends_tell_what_they_are():
    r, w = io.pipe()
    assert (repr(r), repr(w)) == ("<offset.io.PipeReader>", "<offset.io.PipeWriter>")
    r.close()
    w.close()
    assert (repr(r), repr(w)) == ("<offset.io.PipeReader closed>", "<offset.io.PipeWriter closed>")


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


def test_plain_threads_need_no_goroutines():
    r, w = io.pipe()
    writer = threading.Thread(target=lambda: (w.write(b"one\ntwo\n"), w.close()))
    writer.start()
    assert list(io.BufferedReader(r)) == [b"one\n", b"two\n"]
    writer.join()
