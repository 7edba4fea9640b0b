"""The scheduler seen from a program, as Go's package `runtime`."""

from offset._dump import stack as stack
from offset._leaks import Leaks as Leaks
from offset._leaks import leaks as leaks
from offset._run import call_on_main as call_on_main
from offset._runtime import gomaxprocs as gomaxprocs
from offset._runtime import goroutines as goroutines
from offset._runtime import lock_os_thread as lock_os_thread
from offset._runtime import num_goroutine as num_goroutine
from offset._runtime import set_block_profile_rate as set_block_profile_rate
from offset._runtime import set_max_threads as set_max_threads
from offset._runtime import set_mutex_profile_fraction as set_mutex_profile_fraction
from offset._runtime import set_stack_size as set_stack_size
from offset._runtime import stats as stats
from offset._runtime import unlock_os_thread as unlock_os_thread
from offset.runtime import trace as trace
from offset.runtime._profile import block_profile as block_profile
from offset.runtime._profile import mutex_profile as mutex_profile

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
