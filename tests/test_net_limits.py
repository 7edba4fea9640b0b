"""What runs short: descriptors, room in buffers, memory. For `offset.net`, with TLS too, and for proxied sockets.

Invariants: whoever needs a descriptor that there is not is told so, or waits, and everything goes on once there are
some again; a writer does not get ahead of its reader by more than the buffers hold, so memory stays flat.
"""

from __future__ import annotations

import offset
import pytest
from descriptors import TESTS
from helpers import main_goroutine, run_script, wait_ended, wait_until
from net_peers import CERTIFICATES
from offset import go
from offset.syscall import socket


def test_a_dial_without_descriptors_says_so_and_works_later():
    ended = run_script(
        """
        import errno, os
        from descriptors import take_all
        from offset import net, run, runtime
        from offset.syscall import socket

        def main():
            with net.listen("tcp", "127.0.0.1:0") as listener:
                host, port = listener.addr.split(":")
                # Everything has been used once.
                net.dial("tcp", listener.addr).close()
                socket.create_connection((host, int(port))).close()
                for _ in range(2):
                    listener.accept().close()
                before = runtime.stats()["descriptors"]
                spare = take_all(100)
                for make in (
                    lambda: net.dial("tcp", listener.addr),
                    lambda: net.dial("udp", listener.addr),
                    lambda: net.listen("tcp", "127.0.0.1:0"),
                    lambda: net.listen_packet("udp", "127.0.0.1:0"),
                    lambda: socket.create_connection((host, int(port))),
                    lambda: socket.create_server(("127.0.0.1", 0)),
                ):
                    try:
                        make()
                    except OSError as error:
                        assert error.errno == errno.EMFILE, error
                    else:
                        raise AssertionError("there was a descriptor")
                # One is enough for the first step only.
                os.close(spare.pop())
                client = net.dial("tcp", listener.addr)
                try:
                    net.dial("tcp", listener.addr)
                except OSError as error:
                    assert error.errno == errno.EMFILE, error
                for number in spare:
                    os.close(number)
                assert runtime.stats()["descriptors"] == before + 1
                with client, listener.accept() as server:
                    client.write(b"x")
                    assert server.read(1) == b"x"
            print("later")

        run(main)
    """,
        env=TESTS,
    )
    assert (ended.returncode, ended.stdout) == (0, "later\n"), ended.stderr


def test_a_proxied_accept_without_descriptors_raises_as_the_original_does():
    ended = run_script(
        """
        import errno, os
        from descriptors import take_all
        from offset import run
        from offset.syscall import socket

        def main():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client = socket.create_connection(listener.getsockname())
                spare = take_all(100)
                try:
                    listener.accept()
                except OSError as error:
                    assert error.errno == errno.EMFILE, error
                for number in spare:
                    os.close(number)
                with listener.accept()[0] as server, client:
                    server.sendall(b"x")
                    assert client.recv(1) == b"x"
            print("accepted")

        run(main)
    """,
        env=TESTS,
    )
    assert (ended.returncode, ended.stdout) == (0, "accepted\n"), ended.stderr


# Writers that have 64 MB for a reader who takes it in small pieces once they wait.
WRITERS = {
    "tls": """
        import ssl
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(CERTIFICATE)
        client_context = ssl.create_default_context(cafile=CERTIFICATE)

        def connect():
            with net.listen("tcp", "127.0.0.1:0", tls=server_context) as listener:
                accepted = makechan(1)

                def accept():
                    conn = listener.accept()
                    conn.handshake()
                    accepted.send(conn)

                go(accept)
                conn = net.dial("tcp", listener.addr, tls=client_context)
                return conn.write, accepted.recv().read
    """,
    "socket": """
        def connect():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                conn = socket.create_connection(listener.getsockname())
                return conn.sendall, listener.accept()[0].recv
    """,
    "pipe": """
        def connect():
            reader, writer = io.pipe()
            return writer.write, reader.read
    """,
    "net pipe": """
        def connect():
            one, other = net.pipe()
            return one.write, other.read
    """,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_slow_reader_holds_the_writer_up_and_memory_stays_flat(kind):
    ended = run_script(
        f"CERTIFICATE = {str(CERTIFICATES / 'localhost.pem')!r}\n"
        + "import resource\nfrom offset import go, io, makechan, net, run, sleep\nfrom offset.syscall import socket\n"
        + "\n".join(line[8:] for line in WRITERS[kind].splitlines())
        + """
def main():
    write, read = connect()
    chunk, pieces = bytes(1 << 20), 64

    def send():
        for _ in range(pieces):
            write(chunk)

    writer = go(send)
    while not writer.wait_reason:
        sleep(0.001)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    left = pieces << 20
    while left:
        left -= len(read(min(left, 1 << 14)))
    assert writer.join(20)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("flat" if after - before < 16 << 10 else after - before)

run(main)
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "flat\n"), ended.stderr


def connect_and_close(count: int, at_once: int = 20) -> None:
    """Make so many connections of proxied sockets, use each, and close it from either side."""
    with socket.create_server(("127.0.0.1", 0), backlog=at_once) as listener:

        def serve():
            for _ in range(count):
                go(answer, listener.accept()[0])

        def answer(conn):
            with conn:
                conn.sendall(conn.recv(10))

        def ask(number):
            for _ in range(count // at_once):
                with socket.create_connection(listener.getsockname()) as conn:
                    conn.sendall(b"x")
                    if number % 2:
                        assert conn.recv(1) == b"x"

        wait_ended(go(serve), *[go(ask, number) for number in range(at_once)])


@main_goroutine
def test_no_descriptor_is_left_after_many_connections_of_proxied_sockets():
    connect_and_close(1_000)
    wait_until(lambda: offset.runtime.stats()["descriptors"] == 0, "the end of the connections")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@main_goroutine
def test_no_descriptor_is_left_after_very_many_connections_of_proxied_sockets():
    connect_and_close(100_000)
    wait_until(lambda: offset.runtime.stats()["descriptors"] == 0, "the end of the connections")
