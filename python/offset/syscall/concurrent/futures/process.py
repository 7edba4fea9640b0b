"""`concurrent.futures.process`: `ProcessPoolExecutor`, whose futures park only the goroutine that waits for them.

Everything but the executor itself is the original's: its manager is a real thread, which waits for processes, and what
goes to and fro between them is pickled by its name.
"""

import concurrent.futures.process as _original

from offset import _runtime
from offset.syscall import _rebind

_copy = _rebind.rebind(
    _original,
    globals(),
    proxies=["concurrent.futures._base"],
    keep=[name for name, value in vars(_original).items() if callable(value) and name != "ProcessPoolExecutor"],
)


@_rebind.method(_copy.ProcessPoolExecutor, "submit")
def _submit(method, *args, **kwargs):
    _copy._global_shutdown = _original._global_shutdown
    return method(*args, **kwargs)


@_rebind.method(_copy.ProcessPoolExecutor, "shutdown")
def _shutdown(method, *args, **kwargs):
    # It joins the manager.
    if _runtime.current() is None:
        method(*args, **kwargs)
    else:
        _runtime.blocking(method, *args, **kwargs)
