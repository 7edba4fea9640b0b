"""gunicorn with workers of this package: requests, signals, timeouts, hooks and settings, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import pytest
from helpers import FREE_THREADED, PATIENCE, script_environment, wait_until
from net_peers import CERTIFICATES, client_context

pytest.importorskip("gunicorn")
# Here: what it keeps for ever is no leak of a test.
from offset import gunicorn as ours

APP = """
import os, offset

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/waits":
        with open("begun", "a") as file:
            file.write("x")
        while not os.path.exists("go"):
            offset.sleep(0.001)
    if path == "/hangs":
        # Nobody who needs the interpreter runs meanwhile.
        import re
        re.match("(a*)*b", "a" * 100)
    if path == "/fails":
        raise ValueError("mine")
    names = ("wsgi.url_scheme", "wsgi.multiprocess", "SCRIPT_NAME", "PATH_INFO", "REMOTE_ADDR", "SERVER_SOFTWARE")
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-Mine", "yes")])
    return [" ".join([str(os.getpid()), "first", *(str(environ[name]) or "-" for name in names)]).encode(), body]
"""

CONFIG = """
import os

def say(text):
    with open("said", "a") as file:
        file.write(text + "\\n")

def pre_request(worker, req):
    say(f"pre {req.method} {req.path} {req.uri}")
    if req.path == "/refused":
        raise ValueError("the hook's")

def post_request(worker, req, environ, resp):
    say(f"post {req.method} {environ['PATH_INFO']} {resp.status} {resp.sent}")

def worker_exit(server, worker):
    say("exit")

def worker_int(worker):
    say("int")

def worker_abort(worker):
    say("abort")

def post_worker_init(worker):
    say("init")
"""


class Program(NamedTuple):
    """gunicorn that runs."""

    process: subprocess.Popen[bytes]
    directory: Any
    address: tuple[str, int]

    def log(self) -> str:
        """What it has said so far."""
        return (self.directory / "log").read_text()

    def said(self) -> list[str]:
        """What the hooks have."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "said").read_text().splitlines()
        return []

    def get(
        self,
        path: str = "/",
        *headers: str,
        body: bytes = b"",
        secure: bool = False,
        source: str = "127.0.0.1",
        before: bytes = b"",
    ) -> tuple[int, list[str]]:
        """The status and the words of an answer."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection(self.address, PATIENCE, (source, 0)))
            if secure:
                sock = stack.enter_context(client_context().wrap_socket(sock, server_hostname="localhost"))
            lines = [
                f"POST {path} HTTP/1.1",
                "Host: localhost",
                "Connection: close",
                f"Content-Length: {len(body)}",
                *headers,
            ]
            sock.sendall(before + "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)
            data = b""
            while part := sock.recv(65_536):
                data += part
        if not data:
            raise ConnectionError("there was no answer")
        head, _, rest = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest.decode().split(" ")

    def begun(self, count: int = 1) -> bool:
        """Have so many requests come for what waits?"""
        file = self.directory / "begun"
        return file.exists() and len(file.read_text()) >= count

    def pid(self) -> int:
        """The process that has answered."""
        return int(self.get()[1][0])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Have it end, and give its status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def gunicorn(directory, *arguments, config="", source=APP, **environment):
    """gunicorn with our worker, once a worker serves."""
    (directory / "module_of_a_test.py").write_text(source)
    (directory / "conf.py").write_text(config)
    command = [sys.executable, "-m", "gunicorn", "-c", "conf.py", "-k", "offset.gunicorn.Worker", "-b", "127.0.0.1:0"]
    control = ["--no-control-socket"] if has_control_socket() else []
    with open(directory / "log", "wb") as out:
        process = subprocess.Popen(
            [*command, *control, *arguments, "module_of_a_test:app"],
            cwd=directory,
            stderr=out,
            env=script_environment(environment),
            start_new_session=True,
        )
    log = directory / "log"
    try:
        wait_until(lambda: "Booting worker" in log.read_text() or process.poll() is not None, "a worker boots")
        found = re.search(r"Listening at: https?://127\.0\.0\.1:(\d+)", log.read_text())
        assert found, log.read_text()
        yield Program(process, directory, ("127.0.0.1", int(found[1])))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def has_control_socket() -> bool:
    from gunicorn import config

    return "control_socket_disable" in config.make_settings()


def test_requests(tmp_path):
    with gunicorn(tmp_path) as program:
        status, (pid, *words) = program.get("/a/b?c", body=b"")
        assert status == 200
        assert int(pid) != program.process.pid
        assert words[:5] == ["first", "http", "False", "-", "/a/b"]
        assert words[5:] == ["127.0.0.1", words[6]]
        assert words[6].startswith("gunicorn/")
        assert program.get(body=b" body")[1][-1] == "body"
        assert program.get("/fails")[0] == 500
        wait_until(lambda: "ValueError: mine" in program.log(), "the error is in gunicorn's log")
        # By default this machine may say what the scheme was.
        assert program.get("/", "X-Forwarded-Proto: https")[1][2] == "https"
        assert program.end() == 0, program.log()
        assert "Traceback" not in program.log().replace("Traceback (most recent call last):\n", "", 1), program.log()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT", "SIGINT"])
def test_a_signal_that_comes_right_after_the_fork_ends_a_worker(tmp_path, name):
    """It is sent once; before a worker has its signals, a handler of gunicorn's own main loop is called for it."""
    config = f"""
import os, signal

def post_fork(server, worker):
    if worker.age == 1:
        os.kill(os.getpid(), signal.{name})
"""
    with gunicorn(tmp_path, config=config) as program:
        # The first one ends, and a second one takes its place.
        wait_until(lambda: program.log().count("Booting worker") == 2, "a second worker")
        assert program.log().count("Worker exiting") == 1
        assert program.get()[0] == 200
        assert program.end() == 0, program.log()


