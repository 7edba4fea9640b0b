"""The event loop that the library owns, on a thread of its own.

It is started by the first call that needs it, and ends after the last goroutines: with the run in which it was started,
or with the interpreter. Its tasks are cancelled then and have the grace time to end. A forked child has none and starts
another when it needs one.

Invariants:

* `_Open.loop` is the loop that is open to calls, or None. It changes under `_Open.lock`, which nobody holds while
  waiting for the loop, and which a forked child makes anew.
* A loop thread is no goroutine and no foreign thread to the search for deadlocks while it has nothing to do (`idle`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from offset import _dump, _exit, _failure, _runtime
from offset.aio import _stacks, _tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from offset._run import Run

# How often, in seconds, who waits for the end of the loop looks whether it shall hurry.
_GLANCE = 0.1


class Pending(Protocol):
    """Something that was given to the loop, and is told if that ends before."""

    def end(self, result: Any, error: BaseException | None) -> None:
        """Say what it came to."""


class _Open:
    """What there is in this process."""

    lock = _runtime.Mutex()
    loop: Loop | None = None
    # Loops that belong to a parent of this process: to close one would take descriptors out of a poller that it shares.
    left: ClassVar[list[Loop]] = []


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Make a loop: uvloop's if that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


# What a call says that comes too late.
OVER = "the program is over, and its event loop with it"


class Loop:
    """A thread and its event loop."""

    def __init__(self) -> None:
        # In which run it was started; None outside of runs.
        self.run: Run | None = _failure.active()
        self.loop = _new_event_loop()
        self.mailbox = _tasks.open_mailbox(self.loop)
        # Done when it is to end.
        self._over: asyncio.Future[None] = self.loop.create_future()
        # Its own task.
        self.root: asyncio.Task[None] | None = None
        self.thread = threading.Thread(target=self._main, name="offset-asyncio", daemon=True)
        # Set before it ends, by whoever has it end: it takes no more calls.
        self.closing = False
        # On its thread: it has been told to stop, or it has stopped.
        self.halted = False
        self.closed = False
        self.ended = _runtime.Note()
        self.calls: set[Pending] = set()

    def _main(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        self.root = loop.create_task(self._forever(), name="offset")
        try:
            while not self.halted:
                try:
                    # A task that stops the loop has it end, too.
                    with contextlib.suppress(RuntimeError):
                        loop.run_until_complete(self.root)
                    self.halted = True
                except (SystemExit, KeyboardInterrupt) as error:
                    # Of a task that no goroutine awaits: that is not the end of all others.
                    message = "a task would end the program; only the task has ended"
                    loop.call_exception_handler({"message": message, "exception": error})
        finally:
            self.closing = True
            self._halt()
            try:
                self._end()
            finally:
                try:
                    asyncio.set_event_loop(None)
                    loop.close()
                finally:
                    self.closed = True
                    try:
                        self._end_calls()
                    finally:
                        self.ended.set()

    async def _forever(self) -> None:
        # Libraries look for a task that is there as long as the loop: anyio, for one, keeps the threads in which it
        # calls functions until that ends, and would otherwise start one for each task that calls some.
        while not self._over.done():
            # Somebody may cancel all tasks that there are.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._over)

    def _halt(self) -> None:
        self.halted = True
        if not self._over.done():
            self._over.set_result(None)

    def _end_calls(self) -> None:
        """End what came too late to begin."""
        while self.calls:
            # Who handed it in may take it out at this moment.
            with contextlib.suppress(KeyError):
                self.calls.pop().end(None, RuntimeError(OVER))

    def _end(self) -> None:
        """End what the loop still has, as `asyncio.run` does."""
        loop = self.loop
        cancelled: set[asyncio.Task[Any]] = set()
        # A task may start others in its `finally` blocks.
        while tasks := [task for task in asyncio.all_tasks(loop) if not task.done()]:
            for task in set(tasks) - cancelled:
                task.cancel()
            cancelled.update(tasks)
            # If one of them raises such a thing the others go on in another turn.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    loop.call_exception_handler(
                        {"message": "a task failed while the loop was ended", "exception": error, "task": task}
                    )
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())

    def stop(self, grace: float, hurry: Callable[[], bool]) -> None:
        """End it, and wait for that up to `grace` seconds, or until `hurry` gives True."""
        self.closing = True
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._halt)
        deadline = time.monotonic() + grace
        while not self.ended.wait(min(max(deadline - time.monotonic(), 0), _GLANCE)):
            if hurry() or time.monotonic() >= deadline:
                _dump.write(f"offset: tasks of asyncio were cancelled and did not end (grace time {grace:g} s)\n")
                return
        self.thread.join(grace)

    def idle(self) -> bool:
        """Tell whether nothing that the loop has could wake a goroutine. Of uvloop that cannot be known."""
        ready = getattr(self.loop, "_ready", None)
        selector = getattr(self.loop, "_selector", None)
        if ready is None or selector is None:
            return False
        frame = sys._current_frames().get(self.thread.ident or 0)
        if frame is None or frame.f_code.co_name != "select":
            # It does something.
            return False
        with contextlib.suppress(RuntimeError):
            # They change while we look.
            loop: Any = self.loop
            if self.calls or ready or loop._scheduled or self._busy():
                return False
            if not set(selector.get_map() or ()) <= {self.mailbox.fileno(), loop._ssock.fileno()}:
                return False
            # Only if it has been in one and the same wait were these looks at one state.
            return sys._current_frames().get(self.thread.ident or 0) is frame
        return False

    def _busy(self) -> bool:
        """Tell whether it has tasks, other than its own."""
        return any(task is not self.root and not task.done() for task in asyncio.all_tasks(self.loop))


def get() -> Loop:
    """Give the loop, started if there is none."""
    found = _Open.loop
    if found is not None and not found.closing:
        return found
    with _Open.lock:
        found = _Open.loop
        if found is None or found.closing:
            _watch()
            found = Loop()
            try:
                found.thread.start()
            except RuntimeError:
                # The system has no more threads; there may be one the next time.
                found.loop.close()
                raise
            _Open.loop = found
        return found


def _stop(grace: float, run: Run | None, hurry: Callable[[], bool]) -> None:
    """End the loop that was started in `run`, or any if it is None."""
    began, left = time.monotonic(), grace
    # A thread may have started another one meanwhile.
    while (found := _Open.loop) is not None and (run is None or found.run is run):
        found.stop(left, hurry)
        found.run = None
        with _Open.lock:
            if _Open.loop is found:
                _Open.loop = None
        left = began + grace - time.monotonic()
        if left <= 0 or hurry():
            return


def _tasks_of_loop() -> list[_dump.Task] | None:
    found = _Open.loop
    return _stacks.of(found) if found is not None else []


def _idle_threads() -> int:
    found = _Open.loop
    return int(found is not None and found.thread.is_alive() and found.idle())


@functools.cache
def _watch() -> None:
    # Once in a process and its children. The interpreter's end is the loop's, too, if no goroutine was ever started.
    _exit.started()
    _exit.behind.append(_stop)
    _exit.idle_threads.append(_idle_threads)
    _dump.tasks_of_loop = _tasks_of_loop
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """Forget the parent's loop, whose thread is not here."""
    _Open.lock = _runtime.Mutex()
    found, _Open.loop = _Open.loop, None
    if found is not None:
        _Open.left.append(found)
