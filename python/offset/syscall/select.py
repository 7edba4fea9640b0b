"""The standard module `select` for goroutines: waits park only the goroutine.

Every name of the original is here. The system's own set of descriptors (`epoll`) does the waiting: it is a
descriptor itself, which the poller watches. `poll` and `epoll` objects cannot be of the original's types, which have no
subclasses.
"""

from __future__ import annotations

import errno as _errno
import math as _math
import os as _os
import select as _original

from offset import _runtime
from offset._errors import DeadlineExceeded as _DeadlineExceeded
from offset.syscall import _rebind

# What `select` means by readable and writable, as the Linux kernel has it.
_READABLE = _original.POLLIN | _original.POLLHUP | _original.POLLERR
_WRITABLE = _original.POLLOUT | _original.POLLERR
_EXCEPTIONAL = _original.POLLPRI


def _events(waiter, descriptors, seconds, most=-1):
    """Wait for events of an epoll object that `waiter` watches, up to `seconds`, None for ever."""
    deadline = None if seconds is None else _runtime.now() + seconds
    while True:
        events = descriptors.poll(0, most)
        if events or seconds == 0:
            return events
        try:
            waiter.wait_read(None if deadline is None else deadline - _runtime.now())
        except _DeadlineExceeded:
            raise
        except TimeoutError:
            return descriptors.poll(0, most)


def _number(file):
    """Give the number of a descriptor or of what has one, with the original's errors."""
    number = file if isinstance(file, int) else getattr(file, "fileno", None)
    if number is None:
        raise TypeError("argument must be an int, or have a fileno() method.")
    if not isinstance(number, int):
        number = number()
        if not isinstance(number, int):
            raise TypeError("fileno() returned a non-integer")
    if number < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({number})")
    return number


def select(rlist, wlist, xlist, timeout=None, /):
    """Wait until one of the files is ready. See `select.select`."""
    if timeout is not None:
        if (
            not isinstance(timeout, int | float)
            and not hasattr(timeout, "__float__")
            and not hasattr(timeout, "__index__")
        ):
            raise TypeError("timeout must be a float or None")
        timeout = float(timeout)
        if _math.isnan(timeout):
            raise ValueError("Invalid value NaN (not a number)")
        if timeout < 0:
            raise ValueError("timeout must be non-negative")
    # The lists may be changed meanwhile.
    wanted = [[(file, _number(file)) for file in files] for files in (rlist, wlist, xlist)]
    masks = {}
    for files, bits in zip(wanted, (_original.POLLIN, _original.POLLOUT, _EXCEPTIONAL), strict=True):
        for _, number in files:
            masks[number] = masks.get(number, 0) | bits
    if not masks:
        _runtime.sleep(_math.inf if timeout is None else timeout)
        return [], [], []
    ready = dict(_ready(masks, timeout))
    if any(bits & _original.POLLNVAL for bits in ready.values()):
        raise OSError(_errno.EBADF, _os.strerror(_errno.EBADF))
    bits_of = (_READABLE, _WRITABLE, _EXCEPTIONAL)
    return tuple(
        [file for file, number in files if ready.get(number, 0) & bits]
        for files, bits in zip(wanted, bits_of, strict=True)
    )


def _ready(masks, seconds):
    """Wait for events of descriptors, given with what is wanted of each, as `poll` gives them."""
    known = _original.poll()
    for number, mask in masks.items():
        known.register(number, mask)
    # Plain files and closed descriptors, which the system's sets do not take, are answered for at once.
    ready = known.poll(0)
    deadline = None if seconds is None else _runtime.now() + seconds
    while not ready and (deadline is None or seconds > 0):
        with _original.epoll() as descriptors:
            for number, mask in masks.items():
                descriptors.register(number, mask)
            waiter = _runtime.Fd(descriptors.fileno())
            try:
                _events(waiter, descriptors, seconds)
            finally:
                waiter.close()
        ready = known.poll(0)
        if deadline is not None:
            seconds = deadline - _runtime.now()
    return ready


