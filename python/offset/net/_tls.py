"""TLS over a connection, on either side.

The `ssl` module does the protocol on buffers in memory; the bytes go over the connection under it. Invariants:

* `_state` guards the SSL object and its buffers, and is not held over anything that waits.
* Under `_sending` what is to go out is taken and written, in order. Under `_reading` one goroutine waits for what
  comes in; another that waited for that tries again when something has come.
* A write that failed has cut a record: nothing can be sent after it, and each later write raises its error.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
from typing import TYPE_CHECKING, Any, TypeVar

from offset import _runtime
from offset.net._conn import Conn

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

T = TypeVar("T")

# As much is read from the connection, and encrypted, at once.
_CHUNK = 65_536
# How long, in seconds, a close may try to tell the other side.
_FAREWELL = 5.0


class TLSConn(Conn):
    """A TLS connection, as Go's `tls.Conn`; `dial` and a listener's `accept` give it when they have an SSLContext.

    The handshake is made by the first operation, or by `handshake`; deadlines hold for it too. A connection that ends
    without the other side's farewell raises `ssl.SSLEOFError`: what came may have been cut.
    """

    _object: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _state: _runtime.Mutex
    _sending: _runtime.Mutex
    _reading: _runtime.Mutex
    _shaking: _runtime.Mutex
    _writing: _runtime.Mutex
    _shaken: bool
    _failure: ssl.SSLError | None
    _broken: BaseException | None
    # How often something has come in.
    _came: int

    def handshake(self) -> None:
        """Make the handshake, if that was not done yet. Raises `ssl.SSLError`, again and again once it has failed."""
        if self._shaken:
            return
        with self._shaking:
            if self._failure is not None:
                raise self._failure
            if not self._shaken:
                try:
                    self._drive(self._object.do_handshake)
                except ssl.SSLError as error:
                    self._failure = error
                    raise
                self._shaken = True

    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes; wait until there are any. `b""` is the end."""
        if n < 0:
            raise ValueError(f"the size of a read must not be negative, got {n}")
        self.handshake()
        if n == 0:
            return b""
        try:
            return self._drive(lambda: self._object.read(n))
        except ssl.SSLZeroReturnError:
            return b""

    def read_into(self, buffer: Buffer, /) -> int:
        """Read into a buffer as `read`, and give the number of bytes; 0 is the end."""
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.read(len(octets))
            octets[: len(data)] = data
            return len(data)

    def write(self, data: Buffer, /) -> int:
        """Write all of `data` and give its length. Writes of several goroutines do not interleave.

        The exception of one that was cut short has the number of bytes in `characters_written`.
        """
        written = 0
        try:
            self.handshake()
            with memoryview(data) as view, view.cast("B") as octets, self._writing:
                while written < len(octets):
                    part = octets[written : written + _CHUNK]
                    self._drive(lambda: self._object.write(part))  # noqa: B023 - called at once
                    written += len(part)
        except OSError as error:
            error.characters_written = written  # type: ignore[attr-defined]
            raise
        return written

    def _drive(self, operation: Callable[[], T]) -> T:
        """Do an operation of the SSL object, with what goes out and comes in for it."""
        while True:
            with self._state:
                came = self._came
                try:
                    result = operation()
                    wanting = False
                except ssl.SSLWantReadError:
                    wanting = True
                except ssl.SSLError:
                    # What it says to the other side about it goes out, if that is possible at once.
                    self._say_goodbye()
                    raise
                pending = self._outgoing.pending
            if pending:
                self._flush()
            if not wanting:
                return result
            self._fill(came)

    def _say_goodbye(self) -> None:
        data = self._outgoing.read()
        if data:
            with contextlib.suppress(OSError):
                self._sock.send(data)

    def _flush(self) -> None:
        with self._sending:
            if self._broken is not None:
                raise OSError(errno.EPIPE, f"write {self._name}: an earlier write was cut short") from self._broken
            with self._state:
                data = self._outgoing.read()
            if data:
                try:
                    super().write(data)
                except BaseException as error:
                    self._broken = error
                    raise

    def _fill(self, came: int) -> None:
        with self._reading:
            if self._came != came:
                return
            data = super().read(_CHUNK)
            with self._state:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                self._came += 1

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was."""
        if hasattr(file, "seek"):
            file.seek(offset)
        return self._copy_file(file, 0, count)

    def close_write(self) -> None:
        """Tell the other side that nothing more is written: it reads the end. Reading goes on."""
        self.handshake()
        with self._writing:
            with self._state, contextlib.suppress(ssl.SSLError):
                self._object.unwrap()
            self._flush()

    def close(self) -> None:
        """Tell the other side, if that is possible within seconds, and close. A second call does nothing."""
        if not self.closed and self._shaken and self._broken is None and self._writing.try_lock():
            # Nobody writes: the farewell comes at the end of a record.
            try:
                with contextlib.suppress(OSError):
                    self.set_write_deadline(_runtime.now() + _FAREWELL)
                    with self._state, contextlib.suppress(ssl.SSLError):
                        self._object.unwrap()
                    self._flush()
            finally:
                self._writing.unlock()
        self._abort()

    def _abort(self) -> None:
        """Close without a word."""
        super().close()

    def version(self) -> str | None:
        """Give the protocol's version, such as "TLSv1.3"; None before the handshake."""
        return self._object.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Give the cipher, as `ssl.SSLSocket.cipher`; None before the handshake."""
        return self._object.cipher()

    def selected_alpn_protocol(self) -> str | None:
        """Give the protocol that was agreed on by ALPN, if one was."""
        return self._object.selected_alpn_protocol()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Give the other side's certificate, as `ssl.SSLSocket.getpeercert`."""
        return self._object.getpeercert(binary_form)


def over(
    conn: Conn, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
) -> TLSConn:
    """Make a TLS connection of one that nobody has used yet. That one is over then."""
    sock, network = conn._sock, conn._network
    try:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        made = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=server_hostname)
        conn._close()
        secure = TLSConn(sock.fileno())
    except BaseException:
        conn.close()
        sock.close()
        raise
    secure._sock, secure._network = sock, network
    secure._object, secure._incoming, secure._outgoing = made, incoming, outgoing
    secure._state, secure._sending, secure._reading = _runtime.Mutex(), _runtime.Mutex(), _runtime.Mutex()
    secure._shaking, secure._writing = _runtime.Mutex(), _runtime.Mutex()
    secure._shaken = False
    secure._failure = None
    secure._broken = None
    secure._came = 0
    return secure
