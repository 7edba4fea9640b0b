"""What all connections do in the same way, on top of `read` and `write`."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, BinaryIO, Protocol

from offset._errors import note_written, noted_written
from offset.io._errors import IncompleteReadError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Reader(Protocol):
    """What can be read from."""

    def read(self, n: int, /) -> bytes: ...


class Writer(Protocol):
    """What can be written to."""

    def write(self, data: Buffer, /) -> int: ...


def read_full(conn: Reader, n: int) -> bytes:
    """Read exactly `n` bytes; see `Conn.read_full`."""
    left = n = size(n)
    parts: list[bytes] = []
    while left > 0:
        part = conn.read(left)
        if not part:
            raise IncompleteReadError(b"".join(parts), n)
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def size(n: int) -> int:
    """Give the size of a read as it was given; raises TypeError and ValueError for what is none."""
    try:
        n = index(n)
    except TypeError:
        raise TypeError(f"the size of a read is an integer, not {type(n).__name__}") from None
    if n < 0:
        raise ValueError(f"the size of a read must not be negative, got {n}")
    return n


def copy_file(conn: Writer, file: BinaryIO, offset: int, count: int | None) -> int:
    """Send a file by reading it; see `Conn.sendfile`."""
    check_range(offset, count)
    if offset or (hasattr(file, "seekable") and file.seekable()):
        file.seek(offset)
    sent = 0
    try:
        while count is None or sent < count:
            data = file.read(65_536 if count is None else min(65_536, count - sent))
            if not data:
                break
            sent += conn.write(data)
    except BaseException as error:
        note_written(error, sent + noted_written(error))
        raise
    return sent


def check_range(offset: int, count: int | None) -> None:
    """Raise ValueError if that is no part of a file."""
    if offset < 0:
        raise ValueError(f"the offset in a file must not be negative, got {offset}")
    if count is not None and count < 0:
        raise ValueError(f"the number of bytes must not be negative, got {count}")
