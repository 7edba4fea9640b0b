"""Asynchronous generators and context managers from goroutines: `iterate`, `enter`.

What `async for` and `async with` do must begin and end in one task: time limits, task groups and cancel scopes belong
to the task that entered them. So a task of its own, a session, does what the goroutine asks for, one thing after
another.

Invariants:

* A session has one request at a time. Who leaves a request has cancelled it, as with any call; the session goes on.
* A request is among its loop's calls until its note is set, and so is ended by the session, by its end, or by the
  loop's.
* A cancellation that no request asked for is the session's own: a time limit or a task group, entered in it, ends what
  is done under it. Then `interrupt` tells the goroutine. There may be more of them, and anyio sends one in every turn
  of the loop: the first counts. Only the end of the loop ends the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from offset import _runtime, context
from offset._errors import Canceled, ChannelClosed, DeadlineExceeded, GoroutineExit
from offset.aio._await import Call, check_thread, own_way
from offset.aio._loop import OVER
from offset.aio._tasks import restore

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

T = TypeVar("T")
P = ParamSpec("P")
V_co = TypeVar("V_co", covariant=True)

# The end of an iteration.
_END: Any = object()


class _Request(Call):
    """Something that a session is asked to do."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        # What it awaits is made later, in the task.
        super().__init__(None)  # type: ignore[arg-type]
        self.make = make

    async def run(self, task: asyncio.Task[Any]) -> None:
        """Do it, in the session's task."""
        if self.begun:
            return
        self.begun = True
        restore(self.variables)
        result, error, before = None, None, task.cancelling()
        try:
            self.cancel = task.cancel
            result = await self.make()
        except BaseException as raised:
            error = raised
        finally:
            self.cancel = None
            # The session is not cancelled, neither now nor by what is to be raised later (`_tasks.sent`).
            if self.cancelled and task.cancelling() > before:
                task.uncancel()
        self.variables = contextvars.copy_context()
        self.end(result, error)
        # The traceback holds this frame.
        error = None


