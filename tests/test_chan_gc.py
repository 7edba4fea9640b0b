"""The garbage collector and channels: what a channel holds is seen, and freed when it should be.

Values are watched through `Value`, which counts its live instances, and through weak references.
Invariants checked: a cycle through a channel is collected; a value that was received, drained, given
up or dropped by a close is not kept; a finalizer may use channels wherever it happens to run.
"""

from __future__ import annotations

import contextlib
import gc
import weakref

import offset
import pytest
from helpers import (
    PATIENCE,
    RECEIVERS,
    SENDERS,
    Thread,
    assert_no_growth,
    collect,
    go_parked,
    main_goroutine,
    wait_ended,
    wait_until,
)
from offset import ChannelClosed, WouldBlock, default, go, makechan, select


class Value:
    """An object that can be part of a cycle and be watched."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def is_freed(reference):
    """Is the object gone, once the collector has looked?"""
    collect()
    return reference() is None


# ---- cycles ----------------------------------------------------------------------------------


def cycle_through_a_buffer(value):
    channel = makechan(1)
    value.channel = channel
    channel.send(value)


def cycle_through_a_wrapped_buffer(value):
    channel = makechan(3)
    for _ in range(4):
        channel.send(None)
        channel.send(None)
        channel.recv()
        channel.recv()
    for _ in range(3):
        channel.send(value)
    value.channel = channel


def cycle_of_a_channel_in_itself(value):
    channel = makechan(2)
    channel.send(channel)
    channel.send(value)


def cycle_through_two_channels(value):
    first, second = makechan(2), makechan(2)
    first.send(second)
    second.send(first)
    second.send(value)


def cycle_through_a_closed_channel(value):
    channel = makechan(1)
    value.channel = channel
    channel.send(value)
    channel.close()


def cycle_through_a_sending_end(value):
    channel = makechan(1)
    value.end = channel.sender()
    channel.send(value)


def cycle_through_a_receiving_end(value):
    channel = makechan(1)
    value.end = channel.receiver()
    channel.send(value)


def cycle_through_an_iterator(value):
    channel = makechan(1)
    value.iterator = iter(channel)
    channel.send(value)


def cycle_through_a_send_case(value):
    value.case = makechan(1).if_send(value)


def cycle_through_a_receive_case(value):
    channel = makechan(1)
    value.case = channel.if_recv()
    channel.send(value)


def cycle_through_a_received_value(value):
    channel = makechan(1)
    channel.send(value)
    value.case = select(channel.if_recv())


def cycle_through_a_bound_method(value):
    channel = makechan(1)
    value.method = channel.recv
    channel.send(value)


def cycle_through_a_sent_exception(value):
    channel = makechan(1)
    try:
        raise LookupError(value)
    except LookupError as error:
        channel.send_exception(error)
    # The traceback leads to this frame, whose local variables lead to the channel.
    value.channel = channel


CYCLES = [function for name, function in sorted(globals().items()) if name.startswith("cycle_")]


@pytest.mark.parametrize("make", CYCLES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("inside", [False, True], ids=["thread", "goroutine"])
def test_a_cycle_is_collected(make, inside):
    def build():
        value = Value()
        reference = weakref.ref(value)
        make(value)
        return reference

    reference = offset.run(build) if inside else build()
    wait_until(lambda: is_freed(reference), "the collection of the cycle")


def test_the_collector_sees_what_a_channel_holds():
    values = [Value() for _ in range(5)]
    channel = makechan(5)
    assert gc.is_tracked(channel)
    # Move the start of the buffer, so that what it holds wraps around its end.
    for _ in range(3):
        channel.send(None)
        channel.recv()
    for count, value in enumerate(values):
        held = {id(thing) for thing in gc.get_referents(channel)}
        assert [id(each) in held for each in values] == [True] * count + [False] * (5 - count)
        channel.send(value)
    for count in range(5):
        channel.recv()
        held = {id(thing) for thing in gc.get_referents(channel)}
        assert [id(each) in held for each in values] == [False] * (count + 1) + [True] * (4 - count)


def test_the_collector_sees_what_a_case_holds():
    channel, value = makechan(1), Value()
    case = channel.if_send(value)
    assert gc.is_tracked(case)
    assert any(thing is value for thing in gc.get_referents(case))


# ---- values are let go -----------------------------------------------------------------------


def test_dropping_a_channel_frees_what_is_in_it():
    channel = makechan(3)
    references = []
    for _ in range(3):
        value = Value()
        references.append(weakref.ref(value))
        channel.send(value)
    del value
    assert all(reference() is not None for reference in references)
    del channel
    wait_until(lambda: all(map(is_freed, references)))


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@main_goroutine
def test_a_received_value_is_not_kept(size, receive):
    channel = makechan(size)

    def produce():
        channel.send(Value())

    producer = go(produce)
    value = receive(channel)
    wait_ended(producer)
    reference = weakref.ref(value)
    del value
    assert is_freed(reference)
    assert channel.cap == size


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@pytest.mark.parametrize("way", ["timeout", "cancel", "close"])
@main_goroutine
def test_a_value_that_was_not_sent_is_not_kept(send, way):
    channel = makechan()
    references = []

    def sender():
        value = Value()
        references.append(weakref.ref(value))
        try:
            send(channel, value, 0.01 if way == "timeout" else None)
        except TimeoutError:
            assert way == "timeout"
        except ChannelClosed:
            assert way == "close"

    if way == "timeout":
        goroutine = go(sender)
    else:
        goroutine = go_parked(sender)
        (goroutine.cancel if way == "cancel" else channel.close)()
    wait_ended(goroutine)
    wait_until(lambda: is_freed(references[0]), "the value of a send that failed")
    assert channel.closed is (way == "close")


@main_goroutine
def test_a_drained_closed_channel_keeps_nothing():
    channel = makechan(4)
    references = []
    for _ in range(4):
        value = Value()
        references.append(weakref.ref(value))
        channel.send(value)
    channel.close()
    del value
    for _ in channel:
        pass
    del _
    assert all(map(is_freed, references))
    assert channel.recv_ok() == (None, False)


@main_goroutine
def test_a_sent_exception_is_not_kept():
    channel = makechan(1)

    class Failure(Exception):
        pass

    def send():
        try:
            raise Failure
        except Failure as error:
            channel.send_exception(error)
            return weakref.ref(error)

    reference = send()
    assert not is_freed(reference)
    with pytest.raises(Failure):
        channel.recv()
    wait_until(lambda: is_freed(reference), "the exception")


def test_a_channel_goes_with_the_last_goroutine_that_waits_on_it():
    """A parked goroutine is a root, as a thread is; once it has ended its channel is free."""
    value = Value()
    reference = weakref.ref(value)

    def start(value):
        channel = makechan(1)
        channel.send(value)
        return go_parked(channel.send, "waits for ever")

    goroutine = start(value)
    del value
    assert not is_freed(reference)
    goroutine.cancel()
    wait_ended(goroutine)
    wait_until(lambda: is_freed(reference), "what the channel held")


# ---- counting references ---------------------------------------------------------------------


def test_channel_operations_leave_no_references():
    probe = Value()

    def operations():
        channel = makechan(2, label="probe")
        channel.send(probe)
        assert channel.recv() is probe
        assert channel.try_send(probe) and channel.try_send(probe)
        assert not channel.try_send(probe)
        with pytest.raises(TimeoutError):
            channel.send(probe, timeout=0)
        assert channel.recv_ok() == (probe, True)
        assert channel.try_recv() == (probe, True)
        with pytest.raises(WouldBlock):
            channel.try_recv()
        with pytest.raises(TypeError):
            channel.send(probe, timeout="soon")
        channel.sender().send(probe)
        assert next(iter(channel.receiver())) is probe
        channel.send(probe)
        channel.close()
        assert list(channel) == [probe]
        for attempt in (lambda: channel.send(probe), lambda: channel.try_send(probe), channel.recv):
            with pytest.raises(ChannelClosed):
                attempt()
        makechan(1).send(probe)

    assert_no_growth(operations, probes=[probe])


def test_exceptions_through_a_channel_leave_no_references():
    class Failure(Exception):
        pass

    def operations():
        channel = makechan(2)
        channel.send_exception(Failure())
        channel.send_exception(Failure())
        with pytest.raises(Failure):
            channel.recv()
        with pytest.raises(TypeError):
            channel.send_exception("text")

    assert_no_growth(operations, probes=[Failure])


def test_operations_that_wait_leave_no_references():
    probe = Value()

    def program():
        channel = makechan()
        receiver = go_parked(channel.recv)
        channel.send(probe)
        sender = go_parked(channel.send, probe)
        assert channel.recv() is probe
        cancelled = [go_parked(channel.send, probe), go_parked(channel.send, probe)]
        for goroutine in cancelled:
            goroutine.cancel()
        wait_ended(receiver, sender, *cancelled)
        closed = makechan()

        def refused():
            with pytest.raises(ChannelClosed):
                closed.send(probe)

        refused_sender = go_parked(refused)
        closed.close()
        wait_ended(refused_sender)

    assert_no_growth(lambda: offset.run(program), probes=[probe])


def test_threads_that_wait_leave_no_references():
    probe = Value()

    def program():
        channel = makechan()
        receiver = Thread(channel.recv)
        channel.send(probe)
        assert receiver.result() is probe
        sender = Thread(channel.send, probe)
        assert channel.recv() is probe
        sender.result()

    assert_no_growth(program, probes=[probe])


# ---- the collector at work in the middle of things -------------------------------------------


@pytest.fixture
def eager_collector():
    """Collect at nearly every allocation while the test runs."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_traffic_under_an_eager_collector(eager_collector, size):
    def program():
        channel, results = makechan(size), makechan(size)

        def square():
            for box in channel:
                results.send([box[0], box[0] * box[0], box])

        workers = [go(square) for _ in range(3)]

        def produce():
            for number in range(60):
                box = [number]
                box.append(box)
                channel.send(box)
            channel.close()

        go(produce)
        got = sorted((results.recv()[:2] for _ in range(60)), key=lambda pair: pair[0])
        assert got == [[number, number * number] for number in range(60)]
        wait_ended(*workers)

    offset.run(program)


