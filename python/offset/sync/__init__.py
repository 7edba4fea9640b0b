"""Locks and other meeting points, as Go's package `sync`, for goroutines and OS threads alike.

`Mutex`, `RWMutex`, `WaitGroup`, `Cond` and `Semaphore` are handed on in order of arrival.
`offset.sync.atomic` holds the atomic cells.
"""

from offset._runtime import Cond, Mutex, RWMutex, Semaphore, WaitGroup
from offset.sync import atomic
from offset.sync._map import Map
from offset.sync._once import Once, once_func, once_value
from offset.sync._pool import Pool

__all__ = [
    "Cond",
    "Map",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "Semaphore",
    "WaitGroup",
    "atomic",
    "once_func",
    "once_value",
]
