"""`offset.testing.bubble`: a clock that jumps, with the rules of Go's `testing/synctest`."""

from __future__ import annotations

import itertools
import threading
import time as wall

import offset
import pytest
from helpers import PATIENCE, Thread, in_thread
from offset import (
    DeadlockError,
    _runtime,
    context,
    current,
    errgroup,
    go,
    gosched,
    makechan,
    run,
    select,
    sleep,
    sync,
    testing,
    time,
)
from offset.syscall import blocking
from offset.testing import bubble, wait

START = 946_684_800.0
YEAR = 365 * 24 * time.HOUR


def in_bubble(function):
    """Decorate a test so that it runs in a bubble."""

    def test():
        return bubble(function)

    test.__name__, test.__doc__ = function.__name__, function.__doc__
    return test


class Boom(Exception):
    pass


# ---- the clock -------------------------------------------------------------------------------


@in_bubble
def test_the_clock_stands_still_and_jumps():
    assert time.now() == START
    for _ in range(1000):
        gosched()
    assert time.now() == START
    sleep(YEAR)
    assert time.now() == START + YEAR
    sleep(0)
    sleep(-1)
    assert time.now() == START + YEAR


def test_every_bubble_starts_at_the_same_time():
    def look():
        before = time.now()
        sleep(5)
        return before, time.now()

    assert bubble(look) == bubble(look) == (START, START + 5)
    assert abs(time.now() - wall.monotonic()) < PATIENCE


@in_bubble
def test_waiting_takes_no_time():
    for _ in range(100):
        sleep(YEAR)
    assert time.now() == START + 100 * YEAR


@in_bubble
def test_sleepers_wake_in_order():
    woken = []

    def sleeper(seconds):
        sleep(seconds)
        woken.append((seconds, time.now() - START))

    group = sync.WaitGroup()
    for seconds in (5, 1, 3, 2, 4):
        group.go(sleeper, seconds)
    group.wait()
    assert woken == [(seconds, float(seconds)) for seconds in range(1, 6)]


@in_bubble
def test_timers_and_tickers():
    timer = time.Timer(10)
    assert timer.c.recv() == START + 10
    assert not timer.reset(5)
    assert timer.stop()
    ticker = time.Ticker(2)
    assert [ticker.c.recv() - START for _ in range(3)] == [12, 14, 16]
    ticker.stop()
    called = makechan(1)
    time.after_func(4, lambda: called.send(time.now()))
    assert called.recv() == START + 20
    assert time.after(0).recv() == START + 20


@in_bubble
def test_timeouts():
    box = makechan()
    with pytest.raises(TimeoutError):
        box.recv(timeout=time.HOUR)
    with pytest.raises(TimeoutError):
        select(box.if_recv(), timeout=time.HOUR)
    with pytest.raises(TimeoutError):
        sync.Semaphore(0).acquire(timeout=time.HOUR)
    with pytest.raises(TimeoutError):
        box.recv(timeout=0)
    assert time.now() == START + 3 * time.HOUR


@in_bubble
def test_contexts():
    ctx, cancel = context.with_timeout(context.background(), time.HOUR)
    assert ctx.deadline() == START + time.HOUR
    called = []
    context.after_func(ctx, lambda: called.append(time.now()))
    sleep(time.HOUR - 1)
    wait()
    assert ctx.err() is None
    sleep(1)
    wait()
    assert isinstance(ctx.err(), context.DeadlineExceeded)
    assert called == [START + time.HOUR]
    cancel()
    with pytest.raises(TimeoutError), context.timeout(time.HOUR):
        makechan().recv()


@in_bubble
def test_groups():
    def work(number):
        sleep(number)
        return time.now() - START

    with errgroup.Group(limit=2) as group:
        assert group.map(work, [1, 1, 1, 1]) == [1, 1, 2, 2]


def test_the_world_outside_has_its_own_time():
    seen = makechan(1)

    def outside():
        before = time.now()
        sleep(0.001)
        seen.send((before, time.now()))

    def inside():
        sleep(time.HOUR)
        thread = Thread(outside)
        blocking(thread.result)
        return seen.recv(), None

    (before, after), _ = bubble(inside)
    assert before > 0
    assert 0 < after - before < PATIENCE


# ---- wait ------------------------------------------------------------------------------------


@in_bubble
def test_wait_returns_when_all_others_are_blocked():
    steps = []

    def worker():
        for step in range(3):
            gosched()
            steps.append(step)
        sleep(1)
        steps.append("later")

    go(worker)
    wait()
    assert steps == [0, 1, 2]
    assert time.now() == START
    sleep(1)
    wait()
    assert steps[-1] == "later"
    wait()


