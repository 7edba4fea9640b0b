"""Calls that block: `blocking` and the decorator `syscall` run them in the blocking pool."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from offset._runtime import blocking as blocking

__all__ = [
    "blocking",
    "syscall",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

def syscall(fn: Callable[_P, _T], /) -> Callable[_P, _T]:
    """Make a function whose calls run in the blocking pool, as `blocking(fn, ...)`."""
