"""The rescue: a goroutine that blocks or computes where nobody told the runtime stops no other.

Whoever blocks here does so in a plain `os.read` of a pipe, which ends when the test says so; nothing
is ordered by time. Invariants: the others go on, on another OS thread if need be; a goroutine keeps
its thread identity and all that hangs on it wherever it runs; frames of foreign C code, and whoever
called `lock_os_thread`, never run on another thread than theirs.

Builds without the GIL move only goroutines that have not started, so what needs more is skipped there.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import ctypes
import functools
import heapq
import io
import itertools
import json
import logging
import os
import re
import sqlite3
import sys
import threading
import time

import offset
import pytest
from helpers import FREE_THREADED, PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_until
from offset import current, go, gosched, makechan, sleep
from offset.sync import atomic

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


# ---- blocked ---------------------------------------------------------------------------------


@main_goroutine
def test_blocked_goroutines_do_not_stop_those_that_have_not_started(make_trap):
    traps = [make_trap() for _ in range(12)]
    thread = Thread(
        lambda: [trap.inside.wait(PATIENCE) for trap in traps] and [trap.open() for trap in traps],
    )
    wait_ended(*[go(trap.enter) for trap in traps])
    thread.result()
    assert all(trap.inside.is_set() for trap in traps)


@gil_only
@main_goroutine
def test_blocked_goroutines_do_not_stop_those_that_run(make_trap):
    traps = [make_trap() for _ in range(12)]
    steps = []

    def other():
        while True:
            steps.append(None)
            gosched()

    stepping = go(other)
    blocked = [go(trap.enter) for trap in traps]
    wait_until(lambda: all(trap.inside.is_set() for trap in traps), "all are blocked at once")
    before = len(steps)
    wait_until(lambda: len(steps) > before + 10, "the others go on")
    for trap in traps:
        trap.open()
    wait_ended(*blocked)
    stepping.cancel()
    wait_ended(stepping)


@gil_only
@main_goroutine
def test_sleeps_that_nobody_patched_overlap():
    inside, most = 0, 0
    ticker, ticks = offset.time.Ticker(0.005), 0

    def sleeper():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(1)
        inside -= 1

    sleepers = [go(sleeper) for _ in range(20)]
    while not all(goroutine.join(timeout=0) for goroutine in sleepers):
        ticker.c.recv()
        ticks += inside > 0
    ticker.stop()
    assert most > 1
    assert ticks > 0


@gil_only
@main_goroutine
def test_a_blocked_main_goroutine_stops_nobody(make_trap):
    trap = make_trap()

    def opener():
        assert trap.inside.wait(PATIENCE)
        for _ in range(100):
            gosched()
        trap.open()

    goroutine = go(lambda: (gosched(), opener()))
    gosched()
    trap.enter()
    wait_ended(goroutine)


@gil_only
@main_goroutine
def test_a_blocked_goroutine_gets_its_exit_afterwards(make_trap):
    trap, steps = make_trap(), []

    def body():
        try:
            trap.enter()
            makechan().recv()
        finally:
            steps.append("finally")

    goroutine = go(body)
    wait_until(trap.inside.is_set, "blocked")
    goroutine.cancel()
    assert not goroutine.join(timeout=0.001)
    trap.open()
    wait_ended(goroutine)
    assert steps == ["finally"]


# ---- computing -------------------------------------------------------------------------------


class Hog:
    """Goroutines that compute without a park until they are told to stop."""

    def __init__(self):
        self.running = 0
        self.stop = False

    def __call__(self):
        self.running += 1
        while not self.stop:
            pass


@main_goroutine
def test_an_endless_loop_does_not_stop_those_that_have_not_started():
    hog = Hog()

    def end():
        hog.stop = True

    wait_ended(go(hog), go(end))
    assert hog.running == 1


@gil_only
@pytest.mark.parametrize("count", [1, 3, 8])
@main_goroutine
def test_endless_loops_do_not_stop_those_that_run(count):
    hog, gate = Hog(), makechan()

    def end():
        gate.recv()
        for _ in range(20):
            sleep(0.0001)
        hog.stop = True

    ending = go_parked(end)
    hogs = [go(hog) for _ in range(count)]
    wait_until(lambda: hog.running >= 1, "a loop runs")
    gate.send(None)
    wait_ended(ending, *hogs)
    assert hog.running == count


@gil_only
@main_goroutine
def test_those_that_compute_between_yields_keep_nobody_from_starting():
    # There are more loops than may compute at once, so each has to wait for its turn to begin.
    hog = Hog()

    def other():
        while not hog.stop:
            end = time.thread_time() + 0.03
            while time.thread_time() < end:
                pass
            gosched()

    others = [go(other) for _ in range(3)]
    wait_until(lambda: all(goroutine.started for goroutine in others), "the others run")
    hogs = [go(hog) for _ in range(8)]
    try:
        wait_until(lambda: hog.running == len(hogs), "all loops run")
    finally:
        hog.stop = True
    wait_ended(*others, *hogs)


@main_goroutine
def test_a_hundred_computations_beside_one_that_yields():
    inside, most, steps, stop = atomic.Int(), 0, 0, False

    def compute():
        nonlocal most
        most = max(most, inside.add(1))
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        inside.add(-1)

    def other():
        nonlocal steps
        while not stop:
            steps += 1
            gosched()

    stepping = go(other)
    wait_ended(*[go(compute) for _ in range(100)])
    stop = True
    wait_ended(stepping)
    assert steps > 10
    # Without the cap on machines that compute, 33 and more are at it. A machine that waits long for the
    # GIL may look blocked, and is then not counted.
    assert most <= 20


# ---- moves -----------------------------------------------------------------------------------


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


def in_plain_function(park):
    park()
    return 1, 1


def in_generator(park):
    def generate():
        yield 1
        park()
        yield 2

    return list(generate()), [1, 2]


def in_sort_key(park):
    calls = []

    def key(value):
        if len(calls) == 3:
            park()
        calls.append(value)
        return -value

    return sorted(range(8), key=key), list(range(7, -1, -1))


def in_comparison(park):
    calls = []

    def compare(first, second):
        calls.append(None)
        if len(calls) == 2:
            park()
        return first - second

    return sorted([3, 1, 2], key=functools.cmp_to_key(compare)), [1, 2, 3]


def in_property(park):
    class Owner:
        @property
        def value(self):
            park()
            return 7

    return Owner().value, 7


def in_getattr(park):
    class Owner:
        def __getattr__(self, name):
            park()
            return name

    return Owner().value, "value"


def in_init(park):
    class Owner:
        def __init__(self):
            park()
            self.value = 7

    return Owner().value, 7


def in_with(park):
    class Owner:
        def __enter__(self):
            park()
            return 7

        def __exit__(self, *args):
            return None

    with Owner() as value:
        return value, 7


def in_equality(park):
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            park()
            return True

    return {Key(): "value"}[Key()], "value"


def in_repr(park):
    class Owner:
        def __repr__(self):
            park()
            return "owner"

    return f"{[Owner()]}", "[owner]"


def in_map(park):
    def double(value):
        park()
        return 2 * value

    return list(map(double, [5])), [10]


def in_starmap(park):
    return list(itertools.starmap(lambda *values: (park(), values)[1], [(1, 2)])), [(1, 2)]


def in_cache(park):
    @functools.lru_cache
    def cached():
        park()
        return 7

    return (cached(), cached()), (7, 7)


def in_heap(park):
    calls = []

    class Item(int):
        def __lt__(self, other):
            if not calls:
                calls.append(None)
                park()
            return int(self) < int(other)

    heap = [Item(3), Item(1), Item(2)]
    heapq.heapify(heap)
    return heap[0], 1


def in_substitution(park):
    return re.sub("b", lambda match: (park(), match.group().upper())[1], "abc"), "aBc"


def in_json(park):
    return json.dumps([object()], default=lambda thing: (park(), "x")[1]), '["x"]'


def in_deepcopy(park):
    class Owner:
        def __deepcopy__(self, memo):
            park()
            return 7

    return copy.deepcopy([Owner()]), [7]


def in_context(park):
    return contextvars.copy_context().run(lambda: (park(), 7)[1]), 7


def in_coroutine(park):
    async def inner():
        park()
        return 7

    async def outer():
        return await inner()

    with pytest.raises(StopIteration) as stopped:
        outer().send(None)
    return stopped.value.value, 7


def in_handler(park):
    try:
        raise LookupError
    except LookupError as error:
        park()
        return sys.exc_info()[1] is error, True


PLACES = [function for name, function in sorted(globals().items()) if name.startswith("in_")]


@gil_only
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__.removeprefix("in_"))
@main_goroutine
def test_a_parked_goroutine_goes_on_while_its_os_thread_is_blocked(make_trap, place):
    (result, expected), home, after, in_time = displace(make_trap, place)
    assert result == expected
    assert in_time
    assert after != home


def through_ctypes(park):
    called = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    def callback(number):
        park()
        called.append(number)
        return number + 1

    return (callback(6), called), (7, [6])


def through_lock_os_thread(park):
    offset.runtime.lock_os_thread()
    offset.runtime.lock_os_thread()
    offset.runtime.unlock_os_thread()
    try:
        park()
    finally:
        offset.runtime.unlock_os_thread()
    return 7, 7


@gil_only
@pytest.mark.parametrize("place", [through_ctypes, through_lock_os_thread])
@main_goroutine
def test_what_is_bound_to_its_os_thread_stays_there(make_trap, place):
    """It waits until its OS thread is free, however long; the pause only gives a wrong move time to happen."""
    (result, expected), home, after, _ = displace(make_trap, place, wait=0.2)
    assert result == expected
    assert after == home


@gil_only
@main_goroutine
def test_unlock_os_thread_allows_moves_again(make_trap):
    def body(park):
        offset.runtime.lock_os_thread()
        offset.runtime.unlock_os_thread()
        park()

    _, home, after, in_time = displace(make_trap, body)
    assert in_time
    assert after != home


# ---- identity --------------------------------------------------------------------------------


@main_goroutine
def test_every_goroutine_has_an_identity_of_its_own():
    gate, idents, threads = makechan(), [], []

    def body():
        idents.append(threading.get_ident())
        threads.append(threading.current_thread())
        gate.recv_ok()
        assert threading.get_ident() in idents
        assert threading.current_thread().ident == threading.get_ident() == current().ident

    goroutines = [go_parked(body) for _ in range(20)]
    assert len({*idents, threading.get_ident()}) == 21
    assert len({id(thread) for thread in threads}) == 20
    assert [thread.ident for thread in threads] == idents
    assert threading.main_thread() not in threads
    gate.close()
    wait_ended(*goroutines)


@gil_only
@main_goroutine
def test_the_identity_stays_over_a_move(make_trap):
    def body(park):
        before = threading.get_ident(), threading.current_thread(), current()
        park()
        return before == (threading.get_ident(), threading.current_thread(), current())

    same, home, after, _ = displace(make_trap, body)
    assert same
    assert home != after


# ---- what Python keeps by thread identity --------------------------------------------------------


@gil_only
@pytest.mark.parametrize(
    "make_lock", [threading.Lock, threading.RLock, threading.Condition], ids=["lock", "rlock", "cond"]
)
@main_goroutine
def test_a_plain_lock_held_over_parks(make_lock):
    lock, inside, entered = make_lock(), [], 0

    def body(number):
        nonlocal entered
        for _ in range(3):
            with lock:
                inside.append(number)
                for _ in range(3):
                    gosched()
                assert inside == [number]
                inside.clear()
                entered += 1
            gosched()

    wait_ended(*[go(body, number) for number in range(8)])
    assert entered == 24


@gil_only
@main_goroutine
def test_an_rlock_is_recursive_over_parks_and_moves(make_trap):
    lock = threading.RLock()

    def body(park):
        with lock:
            park()
            with lock:
                return lock._is_owned()

    owned, home, after, _ = displace(make_trap, body)
    assert owned
    assert home != after
    with lock:
        assert lock._is_owned()


@gil_only
@main_goroutine
def test_events_and_queues_of_the_standard_library():
    import queue

    items, event, got = queue.Queue(1), threading.Event(), []

    def consume():
        event.wait(PATIENCE)
        for _ in range(10):
            got.append(items.get(timeout=PATIENCE))

    def produce():
        gosched()
        event.set()
        for number in range(10):
            items.put(number, timeout=PATIENCE)

    wait_ended(go(consume), go(produce))
    assert got == list(range(10))


@gil_only
@main_goroutine
def test_a_database_connection_belongs_to_its_goroutine(make_trap):
    def body(park):
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("create table numbers (value integer)")
            connection.execute("insert into numbers values (7)")
            park()
            return connection.execute("select value from numbers").fetchall()

    rows, home, after, _ = displace(make_trap, body)
    assert rows == [(7,)]
    assert home != after


@main_goroutine
def test_a_database_connection_of_another_goroutine_is_refused():
    """As of another thread, even where both run on one OS thread."""
    connections, gate = makechan(1), makechan()

    def owner():
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connections.send(connection)
            gate.recv()

    goroutine = go_parked(owner, reason="chan receive")
    with pytest.raises(sqlite3.ProgrammingError):
        connections.recv().execute("select 1")
    gate.send(None)
    wait_ended(goroutine)


class ParkingStream(io.RawIOBase):
    """A raw file whose writes let other goroutines run in the middle."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        gosched()
        self.data += bytes(data)
        gosched()
        return len(data)


