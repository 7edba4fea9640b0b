"""What Go's own tests check of channels and select, rewritten for here: test/chan and chan_test.go.

Each section names the Go test it answers to. What those tests check of Go's compiler alone (types of
elements, evaluation inside statements) has no meaning here; the directions of test/chan/perm.go are
the ends of test_chan.py; the larger programs are in test_chan_programs.py. Invariant of this file:
where Go's test sleeps so that something is probably parked, this one waits until it is.
"""

from __future__ import annotations

import gc
from collections import Counter

import offset
import pytest
from helpers import FREE_THREADED, PATIENCE, go_parked, main_goroutine, wait_ended, wait_parked
from offset import ChannelClosed, WouldBlock, default, go, gosched, makechan, nilchan, select

# Capacities as TestChan goes through them: none, some, and more than there are values.
CAPACITIES = [0, 1, 2, 3, 7, 19, 120]


def never_blocks(function):
    """Go's testBlock(never): the function comes to its end by itself."""
    wait_ended(go(function))


def always_blocks(function):
    """Go's testBlock(always): the function parks, and nothing but a cancellation ends it."""
    goroutine = go_parked(function)
    for _ in range(10):
        gosched()
    assert goroutine.wait_reason
    goroutine.cancel()
    wait_ended(goroutine)


# ---- chan_test.go: TestChan ------------------------------------------------------------------


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_receiving_from_an_empty_channel_blocks(capacity):
    channel = makechan(capacity)
    receivers = [go_parked(channel.recv), go_parked(channel.recv_ok)]
    assert select(channel.if_recv(), default) is default
    with pytest.raises(WouldBlock):
        channel.try_recv()
    channel.send(0)
    channel.send(0)
    wait_ended(*receivers)


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_sending_to_a_full_channel_blocks(capacity):
    channel = makechan(capacity)
    for number in range(capacity):
        channel.send(number)
    sender = go_parked(channel.send, "last")
    assert select(channel.if_send(0), default) is default
    assert channel.try_send(0) is False
    channel.recv()
    wait_ended(sender)


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_a_closed_channel_gives_its_values_and_then_the_end(capacity):
    channel = makechan(capacity)
    for number in range(capacity):
        channel.send(number)
    channel.close()
    assert [channel.recv() for _ in range(capacity)] == list(range(capacity))
    for _ in range(3):
        with pytest.raises(ChannelClosed):
            channel.recv()
        assert channel.recv_ok() == (None, False)


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_close_unblocks_a_receiver(capacity):
    channel, done = makechan(capacity), makechan()
    go_parked(lambda: done.send(channel.recv_ok()), reason="chan receive")
    channel.close()
    assert done.recv() == (None, False)


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_a_hundred_values_arrive_in_order(capacity):
    channel = makechan(capacity)

    def send_all():
        for number in range(100):
            channel.send(number)

    first = go(send_all)
    assert [channel.recv() for _ in range(100)] == list(range(100))
    second = go(send_all)
    assert [channel.recv_ok() for _ in range(100)] == [(number, True) for number in range(100)]
    wait_ended(first, second)


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_four_senders_and_four_receivers_pass_every_value(capacity):
    channel, done = makechan(capacity), makechan()

    def send_all():
        for number in range(1000):
            channel.send(number)

    def receive_as_many():
        seen = Counter()
        for _ in range(1000):
            seen[channel.recv()] += 1
        done.send(seen)

    for _ in range(4):
        go(send_all)
        go(receive_as_many)
    total = Counter()
    for _ in range(4):
        total += done.recv()
    assert total == Counter(dict.fromkeys(range(1000), 4))


@pytest.mark.parametrize("capacity", CAPACITIES)
@main_goroutine
def test_length_and_capacity(capacity):
    channel = makechan(capacity)
    assert (len(channel), channel.cap) == (0, capacity)
    for number in range(capacity):
        channel.send(number)
    assert (len(channel), channel.cap) == (capacity, capacity)


# ---- chan_test.go: races of operations that do not wait --------------------------------------


@main_goroutine
def test_nonblock_recv_race():
    """A value in a channel that is closed meanwhile is there for a receiver that does not wait."""
    for _ in range(500):
        channel, outcome = makechan(1), makechan(1)
        channel.send(1)

        def receive(channel=channel, outcome=outcome):
            outcome.send(select(channel.if_recv(), default) is not default)

        go(receive)
        channel.close()
        channel.recv_ok()
        assert outcome.recv(), "neither the value nor the end was ready"


