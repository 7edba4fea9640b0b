"""`offset.os`: pipes, FIFOs and terminals, which wait in the poller. Standard input is in test_os_standard.py.

Each kind is tried as it is opened here (non-blocking), and as one that others share (by its number, blocking).
Invariant: whoever waits parks, and takes no machine and no thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os as python
import pty
import subprocess
import threading
import tty

import offset
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_parked, wait_until
from offset import context, go, io, os, time
from offset.os import _ways
from streams import connected


def no_threads():
    """Nobody waits on a thread of his own. To be waited for: on a busy system a goroutine may seem to be stuck."""
    stats = offset.runtime.stats()
    return stats["stuck_machines"] == 0 and stats["blocking_calls"] == 0


def own_pipe():
    return os.pipe()


def shared_pipe():
    reader, writer = python.pipe()
    return os.new_file(reader, "|0"), os.new_file(writer, "|1")


def converted_pipe():
    ends = os.pipe()
    for end in ends:
        assert python.get_blocking(end.fileno())
    return ends


def blind_pipe():
    """One of which the kernel says only whether it is ready, as of terminals, and of all on older kernels."""
    ends = shared_pipe()
    for end in ends:
        end._current()._attempts = [False, False]
    return ends


@pytest.fixture(params=[own_pipe, shared_pipe, converted_pipe, blind_pipe], ids=lambda make: make.__name__)
def ends(request):
    """The two ends of a pipe."""
    made = list(request.param())
    yield made
    # The value of a fixture outlives the leak check.
    while made:
        made.pop().close()


# ---- pipes -----------------------------------------------------------------------------------


@main_goroutine
def test_a_pipe(ends):
    reader, writer = ends
    assert reader.stats()["waits"] == writer.stats()["waits"] == "poller"
    got = []
    reading = go_parked(lambda: got.append(reader.read(100)), reason="IO wait")
    wait_until(no_threads)
    assert writer.write(b"hello") == 5
    wait_ended(reading)
    assert got == [b"hello"]
    writer.write(b"a\nb\nc")
    writer.close()
    assert list(reader) == [b"a\n", b"b\n", b"c"]
    assert [reader.read(1), reader.read(1), reader.read()] == [b""] * 3
    with pytest.raises(OSError, match=r"read_at|read \|0: Illegal seek"):
        reader.read_at(1, 0)
    with pytest.raises(OSError, match=r"seek \|0: Illegal seek"):
        reader.seek(0)


@main_goroutine
def test_a_write_waits_for_room_and_is_whole(ends):
    reader, writer = ends
    data = bytes(range(256)) * 4096
    first = go_parked(writer.write, data, reason="IO wait")
    # It waits for the first.
    second = go_parked(writer.write, data[::-1])
    wait_until(no_threads)
    assert io.read_full(reader, 2 * len(data)) == data + data[::-1]
    wait_ended(first, second)


@main_goroutine
def test_a_pipe_whose_reader_has_gone(ends):
    reader, writer = ends
    caught = []

    def write():
        try:
            writer.write(bytes(1 << 20))
        except BrokenPipeError as error:
            caught.append(error)

    writing = go_parked(write, reason="IO wait")
    assert len(reader.read(10)) == 10
    wait_until(lambda: writing.wait_reason)
    reader.close()
    wait_ended(writing)
    assert "write |1: Broken pipe" in str(caught[0])
    assert 0 < caught[0].characters_written < 1 << 20


@main_goroutine
def test_a_close_wakes_who_waits(ends):
    reader, writer = ends
    caught = []

    def attempt(call, *args):
        try:
            call(*args)
        except OSError as error:
            caught.append(str(error))

    waiting = [go(attempt, reader.read, 1) for _ in range(3)]
    wait_parked(*waiting, reason="IO wait")
    reader.close()
    wait_ended(*waiting)
    assert caught == ["[Errno 9] read |0: closed"] * 3
    reader.close()
    attempt(writer.write, b"x")
    assert "write |1: Broken pipe" in caught[3]


@main_goroutine
def test_a_close_wakes_who_writes(ends):
    reader, writer = ends
    caught = []

    def write():
        try:
            writer.write(bytes(1 << 20))
        except OSError as error:
            caught.append(error)

    writing = go_parked(write, reason="IO wait")
    writer.close()
    wait_ended(writing)
    assert "write |1: closed" in str(caught[0])
    assert caught[0].characters_written == len(io.read_all(reader))


@main_goroutine
def test_deadlines(ends):
    reader, writer = ends
    with pytest.raises(TypeError):
        reader.set_deadline("soon")
    reader.set_read_deadline(time.now() + 0.01)
    with pytest.raises(TimeoutError, match=r"read \|0: timed out"):
        reader.read(1)
    # Over at once, though there is something.
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        reader.read(1)
    reader.set_read_deadline(None)
    assert reader.read(1) == b"x"
    caught = []

    def read():
        try:
            reader.read(1)
        except TimeoutError as error:
            caught.append(error)

    reading = [go(read) for _ in range(3)]
    wait_parked(*reading, reason="IO wait")
    reader.set_deadline(time.now())
    wait_ended(*reading)
    assert len(caught) == 3
    writer.set_write_deadline(time.now() + 0.01)
    with pytest.raises(TimeoutError, match=r"write \|1: timed out") as late:
        writer.write(bytes(1 << 20))
    reader.set_deadline(None)
    writer.close()
    assert len(io.read_all(reader)) == late.value.characters_written


@main_goroutine
def test_who_waits_can_be_cancelled(ends):
    reader, writer = ends
    reading = go_parked(reader.read, 1, reason="IO wait")
    reading.cancel()
    wait_ended(reading)
    writer.write(b"x")
    # It took nothing.
    assert reader.read(10) == b"x"
    written = []

    def write():
        try:
            writer.write(bytes(1 << 20))
        except BaseException as error:
            written.append(error.characters_written)
            raise

    writing = go_parked(write, reason="IO wait")
    writing.cancel()
    wait_ended(writing)
    writer.close()
    assert len(io.read_all(reader)) == written[0]


@main_goroutine
def test_scopes(ends, tmp_path):
    reader, writer = ends
    ctx, cancel = context.with_timeout(context.background(), 0.01)
    with context.scope(ctx), pytest.raises(context.DeadlineExceeded):
        reader.read(1)
    ctx, cancel = context.with_timeout(context.background(), 0.01)
    with context.scope(ctx), pytest.raises(context.DeadlineExceeded) as late:
        writer.write(bytes(1 << 20))
    cancel()
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    # It is over: nothing is even tried.
    for call in (lambda: reader.read(1), lambda: writer.write(b"x"), lambda: os.read_file("/dev/null")):
        with context.scope(ctx), pytest.raises(context.Canceled):
            call()
    with os.create(tmp_path / "file") as file:
        for call in (lambda: file.read(1), lambda: file.write(b"x"), file.sync, lambda: file.read_at(1, 0)):
            with context.scope(ctx), pytest.raises(context.Canceled):
                call()
        assert file.read() == b""
    writer.close()
    # What a thread of the pool was writing just then is not counted.
    assert 0 <= len(io.read_all(reader)) - late.value.characters_written <= _ways._PIECE


@contextlib.contextmanager
def given_up(monkeypatch, reader):
    """A thread of the pool that is about to read for a goroutine which has given up; it does once the event is set."""
    slow, waiting = threading.Event(), threading.Event()
    plain_read = python.read

    def read(number, n):
        waiting.set()
        assert slow.wait(PATIENCE)
        return plain_read(number, n)

    with monkeypatch.context() as patched:
        patched.setattr(python, "read", read)
        reading = go(reader.read, 10)
        wait_until(waiting.is_set)
        reading.cancel()
        wait_ended(reading)
        yield slow


@main_goroutine
def test_what_is_read_for_who_has_given_up_is_the_next_ones(monkeypatch):
    reader, writer = blind_pipe()
    got = []
    with reader, writer:
        writer.write(b"hello")
        with given_up(monkeypatch, reader) as slow:
            # Somebody else waits for more by the time when that comes.
            monkeypatch.setattr(reader._current(), "ready", lambda direction: False)
            reading = go_parked(lambda: got.append(reader.read(3)), reason="IO wait")
            slow.set()
            wait_ended(reading)
            monkeypatch.undo()
        assert [*got, reader.read(10)] == [b"hel", b"lo"]


@main_goroutine
def test_what_comes_for_the_next_one_before_it_waits_is_not_overlooked(monkeypatch):
    reader, writer = blind_pipe()
    got = []
    with reader, writer:
        writer.write(b"hello")
        ways = reader._current()
        with given_up(monkeypatch, reader) as slow:

            def drained(direction):
                # Read by the thread of the one that has given up, after the next one has looked for that.
                slow.set()
                wait_until(lambda: ways._left)
                return False

            monkeypatch.setattr(ways, "ready", drained)
            wait_ended(go(lambda: got.append(reader.read(10))))
        assert got == [b"hello"]


@main_goroutine
def test_many_at_both_ends(ends):
    reader, writer = ends
    got = []
    readers = [go(lambda: got.extend(iter(lambda: reader.read(1), b""))) for _ in range(20)]
    writers = [go(lambda number=number: [writer.write(bytes([number])) for _ in range(20)]) for number in range(50)]
    wait_ended(*writers)
    writer.close()
    wait_ended(*readers)
    assert sorted(got) == sorted(bytes([number]) for number in range(50) for _ in range(20))


@main_goroutine
def test_the_number_is_of_a_descriptor_that_blocks():
    reader, writer = own_pipe()
    with reader, writer:
        assert not python.get_blocking(reader._descriptor.fileno())
        got = []
        reading = [go(lambda: got.append(reader.read(1))) for _ in range(3)]
        writing = go(writer.write, bytes(1 << 20))
        wait_parked(writing, reason="IO wait")
        wait_ended(*reading)
        reading = go(io.read_full, reader, (1 << 20) - 3)
        for end in (reader, writer):
            # Who waits does not notice, nor does a deadline.
            assert python.get_blocking(end.fileno())
        wait_ended(reading, writing)
        reading = go_parked(reader.read, 1, reason="IO wait")
        output = subprocess.run(["echo", "from a child"], stdout=writer, check=True)
        assert output.returncode == 0
        wait_ended(reading)
        assert reader.read(100) == b"rom a child\n"
        reader.set_deadline(time.now())
    reader, writer = own_pipe()
    with reader, writer:
        reader.set_read_deadline(time.now())
        reader.fileno()
        with pytest.raises(TimeoutError):
            reader.read(1)


@main_goroutine
def test_a_thousand_pipes():
    pipes = [own_pipe() for _ in range(1000)]
    readers = [go_reader(reader) for reader, _ in pipes]
    wait_parked(*readers, reason="IO wait")
    wait_until(no_threads)
    for number, (_, writer) in enumerate(pipes):
        writer.write(b"%d" % number)
        writer.close()
    wait_ended(*readers)
    for reader, _ in pipes:
        reader.close()


def go_reader(reader):
    return go(lambda: int(reader.read()))


def test_pipes_outside_goroutines(ends):
    reader, writer = ends
    thread = Thread(reader.read, 100)
    writer.write(b"hello")
    assert thread.result() == b"hello"
    writer.set_deadline(time.now() + 0.01)
    with pytest.raises(TimeoutError):
        writer.write(bytes(1 << 20))


# ---- FIFOs -----------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path):
    python.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@main_goroutine
def test_both_ends_of_a_fifo(fifo):
    got = []

    def read():
        with os.open(fifo) as file:
            got.append(file.read())

    def write(data):
        with os.open(fifo, "w") as file:
            file.write(data)

    # The reader first, who waits for somebody to write.
    reading = go(read)
    wait_parked(reading, reason="IO wait")
    wait_until(no_threads)
    wait_ended(go(write, b"one"), reading)
    # The writer first, who waits to be read.
    writing = go(write, b"two")
    wait_parked(writing, reason="sleep")
    wait_until(lambda: offset.runtime.stats()["stuck_machines"] == 0)
    wait_ended(go(read), writing)
    assert got == [b"one", b"two"]
    # A writer that writes nothing is an end.
    reading = go(read)
    wait_parked(reading, reason="IO wait")
    wait_ended(go(write, b""), reading)
    assert got[2] == b""


@main_goroutine
def test_a_fifo_that_nobody_opens(fifo):
    opening = go(os.open, fifo, "w")
    wait_parked(opening, reason="sleep")
    opening.cancel()
    wait_ended(opening)
    with os.open(fifo) as file:
        reading = go_parked(file.read, 1, reason="IO wait")
        reading.cancel()
        wait_ended(reading)
        file.set_deadline(time.now() + 0.01)
        with pytest.raises(TimeoutError):
            file.read(1)
        file.set_deadline(None)
        reading = go(file.read, 1)
        wait_parked(reading, reason="IO wait")
        # It waits on when the descriptor blocks.
        assert python.get_blocking(file.fileno())
        with os.open(fifo, "w") as other:
            other.write(b"x")
        wait_ended(reading)
        assert file.read(1) == b""
    with os.open_file(fifo, os.O_RDONLY | python.O_NONBLOCK) as file:
        assert file.read(1) == b""
    with os.open_file(fifo, os.O_RDWR) as file:
        file.write(b"x")
        assert file.read(10) == b"x"
    with pytest.raises(OSError, match="No such device"):
        os.open_file(fifo, os.O_WRONLY | python.O_NONBLOCK)


@main_goroutine
def test_a_fifo_to_other_programs(fifo):
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as cat:
        with os.open(fifo, "w") as file:
            file.write(b"hello")
        assert cat.communicate()[0] == b"hello"
    with subprocess.Popen(["sh", "-c", 'echo hello > "$0"', fifo]) as shell:
        assert os.read_file(fifo) == b"hello\n"
        assert shell.wait() == 0


@main_goroutine
def test_many_fifos(tmp_path):
    names = [tmp_path / str(number) for number in range(300)]
    for name in names:
        python.mkfifo(name)
    got = []
    writers = [go(os.write_file, name, name.name.encode()) for name in names]
    wait_parked(*writers, reason="sleep")
    readers = [go(lambda name=name: got.append(os.read_file(name) == name.name.encode())) for name in names]
    wait_ended(*writers, *readers)
    assert got == [True] * len(names)


# ---- terminals -------------------------------------------------------------------------------


@pytest.fixture(params=["opened", "shared"])
def terminal(request):
    """A terminal as its program has it, and who sits before it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    if request.param == "opened":
        name = python.ttyname(slave)
        program = os.open_file(name, os.O_RDWR | python.O_NOCTTY)
        python.close(slave)
    else:
        program = os.new_file(slave, "terminal")
    user = os.new_file(master, "user")
    made = [program, user]
    del program, user
    yield made
    while made:
        made.pop().close()


