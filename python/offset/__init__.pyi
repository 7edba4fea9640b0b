"""Go's concurrency model for Python: goroutines, channels, select and the scheduler under them."""

from collections.abc import Callable
from typing import Any, NoReturn

from offset import aio as aio
from offset import asgi as asgi
from offset import context as context
from offset import debug as debug
from offset import errgroup as errgroup
from offset import io as io
from offset import net as net
from offset import os as os
from offset import patch as patch
from offset import runtime as runtime
from offset import singleflight as singleflight
from offset import supervise as supervise
from offset import sync as sync
from offset import syscall as syscall
from offset import testing as testing
from offset import time as time
from offset import wsgi as wsgi
from offset._errors import ChannelClosed as ChannelClosed
from offset._errors import ChannelError as ChannelError
from offset._errors import DeadlockError as DeadlockError
from offset._errors import GoroutineExit as GoroutineExit
from offset._errors import PanicError as PanicError
from offset._errors import WouldBlock as WouldBlock
from offset._run import maintask as maintask
from offset._run import run as run
from offset._runtime import Case as Case
from offset._runtime import Chan as Chan
from offset._runtime import Goroutine as Goroutine
from offset._runtime import RecvChan as RecvChan
from offset._runtime import SendChan as SendChan
from offset._runtime import current as current
from offset._runtime import default as default
from offset._runtime import go as go
from offset._runtime import gosched as gosched
from offset._runtime import nilchan as nilchan
from offset._runtime import select as select
from offset._runtime import sleep as sleep

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

__version__: str

excepthook: Callable[[Goroutine, BaseException], object]
"""Reports an exception that left a goroutine; may be replaced."""

def makechan(size: int = 0, label: str | None = None) -> Chan[Any]:
    """Make a channel with room for `size` values, as Go's `make(chan T, size)`."""

def goexit() -> NoReturn:
    """End the calling goroutine, as Go's `runtime.Goexit`. Raises RuntimeError outside a goroutine."""
