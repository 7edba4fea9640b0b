"""`concurrent.futures._base`: `Future`, `Executor`, `wait`, `as_completed`."""

import concurrent.futures._base as _original
import sys as _sys

from offset._errors import GoroutineExit as _GoroutineExit
from offset._errors import PanicError as _PanicError
from offset.syscall import _rebind


class _Logger:
    """The original's logger, which is not told of workers whose goroutine was cancelled: that is no failure."""

    def critical(self, *args, **kwargs):
        if not isinstance(_sys.exc_info()[1], _GoroutineExit):
            _original.LOGGER.critical(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(_original.LOGGER, name)


_copy = _rebind.rebind(_original, globals(), proxies=["threading", "time"], replace={"LOGGER": _Logger()})


@_rebind.method(_copy.Future, "set_exception")
def _set_exception(method, self, exception):
    if isinstance(exception, _GoroutineExit):
        # It ends the goroutine that called, and must not end those that ask for the result.
        panic = _PanicError("the goroutine of the call was ended before it gave a result")
        panic.__cause__ = exception
        method(self, panic)
        if exception is _sys.exc_info()[1]:
            raise exception
    else:
        method(self, exception)
