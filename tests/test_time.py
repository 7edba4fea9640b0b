"""`offset.time`: sleep, timers, tickers, with the rules of Go 1.23.

Time is the subject here, so the real clock is used; but no test asks how long something took. What
is asserted of it is what must hold on any machine: nothing happens before its time, what is stopped
does not happen, and of two deadlines with a known order the earlier one is served first.
"""

from __future__ import annotations

import datetime
import gc
import math
import time
import weakref

import offset
import offset.time as gotime
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    Thread,
    assert_no_growth,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import WouldBlock, current, go, gosched, makechan, nilchan, run, select, sleep

# A span that passes quickly, and one that never passes within a test.
SOON = 0.005
NEVER = 1e5

# A race is tried so often; one undisturbed attempt is enough where the machine may interfere.
ATTEMPTS = 20

# Spans that are over before they begin.
PAST = [0, 0.0, -1, -1e9, datetime.timedelta(0), datetime.timedelta(days=-1)]

# Spans of many years; in nanoseconds they reach and pass what 64 bits can hold.
FAR = [1e9, 9.2e9, 9.3e9, 1e12, 10**10, datetime.timedelta.max]

# Things that are no span of time.
NO_DURATION = ["1", b"1", None, [1], object(), 1j]


class Thing:
    """Something that can be watched with a weak reference."""


def pass_time(seconds=SOON):
    """Return when a timer that was set now, after all others, has fired."""
    gotime.after(seconds).recv()


def assert_silent(channel):
    """Fail if there is something to receive, now or once a later timer has fired."""
    with pytest.raises(WouldBlock):
        channel.try_recv()
    pass_time()
    with pytest.raises(WouldBlock):
        channel.try_recv()


def assert_order(look):
    """Fail unless what `look` gives comes in order: the numbers as they came, and between which times each was due.

    Where the processor is handed on meanwhile, as the system has stopped one that was due, the next one may be quicker:
    that is looked at once more.
    """
    for _ in range(ATTEMPTS):
        handoffs = offset.runtime.stats()["handoffs"]
        came, earliest, latest = look()
        assert sorted(came) == list(range(len(earliest)))
        if offset.runtime.stats()["handoffs"] == handoffs:
            place = {number: position for position, number in enumerate(came)}
            for first, before in enumerate(latest):
                for second, after in enumerate(earliest):
                    if before < after:
                        assert place[first] < place[second], (before, after)
            return


# ---- names -----------------------------------------------------------------------------------


def test_durations_are_seconds():
    assert [
        gotime.NANOSECOND,
        gotime.MICROSECOND,
        gotime.MILLISECOND,
        gotime.SECOND,
        gotime.MINUTE,
        gotime.HOUR,
    ] == [1e-9, 1e-6, 1e-3, 1, 60, 3600]


def test_the_names_of_2013():
    assert gotime.After is gotime.after
    assert gotime.AfterFunc is gotime.after_func
    assert gotime.Tick is gotime.tick
    assert gotime.sleep is offset.sleep


def test_now_is_the_monotonic_clock():
    before = time.monotonic()
    now = gotime.now()
    assert type(now) is float
    assert before <= now <= time.monotonic()
    times = [gotime.now() for _ in range(1000)]
    assert times == sorted(times)


# ---- sleep -----------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [0.003, datetime.timedelta(milliseconds=3), 3 * gotime.MILLISECOND], ids=repr)
@main_goroutine
def test_sleep_does_not_end_early(span):
    for _ in range(10):
        start = gotime.now()
        assert sleep(span) is None
        assert gotime.now() - start >= 0.003


@pytest.mark.parametrize("span", PAST, ids=repr)
@main_goroutine
def test_a_sleep_of_nothing_returns(span):
    for _ in range(100):
        assert sleep(span) is None


@main_goroutine
def test_sleeps_of_nothing_are_no_deadlock():
    """Go's TestSleepZeroDeadlock: a collection and short sleeps at the same time."""

    def sleeper():
        for _ in range(100):
            sleep(0)
            sleep(1e-9)

    goroutines = [go(sleeper) for _ in range(4)]
    for _ in range(20):
        gc.collect()
        sleep(0)
        sleep(1e-9)
    wait_ended(*goroutines)


@pytest.mark.parametrize("span", FAR, ids=repr)
@main_goroutine
def test_a_sleep_of_many_years_does_not_end(span):
    goroutine = go_parked(sleep, span)
    pass_time()
    assert goroutine.wait_reason == "sleep"
    goroutine.cancel()
    wait_ended(goroutine)


