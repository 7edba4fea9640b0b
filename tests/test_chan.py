"""Channels: every promise of the API on making, sending, receiving, closing and ending.

What Go's own tests check is in test_chan_go.py, timeouts and cancelled waiters are in
test_chan_wait.py, OS threads in test_chan_threads.py, the garbage collector in test_chan_gc.py.
Invariant of this file: a test never assumes which goroutine runs next; where an order matters it
waits until the goroutines before are parked.
"""

from __future__ import annotations

import datetime
import sys
import threading
import traceback
import typing

import offset
import pytest
from helpers import (
    OVER,
    PATIENCE,
    RECEIVERS,
    SENDERS,
    SHORT,
    go_parked,
    main_goroutine,
    wait_ended,
    wait_parked,
)
from offset import (
    Chan,
    ChannelClosed,
    ChannelError,
    WouldBlock,
    go,
    makechan,
    nilchan,
    select,
)

SIZES = [0, 1, 3]

# ---- making ----------------------------------------------------------------------------------


def test_a_channel_is_unbuffered_and_unlabelled_unless_asked():
    channel = makechan()
    assert (channel.cap, len(channel), channel.label, channel.closed) == (0, 0, None, False)


@pytest.mark.parametrize("make", [makechan, Chan], ids=["makechan", "Chan"])
def test_size_and_label(make):
    channel = make(3, label="jobs")
    assert isinstance(channel, Chan)
    assert (channel.cap, len(channel), channel.label) == (3, 0, "jobs")
    assert make(2, "by position").label == "by position"
    assert make(size=4).cap == 4


@pytest.mark.parametrize("size", [-1, -(2**40), -(2**100)])
def test_a_negative_size_is_refused(size):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        makechan(size)


@pytest.mark.parametrize("size", [sys.maxsize, 2**62, 2**64, 2**100])
def test_a_huge_size_is_refused(size):
    with pytest.raises((ValueError, OverflowError, MemoryError)):
        makechan(size)


@pytest.mark.parametrize("size", [1.0, "1", None, b"1", [1], 1j])
def test_a_size_that_is_no_integer_is_refused(size):
    with pytest.raises(TypeError):
        makechan(size)


def test_a_size_may_be_anything_that_is_an_index():
    class Three:
        def __index__(self):
            return 3

    assert makechan(Three()).cap == 3


def test_a_large_size_is_fine():
    channel = makechan(100_000)
    for number in range(100_000):
        assert channel.try_send(number)
    assert len(channel) == 100_000
    assert not channel.try_send("one too many")
    assert [channel.try_recv()[0] for _ in range(100_000)] == list(range(100_000))


@pytest.mark.parametrize("size", SIZES)
def test_a_channel_is_true_empty_or_not(size):
    channel = makechan(size)
    assert bool(channel) is True
    while channel.try_send("x"):
        assert bool(channel) is True
    channel.close()
    assert bool(channel) is True
    assert bool(channel.sender()) is True
    assert bool(channel.receiver()) is True


def test_channels_are_equal_to_themselves_only():
    first, second = makechan(), makechan()
    assert first == first
    assert first != second
    assert {first: 1, second: 2}[second] == 2


def test_size_label_and_state_cannot_be_assigned():
    channel = makechan(1, label="fixed")
    for name in ("cap", "label", "closed"):
        with pytest.raises(AttributeError):
            setattr(channel, name, 5)
    assert (channel.cap, channel.label, channel.closed) == (1, "fixed", False)


@pytest.mark.parametrize("name", ["Chan", "SendChan", "RecvChan"])
def test_channel_types_take_a_parameter(name):
    kind = getattr(offset, name)
    alias = kind[int]
    assert typing.get_origin(alias) is kind
    assert typing.get_args(alias) == (int,)

    def annotated(channel: kind[str]) -> kind[bytes]:
        return channel

    assert typing.get_origin(typing.get_type_hints(annotated, localns={"kind": kind})["return"]) is kind


def test_a_parametrized_channel_type_makes_channels():
    channel = Chan[int](2)
    assert isinstance(channel, Chan)
    assert channel.cap == 2


def test_the_errors_are_related_as_promised():
    assert issubclass(ChannelError, Exception)
    assert issubclass(ChannelClosed, ChannelError)
    assert issubclass(WouldBlock, ChannelError)
    assert not issubclass(ChannelClosed, WouldBlock)
    assert not issubclass(WouldBlock, ChannelClosed)


# ---- sending and receiving -------------------------------------------------------------------


