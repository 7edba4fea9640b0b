"""Channels and select between goroutines and OS threads, in every combination, and without `run`.

An OS thread outside the runtime blocks as a thread does, while goroutines go on; this also holds
for the main thread of a plain script. Invariant of this file: that a thread waits on a channel is
seen in the channel's `stats()` or by what it makes possible, never guessed by sleeping.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter

import offset
import pytest
from helpers import (
    PATIENCE,
    RECEIVERS,
    SENDERS,
    Thread,
    go_parked,
    in_thread,
    main_goroutine,
    run_script,
    start_script,
    wait_ended,
    wait_until,
)
from offset import ChannelClosed, WouldBlock, default, go, makechan, nilchan, select

SIZES = [0, 1, 8]


class GoroutineTask:
    """A goroutine with the same face as `Thread`: whose result can be waited for."""

    def __init__(self, function, *args):
        self._results = []
        self._handle = go(lambda: self._results.append(function(*args)))

    def result(self):
        wait_ended(self._handle)
        (value,) = self._results
        return value


KINDS = {"goroutine": GoroutineTask, "thread": Thread}


def received_when_waiting(channel, value):
    """Send to a receiver that waits on an unbuffered channel, as soon as one does."""
    wait_until(lambda: channel.try_send(value), "a receiver on the channel")


def taken_when_waiting(channel):
    """Receive from a sender that waits on an unbuffered channel, as soon as one does."""
    taken = []

    def attempt():
        try:
            taken.append(channel.try_recv())
        except WouldBlock:
            return False
        return True

    wait_until(attempt, "a sender on the channel")
    return taken[0][0]


# ---- every combination -----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sender_kind", KINDS)
@pytest.mark.parametrize("receiver_kind", KINDS)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@pytest.mark.parametrize("receive", [*RECEIVERS.values(), None], ids=[*RECEIVERS, "iteration"])
def test_values_pass_in_order(size, sender_kind, receiver_kind, send, receive):
    channel = makechan(size)

    def produce():
        for number in range(50):
            send(channel, number)
        channel.close()

    def consume():
        if receive is None:
            return list(channel)
        return [receive(channel) for _ in range(50)]

    consumer = KINDS[receiver_kind](consume)
    producer = KINDS[sender_kind](produce)
    assert consumer.result() == list(range(50))
    producer.result()
    assert len(channel) == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("inside_run", [False, True], ids=["no run", "run"])
def test_a_crowd_of_both_kinds(size, inside_run):
    def program():
        channel = makechan(size)
        producers = [list(KINDS.values())[number % 2](produce, channel, number) for number in range(6)]
        consumers = [list(KINDS.values())[number % 2](list, channel) for number in range(6)]
        for producer in producers:
            producer.result()
        channel.close()
        got = [value for consumer in consumers for value in consumer.result()]
        assert Counter(got) == Counter((producer, number) for producer in range(6) for number in range(100))

    def produce(channel, producer):
        for number in range(100):
            channel.send((producer, number))

    if inside_run:
        offset.run(program)
    else:
        program()


@pytest.mark.parametrize("here", ["main thread", "goroutine"])
def test_ping_pong_with_a_thread(here):
    ping, pong = makechan(), makechan()

    def answer():
        for number in ping:
            pong.send(number + 1)
        pong.close()

    def ask():
        other = Thread(answer)
        number = 0
        for _ in range(200):
            ping.send(number)
            number = pong.recv()
        ping.close()
        assert number == 200
        with pytest.raises(ChannelClosed):
            pong.recv()
        other.result()

    if here == "goroutine":
        offset.run(ask)
    else:
        ask()


@pytest.mark.parametrize("receiver_kind", KINDS)
@pytest.mark.parametrize("size", [0, 2])
def test_a_sent_exception_crosses_over(receiver_kind, size):
    channel = makechan(size)
    error = KeyError("across")

    def receive():
        try:
            channel.recv()
        except KeyError as caught:
            return caught
        return None

    receiver = KINDS[receiver_kind](receive)
    sender = Thread(channel.send_exception, error)
    assert receiver.result() is error
    sender.result()


# ---- order and wake-ups ----------------------------------------------------------------------


def waiting(channel, direction):
    """How many waiters of a channel are queued; the only way to see that a thread is parked."""
    return channel.stats()[direction]


@pytest.mark.parametrize("receive", RECEIVERS.values(), ids=RECEIVERS)
def test_waiting_receivers_of_both_kinds_are_served_in_order(receive):
    channel = makechan()
    tasks = []
    for number in range(10):
        tasks.append(list(KINDS.values())[number % 2](receive, channel))
        wait_until(lambda number=number: waiting(channel, "receivers") == number + 1, "one more receiver")
    for number in range(10):
        channel.send(number)
    assert [task.result() for task in tasks] == list(range(10))
    assert waiting(channel, "receivers") == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_waiting_senders_of_both_kinds_are_served_in_order(size, send):
    channel = makechan(size)
    for number in range(size):
        channel.send(number)
    tasks = []
    for number in range(10):
        tasks.append(list(KINDS.values())[number % 2](send, channel, size + number))
        wait_until(lambda number=number: waiting(channel, "senders") == number + 1, "one more sender")
    assert [channel.recv() for _ in range(size + 10)] == list(range(size + 10))
    for task in tasks:
        task.result()
    assert waiting(channel, "senders") == 0


@pytest.mark.parametrize("receiver_kind", KINDS)
def test_close_wakes_receivers_of_both_kinds(receiver_kind):
    channel = makechan()
    receivers = [KINDS[receiver_kind](channel.recv_ok) for _ in range(4)]
    wait_until(lambda: waiting(channel, "receivers") == 4, "four receivers")
    channel.close()
    assert [each.result() for each in receivers] == [(None, False)] * 4


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_close_makes_a_waiting_thread_that_sends_raise(send):
    channel = makechan(label="shut")
    thread = Thread(send, channel, "lost")
    wait_until(lambda: waiting(channel, "senders") == 1, "the sender")
    channel.close()
    with pytest.raises(ChannelClosed, match="shut"):
        thread.result()
    assert channel.recv_ok() == (None, False)


def test_a_thread_does_not_stop_the_goroutines():
    """A thread blocks for a value that only comes when goroutines have run a long way."""
    result = makechan()
    steps = []

    def worker():
        for number in range(1000):
            steps.append(number)
            offset.gosched()
        result.send(len(steps))

    def waiting_thread():
        go(worker)
        return result.recv()

    assert in_thread(waiting_thread) == 1000


@main_goroutine
def test_a_waiting_goroutine_does_not_stop_the_threads():
    event = threading.Event()
    channel = makechan()

    def thread():
        event.wait(PATIENCE)
        channel.send("released")

    other = Thread(thread)
    go(event.set)
    assert channel.recv() == "released"
    other.result()


# ---- timeouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, 0.002])
def test_threads_time_out_and_leave_nothing(timeout):
    def attempts():
        channel = makechan()
        for receive in RECEIVERS.values():
            with pytest.raises(TimeoutError):
                receive(channel, timeout)
        assert not channel.try_send("nobody")
        for send in SENDERS.values():
            with pytest.raises(TimeoutError):
                send(channel, "v", timeout)
        with pytest.raises(WouldBlock):
            channel.try_recv()
        with pytest.raises(TimeoutError):
            nilchan.recv(timeout=timeout)
        with pytest.raises(TimeoutError):
            select(timeout=timeout)
        return "done"

    assert attempts() == "done"
    assert in_thread(attempts) == "done"


def test_a_thread_with_a_long_timeout_is_served_at_once():
    channel = makechan()
    thread = Thread(channel.recv, timeout=PATIENCE)
    received_when_waiting(channel, "served")
    assert thread.result() == "served"
    thread = Thread(channel.send, "given", timeout=PATIENCE)
    assert taken_when_waiting(channel) == "given"
    assert thread.result() is None


def test_timeouts_of_threads_race_with_goroutines(rng):
    """What receivers that give up got, and what senders that give up sent, is the same."""
    channel = makechan()
    delays = [rng.choice([0, 1e-6, 2e-5, 2e-4]) for _ in range(600)]
    sent, got = [], []

    def sender(place):
        for number in range(place, 600, 4):
            try:
                channel.send(number, timeout=delays[number])
                sent.append(number)
            except TimeoutError:
                pass

    def receiver(place):
        for number in range(place, 600, 4):
            with contextlib.suppress(TimeoutError):
                got.append(channel.recv(timeout=delays[-number]))

    tasks = []
    for place, kind in enumerate(["thread", "goroutine"] * 2):
        tasks.append(KINDS[kind](sender, place))
        tasks.append(KINDS[kind](receiver, place))
    for task in tasks:
        task.result()
    assert sorted(sent) == sorted(got)


# ---- select from threads ---------------------------------------------------------------------


def test_select_in_a_thread():
    first, second = makechan(), makechan()
    case = second.if_recv()
    thread = Thread(select, first.if_recv(), case)
    received_when_waiting(second, "v")
    chosen = thread.result()
    assert chosen is case
    assert (chosen.index, chosen.value, chosen.ok) == (1, "v", True)
    assert not first.try_send("left behind")


def test_a_sending_select_in_a_thread():
    first, second = makechan(), makechan()
    thread = Thread(select, first.if_send("a"), second.if_send("b"))
    assert taken_when_waiting(second) == "b"
    assert thread.result().index == 1
    with pytest.raises(WouldBlock):
        first.try_recv()


def test_select_with_default_in_a_thread():
    channel = makechan(1)
    assert in_thread(select, channel.if_recv(), default) is default
    assert in_thread(select, channel.if_send("x"), default).index == 0
    assert in_thread(select, channel.if_recv(), default).value == "x"


def test_threads_and_goroutines_meet_in_selects():
    """Each side offers both directions on two channels; every meeting moves one value."""
    left, right = makechan(), makechan()
    rounds = 200

    def side(mine):
        sent, got = [], []
        number = 0
        while len(sent) + len(got) < rounds:
            case = select(left.if_send((mine, number)), right.if_recv())
            if case.index == 0:
                sent.append((mine, number))
            else:
                got.append(case.value)
            number += 1
        return sent, got

    def mirror(mine):
        sent, got = [], []
        number = 0
        while len(sent) + len(got) < rounds:
            case = select(right.if_send((mine, number)), left.if_recv())
            if case.index == 0:
                sent.append((mine, number))
            else:
                got.append(case.value)
            number += 1
        return sent, got

    thread = Thread(side, "thread")
    goroutine = GoroutineTask(mirror, "goroutine")
    thread_sent, thread_got = thread.result()
    goroutine_sent, goroutine_got = goroutine.result()
    assert thread_sent == goroutine_got
    assert goroutine_sent == thread_got


def test_a_select_in_the_main_thread_without_run():
    results, done = makechan(), makechan()

    def worker(number):
        results.send(number * number)

    def closer(handles):
        wait_ended(*handles)
        done.close()

    handles = [go(worker, number) for number in range(20)]
    go(closer, handles)
    got = []
    while True:
        case = select(results.if_recv(), done.if_recv(), timeout=PATIENCE)
        if case.index == 1:
            break
        got.append(case.value)
    assert sorted(got) == [number * number for number in range(20)]


def test_many_threads_in_one_select():
    channels = [makechan() for _ in range(4)]
    stop = makechan()

    def chooser():
        got = []
        while True:
            case = select(*[channel.if_recv() for channel in channels], stop.if_recv())
            if case.index == len(channels):
                return got
            got.append(case.value)

    choosers = [Thread(chooser) for _ in range(4)]

    def produce(channel, name):
        for number in range(100):
            channel.send((name, number))

    producers = [GoroutineTask(produce, channel, name) for name, channel in enumerate(channels)]
    for producer in producers:
        producer.result()
    stop.close()
    got = [value for each in choosers for value in each.result()]
    assert Counter(got) == Counter((name, number) for name in range(4) for number in range(100))


# ---- waiting alongside a cancelled goroutine -------------------------------------------------


def test_a_cancelled_goroutine_leaves_the_value_to_a_thread():
    channel = makechan()
    goroutine = go_parked(channel.recv)
    goroutine.cancel()
    wait_ended(goroutine)
    thread = Thread(channel.recv)
    received_when_waiting(channel, "for the thread")
    assert thread.result() == "for the thread"


# ---- a plain script --------------------------------------------------------------------------


def test_a_plain_script_needs_no_run():
    finished = run_script(
        """
        from offset import go, makechan, select

        words = makechan()

        def say(*all_words):
            for word in all_words:
                words.send(word)
            words.close()

        go(say, "hello", "world")
        for word in words:
            print(word)

        squares = makechan(3)
        for number in range(3):
            go(lambda number=number: squares.send(number * number))
        print(sorted(squares.recv() for _ in range(3)))
        ticks = makechan()
        go(ticks.send, "tick")
        print(select(ticks.if_recv()).value)
        """
    )
    assert finished == (0, "hello\nworld\n[0, 1, 4]\ntick\n", "")


def test_a_plain_script_with_threads_only():
    finished = run_script(
        """
        import threading
        from offset import makechan

        channel = makechan()
        thread = threading.Thread(target=channel.send, args=("no goroutine anywhere",))
        thread.start()
        print(channel.recv())
        thread.join()
        """
    )
    assert finished == (0, "no goroutine anywhere\n", "")


@pytest.mark.parametrize(
    "wait",
    [
        "channel.recv()",
        "channel.recv(timeout=1000)",
        "channel.recv_ok()",
        "channel.send(1)",
        "list(channel)",
        "select(channel.if_recv(), other.if_send(1))",
        "select()",
        "nilchan.recv()",
    ],
)
def test_ctrl_c_ends_the_wait_of_the_main_thread(wait):
    """And what it waited on is usable afterwards: the waiter is gone from the queue."""
    program = f"""
    import sys, threading
    from offset import WouldBlock, go, makechan, nilchan, select, sleep

    channel, other = makechan(), makechan()
    main = threading.get_ident()

    def wait():
        {wait}

    def announce():
        # From here a signal finds the main thread in the wait, or on its last step into it.
        while sys._current_frames()[main].f_code is not wait.__code__:
            sleep(0.001)
        print("ready", flush=True)

    try:
        go(announce)
        wait()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    input()
    assert not channel.try_send("nobody waits")
    for each in (channel, other):
        try:
            each.try_recv()
        except WouldBlock:
            print("empty")
    """
    with start_script(program) as process:
        assert process.stdout.readline() == "ready\n"
        lines = []
        reader = Thread(lambda: lines.append(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        wait_until(lambda: lines, "the end of the wait")
        reader.result()
        assert lines == ["interrupted\n"], process.stderr.read() if lines == [""] else lines
        stdout, stderr = process.communicate("\n", timeout=PATIENCE)
    assert (process.returncode, stdout, stderr) == (0, "empty\nempty\n", "")


def test_a_signal_handler_runs_while_the_main_thread_waits():
    """The handler itself sends what the main thread waits for."""
    channel = makechan(1)
    calls = []

    def handler(number, frame):
        calls.append(number)
        channel.try_send("from the handler")

    before, over = signal.signal(signal.SIGUSR1, handler), []
    kicker = Thread(lambda: wait_until(lambda: kick() or calls or over))
    try:
        assert channel.recv(timeout=PATIENCE) == "from the handler"
    finally:
        # Nobody sends it any more, and what is still on its way is dropped, before it would end this process.
        over.append(True)
        kicker.result()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, before)
    assert set(calls) == {signal.SIGUSR1}


def kick():
    """Send this process the signal of the test above."""
    if threading.main_thread().is_alive():
        os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.001)


# ---- threads that end, and many of them ------------------------------------------------------


def test_threads_that_come_and_go():
    channel = makechan()
    for number in range(100):
        thread = Thread(channel.send, number)
        assert channel.recv() == number
        thread.result()


def test_a_value_outlives_the_thread_that_sent_it():
    channel = makechan(3)
    for number in range(3):
        in_thread(channel.send, [number])
    assert [channel.recv() for _ in range(3)] == [[0], [1], [2]]


def test_a_channel_made_in_a_thread_serves_goroutines():
    channel = in_thread(makechan, 0, "made elsewhere")
    assert channel.label == "made elsewhere"

    def program():
        go(channel.send, 1)
        return channel.recv()

    assert offset.run(program) == 1
