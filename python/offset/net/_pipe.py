"""A connection in memory.

Invariants: each direction is a `_Half` under its own lock. A write waits until it is read or fails; its bytes are in
`offered` for so long, one write at a time. Nothing is buffered.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, BinaryIO, Self

from offset import _runtime
from offset._duration import seconds as duration
from offset._errors import DeadlineExceeded, note_written
from offset.net import _stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from offset._duration import Seconds


class _Half:
    def __init__(self) -> None:
        self.lock = _runtime.StateMutex()
        self.changed = _runtime.Cond(self.lock)
        self.writing = _runtime.Mutex()
        self.offered: memoryview | None = None
        self.taken = 0
        # The end that reads, and the one that writes.
        self.reader_closed = False
        self.writer_closed = False
        self.read_deadline: float | None = None
        self.write_deadline: float | None = None

    def change(self, **values: object) -> None:
        with self.lock:
            for name, value in values.items():
                setattr(self, name, value)
            self.changed.broadcast()

    def left(self, deadline: str, what: str) -> float | None:
        """Give the seconds until the deadline that has this name; raises TimeoutError when there are none."""
        when = getattr(self, deadline)
        left = None if when is None else when - _runtime.now()
        if left is not None and left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, f"{what} pipe: timed out")
        return left

    def wait(self, done: Callable[[], bool], deadline: str, what: str) -> None:
        """Wait, with the lock held, until `done`, or until the deadline, wherever it is moved."""
        while not done():
            left = self.left(deadline, what)
            try:
                self.changed.wait(left)
            except DeadlineExceeded:
                raise
            except TimeoutError:
                pass

    def read(self, n: int) -> bytes | None:
        """None if this half was closed by its reader."""
        with self.lock:
            if self.reader_closed:
                return None
            self.left("read_deadline", "read")
            if n == 0:
                return b""
            self.wait(
                lambda: self.offered is not None or self.reader_closed or self.writer_closed, "read_deadline", "read"
            )
            if self.reader_closed:
                return None
            if self.offered is None:
                return b""
            data = bytes(self.offered[self.taken : self.taken + n])
            self.taken += len(data)
            if self.taken == len(self.offered):
                self.offered = None
                self.changed.broadcast()
            return data

    def write(self, data: Buffer) -> int:
        with self.writing, memoryview(data) as view, view.cast("B") as octets, self.lock:
            self.taken = 0
            try:
                self.check_write()
                self.left("write_deadline", "write")
                # Nothing is not offered: it would look like the end.
                self.offered = octets if len(octets) else None
                self.changed.broadcast()
                self.wait(
                    lambda: self.offered is None or self.reader_closed or self.writer_closed, "write_deadline", "write"
                )
                if self.offered is not None:
                    self.check_write()
            except BaseException as error:
                note_written(error, self.taken)
                raise
            finally:
                self.offered = None
            return len(octets)

    def check_write(self) -> None:
        if self.writer_closed:
            raise OSError(errno.EBADF, "write pipe: closed")
        if self.reader_closed:
            raise BrokenPipeError(errno.EPIPE, "write pipe: the other end is closed")


class PipeConn:
    """One end of a `pipe`: a connection in memory. A context manager that closes."""

    def __init__(self, incoming: _Half, outgoing: _Half) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    @property
    def network(self) -> str:
        """Its network: "pipe"."""
        return "pipe"

    @property
    def local_addr(self) -> str:
        """The address of this end: "pipe"."""
        return "pipe"

    @property
    def remote_addr(self) -> str:
        """The address of the other end: "pipe"."""
        return "pipe"

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._closed

    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes of what is being written; wait until there are any. `b""` is the end."""
        data = self._incoming.read(_stream.size(n))
        if data is None:
            if self._closed:
                raise OSError(errno.EBADF, "read pipe: closed")
            return b""
        return data

    def read_full(self, n: int) -> bytes:
        """Read exactly `n` bytes. Raises `io.IncompleteReadError`, an EOFError, if the end comes before."""
        return _stream.read_full(self, n)

    def read_into(self, buffer: Buffer, /) -> int:
        """Read into a buffer as `read`, and give the number of bytes; 0 is the end."""
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.read(len(octets))
            octets[: len(data)] = data
            return len(data)

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`, wait until it is read, and give its length.

        Writes of several goroutines do not interleave. Raises BrokenPipeError once the other end is closed. The
        exception of a write that was cut short has the number of bytes in `characters_written`.
        """
        return self._outgoing.write(data)

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was."""
        return _stream.copy_file(self, file, offset, count)

    def set_deadline(self, when: Seconds | None) -> None:
        """Let reads and writes raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never."""
        self.set_read_deadline(when)
        self.set_write_deadline(when)

    def set_read_deadline(self, when: Seconds | None) -> None:
        """As `set_deadline`, of reads only."""
        self._check()
        self._incoming.change(read_deadline=_point(when))

    def set_write_deadline(self, when: Seconds | None) -> None:
        """As `set_deadline`, of writes only."""
        self._check()
        self._outgoing.change(write_deadline=_point(when))

    def _check(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "set a deadline of pipe: closed")

    def close_write(self) -> None:
        """Close the writing half: the other end reads the end."""
        self._outgoing.change(writer_closed=True)

    def close_read(self) -> None:
        """Close the reading half: reads give `b""` from then on, and the other end's writes raise BrokenPipeError."""
        self._incoming.change(reader_closed=True)

    def close(self) -> None:
        """Close this end: the other one reads the end. Who waits here gets an OSError. A second call does nothing."""
        self._closed = True
        self.close_read()
        self.close_write()

    def stats(self) -> dict[str, object]:
        """Tell about it: whether it is closed."""
        return {"network": self.network, "closed": self._closed}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.net.PipeConn {self.network}{' closed' if self.closed else ''}>"


def _point(when: Seconds | None) -> float | None:
    return None if when is None else duration(when)


def pipe() -> tuple[PipeConn, PipeConn]:
    """Make a connection in memory, as Go's `net.Pipe`, and give its ends.

    Each write waits until the other end has read it all. There are deadlines, and no descriptors.
    """
    one, other = _Half(), _Half()
    return PipeConn(one, other), PipeConn(other, one)
