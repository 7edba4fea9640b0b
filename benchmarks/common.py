"""What the Python rivals share: the clock, the memory of the process, the line that a scenario prints.

A rival is a program `on_NAME.py` with a function for each scenario, named after it (`yield_` for
"yield"), that takes the size and returns a dict made by `Clock.result` or `Parking.result`. The
program ends with `main(globals())`. Standard library only: every rival imports this.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

# What one scenario measured: "operations", "seconds", "cpu_seconds" and more.
Result = dict[str, Any]


def memory() -> tuple[int, int]:
    """The resident set and the page tables of this process, in bytes."""
    found = {}
    with open("/proc/self/status") as status:
        for line in status:
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmPTE"):
                found[name] = int(rest.split()[0]) * 1024
    return found["VmRSS"], found["VmPTE"]


def delays(count: int) -> list[float]:
    """The same `count` delays between 0 and 1 s for everybody; the last one is 1 s."""
    generator = random.Random(1)
    return [generator.random() for _ in range(count - 1)] + [1.0]


def nothing() -> None:
    """The function that is offloaded."""


class Clock:
    """Measures wall and processor time of a `with` block."""

    def __enter__(self) -> Clock:
        self._started_cpu, self._started = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._started_cpu

    def result(self, operations: int, **more: object) -> Result:
        """What to return from a scenario that did so many operations."""
        return {"operations": operations, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds, **more}


def calibrate(seconds: float) -> int:
    """How far `count` counts in so much time on a processor of its own."""
    turns, used = 100_000, 0.0
    while used < 0.02:
        turns *= 2
        started = time.thread_time()
        count(turns)
        used = time.thread_time() - started
    return int(turns * seconds / used)


def count(turns: int) -> None:
    """Compute without a pause."""
    for _ in range(turns):
        pass


class Gap:
    """The longest time between two calls of `turn`."""

    def __init__(self) -> None:
        self.seconds, self._last = 0.0, time.perf_counter()

    def turn(self) -> None:
        """The task that yields has come to its turn."""
        now = time.perf_counter()
        self.seconds, self._last = max(self.seconds, now - self._last), now


class Parking:
    """Measures the parked scenarios: make it, start the tasks, `parked()`, wake them all, `result()`."""

    def __init__(self, tasks: int) -> None:
        gc.collect()
        self.tasks = tasks
        self._resident, self._tables = memory()
        self._clock = Clock().__enter__()
        self._started = time.perf_counter()

    def parked(self) -> None:
        """All the tasks wait now."""
        self._start_seconds = time.perf_counter() - self._started
        resident, tables = memory()
        self._bytes = resident - self._resident, tables - self._tables
        self._woken = time.perf_counter()

    def result(self) -> Result:
        """All the tasks have ended."""
        self._clock.__exit__()
        resident, tables = self._bytes
        return self._clock.result(
            self.tasks,
            resident_bytes=resident,
            page_table_bytes=tables,
            start_seconds=self._start_seconds,
            wake_seconds=time.perf_counter() - self._woken,
        )


def call(scenario: Callable[[int], Result], size: int) -> Result:
    """Run a scenario as it is; rivals with a loop of their own have another `call`."""
    return scenario(size)


def main(scope: dict[str, Any], call: Callable[[Any, int], Result] = call) -> None:
    """Run the scenario that the command line names, `on_NAME.py SCENARIO SIZE`, and print a line of JSON."""
    name, size = sys.argv[1], int(sys.argv[2])
    scenario = scope.get("parked" if name == "parked1m" else "yield_" if name == "yield" else name)
    if scenario is None:
        sys.exit(f"no scenario {name} here")
    result = call(scenario, size)
    print(json.dumps({"python": sys.version.split()[0], **result}), flush=True)
    # Tasks that still wait, as those of the sieve do, are not part of the measurement.
    os._exit(0)
