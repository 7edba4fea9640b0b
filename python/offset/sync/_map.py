"""`Map`: a dictionary for many goroutines, with the combined steps that a plain one lacks.

Invariant: `_items` changes only under `_mutex`. Reading one key takes no lock: a dict does that in one
step. A value that is replaced is let go after the mutex: its finalizer may use the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from offset._runtime import StateMutex

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final[Any] = object()


class Map(Generic[K, V]):
    """A map that goroutines and threads share without a lock of their own, as Go's `sync.Map`.

    Keys are hashable.
    """

    __slots__ = ("__weakref__", "_items", "_mutex")

    def __init__(self) -> None:
        self._items: dict[K, V] = {}
        self._mutex = StateMutex()

    def load(self, key: K, /) -> tuple[V | None, bool]:
        """Give `(value, True)`, or `(None, False)` if the key is absent."""
        value = self._items.get(key, _ABSENT)
        return (None, False) if value is _ABSENT else (value, True)

    def store(self, key: K, value: V, /) -> None:
        """Set the value of a key."""
        with self._mutex:
            previous = self._items.get(key, _ABSENT)
            self._items[key] = value
        del previous

    def load_or_store(self, key: K, value: V, /) -> tuple[V, bool]:
        """Give `(present value, True)`, or store `value` and give `(value, False)` if the key is absent."""
        present = self._items.get(key, _ABSENT)
        if present is not _ABSENT:
            return present, True
        with self._mutex:
            present = self._items.get(key, _ABSENT)
            if present is not _ABSENT:
                return present, True
            self._items[key] = value
        return value, False

    def load_and_delete(self, key: K, /) -> tuple[V | None, bool]:
        """Delete a key and give `(its value, True)`, or `(None, False)` if it is absent."""
        with self._mutex:
            # Not `pop`: an empty dict's lets a key pass that cannot be hashed.
            value = self._items.get(key, _ABSENT)
            if value is not _ABSENT:
                del self._items[key]
        return (None, False) if value is _ABSENT else (value, True)

    def delete(self, key: K, /) -> None:
        """Delete a key; nothing happens if it is absent."""
        self.load_and_delete(key)

    def swap(self, key: K, value: V, /) -> tuple[V | None, bool]:
        """Set the value of a key and give `(the value before, True)`, or `(None, False)` if it was absent."""
        with self._mutex:
            previous = self._items.get(key, _ABSENT)
            self._items[key] = value
        return (None, False) if previous is _ABSENT else (previous, True)

    def compare_and_swap(self, key: K, old: V, new: V, /) -> bool:
        """Set the value of a key to `new` if it is present and equal to `old`; tell whether that happened."""
        with self._mutex:
            previous = self._items.get(key, _ABSENT)
            if not _equal(previous, old):
                return False
            self._items[key] = new
        return True

    def compare_and_delete(self, key: K, old: V, /) -> bool:
        """Delete a key if it is present and its value equal to `old`; tell whether that happened."""
        with self._mutex:
            value = self._items.get(key, _ABSENT)
            if not _equal(value, old):
                return False
            del self._items[key]
        return True

    def range(self, fn: Callable[[K, V], object], /) -> None:
        """Call `fn(key, value)` for every key, until it gives False.

        The keys are those that are there at the beginning; one that is deleted meanwhile is left out, and
        the value is the one of the moment. `fn` may use the map.
        """
        with self._mutex:
            keys = list(self._items)
        for key in keys:
            value = self._items.get(key, _ABSENT)
            if value is not _ABSENT and fn(key, value) is False:
                return

    def clear(self) -> None:
        """Delete every key."""
        with self._mutex:
            dropped, self._items = self._items, {}
        del dropped

    def stats(self) -> dict[str, Any]:
        """Give `size`: how many keys there are."""
        return {"size": len(self._items)}


def _equal(value: object, old: object) -> bool:
    return value is not _ABSENT and (value is old or bool(value == old))
