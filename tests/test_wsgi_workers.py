"""`offset serve`, several workers, and programs that are loaded again: in processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import NamedTuple

import helpers
import pytest
from helpers import PATIENCE, run_script, script_environment, wait_until
from net_peers import CERTIFICATES
from offset import wsgi
from offset._http import _load, _reload

APP = """
import os, signal, offset

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "/waits":
        open("begun", "x").close()
        while not os.path.exists("go"):
            offset.sleep(0.001)
    start_response("200 OK", [("Connection", "close")])
    return [f"{os.getpid()} {environ['wsgi.multiprocess']} first".encode()]

def factory():
    return app
"""


class Program(NamedTuple):
    """`offset serve` that runs."""

    process: subprocess.Popen[bytes]
    url: str
    log: object

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def get(self, path: str = "/") -> list[str]:
        """The words of an answer."""
        # Whatever proxies the environment names.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting())
        )
        with opener.open(self.url + path, timeout=PATIENCE) as answer:
            return answer.read().decode().split()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Have it end, and give its status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def trusting():
    return ssl.create_default_context(cafile=str(CERTIFICATES / "localhost.pem"))


@contextlib.contextmanager
def served(tmp_path, *arguments, app="module_of_a_test:app", source=APP):
    """`offset serve` in a directory with an application, once it listens."""
    (tmp_path / "module_of_a_test.py").write_text(source)
    command = [sys.executable, "-m", "offset", "serve", app, "--bind", "127.0.0.1:0", *arguments]
    log = tmp_path / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=out, env=script_environment(), start_new_session=True)
    try:
        wait_until(lambda: "listening at" in log.read_text() or process.poll() is not None, "the server listens")
        found = re.search(r"listening at (\S+)", log.read_text())
        assert found, log.read_text()
        scheme, host = ("https", "localhost") if "--certfile" in arguments else ("http", "127.0.0.1")
        yield Program(process, f"{scheme}://{host}:{found[1].rpartition(':')[2]}", log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def test_serve(tmp_path):
    with served(tmp_path, app="module_of_a_test:factory()") as program:
        assert program.get() == [str(program.process.pid), "False", "first"]
        assert program.end() == 0, program.text()
        assert "Traceback" not in program.text()


def test_names_of_applications(tmp_path, monkeypatch):
    name = f"module_of_a_test_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    for attribute in (":app", "", ":factory()"):
        assert _load.load(name + attribute).__name__ == "app"
    del sys.modules[name]


def test_serve_with_what_there_is(tmp_path):
    pem = str(CERTIFICATES / "localhost.pem")
    arguments = ["--certfile", pem, "--access-log", "access", "--reuse-port", "--idle-timeout", "5", "--max-body", "10"]
    arguments += ["--max-connections", "3", "--grace", "7", "--limit", "target=20", "--limit", "head_timeout=none"]
    with served(tmp_path, *arguments) as program:
        assert program.get("/x?y")[1:] == ["False", "first"]
        with pytest.raises(urllib.error.HTTPError, match="414"):
            program.get("/" + "x" * 20)
        assert program.end(signal.SIGINT) == 0, program.text()
        assert '"GET /x?y HTTP/1.1" 200' in (tmp_path / "access").read_text()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nothing_of_the_kind:app"], "there is no module 'nothing_of_the_kind', neither in "),
        (["nothing_of_the_kind.py"], "name the module, nothing_of_the_kind, not its file"),
        (["./json:load"], "'./json:load' names no module"),
        ([":load"], "':load' names no module"),
        (["json:nothing"], "the module json has no nothing"),
        (["json:__name__"], "__name__ is no application, but of the type str"),
        (["json:load", "--bind", "nowhere"], "has no port"),
        (["json:load", "--bind", "unix:/nowhere/at/all"], "No such file"),
        (["json:load", "--bind", f"unix:{__file__}"], "is no socket: it is left alone"),
        (["json:load", "--keyfile", "x"], "--certfile"),
        (["json:load", "--certfile", "/nowhere"], "from /nowhere: [Errno 2] No such file"),
        (["json:load", "--limit", "nothing=1"], "there is no limit 'nothing'; there are target, head, fields"),
        (["json:load", "--limit", "target=x"], "must be a whole number, at least 1: x"),
        (["json:load", "--limit", "head_timeout"], "must be a number of seconds, more than 0: "),
        (["json:load", "--limit", "fields=none"], "the limit fields must be more than 0, not None"),
        (["json:load", "--interface", "wsgi", "--lifespan", "on"], "--lifespan is for ASGI applications"),
        (["json:load", "--workers", "0"], "must be a whole number, at least 1: 0"),
        (["json:load", "--workers", "x"], "must be a whole number, at least 1: x"),
        (["json:load", "--grace", "inf"], "must be a number of seconds, more than 0: inf"),
        (["nothing_of_the_kind:app", "--workers", "2"], "offset serve: there is no module 'nothing_of_the_kind'"),
    ],
)
def test_what_cannot_be_served(arguments, what, tmp_path):
    status, errors = refused(tmp_path, *arguments)
    assert status
    assert what in errors
    # A sentence is enough.
    assert "Traceback" not in errors


def test_what_the_program_raises_is_shown_where_it_was_raised(tmp_path):
    (tmp_path / "one.py").write_text("import two\n")
    (tmp_path / "two.py").write_text("import nothing_of_the_kind\n")
    (tmp_path / "three.py").write_text("def factory():\n    return int('x')\n")
    status, errors = refused(tmp_path, "one:app")
    assert status == 1
    assert [line.strip() for line in errors.splitlines() if "^" not in line] == [
        "Traceback (most recent call last):",
        f'File "{tmp_path}/one.py", line 1, in <module>',
        "import two",
        f'File "{tmp_path}/two.py", line 1, in <module>',
        "import nothing_of_the_kind",
        "ModuleNotFoundError: No module named 'nothing_of_the_kind'",
    ]
    for name, more in (("three:factory()", []), ("one:app", ["--workers", "2"])):
        status, errors = refused(tmp_path, name, *more)
        assert status == 1
        assert errors.count("Traceback") in (1, len(more)), errors
        assert f'File "{tmp_path}/t' in errors


def refused(directory, *arguments):
    """The status and what `offset serve` says, which does not serve."""
    # The usual port may be somebody else's.
    command = [sys.executable, "-m", "offset", "serve", "--bind", "127.0.0.1:0", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        cwd=directory,
        env=script_environment(),
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr


def test_workers(tmp_path):
    def deploy(source):
        (tmp_path / "module_of_a_test.py").write_text(source)
        program.process.send_signal(signal.SIGHUP)

    with served(tmp_path, "--workers", "2") as program:
        seen = set()

        def both(word="first"):
            if (words := answer(program)) is not None and words[2] == word:
                assert words[1] == "True"
                seen.add(int(words[0]))
            return len(seen) >= 2

        def are_replaced(word):
            before = seen.copy()
            wait_until(lambda: all(gone(pid) for pid in before), "those before are gone")
            seen.clear()
            wait_until(lambda: both(word), f"the {word} program serves, in both")

        wait_until(both, "both have served")
        assert program.process.pid not in seen
        # One that dies is replaced.
        with contextlib.suppress(OSError):
            program.get("/dies")
        wait_until(lambda: "SIGKILL" in program.text(), "the death is told")
        seen.clear()
        wait_until(both, "two serve again")
        # Those who are replaced have loaded the program anew.
        deploy(APP.replace("first", "second of them"))
        are_replaced("second")
        assert "Traceback" not in program.text()
        # One that is broken replaces nobody, and one that is not any more replaces all.
        deploy("broken(")
        wait_until(lambda: program.text().count("has ended with status 1") >= 2, "both have failed")
        assert program.get()[2] == "second"
        deploy(APP.replace("first", "third"))
        are_replaced("third")
        # They end with who has started them, however that ends.
        program.process.kill()
        program.process.wait(PATIENCE)
        wait_until(lambda: all(gone(pid) for pid in seen), "the workers have ended")


def gone(pid):
    """Has a process ended?"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True