@pytest.mark.parametrize("way", ["send", "close"])
@main_goroutine
def test_nonblock_select_race(way):
    """One of two channels is ready at every moment, so default may never happen."""
    done = makechan(1)
    for _ in range(500):
        first, second = makechan(1), makechan(1)
        first.send(1)

        def choose(first=first, second=second):
            done.send(select(first.if_recv(), second.if_recv(), default) is not default)

        go(choose)
        if way == "send":
            second.send(1)
        else:
            second.close()
        select(first.if_recv(), default)
        assert done.recv(), "select saw the channels at two different moments"


# ---- chan_test.go: TestSelfSelect, TestSelectStress ------------------------------------------


@pytest.mark.parametrize("capacity", [0, 10])
@main_goroutine
def test_self_select(capacity):
    """Two goroutines that offer to send and to receive on one channel serve each other only."""
    channel = makechan(capacity)
    # A count for each: `+=` on a shared one is not atomic where goroutines run at the same time.
    moved = [Counter(), Counter()]

    def offer_both(me):
        for step in range(1000):
            if me == 0 or step % 2 == 0:
                case = select(channel.if_send(me), channel.if_recv())
                received = case.index == 1
            else:
                case = select(channel.if_recv(), channel.if_send(me))
                received = case.index == 0
            moved[me]["received" if received else "sent"] += 1
            if received and capacity == 0:
                assert case.value != me, "received from itself"

    wait_ended(go(offer_both, 0), go(offer_both, 1))
    both = sum(moved, Counter())
    assert both.total() == 2000
    assert both["sent"] - both["received"] == len(channel)


@main_goroutine
def test_select_stress():
    """Plain operations and selects of all kinds on four channels, with a balance of all counts."""
    count = 1500
    channels = [makechan(size) for size in (0, 0, 2, 3)]
    group = offset.sync.WaitGroup()

    def send_on(channel):
        for _ in range(count):
            channel.send(0)

    def receive_on(channel):
        for _ in range(count):
            channel.recv()

    def choose(case_of, order):
        left = dict.fromkeys(order, count)
        for _ in range(4 * count):
            cases = [case_of(channels[number] if left[number] else nilchan) for number in order]
            left[order[select(*cases).index]] -= 1
        assert not any(left.values())

    for channel in channels:
        group.go(send_on, channel)
        group.go(receive_on, channel)
    group.go(choose, lambda channel: channel.if_send(0), [3, 2, 0, 1])
    group.go(choose, lambda channel: channel.if_recv(), [0, 1, 2, 3])
    group.wait(timeout=2 * PATIENCE)
    assert [len(channel) for channel in channels] == [0, 0, 0, 0]


# ---- chan_test.go: TestSelectFairness, TestPseudoRandomSend ----------------------------------


@main_goroutine
def test_select_fairness():
    """Of two channels that are always ready, each is chosen about half the time."""
    trials = 4000
    first, second, done, out = makechan(trials + 1), makechan(), makechan(), makechan()

    def feed(channel, value):
        while select(channel.if_send(value), done.if_recv()).index == 0:
            pass

    def merge():
        while True:
            value = select(first.if_recv(), second.if_recv()).value
            if select(out.if_send(value), done.if_recv()).index == 1:
                return

    for _ in range(trials + 1):
        first.send("first")
    feeder = go(feed, second, "second")
    merger = go(merge)
    seen = Counter(out.recv() for _ in range(trials))
    done.close()
    # The merger may be waiting for a value when the feeder has left already.
    first.try_send("wake")
    wait_ended(feeder, merger)
    # `second` is only ready while its feeder has come back, so the bound is wide, as it is in Go. Where the feeder
    # has a processor of its own, which must wake first and may be kept from it by others, there is none.
    least = 0 if FREE_THREADED else trials / 10
    assert seen["first"] > least and seen["second"] > least, seen


@pytest.mark.parametrize("capacity", [0, 100])
@main_goroutine
def test_pseudo_random_send(capacity):
    channel, finished, got = makechan(capacity), makechan(), []

    def receive():
        for _ in range(100):
            gosched()
            got.append(channel.recv())
        finished.close()

    go(receive)
    for _ in range(100):
        select(channel.if_send(1), channel.if_send(0))
    finished.recv_ok()
    # Fewer than ten of a hundred fair choices never happen.
    assert 10 < sum(got) < 90


# ---- chan_test.go: the rest ------------------------------------------------------------------


@main_goroutine
def test_chan_send_interface():
    """Non-blocking sends of whole objects, to a channel that is full after the first."""

    class Thing:
        pass

    thing, channel = Thing(), makechan(1)
    channel.send(thing)
    assert select(channel.if_send(thing), default) is default
    assert select(channel.if_send(thing), channel.if_send(Thing()), default) is default
    assert channel.recv() is thing


