"""Channels and goroutines in tasks of trio and anyio, and coroutines of theirs from goroutines, through a token.

Invariant: trio ends a wait that has not been served, and none that has: a value is never lost, and a cancellation that
comes too late comes at the next checkpoint.
"""

from __future__ import annotations

import contextvars
import threading

import offset
import offset.aio._trio
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended
from libraries import library
from offset import ChannelClosed, aio, context, default, go, makechan, nilchan

trio = library("trio")
anyio = library("anyio")

pytestmark = pytest.mark.usefixtures("loop_patience")

variable = contextvars.ContextVar("variable", default="nothing")


async def waiting(channel, side="receivers", count=1):
    with trio.fail_after(PATIENCE):
        while channel.stats()[side] != count:
            await trio.lowlevel.checkpoint()


# ---- in tasks of trio ----------------------------------------------------------------------------


def test_tasks_of_trio_meet_goroutines():
    requests, answers = makechan(), makechan(2)

    def double():
        for number in requests:
            answers.send(number * 2)
        answers.close()

    async def main():
        goroutine = go(double)
        seen = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive():
                async for value in answers:
                    seen.append(value)

            for number in range(20):
                await requests.asend(number)
            requests.close()
        await goroutine
        return seen

    assert trio.run(main) == [2 * number for number in range(20)]


def test_tasks_of_trio_and_of_asyncio_at_one_channel():
    import asyncio

    channel = makechan()

    async def send():
        for number in range(50):
            await channel.asend(number)
        channel.close()

    async def receive():
        return [value async for value in channel]

    sender = Thread(asyncio.run, send())
    assert trio.run(receive) == list(range(50))
    sender.result()


def test_select_and_timeouts_in_trio():
    left, right = makechan(), makechan()

    async def main():
        assert await aio.select_async(left.if_recv(), default) is default
        for make in (left.arecv, lambda timeout: left.asend(1, timeout=timeout)):
            for seconds in (0, 0.01):
                with pytest.raises(TimeoutError):
                    await make(timeout=seconds)
        with pytest.raises(TimeoutError, match="select timed out"):
            await aio.select_async(left.if_recv(), nilchan.if_send(1), timeout=0.01)
        go(right.send, "value")
        case = await aio.select_async(left.if_recv(), right.if_recv(), timeout=PATIENCE)
        assert (case.index, case.value) == (1, "value")
        assert left.stats()["receivers"] == left.stats()["senders"] == 0
        left.close()
        with pytest.raises(ChannelClosed):
            await left.arecv()

    trio.run(main)


def test_a_cancel_scope_leaves_nothing_behind():
    channel = makechan()

    async def main():
        for make in (channel.arecv, lambda: channel.asend(1), lambda: aio.select_async(channel.if_recv())):
            with trio.move_on_after(0.01) as scope:
                await make()
            assert scope.cancelled_caught
        assert channel.stats()["receivers"] == channel.stats()["senders"] == 0

    trio.run(main)


def test_what_was_received_before_a_cancellation_is_received():
    channel, seen = makechan(), []

    async def main():
        async def receive():
            seen.append(await channel.arecv())
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await waiting(channel)
            channel.send("in time")
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert seen == ["in time"]


def test_a_wake_that_comes_late_wakes_nobody_elsewhere():
    class Served:
        """An operation that is over between two looks of `begin`: who ended it has put the wake in."""

        timeout = None

        def begin(self, mailbox, wake):
            mailbox.put(wake)
            return False

    async def main():
        event = trio.Event()
        waits = []

        async def elsewhere():
            await aio._tasks._until_rescheduled(trio, Served())
            waits.append(True)
            await event.wait()
            return event.is_set()

        async def check():
            assert await elsewhere()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(check)
            await library("trio.testing").wait_all_tasks_blocked()
            assert waits
            event.set()

    trio.run(main)


def test_the_times_of_timers_come_in_trio():
    async def main():
        for number in range(50):
            assert isinstance(await offset.time.after(number * 1e-5).arecv(timeout=PATIENCE), float)
            await trio.sleep(0)

    trio.run(main)


def test_goroutines_from_trio():
    began = makechan(1)

    def fail():
        raise ValueError("from a goroutine")

    def wait():
        began.send(offset.current())
        makechan().recv()

    async def main():
        variable.set("the task")
        assert await aio.to_goroutine(variable.get) == "the task"
        with pytest.raises(ValueError, match="from a goroutine"):
            await aio.to_goroutine(fail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio.to_goroutine, wait)
            goroutine = await began.arecv()
            nursery.cancel_scope.cancel()
        assert goroutine.status == "dead"

    trio.run(main)


def test_it_can_be_used_by_anyio_on_both():
    channel = makechan()

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(channel.asend, 5)
            assert await channel.arecv() == 5
        with anyio.move_on_after(0.01) as scope:
            await channel.arecv()
        assert scope.cancelled_caught
        assert channel.stats()["receivers"] == 0

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)


