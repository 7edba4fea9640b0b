"""The PROXY protocol, versions 1 and 2: who is behind the load balancer that has connected.

The specification is HAProxy's, "The PROXY protocol". What it puts before a connection is read without a byte more:
TLS may begin right behind it.
"""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
import struct
from typing import TYPE_CHECKING

from offset import _runtime

if TYPE_CHECKING:
    from offset.net._conn import Conn

    Address = tuple[str, str]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# A line of version 1, with its end; and the addresses and extensions of version 2 that are read.
_LONGEST_LINE = 107
_LONGEST_BLOCK = 4096


def read(conn: Conn, timeout: float | None) -> tuple[Address, Address] | None:
    """Read the header: the client's address and port, and those it connected to; None if it does not say.

    Raises OSError if there is none within `timeout` seconds.
    """
    if timeout is not None:
        conn.set_read_deadline(_runtime.now() + timeout)
    head = _peek(conn, len(_SIGNATURE))
    found = _read_binary(conn) if head == _SIGNATURE else _read_line(conn, head)
    conn.set_read_deadline(None)
    return found


def _broken(why: str) -> OSError:
    return OSError(errno.EPROTO, f"no header of the PROXY protocol: {why}")


def _ended() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "no header of the PROXY protocol: the connection ended")


def _peek(conn: Conn, size: int) -> bytes:
    """Look at the first `size` bytes, once there are so many, or at what shows that there is no signature."""
    seen = b""
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLRDHUP)
    while True:
        # What comes before an end is seen again and again. Asked first: nothing comes after it.
        ended = bool(seen and poll.poll(0))
        try:
            data = conn._sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            data = seen
        else:
            if not data:
                raise _ended()
        if len(data) == size or (data and not _SIGNATURE.startswith(data)):
            return data
        if ended:
            raise _ended()
        seen = data
        conn._wait_read()


def _read_line(conn: Conn, head: bytes) -> tuple[Address, Address] | None:
    if not (b"PROXY ".startswith(head) or head.startswith(b"PROXY ")):
        raise _broken("another beginning")
    line = b""
    # Byte by byte: what comes after it is somebody else's.
    while not line.endswith(b"\r\n"):
        if len(line) == _LONGEST_LINE:
            raise _broken("the line is too long")
        byte = conn.read(1)
        if not byte:
            raise _ended()
        line += byte
    words = line[:-2].decode("latin-1").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return None
    families = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in families:
        raise _broken("the line has other words")
    try:
        source, destination = (str(families[words[1]](word)) for word in words[2:4])
    except ValueError:
        raise _broken("an address is broken") from None
    for port in words[4:]:
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
            raise _broken("a port is broken")
    return (source, words[4]), (destination, words[5])


def _exactly(conn: Conn, size: int) -> bytes:
    try:
        return conn.read_full(size)
    except EOFError:
        raise _ended() from None


def _read_binary(conn: Conn) -> tuple[Address, Address] | None:
    head = _exactly(conn, 16)
    command, family, size = struct.unpack("!12xBBH", head)
    if command >> 4 != 2 or command & 15 > 1:
        raise _broken("another version or command")
    if size > _LONGEST_BLOCK:
        raise _broken("it is too long")
    block = _exactly(conn, size)
    if command & 15 == 0:
        # The load balancer itself, to see whether somebody is there.
        return None
    shapes = {0x11: ("!4s4sHH", socket.AF_INET), 0x21: ("!16s16sHH", socket.AF_INET6)}
    if family not in shapes:
        return None
    shape, kind = shapes[family]
    if len(block) < struct.calcsize(shape):
        raise _broken("the addresses are cut")
    source, destination, source_port, destination_port = struct.unpack_from(shape, block)
    return (
        (socket.inet_ntop(kind, source), str(source_port)),
        (socket.inet_ntop(kind, destination), str(destination_port)),
    )
