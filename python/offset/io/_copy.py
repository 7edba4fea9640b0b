"""Functions and small types over anything that can be read or written, as in Go's package `io`.

Invariants:

* A source is asked for what is there (`read1` where it has that), so that what comes is passed on at once.
* A write that takes less than it was given is followed by another one for the rest.
* Nothing here closes what it was given.
"""

from __future__ import annotations

import io
from operator import index
from typing import TYPE_CHECKING, Protocol

from offset._errors import note_written, noted_written
from offset._runtime import Mutex
from offset.io._errors import IncompleteReadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Buffer

CHUNK = 65536
"""How many bytes are moved at a time."""


class Reader(Protocol):
    """Anything with `read(n) -> bytes`: up to `n` bytes, at least one, b"" at the end."""

    def read(self, n: int, /) -> bytes:
        """Give up to `n` bytes."""


class Writer(Protocol):
    """Anything with `write(data) -> n`: how many bytes of `data` were taken; None for all."""

    def write(self, data: bytes, /) -> int | None:
        """Take `data`."""


ways: list[Callable[[Writer, Reader, int | None], int | None]] = []
"""Faster ways to copy, tried in order: each copies as `copy` does, or gives None and has done nothing.

They are for pairs of which a descriptor is known, between which the kernel moves the bytes.
"""


def copy(dst: Writer, src: Reader, n: int | None = None) -> int:
    """Copy from `src` to `dst` until the end of `src`, or `n` bytes, as Go's `io.Copy` and `io.CopyN`.

    Gives the number of bytes copied: less than `n` only if `src` has ended. Raises what reading and writing
    raise; what was written until then stays written, and `characters_written` of the exception says how much it was.
    """
    if n is not None:
        n = index(n)
        if n < 0:
            raise ValueError(f"copy() of {n} bytes")
    for way in ways:
        count = way(dst, src, n)
        if count is not None:
            return count
    return pour(dst, src, n)


def read_all(src: Reader) -> bytes:
    """Read until the end of `src`, as Go's `io.ReadAll`; gives all that came."""
    read = reading(src)
    parts = []
    while part := read_some(read, CHUNK):
        parts.append(part)
    return b"".join(parts)


def read_full(src: Reader, n: int) -> bytes:
    """Read exactly `n` bytes, as Go's `io.ReadFull`.

    Raises IncompleteReadError, an EOFError, if `src` ends before: its `partial` has what came.
    """
    n = index(n)
    if n < 0:
        raise ValueError(f"read_full() of {n} bytes")
    read = reading(src)
    parts: list[bytes] = []
    left = n
    while left:
        part = read_some(read, left)
        if not part:
            raise IncompleteReadError(b"".join(parts), n)
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def tee(src: Reader, dst: Writer) -> TeeReader:
    """Make a reader of `src` that writes to `dst` all that is read through it, as Go's `io.TeeReader`.

    The write is over before the read gives anything; what the write raises, the read raises.
    """
    return TeeReader(src, dst)


def multi_writer(*dsts: Writer) -> MultiWriter:
    """Make a writer that writes to each of `dsts`, one after the other, as Go's `io.MultiWriter`.

    If one of them raises, the write ends with that, and those behind it get nothing.
    """
    return MultiWriter(dsts)


class LimitedReader:
    """A reader of the next `n` bytes of `src`, then of nothing, as Go's `io.LimitedReader`.

    `src` is what is read; `n` is how many bytes are left and may be set.
    """

    __slots__ = ("__weakref__", "n", "src")

    def __init__(self, src: Reader, n: int) -> None:
        self.src = src
        self.n = index(n)

    def read(self, n: int | None = -1, /) -> bytes:
        """Give up to `n` bytes, as `src` does; b"" when the limit is reached. Without `n`, all that is left."""
        size = -1 if n is None else index(n)
        if size < 0:
            return read_all(self)
        if self.n <= 0:
            return b""
        data = read_some(reading(self.src), min(size, self.n))
        self.n -= len(data)
        return data

    def stats(self) -> dict[str, Any]:
        """Give `left`: how many bytes may still be read."""
        return {"left": max(self.n, 0)}


class TeeReader:
    """What `tee` gives."""

    __slots__ = ("__weakref__", "_dst", "_src")

    def __init__(self, src: Reader, dst: Writer) -> None:
        self._src = src
        self._dst = dst

    def read(self, n: int | None = -1, /) -> bytes:
        """Give up to `n` bytes, all until the end without `n`, after they have been written."""
        size = -1 if n is None else index(n)
        if size < 0:
            return read_all(self)
        data = read_some(reading(self._src), size) if size else b""
        if data:
            write_all(self._dst, data)
        return data


class MultiWriter:
    """What `multi_writer` gives. Writes of several goroutines come in the same order everywhere."""

    __slots__ = ("__weakref__", "_dsts", "_mutex")

    def __init__(self, dsts: tuple[Writer, ...]) -> None:
        self._dsts = dsts
        self._mutex = Mutex()

    def write(self, data: Buffer, /) -> int:
        """Write all of `data` to each; give its length."""
        data = plain(data)
        with self._mutex:
            for dst in self._dsts:
                write_all(dst, data)
        return len(data)


class _Discard:
    """A writer that takes everything and keeps nothing, as Go's `io.Discard`."""

    __slots__ = ()

    def write(self, data: Buffer, /) -> int:
        """Give the length of `data`."""
        with memoryview(data) as view:
            return view.nbytes


discard: _Discard = _Discard()


# What the other modules of the package use.


def reading(src: Reader) -> Callable[[int], bytes | None]:
    """Give the function that reads what is there from `src`; `read` of Python's buffered files waits for all."""
    return getattr(src, "read1", None) or src.read


def read_some(read: Callable[[int], bytes | None], n: int) -> bytes:
    """Read up to `n` bytes."""
    data = read(n)
    if data is None:
        raise BlockingIOError("the source is not ready, and does not wait")
    if len(data) > n:
        raise OSError(f"the source gave {len(data)} bytes when asked for {n}")
    return data


def taken(dst: Writer, data: bytes, done: int | None) -> int:
    """Give how many bytes of `data` a write to `dst` took that gave `done`; at least one."""
    if done is None:
        if isinstance(dst, io.RawIOBase):
            raise BlockingIOError("the destination is not ready, and does not wait")
        return len(data)
    if not 0 < done <= len(data):
        raise OSError(f"a write of {len(data)} bytes claims to have taken {done}")
    return done


def write_all(dst: Writer, data: bytes) -> None:
    """Write all of `data`. What cuts it short has the number of bytes in `characters_written`."""
    done = 0
    try:
        while done < len(data):
            rest = data[done:]
            done += taken(dst, rest, dst.write(rest))
    except BaseException as error:
        note_written(error, done + noted_written(error))
        raise


def pour(dst: Writer, src: Reader, n: int | None, done: int = 0) -> int:
    """Copy by reading and writing until `n` bytes are copied, of which `done` were copied before; see `copy`."""
    read = reading(src)
    while n is None or done < n:
        try:
            data = read_some(read, CHUNK if n is None else min(CHUNK, n - done))
        except BaseException as error:
            # Whatever a read says of another write.
            note_written(error, done)
            raise
        if not data:
            break
        try:
            write_all(dst, data)
        except BaseException as error:
            note_written(error, done + noted_written(error))
            raise
        done += len(data)
    return done


def plain(data: Buffer) -> bytes:
    """Give `data` as bytes, which nobody changes."""
    if isinstance(data, bytes):
        return data
    with memoryview(data) as view:
        return bytes(view)