def test_an_interrupt_from_a_terminal_lets_requests_end(tmp_path):
    with served(tmp_path, "--workers", "2", "--reuse-port") as program:
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(program.get("/waits")))
        waiting.start()
        wait_until((tmp_path / "begun").exists, "the request has come")
        # All of them get it.
        os.killpg(program.process.pid, signal.SIGINT)
        # The parent does not listen, where each worker does.
        wait_until(lambda: answer(program) is None, "nobody listens any more")
        (tmp_path / "go").touch()
        waiting.join(PATIENCE)
        assert answers and answers[0][1] == "True", program.text()
        assert program.process.wait(PATIENCE) == 0, program.text()


def test_a_worker_that_is_told_to_end_at_once():
    program = """
        import os, signal
        from offset._http import _workers
        from offset.wsgi import serve

        def told_at_once(parent):
            # The first of what a child does.
            os.kill(os.getpid(), signal.SIGTERM)

        def ready(addr):
            print("served", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

        _workers._end_with_parent = told_at_once
        serve("json:load", "127.0.0.1:0", ready, workers=2)
    """
    status, stdout, stderr = run_script(program)
    assert (status, stdout) == (1, ""), stderr
    assert "the workers end before they serve" in stderr


def test_workers_of_a_program_that_is_broken():
    program = """
        from offset.wsgi import serve
        serve("nothing_of_the_kind:app", "127.0.0.1:0", workers=2)
    """
    status, _, stderr = run_script(program)
    assert status == 1
    assert "there is no module 'nothing_of_the_kind'" in stderr
    assert "the workers end before they serve" in stderr


