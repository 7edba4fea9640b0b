"""A faster way for `offset.io.copy`: from one connection to another, as a relay does, large amounts stay in the kernel.

What comes in small parts is read and written: that costs less than two moves between a socket and a pipe. When a read
has given all that it was asked for, there is more: `splice` moves it by a pipe, until less than `_LARGE` is there.

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
        note_written(error, relay.done)
        raise


class _Relay:
    """A copy from `src` to `dst`, of which `done` bytes have arrived."""

    def __init__(self, dst: Conn, src: Conn) -> None:
        self.dst = dst
        self.src = src
        self.done = 0
        # The kernel moves what is there in large amounts.
        self.splices = True

    def copy(self, n: int | None) -> int:
        while n is None or self.done < n:
            size = _copy.CHUNK if n is None else min(_copy.CHUNK, n - self.done)
            data = self.src.read(size)
            if not data:
                break
            try:
                self.dst.write(data)
            except BaseException as error:
                self.done += noted_written(error)
                raise
            self.done += len(data)
            if self.splices and len(data) == _copy.CHUNK:
                self.splice(n)
        return self.done

    def splice(self, n: int | None) -> None:
        """Move large parts, until a smaller one has come, or nothing."""
        pipe = _pipe()
        if pipe is None:
            self.splices = False
            return
        outlet, inlet = pipe
        try:
            while n is None or self.done < n:
                part = self.fill(inlet, _PIECE if n is None else min(_PIECE, n - self.done))
                if part:
                    self.drain(outlet, part)
                if part < _LARGE:
                    return
        finally:
            os.close(outlet)
            os.close(inlet)

    def fill(self, inlet: int, size: int) -> int:
        """Move into the pipe what is there; give how much that was."""
        try:
            # The number stays the source's while it is used, and no longer: closing it is to reach the other side.
            source = os.dup(self.src.fileno())
        except OSError:
            # There are no descriptors left, or it is closed, as the next read will say.
            return 0
        try:
            # Raises what a read would before it tries anything.
            self.src.read(0)
            try:
                return os.splice(source, inlet, size, flags=_FLAGS)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno not in CANNOT:
                    raise OSError(error.errno, f"read {self.src._name}: {_address.words(error)}") from None
                self.splices = False
                return 0
        finally:
            os.close(source)

    def drain(self, outlet: int, left: int) -> None:
        """Write `left` bytes, which are in the pipe, as one write."""
        number = self.dst._lock_write()
        try:
            while left:
                self.dst._check_write()
                try:
                    moved = os.splice(outlet, number, left, flags=_FLAGS)
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


def _pipe() -> tuple[int, int] | None:
    """Give a pipe, None if no good one is to be had."""
    try:
        pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        # There are no descriptors left.
        return None
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe[1], _F_SETPIPE_SZ, _PIECE)
        if fcntl.fcntl(pipe[1], _F_GETPIPE_SZ) >= _LEAST:
            return pipe
    except OSError:
        pass
    for number in pipe:
        os.close(number)
    return None