@in_bubble
def test_only_one_may_wait():
    gate = makechan()

    def busy():
        # Not durably blocked: the others' `wait` goes on.
        blocking(gone.wait, PATIENCE)

    gone = threading.Event()
    go(busy)
    waiting = go(lambda: (wait(), gate.send(None)))
    while not waiting.wait_reason:
        gosched()
    with pytest.raises(RuntimeError, match="another goroutine is in testing"):
        wait()
    gone.set()
    gate.recv()


def test_wait_works_in_bubbles_only():
    with pytest.raises(RuntimeError, match="only in a bubble"):
        wait()
    with pytest.raises(RuntimeError, match="only in a bubble"):
        run(wait)


@in_bubble
def test_a_wait_may_be_cancelled():
    gate = threading.Event()
    busy = go(lambda: blocking(gate.wait, PATIENCE))
    waiter = go(wait)
    gosched()
    waiter.cancel()
    assert waiter.join(timeout=None)
    gate.set()
    wait()
    assert busy.join()


# ---- what counts as blocked ------------------------------------------------------------------


@in_bubble
def test_the_clock_waits_for_blocking_calls():
    began = time.now()

    def call():
        blocking(wall.sleep, 0.01)
        done.append(time.now())

    done = []
    go(call)
    sleep(time.HOUR)
    assert done == [began]


@in_bubble
def test_the_clock_waits_for_a_mutex():
    """As in Go: somebody outside may hold it."""
    mutex = sync.Mutex()
    mutex.lock()
    order = []

    def holder():
        wall.sleep(0.01)
        mutex.unlock()

    thread = Thread(holder)
    go(lambda: (sleep(1), order.append("clock")))
    mutex.lock()
    order.append("mutex")
    sleep(2)
    assert order == ["mutex", "clock"]
    thread.result()


@in_bubble
def test_the_clock_waits_for_sockets():
    with offset.net.listen("tcp", "127.0.0.1:0") as listener:
        order = []
        go(lambda: (sleep(1), order.append("clock")))
        thread = Thread(lambda: offset.net.dial("tcp", listener.addr).close())
        listener.accept().close()
        order.append("accepted")
        thread.result()
        sleep(2)
    assert order == ["accepted", "clock"]


def test_the_clock_waits_for_the_main_thread():
    def main():
        order = []
        go(lambda: (sleep(1), order.append("clock")))
        offset.runtime.call_on_main(wall.sleep, 0.01)
        order.append("main")
        sleep(2)
        return order

    assert bubble(main) == ["main", "clock"]


@in_bubble
def test_others_may_be_woken_from_outside():
    box = makechan()
    busy = go(lambda: blocking(in_thread, box.send, "value"))
    assert box.recv() == "value"
    busy.join()


# ---- the end ---------------------------------------------------------------------------------


def test_a_bubble_gives_what_its_function_returns():
    assert bubble(lambda: 7) == 7
    assert bubble(lambda: current() is not None)


def test_the_others_are_waited_for():
    ended = []

    def main():
        gate = makechan()
        for index in range(3):
            go(lambda index=index: (gate.recv(), ended.append(index)))
        for _ in range(3):
            gate.send(None)

    bubble(main)
    assert sorted(ended) == [0, 1, 2]


def test_time_stands_still_once_the_function_has_returned():
    def main():
        go(sleep, 1)

    with pytest.raises(DeadlockError, match=r"\[sleep\]"):
        bubble(main)


def test_a_deadlock_is_seen_at_once():
    def main():
        box = makechan()
        go(box.recv)
        sleep(1)
        sync.WaitGroup().wait()
        makechan(0, "nobody").recv()

    with pytest.raises(DeadlockError) as caught:
        bubble(main)
    text = str(caught.value)
    assert text.count("[chan receive]") == 2
    assert "_inside" not in text
    assert __file__ in text


def test_a_deadlock_may_be_caught():
    def main():
        with pytest.raises(DeadlockError):
            makechan().recv()
        sleep(1)
        with pytest.raises(DeadlockError):
            sync.Semaphore(0).acquire()
        return time.now() - START

    assert bubble(main) == 1


def test_a_ticker_that_nobody_listens_to_is_no_life():
    def main():
        ticker = time.Ticker(1)
        try:
            makechan().recv()
        finally:
            ticker.stop()

    with pytest.raises(DeadlockError):
        bubble(main)


