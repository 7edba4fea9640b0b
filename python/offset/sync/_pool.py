"""`Pool`: objects that are kept for reuse until the garbage collector needs the room.

As in Go an object that was not taken during two full collections is dropped: a collection moves what is in
the pool to `_victims`, and drops what was there. The collector calls `_collected` through `gc.callbacks`,
which is registered with the first pool. `append` and `pop` of a deque are atomic, so no lock is needed, and
none may be taken inside the collector.
"""

from __future__ import annotations

import gc
import sysconfig
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Weak references by the identity of their pools. A plain dict, as it is copied in one step.
_pools: dict[int, weakref.ref[Pool[Any]]] = {}

# The generations whose collection is a full one. Without the GIL there is one generation, whatever the collector says.
_FULL_COLLECTIONS = {0, 1, 2} if sysconfig.get_config_var("Py_GIL_DISABLED") else {2}

# Holds something once `_collected` is registered. A dict because `setdefault` claims the place in one step.
_registration: dict[str, object] = {}


class Pool(Generic[T]):
    """Objects for reuse, as Go's `sync.Pool`. They may be dropped at any full garbage collection."""

    __slots__ = ("__weakref__", "_fresh", "_victims", "new")

    @overload
    def __init__(self, new: Callable[[], T]) -> None: ...

    @overload
    def __init__(self: Pool[T | None], new: None = None) -> None: ...

    def __init__(self, new: Callable[[], Any] | None = None) -> None:
        self.new = new
        self._fresh: deque[T] = deque()
        self._victims: deque[T] = deque()
        identity = id(self)
        _pools[identity] = weakref.ref(self, lambda _: _pools.pop(identity, None))
        claim = object()
        if _registration.setdefault("claim", claim) is claim:
            gc.callbacks.append(_collected)

    def get(self) -> T:
        """Take an object out of the pool. If there is none give `new()`, or None without `new`."""
        for kept in (self._fresh, self._victims):
            try:
                return kept.pop()
            except IndexError:
                pass
        return None if self.new is None else self.new()  # type: ignore[return-value]

    def put(self, value: T | None, /) -> None:
        """Give an object to the pool. None is ignored."""
        if value is not None:
            self._fresh.append(value)

    def stats(self) -> dict[str, Any]:
        """Give `kept`: how many objects are in the pool."""
        return {"kept": len(self._fresh) + len(self._victims)}


def _collected(phase: str, info: dict[str, int]) -> None:
    if phase != "stop" or info.get("generation") not in _FULL_COLLECTIONS:
        return
    for reference in list(_pools.values()):
        pool = reference()
        if pool is not None:
            pool._victims = pool._fresh
            pool._fresh = deque()
