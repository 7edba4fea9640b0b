"""Channels, selects and goroutines awaited in tasks of asyncio.

Invariants: a cancelled await leaves nothing behind at a channel, and loses no value; a task waits at a channel as a
goroutine does, first come first served, and no goroutine or thread stands for it.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import contextvars
import inspect
import random
import traceback

import offset
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_until
from offset import ChannelClosed, aio, default, go, makechan, nilchan, run, select

# libuv has a pipe for the whole process from its first loop on.
aio._loop._new_event_loop().close()

variable = contextvars.ContextVar("variable", default="nothing")


def asynchronous(function):
    """Make a test of a coroutine function."""

    def test(*args, **kwargs):
        asyncio.run(function(*args, **kwargs))

    test.__name__ = function.__name__
    test.__signature__ = inspect.signature(function)
    return test


async def waiting(channel, side="receivers", count=1):
    """Wait until so many wait at a channel."""
    async with asyncio.timeout(PATIENCE):
        while channel.stats()[side] != count:
            await asyncio.sleep(0)


# ---- channels -----------------------------------------------------------------------------------


@asynchronous
async def test_what_can_be_done_is_done_at_once():
    channel = makechan(1, "numbers")
    await channel.asend(1)
    assert await channel.arecv() == 1
    channel.close()
    with pytest.raises(ChannelClosed, match="'numbers'"):
        await channel.arecv()
    with pytest.raises(ChannelClosed, match="'numbers'"):
        await channel.asend(2)
    assert [value async for value in channel] == []
    assert offset.runtime.num_goroutine() == 0


@asynchronous
async def test_any_value_is_received_as_it_is():
    values = [None, 0, (), (1, 2), ValueError("a value"), StopIteration(3), StopIteration, [None]]
    channel = makechan(len(values))
    for value in values:
        assert await channel.asend(value) is None
    for value in values:
        assert await channel.arecv() is value
    for value in values:
        channel.send(value)
    channel.close()
    assert [value async for value in channel] == values


def test_an_operation_that_is_stepped_by_hand_ends_as_an_iterator_does():
    channel = makechan(2)
    channel.send((1, 2))
    channel.send(None)
    with pytest.raises(StopIteration) as stop:
        next(channel.arecv())
    assert stop.value.value == (1, 2)
    with pytest.raises(StopIteration) as stop:
        next(channel.arecv())
    assert stop.value.value is None
    with pytest.raises(StopIteration) as stop:
        channel.asend("x").send(None)
    assert stop.value.value is None
    assert channel.recv() == "x"


@asynchronous
async def test_tasks_wait_first_come_first_served():
    channel = makechan()
    receivers = [asyncio.create_task(channel.arecv()) for _ in range(3)]
    await waiting(channel, count=3)
    for number in range(3):
        channel.send(number)
    assert await asyncio.gather(*receivers) == [0, 1, 2]
    senders = [asyncio.create_task(channel.asend(number)) for number in range(3)]
    await waiting(channel, "senders", 3)
    assert [channel.recv() for _ in range(3)] == [0, 1, 2]
    assert await asyncio.gather(*senders) == [None] * 3
    # No goroutine stands for a task.
    assert offset.runtime.num_goroutine() == 0


@asynchronous
async def test_two_tasks_meet_without_anybody_else():
    channel = makechan()
    sender = asyncio.create_task(channel.asend("met"))
    assert await channel.arecv() == "met"
    await sender
    receiver = asyncio.create_task(channel.arecv())
    await waiting(channel)
    await channel.asend("once more")
    assert await receiver == "once more"


@asynchronous
async def test_closing_wakes_those_that_wait():
    channel, full = makechan(), makechan()
    receiver = asyncio.create_task(channel.arecv())
    iterating = asyncio.create_task(aiter_all(channel))
    sender = asyncio.create_task(full.asend(1))
    await waiting(channel, count=2)
    await waiting(full, "senders")
    channel.close()
    full.close()
    with pytest.raises(ChannelClosed):
        await receiver
    with pytest.raises(ChannelClosed):
        await sender
    assert await iterating == []


async def aiter_all(channel):
    return [value async for value in channel]


@asynchronous
async def test_timeouts():
    channel = makechan()
    for seconds in (0, 0.01, -1):
        with pytest.raises(TimeoutError, match="receive on channel timed out"):
            await channel.arecv(timeout=seconds)
        with pytest.raises(TimeoutError, match="send on channel timed out"):
            await channel.asend(1, timeout=seconds)
        with pytest.raises(TimeoutError, match="select timed out"):
            await aio.select_async(channel.if_recv(), channel.if_send(1), timeout=seconds)
        with pytest.raises(TimeoutError):
            await nilchan.arecv(timeout=seconds)
    assert channel.stats()["receivers"] == channel.stats()["senders"] == 0
    receiver = asyncio.create_task(channel.arecv(timeout=PATIENCE))
    await waiting(channel)
    channel.send("in time")
    assert await receiver == "in time"
    with pytest.raises(TypeError, match="duration"):
        channel.arecv(timeout="soon")


@asynchronous
async def test_exceptions_as_messages():
    channel = makechan()
    error = ValueError("sent")
    receiver = asyncio.create_task(channel.arecv())
    await waiting(channel)
    channel.send_exception(error)
    with pytest.raises(ValueError) as caught:
        await receiver
    assert caught.value is error


@asynchronous
async def test_what_is_awaited_is_a_coroutine():
    channel = makechan()
    operation = channel.arecv()
    assert isinstance(operation, collections.abc.Coroutine)
    assert asyncio.iscoroutine(operation)
    assert inspect.isawaitable(operation)
    assert "receive from <offset.Chan" in repr(operation)
    assert operation.stats() == {"kind": "receive", "waiting": False}
    operation.close()
    with pytest.raises(RuntimeError, match="awaited twice"):
        await operation
    with pytest.raises(KeyError):
        channel.arecv().throw(KeyError())
    with pytest.raises(TypeError):
        channel.arecv().throw(5)


def test_outside_of_tasks_it_says_what_to_call():
    with pytest.raises(RuntimeError, match="call recv"):
        makechan().arecv().send(None)


@asynchronous
async def test_ends_and_timers():
    channel = makechan()
    sender = asyncio.create_task(channel.sender().asend(1))
    assert await channel.receiver().arecv() == 1
    await sender
    assert isinstance(await offset.time.after(0.01).arecv(), float)


# ---- cancellation -------------------------------------------------------------------------------


@asynchronous
async def test_a_cancelled_await_leaves_nothing_behind():
    channel = makechan()
    operations = [
        lambda: channel.arecv(),
        lambda: channel.asend(1),
        lambda: channel.arecv(timeout=PATIENCE),
        lambda: aio.select_async(channel.if_recv(), channel.if_send(1), nilchan.if_recv()),
        lambda: anext(aiter(channel)),
    ]
    for make in operations:
        task = asyncio.create_task(awaited(make()))
        await asyncio.sleep(0)
        assert channel.stats()["receivers"] + channel.stats()["senders"] > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert channel.stats()["receivers"] == channel.stats()["senders"] == 0
        assert not channel.try_send(1)


async def awaited(operation):
    return await operation


@asynchronous
async def test_a_value_that_comes_with_a_cancellation_goes_back():
    channel = makechan()
    task = asyncio.create_task(channel.arecv())
    await waiting(channel)
    # Handed to the task, which does not know yet.
    channel.send("on its way")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(channel) == 1
    sender = asyncio.create_task(channel.asend("later"))
    await waiting(channel, "senders")
    assert channel.recv() == "on its way"
    assert not sender.done()
    assert channel.recv() == "later"
    await sender
    assert channel.stats()["passed"] == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@asynchronous
async def test_values_of_several_that_are_cancelled_keep_their_order(order):
    channel = makechan()
    tasks = [asyncio.create_task(channel.arecv()) for _ in range(3)]
    await waiting(channel, count=3)
    for number in range(3):
        channel.send(number)
    for index in order:
        tasks[index].cancel()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [await channel.arecv() for _ in range(3)] == [0, 1, 2]
    assert channel.stats()["passed"] == 3
    assert not channel.try_send(3)


@asynchronous
async def test_it_goes_to_the_next_that_waits():
    channel = makechan()
    first, second = (asyncio.create_task(channel.arecv()) for _ in range(2))
    await waiting(channel, count=2)
    channel.send("on its way")
    first.cancel()
    assert await second == "on its way"
    with pytest.raises(asyncio.CancelledError):
        await first
    seen = []
    goroutine = go_parked(lambda: seen.append(channel.recv()))
    task = asyncio.create_task(aio.select_async(nilchan.if_recv(), channel.if_recv()))
    await waiting(channel, count=2)
    channel.send("first")
    channel.send("second")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await goroutine
    assert [*seen, channel.recv()] == ["first", "second"]


@asynchronous
async def test_a_send_that_has_happened_stands_and_the_cancellation_comes_after_it():
    channel, done = makechan(), []

    async def send(operation):
        await operation
        done.append("sent")
        await asyncio.sleep(PATIENCE)

    for operation in (channel.asend(1), aio.select_async(nilchan.if_recv(), channel.if_send(1))):
        task = asyncio.create_task(send(operation))
        await waiting(channel, "senders")
        assert channel.recv() == 1
        task.cancel("because")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (done, task.cancelling()) == (["sent"], 1)
        done.clear()


@asynchronous
async def test_a_time_limit_that_a_send_has_kept_cancels_nothing():
    channel = makechan()

    async def send():
        async with asyncio.timeout(PATIENCE) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + 0.01)
            await channel.asend(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(send())
    with contextlib.suppress(TimeoutError):
        await waiting(channel, "senders")
        channel.recv(timeout=0)
    with contextlib.suppress(TimeoutError):
        assert await task == "went on"
    assert task.cancelling() == 0


@asynchronous
async def test_wait_for_and_gather():
    channel = makechan()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(channel.arecv(), 0.01)
    assert channel.stats()["receivers"] == 0
    receivers = asyncio.gather(channel.arecv(), channel.arecv())
    await waiting(channel, count=2)
    receivers.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receivers
    assert channel.stats()["receivers"] == 0


@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_cancellations_at_random_lose_and_double_nothing(capacity, rng):
    count = 300
    channel, received = makechan(capacity), []

    def produce():
        for number in range(count):
            channel.send(number)
        channel.close()

    async def consume(seed):
        random_ = random.Random(seed)
        while True:
            make = random_.choice([channel.arecv, lambda: aio.select_async(nilchan.if_recv(), channel.if_recv())])
            task = asyncio.create_task(awaited(make()))
            for _ in range(random_.randrange(4)):
                await asyncio.sleep(0)
            if random_.random() < 0.7:
                task.cancel()
            try:
                value = await task
            except asyncio.CancelledError:
                continue
            except ChannelClosed:
                return
            if isinstance(value, offset.Case):
                if not value.ok:
                    return
                value = value.value
            received.append(value)

    async def main(seed):
        await asyncio.gather(*(consume(seed + index) for index in range(3)))

    def program():
        loops = [Thread(asyncio.run, main(rng.randrange(10**6))) for _ in range(2)]
        producer = go(produce)
        for value in channel:
            received.append(value)
        for loop in loops:
            loop.result()
        wait_ended(producer)

    run(program)
    assert sorted(received) == list(range(count))


# ---- everybody at one channel ----------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 3])
def test_goroutines_threads_and_tasks_of_several_loops_at_one_channel(capacity):
    each, channel, seen = 60, makechan(capacity), makechan(10_000)

    def send(first):
        for number in range(each):
            channel.send(first + number)

    async def asend(first):
        for number in range(each):
            await channel.asend(first + number)

    def receive():
        for value in channel:
            seen.send(value)

    async def areceive():
        async for value in channel:
            await seen.asend(value)

    async def both(first):
        receiver = asyncio.create_task(areceive())
        await asend(first)
        await receiver

    def main():
        loops = [Thread(asyncio.run, both(1000 * (index + 1))) for index in range(2)]
        threads = [Thread(send, 3000), Thread(receive)]
        senders = [go(send, 4000), go(lambda: aio.await_(asend(5000)))]
        receivers = [go(receive), go(lambda: aio.await_(areceive()))]
        threads[0].result()
        wait_ended(*senders)
        wait_until(lambda: channel.stats()["passed"] >= 5 * each)
        channel.close()
        for thread in [*loops, threads[1]]:
            thread.result()
        wait_ended(*receivers)

    run(main)
    values = sorted(seen.recv() for _ in range(5 * each))
    assert values == sorted(first + number for first in range(1000, 6000, 1000) for number in range(each))
    assert len(seen) == 0


@main_goroutine
def test_a_goroutine_selects_between_tasks():
    left, right = makechan(), makechan()

    async def send(channel, count):
        for number in range(count):
            await channel.asend(number)

    tasks = [go(lambda channel=channel: aio.await_(send(channel, 10))) for channel in (left, right)]
    seen = [select(left.if_recv(), right.if_recv(), timeout=PATIENCE).value for _ in range(20)]
    assert sorted(seen) == sorted([*range(10), *range(10)])
    wait_ended(*tasks)


# ---- select ------------------------------------------------------------------------------------


@asynchronous
async def test_select_async_gives_the_case_that_happened():
    left, right = makechan(), makechan(1)
    assert await aio.select_async(left.if_recv(), default) is default
    sending = right.if_send("value")
    assert await aio.select_async(left.if_recv(), sending) is sending
    assert sending.index == 1
    receiving = right.if_recv()
    assert await aio.select_async(receiving, left.if_recv()) is receiving
    assert (receiving.value, receiving.ok, receiving.index) == ("value", True, 0)
    task = asyncio.create_task(aio.select_async(left.if_recv(), right.if_recv(), left.if_send(5)))
    await waiting(left, "senders")
    assert left.recv() == 5
    case = await task
    assert (case.index, case.value) == (2, 5)
    assert right.stats()["receivers"] == left.stats()["receivers"] == 0


@asynchronous
async def test_select_async_and_closed_channels():
    channel = makechan()
    task = asyncio.create_task(aio.select_async(channel.if_recv(), nilchan.if_send(1)))
    sending = asyncio.create_task(aio.select_async(channel.if_send(1)))
    assert (await task).value == 1
    await sending
    task = asyncio.create_task(aio.select_async(channel.if_recv()))
    await waiting(channel)
    channel.close()
    assert (await task).ok is False
    with pytest.raises(ChannelClosed):
        await aio.select_async(channel.if_send(1))
    with pytest.raises(TypeError, match=r"select_async\(\) takes what"):
        aio.select_async(channel)
    with pytest.raises(TypeError, match="has no argument"):
        aio.select_async(patience=5)


@asynchronous
async def test_select_async_of_many_cases():
    channels = [makechan() for _ in range(40)]
    task = asyncio.create_task(aio.select_async(*(channel.if_recv() for channel in channels)))
    await waiting(channels[-1])
    channels[33].send("here")
    assert (await task).index == 33
    assert sum(channel.stats()["receivers"] for channel in channels) == 0


# ---- mistakes -----------------------------------------------------------------------------------


def test_an_operation_belongs_to_one_task_at_a_time():
    """Neither another thread nor what it waits for itself gets at it in the middle of a step."""
    channel, seen = makechan(), []

    def meddle(operation):
        calls = (operation.close, lambda: operation.send(None), lambda: operation.throw(KeyError()))
        for call in (*calls, operation.expire, operation.retract):
            try:
                call()
            except RuntimeError as error:
                seen.append(str(error))

    class Loop(asyncio.SelectorEventLoop):
        operation = None

        def create_future(self):
            operation, self.operation = self.operation, None
            if operation is not None:
                for call in (operation.close, lambda: operation.send(None), lambda: operation.throw(KeyError())):
                    with pytest.raises(RuntimeError, match="in use"):
                        call()
                Thread(meddle, operation).result()
            return super().create_future()

    async def main():
        loop = asyncio.get_running_loop()
        loop.operation = channel.arecv()
        task = asyncio.create_task(awaited(loop.operation))
        await waiting(channel)
        assert loop.operation is None
        channel.send("unharmed")
        return await task

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) == "unharmed"
    assert len(seen) == 5
    assert all("in use" in text for text in seen)


def test_begin_is_called_in_a_step_only():
    operation, mailbox = makechan().arecv(), offset._runtime.Mailbox()
    with pytest.raises(RuntimeError, match="while the operation waits"):
        operation.begin(mailbox, None)
    operation.close()


# ---- goroutines ----------------------------------------------------------------------------------


@asynchronous
async def test_await_waits_for_the_end_of_a_goroutine():
    gate = makechan()
    goroutine = go(gate.recv)
    tasks = [asyncio.create_task(awaited(goroutine)) for _ in range(3)]
    await asyncio.sleep(0)
    await gate.asend(None)
    assert await asyncio.gather(*tasks) == [None] * 3
    assert goroutine.status == "dead"
    assert await goroutine is None


@asynchronous
async def test_a_task_that_is_cancelled_cancels_the_goroutine_that_it_awaits():
    ends = []

    def body():
        try:
            makechan().recv()
        except offset.GoroutineExit:
            ends.append("cancelled")
            raise

    goroutine = go_parked(body)
    task = asyncio.create_task(awaited(goroutine))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (goroutine.status, ends) == ("dead", ["cancelled"])


@asynchronous
async def test_to_goroutine_gives_what_a_function_returns():
    def add(left, right=0):
        offset.sleep(0)
        assert offset.current() is not None
        return left + right

    assert await aio.to_goroutine(add, 1, right=2) == 3
    assert await asyncio.gather(*(aio.to_goroutine(add, number, number) for number in range(5))) == [0, 2, 4, 6, 8]
    with pytest.raises(TypeError, match="to_goroutine"):
        await aio.to_goroutine(5)


@asynchronous
async def test_errors_of_a_goroutine_reach_the_task_with_their_traceback(reports):
    def inner():
        raise ValueError("from inside")

    def outer():
        inner()

    with pytest.raises(ValueError, match="from inside") as caught:
        await aio.to_goroutine(outer)
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-2:] == ["outer", "inner"]
    with pytest.raises(SystemExit):
        await aio.to_goroutine(lambda: (_ for _ in ()).throw(SystemExit(3)))
    assert reports == []


@asynchronous
async def test_context_variables_of_a_task_and_its_goroutine():
    def change():
        seen = variable.get()
        variable.set("the goroutine")
        return seen

    variable.set("the task")
    assert await aio.to_goroutine(change) == "the task"
    assert variable.get() == "the goroutine"


@asynchronous
async def test_cancelling_to_goroutine_cancels_the_goroutine_and_waits_for_its_end():
    began, cleaned = makechan(1), []

    def body():
        try:
            began.send(None)
            makechan().recv()
        finally:
            offset.sleep(0.01)
            cleaned.append(True)

    task = asyncio.create_task(aio.to_goroutine(body))
    await began.arecv()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


@asynchronous
async def test_a_goroutine_that_others_cancel_cancels_the_await():
    handles = makechan(1)

    def body():
        handles.send(offset.current())
        makechan().recv()

    task = asyncio.create_task(aio.to_goroutine(body))
    goroutine = await handles.arecv()
    goroutine.cancel()
    with pytest.raises(asyncio.CancelledError, match="was cancelled"):
        await task


@asynchronous
async def test_a_goroutine_that_is_cancelled_before_it_begins_gives_no_result(monkeypatch):
    def go_cancelled(function):
        goroutine = go(function)
        goroutine.cancel()
        return goroutine

    # Mostly it has not begun; if it has, it waits.
    monkeypatch.setattr("offset._runtime.go", go_cancelled)
    for _ in range(20):
        with pytest.raises(asyncio.CancelledError, match="was cancelled"):
            await aio.to_goroutine(makechan().recv)


@main_goroutine
def test_there_and_back():
    async def twice(number):
        return 2 * await aio.to_goroutine(lambda: aio.await_(once(number)))

    async def once(number):
        await asyncio.sleep(0)
        return number

    assert aio.await_(twice(4)) == 8
