"""Select: cases and their identity, default, timeouts, nil and closed channels, one of many ready.

Go's own select tests are in test_chan_go.py, the differential test is test_model.py. Invariant
checked throughout: exactly one case happens, and the others leave no trace on their channels.
"""

from __future__ import annotations

import datetime
from collections import Counter

import offset
import pytest
from helpers import (
    OVER,
    PATIENCE,
    SHORT,
    assert_no_growth,
    collect,
    go_parked,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import (
    ChannelClosed,
    WouldBlock,
    default,
    go,
    makechan,
    nilchan,
    select,
)


def full(*values):
    """A channel whose buffer is filled with `values`."""
    channel = makechan(len(values))
    for value in values:
        channel.send(value)
    return channel


def closed(*values):
    """A channel that holds `values` and is closed."""
    channel = full(*values)
    channel.close()
    return channel


# ---- the case that happened ------------------------------------------------------------------


@main_goroutine
def test_the_very_case_is_returned():
    empty, ready = makechan(), full("v")
    cases = [empty.if_recv(), ready.if_recv(), empty.if_send(1)]
    chosen = select(*cases)
    assert chosen is cases[1]
    assert (chosen.index, chosen.value, chosen.ok) == (1, "v", True)


@main_goroutine
def test_the_index_is_the_place_among_the_arguments():
    for place in range(6):
        channels = [makechan() for _ in range(6)]
        channels[place] = full(place)
        chosen = select(*[channel.if_recv() for channel in channels])
        assert (chosen.index, chosen.value) == (place, place)
        channels[place] = makechan(1)
        chosen = select(*[channel.if_send("s") for channel in channels])
        assert chosen.index == place
        assert channels[place].recv() == "s"


@main_goroutine
def test_the_case_that_woke_a_waiting_select_is_returned():
    channels = [makechan() for _ in range(5)]
    cases = [channel.if_recv() for channel in channels]
    chosen = []
    waiting = go_parked(lambda: chosen.append(select(*cases)))
    channels[3].send("woken")
    wait_ended(waiting)
    assert chosen[0] is cases[3]
    assert (chosen[0].index, chosen[0].value, chosen[0].ok) == (3, "woken", True)


@main_goroutine
def test_a_send_case_that_woke_a_waiting_select_is_returned():
    channels = [makechan() for _ in range(5)]
    cases = [channel.if_send(number) for number, channel in enumerate(channels)]
    chosen = []
    waiting = go_parked(lambda: chosen.append(select(*cases)))
    assert channels[2].recv() == 2
    wait_ended(waiting)
    assert chosen[0] is cases[2]
    assert chosen[0].index == 2


def test_cases_are_equal_by_channel_and_direction():
    first, second = makechan(1), makechan(1)
    assert first.if_recv() == first.if_recv()
    assert first.if_send(1) == first.if_send(2)
    assert first.if_recv() != second.if_recv()
    assert first.if_send(1) != second.if_send(1)
    assert first.if_recv() != first.if_send(1)
    assert first.if_recv() != default
    assert first.if_recv() != 1


@main_goroutine
def test_the_idiom_of_2014():
    """Compare what select gave with a case made anew."""
    numbers, quit_now = makechan(), makechan()

    def consume():
        for _ in range(10):
            numbers.recv()
        quit_now.send(None)

    go(consume)
    x, y, sent = 0, 1, []
    while True:
        ret = select(numbers.if_send(x), quit_now.if_recv())
        if ret == numbers.if_send(x):
            sent.append(x)
            x, y = y, x + y
        elif ret == quit_now.if_recv():
            break
        else:
            raise AssertionError(ret)
    assert sent == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]


@main_goroutine
def test_cases_can_be_used_again():
    channel, other = makechan(2), makechan()
    receive, send = channel.if_recv(), channel.if_send("again")
    for _ in range(5):
        assert select(send, other.if_recv()) is send
        chosen = select(other.if_recv(), receive)
        assert chosen is receive
        assert (receive.index, receive.value, receive.ok) == (1, "again", True)
    channel.close()
    assert select(receive) is receive
    assert (receive.index, receive.value, receive.ok) == (0, None, False)


@main_goroutine
def test_two_goroutines_may_wait_with_the_same_channels():
    channels = [makechan() for _ in range(3)]
    got = []

    def choose():
        got.append(select(*[channel.if_recv() for channel in channels]).value)

    waiting = [go_parked(choose) for _ in range(6)]
    for number in range(6):
        channels[number % 3].send(number)
    wait_ended(*waiting)
    assert sorted(got) == list(range(6))


