"""Buffers in front of readers and writers, as Go's package `bufio`.

Invariants:

* What was read and not given yet is a reader's `_data[_start:]`; what was written and not passed on yet is a
  writer's `_data`.
* The mutex is held during each call, waits included: calls of several goroutines follow one another. `close`
  of a reader does not take it, as it is meant to end a call that waits.
* Whatever a source or a destination raises, no byte is lost: what came stays in the buffer, and so does what
  was not taken.
"""

from __future__ import annotations

import errno
from operator import index
from typing import TYPE_CHECKING

from offset._errors import note_written, noted_written
from offset._runtime import Mutex
from offset.io._copy import CHUNK, read_some, reading, taken
from offset.io._errors import IncompleteReadError, LineTooLongError

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any, Self

    from typing_extensions import Buffer

    from offset.io._copy import Reader, Writer

_LONGEST = 65536


class BufferedReader:
    """Reads lines, records and parts of any reader, as Go's `bufio.Reader`. Iterates over lines; a context manager.

    It asks `src` for `size` bytes at a time. A line, or what `read_until` gives, may have `max_line` bytes. It
    waits as long as `src` does: its deadline is that of `src`. What has come before an exception stays in the
    buffer, so the call can be made again.
    """

    __slots__ = ("__weakref__", "_data", "_max_line", "_mutex", "_read", "_size", "_src", "_start")

    def __init__(self, src: Reader, size: int = CHUNK, *, max_line: int = _LONGEST) -> None:
        self._src = src
        self._read = reading(src)
        self._size = _positive(size, "size")
        self._max_line = _positive(max_line, "max_line")
        self._data = b""
        self._start = 0
        self._mutex = Mutex()

    def read(self, n: int | None = -1, /) -> bytes:
        """Give up to `n` bytes: what is buffered, or what one read gives; b"" at the end.

        Without `n`, all until the end.
        """
        size = -1 if n is None else index(n)
        with self._mutex:
            if size < 0:
                self._gather(None)
                return self._take(self.buffered)
            if not self.buffered:
                if size >= self._size:
                    # The buffer would only be in the way.
                    return read_some(self._read, size)
                if size:
                    self._fill()
            return self._take(min(size, self.buffered))

    def read_into(self, buffer: Buffer, /) -> int:
        """Read as `read(len(buffer))`, into `buffer`; give the number of bytes, 0 at the end."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError("read_into() needs a buffer that can be written to")
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)

    def read_full(self, n: int, /) -> bytes:
        """Give exactly `n` bytes. Raises IncompleteReadError at the end, with those that came in `partial`."""
        size = _count(n, "read_full")
        with self._mutex:
            if not self._gather(size):
                raise IncompleteReadError(self._take(self.buffered), size)
            return self._take(size)

    def read_line(self) -> bytes:
        r"""Give the next line with its b"\n", which the last one may lack; b"" at the end.

        Raises LineTooLongError if it has more than `max_line` bytes; they stay in the buffer.
        """
        with self._mutex:
            start = self._start
            end = self._data.find(b"\n", start) + 1
            if 0 < end - start <= self._max_line:
                self._start = end
                return self._data[start:end]
            size = self._find(b"\n")
            return self._take(self.buffered if size is None else size)

    def read_until(self, delimiter: bytes, /) -> bytes:
        """Give all up to and including `delimiter`.

        Raises IncompleteReadError at the end, with what came in `partial`, and LineTooLongError if it would be
        more than `max_line` bytes, which stay in the buffer.
        """
        if not delimiter:
            raise ValueError("read_until() needs a delimiter")
        with self._mutex:
            size = self._find(delimiter)
            if size is None:
                raise IncompleteReadError(self._take(self.buffered))
            return self._take(size)

    def _find(self, delimiter: bytes) -> int | None:
        """Read until `delimiter` is there; give how many bytes there are up to its end, None without one."""
        looked = 0
        while True:
            at = self._data.find(delimiter, self._start + looked)
            size = None if at < 0 else at + len(delimiter) - self._start
            if (self.buffered if size is None else size) > self._max_line:
                raise LineTooLongError(f"more than {self._max_line} bytes up to {delimiter!r}")
            if size is not None:
                return size
            # The beginning of a delimiter may be there already.
            looked = max(0, self.buffered - len(delimiter) + 1)
            if not self._fill():
                return None

    def peek(self, n: int, /) -> bytes:
        """Give the next `n` bytes without taking them, fewer only at the end."""
        size = _count(n, "peek")
        with self._mutex:
            self._gather(size)
            return self._data[self._start : self._start + size]

    def set_read_deadline(self, when: float | timedelta | None, /) -> None:
        """Let reads raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never.

        The deadline is that of the source, which knows how to be woken: of a connection, or a file that waits. Raises
        OSError if the source has none.
        """
        deadline = getattr(self._src, "set_read_deadline", None)
        if deadline is None:
            kind = type(self._src).__name__
            raise OSError(errno.ENOTSUP, f"a {kind} has no deadline; a context's scope ends what waits in a goroutine")
        deadline(when)

    @property
    def buffered(self) -> int:
        """How many bytes can be had without a read."""
        return len(self._data) - self._start

    def _fill(self) -> bool:
        """Read once more; False at the end."""
        data = read_some(self._read, self._size)
        self._data = self._data[self._start :] + data
        self._start = 0
        return bool(data)

    def _gather(self, n: int | None) -> bool:
        """Read until `n` bytes are buffered, or the end; False if it came before."""
        if n is not None and self.buffered >= n:
            return True
        # Joined once: much may come in little parts.
        parts = [self._data[self._start :]]
        size = len(parts[0])
        try:
            while n is None or size < n:
                part = read_some(self._read, self._size if n is None else max(self._size, n - size))
                if not part:
                    return False
                parts.append(part)
                size += len(part)
            return True
        finally:
            self._data = b"".join(parts)
            self._start = 0

    def _take(self, n: int) -> bytes:
        start = self._start
        self._start += n
        return self._data[start : self._start]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        line = self.read_line()
        if not line:
            raise StopIteration
        return line

    def close(self) -> None:
        """Close the source, if it can be closed."""
        _close(self._src)

    def stats(self) -> dict[str, Any]:
        """Give how many bytes are buffered, and the sizes."""
        return {"buffered": self.buffered, "size": self._size, "max_line": self._max_line}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


class BufferedWriter:
    """Gathers small writes to any writer, as Go's `bufio.Writer`. A context manager, which closes it.

    What is written goes to `dst` when more than `size` bytes have gathered, and at `flush` and `close`.
    """

    __slots__ = ("__weakref__", "_data", "_dst", "_mutex", "_size")

    def __init__(self, dst: Writer, size: int = CHUNK) -> None:
        self._dst = dst
        self._size = _positive(size, "size")
        self._data = bytearray()
        self._mutex = Mutex()

    def write(self, data: Buffer, /) -> int:
        """Take all of `data` and give its length. Raises what the destination raises.

        `characters_written` of an exception says how much of `data` was taken; what gathered before stays in the
        buffer until it can be written.
        """
        with self._mutex, memoryview(data) as whole, whole.cast("B") as view:
            size = len(view)
            if len(self._data) + size > self._size:
                try:
                    self._pass_on()
                except BaseException as exc:
                    note_written(exc, 0)
                    raise
            if size <= self._size:
                self._data += view
                return size
            done = 0
            try:
                while done < size:
                    part = bytes(view[done:])
                    done += taken(self._dst, part, self._dst.write(part))
            except BaseException as exc:
                note_written(exc, done + noted_written(exc))
                raise
            return size

    def _pass_on(self) -> None:
        """Write what has gathered."""
        while self._data:
            data = bytes(self._data)
            try:
                done = taken(self._dst, data, self._dst.write(data))
            except BaseException as exc:
                del self._data[: noted_written(exc)]
                raise
            del self._data[:done]

    def flush(self) -> None:
        """Write what has gathered, and flush the destination if it can be flushed."""
        with self._mutex:
            self._pass_on()
        flush = getattr(self._dst, "flush", None)
        if flush is not None:
            flush()

    @property
    def buffered(self) -> int:
        """How many bytes have gathered."""
        return len(self._data)

    def close(self) -> None:
        """Flush, then close the destination if it can be closed, also if the flush raises."""
        try:
            self.flush()
        finally:
            _close(self._dst)

    def stats(self) -> dict[str, Any]:
        """Give how many bytes have gathered, and the size."""
        return {"buffered": self.buffered, "size": self._size}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _close(stream: object) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()


def _count(n: int, what: str) -> int:
    size = index(n)
    if size < 0:
        raise ValueError(f"{what}() of {n} bytes")
    return size


def _positive(n: int, what: str) -> int:
    size = index(n)
    if size < 1:
        raise ValueError(f"{what} must be at least 1, got {n}")
    return size
