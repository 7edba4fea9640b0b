"""Servers that the tests of libraries talk to, on loopback: Redis, MariaDB and PostgreSQL, each started once a session.

A server that is installed is used; else the one that `make servers` (`.ci/servers.sh`) has unpacked into the checkout.
Where there is neither the test is skipped, with the reason that the script has left.

Invariants: a server listens on loopback only, keeps its files in a directory of its own, and is killed, with what it
has started, when the session ends. PostgreSQL, which refuses to run as root, runs as nobody there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / ".servers"

# As many connections as any test makes at once, and some.
CONNECTIONS = 200

PASSWORD = secrets.token_hex(8)


class Missing(Exception):
    """A server is not here; why."""


class Server:
    """A server that runs."""

    def __init__(self, port: int, environment: dict[str, str]) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.user = "gopher"
        self.password = PASSWORD
        self.environment = environment
        """How a program finds it: the variables that its clients look at."""


# Runs a server until its standard input ends: that of a test run that was killed does.
KEEPER = 'exec 3<&0; "$@" </dev/null 3<&- & server=$!; (read -r _ <&3; kill -9 $server) & wait $server'


class Program:
    """A program of a server, and what it needs to run."""

    def __init__(self, name: str, program: str) -> None:
        self.name = name
        self.root = Path("/")
        self.environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        found = self._installed(program)
        if found is None:
            self.root = UNPACKED / name / "root"
            found = next((path for path in self._places(program) if path.exists()), None)
            libraries = [str(path) for path in (self.root / "usr" / "lib").glob("*-linux-gnu*")]
            self.environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        if found is None:
            raise Missing(self._why_not(program))
        self.path: Path = found

    def _places(self, program: str) -> list[Path]:
        homes = ["usr/local/sbin", "usr/sbin", "usr/bin"]
        versions = sorted(self.root.glob("usr/lib/postgresql/*/bin"), key=lambda path: int(path.parent.name))
        return [*(self.root / home / program for home in homes), *(path / program for path in reversed(versions))]

    def _installed(self, program: str) -> Path | None:
        found = shutil.which(program)
        if found:
            # A link on PATH may lead to where the server finds what belongs to it.
            return Path(found).resolve() if self.name == "postgres" else Path(found)
        return next((path for path in self._places(program) if path.exists()), None)

    def _why_not(self, program: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (UNPACKED / f"{self.name}.missing").read_text().strip()
        return f"{program} is not installed, and `make servers` was not run"

    def share(self, name: str) -> Path:
        """A directory of data that belongs to the program."""
        return self.root / "usr" / "share" / name


class Home:
    """A directory for a server's files, and the user whom the server runs as."""

    def __init__(self, user: str | None = None) -> None:
        # Not pytest's own directory for such things, which is closed to other users.
        self.path = Path(tempfile.mkdtemp(prefix="offset-server-"))
        self.user = user
        if user is not None:
            record = pwd.getpwnam(user)
            os.chown(self.path, record.pw_uid, record.pw_gid)

    def start(self, program: Program, arguments: list[Any], **options: Any) -> subprocess.Popen[bytes]:
        """Start a command of `program` here, as the leader of a group of processes."""
        who = (
            {}
            if self.user is None
            else {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}
        )
        with open(self.path / "log", "ab") as log:
            return subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=log,
                stderr=log,
                cwd=self.path,
                env={**program.environment, "HOME": str(self.path)},
                start_new_session=True,
                **who,
                **options,
            )

    def call(self, program: Program, arguments: list[Any], text: str | None = None) -> None:
        """Run a command to its end, which must be a success."""
        process = self.start(program, arguments, stdin=subprocess.PIPE)
        try:
            process.communicate((text or "").encode(), timeout=PATIENCE * 2)
            assert process.returncode == 0, f"{arguments[0]} has failed ({process.returncode}):\n{self.log()}"
        finally:
            kill(process)

    def log(self) -> str:
        """What the server has said."""
        return (self.path / "log").read_text(errors="replace")[-10_000:]

    def remove(self) -> None:
        """Delete it all."""
        shutil.rmtree(self.path, ignore_errors=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port on which nobody listens now, and which no other run of these tests uses until the end of the block.

    Else the server of another one might say that it is ready before ours has found out that it cannot listen.
    """
    with socket.socket(socket.AF_UNIX) as mark:
        while True:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError):
                mark.bind(f"\0offset-server-port-{port}")
                break
        yield port


@contextlib.contextmanager
def serving(
    program: Program, home: Home, arguments: Callable[[int], list[Any]], ready: Callable[[int], bool]
) -> Iterator[int]:
    """Run a server that listens on the port which `arguments` gets, from when it is ready; give that port."""
    for attempt in range(5):
        with free_port() as port:
            process = home.start(program, ["sh", "-c", KEEPER, "sh", *arguments(port)], stdin=subprocess.PIPE)
            try:
                deadline = time.monotonic() + PATIENCE * 2
                while process.poll() is None and not ready(port):
                    assert time.monotonic() < deadline, f"{program.path} is not ready:\n{home.log()}"
                    time.sleep(0.02)
                if process.poll() is None:
                    yield port
                    return
                # Somebody else may have been given the port.
                assert attempt < 4, f"{program.path} has ended:\n{home.log()}"
            finally:
                kill(process)


def answers(port: int, question: bytes = b"") -> bytes:
    """What comes from a port, after a question, at once or soon; nothing if nobody listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as peer:
        peer.sendall(question)
        return peer.recv(100)
    return b""


@contextlib.contextmanager
def redis() -> Iterator[Server]:
    """Redis, with nothing in it."""
    program = Program("redis", "redis-server")
    home = Home()
    try:
        with serving(
            program,
            home,
            lambda port: [
                program.path,
                "--port",
                port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--maxclients",
                CONNECTIONS,
            ],
            lambda port: answers(port, b"PING\r\n").startswith(b"+PONG"),
        ) as port:
            yield Server(port, {"REDIS_URL": f"redis://127.0.0.1:{port}"})
    finally:
        home.remove()


@contextlib.contextmanager
def mariadb() -> Iterator[Server]:
    """MariaDB, with a user who may do everything and an empty database `test`."""
    program = Program("mariadb", "mariadbd")
    home = Home()
    share = program.share("mysql")
    messages = (
        share if (share / "errmsg-utf8.txt").exists() or (share / "english").exists() else program.share("mariadb")
    )
    common = [
        program.path,
        "--no-defaults",
        f"--basedir={program.root / 'usr'}",
        f"--datadir={home.path / 'data'}",
        f"--lc-messages-dir={messages}",
        f"--tmpdir={home.path}",
        "--innodb-buffer-pool-size=16M",
        "--innodb-log-file-size=8M",
        "--innodb-flush-log-at-trx-commit=0",
        *([f"--user={pwd.getpwuid(0).pw_name}"] if os.geteuid() == 0 else []),
    ]
    statements = ["CREATE DATABASE IF NOT EXISTS mysql;", "USE mysql;"]
    for name in ("system_tables", "system_tables_data", "performance_tables"):
        found = [path for kind in ("mysql", "mariadb") for path in (messages / f"{kind}_{name}.sql",) if path.exists()]
        statements += [path.read_text() for path in found[:1]]
    statements += [
        "FLUSH PRIVILEGES;",
        f"CREATE USER 'gopher'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';",
        "GRANT ALL ON *.* TO 'gopher'@'127.0.0.1' WITH GRANT OPTION;",
        "CREATE DATABASE test;",
    ]
    try:
        (home.path / "data").mkdir()
        home.call(program, [*common, "--bootstrap"], "\n".join(statements) + "\n")

        def arguments(port: int) -> list[Any]:
            network = [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
            files = [f"--socket={home.path / 'socket'}", f"--pid-file={home.path / 'pid'}"]
            return [*common, *network, *files, f"--max-connections={CONNECTIONS}"]

        # The server speaks first.
        with serving(program, home, arguments, lambda port: b"Maria" in answers(port)) as port:
            names = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(port), "MYSQL_USER": "gopher"}
            yield Server(port, {**names, "MYSQL_PASSWORD": PASSWORD})
    finally:
        home.remove()


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """PostgreSQL, with a superuser and the empty database `postgres`."""
    program = Program("postgres", "postgres")
    home = Home("nobody" if os.geteuid() == 0 else None)
    data, secret = home.path / "data", home.path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    try:
        initdb = program.path.with_name("initdb")
        try:
            home.call(program, [initdb, "--version"])
        except PermissionError:
            raise Missing(f"{initdb} refuses to run as root, and nobody cannot reach it there") from None
        options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--username=gopher", "--encoding=UTF8", "--locale=C"]
        home.call(program, [initdb, f"--pgdata={data}", "--no-sync", *options])

        def arguments(port: int) -> list[Any]:
            settings = {
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "max_connections": CONNECTIONS,
                "fsync": "off",
                "jit": "off",
                "shared_buffers": "16MB",
                "autovacuum": "off",
            }
            changes = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            return [program.path, "-D", data, "-p", port, *changes]

        # Who says that he is somebody is asked for his password, or told that the server is still starting up.
        hello = b"\0\3\0\0user\0gopher\0\0"
        hello = (len(hello) + 4).to_bytes(4, "big") + hello
        with serving(program, home, arguments, lambda port: answers(port, hello).startswith(b"R")) as port:
            names = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "gopher", "PGDATABASE": "postgres"}
            yield Server(port, {**names, "PGPASSWORD": PASSWORD})
    finally:
        home.remove()


# ---- fixtures ----------------------------------------------------------------------------------


@contextlib.contextmanager
def or_skip(server: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    """A server, or the reason why the test is skipped."""
    try:
        with server() as running:
            yield running
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """Redis, with nothing in it."""
    with or_skip(redis) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    """MariaDB, with a user who may do everything and an empty database `test`."""
    with or_skip(mariadb) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """PostgreSQL, with a superuser and the empty database `postgres`."""
    with or_skip(postgres) as server:
        yield server
