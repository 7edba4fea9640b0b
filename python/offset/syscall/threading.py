"""`threading` in which a thread is a goroutine and whatever waits parks only the goroutine that does.

A rebound copy (see `_rebind`) of the interpreter's own `threading` on other foundations: `Lock` and `RLock` are
offset's, and the start of a thread starts a goroutine. The register of threads is shared with the original, so
that each module's `current_thread`, `enumerate` and `active_count` know the threads of both. Everything works outside
goroutines, too, and between goroutines and OS threads.

Invariants:

* Of the original's objects the copy shares `_active`, `_limbo`, `_dangling` and the numbers of new names; the lock
  of the register is looked up there at each use, as a forked child gets a new one.
* Whoever waits for a thread waits for its `_ThreadHandle`: its `_handle`, or, up to 3.12, its `_tstate_lock`. It is
  done when the last step of the goroutine begins, whatever ended it.
* `_waited` holds the living threads that are no daemons; the interpreter's exit waits for them.
* The main goroutine of a run on the main thread is the main thread, which has its identity while it lives. That
  object is the original's in the shape of this module's class: they share their state.
"""

import contextlib as _contextlib
import contextvars as _contextvars
import functools as _functools
import sys as _sys
import threading as _original

from offset import _runtime
from offset._errors import GoroutineExit as _GoroutineExit
from offset.syscall import _rebind
from offset.syscall._main import is_main_thread as _is_main_thread
from offset.syscall._main import main_goroutine as _main_goroutine

# How often a starter looks whether its goroutine, which may be cancelled before it begins, is there at all.
_GLANCE = 0.05

_Lock = _runtime.Lock

_waited = set()


# ---- what is not the original's --------------------------------------------------------------


def get_ident():
    """Give the identity of the calling goroutine or thread, a nonzero integer."""
    goroutine = _runtime.current()
    if goroutine is not None:
        return goroutine.ident
    ident = _original.get_ident()
    return _main_ident() if ident == _original.main_thread().ident else ident


def _main_ident():
    goroutine = _main_goroutine()
    return _original.main_thread().ident if goroutine is None else goroutine.ident


def main_thread():
    """Give the main thread: in a goroutine that of the program. See `threading.main_thread`."""
    return _in_shape(_original.main_thread())


def current_thread():
    """Give the calling thread; the main goroutine is the main thread. See `threading.current_thread`."""
    if _is_main_thread():
        return main_thread()
    thread = _copy._active.get(get_ident())
    return _copy._DummyThread() if thread is None else thread


def enumerate():
    """Give the living threads, goroutines among them. See `threading.enumerate`."""
    return [_in_shape(thread) for thread in _original.enumerate()]


# The original's main thread, of which a fork in a thread makes another one, and what it is here.
_shapes = {}


def _in_shape(thread):
    """Give a thread; for the original's main thread an object of this module's class with the same state."""
    if thread is not _original.main_thread() or isinstance(thread, _copy.Thread):
        return thread
    shape = _shapes.get(thread)
    if shape is None:
        shape = _copy._MainThread.__new__(_copy._MainThread)
        shape.__dict__ = vars(thread)
        shape = _shapes.setdefault(thread, shape)
    return shape


def excepthook(args, /):
    """Handle an exception that left a thread, as `threading.excepthook` does, whatever it is at the moment."""
    hook = _original.excepthook
    (_original.__excepthook__ if hook is excepthook else hook)(args)


@_functools.cache
def _own_stack_size():
    size = _runtime.set_stack_size(1 << 20)
    _runtime.set_stack_size(size)
    return size


def stack_size(*size):
    """Set the size of the C stacks of new threads and give the one before, as `threading.stack_size`.

    Those of goroutines made from now on are at least as large; they are never smaller than offset's own choice.
    """
    own = _own_stack_size()
    previous = _original.stack_size(*size)
    _runtime.set_stack_size(max(own, *size, 0))
    return previous


class _Register:
    """The lock of the original's register of threads."""

    def __enter__(self):
        return _original._active_limbo_lock.__enter__()

    def __exit__(self, *args):
        _original._active_limbo_lock.__exit__(*args)


class _ThreadHandle:
    """What a thread that was started is waited for by."""

    __slots__ = ("_note", "ident")

    def __init__(self):
        self._note = _runtime.Note()
        self.ident = None

    def is_done(self):
        return self._note.is_set()

    def join(self, timeout=None):
        if timeout is not None and not 0 <= timeout <= _original.TIMEOUT_MAX:
            # Refused, in the original's words.
            _Lock().acquire(timeout=timeout)
        return self._note.wait(timeout)

    def _set_done(self):
        self._note.set()

    def _after_fork(self, alive):
        # Those in the queue of the old note are not there any more.
        self._note = _runtime.Note()
        if not alive and self.ident is not None:
            self._note.set()

    # What is called of a `_tstate_lock` when a thread starts, and after a fork in it.

    def acquire(self):
        pass

    def locked(self):
        return not self.is_done()

    def _at_fork_reinit(self):
        self._after_fork(True)


class _NoLocks:
    """In place of the locks that `threading._shutdown` waits for, up to 3.12; see `_waited`."""

    def add(self, lock):
        pass


def _start_goroutine(thread, bootstrap):
    if not thread.daemon:
        _wait_at_exit()
        _waited.add(thread)
    goroutine = _runtime.go(_main, thread, bootstrap)
    goroutine.name = thread.name
    while not thread._started.wait(_GLANCE):
        if goroutine.status == "dead" and not thread._started.is_set():
            _waited.discard(thread)
            raise RuntimeError("can't start new thread: its goroutine was cancelled")


