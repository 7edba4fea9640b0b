"""`listen` and `listen_packet`."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from offset.net import _address, _lookup
from offset.net._conn import Listener, PacketConn

if TYPE_CHECKING:
    import ssl


def listen(network: str, address: str, tls: ssl.SSLContext | None = None) -> Listener:
    """Listen for connections, as Go's `net.Listen`.

    `network` is "tcp", "tcp4", "tcp6" or "unix". Without a host (":8080") it listens on all addresses, port 0 takes
    a free one, which `Listener.addr` tells. With `tls` its connections are TLS connections. The file of a Unix
    socket goes with the listener. Raises OSError, which names the address.
    """
    sock = _bound(network, address, socket.SOCK_STREAM)
    try:
        sock.listen(_backlog())
        listener = Listener(sock, network, tls)
    except BaseException:
        sock.close()
        raise
    listener._path = _path(network, address)
    return listener


def listen_packet(network: str, address: str) -> PacketConn:
    """Receive packets at an address, as Go's `net.ListenPacket`.

    `network` is "udp", "udp4", "udp6" or "unixgram". Raises OSError, which names the address.
    """
    sock = _bound(network, address, socket.SOCK_DGRAM)
    try:
        conn = PacketConn(sock, network)
    except BaseException:
        sock.close()
        raise
    conn._path = _path(network, address)
    return conn


def _path(network: str, address: str) -> str | None:
    return address if network.startswith("unix") and not address.startswith("@") else None


def _backlog() -> int:
    # As much as the system allows, as Go does.
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return socket.SOMAXCONN


def _bound(network: str, address: str, wanted: int) -> socket.socket:
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
                return _bind(endpoint, network, address, dual=family == socket.AF_UNSPEC)
            except OSError:
                if family == socket.AF_INET6:
                    raise
        host = "::" if family == socket.AF_INET6 else "0.0.0.0"
    found = _lookup.endpoints(host, number, family, type, passive=True)
    # As Go: IPv4 first.
    found.sort(key=lambda endpoint: endpoint.family != socket.AF_INET)
    return _bind(found[0], network, address)


def _bind(endpoint: _address.Endpoint, network: str, address: str, dual: bool = False) -> socket.socket:
    sock = socket.socket(endpoint.family, endpoint.type)
    try:
        sock.setblocking(False)
        if endpoint.family != socket.AF_UNIX and endpoint.type == socket.SOCK_STREAM and os.name != "nt":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        sock.bind(endpoint.address)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"listen {network} {address}: {os.strerror(error.errno or 0)}") from None
    except BaseException:
        sock.close()
        raise
    return sock