@main_goroutine
def test_multi_consumer():
    primes = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31]
    workers, values = 23, 5000
    work, results = makechan(workers * 3), makechan(workers * 3)
    group = offset.sync.WaitGroup()

    def consume(worker):
        for value in work:
            # Disturb the order in which the workers come round.
            if primes[worker % len(primes)] == value:
                gosched()
            results.send(value)

    def feed():
        for number in range(values):
            work.send(primes[number % len(primes)])
        work.close()
        group.wait()
        results.close()

    for worker in range(workers):
        group.go(consume, worker)
    go(feed)
    assert Counter(results) == Counter(primes[number % len(primes)] for number in range(values))


@main_goroutine
def test_deep_calls_and_collections_around_a_blocked_send():
    """Go: TestShrinkStackDuringBlockedSend. The value waits on a stack that was deep before."""
    channel = makechan()

    def dive(depth):
        return depth if depth == 0 else dive(depth - 1)

    def send_all():
        for number in range(10):
            channel.send(number)
            dive(200)

    sender = go(send_all)
    for number in range(10):
        wait_parked(sender, reason="chan send")
        gc.collect()
        assert channel.recv() == number
    wait_ended(sender)


@main_goroutine
def test_select_duplicate_channel():
    """A goroutine queued twice on one channel leaves it in order when it is served elsewhere."""
    channel, other, done = makechan(), makechan(), makechan()

    def chooser():
        select(channel.if_recv(), channel.if_recv(), other.if_recv())
        done.send("chosen")

    first = go_parked(chooser, reason="select")
    second = go_parked(channel.recv, reason="chan receive")
    other.send(7)
    assert done.recv() == "chosen"
    channel.send(8)
    wait_ended(first, second)
    assert not channel.try_send("nobody left")


@pytest.mark.parametrize("use_select", [False, True], ids=["send", "select"])
@main_goroutine
def test_chan_send_select_barrier(use_select):
    """What a sender did before a send is seen by the receiver after it."""
    full_circle, stop = makechan(), makechan()
    shared = {}

    def follow(wake, wake_next):
        for number in wake:
            assert shared[number] == number
            shared[number + 1] = number + 1
            if use_select:
                select(wake_next.if_send(number + 1), stop.if_recv())
            else:
                wake_next.send(number + 1)

    last = full_circle
    followers = []
    for _ in range(4):
        first = makechan()
        followers.append((go(follow, first, last), first))
        last = first
    shared[0] = 0
    number = 0
    for _ in range(200):
        last.send(number)
        number = full_circle.recv()
        assert shared[number] == number
    assert number == 800
    for goroutine, channel in reversed(followers):
        channel.close()
        wait_ended(goroutine)


# ---- test/chan/doubleselect.go ---------------------------------------------------------------


@main_goroutine
def test_double_select():
    """A value sent by a select over several channels arrives exactly once."""
    count = 4000
    channels = [makechan() for _ in range(4)]
    merged, done = makechan(), makechan()

    def send_all():
        for number in range(count):
            select(*[channel.if_send(number) for channel in channels])
        for channel in channels:
            channel.close()

    def pass_on(channel):
        for value in channel:
            merged.send(value)
        done.send(True)

    def close_merged():
        for _ in channels:
            done.recv()
        merged.close()

    go(send_all)
    for channel in channels:
        go(pass_on, channel)
    go(close_merged)
    received = list(merged)
    assert sorted(received) == list(range(count))


# ---- test/chan/fifo.go -----------------------------------------------------------------------


@main_goroutine
def test_asynchronous_fifo():
    channel = makechan(10)
    for number in range(10):
        channel.send(number)
    assert [channel.recv() for _ in range(10)] == list(range(10))


@main_goroutine
def test_synchronous_fifo():
    """A daisy chain: each goroutine waits for the one before it and wakes the one after it."""
    channel, results = makechan(), makechan(10)

    def link(number, wait_for, wake):
        wait_for.recv()
        results.send((number, channel.recv()))
        wake.send(True)

    first = wait_for = makechan()
    for number in range(10):
        wake = makechan()
        go(link, number, wait_for, wake)
        wait_for = wake
    first.send(True)
    for number in range(10):
        channel.send(number)
    wait_for.recv()
    assert [results.recv() for _ in range(10)] == [(number, number) for number in range(10)]


# ---- test/chan/nonblock.go -------------------------------------------------------------------


@pytest.mark.parametrize("value", [123, 2**60, True, "hello", 1.5, None], ids=repr)
@pytest.mark.parametrize("buffer", [0, 1])
@main_goroutine
def test_nonblock(buffer, value):
    channel, strobe = makechan(buffer), makechan()
    with pytest.raises(WouldBlock):
        channel.try_recv()

    def receive():
        assert channel.recv() is value
        strobe.send(True)

    def send():
        channel.send(value)
        strobe.send(True)

    go_parked(receive)
    assert channel.try_send(value) is True
    strobe.recv()
    go_parked(send, reason="chan send")
    assert channel.try_recv() == (value, True)
    strobe.recv()


