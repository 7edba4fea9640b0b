"""Faults of networks at random, from a seed: `python tests/torture_net.py SECONDS SEED`.

Clients of `offset.net` and of the proxied sockets, plain and with TLS, talk to echo servers of either kind through
relays that cut the stream into pieces, stop for a while, cut it off, reset it, close half of it, or go silent.
Meanwhile goroutines and threads close, shut down and cancel what is in use, deadlines move, descriptors run out and
signals come.

Invariants:

* What a conversation does and what happens to it depend on the seed and on its number; how the conversations
  interleave does not.
* What comes back is what was sent, from its beginning. All of it comes, and nothing fails, unless a fault was chosen
  that may prevent it, or descriptors ran out meanwhile. A wait that takes too long is a failure.
* A stream of TLS that was cut off never looks as if it had ended well to `offset.net`.
* In the end no goroutine, no descriptor and no registration is left.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import faulthandler
import gc
import os
import random
import resource
import signal
import socket as plain_socket
import ssl as plain_ssl
import struct
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import offset
from offset import GoroutineExit, go, gosched, net, runtime, sync
from offset.syscall import blocking, socket, ssl
from offset.time import now

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
CERTIFICATE = Path(__file__).resolve().parent / "certificates" / "localhost.pem"

WORKERS = 12
# Seconds after which a wait is taken for a hang.
PATIENCE = 60.0
# Descriptors that the process may have: few, so that they are soon used up.
DESCRIPTORS = 250
SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
RESET = struct.pack("ii", 1, 0)


def some_time(choose: random.Random) -> None:
    """Let the others come to any point."""
    for _ in range(choose.randrange(20)):
        gosched()
    if choose.random() < 0.3:
        offset.sleep(choose.random() * 0.003)


class Part:
    """A goroutine, or a plain thread, that does something; `join` waits for its end."""

    def __init__(self, function: Callable[..., object], *args: object, thread: bool = False) -> None:
        self.error: BaseException | None = None
        self.function, self.args = function, args
        self.goroutine = self.thread = None
        if thread:
            self.thread = threading.Thread(target=self.run, daemon=True)
            self.thread.start()
        else:
            self.goroutine = go(self.run)

    def run(self) -> None:
        try:
            self.function(*self.args)
        except GoroutineExit:
            raise
        except BaseException as error:
            self.error = error

    def cancel(self) -> None:
        """Cancel it, if it is a goroutine."""
        if self.goroutine is not None:
            self.goroutine.cancel()

    def join(self) -> BaseException | None:
        """Wait for the end; give the exception, if it raised one."""
        if self.goroutine is not None:
            ended = self.goroutine.join(timeout=PATIENCE)
        else:
            blocking(self.thread.join, PATIENCE)
            ended = not self.thread.is_alive()
        if not ended:
            raise AssertionError(f"{self.function} has not ended\n{runtime.stack(all=True)}")
        error, self.error = self.error, None
        return error


# ---- both ends of a stream -----------------------------------------------------------------------


class NetEnd:
    """A connection of `offset.net`."""

    def __init__(self, conn: net.Conn, choose: random.Random) -> None:
        self.conn, self.choose = conn, choose
        conn.set_deadline(now() + PATIENCE)

    def read(self, n: int) -> bytes:
        if self.choose.random() < 0.8:
            return self.conn.read(n)
        buffer = bytearray(n)
        return bytes(buffer[: self.conn.read_into(buffer)])

    def write(self, data: bytes) -> None:
        assert self.conn.write(data) == len(data)

    def close_write(self) -> None:
        self.conn.close_write()

    def close(self) -> None:
        self.conn.close()

    def shut(self) -> None:
        self.conn._sock.shutdown(plain_socket.SHUT_RDWR)

    def reset(self) -> None:
        self.conn._sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_LINGER, RESET)
        net.Conn.close(self.conn)

    def limit(self, seconds: float) -> None:
        self.conn.set_deadline(now() + seconds)


class SocketEnd:
    """A socket: proxied, or one that blocks its thread."""

    def __init__(self, sock: Any, choose: random.Random) -> None:
        self.sock, self.choose = sock, choose
        sock.settimeout(PATIENCE)

    def read(self, n: int) -> bytes:
        if self.choose.random() < 0.8:
            return self.sock.recv(n)
        buffer = bytearray(n)
        return bytes(buffer[: self.sock.recv_into(buffer)])

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close_write(self) -> None:
        # The TLS of sockets cannot close half of it.
        if not isinstance(self.sock, plain_ssl.SSLSocket):
            self.sock.shutdown(plain_socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def shut(self) -> None:
        plain_socket.socket.shutdown(self.sock, plain_socket.SHUT_RDWR)

    def linger(self) -> None:
        """Let the close be a reset."""
        self.sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_LINGER, RESET)

    def limit(self, seconds: float) -> None:
        self.sock.settimeout(seconds)


def read_full(end: Any, n: int) -> bytes:
    """Read exactly so much, or raise EOFError."""
    data = b""
    while len(data) < n:
        part = end.read(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


# ---- relays --------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What a relay does to a stream."""

    largest: int
    """Pieces are not larger."""
    pause: float
    """How often it pauses after a piece."""
    fault: str | None
    """What happens in the end: "cut", "reset", "half", "silence" or nothing."""
    way: int
    """In which direction that happens, 0 to the server ..."""
    after: int
    """... after so many bytes."""

    @classmethod
    def of(cls, choose: random.Random) -> Plan:
        fault = choose.choice(("cut", "reset", "half", "silence")) if choose.random() < 0.4 else None
        return cls(
            largest=choose.choice((1, 7, 100, 5_000, 65_536)),
            pause=choose.choice((0, 0, 0.01, 0.1)),
            fault=fault,
            way=choose.randrange(2),
            after=int(10 ** (choose.random() * 5.5)) - 1,
        )


