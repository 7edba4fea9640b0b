"""A faster way for `offset.io.copy`: from one connection to another, as a relay does, large amounts stay in the kernel.

What comes in small parts is read and written: that costs less than two moves between a socket and a pipe. After a part
of `_LARGE` bytes `splice` moves the next ones by a pipe of the copy's own, until less comes at once.

Invariants:

* The pipe is empty whenever the source is asked, so that only the source can have nothing to give.
* A wait for the source is that of a read: no more than what has come is moved.
* Others may write to the destination between two parts, as with reads and writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from offset._errors import note_written, noted_written
from offset.io import _copy
from offset.net import _address
from offset.net._conn import CANNOT, Conn

if TYPE_CHECKING:
    from offset.io._copy import Reader, Writer

_LARGE = 1 << 14
# The pipe's size, if the system grants it: what one move takes at most. All pipes of an unprivileged user together get
# 64 MiB; after that they are tiny ones, and reading and writing is faster.
_PIECE = 1 << 18
_LEAST = 1 << 16
_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032
_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)


def install() -> None:
    """Let `offset.io.copy` try this."""
    if copy not in _copy.ways and hasattr(os, "splice"):
        _copy.ways.append(copy)


def copy(dst: Writer, src: Reader, n: int | None) -> int | None:
    """Copy as `offset.io.copy`; None if these are no two plain connections, and nothing is done."""
    if type(dst) is not Conn or type(src) is not Conn or dst.closed or src.closed:
        return None
    if dst._sock.type != socket.SOCK_STREAM or src._sock.type != socket.SOCK_STREAM:
        return None
    relay = _Relay(dst, src)
    try:
        return relay.copy(n)
    except BaseException as error:
        note_written(error, relay.done + noted_written(error))
        raise
    finally:
        relay.close()


class _Relay:
    """A copy from `src` to `dst`, of which `done` bytes have arrived."""

    def __init__(self, dst: Conn, src: Conn) -> None:
        self.dst = dst
        self.src = src
        self.done = 0
        self.pipe: tuple[int, int] | None = None
        # A copy of the source's number, which stays its own when it is closed.
        self.source = -1
        # The kernel moves what comes in large parts.
        self.splices = True

    def close(self) -> None:
        for number in (*(self.pipe or ()), self.source):
            if number >= 0:
                os.close(number)

    def copy(self, n: int | None) -> int:
        while n is None or self.done < n:
            data = self.src.read(_copy.CHUNK if n is None else min(_copy.CHUNK, n - self.done))
            if not data:
                break
            self.done += self.dst.write(data)
            if len(data) >= _LARGE and self.splices:
                self.splice(n)
        return self.done

    def splice(self, n: int | None) -> None:
        """Move large parts, until a smaller one has come, or nothing."""
        if self.pipe is None and not self.open():
            self.splices = False
            return
        assert self.pipe is not None
        while n is None or self.done < n:
            self.src.read(0)
            try:
                part = os.splice(
                    self.source, self.pipe[1], _PIECE if n is None else min(_PIECE, n - self.done), flags=_FLAGS
                )
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in CANNOT:
                    raise OSError(error.errno, f"read {self.src._name}: {_address.words(error)}") from None
                self.splices = False
                return
            if part:
                self.drain(part)
            if part < _LARGE:
                return

    def open(self) -> bool:
        """Make the pipe; tell whether it is a good one."""
        try:
            self.source = os.dup(self.src.fileno())
            self.pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.pipe[1], _F_SETPIPE_SZ, _PIECE)
            return fcntl.fcntl(self.pipe[1], _F_GETPIPE_SZ) >= _LEAST
        except OSError:
            # There are no descriptors left.
            return False

    def drain(self, left: int) -> None:
        """Write `left` bytes, which are in the pipe, as one write."""
        assert self.pipe is not None
        number = self.dst._lock_write()
        try:
            while left:
                self.dst._check_write()
                try:
                    moved = os.splice(self.pipe[0], number, left, flags=_FLAGS)
                except BlockingIOError:
                    self.dst._wait_write()
                    continue
                except OSError as error:
                    raise OSError(error.errno, f"write {self.dst._name}: {_address.words(error)}") from None
                self.done += moved
                left -= moved
        finally:
            os.close(number)
            self.dst._unlock_write()
