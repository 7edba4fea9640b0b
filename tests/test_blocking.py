"""`offset.syscall`: calls that run in the blocking pool while only their goroutine waits.

Invariants: a call runs on another OS thread and in the caller's context; what it gives or raises is
the caller's; a call that was given up is nobody's, and its thread ends by itself.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import inspect
import sys
import threading
import time
import traceback
import weakref

import offset
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    Thread,
    assert_no_growth,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_until,
)
from offset import GoroutineExit, current, go, gosched, makechan, run
from offset.syscall import blocking, syscall

VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("VARIABLE", default="default")

# A race is tried so often; one undisturbed attempt is enough where the machine may interfere.
ATTEMPTS = 50


class Thing:
    """Something that can be watched with a weak reference."""


def freed(watch):
    """Tell whether an object is gone. Without the GIL it may take the collector to free what another thread let go."""
    if FREE_THREADED:
        gc.collect()
    return watch() is None


@pytest.fixture
def gate():
    """An event for calls to wait for; set at the end of the test so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def one_thread():
    """A blocking pool of one thread, for the length of a test."""
    before = offset.runtime.set_max_threads(1)
    yield
    offset.runtime.set_max_threads(before)


# ---- results, arguments, errors ----------------------------------------------------------------


@main_goroutine
def test_a_call_gives_its_result():
    assert blocking(lambda: "result") == "result"
    assert blocking(int) == 0
    assert blocking(lambda *args, **kwargs: (args, kwargs), 1, "two", fn="mine") == ((1, "two"), {"fn": "mine"})
    error = ValueError("an ordinary value")
    assert blocking(lambda: error) is error


@main_goroutine
def test_a_call_raises_what_it_raises():
    error = LookupError("from the pool")

    def fail():
        raise error

    with pytest.raises(LookupError) as caught:
        blocking(fail)
    assert caught.value is error
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_a_call_raises_what_it_raises"
    assert names[-1] == "fail"
    # The goroutine, and the pool, go on.
    assert blocking(lambda: "fine") == "fine"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GoroutineExit, StopIteration, MemoryError])
@main_goroutine
def test_every_kind_of_exception_arrives(kind):
    def fail():
        raise kind

    with pytest.raises(kind):
        blocking(fail)
    assert blocking(int) == 0


@main_goroutine
def test_only_what_can_be_called_is():
    for thing in (None, 1, "name"):
        with pytest.raises(TypeError):
            blocking(thing)
        with pytest.raises(TypeError):
            syscall(thing)
    with pytest.raises(TypeError):
        blocking()


@main_goroutine
def test_the_decorator():
    @syscall
    def add(first, second=2, *, third=3):
        """Add three numbers, elsewhere."""
        return threading.get_native_id(), current(), first + second + third

    assert add.__name__ == "add"
    assert add.__doc__ == "Add three numbers, elsewhere."
    assert str(inspect.signature(add)) == "(first, second=2, *, third=3)"
    thread, goroutine, total = add(1, third=4)
    assert total == 7
    assert goroutine is None
    assert thread != threading.get_native_id()

    class Owner:
        @syscall
        def method(self, value):
            return self, value

    owner = Owner()
    assert owner.method("value") == (owner, "value")


# ---- where it runs ---------------------------------------------------------------------------


@main_goroutine
def test_a_call_runs_on_another_thread():
    native, goroutine, ident = blocking(lambda: (threading.get_native_id(), current(), threading.get_ident()))
    assert native != threading.get_native_id()
    assert goroutine is None
    assert ident != threading.get_ident()


@main_goroutine
def test_only_the_caller_waits(gate):
    waiting = go_parked(blocking, gate.wait, PATIENCE)
    assert isinstance(waiting.wait_reason, str)
    # A started goroutine, main, goes on and sets what the call waits for.
    for _ in range(100):
        gosched()
    assert not waiting.join(timeout=0.001)
    gate.set()
    wait_ended(waiting)


@main_goroutine
def test_many_calls_wait_at_once():
    """Each waits for all the others to be there; one after the other they would never pass."""
    barrier = threading.Barrier(20, timeout=PATIENCE)
    places = makechan(20)
    for _ in range(20):
        go(lambda: places.send(blocking(barrier.wait)))
    assert sorted(places.recv() for _ in range(20)) == list(range(20))


@main_goroutine
def test_calls_inside_calls():
    def nested(depth):
        return depth if depth == 0 else 1 + blocking(nested, depth - 1)

    assert blocking(nested, 5) == 5


def test_a_call_outside_goroutines():
    assert blocking(current) is None
    assert blocking(lambda value: value + 1, 1) == 2
    assert in_thread(blocking, int, "7") == 7
    with pytest.raises(ZeroDivisionError):
        blocking(lambda: 1 / 0)


