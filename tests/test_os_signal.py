"""`offset.os.signal`: signals as values on channels, with the rules of Go's `os/signal`.

Invariants: what may end the process is in test_os_signal_programs.py; the signals that are used here have come, or
are harmless, before nobody is notified of them any more. When `os.kill` returns, another thread may be about to
handle the signal: nobody asserts that something has come without waiting for it.
"""

import asyncio
import contextlib
import errno
import faulthandler
import os
import signal as python
import subprocess
import sys
import tempfile

import offset
import pytest
from helpers import (
    PATIENCE,
    Thread,
    assert_no_growth,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_until,
)
from offset import _runtime, context, go, makechan, nilchan, select, sync
from offset.os import signal

USR1, USR2, HUP, WINCH = python.SIGUSR1, python.SIGUSR2, python.SIGHUP, python.SIGWINCH


def kill(number):
    os.kill(os.getpid(), number)


def recv(channel):
    return channel.recv(timeout=PATIENCE)


def empty(channel):
    try:
        channel.try_recv()
    except offset.WouldBlock:
        return True
    return False


@pytest.fixture(autouse=True)
def nothing_stays():
    """The signals are as before the test; those that it sends end nothing, whatever becomes of the channel."""
    before = {number: python.getsignal(number) for number in python.valid_signals()}
    for number in (USR1, USR2, HUP):
        python.signal(number, lambda number, frame: None)
    yield
    signal.reset()
    assert _runtime.signal_wanted() == _runtime.signal_held() == 0
    for number, handler in before.items():
        if python.getsignal(number) is not handler:
            # What is still on its way is dropped.
            python.signal(number, python.SIG_IGN)
            python.signal(number, handler)


def as_main_goroutine(function):
    return offset.run(function)


def as_plain_thread(function):
    return in_thread(function)


def as_main_thread(function):
    return function()


EVERYWHERE = pytest.mark.parametrize("where", [as_main_goroutine, as_plain_thread, as_main_thread])


# ---- notify ----------------------------------------------------------------------------------


@EVERYWHERE
def test_a_signal_is_received(where):
    def receive():
        channel = makechan(1)
        signal.notify(channel, HUP)
        kill(HUP)
        received = recv(channel)
        signal.stop(channel)
        return received

    assert where(receive) is HUP


@main_goroutine
def test_a_goroutine_that_waits_is_woken():
    channel = makechan()
    signal.notify(channel, USR1)
    received = []
    receiver = go_parked(lambda: received.append(channel.recv()))
    kill(USR1)
    wait_ended(receiver)
    assert received == [python.SIGUSR1]


def test_a_thread_that_waits_is_woken():
    channel = makechan()
    signal.notify(channel, USR1)
    receiver = Thread(channel.recv)
    wait_until(lambda: channel.stats()["receivers"])
    kill(USR1)
    assert receiver.result() is USR1


@main_goroutine
def test_everything_that_receives_gets_the_signal():
    channel = makechan(1)
    signal.notify(channel, USR1)
    kill(USR1)
    assert channel.recv_ok(timeout=PATIENCE) == (USR1, True)
    kill(USR1)
    assert select(channel.if_recv(), timeout=PATIENCE).value is USR1
    kill(USR1)
    assert next(iter(channel)) is USR1
    kill(USR1)
    wait_until(lambda: len(channel))
    assert channel.try_recv() == (USR1, True)


def test_a_task_of_asyncio_gets_the_signal():
    channel = makechan(1)
    signal.notify(channel, USR1)

    async def receive():
        kill(USR1)
        return await channel.arecv(timeout=PATIENCE)

    assert asyncio.run(receive()) is USR1


@main_goroutine
def test_each_channel_gets_a_copy_and_a_full_one_holds_up_nobody():
    one, every = makechan(1), makechan(1)
    signal.notify(one, HUP)
    kill(HUP)
    wait_until(lambda: len(one))
    signal.notify(every)
    kill(WINCH)
    assert recv(every) is WINCH
    for _ in range(2):
        kill(HUP)
        assert recv(every) is HUP
    assert len(one) == 1
    assert recv(one) is HUP


