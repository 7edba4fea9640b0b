"""Scopes of `offset.context`: what is raised in them, how often, and where several are in one another."""

from __future__ import annotations

import gc
import queue
import socket
import time as wall

import offset
import pytest
from blocks import over, under
from helpers import (
    PATIENCE,
    RECEIVERS,
    Thread,
    collect,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_until,
)
from offset import (
    GoroutineExit,
    context,
    current,
    default,
    go,
    gosched,
    makechan,
    run,
    select,
    sleep,
    sync,
)
from offset.context import Canceled, DeadlineExceeded, background, scope, with_cancel, with_cancel_cause

ATTEMPTS = 50


# ---- what is raised --------------------------------------------------------------------------


@main_goroutine
def test_the_time_is_over():
    when = offset.time.now() + 0.02
    with pytest.raises(DeadlineExceeded, match="context deadline exceeded"), context.timeout(0.02) as ctx:
        assert abs(ctx.deadline() - when) < PATIENCE
        makechan().recv()
    assert offset.time.now() >= when
    assert type(ctx.err()) is DeadlineExceeded


@main_goroutine
def test_it_is_a_timeout_error():
    with pytest.raises(TimeoutError), context.timeout(0):
        sleep(1e6)


@main_goroutine
def test_the_cause_is_told():
    ctx, cancel = with_cancel_cause(background())
    why = ValueError("why")
    cancel(why)
    with pytest.raises(Canceled) as caught, scope(ctx):
        makechan().recv()
    assert caught.value.__cause__ is why
    with pytest.raises(Canceled) as caught, scope(over()):
        makechan().recv()
    assert caught.value.__cause__ is None


@main_goroutine
def test_each_raises_an_object_of_its_own():
    """An exception has one traceback, and goroutines may be in it at once."""
    ctx, cancel = with_cancel(background())
    seen = []
    goroutines = [go_parked(under(ctx, makechan().recv, seen)) for _ in range(10)]
    cancel()
    wait_ended(*goroutines)
    assert {str(error) for error in seen} == {str(ctx.err())}
    assert len({id(error) for error in seen}) == 10


@main_goroutine
def test_a_context_of_a_users_own():
    why = RuntimeError("of its own")

    class Own:
        ended, ending = None, makechan()

        def done(self):
            return self.ending.receiver()

        def err(self):
            return self.ended

        def deadline(self):
            return None

        def value(self, key):
            return None

    own, seen = Own(), []
    goroutine = go_parked(under(own, makechan().recv, seen), reason="chan receive")
    own.ended = why
    own.ending.close()
    wait_ended(goroutine)
    assert seen == [why]
    with pytest.raises(RuntimeError, match="of its own"), scope(own):
        makechan().recv()


@main_goroutine
def test_a_cancellation_while_a_context_is_asked_is_not_lost():
    """Scopes ask contexts further out whether they are over, too, which is a user's code."""

    class Slow:
        def done(self):
            return makechan().receiver()

        def err(self):
            if current() is goroutine and not raised:
                Thread(goroutine.cancel).result()
                sleep(0)

        def deadline(self):
            return None

        def value(self, key):
            return None

    def wait():
        with scope(Slow()):
            try:
                with scope(ctx):
                    makechan().recv()
            except BaseException as error:
                raised.append(type(error))
            for _ in range(3):
                try:
                    sleep(0.001)
                except BaseException as error:
                    raised.append(type(error))

    raised, goroutine = [], None
    ctx, cancel = with_cancel(background())
    goroutine = go_parked(wait, reason="chan receive")
    cancel()
    wait_ended(goroutine)
    assert raised == [GoroutineExit]


# ---- how often -------------------------------------------------------------------------------


@main_goroutine
def test_it_is_raised_once_a_scope():
    ctx, box = over(), makechan(1)
    with scope(ctx):
        with pytest.raises(Canceled):
            box.send(1)
        box.send(2)
        assert box.recv() == 2
        assert ctx.err() is not None
    with scope(ctx), pytest.raises(Canceled):
        box.send(3)
    assert len(box) == 0


@main_goroutine
def test_nothing_is_owed_when_a_scope_is_left():
    """A scope whose context ended while nothing waited leaves no mark on what follows."""
    ctx, cancel = with_cancel(background())
    with scope(ctx):
        cancel()
    box = makechan(1)
    box.send(1)
    assert box.recv() == 1
    sleep(0.001)
    with scope(background()):
        sleep(0.001)


