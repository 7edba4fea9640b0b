"""`websockets`, its synchronous client and server, in goroutines: as it is, and as a copy over the proxies.

Invariants: a copy's threads are goroutines, so that a connection takes three of them and no thread; messages are whole
and in order; both sides see how a connection was closed; nothing is left when it is.
"""

from __future__ import annotations

import contextlib
import types

import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from libraries import Call, Threads, calls, cancel, copies, few, needs_rescue, original, results
from net_peers import client_context, server_context
from offset import go
from offset.sync import WaitGroup
from offset.syscall import ssl as proxied_ssl

pytestmark = pytest.mark.usefixtures("no_sockets_left")

MODULES = ("websockets.sync.client", "websockets.sync.server", "websockets.exceptions")


def library_of(modules):
    client, server, exceptions = modules
    return types.SimpleNamespace(client=client, server=server, exceptions=exceptions)


@pytest.fixture(scope="module")
def copied():
    """The copy of websockets."""
    return library_of(copies(*MODULES))


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def websockets(request, copied):
    """The library, in both ways."""
    return copied if request.param == "a copy" else library_of(original(*MODULES))


@contextlib.contextmanager
def serving(websockets, handler, **options):
    """A server of goroutines; gives what connects to it."""
    with websockets.server.serve(handler, "127.0.0.1", 0, **options) as server:
        loop = go(server.serve_forever)
        scheme, host = ("wss", "localhost") if "ssl" in options else ("ws", "127.0.0.1")
        address = f"{scheme}://{host}:{server.socket.getsockname()[1]}"

        def connect(**options):
            return websockets.client.connect(address, proxy=None, open_timeout=PATIENCE, **options)

        try:
            yield connect
        finally:
            server.shutdown()
            assert loop.join(timeout=PATIENCE)


def echo(conn):
    for message in conn:
        conn.send(message)


@main_goroutine
def test_echoes_for_all_at_once(websockets):
    here = WaitGroup()
    count = 8
    here.add(count)

    def meet(conn):
        here.done()
        here.wait(timeout=PATIENCE)
        echo(conn)

    with serving(websockets, meet) as connect:

        def talk(number):
            with connect() as conn:
                for step in range(10):
                    conn.send(f"{number} {step}")
                    assert conn.recv(timeout=PATIENCE) == f"{number} {step}"
                conn.send(b"\0" * 100_000)
                return len(conn.recv(timeout=PATIENCE))

        assert results(calls(count, talk)) == [100_000] * count


@main_goroutine
def test_those_of_a_copy_take_no_threads(copied):
    threads = Threads()
    count = 40
    here = WaitGroup()
    here.add(count)

    def wait(conn):
        here.done()
        echo(conn)

    with serving(copied, wait) as connect:

        def talk(_):
            with connect() as conn:
                here.wait(timeout=PATIENCE)
                # All are connected: six goroutines and no thread for each.
                few(threads, count)
                conn.send("x")
                return conn.recv(timeout=PATIENCE)

        assert results(calls(count, talk)) == ["x"] * count


@main_goroutine
def test_messages_in_pieces(websockets):
    with serving(websockets, echo) as connect, connect() as conn:
        conn.send(["one ", "two ", "three"])
        assert conn.recv(timeout=PATIENCE) == "one two three"
        conn.send([b"x" * 1000] * 50)
        assert b"".join(conn.recv_streaming()) == b"x" * 50_000


@main_goroutine
def test_pings_are_answered(websockets):
    with serving(websockets, echo) as connect, connect(ping_interval=0.01, ping_timeout=PATIENCE) as conn:
        answers = [conn.ping() for _ in range(3)]
        assert all(answer.wait(PATIENCE) for answer in answers)
        wait_until(lambda: conn.latency > 0, "its own pings are answered")


@main_goroutine
def test_who_is_out_of_time_can_go_on(websockets):
    with serving(websockets, echo) as connect, connect() as conn:
        for step in range(3):
            with pytest.raises(TimeoutError):
                conn.recv(timeout=0.01)
            conn.send(f"{step}")
            assert conn.recv(timeout=PATIENCE) == f"{step}"


@main_goroutine
def test_who_is_cancelled_can_go_on(copied):
    with serving(copied, echo) as connect, connect() as conn:
        for step in range(3):
            call = Call(conn.recv).parked()
            cancel(call)
            # No message was lost.
            conn.send(f"{step}")
            assert conn.recv(timeout=PATIENCE) == f"{step}"


@main_goroutine
def test_both_sides_see_the_end(websockets):
    seen = []

    def leave(conn):
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            conn.recv()
        seen.append(conn.close_code)

    def dismiss(conn):
        conn.recv()
        conn.close(4001, "enough")

    with serving(websockets, leave) as connect, connect() as conn:
        conn.close(1001)
        wait_until(lambda: seen == [1001], "the server has seen it")
    with serving(websockets, dismiss) as connect, connect() as conn:
        waiting = Call(conn.recv)
        conn.send("go")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as caught:
            waiting.result()
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            conn.send("too late")


@main_goroutine
def test_a_peer_that_vanishes(websockets):
    def quiet(conn):
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            echo(conn)

    with serving(websockets, quiet) as connect, connect() as conn:
        waiting = Call(conn.recv)
        conn.socket.shutdown(2)
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            waiting.result()


@main_goroutine
def test_tls(copied):
    """Of a copy: as it is, a thread of the library's reads from an SSL object, in C, while another one writes to it,
    which now and then loses what is written; goroutines write soon enough for that."""
    with serving(copied, echo, ssl=server_context(ssl=proxied_ssl)) as connect:

        def talk(number):
            with connect(ssl=client_context(ssl=proxied_ssl)) as conn:
                conn.send(f"{number}")
                return conn.recv(timeout=PATIENCE)

        assert results(calls(4, talk)) == ["0", "1", "2", "3"]
