"""`concurrent.futures` whose waits park only the goroutine, and `GoroutineExecutor`, which runs calls in goroutines.

`Future`, `wait`, `as_completed` and `ThreadPoolExecutor` (whose workers are goroutines) are rebound copies (see
`offset.syscall._rebind`). The futures of `ProcessPoolExecutor` are, too; its manager is a real thread, as it waits
for processes. `InterpreterPoolExecutor` is the original: a goroutine cannot run another interpreter.
"""

import concurrent.futures as _original

from offset.syscall.concurrent.futures._base import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,
    as_completed,
    wait,
)
from offset.syscall.concurrent.futures._goroutine import GoroutineExecutor
from offset.syscall.concurrent.futures.thread import ThreadPoolExecutor

__all__ = [  # noqa: PLE0604 - what more the version at hand has
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "GoroutineExecutor",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
    *sorted({"InterpreterPoolExecutor"}.intersection(_original.__all__)),
]


def __getattr__(name):
    # As the original, which imports multiprocessing only for those who use it.
    if name == "ProcessPoolExecutor":
        from offset.syscall.concurrent.futures.process import ProcessPoolExecutor

        return ProcessPoolExecutor
    if name in __all__:
        return getattr(_original, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*__all__, "__author__", "__doc__"]