VALUES = [
    None,
    False,
    0,
    "",
    (),
    ValueError("a value like any other"),
    KeyError,
    NotImplemented,
    Ellipsis,
    StopIteration(),
    offset.default,
    nilchan,
    object(),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@main_goroutine
def test_any_object_is_an_ordinary_value(size, value, receive):
    channel = makechan(size)
    sender = go(channel.send, value)
    assert receive(channel) is value
    wait_ended(sender)


@main_goroutine
def test_a_channel_may_carry_itself():
    channel = makechan(1)
    channel.send(channel)
    assert channel.recv() is channel


@main_goroutine
def test_send_gives_none():
    channel = makechan(1)
    assert channel.send("x") is None


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@main_goroutine
def test_an_unbuffered_send_waits_for_its_receiver(send):
    channel = makechan()
    passed = []
    sender = go(lambda: (send(channel, "v"), passed.append(True)))
    wait_parked(sender)
    assert not passed
    assert len(channel) == 0
    assert channel.recv() == "v"
    wait_ended(sender)
    assert passed


@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@pytest.mark.parametrize("size", SIZES)
@main_goroutine
def test_a_receive_waits_for_its_sender(size, receive):
    channel = makechan(size)
    got = []
    receiver = go(lambda: got.append(receive(channel)))
    wait_parked(receiver)
    assert not got
    channel.send("v")
    wait_ended(receiver)
    assert got == ["v"]


@main_goroutine
def test_wait_reasons_are_those_of_go():
    channel = makechan()
    receiver = go_parked(channel.recv)
    assert receiver.wait_reason == "chan receive"
    channel.send(1)
    sender = go_parked(channel.send, 1)
    assert sender.wait_reason == "chan send"
    channel.recv()
    chooser = go_parked(select, channel.if_recv(), makechan().if_recv())
    assert chooser.wait_reason == "select"
    channel.send(1)
    wait_ended(receiver, sender, chooser)
    assert {each.wait_reason for each in (receiver, sender, chooser)} == {None}


@main_goroutine
def test_a_buffer_takes_as_many_as_its_size_without_waiting():
    channel = makechan(3)
    for number in range(3):
        channel.send(number, timeout=0)
        assert len(channel) == number + 1
    fourth = go_parked(channel.send, 3)
    assert len(channel) == 3
    assert [channel.recv() for _ in range(4)] == [0, 1, 2, 3]
    wait_ended(fourth)
    assert len(channel) == 0


@main_goroutine
def test_a_waiting_sender_moves_into_the_place_that_a_receive_frees():
    channel = makechan(2)
    channel.send("a")
    channel.send("b")
    waiting = go_parked(channel.send, "c")
    assert channel.recv() == "a"
    wait_ended(waiting)
    assert len(channel) == 2
    assert [channel.recv(), channel.recv()] == ["b", "c"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@main_goroutine
def test_blocked_senders_are_served_in_order(size, send):
    channel = makechan(size)
    for number in range(size):
        channel.send(number)
    senders = [go_parked(send, channel, number) for number in range(size, size + 20)]
    assert [channel.recv() for _ in range(size + 20)] == list(range(size + 20))
    wait_ended(*senders)


@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@main_goroutine
def test_blocked_receivers_are_served_in_order(receive):
    channel = makechan()
    got = {}

    def receiver(number):
        got[number] = receive(channel)

    receivers = [go_parked(receiver, number) for number in range(20)]
    for number in range(20):
        channel.send(number)
    wait_ended(*receivers)
    assert got == {number: number for number in range(20)}


@main_goroutine
def test_values_keep_their_order_through_a_wrapping_buffer(rng):
    channel = makechan(5)
    sent = received = 0
    while received < 500:
        for _ in range(rng.randint(0, 5)):
            sent += channel.try_send(sent)
        for _ in range(rng.randint(0, 5)):
            if len(channel):
                assert channel.recv() == received
                received += 1
    assert len(channel) == sent - received


# ---- closing ---------------------------------------------------------------------------------


@main_goroutine
def test_a_closed_channel_is_drained_first():
    channel = makechan(3)
    for number in range(3):
        channel.send(number)
    channel.close()
    assert channel.closed
    assert len(channel) == 3
    assert channel.recv() == 0
    assert channel.recv_ok() == (1, True)
    assert channel.try_recv() == (2, True)
    assert channel.recv_ok() == (None, False)
    assert channel.try_recv() == (None, False)
    with pytest.raises(ChannelClosed):
        channel.recv()
    assert list(channel) == []
    assert len(channel) == 0


@main_goroutine
def test_recv_ok_tells_none_from_the_end():
    channel = makechan(1)
    channel.send(None)
    channel.close()
    assert channel.recv_ok() == (None, True)
    assert channel.recv_ok() == (None, False)


@pytest.mark.parametrize("size", SIZES)
@main_goroutine
def test_sending_on_a_closed_channel_raises(size):
    channel = makechan(size)
    channel.close()
    attempts = [
        lambda: channel.send(1),
        lambda: channel.send(1, timeout=0),
        lambda: channel.try_send(1),
        lambda: channel.send_exception(ValueError()),
        lambda: select(channel.if_send(1)),
        lambda: select(channel.if_send(1), offset.default),
    ]
    for attempt in attempts:
        with pytest.raises(ChannelClosed):
            attempt()
    assert len(channel) == 0


def test_closing_twice_raises():
    channel = makechan(label="twice")
    channel.close()
    with pytest.raises(ChannelClosed, match="twice"):
        channel.close()
    assert channel.closed


@main_goroutine
def test_close_wakes_all_receivers():
    channel = makechan()
    ends = []

    def by_recv():
        with pytest.raises(ChannelClosed):
            channel.recv()
        ends.append("recv")

    def by_recv_ok():
        assert channel.recv_ok() == (None, False)
        ends.append("recv_ok")

    def by_loop():
        for value in channel:
            raise AssertionError(value)
        ends.append("loop")

    def by_select():
        case = select(channel.if_recv())
        assert (case.value, case.ok) == (None, False)
        ends.append("select")

    waiting = [go_parked(each) for each in (by_recv, by_recv_ok, by_loop, by_select) for _ in range(3)]
    channel.close()
    wait_ended(*waiting)
    assert sorted(ends) == sorted(["recv", "recv_ok", "loop", "select"] * 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@main_goroutine
def test_close_makes_waiting_senders_raise_and_drops_their_values(size, send):
    channel = makechan(size, label="shut")
    for number in range(size):
        channel.send(number)
    raised = []

    def sender():
        try:
            send(channel, "never received")
        except ChannelClosed as error:
            raised.append(str(error))

    waiting = [go_parked(sender) for _ in range(4)]
    channel.close()
    wait_ended(*waiting)
    assert len(raised) == 4
    assert all("shut" in text for text in raised)
    assert list(channel) == list(range(size))


@pytest.mark.parametrize("label", ["a label", "größe ✓", "with 'quotes'"])
def test_messages_name_the_channel(label):
    channel = makechan(label=label)
    channel.close()
    shown = label if "'" not in label else "quotes"
    for attempt in (channel.recv, channel.close, lambda: channel.send(1), lambda: channel.try_send(1)):
        with pytest.raises(ChannelClosed) as info:
            attempt()
        assert shown in str(info.value)


def test_messages_without_a_label_are_sentences_too():
    channel = makechan()
    channel.close()
    texts = []
    for attempt in (channel.recv, lambda: channel.send(1), channel.close):
        with pytest.raises(ChannelClosed) as info:
            attempt()
        texts.append(str(info.value))
    assert all(len(text.split()) >= 2 and "None" not in text for text in texts), texts
    assert texts[1] != texts[2], "a send and a close are different mistakes"


# ---- without waiting -------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_try_send_says_whether_it_did(size):
    channel = makechan(size)
    assert [channel.try_send(number) for number in range(size)] == [True] * size
    assert channel.try_send("too many") is False
    assert len(channel) == size


@main_goroutine
def test_try_send_serves_a_waiting_receiver():
    channel = makechan()
    got = []
    receiver = go_parked(lambda: got.append(channel.recv()))
    assert channel.try_send("v") is True
    wait_ended(receiver)
    assert got == ["v"]
    assert channel.try_send("nobody") is False


@main_goroutine
def test_try_recv_takes_what_is_there():
    channel = makechan(1)
    with pytest.raises(WouldBlock):
        channel.try_recv()
    channel.send(None)
    assert channel.try_recv() == (None, True)
    with pytest.raises(WouldBlock):
        channel.try_recv()


@main_goroutine
def test_try_recv_serves_a_waiting_sender():
    channel = makechan()
    sender = go_parked(channel.send, "v")
    assert channel.try_recv() == ("v", True)
    wait_ended(sender)


# ---- iteration -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@main_goroutine
def test_a_loop_ends_when_the_channel_is_closed_and_drained(size):
    channel = makechan(size)

    def produce():
        for number in range(10):
            channel.send(number)
        channel.close()

    go(produce)
    assert list(channel) == list(range(10))


@main_goroutine
def test_leaving_a_loop_leaves_the_rest_in_the_channel():
    channel = makechan(4)
    for number in range(4):
        channel.send(number)
    channel.close()
    for number in channel:
        if number == 1:
            break
    assert list(channel) == [2, 3]
    assert list(channel) == []


@main_goroutine
def test_two_loops_share_the_values():
    channel = makechan()
    got = [[], []]
    loops = [go(lambda bag: bag.extend(channel), bag) for bag in got]
    for number in range(100):
        channel.send(number)
    channel.close()
    wait_ended(*loops)
    assert sorted(got[0] + got[1]) == list(range(100))
    assert got[0] == sorted(got[0]) and got[1] == sorted(got[1])


@main_goroutine
def test_an_iterator_steps_by_hand():
    channel = makechan(1)
    iterator = iter(channel)
    channel.send("x")
    assert next(iterator) == "x"
    channel.close()
    assert next(iterator, "the end") == "the end"
    with pytest.raises(StopIteration):
        next(iterator)


@pytest.mark.parametrize("end", [False, True], ids=["channel", "receiving end"])
@main_goroutine
def test_delegating_to_a_channel_does_not_hand_it_over(end):
    """A generator passes its `close` and `send` on to what it delegates to with `yield from`."""
    channel = makechan(3)
    source = channel.receiver() if end else channel

    def delegate():
        yield from source

    for number in range(3):
        channel.send(number)
    generator = delegate()
    assert next(generator) == 0
    with pytest.raises(AttributeError):
        generator.send("not for the channel")
    generator = delegate()
    assert next(generator) == 1
    generator.close()
    assert not channel.closed
    assert (len(channel), channel.recv()) == (1, 2)


# ---- ends ------------------------------------------------------------------------------------


def test_an_end_lacks_what_it_forbids():
    channel = makechan(1)
    send_only, receive_only = channel.sender(), channel.receiver()
    for name in ("recv", "recv_ok", "try_recv", "if_recv", "receiver", "arecv"):
        assert not hasattr(send_only, name), name
        assert hasattr(channel, name), name
    for name in ("send", "try_send", "if_send", "send_exception", "close", "sender", "asend"):
        assert not hasattr(receive_only, name), name
        assert hasattr(channel, name), name
    with pytest.raises(TypeError):
        iter(send_only)


@main_goroutine
def test_ends_are_otherwise_the_channel():
    channel = makechan(2, label="both")
    send_only, receive_only = channel.sender(), channel.receiver()
    for end in (send_only, receive_only):
        assert (end.cap, end.label, end.closed, len(end)) == (2, "both", False, 0)
    send_only.send("a")
    assert send_only.try_send("b")
    assert not send_only.try_send("c")
    assert (len(send_only), len(receive_only), len(channel)) == (2, 2, 2)
    assert receive_only.recv() == "a"
    assert receive_only.recv_ok() == ("b", True)
    with pytest.raises(WouldBlock):
        receive_only.try_recv()
    case = select(send_only.if_send("c"), timeout=0)
    assert case.index == 0
    case = select(receive_only.if_recv(), timeout=0)
    assert case.value == "c"
    send_only.send("d")
    send_only.close()
    assert channel.closed and send_only.closed and receive_only.closed
    assert list(receive_only) == ["d"]
    with pytest.raises(ChannelClosed, match="both"):
        receive_only.recv()
    with pytest.raises(ChannelClosed, match="both"):
        send_only.send(1)


@main_goroutine
def test_ends_time_out_and_pass_exceptions():
    channel = makechan()
    send_only, receive_only = channel.sender(), channel.receiver()
    with pytest.raises(TimeoutError):
        send_only.send(1, timeout=0)
    with pytest.raises(TimeoutError):
        receive_only.recv(timeout=0)
    with pytest.raises(TimeoutError):
        receive_only.recv_ok(timeout=datetime.timedelta(milliseconds=1))
    go(send_only.send_exception, KeyError("through the ends"))
    with pytest.raises(KeyError, match="through the ends"):
        receive_only.recv()


# ---- the nil channel -------------------------------------------------------------------------


@main_goroutine
def test_the_nil_channel_blocks_for_ever():
    waiting = [go_parked(nilchan.recv), go_parked(nilchan.recv_ok), go_parked(nilchan.send, 1)]
    assert "chan receive" in waiting[0].wait_reason
    assert "chan send" in waiting[2].wait_reason
    for goroutine in waiting:
        goroutine.cancel()
    wait_ended(*waiting)


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_the_nil_channel_times_out(timeout):
    for attempt in (nilchan.recv, nilchan.recv_ok, lambda timeout: nilchan.send(1, timeout=timeout)):
        with pytest.raises(TimeoutError):
            attempt(timeout=timeout)


def test_the_nil_channel_without_waiting():
    assert nilchan.try_send(1) is False
    with pytest.raises(WouldBlock):
        nilchan.try_recv()
    assert (len(nilchan), nilchan.cap, nilchan.closed) == (0, 0, False)


def test_the_nil_channel_cannot_be_closed():
    with pytest.raises((ChannelError, RuntimeError, ValueError)) as info:
        nilchan.close()
    assert "nil" in str(info.value)
    assert not nilchan.closed


# ---- exceptions through a channel ------------------------------------------------------------


def fail_deep_down():
    raise LookupError("made far away")


def caught():
    try:
        fail_deep_down()
    except LookupError as error:
        return error


RAISERS = {
    **RECEIVERS,
    "try_recv": lambda channel: channel.try_recv(),
    "iteration": lambda channel: next(iter(channel)),
    "loop": list,
    "select with default": lambda channel: select(channel.if_recv(), offset.default),
    "timeout that is over": lambda channel: channel.recv(timeout=0),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("receive", RAISERS.values(), ids=RAISERS)
@main_goroutine
def test_a_sent_exception_is_raised_at_the_receiver(size, receive):
    channel = makechan(size)
    error = caught()
    if size:
        channel.send_exception(error)
        assert len(channel) == 1
        sender = None
    else:
        sender = go_parked(channel.send_exception, error)
    with pytest.raises(LookupError) as info:
        receive(channel)
    assert info.value is error
    functions = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "fail_deep_down" in functions, "where it was first raised"
    assert "test_a_sent_exception_is_raised_at_the_receiver" in functions, "where it was received"
    if sender is not None:
        wait_ended(sender)
    assert len(channel) == 0


@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
@main_goroutine
def test_a_sent_exception_reaches_a_waiting_receiver(receive):
    channel = makechan()
    seen = []

    def receiver():
        try:
            receive(channel)
        except LookupError as error:
            seen.append(error)

    waiting = go_parked(receiver)
    error = caught()
    channel.send_exception(error)
    wait_ended(waiting)
    assert seen == [error]


@main_goroutine
def test_sent_exceptions_keep_their_place_among_values():
    channel = makechan(4)
    channel.send(1)
    channel.send_exception(KeyError("two"))
    channel.send(3)
    channel.close()
    assert channel.recv() == 1
    with pytest.raises(KeyError, match="two"):
        channel.recv()
    assert list(channel) == [3]


@main_goroutine
def test_an_exception_sent_as_a_value_is_not_raised():
    channel = makechan(2)
    error = ValueError("only carried")
    channel.send(error)
    channel.send_exception(error)
    assert channel.recv() is error
    with pytest.raises(ValueError, match="only carried"):
        channel.recv()


@pytest.mark.parametrize("thing", [None, "text", 3, int, object()], ids=repr)
def test_only_exceptions_can_be_sent_as_exceptions(thing):
    channel = makechan(1)
    with pytest.raises(TypeError):
        channel.send_exception(thing)
    assert len(channel) == 0


# ---- misuse ----------------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    channel = makechan(1)
    for attempt in (
        channel.send,
        lambda: channel.send(1, 2, 3, 4),
        lambda: channel.send(1, nonsense=2),
        lambda: channel.recv(nonsense=2),
        lambda: channel.recv_ok(1, 2, 3),
        channel.try_send,
        lambda: channel.try_recv(1),
        lambda: channel.close(1),
        channel.if_send,
        lambda: channel.if_recv(1),
        lambda: makechan(1, "a", "b"),
        lambda: makechan(nonsense=1),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert (len(channel), channel.closed) == (0, False)


def test_channels_work_without_a_runtime_being_asked_for():
    """Buffered operations outside `run`, in the main thread and with no goroutine around."""
    channel = makechan(1)
    channel.send("x")
    assert channel.recv(timeout=PATIENCE) == "x"
    with pytest.raises(TimeoutError):
        channel.recv(timeout=0.002)
    assert threading.current_thread() is threading.main_thread()
