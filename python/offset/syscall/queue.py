"""`queue` whose calls that wait park only the goroutine that does.

A rebound copy (see `_rebind`) of the interpreter's own `queue` over `offset.syscall.threading`. `SimpleQueue`, which
the original has in C, is a channel here: as there, `put` may be called at any moment, by a finalizer in the
middle of another `put`, too.
"""

import queue as _original

from offset import _runtime
from offset._errors import DeadlineExceeded as _DeadlineExceeded
from offset._errors import WouldBlock as _WouldBlock
from offset.syscall import _rebind

_copy = _rebind.rebind(_original, globals(), proxies=["threading"])
_Empty = _original.Empty


# What the original keeps is not used: it is the base for the sake of isinstance.
class SimpleQueue(_original.SimpleQueue):
    __doc__ = _original.SimpleQueue.__doc__

    def __init__(self):
        self._values = _runtime.unbounded()

    def put(self, item, block=True, timeout=None):
        """Put an item into the queue. Never waits; the other arguments are those of `Queue.put`."""
        self._values.try_send(item)

    def put_nowait(self, item):
        """Put an item into the queue."""
        self._values.try_send(item)

    def get(self, block=True, timeout=None):
        """Take the oldest item out of the queue; wait for one, if `block` is true, for at most `timeout` seconds.

        Raises Empty if there is none in that time.
        """
        if not block:
            return self.get_nowait()
        if timeout is None:
            return self._values.recv()
        if not 0 <= timeout <= _copy.threading.TIMEOUT_MAX:
            # Refused, in the original's words.
            super().get(timeout=timeout)
        try:
            return self._values.recv(timeout)
        except _DeadlineExceeded:
            raise
        except TimeoutError:
            raise _Empty from None

    def get_nowait(self):
        """Take the oldest item out of the queue. Raises Empty if there is none."""
        try:
            return self._values.try_recv()[0]
        except _WouldBlock:
            raise _Empty from None

    def empty(self):
        """Tell whether there is nothing in the queue at the moment."""
        return not len(self._values)

    def qsize(self):
        """Give the number of items in the queue at the moment."""
        return len(self._values)
