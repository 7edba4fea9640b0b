"""`run`: a program of goroutines with a main goroutine, from its start to the last `finally` block.

The thread that calls `run` runs no goroutine. It waits on a note, and acts when the note is set: it serves
`call_on_main`, runs signal handlers, looks for a deadlock, and ends the run.

Invariants:

* At most one run is in progress in a process; `_failure.active()` gives it.
* `Run.errors` and `Run.ends` hold what `run` may raise, in the order of happening. They only grow, in single
  steps: several goroutines may fail at once.
* The signal handlers that a run installs do not raise: they act on the run and set its note. They replace
  only the defaults (SIGINT's `default_int_handler`, SIGQUIT's `SIG_DFL`), only on the main thread, and are
  taken back at the end. What `offset.os.signal` holds is left alone: to set a handler would take it away.
  So a handler may outlive its run (`_left`), and then does what the default does.
* An entry of `calls` is answered by the waiting thread, or taken back by the goroutine that made it.
"""

from __future__ import annotations

import contextvars
import datetime
import os
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from offset import _deadlock, _dump, _exit, _failure, _runtime
from offset._errors import DeadlockError, GoroutineExit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from offset._runtime import Goroutine

    Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")
P = ParamSpec("P")

_SHORTEST_POLL = 0.05
_LONGEST_POLL = 1.0
# How long the main thread waits at most before it looks for signals that came on other threads, where they interrupt
# nothing here.
_GLANCE = 0.5

# Where `run` is called without a main function.
_NO_MAIN: Any = object()

# At most one function: the main goroutine of the next run.
_registered: list[Callable[..., Any]] = []

# The handlers of runs that have ended, by signal, with what was there before: `offset.os.signal` held the
# signal at the end.
_left: dict[int, Handler] = {}


def maintask(fn: F, /) -> F:
    """Register `fn` as the main goroutine of the next `run()`. A decorator: gives `fn` back.

    It is called without arguments, and once: a later `run()` has no main goroutine unless another one is
    registered. Raises TypeError if `fn` is not callable.
    """
    _runtime.check_callable("maintask", fn)
    _registered[:] = [fn]
    return fn


@overload
def run(
    main: Callable[..., T],
    /,
    *args: Any,
    on_panic: str = "raise",
    grace: float | datetime.timedelta = _exit.GRACE,
    **kwargs: Any,
) -> T: ...


@overload
def run(
    *,
    on_panic: str = "raise",
    grace: float | datetime.timedelta = _exit.GRACE,
) -> Any: ...


def run(
    main: Any = _NO_MAIN,
    /,
    *args: Any,
    on_panic: str = "raise",
    grace: float | datetime.timedelta = _exit.GRACE,
    **kwargs: Any,
) -> Any:
    """Run `main(*args, **kwargs)` as the main goroutine, give its result, and end all goroutines with it.

    As in Go the program is over when main returns: goroutines that are left are cancelled, their `finally`
    blocks run, for `grace` seconds at most; those that do not end are named on stderr. Without `main` the
    function registered with `maintask` is run; without that, `run` waits until every goroutine has ended,
    and gives None.

    An exception that leaves a goroutine is reported at once through `offset.excepthook` and ends the run;
    `run` raises it, or an ExceptionGroup if there are several. With `on_panic="report"` those of other
    goroutines than main are only reported. SystemExit in any goroutine ends the run and is raised. Ctrl-C
    is raised in the main goroutine; a second one that comes before main has seen the first prints the
    stacks of all goroutines and ends the process with status 130.

    Raises DeadlockError when all goroutines are asleep and nothing can wake one, and RuntimeError when it
    is called inside a goroutine or while another run is in progress. A program that `offset run` or the prompt
    has started is in its main goroutine already, and may call it there: the goroutines that main has started end
    with it as ever.
    """
    active = _failure.active()
    here = _runtime.current()
    hosted = here is not None and active is not None and active.hosts and active.is_main(here)
    if here is not None and not hosted:
        raise RuntimeError("run() was called inside a goroutine; use go() there")
    if on_panic not in ("raise", "report"):
        raise ValueError(f"on_panic must be 'raise' or 'report', not {on_panic!r}")
    seconds = grace.total_seconds() if isinstance(grace, datetime.timedelta) else float(grace)
    if not seconds >= 0:
        raise ValueError(f"grace must not be negative: {grace!r}")
    if main is not _NO_MAIN:
        # What `run(main())` gives, None as a rule, is no "no main".
        _runtime.check_callable("run", main)
    elif kwargs:
        raise TypeError("run got arguments for a main function, but no main function")
    if hosted:
        assert active is not None
        return active.run_inside(main if main is not _NO_MAIN else _take_registered(), args, kwargs, on_panic, seconds)
    return start(Run(on_panic, seconds), None if main is _NO_MAIN else main, args, kwargs)


