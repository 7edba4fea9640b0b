"""Channels and goroutines under asyncio: `arecv`, `asend`, `async for` and `await goroutine`.

The extension calls this module for them. An operation that cannot happen at once is done by a helper
goroutine, which wakes the event loop when it has ended.

Invariant: a coroutine of this module ends after the operation of its helper. When it is cancelled it
cancels the helper first; if the operation had happened by then, its result is given and the cancellation is
dropped, so that no value is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from offset import _runtime
from offset._errors import GoroutineExit, WouldBlock

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Generator

    Seconds = float | datetime.timedelta

T = TypeVar("T")

# How often, in seconds, a cancelled coroutine looks whether its helper ended without having begun.
_POLL = 0.005


async def arecv(channel: _runtime.Chan[T] | _runtime.RecvChan[T], timeout: Seconds | None = None) -> T:
    """Receive as `channel.recv(timeout)`; only the task waits."""
    try:
        value, ok = channel.try_recv()
    except WouldBlock:
        return await _offload(channel.recv, timeout)
    if ok:
        return value  # type: ignore[return-value]
    # Closed and drained: recv raises the error, with its message.
    return channel.recv(0)


async def asend(channel: _runtime.Chan[T] | _runtime.SendChan[T], value: T, timeout: Seconds | None = None) -> None:
    """Send as `channel.send(value, timeout)`; only the task waits."""
    if not channel.try_send(value):
        await _offload(channel.send, value, timeout)


async def anext(channel: _runtime.Chan[T] | _runtime.RecvChan[T]) -> T:
    """Receive for `async for`: raises StopAsyncIteration once the channel is closed and drained."""
    try:
        value, ok = channel.try_recv()
    except WouldBlock:
        value, ok = await _offload(channel.recv_ok)
    if not ok:
        raise StopAsyncIteration
    return value  # type: ignore[return-value]


def join(goroutine: _runtime.Goroutine) -> Generator[Any, None, None]:
    """Wait for the end of a goroutine; the iterator that `__await__` has to give."""
    return _join(goroutine).__await__()


async def _join(goroutine: _runtime.Goroutine) -> None:
    if goroutine.status != "dead":
        await _offload(goroutine.join)


async def _offload(operation: Callable[..., T], *args: Any) -> T:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    results: list[T] = []
    errors: list[BaseException] = []

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def work() -> None:
        try:
            # One call from C to C: no cancellation comes between the operation and the keeping of its result.
            results.extend(itertools.starmap(operation, (args,)))
        except GoroutineExit:
            pass
        except BaseException as exc:
            errors.append(exc)
        finally:
            # A loop that was closed has nobody waiting.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(wake)

    helper = _runtime.go(work)
    helper.name = f"await {getattr(operation, '__name__', 'operation')}"
    cancellation: asyncio.CancelledError | None = None
    while not ended.done() and helper.status != "dead":
        try:
            await asyncio.wait((ended,), timeout=None if cancellation is None else _POLL)
        except asyncio.CancelledError as exc:
            cancellation = exc
            helper.cancel()
    try:
        if results:
            return results[0]
        if cancellation is not None:
            raise cancellation
        if errors:
            raise errors[0]
        raise asyncio.CancelledError("the goroutine that waited was cancelled")
    finally:
        # An exception's traceback holds this frame.
        cancellation = None
        errors.clear()