# ---- default ---------------------------------------------------------------------------------


@main_goroutine
def test_default_happens_when_nothing_else_can():
    empty, blocked = makechan(), full("x")
    assert select(empty.if_recv(), default) is default
    assert select(empty.if_send(1), default) is default
    assert select(blocked.if_send(1), empty.if_recv(), nilchan.if_recv(), default) is default
    assert select(default) is default
    assert len(blocked) == 1


@main_goroutine
def test_default_may_stand_anywhere():
    empty = makechan()
    assert select(default, empty.if_recv()) is default
    assert select(empty.if_recv(), default, empty.if_send(1)) is default
    ready = full("v")
    assert select(default, ready.if_recv()).value == "v"


@main_goroutine
def test_default_never_happens_while_something_can():
    for _ in range(200):
        ready = full("v")
        assert select(ready.if_recv(), default).value == "v"
        assert select(ready.if_send("w"), default).index == 0
        assert select(closed().if_recv(), default).ok is False
    channel = makechan()
    sender = go_parked(channel.send, "waiting")
    assert select(channel.if_recv(), default).value == "waiting"
    receiver = go_parked(channel.recv)
    assert select(channel.if_send("taken"), default) is not default
    wait_ended(sender, receiver)


@main_goroutine
def test_default_wins_over_any_timeout():
    empty = makechan()
    for timeout in (None, 0, -1, 1e9):
        assert select(empty.if_recv(), default, timeout=timeout) is default


# ---- timeouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_a_select_times_out_and_leaves_nothing(timeout):
    first, second, blocked = makechan(), makechan(), full("x")
    with pytest.raises(TimeoutError):
        select(first.if_recv(), second.if_send(1), blocked.if_send(2), timeout=timeout)
    assert not first.try_send("nobody there")
    with pytest.raises(WouldBlock):
        second.try_recv()
    assert blocked.recv() == "x"
    assert len(blocked) == 0


@pytest.mark.parametrize("timeout", [*OVER, None, 1e9, datetime.timedelta(days=900_000)], ids=repr)
@main_goroutine
def test_what_is_ready_happens_under_any_timeout(timeout):
    assert select(full("v").if_recv(), timeout=timeout).value == "v"
    assert select(makechan().if_recv(), makechan(1).if_send(1), timeout=timeout).index == 1
    assert select(closed().if_recv(), timeout=timeout).ok is False


@main_goroutine
def test_a_select_without_cases_times_out_too():
    for timeout in OVER + SHORT:
        with pytest.raises(TimeoutError):
            select(timeout=timeout)


# ---- blocking for ever -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "cases",
    [
        list,
        lambda: [nilchan.if_recv()],
        lambda: [nilchan.if_send(1)],
        lambda: [nilchan.if_recv(), nilchan.if_send(1), nilchan.if_recv()],
    ],
    ids=["none", "nil receive", "nil send", "nils"],
)
@main_goroutine
def test_a_select_with_nothing_that_can_happen_blocks(cases):
    goroutine = go_parked(select, *cases(), reason="select")
    for _ in range(20):
        offset.gosched()
    assert goroutine.wait_reason
    goroutine.cancel()
    wait_ended(goroutine)


@main_goroutine
def test_nil_channels_are_never_chosen():
    ready = full(*range(100))
    for number in range(100):
        case = select(nilchan.if_recv(), ready.if_recv(), nilchan.if_send(1))
        assert (case.index, case.value) == (1, number)


@main_goroutine
def test_replacing_a_channel_by_nil_switches_its_case_off():
    """Go's idiom for merging: a drained channel becomes nil."""
    inputs = [closed(*range(10)), closed(*range(10, 30))]
    merged = []
    while any(channel is not nilchan for channel in inputs):
        case = select(*[channel.if_recv() for channel in inputs])
        if case.ok:
            merged.append(case.value)
        else:
            inputs[case.index] = nilchan
    assert sorted(merged) == list(range(30))


# ---- closed channels -------------------------------------------------------------------------


@main_goroutine
def test_receiving_from_a_closed_channel_happens():
    case = select(closed().if_recv())
    assert (case.value, case.ok, case.index) == (None, False, 0)
    channel = closed("left")
    assert select(channel.if_recv()).value == "left"
    assert select(channel.if_recv()).ok is False


