"""Go's concurrency model for Python: goroutines, channels, select and the scheduler under them.

A map of the package:

* this module: `go`, `run`, `Chan`, `select` and what belongs to them;
* `offset.time`: sleep, timers, tickers, the names of durations;
* `offset.sync`: locks, wait groups, `Once`, `Pool`, `Map`; `offset.sync.atomic` holds the atomic cells;
* `offset.context`: cancellation, deadlines and values for a tree of calls, and scopes that all obeys;
* `offset.errgroup`: groups of goroutines that end together; `offset.singleflight`: equal calls that are one;
  `offset.supervise`: goroutines that are started again;
* `offset.io`: pipes, copying, buffered readers and writers;
* `offset.net`: connections, listeners and packets, over TCP, UDP and Unix sockets, with TLS;
* `offset.os`: files, pipes and terminals; `offset.os.signal`: signals as values on channels;
* `offset.runtime`: what the scheduler does and how to steer it; `offset.debug`: a page that shows it;
* `offset.aio`: asyncio, both ways;
* `offset.testing`: tests of programs with goroutines: a clock that jumps, schedules from a seed, leak checks;
* `offset.syscall`: calls that block, run outside the scheduler, and the standard library's modules for goroutines.
* `offset.patch`: copies of libraries over those modules.
* `offset.wsgi`, `offset.asgi`: WSGI and ASGI applications over HTTP/1.1.

Durations are seconds everywhere, as `float` or `datetime.timedelta`. Every blocking call takes
`timeout=None` and raises `TimeoutError` when the time is over.

Inside: `_runtime` is the extension (the scheduler, and everything that can park a goroutine); `_run` runs a
main goroutine, `_failure` reports exceptions nobody caught, `_dump` formats stacks, `_outside` answers
`offset dump`, `_exit` ends goroutines, `_errand` is what the runtime's own run. Importing the package starts no
thread; the first `go` does.
"""

from offset import _errand, _exit, _failure, _outside
from offset import context as context
from offset import errgroup as errgroup
from offset import io as io
from offset import net as net
from offset import os as os
from offset import runtime as runtime
from offset import singleflight as singleflight
from offset import supervise as supervise
from offset import sync as sync
from offset import syscall as syscall
from offset import testing as testing
from offset import time as time
from offset._errors import ChannelClosed, ChannelError, DeadlockError, GoroutineExit, PanicError, WouldBlock
from offset._failure import excepthook
from offset._run import maintask, run
from offset._runtime import (
    Case,
    Chan,
    Goroutine,
    RecvChan,
    SendChan,
    current,
    default,
    go,
    gosched,
    nilchan,
    select,
    set_answer,
    set_errand,
    set_package,
    set_started_hook,
    set_uncaught,
    sleep,
)

__version__ = "0.1.0"

# Without the submodules: a star import must not shadow the standard library's `time`.
__all__ = [
    "Case",
    "Chan",
    "ChannelClosed",
    "ChannelError",
    "DeadlockError",
    "Goroutine",
    "GoroutineExit",
    "PanicError",
    "RecvChan",
    "SendChan",
    "WouldBlock",
    "current",
    "default",
    "excepthook",
    "go",
    "goexit",
    "gosched",
    "maintask",
    "makechan",
    "nilchan",
    "run",
    "select",
    "sleep",
]


def makechan(size=0, label=None):
    """Make a channel with room for `size` values, as Go's `make(chan T, size)`.

    The same as `Chan(size, label)`. Raises ValueError for a negative size and TypeError for one that is no
    integer.
    """
    return Chan(size, label)


def goexit():
    """End the calling goroutine, as Go's `runtime.Goexit`: its `finally` blocks run, nothing is reported.

    In the main goroutine of `run` the others go on; when they have ended, `run` raises DeadlockError.
    Raises RuntimeError outside a goroutine.
    """
    if current() is None:
        raise RuntimeError("goexit() was called outside a goroutine")
    raise GoroutineExit


set_uncaught(_failure.uncaught)
set_answer(_outside.answer)
set_errand(_errand.settle)
set_started_hook(_exit.started)
set_package(__file__.removesuffix("__init__.py"))

del set_answer, set_errand, set_package, set_started_hook, set_uncaught


def __getattr__(name: str) -> object:
    # What few programs need is imported when it is asked for.
    if name in ("aio", "asgi", "debug", "patch", "wsgi"):
        import importlib

        return importlib.import_module(f"offset.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
