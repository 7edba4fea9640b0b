"""`offset.sync.Mutex` and `offset.sync.RWMutex`, among goroutines, among OS threads, and between both.

Invariants checked throughout: at most one holds the lock, or any number of readers and no writer;
whoever waits longest is next; a waiter that timed out or was cancelled is in no queue, and a lock
that was handed to it in that moment is not lost.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import time

import offset
import pytest
from helpers import (
    FREE_THREADED,
    OVER,
    PATIENCE,
    SHORT,
    Thread,
    assert_no_growth,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import current, go, gosched, makechan, sleep
from offset.sync import Cond, Mutex, RWMutex, atomic

every_lock = pytest.mark.parametrize("make_lock", [Mutex, RWMutex], ids=["mutex", "rwmutex"])


def step_aside():
    """Let somebody else go on, in a goroutine and in an OS thread."""
    if current() is None:
        time.sleep(0)
    else:
        gosched()


def among(goroutines, threads, body):
    """Run `body(number)` in so many goroutines and OS threads at once and wait for their ends."""
    started = [go(body, number) for number in range(goroutines)]
    others = [Thread(body, goroutines + number) for number in range(threads)]
    wait_ended(*started)
    for thread in others:
        thread.result()


@pytest.fixture(params=[(40, 0), (20, 4), (0, 6)], ids=["goroutines", "both", "threads"])
def crowd(request):
    """How many goroutines and how many threads take part."""
    return request.param


def go_waiting(function):
    """Start a goroutine and return when it waits for a lock, or has given up already."""
    goroutine = go(function)
    wait_until(lambda: "utex" in (goroutine.wait_reason or "") or goroutine.join(timeout=0), "it waits")
    return goroutine


def assert_free(lock):
    """Fail if somebody holds the lock or is counted as waiting for it."""
    assert lock.try_lock() is True
    assert lock.try_lock() is False
    lock.unlock()


# ---- what a Mutex and the writing side of an RWMutex have in common ------------------------------


@every_lock
@main_goroutine
def test_one_at_a_time(make_lock, crowd):
    lock, inside, entered = make_lock(), [], 0

    def body(number):
        nonlocal entered
        for _ in range(50):
            lock.lock()
            inside.append(number)
            step_aside()
            assert inside == [number]
            inside.clear()
            entered += 1
            lock.unlock()
            if entered % 3 == 0:
                step_aside()

    among(*crowd, body)
    assert entered == 50 * sum(crowd)
    assert_free(lock)


@every_lock
@main_goroutine
def test_one_at_a_time_with_every_way_to_lock(make_lock, crowd, rng):
    lock, inside = make_lock(), []
    entered, refused = atomic.Int(), atomic.Int()
    ways = [(rng.randrange(4), rng.choice([0, 1e-5, 1e-3])) for _ in range(50)]

    def body(number):
        for way, timeout in ways:
            try:
                if way == 0:
                    lock.lock()
                elif way == 1:
                    lock.__enter__()
                elif way == 2:
                    lock.lock(timeout=timeout)
                elif not lock.try_lock():
                    raise TimeoutError
            except TimeoutError:
                refused.add(1)
                step_aside()
                continue
            inside.append(number)
            step_aside()
            assert inside == [number]
            inside.clear()
            entered.add(1)
            lock.unlock()

    among(*crowd, body)
    assert entered.load() + refused.load() == len(ways) * sum(crowd)
    assert_free(lock)


@every_lock
@main_goroutine
def test_try_lock_says_whether_it_locked(make_lock):
    lock = make_lock()
    assert lock.try_lock() is True
    assert lock.try_lock() is False
    lock.unlock()
    lock.lock()
    assert lock.try_lock() is False
    assert in_thread(lock.try_lock) is False
    lock.unlock()
    assert_free(lock)


@every_lock
@main_goroutine
def test_unlock_of_an_unlocked_lock_is_an_error(make_lock):
    lock = make_lock()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="lock"):
            lock.unlock()
    lock.lock()
    lock.unlock()
    with pytest.raises(RuntimeError):
        lock.unlock()
    # The mistake leaves a lock that works.
    assert_free(lock)


@every_lock
@main_goroutine
def test_anybody_may_unlock(make_lock):
    lock = make_lock()
    lock.lock()
    wait_ended(go(lock.unlock))
    lock.lock()
    in_thread(lock.unlock)
    in_thread(lock.lock)
    lock.unlock()
    assert_free(lock)


@every_lock
@main_goroutine
def test_a_lock_is_not_recursive(make_lock):
    lock = make_lock()
    lock.lock()
    with pytest.raises(TimeoutError):
        lock.lock(timeout=0.001)
    lock.unlock()
    assert_free(lock)


@every_lock
@main_goroutine
def test_a_lock_is_a_context_manager(make_lock):
    lock = make_lock()
    with lock:
        assert not lock.try_lock()
    with pytest.raises(ZeroDivisionError), lock:
        assert not lock.try_lock()
        raise ZeroDivisionError
    assert_free(lock)
    with pytest.raises(RuntimeError), lock:
        lock.unlock()


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@every_lock
@main_goroutine
def test_a_lock_times_out(make_lock, timeout):
    lock = make_lock()
    # Over at once, it still tries.
    lock.lock(timeout=timeout)
    with pytest.raises(TimeoutError):
        lock.lock(timeout=timeout)
    with pytest.raises(TimeoutError):
        in_thread(lock.lock, timeout=timeout)
    lock.unlock()
    assert_free(lock)


@every_lock
@main_goroutine
def test_a_timeout_must_be_a_duration(make_lock):
    lock = make_lock()
    for timeout in ("1", [1], object()):
        with pytest.raises(TypeError):
            lock.lock(timeout=timeout)
    assert_free(lock)


@every_lock
@main_goroutine
def test_a_lock_is_handed_on_in_order(make_lock):
    lock, order = make_lock(), []
    lock.lock()

    def body(number):
        with lock:
            order.append(number)
            gosched()

    waiting = [go_parked(body, number) for number in range(30)]
    lock.unlock()
    # Nobody overtakes those that wait.
    lock.lock()
    order.append("main")
    lock.unlock()
    wait_ended(*waiting)
    assert order == [*range(30), "main"]


@every_lock
@main_goroutine
def test_waiters_that_give_up_keep_the_others_in_order(make_lock, rng):
    lock, order, gave_up = make_lock(), [], atomic.Int()
    lock.lock()

    def body(number, timeout=None):
        try:
            lock.lock(timeout=timeout)
        except TimeoutError:
            gave_up.add(1)
            return
        order.append(number)
        lock.unlock()

    waiting, hasty, cancelled, expected = [], [], [], []
    for number in range(40):
        fate = rng.randrange(3)
        if fate == 0:
            hasty.append(go(body, number, 0.002))
            continue
        waiting.append(go_parked(body, number, reason="utex"))
        if fate == 1:
            cancelled.append(waiting[-1])
        else:
            expected.append(number)
    for goroutine in cancelled:
        goroutine.cancel()
    wait_ended(*hasty, *cancelled)
    lock.unlock()
    wait_ended(*waiting)
    assert order == expected
    assert gave_up.load() == len(hasty)
    assert_free(lock)


@every_lock
@main_goroutine
def test_nobody_starves_beside_one_that_locks_again_at_once(make_lock):
    """Go's TestMutexFairness: the lock is given back and taken in one breath, for ever."""
    lock, stop = make_lock(), False

    def greedy():
        while not stop:
            lock.lock()
            gosched()
            lock.unlock()

    goroutine = go(greedy)

    def modest():
        for _ in range(100):
            lock.lock(timeout=PATIENCE)
            lock.unlock()

    modest()
    in_thread(modest)
    stop = True
    wait_ended(goroutine)
    assert_free(lock)


