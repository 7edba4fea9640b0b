"""`File`: what is opened, as Go's `os.File`. Operations park the goroutine, whatever the file is; `_ways` says how.

Invariants:

* The descriptor is closed once, when nobody uses it: `Descriptor` counts those whose call is in the pool.
* `_way` changes once at most, from `Polled` to `Numbered`, when somebody asks for the number (`fileno`): who gets it
  expects a descriptor that blocks. Who waits in the old way fails there, and goes on in the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat as kinds
import sys
import warnings
from datetime import timedelta
from operator import index
from typing import TYPE_CHECKING, Any, Self, TypeVar

from offset import _runtime
from offset._errors import DeadlineExceeded, note_written, noted_written
from offset.io._buffered import BufferedReader
from offset.io._copy import plain, read_all
from offset.os._ways import READ, WRITE, Numbered, Polled, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    T = TypeVar("T")

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Where somebody has to come for a FIFO to be opened the system does not tell when: look again after so many seconds.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

# Held while a file that was there before finds out what it is.
_finding = _runtime.Mutex()

_FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


class File:
    """A file, pipe or terminal, as Go's `os.File`: of bytes, without a buffer. A context manager that closes.

    `open`, `create`, `open_file`, `new_file` and `pipe` give it. Many goroutines may use it at once: writes do not
    interleave. Iteration gives lines, through a buffer of its own. OSError names the file, also when it is closed, or
    was while somebody waited.
    """

    __slots__ = ("__weakref__", "_append", "_awaits", "_descriptor", "_kept", "_name", "_way")

    def __init__(
        self,
        number: int,
        name: str,
        mode: int | None,
        *,
        own: bool,
        append: bool = False,
        awaits: bool = False,
        kept: bool = False,
    ) -> None:
        """Take over a descriptor, of the type in `mode`, an `st_mode`, or None to look when it is first used.

        `own`: nobody else has the open file. `awaits`: a FIFO that nobody may have opened for writing yet, which is no
        end. `kept`: it stays open when it is forgotten.
        """
        self._name = name
        self._descriptor = _runtime.Descriptor(number)
        self._append = append
        self._awaits = awaits
        self._kept = kept
        self._way = None if mode is None else self._find_way(number, mode, own)

    def _find_way(self, number: int, mode: int, own: bool) -> Polled | Numbered:
        may_wait = not (kinds.S_ISREG(mode) or kinds.S_ISDIR(mode) or kinds.S_ISBLK(mode))
        if may_wait and (own or kinds.S_ISSOCK(mode)):
            # Sockets are told with each call, whatever their flags.
            with contextlib.suppress(OSError):
                way = Polled(number)
                way._name = self._name
                if not kinds.S_ISSOCK(mode):
                    os.set_blocking(number, False)
                return way
        return Numbered(self._descriptor, self._name, may_wait)

    @property
    def name(self) -> str:
        """The name that it was opened by."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._descriptor.closed

    # Reading.

    def read(self, n: int | None = -1, /) -> bytes:
        """Read up to `n` bytes; wait until there are any. b"" is the end. Without `n`, all until the end."""
        size = -1 if n is None else index(n)
        if size < 0:
            return read_all(self)
        if size == 0:
            self._check("read")
            return b""
        while True:
            way = self._current()
            try:
                if self._awaits:
                    self._await_writer(way)
                return way.read(size)
            except DeadlineExceeded:
                raise
            except OSError:
                if way is self._way:
                    raise

    def read_into(self, buffer: Buffer, /) -> int:
        """Read as `read(len(buffer))`, into `buffer`; give the number of bytes, 0 at the end."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError("read_into() needs a buffer that can be written to")
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)

    def read_at(self, n: int, offset: int, /) -> bytes:
        """Read `n` bytes from `offset` on, fewer at the end only. The file's position stays."""
        size, start = index(n), index(offset)
        if size < 0 or start < 0:
            raise ValueError(f"read_at() of {size} bytes at {start}")
        return self._numbered().read_at(size, start)

    def _await_writer(self, way: Polled | Numbered) -> None:
        """Wait until a FIFO has been written to, or opened and closed again."""
        number = self._descriptor.acquire()
        if number < 0:
            raise named(None, "read", self._name, True)
        try:
            known = select.poll()
            known.register(number, select.POLLIN)
            while not known.poll(0):
                way.wait(READ)
            self._awaits = False
        finally:
            self._leave()

    # Writing.

    def write(self, data: Buffer, /) -> int:
        """Write all of `data` and give its length. Writes of several goroutines do not interleave.

        The exception of one that was cut short has the number of bytes in `characters_written`.
        """
        whole = plain(_bytes(data))
        done = 0
        while True:
            way = self._current()
            try:
                return done + way.write(whole[done:] if done else whole)
            except OSError as error:
                done += noted_written(error)
                if way is self._way or isinstance(error, DeadlineExceeded):
                    note_written(error, done)
                    raise
            except BaseException as error:
                note_written(error, done + noted_written(error))
                raise

    def write_at(self, data: Buffer, offset: int, /) -> int:
        """Write all of `data` at `offset` and give its length. The file's position stays.

        Raises ValueError for a file that is opened to append to, which the system does in spite of `offset`.
        """
        start = index(offset)
        if start < 0:
            raise ValueError(f"write_at() at {start}")
        if self._append:
            raise ValueError(f"write_at() of {self._name}, which was opened to append to")
        return self._numbered().write_at(plain(_bytes(data)), start)

    # What concerns the file as such.

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position, and give the new one. `whence` is as in `os.lseek`."""
        return self._do("seek", os.lseek, index(offset), whence)

    def truncate(self, size: int, /) -> None:
        """Make it `size` bytes long. The position stays."""
        self._do("truncate", os.ftruncate, index(size))

    def sync(self) -> None:
        """Wait until the system has written it to its disk."""
        self._do("sync", os.fsync)

    def stat(self) -> os.stat_result:
        """Tell about it, as `os.fstat`."""
        return self._do("stat", os.fstat)

    def chmod(self, mode: int, /) -> None:
        """Change its permissions."""
        self._do("chmod", os.fchmod, mode)

    def _do(self, what: str, function: Callable[..., T], *args: Any) -> T:
        try:
            result: T = _runtime.blocking(self._numbered().use, function, args)
            return result
        except DeadlineExceeded:
            raise
        except OSError as error:
            raise named(error, what, self._name, self.closed) from None

    # Deadlines.

    def set_deadline(self, when: float | timedelta | None, /) -> None:
        """Let operations raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never.

        It may be moved at any time; who waits already heeds it too. Raises OSError for a plain file, which has none.
        """
        self._set_deadlines(when, READ, WRITE)

    def set_read_deadline(self, when: float | timedelta | None, /) -> None:
        """As `set_deadline`, of reads only."""
        self._set_deadlines(when, READ)

    def set_write_deadline(self, when: float | timedelta | None, /) -> None:
        """As `set_deadline`, of writes only."""
        self._set_deadlines(when, WRITE)

    def _set_deadlines(self, when: float | timedelta | None, *directions: int) -> None:
        point = when.total_seconds() if isinstance(when, timedelta) else when
        if point is not None:
            point += 0.0
        self._check("set a deadline of")
        self._current().set_deadlines(point, *directions)

    # The descriptor.

    def fileno(self) -> int:
        """Give the descriptor's number, -1 once it is closed. It blocks from then on, for whoever uses the number.

        That changes nothing for who uses the file, but that it takes a little longer.
        """
        way = self._current()
        if isinstance(way, Polled) and not self._is_socket():
            number = self._descriptor.acquire()
            if number >= 0:
                try:
                    self._way = Numbered(self._descriptor, self._name, True, way.deadlines)
                    # After this no attempt is made any more that relies on what is undone now.
                    way.stop()
                    os.set_blocking(number, True)
                finally:
                    self._leave()
        return self._descriptor.fileno()

    def _is_socket(self) -> bool:
        try:
            return kinds.S_ISSOCK(os.fstat(self._descriptor.fileno()).st_mode)
        except OSError:
            return False

    def close(self) -> None:
        """Close it. Who waits gets an OSError; calls in the pool go on to their end. A second call does nothing."""
        way = self._current()
        if isinstance(way, Polled):
            # The number may be another file's from the next step on.
            way.stop()
        number = self._descriptor.close()
        if number is not None:
            self._current().stop()
            if number >= 0:
                try:
                    os.close(number)
                except OSError as error:
                    raise named(error, "close", self._name, False) from None

    def stats(self) -> dict[str, object]:
        """Tell about it: its name, whether it waits in the "poller" or in the "pool", and whether it is closed."""
        way = self._current()
        waits = isinstance(way, Polled) or way.pollable
        return {"name": self._name, "waits": "poller" if waits else "pool", "closed": self.closed}

    def _current(self) -> Polled | Numbered:
        if self._way is None:
            with _finding:
                if self._way is None:
                    number = self._descriptor.fileno()
                    try:
                        mode = os.fstat(number).st_mode
                    except OSError:
                        # The operation says so.
                        mode = kinds.S_IFREG
                    self._way = self._find_way(number, mode, False)
        return self._way

    def _numbered(self) -> Numbered:
        """Give the way of the calls that are made with the number in the pool."""
        way = self._current()
        return way if isinstance(way, Numbered) else Numbered(self._descriptor, self._name, False)

    def _leave(self) -> None:
        number = self._descriptor.release()
        if number >= 0:
            os.close(number)

    def _check(self, what: str) -> None:
        if self.closed:
            raise named(None, what, self._name, True)

    # The rest.

    def __iter__(self) -> Iterator[bytes]:
        return BufferedReader(self, max_line=sys.maxsize)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.os.File {self._name!r}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        # Nothing is there of one whose making has failed.
        if hasattr(self, "_way") and not self._kept and not self.closed:
            warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
            with contextlib.suppress(OSError):
                self.close()


def _bytes(data: Buffer) -> Buffer:
    if isinstance(data, str):
        raise TypeError("a file takes bytes, not str: encode it")
    return data


# ---- opening ---------------------------------------------------------------------------------


def open(name: Path, mode: str = "r") -> File:
    """Open a file, by default to read, as Go's `os.Open`.

    `mode` is one of Python's: "r", "r+", "w", "w+", "a", "a+", "x", "x+", with or without a "b". Files are of bytes.
    A FIFO that is opened to write waits for a reader, as with the system; one that is opened to read is opened at once,
    and its first read waits. Raises OSError.
    """
    flags = _FLAGS.get(mode.replace("b", "", 1)) if isinstance(mode, str) else None
    if flags is None:
        raise ValueError(f"there is no mode {mode!r}; it is one of {', '.join(_FLAGS)}, and files are of bytes")
    return open_file(name, flags)


def create(name: Path) -> File:
    """Create a file, or make it empty, to read and write, as Go's `os.Create`. Raises OSError."""
    return open_file(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def open_file(name: Path, flag: int, perm: int = 0o666) -> File:
    """Open a file with `O_` flags, and `perm` if it is created, as Go's `os.OpenFile`. Raises OSError."""
    pause = _FIRST_PAUSE
    while True:
        opened = _runtime.blocking(_open, name, flag, perm)
        if opened is not None:
            return opened.take()
        _runtime.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _open(name: Path, flag: int, perm: int) -> _Opened | None:
    """Open a file, in the pool; None for a FIFO that nobody reads yet."""
    try:
        fifo = kinds.S_ISFIFO(os.stat(name).st_mode)
    except OSError:
        # The call itself says what is wrong.
        fifo = False
    # Otherwise it would wait for the other side, and with it a thread that cannot be called back.
    waits = fifo and not flag & os.O_NONBLOCK
    try:
        number = os.open(name, flag | os.O_NONBLOCK if waits else flag, perm)
    except OSError as error:
        if waits and error.errno == errno.ENXIO:
            return None
        raise
    return _Opened(number, os.fsdecode(name), flag)


class _Opened:
    """A descriptor on its way to the goroutine that asked for it, which may have given up."""

    def __init__(self, number: int, name: str, flag: int) -> None:
        self.number = number
        self.name = name
        self.flag = flag
        self.mode = os.fstat(number).st_mode

    def take(self) -> File:
        """Make the file."""
        number, self.number = self.number, -1
        awaits = kinds.S_ISFIFO(self.mode) and not self.flag & (os.O_WRONLY | os.O_NONBLOCK)
        append = bool(self.flag & os.O_APPEND)
        return File(number, self.name, self.mode, own=True, append=append, awaits=awaits)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def pipe() -> tuple[File, File]:
    """Make a pipe of the system's, as Go's `os.Pipe`; give its reading and its writing end.

    For what other processes take part in; `offset.io.pipe` is one in memory.
    """
    reader, writer = os.pipe()
    return File(reader, "|0", kinds.S_IFIFO, own=True), File(writer, "|1", kinds.S_IFIFO, own=True)


def new_file(fd: int, name: str | None = None) -> File:
    """Make a file of an open descriptor, as Go's `os.NewFile`; it belongs to the file from then on.

    It may be shared with others: it stays blocking, or what it is. Raises OSError if there is no such descriptor.
    """
    return File(fd, f"fd {fd}" if name is None else name, os.fstat(fd).st_mode, own=False, append=_appends(fd))


def standard(number: int, name: str) -> File:
    """Make standard input, output or error, which is used by its number, whatever that means by then."""
    return File(number, name, None, own=False, kept=True)


def _appends(number: int) -> bool:
    return bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND)


def read_file(name: Path) -> bytes:
    """Read all of a file, as Go's `os.ReadFile`. Raises OSError."""
    with open(name) as file:
        return file.read()


def write_file(name: Path, data: Buffer, perm: int = 0o666) -> None:
    """Write `data` to a file, which is created, with `perm`, or made empty before, as Go's `os.WriteFile`."""
    whole = plain(_bytes(data))
    with open_file(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, perm) as file:
        file.write(whole)
