"""Things that are done once: `Once`, `once_func`, `once_value`.

Invariant: `_done` is set after the function has ended, in whatever way, and under the mutex; whoever sees
it set sees everything the function did.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from offset._errors import GoroutineExit, PanicError
from offset._runtime import Mutex

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")


class Once:
    """Runs a function once, as Go's `sync.Once`."""

    __slots__ = ("__weakref__", "_done", "_mutex")

    def __init__(self) -> None:
        self._done = False
        self._mutex = Mutex()

    def do(self, fn: Callable[[], object], /) -> None:
        """Call `fn()` if this is the first call of `do`; otherwise wait until the first has ended.

        An exception that `fn` raises goes to the first caller and counts as done. A `do` inside `fn` waits
        for ever.
        """
        if self._done:
            return
        with self._mutex:
            if self._done:
                return
            try:
                fn()
            finally:
                self._done = True

    def stats(self) -> dict[str, Any]:
        """Give `done`: whether the function has ended."""
        return {"done": self._done}


class _Result(Generic[T]):
    """What `once_value` keeps: the function until it was called, then its value or its error."""

    __slots__ = ("__weakref__", "error", "fn", "once", "trace", "value")

    def __init__(self, fn: Callable[[], T]) -> None:
        self.fn: Callable[[], T] | None = fn
        self.once = Once()
        self.value: T | None = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None

    def run(self) -> None:
        fn, self.fn = self.fn, None
        assert fn is not None
        name = getattr(fn, "__qualname__", repr(fn))
        self.error = PanicError(f"{name}, which is called only once, was ended before it gave a result")
        try:
            self.value = fn()
        except GoroutineExit:
            # It ends this goroutine, and must not end those that ask later.
            raise
        except BaseException as exc:
            self.error = exc
            self.trace = exc.__traceback__
        else:
            self.error = None

    def get(self) -> T:
        self.once.do(self.run)
        error = self.error
        if error is not None:
            try:
                # Each time with the traceback of the one call, or it would grow with every caller.
                raise error.with_traceback(self.trace)
            finally:
                del error
        return self.value  # type: ignore[return-value]


def once_func(fn: Callable[[], object], /) -> Callable[[], None]:
    """Make a function that calls `fn()` the first time, and never again, as Go's `sync.OnceFunc`.

    If `fn` raises, every call raises the same exception. If `fn` was ended by GoroutineExit, later calls
    raise PanicError.
    """
    result = _make(fn, "once_func")

    @_named_after(fn)
    def call() -> None:
        result.get()

    return call


def once_value(fn: Callable[[], T], /) -> Callable[[], T]:
    """Make a function that gives the value of the one call of `fn()`, as Go's `sync.OnceValue`.

    If `fn` raises, every call raises the same exception. If `fn` was ended by GoroutineExit, later calls
    raise PanicError.
    """
    result = _make(fn, "once_value")

    @_named_after(fn)
    def call() -> T:
        return result.get()

    return call


def _make(fn: Callable[[], T], name: str) -> _Result[T]:
    if not callable(fn):
        raise TypeError(f"{name} needs something callable, not {type(fn).__name__}")
    return _Result(fn)


def _named_after(fn: Callable[[], Any]) -> Callable[[Callable[[], T]], Callable[[], T]]:
    def name(call: Callable[[], T]) -> Callable[[], T]:
        functools.update_wrapper(call, fn)
        # The function and what it holds are let go once it was called, as in Go.
        vars(call).pop("__wrapped__", None)
        return call

    return name