@main_goroutine
def test_an_unbuffered_channel_drops_when_nobody_waits():
    unbuffered, other = makechan(), makechan(1)
    signal.notify(unbuffered, USR1)
    signal.notify(other, USR1)
    kill(USR1)
    assert recv(other) is USR1
    assert empty(unbuffered)


@main_goroutine
def test_further_calls_add_signals_and_no_copies():
    channel, other = makechan(8), makechan(1)
    signal.notify(channel, USR1)
    signal.notify(channel, USR1, USR2)
    signal.notify(channel.sender(), USR2)
    signal.notify(other, USR1, USR2)
    for number in (USR1, USR2):
        kill(number)
        assert recv(channel) is number
        assert recv(other) is number
    assert empty(channel)


@main_goroutine
def test_signals_that_came_before_are_not_sent():
    python_handler_of_the_main_thread = python.getsignal(WINCH)
    kill(WINCH)
    first = makechan(1)
    signal.notify(first, USR1)
    kill(USR1)
    recv(first)
    second = makechan(1)
    signal.notify(second, USR1)
    assert empty(second)
    assert python.getsignal(WINCH) is python_handler_of_the_main_thread


@main_goroutine
def test_without_signals_all_that_can_be_caught():
    channel = makechan(1)
    signal.notify(channel)
    for number in sorted(python.valid_signals() - {python.SIGKILL, python.SIGSTOP}):
        kill(number)
        assert recv(channel) == number


@main_goroutine
def test_a_signal_without_a_name_is_a_number():
    channel = makechan(1)
    number = int(python.SIGRTMIN) + 3
    signal.notify(channel, number)
    kill(number)
    received = recv(channel)
    assert received == number
    assert type(received) is int


@main_goroutine
def test_sigcont_can_be_notified():
    channel = makechan(1)
    signal.notify(channel, python.SIGCONT)
    kill(python.SIGCONT)
    assert recv(channel) is python.SIGCONT


@main_goroutine
def test_a_child_that_ends_is_notified_and_waited_for():
    channel = makechan(1)
    signal.notify(channel, python.SIGCHLD)
    process = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    assert recv(channel) is python.SIGCHLD
    assert process.wait() == 3


@main_goroutine
def test_other_values_on_the_channel_are_left_alone():
    channel = makechan(3)
    channel.send("before")
    signal.notify(channel, USR1)
    kill(USR1)
    wait_until(lambda: len(channel) == 2)
    channel.send("after")
    assert [recv(channel) for _ in range(3)] == ["before", USR1, "after"]


@main_goroutine
def test_a_closed_channel_drops():
    closed, other = makechan(1), makechan(1)
    signal.notify(closed, USR1)
    closed.close()
    signal.notify(other, USR1)
    kill(USR1)
    assert recv(other) is USR1
    assert closed.recv_ok() == (None, False)


@main_goroutine
def test_what_cannot_be_caught_is_refused_and_changes_nothing():
    channel = makechan(1)
    for refused in (python.SIGKILL, python.SIGSTOP):
        for call in (lambda *signals: signal.notify(channel, *signals), signal.ignore):
            with pytest.raises(OSError, match=refused.name) as caught:
                call(USR1, refused)
            assert caught.value.errno == errno.EINVAL
    assert _runtime.signal_held() == 0
    signal.reset(python.SIGKILL)
    assert not signal.ignored(python.SIGKILL)


@pytest.mark.parametrize("number", [0, -1, python.NSIG, 10**6, 2**70])
def test_numbers_that_are_no_signals(number):
    channel = makechan(1)
    for call in (lambda it: signal.notify(channel, it), signal.ignore, signal.ignored, signal.reset):
        with pytest.raises(ValueError, match="no signal"):
            call(number)


