"""`listen_packet` and what it gives. Invariants: as those of connections (`_conn`)."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, Final, Self

from offset import _runtime
from offset._errors import DeadlineExceeded
from offset.net import _address, _lookup, _stream
from offset.net._listen import UnixFile, bound

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Buffer

    Seconds = float | timedelta

# When the receiver's queue is full of others' packets, the system does not tell when it has room. Look again after so
# long.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

# Addresses that are written out mean the same for ever: by family and text, so many of them.
_MOST_KNOWN = 4096
_literals: dict[tuple[int, str], Any] = {}


class PacketConn:
    """Sends and receives packets, as Go's `net.PacketConn`; `listen_packet` gives it. A context manager that closes."""

    def __init__(self, sock: socket.socket, network: str) -> None:
        self._sock: Final = sock
        self._network: Final = network
        self._family: Final = sock.family
        self._fd: Final = _runtime.Fd(sock.fileno())
        self._address: Final = _address.text(sock.getsockname())
        self._file: Final = UnixFile(sock)

    @property
    def local_addr(self) -> str:
        """Its address."""
        return self._address

    @property
    def addr(self) -> str:
        """Its address."""
        return self._address

    def _named(self, error: OSError, what: str) -> OSError:
        what = f"{what} {self._network} {self._address}"
        if self.closed:
            return OSError(errno.EBADF, f"{what}: closed")
        if isinstance(error, TimeoutError):
            return TimeoutError(errno.ETIMEDOUT, f"{what}: timed out")
        return OSError(error.errno, f"{what}: {_address.words(error)}")

    def read_from(self, n: int, timeout: Seconds | None = None) -> tuple[bytes, str]:
        """Wait for a packet; give up to `n` bytes of it, and where it came from. The rest of it is lost.

        `timeout` is in seconds. Raises TimeoutError, and OSError once it is closed.
        """
        n = _stream.size(n)
        try:
            data, address = self._fd.recvfrom(n, 0, timeout)
        except DeadlineExceeded:
            raise
        except OSError as error:
            raise self._named(error, "read") from None
        return data, _address.text(address)

    def write_to(self, data: Buffer, addr: str) -> int:
        """Send a packet to `addr`, and give its length. A host's name in `addr` is looked up.

        Raises OSError, such as that the packet is too long, and once it is closed.
        """
        target = self._target(addr)
        pause = _FIRST_PAUSE if self._family == socket.AF_UNIX else None
        try:
            while True:
                try:
                    return self._fd.sendto(data, target, 0, pause)
                except DeadlineExceeded:
                    raise
                except TimeoutError:
                    # Raises if it was the deadline whose time was over.
                    self._fd.check_write()
                    if pause is None:
                        raise
                    pause = min(2 * pause, _LONGEST_PAUSE)
        except DeadlineExceeded:
            raise
        except OSError as error:
            raise self._named(error, f"write to {addr} from") from None

    def _target(self, addr: str) -> Any:
        known = _literals.get((self._family, addr))
        if known is not None:
            return known
        if self._family == socket.AF_UNIX:
            return _address.unix_path(addr)
        host, port = _address.split(addr)
        number = _address.port_number(port, socket.SOCK_DGRAM)
        literal = _address.literal(host)
        if self._family == socket.AF_INET6 and literal == socket.AF_INET:
            host = f"::ffff:{host}"
        target = _lookup.endpoints(host or "localhost", number, self._family, socket.SOCK_DGRAM)[0].address
        if literal and "%" not in host:
            if len(_literals) >= _MOST_KNOWN:
                _literals.clear()
            _literals[self._family, addr] = target
        return target

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
            self._file.remove()
            self._sock.close()

    def stats(self) -> dict[str, object]:
        """Tell about it: its network and address, and whether it is closed."""
        return {"network": self._network, "addr": self._address, "closed": self.closed}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<offset.net.PacketConn {self._network} {self._address}{' closed' if self.closed else ''}>"


def listen_packet(network: str, address: str) -> PacketConn:
    """Receive packets at an address, as Go's `net.ListenPacket`.

    `network` is "udp", "udp4", "udp6" or "unixgram". Raises OSError, which names the address, and ValueError for what
    is no address.
    """
    sock = bound(network, address, socket.SOCK_DGRAM)
    try:
        return PacketConn(sock, network)
    except BaseException:
        UnixFile(sock).remove()
        sock.close()
        raise
