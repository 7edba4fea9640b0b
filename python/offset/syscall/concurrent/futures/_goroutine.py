"""`GoroutineExecutor`: an executor whose calls run in goroutines.

Invariants:

* Under the lock: `_running` counts the calls whose goroutines have been asked for and have not ended; calls are in
  `_pending` only while it is `_max_workers`.
* A call counts in `_calls` from its submission until its future has a result, whatever kept it from one: the runtime
  tells a `_Call` when its goroutine is over, even if that was cancelled before it began.
"""

from __future__ import annotations

import collections
import contextvars
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from offset import _runtime
from offset.syscall.concurrent.futures._base import Executor, Future
from offset.syscall.threading import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class GoroutineExecutor(Executor):
    """Runs each call in a goroutine of its own, at most `max_workers` of them at once; None is no limit.

    Calls begin in the order of their submission, with the contextvars of who submitted them.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = max_workers
        self._lock = Lock()
        self._calls = _runtime.WaitGroup()
        self._pending: collections.deque[_Call] = collections.deque()
        self._running = 0
        self._shutdown = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` called; give the future of its result. Raises RuntimeError after `shutdown`."""
        call = _Call(fn, args, kwargs)
        with self._lock:
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            call.executor = self
            self._calls.add()
            if self._running == self._max_workers:
                self._pending.append(call)
                return call.future
            self._running += 1
        call.start()
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those there are, if `wait` is true.

        With `cancel_futures` those that have not begun are cancelled.
        """
        dropped: list[_Call] = []
        with self._lock:
            self._shutdown = True
            if cancel_futures:
                dropped.extend(self._pending)
                self._pending.clear()
        for call in dropped:
            call.drop()
        if wait:
            self._calls.wait()

    def stats(self) -> dict[str, Any]:
        """Give `running` and `pending`: the calls that have begun, and those that wait for others to end."""
        with self._lock:
            return {"running": self._running, "pending": len(self._pending)}

    def _next(self) -> None:
        """Let the next call begin in place of one that has ended."""
        with self._lock:
            if not self._pending:
                self._running -= 1
                return
            call = self._pending.popleft()
        call.start()


class _Call:
    """A call on its way: the function of its goroutine."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Until the call is over, in whatever way.
        self.executor: GoroutineExecutor | None = None
        self.future: Future[Any] = Future()
        self.work = [(fn, args, kwargs)]
        self.context = contextvars.copy_context()
        # The goroutine is named after it.
        self.__qualname__ = getattr(fn, "__qualname__", None) or type(fn).__qualname__

    def start(self) -> None:
        """Start its goroutine."""
        _runtime.go(self)

    def __call__(self) -> None:
        self.context.run(_run, self.future, self.work)

    def __offset_over__(self, error: BaseException | None) -> bool:
        executor, self.executor = self.executor, None
        assert executor is not None
        answered = error is not None and _answer(self.future, error)
        executor._calls.done()
        executor._next()
        return answered

    def drop(self) -> GoroutineExecutor:
        """Cancel it, as it will not be called; give its executor."""
        executor, self.executor = self.executor, None
        assert executor is not None
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()
        executor._calls.done()
        return executor


def _answer(future: Future[Any], error: BaseException) -> bool:
    """Give the future of a call that was interrupted outside its function what it lacks; whether that was the error."""
    if future.done():
        return False
    if future.cancel():
        future.set_running_or_notify_cancel()
        return False
    # Without its frames, which have the future.
    future.set_exception(error.with_traceback(None))
    return True


def _run(future: Future[Any] | None, work: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> None:
    """Make the call and give the future what came of it."""
    assert future is not None
    if not future.set_running_or_notify_cancel():
        return
    fn, args, kwargs = work.pop()
    try:
        result = fn(*args, **kwargs)
    except BaseException as exc:
        future.set_exception(exc)
        # It holds the exception, whose traceback holds this frame.
        future = None
    else:
        future.set_result(result)
