"""Equal calls at the same time are one call, as Go's `golang.org/x/sync/singleflight`.

Invariant: a call is in `_flights` from before its function runs until it has ended, or until it is forgotten; under
`_lock`, which is held over nothing that waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from offset import _runtime
from offset._errors import Canceled, DeadlineExceeded, GoroutineExit

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import TracebackType

__all__ = ["Group"]

T = TypeVar("T")


class _Flight:
    __slots__ = ("error", "followers", "given_up", "landed", "trace", "value")

    def __init__(self) -> None:
        self.landed = _runtime.Note()
        self.followers = 0
        self.value: Any = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        # The caller who made the call was ended in it, which is nobody else's business.
        self.given_up = False


class Group(Generic[T]):
    """Calls by key (Go: singleflight.Group): while one is under way, equal ones wait for it and share what it gives."""

    __slots__ = ("__weakref__", "_flights", "_lock", "_made", "_shared")

    def __init__(self) -> None:
        self._lock = _runtime.StateMutex()
        self._flights: dict[Hashable, _Flight] = {}
        self._made = self._shared = 0

    def do(self, key: Hashable, fn: Callable[[], T], /) -> tuple[T, bool]:
        """Give what `fn()` returns, and whether others got it, too (Go: Group.Do).

        If a call for `key` is under way it is waited for instead, and what it returns or raises is returned or raised
        here. If its caller is cancelled, or its context ends, one of those who wait makes the call once more. Raises
        TypeError if `fn` cannot be called or `key` cannot be hashed.
        """
        if not callable(fn):
            raise TypeError(f"do() needs a function to call, not {type(fn).__name__}")
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight()
                    self._made += 1
                    break
                flight.followers += 1
                self._shared += 1
            flight.landed.wait()
            if flight.given_up:
                continue
            if flight.error is not None:
                raise flight.error.with_traceback(flight.trace)
            return flight.value, True
        return self._fly(key, flight, fn)

    def _fly(self, key: Hashable, flight: _Flight, fn: Callable[[], T]) -> tuple[T, bool]:
        try:
            flight.value = fn()
        except BaseException as error:
            flight.given_up = isinstance(error, GoroutineExit | KeyboardInterrupt | Canceled | DeadlineExceeded)
            flight.error = error
            # Without this frame, which has the flight.
            flight.trace = error.__traceback__ and error.__traceback__.tb_next
            raise
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                shared = flight.followers > 0
            flight.landed.set()
        return flight.value, shared

    def do_chan(self, key: Hashable, fn: Callable[[], T], /) -> _runtime.Chan[tuple[T, bool]]:
        """As `do`, in a goroutine: give a channel that receives the pair, or raises the error (Go: Group.DoChan)."""
        if not callable(fn):
            raise TypeError(f"do_chan() needs a function to call, not {type(fn).__name__}")
        hash(key)
        results: _runtime.Chan[tuple[T, bool]] = _runtime.Chan(1)

        def fly() -> None:
            try:
                results.send(self.do(key, fn))
            except Exception as error:
                results.send_exception(error)

        _runtime.go(fly).name = "singleflight"
        return results

    def forget(self, key: Hashable, /) -> None:
        """Let the next `do` for `key` make a call of its own, whatever is under way (Go: Group.Forget)."""
        with self._lock:
            self._flights.pop(key, None)

    def stats(self) -> dict[str, int]:
        """Give how many calls are under way, were made, and were saved as somebody waited for another's."""
        with self._lock:
            return {"under_way": len(self._flights), "made": self._made, "shared": self._shared}
