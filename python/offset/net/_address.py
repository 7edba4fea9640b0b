"""Addresses: the strings of `offset.net`, and the tuples of the `socket` module.

A string that is given for a socket is accepted by `dial` and gives the same address.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

FAMILIES = {
    "tcp": (socket.AF_UNSPEC, socket.SOCK_STREAM),
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp": (socket.AF_UNSPEC, socket.SOCK_DGRAM),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "unixgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
}

# Where the system has no list of services: those that Go knows by itself.
_SERVICES = {
    "domain": 53,
    "ftp": 21,
    "ftps": 990,
    "gopher": 70,
    "http": 80,
    "https": 443,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "smtp": 25,
    "ssh": 22,
    "telnet": 23,
}


class Endpoint(NamedTuple):
    """Where a socket can be connected or bound to."""

    family: int
    type: int
    address: Any


def kind(network: str, *wanted: int) -> tuple[int, int]:
    """Give the family and the type of a network's sockets; raises ValueError for one that there is not."""
    try:
        family, type = FAMILIES[network]
    except (KeyError, TypeError):
        raise ValueError(f"there is no network {network!r}; it is one of {', '.join(FAMILIES)}") from None
    if wanted and type not in wanted:
        suited = ", ".join(name for name, (_, other) in FAMILIES.items() if other in wanted)
        raise ValueError(f"the network {network!r} does not do for this; it is one of {suited}")
    return family, type


def split(address: str) -> tuple[str, str]:
    """Split "host:port" into its parts, as Go's `net.SplitHostPort`; raises ValueError if it is none."""
    if not isinstance(address, str):
        raise TypeError(f'an address is a string "host:port", not {type(address).__name__}')
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        raise ValueError(f'the address {address!r} has no port; write "host:port"')
    if host.startswith("["):
        if not host.endswith("]"):
            raise ValueError(f'the address {address!r} is not of the form "[host]:port"')
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'the address {address!r} has too many colons; write "[host]:port" for IPv6')
    if "[" in host or "]" in host or "\0" in host:
        raise ValueError(f"the address {address!r} has a character that no name of a host has")
    return host, port


def join(host: str, port: int | str) -> str:
    """Make "host:port", as Go's `net.JoinHostPort`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(port: str, type: int) -> int:
    """Give the number of a port, which may be a service's name; raises ValueError if there is none."""
    if port.isascii() and port.isdigit():
        if len(port.lstrip("0")) > 5 or int(port) > 65_535:
            raise ValueError(f"the port {port} is not between 0 and 65535")
        return int(port)
    if not port:
        return 0
    try:
        return socket.getservbyname(port, "tcp" if type == socket.SOCK_STREAM else "udp")
    except (OSError, ValueError):
        pass
    try:
        return _SERVICES[port]
    except KeyError:
        raise ValueError(f"the port {port!r} is neither a number nor the name of a service") from None


def unix_path(address: str) -> str | bytes:
    """Give the address of a Unix socket as the `socket` module has it: "@name" is an abstract one."""
    if not isinstance(address, str):
        raise TypeError(f"an address of a Unix socket is a path, not {type(address).__name__}")
    if "\0" in address:
        raise ValueError(f"the path {address!r} has a zero character")
    if address.startswith("@"):
        return b"\0" + address[1:].encode(errors="surrogateescape")
    return address


def text(address: Any) -> str:
    """Write an address of the `socket` module as a string of ours."""
    if isinstance(address, tuple):
        host, port, *rest = address
        if host.startswith("::ffff:") and "." in host:
            # IPv4, on a socket for both versions.
            host = host[7:]
        return join(zoned(host, rest), port)
    if isinstance(address, bytes):
        # An abstract name; one that the system made up has bytes that are no text.
        if address.startswith(b"\0"):
            return "@" + address[1:].decode(errors="surrogateescape")
        return address.decode(errors="surrogateescape")
    return address or ""


def zoned(host: str, rest: Sequence[int]) -> str:
    """Give the host of an address with its zone, if `rest`, what follows its port, has one."""
    return f"{host}%{_scope(rest[1])}" if len(rest) > 1 and rest[1] and "%" not in host else host


def _scope(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        # The interface has gone.
        return str(index)


def words(error: OSError) -> str:
    """Give what the system says about an error."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def literal(host: str) -> int | None:
    """Give the family of an IP address that is written out; None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return family
    return None
