"""Networks, as Go's package `net`: connections whose operations park only the goroutine."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, BinaryIO, Self

from typing_extensions import Buffer

from offset.context import Context

__all__ = [
    "Conn",
    "Listener",
    "PacketConn",
    "PipeConn",
    "TLSConn",
    "dial",
    "listen",
    "listen_packet",
    "lookup_host",
    "pipe",
]

_Seconds = float | timedelta

class Conn:
    """A connection, as Go's `net.Conn`; `dial` and `Listener.accept` give it. A context manager that closes."""

    @property
    def network(self) -> str:
        """Its network, such as "tcp"."""
    @property
    def local_addr(self) -> str:
        """The address of this end."""
    @property
    def remote_addr(self) -> str:
        """The address of the other end."""
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes; wait until there are any. `b""` is the end."""
    def read_into(self, buffer: Buffer, /) -> int:
        """Read into a buffer as `read`, and give the number of bytes; 0 is the end."""
    def read_full(self, n: int) -> bytes:
        """Read exactly `n` bytes. Raises `io.IncompleteReadError`, an EOFError, if the end comes before."""
    def write(self, data: Buffer, /) -> int:
        """Write all of `data` and give its length. Writes of several goroutines do not interleave.

        The exception of one that was cut short has the number of bytes in `characters_written`.
        """
    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was."""
    def set_deadline(self, when: _Seconds | None, /) -> None:
        """Let reads and writes raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never."""
    def set_read_deadline(self, when: _Seconds | None, /) -> None:
        """As `set_deadline`, of reads only."""
    def set_write_deadline(self, when: _Seconds | None, /) -> None:
        """As `set_deadline`, of writes only."""
    def close_read(self) -> None:
        """Close the reading half: reads give `b""` from then on."""
    def close_write(self) -> None:
        """Close the writing half: the other side reads the end."""
    def close(self) -> None:
        """Close the connection. Who reads or writes gets an OSError. A second call does nothing."""
    def fileno(self) -> int:
        """Give the descriptor's number, -1 once it is closed."""
    def stats(self) -> dict[str, object]:
        """Tell about it: its addresses, and whether it is closed."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class TLSConn(Conn):
    """A TLS connection, as Go's `tls.Conn`; `dial` and `Listener.accept` give it when they have an SSLContext."""

    @property
    def network(self) -> str: ...
    @property
    def local_addr(self) -> str: ...
    @property
    def remote_addr(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def read(self, n: int, /) -> bytes: ...
    def read_into(self, buffer: Buffer, /) -> int: ...
    def read_full(self, n: int) -> bytes: ...
    def write(self, data: Buffer, /) -> int: ...
    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int: ...
    def set_deadline(self, when: _Seconds | None, /) -> None: ...
    def set_read_deadline(self, when: _Seconds | None, /) -> None: ...
    def set_write_deadline(self, when: _Seconds | None, /) -> None: ...
    def close_read(self) -> None: ...
    def close_write(self) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def stats(self) -> dict[str, object]: ...
    def handshake(self) -> None:
        """Make the handshake, if that was not done yet. Raises `ssl.SSLError`, again and again once it has failed."""
    def version(self) -> str | None:
        """Give the protocol's version, such as "TLSv1.3"; None before the handshake."""
    def cipher(self) -> tuple[str, str, int] | None:
        """Give the cipher, as `ssl.SSLSocket.cipher`; None before the handshake."""
    def selected_alpn_protocol(self) -> str | None:
        """Give the protocol that was agreed on by ALPN, if one was."""
    def getpeercert(self, binary_form: bool = False) -> Any:
        """Give the other side's certificate, as `ssl.SSLSocket.getpeercert`."""

class Listener:
    """Accepts connections, as Go's `net.Listener`; `listen` gives it. Iteration accepts until it is closed."""

    @property
    def addr(self) -> str:
        """The address that it listens on."""
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    def accept(self, timeout: _Seconds | None = None) -> Conn:
        """Wait for a connection and give it; up to `timeout` seconds. Raises OSError once the listener is closed."""
    def close(self) -> None:
        """Stop listening; connections that were accepted stay. Who waits in `accept` gets an OSError."""
    def fileno(self) -> int:
        """Give the descriptor's number, -1 once it is closed."""
    def stats(self) -> dict[str, object]:
        """Tell about it: its address, how many connections it has accepted, whether it is closed."""
    def __iter__(self) -> Iterator[Conn]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class PacketConn:
    """Sends and receives packets, as Go's `net.PacketConn`; `listen_packet` gives it. A context manager."""

    @property
    def addr(self) -> str:
        """Its address."""
    @property
    def local_addr(self) -> str:
        """Its address."""
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    def read_from(self, n: int, timeout: _Seconds | None = None) -> tuple[bytes, str]:
        """Wait for a packet; give up to `n` bytes of it, and where it came from. The rest of it is lost."""
    def write_to(self, data: Buffer, addr: str) -> int:
        """Send a packet to `addr`, and give its length. A host's name in `addr` is looked up."""
    def set_deadline(self, when: _Seconds | None) -> None:
        """Let operations raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never."""
    def set_read_deadline(self, when: _Seconds | None) -> None:
        """As `set_deadline`, of `read_from`."""
    def set_write_deadline(self, when: _Seconds | None) -> None:
        """As `set_deadline`, of `write_to`."""
    def close(self) -> None:
        """Close it. Who waits gets an OSError. A second call does nothing."""
    def fileno(self) -> int:
        """Give the descriptor's number, -1 once it is closed."""
    def stats(self) -> dict[str, object]:
        """Tell about it: its network and address, and whether it is closed."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class PipeConn:
    """One end of a `pipe`: a connection in memory. A context manager that closes."""

    @property
    def network(self) -> str:
        """Its network: "pipe"."""
    @property
    def local_addr(self) -> str:
        """The address of this end: "pipe"."""
    @property
    def remote_addr(self) -> str:
        """The address of the other end: "pipe"."""
    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes of what is being written; wait until there are any. `b""` is the end."""
    def read_into(self, buffer: Buffer, /) -> int:
        """Read into a buffer as `read`, and give the number of bytes; 0 is the end."""
    def read_full(self, n: int) -> bytes:
        """Read exactly `n` bytes. Raises `io.IncompleteReadError`, an EOFError, if the end comes before."""
    def write(self, data: Buffer, /) -> int:
        """Write all of `data`, wait until it is read, and give its length."""
    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was."""
    def set_deadline(self, when: _Seconds | None) -> None:
        """Let reads and writes raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never."""
    def set_read_deadline(self, when: _Seconds | None) -> None:
        """As `set_deadline`, of reads only."""
    def set_write_deadline(self, when: _Seconds | None) -> None:
        """As `set_deadline`, of writes only."""
    def close_read(self) -> None:
        """Close the reading half: the other end's writes raise BrokenPipeError."""
    def close_write(self) -> None:
        """Close the writing half: the other end reads the end."""
    def close(self) -> None:
        """Close this end: the other one reads the end. Who waits here gets an OSError."""
    def stats(self) -> dict[str, object]:
        """Tell about it: whether it is closed."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

def dial(
    network: str,
    address: str,
    timeout: _Seconds | None = None,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    context: Context | None = None,
) -> Conn:
    """Connect to an address, as Go's `net.Dial`; all of it takes up to `timeout` seconds, and obeys `context`."""

def listen(network: str, address: str, tls: ssl.SSLContext | None = None) -> Listener:
    """Listen for connections, as Go's `net.Listen`."""

def listen_packet(network: str, address: str) -> PacketConn:
    """Receive packets at an address, as Go's `net.ListenPacket`."""

def lookup_host(host: str, timeout: _Seconds | None = None) -> list[str]:
    """Give the addresses of a host, as Go's `net.LookupHost`, by the system's resolver."""

def pipe() -> tuple[PipeConn, PipeConn]:
    """Make a connection in memory, as Go's `net.Pipe`, and give its ends."""
