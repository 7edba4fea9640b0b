"""The ways in which a goroutine can be parked: the reason it shows, and cancelling it there.

Invariants checked for each way that blocks.py knows: a cancelled waiter leaves its queue and the next one gets its
place; GoroutineExit comes once, so that clean-up code may block.
"""

from __future__ import annotations

import threading
import weakref

import offset
import pytest
from blocks import BLOCKS
from helpers import (
    PATIENCE,
    Thread,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import GoroutineExit, current, go, makechan, nilchan, run, select, sleep

# A race is tried so often; one undisturbed attempt is enough where the machine may interfere.
ATTEMPTS = 50


class Thing:
    """Something that can be watched with a weak reference."""


every_block = pytest.mark.parametrize("make_block", BLOCKS, ids=lambda make: make.__name__.removeprefix("block_in_"))


# ---- at each of them -------------------------------------------------------------------------


@every_block
@main_goroutine
def test_a_parked_goroutine_says_what_it_waits_for(make_block):
    reason, block, release = make_block()
    goroutine = go_parked(block)
    assert isinstance(goroutine.wait_reason, str)
    assert reason in goroutine.wait_reason.lower()
    assert goroutine.status != current().status
    release()
    wait_ended(goroutine)
    assert goroutine.wait_reason is None


@main_goroutine
def test_a_sleeping_goroutine_says_so():
    goroutine = go_parked(sleep, 1e6)
    assert goroutine.wait_reason == "sleep"
    goroutine.cancel()
    wait_ended(goroutine)


@main_goroutine
def test_a_nil_channel_and_an_empty_select_have_wait_reasons():
    goroutines = [
        go_parked(nilchan.recv, reason="chan receive"),
        go_parked(nilchan.send, 1, reason="chan send"),
        go_parked(select, reason="select"),
    ]
    for goroutine in goroutines:
        goroutine.cancel()
    wait_ended(*goroutines)


@every_block
@main_goroutine
def test_cancel_ends_a_goroutine_where_it_is_parked(make_block):
    _, block, release = make_block()
    seen = []

    def body():
        try:
            block()
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            seen.append("finally")

    goroutine = go_parked(body)
    goroutine.cancel()
    wait_ended(goroutine)
    assert seen == [GoroutineExit, "finally"]
    # The waiter is gone: another one gets what it waited for.
    successor = go_parked(block)
    release()
    wait_ended(successor)


@every_block
@main_goroutine
def test_a_cancelled_goroutine_may_block_in_finally(make_block):
    """GoroutineExit comes once, however often `cancel` is called, so clean-up code can wait."""
    _, block, release = make_block()
    tidying, tidied = makechan(), makechan()

    def body():
        try:
            makechan().recv()
        finally:
            tidying.send(None)
            block()
            tidied.send(None)

    goroutine = go_parked(body)
    goroutine.cancel()
    tidying.recv()
    wait_parked(goroutine)
    goroutine.cancel()
    releasing = go(release)
    tidied.recv()
    wait_ended(goroutine, releasing)


# ---- cancel ----------------------------------------------------------------------------------


@main_goroutine
def test_goroutine_exit_may_be_caught():
    """The goroutine goes on, and as the exit comes only once, another `cancel` changes nothing."""
    steps, channel = [], makechan()

    def body():
        try:
            channel.recv()
        except GoroutineExit:
            steps.append("caught")
        steps.append(channel.recv())

    goroutine = go_parked(body)
    goroutine.cancel()
    wait_until(lambda: steps == ["caught"], "the exception was caught")
    wait_parked(goroutine)
    goroutine.cancel()
    channel.send("value")
    wait_ended(goroutine)
    assert steps == ["caught", "value"]


def test_goroutine_exit_is_no_ordinary_exception():
    assert issubclass(GoroutineExit, BaseException)
    assert not issubclass(GoroutineExit, Exception)


def test_a_cancelled_goroutine_reports_nothing(capfd):
    def main():
        goroutine = go_parked(makechan().recv)
        goroutine.cancel()
        wait_ended(goroutine)

    run(main)
    assert capfd.readouterr() == ("", "")


@main_goroutine
def test_cancel_of_an_ended_goroutine_does_nothing():
    goroutine = go(int)
    wait_ended(goroutine)
    ended = goroutine.status
    for _ in range(3):
        goroutine.cancel()
    assert goroutine.status == ended
    # Nor does it reach the goroutine that uses the same stack and thread state now.
    channel = makechan()
    successor = go_parked(channel.recv)
    goroutine.cancel()
    channel.send(None)
    wait_ended(successor)


@main_goroutine
def test_an_unstarted_goroutine_that_is_cancelled_does_not_begin():
    undisturbed = 0
    for _ in range(ATTEMPTS):
        began, went_on = [], []

        def body(began=began, went_on=went_on):
            began.append(True)
            makechan().recv()
            went_on.append(True)

        goroutine = go(body)
        begun_before = goroutine.started
        goroutine.cancel()
        wait_ended(goroutine)
        assert not went_on
        if not begun_before and not began:
            undisturbed += 1
    assert undisturbed


@main_goroutine
def test_an_unstarted_goroutine_that_is_cancelled_lets_its_arguments_go():
    for _ in range(ATTEMPTS):
        thing = Thing()
        watch = weakref.ref(thing)
        goroutine = go(lambda thing: makechan().recv(), thing)
        del thing
        goroutine.cancel()
        wait_ended(goroutine)
        wait_until(lambda watch=watch: watch() is None, "the arguments are gone")


@main_goroutine
def test_a_goroutine_may_cancel_itself():
    steps = []

    def body():
        try:
            current().cancel()
            makechan().recv()
        finally:
            steps.append("ended")

    goroutine = go(body)
    wait_ended(goroutine)
    assert steps == ["ended"]


@main_goroutine
def test_a_running_goroutine_gets_the_exit_without_parking():
    running = threading.Event()
    outcome = makechan(1)

    def endless():
        try:
            while True:
                running.set()
        except GoroutineExit:
            outcome.send("ended")
            raise

    goroutine = go(endless)
    thread = Thread(lambda: (running.wait(PATIENCE), goroutine.cancel()))
    assert outcome.recv(timeout=PATIENCE) == "ended"
    wait_ended(goroutine)
    thread.result()


@main_goroutine
def test_cancel_from_an_os_thread():
    goroutine = go_parked(makechan().recv)
    in_thread(goroutine.cancel)
    wait_ended(goroutine)


@main_goroutine
def test_cancel_reaches_many_at_once():
    channel = makechan()
    goroutines = [go(channel.recv) for _ in range(1000)]
    wait_parked(*goroutines)
    for goroutine in goroutines:
        goroutine.cancel()
    wait_ended(*goroutines)
    assert channel.try_send(None) is False


@main_goroutine
def test_a_cancel_that_races_a_hand_over_leaves_a_clean_channel(rng):
    channel, got = makechan(), []

    def receiver():
        value = channel.recv()
        got.append(value)

    sent = []
    for number in range(500):
        goroutine = go_parked(receiver)
        if rng.random() < 0.7:
            channel.send(number)
            sent.append(number)
        goroutine.cancel()
        wait_ended(goroutine)
    # The exit may have come between the receive and the append.
    assert set(got) <= set(sent)
    assert len(set(got)) == len(got)
    with pytest.raises(offset.WouldBlock):
        channel.try_recv()
    received = go_parked(receiver)
    channel.send("last")
    wait_ended(received)
    assert got[-1] == "last"


@main_goroutine
def test_throw_raises_what_it_is_given():
    class Custom(Exception):
        pass

    caught, channel = makechan(2), makechan()

    def body():
        for _ in range(2):
            try:
                channel.recv()
            except Custom as error:
                caught.send(error)

    goroutine = go_parked(body)
    with pytest.raises(TypeError):
        goroutine.throw("no exception")
    instance = Custom("instance")
    goroutine.throw(instance)
    assert caught.recv() is instance
    wait_parked(goroutine)
    goroutine.throw(Custom)
    assert type(caught.recv()) is Custom
    wait_ended(goroutine)
    goroutine.throw(Custom)
