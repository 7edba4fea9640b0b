"""A faster way for `offset.io.copy`: between descriptors the kernel moves the bytes.

From a plain file: `sendfile` to a connection, `copy_file_range` to a plain file, `splice` to a pipe. From a pipe or a
connection: `splice`, if one of the two is a pipe. Where the kernel cannot, it says so before anything is done, and the
bytes are read and written as always.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat as kinds
from typing import TYPE_CHECKING, Any

from offset._errors import note_written
from offset._runtime import Stream, blocking
from offset.io import _copy
from offset.net._conn import Conn
from offset.net._file import send_from_here
from offset.os._file import File
from offset.os._ways import READ, WRITE, Numbered, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from offset.io._copy import Reader, Writer

    End = Stream | Numbered

# What the kernel says of a pair that it cannot copy between, before it has copied anything.
_CANNOT = frozenset(
    (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.ESPIPE, errno.EBADF, errno.EPERM, errno.ETXTBSY)
)
# Moved by one system call; the goroutine can be cancelled, and others can write, in between.
_PIECE = 1 << 20
_FILE_PIECE = 1 << 26


def install() -> None:
    """Let `offset.io.copy` try this first."""
    if copy not in _copy.ways:
        _copy.ways.append(copy)


def copy(dst: Writer, src: Reader, n: int | None) -> int | None:
    """Copy as `offset.io.copy`; None if the kernel cannot, and nothing is done."""
    if not (isinstance(dst, File) or type(dst) is Conn) or not (isinstance(src, File) or type(src) is Conn):
        return None
    if not (isinstance(dst, File) or isinstance(src, File)) or dst.closed or src.closed:
        return None
    try:
        source, target = kinds.S_IFMT(_mode(src)), kinds.S_IFMT(_mode(dst))
    except OSError:
        return None
    if isinstance(src, File) and source == kinds.S_IFREG:
        if isinstance(dst, Conn):
            return _send_file(dst, src, n)
        if target == kinds.S_IFREG:
            return _copy_range(dst, src, n)
        return _splice(dst, src, n, False) if target == kinds.S_IFIFO else None
    if kinds.S_IFIFO not in (source, target) or source not in (kinds.S_IFIFO, kinds.S_IFSOCK):
        return None
    return _splice(dst, src, n, True) if target in (kinds.S_IFIFO, kinds.S_IFSOCK, kinds.S_IFREG) else None


def _mode(end: Any) -> int:
    number = end._descriptor.fileno() if isinstance(end, File) else end.fileno()
    return os.fstat(number).st_mode


def _send_file(dst: Conn, src: File, n: int | None) -> int:
    with _reading(src._current()):
        # Declared for a BinaryIO, of which it asks no more than a `File` has.
        return send_from_here(dst, src, n)  # type: ignore[arg-type]


def _copy_range(dst: File, src: File, n: int | None) -> int | None:
    if dst._append or not hasattr(os, "copy_file_range"):
        return None
    source, target = src._numbered(), dst._numbered()
    done = 0
    try:
        while n is None or done < n:
            size = _FILE_PIECE if n is None else min(n - done, _FILE_PIECE)
            try:
                moved = blocking(_use_both, source, target, os.copy_file_range, size)
            except OSError as error:
                if not done and error.errno in _CANNOT:
                    return None
                raise named(error, "copy to", dst.name, dst.closed) from None
            if not moved:
                # Or one whose size the system makes up, as those in /proc.
                return done or None
            done += moved
    except BaseException as error:
        note_written(error, done)
        raise
    return done


def _use_both(source: Numbered, target: Numbered, function: Callable[[int, int, int], int], size: int) -> int:
    def outer(number: int) -> int:
        return target.use(lambda other: function(number, other, size), ())

    return source.use(outer, ())


def _splice(dst: File | Conn, src: File | Conn, n: int | None, waits: bool) -> int | None:
    """Move pages between a pipe and something else; `waits`: there may be nothing to read yet."""
    if not hasattr(os, "splice") or (isinstance(dst, File) and dst._append):
        return None
    source, target = _way(src), _way(dst)
    if isinstance(source, Numbered) and source._left:
        # What comes first is not the kernel's any more.
        return None
    if isinstance(src, File) and src._awaits:
        src._await_writer(src._current())
    done = 0
    try:
        with _reading(source) as reader, _writing(target) as writer:
            while n is None or done < n:
                _check(source, READ)
                _check(target, WRITE)
                size = _PIECE if n is None else min(n - done, _PIECE)
                try:
                    moved = os.splice(reader, writer, size, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
                except BlockingIOError:
                    if waits and not _ready(reader, select.POLLIN):
                        _wait(source, READ)
                    elif not _ready(writer, select.POLLOUT):
                        _wait(target, WRITE)
                    else:
                        # Both are ready, and yet it does not fit.
                        break
                    continue
                except OSError as error:
                    if not done and error.errno in _CANNOT:
                        return None
                    raise named(error, "copy to", str(getattr(dst, "name", dst)), dst.closed) from None
                if not moved:
                    return done
                done += moved
    except BaseException as error:
        note_written(error, done)
        raise
    return _copy.pour(dst, src, n, done)


# ---- both kinds of ends ------------------------------------------------------------------------


def _way(end: File | Conn) -> End:
    return end._current() if isinstance(end, File) else end


@contextlib.contextmanager
def _reading(end: End) -> Iterator[int]:
    """The number of what is read, which nobody else gets meanwhile."""
    if isinstance(end, Stream):
        number = os.dup(end.fileno())
        try:
            yield number
        finally:
            os.close(number)
    else:
        number = end._descriptor.acquire()
        if number < 0:
            end._fail(READ)
        try:
            yield number
        finally:
            end._leave()


@contextlib.contextmanager
def _writing(end: End) -> Iterator[int]:
    """The number of what is written, while nobody else writes there."""
    if isinstance(end, Stream):
        number = end._lock_write()
        try:
            yield number
        finally:
            os.close(number)
            end._unlock_write()
    else:
        with end._writing:
            number = end._descriptor.acquire()
            if number < 0:
                end._fail(WRITE)
            try:
                yield number
            finally:
                end._leave()


def _check(end: End, direction: int) -> None:
    """Raise what an operation would before it tries anything."""
    if not isinstance(end, Stream):
        end._check(direction)
    elif direction == WRITE:
        end._check_write()
    else:
        end.read(0)


def _wait(end: End, direction: int) -> None:
    if not isinstance(end, Stream):
        end.wait(direction)
    elif direction == WRITE:
        end._wait_write()
    else:
        end._wait_read()


def _ready(number: int, event: int) -> bool:
    known = select.poll()
    known.register(number, event)
    return bool(known.poll(0))