@every_lock
@main_goroutine
def test_nobody_starves_beside_a_thread_that_locks_again_at_once(make_lock):
    lock, stop = make_lock(), threading.Event()

    def greedy():
        while not stop.is_set():
            with lock:
                time.sleep(0)

    thread = Thread(greedy)
    for _ in range(20):
        lock.lock(timeout=PATIENCE)
        lock.unlock()
    stop.set()
    thread.result()
    assert_free(lock)


@every_lock
@main_goroutine
def test_a_cancel_at_the_hand_over_does_not_lose_the_lock(make_lock):
    lock = make_lock()
    # In C throughout: a goroutine that runs may get its cancellation between any two instructions of
    # Python, those between the call of __enter__ and the block of `with` among them.
    steps = (lock.lock, lock.unlock)
    for _ in range(300):
        lock.lock()
        goroutine = go_parked(list, map(operator.call, steps), reason="utex")
        lock.unlock()
        goroutine.cancel()
        wait_ended(goroutine)
        assert_free(lock)


@every_lock
@main_goroutine
def test_a_timeout_racing_the_hand_over_does_not_lose_the_lock(make_lock, rng):
    lock, outcomes = make_lock(), []

    def body(timeout):
        try:
            lock.lock(timeout=timeout)
        except TimeoutError:
            outcomes.append("timeout")
        else:
            outcomes.append("locked")
            lock.unlock()

    for _ in range(300):
        lock.lock()
        goroutine = go(body, rng.choice([1e-6, 5e-5, 2e-4]))
        for _ in range(rng.randint(0, 4)):
            sleep(rng.choice([0, 2e-5, 1e-4]))
        lock.unlock()
        wait_ended(goroutine)
        assert_free(lock)
    assert len(outcomes) == 300