@pytest.mark.parametrize("span", NO_DURATION, ids=repr)
@main_goroutine
def test_sleep_refuses_what_is_no_duration(span):
    with pytest.raises(TypeError):
        sleep(span)


@main_goroutine
def test_a_span_that_is_not_a_number_is_refused():
    for attempt in (sleep, gotime.after, gotime.Timer, gotime.Ticker):
        with pytest.raises(ValueError):
            attempt(math.nan)


@main_goroutine
def test_sleep_takes_whatever_is_a_float():
    class Span:
        def __float__(self):
            return 1e-6

    sleep(Span())
    sleep(True)
    sleep(5e-324)


def test_sleep_outside_goroutines_blocks_the_thread():
    start = gotime.now()
    sleep(0.003)
    in_thread(sleep, 0.003)
    assert gotime.now() - start >= 0.006


@main_goroutine
def test_the_others_run_during_a_sleep():
    steps = []

    def counter():
        while True:
            steps.append(gotime.now())
            gosched()

    def stepped():
        sleep(SOON)
        return any(start < step for step in steps)

    counting = go(counter)
    for _ in range(5):
        start = gotime.now()
        # In the first of them, as a rule.
        wait_until(stepped)
        steps.clear()
    counting.cancel()
    wait_ended(counting)


@pytest.mark.skipif(FREE_THREADED, reason="timers of several processors have no common order")
@main_goroutine
def test_sleepers_wake_in_the_order_of_their_deadlines(rng):
    def look():
        woken = []

        def sleeper(number, span):
            sleep(span)
            woken.append(number)

        spans = [rng.uniform(0.001, 0.05) for _ in range(60)]
        earliest, latest, goroutines = [], [], []
        for number, span in enumerate(spans):
            earliest.append(gotime.now() + span)
            goroutine = go(sleeper, number, span)
            goroutines.append(goroutine)
            # Parked, or woken already: the deadline was set before now.
            wait_until(lambda goroutine=goroutine: goroutine.wait_reason == "sleep" or goroutine.join(timeout=0))
            latest.append(gotime.now() + span)
        wait_ended(*goroutines)
        # A sleeper that had ended before the other's deadline was set says nothing.
        return woken, earliest, latest

    assert_order(look)


# ---- timers ----------------------------------------------------------------------------------


@main_goroutine
def test_a_timer_sends_the_time_once():
    start = gotime.now()
    timer = gotime.Timer(SOON)
    value = timer.c.recv()
    assert type(value) is float
    assert start + SOON <= value <= gotime.now()
    assert_silent(timer.c)
    assert isinstance(timer.stats(), dict)


@main_goroutine
def test_the_channel_of_a_timer_can_only_be_received_from():
    timer = gotime.Timer(NEVER)
    assert timer.c is timer.c or timer.c.if_recv() == timer.c.if_recv()
    for name in ("send", "try_send", "close", "if_send", "send_exception"):
        assert not hasattr(timer.c, name)
    with pytest.raises(AttributeError):
        timer.c = makechan()
    assert timer.stop()


@pytest.mark.parametrize("make", [gotime.Timer, gotime.Ticker], ids=["timer", "ticker"])
@main_goroutine
def test_the_channel_of_a_timer_never_shows_a_length(make):
    """Since Go 1.23 such a channel is unbuffered to whoever looks at it."""
    timer = make(1e-6)
    for _ in range(3):
        pass_time(0.001)
        assert len(timer.c) == 0
        assert timer.c.cap == 0
    timer.stop()


@pytest.mark.parametrize("span", PAST, ids=repr)
@main_goroutine
def test_a_timer_for_the_past_fires_at_once(span):
    start = gotime.now()
    assert start <= gotime.Timer(span).c.recv() <= gotime.now()
    assert start <= gotime.after(span).recv() <= gotime.now()
    timer = gotime.Timer(NEVER)
    assert timer.reset(span)
    assert start <= timer.c.recv() <= gotime.now()


@pytest.mark.parametrize("span", FAR, ids=repr)
@main_goroutine
def test_a_timer_for_far_away_does_not_fire(span):
    timer = gotime.Timer(span)
    assert_silent(timer.c)
    assert timer.reset(span)
    assert_silent(timer.c)
    assert timer.stop()


@pytest.mark.parametrize("span", NO_DURATION, ids=repr)
@main_goroutine
def test_timers_refuse_what_is_no_duration(span):
    timer, ticker = gotime.Timer(NEVER), gotime.Ticker(NEVER)
    attempts = [
        gotime.Timer,
        gotime.Ticker,
        gotime.after,
        lambda span: gotime.after_func(span, int),
        timer.reset,
        ticker.reset,
    ]
    for attempt in attempts:
        with pytest.raises(TypeError):
            attempt(span)
    # A refused reset changes nothing.
    assert timer.stop()
    ticker.stop()


