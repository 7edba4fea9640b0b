"""TLS over a connection, on either side.

The `ssl` module does the protocol on buffers in memory; the bytes go over the connection under it. Invariants:

* `_state` guards the SSL object, its buffers, `_unread` and `_came`, and is not held over anything that waits.
* Under `_sending` what is to go out is taken and written, in order. Under `_reading` one goroutine waits for what
  comes in; another that waited for that tries again when something has come.
* A read sends only what it made itself, and does not wait for a write that is under way: two sides that write much
  and read beside it would wait for each other. Whoever holds `_sending` sends that, too.
* A write that failed has cut a record: nothing can be sent after it, and each later write raises its error.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import ssl
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from offset import _runtime
from offset._errors import note_written
from offset.net import _stream
from offset.net._conn import Conn

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

T = TypeVar("T")

# As much is read from the connection, and encrypted, at once.
_CHUNK = 65_536
# How long, in seconds, a close may try to tell the other side.
_FAREWELL = 5.0


class _Deaf(Exception):
    """The reading half is closed."""


class TLSConn(Conn):
    """A TLS connection, as Go's `tls.Conn`; `dial` and a listener's `accept` give it when they have an SSLContext.

    The handshake is made by the first operation, or by `handshake`; deadlines hold for it too. A connection that ends
    without the other side's farewell raises `ssl.SSLEOFError`: what came may have been cut.
    """

    _object: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _state: _runtime.StateMutex
    _sending: _runtime.Mutex
    _reading: _runtime.Mutex
    _shaking: _runtime.Mutex
    _writing: _runtime.Mutex
    # What was decrypted and not read yet, when the writing half was closed.
    _unread: bytearray
    # How often something has come in.
    _came: int = 0
    _shaken: bool = False
    _failure: ssl.SSLError | None = None
    _broken: BaseException | None = None
    # This side's halves were closed.
    _deaf: bool = False
    _mute: bool = False

    def handshake(self) -> None:
        """Make the handshake, if that was not done yet. Raises `ssl.SSLError`, again and again once it has failed."""
        if self._shaken:
            return
        with self._shaking:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if not self._shaken:
                try:
                    self._drive(self._object.do_handshake, "handshake with")
                except ssl.SSLError as error:
                    self._failure = error
                    raise
                self._shaken = True

    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes; wait until there are any. `b""` is the end."""
        n = _stream.size(n)
        self.handshake()
        if n == 0:
            return b""
        try:
            if self._deaf:
                self._alive("read")
                return b""
            return self._drive(lambda: self._take(n), "read")
        except (ssl.SSLZeroReturnError, _Deaf):
            return b""

    def _take(self, n: int) -> bytes:
        if self._unread:
            data = bytes(self._unread[:n])
            del self._unread[:n]
            return data
        return self._object.read(n)

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
                self._alive("write")
                if self._mute:
                    raise BrokenPipeError(errno.EPIPE, f"write {self._name}: the writing half is closed")
                while written < len(octets):
                    with octets[written : written + _CHUNK] as part:
                        written += self._drive(lambda: self._object.write(part), "write")
        except BaseException as error:
            note_written(error, written)
            raise
        return written

    def _alive(self, what: str) -> None:
        if self.closed:
            raise OSError(errno.EBADF, f"{what} {self._name}: closed")

    def _drive(self, operation: Callable[[], T], what: str) -> T:
        """Do an operation of the SSL object, with what goes out and comes in for it."""
        while True:
            wanting = False
            with self._state:
                self._alive(what)
                came, before = self._came, self._outgoing.pending
                try:
                    result = operation()
                except ssl.SSLWantReadError:
                    wanting = True
                except ssl.SSLError as error:
                    failure = error
                    break
                made = self._outgoing.pending > before
            if what != "read":
                self._flush()
            elif made:
                # If this fails, reading goes on: the next write says so.
                with contextlib.suppress(OSError):
                    self._flush_if_free()
            if not wanting:
                return result
            self._fill(came)
        # What it says to the other side about it goes out, if that is possible at once.
        self._last_words()
        try:
            raise failure
        finally:
            del failure

    def _flush(self) -> None:
        """Send all that is to go out."""
        with self._sending:
            self._send()
        # What a read has made after the last look.
        self._flush_if_free()

    def _flush_if_free(self) -> None:
        while self._outgoing.pending and self._sending.try_lock():
            try:
                self._send()
            finally:
                self._sending.unlock()

    def _send(self) -> None:
        while True:
            if self._broken is not None:
                raise OSError(errno.EPIPE, f"write {self._name}: an earlier write was cut short") from self._broken
            with self._state:
                data = self._outgoing.read()
            if not data:
                return
            try:
                super().write(data)
            except BaseException as error:
                # Not the one that goes on: its traceback holds the frames that hold this.
                self._broken = copy.copy(error)
                raise

    def _last_words(self) -> None:
        if self._sending.try_lock():
            try:
                if self._broken is None:
                    with self._state:
                        data = self._outgoing.read()
                    try:
                        whole = not data or self._sock.send(data) == len(data)
                    except OSError:
                        whole = False
                    if not whole:
                        self._broken = OSError(errno.EPIPE, "an alert was cut short")
            finally:
                self._sending.unlock()

    def _fill(self, came: int) -> None:
        with self._reading:
            if self._came != came:
                return
            data = super().read(_CHUNK)
            with self._state:
                if data:
                    self._incoming.write(data)
                elif self._deaf and self._shaken:
                    # To the protocol this end would be an error, after which it writes nothing.
                    raise _Deaf
                else:
                    self._incoming.write_eof()
                self._came += 1

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None) -> int:
        """Send a file from `offset` on, `count` bytes or to its end, and give how many bytes that was.

        It is read and sent in several writes.
        """
        return _stream.copy_file(self, file, offset, count)

    def close_read(self) -> None:
        """Close the reading half: reads give `b""` from then on."""
        self._deaf = True
        super().close_read()

    def close_write(self) -> None:
        """Tell the other side that nothing more is written: it reads the end. Reading goes on."""
        self.handshake()
        with self._writing:
            self._alive("shutdown")
            if not self._mute:
                self._mute = True
                with self._state:
                    self._say_goodbye()
                self._flush()

    def _say_goodbye(self) -> None:
        """With `_state` held."""
        # `unwrap` looks for the other side's farewell, and would drop data that comes before.
        with contextlib.suppress(ssl.SSLError):
            while data := self._object.read(_CHUNK):
                self._unread += data
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()

    def close(self) -> None:
        """Tell the other side, if that is possible within seconds, and close. A second call does nothing."""
        try:
            if self._shaken and self._broken is None and not self.closed and self._writing.try_lock():
                # Nobody writes: the farewell comes at the end of a record.
                try:
                    with contextlib.suppress(OSError):
                        self.set_write_deadline(_runtime.now() + _FAREWELL)
                        if not self._mute:
                            self._mute = True
                            with self._state:
                                self._say_goodbye()
                        self._flush()
                        # Session tickets, say, that nobody has read: the system would answer them with a reset, and
                        # drop what it has not sent yet.
                        self._sock.recv(_CHUNK)
                finally:
                    self._writing.unlock()
        finally:
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


