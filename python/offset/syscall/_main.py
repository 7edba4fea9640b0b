"""Who is the main thread to the proxies: the main goroutine of a `run` that was called on the main thread.

The interpreter lets the real one alone set signal handlers and run them. That one waits in `run` and serves
`call_on_main`, so what the main goroutine asks for is done there; what a handler raises comes back to the main
goroutine, in which it is raised. While it does so the real one counts as the main goroutine, too.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from offset import _failure, _run, _runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._runtime import Goroutine

P = ParamSpec("P")
T = TypeVar("T")


def is_main_goroutine() -> bool:
    """Tell whether the caller is the main goroutine of a run that was called on the main thread."""
    goroutine = _runtime.current()
    if goroutine is None:
        return False
    run = _failure.active()
    return run is not None and run.on_main_thread and run.is_main(goroutine)


def main_goroutine() -> Goroutine | None:
    """Give the main goroutine of a run on the main thread, while it lives."""
    run = _failure.active()
    if run is None or not run.on_main_thread or run.main is None or run.main.status == "dead":
        return None
    return run.main


def is_main_thread() -> bool:
    """Tell whether the caller is the main thread: the real one, or the main goroutine."""
    if _runtime.current() is None:
        return threading.get_ident() == threading.main_thread().ident
    return is_main_goroutine()


def on_main(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on the main thread if the caller stands for it, or else where the caller is."""
    if is_main_goroutine():
        return _run.call_on_main(function, *args, **kwargs)
    return function(*args, **kwargs)


# For how long who has sent a signal waits for the main thread to handle it, which may be busy with something else.
_PATIENCE = 1.0


class _Settling(_run.Call):
    """A question to the main thread, answered when it has come by: the handlers of the signals before it have run."""

    def __init__(self, run: _run.Run) -> None:
        super().__init__(lambda: None, (), {})
        self.run = run
        # It takes no time.
        self.over = True

    def serve(self) -> None:
        """Answer. What a handler raises meanwhile is main's, and no result of this."""
        try:
            self.fn()
        except BaseException as exc:
            self.run._interrupt(exc)
        finally:
            self.answer.send((None, None))


def settle() -> None:
    """Have the main thread, if it waits in a run, handle signals that have come, and wait until it has.

    Nothing else interrupts its wait: the system interrupts only the thread to which it brings a signal. While the main
    thread is busy with a call it is not waited for.
    """
    run = _failure.active()
    if run is None or not run.on_main_thread:
        return
    if _runtime.current() is None and threading.get_ident() == threading.main_thread().ident:
        return
    serving = run.serving
    if serving is not None and not serving.over:
        run.note.set()
        return
    call = _Settling(run)
    run.calls.append(call)
    run.note.set()
    with contextlib.suppress(TimeoutError):
        call.answer.recv(_PATIENCE)
