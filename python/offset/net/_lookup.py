"""Names of hosts: looked up in the blocking pool, equal ones together.

Invariants: a flight is in the table, under its lock, from its start until its goroutine has ended, or was cancelled
before it began. Whoever asks for a name that is being looked up waits for that goroutine, too. Who gives up leaves it
to itself: the pool's thread cannot be stopped. A flight whose goroutine was cancelled, by the end of a `run`, has no
result, and whoever still wants one starts another. A forked child forgets the flights, which never end there.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset.net import _address

if TYPE_CHECKING:
    from datetime import timedelta

_Key = tuple[str, int, int, int]


class _Flight:
    goroutine: _runtime.Goroutine

    def __init__(self, key: _Key) -> None:
        # The name of its goroutine.
        self.__qualname__ = "lookup"
        self.key = key
        # Neither is there if the goroutine was cancelled.
        self.found: list[Any] | None = None
        self.error: Exception | None = None

    def __call__(self) -> None:
        host, family, type, flags = self.key
        try:
            self.found = _runtime.blocking(socket.getaddrinfo, host or None, None, family, type, 0, flags)
        except Exception as error:
            # Without the frames, which have the flight.
            self.error = error.with_traceback(None)

    def __offset_over__(self, error: BaseException | None) -> None:
        # Nobody takes its place while it is alive.
        _table.flights.pop(self.key, None)


class _Table:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = _runtime.StateMutex()
        self.flights: dict[_Key, _Flight] = {}


_table = _Table()
os.register_at_fork(after_in_child=_table.forget)


def endpoints(
    host: str, port: int, family: int, type: int, timeout: float | timedelta | None = None, passive: bool = False
) -> list[_address.Endpoint]:
    """Give where `host` can be reached, in the system's order."""
    known = _address.literal(host)
    if known is not None:
        if family not in (socket.AF_UNSPEC, known):
            what = "an IPv4" if known == socket.AF_INET else "an IPv6"
            raise ValueError(f"{host!r} is {what} address, which this network does not have")
        if known == socket.AF_INET:
            return [_address.Endpoint(known, type, (host, port))]
        if "%" not in host:
            return [_address.Endpoint(known, type, (host, port, 0, 0))]
        # No name, but one of an interface: this asks nobody.
        infos = socket.getaddrinfo(host, port, known, type, 0, socket.AI_NUMERICHOST)
        return [_address.Endpoint(info[0], type, info[4]) for info in infos]
    found = [
        _address.Endpoint(info[0], type, (info[4][0], port, *info[4][2:]))
        for info in _look_up((host, family, type, socket.AI_PASSIVE if passive else 0), timeout)
        if info[0] in (socket.AF_INET, socket.AF_INET6)
    ]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"lookup {host}: no addresses")
    return found


def _look_up(key: _Key, timeout: float | timedelta | None) -> list[Any]:
    host = key[0]
    while True:
        with _table.lock:
            flight = _table.flights.get(key)
            if flight is None or flight.goroutine.status == "dead":
                flight = _table.flights[key] = _Flight(key)
                flight.goroutine = _runtime.go(flight)
        if not flight.goroutine.join(timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"lookup {host}: timed out")
        error = flight.error
        if isinstance(error, socket.gaierror):
            raise socket.gaierror(error.errno, f"lookup {host}: {error.strerror}")
        if isinstance(error, OSError):
            raise OSError(error.errno, f"lookup {host}: {_address.words(error)}")
        if error is not None:
            # UnicodeError and the like: the resolver was not asked.
            raise ValueError(f"{host!r} is no name of a host: {error}")
        if flight.found is not None:
            return flight.found


def lookup_host(host: str, timeout: float | timedelta | None = None) -> list[str]:
    """Give the addresses of a host, as Go's `net.LookupHost`, by the system's resolver.

    Only the goroutine waits; equal lookups that are under way are shared. `timeout` is in seconds. Raises
    `socket.gaierror` when there is no such host, TimeoutError, and ValueError for what cannot be a name.
    """
    if not isinstance(host, str) or not host:
        raise ValueError(f"the name of a host is a string that is not empty, not {host!r}")
    found = endpoints(host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM, timeout)
    return list(dict.fromkeys(_address.zoned(host, rest) for host, _, *rest in (each.address for each in found)))