def start(program: Run, main: Callable[..., Any] | None, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
    """Make `program` the run in progress and execute it; without `main`, with the function that is registered."""
    if not _failure.claim(program):
        raise RuntimeError("run() is in progress already, on another thread")
    registered = _take_registered()
    return program.execute(registered if main is None else main, args, kwargs or {})


def _take_registered() -> Callable[..., Any] | None:
    return _registered.pop() if _registered else None


def call_on_main(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn(*args, **kwargs)` on the main thread and give its result, or raise what it raises.

    For what Python allows only there (`signal.signal`) or needs its large stack. The main thread must be
    the one that waits in `run`, otherwise RuntimeError is raised; on the main thread itself `fn` is simply
    called. The caller is parked meanwhile and its contextvars apply. A call that is cancelled after it
    began goes on to its end on the main thread.
    """
    if _runtime.current() is None and threading.get_ident() == threading.main_thread().ident:
        return fn(*args, **kwargs)
    active = _failure.active()
    if active is None or not active.on_main_thread:
        raise RuntimeError("call_on_main needs the main thread to be waiting in run()")
    call = Call(fn, args, kwargs)
    active.calls.append(call)
    if active.closed:
        try:
            active.calls.remove(call)
        except ValueError:
            pass  # The waiting thread took it before it left.
        else:
            raise RuntimeError("call_on_main was called after run() had ended")
    active.note.set()
    # A bubble's clock does not run on meanwhile: the main thread is at work.
    _runtime.bubble_hold(True)
    try:
        value: T = call.result()
    finally:
        _runtime.bubble_hold(False)
    return value


class Call:
    """One use of `call_on_main`, on its way to the main thread and back."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.caller = _runtime.current()
        self.context = contextvars.copy_context()
        self.answer: _runtime.Chan[tuple[Any, BaseException | None]] = _runtime.Chan(1, "call_on_main")
        # Its answer is about to be sent: who has that may go on before the main thread does.
        self.over = False

    def serve(self) -> None:
        """Run the call; called on the main thread."""
        try:
            value = self.context.run(self.fn, *self.args, **self.kwargs)
        except BaseException as exc:
            self.over = True
            self.answer.send((None, exc))
        else:
            self.over = True
            self.answer.send((value, None))

    def refuse(self) -> None:
        """Answer a call that nobody will run."""
        self.answer.send((None, RuntimeError("run() ended before the call reached the main thread")))

    def result(self) -> Any:
        """Wait for the answer."""
        value, exc = self.answer.recv()
        if exc is None:
            return value
        try:
            raise exc
        finally:
            del exc


class Run:
    """One run in progress."""

    # Whether its main goroutine stands for a whole script, in which `run` may be called.
    hosts = False

    def __init__(self, on_panic: str, grace: float) -> None:
        self.on_panic = on_panic
        self.grace = grace
        self.note = _runtime.Note()
        self.calls: deque[Call] = deque()
        self.errors: list[BaseException] = []
        # SystemExit, and interrupts that no main goroutine was there to take: one of them is raised, alone.
        self.ends: list[BaseException] = []
        # "returned", "failed" or "exited" once the main function is over.
        self.outcome: str | None = None
        self.result: Any = None
        self.has_main = False
        self.main: Goroutine | None = None
        self.main_id = 0
        # The interrupt that was thrown into main last, and one that came before there was a main.
        self.thrown: BaseException | None = None
        self.early: BaseException | None = None
        self.serving: Call | None = None
        self.winding_down = False
        self.hurried = False
        self.closed = False
        self.on_main_thread = threading.get_ident() == threading.main_thread().ident
        self.replaced: dict[int, Handler] = {}

    # What goroutines call.

    def main_function(self, main: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the main function: the function of the main goroutine."""
        goroutine = _runtime.current()
        assert goroutine is not None
        # Without the GIL it may be here before who started it has it.
        self.main, self.main_id = goroutine, goroutine.id
        goroutine.name = getattr(main, "__qualname__", None) or getattr(main, "__name__", None) or type(main).__name__
        outcome = "failed"
        try:
            self.result = main(*args, **kwargs)
            outcome = "returned"
        except GoroutineExit:
            outcome = "exited"
            raise
        finally:
            # An exception that leaves main must be on record before the run is seen to be over.
            if outcome != "failed":
                self.outcome = outcome
                self.note.set()

    def reports(self, goroutine: Goroutine, exc: BaseException) -> bool:
        """Tell whether an exception that left `goroutine` is reported, besides being raised by `run`."""
        if isinstance(exc, SystemExit):
            return False
        return not (isinstance(exc, KeyboardInterrupt) and self.is_main(goroutine))

    def record(self, goroutine: Goroutine, exc: BaseException) -> None:
        """Take note of an exception that left `goroutine`."""
        if isinstance(exc, SystemExit) or (isinstance(exc, KeyboardInterrupt) and self.is_main(goroutine)):
            self.ends.append(exc)
        elif self.on_panic == "raise" or self.is_main(goroutine):
            self.errors.append(exc)
        if self.is_main(goroutine):
            self.outcome = "failed"
        self.note.set()

    def is_main(self, goroutine: Goroutine) -> bool:
        """Tell whether `goroutine` is the main goroutine."""
        return goroutine.id == (self.main_id or (self.main.id if self.main is not None else 0))

    def run_inside(
        self,
        main: Callable[..., Any] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_panic: str,
        grace: float,
    ) -> Any:
        """Do what `run` does, in the main goroutine of a run that hosts a script."""
        before = {self.main_id} if main is None else {goroutine.id for goroutine in _exit.of_the_program()}

        def others() -> list[Goroutine]:
            return [
                each for each in _exit.of_the_program() if each.id not in before and each.id not in _exit.background
            ]

        previous, self.on_panic = self.on_panic, on_panic
        try:
            if main is not None:
                return main(*args, **kwargs)
            while left := others():
                left[0].join()
            return None
        finally:
            _exit.end_in_goroutine(others, grace)
            self.on_panic = previous

    # What the waiting thread does.

    def execute(self, main: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run to the end and give main's result."""
        try:
            _runtime.watch(self.note)
            self.has_main = main is not None
            self._install_handlers()
            self._until_over(main, args, kwargs)
            self.winding_down = True
            self._wind_down()
        finally:
            _runtime.watch(None)
            try:
                self.leave()
            finally:
                # In this order: the handlers of a run raise when it is not in progress.
                _failure.release()
                while (call := self._next_call()) is not None:
                    call.refuse()
        return self._conclude()

    def _until_over(self, main: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        while True:
            try:
                if main is not None and self.main is None and not self.ends:
                    self._start(main, args, kwargs)
                if self._over():
                    break
                self._wait()
            except BaseException as exc:
                self._interrupt(exc)

    def leave(self) -> None:
        """Take no more calls, and give the signals back; in a forked child, with the run of its parent."""
        self.closed = True
        _left.update(self.replaced)
        self.replaced.clear()
        give_signals_back()

    def _start(self, main: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.main = _runtime.go(self.main_function, main, args, kwargs)
        except BaseException as exc:
            # What a signal handler raised, if there is a goroutine all the same.
            name = self.main_function.__qualname__
            self.main = self.main or next((each for each in _runtime.goroutines() if each.name == name), None)
            if self.main is None:
                self.ends.append(exc)
                return
            self._interrupt(exc)
        if self.early is not None:
            self.main.throw(self.early)
            self.early = None

    def _over(self) -> bool:
        """Tell whether there is nothing more to wait for."""
        if self.ends or self.errors:
            return True
        if self.main is None:
            return _exit.waited_for() == 0
        # In this order: a main that ends at this moment, on another thread, has said how before it is dead.
        if self.main.status == "dead" and self.outcome is None:
            # Cancelled before it began.
            self.outcome = "exited"
        if self.outcome == "exited" and _exit.waited_for() == 0:
            self.errors.append(DeadlockError("no goroutines (the main goroutine called goexit) - deadlock!"))
            return True
        return self.outcome in ("returned", "failed")

    def _wait(self) -> None:
        """Wait until there is something to do, and do it. Comes back when the run may be over."""
        poll = _SHORTEST_POLL
        while True:
            self.note.clear()
            self._serve()
            if self._over():
                return
            if _runtime.quiescent():
                if self._deadlocked() and self._ends_by(DeadlockError(_deadlock.text())):
                    return
                # A plain thread may end, a signal handler may be taken back: nothing would tell.
                timeout: float | None = poll
                poll = min(poll * 2, _LONGEST_POLL)
            else:
                # Goroutines that nobody waits for may keep the runtime from becoming quiescent.
                unnoticed = _exit.abandoned or (_exit.background and (self.main is None or self.outcome))
                timeout = _SHORTEST_POLL if unnoticed else _GLANCE if self.on_main_thread else None
                poll = _SHORTEST_POLL
            self.note.wait(timeout)

    def _deadlocked(self) -> bool:
        if has_signal_handlers():
            return False
        # The last look: a signal handler that ran meanwhile may have woken a goroutine, or asked for a call.
        return _exit.at_rest() and not self.calls and not self._over()

    def _ends_by(self, deadlock: DeadlockError) -> bool:
        """Take note of a deadlock; tell whether the run is over with it."""
        self.errors.append(deadlock)
        return True

    def _serve(self) -> None:
        while (call := self._next_call()) is not None:
            self.serving = call
            try:
                call.serve()
            finally:
                self.serving = call = None

    def _next_call(self) -> Call | None:
        try:
            return self.calls.popleft()
        except IndexError:
            # There is none, or it was taken back at this moment.
            return None

    def _wind_down(self) -> None:
        left_over: list[Goroutine] = []
        try:
            left_over = _exit.wind_down(
                self.note,
                self.grace,
                spare=lambda goroutine: self.outcome is not None and self.is_main(goroutine),
                serve=self._serve,
                hurry=lambda: self.hurried,
            )
            for conclude in _exit.behind:
                conclude(self.grace, self, lambda: self.hurried)
        except BaseException as exc:
            # What a signal handler of the program raised: nobody is left who could take it.
            left_over = _exit.alive()
            _exit.abandoned.update(goroutine.id for goroutine in left_over)
            if not self.ends:
                self.ends.append(exc)
        _exit.name_left_over(left_over, self.grace)

    def _raised(self) -> list[BaseException]:
        if self.ends:
            return [next((exc for exc in self.ends if isinstance(exc, SystemExit)), self.ends[-1])]
        # Goroutines may fail with the same exception.
        return list({id(exc): exc for exc in self.errors}.values())

    def _conclude(self) -> Any:
        errors = self._raised()
        try:
            if len(errors) == 1:
                raise errors[0]
            if errors:
                raise BaseExceptionGroup("several goroutines failed", errors)
        finally:
            # The traceback of what is raised holds this frame, and so this object.
            del errors
            self.errors = []
            self.ends = []
            self.thrown = None
        result, self.result = self.result, None
        return result

    # Signals.

    def _install_handlers(self) -> None:
        if not self.on_main_thread:
            return
        give_signals_back()
        held = _runtime.signal_held()
        for number, default, ours in HANDLERS:
            if signal.getsignal(number) is default and not held >> (number - 1) & 1:
                self.replaced[number] = signal.signal(number, ours)

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT."""
        serving = self.serving
        if serving is not None and not serving.over and serving.caller is not None and self.is_main(serving.caller):
            # The main goroutine is here, in a call on the main thread.
            signal.default_int_handler(number, frame)
        self._interrupt(KeyboardInterrupt())

    def _interrupt(self, exc: BaseException) -> None:
        """Bring what a signal handler raised to the main goroutine."""
        if self.winding_down:
            self.hurried = True
        elif not self.has_main or self.outcome is not None or (self.main is not None and self.main.status == "dead"):
            self.ends.append(exc)
        else:
            # It may have come before main was there.
            unseen = self.thrown is not None and (self.main is None or self.main._throwing())
            if unseen and isinstance(exc, KeyboardInterrupt):
                try:
                    _dump.write("offset: interrupted twice\n\n" + _dump.everything())
                finally:
                    os._exit(130)
            self.thrown = exc.with_traceback(None)
            # Without the GIL there may be a main by now.
            main = self.main
            if main is None:
                self.early = self.thrown
            else:
                main.throw(self.thrown)
        self.note.set()


def has_signal_handlers() -> bool:
    """Tell whether a signal may wake a goroutine: by a handler of the program in Python, or on a channel."""
    if _runtime.signal_wanted():
        return True
    known = (signal.default_int_handler, _on_interrupt, _on_quit)
    handlers = map(signal.getsignal, signal.valid_signals())
    return any(callable(handler) and handler not in known and not _of_the_prompt(handler) for handler in handlers)


def _of_the_prompt(handler: Callable[..., Any]) -> bool:
    """Tell whether a handler belongs to the reader of Python's prompt, which draws its line again and wakes nobody."""
    return (getattr(handler, "__module__", None) or "").startswith("_pyrepl")


def give_signals_back() -> None:
    """Put back what was there before the handlers of runs that have ended, as far as that can be done now."""
    if not _left or threading.get_ident() != threading.main_thread().ident:
        return
    held = _runtime.signal_held()
    for number, previous in list(_left.items()):
        if not held >> (number - 1) & 1:
            del _left[number]
            if signal.getsignal(number) in (_on_interrupt, _on_quit):
                signal.signal(number, previous)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    run = _failure.active()
    if run is None or not run.on_main_thread:
        signal.default_int_handler(number, frame)
    else:
        run.on_interrupt(number, frame)


def _on_quit(number: int, frame: FrameType | None) -> None:
    if _failure.active() is None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    else:
        try:
            _dump.write("SIGQUIT: quit\n\n" + _dump.everything())
        finally:
            os._exit(2)


# Signals, what a run replaces, and by what.
HANDLERS: list[tuple[int, Handler, Handler]] = [(signal.SIGINT, signal.default_int_handler, _on_interrupt)]
if hasattr(signal, "SIGQUIT"):
    HANDLERS.append((signal.SIGQUIT, signal.SIG_DFL, _on_quit))

_dump.hidden.update(function.__code__ for function in (Run.main_function, Run.run_inside, run))
_dump.starter = Run.execute.__code__.co_filename + ":"
