"""`offset.io.BufferedReader` and `BufferedWriter`, with the rules of Go's `bufio`.

Everything is tried on streams that give and take byte by byte, a random number at a time, all at once, and with buffers
of every size.
"""

import pytest
from helpers import (
    Thread,
    go_parked,
    main_goroutine,
    wait_ended,
    wait_parked,
)
from offset import go, io, os, time
from streams import TEXT, Sink, Source

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


@main_goroutine
def test_a_deadline_is_that_of_the_source():
    reader, writer = os.pipe()
    with reader, writer:
        lines = io.BufferedReader(reader)
        writer.write(b"one\nhalf a ")
        assert lines.read_line() == b"one\n"
        lines.set_read_deadline(time.now() + 0.01)
        with pytest.raises(TimeoutError):
            lines.read_line()
        lines.set_read_deadline(None)
        writer.write(b"line\n")
        # What had come is not lost.
        assert lines.read_line() == b"half a line\n"
    with pytest.raises(OSError, match="a Source has no deadline"):
        io.BufferedReader(Source(b"")).set_read_deadline(1)
