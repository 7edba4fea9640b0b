"""`dial`: addresses of one family one after the other, those of the other beside them after a short head start.

Invariants (RFC 6555, as Go's `net.Dialer`): the first socket that is connected wins. Every other one is closed by the
goroutine that made it, whoever gives up, so no descriptor is left.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from offset import _runtime
from offset._errors import DeadlineExceeded
from offset.context import scope
from offset.net import _address, _lookup
from offset.net._conn import Conn, connection
from offset.net._listen import left, moment

if TYPE_CHECKING:
    import ssl

    from offset._duration import Seconds
    from offset.context import Context

_HEAD_START = 0.3
_SHORTEST_TURN = 2.0

# A connect to a port of ours that is free may be given that very port, and then meets itself. It is tried so often.
_TRIES = 3


def dial(
    network: str,
    address: str,
    timeout: Seconds | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    context: Context | None = None,
) -> Conn:
    """Connect to an address, as Go's `net.Dial`.

    `network` is one of "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix" and "unixgram". All of it, the lookup of
    the host's name and the TLS handshake too, takes up to `timeout` seconds. With `tls` the connection is a TLS
    connection, to `server_hostname` or else the address's host. With `context`, in goroutines, it obeys that, too, as
    within its `scope` (Go: Dialer.DialContext). If the time is over already, or the context, nothing is tried.

    Raises what the system says (ConnectionRefusedError), naming the address, `socket.gaierror`, `ssl.SSLError` with a
    note that names the address, TimeoutError, ValueError for what is no address and for a TLS context that is for
    servers, and TypeError for what is no TLS context.
    """
    if context is not None:
        with scope(context):
            return dial(network, address, timeout, tls, server_hostname)
    family, type = _address.kind(network)
    deadline = moment(timeout)
    if family == socket.AF_UNIX:
        host = ""
        found = [_address.Endpoint(family, type, _address.unix_path(address))]
    else:
        host, port = _address.split(address)
        number = _address.port_number(port, type)
        host = host or "localhost"
    if tls is not None:
        from offset.net import _tls

        _tls.check(tls, server_side=False)
        if type != socket.SOCK_STREAM:
            raise ValueError(f"TLS needs a stream, and {network!r} has none")
        server_hostname = server_hostname or host.partition("%")[0] or None
        if tls.check_hostname and not server_hostname:
            raise ValueError("the context checks the name of the host, and there is none; give server_hostname")
    wish = _Wish(network, address, deadline)
    # Waits for nobody, and raises if the context of a scope is over: a connect would be made first.
    _runtime.WaitGroup().wait()
    if left(deadline) == 0:
        raise wish.failed(errno.ETIMEDOUT, address)
    if family != socket.AF_UNIX:
        found = _lookup.endpoints(host, number, family, type, left(deadline))
    conn = connection(_connect(found, wish), network)
    return conn if tls is None else _tls.dialed(conn, tls, server_hostname, deadline, f"{network} {address}")


class _Wish(NamedTuple):
    """What was asked for."""

    network: str
    address: str
    deadline: float | None

    def failed(self, number: int, where: str, text: str = "") -> OSError:
        """Make the error of a connect."""
        text = "timed out" if number == errno.ETIMEDOUT else text or _address.words(OSError(number, ""))
        return OSError(number, f"dial {self.network} {where}: {text}")


def _connect(found: list[_address.Endpoint], wish: _Wish) -> socket.socket:
    first = found[0].family
    primaries = [endpoint for endpoint in found if endpoint.family == first]
    fallbacks = [endpoint for endpoint in found if endpoint.family != first]
    if not fallbacks:
        return _one_by_one(primaries, wish)
    # Both may be under way. Each racer keeps its socket unless it is taken.
    results: _runtime.Chan[tuple[bool, socket.socket | Exception]] = _runtime.Chan()
    over: _runtime.Chan[None] = _runtime.Chan()

    def race(endpoints: list[_address.Endpoint], primary: bool) -> None:
        outcome: socket.socket | Exception
        try:
            outcome = _one_by_one(endpoints, wish)
        except Exception as error:
            outcome = error.with_traceback(None)
        taken = False
        try:
            taken = _runtime.select(results.if_send((primary, outcome)), over.if_recv()).index == 0
        finally:
            if not taken and isinstance(outcome, socket.socket):
                outcome.close()

    def start(endpoints: list[_address.Endpoint], primary: bool) -> _runtime.Goroutine:
        racer = _runtime.go(race, endpoints, primary)
        racer.name = "dial"
        return racer

    racers = [start(primaries, True)]
    timer = _runtime.Timer(_HEAD_START)
    errors: dict[bool, Exception] = {}
    try:
        while len(errors) < 2:
            if len(racers) == 2:
                primary, outcome = results.recv()
            else:
                case: _runtime.Case[Any] = _runtime.select(results.if_recv(), timer.c.if_recv())
                if case.index == 1:
                    racers.append(start(fallbacks, False))
                    continue
                primary, outcome = case.value
            if isinstance(outcome, socket.socket):
                return outcome
            errors[primary] = outcome
            if len(racers) == 1:
                racers.append(start(fallbacks, False))
        raise errors[True]
    finally:
        timer.stop()
        over.close()
        for racer in racers:
            racer.cancel()


def _one_by_one(endpoints: list[_address.Endpoint], wish: _Wish) -> socket.socket:
    error: OSError | None = None
    for index, endpoint in enumerate(endpoints):
        turn = left(wish.deadline)
        if turn is not None:
            if turn == 0:
                error = error or wish.failed(errno.ETIMEDOUT, wish.address)
                break
            # Each gets its share of what is left, but not too little.
            turn = min(turn, max(turn / (len(endpoints) - index), _SHORTEST_TURN))
        try:
            return _try(endpoint, wish, moment(turn))
        except DeadlineExceeded:
            raise
        except OSError as failed:
            error = error or failed
    assert error is not None
    raise error


def _try(endpoint: _address.Endpoint, wish: _Wish, deadline: float | None) -> socket.socket:
    where = wish.address if endpoint.family == socket.AF_UNIX else _address.text(endpoint.address)
    for _ in range(_TRIES):
        try:
            sock = socket.socket(endpoint.family, endpoint.type)
        except OSError as error:
            raise wish.failed(error.errno or errno.EIO, where) from None
        try:
            result = _make(sock, endpoint, deadline)
            if result:
                raise wish.failed(result, where)
            if endpoint.type == socket.SOCK_DGRAM or not _met_itself(sock):
                return sock
        except DeadlineExceeded:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            if error.errno is None:
                # A path that is too long.
                raise wish.failed(errno.EINVAL, where, str(error)) from None
            raise
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise wish.failed(errno.ECONNREFUSED, where)


def _met_itself(sock: socket.socket) -> bool:
    if sock.family == socket.AF_UNIX:
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        # The other side has gone already, which the first read will say.
        return False


def _make(sock: socket.socket, endpoint: _address.Endpoint, deadline: float | None) -> int:
    """Connect, and give the error's number."""
    sock.setblocking(False)
    result = sock.connect_ex(endpoint.address)
    if result == errno.EAGAIN and endpoint.family == socket.AF_UNIX:
        # The listener's queue is full, and the system does not tell when it has room.
        pause = 0.001
        while result == errno.EAGAIN:
            rest = left(deadline)
            if rest == 0:
                return errno.ETIMEDOUT
            _runtime.sleep(pause if rest is None else min(pause, rest))
            pause = min(2 * pause, 0.05)
            result = sock.connect_ex(endpoint.address)
    if result not in (errno.EINPROGRESS, errno.EINTR):
        return result
    fd = _runtime.Fd(sock.fileno())
    try:
        while True:
            try:
                fd.wait_write(left(deadline))
            except DeadlineExceeded:
                raise
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
    finally:
        fd.close()
