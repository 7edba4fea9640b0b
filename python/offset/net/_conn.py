"""Connections.

Invariants: a connection owns its socket, which is non-blocking; it tells its descriptor (`Stream`) of the end before it
closes it. Once closed, everything but `close` and the addresses raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any, BinaryIO, Self

from offset import _runtime
from offset._errors import note_written
from offset.net import _address, _stream

# What a TCP connection says when it is idle for so many seconds, as in Go.
_KEEPALIVE = 15

# As much is sent from a file by one system call.
_PIECE = 1 << 30
# What says that the system cannot send from this file, or move what comes in this way.
CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW, errno.EPERM})


class Conn(_runtime.Stream):
    """A connection, as Go's `net.Conn`; `dial` and `Listener.accept` give it.

    One goroutine may read while another writes. A context manager that closes.
    """

    _sock: socket.socket
    _network: str
    # The addresses as the socket module has them, once they were needed.
    _own: Any = None
    _peer: Any = None

    @property
    def network(self) -> str:
        """Its network, such as "tcp"."""
        return self._network

    @property
    def local_addr(self) -> str:
        """The address of this end."""
        if self._own is None:
            self._own = self._sock.getsockname()
        return _address.text(self._own)

    @property
    def remote_addr(self) -> str:
        """The address of the other end."""
        return _address.text(self._peer)

    @property
    def _name(self) -> str:
        """What errors call it."""
        try:
            return f"{self._network} {self.local_addr}->{self.remote_addr}"
        except OSError:
            return self._network

    def read_full(self, n: int) -> bytes:
        """Read exactly `n` bytes. Raises `io.IncompleteReadError`, an EOFError, if the end comes before."""
        return _stream.read_full(self, n)

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was.

        The system copies them where it can, as one write. What is not a plain file is read and sent in several. The
        exception of one that was cut short has `characters_written`.
        """
        _stream.check_range(offset, count)
        try:
            source = file.fileno()
            plain = stat.S_ISREG(os.fstat(source).st_mode)
        except (AttributeError, OSError):
            plain = False
        sent = self._send_plain_file(source, offset, count) if plain else None
        return _stream.copy_file(self, file, offset, count) if sent is None else sent

    def _send_plain_file(self, source: int, offset: int, count: int | None) -> int | None:
        """None if the system cannot."""
        sent = 0
        try:
            number = self._lock_write()
            try:
                while count is None or sent < count:
                    self._check_write()
                    size = _PIECE if count is None else min(count - sent, _PIECE)
                    try:
                        # Without the GIL: the file may have to be read from a disk.
                        done = os.sendfile(number, source, offset + sent, size)
                    except BlockingIOError:
                        self._wait_write()
                        continue
                    except OSError as error:
                        if not sent and error.errno in CANNOT:
                            return None
                        raise OSError(error.errno, f"sendfile {self._name}: {_address.words(error)}") from None
                    if not done:
                        break
                    sent += done
            finally:
                os.close(number)
                self._unlock_write()
        except BaseException as error:
            note_written(error, sent)
            raise
        return sent

    def close_read(self) -> None:
        """Close the reading half: reads give `b""` from then on."""
        self._shutdown(socket.SHUT_RD)

    def close_write(self) -> None:
        """Close the writing half: the other side reads the end."""
        self._shutdown(socket.SHUT_WR)

    def _shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError as error:
            text = "closed" if self.closed else _address.words(error)
            raise OSError(error.errno, f"shutdown {self._name}: {text}") from None

    def close(self) -> None:
        """Close the connection. Who reads or writes gets an OSError. A second call does nothing."""
        if self._own is None:
            # It is still to be told when it is closed.
            with contextlib.suppress(OSError):
                self._own = self._sock.getsockname()
        if self._close():
            self._sock.close()

    def stats(self) -> dict[str, object]:
        """Tell about it: its addresses, and whether it is closed."""
        return {
            "network": self._network,
            "local_addr": self.local_addr,
            "remote_addr": self.remote_addr,
            "closed": self.closed,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.net.{type(self).__name__} {self._name}{' closed' if self.closed else ''}>"


def connection(sock: socket.socket, network: str) -> Conn:
    """Make a connection of a connected socket, which is its own from then on."""
    try:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
            _tune(sock)
        conn = Conn(sock.fileno())
        conn._sock = sock
        conn._network = network
        # Of a peer that has gone the system forgets it.
        with contextlib.suppress(OSError):
            conn._peer = sock.getpeername()
    except BaseException:
        sock.close()
        raise
    return conn


def _tune(sock: socket.socket) -> None:
    # A peer that has gone already makes these fail; the first read says so.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)
