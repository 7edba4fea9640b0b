"""asyncio: tasks, Queue, Lock, sleep, to_thread, streams. BENCH_LOOP=uvloop or rloop runs it on their event loop.

BENCH_NET=protocols takes a protocol for a server instead of a stream.

There is no unbuffered channel and no select: queues of one value, or one queue, stand for them.
"""

import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable

from common import Clock, Gap, Parking, Result, calibrate, count, delays, main, nothing, visit
from scenarios import BUFFER, FANIN_BUFFER, HOG_SECONDS, MUTEX_TASKS, PRODUCERS


async def spawn(n: int) -> Result:
    hits = 0

    async def task():
        nonlocal hits
        hits += 1

    with Clock() as clock:
        async with asyncio.TaskGroup() as group:
            for _ in range(n):
                group.create_task(task())
    return clock.result(hits)


async def pingpong(n: int) -> Result:
    there, back = asyncio.Queue(1), asyncio.Queue(1)

    async def pong():
        for _ in range(n):
            await back.put(await there.get())

    with Clock() as clock:
        other = asyncio.create_task(pong())
        for i in range(n):
            await there.put(i)
            await back.get()
        await other
    return clock.result(n)


async def through_queue(n: int, size: int, producers: int) -> Result:
    """`producers` put n values in all into one queue, and one task takes them out."""
    share, values = n // producers, asyncio.Queue(size)

    async def produce():
        for i in range(share):
            await values.put(i)

    with Clock() as clock:
        tasks = [asyncio.create_task(produce()) for _ in range(producers)]
        for _ in range(share * producers):
            await values.get()
    await asyncio.gather(*tasks)
    return clock.result(share * producers)


async def buffered(n: int) -> Result:
    return await through_queue(n, BUFFER, 1)


async def fanin(n: int) -> Result:
    return await through_queue(n, FANIN_BUFFER, PRODUCERS)


async def sieve(n: int) -> Result:
    async def generate(numbers):
        i = 2
        while True:
            await numbers.put(i)
            i += 1

    async def keep_indivisible(source, sink, prime):
        while True:
            number = await source.get()
            if number % prime:
                await sink.put(number)

    tasks = []
    with Clock() as clock:
        numbers = asyncio.Queue(1)
        tasks.append(asyncio.create_task(generate(numbers)))
        for _ in range(n):
            prime = await numbers.get()
            rest = asyncio.Queue(1)
            tasks.append(asyncio.create_task(keep_indivisible(numbers, rest, prime)))
            numbers = rest
    return clock.result(1, last=prime)


async def mutex(n: int) -> Result:
    lock, held = asyncio.Lock(), 0

    async def task():
        nonlocal held
        for _ in range(n // MUTEX_TASKS):
            async with lock:
                held += 1
                await asyncio.sleep(0)

    with Clock() as clock:
        async with asyncio.TaskGroup() as group:
            for _ in range(MUTEX_TASKS):
                group.create_task(task())
    return clock.result(held)


async def parked(n: int) -> Result:
    wake, started = asyncio.Queue(), 0

    async def task():
        nonlocal started
        started += 1
        await wake.get()

    parking = Parking(n)
    tasks = [asyncio.create_task(task()) for _ in range(n)]
    while started < n:
        await asyncio.sleep(0)
    parking.parked()
    for i in range(n):
        wake.put_nowait(i)
    for each in tasks:
        await each
    return parking.result()


async def timers(n: int) -> Result:
    waits = delays(n)
    with Clock() as clock:
        async with asyncio.TaskGroup() as group:
            for delay in waits:
                group.create_task(asyncio.sleep(delay))
    return clock.result(n)


async def yield_(n: int) -> Result:
    async def task():
        for _ in range(n // 2):
            await asyncio.sleep(0)

    with Clock() as clock:
        await asyncio.gather(task(), task())
    return clock.result(n // 2 * 2)


async def hogs(n: int) -> Result:
    turns, left = calibrate(HOG_SECONDS), n

    async def task():
        nonlocal left
        count(turns)
        left -= 1

    with Clock() as clock:
        tasks = [asyncio.create_task(task()) for _ in range(n)]
        gap = Gap()
        while left:
            await asyncio.sleep(0)
            gap.turn()
        await asyncio.gather(*tasks)
    return clock.result(n, gap_seconds=gap.seconds)


async def offload(n: int) -> Result:
    await asyncio.to_thread(nothing)
    with Clock() as clock:
        for _ in range(n):
            await asyncio.to_thread(nothing)
    return clock.result(n)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.write = transport.write

    def data_received(self, data):
        self.write(data)


async def echo(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(n: int) -> Result:
    if os.environ.get("BENCH_NET") == "protocols":
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    else:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return await asyncio.to_thread(visit, server.sockets[0].getsockname()[1], n)


def call(scenario: Callable[[int], Awaitable[Result]], size: int) -> Result:
    """Run a scenario on the loop; `asyncio.run` would go on to cancel the sieve's tasks one by one."""
    name = os.environ.get("BENCH_LOOP")
    loop = importlib.import_module(name).new_event_loop() if name else asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(scenario(size))


if __name__ == "__main__":
    main(globals(), call)
