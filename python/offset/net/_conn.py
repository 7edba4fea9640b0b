"""Connections, and what accepts them.

Invariants: a connection owns its socket, which is non-blocking; it tells its descriptor (`Stream`, `Fd`) of the end
before it closes it. Once closed, everything but `close` raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

from offset import _runtime
from offset.net import _address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from datetime import timedelta

    from typing_extensions import Buffer

    Seconds = float | timedelta

# Too many open files, or no memory: an accept that fails so is tried again, after so long, and then twice as long.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 1.0

# What a TCP connection says when it is idle for so many seconds, as in Go.
_KEEPALIVE = 15


class Conn(_runtime.Stream):
    """A connection, as Go's `net.Conn`; `dial` and `Listener.accept` give it.

    One goroutine may read while another writes. A context manager that closes.
    """

    _sock: socket.socket
    _network: str
    _local: str | None = None
    _remote: str | None = None

    @property
    def network(self) -> str:
        """Its network, such as "tcp"."""
        return self._network

    @property
    def local_addr(self) -> str:
        """The address of this end."""
        if self._local is None:
            self._local = _address.text(self._sock.getsockname())
        return self._local

    @property
    def remote_addr(self) -> str:
        """The address of the other end."""
        if self._remote is None:
            try:
                self._remote = _address.text(self._sock.getpeername())
            except OSError:
                # It has gone, or never had one.
                return ""
        return self._remote

    @property
    def _name(self) -> str:
        """What errors call it."""
        try:
            return f"{self._network} {self.local_addr}->{self.remote_addr}"
        except OSError:
            return self._network

    def read_full(self, n: int) -> bytes:
        """Read exactly `n` bytes. Raises EOFError, with those that came in `partial`, if the end comes before."""
        parts: list[bytes] = []
        left = n
        while left > 0:
            part = self.read(left)
            if not part:
                error = EOFError(f"the connection ended {left} bytes before the {n} that were wanted")
                error.partial = b"".join(parts)  # type: ignore[attr-defined]
                raise error
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was.

        The system copies them where it can. The exception of one that was cut short has `characters_written`.
        """
        try:
            source = file.fileno()
            if not os.path.isfile(source):
                raise OSError
        except (AttributeError, OSError):
            return self._copy_file(file, offset, count)
        sent = 0
        try:
            while count is None or sent < count:
                size = 1 << 30 if count is None else min(count - sent, 1 << 30)
                number = self.fileno()
                if number < 0:
                    raise OSError(errno.EBADF, f"write {self._name}: closed")
                try:
                    done = os.sendfile(number, source, offset + sent, size)
                except BlockingIOError:
                    self._wait_write()
                    continue
                if not done:
                    break
                sent += done
        except OSError as error:
            error.characters_written = sent  # type: ignore[attr-defined]
            raise
        return sent

    def _copy_file(self, file: BinaryIO, offset: int, count: int | None) -> int:
        if offset:
            file.seek(offset)
        sent = 0
        while count is None or sent < count:
            data = file.read(65_536 if count is None else min(65_536, count - sent))
            if not data:
                break
            sent += self.write(data)
        return sent

    def close_read(self) -> None:
        """Close the reading half: reads give `b""` from then on."""
        self._shutdown(socket.SHUT_RD)

    def close_write(self) -> None:
        """Close the writing half: the other side reads the end."""
        self._shutdown(socket.SHUT_WR)

    def _shutdown(self, how: int) -> None:
        if self.closed:
            raise OSError(errno.EBADF, f"shutdown {self._network} connection: closed")
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the connection. Who reads or writes gets an OSError. A second call does nothing."""
        if self._close():
            self._sock.close()

    def stats(self) -> dict[str, object]:
        """Tell about it: its addresses, and whether it is closed."""
        return {"network": self._network, "local_addr": self._local, "remote_addr": self._remote, "closed": self.closed}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._name
        return f"<offset.net.{type(self).__name__} {state}>"


def connection(sock: socket.socket, network: str, kind: type[Conn] = Conn) -> Conn:
    """Make a connection of a connected socket, which is its own from then on."""
    try:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
            _tune(sock)
        conn = kind(sock.fileno())
    except BaseException:
        sock.close()
        raise
    conn._sock = sock
    conn._network = network
    return conn


def _tune(sock: socket.socket) -> None:
    # A peer that has gone already makes these fail; the first read says so.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)


class Listener:
    """Accepts connections, as Go's `net.Listener`; `listen` gives it. Iteration accepts until it is closed."""

    def __init__(self, sock: socket.socket, network: str, tls: ssl.SSLContext | None = None) -> None:
        self._sock: Final = sock
        self._network: Final = network
        self._tls: Final = tls
        self._fd: Final = _runtime.Fd(sock.fileno())
        self._accepted = 0
        self._address: Final = _address.text(sock.getsockname())
        self._path: str | None = None

    @property
    def addr(self) -> str:
        """The address that it listens on."""
        return self._address

    def accept(self, timeout: Seconds | None = None) -> Conn:
        """Wait for a connection and give it; up to `timeout` seconds.

        Raises OSError once the listener is closed. Being short of descriptors is waited for.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                number = self._fd.accept(timeout)
                break
            except OSError as error:
                if error.errno == errno.EBADF or error.errno not in _SHORT_OF:
                    raise self._named(error) from None
            _runtime.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._accepted += 1
        sock = socket.socket(self._sock.family, self._sock.type, self._sock.proto, fileno=number)
        conn = connection(sock, self._network)
        if self._tls is None:
            return conn
        from offset.net import _tls

        return _tls.over(conn, self._tls, server_side=True)

    def _named(self, error: OSError) -> OSError:
        if isinstance(error, TimeoutError):
            return TimeoutError(errno.ETIMEDOUT, f"accept {self._network} {self._address}: timed out")
        text = "closed" if error.errno == errno.EBADF else os.strerror(error.errno or 0)
        return OSError(error.errno, f"accept {self._network} {self._address}: {text}")

    def close(self) -> None:
        """Stop listening; connections that were accepted stay. Who waits in `accept` gets an OSError."""
        if self._fd.close():
            if self._path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._sock.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._fd.closed

    def fileno(self) -> int:
        """Give the descriptor's number, -1 once it is closed."""
        return self._fd.fileno()

    def stats(self) -> dict[str, object]:
        """Tell about it: its address, how many connections it has accepted, whether it is closed."""
        return {"network": self._network, "addr": self._address, "accepted": self._accepted, "closed": self.closed}

    def __iter__(self) -> Iterator[Conn]:
        while True:
            try:
                conn = self.accept()
            except OSError:
                if self.closed:
                    return
                raise
            yield conn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.net.Listener {self._network} {self._address}{' closed' if self.closed else ''}>"


