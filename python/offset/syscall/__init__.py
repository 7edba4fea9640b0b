"""Calls that block: `blocking` and the decorator `syscall` run them in the blocking pool.

A call that blocks its OS thread needs neither: the runtime notices and moves the other goroutines on.
Saying so beforehand is faster, and works on free-threaded builds too, where started goroutines do not move.

`wait_readable` and `wait_writable` wait for a descriptor on behalf of a library in C that asks its user to: they take
no thread.
"""

import errno as _errno
import functools
import os as _os
import select as _select

from offset import _runtime
from offset._runtime import blocking

__all__ = ["blocking", "syscall", "wait_readable", "wait_writable"]


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


def wait_readable(fd, /, timeout=None):
    """Wait until a descriptor, or what has one as `fileno()`, can be read from; at its end or with an error it can.

    Only the calling goroutine waits, or the calling thread; for `timeout` seconds (or a timedelta) at most, then
    TimeoutError is raised. A plain file can be read from at any time. ValueError and OSError (EBADF) if there is no
    such descriptor.
    """
    _wait(fd, _select.POLLIN | _select.POLLPRI, _runtime.Fd.wait_read, timeout)


def wait_writable(fd, /, timeout=None):
    """Wait until a descriptor, or what has one as `fileno()`, can be written to. See `wait_readable`."""
    _wait(fd, _select.POLLOUT, _runtime.Fd.wait_write, timeout)


def _wait(fd, event, wait, timeout):
    known = _select.poll()
    known.register(fd, event)
    if hasattr(timeout, "total_seconds"):
        timeout = timeout.total_seconds()
    elif timeout is not None and not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, a timedelta or None, not {type(timeout).__name__}")
    if _over(known):
        return
    deadline = None if timeout is None else _runtime.now() + timeout
    waiter = _runtime.Fd(fd if isinstance(fd, int) else fd.fileno())
    try:
        # An edge says that something has happened, perhaps to somebody else's part of it.
        while not _over(known):
            wait(waiter, None if deadline is None else deadline - _runtime.now())
    finally:
        waiter.close()


def _over(known):
    """Tell whether the one descriptor of a `poll` object is ready, or fails; OSError if there is none."""
    events = known.poll(0)
    if events and events[0][1] & _select.POLLNVAL:
        raise OSError(_errno.EBADF, _os.strerror(_errno.EBADF))
    return bool(events)
