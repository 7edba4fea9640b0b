"""`offset.syscall.smtplib`, `ftplib`, `poplib`, `imaplib`: many sessions at once park only their goroutines.

What the originals do is tested by CPython's own tests over the proxies. The server here answers nobody before all are
there; it listens on the loopback interface.
"""

from __future__ import annotations

import importlib

import offset
import pytest
from helpers import PATIENCE, go_parked, main_goroutine, wait_ended, wait_parked
from offset import go
from offset.syscall import _rebind, ftplib, imaplib, poplib, smtplib, socket

SESSIONS = 20


def smtp(port):
    with smtplib.SMTP("127.0.0.1", port, "me", timeout=PATIENCE) as session:
        return session.noop()


def ftp(port):
    with ftplib.FTP(timeout=PATIENCE) as session:
        session.connect("127.0.0.1", port)
        return session.sendcmd("NOOP")


def pop3(port):
    session = poplib.POP3("127.0.0.1", port, timeout=PATIENCE)
    answer = session.noop()
    session.quit()
    return answer


def imap(port):
    session = imaplib.IMAP4("127.0.0.1", port, timeout=PATIENCE)
    answer = session.noop()
    session.logout()
    return answer


# By the session: what the server says first, what it says to a command, and what the session makes of that.
PROTOCOLS = {
    smtp: (
        b"220 ready\r\n",
        lambda line: (b"221" if b"quit" in line.lower() else b"250") + b" done\r\n",
        (250, b"done"),
    ),
    ftp: (b"220 ready\r\n", lambda line: b"200 done\r\n", "200 done"),
    pop3: (b"+OK ready\r\n", lambda line: b"+OK done\r\n", b"+OK done"),
    imap: (
        b"* OK ready\r\n",
        lambda line: (
            (b"* CAPABILITY IMAP4REV1\r\n" if b"CAPABILITY" in line else b"") + line.split()[0] + b" OK done\r\n"
        ),
        ("OK", [b"done"]),
    ),
}


def serve(conn, greeting, answer):
    """Greet, then answer each line, until the peer leaves."""
    with conn, conn.makefile("rwb", 0) as file:
        file.write(greeting)
        for line in file:
            file.write(answer(line))


@pytest.mark.parametrize("session", PROTOCOLS, ids=lambda session: session.__name__)
@main_goroutine
def test_sessions_at_once(session):
    greeting, answer, expected = PROTOCOLS[session]
    answers = []
    with socket.create_server(("127.0.0.1", 0), backlog=SESSIONS) as listener:
        port = listener.getsockname()[1]
        goroutines = [go(lambda: answers.append(session(port))) for _ in range(SESSIONS)]
        connections = [listener.accept()[0] for _ in range(SESSIONS)]
        wait_parked(*goroutines, reason="IO wait")
        stats = offset.runtime.stats()
        assert stats["machines"] - stats["idle_machines"] < SESSIONS
        servers = [go(serve, conn, greeting, answer) for conn in connections]
        connections.clear()
        wait_ended(*goroutines, *servers)
    assert answers == [expected] * SESSIONS


@main_goroutine
def test_a_session_that_is_cancelled_leaves_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        session = go_parked(smtp, listener.getsockname()[1], reason="IO wait")
        conn = listener.accept()[0]
        session.cancel()
        wait_ended(session)
        assert conn.recv(1) == b""
        conn.close()


@pytest.mark.parametrize("name", ["ftplib", "imaplib", "poplib", "smtplib"])
def test_the_original_is_left_alone(name):
    original, proxy = importlib.import_module(name), _rebind.proxy(name)
    assert original.socket is importlib.import_module("socket")
    assert proxy.socket is socket
    assert set(original.__all__ if hasattr(original, "__all__") else ()) <= set(vars(proxy))