def test_goroutines_outside_run_make_calls():
    results = makechan()
    goroutine = go(lambda: results.send(blocking(threading.get_native_id)))
    assert results.recv() != threading.get_native_id()
    assert goroutine.join(timeout=PATIENCE)


def test_a_program_that_waits_for_a_call_is_not_deadlocked(gate):
    called = threading.Event()
    opening = Thread(lambda: (called.wait(PATIENCE), gate.set()))

    def call():
        called.set()
        return gate.wait(PATIENCE)

    assert run(blocking, call) is True
    opening.result()
    # Nor is one whose call is the only thing that will ever wake anybody.
    channel = makechan()

    def wake():
        time.sleep(0.02)
        channel.send("woken")

    def main():
        go(blocking, wake)
        return channel.recv()

    assert run(main) == "woken"


@main_goroutine
def test_a_call_may_use_channels_and_goroutines():
    channel, answers = makechan(), makechan()

    def call():
        channel.send("from the pool")
        goroutine = go(answers.send, "from a goroutine of the pool")
        goroutine.join()
        return channel.recv()

    goroutine = go(lambda: answers.send(blocking(call)))
    assert channel.recv() == "from the pool"
    assert answers.recv() == "from a goroutine of the pool"
    channel.send("back")
    assert answers.recv() == "back"
    wait_ended(goroutine)


# ---- the context -----------------------------------------------------------------------------


@main_goroutine
def test_the_callers_contextvars_apply():
    def body(number):
        VARIABLE.set(number)
        for _ in range(10):
            assert blocking(VARIABLE.get) == number
            gosched()

    wait_ended(*[go(body, number) for number in range(10)])
    assert blocking(VARIABLE.get) == "default"


@main_goroutine
def test_a_pool_thread_keeps_nothing_of_the_context(one_thread):
    def spoil():
        VARIABLE.set("spoiled")

    channel = makechan(1)
    for _ in range(5):
        blocking(spoil)
        assert in_thread(blocking, VARIABLE.get) == "default"
        contextvars.Context().run(go, lambda: channel.send(blocking(VARIABLE.get)))
        assert channel.recv() == "default"


@main_goroutine
def test_the_handled_exception_is_not_the_calls_business():
    try:
        raise ValueError
    except ValueError as error:
        assert blocking(sys.exc_info) == (None, None, None)
        assert sys.exc_info()[1] is error


# ---- giving up -------------------------------------------------------------------------------


@main_goroutine
def test_cancel_gives_the_call_up(gate):
    steps, began = [], threading.Event()

    def call():
        began.set()
        assert gate.wait(PATIENCE)
        steps.append("the call ended")

    def body():
        try:
            blocking(call)
        except GoroutineExit:
            steps.append("the wait was given up")
            raise
        steps.append("not reached")

    goroutine = go_parked(body)
    wait_until(began.is_set, "the call has begun")
    goroutine.cancel()
    # The goroutine is gone while the call still waits.
    wait_ended(goroutine)
    assert steps == ["the wait was given up"]
    gate.set()
    wait_until(lambda: len(steps) == 2, "the end of the call")
    assert steps[1] == "the call ended"


@pytest.mark.parametrize("outcome", ["result", "error"])
@main_goroutine
def test_what_a_call_gives_that_was_given_up_is_dropped(gate, capfd, outcome):
    watches, began = [], threading.Event()

    def call():
        began.set()
        assert gate.wait(PATIENCE)
        thing = Thing()
        watches.append(weakref.ref(thing))
        if outcome == "error":
            raise LookupError(thing)
        return thing

    goroutine = go_parked(blocking, call)
    wait_until(began.is_set, "the call has begun")
    goroutine.cancel()
    wait_ended(goroutine)
    gate.set()
    wait_until(lambda: watches and freed(watches[0]), "the outcome was dropped")


@main_goroutine
def test_a_cancelled_goroutine_may_make_calls_in_finally(gate):
    results = makechan(1)

    def body():
        try:
            blocking(gate.wait, PATIENCE)
        finally:
            results.send(blocking(lambda: "tidied"))

    goroutine = go_parked(body)
    goroutine.cancel()
    wait_ended(goroutine)
    assert results.recv() == "tidied"


@main_goroutine
def test_a_call_that_was_given_up_wakes_nobody_later(gate):
    channel = makechan()

    def body():
        try:
            blocking(gate.wait, PATIENCE)
        except GoroutineExit:
            assert channel.recv() == "value"

    goroutine = go_parked(body)
    before = goroutine.wait_reason
    goroutine.cancel()
    wait_until(lambda: goroutine.wait_reason == "chan receive", "it waits for something else")
    assert before != "chan receive"
    gate.set()
    blocking(time.sleep, 0.001)
    for _ in range(20):
        gosched()
    assert goroutine.wait_reason == "chan receive"
    channel.send("value")
    wait_ended(goroutine)