class PacketConn:
    """Sends and receives packets, as Go's `net.PacketConn`; `listen_packet` gives it. A context manager."""

    def __init__(self, sock: socket.socket, network: str) -> None:
        self._sock: Final = sock
        self._network: Final = network
        self._fd: Final = _runtime.Fd(sock.fileno())
        self._path: str | None = None

    @property
    def local_addr(self) -> str:
        """Its address."""
        return _address.text(self._socket().getsockname())

    @property
    def addr(self) -> str:
        """Its address."""
        return self.local_addr

    def _socket(self) -> socket.socket:
        if self._fd.closed:
            raise OSError(errno.EBADF, f"the {self._network} socket is closed")
        return self._sock

    def read_from(self, n: int, timeout: Seconds | None = None) -> tuple[bytes, str]:
        """Wait for a packet; give up to `n` bytes of it, and where it came from. The rest of it is lost."""
        while True:
            try:
                data, address = self._socket().recvfrom(n)
            except BlockingIOError:
                self._fd.wait_read(timeout)
            else:
                return data, _address.text(address)

    def write_to(self, data: Buffer, addr: str) -> int:
        """Send a packet to `addr`, and give its length. A host's name in `addr` is looked up."""
        target = self._target(addr)
        while True:
            try:
                return self._socket().sendto(data, target)
            except BlockingIOError:
                self._fd.wait_write()

    def _target(self, addr: str) -> Any:
        if self._sock.family == socket.AF_UNIX:
            return _address.unix_path(addr)
        from offset.net import _lookup

        host, port = _address.split(addr)
        number = _address.port_number(port, socket.SOCK_DGRAM)
        family = self._sock.family
        if family == socket.AF_INET6 and _address.literal(host) == socket.AF_INET:
            host = f"::ffff:{host}"
        return _lookup.endpoints(host or "localhost", number, family, socket.SOCK_DGRAM)[0].address

    def set_deadline(self, when: Seconds | None) -> None:
        """Let operations raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never."""
        self._fd.set_deadline(when)

    def set_read_deadline(self, when: Seconds | None) -> None:
        """As `set_deadline`, of `read_from`."""
        self._fd.set_read_deadline(when)

    def set_write_deadline(self, when: Seconds | None) -> None:
        """As `set_deadline`, of `write_to`."""
        self._fd.set_write_deadline(when)

    def fileno(self) -> int:
        """Give the descriptor's number, -1 once it is closed."""
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._fd.closed

    def close(self) -> None:
        """Close it. Who waits gets an OSError. A second call does nothing."""
        if self._fd.close():
            if self._path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._sock.close()

    def stats(self) -> dict[str, object]:
        """Tell about it: its network, and whether it is closed."""
        return {"network": self._network, "closed": self.closed}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.net.PacketConn {self._network} {'closed' if self.closed else self.local_addr}>"