def test_settings(tmp_path):
    arguments = ["--workers", "2", "--forwarded-allow-ips", "192.0.2.1", "--limit-request-line", "100"]
    arguments += ["--keep-alive", "0", "--limit-request-fields", "10", "--worker-connections", "50"]
    arguments += ["--access-logfile", "access"]
    arguments += ["--access-logformat", "%(m)s %(U)s %(s)s %(B)s %({x-odd}i)s %({x-mine}o)s"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        host, port = sock.getsockname()
        arguments += ["--statsd-host", f"{host}:{port}"]
        with gunicorn(tmp_path, *arguments, SCRIPT_NAME="/here") as program:
            _, words = program.get("/here/there", "X-Forwarded-Proto: https", "X-Odd: odd")
            assert words[2:6] == ["http", "True", "/here", "/there"]
            assert program.get("/" + "x" * 200)[0] == 414
            assert program.get("/", *(f"X{number}: y" for number in range(20)))[0] == 431
            log = tmp_path / "access"
            wait_until(lambda: log.exists() and log.read_text().count("\n") == 3, "three lines")
            # Each connection's own goroutine writes its line, after the answer.
            lines = sorted(log.read_text().splitlines(), key=lambda line: line.split()[2])
            assert re.fullmatch(r"POST /there 200 \d+ odd yes", lines[0])
            assert [line.split()[2] for line in lines] == ["200", "414", "431"]
            seen = ""
            while "gunicorn.request.status.200:1|c" not in seen or "gunicorn.requests:1|c" not in seen:
                seen += sock.recv(1000).decode() + "\n"
            assert program.end() == 0, program.log()


def test_settings_that_are_none():
    from gunicorn.config import Config

    settings = Config()
    settings.set("limit_request_fields", 0)
    assert ours._limits(settings).fields == 256
    # Of what a worker is told, half of gunicorn's timeout.
    assert [ours._beat(timeout) for timeout in (0, 0.5, 15)] == [1.0, 0.25, 1.0]


def test_who_may_say_for_whom_it_speaks(tmp_path):
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"
    arguments = ["--forwarded-allow-ips", "192.0.2.1,127.0.0.3", "--proxy-allow-from", "127.0.0.1,127.0.0.3"]
    with gunicorn(tmp_path, "--proxy-protocol", *arguments) as program:
        # Whom the header names has not sent the others.
        _, words = program.get("/", "X-Forwarded-Proto: https", before=header)
        assert (words[2], words[6]) == ("http", "192.0.2.1")
        _, words = program.get("/", "X-Forwarded-Proto: https", before=header, source="127.0.0.3")
        assert (words[2], words[6]) == ("https", "192.0.2.1")
        # To others it is no header, but a request that is none.
        assert program.get(before=header, source="127.0.0.2")[0] == 400
        assert program.get(source="127.0.0.2")[1][6] == "127.0.0.2"
        assert program.end() == 0, program.log()


def test_hooks_and_a_quick_end(tmp_path):
    with gunicorn(tmp_path, config=CONFIG) as program:
        assert program.get("/x?y")[0] == 200
        wait_until(lambda: len(program.said()) == 3, "the hooks were called")
        init, before, after = program.said()
        assert (init, before) == ("init", "pre POST /x /x?y")
        assert re.fullmatch(r"post POST /x 200 OK \d+", after)
        # One that fails is answered for.
        assert program.get("/refused")[0] == 500
        wait_until(lambda: "ValueError: the hook's" in program.log(), "the error is in gunicorn's log")
        waiting = threading.Thread(target=ask_in_vain, args=[program, "/waits"])
        waiting.start()
        wait_until(program.begun, "the request has come")
        assert program.end(signal.SIGINT) == 0, program.log()
        waiting.join(PATIENCE)
        assert {"int", "exit"} <= set(program.said()), program.log()


def test_an_end_is_noticed_whoever_reads_the_byte_of_its_signal(tmp_path):
    config = """
import signal
from offset import gunicorn

# Nobody looks by himself, and the signal's own byte is lost, as if it had been read too early.
gunicorn._BEAT = 1000.0
timeout, graceful_timeout = 0, 1000

def post_worker_init(worker):
    signal.set_wakeup_fd(-1)
"""
    with gunicorn(tmp_path, config=config) as program:
        assert program.get()[0] == 200
        assert program.end() == 0, program.log()


def test_tls_and_a_quick_end(tmp_path):
    pem = str(CERTIFICATES / "localhost.pem")
    with gunicorn(tmp_path, "--certfile", pem, "--keyfile", pem) as program:
        assert program.get(secure=True)[1][2] == "https"
        waiting = threading.Thread(target=ask_in_vain, args=[program, "/waits", True])
        waiting.start()
        wait_until(program.begun, "the request has come")
        assert program.end(signal.SIGQUIT) == 0, program.log()
        waiting.join(PATIENCE)


def test_requests_end_before_their_worker_does(tmp_path):
    with gunicorn(tmp_path) as program:
        answers: list[Any] = []
        before = program.pid()
        waiting = [threading.Thread(target=lambda: answers.append(program.get("/waits"))) for _ in range(3)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: program.begun(3), "the requests have come")
        # Others go on.
        assert program.pid() == before
        # A successor serves the program as it is now.
        (tmp_path / "module_of_a_test.py").write_text(APP.replace("first", "second"))
        program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answers_of(program)[1:2] == ["second"], "the new worker serves")
        assert not answers
        (tmp_path / "go").touch()
        for thread in waiting:
            thread.join(PATIENCE)
        assert [(status, int(words[0])) for status, words in answers] == [(200, before)] * 3
        assert program.end() == 0, program.log()


