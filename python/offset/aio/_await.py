"""Coroutines from goroutines: `await_`, and what it shares with `iterate` and `enter`.

A call travels to the thread of its loop, becomes a task there, and its end sets a note on which the goroutine is
parked.

Invariants:

* A call's `result` and `error` are written on the loop's thread before its note is set, and read after it.
* Who leaves a call that is not over has cancelled it, and has waited for its end as long as `_exit.GRACE`.
* A call to the library's own loop is in `Loop.calls` until its note is set: if the loop ends before the call has
  begun, nobody else would set it.
* What would end the program that has the loop, SystemExit and KeyboardInterrupt, is an outcome as any other: the loop
  never sees it. `Call.__call__` raises nothing.
"""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures
import contextvars
import functools
import inspect
import math
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from offset import _dump, _exit, _runtime
from offset._duration import seconds as duration
from offset.aio import _loop
from offset.aio._tasks import in_trio, restore

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable

    Seconds = float | datetime.timedelta
    Submit = Callable[[Callable[[], object]], object]

T = TypeVar("T")

# Before, a task takes its first step in another turn of the loop.
_EAGER = sys.version_info >= (3, 12)

# How often, in seconds, who waits for the loop of somebody else looks whether that was closed: nothing would tell.
_GLANCE = 1.0


class Call:
    """One awaitable on its way to a loop and back."""

    __slots__ = (
        "awaitable",
        "begun",
        "cancel",
        "cancelled",
        "error",
        "left",
        "loop",
        "note",
        "owner",
        "result",
        "variables",
    )

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable: Awaitable[Any] | None = awaitable
        self.variables = contextvars.copy_context()
        self.note = _runtime.Note()
        self.result: Any = None
        self.error: BaseException | None = None
        # Where it runs: the library's own loop, another one of asyncio, or, if both are None, a run of trio.
        self.owner: _loop.Loop | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        # What cancels it while it runs.
        self.cancel: Callable[[], object] | None = None
        self.cancelled = False
        # It is a task, or will never be one.
        self.begun = False
        # Nobody waits for it any more.
        self.left = False

    # On the loop's thread.

    def take(self) -> Awaitable[Any]:
        """Take out what is to be run."""
        awaitable, self.awaitable = self.awaitable, None
        assert awaitable is not None
        return awaitable

    async def carry(self) -> Any:
        """Run it: the coroutine of its task."""
        try:
            return await self.take()
        except (SystemExit, KeyboardInterrupt) as error:
            # A task that raises one of these also raises it out of its loop, under all other tasks.
            self.error = error

    def __call__(self, loop: asyncio.AbstractEventLoop, ended: list[_runtime.Note]) -> bool:
        """Make it a task, which takes its first step at once where that is possible; tell whether it goes on.

        If not, its note is appended to `ended`, for the caller to set.
        """
        if self.begun:
            return False
        self.begun = True
        if self.owner is not None and self.owner.closing:
            self.conclude(None, RuntimeError(_loop.OVER))
        else:
            coroutine = self.carry()
            try:
                if _EAGER:
                    # The stubs of 3.11, which mypy reads, lack the argument.
                    task = asyncio.Task(coroutine, loop=loop, context=self.variables, eager_start=True)  # type: ignore[call-arg]
                else:
                    task = loop.create_task(coroutine, context=self.variables)
                if not task.done():
                    self.cancel = task.cancel
                    task.add_done_callback(self._finish)
                    return True
                self._take(task)
            except BaseException as error:
                coroutine.close()
                self.conclude(None, error)
        ended.append(self.note)
        return False

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._take(task)
        self.note.set()

    def _take(self, task: asyncio.Task[Any]) -> None:
        self.cancel = None
        try:
            result = task.result()
        except BaseException as error:
            if self.left and not isinstance(error, asyncio.CancelledError):
                message = "a coroutine failed after its goroutine had gone on"
                task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})
            self.conclude(None, error)
        else:
            self.conclude(result, self.error)

    def conclude(self, result: Any, error: BaseException | None) -> None:
        """Take note of what it came to."""
        self.begun = True
        self.result, self.error = result, error
        awaitable, self.awaitable = self.awaitable, None
        if isinstance(awaitable, collections.abc.Coroutine):
            # It has not begun.
            awaitable.close()
        if self.owner is not None:
            self.owner.calls.discard(self)

    def end(self, result: Any, error: BaseException | None) -> None:
        """Say what it came to."""
        self.conclude(result, error)
        self.note.set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin in a loop that is not the library's own."""
        if not self(loop, []):
            self.note.set()

    def stop(self) -> None:
        """Cancel it. If it has not begun, it does not, whether or not it is still on its way."""
        self.cancelled = True
        if self.cancel is not None:
            self.cancel()
        elif not self.begun:
            self.end(None, asyncio.CancelledError())

    # On the caller's side.

    def wait(self, hand_in: Callable[[Any], object], submit: Submit, timeout: float | None = None) -> None:
        """Hand it in and wait for its end; whatever ends the wait before cancels it, and is raised.

        That may come anywhere in here, as an exception out of the blue: then nobody knows whether it was handed in.
        """
        try:
            hand_in(self)
            if self._ends(timeout):
                return
        except BaseException:
            self._leave(submit)
            raise
        self._leave(submit)
        if self.left or isinstance(self.error, asyncio.CancelledError):
            self.error = None
            raise TimeoutError("await_() timed out")

    def _ends(self, timeout: float | None) -> bool:
        """Tell whether it ends within `timeout` seconds."""
        loop = self.loop
        if loop is None:
            return self.note.wait_await(timeout)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.note.wait_await(min(deadline - time.monotonic(), _GLANCE)):
            if loop.is_closed():
                # What it has ended before is noted by now; whatever else it had will never end.
                if not self.note.is_set():
                    self.end(None, RuntimeError("the loop was closed before the end of what was awaited there"))
                return True
            if time.monotonic() >= deadline:
                return False
        return True

    def _leave(self, submit: Submit) -> None:
        try:
            submit(self.stop)
        except RuntimeError:
            # The loop is closed, and ends what it had.
            if not self.begun:
                self.stop()
        ended = False
        try:
            ended = self._ends(_exit.GRACE)
        finally:
            self.left = not ended

    def outcome(self) -> Any:
        """Give the result, or raise the error, with its traceback."""
        restore(self.variables)
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            # The traceback holds this frame.
            del error


