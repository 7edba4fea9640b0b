"""`paramiko` in goroutines, both sides of it: as it is, and as a copy over the proxies, whose threads are goroutines.

Invariants: the server runs all commands at once; what a command says comes whole, with its status; a session ends on
both sides when either closes it, and leaves nothing.
"""

from __future__ import annotations

import contextlib
import socket

import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from libraries import Call, Threads, calls, cancel, copies, few, needs_rescue, original, results
from offset import go, sync
from offset.syscall import socket as proxied_socket

pytestmark = pytest.mark.usefixtures("no_sockets_left")


@pytest.fixture(scope="module")
def copied():
    """The copy of paramiko."""
    return copies("paramiko")[0]


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def paramiko(request, copied):
    """The library, in both ways."""
    return copied if request.param == "a copy" else original("paramiko")[0]


class Shell:
    """A server of a few commands."""

    def __init__(self, paramiko, sockets):
        self.paramiko = paramiko
        self.key = paramiko.ECDSAKey.generate()
        self.listener = sockets.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.transports = []
        self.running = sync.atomic.Int()
        self.meeting = None
        shell = self

        class Interface(paramiko.ServerInterface):
            def check_auth_password(self, username, password):
                return paramiko.AUTH_SUCCESSFUL if (username, password) == ("ann", "secret") else paramiko.AUTH_FAILED

            def get_allowed_auths(self, username):
                return "password"

            def check_channel_request(self, kind, number):
                return paramiko.OPEN_SUCCEEDED

            def check_channel_exec_request(self, channel, command):
                go(shell.execute, channel, command.decode())
                return True

        self.interface = Interface

    def __enter__(self):
        self.accepting = Call(self.accept)
        return self

    def __exit__(self, *_):
        for transport in self.transports:
            transport.close()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.accepting.result()
        self.listener.close()
        for transport in self.transports:
            transport.join(PATIENCE)
        self.transports.clear()
        self.listener = self.meeting = None

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            transport = self.paramiko.Transport(sock)
            self.transports.append(transport)
            transport.add_server_key(self.key)
            with contextlib.suppress(self.paramiko.SSHException, EOFError):
                transport.start_server(server=self.interface(), event=None)

    def execute(self, channel, command):
        """Run a command of a client."""
        # Only then the client knows that the command was accepted, and makes sense of what comes.
        channel.recv(1)
        self.running.add(1)
        try:
            # Whoever has read all that it wants may be gone before it is told of the end: paramiko says EOFError.
            with contextlib.suppress(OSError, EOFError), channel:
                what, _, rest = command.partition(" ")
                if what == "meet":
                    self.meeting.done()
                    self.meeting.wait(timeout=PATIENCE)
                elif what == "cat":
                    while data := channel.recv(10_000):
                        channel.sendall(data)
                elif what == "wait":
                    channel.recv(1)
                channel.sendall(rest.encode())
                channel.sendall_stderr(b"err")
                channel.send_exit_status(7)
        finally:
            self.running.add(-1)

    @contextlib.contextmanager
    def client(self, password="secret"):
        """A session of a client."""
        with self.paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(self.paramiko.AutoAddPolicy())
            try:
                client.connect(
                    "127.0.0.1",
                    self.port,
                    "ann",
                    password,
                    timeout=PATIENCE,
                    banner_timeout=PATIENCE,
                    auth_timeout=PATIENCE,
                    look_for_keys=False,
                    allow_agent=False,
                )
                yield client
            finally:
                transport = client.get_transport()
                client.close()
                if transport is not None:
                    transport.join(PATIENCE)


@pytest.fixture
def shell(paramiko, copied):
    """A server in the same way as its client."""
    return Shell(paramiko, proxied_socket if paramiko is copied else socket)


def begin(client, command):
    """Begin a command; give its three streams."""
    streams = client.exec_command(command, timeout=PATIENCE)
    streams[0].channel.sendall(b"!")
    return streams


def execute(client, command):
    """Run a command; give what it said, and its status."""
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(stream) for stream in begin(client, command)]
        return streams[1].read(), streams[2].read(), streams[1].channel.recv_exit_status()


@main_goroutine
def test_all_at_once(shell):
    count = 6
    shell.meeting = sync.WaitGroup()
    shell.meeting.add(count)
    with shell:

        def work(number):
            with shell.client() as client:
                return execute(client, f"meet {number}")

        assert results(calls(count, work)) == [(b"%d" % number, b"err", 7) for number in range(count)]


@main_goroutine
def test_sessions_share_a_connection(shell):
    count = 8
    shell.meeting = sync.WaitGroup()
    shell.meeting.add(count)
    with shell, shell.client() as client:
        answers = results(calls(count, lambda number: execute(client, f"meet {number}")))
        assert answers == [(b"%d" % number, b"err", 7) for number in range(count)]
        assert len(shell.transports) == 1


@main_goroutine
def test_those_of_a_copy_take_no_threads(copied):
    shell = Shell(copied, proxied_socket)
    threads = Threads()
    count = 12
    with shell:

        def work(number):
            with shell.client() as client:
                return execute(client, f"wait {number}")

        begun = calls(count, work)
        wait_until(lambda: shell.running.load() == count, "all run")
        # Four goroutines each.
        few(threads, count)
        for transport in shell.transports:
            transport.close()
        results(begun)


@main_goroutine
def test_much_goes_through(shell):
    data = bytes(range(256)) * 2_000
    with shell, shell.client() as client:

        def work(_):
            stdin, stdout, _ = begin(client, "cat")
            sending = Call(stdin.channel.sendall, data)
            got = stdout.read(len(data))
            sending.result()
            stdin.channel.shutdown_write()
            stdin.channel.close()
            return got == data

        assert results(calls(3, work)) == [True] * 3


@main_goroutine
def test_who_is_out_of_time_can_go_on(shell):
    with shell, shell.client() as client:
        # Who lets go of stdin closes it.
        stdin, stdout, _ = begin(client, "wait")
        stdin.channel.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stdout.read()
        stdin.channel.close()
        assert execute(client, "echo again")[0] == b"again"
        wait_until(lambda: shell.running.load() == 0, "the server has ended it")


@main_goroutine
def test_who_is_cancelled_can_go_on(copied):
    shell = Shell(copied, proxied_socket)
    with shell, shell.client() as client:

        def work():
            stdin, stdout, _ = begin(client, "wait")
            with stdin.channel:
                stdout.read()

        call = Call(work)
        wait_until(lambda: shell.running.load() == 1, "it runs")
        cancel(call.parked())
        wait_until(lambda: shell.running.load() == 0, "the server has ended it")
        assert execute(client, "echo again")[0] == b"again"


@main_goroutine
def test_errors_are_those_of_the_library(shell):
    with shell:
        with pytest.raises(shell.paramiko.AuthenticationException), shell.client("wrong"):
            pass
        with shell.client() as client:
            shell.transports[-1].close()
            with pytest.raises((shell.paramiko.SSHException, EOFError, OSError)):
                execute(client, "echo too late")