def ask_in_vain(program: Program, path: str, secure: bool = False) -> None:
    """Ask for what is not answered."""
    with contextlib.suppress(OSError):
        program.get(path, secure=secure)


def test_max_requests_and_an_end(tmp_path):
    with gunicorn(tmp_path, "--max-requests", "3") as program:
        first = [program.pid() for _ in range(3)]
        assert len(set(first)) == 1
        wait_until(lambda: another(program, first[0]), "another worker serves")
        assert "Autorestarting worker" in program.log()
        # An end lets requests end, too.
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(program.get("/waits")))
        waiting.start()
        wait_until(program.begun, "the request has come")
        program.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in program.log(), "it is told")
        (tmp_path / "go").touch()
        waiting.join(PATIENCE)
        assert answers and answers[0][0] == 200
        assert program.process.wait(PATIENCE) == 0, program.log()


def another(program: Program, pid: int) -> bool:
    """Does another worker answer?"""
    return answers_of(program)[:1] not in ([], [str(pid)])


def answers_of(program: Program) -> list[str]:
    """The words of an answer, if there is one at this moment: who is on the way out may not give one."""
    with contextlib.suppress(OSError):
        return program.get()[1]
    return []


@pytest.mark.skipif(FREE_THREADED, reason="without the GIL what computes stops nobody who has another thread")
def test_a_worker_that_hangs_is_replaced(tmp_path):
    with gunicorn(tmp_path, "--timeout", "2") as program:
        seen: list[str] = []
        # One that is slow to begin may have been taken for one that hangs.
        wait_until(lambda: seen.extend(answers_of(program)) or seen, "a worker serves")
        hanging = threading.Thread(target=ask_in_vain, args=[program, "/hangs"])
        hanging.start()
        wait_until(lambda: "WORKER TIMEOUT" in program.log(), "it is noticed")
        wait_until(lambda: another(program, int(seen[0])), "another worker serves")
        hanging.join(PATIENCE)
        assert program.end() == 0, program.log()
