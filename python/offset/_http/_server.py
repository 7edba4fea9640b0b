"""`Server`: listeners, the connections that they accept, and their end.

Invariants:

* A connection is in `_connections` from before its goroutine begins until its descriptor is closed; `_alive` counts
  them.
* It is put there once, and counts as ended for whoever takes it out: its goroutine, or `_accept` if that could not be
  started. `_accept` may be ended itself right after it has started it, when the connection may be over by then.
* Once `_draining` is set each connection is told that it is to end: those that are there, or their own goroutines
  find it set. So it is with `_closed`, after which they are cut.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset._errors import DeadlineExceeded
from offset._http import _proxy
from offset.net import _tls
from offset.sync import Semaphore, WaitGroup

if TYPE_CHECKING:
    import ssl

    from offset._http._service import Service
    from offset._runtime import Goroutine, Http
    from offset.net._conn import Conn
    from offset.net._listen import Listener

    Pair = tuple[str, str]


def report(text: str) -> None:
    """Write what went wrong, as one piece."""
    with contextlib.suppress(Exception):
        sys.stderr.write(text)
        sys.stderr.flush()


# OpenSSL's reason for a connection that ends within its handshake.
_GONE = "UNEXPECTED_EOF_WHILE_READING"


class _Entry:
    """What is known of a connection."""

    # Its goroutine runs.
    begun = False
    http: Http | None = None


class Server:
    """Serves an application on listeners, until it is stopped."""

    def __init__(
        self,
        service: Service,
        listeners: list[Listener],
        *,
        tls: ssl.SSLContext | None = None,
        proxy_protocol: bool = False,
        multiprocess: bool = False,
    ) -> None:
        self._service = service
        self._name = service.name
        self._listeners = listeners
        self._limits = service.limits
        self._tls = tls
        self._proxy_protocol = proxy_protocol
        self._connections: dict[Conn, _Entry] = {}
        self._alive = WaitGroup()
        self._room = Semaphore(self._limits.connections)
        self._draining = False
        self._closed = False
        # What was reported of connections that came to nothing, and is not said again.
        self._told: set[str] = set()
        self.base: dict[str, Any] = service.base(tls is not None, multiprocess)

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return self._service.requests

    def start(self) -> list[Goroutine]:
        """Begin to accept, in goroutines."""
        accepting = []
        for listener in self._listeners:
            # Here: a server that is told to end at once has closed it by the time that the goroutine begins.
            own = host_and_port(listener._sock.getsockname())
            goroutine = _runtime.go(self._accept, listener, own)
            goroutine.name = f"{self._name} accept"
            accepting.append(goroutine)
        return accepting

    def stop(self, grace: float | None) -> bool:
        """Accept no more, let requests that are being answered end, within `grace` seconds; tell whether they did."""
        end = None if grace is None else _runtime.now() + grace
        self.drain()
        try:
            ended = self.wait(grace)
            self._service.settle(None if end is None else max(0.0, end - _runtime.now()))
            return ended
        finally:
            self.close()

    def wait(self, timeout: float | None) -> bool:
        """Wait until all connections have ended, for up to `timeout` seconds; tell whether they have."""
        try:
            self._alive.wait(timeout=timeout)
            return True
        except DeadlineExceeded:
            raise
        except TimeoutError:
            return False

    def drain(self) -> None:
        """Accept no more, and end each connection after the request that it is at."""
        self._draining = True
        for listener in self._listeners:
            listener.close()
        for entry in list(self._connections.values()):
            if entry.http is not None:
                entry.http.drain()
        self._service.drain()

    def close(self) -> None:
        """End everything at once."""
        self._draining = self._closed = True
        for listener in self._listeners:
            listener.close()
        for conn, entry in list(self._connections.items()):
            # Its goroutine finds it closed, and does the rest; a TLS connection would say goodbye.
            with contextlib.suppress(OSError):
                conn._sock.shutdown(socket.SHUT_RDWR)
            if entry.http is None:
                # Its goroutine may never have begun.
                conn.close()
        self._service.cut()

    # What its goroutines do.

    def _accept(self, listener: Listener, own: Pair) -> None:
        connection = f"{self._name} connection"
        with listener:
            while not self._draining:
                self._room.acquire()
                try:
                    conn = listener.accept()
                except OSError:
                    self._room.release()
                    # Closed, or a client that is gone already.
                    _runtime.sleep(0.0 if listener.closed else 0.05)
                    continue
                except BaseException:
                    self._room.release()
                    raise
                self._connections[conn] = entry = _Entry()
                self._alive.add(1)
                try:
                    _runtime.go(self._serve, conn, entry, own).name = connection
                except BaseException:
                    if not entry.begun:
                        self._over(conn, conn)
                    raise
                del conn, entry

    def _over(self, key: Conn, conn: Conn) -> None:
        try:
            conn.close()
        finally:
            if self._connections.pop(key, None) is not None:
                self._room.release()
                self._alive.done()

    def _serve(self, key: Conn, entry: _Entry, own: tuple[str, str]) -> None:
        conn = key
        try:
            entry.begun = True
            if self._closed:
                # By who has not seen it.
                return
            peer = host_and_port(conn._peer)
            timeout = self._limits.head_timeout
            if self._proxy_protocol and self._service.believes(conn):
                try:
                    found = _proxy.read(conn, timeout)
                except OSError as error:
                    # The first one that has no such header may be a setting's fault.
                    if error.errno == errno.EPROTO:
                        self._tell_once("was ended", peer, error.strerror)
                    raise
                if found is not None:
                    peer, own = found
            if self._tls is not None:
                conn = _tls.over(conn, self._tls, server_side=True)
                conn.set_deadline(None if timeout is None else _runtime.now() + timeout)
                try:
                    conn.handshake()
                except OSError as error:
                    # Also that the client does not trust the certificate. One that just goes away is none.
                    reason = getattr(error, "reason", None)
                    if reason and reason != _GONE:
                        self._tell_once("came to no TLS", peer, reason)
                    raise
                conn.set_deadline(None)
            service = self._service
            base = service.about(self.base, conn, own, peer)
            http = _runtime.Http(conn, base, self._tls is None, service.times, service.sizes, service.software)
            entry.http = http
            if self._draining:
                http.drain()
            service.talk(conn, base, http)
        except OSError:
            # The client's, or the network's.
            pass
        except Exception as error:
            report(f"{self._name}: a connection has failed\n{''.join(traceback.format_exception(error))}")
        finally:
            self._over(key, conn)

    def _tell_once(self, what: str, peer: tuple[str, str], why: object) -> None:
        """Report the first connection of which this is so."""
        if what not in self._told:
            self._told.add(what)
            report(f"{self._name}: a connection from {peer[0] or 'a socket'} {what}: {why} (said once)\n")


def host_and_port(address: Any) -> tuple[str, str]:
    """Give an address of the `socket` module as an environ has it."""
    if isinstance(address, tuple):
        host = str(address[0])
        # IPv4, on a socket for both versions.
        return host.removeprefix("::ffff:") if "." in host else host, str(address[1])
    return ("localhost", "80") if address else ("", "")