@main_goroutine
def test_none_is_told_from_the_end():
    channel = closed(None)
    case = select(channel.if_recv())
    assert (case.value, case.ok) == (None, True)
    case = select(channel.if_recv())
    assert (case.value, case.ok) == (None, False)


@main_goroutine
def test_a_case_does_not_remember_an_older_value():
    channel = closed("old")
    case = channel.if_recv()
    assert select(case).value == "old"
    assert select(case).value is None


@main_goroutine
def test_sending_on_a_closed_channel_raises_when_it_is_chosen():
    dead, ready = makechan(label="dead"), full(*range(200))
    dead.close()
    raised = received = 0
    for _ in range(200):
        try:
            case = select(dead.if_send(1), ready.if_recv())
            assert case.index == 1
            received += 1
        except ChannelClosed as error:
            assert "dead" in str(error)
            raised += 1
    # A send on a closed channel can go on at once, as in Go, so it is chosen like any other.
    assert raised > 20
    assert received > 20
    assert len(ready) == 200 - received


@main_goroutine
def test_close_wakes_a_waiting_select_that_receives():
    channels = [makechan() for _ in range(3)]
    chosen = []
    waiting = go_parked(lambda: chosen.append(select(*[each.if_recv() for each in channels])))
    channels[1].close()
    wait_ended(waiting)
    assert (chosen[0].index, chosen[0].value, chosen[0].ok) == (1, None, False)
    assert not channels[0].try_send("nobody")
    assert not channels[2].try_send("nobody")


@main_goroutine
def test_close_makes_a_waiting_select_that_sends_raise():
    channel, other = makechan(label="gone"), makechan()
    texts = []

    def choose():
        try:
            select(other.if_recv(), channel.if_send("lost"))
        except ChannelClosed as error:
            texts.append(str(error))

    waiting = go_parked(choose)
    channel.close()
    wait_ended(waiting)
    assert len(texts) == 1 and "gone" in texts[0]
    assert not other.try_send("nobody")


# ---- one channel more than once --------------------------------------------------------------


@main_goroutine
def test_the_same_channel_twice():
    channel = makechan()
    indices = Counter()
    for number in range(100):
        got = []
        waiting = go_parked(lambda got=got: got.append(select(channel.if_recv(), channel.if_recv())))
        channel.send(number)
        wait_ended(waiting)
        assert got[0].value == number
        assert not channel.try_send("both cases are gone")
        indices[got[0].index] += 1
    assert set(indices) <= {0, 1}
    ready = full("a", "b")
    case = select(ready.if_recv(), ready.if_recv())
    assert case.value == "a"
    assert len(ready) == 1


@main_goroutine
def test_two_values_for_the_same_channel():
    channel = makechan()
    for _ in range(50):
        waiting = go_parked(select, channel.if_send("a"), channel.if_send("b"))
        assert channel.recv() in ("a", "b")
        wait_ended(waiting)
        with pytest.raises(WouldBlock):
            channel.try_recv()


@main_goroutine
def test_a_select_never_serves_itself():
    channel = makechan()
    with pytest.raises(TimeoutError):
        select(channel.if_send(1), channel.if_recv(), timeout=0.002)
    assert select(channel.if_send(1), channel.if_recv(), default) is default
    waiting = go_parked(select, channel.if_recv(), channel.if_send("mine"))
    assert channel.recv() == "mine"
    wait_ended(waiting)


@main_goroutine
def test_send_and_receive_on_a_half_full_channel():
    channel = makechan(2)
    channel.send("x")
    seen = Counter()
    for _ in range(400):
        case = select(channel.if_send("x"), channel.if_recv())
        seen[case.index] += 1
        if case.index == 0:
            channel.recv()
        else:
            channel.send("x")
        assert len(channel) == 1
    assert min(seen[0], seen[1]) > 100, seen


@main_goroutine
def test_two_selects_meet():
    first, second = makechan(), makechan()
    for _ in range(100):
        left = []
        waiting = go_parked(lambda left=left: left.append(select(first.if_send("from left"), second.if_recv())))
        right = select(first.if_recv(), second.if_send("from right"))
        wait_ended(waiting)
        if right.index == 0:
            assert right.value == "from left" and left[0].index == 0
        else:
            assert left[0].index == 1 and left[0].value == "from right"


