"""What `offset bench` does: the same four things with goroutines, with threads and in asyncio.

A measure is a function of a size that does so many operations and gives the seconds that they took; those of asyncio
are coroutine functions. The numbers of `benchmarks/` come from processes of their own, these from one: they say what
this machine does, not who is ahead by a tenth.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import offset
from offset import go, gosched, makechan, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Measure = Callable[[int], float]
    AsyncMeasure = Callable[[int], Coroutine[None, None, float]]

# How long each timer takes, in seconds: all of them are under way at once.
_DELAY = 0.05

clock = time.perf_counter


class Scenario(NamedTuple):
    """One thing that is measured, by up to `most` operations."""

    name: str
    what: str
    offset: Measure
    threads: Measure
    asyncio: AsyncMeasure
    most: int = 1_000_000
    most_threads: int = 1_000_000


# ---- goroutines --------------------------------------------------------------------------------


def _switch(n: int) -> float:
    def task() -> None:
        for _ in range(n // 2):
            gosched()

    began = clock()
    other = go(task)
    task()
    other.join()
    return clock() - began


def _pingpong(n: int) -> float:
    there: offset.Chan[int] = makechan()
    back: offset.Chan[int] = makechan()

    def pong() -> None:
        for _ in range(n):
            back.send(there.recv())

    began = clock()
    go(pong)
    for number in range(n):
        there.send(number)
        back.recv()
    return clock() - began


def _spawn(n: int) -> float:
    running = sync.WaitGroup()
    running.add(n)
    began = clock()
    for _ in range(n):
        go(running.done)
    running.wait()
    return clock() - began


def _timers(n: int) -> float:
    running = sync.WaitGroup()

    def task() -> None:
        offset.sleep(_DELAY)
        running.done()

    running.add(n)
    began = time.process_time()
    for _ in range(n):
        go(task)
    running.wait()
    return time.process_time() - began


# ---- threads -----------------------------------------------------------------------------------


def _both(task: Callable[[], object]) -> None:
    other = threading.Thread(target=task)
    other.start()
    task()
    other.join()


def _switch_threads(n: int) -> float:
    # Nothing in threads gives way to a certain other one; the operating system chooses.
    def task() -> None:
        for _ in range(n // 2):
            time.sleep(0)

    began = clock()
    _both(task)
    return clock() - began


def _pingpong_threads(n: int) -> float:
    there: queue.Queue[int] = queue.Queue(1)
    back: queue.Queue[int] = queue.Queue(1)

    def pong() -> None:
        for _ in range(n):
            back.put(there.get())

    other = threading.Thread(target=pong)
    began = clock()
    other.start()
    for number in range(n):
        there.put(number)
        back.get()
    other.join()
    return clock() - began


def _spawn_threads(n: int) -> float:
    began = clock()
    for _ in range(n):
        # One after the other: more of them at once would be slower still.
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    return clock() - began


def _timers_threads(n: int) -> float:
    began = time.process_time()
    threads = [threading.Thread(target=time.sleep, args=(_DELAY,)) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.process_time() - began


# ---- asyncio -----------------------------------------------------------------------------------


async def _switch_asyncio(n: int) -> float:
    import asyncio

    async def task() -> None:
        for _ in range(n // 2):
            await asyncio.sleep(0)

    began = clock()
    await asyncio.gather(task(), task())
    return clock() - began


async def _pingpong_asyncio(n: int) -> float:
    import asyncio

    there: asyncio.Queue[int] = asyncio.Queue(1)
    back: asyncio.Queue[int] = asyncio.Queue(1)

    async def pong() -> None:
        for _ in range(n):
            await back.put(await there.get())

    began = clock()
    other = asyncio.create_task(pong())
    for number in range(n):
        await there.put(number)
        await back.get()
    await other
    return clock() - began


async def _spawn_asyncio(n: int) -> float:
    import asyncio

    async def task() -> None:
        pass

    began = clock()
    await asyncio.gather(*(asyncio.create_task(task()) for _ in range(n)))
    return clock() - began


async def _timers_asyncio(n: int) -> float:
    import asyncio

    began = time.process_time()
    await asyncio.gather(*(asyncio.create_task(asyncio.sleep(_DELAY)) for _ in range(n)))
    return time.process_time() - began


SCENARIOS = [
    Scenario("switch", "two tasks give way to each other, a turn", _switch, _switch_threads, _switch_asyncio),
    Scenario("ping-pong", "a value to and fro, a round trip", _pingpong, _pingpong_threads, _pingpong_asyncio),
    Scenario("spawn", "a task starts and ends, a task", _spawn, _spawn_threads, _spawn_asyncio, 100_000, 10_000),
    Scenario("timers", "processor time, a task that sleeps", _timers, _timers_threads, _timers_asyncio, 20_000, 200),
]
"""In the order in which they are shown."""


def best(measure: Measure, seconds: float, most: int) -> float:
    """Give the seconds an operation: the least of three, each of about so long, or of `most` operations."""
    size = min(100, most)
    while True:
        took = measure(size)
        if took >= seconds / 4 or size >= most:
            break
        size = min(most, size * 4)
    size = max(1, min(most, int(size * seconds / max(took, 1e-9))))
    return min(measure(size) for _ in range(3)) / size