def own_way() -> tuple[Callable[[Call], object], Submit]:
    """Give what hands a call in to the library's own loop, and what has things done there."""
    owner = _loop.get()

    def hand_in(call: Call) -> None:
        call.owner = owner
        owner.calls.add(call)
        owner.mailbox.put(call)
        # In this order: who closes the loop looks for calls afterwards.
        if owner.closed and call in owner.calls:
            call.conclude(None, None)
            raise RuntimeError(_loop.OVER)

    return hand_in, owner.loop.call_soon_threadsafe


def way_to(token: Any) -> tuple[Callable[[Call], object], Submit]:
    """Give the same for the loop of `token`."""
    native = getattr(token, "native_token", token)
    if isinstance(native, asyncio.AbstractEventLoop):
        if not native.is_running():
            raise RuntimeError("the loop of this token does not run: nothing would ever happen in it")

        def hand_in(call: Call) -> None:
            call.loop = native
            native.call_soon_threadsafe(call.start, native)

        return hand_in, native.call_soon_threadsafe
    if hasattr(native, "run_sync_soon"):
        from offset.aio import _trio

        return functools.partial(native.run_sync_soon, _trio.begin), native.run_sync_soon
    raise TypeError(f"a token is a running loop of asyncio, or a token of trio or anyio, not {type(token).__name__}")


def check_thread(name: str) -> None:
    """Raise RuntimeError on the thread of an event loop."""
    if asyncio._get_running_loop() is not None or in_trio() is not None:
        raise RuntimeError(f"{name}() would stop the event loop that runs here; use await, async for or async with")


def _hint(thing: object) -> str:
    """Say what to do with a thing that is taken for one that can be awaited."""
    if inspect.iscoroutinefunction(thing):
        return "; call it first"
    if hasattr(thing, "__aiter__"):
        return "; iterate() goes through it"
    if isinstance(thing, concurrent.futures.Future):
        return " of concurrent.futures; its result() waits"
    if isinstance(thing, list | tuple):
        return "; asyncio.gather() in a coroutine awaits several, and errgroup.Group has await_() called for each"
    return ""


def await_(awaitable: Awaitable[T], timeout: Seconds | None = None, *, token: Any = None) -> T:
    """Wait for a coroutine, a future or anything else that can be awaited, and give its result: `await` for goroutines.

    The goroutine parks, or the thread that calls it blocks, while the awaitable runs as a task on a loop of asyncio
    in a thread that the library owns (uvloop's if that is installed), or where `token` says: a loop of asyncio that
    runs in another thread, a `trio.lowlevel.TrioToken`, or what `anyio.lowlevel.current_token()` gives. A future of
    asyncio is awaited on its own loop. The task has the caller's context variables, and what it sets is set in the
    caller afterwards.

    Whatever ends the wait first cancels the task: `timeout` seconds (TimeoutError), a context's scope, `cancel()`,
    Ctrl-C. The task's end is waited for then, up to 5 seconds; a result that it still has is given after a timeout, and
    lost otherwise. Raises what the awaitable raises, SystemExit and KeyboardInterrupt, too, with its traceback;
    TypeError for what cannot be awaited; and RuntimeError on the thread of a running loop, which would stop, when the
    loop of the token is closed, and when the program is over.
    """
    if not isinstance(awaitable, collections.abc.Awaitable) and not inspect.isawaitable(awaitable):
        raise TypeError(f"await_() takes what can be awaited, not {type(awaitable).__name__}{_hint(awaitable)}")
    try:
        seconds = None if timeout is None else duration(timeout)
        check_thread("await_")
        if token is None and isinstance(awaitable, asyncio.Future):
            token = awaitable.get_loop()
            if not token.is_running():
                # asyncio.gather() and ensure_future() make such ones, for a loop that will run later.
                raise RuntimeError(
                    "the loop of this future does not run: nothing would ever happen in it. "
                    "Make and await it in a coroutine, and give that to await_()"
                )
        hand_in, submit = own_way() if token is None else way_to(token)
    except BaseException:
        if isinstance(awaitable, collections.abc.Coroutine):
            awaitable.close()
        raise
    call = Call(awaitable)
    del awaitable
    try:
        call.wait(hand_in, submit, seconds)
        value: T = call.outcome()
        return value
    finally:
        del call


_dump.hidden.add(Call.carry.__code__)