@main_goroutine
def test_what_does_not_wait_is_not_ended():
    box, mutex, semaphore = makechan(1), sync.Mutex(), sync.Semaphore(1)
    with scope(over()):
        assert box.try_send(1)
        assert box.try_recv() == (1, True)
        assert select(box.if_recv(), default) is default
        assert mutex.try_lock()
        mutex.unlock()
        assert semaphore.try_acquire()
        semaphore.release()
        box.close()
        wait_group = sync.WaitGroup()
        wait_group.add(1)
        wait_group.done()
        assert context.current().err() is not None
        assert go(int).status
        with pytest.raises(Canceled):
            gosched()


@main_goroutine
def test_an_operation_happens_or_raises():
    """Whoever comes first, the value is with the receiver or still in the channel, never lost."""
    for attempt in range(ATTEMPTS):
        for name, receive in RECEIVERS.items():
            ctx, cancel = with_cancel(background())
            box, got, seen = makechan(1), [], []

            def block(box=box, got=got, receive=receive):
                got.append(receive(box))

            goroutine = go_parked(under(ctx, block, seen))
            racers = [(box.send, attempt), (cancel,)]
            if attempt % 2:
                racers.reverse()
            threads = [Thread(*racer) for racer in racers]
            for thread in threads:
                thread.result()
            wait_ended(goroutine)
            left = [box.recv()] if len(box) else []
            assert got + left == [attempt], name
            assert (seen == ["done"]) == bool(got), name


@main_goroutine
def test_many_scopes_end_at_once():
    ctx, cancel = with_cancel(background())
    seen, boxes = [], [makechan() for _ in range(1000)]
    goroutines = [go_parked(under(ctx, box.recv, seen)) for box in boxes]
    cancel()
    wait_ended(*goroutines)
    assert len(seen) == 1000
    assert {type(error) for error in seen} == {Canceled}
    assert ctx.stats()["below"] == 0
    # Nobody is left in the queues.
    assert not any(box.try_send(1) for box in boxes)


# ---- one in another --------------------------------------------------------------------------


@main_goroutine
def test_the_innermost_context_is_the_current_one():
    assert context.current() is background()
    outer, cancel = with_cancel(background())
    with scope(outer) as given:
        assert given is outer
        assert context.current() is outer
        with context.timeout(offset.time.HOUR) as inner:
            assert context.current() is inner
            assert inner.deadline() is not None
        assert inner.err() is not None
        assert context.current() is outer
        # Whoever is started is outside.
        answers = makechan(1)
        go(lambda: answers.send(context.current()))
        assert answers.recv() is background()
    assert context.current() is background()
    assert in_thread(context.current) is background()
    cancel()


@main_goroutine
def test_an_inner_scope_ends_alone():
    outer, cancel = with_cancel(background())
    with scope(outer):
        with pytest.raises(DeadlineExceeded), context.timeout(0.001):
            makechan().recv()
        sleep(0.001)
        cancel()
        with pytest.raises(Canceled):
            sleep(0.001)
        sleep(0.001)


@main_goroutine
def test_where_both_are_over_the_outer_one_counts_once():
    why = ValueError("outer")
    outer, cancel = with_cancel_cause(background())
    with scope(outer), context.timeout(0) as inner:
        cancel(why)
        with pytest.raises(Canceled) as caught:
            makechan().recv()
        assert caught.value.__cause__ is why
        assert inner.err() is not None
        # Both are on the way out.
        sleep(0.001)
    sleep(0.001)


@pytest.mark.parametrize("inner_first", [False, True])
@main_goroutine
def test_a_context_below_ends_with_the_one_above_once(inner_first):
    """Whether the goroutine is told of the inner or of the outer scope first: it is one end."""
    outer, cancel = with_cancel(background())
    seen, tidied = [], []
    inner = with_cancel(outer)[0] if inner_first else None

    def body():
        with scope(outer):
            below = inner or with_cancel(outer)[0]
            try:
                with scope(below):
                    try:
                        makechan().recv()
                    except BaseException as error:
                        seen.append(error)
                        raise
                    finally:
                        for _ in range(20):
                            sleep(0.0005)
                        tidied.append("inner")
            finally:
                sleep(0.001)
                tidied.append("outer")

    def main():
        try:
            body()
        except Canceled as error:
            assert [error] == seen
            tidied.append("caught")

    goroutine = go_parked(main)
    Thread(cancel).result()
    wait_ended(goroutine)
    assert tidied == ["inner", "outer", "caught"]