@main_goroutine
def test_a_cancel_racing_the_end_of_a_call(rng):
    for _ in range(200):
        thing = Thing()
        watch = weakref.ref(thing)
        goroutine = go(blocking, lambda thing: thing, thing)
        del thing
        for _ in range(rng.randint(0, 5)):
            gosched()
        goroutine.cancel()
        wait_ended(goroutine)
        wait_until(lambda watch=watch: freed(watch), "argument and result are gone")


# ---- the pool --------------------------------------------------------------------------------


@main_goroutine
def test_set_max_threads_gives_the_limit_before():
    first = offset.runtime.set_max_threads(3)
    assert type(first) is int
    assert first > 0
    assert offset.runtime.set_max_threads(5) == 3
    assert offset.runtime.set_max_threads(first) == 5


@pytest.mark.parametrize("limit", [1, 2, 4])
@main_goroutine
def test_calls_beyond_the_limit_queue(gate, limit):
    before = offset.runtime.set_max_threads(limit)
    try:
        mutex, inside, most = threading.Lock(), 0, 0

        def call():
            nonlocal inside, most
            with mutex:
                inside += 1
                most = max(most, inside)
            assert gate.wait(PATIENCE)
            with mutex:
                inside -= 1

        goroutines = [go_parked(blocking, call) for _ in range(4 * limit)]
        wait_until(lambda: inside == limit, "the pool is full")
        # Those that queue stop nobody either.
        for _ in range(100):
            gosched()
        assert inside == limit
        gate.set()
        wait_ended(*goroutines)
        assert most == limit
    finally:
        offset.runtime.set_max_threads(before)


@main_goroutine
def test_queued_calls_run_in_order(one_thread, gate):
    order = []
    first = go_parked(blocking, gate.wait, PATIENCE)
    queued = [go_parked(blocking, order.append, number) for number in range(20)]
    gate.set()
    wait_ended(first, *queued)
    assert order == list(range(20))


@main_goroutine
def test_a_queued_call_can_be_given_up(one_thread, gate):
    calls = []
    first = go_parked(blocking, gate.wait, PATIENCE)
    queued = [go_parked(blocking, calls.append, number) for number in range(3)]
    queued[1].cancel()
    wait_ended(queued[1])
    gate.set()
    wait_ended(first, *queued)
    # Whether it still ran is nobody's business, but it took nobody else's place.
    assert [number for number in calls if number != 1] == [0, 2]


@main_goroutine
def test_a_higher_limit_lets_queued_calls_run(one_thread, gate):
    first = go_parked(blocking, gate.wait, PATIENCE)
    queued = go_parked(blocking, int)
    offset.runtime.set_max_threads(2)
    wait_ended(queued)
    gate.set()
    wait_ended(first)


@main_goroutine
def test_calls_one_after_the_other_share_threads():
    blocking(int)
    # Those that earlier calls left idle take turns; one that the system lets wait on its way there is not idle yet.
    before = offset.runtime.stats()["blocking_threads"]
    for _ in range(100):
        blocking(int)
    assert offset.runtime.stats()["blocking_threads"] <= before + 10


@pytest.mark.skipif(FREE_THREADED, reason="several processors have no common order")
@main_goroutine
def test_a_goroutine_comes_back_at_the_front_of_the_queue():
    """The rule of the talk: what has waited outside goes before those that are ready inside."""

    def attempt():
        order, released = [], threading.Event()

        def call():
            assert released.wait(PATIENCE)

        def caller():
            blocking(call)
            order.append("caller")

        def other(number):
            gates[number].recv()
            order.append(number)

        gates = [makechan() for _ in range(8)]
        others = [go_parked(other, number) for number in range(8)]
        waiting = go_parked(caller)
        for gate in gates:
            gate.send(None)
        released.set()
        # Without parking: the processor stays here, unless the monitor hands it on.
        deadline = time.monotonic() + PATIENCE
        while waiting.wait_reason is not None and time.monotonic() < deadline:
            time.sleep(0.0002)
        wait_ended(waiting, *others)
        return order

    assert any(attempt() == ["caller", *range(8)] for _ in range(ATTEMPTS))


@main_goroutine
def test_calls_leave_nothing_behind():
    thing = Thing()

    def fail(argument):
        raise LookupError(argument)

    def use():
        blocking(lambda argument: argument, thing)
        with pytest.raises(LookupError):
            blocking(fail, thing)
        blocking(functools.partial(Thing), *[])
        goroutine = go(blocking, int)
        wait_ended(goroutine)

    assert_no_growth(use, probes=[thing], repeats=100)
