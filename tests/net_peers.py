"""What the tests of networks share: pairs of connections, calls whose end is waited for, peers that misbehave, TLS.

Invariants: sockets are real ones, on loopback. Nothing here waits for time to pass.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import offset
import pytest
from helpers import PATIENCE, Thread, wait_parked, wait_until
from offset import go, makechan, net

CERTIFICATES = Path(__file__).resolve().parent / "certificates"

# More than the buffers of a connection hold.
MUCH = 16 * 1024 * 1024


def assert_nobody_dials(listener: net.Listener) -> None:
    """Nobody is connected, or about to be: over loopback that takes no time."""
    with pytest.raises(TimeoutError):
        listener.accept(timeout=0)


# ---- calls -----------------------------------------------------------------------------------


class Call:
    """A goroutine whose result or exception `result` hands over."""

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self.goroutine = go(self._run, function, args, kwargs)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._value = function(*args, **kwargs)
        except BaseException as error:
            self._error = error
            if isinstance(error, offset.GoroutineExit):
                raise

    @property
    def ended(self) -> bool:
        """Has the function returned or raised?"""
        return self.goroutine.status == "dead"

    def parked(self) -> Call:
        """Wait until it waits for its descriptor, or for whatever else."""
        wait_parked(self.goroutine)
        return self

    def result(self) -> Any:
        """Wait for the end; give what the function returned, or raise what it raised."""
        assert self.goroutine.join(timeout=PATIENCE), f"{self.goroutine!r} has not ended"
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        value, self._value = self._value, None
        return value


class ThreadCall(Thread):
    """The same in a plain thread."""

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._before = waits()
        super().__init__(function, *args, **kwargs)

    def parked(self) -> ThreadCall:
        """Wait until somebody more waits for a descriptor than before the start."""
        wait_until(lambda: waits() > self._before or self.ended, "a thread that waits for its descriptor")
        return self


def waits() -> int:
    """How many goroutines and threads wait for a descriptor."""
    return int(offset.runtime.stats()["descriptor_waits"])


@pytest.fixture(params=[Call, ThreadCall], ids=["goroutine", "thread"])
def start(request: pytest.FixtureRequest) -> Any:
    """What waits: a goroutine, or a plain thread."""
    return request.param


# ---- pairs -----------------------------------------------------------------------------------


@pytest.fixture(params=["tcp", "unix"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A network of streams, and where to listen on it."""
    return request.param, "127.0.0.1:0" if request.param == "tcp" else str(tmp_path / "socket")


@contextlib.contextmanager
def pair(network: str = "tcp", address: str = "127.0.0.1:0", **options: Any) -> Iterator[tuple[net.Conn, net.Conn]]:
    """Two connections that lead to each other."""
    with net.listen(network, address) as listener:
        client = net.dial(network, listener.addr, **options)
        server = listener.accept()
    with client, server:
        yield client, server


@contextlib.contextmanager
def raw_pair(buffer: int = 0) -> Iterator[tuple[net.Conn, socket.socket]]:
    """A connection, and a plain socket at its other end, that blocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        host, port = server.getsockname()
        conn = net.dial("tcp", f"{host}:{port}")
        peer, _ = server.accept()
    with conn, peer:
        yield conn, peer


def vanish(peer: socket.socket) -> None:
    """Close a socket so that the other side gets a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes in which every piece that is missing or in a wrong place is noticed."""
    return random.Random(seed).randbytes(size)


def read_all(conn: Any, piece: int = 65_536) -> bytes:
    """Read to the end."""
    parts = []
    while part := conn.read(piece):
        parts.append(part)
    return b"".join(parts)


# ---- TLS -------------------------------------------------------------------------------------


def server_context(name: str = "localhost", ssl: Any = ssl) -> Any:
    """What a server needs that has the certificate `name`; of the module `ssl` or its proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    return context


def client_context(name: str = "localhost", ssl: Any = ssl) -> Any:
    """What a client needs that trusts the certificate `name` only."""
    return ssl.create_default_context(cafile=str(CERTIFICATES / f"{name}.pem"))


@contextlib.contextmanager
def tls_pair(
    client: ssl.SSLContext | None = None,
    server: ssl.SSLContext | None = None,
    through: Callable[[str], Any] | None = None,
) -> Iterator[tuple[net.TLSConn, net.TLSConn]]:
    """Two TLS connections that lead to each other, after the handshake."""
    with net.listen("tcp", "127.0.0.1:0", tls=server or server_context()) as listener:
        accepted = makechan(1)

        def accept() -> None:
            conn = listener.accept()
            accepted.send(conn)
            conn.handshake()

        call = Call(accept)
        try:
            address = listener.addr if through is None else through(listener.addr)
            one = net.dial("tcp", address, tls=client or client_context())
        finally:
            other = accepted.recv(timeout=PATIENCE)
            call.result()
    with one, other:
        yield one, other


class Cutter:
    """A proxy that hands on what comes in pieces of random size, and can break off anywhere."""

    def __init__(self, rng: random.Random, largest: int = 100) -> None:
        self._random = rng
        self._largest = largest
        self._listener = net.listen("tcp", "127.0.0.1:0")
        self._closed = False
        self._conns: list[net.Conn] = []
        self._calls: list[Call] = []

    def to(self, address: str) -> str:
        """Lead one connection to `address`, and give the address to dial for it."""
        self._calls.append(Call(self._serve, address))
        return self._listener.addr

    def _serve(self, address: str) -> None:
        with self._listener.accept() as one, net.dial("tcp", address) as other:
            self._conns += [one, other]
            calls = [Call(self._carry, one, other), Call(self._carry, other, one)]
            if self._closed:
                self.cut()
            for call in calls:
                call.result()

    def _carry(self, source: net.Conn, sink: net.Conn) -> None:
        with contextlib.suppress(OSError):
            while data := source.read(65_536):
                at = 0
                while at < len(data):
                    size = self._random.randint(1, self._largest)
                    sink.write(data[at : at + size])
                    at += size
                    offset.gosched()
            sink.close_write()

    def cut(self) -> None:
        """Break off both ways."""
        for conn in self._conns:
            conn.close()

    def close(self) -> None:
        """End it, and see that its goroutines have ended."""
        self._closed = True
        self._listener.close()
        self.cut()
        for call in self._calls:
            with contextlib.suppress(OSError):
                call.result()
