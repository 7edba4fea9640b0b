"""A connection that speaks another protocol from a request on, WebSocket say: a socket for the application."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from offset import _runtime

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from offset._runtime import Http
    from offset.net._conn import Conn


class UpgradedSocket:
    """The connection of a request that asked for another protocol: `environ["offset.socket"]`.

    It has the methods of a socket that libraries use, and `read` and `write` as those of `offset.net`; its waits
    park only the goroutine. With the first use the connection is the application's: the server answers nothing any
    more, and closes it when the application returns.
    """

    def __init__(self, http: Http, conn: Conn) -> None:
        self._http = http
        self._conn = conn
        self._left = b""
        self._taken = False
        self._timeout: float | None = None

    def _take(self) -> Conn:
        if not self._taken:
            self._taken = True
            self._left = self._http.detach()
        return self._conn

    @property
    def taken(self) -> bool:
        """Whether the application has used it."""
        return self._taken

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to `bufsize` bytes; `b""` is the end."""
        conn = self._take()
        if self._left:
            data = self._left[:bufsize]
            if not flags & socket.MSG_PEEK:
                self._left = self._left[bufsize:]
            return data
        if flags:
            raise ValueError("a connection that was upgraded takes no flags")
        if self._timeout is not None:
            conn.set_read_deadline(_runtime.now() + self._timeout)
        return conn.read(bufsize)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, /) -> int:
        """Receive into a buffer, and give the number of bytes."""
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.recv(nbytes or len(octets))
            octets[: len(data)] = data
            return len(data)

    def sendall(self, data: Buffer, /) -> None:
        """Send all of `data`."""
        conn = self._take()
        if self._timeout is not None:
            conn.set_write_deadline(_runtime.now() + self._timeout)
        conn.write(data)

    def send(self, data: Buffer, /) -> int:
        """Send all of `data`, and give its length."""
        self.sendall(data)
        return len(memoryview(data).cast("B"))

    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes; `b""` is the end."""
        return self.recv(n)

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`, and give its length."""
        return self.send(data)

    def settimeout(self, value: float | None, /) -> None:
        """Let each later call fail with TimeoutError after so many seconds; None for never."""
        self._timeout = value
        if value is None:
            self._conn.set_deadline(None)

    def gettimeout(self) -> float | None:
        """Give what `settimeout` was told."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """Refuse anything but waiting."""
        if not flag:
            raise ValueError("a connection that was upgraded waits; settimeout() bounds that")

    def fileno(self) -> int:
        """Give the number of its descriptor, -1 once it is closed."""
        return self._conn.fileno()

    def getpeername(self) -> Any:
        """Give the other side's address, as the socket module has it."""
        return self._conn._peer

    def getsockname(self) -> Any:
        """Give this side's address, as the socket module has it."""
        return self._conn._sock.getsockname()

    def stats(self) -> dict[str, object]:
        """Tell about it: whether the application has used it, and what its connection tells."""
        return {"taken": self._taken, **self._conn.stats()}

    def shutdown(self, how: int, /) -> None:
        """Close one half, or both."""
        conn = self._take()
        if how != socket.SHUT_WR:
            conn.close_read()
        if how != socket.SHUT_RD:
            conn.close_write()

    def close(self) -> None:
        """Close the connection."""
        self._take().close()
