"""The runtime's counters in the text format of Prometheus (version 0.0.4).

Names follow its conventions: base units, `_total` for what only grows, and the names of its own client libraries for
what is known of the process and the collector.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

from offset import _live

if TYPE_CHECKING:
    from collections.abc import Iterable

    Sample = tuple[dict[str, str], float]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The name, the type, what it says, and the key in `runtime.stats()`.
_RUNTIME = [
    ("offset_goroutines_started_total", "counter", "Goroutines that were started.", "spawned"),
    ("offset_runnable_goroutines", "gauge", "Goroutines in the run queues.", "runnable"),
    ("offset_processors", "gauge", "Goroutines that can run at once.", "processors"),
    ("offset_switches_total", "counter", "Times that a goroutine was begun or resumed.", "switches"),
    (
        "offset_handoffs_total",
        "counter",
        "Times that a processor without progress was handed to another machine.",
        "handoffs",
    ),
    ("offset_moves_total", "counter", "Started goroutines that went on on another machine.", "moves"),
    ("offset_timers", "gauge", "Timers that are set.", "timers"),
    ("offset_descriptors", "gauge", "Descriptors in the poller.", "descriptors"),
    ("offset_descriptor_waits", "gauge", "Goroutines and threads that wait for a descriptor.", "descriptor_waits"),
    ("offset_blocking_calls", "gauge", "Calls in the blocking pool, those that queue included.", "blocking_calls"),
    ("offset_blocking_threads", "gauge", "Threads of the blocking pool.", "blocking_threads"),
    ("offset_stack_size_bytes", "gauge", "Size of the C stacks of new goroutines.", "stack_size"),
]


def text() -> str:
    """Give all metrics."""
    now = _live.summary()
    stats, about = now["stats"], now["process"]
    idle, stuck = stats["idle_machines"], stats["stuck_machines"]
    machines = {"running": max(0, stats["machines"] - idle - stuck), "idle": idle, "stuck": stuck}
    parts = [
        _metric(
            "offset_info",
            "gauge",
            "The versions, always 1.",
            [({"version": about["offset"], "python": about["python"], "gil": str(about["gil"]).lower()}, 1)],
        ),
        _metric(
            "offset_goroutines",
            "gauge",
            "Goroutines by what they wait for or do.",
            [({"state": state}, count) for state, count in sorted(now["states"].items())],
        ),
        _metric(
            "offset_machines",
            "gauge",
            "OS threads that run goroutines; stuck are those that block or compute without a processor.",
            [({"state": state}, count) for state, count in machines.items()],
        ),
    ]
    parts += [_metric(name, kind, says, [({}, stats[key])]) for name, kind, says, key in _RUNTIME]
    parts += _process(about)
    collections = [({"generation": str(index)}, each["collections"]) for index, each in enumerate(gc.get_stats())]
    parts.append(_metric("python_gc_collections_total", "counter", "Collections by generation.", collections))
    return "".join(parts)


def _process(about: _live.Row) -> Iterable[str]:
    known = [
        ("process_cpu_seconds_total", "counter", "CPU time in seconds.", about.get("cpu")),
        ("process_start_time_seconds", "gauge", "When the process began, since the epoch.", about.get("started")),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", about.get("resident")),
        ("process_threads", "gauge", "OS threads.", about.get("threads")),
        ("process_open_fds", "gauge", "Open file descriptors.", _descriptors()),
    ]
    return [_metric(name, kind, says, [({}, value)]) for name, kind, says, value in known if value is not None]


def _descriptors() -> int | None:
    try:
        # Without the one that reads the directory.
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return None


def _metric(name: str, kind: str, says: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {_escaped(says)}\n# TYPE {name} {kind}\n"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text, quotes=True)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value}\n" if inside else f"{name} {value}\n")
    return "".join(lines)


def _escaped(text: str, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