def test_a_worker_that_cannot_be_started_is_tried_again():
    program = """
        import errno, os, signal
        from offset.wsgi import serve

        real, pids = os.fork, []

        def fork():
            if len(pids) == 2:
                pids.append(None)
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            if pid := real():
                pids.append(pid)
                if len(pids) == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
            return pid

        def app(environ, start_response):
            return []

        os.fork = fork
        # Both are there by then.
        serve(app, "127.0.0.1:0", lambda _: os.kill(pids[0], signal.SIGKILL), workers=2)
        print(len(pids))
    """
    status, stdout, stderr = run_script(program)
    assert (status, stdout) == (0, "4\n"), stderr
    assert "a worker cannot be started: Resource temporarily unavailable" in stderr


def test_an_application_that_is_no_name_with_workers(tmp_path):
    program = """
        import os, signal, sys
        from offset.wsgi import serve

        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"x"]

        def ready(addr):
            print(addr.startswith("unix:"), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

        serve(app, "unix:" + sys.argv[1], ready, workers=2)
        print(os.path.exists(sys.argv[1]))
    """
    status, stdout, stderr = run_script(program, tmp_path / "s")
    assert (status, stdout.split()) == (0, ["True", "False"]), stderr


def test_a_file_that_is_new_is_a_change_of_the_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watcher = _reload.Watcher(everything=True)
    assert not watcher.changed()
    (tmp_path / "missing.py").write_text("")
    assert watcher.changed()
    assert not watcher.changed()


def test_a_program_is_loaded_again_when_it_changes(tmp_path):
    file = tmp_path / "module_of_a_test.py"

    def change(source):
        file.write_text(source)
        # Whatever the file system's clock: it is another time than before.
        moment = time.time_ns() + change.later
        change.later += 1_000_000_000
        os.utime(file, ns=(moment, moment))

    change.later = 1_000_000_000
    with served(tmp_path, "--reload") as program:
        assert program.get()[2] == "first"
        change(APP.replace("first", "second"))
        wait_until(lambda: (answer(program) or [""] * 3)[2] == "second", "the second program serves")
        change("broken(")
        wait_until(lambda: "SyntaxError" in program.text(), "the error is told")
        change(APP.replace("first", "third"))
        wait_until(lambda: (answer(program) or [""] * 3)[2] == "third", "the third program serves")
        assert program.end() == 0, program.text()


def answer(program):
    """The words of an answer, if there is one at this moment: who is on the way out may not give one."""
    try:
        return program.get()
    except OSError:
        return None


def test_only_the_main_thread_has_workers():
    def app(environ, start_response):
        raise AssertionError

    def inside():
        with pytest.raises(RuntimeError, match="main thread"):
            wsgi.serve(app, "127.0.0.1:0", workers=2)

    helpers.in_thread(inside)
    helpers.main_goroutine(inside)()
