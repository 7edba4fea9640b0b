"""`dial`: addresses of one family one after the other, those of the other beside them after a short head start.

Invariants (RFC 6555, as Go's `net.Dialer`): the first socket that is connected wins. Every other one is closed by the
goroutine that made it, whoever gives up, so no descriptor is left.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from offset import _runtime
from offset.net import _address, _lookup
from offset.net._conn import Conn, connection

if TYPE_CHECKING:
    import ssl
    from datetime import timedelta

    Seconds = float | timedelta

_HEAD_START = 0.3
_SHORTEST_TURN = 2.0


def dial(
    network: str,
    address: str,
    timeout: Seconds | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> Conn:
    """Connect to an address, as Go's `net.Dial`.

    `network` is one of "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix" and "unixgram". All of it, the lookup of
    the host's name and the TLS handshake too, takes up to `timeout` seconds. With `tls` the connection is a TLS
    connection, to `server_hostname` or else the address's host. Raises what the system says
    (ConnectionRefusedError), naming the address, `socket.gaierror` and TimeoutError.
    """
    family, type = _address.kind(network)
    deadline = None if timeout is None else _runtime.now() + _seconds(timeout)
    if tls is not None and type != socket.SOCK_STREAM:
        raise ValueError(f"TLS needs a stream, and {network!r} has none")
    if family == socket.AF_UNIX:
        host = ""
        found = [_address.Endpoint(family, type, _address.unix_path(address))]
    else:
        host, port = _address.split(address)
        number = _address.port_number(port, type)
        found = _lookup.endpoints(host or "localhost", number, family, type, _left(deadline))
    sock = _connect(found, network, address, deadline)
    conn = connection(sock, network)
    if tls is None:
        return conn
    from offset.net import _tls

    secure = _tls.over(conn, tls, server_hostname=server_hostname or host or None)
    try:
        secure.set_deadline(deadline)
        secure.handshake()
        secure.set_deadline(None)
    except BaseException:
        secure._abort()
        raise
    return secure


def _seconds(timeout: Seconds) -> float:
    return timeout if isinstance(timeout, int | float) else timeout.total_seconds()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - _runtime.now())


def _connect(found: list[_address.Endpoint], network: str, address: str, deadline: float | None) -> socket.socket:
    first = found[0].family
    primaries = [endpoint for endpoint in found if endpoint.family == first]
    fallbacks = [endpoint for endpoint in found if endpoint.family != first]
    if not fallbacks:
        return _one_by_one(primaries, network, address, deadline)
    # Both may be under way. Each racer keeps its socket unless it is taken.
    results: _runtime.Chan[socket.socket | OSError] = _runtime.Chan()
    over: _runtime.Chan[None] = _runtime.Chan()

    def race(endpoints: list[_address.Endpoint]) -> None:
        outcome: socket.socket | OSError
        try:
            outcome = _one_by_one(endpoints, network, address, deadline)
        except OSError as error:
            outcome = error
        taken = False
        try:
            case = _runtime.select(results.if_send(outcome), over.if_recv())
            taken = case.index == 0
        finally:
            if not taken and isinstance(outcome, socket.socket):
                outcome.close()

    racers = [_start(race, primaries)]
    head_start: _runtime.RecvChan[float] | None = _runtime.after(_HEAD_START)
    errors: list[OSError] = []
    try:
        while True:
            cases = [results.if_recv()]
            if head_start is not None:
                cases.append(head_start.if_recv())  # type: ignore[arg-type]
            case = _runtime.select(*cases)
            outcome = case.value
            if not isinstance(outcome, socket.socket):
                if isinstance(outcome, OSError):
                    errors.append(outcome)
                if head_start is not None:
                    head_start = None
                    racers.append(_start(race, fallbacks))
                if len(errors) == 2:
                    raise errors[0]
                continue
            return outcome
    finally:
        over.close()
        for racer in racers:
            racer.cancel()


def _start(race: object, endpoints: list[_address.Endpoint]) -> _runtime.Goroutine:
    racer = _runtime.go(race, endpoints)  # type: ignore[arg-type]
    racer.name = "dial"
    return racer


def _one_by_one(
    endpoints: list[_address.Endpoint], network: str, address: str, deadline: float | None
) -> socket.socket:
    error: OSError | None = None
    for index, endpoint in enumerate(endpoints):
        turn = _left(deadline)
        if turn is not None:
            if turn <= 0 and error is not None:
                break
            # Each gets its share of what is left, but not too little.
            turn = min(turn, max(turn / (len(endpoints) - index), _SHORTEST_TURN))
        try:
            return _try(endpoint, network, address, turn)
        except OSError as failed:
            error = error or failed
    assert error is not None
    raise error


def _try(endpoint: _address.Endpoint, network: str, address: str, timeout: float | None) -> socket.socket:
    sock = socket.socket(endpoint.family, endpoint.type)
    try:
        sock.setblocking(False)
        result = sock.connect_ex(endpoint.address)
        if result in (errno.EINPROGRESS, errno.EAGAIN, errno.EINTR):
            fd = _runtime.Fd(sock.fileno())
            try:
                result = _wait(sock, fd, endpoint, result, timeout)
            finally:
                fd.close()
        if result:
            where = address if endpoint.family == socket.AF_UNIX else _address.text(endpoint.address)
            text = "timed out" if result == errno.ETIMEDOUT else os.strerror(result)
            raise OSError(result, f"dial {network} {where}: {text}")
    except BaseException:
        sock.close()
        raise
    return sock


def _wait(sock: socket.socket, fd: _runtime.Fd, endpoint: _address.Endpoint, result: int, timeout: float | None) -> int:
    """Wait for the end of a connect that is under way, and give its error's number."""
    deadline = None if timeout is None else _runtime.now() + timeout
    if result == errno.EAGAIN:
        # A Unix socket whose listener's queue is full: the system does not tell when it has room.
        pause = 0.001
        while result == errno.EAGAIN:
            left = _left(deadline)
            if left is not None and left <= 0:
                return errno.ETIMEDOUT
            _runtime.sleep(pause if left is None else min(pause, left))
            pause = min(2 * pause, 0.05)
            result = sock.connect_ex(endpoint.address)
        return 0 if result == errno.EISCONN else result
    while True:
        try:
            fd.wait_write(_left(deadline))
        except TimeoutError:
            return errno.ETIMEDOUT
        result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            return result
        # An edge may come before the end.
        result = sock.connect_ex(endpoint.address)
        if result in (0, errno.EISCONN):
            return 0
        if result not in (errno.EALREADY, errno.EINPROGRESS):
            return result
