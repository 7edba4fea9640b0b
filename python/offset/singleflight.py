"""Equal calls at the same time are one call, as Go's `golang.org/x/sync/singleflight`.

Invariants, under `_lock`, which is held over nothing that waits: a call is in `_flights` from before its function runs
until it has ended, or until it is forgotten. One that was given up has a successor, which is there in its place if
anybody waited; the first of its heirs, or whoever comes by, makes that call, and it is gone once no heir is left. So
who waited and is late finds what the others got, and makes no call of its own.
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

# What ends a caller, and is no outcome of its call.
_ENDED = (GoroutineExit, KeyboardInterrupt, Canceled, DeadlineExceeded)


class _Flight:
    __slots__ = ("error", "followers", "heirs", "landed", "successor", "trace", "vacant", "value")

    def __init__(self, heirs: int = 0) -> None:
        self.landed = _runtime.Note()
        # Nobody makes the call yet; so many have been promised that somebody will.
        self.vacant = True
        self.heirs = heirs
        # So many wait for it.
        self.followers = 0
        self.successor: _Flight | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None


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
        flight: _Flight | None = None
        mine = False
        try:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight()
                mine = self._joins(flight)
                self._shared += not mine
            while not mine:
                flight.landed.wait()
                with self._lock:
                    if (successor := flight.successor) is None:
                        break
                    successor.heirs -= 1
                    flight, mine = successor, self._joins(successor)
                    self._shared -= mine
            if mine:
                flight.value = fn()
                return flight.value, self._land(key, flight)
        except BaseException as error:
            if flight is not None and not mine:
                self._leaves(key, flight)
            elif flight is not None and not flight.landed.is_set():
                flight.error = error
                # Without this frame, which has the flight.
                flight.trace = error.__traceback__ and error.__traceback__.tb_next
                # How its caller was ended is nobody else's business.
                self._land(
                    key, flight, isinstance(error, GoroutineExit | KeyboardInterrupt | Canceled | DeadlineExceeded)
                )
            raise
        if flight.error is not None:
            raise flight.error.with_traceback(flight.trace)
        return flight.value, True

    def _joins(self, flight: _Flight) -> bool:
        """Whether who comes, under the lock, is to make the call; else it is one more that waits."""
        if flight.vacant:
            flight.vacant = False
            self._made += 1
            return True
        flight.followers += 1
        return False

    def _leaves(self, key: Hashable, flight: _Flight) -> None:
        """One that waits is ended."""
        with self._lock:
            flight.followers -= 1
            while (successor := flight.successor) is not None:
                successor.heirs -= 1
                flight = successor
            if flight.vacant and not flight.heirs and self._flights.get(key) is flight:
                del self._flights[key]

    def _land(self, key: Hashable, flight: _Flight, given_up: bool = False) -> bool:
        """The call is over; whether others wait for it."""
        with self._lock:
            waiting = flight.followers + flight.heirs
            if given_up:
                flight.successor = _Flight(waiting)
            if self._flights.get(key) is flight:
                if flight.successor is not None and waiting:
                    self._flights[key] = flight.successor
                else:
                    del self._flights[key]
            flight.landed.set()
            return waiting > 0

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
            under_way = sum(not flight.vacant for flight in self._flights.values())
            return {"under_way": under_way, "made": self._made, "shared": self._shared}
