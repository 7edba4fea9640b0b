"""`offset.singleflight`: equal calls at the same time are one call."""

from __future__ import annotations

import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_until
from offset import GoroutineExit, context, go, makechan, nilchan
from offset.singleflight import Group


class Boom(Exception):
    pass


@main_goroutine
def test_a_call_alone_is_a_call():
    group = Group()
    assert group.do("key", lambda: 3) == (3, False)
    assert group.do("key", lambda: 4) == (4, False)
    assert group.stats() == {"under_way": 0, "made": 2, "shared": 0}


@main_goroutine
def test_equal_calls_are_one():
    group, gate, results, made = Group(), makechan(), makechan(20), []

    def call():
        made.append(True)
        return gate.recv()

    goroutines = [go_parked(lambda: results.send(group.do("key", call))) for _ in range(10)]
    thread = Thread(group.do, "key", call)
    wait_until(lambda: group.stats()["shared"] == 10, "all wait")
    assert group.do("other", lambda: 1) == (1, False)
    gate.send("value")
    wait_ended(*goroutines)
    assert [results.recv() for _ in range(10)] == [("value", True)] * 10
    assert thread.result() == ("value", True)
    assert made == [True]


@main_goroutine
def test_an_error_is_everybodys():
    group, gate, errors = Group(), makechan(), makechan(5)

    def call():
        gate.recv()
        raise Boom("shared")

    def body():
        try:
            group.do("key", call)
        except Boom as error:
            errors.send(error)

    goroutines = [go_parked(body) for _ in range(3)]
    gate.send(None)
    wait_ended(*goroutines)
    assert len({id(errors.recv()) for _ in range(3)}) == 1
    assert group.do("key", lambda: "again") == ("again", False)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@main_goroutine
def test_the_end_of_the_caller_is_its_own(how):
    """One of those who wait makes the call once more."""
    group, gate, made, seen = Group(), makechan(), [], []

    def call():
        made.append(True)
        return gate.recv()

    ctx, cancel = context.with_cancel(context.background())

    def lead():
        try:
            with context.scope(ctx):
                group.do("key", call)
        except (GoroutineExit, context.Canceled) as error:
            seen.append(type(error))

    leader = go_parked(lead)
    results = makechan(2)
    followers = [go_parked(lambda: results.send(group.do("key", call))) for _ in range(2)]
    (leader.cancel if how == "cancel" else cancel)()
    wait_ended(leader)
    assert len(seen) == 1
    gate.send("value")
    wait_ended(*followers)
    assert [results.recv() for _ in range(2)] == [("value", True)] * 2
    assert made == [True, True]


@main_goroutine
def test_who_waited_and_is_late_gets_what_the_others_got():
    """Of two that waited the first makes the call, and has done so before the second one runs again."""
    group, made = Group(), []

    def call():
        made.append(True)
        return len(made)

    leader = go_parked(group.do, "key", nilchan.recv)
    results = makechan(2)
    followers = [go_parked(lambda: results.send(group.do("key", call))) for _ in range(2)]
    leader.cancel()
    wait_ended(leader, *followers)
    assert [results.recv() for _ in range(2)] == [(1, True)] * 2
    assert group.stats() == {"under_way": 0, "made": 2, "shared": 1}


@main_goroutine
def test_when_all_who_waited_are_ended_nothing_is_left():
    group = Group()
    leader = go_parked(group.do, "key", nilchan.recv)
    followers = [go_parked(group.do, "key", nilchan.recv) for _ in range(3)]
    for one in (followers[0], leader, *followers[1:]):
        one.cancel()
    wait_ended(leader, *followers)
    assert group.stats()["under_way"] == 0
    assert not group._flights
    assert group.do("key", lambda: "new") == ("new", False)


@main_goroutine
def test_one_after_the_other_is_ended():
    group = Group()
    many = [go_parked(group.do, "key", nilchan.recv) for _ in range(4)]
    for number, one in enumerate(many, 1):
        wait_until(lambda made=number: group.stats()["made"] == made)
        one.cancel()
        wait_ended(one)
    assert not group._flights
    assert group.stats() == {"under_way": 0, "made": 4, "shared": 0}


@main_goroutine
def test_who_waits_may_stop():
    group, gate = Group(), makechan()
    leader = go_parked(group.do, "key", gate.recv)
    with pytest.raises(TimeoutError), context.timeout(0.002):
        group.do("key", int)
    gate.send(None)
    wait_ended(leader)


@main_goroutine
def test_forget():
    group, gate = Group(), makechan()
    results = makechan(2)
    leader = go_parked(lambda: results.send(group.do("key", gate.recv)))
    group.forget("key")
    assert group.do("key", lambda: "mine") == ("mine", False)
    gate.send("old")
    wait_ended(leader)
    assert results.recv() == ("old", False)
    group.forget("never seen")


@main_goroutine
def test_do_chan():
    group, gate = Group(), makechan()
    first, second = group.do_chan("key", gate.recv), group.do_chan("key", gate.recv)
    wait_until(lambda: group.stats()["shared"] == 1, "the second waits")
    gate.send("value")
    assert first.recv(timeout=PATIENCE) == second.recv(timeout=PATIENCE) == ("value", True)

    def fail():
        raise Boom("sent")

    with pytest.raises(Boom, match="sent"):
        group.do_chan("key", fail).recv(timeout=PATIENCE)


@main_goroutine
def test_mistakes():
    group = Group()
    with pytest.raises(TypeError, match="needs a function to call, not int"):
        group.do("key", 3)
    with pytest.raises(TypeError, match="needs a function to call, not int"):
        group.do_chan("key", 3)
    with pytest.raises(TypeError, match="unhashable"):
        group.do([], int)
    with pytest.raises(TypeError, match="unhashable"):
        group.do_chan([], int)
    assert group.stats() == {"under_way": 0, "made": 0, "shared": 0}


@main_goroutine
def test_a_storm(rng):
    """However calls meet, each gets a value that was made while it waited or after."""
    group = Group()
    clock = iter(range(10**9))

    def call():
        began = next(clock)
        context.background()
        go(int).join()
        return began

    def body(key):
        for _ in range(20):
            asked = next(clock)
            value, shared = group.do(key, call)
            assert value > asked or shared

    goroutines = [go(body, rng.randrange(5)) for _ in range(50)]
    wait_ended(*goroutines)
    wait_until(lambda: group.stats()["under_way"] == 0, "all have landed")