# ---- from goroutines ------------------------------------------------------------------------------


class Run:
    """A run of trio, or of anyio, in a thread, and its token."""

    def __init__(self, start, current_token):
        self.tokens, self.end = makechan(1), makechan()
        self.thread = Thread(start, self.main, current_token)
        self.token = self.tokens.recv(timeout=PATIENCE)

    async def main(self, current_token):
        await self.tokens.asend(current_token())
        await self.end.arecv()

    def __enter__(self):
        return self.token

    def __exit__(self, *_):
        self.end.send(None, timeout=PATIENCE)
        self.thread.result()


def anyio_token():
    token = getattr(anyio.lowlevel, "current_token", None)
    return trio.lowlevel.current_trio_token() if token is None else token()


RUNS = {
    "trio": (trio.run, trio.lowlevel.current_trio_token),
    "anyio on trio": (lambda main, token: anyio.run(main, token, backend="trio"), anyio_token),
}


@pytest.mark.parametrize(("start", "current_token"), RUNS.values(), ids=RUNS)
def test_a_goroutine_awaits_what_trio_runs(start, current_token):
    async def add(left, right):
        await trio.sleep(0)
        variable.set(variable.get() + ", and trio")
        return left + right, threading.get_ident()

    async def fail():
        await trio.lowlevel.checkpoint()
        raise LookupError("in trio")

    def main():
        with Run(start, current_token) as token:
            variable.set("the goroutine")
            total, where = aio.await_(add(1, 2), token=token)
            assert total == 3
            assert where != threading.get_ident()
            assert variable.get() == "the goroutine, and trio"
            with pytest.raises(LookupError, match="in trio"):
                aio.await_(fail(), token=token)

    offset.run(main)


@main_goroutine
def test_whatever_ends_the_wait_cancels_the_task_of_trio():
    began, ended = makechan(1), []

    async def sleep():
        try:
            began.try_send(None)
            await trio.sleep_forever()
        finally:
            ended.append(True)

    with Run(*RUNS["trio"]) as token:
        with pytest.raises(TimeoutError):
            aio.await_(sleep(), timeout=0.01, token=token)
        with pytest.raises(context.DeadlineExceeded), context.timeout(0.01):
            aio.await_(sleep(), token=token)
        while len(began):
            began.recv()
        goroutine = go(lambda: aio.await_(sleep(), token=token))
        began.recv(timeout=PATIENCE)
        goroutine.cancel()
        wait_ended(goroutine)
        assert ended[-1:] == [True]
        # The thread of the run is not the goroutine's: it is not stopped by this.
        other = go_parked(lambda: aio.await_(makechan().arecv(), token=token), reason="await")
        other.cancel()
        wait_ended(other)


@main_goroutine
def test_a_value_on_its_way_at_the_end_of_a_run(monkeypatch):
    """The mailbox of the run is not emptied any more; the task that was cancelled has the value."""

    async def sleep(*_):
        await trio.sleep_forever()

    monkeypatch.setattr("offset.aio._tasks._watch", sleep)
    channel = makechan()

    async def main(tokens):
        tokens.send(trio.lowlevel.current_trio_token())
        await waiting(channel)
        channel.send("on its way")

    async def receive():
        return await channel.arecv()

    tokens, values = makechan(1), makechan(1)
    thread = Thread(trio.run, main, tokens)
    token = tokens.recv(timeout=PATIENCE)
    goroutine = go(lambda: values.send(aio.await_(receive(), token=token)))
    assert values.recv(timeout=PATIENCE) == "on its way"
    wait_ended(goroutine)
    thread.result()


def test_a_call_that_meets_the_end_of_a_run():
    """Its task cannot be started any more, which must not end the run with an error."""

    async def ready():
        return 5

    call = aio._await.Call(ready())
    left = []

    async def generator():
        token = trio.lowlevel.current_trio_token()
        try:
            yield
        finally:
            # After all tasks, and before the end of the run.
            token.run_sync_soon(aio._trio.begin, call)

    async def main():
        left.append(generator())
        await anext(left[0])

    trio.run(main)
    assert call.note.wait(PATIENCE)
    with pytest.raises(RuntimeError, match="the run of trio has ended"):
        call.outcome()


@main_goroutine
def test_a_run_that_is_over_is_an_error():
    with Run(*RUNS["trio"]) as token:
        pass

    async def never():
        raise AssertionError

    with pytest.raises(RuntimeError):
        aio.await_(never(), token=token)


def test_on_the_thread_of_trio_it_would_never_end():
    async def ready():
        return 5

    async def main():
        with pytest.raises(RuntimeError, match="would stop the event loop"):
            aio.await_(ready())

    trio.run(main)
