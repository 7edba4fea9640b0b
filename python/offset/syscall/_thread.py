"""`_thread` whose threads are goroutines and whose locks park only the goroutine: for who does without `threading`.

A thread that was started here and fails is reported as the original does, by `sys.unraisablehook`; the program goes
on.
"""

import _thread as _original
import sys as _sys
import traceback as _traceback
import types as _types

from offset import _runtime
from offset._errors import GoroutineExit as _GoroutineExit
from offset.syscall import _rebind
from offset.syscall import threading as _threading
from offset.syscall._main import on_main as _on_main
from offset.syscall._main import settle as _settle

# The goroutines of threads that were started here.
_threads = set()


def start_new_thread(function, args, kwargs=_types.MappingProxyType({}), /):
    """Start a thread, a goroutine, and give its identity. See `_thread.start_new_thread`."""
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if not isinstance(kwargs, dict | _types.MappingProxyType):
        raise TypeError("optional 3rd arg must be a dictionary")
    _sys.audit("_thread.start_new_thread", function, args, kwargs)
    begun = _runtime.Chan(1, "start_new_thread")
    goroutine = _runtime.go(_main, begun, function, args, kwargs)
    # Its identity is that of its stack, which it has from its first step to its last. It may be cancelled before.
    while True:
        try:
            return begun.recv(0.05)
        except TimeoutError:
            if goroutine.status == "dead" and not len(begun):
                raise RuntimeError("can't start new thread: its goroutine was cancelled") from None


def _main(begun, function, args, kwargs):
    # Here, as without the GIL it may be over before who started it goes on.
    _threads.add(_runtime.current())
    begun.send(_runtime.current().ident)
    try:
        function(*args, **kwargs)
    except (SystemExit, _GoroutineExit):
        pass
    except BaseException as error:
        _report(function, error)
    finally:
        _threads.discard(_runtime.current())


def _report(function, error):
    hook = _sys.unraisablehook
    message, what = "Exception ignored in thread started by", function
    if _sys.version_info >= (3, 13):
        message, what = f"{message} {function!r}", None
    if hook is not _sys.__unraisablehook__:
        # The original's arguments cannot be made in Python.
        hook(
            _types.SimpleNamespace(
                exc_type=type(error),
                exc_value=error,
                exc_traceback=error.__traceback__,
                err_msg=message,
                object=what,
            )
        )
    elif _sys.stderr is not None:
        head = f"{message}:" if what is None else f"{message}: {what!r}"
        _sys.stderr.write(f"{head}\n{''.join(_traceback.format_exception(error))}")
        _sys.stderr.flush()


def interrupt_main(*args):
    """Have the main thread handle a signal as if it had come. See `_thread.interrupt_main`."""
    _on_main(_original.interrupt_main, *args)
    _settle()


def _count():
    """Give the number of threads, goroutines that are threads among them. See `_thread._count`."""
    return _original._count() + len(_threads)


_rebind.rebind(
    _original,
    globals(),
    replace={
        "LockType": _runtime.Lock,
        "RLock": _runtime.RLock,
        "_count": _count,
        "allocate": _runtime.Lock,
        "allocate_lock": _runtime.Lock,
        "get_ident": _threading.get_ident,
        "interrupt_main": interrupt_main,
        "stack_size": _threading.stack_size,
        "start_new": start_new_thread,
        "start_new_thread": start_new_thread,
        **({"lock": _runtime.Lock} if hasattr(_original, "lock") else {}),
    },
)