@main_goroutine
def test_stop_says_whether_the_timer_was_active():
    timer = gotime.Timer(NEVER)
    assert timer.stop() is True
    assert timer.stop() is False
    fired = gotime.Timer(SOON)
    fired.c.recv()
    assert fired.stop() is False
    assert_silent(timer.c)


@main_goroutine
def test_no_stale_value_after_stop():
    """The timer has fired and nobody has received: since Go 1.23 `stop` still prevents it."""
    timer = gotime.Timer(1e-6)
    pass_time()
    assert timer.stop() is True
    assert_silent(timer.c)
    assert timer.stop() is False


@main_goroutine
def test_no_stale_value_after_reset():
    timer = gotime.Timer(1e-6)
    pass_time()
    before = gotime.now()
    assert timer.reset(SOON) is True
    assert timer.c.recv() >= before + SOON
    assert timer.reset(NEVER) is False
    assert timer.reset(NEVER) is True
    assert_silent(timer.c)
    assert timer.stop() is True


@main_goroutine
def test_reset_moves_the_time():
    timer = gotime.Timer(NEVER)
    before = gotime.now()
    assert timer.reset(SOON) is True
    assert timer.c.recv() >= before + SOON
    # And starts one that has fired, or was stopped.
    assert timer.reset(SOON) is False
    timer.c.recv()
    assert timer.stop() is False
    assert timer.reset(datetime.timedelta(milliseconds=1)) is False
    timer.c.recv()
    later = gotime.Timer(SOON)
    assert later.reset(NEVER) is True
    assert_silent(later.c)
    assert later.stop() is True


@main_goroutine
def test_a_timer_that_is_reset_again_and_again_does_not_fire():
    timer = gotime.Timer(NEVER)
    for _ in range(1000):
        assert timer.reset(NEVER)
    assert_silent(timer.c)
    assert timer.stop()


@main_goroutine
def test_a_stopped_timer_leaves_its_receiver_waiting():
    timer = gotime.Timer(NEVER)
    receiver = go_parked(timer.c.recv)
    assert timer.stop()
    pass_time()
    assert receiver.wait_reason == "chan receive"
    # As in Go it can be set again under a receiver that waits.
    assert timer.reset(SOON) is False
    wait_ended(receiver)


@main_goroutine
def test_of_many_receivers_one_gets_the_time():
    timer, got = gotime.Timer(NEVER), []
    receivers = [go(lambda: got.append(timer.c.recv())) for _ in range(5)]
    wait_parked(*receivers)
    for count in range(1, 6):
        timer.reset(SOON)
        wait_until(lambda count=count: len(got) == count, "one more has received")
    assert got == sorted(got)
    wait_ended(*receivers)


@main_goroutine
def test_of_many_stops_one_succeeds():
    timer = gotime.Timer(NEVER)
    stopped = makechan(20)
    for _ in range(20):
        go(lambda: stopped.send(timer.stop()))
    assert sorted(stopped.recv() for _ in range(20)) == [False] * 19 + [True]


@pytest.mark.skipif(FREE_THREADED, reason="timers of several processors have no common order")
@main_goroutine
def test_timers_fire_in_the_order_of_their_times(rng):
    def look():
        fired, spans = [], [rng.uniform(0.001, 0.03) for _ in range(100)]
        earliest, latest = [], []
        for number, span in enumerate(spans):
            earliest.append(gotime.now() + span)
            gotime.after_func(span, fired.append, number)
            latest.append(gotime.now() + span)
        wait_until(lambda: len(fired) == len(spans), "every timer has fired")
        return fired, earliest, latest

    assert_order(look)


@main_goroutine
def test_stop_and_fire_exclude_each_other(rng):
    """Go's stop/reset stress in one count: a timer fires exactly if nobody stopped it in time."""
    fired, stopped, timers = [], set(), []
    for number in range(1000):
        timers.append(gotime.after_func(rng.uniform(0, 0.01), fired.append, number))
        if rng.random() < 0.5:
            victim = rng.randrange(len(timers))
            if timers[victim].stop():
                assert victim not in stopped
                stopped.add(victim)
    wait_until(lambda: len(fired) + len(stopped) >= len(timers), "every timer has fired or was stopped")
    pass_time(0.02)
    assert sorted(fired + list(stopped)) == list(range(len(timers)))