@every_lock
@main_goroutine
def test_a_thread_that_holds_a_lock_stops_nobody_else(make_lock):
    lock, held, let_go = make_lock(), threading.Event(), threading.Event()

    def holder():
        with lock:
            held.set()
            assert let_go.wait(PATIENCE)

    thread = Thread(holder)
    wait_until(held.is_set, "the thread holds the lock")
    order = []
    waiting = go_parked(lambda: (lock.lock(), order.append("waiter"), lock.unlock()), reason="utex")
    others = [go(order.append, "other") for _ in range(5)]
    wait_ended(*others)
    let_go.set()
    wait_ended(waiting)
    thread.result()
    assert order == ["other"] * 5 + ["waiter"]


@every_lock
def test_a_lock_works_without_run(make_lock):
    lock = make_lock()
    lock.lock()
    thread = Thread(lambda: (lock.lock(), lock.unlock()))
    goroutine = go(lambda: (lock.lock(), lock.unlock()))
    assert not goroutine.join(timeout=0.001)
    assert not thread.ended
    lock.unlock()
    assert goroutine.join(timeout=PATIENCE)
    thread.result()
    assert_free(lock)


@every_lock
@main_goroutine
def test_locks_leave_nothing_behind(make_lock):
    lock = make_lock()

    def use():
        with lock, contextlib.suppress(TimeoutError):
            lock.lock(timeout=0)
        with lock, contextlib.suppress(TimeoutError):
            lock.lock(timeout=1e-6)
        lock.lock()
        cancelled = go_parked(lock.lock, reason="utex")
        cancelled.cancel()
        wait_ended(cancelled)
        lock.unlock()
        make_lock()

    assert_no_growth(use, probes=[lock])
    assert_free(lock)
    assert isinstance(lock.stats(), dict)


@main_goroutine
def test_locked_tells_the_state_of_a_mutex():
    mutex = Mutex()
    assert mutex.locked is False
    with mutex:
        assert mutex.locked is True
    assert mutex.locked is False


# ---- RWMutex ---------------------------------------------------------------------------------


@main_goroutine
def test_readers_are_in_together(crowd):
    """Go's TestParallelReaders: all of them are inside before the first leaves."""
    lock, inside = RWMutex(), atomic.Int()

    def body(number):
        lock.rlock()
        inside.add(1)
        wait_until(lambda: inside.load() >= sum(crowd), "everybody reads")
        lock.runlock()

    among(*crowd, body)
    assert_free(lock)


@main_goroutine
def test_readers_exclude_writers_and_writers_everybody(crowd, rng):
    """Go's HammerRWMutex: a reader counts one, a writer ten thousand."""
    lock, activity, writes = RWMutex(), atomic.Int(), 0
    plans = [[rng.random() < 0.3 for _ in range(40)] for _ in range(sum(crowd))]

    def body(number):
        nonlocal writes
        for writing in plans[number]:
            if writing:
                lock.lock()
                assert activity.add(10_000) == 10_000
                step_aside()
                writes += 1
                assert activity.add(-10_000) == 0
                lock.unlock()
            else:
                lock.rlock()
                assert 0 < activity.add(1) < 10_000
                step_aside()
                assert 0 <= activity.add(-1) < 10_000
                lock.runlock()

    among(*crowd, body)
    assert writes == sum(map(sum, plans))
    assert_free(lock)


