"""`signal` in which the main goroutine is the main thread: it may set handlers, and what they raise is raised in it.

Handlers run on the main thread, which waits in `run`, so they run at once, whatever the goroutines do. The main
goroutine does there what the interpreter allows only there, and what is to have run the handler when it returns. What
`run` itself has put in the place of the default handlers is not shown, and the defaults stand for it.
"""

import os as _os
import signal as _original

from offset import _failure, _run, _runtime
from offset.syscall import _rebind
from offset.syscall._main import on_main as _on_main
from offset.syscall._main import settle as _settle


def _shown(signalnum, handler):
    """Give what the user set, or found, for the handler that there is."""
    for number, default, ours in _run.HANDLERS:
        if number == signalnum and handler is ours:
            return default
    return handler


def _meant(signalnum, handler):
    """Give the handler for what the user sets."""
    run = _failure.active()
    if run is not None and run.on_main_thread:
        for number, default, ours in _run.HANDLERS:
            if number == signalnum and number in run.replaced and handler == default:
                return ours
    return handler


def signal(signalnum, handler):
    """Set the handler of a signal and give the one before. See `signal.signal`."""
    return _shown(signalnum, _on_main(_original.signal, signalnum, _meant(signalnum, handler)))


def getsignal(signalnum):
    """Give the handler of a signal. See `signal.getsignal`."""
    return _shown(signalnum, _original.getsignal(signalnum))


def set_wakeup_fd(fd, /, **kwargs):
    """Have the number of each signal written to a descriptor. See `signal.set_wakeup_fd`."""
    return _on_main(_original.set_wakeup_fd, fd, **kwargs)


def raise_signal(signalnum, /):
    """Send a signal to the caller. See `signal.raise_signal`."""
    _on_main(_original.raise_signal, signalnum)
    _settle()


def pthread_kill(thread_id, signalnum, /):
    """Send a signal to a thread; a goroutine's goes to the process. See `signal.pthread_kill`."""
    if any(goroutine.ident == thread_id for goroutine in _runtime.all_goroutines()):
        _on_main(_os.kill, _os.getpid(), signalnum)
    else:
        _on_main(_original.pthread_kill, thread_id, signalnum)
        _settle()


def alarm(seconds, /):
    """Have SIGALRM come once. See `signal.alarm`: handlers of before have run then, and none runs after `alarm(0)`."""
    return _on_main(_original.alarm, seconds)


def setitimer(which, seconds, interval=0.0, /):
    """Have a signal come once, or again and again. See `signal.setitimer`, and `alarm`."""
    return _on_main(_original.setitimer, which, seconds, interval)


def pause():
    """Wait until a signal has come. See `signal.pause`."""
    _on_main(_original.pause)


_rebind.rebind(
    _original,
    globals(),
    replace={
        _name: globals()[_name]
        for _name in (
            "alarm",
            "getsignal",
            "pause",
            "pthread_kill",
            "raise_signal",
            "set_wakeup_fd",
            "setitimer",
            "signal",
        )
        if hasattr(_original, _name)
    },
)