@main_goroutine
def test_a_timeout_for_cleaning_up():
    """A scope that is entered after the end counts for itself."""
    outer, cancel = with_cancel(background())
    cancel()
    with scope(outer):
        try:
            makechan().recv()
        except Canceled:
            with pytest.raises(DeadlineExceeded), context.timeout(0.005) as ctx:
                assert ctx.err() is None or offset.time.now() >= ctx.deadline()
                makechan().recv()
            # But one that is below the ended context is over from the start.
            with pytest.raises(Canceled), scope(with_cancel(outer)[0]):
                sleep(0.001)


# ---- beside other ends -----------------------------------------------------------------------


@main_goroutine
def test_a_goroutine_that_is_cancelled_has_no_scopes_to_obey():
    """All of it is on the way out, and what cleans up may wait."""
    ctx, cancel = with_cancel(background())
    steps = []

    def body():
        with scope(ctx):
            try:
                makechan().recv()
            except BaseException as error:
                steps.append(type(error))
                raise
            finally:
                for _ in range(10):
                    sleep(0.0005)
                with pytest.raises(DeadlineExceeded), context.timeout(0.001):
                    makechan().recv()
                steps.append("slept")

    for first, second in ((0, 1), (1, 0)):
        steps.clear()
        goroutine = go_parked(body)
        ends = (goroutine.cancel, cancel)
        ends[first]()
        ends[second]()
        wait_ended(goroutine)
        # Without the GIL it may be cleaning up after the end of the scope by the time when it is cancelled.
        assert steps == [GoroutineExit, "slept"] or (first and steps[0] is Canceled)
        ctx, cancel = with_cancel(background())


@main_goroutine
def test_the_end_of_the_goroutine_is_not_lost():
    """The end of a context and `cancel` race: whoever comes first, the goroutine ends."""
    for attempt in range(ATTEMPTS):
        ctx, cancel = with_cancel(background())
        seen = []

        def body(ctx=ctx, seen=seen):
            with scope(ctx):
                while True:
                    try:
                        makechan().recv()
                    except Canceled:
                        seen.append("canceled")
                    except GoroutineExit:
                        seen.append("exit")
                        raise

        goroutine = go_parked(body)
        racers = [goroutine.cancel, cancel]
        if attempt % 2:
            racers.reverse()
        for thread in [Thread(racer) for racer in racers]:
            thread.result()
        wait_ended(goroutine)
        assert seen in (["exit"], ["canceled", "exit"])


@main_goroutine
def test_what_is_thrown_comes_beside_it():
    ctx, cancel = with_cancel(background())
    seen = []

    def body():
        with scope(ctx):
            for _ in range(2):
                try:
                    makechan().recv()
                except (Canceled, KeyError) as error:
                    seen.append(type(error))
            sleep(0.001)

    goroutine = go_parked(body)
    goroutine.throw(KeyError)
    cancel()
    wait_ended(goroutine)
    assert sorted(seen, key=str) == sorted([Canceled, KeyError], key=str)


@main_goroutine
def test_what_computes_is_not_interrupted():
    ctx, cancel = with_cancel(background())
    go(cancel)
    with pytest.raises(Canceled), scope(ctx):
        until = wall.monotonic() + 0.05
        while wall.monotonic() < until:
            sum(range(100))
        assert ctx.err() is not None or gosched() is None
        sleep(PATIENCE)


# ---- mistakes and leaks ----------------------------------------------------------------------


def test_a_plain_thread_has_no_scopes():
    with pytest.raises(RuntimeError, match="inside goroutines only"), scope(background()):
        pass
    with pytest.raises(RuntimeError, match="inside goroutines only"), context.timeout(1):
        pass


@main_goroutine
def test_a_scope_is_entered_once():
    entered = scope(background())
    with entered:
        pass
    with pytest.raises(RuntimeError, match="entered once"), entered:
        pass
    # A timeout makes a new one each time.
    again = context.timeout(offset.time.HOUR)
    for _ in range(2):
        with again:
            sleep(0)