@main_goroutine
def test_collecting_while_goroutines_are_parked_everywhere():
    channel, other, held = makechan(), makechan(), makechan(2)
    values = [Value() for _ in range(30)]
    held.send(values[0])
    held.send(values[1])
    parked = [go_parked(channel.send, value) for value in values[:10]]
    parked += [go_parked(other.recv) for _ in range(5)]
    parked += [go_parked(select, channel.if_send(value), held.if_send(value)) for value in values[10:20]]
    for _ in range(3):
        gc.collect()
    assert [channel.recv() for _ in range(20)] == values[:20]
    for _ in range(5):
        other.send(None)
    wait_ended(*parked)
    assert [held.recv(), held.recv()] == values[:2]


# ---- finalizers that use channels ------------------------------------------------------------


class Finalized:
    """An object whose finalizer calls a function; it must not matter where that happens."""

    def __init__(self, function):
        self.function = function

    def __del__(self):
        self.function()


def poke(channel, log):
    """Use a channel in every way that does not wait."""
    log.append(len(channel))
    with contextlib.suppress(WouldBlock):
        channel.try_recv()
    select(channel.if_recv(), default)
    if not channel.closed:
        channel.try_send("from a finalizer")


@pytest.mark.parametrize("way", ["timeout", "cancel", "close", "receive", "drop"])
def test_a_finalizer_may_use_the_channel_that_lets_it_go(way):
    """The value is freed at the moment the channel gives it up, so no lock may be held then."""
    log = []

    def program():
        channel = makechan(0 if way in ("timeout", "cancel", "close") else 1)

        def sender():
            try:
                channel.send(Finalized(lambda: poke(channel, log)), timeout=0.001 if way == "timeout" else None)
            except TimeoutError:
                assert way == "timeout"
            except ChannelClosed:
                assert way == "close"

        if way in ("cancel", "close"):
            goroutine = go_parked(sender)
            (goroutine.cancel if way == "cancel" else channel.close)()
        else:
            goroutine = go(sender)
        wait_ended(goroutine)
        if way == "receive":
            channel.recv()
        if way == "drop":
            other = makechan(1)
            other.send(channel.recv())
            del other
        wait_until(lambda: collect() or log, "the finalizer")

    offset.run(program)
    assert len(log) == 1


