"""`offset.net` under load and faults: many connections, peers that vanish, closes in the middle, forks, signals.

Invariants: whatever the peers do, an operation ends with a result or an OSError; nothing is left of a connection that
was closed. OFFSET_NET_SECONDS says for how long faults are injected.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

import helpers
import offset
import pytest
from helpers import PATIENCE, Thread, main_goroutine, run_script, wait_ended, wait_parked, wait_until
from net_peers import MUCH, Call, client_context, pair, pattern, read_all, server_context, waits
from offset import go, net
from offset.time import now

SECONDS = float(os.environ.get("OFFSET_NET_SECONDS", "3"))


# ---- many ------------------------------------------------------------------------------------


def sockets() -> set[str]:
    """The sockets that this process has."""
    return {target for target in helpers.open_descriptors().values() if target.startswith("socket:")}


def connect_and_close(count: int, at_once: int = 20) -> None:
    """Make so many connections over loopback, use each, and close it from either side."""
    with net.listen("tcp", "127.0.0.1:0") as listener:

        def serve():
            for conn in listener:
                go(answer, conn)

        def answer(conn):
            with conn, contextlib.suppress(OSError):
                conn.write(conn.read(10))

        def ask(number):
            for _ in range(count // at_once):
                with net.dial("tcp", listener.addr) as conn:
                    conn.write(b"x")
                    if number % 2:
                        assert conn.read(1) == b"x"
                        assert conn.read(1) == b""

        server = go(serve)
        calls = [Call(ask, number) for number in range(at_once)]
        for call in calls:
            assert call.goroutine.join()
            call.result()
    wait_ended(server)


@main_goroutine
def test_no_descriptor_is_left_after_many_connections():
    before = sockets()
    connect_and_close(2_000)
    wait_until(lambda: sockets() <= before, "the end of the connections")
    wait_until(lambda: offset.runtime.stats()["descriptors"] == 0, "the end of the connections")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@main_goroutine
def test_no_descriptor_is_left_after_very_many_connections():
    connect_and_close(100_000)
    wait_until(lambda: offset.runtime.stats()["descriptors"] == 0)


@main_goroutine
def test_idle_connections_cost_no_thread():
    count = 1_000
    with net.listen("tcp", "127.0.0.1:0") as listener, contextlib.ExitStack() as opened:
        threads = helpers.os_thread_count()
        calls, clients = [], []
        for _ in range(count):
            clients.append(opened.enter_context(net.dial("tcp", listener.addr)))
            calls.append(Call(opened.enter_context(listener.accept()).read, 10))
        wait_until(lambda: waits() >= count, "readers that wait")
        # Some may have been needed while a goroutine seemed to be stuck, as one does that the system lets wait.
        assert helpers.os_thread_count() <= threads + 20
        wait_parked(*[call.goroutine for call in calls], reason="IO wait")
        for client in clients:
            client.write(b"x")
        assert [call.result() for call in calls] == [b"x"] * count


@main_goroutine
def test_idle_connections_cost_no_time():
    with pair() as (one, other):
        reader = Call(other.read, 10).parked()
        before = time.process_time()
        offset.sleep(0.5)
        # Polling without a pause would take all of that.
        assert time.process_time() - before < 0.25
        one.write(b"x")
        reader.result()


@main_goroutine
def test_goroutines_and_threads_talk_to_each_other():
    with net.listen("tcp", "127.0.0.1:0") as listener:

        def serve():
            for conn in listener:
                go(echo, conn)

        def echo(conn):
            with conn:
                while data := conn.read(1000):
                    conn.write(data)

        def ask(number):
            data = pattern(50_000, number)
            with net.dial("tcp", listener.addr) as conn:
                writer = (Call if number % 2 else Thread)(lambda: [conn.write(data), conn.close_write()])
                assert read_all(conn) == data
                writer.result()

        server = go(serve)
        calls = [(Thread if number % 4 < 2 else Call)(ask, number) for number in range(12)]
        for call in calls:
            call.result()
    wait_ended(server)


def test_a_slow_reader_does_not_make_memory_grow():
    ended = run_script("""
        import resource
        from offset import go, net, run, sleep

        def main():
            with net.listen("tcp", "127.0.0.1:0") as listener:
                conn, peer = net.dial("tcp", listener.addr), listener.accept()
            chunk = bytes(1 << 20)
            written = 0

            def write():
                nonlocal written
                for _ in range(256):
                    written += conn.write(chunk)
                conn.close()

            writer = go(write)
            while not writer.wait_reason:
                sleep(0.001)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            read = 0
            while data := peer.read(1 << 16):
                read += len(data)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(read == written == 256 << 20, after - before < 32 << 10, after - before)
            peer.close()

        run(main)
    """)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("True True"), ended.stdout


# ---- the runtime -----------------------------------------------------------------------------


def test_who_waits_for_a_connection_is_not_in_a_deadlock():
    with helpers.start_script("""
        from offset import go, makechan, net, run

        def main():
            with net.listen("tcp", "127.0.0.1:0") as listener:
                print(listener.addr, flush=True)
                with listener.accept() as conn:
                    done = makechan()
                    go(lambda: done.send(conn.read(100)))
                    print("waiting", flush=True)
                    print(done.recv(), flush=True)

        run(main)
    """) as process:
        host, port = process.stdout.readline().strip().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as peer:
            assert process.stdout.readline() == "waiting\n"
            peer.sendall(b"from outside")
            assert process.stdout.readline() == "b'from outside'\n"
        assert process.wait(PATIENCE) == 0


def test_a_signal_interrupts_a_plain_thread_that_reads():
    ended = run_script("""
        import os, signal, threading, time
        from offset import net, runtime

        listener = net.listen("tcp", "127.0.0.1:0")
        conn = net.dial("tcp", listener.addr)

        def interrupt():
            while not runtime.stats()["descriptor_waits"]:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        server = listener.accept()
        for operation in (lambda: conn.read(1), listener.accept, lambda: conn.write(bytes(1 << 26))):
            threading.Thread(target=interrupt).start()
            try:
                operation()
            except KeyboardInterrupt:
                print("interrupted")
        conn.close()
        server.close()
        listener.close()
    """)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n" * 3), ended.stderr


def test_a_handler_of_a_signal_does_not_disturb_what_waits():
    ended = run_script("""
        import os, signal, threading, time
        from offset import go, net, run, runtime, sleep

        count = 0

        def handler(*_):
            global count
            count += 1

        signal.signal(signal.SIGUSR1, handler)

        def main():
            with net.listen("tcp", "127.0.0.1:0") as listener:
                with net.dial("tcp", listener.addr) as client, listener.accept() as server:
                    data = bytes(20_000_000)
                    stop = False

                    def shoot():
                        while not stop:
                            os.kill(os.getpid(), signal.SIGUSR1)
                            time.sleep(0.0005)

                    thread = threading.Thread(target=shoot)
                    thread.start()
                    writer = go(lambda: client.write(data))
                    assert server.read_full(len(data)) == data
                    assert writer.join(30)
                    # Its handler runs when the main thread comes to it.
                    while not count:
                        sleep(0.001)
                    stop = True
                    thread.join()
            print("undisturbed")

        run(main)
    """)
    assert (ended.returncode, ended.stdout) == (0, "undisturbed\n"), ended.stderr


def test_a_run_that_ends_wakes_what_waits():
    ended = run_script("""
        from offset import go, net, run

        ended, kept = [], []

        def wait(name, operation):
            try:
                operation()
            finally:
                ended.append(name)

        def main():
            listener = net.listen("tcp", "127.0.0.1:0")
            client, packets = net.dial("tcp", listener.addr), net.listen_packet("udp", "127.0.0.1:0")
            kept.append(listener.accept())
            waiting = [
                go(wait, "accept", listener.accept),
                go(wait, "read", lambda: client.read(1)),
                go(wait, "write", lambda: client.write(bytes(1 << 26))),
                go(wait, "packet", lambda: packets.read_from(1)),
            ]
            while not all(goroutine.wait_reason for goroutine in waiting):
                pass

        run(main)
        print(sorted(ended))
    """)
    assert (ended.returncode, ended.stdout) == (0, "['accept', 'packet', 'read', 'write']\n"), ended.stderr


def test_a_forked_child_goes_on_with_a_connection():
    ended = run_script("""
        import os
        from offset import go, net, run

        def main():
            with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", listener.addr) as client:
                with listener.accept() as server:
                    # Somebody waits on it here, and goes on to.
                    reader = go(lambda: print("the parent reads", server.read(100), flush=True))
                    while not reader.wait_reason:
                        pass
                    child = os.fork()
                    if not child:
                        # The connections are the child's, too, with a poller of its own.
                        answer = go(lambda: print("the child reads", client.read(100), flush=True))
                        while not answer.wait_reason:
                            pass
                        client.write(b"hello")
                        assert answer.join(20)
                        os._exit(0)
                    assert reader.join(20)
                    server.write(b"hello, child")
                    assert os.waitpid(child, 0)[1] == 0
                    # What the child did to its copies changed nothing here.
                    server.write(b"still here")
                    print(client.read(100))

        run(main)
    """)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "the parent reads b'hello'",
        "the child reads b'hello, child'",
        "b'still here'",
    ]


def test_a_forked_child_that_closes_takes_nothing_from_its_parent(tmp_path):
    ended = run_script(
        """
        import os, sys
        from offset import go, net, run

        def main():
            path = sys.argv[1]
            with net.listen("unix", path) as listener, net.dial("unix", path) as client, listener.accept() as server:
                accepting = go(listener.accept)
                while not accepting.wait_reason:
                    pass
                child = os.fork()
                if not child:
                    for it in (server, client, listener):
                        it.close()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
                assert os.path.exists(path)
                client.write(b"x")
                assert server.read(1) == b"x"
                net.dial("unix", path).close()
                assert accepting.join(20)
                print("all there")

        run(main)
    """,
        tmp_path / "socket",
    )
    assert (ended.returncode, ended.stdout) == (0, "all there\n"), ended.stderr


# ---- faults ----------------------------------------------------------------------------------


@main_goroutine
def test_a_number_that_is_used_again_is_not_touched_by_who_used_it_before(rng):
    # While readers and writers of a connection are at work, it is closed, and its number becomes another one's.
    for _ in range(100):
        with pair() as (one, other):
            calls = [(Thread if rng.random() < 0.3 else Call)(one.read, 10) for _ in range(3)]
            calls.append(Call(one.write, bytes(rng.choice([10, MUCH]))))
            for _ in range(rng.randrange(20)):
                offset.gosched()
            closer = (Thread if rng.random() < 0.5 else Call)(one.close)
            with (
                net.listen("tcp", "127.0.0.1:0") as listener,
                net.dial("tcp", listener.addr) as client,
                listener.accept() as server,
            ):
                closer.result()
                for call in calls:
                    with contextlib.suppress(OSError):
                        call.result()
                client.write(b"only this")
                assert server.read(100) == b"only this"
            other.close()


class Faults:
    """Connections that talk while faults happen to them; see `run`."""

    def __init__(self, rng, tls: bool) -> None:
        self.rng = rng
        self.contexts = (client_context(), server_context()) if tls else (None, None)
        self.counts = dict.fromkeys(["whole", "failed", "refused"], 0)

    def run(self, seconds: float) -> None:
        """Let eight clients at a time talk to a server, until the time is over."""
        until = now() + seconds
        with net.listen("tcp", "127.0.0.1:0", tls=self.contexts[1]) as listener:
            self.listener = listener
            server = Call(self.serve)
            clients = [Call(self.client, until, number) for number in range(8)]
            for client in clients:
                assert client.goroutine.join(timeout=seconds + 4 * PATIENCE), offset.runtime.stack(all=True)
                client.result()
        for call in server.result():
            call.result()

    def serve(self) -> list[Call]:
        answers: list[Call] = []
        for conn in self.listener:
            answers = [call for call in answers if not call.ended]
            answers.append(Call(self.answer, conn))
        return answers

    def answer(self, conn) -> None:
        with conn, contextlib.suppress(OSError, EOFError):
            conn.set_deadline(now() + PATIENCE)
            size = int.from_bytes(conn.read_full(4), "big")
            while size:
                data = conn.read(min(size, 10_000))
                if not data:
                    return
                size -= len(data)
                conn.write(data)

    def client(self, until: float, number: int) -> None:
        while now() < until:
            try:
                conn = net.dial("tcp", self.listener.addr, timeout=PATIENCE, tls=self.contexts[0])
            except OSError:
                self.counts["refused"] += 1
                continue
            fault = self.rng.choice(FAULTS) if number % 4 else no_fault
            data = pattern(self.rng.choice([1, 1000, 300_000]), self.rng.getrandbits(32))
            with conn:
                writer = (Thread if self.rng.random() < 0.2 else Call)(conn.write, len(data).to_bytes(4, "big") + data)
                damage = Call(fault, conn, self.rng)
                try:
                    assert conn.read_full(len(data)) == data
                    self.counts["whole"] += 1
                except (OSError, EOFError):
                    assert fault is not no_fault
                    self.counts["failed"] += 1
                    conn.close()
                damage.result()
                with contextlib.suppress(OSError):
                    writer.result()


def no_fault(conn, rng) -> None:
    """Nothing happens."""


def some_time(rng) -> None:
    """Let the others come to any point."""
    for _ in range(rng.randrange(30)):
        offset.gosched()
    if rng.random() < 0.3:
        offset.sleep(rng.random() * 0.003)


def close(conn, rng) -> None:
    """A goroutine closes it."""
    some_time(rng)
    conn.close()


def close_in_thread(conn, rng) -> None:
    """A plain thread closes it."""
    some_time(rng)
    Thread(conn.close).result()


def reset(conn, rng) -> None:
    """It ends with a reset."""
    some_time(rng)
    with contextlib.suppress(OSError):
        conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        net.Conn.close(conn)


def half_close(conn, rng) -> None:
    """One half is closed."""
    some_time(rng)
    with contextlib.suppress(OSError):
        rng.choice([conn.close_read, conn.close_write])()


def shut(conn, rng) -> None:
    """The connection is shut down under it."""
    some_time(rng)
    with contextlib.suppress(OSError):
        conn._sock.shutdown(socket.SHUT_RDWR)


def hurry(conn, rng) -> None:
    """Deadlines move about, and are over in the end."""
    for _ in range(rng.randrange(4)):
        some_time(rng)
        with contextlib.suppress(OSError):
            rng.choice([conn.set_deadline, conn.set_read_deadline, conn.set_write_deadline])(
                rng.choice([None, now() + rng.random() * 0.002, now() + 100])
            )
    with contextlib.suppress(OSError):
        conn.set_deadline(0)


FAULTS = [no_fault, close, close_in_thread, reset, half_close, shut, hurry]


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@main_goroutine
def test_connections_survive_faults(rng, tls):
    faults = Faults(rng, tls)
    faults.run(SECONDS)
    assert faults.counts["whole"]
    wait_until(lambda: offset.runtime.stats()["descriptors"] == 0, "the end of the connections")
