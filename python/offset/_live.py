"""A program's state as plain values that JSON can carry: what the page of `offset.debug` and `offset top` show.

`summary` is cheap, and asked for every second. `goroutines` and `channels` go through all that there is; they give a
`Look`, of which `choose` picks what fits a filter and a screen, and says what it left off.

Invariants: nothing is kept between two looks, so a program pays only while somebody looks; a look holds no goroutine,
channel or frame. All of it may run on a plain thread, and takes no lock that a parked goroutine may hold.
"""

from __future__ import annotations

import functools
import gc
import heapq
import os
import sys
import sysconfig
import time
from typing import TYPE_CHECKING, Any

from offset import _dump, _runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Row = dict[str, Any]

# So many rows of a table are given, the first ones, and of each so many goroutines.
ROWS = 200
MEMBERS = 40
# The lines of a longer stack are left out in its middle.
FRAMES = 60

_PACKAGE = os.path.dirname(__file__) + os.sep
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Look:
    """What there was at one moment, the most important first.

    `texts` gives what a filter is applied to, `numbers` the ids of the goroutines of an entry, `row` what is shown.
    """

    def __init__(
        self,
        entries: list[Any],
        started: float,
        texts: Callable[[Any], str],
        numbers: Callable[[Any], Iterable[int]],
        row: Callable[[Any, int], Row],
    ) -> None:
        self.entries = entries
        self.taken = time.monotonic()
        self.seconds = self.taken - started
        self.texts = texts
        self.numbers = numbers
        self.row = row

    def choose(self, query: str = "", most: int = ROWS) -> Row:
        """Give the first `most` rows that fit `query`: all of its words, or the id of a goroutine.

        `count` is how many rows fit, `goroutines` how many goroutines are in these, and `left_off` the same of those
        that are not given. `seconds` is what the look took, `age` how long ago it was.
        """
        words = query.lower().split()
        wanted = _number(words)
        entries = self.entries
        if wanted:
            entries = [entry for entry in entries if wanted in self.numbers(entry)]
        elif words:
            entries = [entry for entry in entries if _fits(self.texts(entry).lower(), words)]
        sizes = [_size(self.numbers(entry)) for entry in entries]
        return {
            "rows": [self.row(entry, wanted) for entry in entries[:most]],
            "count": len(entries),
            "goroutines": sum(sizes),
            "left_off": {"rows": max(0, len(entries) - most), "goroutines": sum(sizes[most:])},
            "seconds": self.seconds,
            "age": time.monotonic() - self.taken,
        }


def _number(words: list[str]) -> int:
    """Give the id that a filter asks for ("7", "#7", "goroutine 7"), or 0."""
    text = words[-1].lstrip("#") if words and words[:-1] in ([], ["goroutine"]) else ""
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _fits(text: str, words: list[str]) -> bool:
    return all(word in text for word in words)


def _size(numbers: Iterable[int]) -> int:
    return len(numbers) if isinstance(numbers, list) else sum(1 for _ in numbers)


# ---- the whole -----------------------------------------------------------------------------------


def summary() -> Row:
    """Give the counters of the runtime, the goroutines by state, and the process."""
    return {
        "time": time.time(),
        "stats": _runtime.stats(),
        "states": _runtime.states() if _runtime.started() else {},
        "process": process(),
    }


def process() -> Row:
    """Tell about the process: what it is, since when it runs, CPU seconds, resident bytes, threads."""
    about: Row = {"pid": os.getpid(), "offset": sys.modules["offset"].__version__, "python": _python()}
    about["gil"] = getattr(sys, "_is_gil_enabled", lambda: True)()
    about["argv"] = _argv()
    # The first field after the name, which may have anything in it, is the third.
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        about["cpu"] = (int(fields[11]) + int(fields[12])) / _TICKS
        about["threads"] = int(fields[17])
        about["started"] = _booted() + int(fields[19]) / _TICKS
        about["resident"] = int(fields[21]) * _PAGE
    except (OSError, IndexError, ValueError):
        about["cpu"] = time.process_time()
    return about


