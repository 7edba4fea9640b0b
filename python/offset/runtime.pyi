"""The scheduler seen from a program, as Go's package `runtime`."""

from offset._dump import stack as stack
from offset._leaks import Leaks as Leaks
from offset._leaks import leaks as leaks
from offset._run import call_on_main as call_on_main
from offset._runtime import gomaxprocs as gomaxprocs
from offset._runtime import goroutines as goroutines
from offset._runtime import lock_os_thread as lock_os_thread
from offset._runtime import num_goroutine as num_goroutine
from offset._runtime import set_max_threads as set_max_threads
from offset._runtime import set_stack_size as set_stack_size
from offset._runtime import stats as stats
from offset._runtime import unlock_os_thread as unlock_os_thread

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
