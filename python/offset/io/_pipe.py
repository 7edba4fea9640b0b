"""`pipe`: a synchronous pipe in memory, as Go's `io.Pipe`. Nothing is buffered: a write lends its data to reads.

Invariants, all under `_Pipe.lock`, which is held for moments only:

* `current` is the write in progress, or None. Reads take from it; when all of it has been taken, or an end is closed,
  it is None again. Its writer holds `writing`, so writes follow one another whole.
* An end is closed once; the first error counts.
* Whoever changes something wakes all who wait for it, not one: the one might be cancelled on its way.
"""

from __future__ import annotations

import errno
from operator import index
from typing import TYPE_CHECKING

from offset._duration import seconds as duration
from offset._errors import DeadlineExceeded, note_written
from offset._runtime import Cond, Mutex, StateMutex, now
from offset.io._errors import ClosedPipeError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn, Self

    from typing_extensions import Buffer

    from offset._duration import Seconds

# How much a read to the end takes at a time.
_CHUNK = 65536

_LATE = "write to a pipe timed out"


def pipe() -> tuple[PipeReader, PipeWriter]:
    """Make a pipe, as Go's `io.Pipe`; give its reading and its writing end.

    It is synchronous: a write waits until reads have taken all of its data, or the reader is closed. Both
    ends may be used by many goroutines and threads at once: writes do not interleave, and each read gets the
    next part.
    """
    both = _Pipe()
    return PipeReader(both), PipeWriter(both)


class _Write:
    """A write in progress: its data, and how much of it was taken."""

    __slots__ = ("taken", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.taken = 0


class _Pipe:
    """What the two ends share."""

    __slots__ = ("consumed", "current", "lock", "passed", "readable", "reader", "writer", "writing")

    def __init__(self) -> None:
        self.lock = StateMutex()
        self.readable = Cond(self.lock)
        self.consumed = Cond(self.lock)
        self.writing = Mutex()
        self.current: _Write | None = None
        self.reader = _End()
        self.writer = _End()
        self.passed = 0

    def close(self, end: _End, error: BaseException | None) -> None:
        if isinstance(error, type) and issubclass(error, BaseException):
            error = error()
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"close_with_error() takes an exception or None, not {type(error).__name__}")
        with self.lock:
            if not end.closed:
                end.closed = True
                end.error = error
                end.traceback = None if error is None else error.__traceback__
                self.current = None
                self.readable.broadcast()
                self.consumed.broadcast()

    def offered(self, deadline: float | None) -> _Write | None:
        """Wait for a write and give it; None at the end. Under the lock."""
        while True:
            if self.reader.closed:
                raise ClosedPipeError("read from the end of a pipe that is closed")
            if self.current is not None:
                return self.current
            if self.writer.closed:
                if self.writer.error is not None:
                    self.writer.fail()
                return None
            try:
                self.readable.wait(timeout=_left(deadline))
            except DeadlineExceeded:
                raise
            except TimeoutError:
                raise TimeoutError("read from a pipe timed out") from None

    def take(self, write: _Write, count: int) -> None:
        """Count what was read of `write`. Under the lock."""
        write.taken += count
        self.passed += count
        if write.taken == len(write.view):
            self.current = None
            self.consumed.broadcast()

    def check_open(self, written: int) -> None:
        """Raise if nothing can be written any more. Under the lock."""
        if self.writer.closed:
            raise _cut(ClosedPipeError("write to the end of a pipe that is closed"), written)
        if self.reader.closed:
            if self.reader.error is not None:
                _cut(self.reader.error, written)
                self.reader.fail()
            raise _cut(BrokenPipeError(errno.EPIPE, "the reader of the pipe is closed"), written)

    def stats(self) -> dict[str, Any]:
        with self.lock:
            left = 0 if self.current is None else len(self.current.view) - self.current.taken
            return {"passed": self.passed, "offered": left, "closed": (self.reader.closed, self.writer.closed)}


class _End:
    """Whether an end is closed, and what the other one raises then, if it is not the usual."""

    __slots__ = ("closed", "error", "traceback")

    def __init__(self) -> None:
        self.closed = False
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None

    def fail(self) -> NoReturn:
        assert self.error is not None
        # Each time with the traceback of the close, or it would grow with every call.
        raise self.error.with_traceback(self.traceback)


