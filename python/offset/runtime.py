"""The scheduler seen from a program, as Go's package `runtime`: what it does, and how to steer it."""

from offset._dump import stack
from offset._leaks import Leaks, leaks
from offset._run import call_on_main
from offset._runtime import (
    gomaxprocs,
    goroutines,
    lock_os_thread,
    num_goroutine,
    set_max_threads,
    set_stack_size,
    stats,
    unlock_os_thread,
)

__all__ = [
    "Leaks",
    "call_on_main",
    "gomaxprocs",
    "goroutines",
    "leaks",
    "lock_os_thread",
    "num_goroutine",
    "set_max_threads",
    "set_stack_size",
    "stack",
    "stats",
    "unlock_os_thread",
]
