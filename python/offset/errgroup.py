"""Groups of goroutines that end together, as Go's `golang.org/x/sync/errgroup`, with Python's `with`.

    with errgroup.Group(limit=8) as group:
        pages = group.map(fetch, addresses)

No member outlives the block. The first error cancels the group's context, with itself as the cause, and every error is
raised in the end, alone or in an ExceptionGroup with the first one first.

Invariants. `_lock` guards the counts and the list of errors, and is held over nothing that waits. A member is counted
before it starts and until its outcome is in its task; `_members` (a WaitGroup) says when there is none. Once `wait` has
found none the group is over, and stays so. What a member raises because the group's context is over, when it is over
for a known reason, says nothing new and is left out (`_echoes`); everything else is kept.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from offset import _dump, _runtime, context
from offset._errors import GoroutineExit, PanicError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from offset._duration import Seconds


__all__ = ["Group", "Task"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_TITLE = "several members of a group failed"


class Task(Generic[R]):
    """A member of a group; `Group.go` gives it."""

    __slots__ = ("__weakref__", "_error", "_goroutine", "_over", "_value")

    def __init__(self) -> None:
        self._over = _runtime.Note()
        self._value: Any = None
        self._error: BaseException | None = None
        self._goroutine: _runtime.Goroutine | None = None

    @property
    def goroutine(self) -> _runtime.Goroutine:
        """The goroutine that it is."""
        assert self._goroutine is not None
        return self._goroutine

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def result(self, timeout: Seconds | None = None) -> R:
        """Wait until it has ended; give what its function returned, or raise what that raised.

        Raises TimeoutError when `timeout` seconds are over, and PanicError if the goroutine was ended without a result.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        result: R = self._value
        return result

    def exception(self, timeout: Seconds | None = None) -> BaseException | None:
        """Wait until it has ended; give what its function raised, None if it returned. Raises as `result` does."""
        if not self._over.wait(timeout):
            raise TimeoutError("the task has not ended in time")
        return self._error

    def cancel(self) -> None:
        """Raise GoroutineExit in it, as `Goroutine.cancel`. The group goes on."""
        self.goroutine.cancel()

    def stats(self) -> dict[str, Any]:
        """Give whether it has ended, and those of its goroutine."""
        return {"done": self.done, **self.goroutine.stats()}

    def __repr__(self) -> str:
        state = "running" if not self.done else "returned" if self._error is None else f"raised {self._error!r}"
        return f"<errgroup.Task {self.goroutine.name} {state}>"