class _Session:
    """A task that does what it is asked, one thing after another."""

    def __init__(self) -> None:
        self.requests: _runtime.Chan[_Request] = _runtime.Chan(1, "requests of a session")
        # Called once, when the session's task is cancelled while nothing was asked for.
        self.interrupt: Callable[[], object] = lambda: None
        self.interruption: asyncio.CancelledError | None = None
        self.call = Call(self._serve())
        hand_in, self.submit = own_way()
        hand_in(self.call)

    async def _serve(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                try:
                    request = await anext(aiter(self.requests), None)
                except asyncio.CancelledError as error:
                    if self.call.owner is not None and self.call.owner.closing:
                        raise
                    if self.interruption is None:
                        self.interruption = error
                        self.interrupt()
                    continue
                if request is None:
                    return
                await request.run(task)
        finally:
            self.end()
            while (request := self.requests.try_recv()[0]) is not None:
                request.end(None, RuntimeError(OVER))

    def _hand_in(self, request: _Request) -> None:
        request.owner = owner = self.call.owner
        assert owner is not None
        owner.calls.add(request)
        try:
            self.requests.send(request)
        except ChannelClosed:
            raise RuntimeError(OVER) from None
        # In this order: who closes the loop looks for calls afterwards.
        if owner.closed and request in owner.calls:
            raise RuntimeError(OVER)

    def do(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """Have `make()` awaited in the session, and give its result."""
        if asyncio._get_running_loop() is not None:
            # A generator that is collected on the loop's thread is closed, but cannot be waited for.
            self.ask(make)
            return None
        request = _Request(make)
        request.wait(self._hand_in, self.submit)
        return request.outcome()

    def ask(self, make: Callable[[], Awaitable[Any]]) -> None:
        """Have `make()` awaited in the session, if that goes on; nobody waits for it."""
        with contextlib.suppress(ChannelClosed):
            self.requests.try_send(_Request(make))

    def end(self) -> None:
        """Have the task end after what it was asked for."""
        with contextlib.suppress(ChannelClosed):
            self.requests.close()


def iterate(iterable: AsyncIterable[T]) -> Generator[T, None, None]:
    """Iterate over an asynchronous generator, or another asynchronous iterable, in a goroutine: `async for`.

    The goroutine parks while the next value is made, in one task of the library's loop from the first value to the
    last. When the iteration is left before its end, by `break` or an error, an asynchronous generator is closed.
    Cancellation and context variables are as with `await_`. Raises TypeError for what cannot be iterated over, and
    RuntimeError as `await_`.
    """
    if not hasattr(iterable, "__aiter__"):
        hint = "; call it first" if inspect.isasyncgenfunction(iterable) else ""
        raise TypeError(f"iterate() takes an asynchronous iterable, not {type(iterable).__name__}{hint}")
    check_thread("iterate")
    return _iterate(iterable)


def _iterate(iterable: AsyncIterable[T]) -> Generator[T, None, None]:
    session = _Session()
    iterator: Any = None

    async def begin() -> None:
        nonlocal iterator
        iterator = aiter(iterable)

    async def following() -> Any:
        return await anext(iterator, _END)

    try:
        session.do(begin)
        try:
            while (value := session.do(following)) is not _END:
                yield value
                del value
        finally:
            # The end of the loop has closed it.
            if hasattr(iterator, "aclose") and not session.requests.closed:
                session.do(iterator.aclose)
    finally:
        session.end()


def _is_manager(thing: Any) -> bool:
    return hasattr(type(thing), "__aenter__") and hasattr(type(thing), "__aexit__")


class enter(Generic[V_co]):
    """Enter an asynchronous context manager in a `with` block of a goroutine: `async with`.

        with aio.enter(httpx.AsyncClient()) as client:
            page = aio.await_(client.get(url))

    What wants a running loop when it is made is given as a function, with its arguments, which is called on the loop:
    `aio.enter(aiohttp.ClientSession)`, `aio.enter(asyncio.timeout, 5)`. Gives what `__aenter__` gives. Both ends run
    in one task of the library's loop. If that is cancelled meanwhile, by `asyncio.timeout` or a task group that is
    entered so, what waits in the block ends as in a `context.scope` that is over, and the block raises what the
    context manager makes of it. What ends the goroutine's wait in the block, a context's scope or `cancel()`, is
    asyncio.CancelledError to the context manager. Raises TypeError for what is none, and RuntimeError as `await_`.
    """

    __slots__ = ("_cancel", "_entered", "_inside", "_make", "_manager", "_scope", "_session")

    @overload
    def __init__(self, manager: AbstractAsyncContextManager[V_co, Any], /) -> None: ...
    @overload
    def __init__(
        self, make: Callable[P, AbstractAsyncContextManager[V_co, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...

    def __init__(self, manager: Any, /, *args: Any, **kwargs: Any) -> None:
        self._manager: Any = None
        # From the beginning of `__enter__` to the end of `__exit__`.
        self._inside = False
        # Set in the session, once `__aenter__` has ended well.
        self._entered = False
        self._make: Callable[[], Any] = lambda: manager
        if not _is_manager(manager):
            if not callable(manager):
                raise TypeError(f"enter() takes an asynchronous context manager, not {type(manager).__name__}")
            self._make = functools.partial(manager, *args, **kwargs)
        elif args or kwargs:
            raise TypeError("enter() takes arguments for a function that makes a context manager, not for the manager")
        self._scope: context.scope | None = None

    def stats(self) -> dict[str, Any]:
        """Give whether it is entered."""
        return {"entered": self._inside and self._entered}

    def __enter__(self) -> V_co:
        check_thread("enter")
        if self._inside:
            raise RuntimeError("this enter() is entered already; a block inside of its block needs one of its own")
        self._inside, self._entered = True, False
        try:
            return self._enter()
        except BaseException:
            self._inside = False
            raise

    def _enter(self) -> V_co:
        self._session = _Session()
        around = context.current()
        ctx, self._cancel = context.with_cancel(around if around.err() is None else context.without_cancel(around))
        self._session.interrupt = self._cancel
        try:
            value: V_co = self._session.do(self._begin)
            if _runtime.current() is not None:
                self._scope = context.scope(ctx)
                self._scope.__enter__()
        except BaseException:
            self._scope = None
            try:
                self._withdraw()
            finally:
                self._session.end()
                self._cancel()
            raise
        return value

    async def _begin(self) -> Any:
        manager = self._make()
        if not _is_manager(manager):
            raise TypeError(f"enter() was given a function that makes no asynchronous context manager: {manager!r}")
        self._manager = manager
        value = await type(manager).__aenter__(manager)
        self._entered = True
        return value

    def _withdraw(self) -> None:
        """Leave the context manager if it was entered although the goroutine was told to end at that moment."""
        if self._entered:
            with contextlib.suppress(asyncio.CancelledError):
                self._left(asyncio.CancelledError())
        else:
            # It may be entered yet, if it did not end in its grace time.
            self._session.ask(self._leave_late)

    async def _leave_late(self) -> None:
        if self._entered:
            error = asyncio.CancelledError()
            await type(self._manager).__aexit__(self._manager, type(error), error, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not self._inside:
            raise RuntimeError("this enter() is not entered, and cannot be left")
        scope, self._scope = self._scope, None
        try:
            if scope is not None:
                scope.__exit__(kind, error, traceback)
            ended = self._session.interruption is not None and (error is None or isinstance(error, Canceled))
            if ended or isinstance(error, GoroutineExit | Canceled | DeadlineExceeded):
                return self._cancelled(error, ended)
            return self._left(error)
        finally:
            self._session.end()
            self._cancel()
            self._inside = False
            # Its traceback holds this frame.
            del error, traceback

    def _left(self, error: BaseException | None) -> bool:
        """Leave the context manager with `error`; tell whether it swallows that."""
        manager = self._manager
        if error is None:
            leave = functools.partial(type(manager).__aexit__, manager, None, None, None)
        else:
            leave = functools.partial(type(manager).__aexit__, manager, type(error), error, error.__traceback__)
        try:
            return bool(self._session.do(leave))
        finally:
            # Its traceback holds this frame.
            del error, leave

    def _cancelled(self, error: BaseException | None, ended: bool) -> bool:
        """Leave it with a cancellation: the session's own if that has ended the block, or else the goroutine's."""
        cancellation = (self._session.interruption if ended else None) or asyncio.CancelledError()
        if not ended:
            cancellation.__cause__ = error
        try:
            swallowed = self._left(cancellation)
        except asyncio.CancelledError:
            swallowed = False
        if ended and error is None and not swallowed:
            raise cancellation
        # What ends the goroutine goes on.
        return ended and swallowed
