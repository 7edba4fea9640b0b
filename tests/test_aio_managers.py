"""`offset.aio` from goroutines: `iterate` and `enter`, asynchronous generators and context managers in plain functions.

Invariant: what was entered is left, and a generator that was begun is closed, whatever ends the block, on the loop
where it began.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import offset
import pytest
from coroutines import Sleeper, numbers, ready
from helpers import (
    PATIENCE,
    Thread,
    go_parked,
    main_goroutine,
    run_script,
    wait_ended,
    wait_until,
)
from libraries import library
from offset import aio, context, go, makechan, run

pytestmark = pytest.mark.usefixtures("loop_patience")


# ---- iterate ----------------------------------------------------------------------------------


@main_goroutine
def test_iterate_gives_what_a_generator_makes():
    ended = []
    assert list(aio.iterate(numbers(5, ended))) == [0, 1, 2, 3, 4]
    assert len(ended) == 1


@main_goroutine
def test_a_generator_is_closed_when_its_iteration_is_left():
    ended = []
    for number in aio.iterate(numbers(100, ended)):
        if number == 3:
            break
    gc.collect()
    wait_until(lambda: ended)
    with pytest.raises(ZeroDivisionError), contextlib.closing(aio.iterate(numbers(5, ended))) as values:
        for number in values:
            1 // number
    assert len(ended) == 2


@main_goroutine
def test_errors_of_a_generator_and_time_limits_in_it():
    async def fails():
        yield 1
        raise LookupError("no more")

    async def limited():
        async with asyncio.timeout(PATIENCE):
            yield asyncio.current_task()
            yield asyncio.current_task()

    seen = []
    with pytest.raises(LookupError):
        seen.extend(aio.iterate(fails()))
    first, second = aio.iterate(limited())
    assert first is second
    with pytest.raises(TypeError, match="asynchronous iterable, not list"):
        aio.iterate([1, 2])


@main_goroutine
def test_a_channel_is_an_asynchronous_iterable_too():
    channel = makechan(3)
    for number in range(3):
        channel.send(number)
    channel.close()
    assert list(aio.iterate(channel)) == [0, 1, 2]


def test_a_generator_that_outlives_its_loop_was_closed_with_it():
    ended = run_script("""
        import gc
        from offset import aio, run

        async def numbers():
            try:
                yield 1
            finally:
                print("closed", flush=True)

        def main():
            global left
            left = aio.iterate(numbers())
            print(next(left))

        run(main)
        print("collected")
        del left
        gc.collect()
        until_the_end = aio.iterate(numbers())
        print(next(until_the_end))
    """)
    assert ended == (0, "1\nclosed\ncollected\n1\nclosed\n", "")


@main_goroutine
def test_a_cancelled_iteration_closes_the_generator():
    ended, began = [], makechan(1)

    async def waits():
        try:
            yield 1
            began.try_send(None)
            await asyncio.sleep(PATIENCE * 10)
        finally:
            ended.append("closed")

    goroutine = go(lambda: list(aio.iterate(waits())))
    began.recv(timeout=PATIENCE)
    goroutine.cancel()
    wait_ended(goroutine)
    assert ended == ["closed"]


def test_an_iteration_whose_loop_has_ended_is_told():
    values = aio.iterate(numbers(5))
    assert next(values) == 0
    aio._loop._stop(PATIENCE, None, lambda: False)
    with pytest.raises(RuntimeError, match="the program is over"):
        next(values)


def test_a_request_on_its_way_as_the_loop_ends_is_told():
    running, submitted = threading.Event(), threading.Event()

    async def block():
        # What the session is asked meanwhile it gets when its task is cancelled, or never.
        running.set()
        submitted.wait(PATIENCE)
        asyncio.get_running_loop().stop()

    def ask():
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            next(values)

    values = aio.iterate(numbers(5))
    assert next(values) == 0
    loop = aio._loop._Open.loop
    blocking = Thread(aio.await_, block())
    wait_until(running.is_set)
    asking = Thread(ask)
    wait_until(lambda: any(isinstance(call, aio._session._Request) for call in list(loop.calls)))
    submitted.set()
    asking.result()
    blocking.result()
    wait_until(lambda: loop.ended.is_set())
    aio._loop._stop(PATIENCE, None, lambda: False)


# ---- enter ------------------------------------------------------------------------------------


class Manager:
    """An asynchronous context manager that says what happens to it."""

    def __init__(self, swallows=False):
        self.swallows = swallows
        self.tasks = []
        self.left = None

    async def __aenter__(self):
        await asyncio.sleep(0)
        self.tasks.append(asyncio.current_task())
        return self

    async def __aexit__(self, kind, error, tb):
        await asyncio.sleep(0)
        self.tasks.append(asyncio.current_task())
        self.left = error
        return self.swallows


@main_goroutine
def test_both_ends_are_in_one_task():
    with aio.enter(Manager()) as manager:
        assert len(manager.tasks) == 1
    assert manager.tasks[0] is manager.tasks[1]
    assert manager.left is None
    with pytest.raises(ValueError, match="from the block"), aio.enter(Manager()) as manager:
        raise ValueError("from the block")
    assert str(manager.left) == "from the block"
    with aio.enter(Manager(swallows=True)) as manager:
        raise ValueError("swallowed")
    assert str(manager.left) == "swallowed"


@main_goroutine
def test_what_is_no_context_manager_is_refused():
    with pytest.raises(TypeError, match="function; call it first"):
        aio.iterate(numbers)
    with pytest.raises(TypeError, match="asynchronous context manager, not int"):
        aio.enter(5)
    with pytest.raises(TypeError, match="not for the manager"):
        aio.enter(Manager(), 5)
    with pytest.raises(TypeError, match="makes no asynchronous context manager"), aio.enter(dict):
        raise AssertionError


@pytest.mark.parametrize("inside", [False, True])
def test_it_is_entered_once_at_a_time(inside):
    def main():
        entered = aio.enter(Manager)
        for _ in range(2):
            with entered:
                assert entered.stats() == {"entered": True}
                with pytest.raises(RuntimeError, match="entered already"), entered:
                    raise AssertionError
            assert entered.stats() == {"entered": False}
        with pytest.raises(RuntimeError, match="cannot be left"):
            entered.__exit__(None, None, None)

    run(main if inside else lambda: Thread(main).result())


@main_goroutine
def test_a_time_limit_ends_what_waits_in_the_block():
    with pytest.raises(TimeoutError) as caught, aio.enter(asyncio.timeout, 0.02):
        makechan().recv()
    assert not isinstance(caught.value, context.DeadlineExceeded)
    sleeper = Sleeper()
    with pytest.raises(TimeoutError), aio.enter(asyncio.timeout, 0.02):
        aio.await_(sleeper.sleep())
    assert bool(sleeper.ended) == (len(sleeper.began) == 1)
    with aio.enter(asyncio.timeout, PATIENCE):
        aio.await_(ready())


@main_goroutine
def test_a_task_group_ends_the_block_with_its_first_error():
    async def fail():
        raise OSError("the disk is full")

    async def start(group):
        group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught, aio.enter(asyncio.TaskGroup) as group:
        aio.await_(start(group))
        makechan().recv()
    assert [str(error) for error in caught.value.exceptions] == ["the disk is full"]


@main_goroutine
def test_what_ends_the_goroutine_is_a_cancellation_to_the_context_manager():
    manager = Manager(swallows=True)
    with pytest.raises(context.DeadlineExceeded), context.timeout(0.02), aio.enter(manager):
        makechan().recv()
    assert isinstance(manager.left, asyncio.CancelledError)
    manager, began = Manager(), makechan()

    def body():
        with aio.enter(manager):
            began.send(None)
            makechan().recv()

    goroutine = go(body)
    began.recv()
    goroutine.cancel()
    wait_ended(goroutine)
    assert isinstance(manager.left, asyncio.CancelledError)


@main_goroutine
def test_a_goroutine_that_is_parked_says_so():
    sleeper = Sleeper()
    goroutine = go_parked(lambda: aio.await_(sleeper.sleep()), reason="await")
    assert "[await" in offset.runtime.stack(all=True)
    goroutine.cancel()
    wait_ended(goroutine)


@main_goroutine
def test_a_context_manager_that_is_entered_as_its_goroutine_is_cancelled_is_left():
    began = makechan(1)

    class Late(Manager):
        async def __aenter__(self):
            began.try_send(None)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE * 10)
            return await super().__aenter__()

    def body():
        with aio.enter(manager):
            raise AssertionError

    manager = Late()
    goroutine = go(body)
    began.recv(timeout=PATIENCE)
    goroutine.cancel()
    wait_ended(goroutine)
    assert len(manager.tasks) == 2
    assert isinstance(manager.left, asyncio.CancelledError)


@main_goroutine
def test_one_that_is_entered_after_its_goroutine_has_gone_on_is_left(monkeypatch):
    monkeypatch.setattr("offset._exit.GRACE", 0.05)
    began, release = makechan(1), makechan()

    class VeryLate(Manager):
        async def __aenter__(self):
            began.try_send(None)
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await release.arecv()
                    break
            return await super().__aenter__()

    def body():
        with aio.enter(manager):
            raise AssertionError

    manager = VeryLate()
    goroutine = go(body)
    began.recv(timeout=PATIENCE)
    goroutine.cancel()
    wait_ended(goroutine)
    release.send(None, timeout=PATIENCE)
    wait_until(lambda: manager.left)
    assert isinstance(manager.left, asyncio.CancelledError)


@main_goroutine
def test_groups_and_scopes_of_anyio_which_cancel_in_every_turn():
    anyio = library("anyio")
    left = []

    @contextlib.asynccontextmanager
    async def limited():
        with anyio.CancelScope() as scope:
            try:
                yield scope
            except asyncio.CancelledError:
                left.append("cancelled")
                raise

    async def cancel(scope):
        scope.cancel()

    async def turns():
        for _ in range(10):
            await asyncio.sleep(0)

    with aio.enter(limited) as scope:
        aio.await_(cancel(scope))
        try:
            makechan().recv()
        finally:
            aio.await_(turns())
    assert left == ["cancelled"]

    async def fail():
        raise OSError("the disk is full")

    async def start(group):
        group.start_soon(fail)

    with pytest.raises(ExceptionGroup) as caught, aio.enter(anyio.create_task_group) as group:
        aio.await_(start(group))
        makechan().recv()
    assert [str(error) for error in caught.value.exceptions] == ["the disk is full"]


@main_goroutine
def test_a_request_that_is_cancelled_too_late_leaves_the_session_alone():
    channel = makechan()

    class Sends(Manager):
        async def __aenter__(self):
            await channel.asend("sent")
            return self

    async def meet():
        while not channel.stats()["senders"]:
            await asyncio.sleep(0)
        value, _ = channel.try_recv()
        for call in list(aio._loop._Open.loop.calls):
            if isinstance(call, aio._session._Request):
                call.stop()
        for _ in range(10):
            await asyncio.sleep(0)
        return value

    values, entered = makechan(1), aio.enter(Sends())
    meeting = go(lambda: values.send(aio.await_(meet())))
    with entered as manager:
        assert values.recv(timeout=PATIENCE) == "sent"
        assert entered._session.interruption is None
    wait_ended(meeting)
    assert (len(manager.tasks), manager.left) == (1, None)