@main_goroutine
def test_a_scope_is_left_where_it_was_entered():
    def stretch(ctx):
        with scope(ctx):
            yield
            yield

    ctx, cancel = with_cancel(background())
    stretched = stretch(ctx)
    next(stretched)
    result = makechan(1)

    def elsewhere():
        try:
            stretched.close()
        except BaseException as error:
            result.send(error)

    go(elsewhere)
    error = result.recv()
    assert type(error) is RuntimeError
    assert "by the goroutine that entered it" in str(error)
    with pytest.raises(Canceled):
        cancel()
        sleep(0.001)


@main_goroutine
def test_scopes_may_be_left_in_any_order():
    first, second = with_cancel(background()), with_cancel(background())
    outer, inner = scope(first[0]), scope(second[0])
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert context.current() is second[0]
    first[1]()
    sleep(0.001)
    second[1]()
    with pytest.raises(Canceled):
        sleep(0.001)
    inner.__exit__(None, None, None)
    assert context.current() is background()


@main_goroutine
def test_a_generator_that_nobody_ends_keeps_nothing_in_scope():
    def stretch(ctx):
        with scope(ctx):
            yield

    ctx, cancel = with_cancel(background())
    kept = []

    def body():
        stretched = stretch(ctx)
        next(stretched)
        kept.append(stretched)

    wait_ended(go(body))
    cancel()
    assert ctx.stats()["below"] == 0
    sleep(0.001)
    kept.clear()
    gc.collect()


@main_goroutine
def test_nothing_is_left_behind():
    # Tracebacks of tests that failed may keep some.
    before = {id(thing) for thing in gc.get_objects() if type(thing).__name__ == "Scope"}
    ctx, cancel = with_cancel(background())
    for _ in range(1000):
        with scope(ctx):
            pass
        with context.timeout(offset.time.HOUR):
            pass
    assert ctx.stats()["below"] == 0
    collect()
    found = {id(thing) for thing in gc.get_objects() if type(thing).__name__ == "Scope"}
    assert not found - before
    cancel()


@main_goroutine
def test_scopes_in_a_storm(rng):
    """Goroutines in scopes within scopes, ended at random: each is ended once and by its own."""
    top, cancel_top = with_cancel(background())
    ended = sync.atomic.Int()
    results = makechan(200)

    def body(seed):
        caught = 0
        for _ in range(20):
            try:
                with context.timeout(seed % 7 / 10_000), scope(top):
                    box = makechan(1)
                    while True:
                        box.send(1)
                        box.recv()
                        sleep(0.0002)
            except DeadlineExceeded:
                caught += 1
            except Canceled:
                ended.add(1)
                break
        sleep(0.001)
        results.send(caught)

    for _ in range(200):
        go(body, rng.randrange(1000))
    sleep(0.02)
    Thread(cancel_top).result()
    caught = [results.recv(timeout=PATIENCE) for _ in range(200)]
    assert len(caught) == 200
    assert all(count <= 20 for count in caught)
    assert top.stats()["below"] == 0


def test_the_standard_ways_are_untouched():
    """Outside of scopes nothing has changed: plain sockets, queues and locks know no contexts."""

    def main():
        with context.timeout(offset.time.HOUR):
            box = queue.Queue()
            box.put(1)
            left, right = socket.socketpair()
            with left, right:
                left.send(b"x")
                return box.get(), right.recv(1)

    assert run(main) == (1, b"x")


@main_goroutine
def test_a_wait_that_was_released_and_ended_at_once_keeps_its_lock():
    """A mutex is handed on and the context ends: either it is held, or it raised and the next one has it."""
    for _ in range(ATTEMPTS):
        mutex = sync.Mutex()
        mutex.lock()
        ctx, cancel = with_cancel(background())
        held, seen = [], []

        def block(mutex=mutex, held=held):
            with mutex:
                held.append(current().id)

        goroutine = go_parked(under(ctx, block, seen))
        for thread in [Thread(mutex.unlock), Thread(cancel)]:
            thread.result()
        wait_ended(goroutine)
        assert mutex.try_lock()
        mutex.unlock()
        assert (seen == ["done"]) == bool(held)


@main_goroutine
def test_iteration_over_a_channel_is_ended():
    ctx, cancel = with_cancel(background())
    box, seen = makechan(), []
    goroutine = go_parked(under(ctx, lambda: list(box), seen))
    cancel()
    wait_until(lambda: seen, "it was ended")
    wait_ended(goroutine)
    assert type(seen[0]) is Canceled
    box.close()