@pytest.mark.parametrize("wrong", ["SIGUSR1", 1.5, None, object()], ids=lambda wrong: type(wrong).__name__)
def test_objects_that_are_no_signals(wrong):
    channel = makechan(1)
    for call in (lambda it: signal.notify(channel, it), signal.ignore, signal.ignored, signal.reset):
        with pytest.raises(TypeError):
            call(wrong)


def test_what_is_no_channel_to_send_on():
    for wrong in (makechan(1).receiver(), None, [], "channel"):
        with pytest.raises(TypeError, match="channel"):
            signal.notify(wrong, USR1)
    for wrong in (None, [], "channel"):
        with pytest.raises(TypeError, match="channel"):
            signal.stop(wrong)
    with pytest.raises(ValueError, match="nilchan"):
        signal.notify(nilchan, USR1)
    signal.stop(nilchan)
    assert _runtime.signal_held() == 0


# ---- stop, reset, ignore ---------------------------------------------------------------------


@main_goroutine
def test_after_stop_nothing_comes():
    stopped, other = makechan(4), makechan(4)
    for channel in (stopped, other):
        signal.notify(channel, USR1, WINCH)
    kill(USR1)
    assert recv(stopped) is recv(other) is USR1
    signal.stop(stopped)
    for number in (USR1, WINCH):
        kill(number)
        assert recv(other) is number
    assert empty(stopped)
    signal.stop(other)
    kill(WINCH)
    assert empty(other)
    signal.stop(other)
    signal.stop(makechan())


@main_goroutine
def test_what_came_before_stop_is_in_the_channel():
    for _ in range(200):
        channel = makechan(1)
        signal.notify(channel, USR1)
        # To this thread: the handler has been called when this returns, and perhaps nothing has been sent yet.
        python.raise_signal(USR1)
        signal.stop(channel)
        assert channel.try_recv() == (USR1, True)