class Group:
    """Goroutines that work on one thing (Go: errgroup.Group).

    `ctx` is the group's context, below the one that is given, or else below that of the scope around it
    (`context.current()`); members run in a `scope` of it, and so does the `with` block. It is over when a member fails,
    when the block raises, and at the end.

    `limit` is how many members may run at once; None or a negative number for any number, 0 for none.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_cancel",
        "_closed",
        "_ended",
        "_errors",
        "_failed",
        "_limit",
        "_lock",
        "_members",
        "_places",
        "_running",
        "_started",
        "_stopped",
        "ctx",
    )

    def __init__(self, ctx: context.Context | None = None, limit: int | None = None) -> None:
        self.ctx, self._cancel = context.with_cancel_cause(context.current() if ctx is None else ctx)
        self._lock = _runtime.StateMutex()
        self._members = _runtime.WaitGroup()
        self._running = self._started = self._failed = 0
        self._errors: list[BaseException] = []
        # What the end of the context raised in a member first, if nothing else went wrong.
        self._ended: BaseException | None = None
        self._closed = self._stopped = False
        self._body: context.scope | None = None
        self._limit: int | None = None
        self._places: tuple[_runtime.Semaphore, ...] = ()
        self._admit(limit)

    # Members.

    def go(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]:
        """Start a goroutine that calls `fn(*args, **kwargs)` as a member; wait for a place if there is a limit.

        Raises TypeError if `fn` cannot be called, and RuntimeError once the group is over.
        """
        _runtime.check_callable("Group.go", fn)
        places = self._places
        for place in places:
            place.acquire()
        return self._start(places, fn, args, kwargs)

    def try_go(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R] | None:
        """As `go`, but None if there is no place at the moment."""
        _runtime.check_callable("Group.try_go", fn)
        places = self._places
        if not all(place.try_acquire() for place in places):
            return None
        return self._start(places, fn, args, kwargs)

    def map(
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        /,
        *,
        limit: int | None = None,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> list[R]:
        """Call `fn` for each item, each in a member, and give the results in the order of the items.

        Items are taken when there is a place for them, so there may be very many. `limit` is how many of these calls
        run at once, besides the group's own limit. `progress(done, total)` is called after each; `total` is None if
        `items` has no length. Raises the first error, after all of these members have ended.
        """
        _runtime.check_callable("Group.map", fn)
        places = _places(limit)
        total = len(items) if isinstance(items, Sized) else None
        lock = _runtime.StateMutex()
        ended = 0

        def call(item: T) -> R:
            nonlocal ended
            result = fn(item)
            if progress is not None:
                # Under the lock, so that the numbers come in order.
                with lock:
                    ended += 1
                    progress(ended, total)
            return result

        tasks: list[Task[R]] = []
        cut = False
        try:
            for item in items:
                if self.ctx.err() is not None:
                    cut = True
                    break
                held: list[_runtime.Semaphore] = []
                try:
                    for place in (*places, *self._places):
                        place.acquire()
                        held.append(place)
                except BaseException:
                    for place in held:
                        place.release()
                    raise
                tasks.append(self._start(tuple(held), call, (item,), {}, fn))
            for task in tasks:
                task._over.wait()
        except BaseException as error:
            # Of no use without those that are missing.
            self._cancel(error)
            _wait_for(tasks)
            known = self._first()
            if known is not None and self._echoes(error):
                raise known from None
            raise
        errors = [task._error for task in tasks if task._error is not None]
        if errors or cut:
            raise self._first() or next(iter(errors), None) or context._error_of(self.ctx)
        results: list[R] = [task._value for task in tasks]
        return results

    def set_limit(self, limit: int | None) -> None:
        """Change how many members may run at once. Raises RuntimeError while there are any (Go: Group.SetLimit)."""
        with self._lock:
            if self._running:
                raise RuntimeError(
                    f"the limit cannot change while {self._running} members run; set it first, or after wait()"
                )
            self._admit(limit)

    @property
    def limit(self) -> int | None:
        """How many members may run at once; None for any number."""
        return self._limit

    def cancel(self, cause: BaseException | None = None) -> None:
        """End the group's context: members and block stop at what they wait for. It is no error of the group."""
        self._stopped = self._stopped or self.ctx.err() is None
        self._cancel(cause)

    def wait(self) -> None:
        """Wait until no member is left, end the group, and raise what went wrong (Go: Group.Wait).

        That is the first error alone, or an ExceptionGroup of all with the first one first. If the waiting goroutine is
        itself ended meanwhile, the members are cancelled and waited for all the same.
        """
        self._end(None)

    def stats(self) -> dict[str, Any]:
        """Give how many members run, were started and failed, and the limit."""
        with self._lock:
            return {
                "running": self._running,
                "started": self._started,
                "failed": self._failed,
                "limit": self._limit,
            }

    def __enter__(self) -> Self:
        if _runtime.current() is not None:
            body = context.scope(self.ctx)
            body.__enter__()
            self._body = body
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._body is not None:
            self._body.__exit__(kind, error, traceback)
            self._body = None
        return self._end(error)

    def __del__(self) -> None:
        # A group that was not made has none.
        for error in getattr(self, "_errors", ()):
            _dump.write(
                "An error of an errgroup.Group that nobody waited for; call its wait(), or use it as a `with` block:\n"
                + _dump.exception(error)
            )

    def __repr__(self) -> str:
        return f"<errgroup.Group of {self._running} running{', over' if self._closed else ''}>"

    # Inside.

    def _admit(self, limit: int | None) -> None:
        self._places = _places(limit)
        self._limit = limit if self._places else None

    def _start(
        self,
        places: tuple[_runtime.Semaphore, ...],
        fn: Callable[..., R],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        named: object = None,
    ) -> Task[R]:
        """Start a member, which has the places and gives them back."""
        task: Task[R] = Task()
        with self._lock:
            if self._closed:
                for place in places:
                    place.release()
                raise RuntimeError("the group is over, as its wait() has returned; make another one")
            self._running += 1
            self._started += 1
            self._members.add()
        name = _name(fn if named is None else named)
        try:
            task._goroutine = _runtime.go(_Member(self, task, places, fn, args, kwargs, name))
        except BaseException:
            self._settle(task, places, None, None)
            raise
        task._goroutine.name = name
        return task

    def _settle(
        self, task: Task[Any], places: tuple[_runtime.Semaphore, ...], value: Any, error: BaseException | None
    ) -> None:
        """A member has ended."""
        task._value = value
        if isinstance(error, GoroutineExit):
            task._error = PanicError("the goroutine was ended before its function returned")
        else:
            task._error = error
            if error is not None:
                self._note(error)
        with self._lock:
            self._failed += task._error is not None
            self._running -= 1
        task._over.set()
        for place in places:
            place.release()
        self._members.done()

    def _note(self, error: BaseException) -> bool:
        """Keep an error, and end the context if it says anything new; false if it does not."""
        with self._lock:
            if any(known is error for known in self._errors):
                # The block has it from a task.
                return True
            if self._echoes(error):
                self._ended = self._ended or error
                return False
            self._errors.append(error)
        self._cancel(error)
        return True

    def _echoes(self, error: BaseException) -> bool:
        """Whether it only says that the group's context is over."""
        err = self.ctx.err()
        if err is None or type(error) is not type(err):
            return False
        reason = context.cause(self.ctx)
        return error is err or error.__cause__ is (None if reason is err else reason)

    def _first(self) -> BaseException | None:
        with self._lock:
            return self._errors[0] if self._errors else None

    def _end(self, body: BaseException | None) -> bool:
        """Wait, and raise what went wrong; true if what the block raised is nothing."""
        echo = body is not None and not self._note(body)
        interrupts = 0
        while True:
            try:
                self._members.wait()
            except BaseException as interruption:
                self._note(interruption)
                interrupts += isinstance(interruption, KeyboardInterrupt)
                if interrupts > 1:
                    # Somebody is in a hurry.
                    raise
                continue
            with self._lock:
                if not self._running:
                    self._closed = True
                    break
        self._cancel(None)
        with self._lock:
            errors, self._errors = self._errors, []
            ended, self._ended = self._ended, None
        if not errors and ended is not None and not self._stopped:
            errors = [ended]
        if not errors:
            return echo
        if len(errors) == 1 and errors[0] is body:
            return False
        raise _together(errors)


