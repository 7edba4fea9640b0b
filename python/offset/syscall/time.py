"""`time` whose `sleep` parks only the goroutine that sleeps. Everything else is the original's."""

import errno as _errno
import operator as _operator
import sys as _sys
import time as _original

from offset import _runtime
from offset.syscall import _rebind

# From here on the original says that it is too much.
_TOO_LONG = 2**63 / 10**9


def sleep(seconds, /):
    """Sleep for `seconds`, an integer or a float: in a goroutine only it waits. `sleep(0)` lets others run.

    Raises ValueError for a negative number.
    """
    if _runtime.current() is None:
        _original.sleep(seconds)
        return
    exact = type(seconds) is float or type(seconds) is int
    number = seconds if exact or isinstance(seconds, float) else _whole(seconds)
    if number is None or not 0 <= number < _TOO_LONG:
        # Refused, in the original's words.
        _original.sleep(seconds)
        return
    if _sys.version_info >= (3, 13):
        _sys.audit("time.sleep", seconds)
    if number:
        _runtime.sleep(number)
    else:
        _runtime.gosched()


def _whole(number):
    try:
        return _operator.index(number)
    except TypeError:
        return None


def _pthread_getcpuclockid(thread_id):
    """Give the CPU clock of a thread, as `time.pthread_getcpuclockid`. A goroutine has none: ProcessLookupError."""
    if any(goroutine.ident == thread_id for goroutine in _runtime.all_goroutines()):
        raise ProcessLookupError(_errno.ESRCH, "a goroutine has no CPU clock of its own")
    return _original.pthread_getcpuclockid(thread_id)


_replaced = {"sleep": sleep}
if hasattr(_original, "pthread_getcpuclockid"):
    _replaced["pthread_getcpuclockid"] = _pthread_getcpuclockid

_rebind.rebind(_original, globals(), replace=_replaced)

__all__ = [name for name in vars(_original) if not name.startswith("_")]

# `tzset` changes them.
for _name in ("altzone", "daylight", "timezone", "tzname"):
    globals().pop(_name, None)
del _name


def __getattr__(name):
    if name in __all__:
        return getattr(_original, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
