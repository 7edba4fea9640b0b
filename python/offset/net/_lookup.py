"""Names of hosts: looked up in the blocking pool, equal ones together.

Invariants: a flight is in `_flights` from its start until it has its result, under `_lock`. Whoever asks for a name
that is being looked up shares the flight. Who gives up leaves it to itself: the pool's thread cannot be stopped.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset.net import _address

if TYPE_CHECKING:
    from datetime import timedelta


class _Flight:
    def __init__(self) -> None:
        self.landed: _runtime.Chan[None] = _runtime.Chan()
        self.found: list[Any] = []
        self.error: Exception | None = None

    def fly(self, key: tuple[str, int, int, int]) -> None:
        host, family, type, flags = key
        try:
            self.found = _runtime.blocking(socket.getaddrinfo, host or None, None, family, type, 0, flags)
        except Exception as error:
            self.error = error
        finally:
            with _lock:
                _flights.pop(key, None)
            self.landed.close()


_flights: dict[tuple[str, int, int, int], _Flight] = {}
_lock = _runtime.Mutex()


def endpoints(
    host: str, port: int, family: int, type: int, timeout: float | timedelta | None = None, passive: bool = False
) -> list[_address.Endpoint]:
    """Give where `host` can be reached, in the system's order."""
    known = _address.literal(host)
    if known is not None:
        if family not in (socket.AF_UNSPEC, known):
            what = "an IPv4" if known == socket.AF_INET else "an IPv6"
            raise ValueError(f"{host!r} is {what} address, which this network does not have")
        # No name: this asks nobody.
        infos = socket.getaddrinfo(host, port, known, type, 0, socket.AI_NUMERICHOST)
        return [_address.Endpoint(info[0], type, info[4]) for info in infos]
    key = (host, family, type, socket.AI_PASSIVE if passive else 0)
    with _lock:
        flight = _flights.get(key)
        if flight is None:
            flight = _flights[key] = _Flight()
            _runtime.go(flight.fly, key).name = "lookup"
    try:
        flight.landed.recv_ok(timeout=timeout)
    except TimeoutError:
        raise TimeoutError(f"lookup {host}: timed out") from None
    if flight.error is not None:
        error = flight.error
        if isinstance(error, socket.gaierror):
            raise socket.gaierror(error.errno, f"lookup {host}: {error.strerror}")
        raise error.with_traceback(None)
    return [
        _address.Endpoint(info[0], type, (info[4][0], port, *info[4][2:]))
        for info in flight.found
        if info[0] in (socket.AF_INET, socket.AF_INET6)
    ]


def lookup_host(host: str, timeout: float | timedelta | None = None) -> list[str]:
    """Give the addresses of a host, as Go's `net.LookupHost`, by the system's resolver.

    Only the goroutine waits; equal lookups that are under way are shared. `timeout` is in seconds. Raises
    `socket.gaierror` when there is no such host, and TimeoutError.
    """
    if not isinstance(host, str) or not host:
        raise ValueError(f"the name of a host is a string that is not empty, not {host!r}")
    found = endpoints(host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM, timeout)
    return list(dict.fromkeys(endpoint.address[0] for endpoint in found))
