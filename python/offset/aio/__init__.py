"""asyncio, both ways: coroutines from goroutines, goroutines and channels from tasks.

From a goroutine, or a plain thread, `await_` waits for a coroutine or a future, `iterate` goes through an asynchronous
generator, and `enter` enters an asynchronous context manager; they run on an event loop in a thread that the library
owns. In tasks of asyncio, anyio and trio `await ch.arecv()`, `await ch.asend(value)`, `async for value in ch`,
`await select_async(...)`, `await goroutine` and `await to_goroutine(fn)` wait without stopping the loop. A channel may
have goroutines, threads and tasks of several loops at its ends at once.

How it works: `_tasks` is the side of tasks, over the operations of the extension, `_loop` the loop's thread, `_await` a
call that goes to a loop and back, `_session` what must be done by one task, `_trio` calls into a run of trio.
"""

from offset._runtime import select_async
from offset.aio._await import await_
from offset.aio._session import enter, iterate
from offset.aio._tasks import to_goroutine

__all__ = ["await_", "enter", "iterate", "select_async", "to_goroutine"]
