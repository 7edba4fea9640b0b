"""The rescue: a goroutine that blocks or computes where nobody told the runtime stops no other.

Whoever blocks here does so in a plain `os.read` of a pipe, which ends when the test says so; nothing
is ordered by time. Invariants: the others go on, on another OS thread if need be; frames of foreign C
code, and whoever called `lock_os_thread`, never run on another thread than theirs. That a goroutine keeps
its thread identity, and all that hangs on it, wherever it runs is in `test_identity.py`.

Builds without the GIL move only goroutines that have not started, so what needs more is skipped there.
"""

from __future__ import annotations

import contextvars
import copy
import ctypes
import functools
import heapq
import itertools
import json
import re
import sys
import time

import offset
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_until
from offset import go, gosched, makechan, sleep
from offset.sync import atomic
from traps import displace, gil_only

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
