"""The scheduler seen from a program, as Go's package `runtime`: what it does, and how to steer it.

`trace` records what goroutines do; the block and mutex profiles say where they wait.
"""

from offset._dump import stack
from offset._leaks import Leaks, leaks
from offset._run import call_on_main
from offset._runtime import (
    gomaxprocs,
    goroutines,
    lock_os_thread,
    num_goroutine,
    set_block_profile_rate,
    set_max_threads,
    set_mutex_profile_fraction,
    set_stack_size,
    stats,
    unlock_os_thread,
)
from offset.runtime import trace as trace
from offset.runtime._profile import block_profile, mutex_profile

__all__ = [
    "Leaks",
    "block_profile",
    "call_on_main",
    "gomaxprocs",
    "goroutines",
    "leaks",
    "lock_os_thread",
    "mutex_profile",
    "num_goroutine",
    "set_block_profile_rate",
    "set_max_threads",
    "set_mutex_profile_fraction",
    "set_stack_size",
    "stack",
    "stats",
    "unlock_os_thread",
]