def check(context: ssl.SSLContext, server_side: bool) -> None:
    """Raise TypeError for what is no context, and ValueError for one that is for the other side only."""
    if server_side:
        wanted = "a server's context, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) with a certificate"
    else:
        wanted = "a client's context, as ssl.create_default_context() makes it"
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"tls must be {wanted}, not {type(context).__name__}")
    if context.protocol == (ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER):
        raise ValueError(f"tls must be {wanted}, not one for {'clients' if server_side else 'servers'}")


def dialed(
    conn: Conn, context: ssl.SSLContext, server_hostname: str | None, deadline: float | None, where: str
) -> TLSConn:
    """Make a TLS connection of one that was dialed, and its handshake until `deadline`; see `dial`."""
    secure = over(conn, context, server_hostname=server_hostname)
    try:
        secure.set_deadline(deadline)
        secure.handshake()
        secure.set_deadline(None)
    except BaseException as error:
        secure._abort()
        if isinstance(error, ssl.SSLError):
            # The protocol does not know with whom it talks.
            error.add_note(f"while dialing {where}")
        raise
    return secure


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
    secure._own, secure._peer = conn._own, conn._peer
    secure._object, secure._incoming, secure._outgoing = made, incoming, outgoing
    secure._state, secure._sending, secure._reading = _runtime.StateMutex(), _runtime.Mutex(), _runtime.Mutex()
    secure._shaking, secure._writing = _runtime.Mutex(), _runtime.Mutex()
    secure._unread = bytearray()
    return secure
