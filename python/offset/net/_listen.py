"""`listen` and what it gives, and how sockets are bound.

Invariants: as those of connections (`_conn`). The file of a Unix socket belongs to the process that made it, as long as
it is the one that was made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from offset import _runtime
from offset._duration import seconds as duration
from offset._errors import DeadlineExceeded
from offset.net import _address, _lookup
from offset.net._conn import Conn, connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from offset._duration import Seconds

C = TypeVar("C")

# Too many open files, or no memory: an accept that fails so is tried again, after so long, and then twice as long.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 1.0


class Accepting(Generic[C]):
    """What gives connections by `accept`: iteration until it is closed, and a context manager that closes."""

    if TYPE_CHECKING:

        @property
        def closed(self) -> bool: ...
        def accept(self, timeout: Seconds | None = None) -> C: ...
        def close(self) -> None: ...

    def __iter__(self) -> Iterator[C]:
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


class Listener(Accepting[Conn]):
    """Accepts connections, as Go's `net.Listener`; `listen` gives it. Iteration accepts until it is closed.

    A context manager that closes.
    """

    def __init__(self, sock: socket.socket, network: str, tls: ssl.SSLContext | None = None) -> None:
        self._sock: Final = sock
        self._network: Final = network
        self._tls: Final = tls
        self._fd: Final = _runtime.Fd(sock.fileno())
        # Closed with it.
        self._over: Final[_runtime.Chan[None]] = _runtime.Chan()
        self._accepted = 0
        self._address: Final = _address.text(sock.getsockname())
        self._file: Final = UnixFile(sock)

    @property
    def addr(self) -> str:
        """The address that it listens on."""
        return self._address

    def accept(self, timeout: Seconds | None = None) -> Conn:
        """Wait for a connection and give it; up to `timeout` seconds.

        Raises OSError once the listener is closed. Being short of descriptors is waited for.
        """
        deadline = moment(timeout)
        pause = _FIRST_PAUSE
        while True:
            try:
                number = self._fd.accept(left(deadline))
                break
            except DeadlineExceeded:
                raise
            except OSError as error:
                if error.errno not in _SHORT_OF:
                    raise self._named(error) from None
            until = left(deadline)
            if until == 0:
                raise self._named(TimeoutError())
            try:
                self._over.recv_ok(timeout=pause if until is None else min(pause, until))
            except DeadlineExceeded:
                raise
            except TimeoutError:
                pass
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._accepted += 1
        sock = socket.socket(self._sock.family, self._sock.type, self._sock.proto, fileno=number)
        conn = connection(sock, self._network)
        if self._tls is None:
            return conn
        from offset.net import _tls

        return _tls.over(conn, self._tls, server_side=True)

    def _named(self, error: OSError) -> OSError:
        what = f"accept {self._network} {self._address}"
        if self.closed:
            return OSError(errno.EBADF, f"{what}: closed")
        if isinstance(error, TimeoutError):
            return TimeoutError(errno.ETIMEDOUT, f"{what}: timed out")
        return OSError(error.errno, f"{what}: {_address.words(error)}")

    def close(self) -> None:
        """Stop listening; connections that were accepted stay. Who waits in `accept` gets an OSError.

        A second call does nothing.
        """
        if self._fd.close():
            self._over.close()
            self._file.remove()
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

    def __repr__(self) -> str:
        return f"<offset.net.Listener {self._network} {self._address}{' closed' if self.closed else ''}>"


class UnixFile:
    """The file of a bound Unix socket, if it has one."""

    def __init__(self, sock: socket.socket) -> None:
        self._path: str | None = None
        name = sock.getsockname() if sock.family == socket.AF_UNIX else None
        if isinstance(name, str) and name:
            with contextlib.suppress(OSError):
                # It may be removed from another directory.
                self._path = os.path.abspath(name)
                self._identity = self._look()
                self._process = os.getpid()

    def _look(self) -> tuple[int, int]:
        assert self._path is not None
        status = os.stat(self._path)
        return status.st_dev, status.st_ino

    def remove(self) -> None:
        """Remove it, unless it is somebody else's by now."""
        if self._path is not None and self._process == os.getpid():
            with contextlib.suppress(OSError):
                if self._look() == self._identity:
                    os.unlink(self._path)


def listen(network: str, address: str, tls: ssl.SSLContext | None = None) -> Listener:
    """Listen for connections, as Go's `net.Listen`.

    `network` is "tcp", "tcp4", "tcp6" or "unix". Without a host (":8080") it listens on all addresses, port 0 takes
    a free one, which `Listener.addr` tells. With `tls` its connections are TLS connections. The file of a Unix
    socket goes with the listener. Raises OSError, which names the address, ValueError for what is no address and for
    a context that is for clients, and TypeError for what is no context.
    """
    if tls is not None:
        from offset.net import _tls

        _tls.check(tls, server_side=True)
    sock = bound(network, address, socket.SOCK_STREAM)
    try:
        sock.listen(_backlog())
        return Listener(sock, network, tls)
    except BaseException:
        UnixFile(sock).remove()
        sock.close()
        raise


def _backlog() -> int:
    # As much as the system allows, as Go does.
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return socket.SOMAXCONN


def bound(network: str, address: str, wanted: int, reuse_port: bool = False) -> socket.socket:
    """Make a socket of the type `wanted` that is bound to an address, where others may be bound, too, with
    `reuse_port`."""
    family, type = _address.kind(network, wanted)
    if family == socket.AF_UNIX:
        return _bind(_address.Endpoint(family, type, _address.unix_path(address)), network, address)
    host, port = _address.split(address)
    number = _address.port_number(port, type)
    if not host:
        # One socket for both versions, where there are both.
        if family != socket.AF_INET and socket.has_dualstack_ipv6():
            try:
                endpoint = _address.Endpoint(socket.AF_INET6, type, ("::", number, 0, 0))
                return _bind(endpoint, network, address, family == socket.AF_UNSPEC, reuse_port)
            except OSError as error:
                if family == socket.AF_INET6 or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        host = "::" if family == socket.AF_INET6 else "0.0.0.0"
    found = _lookup.endpoints(host, number, family, type, passive=True)
    # As Go: IPv4 first.
    found.sort(key=lambda endpoint: endpoint.family != socket.AF_INET)
    return _bind(found[0], network, address, reuse_port=reuse_port)


def _bind(
    endpoint: _address.Endpoint, network: str, address: str, dual: bool = False, reuse_port: bool = False
) -> socket.socket:
    try:
        sock = socket.socket(endpoint.family, endpoint.type)
    except OSError as error:
        raise OSError(error.errno, f"listen {network} {address}: {_address.words(error)}") from None
    try:
        sock.setblocking(False)
        if endpoint.family != socket.AF_UNIX and endpoint.type == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if endpoint.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        sock.bind(endpoint.address)
    except OSError as error:
        sock.close()
        raise OSError(error.errno or errno.EINVAL, f"listen {network} {address}: {_address.words(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def moment(timeout: Seconds | None) -> float | None:
    """Give the time on the clock of `time.now()` at which a timeout is over; raises as `_duration.seconds`."""
    return None if timeout is None else _runtime.now() + duration(timeout)


def left(deadline: float | None) -> float | None:
    """Give the seconds that are left until then, 0 if it is over."""
    return None if deadline is None else max(0.0, deadline - _runtime.now())
