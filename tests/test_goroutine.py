"""Goroutines: `go`, `run`, `gosched`, `goexit`, `current`, and everything a handle offers.

Cancelling and the reasons to wait are in `test_cancel.py`, what belongs to a goroutine alone
(contextvars, the handled exception, tracing, ...) is in `test_locals.py`, and exceptions that nobody
catches are in `test_failure.py`.
"""

from __future__ import annotations

import datetime
import functools
import gc
import inspect
import sys
import threading
import time
import weakref

import offset
import pytest
from helpers import (
    FREE_THREADED,
    OVER,
    PATIENCE,
    SHORT,
    Thread,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import current, go, goexit, gosched, makechan, run, sleep

# A race is tried so often; one undisturbed attempt is enough where the machine may interfere.
ATTEMPTS = 50


class Thing:
    """Something that can be watched with a weak reference."""


# ---- go and run ------------------------------------------------------------------------------


def test_run_gives_the_result_of_main():
    assert run(lambda: "result") == "result"
    assert run(lambda: None) is None


def test_run_hands_on_arguments():
    def main(*args, **kwargs):
        return args, kwargs

    assert run(main, 1, "two", three=3) == ((1, "two"), {"three": 3})


@main_goroutine
def test_go_hands_on_arguments():
    got = makechan(2)

    def function(*args, **kwargs):
        got.send((args, kwargs))

    go(function, 1, "two", three=3)
    assert got.recv() == ((1, "two"), {"three": 3})
    # The name of go's own parameter is free for the function.
    go(function, fn="mine", args=1, kwargs=2)
    assert got.recv() == ((), {"fn": "mine", "args": 1, "kwargs": 2})


@pytest.mark.parametrize("thing", [None, 1, "name", object(), [print]], ids=repr)
@main_goroutine
def test_go_refuses_what_cannot_be_called(thing):
    with pytest.raises(TypeError):
        go(thing)
    assert offset.runtime.num_goroutine() == 1


@main_goroutine
def test_go_needs_a_function():
    with pytest.raises(TypeError):
        go()


@main_goroutine
def test_go_takes_everything_callable():
    results = makechan(8)

    class Callable:
        def __call__(self, value):
            results.send(value)

        def method(self, value):
            results.send(value)

        @classmethod
        def of_class(cls, value):
            results.send(value)

    thing = Callable()
    ways = [thing, thing.method, Callable.of_class, functools.partial(thing), results.send, thing]
    for number, way in enumerate(ways):
        go(way, number)
    assert sorted(results.recv() for _ in ways) == list(range(len(ways)))


@main_goroutine
def test_go_does_not_wait_for_the_goroutine():
    channel = makechan()
    goroutine = go(channel.recv)
    assert not goroutine.join(timeout=0)
    channel.send(None)
    wait_ended(goroutine)


def test_goroutines_run_outside_run():
    results = makechan()
    goroutine = go(lambda: results.send(current().id))
    assert results.recv() == goroutine.id
    assert goroutine.join(timeout=PATIENCE)


def test_run_can_be_called_again_and_again():
    for number in range(20):
        assert run(lambda number=number: number) == number


def test_run_may_be_called_from_any_thread():
    assert in_thread(run, lambda: current().status) == "running"


@main_goroutine
def test_run_inside_a_goroutine_is_refused():
    with pytest.raises(RuntimeError):
        run(lambda: None)


@main_goroutine
def test_a_goroutine_starts_others_that_outlive_it():
    results = makechan()

    def grandchild():
        results.send("grandchild")

    def child():
        go(grandchild)

    wait_ended(go(child))
    assert results.recv() == "grandchild"


# ---- current, id, name, status, origin -------------------------------------------------------


def test_current_is_none_outside_goroutines():
    assert current() is None
    assert in_thread(current) is None


@main_goroutine
def test_current_is_the_handle_that_go_gave():
    seen = makechan(2)
    goroutine = go(lambda: (seen.send(current()), gosched(), seen.send(current())))
    assert isinstance(goroutine, offset.Goroutine)
    assert seen.recv() is goroutine
    assert seen.recv() is goroutine
    assert current() is not goroutine
    assert isinstance(current(), offset.Goroutine)


@main_goroutine
def test_ids_are_never_used_again():
    ids = [current().id]
    for _ in range(300):
        goroutine = go(int)
        ids.append(goroutine.id)
        wait_ended(goroutine)
    assert all(type(number) is int and number > 0 for number in ids)
    assert len(set(ids)) == len(ids)


@main_goroutine
def test_a_handle_keeps_what_it_said_after_the_end():
    goroutine = go(sleep, 0)
    before = goroutine.id, goroutine.name, goroutine.created_at
    wait_ended(goroutine)
    assert (goroutine.id, goroutine.name, goroutine.created_at) == before


def named_function():
    """Do nothing, under a name of its own."""


@main_goroutine
def test_the_name_is_the_functions():
    class Owner:
        def method(self):
            """Do nothing, as a method."""

    goroutines = [go(named_function), go(Owner().method), go(Owner.method, None), go(int)]
    names = [goroutine.name for goroutine in goroutines]
    assert [name.rpartition(".")[2] for name in names] == ["named_function", "method", "method", "int"]
    # What has no name of its own gets one all the same.
    nameless = go(functools.partial(named_function))
    assert isinstance(nameless.name, str)
    assert nameless.name
    wait_ended(*goroutines, nameless)


@main_goroutine
def test_the_name_can_be_changed():
    goroutine = go(named_function)
    goroutine.name = "reader of the log"
    assert goroutine.name == "reader of the log"
    assert "named_function" not in repr(goroutine)
    with pytest.raises(TypeError):
        goroutine.name = 3
    wait_ended(goroutine)


@main_goroutine
def test_a_handle_says_what_it_is():
    goroutine = go_parked(makechan().recv)
    goroutine.name = "waits for ever"
    text = repr(goroutine)
    assert str(goroutine.id) in text
    assert "waits for ever" in text
    assert isinstance(goroutine.stats(), dict)
    goroutine.cancel()
    wait_ended(goroutine)


@main_goroutine
def test_created_at_is_the_line_of_go():
    frame = inspect.currentframe()
    goroutine = go(named_function)
    line = frame.f_lineno - 1
    assert f"{__file__}:{line}" in goroutine.created_at
    assert "test_created_at_is_the_line_of_go" in goroutine.created_at
    wait_ended(goroutine)


@main_goroutine
def test_the_creator_is_known():
    children = makechan()
    parent = go(lambda: children.send(go(named_function)))
    child = children.recv()
    assert child.creator == parent.id
    assert parent.creator == current().id
    foreign = in_thread(go, named_function)
    assert foreign.creator == 0
    wait_ended(parent, child, foreign)


@main_goroutine
def test_status_tells_running_waiting_and_ended_apart():
    channel = makechan()
    goroutine = go_parked(channel.recv)
    waiting = goroutine.status
    running = current().status
    assert current().wait_reason is None
    channel.send(None)
    wait_ended(goroutine)
    assert len({running, waiting, goroutine.status}) == 3
    assert goroutine.wait_reason is None


@main_goroutine
def test_started_and_ident_follow_the_life_of_a_goroutine():
    channel, idents = makechan(), makechan(1)

    def body():
        idents.send(threading.get_ident())
        channel.recv()

    goroutine = go_parked(body, reason="chan receive")
    assert goroutine.started
    assert goroutine.ident == idents.recv()
    assert goroutine.ident in sys._current_frames()
    channel.send(None)
    wait_ended(goroutine)
    assert goroutine.ident == 0


@main_goroutine
def test_the_list_of_goroutines_holds_those_that_have_not_ended():
    channel = makechan()
    assert offset.runtime.goroutines() == [current()]
    assert offset.runtime.num_goroutine() == 1
    parked = [go_parked(channel.recv) for _ in range(3)]
    assert offset.runtime.goroutines() == [current(), *parked]
    assert offset.runtime.num_goroutine() == 4
    for _ in parked:
        channel.send(None)
    wait_ended(*parked)
    wait_until(lambda: offset.runtime.num_goroutine() == 1, "only main is left")
    assert offset.runtime.goroutines() == [current()]


# ---- goexit ----------------------------------------------------------------------------------


def test_goexit_ends_the_goroutine(capfd):
    def main():
        steps = []

        def inner():
            try:
                goexit()
            except Exception:
                steps.append("caught")
            finally:
                steps.append("finally")
            steps.append("went on")

        def body():
            try:
                inner()
            finally:
                steps.append("outer finally")
            steps.append("went on")

        goroutine = go(body)
        wait_ended(goroutine)
        return steps

    assert run(main) == ["finally", "outer finally"]
    assert capfd.readouterr() == ("", "")


@main_goroutine
def test_code_after_goexit_may_block_in_finally():
    channel, steps = makechan(), []

    def body():
        try:
            goexit()
        finally:
            steps.append(channel.recv())

    goroutine = go_parked(body)
    channel.send("tidied")
    wait_ended(goroutine)
    assert steps == ["tidied"]


def test_goexit_needs_a_goroutine():
    with pytest.raises(RuntimeError):
        goexit()
    with pytest.raises(RuntimeError):
        in_thread(goexit)


def test_goexit_in_main_lets_the_others_finish():
    steps, main_is_gone = [], makechan()

    def other(main):
        assert main.join(timeout=PATIENCE)
        main_is_gone.close()
        steps.append("other")

    def main():
        go(other, current())
        goexit()

    with pytest.raises(offset.DeadlockError):
        run(main)
    assert main_is_gone.closed
    assert steps == ["other"]


# ---- join ------------------------------------------------------------------------------------


@main_goroutine
def test_join_waits_for_the_end():
    channel = makechan()
    goroutine = go_parked(channel.recv)
    joined = [go_parked(goroutine.join) for _ in range(3)]
    assert not any(handle.join(timeout=0) for handle in joined)
    channel.send(None)
    assert goroutine.join() is True
    wait_ended(*joined)
    assert goroutine.join() is True
    assert goroutine.join(timeout=0) is True


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_join_gives_false_when_its_time_is_over(timeout):
    channel = makechan()
    goroutine = go_parked(channel.recv)
    assert goroutine.join(timeout=timeout) is False
    assert goroutine.join(timeout) is False
    channel.send(None)
    wait_ended(goroutine)
    assert goroutine.join(timeout=timeout) is True


@main_goroutine
def test_join_refuses_what_is_no_duration():
    goroutine = go(int)
    with pytest.raises(TypeError):
        goroutine.join(timeout="1")
    wait_ended(goroutine)


@main_goroutine
def test_a_join_that_was_given_up_leaves_nothing_behind():
    channel, other = makechan(), makechan()
    goroutine = go_parked(channel.recv)

    def impatient():
        for _ in range(20):
            assert not goroutine.join(timeout=0.0002)
        # The end of the goroutine must not wake what waits for something else now.
        return results.send(other.recv())

    results = makechan(2)
    timed_out = go_parked(impatient, reason="chan receive")
    cancelled = go_parked(goroutine.join)
    cancelled.cancel()
    wait_ended(cancelled)
    channel.send(None)
    wait_ended(goroutine)
    for _ in range(20):
        gosched()
    assert timed_out.status != cancelled.status
    other.send("value")
    assert results.recv() == "value"
    wait_ended(timed_out)


def test_join_from_an_os_thread():
    channel = makechan()
    goroutine = go(channel.recv)
    assert goroutine.join(timeout=0.001) is False
    waiting = [Thread(goroutine.join), Thread(goroutine.join, timeout=PATIENCE)]
    channel.send(None)
    assert [thread.result() for thread in waiting] == [True, True]
    assert goroutine.join() is True


def test_join_of_a_goroutine_that_failed(monkeypatch):
    failures = []
    monkeypatch.setattr(offset, "excepthook", lambda goroutine, error: failures.append(type(error)))
    assert go(lambda: 1 / 0).join(timeout=PATIENCE) is True
    assert failures == [ZeroDivisionError]


@main_goroutine
def test_a_goroutine_can_be_joined_by_many_of_both_kinds():
    channel = makechan()
    goroutine = go_parked(channel.recv)
    threads = [Thread(goroutine.join) for _ in range(4)]
    goroutines = [go(goroutine.join) for _ in range(200)]
    wait_parked(*goroutines)
    channel.send(None)
    wait_ended(*goroutines)
    assert all(thread.result() for thread in threads)


# ---- gosched ---------------------------------------------------------------------------------


def take_turns(count, rounds):
    """Let `count` goroutines yield in turn and give the order in which they ran, round by round."""
    order, gate = [], makechan()

    def body(number):
        gate.recv_ok()
        for _ in range(rounds):
            order.append(number)
            gosched()

    goroutines = [go_parked(body, number) for number in range(count)]
    gate.close()
    wait_ended(*goroutines)
    return [order[start : start + count] for start in range(0, len(order), count)]


@pytest.mark.skipif(FREE_THREADED, reason="several processors have no common order")
@main_goroutine
def test_gosched_goes_to_the_back_of_the_queue():
    """Woken together and yielding in turn: every round has the order of the first, that of their waiting."""
    wanted = [list(range(8))] * 6
    # The operating system may stop us in the middle, and the monitor hand on what we do.
    assert any(take_turns(8, 6) == wanted for _ in range(ATTEMPTS))


@main_goroutine
def test_gosched_lets_everybody_have_a_turn():
    assert sorted(number for turn in take_turns(20, 30) for number in turn) == sorted(list(range(20)) * 30)


@main_goroutine
def test_gosched_lets_a_goroutine_run_that_is_ready():
    flag = []
    go(flag.append, True)
    deadline = time.monotonic() + PATIENCE
    while not flag and time.monotonic() < deadline:
        assert gosched() is None
    assert flag


def test_gosched_outside_a_goroutine_returns():
    assert gosched() is None
    assert in_thread(gosched) is None


# ---- what an ended goroutine frees -----------------------------------------------------------


@main_goroutine
def test_an_ended_goroutine_frees_its_locals_at_once():
    gc.disable()
    try:
        things = [Thing() for _ in range(4)]
        watches = [weakref.ref(thing) for thing in things]
        channel = makechan()

        def body(argument, *, keyword):
            local = things.pop()
            closed_over = things.pop()
            return (lambda: closed_over), local, channel.recv(), argument, keyword

        goroutine = go_parked(functools.partial(body, things.pop(), keyword=things.pop()))
        assert all(watch() is not None for watch in watches)
        channel.send(None)
        wait_ended(goroutine)
        assert [watch() for watch in watches] == [None] * 4
    finally:
        gc.enable()


@main_goroutine
def test_what_a_goroutine_held_is_gone_when_join_returns():
    """No look again and again: the end that `join` reports includes the locals."""
    gc.disable()
    try:
        for _ in range(200):
            thing = Thing()
            watch = weakref.ref(thing)
            goroutine = go(lambda thing: gosched(), thing)
            del thing
            assert goroutine.join(timeout=PATIENCE)
            assert watch() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("ending", ["cancel", "goexit", "caught"])
@main_goroutine
def test_every_ending_frees_the_locals(ending):
    gc.disable()
    try:
        watches, channel = [], makechan()

        def inner():
            thing = Thing()
            watches.append(weakref.ref(thing))
            channel.recv()
            if ending == "goexit":
                goexit()
            raise LookupError(thing)

        def body():
            try:
                inner()
            except LookupError:
                assert sys.exc_info()[0] is LookupError

        goroutine = go_parked(body)
        if ending == "cancel":
            goroutine.cancel()
        else:
            channel.send(None)
        wait_ended(goroutine)
        assert watches[0]() is None
    finally:
        gc.enable()


def test_a_failed_goroutine_frees_its_locals(monkeypatch):
    monkeypatch.setattr(offset, "excepthook", lambda goroutine, error: None)
    watches = []

    def body():
        thing = Thing()
        watches.append(weakref.ref(thing))
        raise LookupError(thing)

    goroutine = go(body)
    assert goroutine.join(timeout=PATIENCE)
    wait_until(lambda: watches[0]() is None, "the locals are gone")


@main_goroutine
def test_a_handle_does_not_keep_the_function():
    class Body:
        def __call__(self):
            return self

    body = Body()
    watch = weakref.ref(body)
    goroutine = go(body)
    del body
    wait_ended(goroutine)
    assert watch() is None
    assert goroutine.name


@main_goroutine
def test_a_finalizer_of_a_local_may_block():
    """The last reference goes when the goroutine ends, so its finalizer still runs inside it."""
    channel, steps = makechan(), []

    class Closing:
        def __del__(self):
            steps.append((channel.recv(), current().id))

    def body():
        closing = Closing()
        assert closing

    goroutine = go_parked(body, reason="chan receive")
    channel.send("value")
    wait_ended(goroutine)
    assert steps == [("value", goroutine.id)]


@main_goroutine
def test_a_timedelta_is_a_duration_everywhere():
    goroutine = go(sleep, datetime.timedelta(milliseconds=1))
    assert goroutine.join(datetime.timedelta(seconds=PATIENCE)) is True
