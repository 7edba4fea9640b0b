"""The standard module `ssl` for goroutines: handshakes, reads and writes park only the goroutine.

Every name of the original is here. An `SSLContext` and an `SSLSocket` are of the original's classes, too. The sockets
are those of `offset.syscall.socket`; a context makes them of the original's when it wraps one.

Invariants:

* The descriptor is non-blocking, so the original's calls say what they want to wait for, and are made again when it has
  come.
* One of these calls, and of `pending`, is made at a time: TLS has one state for both directions, and a write beside a
  read, which lets go of the GIL, may be lost or crash the process, as with the originals (cpython#143756). Nobody waits
  in one.
"""

from __future__ import annotations

import ssl as _original

from offset import _runtime
from offset._errors import DeadlineExceeded as _DeadlineExceeded
from offset.syscall import _rebind
from offset.syscall import socket as _sockets


class SSLSocket(_original.SSLSocket, _sockets.socket):
    """A TLS socket whose calls park only the goroutine. See `ssl.SSLSocket`."""

    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls, *args, **kwargs)
        # Who has it may call a function of the program's, which may call something here.
        made._turn = _runtime.RLock()
        return made

    def _patiently(self, limit, what, operation, *args):
        """Call `operation(*args)`, again each time that what it wants has come, for `limit` seconds at most."""
        if limit == 0.0:
            with self._turn:
                return operation(*args)
        deadline = None if limit is None else _runtime.now() + limit
        while True:
            try:
                with self._turn:
                    return operation(*args)
            except _original.SSLWantReadError:
                wait = self._fd().wait_read
            except _original.SSLWantWriteError:
                wait = self._fd().wait_write
            try:
                wait(None if deadline is None else deadline - _runtime.now())
            except _DeadlineExceeded:
                raise
            except TimeoutError:
                raise TimeoutError(f"The {what} operation timed out") from None

    def pending(self):
        with self._turn:
            return super().pending()

    def read(self, len=1024, buffer=None):
        return self._patiently(self._limit, "read", super().read, len, buffer)

    def write(self, data):
        return self._patiently(self._limit, "write", super().write, data)

    def send(self, data, flags=0):
        return self._patiently(self._limit, "write", super().send, data, flags)

    def do_handshake(self, block=False):
        self._check_connected()
        limit = None if self._limit == 0.0 and block else self._limit
        self._patiently(limit, "handshake", self._sslobj.do_handshake)

    def unwrap(self):
        return self._patiently(self._limit, "shutdown", super().unwrap)

    def verify_client_post_handshake(self):
        return self._patiently(self._limit, "handshake", super().verify_client_post_handshake)


class SSLContext(_original.SSLContext):
    """A context whose sockets park only the goroutine. See `ssl.SSLContext`."""

    sslsocket_class = SSLSocket

    def wrap_socket(self, sock, *args, **kwargs):
        """Wrap a socket. See `ssl.SSLContext.wrap_socket`."""
        if not isinstance(sock, _sockets.socket) and isinstance(sock, _original.socket):
            # Its end is the original's own affair.
            limit = sock.gettimeout()
            sock = _sockets.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
            sock.settimeout(limit)
        if isinstance(sock, _sockets.socket):
            sock._passed_on = True
        return super().wrap_socket(sock, *args, **kwargs)


_rebind.rebind(_original, globals(), proxies=["socket"], replace={"SSLSocket": SSLSocket, "SSLContext": SSLContext})