class epoll:
    """A set of descriptors whose `poll` parks only the goroutine. See `select.epoll`."""

    # The original cannot be inherited from: `isinstance` goes by this.
    __class__ = property(lambda self: _original.epoll if type(self) is epoll else type(self))

    def __init__(self, sizehint=-1, flags=0):
        self._own(_original.epoll(sizehint, flags))

    def _own(self, descriptors):
        self._descriptors = descriptors
        self._waiter = None

    @classmethod
    def fromfd(cls, fd, /):
        """Make one of a descriptor. See `select.epoll.fromfd`."""
        made = cls.__new__(cls)
        made._own(_original.epoll.fromfd(fd))
        return made

    def poll(self, timeout=None, maxevents=-1):
        """Wait for events. See `select.epoll.poll`."""
        if timeout is not None:
            timeout = float(timeout)
            if timeout < 0:
                timeout = None
        if maxevents < -1 or maxevents == 0:
            raise ValueError(f"maxevents must be greater than 0, got {maxevents}")
        if self._waiter is None:
            self._waiter = _runtime.Fd(self._descriptors.fileno())
        return _events(self._waiter, self._descriptors, timeout, maxevents)

    def register(self, fd, eventmask=_original.EPOLLIN | _original.EPOLLPRI | _original.EPOLLOUT):
        """Add a descriptor. See `select.epoll.register`."""
        self._descriptors.register(fd, eventmask)

    def modify(self, fd, eventmask):
        """Change the events of a descriptor. See `select.epoll.modify`."""
        self._descriptors.modify(fd, eventmask)

    def unregister(self, fd):
        """Take a descriptor out. See `select.epoll.unregister`."""
        self._descriptors.unregister(fd)

    def fileno(self):
        """Give its own descriptor. See `select.epoll.fileno`."""
        return self._descriptors.fileno()

    @property
    def closed(self):
        """Whether it is closed."""
        return self._descriptors.closed

    def close(self):
        """Close it. See `select.epoll.close`."""
        if self._waiter is not None:
            self._waiter.close()
        self._descriptors.close()

    def __enter__(self):
        if self.closed:
            raise ValueError("I/O operation on closed epoll object")
        return self

    def __exit__(self, *_):
        self.close()


class _Poll:
    """An object that waits for descriptors. See `select.poll`."""

    # As for `epoll`.
    __class__ = property(lambda self: type(_original.poll()))

    # As that of the original, the type makes no instances.
    def __new__(cls, *_, **__):
        raise TypeError(f"cannot create '{cls.__module__}.{cls.__name__}' instances")

    @classmethod
    def _make(cls):
        """Make an object that waits for descriptors. See `select.poll`."""
        made = object.__new__(cls)
        made._masks = {}
        made._polling = False
        return made

    def register(self, fd, eventmask=_original.POLLIN | _original.POLLPRI | _original.POLLOUT, /):
        """Add a descriptor, or change its events. See `select.poll`."""
        number = _number(fd)
        self._masks[number] = _mask(eventmask)

    def modify(self, fd, eventmask, /):
        """Change the events of a descriptor. See `select.poll`."""
        number = _number(fd)
        mask = _mask(eventmask)
        if number not in self._masks:
            raise FileNotFoundError(_errno.ENOENT, _os.strerror(_errno.ENOENT))
        self._masks[number] = mask

    def unregister(self, fd, /):
        """Take a descriptor out. See `select.poll`."""
        del self._masks[_number(fd)]

    def poll(self, timeout=None, /):
        """Wait for events, `timeout` milliseconds at most. See `select.poll`."""
        if timeout is not None:
            timeout = float(timeout)
            if timeout > 2**31 - 1:
                raise OverflowError("timeout is too large")
        if self._polling:
            raise RuntimeError("concurrent poll() invocation")
        self._polling = True
        try:
            return _ready(self._masks, None if timeout is None or timeout < 0 else timeout / 1000)
        finally:
            self._polling = False


_Poll.__name__ = _Poll.__qualname__ = "poll"

# Bound, as a function would be once more where a class has it for an attribute (`selectors`).
poll = _Poll._make


def _mask(mask):
    if not 0 <= mask < 1 << 16:
        if mask < 0:
            raise ValueError("value must be positive")
        raise OverflowError("Python int too large for C unsigned short")
    return mask


_rebind.rebind(_original, globals(), replace={"epoll": epoll, "poll": poll, "select": select})
