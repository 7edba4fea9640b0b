"""Calls that block: `blocking` and the decorator `syscall` run them in the blocking pool; waits for descriptors."""

from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, Protocol, TypeVar

from offset._runtime import blocking as blocking

__all__ = [
    "blocking",
    "syscall",
    "wait_readable",
    "wait_writable",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Seconds = float | timedelta

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

def syscall(fn: Callable[_P, _T], /) -> Callable[_P, _T]:
    """Make a function whose calls run in the blocking pool, as `blocking(fn, ...)`."""

def wait_readable(fd: int | _HasFileno, /, timeout: _Seconds | None = None) -> None:
    """Wait until a descriptor can be read from; raises TimeoutError after `timeout` seconds."""

def wait_writable(fd: int | _HasFileno, /, timeout: _Seconds | None = None) -> None:
    """Wait until a descriptor can be written to; raises TimeoutError after `timeout` seconds."""
