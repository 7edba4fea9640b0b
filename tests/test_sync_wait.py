"""`WaitGroup`, `Cond` and `Semaphore` of `offset.sync`: those who wait for others.

Invariants checked throughout: waiters are served in order of arrival; one that timed out or was
cancelled is in no queue, and what it would have taken goes to the next; OS threads wait as
goroutines do.
"""

from __future__ import annotations

import contextlib
import operator
import threading

import offset
import pytest
from helpers import (
    OVER,
    PATIENCE,
    SHORT,
    Thread,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import GoroutineExit, go, goexit, gosched, makechan, run
from offset.sync import Cond, Mutex, RWMutex, Semaphore, WaitGroup, atomic

# What a misuse may raise.
MISUSE = (RuntimeError, ValueError)


# ---- WaitGroup -------------------------------------------------------------------------------


@main_goroutine
def test_wait_returns_when_all_are_done():
    group, finished = WaitGroup(), []

    def body(number):
        for _ in range(number):
            gosched()
        finished.append(number)
        group.done()

    group.add(20)
    for number in range(20):
        go(body, number)
    assert group.wait() is None
    assert sorted(finished) == list(range(20))


@main_goroutine
def test_wait_with_nothing_to_wait_for_returns():
    group = WaitGroup()
    group.wait()
    group.wait(timeout=0)
    group.add(0)
    group.wait()
    group.add(2)
    group.add(-2)
    group.wait()


@main_goroutine
def test_wait_waits_for_the_last():
    group = WaitGroup()
    group.add(2)
    waiting = go_parked(group.wait)
    group.done()
    assert not waiting.join(timeout=0.001)
    group.done()
    wait_ended(waiting)


@main_goroutine
def test_all_that_wait_are_released_together():
    group, released = WaitGroup(), []
    group.add()
    waiting = [go_parked(lambda number=number: (group.wait(), released.append(number))) for number in range(10)]
    threads = [Thread(group.wait) for _ in range(3)]
    group.done()
    wait_ended(*waiting)
    for thread in threads:
        thread.result()
    assert sorted(released) == list(range(10))


@main_goroutine
def test_a_group_can_be_used_again():
    """Go's TestWaitGroup: two groups as barriers, again and again."""
    first, second = WaitGroup(), WaitGroup()
    for _ in range(8):
        first.add(16)
        second.add(16)
        exited = makechan(16)

        def body(exited=exited):
            first.done()
            second.wait()
            exited.send(True)

        for _ in range(16):
            go(body)
        first.wait()
        for _ in range(16):
            with pytest.raises(offset.WouldBlock):
                exited.try_recv()
            second.done()
        for _ in range(16):
            assert exited.recv()


@main_goroutine
def test_a_negative_counter_is_an_error():
    group = WaitGroup()
    for misuse in (group.done, lambda: group.add(-1)):
        with pytest.raises(MISUSE):
            misuse()
    group.add(2)
    with pytest.raises(MISUSE):
        group.add(-3)
    # The mistake changed nothing.
    group.done()
    with pytest.raises(TimeoutError):
        group.wait(timeout=0)
    group.done()
    group.wait()


@main_goroutine
def test_a_counter_takes_integers():
    group = WaitGroup()
    for value in ("1", 1.5, None, [1]):
        with pytest.raises(TypeError):
            group.add(value)
    group.wait()


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_wait_times_out(timeout):
    group = WaitGroup()
    group.wait(timeout=timeout)
    group.add()
    with pytest.raises(TimeoutError):
        group.wait(timeout=timeout)
    with pytest.raises(TimeoutError):
        in_thread(group.wait, timeout=timeout)
    group.done()
    group.wait(timeout=timeout)


@main_goroutine
def test_a_wait_that_was_given_up_leaves_nothing():
    group, other = WaitGroup(), makechan()
    group.add()

    def timed_out():
        with pytest.raises(TimeoutError):
            group.wait(timeout=0.001)
        assert other.recv() == "value"

    goroutine = go_parked(timed_out, reason="chan receive")
    cancelled = go_parked(group.wait)
    cancelled.cancel()
    wait_ended(cancelled)
    group.done()
    for _ in range(20):
        gosched()
    assert goroutine.wait_reason == "chan receive"
    other.send("value")
    wait_ended(goroutine)


@main_goroutine
def test_a_group_starts_goroutines():
    """Go's TestWaitGroupGo: counted before it starts, done when it ends."""
    group, seen = WaitGroup(), []
    group.go(lambda *args, **kwargs: seen.append((args, kwargs)), 1, "two", three=3)
    group.go(lambda **kwargs: seen.append(kwargs), fn="mine")
    group.wait()
    assert sorted(seen, key=str) == sorted([((1, "two"), {"three": 3}), {"fn": "mine"}], key=str)
    with pytest.raises(TypeError):
        group.go(None)
    with pytest.raises(TypeError):
        group.go()
    group.wait(timeout=0)


@pytest.mark.parametrize("ending", ["return", "goexit", "cancel"])
@main_goroutine
def test_every_ending_counts_as_done(ending):
    group, channel = WaitGroup(), makechan()

    def body():
        channel.recv()
        if ending == "goexit":
            goexit()

    group.go(body)
    [goroutine] = [each for each in offset.runtime.goroutines() if each is not offset.current()]
    wait_parked(goroutine)
    if ending == "cancel":
        goroutine.cancel()
    else:
        channel.send(None)
    group.wait(timeout=PATIENCE)


@main_goroutine
def test_a_goroutine_cancelled_before_its_start_counts_as_done():
    for _ in range(50):
        group = WaitGroup()
        group.go(makechan().recv)
        for goroutine in offset.runtime.goroutines():
            if goroutine is not offset.current():
                goroutine.cancel()
        group.wait(timeout=PATIENCE)


def test_a_failure_counts_as_done_and_ends_the_run(capfd):
    group = WaitGroup()

    def main():
        group.go(lambda: 1 / 0)
        group.wait()
        makechan().recv()

    with pytest.raises(ZeroDivisionError):
        run(main)
    group.wait(timeout=0)
    assert "ZeroDivisionError" in capfd.readouterr().err


@main_goroutine
def test_counting_from_many_sides():
    group, total = WaitGroup(), atomic.Int()

    def body():
        for _ in range(100):
            group.add()
            total.add(1)
            go(lambda: (gosched(), group.done()))
        group.done()

    group.add(8)
    threads = [Thread(body) for _ in range(4)]
    for _ in range(4):
        go(body)
    group.wait()
    for thread in threads:
        thread.result()
    assert total.load() == 800


def test_a_group_works_without_run():
    group, finished = WaitGroup(), []
    for number in range(10):
        group.go(finished.append, number)
    group.wait()
    assert sorted(finished) == list(range(10))
    group.add()
    thread = Thread(group.wait)
    group.done()
    thread.result()


# ---- Cond ------------------------------------------------------------------------------------


def waiter(cond, mutex, log, number):
    """Wait once and note it while the lock is held."""
    with mutex:
        cond.wait()
        log.append(number)


@main_goroutine
def test_a_signal_wakes_the_one_that_waits_longest():
    """Go's TestCondSignal, with the order that Go's notify list keeps too."""
    mutex, log = Mutex(), []
    cond = Cond(mutex)
    waiting = [go_parked(waiter, cond, mutex, log, number, reason="Cond") for number in range(10)]
    for number in range(10):
        with mutex:
            cond.signal()
        wait_ended(waiting[number])
        assert log == list(range(number + 1))
    cond.signal()
    late = go_parked(waiter, cond, mutex, log, "late", reason="Cond")
    assert not late.join(timeout=0.001)
    cond.signal()
    wait_ended(late)


@main_goroutine
def test_a_signal_without_waiters_is_forgotten():
    mutex, log = Mutex(), []
    cond = Cond(mutex)
    cond.signal()
    cond.broadcast()
    goroutine = go_parked(waiter, cond, mutex, log, 0, reason="Cond")
    for _ in range(20):
        gosched()
    assert log == []
    cond.signal()
    wait_ended(goroutine)


@main_goroutine
def test_a_broadcast_wakes_all():
    """Go's TestCondBroadcast: round after round, until all have been told to end."""
    mutex, count = Mutex(), 50
    cond, running, awake, finish = Cond(mutex), makechan(count), makechan(count), False

    def body(number):
        with mutex:
            while not finish:
                running.send(number)
                cond.wait()
                awake.send(number)

    goroutines = [go(body, number) for number in range(count)]
    for turn in range(5):
        for _ in range(count):
            running.recv()
        with mutex:
            finish = turn == 4
            with pytest.raises(offset.WouldBlock):
                awake.try_recv()
            cond.broadcast()
        assert sorted(awake.recv() for _ in range(count)) == list(range(count))
    wait_ended(*goroutines)


@main_goroutine
def test_those_that_come_after_a_broadcast_are_not_woken_by_it():
    mutex, log = Mutex(), []
    cond = Cond(mutex)
    early = [go_parked(waiter, cond, mutex, log, "early", reason="Cond") for _ in range(5)]
    cond.broadcast()
    late = go_parked(waiter, cond, mutex, log, "late", reason="Cond")
    wait_ended(*early)
    assert log == ["early"] * 5
    cond.signal()
    wait_ended(late)


@main_goroutine
def test_wait_gives_the_lock_up_and_takes_it_again():
    mutex = Mutex()
    cond = Cond(mutex)

    def body():
        with mutex:
            cond.wait()
            assert not mutex.try_lock()

    goroutine = go_parked(body)
    assert mutex.try_lock()
    cond.signal()
    # Signalled, it still waits for the lock.
    wait_parked(goroutine)
    assert not goroutine.join(timeout=0.001)
    mutex.unlock()
    wait_ended(goroutine)
    assert mutex.try_lock()
    mutex.unlock()


@pytest.mark.parametrize("make_lock", [Mutex, RWMutex, lambda: RWMutex().rlocker()], ids=["mutex", "write", "read"])
@main_goroutine
def test_wait_needs_the_lock(make_lock):
    lock = make_lock()
    cond = Cond(lock)
    for timeout in (None, 0, 0.001):
        with pytest.raises(RuntimeError):
            cond.wait(timeout=timeout)
    goroutine = go_parked(lambda: (lock.lock(), cond.wait(), lock.unlock()), reason="Cond")
    cond.signal()
    wait_ended(goroutine)


@main_goroutine
def test_a_cond_needs_a_lock():
    with pytest.raises(TypeError):
        Cond()
    for thing in (None, 1, "lock"):
        with pytest.raises(TypeError):
            Cond(thing)


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_a_cond_times_out_with_its_lock_held(timeout):
    mutex = Mutex()
    cond = Cond(mutex)

    def body():
        with mutex:
            with pytest.raises(TimeoutError):
                cond.wait(timeout=timeout)
            assert not mutex.try_lock()

    body()
    in_thread(body)
    assert mutex.try_lock()


@main_goroutine
def test_a_cancelled_waiter_holds_the_lock_on_its_way_out():
    mutex, seen = Mutex(), []
    cond = Cond(mutex)

    def body():
        with mutex:
            try:
                cond.wait()
            except GoroutineExit:
                seen.append(mutex.try_lock())
                raise

    goroutine = go_parked(body)
    mutex.lock()
    goroutine.cancel()
    for _ in range(20):
        gosched()
    assert seen == []
    mutex.unlock()
    wait_ended(goroutine)
    assert seen == [False]
    assert mutex.try_lock()


@pytest.mark.parametrize("first", ["signal", "timeout"])
@main_goroutine
def test_a_waiter_that_is_cancelled_while_it_takes_the_lock_back_holds_it(first):
    mutex, seen = Mutex(), []
    cond = Cond(mutex)

    def body():
        with mutex:
            began.send(None)
            # Who waits for the lock has it as soon as the wait gives it up.
            wait_parked(me, reason="Mutex")
            try:
                cond.wait(timeout=0.001 if first == "timeout" else None)
            except BaseException as error:
                seen.append((type(error), mutex.try_lock()))
                raise

    me, began = offset.current(), makechan()
    goroutine = go(body)
    began.recv()
    mutex.lock()
    if first == "signal":
        cond.signal()
    wait_parked(goroutine, reason="Mutex")
    goroutine.cancel()
    for _ in range(20):
        gosched()
    assert seen == []
    mutex.unlock()
    wait_ended(goroutine)
    assert seen == [(GoroutineExit, False)]
    assert mutex.try_lock(), "the `with` block has given it back"


@pytest.mark.parametrize("giving_up", ["cancel", "timeout"])
@main_goroutine
def test_a_waiter_that_gave_up_takes_no_signal(giving_up):
    """Go's TestCondSignalStealing: the signal goes to somebody who still waits."""
    mutex, log = Mutex(), []
    cond = Cond(mutex)

    def impatient():
        with mutex, contextlib.suppress(TimeoutError):
            cond.wait(timeout=0.002 if giving_up == "timeout" else None)

    first = [go_parked(impatient) if giving_up == "cancel" else go(impatient) for _ in range(3)]
    second = go_parked(waiter, cond, mutex, log, "second", reason="Cond")
    if giving_up == "cancel":
        for goroutine in first:
            goroutine.cancel()
    wait_ended(*first)
    cond.signal()
    wait_ended(second)
    assert log == ["second"]


@main_goroutine
def test_steps_that_wait_for_each_other():
    """Go's TestRace for conditions: three goroutines that only go on in turn."""
    mutex, steps = Mutex(), []
    cond, position = Cond(mutex), 0

    def body(number):
        nonlocal position
        with mutex:
            while position != number:
                cond.wait()
            steps.append(number)
            position += 1
            cond.broadcast()

    wait_ended(*[go(body, number) for number in (2, 4, 1, 3, 0)])
    assert steps == list(range(5))


@main_goroutine
def test_a_bounded_buffer_for_goroutines_and_threads():
    mutex, items, got = Mutex(), [], []
    not_full, not_empty = Cond(mutex), Cond(mutex)

    def produce(producer):
        for number in range(100):
            with mutex:
                while len(items) >= 3:
                    not_full.wait()
                items.append((producer, number))
                not_empty.signal()

    def consume(count):
        for _ in range(count):
            with mutex:
                while not items:
                    not_empty.wait()
                got.append(items.pop(0))
                not_full.signal()

    threads = [Thread(produce, "thread"), Thread(consume, 150)]
    wait_ended(go(produce, "first"), go(produce, "second"), go(consume, 150))
    for thread in threads:
        thread.result()
    assert items == []
    for producer in ("thread", "first", "second"):
        assert [number for who, number in got if who == producer] == list(range(100))


# ---- Semaphore -------------------------------------------------------------------------------


@main_goroutine
def test_a_semaphore_counts_its_units():
    semaphore = Semaphore(3)
    assert semaphore.acquire() is None
    assert semaphore.try_acquire(2) is True
    assert semaphore.try_acquire() is False
    semaphore.release(2)
    assert semaphore.try_acquire(3) is False
    assert semaphore.try_acquire(n=2) is True
    semaphore.release(n=3)
    semaphore.acquire(n=3)
    assert semaphore.try_acquire(0) is True
    semaphore.release(3)
    assert isinstance(semaphore.stats(), dict)


@main_goroutine
def test_a_semaphore_lets_so_many_in():
    semaphore, inside, most = Semaphore(3), 0, 0

    def body():
        nonlocal inside, most
        for _ in range(20):
            with semaphore:
                with mutex:
                    inside += 1
                    most = max(most, inside)
                gosched()
                with mutex:
                    inside -= 1

    mutex = Mutex()
    threads = [Thread(body) for _ in range(3)]
    wait_ended(*[go(body) for _ in range(20)])
    for thread in threads:
        thread.result()
    assert inside == 0
    assert 1 <= most <= 3
    assert semaphore.try_acquire(3)


@main_goroutine
def test_first_come_first_served():
    semaphore, order = Semaphore(4), []
    semaphore.acquire(4)

    def body(number, units):
        semaphore.acquire(units)
        order.append(number)

    wants = [1, 3, 2, 4, 1, 1]
    waiting = [go_parked(body, number, units) for number, units in enumerate(wants)]
    for number, units in enumerate(wants):
        # One that wants little does not overtake one that wants much.
        for _ in range(units):
            assert order == list(range(number))
            semaphore.release()
        wait_ended(waiting[number])
        assert order == list(range(number + 1))


@main_goroutine
def test_nobody_overtakes_one_that_waits():
    semaphore = Semaphore(2)
    semaphore.acquire()
    big = go_parked(semaphore.acquire, 2)
    assert semaphore.try_acquire() is False
    with pytest.raises(TimeoutError):
        semaphore.acquire(timeout=0)
    semaphore.release()
    wait_ended(big)
    semaphore.release(2)
    assert semaphore.try_acquire(2)


@main_goroutine
def test_a_release_may_let_several_in():
    semaphore = Semaphore(10)
    semaphore.acquire(10)
    waiting = [go_parked(semaphore.acquire, 2) for _ in range(6)]
    semaphore.release(10)
    wait_ended(*waiting[:5])
    assert not waiting[5].join(timeout=0.001)
    semaphore.release(2)
    wait_ended(waiting[5])


@pytest.mark.parametrize("giving_up", ["cancel", "timeout"])
@main_goroutine
def test_a_waiter_that_gives_up_lets_those_behind_it_in(giving_up):
    """The one in front wanted more than was free; when it goes, those behind get what is."""
    semaphore = Semaphore(3)
    semaphore.acquire(1)

    def want_all():
        with contextlib.suppress(TimeoutError):
            semaphore.acquire(3, timeout=0.05 if giving_up == "timeout" else None)
            raise AssertionError("three units cannot be free")

    big = go(want_all)
    # It waits, or has given up already.
    wait_until(lambda: big.wait_reason or big.join(timeout=0))
    small = [go(semaphore.acquire) for _ in range(2)]
    if giving_up == "cancel":
        wait_parked(*small)
        big.cancel()
    wait_ended(big, *small)
    assert semaphore.try_acquire() is False
    semaphore.release(3)
    assert semaphore.try_acquire(3)


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_acquire_times_out(timeout):
    semaphore = Semaphore(1)
    semaphore.acquire(timeout=timeout)
    with pytest.raises(TimeoutError):
        semaphore.acquire(timeout=timeout)
    with pytest.raises(TimeoutError):
        in_thread(semaphore.acquire, 1, timeout=timeout)
    semaphore.release()
    assert semaphore.try_acquire()


@main_goroutine
def test_a_cancel_at_the_hand_over_loses_no_units():
    semaphore = Semaphore(2)
    # In C throughout; see the same test of the locks.
    steps = (semaphore.acquire, semaphore.release)
    for _ in range(300):
        semaphore.acquire(2)
        goroutines = [go_parked(list, map(operator.call, steps)) for _ in range(2)]
        semaphore.release(2)
        goroutines[0].cancel()
        goroutines[1].cancel()
        wait_ended(*goroutines)
        assert semaphore.try_acquire(2)
        semaphore.release(2)


@main_goroutine
def test_timeouts_at_random_lose_no_units(rng):
    semaphore, held, most = Semaphore(5), atomic.Int(), atomic.Int()

    def body(plan):
        for units, timeout in plan:
            try:
                semaphore.acquire(units, timeout=timeout)
            except TimeoutError:
                gosched()
                continue
            now = held.add(units)
            if now > most.load():
                most.store(now)
            gosched()
            held.add(-units)
            semaphore.release(units)

    plans = [[(rng.randint(1, 5), rng.choice([None, 0, 1e-6, 1e-4])) for _ in range(50)] for _ in range(20)]
    wait_ended(*[go(body, plan) for plan in plans])
    assert held.load() == 0
    assert 0 < most.load() <= 5
    assert semaphore.try_acquire(5)


@main_goroutine
def test_a_semaphore_is_a_context_manager():
    semaphore = Semaphore(2)
    with semaphore:
        assert semaphore.try_acquire(2) is False
        with semaphore:
            assert semaphore.try_acquire() is False
    with pytest.raises(ZeroDivisionError), semaphore:
        raise ZeroDivisionError
    assert semaphore.try_acquire(2)


@main_goroutine
def test_misuse_of_a_semaphore_is_an_error():
    semaphore = Semaphore(2)
    with pytest.raises(MISUSE):
        semaphore.release()
    semaphore.acquire()
    with pytest.raises(MISUSE):
        semaphore.release(2)
    for call in (semaphore.acquire, semaphore.try_acquire, semaphore.release, Semaphore):
        with pytest.raises(MISUSE):
            call(-1)
        for value in ("1", None, 1.5):
            with pytest.raises(TypeError):
                call(value)
    semaphore.release()
    assert semaphore.try_acquire(2)


@main_goroutine
def test_more_units_than_there_are_cannot_be_had():
    semaphore = Semaphore(2)
    assert semaphore.try_acquire(3) is False
    with pytest.raises((TimeoutError, ValueError)):
        semaphore.acquire(3, timeout=0.001)
    assert semaphore.try_acquire(2)


@main_goroutine
def test_a_semaphore_of_nothing_admits_nobody():
    semaphore = Semaphore(0)
    assert semaphore.try_acquire() is False
    assert semaphore.try_acquire(0) is True


@main_goroutine
def test_threads_and_goroutines_share_a_semaphore():
    semaphore, acquired = Semaphore(1), threading.Event()
    semaphore.acquire()
    thread = Thread(lambda: (semaphore.acquire(), acquired.set()))
    assert not acquired.is_set()
    semaphore.release()
    wait_until(acquired.is_set, "the thread has the unit")
    thread.result()
    goroutine = go_parked(semaphore.acquire)
    in_thread(semaphore.release)
    wait_ended(goroutine)
