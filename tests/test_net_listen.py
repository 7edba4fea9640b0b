"""`offset.net`: what accepts connections, and where it listens."""

from __future__ import annotations

import errno
import os
import re
import select

import helpers
import pytest
from descriptors import TESTS
from helpers import SHORT, main_goroutine, wait_until
from net_peers import Call, pair, read_all
from offset import net

# ---- listeners -------------------------------------------------------------------------------


@main_goroutine
@pytest.mark.parametrize(
    ("network", "address", "shape"),
    [
        ("tcp", "127.0.0.1:0", r"127\.0\.0\.1:\d+"),
        ("tcp4", "127.0.0.1:0", r"127\.0\.0\.1:\d+"),
        ("tcp", "localhost:0", r"127\.0\.0\.1:\d+"),
        ("tcp", "[::1]:0", r"\[::1\]:\d+"),
        ("tcp6", "[::1]:0", r"\[::1\]:\d+"),
        ("tcp", ":0", r"\[::\]:\d+"),
        ("tcp4", ":0", r"0\.0\.0\.0:\d+"),
        ("tcp6", ":0", r"\[::\]:\d+"),
        ("tcp", "0.0.0.0:0", r"0\.0\.0\.0:\d+"),
        ("tcp", ":", r"\[::\]:\d+"),
        ("unix", "@offset-test-{pid}", r"@offset-test-\d+"),
        ("unix", "", r"@.+"),
    ],
)
def test_dial_takes_the_address_of_a_listener(network, address, shape):
    with net.listen(network, address.format(pid=os.getpid())) as listener:
        assert re.fullmatch(shape, listener.addr)
        with net.dial(network, listener.addr) as client, listener.accept() as server:
            client.write(b"hello")
            assert server.read(10) == b"hello"
            assert client.local_addr == server.remote_addr
            assert client.network == server.network == network
        assert not listener.addr.endswith(":0")


@main_goroutine
def test_a_listener_for_both_versions_names_both_kinds_of_clients():
    with net.listen("tcp", ":0") as listener:
        port = listener.addr.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            with net.dial("tcp", f"{host}:{port}") as client, listener.accept() as server:
                assert server.remote_addr == client.local_addr
                assert server.remote_addr.startswith(host)
                assert server.local_addr == client.remote_addr == f"{host}:{port}"
    with net.listen("tcp6", ":0") as listener, pytest.raises(ConnectionRefusedError):
        net.dial("tcp", f"127.0.0.1:{listener.addr.rpartition(':')[2]}")


def test_accept_waits_for_a_connection(kind, start):
    with net.listen(*kind) as listener:
        calls = [start(listener.accept).parked() for _ in range(2)]
        clients = [net.dial(kind[0], listener.addr) for _ in range(2)]
        for call in calls:
            call.result().close()
        for client in clients:
            client.close()
        assert listener.stats() == {"network": kind[0], "addr": listener.addr, "accepted": 2, "closed": False}


@pytest.mark.parametrize("short", [0, *SHORT])
def test_accept_gives_up_in_time(kind, start, short):
    with net.listen(*kind) as listener:
        with pytest.raises(TimeoutError, match=r"accept .* timed out"):
            start(listener.accept, timeout=short).result()
        client = net.dial(kind[0], listener.addr)
        wait_until(lambda: select.select([listener.fileno()], [], [], 0)[0], "the connection")
        with client, listener.accept(timeout=short) as server:
            server.write(b"x")
            assert client.read(1) == b"x"


def test_a_close_wakes_who_accepts(kind, start):
    listener = net.listen(*kind)
    calls = [start(listener.accept).parked() for _ in range(3)]
    iterating = start(list, listener).parked()
    listener.close()
    listener.close()
    for call in calls:
        with pytest.raises(OSError, match=r"accept .* closed") as caught:
            call.result()
        assert not isinstance(caught.value, TimeoutError)
    assert iterating.result() == []
    assert listener.closed
    assert listener.fileno() == -1
    assert listener.stats()["closed"]
    with pytest.raises(OSError, match="closed"):
        listener.accept()