@main_goroutine
def test_a_terminal(terminal):
    program, user = terminal
    assert program.stats()["waits"] == user.stats()["waits"] == "poller"
    for one, other in (terminal, terminal[::-1]):
        got = []
        reading = go_parked(lambda one=one, got=got: got.append(one.read(100)), reason="IO wait")
        wait_until(no_threads)
        other.write(b"hello")
        wait_ended(reading)
        assert got == [b"hello"]
    program.set_deadline(time.now() + 0.01)
    with pytest.raises(TimeoutError):
        program.read(1)
    # Nobody reads: it is full some time.
    with pytest.raises(TimeoutError):
        while True:
            program.write(bytes(1 << 16))


@main_goroutine
def test_a_terminal_that_hangs_up(terminal):
    program, user = terminal
    caught = []

    def read():
        try:
            user.read(1)
        except OSError as error:
            caught.append(str(error))

    reading = go_parked(read, reason="IO wait")
    program.write(b"x")
    wait_ended(reading)
    reading = go_parked(read, reason="IO wait")
    program.close()
    wait_ended(reading)
    # As Go, and as Python: it is no end of a file.
    assert caught == ["[Errno 5] read user: Input/output error"]


@main_goroutine
def test_the_end_of_a_terminal(terminal):
    program, user = terminal
    got = []
    reading = go_parked(lambda: got.append(program.read(1)), reason="IO wait")
    user.close()
    wait_ended(reading)
    assert got == [b""]
    with pytest.raises(OSError, match="Input/output error"):
        program.write(b"x")


