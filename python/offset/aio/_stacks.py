"""Where the tasks of the library's own loop are, for dumps.

Invariant: with the GIL they are looked at from wherever the question is asked, so that a loop that is stuck can be
looked at, too. Without it a coroutine may be looked at only where nothing else runs it, which is on the loop's thread:
a loop that does not answer within `_ANSWER` seconds is said to be busy. No lock is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from offset import _dump

if TYPE_CHECKING:
    from offset.aio._loop import Loop

# How long, in seconds, a loop has to answer.
_ANSWER = 0.5

# How the attributes of coroutines, generators and asynchronous generators begin, and which one says what they wait for.
_KINDS = {"cr": "cr_await", "gi": "gi_yieldfrom", "ag": "ag_await"}


def of(loop: Loop) -> list[_dump.Task] | None:
    """Tell where the tasks of `loop` are, all but its own; None if it is busy and cannot be looked at."""
    if getattr(sys, "_is_gil_enabled", lambda: True)() or threading.get_ident() == loop.thread.ident:
        return _look(loop)
    found: list[list[_dump.Task]] = []
    looked = threading.Event()

    def look() -> None:
        try:
            found.append(_look(loop))
        finally:
            looked.set()

    # A closed loop has no tasks.
    with contextlib.suppress(RuntimeError):
        loop.loop.call_soon_threadsafe(look)
        looked.wait(_ANSWER)
        return found[0] if found else None
    return []


def _look(loop: Loop) -> list[_dump.Task]:
    tasks = [task for task in asyncio.all_tasks(loop.loop) if task is not loop.root]
    return [_dump.Task(task.get_name(), *_where(task.get_coro())) for task in sorted(tasks, key=_age)]


def _age(task: asyncio.Task[Any]) -> tuple[int, str]:
    """Give what the names that asyncio makes, Task-2 and Task-10, are in order by."""
    name = task.get_name()
    return len(name), name


def _where(step: Any) -> tuple[str, _dump.Body]:
    """Follow what is awaited down to what is no coroutine; the state, and the positions on the way."""
    positions = []
    while step is not None:
        for kind in _KINDS:
            if hasattr(step, f"{kind}_frame"):
                break
        else:
            break
        # What runs does not say what it awaits.
        if getattr(step, f"{kind}_running"):
            return "running", "  (the stack of thread offset-asyncio shows where)\n"
        frame = getattr(step, f"{kind}_frame")
        if frame is None:
            break
        if frame.f_code not in _dump.hidden:
            positions.append((frame.f_code, frame.f_lineno or 0))
        step = getattr(step, _KINDS[kind])
    return "await", positions
