"""`concurrent.futures` whose waits park only the goroutine, and `GoroutineExecutor`."""

from concurrent.futures import *

from offset.syscall.concurrent.futures._goroutine import GoroutineExecutor as GoroutineExecutor
