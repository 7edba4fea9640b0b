"""Exceptions that leave a goroutine: the report, and the way into the run in progress.

Invariants:

* `_active` holds the run in progress, or nothing. It is a dict because `setdefault` claims the place in one
  step, without a lock that a fork could leave locked.
* `uncaught` runs in the failing goroutine, inside its own stack, and lets no exception out.
* A goroutine that is reporting has its id in `reporting`, and is not cancelled meanwhile: half a report
  helps nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from offset import _dump, _runtime
from offset._errors import GoroutineExit

if TYPE_CHECKING:
    from offset._run import Run
    from offset._runtime import Goroutine

_active: dict[str, Run] = {}
reporting: set[int] = set()
# Not empty once there has been a run.
ran: set[bool] = set()


def active() -> Run | None:
    """Give the run in progress, if there is one."""
    return _active.get("run")


def claim(run: Run) -> bool:
    """Make `run` the run in progress, unless there is one; tell whether that happened."""
    ran.add(True)
    return _active.setdefault("run", run) is run


def release() -> None:
    """Say that no run is in progress any more."""
    _active.clear()


def excepthook(goroutine: Goroutine, exc: BaseException, /) -> None:
    """Report an exception that left a goroutine on `sys.stderr`: id, name, traceback, and who created it.

    Replace the attribute `offset.excepthook` to report in another way; it is looked up at each failure and
    is called as `excepthook(goroutine, exc)` in the goroutine that failed.
    """
    _dump.write(_dump.failure(goroutine, exc))


def uncaught(goroutine: Goroutine, exc: BaseException) -> None:
    """Report `exc` at once through `offset.excepthook` and hand it to the run in progress."""
    run = active()
    reporting.add(goroutine.id)
    _runtime.bubble_fail()
    try:
        # The last seconds before it, ahead of what the report itself does.
        _record()
        if run is None or run.reports(goroutine, exc):
            report(goroutine, exc)
    except BaseException as error:
        _dump.write(f"offset: the report of {exc!r} in goroutine {goroutine.id} failed: {error!r}\n")
    finally:
        if run is not None:
            run.record(goroutine, exc)
        reporting.discard(goroutine.id)


def _record() -> None:
    from offset.runtime import trace

    try:
        trace.failed()
    except Exception as error:
        _dump.write(f"offset: the flight recorder could not be written: {error!r}\n")


def report(goroutine: Goroutine, exc: BaseException) -> None:
    """Report `exc` through `offset.excepthook`, which may fail."""
    import offset

    try:
        offset.excepthook(goroutine, exc)
    except GoroutineExit:
        # Cancelled between the failure and its report: the report is still due.
        excepthook(goroutine, exc)
    except BaseException as error:
        text = _dump.exception(error)
        _dump.write(f"Error in offset.excepthook:\n{text}\nThe exception it was called with:\n")
        excepthook(goroutine, exc)
