"""Where the tasks of the library's own loop are, for dumps.

Invariant: with the GIL they are looked at from wherever the question is asked, so that a loop that is stuck can be
looked at, too. Without it a coroutine may be looked at only where nothing else runs it, which is on the loop's thread:
a loop that does not answer within `_ANSWER` seconds is said to be busy. No lock is taken.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

from offset import _dump

if TYPE_CHECKING:
    from offset.aio._loop import Loop

# How long, in seconds, a loop has to answer.
_ANSWER = 0.5

# The attributes that say where a coroutine or generator is, and what it waits for.
_KINDS: dict[type, tuple[str, str]] = {
    types.CoroutineType: ("cr_frame", "cr_await"),
    types.GeneratorType: ("gi_frame", "gi_yieldfrom"),
    types.AsyncGeneratorType: ("ag_frame", "ag_await"),
}
# What stands between an await and what is awaited, and does not say what that is. The types have names only.
_BETWEEN = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"})


def of(loop: Loop) -> list[_dump.Task] | None:
    """Tell where the tasks of `loop` are, all but its own; None if it is busy and cannot be looked at."""
    if getattr(sys, "_is_gil_enabled", lambda: True)() or threading.get_ident() == loop.thread.ident:
        return _look(loop)
    found: list[list[_dump.Task] | Exception] = []
    looked = threading.Event()

    def look() -> None:
        try:
            found.append(_look(loop))
        except Exception as error:
            found.append(error)
        finally:
            looked.set()

    try:
        loop.loop.call_soon_threadsafe(look)
    except RuntimeError:
        # A closed loop has no tasks.
        return []
    looked.wait(_ANSWER)
    if not found:
        return None
    answer = found[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def _look(loop: Loop) -> list[_dump.Task]:
    tasks = [task for task in asyncio.all_tasks(loop.loop) if task is not loop.root]
    return [_dump.Task(task.get_name(), *_where(task.get_coro())) for task in sorted(tasks, key=_age)]


def _age(task: asyncio.Task[Any]) -> tuple[int, str]:
    """Give what the names that asyncio makes, Task-2 and Task-10, are in order by."""
    name = task.get_name()
    return len(name), name


def _where(step: Any) -> tuple[str, _dump.Body]:
    """Follow what is awaited down to what is no coroutine; the state, and the positions on the way."""
    if getattr(step, "cr_running", False):
        # What runs does not say what it awaits.
        return "running", "  (the stack of thread offset-asyncio shows where)\n"
    positions = []
    while step is not None:
        names = _KINDS.get(type(step))
        if names is None:
            step = _behind(step)
            continue
        frame = getattr(step, names[0])
        if frame is None:
            break
        if frame.f_code not in _dump.hidden:
            positions.append((frame.f_code, frame.f_lineno or 0))
        step = getattr(step, names[1])
    return "await", positions


def _behind(step: Any) -> Any:
    """Give what is awaited by something in between; None if it is no such thing."""
    if not _is_between(step):
        return None
    return next((each for each in gc.get_referents(step) if type(each) in _KINDS or _is_between(each)), None)


def _is_between(step: Any) -> bool:
    return type(step).__name__ in _BETWEEN and type(step).__module__ == "builtins"