def test_an_error_ends_the_bubble():
    ended = []

    def worker():
        try:
            makechan().recv()
        finally:
            # On the bubble's clock, which goes on.
            sleep(time.HOUR)
            ended.append(time.now())

    def main():
        go(worker)
        wait()
        raise Boom("main")

    with pytest.raises(Boom, match="main"):
        bubble(main)
    assert ended == [START + time.HOUR]
    assert bubble(lambda: time.now()) == START


def test_an_error_of_another_goroutine_is_raised(reports):
    def worker():
        sleep(1)
        raise Boom("worker")

    def main():
        go(worker)
        makechan().recv()

    with pytest.raises(Boom, match="worker"):
        bubble(main)
    assert [str(error) for _, error in reports] == ["worker"]


def test_timers_that_are_left_are_let_go():
    """What they would have started never runs, and is not kept."""
    called = []

    def main():
        time.after_func(time.HOUR, called.append, 1)
        time.Ticker(1)
        context.with_timeout(context.background(), time.HOUR)

    bubble(main)
    bubble(lambda: sleep(2 * time.HOUR))
    assert called == []


# ---- mistakes --------------------------------------------------------------------------------


def test_a_bubble_is_no_goroutines_business():
    def main():
        with pytest.raises(RuntimeError, match="bubble\\(\\) was called inside a goroutine"):
            bubble(int)

    run(main)
    bubble(main)


def test_mistakes():
    with pytest.raises(TypeError, match="needs a function to call, not int"):
        bubble(3)
    with pytest.raises(TypeError, match="a seed is an integer or None, not str"):
        bubble(int, "7")
    with pytest.raises(ValueError, match="the number of schedules is 1 or more, got 0"):
        testing.explore(int, 0)


# ---- leaks -----------------------------------------------------------------------------------


def test_a_leak_is_described():
    gate = makechan()

    def leak():
        with testing.leak_check(patience=0.01):
            go(gate.recv).name = "leaked"

    def main():
        with pytest.raises(testing.LeakError) as caught:
            leak()
        text = str(caught.value)
        assert text.startswith("a goroutine is left:")
        assert "[chan receive] leaked" in text
        assert "created by" in text
        gate.send(None)

    run(main)


def test_no_leak():
    def main():
        outside = go(makechan().recv)
        with testing.leak_check(PATIENCE):
            go(sleep, 0.001)
            box = makechan()
            go(box.send, 1)
            box.recv()
        with pytest.raises(Boom), testing.leak_check(patience=0):
            go(sleep, 0.01)
            raise Boom
        outside.cancel()

    run(main)


def test_goroutines_get_the_time_to_end_in_which_they_can(monkeypatch):
    def main():
        # Of those that others start on their way out each has its turn.
        with testing.leak_check(PATIENCE):
            go(lambda: go(lambda: go(sleep, 0.001)))
        # A machine that stands still: the clock jumps between any two looks.
        with monkeypatch.context() as patch:
            patch.setattr(_runtime, "now", itertools.count(step=1000).__next__)
            with testing.leak_check(PATIENCE):
                go(sleep, 0.001)

    run(main)


# ---- networks in memory ----------------------------------------------------------------------


@in_bubble
def test_a_listener_in_memory():
    listener = testing.listen("server", backlog=1)

    def serve():
        for conn in listener:
            with conn:
                sleep(time.HOUR)
                if data := conn.read(100):
                    conn.write(data.upper())

    serving = go(serve)
    with listener.dial() as conn:
        conn.write(b"hello")
        assert conn.read(100) == b"HELLO"
    assert time.now() == START + time.HOUR
    assert listener.stats()["accepted"] == 1
    waiting = listener.dial()
    wait()
    waiting.close()
    listener.close()
    serving.join()
    with pytest.raises(ConnectionRefusedError, match="dial server: the listener is closed"):
        listener.dial()
    with pytest.raises(OSError, match="accept server: closed"):
        listener.accept()
    listener.close()
    assert repr(listener) == "<offset.testing.Listener server closed>"


@in_bubble
def test_a_listener_that_nobody_serves():
    with testing.listen(backlog=1) as listener:
        first = listener.dial()
        with pytest.raises(TimeoutError):
            listener.dial(timeout=60)
        assert time.now() == START + 60
        first.set_deadline(time.now() + 5)
        with pytest.raises(TimeoutError):
            first.read(1)
        first.set_deadline(None)
    assert first.read(1) == b""
    first.close()


@in_bubble
def test_deadlines_of_pipes_are_on_the_clock():
    left, right = offset.net.pipe()
    with left, right:
        left.set_deadline(time.now() + time.HOUR)
        with pytest.raises(TimeoutError):
            left.read(1)
        assert time.now() == START + time.HOUR