@main_goroutine
def test_a_listener_is_iterated_until_it_is_closed(kind):
    with net.listen(*kind) as listener:

        def serve():
            count = 0
            for conn in listener:
                with conn:
                    count += 1
                    conn.write(str(count).encode())
            return count

        server = Call(serve)
        for number in range(1, 4):
            with net.dial(kind[0], listener.addr) as client:
                assert read_all(client) == str(number).encode()
        listener.close()
        assert server.result() == 3


@main_goroutine
def test_accepted_connections_stay_when_the_listener_goes(kind):
    with pair(*kind) as (one, other):
        # The listener is closed by now.
        one.write(b"still here")
        assert other.read(100) == b"still here"


@main_goroutine
def test_a_port_that_is_taken_is_refused():
    with net.listen("tcp", "127.0.0.1:0") as listener:
        with pytest.raises(OSError, match=rf"listen tcp {listener.addr}: Address already in use") as caught:
            net.listen("tcp", listener.addr)
        assert caught.value.errno == errno.EADDRINUSE
        address = listener.addr
        with net.dial("tcp", address), listener.accept() as server:
            # Here, so that it is this side that remembers the connection for a while.
            server.close()
    net.listen("tcp", address).close()


@main_goroutine
def test_the_file_of_a_unix_socket_goes_with_the_listener(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    with net.listen("unix", str(path)) as listener:
        assert path.is_socket()
        with pytest.raises(OSError, match=r"listen unix .*socket: Address already in use"):
            net.listen("unix", str(path))
        assert listener.addr == str(path)
        assert path.is_socket()
    assert not path.exists()
    # One that was put in its place stays, and a relative path is that of then.
    first = net.listen("unix", str(path))
    path.unlink()
    with net.listen("unix", str(path)):
        first.close()
        assert path.is_socket()
    monkeypatch.chdir(tmp_path)
    listener = net.listen("unix", "relative")
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "relative").exists()


@main_goroutine
def test_a_path_that_is_no_place_for_a_socket_is_named(tmp_path):
    for path in (str(tmp_path / "missing" / "socket"), "/" + "x" * 300):
        with pytest.raises(OSError, match=rf"listen unix {path}: ") as caught:
            net.listen("unix", path)
        assert caught.value.errno
        with pytest.raises(OSError, match=rf"dial unix {path}: ") as caught:
            net.dial("unix", path)
        assert caught.value.errno


def test_accept_survives_a_want_of_descriptors():
    ended = helpers.run_script(
        """
        import os, socket
        from descriptors import take_all
        from offset import go, net, run, runtime, sleep

        def main():
            with net.listen("tcp", "127.0.0.1:0") as listener:
                host, port = listener.addr.split(":")
                clients = [socket.create_connection((host, int(port))) for _ in range(3)]
                spare = take_all(200)
                accepted = []
                server = go(lambda: [accepted.append(listener.accept()) for _ in range(3)])
                while server.wait_reason is None:
                    sleep(0.001)
                used = os.times()
                sleep(0.5)
                spent = sum(os.times()[:2]) - sum(used[:2])
                assert not accepted
                # Hot, it would use all of that.
                assert spent < 0.25, spent
                late = go(listener.accept, timeout=0.01)
                assert late.join(timeout=20)
                for number in spare:
                    os.close(number)
                assert server.join(timeout=20)
                assert len(accepted) == 3
                for conn, client in zip(accepted, clients):
                    client.send(b"x")
                    assert conn.read(1) == b"x"
                print("accepted")

        run(main, on_panic="report")
    """,
        env=TESTS,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "accepted\n"
    assert "timed out" in ended.stderr


def test_a_close_wakes_who_waits_for_descriptors():
    ended = helpers.run_script(
        """
        import socket
        from descriptors import take_all
        from offset import go, net, run

        def main():
            listener = net.listen("tcp", "127.0.0.1:0")
            host, port = listener.addr.split(":")
            client = socket.create_connection((host, int(port)))
            spare = take_all(100)
            server = go(list, listener)
            while server.wait_reason != "chan receive":
                pass
            listener.close()
            assert server.join(timeout=20)
            print("closed")

        run(main)
    """,
        env=TESTS,
    )
    assert (ended.returncode, ended.stdout) == (0, "closed\n"), ended.stderr