class Relay:
    """Leads one connection to `target`, as `plan` says, until both sides have ended, or `close`."""

    def __init__(self, target: tuple[str, str], plan: Plan, choose: random.Random, thread: bool) -> None:
        self.target, self.plan, self.thread = target, plan, thread
        self.choices = [random.Random(choose.random()) for _ in range(2)]
        self.ends: list[Any] = []
        # What went wrong, for who looks for a cause.
        self.trouble: list[str] = []
        self.closed = False
        if thread:
            self.listener = plain_socket.create_server(("127.0.0.1", 0))
            self.listener.settimeout(PATIENCE)
            host, port = self.listener.getsockname()
            self.address = f"{host}:{port}"
        else:
            self.listener = net.listen("tcp", "127.0.0.1:0")
            self.address = self.listener.addr
        self.main = Part(self.serve, thread=thread)

    def open(self) -> list[Any]:
        """The two ends."""
        if self.thread:
            one = SocketEnd(self.listener.accept()[0], self.choices[0])
            self.ends.append(one)
            if self.target[0] == "unix":
                sock = plain_socket.socket(plain_socket.AF_UNIX)
                self.ends.append(SocketEnd(sock, self.choices[1]))
                sock.connect(self.target[1].replace("@", "\0"))
            else:
                host, port = self.target[1].split(":")
                self.ends.append(SocketEnd(plain_socket.create_connection((host, int(port))), self.choices[1]))
        else:
            self.ends.append(NetEnd(self.listener.accept(), self.choices[0]))
            self.ends.append(NetEnd(net.dial(*self.target), self.choices[1]))
        return self.ends

    def serve(self) -> None:
        try:
            one, other = self.open()
            ways = [Part(self.carry, *way, thread=self.thread) for way in ((one, other, 0), (other, one, 1))]
            if self.closed:
                self.part()
            for way in ways:
                if self.thread:
                    way.thread.join()
                elif (error := way.join()) is not None:
                    raise error
        except OSError as error:
            # The client has given up before it came, or descriptors have run out.
            self.trouble.append(repr(error))
        finally:
            # In threads nobody uses them any more; who has not been accepted is told.
            for end in self.ends:
                end.close()
            self.listener.close()

    def carry(self, source: Any, sink: Any, way: int) -> None:
        """Hand on what comes in one direction."""
        try:
            self.pass_on(source, sink, way)
        except OSError as error:
            self.trouble.append(f"way {way}: {error!r}")
            self.part()

    def pass_on(self, source: Any, sink: Any, way: int) -> None:
        plan, choose, passed = self.plan, self.choices[way], 0
        while data := source.read(65_536):
            at = 0
            while at < len(data):
                # Small pieces of much would take for ever.
                size = choose.randint(1, plan.largest) if passed < 200 * plan.largest else 65_536
                piece = data[at : at + size]
                if plan.fault is not None and way == plan.way and passed + len(piece) > plan.after:
                    sink.write(piece[: plan.after - passed])
                    return self.happen(source, sink)
                sink.write(piece)
                at += len(piece)
                passed += len(piece)
                if choose.random() < plan.pause:
                    offset.sleep(choose.random() * 0.002)
        return sink.close_write()

    def happen(self, source: Any, sink: Any) -> None:
        """It is time for the fault; one of silence goes on until the client gives up."""
        if self.plan.fault == "cut":
            self.part()
        elif self.plan.fault == "reset":
            for end in (source, sink):
                # In threads it comes with the close, later.
                end.linger() if self.thread else end.reset()
            self.part()
        elif self.plan.fault == "half":
            sink.close_write()
            while source.read(65_536):
                pass

    def part(self) -> None:
        """Cut both sides off."""
        for end in list(self.ends):
            # While threads use a number it must not become somebody else's: they are woken, and close it later.
            with contextlib.suppress(OSError):
                end.shut() if self.thread else end.close()

    def close(self) -> None:
        """End it."""
        self.closed = True
        with contextlib.suppress(OSError):
            if self.thread:
                self.listener.shutdown(plain_socket.SHUT_RDWR)
            else:
                self.listener.close()
        self.part()
        if (error := self.main.join()) is not None:
            raise error


