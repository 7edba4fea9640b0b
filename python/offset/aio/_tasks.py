"""What tasks of asyncio and trio await: how an operation waits in them, and how they wait for goroutines.

The extension's operations (task.rs) are coroutines that call `park` when they must wait. An event loop whose tasks
wait has a mailbox, which the core puts into from any thread, without Python, and whose descriptor the loop watches:
a task that is woken costs the loop one reader callback, however many are.

Invariants:

* A mailbox is emptied on the thread of its loop only. It goes with its loop, and all waits of a loop of asyncio end
  when that is closed.
* What wakes a task, a future of asyncio or a `_Wake` of trio, may be taken out after the task went on by other means:
  then it does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from offset import _exit, _runtime
from offset._duration import seconds as duration
from offset._errors import GoroutineExit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from offset._runtime import Goroutine, Mailbox, Note, Operation

T = TypeVar("T")
P = ParamSpec("P")

# So many calls that end at once are taken in a row before the loop may look at its descriptors.
_ROUNDS = 64

_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()
# A loop that goes on in a forked child gets another one: the parent's is dead there.
os.register_at_fork(after_in_child=_mailboxes.clear)


def in_trio() -> Any:
    """Give trio if the caller is a task of it, else None."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def park(operation: Operation[Any]) -> Any:
    """Give something to await until `operation` may be over; None if it is. Called by the operation."""
    trio = in_trio()
    if trio is not None:
        return _until_rescheduled(trio, operation)
    loop = asyncio._get_running_loop()
    if loop is None:
        raise RuntimeError("an operation is awaited in a task of asyncio or trio; call recv(), send() or select() here")
    mailbox = _mailboxes.get(loop) or open_mailbox(loop)
    timeout = operation.timeout
    if timeout is not None:
        return _until_timeout(loop, mailbox, operation, duration(timeout))
    future = loop.create_future()
    return future.__await__() if operation.begin(mailbox, future) else None


# ---- asyncio -----------------------------------------------------------------------------------


def open_mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Give a loop its mailbox; on its thread, or before it runs."""
    mailbox = _runtime.Mailbox()
    loop.add_reader(mailbox.fileno(), _Reader(mailbox), loop)
    # Not before: a loop that can watch no descriptor says so each time.
    _mailboxes[loop] = mailbox
    return mailbox


class _Reader:
    """What a loop calls when its mailbox is rung, and lets go when it is closed."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def __call__(self, loop: asyncio.AbstractEventLoop) -> None:
        _deliver(loop, self._mailbox)

    def __del__(self) -> None:
        # No task goes on any more: what is sent goes to others, and tasks that nobody else keeps are garbage.
        self._mailbox.close()


def _deliver(loop: asyncio.AbstractEventLoop, mailbox: Mailbox, items: list[Any] | None = None) -> None:
    """Wake tasks, and begin and end calls, as long as there are some."""
    if items is None:
        items = mailbox.take()
    ended: list[Note] = []
    try:
        for turn in range(_ROUNDS):
            busy = turn == _ROUNDS - 1
            ended = []
            items.reverse()
            while items:
                # It stays in the list until that is done; a second time it does nothing.
                item = items[-1]
                if callable(item):
                    busy |= item(loop, ended)
                elif not item.done():
                    item.set_result(None)
                    busy = True
                items.pop()
            # Of uvloop it cannot be seen what it knows of.
            if busy or getattr(loop, "_ready", None):
                break
            items = mailbox.linger(ended)
            if not items:
                return
    finally:
        for note in ended:
            note.set()
        # A signal handler of the main thread may have raised.
        for item in reversed(items):
            mailbox.put(item)
    loop.call_soon(_linger, loop, mailbox)


def _linger(loop: asyncio.AbstractEventLoop, mailbox: Mailbox) -> None:
    """Wait for a few microseconds before the loop sleeps: what was delivered brings more often enough.

    It comes in turn, after the tasks that were woken, and gives way to all that the loop knows of.
    """
    if not getattr(loop, "_ready", None) and (items := mailbox.linger([])):
        _deliver(loop, mailbox, items)


async def _until_timeout(
    loop: asyncio.AbstractEventLoop, mailbox: Mailbox, operation: Operation[Any], seconds: float
) -> None:
    timer = loop.call_later(seconds, _expire, operation)
    try:
        while operation.begin(mailbox, future := loop.create_future()):
            await future
    finally:
        timer.cancel()


def _expire(operation: Operation[Any]) -> None:
    future = operation.expire()
    if future is not None and not future.done():
        future.set_result(None)


def sent(error: BaseException) -> bool:
    """Tell whether `error`, the cancellation of a task, will be raised later: what it came too late for has happened.

    Called by an operation that raises the error otherwise. The cancellation comes at the next await, unless it has been
    taken back by then, as `asyncio.timeout` does at its end.
    """
    if not isinstance(error, asyncio.CancelledError) or in_trio() is not None:
        return False
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    task.get_loop().call_soon(_cancel_again, task, task.cancelling(), error.args)
    return True


