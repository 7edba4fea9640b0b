"""What the Python rivals share: the clock, the memory of the process, the line that a scenario prints.

A rival is a program `on_NAME.py` with a function for each scenario, named after it (`yield_` for
"yield", `serve` for all of the network's), that takes the size and returns a dict made by `Clock.result`,
`Parking.result` or `visit`. The program ends with `main(globals())`. Standard library only: every rival
imports this.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenarios import SCENARIOS

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


def visit(port: int, n: int) -> Result:
    """Send the client of the scenario to a server on that port, and give what was measured.

    It blocks: a rival calls it in a thread of its pool. The client is a process with one processor of its
    own, the same for all; what it needs is not counted.
    """
    scenario = sys.argv[1]
    command = [client(), "client", scenario, str(port), str(n)]
    environment = {**os.environ, "GOMAXPROCS": "1"}
    gc.collect()
    resident, tables = memory()
    with (
        Clock() as clock,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        # It says so when it has done its work, or has its connections; it keeps those until its input ends.
        assert process.stdin is not None and process.stdout is not None
        said = json.loads(process.stdout.readline())
        resident_then, tables_then = memory()
        process.stdin.close()
    assert process.returncode == 0, "the client has failed"
    clock.seconds = said["seconds"]
    if scenario != "idle":
        return clock.result(said["operations"])
    return clock.result(n, resident_bytes=resident_then - resident, page_table_bytes=tables_then - tables)


def client() -> str:
    """The program of go/, which run.py names; for a server by hand, whatever one it has made before."""
    known = os.environ.get("BENCH_CLIENT")
    made = sorted(Path(__file__).resolve().parent.parent.glob(".venv-bench-*/go-scenarios"))
    if not known and not made:
        sys.exit("the client has not been made yet: `make bench ARGS='--rivals go --scenarios yield'` does")
    return known or str(made[-1])


def call(scenario: Callable[[int], Result], size: int) -> Result:
    """Run a scenario as it is; rivals with a loop of their own have another `call`."""
    return scenario(size)


def main(scope: dict[str, Any], call: Callable[[Any, int], Result] = call) -> None:
    """Run the scenario that the command line names, `on_NAME.py SCENARIO SIZE`, and print a line of JSON."""
    name, size = sys.argv[1], int(sys.argv[2])
    if SCENARIOS[name].network:
        # Of so many connections each needs a descriptor.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        function = "serve"
    else:
        function = {"parked1m": "parked", "yield": "yield_"}.get(name, name)
    scenario = scope.get(function)
    if scenario is None:
        sys.exit(f"no scenario {name} here")
    result = call(scenario, size)
    print(json.dumps({"python": sys.version.split()[0], **result}), flush=True)
    # Tasks that still wait, as those of the sieve do, are not part of the measurement.
    os._exit(0)