@pytest.mark.parametrize("which", [0, 1])
@main_goroutine
def test_a_close_of_a_terminal_wakes_who_waits(terminal, which):
    end = terminal[which]
    caught = []

    def read():
        try:
            end.read(1)
        except OSError as error:
            caught.append(str(error))

    reading = go_parked(read, reason="IO wait")
    end.close()
    wait_ended(reading)
    assert caught == [f"[Errno 9] read {end.name}: closed"]


# ---- copies ----------------------------------------------------------------------------------


@pytest.fixture
def by_the_kernel(monkeypatch):
    """Let nothing be read or written by Python."""
    monkeypatch.setattr(io._copy, "read_some", None)
    monkeypatch.setattr(offset.os._copy._copy, "write_all", None)


@pytest.mark.parametrize("make", [own_pipe, shared_pipe, converted_pipe])
@main_goroutine
def test_copies_through_pipes(tmp_path, make, by_the_kernel):
    data = bytes(range(256)) * 2000
    (tmp_path / "from").write_bytes(data)
    (r1, w1), (r2, w2) = make(), make()
    with os.open(tmp_path / "from") as source, os.create(tmp_path / "to") as target:

        def first():
            assert io.copy(w1, source, 1000) == 1000
            assert io.copy(w1, source) == len(data) - 1000
            w1.close()

        def second():
            assert io.copy(w2, r1, 3000) == 3000
            assert io.copy(w2, r1) == len(data) - 3000
            w2.close()

        copying = [go(first), go(second)]
        assert io.copy(target, r2) == len(data)
        wait_ended(*copying)
    assert (tmp_path / "to").read_bytes() == data
    for end in (r1, r2, w1, w2):
        end.close()