# ---- everything ----------------------------------------------------------------------------------


class Torture:
    """What the workers share. The counters are guarded; `errors` only grows."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.end = time.monotonic() + seconds
        self.seed = seed
        self.errors: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.lock = sync.Mutex()
        # Goes up when descriptors run out, and when there are some again.
        self.shortage = sync.atomic.Int()
        self.signals = 0
        self.handlers: set[Part] = set()
        server, client = plain_ssl.SSLContext(plain_ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (server, client):
            context.load_cert_chain(CERTIFICATE)
        self.server_contexts = {"net": server, "socket": client}
        self.client_contexts = {
            "net": plain_ssl.create_default_context(cafile=str(CERTIFICATE)),
            "socket": ssl.create_default_context(cafile=str(CERTIFICATE)),
        }

    def over(self) -> bool:
        """Is the time over, or did anybody fail?"""
        return bool(self.errors) or time.monotonic() > self.end

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def fail(self, who: str) -> None:
        """Keep the exception that is being handled."""
        self.errors.append(f"{who}:\n{traceback.format_exc()}")

    # ---- servers -----------------------------------------------------------------------------

    def listen(self) -> None:
        """Start the servers; `targets` has their addresses, of plain ones and of those with TLS."""
        self.listeners: list[Any] = []
        self.targets: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for secure in (False, True):
            context = self.server_contexts["net"] if secure else None
            for network, address in (("tcp", "127.0.0.1:0"), ("unix", f"@torture-{os.getpid()}-{secure}")):
                listener = net.listen(network, address, tls=context)
                self.targets[secure].append((network, listener.addr))
                self.listeners.append((listener, go(self.serve_net, listener)))
            sockets = socket.create_server(("127.0.0.1", 0), backlog=100)
            host, port = sockets.getsockname()
            self.targets[secure].append(("tcp", f"{host}:{port}"))
            self.listeners.append((sockets, go(self.serve_sockets, sockets, secure)))

    def serve_net(self, listener: net.Listener) -> None:
        for number, conn in enumerate(listener):
            self.handle(NetEnd, conn, number)

    def serve_sockets(self, listener: Any, secure: bool) -> None:
        number = 0

        def end(sock, choose):
            sock.settimeout(PATIENCE)
            if secure:
                sock = self.server_contexts["socket"].wrap_socket(sock, server_side=True)
            return SocketEnd(sock, choose)

        while True:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if listener.fileno() < 0 or error.errno not in SHORT_OF:
                    return
                offset.sleep(0.005)
                continue
            number += 1
            self.handle(end, sock, number)

    def handle(self, end: Callable[[Any, random.Random], Any], conn: Any, number: int) -> None:
        with self.lock:
            self.handlers = {each for each in self.handlers if each.goroutine.status != "dead" or each.error}
            self.handlers.add(Part(self.answer, end, conn, random.Random(number)))

    def answer(self, make: Callable[[Any, random.Random], Any], conn: Any, choose: random.Random) -> None:
        """Send back what comes, as much as the first bytes say."""
        end = conn
        try:
            end = make(conn, choose)
            size, slow, stays = struct.unpack("!Q??", read_full(end, 10))
            while size:
                data = end.read(min(size, choose.randint(1, 50_000)))
                if not data:
                    return
                size -= len(data)
                end.write(data)
                if slow and choose.random() < 0.3:
                    offset.sleep(choose.random() * 0.003)
            if stays:
                # What the client has said besides would make of the close a reset, and what it has not read would go.
                end.read(1)
        except (OSError, EOFError):
            pass
        finally:
            end.close()

    # ---- conversations -----------------------------------------------------------------------

    def connect(self, kind: str, address: str, secure: bool, limit: float, choose: random.Random) -> Any:
        """An end of a new connection."""
        context = self.client_contexts[kind] if secure else None
        if kind == "net":
            return NetEnd(net.dial("tcp", address, timeout=limit, tls=context), choose)
        host, port = address.split(":")
        sock = socket.create_connection((host, int(port)), timeout=limit)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=host)
        return SocketEnd(sock, choose)

    def converse(self, choose: random.Random) -> None:
        """Talk to a server through a relay, and check what came of it."""
        before = self.shortage.load()
        secure, kind = choose.random() < 0.4, choose.choice(("net", "socket"))
        target, plan = choose.choice(self.targets[secure]), Plan.of(choose)
        try:
            relay = Relay(target, plan, choose, thread=choose.random() < 0.2)
        except OSError as error:
            assert self.shortage.load() != before or before % 2, error
            self.count("starved")
            return offset.sleep(0.001)
        end, talk = None, None
        try:
            silent = plan.fault == "silence"
            limit = 0.05 + choose.random() / 4 if silent else PATIENCE
            failure = None
            try:
                end = self.connect(kind, relay.address, secure, limit, choose)
                if silent:
                    end.limit(limit)
            except OSError as error:
                failure = error
            else:
                talk = Talk(end, plan, choose)
                failure = talk.run()
            disturbed = before % 2 or self.shortage.load() != before
            inner = talk.fault if talk is not None else None
            about = (
                f"{kind} to {target}, {plan}, {inner}, relay{' in threads' if relay.thread else ''}: {relay.trouble}"
            )
            self.judge(failure, talk, disturbed, plan, about)
            whole = "whole" if talk is not None and talk.whole else "short"
            self.count(f"{kind}{' TLS' if secure else ''}: {whole}")
            self.count(f"relay: {plan.fault or 'no fault'}{' in threads' if relay.thread else ''}")
            self.count(f"client: {inner or 'no fault'}")
        finally:
            if end is not None:
                end.close()
            relay.close()

    @staticmethod
    def judge(failure: BaseException | None, talk: Talk | None, disturbed: object, plan: Plan, about: str) -> None:
        """Raise if that may not be."""
        inner = talk.fault if talk is not None else None
        if talk is not None:
            assert talk.data.startswith(talk.got), f"{len(talk.got)} bytes came, and not what was sent: {about}"
            secure = isinstance(talk.end, NetEnd) and isinstance(talk.end.conn, net.TLSConn)
            if secure and plan.fault in ("cut", "reset") and not (inner or disturbed):
                assert talk.whole or failure is not None, f"it was cut off and seems to have ended well: {about}"
        if failure is None:
            assert (talk is not None and talk.whole) or plan.fault or inner or disturbed, f"not all came: {about}"
            return
        allowed = plan.fault or inner or disturbed
        late = plan.fault == "silence" or inner == "hurry"
        # What a socket with TLS says when it is closed.
        odd = isinstance(failure, ValueError) and inner is not None
        known = isinstance(failure, OSError | EOFError) and (late or not isinstance(failure, TimeoutError))
        if not allowed or not (known or odd):
            raise AssertionError(f"that may not fail: {about}") from failure

    # ---- other things that happen ------------------------------------------------------------

    def knock(self, choose: random.Random) -> None:
        """Connect, and go away at once."""
        before = self.shortage.load()
        network, address = choose.choice(self.targets[choose.random() < 0.5])
        try:
            end = NetEnd(net.dial(network, address), choose)
            some_time(choose)
            choose.choice((end.close, end.reset, end.shut))()
            end.close()
        except OSError as error:
            assert self.shortage.load() != before or before % 2, error

    def refused(self, choose: random.Random) -> None:
        """Connect to where nobody listens."""
        host, port = self.nobody.getsockname()
        try:
            if choose.random() < 0.5:
                net.dial("tcp", f"{host}:{port}")
            else:
                socket.create_connection((host, port))
        except ConnectionRefusedError:
            pass
        except OSError as error:
            assert error.errno in SHORT_OF, error
        else:
            raise AssertionError("somebody was there")

    def starve(self, choose: random.Random) -> None:
        """Use all descriptors up for a while."""
        spare = []
        self.shortage.add(1)
        try:
            with contextlib.suppress(OSError):
                while True:
                    spare.append(os.dup(self.nobody.fileno()))
            offset.sleep(choose.random() * 0.01)
        finally:
            for number in spare:
                os.close(number)
            self.shortage.add(1)

    def starver(self) -> None:
        choose = random.Random(self.seed)
        while not self.over():
            offset.sleep(choose.random() * 0.4)
            self.starve(choose)
            self.count("shortages")
            gc.collect(0)

    def shooter(self) -> None:
        """A plain thread that sends signals, which interrupt system calls."""
        choose = random.Random(self.seed)
        while not self.over():
            time.sleep(choose.random() * 0.005)
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_signal(self, *_: object) -> None:
        self.signals += 1

    def worker(self, number: int) -> None:
        """Choose and act until the time is over."""
        at = 0
        while not self.over():
            at += 1
            choose = random.Random(f"{self.seed} {number} {at}")
            action = choose.choices((self.converse, self.knock, self.refused), (20, 3, 1))[0]
            try:
                action(choose)
            except BaseException:
                self.fail(f"worker {number}, action {at}, {action.__name__}")
                raise
            self.count(action.__name__)

    def main(self) -> None:
        """Start everybody, wait, and see that nothing is left."""
        before = (set(os.listdir("/proc/self/fd")), runtime.num_goroutine())
        self.nobody = plain_socket.socket()
        self.nobody.bind(("127.0.0.1", 0))
        self.listen()
        parts = [Part(self.worker, number) for number in range(WORKERS)]
        parts += [Part(self.starver), Part(self.shooter, thread=True)]
        for part in parts:
            while not self.over():
                offset.sleep(0.05)
            part.join()
        for listener, server in self.listeners:
            listener.close()
            server.join()
        for part in list(self.handlers):
            if (error := part.join()) is not None:
                self.errors.append(f"a server:\n{''.join(traceback.format_exception(error))}")
        self.nobody.close()
        until = time.monotonic() + PATIENCE
        while (left := self.left(*before)) and time.monotonic() < until:
            offset.sleep(0.01)
        self.errors += left

    @staticmethod
    def left(descriptors: set[str], goroutines: int) -> list[str]:
        """What is there now and should not be."""
        stats = runtime.stats()
        lines = [f"{stats[name]} {name}" for name in ("descriptors", "descriptor_waits") if stats[name]]
        for number in set(os.listdir("/proc/self/fd")) - descriptors:
            with contextlib.suppress(OSError):
                if "anon_inode" not in (target := os.readlink(f"/proc/self/fd/{number}")):
                    lines.append(f"descriptor {number}: {target}")
        if runtime.num_goroutine() > goroutines:
            lines.append(runtime.stack(all=True))
        return lines


class Talk:
    """What a client says and hears; `fault` is what happens to it on its own side."""

    def __init__(self, end: Any, plan: Plan, choose: random.Random) -> None:
        self.end, self.choose = end, choose
        self.data = choose.randbytes(choose.choice((1, 100, 1_000, 40_000, 400_000)))
        self.got = bytearray()
        self.whole = False
        self.tls_socket = isinstance(end, SocketEnd) and isinstance(end.sock, plain_ssl.SSLSocket)
        self.half = not self.tls_socket and choose.random() < 0.3
        self.head = struct.pack("!Q??", len(self.data), choose.random() < 0.1, self.half)
        faults = ["shut", "cancel"]
        if not self.tls_socket:
            # Of a socket with TLS the library uses the number itself, which must not be closed meanwhile.
            faults += ["close", "close in a thread"]
        if isinstance(end, NetEnd):
            faults.append("hurry")
        self.fault = choose.choice(faults) if choose.random() < 0.25 else None

    def run(self) -> BaseException | None:
        """Say and hear everything; give what went wrong."""
        choose = self.choose
        if self.tls_socket:
            # One goroutine at a time, as its documentation wants it.
            parts = [Part(self.take_turns)]
        else:
            parts = [Part(self.hear, thread=choose.random() < 0.15), Part(self.say, thread=choose.random() < 0.15)]
        damage = Part(self.damage, parts[0], random.Random(choose.random()))
        failures = [parts[0].join()]
        if not self.whole:
            # That wakes who writes.
            damage.join()
            self.end.close()
        failures += [part.join() for part in [*parts[1:], damage]]
        return next((failure for failure in failures if failure is not None), None)

    def say(self) -> None:
        self.end.write(self.head)
        at, size = 0, self.choose.choice((1_000, 100_000, 1_000_000))
        while at < len(self.data):
            self.end.write(self.data[at : at + size])
            at += size
        if self.half:
            self.end.close_write()

    def hear(self) -> None:
        choose = random.Random(len(self.data))
        slow = choose.random() < 0.1
        while len(self.got) < len(self.data):
            part = self.end.read(min(len(self.data) - len(self.got), choose.randint(1, 60_000)))
            if not part:
                return
            self.got += part
            if slow:
                offset.sleep(0.0005)
        self.whole = True

    def take_turns(self) -> None:
        self.end.write(self.head)
        for at in range(0, len(self.data), 20_000):
            part = self.data[at : at + 20_000]
            self.end.write(part)
            until = at + len(part)
            while len(self.got) < until:
                heard = self.end.read(until - len(self.got))
                if not heard:
                    return
                self.got += heard
        self.whole = True

    def damage(self, reader: Part, choose: random.Random) -> None:
        """Let the fault happen."""
        if self.fault is None:
            return
        some_time(choose)
        with contextlib.suppress(OSError):
            if self.fault == "shut":
                self.end.shut()
            elif self.fault == "cancel":
                reader.cancel()
            elif self.fault == "close":
                self.end.close()
            elif self.fault == "close in a thread":
                Part(self.end.close, thread=True).join()
            else:
                for _ in range(choose.randrange(4)):
                    self.end.limit(choose.choice((0.001, 0.003, PATIENCE)))
                    some_time(choose)
                self.end.limit(0)


def main(seconds: float, seed: int) -> int:
    """Torture for `seconds`; give the exit status."""
    faulthandler.dump_traceback_later(seconds + 3 * PATIENCE, exit=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    torture = Torture(seconds, seed)
    signal.signal(signal.SIGUSR1, torture.on_signal)
    started = time.monotonic()
    offset.run(torture.main, on_panic="report")
    faulthandler.cancel_dump_traceback_later()
    print(f"Python {sys.version.split()[0]}{'t' * FREE_THREADED}, seed {seed}, {time.monotonic() - started:.1f} s")
    torture.counts["signals"] = torture.signals
    for name, count in sorted(torture.counts.items()):
        print(f"{count:9,} {name}")
    for error in torture.errors[:5]:
        print(error)
    print("failed" if torture.errors else "passed")
    return 1 if torture.errors else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} SECONDS SEED")
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