# Ways to cease to be notified, by name.
WAYS = {
    "stop": signal.stop,
    "reset": lambda channel: signal.reset(USR1),
    "reset all": lambda channel: signal.reset(),
    "ignore, reset": lambda channel: (signal.ignore(USR1), signal.reset(USR1)),
    "stop, ignore, notify, stop": lambda channel: (
        signal.stop(channel),
        signal.ignore(USR1),
        signal.notify(channel, USR1),
        signal.stop(channel),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@EVERYWHERE
def test_the_handler_that_was_there_before_comes_back(way, where):
    handled = []

    def handler(number, frame):
        handled.append(number)

    python.signal(USR1, handler)

    def notified():
        channel = makechan(1)
        signal.notify(channel, USR1)
        kill(USR1)
        assert recv(channel) is USR1
        assert handled == []
        WAYS[way](channel)

    where(notified)
    assert python.getsignal(USR1) is handler
    kill(USR1)
    wait_until(lambda: handled)
    assert handled == [USR1]


@pytest.mark.parametrize("before", [python.SIG_IGN, python.SIG_DFL])
@pytest.mark.parametrize("way", WAYS)
def test_what_the_kernel_did_before_comes_back(before, way):
    python.signal(USR1, before)
    channel = makechan(1)
    signal.notify(channel, USR1)
    assert not signal.ignored(USR1)
    kill(USR1)
    assert recv(channel) is USR1
    WAYS[way](channel)
    assert python.getsignal(USR1) is before
    assert signal.ignored(USR1) == (before is python.SIG_IGN)


def test_a_handler_in_c_comes_back():
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.register(USR2, file, all_threads=False)
        try:
            channel = makechan(1)
            signal.notify(channel, USR2)
            kill(USR2)
            assert recv(channel) is USR2
            assert os.fstat(file.fileno()).st_size == 0
            signal.stop(channel)
            python.raise_signal(USR2)
            assert os.fstat(file.fileno()).st_size > 0
        finally:
            faulthandler.unregister(USR2)


def test_a_handler_that_is_set_later_stays():
    channel = makechan(1)
    signal.notify(channel, USR1)
    handled = []
    python.signal(USR1, lambda number, frame: handled.append(number))
    signal.stop(channel)
    kill(USR1)
    wait_until(lambda: handled)
    # ... and is what was there before when it is notified anew.
    signal.notify(channel, USR1)
    kill(USR1)
    assert recv(channel) is USR1
    signal.stop(channel)
    kill(USR1)
    wait_until(lambda: len(handled) == 2)
    assert empty(channel)


def test_a_notify_takes_a_handler_s_place_again():
    channel = makechan(1)
    signal.notify(channel, USR1)
    python.signal(USR1, lambda number, frame: None)
    signal.notify(channel, USR1)
    kill(USR1)
    assert recv(channel) is USR1


@pytest.mark.parametrize("end", ["reset", "ignore"])
@main_goroutine
def test_reset_and_ignore_end_it_for_every_channel(end):
    first, second, other = makechan(1), makechan(1), makechan(1)
    signal.notify(first, WINCH)
    signal.notify(second, WINCH, USR2)
    signal.notify(other, USR1)
    kill(WINCH)
    assert recv(first) is recv(second) is WINCH
    getattr(signal, end)(WINCH)
    assert signal.ignored(WINCH) == (end == "ignore")
    kill(WINCH)
    # The other signals of these channels go on.
    kill(USR2)
    assert recv(second) is USR2
    kill(USR1)
    assert recv(other) is USR1
    assert empty(first)
    assert empty(second)


@main_goroutine
def test_ignored_follows_what_happens():
    channel = makechan(1)
    assert not signal.ignored(WINCH)
    signal.notify(channel, WINCH)
    assert not signal.ignored(WINCH)
    signal.stop(channel)
    signal.ignore(WINCH)
    assert signal.ignored(WINCH)
    kill(WINCH)
    signal.notify(channel, WINCH)
    assert not signal.ignored(WINCH)
    kill(WINCH)
    assert recv(channel) is WINCH
    signal.stop(channel)
    assert not signal.ignored(WINCH)
    # CPython ignores it from its start.
    assert signal.ignored(python.SIGPIPE)


@main_goroutine
def test_ignoring_twice_is_undone_at_once():
    signal.ignore(USR1)
    signal.ignore(USR1, USR2)
    kill(USR1)
    signal.reset()
    assert not signal.ignored(USR1)
    assert not signal.ignored(USR2)


# ---- the main thread, asyncio, many at once ----------------------------------------------------


def test_asyncio_s_handlers_are_left_alone():
    channel = makechan(1)

    async def both():
        handled = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(USR2, handled.set)
        signal.notify(channel, USR1)
        kill(USR1)
        assert await channel.arecv(timeout=PATIENCE) is USR1
        kill(USR2)
        await asyncio.wait_for(handled.wait(), PATIENCE)
        signal.stop(channel)
        loop.remove_signal_handler(USR2)

    asyncio.run(both())


def test_a_signal_is_received_or_handled_as_before():
    handled = []
    python.signal(USR1, lambda number, frame: handled.append(number))
    received = 0
    for turn in range(1, 301):
        channel = makechan(1)
        signal.notify(channel, USR1)
        stopper = go(signal.stop, channel) if turn % 2 else Thread(signal.stop, channel)
        kill(USR1)
        if turn % 2:
            wait_ended(stopper)
        else:
            stopper.result()

        def all_came(channel=channel, turn=turn):
            nonlocal received
            with contextlib.suppress(offset.WouldBlock):
                channel.try_recv()
                received += 1
            return received + len(handled) == turn

        wait_until(all_came, f"signal {turn}: {received} received, {len(handled)} handled")


@main_goroutine
def test_signals_storm_while_channels_come_and_go():
    over = makechan()
    keeper = makechan(1)
    signal.notify(keeper, WINCH)

    def storm():
        while select(over.if_recv(), offset.default) is offset.default:
            kill(WINCH)
            offset.gosched()

    def listen():
        for _ in range(100):
            channel = makechan(1)
            signal.notify(channel, WINCH)
            assert recv(channel) is WINCH
            signal.stop(channel)
            with contextlib.suppress(offset.WouldBlock):
                channel.try_recv()
            assert empty(channel)

    listeners = sync.WaitGroup()
    storms = [go(storm) for _ in range(2)]
    for _ in range(3):
        listeners.go(listen)
    listeners.wait(timeout=PATIENCE)
    over.close()
    wait_ended(*storms)
    signal.stop(keeper)


def test_threads_notify_and_stop_at_once():
    def listen(number):
        for _ in range(100):
            channel = makechan(2)
            signal.notify(channel, number, WINCH)
            kill(WINCH)
            while recv(channel) is not WINCH:
                pass
            signal.stop(channel)

    keeper = makechan(1)
    signal.notify(keeper, USR1, USR2, HUP)
    for thread in [Thread(listen, number) for number in (USR1, USR2, HUP)]:
        thread.result()


def test_nothing_is_left_behind():
    kept = makechan(1)

    def use():
        channel = makechan(1)
        signal.notify(channel, USR1, USR2)
        kill(USR1)
        recv(channel)
        signal.stop(channel)
        signal.ignore(USR1)
        signal.reset()
        signal.notify(kept, USR1)
        signal.reset(USR1)

    assert_no_growth(use, probes=[kept, USR1])


# ---- notify_context ----------------------------------------------------------------------------


@main_goroutine
def test_a_signal_ends_a_context():
    ctx, stop = signal.notify_context(context.background(), USR1, USR2)
    assert ctx.err() is None
    kill(USR2)
    with pytest.raises(offset.ChannelClosed):
        ctx.done().recv(timeout=PATIENCE)
    assert type(ctx.err()) is context.Canceled
    assert "SIGUSR2" in str(context.cause(ctx))
    stop()
    assert "SIGUSR2" in str(context.cause(ctx))


@main_goroutine
def test_a_scope_ends_by_a_signal():
    ctx, stop = signal.notify_context(context.background(), USR1)
    go(kill, USR1)
    with pytest.raises(context.Canceled) as caught, context.scope(ctx):
        makechan().recv()
    assert "SIGUSR1" in str(caught.value.__cause__)
    stop()


@main_goroutine
def test_stop_ends_the_context_and_gives_the_signal_back():
    came = []
    before = python.getsignal(USR1)
    offset.runtime.call_on_main(python.signal, USR1, lambda *_: came.append(1))
    try:
        ctx, stop = signal.notify_context(context.background(), USR1)
        stop()
        assert type(ctx.err()) is context.Canceled
        assert context.cause(ctx) is ctx.err()
        kill(USR1)
        wait_until(lambda: came, "the handler of before was called")
        stop()
    finally:
        offset.runtime.call_on_main(python.signal, USR1, before)


@main_goroutine
def test_the_context_ends_with_the_one_above():
    parent, cancel = context.with_cancel(context.with_value(context.background(), "key", 1))
    ctx, stop = signal.notify_context(parent, USR1)
    assert ctx.value("key") == 1
    cancel()
    assert type(ctx.err()) is context.Canceled
    stop()
    late, stop_late = signal.notify_context(parent, USR1)
    assert late.err() is not None
    stop_late()


@main_goroutine
def test_a_mistake_leaves_nothing_notified():
    with pytest.raises(OSError, match="SIGKILL cannot be caught"):
        signal.notify_context(context.background(), python.SIGKILL)
    with pytest.raises(ValueError, match="no signal"):
        signal.notify_context(context.background(), 4000)
    with pytest.raises(TypeError, match="needs a context to start from"):
        signal.notify_context(None, USR1)