def test_a_finalizer_may_park():
    """In a goroutine a finalizer that waits for a channel lets the others run."""
    channel, finalized = makechan(), []

    def program():
        def finalize():
            finalized.append(channel.recv())

        def drop():
            Finalized(finalize)

        goroutine = go_parked(drop, reason="chan receive")
        channel.send("woken in __del__")
        wait_ended(goroutine)

    offset.run(program)
    assert finalized == ["woken in __del__"]


def test_a_finalizer_may_send_from_a_collection():
    notes = makechan(10)

    def program():
        for number in range(5):
            cycle = Value(finalized=Finalized(lambda number=number: notes.send(number)))
            cycle.self = cycle
            del cycle
        wait_until(lambda: collect() or len(notes) == 5, "five finalizers")
        notes.close()
        return sorted(notes)

    assert offset.run(program) == list(range(5))


def test_a_deep_chain_of_channels_is_freed():
    """Each channel holds the next one; freeing the first must not run out of stack."""

    def build():
        value = Value()
        reference = weakref.ref(value)
        inner = value
        for _ in range(100_000):
            channel = makechan(1)
            channel.send(inner)
            inner = channel
        return inner, reference

    chain, reference = build()
    assert reference() is not None
    del chain
    wait_until(lambda: is_freed(reference), "the end of the chain", timeout=PATIENCE)


@main_goroutine
def test_a_deep_chain_of_channels_is_freed_in_a_goroutine():
    value = Value()
    reference = weakref.ref(value)
    inner = value
    for _ in range(20_000):
        channel = makechan(1)
        channel.send(inner)
        inner = channel
    del value, inner, channel
    wait_until(lambda: is_freed(reference), "the end of the chain")