# ---- exactly one, and any one ----------------------------------------------------------------


@main_goroutine
def test_exactly_one_of_many_ready_cases_happens():
    for _ in range(100):
        receives = [full("v") for _ in range(4)]
        sends = [makechan(1) for _ in range(4)]
        case = select(*[each.if_recv() for each in receives], *[each.if_send("w") for each in sends])
        lengths = [len(each) for each in receives + sends]
        expected = [1, 1, 1, 1, 0, 0, 0, 0]
        expected[case.index] = 1 - expected[case.index]
        assert lengths == expected


@pytest.mark.parametrize("ready", [2, 3, 5, 16])
@pytest.mark.parametrize("direction", ["receive", "send", "both"])
@main_goroutine
def test_the_choice_among_the_ready_is_uniform(ready, direction):
    rounds = 400 * ready
    channels = [makechan(2) for _ in range(ready)]
    for channel in channels:
        channel.send("x")

    def case_of(number, channel):
        sends = direction == "send" or (direction == "both" and number % 2)
        return channel.if_send("x") if sends else channel.if_recv()

    seen = Counter()
    for _ in range(rounds):
        # One that cannot happen stands between the others and must not disturb their odds.
        cases = [case_of(number, channel) for number, channel in enumerate(channels)]
        case = select(nilchan.if_recv(), *cases)
        channel = channels[case.index - 1]
        if len(channel) == 0:
            channel.send("x")
        else:
            channel.recv()
        seen[case.index - 1] += 1
    # 400 are expected each, with a deviation of less than 20: ten deviations never happen.
    assert set(seen) == set(range(ready))
    assert all(200 < count < 600 for count in seen.values()), seen


@main_goroutine
def test_a_ready_channel_does_not_starve_another():
    busy, rare = makechan(), makechan()
    stop = makechan()

    def feed(channel):
        while select(channel.if_send("x"), stop.if_recv()).index == 0:
            pass

    feeders = [go(feed, busy), go(feed, busy), go(feed, rare)]
    seen = Counter()
    while seen["rare"] < 50:
        # Whoever feeds it may be kept from it by others.
        ready = rare.stats()["senders"]
        if select(busy.if_recv(), rare.if_recv()).index == 1:
            seen["rare"] += 1
        elif ready:
            seen["passed over"] += 1
        assert seen["passed over"] < 10_000, "the rare channel is starved"
    stop.close()
    wait_ended(*feeders)


@main_goroutine
def test_no_value_is_lost_or_doubled_between_many_selects(rng):
    channels = [makechan(size) for size in (0, 0, 1, 4)]
    producers, consumers, each = 6, 5, 150
    finished = offset.sync.WaitGroup()
    finished.add(producers)
    got = []

    def produce(producer):
        for number in range(each):
            order = rng.sample(channels, rng.randint(1, len(channels)))
            select(*[channel.if_send((producer, number)) for channel in order])
        finished.done()

    def consume():
        open_channels = list(channels)
        while open_channels:
            case = select(*[channel.if_recv() for channel in open_channels])
            if case.ok:
                got.append(case.value)
            else:
                del open_channels[case.index]

    consuming = [go(consume) for _ in range(consumers)]
    for producer in range(producers):
        go(produce, producer)
    finished.wait(timeout=PATIENCE)
    for channel in channels:
        channel.close()
    wait_ended(*consuming)
    assert Counter(got) == Counter((p, n) for p in range(producers) for n in range(each))


# ---- order and cancellation ------------------------------------------------------------------


@main_goroutine
def test_selects_and_plain_receives_queue_up_together():
    channel, other = makechan(), makechan()
    got = {}

    def plain(number):
        got[number] = channel.recv()

    def choosing(number):
        got[number] = select(other.if_recv(), channel.if_recv()).value

    waiting = [go_parked((plain, choosing)[number % 2], number) for number in range(10)]
    for number in range(10):
        channel.send(number)
    wait_ended(*waiting)
    assert got == {number: number for number in range(10)}


@main_goroutine
def test_a_select_served_elsewhere_gives_up_its_place():
    channel, other = makechan(), makechan()
    chooser = go_parked(select, channel.if_recv(), other.if_recv())
    behind = go_parked(channel.recv)
    other.send("elsewhere")
    wait_ended(chooser)
    assert channel.try_send("for the one behind")
    wait_ended(behind)
    assert not channel.try_send("nobody left")