class _Member:
    """What a member's goroutine calls, and tells when it is over."""

    __slots__ = ("_args", "_fn", "_group", "_kwargs", "_name", "_places", "_task", "_value")

    def __init__(
        self,
        group: Group,
        task: Task[Any],
        places: tuple[_runtime.Semaphore, ...],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str,
    ) -> None:
        self._group, self._task, self._places, self._name = group, task, places, name
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._value: Any = None

    def __getattr__(self, name: str) -> Any:
        # Without the GIL it may be asked before its goroutine has been given a name.
        if name == "__qualname__":
            return self._name
        raise AttributeError(name)

    def __call__(self) -> None:
        with context.scope(self._group.ctx):
            self._value = self._fn(*self._args, **self._kwargs)

    def __offset_over__(self, error: BaseException | None) -> bool:
        if error is not None and error.__traceback__ is not None:
            # Without the frame of the call, which has the task.
            error = error.with_traceback(error.__traceback__.tb_next)
        self._group._settle(self._task, self._places, self._value, error)
        return True


_dump.hidden.update((_Member.__call__.__code__, _Member.__offset_over__.__code__))


def _places(limit: int | None) -> tuple[_runtime.Semaphore, ...]:
    if limit is None:
        return ()
    if isinstance(limit, bool) or not hasattr(limit, "__index__"):
        raise TypeError(f"a limit is a number or None, not {type(limit).__name__}")
    return () if limit < 0 else (_runtime.Semaphore(limit),)


def _name(fn: object) -> str:
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def _wait_for(tasks: list[Task[Any]]) -> None:
    """Wait for tasks, whatever comes in between."""
    for task in tasks:
        while not task.done:
            try:
                task._over.wait()
            except KeyboardInterrupt:
                raise
            except BaseException:
                # The caller has one to raise.
                continue


def _together(errors: list[BaseException]) -> BaseException:
    """Make one error of several. What ends the program does so by itself, and has the others as its cause."""
    if len(errors) == 1:
        return errors[0]
    for error in errors:
        if isinstance(error, SystemExit | KeyboardInterrupt):
            others = [other for other in errors if other is not error]
            error.__cause__ = others[0] if len(others) == 1 else BaseExceptionGroup(_TITLE, others)
            return error
    return BaseExceptionGroup(_TITLE, errors)
