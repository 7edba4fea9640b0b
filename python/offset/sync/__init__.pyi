"""Locks and other meeting points, as Go's package `sync`, for goroutines and OS threads alike."""

from offset._runtime import Cond as Cond
from offset._runtime import Mutex as Mutex
from offset._runtime import RWMutex as RWMutex
from offset._runtime import Semaphore as Semaphore
from offset._runtime import WaitGroup as WaitGroup
from offset.sync import atomic as atomic
from offset.sync._map import Map as Map
from offset.sync._once import Once as Once
from offset.sync._once import once_func as once_func
from offset.sync._once import once_value as once_value
from offset.sync._pool import Pool as Pool

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