@main_goroutine
def test_a_received_value_is_never_older_than_the_last_reset(rng):
    timer = gotime.Timer(0)
    reset_at = 0.0

    for _ in range(300):
        span = rng.choice([0, 1e-6, 1e-4])
        reset_at = gotime.now()
        timer.reset(span)
        for _ in range(rng.randint(0, 3)):
            gosched()
        if rng.random() < 0.5:
            assert timer.c.recv() >= reset_at + span
    timer.stop()
    assert_silent(timer.c)


@main_goroutine
def test_timers_take_part_in_select():
    channel = makechan()
    timeout = gotime.after(SOON)
    case = select(channel.if_recv(), timeout.if_recv())
    assert case.index == 1
    assert case.ok is True
    assert case.value <= gotime.now()
    quick = go_parked(channel.send, "value")
    assert select(channel.if_recv(), gotime.after(NEVER).if_recv()).value == "value"
    wait_ended(quick)


@main_goroutine
def test_a_select_over_timers_takes_the_one_that_is_over():
    timers = [gotime.Timer(NEVER) for _ in range(5)]
    for winner in (3, 0, 4):
        timers[winner].reset(SOON)
        assert select(*[timer.c.if_recv() for timer in timers]).index == winner
    for timer in timers:
        timer.stop()


def test_timers_work_in_os_threads():
    start = gotime.now()
    assert in_thread(lambda: gotime.after(SOON).recv()) >= start + SOON
    timer = gotime.Timer(SOON)
    assert timer.c.recv() >= start + SOON
    with pytest.raises(TimeoutError):
        gotime.Timer(NEVER).c.recv(timeout=0.001)
    called = makechan(1)
    gotime.after_func(0, called.send, "called")
    assert called.recv() == "called"


def test_a_timer_may_be_used_by_goroutines_and_threads_at_once():
    timer = gotime.Timer(NEVER)
    receiving = Thread(timer.c.recv, timeout=PATIENCE)

    def main():
        timer.reset(SOON)

    run(main)
    assert receiving.result() <= gotime.now()


# ---- after_func ------------------------------------------------------------------------------


@main_goroutine
def test_after_func_calls_in_a_goroutine_of_its_own():
    called = makechan()

    def function(*args, **kwargs):
        called.send((current().id, args, kwargs, gotime.now()))

    start = gotime.now()
    timer = gotime.after_func(SOON, function, 1, "two", fn="mine", d=3)
    number, args, kwargs, at = called.recv()
    assert number != current().id
    assert args == (1, "two")
    assert kwargs == {"fn": "mine", "d": 3}
    assert at >= start + SOON
    assert timer.stop() is False


@main_goroutine
def test_after_func_can_be_stopped_and_set_again():
    called = makechan(3)
    timer = gotime.after_func(NEVER, called.send, "called")
    assert timer.stop() is True
    assert timer.stop() is False
    assert timer.reset(0) is False
    assert called.recv() == "called"
    assert timer.reset(0) is False
    assert called.recv() == "called"
    assert timer.reset(NEVER) is False
    assert timer.reset(NEVER) is True
    assert timer.stop() is True
    assert_silent(called)


@main_goroutine
def test_after_func_may_set_itself_again():
    """Go's TestAfterFunc: each call asks for the next one."""
    calls, finished = [], makechan()

    def step():
        calls.append(gotime.now())
        if len(calls) < 10:
            gotime.after_func(0, step)
        else:
            finished.send(None)

    gotime.after_func(0, step)
    finished.recv()
    assert len(calls) == 10
    assert calls == sorted(calls)


@main_goroutine
def test_after_func_may_block():
    gate, passed = makechan(), makechan()
    gotime.after_func(0, lambda: passed.send(gate.recv()))
    other = makechan()
    gotime.after_func(0, other.send, "not held up")
    assert other.recv() == "not held up"
    gate.send("through")
    assert passed.recv() == "through"


@pytest.mark.parametrize("thing", [None, 1, "name"], ids=repr)
@main_goroutine
def test_after_func_refuses_what_cannot_be_called(thing):
    with pytest.raises(TypeError):
        gotime.after_func(0, thing)


def test_an_exception_in_after_func_ends_the_run(capfd):
    def main():
        gotime.after_func(0, lambda: 1 / 0)
        makechan().recv(timeout=PATIENCE)

    with pytest.raises(ZeroDivisionError):
        run(main)
    assert "ZeroDivisionError" in capfd.readouterr().err


@main_goroutine
def test_after_func_holds_its_function_while_it_needs_it():
    called = makechan(1)

    class Function(Thing):
        def __call__(self):
            called.send("called")

    function = Function()
    watch = weakref.ref(function)
    gotime.after_func(1.0, function)
    del function
    gc.collect()
    assert watch() is not None or len(called)
    assert called.recv() == "called"
    # Without the GIL an object that another OS thread let go may be freed by the collector only.
    wait_until(lambda: watch() is None or (FREE_THREADED and gc.collect() < 0), "the timer has let the function go")