def _cancel_again(task: asyncio.Task[Any], count: int, args: tuple[Any, ...]) -> None:
    if not task.done() and task.cancelling() >= count:
        task.uncancel()
        task.cancel(*args)


# ---- trio --------------------------------------------------------------------------------------


class _Wake:
    """A task of trio that waits."""

    __slots__ = ("task", "waits")

    def __init__(self, task: Any) -> None:
        self.task = task
        # True only while trio knows it as waiting: what comes from an earlier wait must not wake it elsewhere.
        self.waits = False

    def __call__(self, trio: Any) -> None:
        if self.waits:
            self.waits = False
            trio.lowlevel.reschedule(self.task)


@functools.cache
def _trio_mailbox(trio: Any) -> Any:
    """Give the variable in which a run of trio has its mailbox."""
    return trio.lowlevel.RunVar("offset_mailbox")


def _open_in_trio(trio: Any) -> Mailbox:
    variable = _trio_mailbox(trio)
    try:
        mailbox: Mailbox = variable.get()
    except LookupError:
        mailbox = _runtime.Mailbox()
        variable.set(mailbox)
        trio.lowlevel.spawn_system_task(_watch, trio, mailbox, name="offset")
    return mailbox


async def _watch(trio: Any, mailbox: Mailbox) -> None:
    while True:
        await trio.lowlevel.wait_readable(mailbox.fileno())
        for wake in mailbox.take():
            wake(trio)


async def _until_rescheduled(trio: Any, operation: Operation[Any]) -> None:
    mailbox = _open_in_trio(trio)
    wake = _Wake(trio.lowlevel.current_task())

    def abort(_: object) -> Any:
        # What has happened stands: the cancellation comes at the next checkpoint.
        if not operation.retract():
            # At the end of a run nobody empties the mailbox any more.
            trio.lowlevel.current_trio_token().run_sync_soon(wake, trio)
            return trio.lowlevel.Abort.FAILED
        wake.waits = False
        return trio.lowlevel.Abort.SUCCEEDED

    timeout = operation.timeout
    deadline = float("inf") if timeout is None else trio.current_time() + duration(timeout)
    try:
        with trio.CancelScope(deadline=deadline):
            while operation.begin(mailbox, wake):
                wake.waits = True
                await trio.lowlevel.wait_task_rescheduled(abort)
    finally:
        # At the end of a run it stays in the mailbox, where no collector sees it.
        wake.task = None


# ---- goroutines ---------------------------------------------------------------------------------


def join(goroutine: Goroutine) -> Generator[Any, None, None]:
    """Wait for the end of a goroutine; the iterator that its `__await__` has to give."""
    return _join(goroutine).__await__()


async def _join(goroutine: Goroutine) -> None:
    trio = in_trio()
    cancelled = asyncio.CancelledError if trio is None else trio.Cancelled
    try:
        await _runtime.ended(goroutine)
    except cancelled:
        # As for a task that is awaited: it is cancelled in turn, and nothing is left behind.
        goroutine.cancel()
        if trio is not None:
            with trio.move_on_after(_exit.GRACE, shield=True):
                await _runtime.ended(goroutine)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_exit.GRACE):
                    await _runtime.ended(goroutine)
        raise


class _Call:
    """One use of `to_goroutine`."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.context = contextvars.copy_context()
        self.result: Any = _NOTHING
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do it: the function of the goroutine."""
        try:
            self.result = self.context.run(self.fn, *self.args, **self.kwargs)
        except BaseException as error:
            # Whoever awaits it has it, with its traceback.
            self.error = error


def restore(context: contextvars.Context) -> None:
    """Set here the context variables that are set otherwise in `context`, as if what ran in it had run here."""
    for variable, value in context.items():
        if variable.get(_NOTHING) is not value:
            variable.set(value)


_NOTHING: Any = object()


async def to_goroutine(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn(*args, **kwargs)` in a new goroutine and give its result, or raise what it raises; only the task waits.

    To be awaited in asyncio or trio. The goroutine has the task's context variables, and what it sets is set in
    the task afterwards. If the task is cancelled, so is the goroutine, which gets GoroutineExit where it waits; its
    end is waited for, up to 5 seconds, or until the task is cancelled once more. If the goroutine is cancelled by
    others, asyncio.CancelledError is raised (RuntimeError in trio). Raises TypeError if `fn` is not callable.
    """
    _runtime.check_callable("to_goroutine", fn)
    call = _Call(fn, args, kwargs)
    goroutine = _runtime.go(call.run)
    goroutine.name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__name__
    await goroutine
    restore(call.context)
    error = call.error
    if call.result is _NOTHING and error is None:
        # It was cancelled before it began.
        error = GoroutineExit()
    try:
        if error is None:
            result: T = call.result
            return result
        if isinstance(error, GoroutineExit):
            text = f"the goroutine that ran {goroutine.name} was cancelled"
            raise (asyncio.CancelledError(text) if in_trio() is None else RuntimeError(text)) from error
        raise error
    finally:
        # Its traceback holds this frame.
        del error, call
