"""Bubbles; what they are is in the core's `bubble`."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from offset import _deadlock, _dump, _runtime
from offset._errors import DeadlockError
from offset._run import run

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_SEEDS = 1 << 32


def bubble(fn: Callable[[], R], seed: int | None = None) -> R:
    """Call `fn()` as the main goroutine of a bubble and give what it returns (Go: synctest.Test).

    Goroutines that are started inside belong to it. They see a clock that starts at midnight of 2000-01-01 UTC
    (946684800.0) and stands still until all of them are durably blocked: on channels, `select`, `sync.Cond`,
    `WaitGroup`, `Semaphore`, `sleep` or `join`, but not on a mutex, on files and sockets, or in `syscall.blocking`.
    Then it jumps to the next timer. If there is none DeadlockError is raised in `fn` where it waits. When `fn` has
    returned, the others must come to their ends without the clock, or that is a DeadlockError, too.

    With a `seed` the order in which goroutines run, the choices of `select` and pauses between operations follow from
    it: the same seed gives the same run, as long as the goroutines depend on nothing outside, such as the order of a
    set. A computing goroutine is not interrupted then. The seed of a run that failed is printed to stderr.

    Raises what `fn` raises, what a goroutine raises that nobody caught, as `run` does, and RuntimeError inside a
    goroutine or a run.
    """
    if not callable(fn):
        raise TypeError(f"bubble() needs a function to call, not {type(fn).__name__}")
    if seed is not None and not hasattr(seed, "__index__"):
        raise TypeError(f"a seed is an integer or None, not {type(seed).__name__}")
    if _runtime.current() is not None:
        raise RuntimeError("bubble() was called inside a goroutine; call it from a plain function, as run()")
    try:
        result: R = run(_inside, fn, None if seed is None else seed.__index__())
    except BaseException:
        if seed is not None:
            print(f"offset: the bubble failed with seed {seed}; bubble(fn, seed={seed}) runs it again", file=sys.stderr)
        raise
    return result


def _inside(fn: Callable[[], R], seed: int | None) -> R:
    caller = _runtime.current()
    assert caller is not None
    caller.name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    _runtime.bubble_begin(seed)
    try:
        result = fn()
        _runtime.bubble_leave()
    except BaseException:
        _runtime.bubble_abandon()
        raise
    return result


def wait() -> None:
    """Wait until all other goroutines of the bubble are durably blocked (Go: synctest.Wait).

    What they did up to there has happened when it returns. Raises RuntimeError outside a bubble, and when another
    goroutine is in `wait` already.
    """
    _runtime.bubble_wait()


def explore(fn: Callable[[], object], schedules: int = 1000, seed: int | None = None) -> int:
    """Run `fn` in bubbles with many seeds, until one fails; give how many were run.

    The seeds are `seed`, `seed + 1` and so on, from a random one unless told. The exception of the one that fails is
    raised with a note that names its seed: `bubble(fn, seed)` runs that again. Raises as `bubble` does.
    """
    if schedules < 1:
        raise ValueError(f"the number of schedules is 1 or more, got {schedules}")
    first = random.randrange(_SEEDS) if seed is None else seed.__index__()
    for index in range(schedules):
        try:
            bubble(fn, first + index)
        except BaseException as error:
            error.add_note(
                f"This was schedule {index + 1} of {schedules}; bubble(fn, seed={first + index}) runs it again."
            )
            raise
    return schedules


def _deadlocked(reason: str) -> DeadlockError:
    # It was woken to say so.
    caller = _runtime.current()
    assert caller is not None
    text = _deadlock.text().replace(f"goroutine {caller.id} [running]", f"goroutine {caller.id} [{reason}]", 1)
    return DeadlockError(text)


_dump.hidden.update(function.__code__ for function in (_deadlocked, _deadlock.text, _inside))


_runtime.set_bubble_deadlock(_deadlocked)
