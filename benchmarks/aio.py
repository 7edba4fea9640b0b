"""What asyncio costs from both sides: `await_`, and a channel between a goroutine and a task, beside janus and culsans.

    make build && .venv/bin/python benchmarks/aio.py [--times 7] [--out benchmarks/aio.md] [NAME ...]

Each sample is a process of its own that does the work for about a second in batches and gives the fastest of them; the
ways take turns, and the best is shown: what else the machine does only adds. The time is that of the clock, since
what is measured is the way between two threads. The rivals' other side is a plain thread, as they know no goroutines.
They are left out where they are not installed (`pip install janus culsans uvloop`).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

BUFFER = 128
BATCH = 20.0  # ms

# ---- what is measured: gives the seconds that `count` operations took -----------------------------


async def ready() -> int:
    return 5


def in_run(work: Callable[[int], float]) -> Callable[[int], float]:
    from offset import run

    return lambda count: run(work, count)


def await_in_goroutine(count: int) -> float:
    from offset import aio

    aio.await_(ready())
    began = time.perf_counter()
    for _ in range(count):
        aio.await_(ready())
    return time.perf_counter() - began


@functools.cache
def loop_in_thread() -> asyncio.AbstractEventLoop:
    uvloop = importlib.util.find_spec("uvloop") and importlib.import_module("uvloop")
    loop = (uvloop or asyncio).new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def await_in_thread(count: int) -> float:
    loop = loop_in_thread()
    began = time.perf_counter()
    for _ in range(count):
        asyncio.run_coroutine_threadsafe(ready(), loop).result()
    return time.perf_counter() - began


# A way between a task and the other side: puts and gets there, puts and gets of a task, and what starts the other side.
class Offset:
    def __init__(self, size: int) -> None:
        from offset import makechan

        self.channel = makechan(size)
        self.put, self.get = self.channel.send, self.channel.recv
        self.aput, self.aget = self.channel.asend, self.channel.arecv

    @staticmethod
    def start(side: Callable[[], None]) -> Callable[[], Awaitable[Any]]:
        from offset import aio

        task = asyncio.ensure_future(aio.to_goroutine(side))
        return lambda: task


class Queues:
    def __init__(self, queue: Any) -> None:
        self.put, self.get = queue.sync_q.put, queue.sync_q.get
        self.aput, self.aget = queue.async_q.put, queue.async_q.get

    @staticmethod
    def start(side: Callable[[], None]) -> Callable[[], Awaitable[Any]]:
        task = asyncio.ensure_future(asyncio.to_thread(side))
        return lambda: task


def of_janus(size: int) -> Queues:
    import janus

    return Queues(janus.Queue(size))


def of_culsans(size: int) -> Queues:
    import culsans

    return Queues(culsans.Queue(size))


async def to_task(make: Callable[[int], Any], count: int) -> float:
    way = make(BUFFER)

    def produce() -> None:
        for number in range(count):
            way.put(number)

    began = time.perf_counter()
    producing = way.start(produce)
    for _ in range(count):
        await way.aget()
    took = time.perf_counter() - began
    await producing()
    return took


async def from_task(make: Callable[[int], Any], count: int) -> float:
    way = make(BUFFER)

    def consume() -> None:
        for _ in range(count):
            way.get()

    began = time.perf_counter()
    consuming = way.start(consume)
    for number in range(count):
        await way.aput(number)
    await consuming()
    return time.perf_counter() - began


async def to_and_fro(make: Callable[[int], Any], count: int) -> float:
    there, back = make(1), make(1)

    def answer() -> None:
        for _ in range(count):
            back.put(there.get())

    began = time.perf_counter()
    answering = there.start(answer)
    for number in range(count):
        await there.aput(number)
        await back.aget()
    took = time.perf_counter() - began
    await answering()
    return took


WAYS: dict[str, Callable[[int], Any]] = {"offset": Offset, "janus": of_janus, "culsans": of_culsans}
SCENARIOS = {"to_task": to_task, "from_task": from_task, "to_and_fro": to_and_fro}
WORDS = {
    "await": "a coroutine that is ready, awaited from outside its loop",
    "to_task": f"a value to a task of asyncio, buffer of {BUFFER}",
    "from_task": f"a value from a task of asyncio, buffer of {BUFFER}",
    "to_and_fro": "a value to a task and its answer, buffers of 1",
}


def measure(name: str, way: str) -> float:
    """Microseconds an operation takes: the fastest batch."""
    if name == "await":
        work = in_run(await_in_goroutine) if way == "offset" else await_in_thread
    else:

        def work(count):
            return asyncio.run(SCENARIOS[name](WAYS[way], count))

    count, best, until = 100, float("inf"), time.perf_counter() + 1.5
    while time.perf_counter() < until:
        took = work(count)
        best = min(best, took / count)
        if took * 1e3 < BATCH:
            count *= 2
    return best * 1e6


# ---- the table ----------------------------------------------------------------------------------


def sample(name: str, way: str) -> float:
    command = [sys.executable, __file__, "--measure", name, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=os.environ)
    value: float = json.loads(done.stdout)
    return value


def figure(value: float | None) -> str:
    return (
        ""
        if value is None
        else f"{value:,.0f} us"
        if value >= 100
        else f"{value:.2g} us"
        if value < 10
        else f"{value:.0f} us"
    )


def table(names: list[str], times: int) -> list[str]:
    rivals = [name for name in ("janus", "culsans") if importlib.util.find_spec(name)]
    lines = ["| one operation | offset | run_coroutine_threadsafe | janus | culsans |", "|---|---:|---:|---:|---:|"]
    for name in names or WORDS:
        ways = ["offset", "threadsafe"] if name == "await" else ["offset", *rivals]
        samples: dict[str, list[float]] = {way: [] for way in ways}
        for way in ways * times:
            samples[way].append(sample(name, way))
        best = {way: min(found) for way, found in samples.items()}
        cells = [figure(best.get(way)) for way in ("offset", "threadsafe", "janus", "culsans")]
        lines.append(f"| {WORDS[name]} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORDS))
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    lines = table(options.names, options.times)
    arguments = " ".join(["--times", str(options.times), *(["--out", str(options.out)] if options.out else [])])
    text = (
        "# What asyncio costs from both sides\n\n"
        f"Made by `python benchmarks/aio.py {arguments}`: CPython {platform.python_version()} on {platform.machine()}, "
        f"{os.cpu_count()} processors, the best of {options.times} samples of each way.\n\n" + "\n".join(lines) + "\n"
    )
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
