"""`concurrent.futures.thread`: `ThreadPoolExecutor`, whose workers are goroutines.

Invariant: the workers of a pool that goes on are in its `_threads`. Those that were cancelled, as all are at the end of
a `run`, have left it, so that the pool can be used in the next one.
"""

import concurrent.futures.thread as _original
import contextlib as _contextlib
import os as _os
import threading as _threading
import weakref as _weakref

from offset.syscall import _rebind
from offset.syscall.threading import Lock as _Lock
from offset.syscall.threading import current_thread as _current_thread

_copy = _rebind.rebind(
    _original,
    globals(),
    proxies=["threading", "queue", "concurrent.futures._base"],
    replace={"_global_shutdown_lock": _Lock(), "_shutdown": False, "_threads_queues": _weakref.WeakKeyDictionary()},
)

# As the original does for itself. It is too late when the interpreter is ending.
with _contextlib.suppress(RuntimeError):
    _threading._register_atexit(_copy._python_exit)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(
        before=_copy._global_shutdown_lock.acquire,
        after_in_child=_copy._global_shutdown_lock._at_fork_reinit,
        after_in_parent=_copy._global_shutdown_lock.release,
    )
    _os.register_at_fork(after_in_child=_copy._threads_queues.clear)

_plain_worker = _copy._worker


def _worker(executor_reference, *args):
    _plain_worker(executor_reference, *args)
    executor = executor_reference()
    if executor is not None and not executor._shutdown and not executor._broken:
        executor._threads.discard(_current_thread())
        # It may be counted as idle. One too few is harmless: who is idle looks at the queue, whatever the count.
        executor._idle_semaphore.acquire(blocking=False)