@main_goroutine
def test_try_lock_and_try_rlock():
    lock = RWMutex()
    assert lock.try_rlock() is True
    assert lock.try_rlock() is True
    assert lock.try_lock() is False
    lock.runlock()
    assert lock.try_lock() is False
    lock.runlock()
    assert lock.try_lock() is True
    assert lock.try_rlock() is False
    assert lock.try_lock() is False
    lock.unlock()
    assert_free(lock)


@main_goroutine
def test_a_waiting_writer_holds_new_readers_off():
    lock, order = RWMutex(), []
    lock.rlock()
    writer = go_parked(lambda: (lock.lock(), order.append("writer"), lock.unlock()), reason="utex")
    assert lock.try_rlock() is False
    reader = go_parked(lambda: (lock.rlock(), order.append("reader"), lock.runlock()), reason="utex")
    lock.runlock()
    wait_ended(writer, reader)
    assert order == ["writer", "reader"]
    assert_free(lock)


@main_goroutine
def test_readers_that_waited_for_a_writer_go_in_together_before_the_next():
    lock, order, inside = RWMutex(), [], atomic.Int()
    lock.lock()

    def read():
        lock.rlock()
        inside.add(1)
        order.append("reader")
        wait_until(lambda: inside.load() == 5, "all readers are in")
        lock.runlock()

    def write():
        lock.lock()
        order.append("writer")
        lock.unlock()

    readers = [go_parked(read, reason="utex") for _ in range(3)]
    writer = go_parked(write, reason="utex")
    readers += [go_parked(read, reason="utex") for _ in range(2)]
    lock.unlock()
    wait_ended(*readers, writer)
    assert order.count("reader") == 5
    # As in Go, what reads when a writer leaves is all that waited by then.
    assert order[-1] == "writer"
    assert_free(lock)


@main_goroutine
def test_writers_do_not_starve():
    lock, stop, writes = RWMutex(), False, 0

    def read_again_and_again():
        while not stop:
            lock.rlock()
            gosched()
            lock.runlock()

    readers = [go(read_again_and_again) for _ in range(10)]
    for _ in range(50):
        lock.lock(timeout=PATIENCE)
        writes += 1
        lock.unlock()
    stop = True
    wait_ended(*readers)
    assert writes == 50
    assert_free(lock)


@main_goroutine
def test_readers_do_not_starve():
    lock, stop, reads = RWMutex(), False, 0

    def write_again_and_again():
        while not stop:
            lock.lock()
            gosched()
            lock.unlock()

    writers = [go(write_again_and_again) for _ in range(10)]
    for _ in range(50):
        lock.rlock(timeout=PATIENCE)
        reads += 1
        lock.runlock()
    stop = True
    wait_ended(*writers)
    assert reads == 50
    assert_free(lock)


@pytest.mark.parametrize("giving_up", ["cancel", "timeout"])
@main_goroutine
def test_a_writer_that_gives_up_lets_the_readers_in(giving_up):
    lock, timed_out = RWMutex(), makechan(1)
    lock.rlock()

    def write():
        # Long enough for the readers to queue up behind it; should it not be, they were never held off.
        try:
            lock.lock(timeout=0.05 if giving_up == "timeout" else None)
        except TimeoutError:
            timed_out.send(None)

    writer = go_waiting(write)
    readers = [go(lambda: (lock.rlock(), lock.runlock())) for _ in range(5)]
    if giving_up == "cancel":
        wait_parked(*readers)
        writer.cancel()
    else:
        timed_out.recv()
    # The reader from the beginning is still in.
    wait_ended(writer, *readers)
    assert lock.try_rlock() is True
    lock.runlock()
    lock.runlock()
    assert_free(lock)


@pytest.mark.parametrize("giving_up", ["cancel", "timeout"])
@main_goroutine
def test_a_reader_that_gives_up_lets_the_writer_in(giving_up):
    lock = RWMutex()
    lock.lock()

    def read():
        with contextlib.suppress(TimeoutError):
            lock.rlock(timeout=0.01 if giving_up == "timeout" else None)

    reader = go_waiting(read)
    writer = go_parked(lambda: (lock.lock(), lock.unlock()), reason="utex")
    if giving_up == "cancel":
        reader.cancel()
    wait_ended(reader)
    lock.unlock()
    wait_ended(writer)
    assert_free(lock)