# ---- test/chan/select3.go --------------------------------------------------------------------


@main_goroutine
def test_what_always_blocks():
    always_blocks(lambda: nilchan.send(7))
    always_blocks(nilchan.recv)
    always_blocks(lambda: makechan().recv())
    always_blocks(lambda: makechan().send(1))
    always_blocks(select)
    always_blocks(lambda: select(nilchan.if_recv()))
    always_blocks(lambda: select(nilchan.if_send(7)))
    always_blocks(lambda: select(nilchan.if_recv(), nilchan.if_send(7)))
    always_blocks(lambda: select(makechan().if_recv()))
    always_blocks(lambda: select(makechan().if_send(7)))

    def select_that_sees_itself():
        channel = makechan()
        select(channel.if_send(1), channel.if_recv())

    always_blocks(select_that_sees_itself)


@main_goroutine
def test_what_never_blocks():
    closed = makechan()
    closed.close()

    def closed_channel():
        for _ in range(10):
            assert closed.recv_ok() == (None, False)
            assert select(closed.if_recv()).ok is False

    def buffered_send():
        makechan(1).send(7)

    def ready_send():
        assert select(makechan(1).if_send(7), default) is not default

    def ready_receive():
        channel = makechan(1)
        channel.send(7)
        assert select(channel.if_recv(), default).value == 7

    def only_default():
        assert select(default) is default
        assert select(nilchan.if_recv(), default) is default
        assert select(nilchan.if_send(7), default) is default

    def closed_send():
        with pytest.raises(ChannelClosed):
            closed.send(7)
        with pytest.raises(ChannelClosed):
            select(closed.if_send(7))

    for function in (closed_channel, buffered_send, ready_send, ready_receive, only_default, closed_send):
        never_blocks(function)


# ---- test/chan/select4.go, select5.go --------------------------------------------------------


@main_goroutine
def test_operands_of_cases_that_do_not_happen_are_evaluated_too():
    calls = []

    def channel(name, ready):
        calls.append(name)
        made = makechan(1)
        if ready:
            made.send(name)
        return made

    def value(name):
        calls.append(name)
        return name

    case = select(
        channel("a", True).if_recv(),
        nilchan.if_send(value("v")),
        channel("b", False).if_recv(),
    )
    assert (case.index, case.value) == (0, "a")
    assert calls == ["a", "v", "b"]


# ---- test/chan/select6.go --------------------------------------------------------------------


@main_goroutine
def test_waiters_around_an_abandoned_case_are_served():
    """A select in the middle of a queue leaves it; those before and after it stay in order."""
    first, second = makechan(), makechan()
    got = []
    before = go_parked(lambda: got.append(("before", first.recv())))
    middle = go_parked(lambda: got.append(("middle", select(first.if_recv(), second.if_recv()).index)))
    after = go_parked(lambda: got.append(("after", first.recv())))
    second.send("leaves the middle of the queue")
    wait_ended(middle)
    first.send(1)
    wait_ended(before)
    first.send(2)
    wait_ended(after)
    assert got == [("middle", 1), ("before", 1), ("after", 2)]


# ---- test/chan/select7.go --------------------------------------------------------------------


@pytest.mark.parametrize("receive_by", ["recv", "select of one", "select of two", "recv_ok"])
@pytest.mark.parametrize("send_by", ["send", "select of one", "select of two"])
@main_goroutine
def test_each_way_to_send_meets_each_way_to_receive(receive_by, send_by):
    other_in, other_out = makechan(), makechan()
    receive = {
        "recv": lambda channel: channel.recv(),
        "recv_ok": lambda channel: channel.recv_ok()[0],
        "select of one": lambda channel: select(channel.if_recv()).value,
        "select of two": lambda channel: select(channel.if_recv(), other_in.if_recv()).value,
    }[receive_by]
    send = {
        "send": lambda channel: channel.send(8),
        "select of one": lambda channel: select(channel.if_send(8)),
        "select of two": lambda channel: select(channel.if_send(8), other_out.if_send(-1)),
    }[send_by]
    channel, got = makechan(), []
    receiver = go_parked(lambda: got.append(receive(channel)))
    send(channel)
    wait_ended(receiver)
    sender = go_parked(send, channel)
    got.append(receive(channel))
    wait_ended(sender)
    assert got == [8, 8]


# ---- test/chan/zerosize.go -------------------------------------------------------------------


@main_goroutine
def test_signals_without_a_value():
    """A channel of nothing in particular still counts what went through."""
    channel = makechan(1000)
    for _ in range(1000):
        channel.send(())
    assert not channel.try_send(())
    channel.close()
    assert sum(1 for _ in channel) == 1000
