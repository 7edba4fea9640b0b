"""`offset bench`: what goroutines cost on this machine, beside threads and asyncio, in some seconds."""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
from typing import TYPE_CHECKING

import offset
from offset import _runtime
from offset._command import _arguments

if TYPE_CHECKING:
    import argparse

    from offset._command._measure import AsyncMeasure, Scenario

    # By scenario and way, the seconds that one operation takes.
    Results = dict[str, dict[str, float]]

HELP = "measure switches, channels, starts and timers here, beside threads and asyncio"

WAYS = ["offset", "threads", "asyncio"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    text = "for how long each of the three runs of a cell is to go on (0.1)"
    parser.add_argument(
        "--seconds", type=functools.partial(_arguments.seconds, most=60), default=0.1, metavar="SECONDS", help=text
    )
    parser.add_argument("--json", action="store_true", help="print seconds an operation as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table."""
    from offset._command import _measure

    results: Results = {}
    # The others come first: the runtime starts its threads at the first `go`.
    for scenario in _measure.SCENARIOS:
        threads = _measure.best(scenario.threads, options.seconds, scenario.most_threads)
        results[scenario.name] = {"threads": threads, "asyncio": _best_of_asyncio(scenario, options.seconds)}
    for scenario in _measure.SCENARIOS:
        found = offset.run(_measure.best, scenario.offset, options.seconds, scenario.most)
        results[scenario.name]["offset"] = found
    if options.json:
        print(json.dumps({"machine": _machine(), "seconds": results}))
    else:
        print(table(_measure.SCENARIOS, results), end="")
    return 0


def _best_of_asyncio(scenario: Scenario, seconds: float) -> float:
    import asyncio

    from offset._command import _measure

    measure: AsyncMeasure = scenario.asyncio
    return _measure.best(lambda size: asyncio.run(measure(size)), seconds, scenario.most)


def _machine() -> dict[str, object]:
    return {
        "offset": offset.__version__,
        "python": platform.python_version(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "processors": _runtime.stats()["processors"],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def table(scenarios: list[Scenario], results: Results) -> str:
    """Give the results as text."""
    about = _machine()
    free = "" if about["gil"] else " without the GIL"
    lines = [
        f"offset {about['offset']}, CPython {about['python']}{free}, {about['system']}, {about['architecture']}, "
        f"{about['cores']} cores",
        "",
        f"{'':48}" + "".join(f"{way:>12}" for way in WAYS),
    ]
    for scenario in scenarios:
        row = results[scenario.name]
        cells = "".join(f"{_shown(row[way]):>12}" for way in WAYS)
        lines.append(f"{scenario.name + ': ' + scenario.what:48}{cells}")
        times = "".join(f"{row[way] / row['offset']:>11,.1f}x" for way in WAYS[1:])
        lines.append(f"{'':48}{'':12}{times}")
    lines += ["", "The least of three runs each. Other programs on the machine make all of it slower."]
    return "\n".join(lines) + "\n"


def _shown(seconds: float) -> str:
    """Give a time to three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
