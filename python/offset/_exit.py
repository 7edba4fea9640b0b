"""How goroutines end: at the end of a run, and when the interpreter exits.

Invariants:

* `wind_down` is bounded by its grace time, and ends before it when nothing could ever make the rest end.
* A goroutine that outlived its grace time is in `abandoned` (by id) as long as it lives: nobody waits for
  it again.
* `finish` runs once, on the thread that ends the interpreter, after Python has joined the plain threads.
  They may use goroutines until then.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from offset import _dump, _failure, _runtime
from offset._errors import GoroutineExit

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._run import Run
    from offset._runtime import Goroutine, Note

GRACE = 5.0
"""How long, in seconds, the `finally` blocks of cancelled goroutines may take by default."""

_LONGEST_PAUSE = 0.05

abandoned: set[int] = set()

background: set[int] = set()
"""The ids of goroutines that `run` does not wait for. Each puts itself in, and takes itself out before its end."""

ahead: list[Callable[[], object]] = []
"""Called when the interpreter exits, before the goroutines that are left are ended."""

behind: list[Callable[[float, Run | None, Callable[[], bool]], None]] = []
"""Called after the goroutines have ended, with the grace time, the run that ends (None: the interpreter), and what says
whether to hurry."""

idle_threads: list[Callable[[], int]] = []
"""Each counts threads of the library that are foreign to the runtime, and have nothing to do."""


def alive() -> list[Goroutine]:
    """Give the goroutines that have not ended and were not abandoned.

    Of those that the runtime has started for itself only those that wait: for what a finalizer waits for.
    """
    living = _runtime.all_goroutines()
    if abandoned:
        abandoned.intersection_update({goroutine.id for goroutine in living})
        living = [goroutine for goroutine in living if goroutine.id not in abandoned]
    return [goroutine for goroutine in living if not goroutine._own or goroutine.wait_reason]


def of_the_program() -> list[Goroutine]:
    """Give those of them that the program has started."""
    return [goroutine for goroutine in alive() if not goroutine._own]


def remaining() -> int:
    """Count the goroutines of the program that have not ended and were not abandoned."""
    return len(of_the_program()) if abandoned else _runtime.num_goroutine()


def waited_for() -> int:
    """Count the goroutines whose ends a run waits for: those of `remaining` that are not in the background."""
    count = remaining()
    if count > len(background):
        return count
    # One that puts itself in, or takes itself out, at this moment is counted: there is another look.
    return sum(goroutine.id not in background for goroutine in of_the_program())


def wind_down(
    note: Note,
    grace: float,
    *,
    spare: Callable[[Goroutine], bool] = lambda goroutine: False,
    serve: Callable[[], None] = lambda: None,
    hurry: Callable[[], bool] = lambda: False,
) -> list[Goroutine]:
    """Cancel every goroutine and wait up to `grace` seconds for their ends; give those that did not end.

    `spare` tells goroutines that are ending by themselves and must not be cancelled. `serve` is called
    between waits. The waiting ends early when `hurry` gives True. The note must be the one that the runtime
    watches. What goroutines start in their `finally` blocks is cancelled only after those that were there
    before have ended, so that it can serve them.
    """
    deadline = time.monotonic() + grace
    while True:
        group = alive()
        if not group:
            return []
        for goroutine in group:
            if goroutine.id not in _failure.reporting and not spare(goroutine):
                goroutine.cancel()
        pause = 0.001
        while True:
            serve()
            note.clear()
            group = [goroutine for goroutine in group if goroutine.status != "dead"]
            if not group:
                break
            left = deadline - time.monotonic()
            if left <= 0 or hurry() or _stuck(note):
                left_over = alive()
                abandoned.update(goroutine.id for goroutine in left_over)
                return left_over
            note.wait(min(left, pause))
            pause = min(pause * 2, _LONGEST_PAUSE)


def end_in_goroutine(others: Callable[[], list[Goroutine]], grace: float) -> None:
    """Do what `wind_down` does to the goroutines that `others` gives, inside one; name those that did not end."""
    deadline = time.monotonic() + grace
    while group := others():
        for goroutine in group:
            if goroutine.id not in _failure.reporting:
                goroutine.cancel()
        for goroutine in group:
            goroutine.join(timeout=max(0, deadline - time.monotonic()))
        if time.monotonic() >= deadline:
            name_left_over(left_over := others(), grace)
            abandoned.update(goroutine.id for goroutine in left_over)


def _stuck(note: Note) -> bool:
    """Tell whether nothing can ever happen again. Who asks for service sets the note before waiting for it."""
    return at_rest() and not note.is_set()


def at_rest() -> bool:
    """Tell whether nothing can happen any more, in the runtime or by a thread that may wake a goroutine.

    The looks are not one moment: a thread that is idle at one of them may have woken a goroutine before, which has
    given it something to do afterwards. Then a goroutine has run in between.
    """
    before = _runtime.stats()["switches"]
    # The second look sees what a thread has woken before it was idle.
    looks = _runtime.quiescent() and _outsiders() == 0 and _runtime.quiescent()
    return looks and _runtime.stats()["switches"] == before


def _outsiders() -> int:
    """Count the threads that are not the runtime's, nor the caller's, and may wake a goroutine."""
    threads = _runtime.foreign_threads()
    return threads - sum(count() for count in idle_threads) if threads else 0


def name_left_over(left_over: list[Goroutine], grace: float) -> None:
    """Name on stderr the goroutines that did not end, with their stacks."""
    if left_over:
        opening = f"offset: goroutines were cancelled and did not end (grace time {grace:g} s):\n\n"
        _dump.write(opening + _dump.stacks(left_over))


def _name_unbegun() -> None:
    """Say on stderr that goroutines have not even begun, in a program that has never waited for any in a run."""
    unbegun = [] if _failure.ran else [goroutine for goroutine in alive() if not goroutine.started]
    if unbegun:
        first = unbegun[0]
        what = "a goroutine" if len(unbegun) == 1 else f"{len(unbegun)} goroutines"
        _dump.write(
            f"offset: the program has ended, and {what} had not begun ({first.name}, created by {first.created_at}); "
            "start the program with run(main), in which main waits for them, or wait with join()\n"
        )


def started() -> None:
    """Prepare the exit; the runtime calls it before the first `go` of a process starts threads."""
    # A forked child inherits the registration of the function that did it.
    atexit.unregister(finish)
    atexit.register(finish)
    _watch_forks()


@functools.cache
def _watch_forks() -> None:
    # Once in a process and its children: it cannot be taken back.
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """Forget, in a forked child, the goroutines and the run of its parent."""
    abandoned.clear()
    background.clear()
    _failure.reporting.clear()
    run = _failure.active()
    if run is not None:
        run.leave()
        _failure.release()


def finish() -> None:
    """End the goroutines that are left when the interpreter exits, then stop the runtime."""
    if not _runtime.started():
        _finish_behind()
        return
    try:
        _name_unbegun()
        for prepare in ahead:
            prepare()
        note = _runtime.Note()
        _runtime.watch(note)
        try:
            name_left_over(wind_down(note, GRACE), GRACE)
        finally:
            _runtime.watch(None)
        _finish_behind()
    except KeyboardInterrupt:
        # The user does not want to wait.
        pass
    except BaseException as error:
        _dump.write("offset: while the goroutines were ended at exit:\n" + _dump.exception(error))
    finally:
        _runtime.shutdown()


def _finish_behind() -> None:
    for conclude in behind:
        conclude(GRACE, None, lambda: False)


def end_child(goroutine: Goroutine, exc: BaseException | None) -> NoReturn:
    """End a child process that was forked inside `goroutine`, as the end of its only thread.

    The exit status is 0, that of a SystemExit, or 1 after an uncaught exception, which is reported.
    """
    status = 0
    if isinstance(exc, SystemExit):
        if exc.code is not None and not isinstance(exc.code, int):
            _dump.write(f"{exc.code}\n")
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    elif exc is not None and not isinstance(exc, GoroutineExit):
        _failure.report(goroutine, exc)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status & 0xFF)