def _main(thread, bootstrap):
    """Be the thread: the function of its goroutine."""
    _runtime.current().name = thread.name
    handle = _handle_of(thread)
    if handle is not None:
        handle.ident = get_ident()
    try:
        if hasattr(thread, "_context"):
            bootstrap()
        else:
            # A thread begins with an empty context, unlike a goroutine.
            _contextvars.Context().run(bootstrap)
    finally:
        if thread._started.is_set():
            # It was cancelled, perhaps, at a step where the original expects nothing.
            with _copy._active_limbo_lock:
                _copy._limbo.pop(thread, None)
            thread._delete()
        _waited.discard(thread)
        handle = _handle_of(thread)
        if handle is not None:
            handle._set_done()


def _handle_of(thread):
    for name in ("_os_thread_handle", "_handle", "_tstate_lock"):
        handle = vars(thread).get(name)
        if isinstance(handle, _ThreadHandle):
            return handle
    return None


def _start_joinable_thread(function, handle=None, daemon=True):
    _start_goroutine(function.__self__, function)
    return handle


def _start_new_thread(function, args):
    _start_goroutine(function.__self__, function)


@_functools.cache
def _wait_at_exit():
    # The first is called last: the others tell the workers of pools to end.
    _original._threading_atexits.insert(0, _join_waited)


def _join_waited():
    while True:
        # A process of `multiprocessing` that was forked in a thread calls this in that thread.
        others = [thread for thread in list(_waited) if thread is not _copy.current_thread()]
        if not others:
            return
        for thread in others:
            thread.join()
            _waited.discard(thread)


# ---- the copy --------------------------------------------------------------------------------


def _there(names):
    """What of `names` this version's `threading` has."""
    return {name: value for name, value in names.items() if hasattr(_original, name)}


_copy = _rebind.rebind(
    _original,
    globals(),
    replace={
        "_CRLock": _runtime.RLock,
        "_active_limbo_lock": _Register(),
        "_allocate_lock": _Lock,
        # `go` applies both.
        "_profile_hook": None,
        "_trace_hook": None,
        "Lock": _Lock,
        "__excepthook__": excepthook,
        "current_thread": current_thread,
        "enumerate": enumerate,
        "excepthook": excepthook,
        "get_ident": get_ident,
        "main_thread": main_thread,
        "stack_size": stack_size,
        **_there(
            {
                "_LockType": _Lock,
                "_ThreadHandle": _ThreadHandle,
                "_maintain_shutdown_locks": lambda: None,
                # The name of the OS thread, which is not the goroutine's.
                "_set_name": None,
                "_set_sentinel": _ThreadHandle,
                "_shutdown_locks": _NoLocks(),
                "_shutdown_locks_lock": _contextlib.nullcontext(),
                "_start_joinable_thread": _start_joinable_thread,
                "_start_new_thread": _start_new_thread,
            }
        ),
    },
    # They serve the shared register, the interpreter, or what `go` looks at.
    keep=_there(
        dict.fromkeys(
            (
                "_after_fork",
                "_enumerate",
                "_register_atexit",
                "_shutdown",
                "activeCount",
                "active_count",
                "getprofile",
                "gettrace",
                "setprofile",
                "setprofile_all_threads",
                "settrace",
                "settrace_all_threads",
            )
        )
    ),
)


# Now, so that it is no object of whoever asks first.
main_thread()


# ---- what is changed in the copy -------------------------------------------------------------


def _ident_of(self):
    """What the original has in `Thread.ident`; the main thread has that of the main goroutine."""
    return _main_ident() if self is main_thread() else self._ident


_copy._MainThread.ident = property(_ident_of)


@_rebind.method(_copy.Thread, "__init__")
def _thread_init(method, self, *args, **kwargs):
    if kwargs.get("daemon") is None and _runtime.current() is not None:
        current = main_thread() if _is_main_thread() else _copy._active.get(get_ident())
        if current is None or isinstance(current, _original._DummyThread):
            # A goroutine that is no thread of this module is no daemon.
            kwargs["daemon"] = False
    method(self, *args, **kwargs)


@_rebind.method(_copy.Thread, "_delete")
def _thread_delete(method, self):
    with _copy._active_limbo_lock:
        if _copy._active.get(self._ident) is self:
            del _copy._active[self._ident]


if hasattr(_original.Thread, "_wait_for_tstate_lock"):

    @_rebind.method(_copy.Thread, "_wait_for_tstate_lock")
    def _thread_wait(method, self, block=True, timeout=-1):
        handle = _handle_of(self)
        if handle is None:
            method(self, block, timeout)
        elif handle.is_done() if not block else handle.join(None if timeout == -1 else timeout):
            self._stop()


if hasattr(_original.Thread, "_after_fork"):

    @_rebind.method(_copy.Thread, "_after_fork")
    def _thread_after_fork(method, self, new_ident=None):
        handle = _handle_of(self)
        if handle is not None:
            handle._after_fork(new_ident is not None)
        method(self, new_ident)


if not hasattr(_original, "_DeleteDummyThreadOnDel"):
    _here = _original.local()

    class _Leaving:
        """Takes the dummy of a goroutine out of the register with its thread-locals; that of a thread stays."""

        def __init__(self, thread):
            self.thread = thread

        def __del__(self):
            self.thread._delete()

    @_rebind.method(_copy._DummyThread, "__init__")
    def _dummy_init(method, self):
        method(self)
        if _runtime.current() is not None:
            _here.leaving = _Leaving(self)


_make_plain_excepthook = _copy._make_invoke_excepthook


def _make_invoke_excepthook():
    plain = _make_plain_excepthook()

    def invoke_excepthook(thread):
        # The end of a goroutine that was cancelled, or called `goexit`, is no failure.
        if not isinstance(_sys.exc_info()[1], _GoroutineExit):
            plain(thread)

    return invoke_excepthook
