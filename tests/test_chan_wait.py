"""Waiting on a channel that is given up: timeouts of every form, and cancelled waiters.

Invariant checked throughout: an operation happened or it did not. A waiter that gave up is in no
queue, took no value and handed none over, and those behind it keep their order.
"""

from __future__ import annotations

import datetime

import offset
import pytest
from helpers import OVER, RECEIVERS, SENDERS, SHORT, go_parked, main_goroutine, wait_ended, wait_parked
from offset import ChannelClosed, WouldBlock, go, makechan, select

SIZES = [0, 1, 3]


# ---- timeouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@main_goroutine
def test_a_receive_times_out_and_leaves_nothing(size, receive, timeout):
    channel = makechan(size)
    with pytest.raises(TimeoutError):
        receive(channel, timeout)
    # Only a buffer may take the value: the receiver that gave up is gone.
    assert channel.try_send("v") is (size > 0)
    got = []
    late = go(lambda: got.append(receive(channel)))
    if size == 0:
        wait_parked(late)
        assert channel.try_send("v")
    wait_ended(late)
    assert got == ["v"]


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@main_goroutine
def test_a_send_times_out_and_leaves_nothing(size, send, timeout):
    channel = makechan(size)
    for number in range(size):
        channel.send(number)
    with pytest.raises(TimeoutError):
        send(channel, "never received", timeout)
    channel.close()
    assert list(channel) == list(range(size))


@pytest.mark.parametrize("timeout", OVER, ids=repr)
@main_goroutine
def test_a_timeout_that_is_over_tries_once(timeout):
    channel = makechan(1)
    channel.send("a", timeout=timeout)
    assert channel.recv(timeout=timeout) == "a"
    channel.send("b")
    assert channel.recv_ok(timeout=timeout) == ("b", True)
    unbuffered = makechan()
    sender = go_parked(unbuffered.send, "c")
    assert unbuffered.recv(timeout=timeout) == "c"
    got = []
    receiver = go_parked(lambda: got.append(unbuffered.recv()))
    unbuffered.send("d", timeout=timeout)
    wait_ended(sender, receiver)
    assert got == ["d"]
    channel.close()
    assert channel.recv_ok(timeout=timeout) == (None, False)
    with pytest.raises(ChannelClosed):
        channel.recv(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 1e9, 10**6, datetime.timedelta(days=900_000)], ids=repr)
@main_goroutine
def test_a_long_timeout_waits(timeout):
    channel = makechan()
    got = []
    receiver = go_parked(lambda: got.append(channel.recv(timeout=timeout)))
    channel.send("v", timeout=timeout)
    wait_ended(receiver)
    assert got == ["v"]


@pytest.mark.parametrize("timeout", ["1", b"1", [1], object()], ids=["str", "bytes", "list", "object"])
@main_goroutine
def test_a_timeout_that_is_no_duration_is_refused(timeout):
    channel = makechan(1)
    for attempt in (
        lambda: channel.recv(timeout=timeout),
        lambda: channel.recv_ok(timeout=timeout),
        lambda: channel.send(1, timeout=timeout),
        lambda: select(channel.if_recv(), timeout=timeout),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert len(channel) == 0


@main_goroutine
def test_waiters_that_time_out_keep_the_others_in_order():
    channel = makechan()
    got = []

    def patient(number):
        got.append((number, channel.recv()))

    def hasty():
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0.005)

    patients, hurried = [], []
    for number in range(8):
        patients.append(go_parked(patient, number))
        hurried.append(go(hasty))
    wait_ended(*hurried)
    for number in range(8):
        channel.send(number)
        wait_ended(patients[number])
    assert got == [(number, number) for number in range(8)]


@main_goroutine
def test_a_timeout_racing_a_send_neither_loses_nor_doubles_a_value(rng):
    channel = makechan()
    got, timeouts, sent = [], 0, 0
    finished = makechan()

    def receiver():
        nonlocal timeouts
        for _ in range(200):
            try:
                got.append(channel.recv(timeout=rng.choice([0, 1e-6, 2e-5, 1e-4])))
            except TimeoutError:
                timeouts += 1
        finished.close()

    go(receiver)
    while True:
        case = select(channel.if_send(sent), finished.if_recv())
        if case.index == 1:
            break
        sent += 1
        for _ in range(rng.randint(0, 3)):
            offset.gosched()
    assert got == list(range(sent))
    assert len(got) + timeouts == 200


# ---- cancelled waiters -----------------------------------------------------------------------


@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@main_goroutine
def test_a_cancelled_receiver_leaves_nothing(receive):
    channel = makechan()
    goroutine = go_parked(receive, channel)
    behind = go_parked(channel.recv)
    goroutine.cancel()
    wait_ended(goroutine)
    assert channel.try_send("v")
    wait_ended(behind)
    assert not channel.try_send("w")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@main_goroutine
def test_a_cancelled_sender_leaves_nothing(size, send):
    channel = makechan(size)
    for number in range(size):
        channel.send(number)
    first = go_parked(channel.send, "first")
    cancelled = go_parked(send, channel, "cancelled")
    last = go_parked(channel.send, "last")
    cancelled.cancel()
    wait_ended(cancelled)
    assert [channel.recv() for _ in range(size + 2)] == [*range(size), "first", "last"]
    wait_ended(first, last)
    with pytest.raises(WouldBlock):
        channel.try_recv()


@main_goroutine
def test_cancelling_in_a_loop_ends_it_without_losing_the_rest():
    channel = makechan(2)

    def consume():
        for _ in channel:
            pass

    goroutine = go_parked(consume)
    goroutine.cancel()
    wait_ended(goroutine)
    channel.send("kept")
    assert channel.recv() == "kept"