@main_goroutine
def test_a_cycle_through_a_stopped_timer_is_collected():
    thing = Thing()
    watch = weakref.ref(thing)
    thing.timer = gotime.after_func(NEVER, lambda held: held, thing)
    thing.timer.stop()
    del thing
    gc.collect()
    assert watch() is None


# ---- tickers ---------------------------------------------------------------------------------


@main_goroutine
def test_a_ticker_ticks():
    start, period = gotime.now(), 0.002
    ticker = gotime.Ticker(period)
    times = [ticker.c.recv() for _ in range(10)]
    ticker.stop()
    assert times == sorted(times)
    for count, at in enumerate(times, 1):
        assert at >= start + count * period - 1e-6
    assert isinstance(ticker.stats(), dict)


@main_goroutine
def test_a_slow_receiver_misses_ticks():
    ticker = gotime.Ticker(1e-4)
    pass_time(0.01)
    # However many have passed, one is kept.
    ticker.c.recv()
    ticker.reset(NEVER)
    assert_silent(ticker.c)
    ticker.stop()


@main_goroutine
def test_a_stopped_ticker_is_silent():
    ticker = gotime.Ticker(1e-4)
    ticker.c.recv()
    pass_time()
    assert ticker.stop() is None
    assert_silent(ticker.c)
    # Stopping does not close the channel, and may be repeated.
    ticker.stop()
    assert ticker.c.closed is False


@main_goroutine
def test_a_ticker_can_be_reset():
    ticker = gotime.Ticker(NEVER)
    start = gotime.now()
    assert ticker.reset(SOON) is None
    first, second = ticker.c.recv(), ticker.c.recv()
    assert start + SOON - 1e-6 <= first < second
    ticker.stop()
    assert_silent(ticker.c)
    start = gotime.now()
    ticker.reset(datetime.timedelta(milliseconds=2))
    assert ticker.c.recv() >= start + 0.002 - 1e-6
    ticker.stop()


@main_goroutine
def test_no_stale_tick_after_reset():
    ticker = gotime.Ticker(1e-4)
    pass_time()
    start = gotime.now()
    ticker.reset(SOON)
    assert ticker.c.recv() >= start + SOON - 1e-6
    ticker.stop()


@pytest.mark.parametrize("period", PAST, ids=repr)
@main_goroutine
def test_a_period_must_be_positive(period):
    with pytest.raises(ValueError):
        gotime.Ticker(period)
    ticker = gotime.Ticker(1e-3)
    with pytest.raises(ValueError):
        ticker.reset(period)
    # It ticks as before.
    ticker.c.recv()
    ticker.c.recv()
    ticker.stop()
    assert gotime.tick(period) is nilchan


@main_goroutine
def test_tick_gives_the_channel_of_a_ticker():
    channel = gotime.tick(1e-3)
    start = gotime.now()
    times = [channel.recv() for _ in range(3)]
    assert times == sorted(times)
    assert times[0] <= gotime.now()
    assert times[-1] > start


@main_goroutine
def test_ticks_can_be_iterated_over():
    ticker = gotime.Ticker(1e-3)
    times = []
    for at in ticker.c:
        times.append(at)
        if len(times) == 5:
            break
    ticker.stop()
    assert times == sorted(times)


@main_goroutine
def test_tickers_come_and_go():
    """Go's TestTeardown: a ticker that is stopped at once, or dropped, disturbs nobody."""
    for _ in range(50):
        ticker = gotime.Ticker(1e-9)
        ticker.c.recv()
        ticker.stop()
    steady = gotime.Ticker(1e-3)
    for _ in range(50):
        gotime.Ticker(1e-3)
    for _ in range(3):
        steady.c.recv()
    steady.stop()


@main_goroutine
def test_timers_that_are_dropped_leave_nothing():
    def use():
        gotime.Timer(NEVER)
        gotime.after(NEVER)
        gotime.Ticker(NEVER).stop()
        gotime.after_func(NEVER, int).stop()
        gotime.after(0).recv()

    assert_no_growth(use)


@main_goroutine
def test_a_goroutine_that_waits_for_a_dropped_timer_is_woken():
    """Only the channel is held; the collector must not take what will still send on it."""
    channel = gotime.after(SOON)
    gc.collect()
    assert channel.recv() <= gotime.now()
    ticking = gotime.tick(1e-3)
    for _ in range(3):
        gc.collect()
        ticking.recv()