@main_goroutine
def test_copies_between_pipes_and_connections(by_the_kernel):
    data = bytes(range(256)) * 2000
    with connected() as (there, here):
        (r1, w1), (r2, w2) = os.pipe(), os.pipe()

        def send():
            io.copy(there, r1)
            there.close_write()

        def receive():
            # A part, so that something is left in the connection for who reads it.
            io.copy(w2, here, 1000)
            w2.write(here.read_full(1000))
            io.copy(w2, here)
            w2.close()

        def write():
            w1.write(data)
            w1.close()

        working = [go(send), go(receive), go(write)]
        got = []
        while part := r2.read(65_536):
            got.append(part)
        wait_ended(*working)
        for end in (r1, r2, w1, w2):
            end.close()
    assert b"".join(got) == data


@main_goroutine
def test_a_copy_that_waits_can_be_ended():
    (r1, w1), (r2, w2) = os.pipe(), os.pipe()
    caught = []

    def copy():
        try:
            io.copy(w2, r1)
        except OSError as error:
            caught.append(str(error))

    copying = go_parked(copy, reason="IO wait")
    w1.write(b"x")
    assert r2.read(10) == b"x"
    wait_parked(copying, reason="IO wait")
    r1.set_deadline(time.now())
    wait_ended(copying)
    r1.set_deadline(None)
    copying = go_parked(copy, reason="IO wait")
    r1.close()
    wait_ended(copying)
    assert caught == ["[Errno 110] wait for |0: timed out", "[Errno 9] wait for |0: closed"]
    for end in (r1, r2, w1, w2):
        end.close()


def test_descriptors_are_not_inherited():
    for make in (own_pipe, lambda: (os.open("/dev/null"), os.create_temp())):
        for end in make():
            assert fcntl.fcntl(end.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            if end.name.startswith("/tmp"):
                os.remove(end.name)
            end.close()
