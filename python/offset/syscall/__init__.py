"""Calls that block: `blocking` and the decorator `syscall` run them in the blocking pool.

A call that blocks its OS thread needs neither: the runtime notices and moves the other goroutines on.
Saying so beforehand is faster, and works on free-threaded builds too, where started goroutines do not move.
"""

import functools

from offset._runtime import blocking

__all__ = ["blocking", "syscall"]


def syscall(fn, /):
    """Make a function whose calls run in the blocking pool, as `blocking(fn, ...)`. A decorator.

    Only the calling goroutine waits; it comes back at the front of the run queue. The caller's contextvars
    apply.
    """
    if not callable(fn):
        raise TypeError(f"syscall needs something callable, not {type(fn).__name__}")

    @functools.wraps(fn)
    def call(*args, **kwargs):
        return blocking(fn, *args, **kwargs)

    return call