@gil_only
@main_goroutine
def test_a_shared_buffered_file():
    """Two goroutines on one OS thread are no reentrant call."""
    raw = ParkingStream()
    buffered = io.BufferedWriter(raw, 64)

    def body(number):
        for count in range(10):
            buffered.write(b"goroutine %d wrote line number %d\n" % (number, count))

    wait_ended(*[go(body, number) for number in range(5)])
    buffered.flush()
    lines = bytes(raw.data).splitlines()
    assert sorted(lines) == sorted(
        b"goroutine %d wrote line number %d" % (number, count) for number in range(5) for count in range(10)
    )


@gil_only
@main_goroutine
def test_logging_from_many_goroutines():
    raw = ParkingStream()
    handler = logging.StreamHandler(io.TextIOWrapper(raw, write_through=True))
    logger = logging.Logger("goroutines", logging.INFO)
    logger.addHandler(handler)

    def body(number):
        for count in range(5):
            logger.info("goroutine %d message %d", number, count)

    wait_ended(*[go(body, number) for number in range(6)])
    logger.removeHandler(handler)
    handler.close()
    assert sorted(bytes(raw.data).decode().splitlines()) == sorted(
        f"goroutine {number} message {count}" for number in range(6) for count in range(5)
    )


@gil_only
@main_goroutine
def test_a_module_is_imported_once(tmp_path, monkeypatch):
    (tmp_path / "offset_slow_module.py").write_text(
        "import offset, sys\nsys.offset_imports.append(1)\nfor _ in range(5): offset.gosched()\nvalue = object()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "offset_imports", [], raising=False)
    values = []

    def body():
        import offset_slow_module

        values.append(offset_slow_module.value)

    wait_ended(*[go(body) for _ in range(6)])
    assert sys.offset_imports == [1]
    assert len(values) == 6
    assert len({id(value) for value in values}) == 1
    del sys.modules["offset_slow_module"]


@gil_only
@main_goroutine
def test_modules_that_import_each_other(tmp_path, monkeypatch):
    """Python sees the deadlock of two threads in a circle; so it must of two goroutines."""
    for name, other in (("offset_first", "offset_second"), ("offset_second", "offset_first")):
        (tmp_path / f"{name}.py").write_text(f"import offset\noffset.gosched()\nimport {other}\nvalue = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finished = []

    def body(name):
        finished.append(__import__(name).__name__)

    wait_ended(go(body, "offset_first"), go(body, "offset_second"))
    assert sorted(finished) == ["offset_first", "offset_second"]
    for name in finished:
        assert sys.modules.pop(name).value == 1


@gil_only
@main_goroutine
def test_everything_together_with_moves(rng):
    """Locks over parks, connections, unpatched sleeps and loops at once; each keeps its identity."""
    lock, inside, entered, moved = threading.RLock(), [], 0, set()
    plans = [[rng.random() for _ in range(40)] for _ in range(15)]

    def body(number):
        nonlocal entered
        ident, native = threading.get_ident(), threading.get_native_id()
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            for choice in plans[number]:
                if choice < 0.1:
                    with lock, lock:
                        inside.append(number)
                        gosched()
                        assert inside == [number]
                        inside.clear()
                        entered += 1
                elif choice < 0.2:
                    time.sleep(0.012)
                elif choice < 0.25:
                    end = time.thread_time() + 0.012
                    while time.thread_time() < end:
                        pass
                elif choice < 0.6:
                    connection.execute("select 1").fetchone()
                gosched()
                assert threading.get_ident() == ident
                if threading.get_native_id() != native:
                    moved.add(number)

    wait_ended(*[go(body, number) for number in range(15)])
    assert entered == sum(choice < 0.1 for plan in plans for choice in plan)
    assert moved