def _argv() -> list[str]:
    return [str(word) for word in getattr(sys, "orig_argv", sys.argv)]


@functools.cache
def _python() -> str:
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    return ".".join(map(str, sys.version_info[:3])) + ("t" if free_threaded else "")


@functools.cache
def _booted() -> float:
    with open("/proc/stat", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


# ---- goroutines ----------------------------------------------------------------------------------


def goroutines() -> Look:
    """Look at all goroutines; those with equal stacks are one entry. All Python code stands still for a part of it."""
    started = time.monotonic()
    known: dict[_dump.Position, str] = {}

    def stack(group: _dump.Group) -> str:
        where = group.where
        if not isinstance(where, str) and len(where) > FRAMES:
            half = FRAMES // 2
            first, last = group._replace(where=where[:half]), group._replace(where=where[-half:])
            gap = f"  ... {len(where) - 2 * half} more frames ...\n"
            return _dump.stack_text(first, known) + gap + _dump.stack_text(last, known)
        return _dump.stack_text(group, known)

    def text(group: _dump.Group) -> str:
        return f"{group.state}\n{group.name}\n{stack(group)}{_dump.creator_text(group)}"

    def numbers(group: _dump.Group) -> list[int]:
        return [member[0] for member in group.members]

    def row(group: _dump.Group, wanted: int) -> Row:
        members = heapq.nsmallest(MEMBERS, group.members, key=lambda member: (member[0] != wanted, -member[1]))
        times = [member[1] for member in group.members]
        return {
            "state": group.state,
            "name": group.name,
            "count": len(group.members),
            "shortest": min(times) if group.waiting else None,
            "longest": max(times) if group.waiting else None,
            "at": _innermost(group),
            "created": _dump.creator_text(group).strip(),
            "stack": stack(group),
            "members": members,
        }

    return Look(_dump.groups(_runtime.all_goroutines()), started, text, numbers, row)


def _innermost(group: _dump.Group) -> str:
    """Give where the program is, as "file:line in function": the innermost frame outside of this package."""
    if isinstance(group.where, str):
        return group.where.strip()
    for code, line in reversed(group.where):
        if not code.co_filename.startswith(_PACKAGE):
            return f"{code.co_filename}:{line} in {code.co_name}"
    return ""


# ---- channels ------------------------------------------------------------------------------------


def channels() -> Look:
    """Look at all channels, and at the locks and the like at which goroutines wait; those with most waiters come first.

    They are found among the objects that the collector knows: it takes about as long as a full collection.
    """
    started = time.monotonic()
    entries = [(_place(found), ids) for found, ids in _runtime.find_places(gc.get_objects())]
    entries.sort(key=lambda entry: (-len(entry[1]), -entry[0]["length"], not entry[0]["label"], -entry[0]["passed"]))

    def text(entry: tuple[Row, list[int]]) -> str:
        return " ".join(str(entry[0][key]) for key in ("kind", "label", "about", "at"))

    def numbers(entry: tuple[Row, list[int]]) -> list[int]:
        return entry[1]

    def row(entry: tuple[Row, list[int]], wanted: int) -> Row:
        ids = entry[1] if wanted not in entry[1] else [wanted, *(each for each in entry[1] if each != wanted)]
        return {**entry[0], "waiters": len(ids), "members": ids[:MEMBERS]}

    return Look(entries, started, text, numbers, row)


def _place(found: Any) -> Row:
    kind = type(found)
    about: Row = {
        "kind": f"{kind.__module__}.{kind.__qualname__}",
        "at": hex(id(found)),
        "label": "",
        "length": 0,
        "passed": 0,
        "about": "",
    }
    stats: Row = getattr(found, "stats", dict)()
    if isinstance(found, _runtime.Chan):
        about["label"] = found.label or ""
        about["length"] = stats.pop("len")
        about["capacity"] = stats.pop("cap")
        about["passed"] = stats["passed"]
        about["closed"] = stats["closed"]
        about["senders"] = stats["senders"]
        about["receivers"] = stats["receivers"]
    else:
        about["about"] = ", ".join(f"{name} {value}" for name, value in stats.items())
    return about