@main_goroutine
def test_giving_up_at_random_loses_no_lock(rng):
    lock, activity, outcomes = RWMutex(), atomic.Int(), atomic.Int()

    def body(plan):
        for writing, timeout in plan:
            try:
                if writing:
                    lock.lock(timeout=timeout)
                    assert activity.add(10_000) == 10_000
                    gosched()
                    activity.add(-10_000)
                    lock.unlock()
                else:
                    lock.rlock(timeout=timeout)
                    assert 0 < activity.add(1) < 10_000
                    gosched()
                    activity.add(-1)
                    lock.runlock()
            except TimeoutError:
                gosched()
            outcomes.add(1)

    plans = [[(rng.random() < 0.4, rng.choice([None, 0, 1e-6, 1e-4])) for _ in range(60)] for _ in range(30)]
    wait_ended(*[go(body, plan) for plan in plans])
    assert outcomes.load() == 60 * 30
    assert_free(lock)


@pytest.mark.skipif(FREE_THREADED, reason="a cancellation may come between the entry of a `with` and its block")
@main_goroutine
def test_cancelling_at_random_loses_no_lock(rng):
    lock = RWMutex()
    reading = lock.rlocker()

    def body(side):
        while True:
            with side:
                gosched()

    for _ in range(30):
        goroutines = [go(body, lock if rng.random() < 0.5 else reading) for _ in range(10)]
        for _ in range(rng.randint(0, 5)):
            gosched()
        rng.shuffle(goroutines)
        for goroutine in goroutines:
            goroutine.cancel()
            gosched()
        wait_ended(*goroutines)
        assert_free(lock)


@main_goroutine
def test_misuse_of_a_read_lock_is_an_error():
    lock = RWMutex()
    with pytest.raises(RuntimeError):
        lock.runlock()
    lock.rlock()
    with pytest.raises(RuntimeError):
        lock.unlock()
    lock.runlock()
    with pytest.raises(RuntimeError):
        lock.runlock()
    lock.lock()
    with pytest.raises(RuntimeError):
        lock.runlock()
    lock.unlock()
    with pytest.raises(RuntimeError):
        lock.rlocker().unlock()
    assert_free(lock)


@pytest.mark.parametrize("timeout", OVER + SHORT, ids=repr)
@main_goroutine
def test_a_read_lock_times_out(timeout):
    lock = RWMutex()
    lock.rlock(timeout=timeout)
    lock.rlocker().lock(timeout=timeout)
    with pytest.raises(TimeoutError):
        lock.lock(timeout=timeout)
    lock.runlock()
    lock.runlock()
    with lock:
        for attempt in (lock.rlock, lock.rlocker().lock):
            with pytest.raises(TimeoutError):
                attempt(timeout=timeout)
            with pytest.raises(TimeoutError):
                in_thread(attempt, timeout=timeout)
    assert_free(lock)


@main_goroutine
def test_the_rlocker_is_the_reading_side():
    lock = RWMutex()
    reading = lock.rlocker()
    reading.lock()
    with lock.rlocker():
        assert lock.try_lock() is False
        assert lock.try_rlock() is True
        lock.runlock()
    reading.unlock()
    with pytest.raises(ZeroDivisionError), reading:
        assert lock.try_lock() is False
        raise ZeroDivisionError
    assert_free(lock)


@main_goroutine
def test_go_test_rlocker():
    """Go's TestRLocker: read and write sides take turns, whoever asks."""
    lock = RWMutex()
    reading = lock.rlocker()
    writing = makechan(1)

    def write():
        for _ in range(10):
            reading.lock()
            reading.lock()
            writing.send(True)
            lock.lock()
            writing.send(True)
            lock.unlock()

    goroutine = go(write)
    for _ in range(10):
        writing.recv()
        wait_parked(goroutine, reason="utex")
        assert lock.try_rlock() is False
        reading.unlock()
        with pytest.raises(offset.WouldBlock):
            writing.try_recv()
        reading.unlock()
        writing.recv()
    wait_ended(goroutine)
    assert_free(lock)


@main_goroutine
def test_a_cond_may_use_the_reading_side():
    lock = RWMutex()
    cond = Cond(lock.rlocker())

    def wait():
        with lock.rlocker():
            cond.wait()
            assert lock.try_lock() is False

    waiting = [go_parked(wait) for _ in range(3)]
    assert_free(lock)
    cond.broadcast()
    wait_ended(*waiting)
    assert_free(lock)