class PipeReader:
    """The reading end of a `pipe`. A context manager, which closes it."""

    __slots__ = ("__weakref__", "_pipe")

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    def read(self, n: int | None = -1, /, timeout: Seconds | None = None) -> bytes:
        """Wait for a write and give up to `n` bytes of it; b"" at the end, again and again.

        Without `n`, or if it is negative, all until the end. Raises the writer's error after the writer's
        `close_with_error`, ClosedPipeError if this end is closed, TimeoutError when `timeout` seconds are over.
        """
        size = -1 if n is None else index(n)
        deadline = _deadline(timeout)
        if size >= 0:
            return self._take(size, deadline)
        parts = []
        while part := self._take(_CHUNK, deadline):
            parts.append(part)
        return b"".join(parts)

    def _take(self, size: int, deadline: float | None) -> bytes:
        pipe = self._pipe
        with pipe.lock:
            if size == 0 and not pipe.reader.closed:
                return b""
            write = pipe.offered(deadline)
            if write is None:
                return b""
            part = bytes(write.view[write.taken : write.taken + size])
            pipe.take(write, len(part))
            return part

    def read_into(self, buffer: Buffer, /, timeout: Seconds | None = None) -> int:
        """Read as `read(len(buffer))`, into `buffer`; give the number of bytes, 0 at the end."""
        pipe = self._pipe
        deadline = _deadline(timeout)
        with memoryview(buffer) as whole, whole.cast("B") as view, pipe.lock:
            if view.readonly:
                raise TypeError("read_into() needs a buffer that can be written to")
            if len(view) == 0 and not pipe.reader.closed:
                return 0
            write = pipe.offered(deadline)
            if write is None:
                return 0
            size = min(len(view), len(write.view) - write.taken)
            view[:size] = write.view[write.taken : write.taken + size]
            pipe.take(write, size)
            return size

    def close(self) -> None:
        """Close this end: writes raise BrokenPipeError from now on, those that wait too."""
        self._pipe.close(self._pipe.reader, None)

    def close_with_error(self, exc: BaseException | None, /) -> None:
        """Close this end: writes raise `exc`. An end that is closed already stays as it is."""
        self._pipe.close(self._pipe.reader, exc)

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._pipe.reader.closed

    def stats(self) -> dict[str, Any]:
        """Give the bytes that have passed, how many a write offers, and which ends are closed."""
        return self._pipe.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.io.PipeReader{' closed' if self.closed else ''}>"


class PipeWriter:
    """The writing end of a `pipe`. A context manager, which closes it."""

    __slots__ = ("__weakref__", "_pipe")

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    def write(self, data: Buffer, /, timeout: Seconds | None = None) -> int:
        """Wait until reads have taken all of `data`; give its length.

        Raises BrokenPipeError when the reader is closed, or the reader's error after its `close_with_error`,
        ClosedPipeError if this end is closed, TimeoutError when `timeout` seconds are over.
        `characters_written` of these, and of what else ends the wait, says how much was taken.
        """
        pipe = self._pipe
        deadline = _deadline(timeout)
        with memoryview(data) as whole, whole.cast("B") as view:
            write = _Write(view)
            try:
                pipe.writing.lock(timeout=_left(deadline))
            except DeadlineExceeded as exc:
                _cut(exc, 0)
                raise
            except TimeoutError:
                raise _cut(TimeoutError(_LATE), 0) from None
            try:
                with pipe.lock:
                    self._offer(write, deadline)
            finally:
                pipe.writing.unlock()
            return len(view)

    def _offer(self, write: _Write, deadline: float | None) -> None:
        pipe = self._pipe
        pipe.check_open(0)
        if len(write.view) == 0:
            return
        pipe.current = write
        pipe.readable.broadcast()
        try:
            while pipe.current is write:
                pipe.consumed.wait(timeout=_left(deadline))
        except DeadlineExceeded as exc:
            _cut(exc, write.taken)
            raise
        except TimeoutError:
            raise _cut(TimeoutError(_LATE), write.taken) from None
        except BaseException as exc:
            _cut(exc, write.taken)
            raise
        finally:
            if pipe.current is write:
                pipe.current = None
        if write.taken < len(write.view):
            pipe.check_open(write.taken)

    def close(self) -> None:
        """Close this end: reads give b"" from now on, those that wait too."""
        self._pipe.close(self._pipe.writer, None)

    def close_with_error(self, exc: BaseException | None, /) -> None:
        """Close this end: reads raise `exc`. An end that is closed already stays as it is."""
        self._pipe.close(self._pipe.writer, exc)

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._pipe.writer.closed

    def stats(self) -> dict[str, Any]:
        """Give the bytes that have passed, how many a write offers, and which ends are closed."""
        return self._pipe.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.io.PipeWriter{' closed' if self.closed else ''}>"


def _cut(exc: BaseException, written: int) -> BaseException:
    """Say in `exc` how much of a write was taken before it."""
    note_written(exc, written)
    return exc


def _deadline(timeout: Seconds | None) -> float | None:
    return None if timeout is None else now() + duration(timeout)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - now()