@main_goroutine
def test_a_cancelled_select_leaves_nothing_on_any_channel():
    channels = [makechan() for _ in range(4)] + [full("x")]
    cases = [channels[0].if_recv(), channels[1].if_recv(), channels[2].if_send(1), channels[3].if_send(2)]
    waiting = go_parked(select, *cases, channels[4].if_send("y"))
    waiting.cancel()
    wait_ended(waiting)
    assert not channels[0].try_send(0)
    assert not channels[1].try_send(0)
    for channel in channels[2:4]:
        with pytest.raises(WouldBlock):
            channel.try_recv()
    assert channels[4].recv() == "x"
    assert len(channels[4]) == 0


@main_goroutine
def test_very_many_cases():
    channels = [makechan() for _ in range(2000)]
    chosen = []
    waiting = go(lambda: chosen.append(select(*[channel.if_recv() for channel in channels])))
    wait_parked(waiting)
    channels[1234].send("found")
    wait_ended(waiting)
    assert (chosen[0].index, chosen[0].value) == (1234, "found")
    assert not any(channel.try_send("left") for channel in channels)


# ---- exceptions and misuse -------------------------------------------------------------------


@main_goroutine
def test_a_sent_exception_leaves_the_other_channels_alone():
    broken, waiting = makechan(1), makechan()
    broken.send_exception(KeyError("from the other side"))
    with pytest.raises(KeyError, match="from the other side"):
        select(waiting.if_recv(), broken.if_recv())
    assert not waiting.try_send("nobody")


@pytest.mark.parametrize("thing", [None, 1, "case", object(), makechan], ids=repr)
def test_only_cases_can_be_selected(thing):
    ready = full("kept")
    with pytest.raises(TypeError):
        select(ready.if_recv(), thing)
    assert len(ready) == 1


def test_a_channel_is_no_case():
    channel = full("kept")
    with pytest.raises(TypeError):
        select(channel)
    with pytest.raises(TypeError):
        select([channel.if_recv()])
    with pytest.raises(TypeError):
        select(channel.if_recv(), nonsense=1)
    assert len(channel) == 1


@main_goroutine
def test_every_argument_is_evaluated_once_and_in_order():
    calls = []

    def note(name, thing):
        calls.append(name)
        return thing

    ready, empty = full("v"), makechan()
    case = select(
        note("receive", ready).if_recv(),
        note("send", empty).if_send(note("value", 1)),
        note("default", default),
    )
    assert case.value == "v"
    assert calls == ["receive", "send", "value", "default"]


# ---- what select keeps -----------------------------------------------------------------------


def test_selects_leave_no_references():
    probe = object()

    def choices():
        ready, empty, blocked = full(probe), makechan(), full(probe)
        select(empty.if_recv(), blocked.if_send(probe), ready.if_recv())
        select(empty.if_send(probe), blocked.if_send(probe), default)
        with pytest.raises(TimeoutError):
            select(empty.if_send(probe), timeout=0)
        empty.close()
        with pytest.raises(ChannelClosed):
            select(empty.if_send(probe))

    assert_no_growth(choices, probes=[probe])


def test_selects_that_wait_leave_no_references():
    probe = object()

    def program():
        channels = [makechan() for _ in range(3)]
        served = go_parked(select, *[channel.if_recv() for channel in channels])
        channels[1].send(probe)
        wait_ended(served)
        served = go_parked(select, *[channel.if_send(probe) for channel in channels])
        assert channels[2].recv() is probe
        cancelled = go_parked(select, *[channel.if_send(probe) for channel in channels])
        cancelled.cancel()
        wait_ended(served, cancelled)

    assert_no_growth(lambda: offset.run(program), probes=[probe])


def test_an_ended_goroutine_frees_the_values_of_its_cases():
    alive = offset.sync.atomic.Int()

    class Value:
        def __init__(self):
            alive.add(1)

        def __del__(self):
            alive.add(-1)

    def program():
        channels = [makechan() for _ in range(3)]

        def choose():
            select(*[channel.if_send(Value()) for channel in channels])

        waiting = go_parked(choose)
        assert alive.load() == 3
        channels[0].recv()
        wait_ended(waiting)

    offset.run(program)
    # Without the GIL what one thread drops of another's objects may wait for a collection.
    wait_until(lambda: (collect(), alive.load() == 0)[1], "all values freed")
