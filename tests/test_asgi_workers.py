"""`offset serve` with applications of ASGI, and their workers: in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest
import web_asgi  # noqa: F401 - what uvloop keeps for ever is there before a test looks round
from helpers import PATIENCE, run_script, wait_until
from test_wsgi_workers import answer, gone, served

APP = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            with open(f"{kind}s", "a") as file:
                file.write(f"{os.getpid()}\\n")
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    if scope["path"] == "/waits":
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        open("begun", "x").close()
        while not os.path.exists("go"):
            await asyncio.sleep(0.001)
    await send({"type": "http.response.body", "body": f"{os.getpid()} {scope['type']} first".encode()})

def wsgi(environ, start_response):
    start_response("200 OK", [("Connection", "close")])
    return [f"{os.getpid()} wsgi first".encode()]

def hidden(scope, receive, send):
    return app(scope, receive, send)

class Double:
    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass

class Single:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)

single = Single()

async def fails(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "a test"})

async def without(scope, receive, send):
    assert scope["type"] == "http"
"""


def pids(tmp_path, kind):
    """The processes that noted their startup, or their shutdown."""
    file = tmp_path / f"{kind}s"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("single", [], "http"),
        ("wsgi", [], "wsgi"),
        ("hidden", ["--interface", "asgi", "--lifespan", "on"], "http"),
    ],
)
def test_serve(tmp_path, name, arguments, kind):
    with served(tmp_path, *arguments, "--access-log", "access", app=f"module_of_a_test:{name}", source=APP) as program:
        assert program.get("/x?y") == [str(program.process.pid), kind, "first"]
        assert program.end() == 0, program.text()
        assert "Traceback" not in program.text()
    assert '"GET /x?y HTTP/1.1" 200' in (tmp_path / "access").read_text()
    wanted = [] if kind == "wsgi" else [program.process.pid]
    assert (pids(tmp_path, "startup"), pids(tmp_path, "shutdown")) == (wanted, wanted)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["Double"], "an application of ASGI 2"),
        (["Double", "--interface", "asgi"], "an application of ASGI 2"),
        (["app", "--interface", "wsgi"], "an application of ASGI"),
        (["wsgi", "--interface", "asgi"], "two arguments, as an application of WSGI"),
        (["fails"], "the application's startup has failed: a test"),
        (["without", "--lifespan", "on"], "has raised AssertionError"),
        (["app", "--interface", "fcgi"], "invalid choice: 'fcgi'"),
    ],
)
def test_what_cannot_be_served(arguments, what, tmp_path, monkeypatch, capsys):
    from offset.__main__ import main

    name = f"module_of_asgi_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        status = main(["serve", f"{name}:{arguments[0]}", *arguments[1:], "--bind", "127.0.0.1:0"])
    except SystemExit as end:
        status = end.code
    finally:
        sys.modules.pop(name, None)
    assert status in (1, 2)
    assert what in capsys.readouterr().err


def test_workers_whose_startup_fails(tmp_path):
    program = """
        import sys
        from offset.asgi import serve

        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "a test"})

        serve(app, "127.0.0.1:0", workers=2)
    """
    status, _, stderr = run_script(program)
    assert status == 1
    assert "the application's startup has failed: a test" in stderr
    assert "the workers end before they serve" in stderr


def test_workers_begin_and_end_each_for_itself(tmp_path):
    with served(tmp_path, "--workers", "2", source=APP) as program:
        wait_until(lambda: len(pids(tmp_path, "startup")) == 2, "both have begun")
        first = set(pids(tmp_path, "startup"))
        assert int(program.get()[0]) in first
        # One by one they are replaced.
        program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: set(pids(tmp_path, "shutdown")) == first, "both have ended")
        second = set(pids(tmp_path, "startup")) - first
        assert int(program.get()[0]) in second
        assert program.end() == 0, program.text()
        assert set(pids(tmp_path, "shutdown")) == first | second
        assert all(gone(pid) for pid in first | second)


def test_a_request_that_streams_ends_before_its_worker(tmp_path):
    with served(tmp_path, "--workers", "2", "--reuse-port", source=APP) as program:
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(program.get("/waits")))
        waiting.start()
        wait_until((tmp_path / "begun").exists, "the request has come")
        os.kill(program.process.pid, signal.SIGTERM)
        wait_until(lambda: answer(program) is None, "nobody listens any more")
        (tmp_path / "go").touch()
        waiting.join(PATIENCE)
        assert answers and answers[0][1] == "http", program.text()
        assert program.process.wait(PATIENCE) == 0, program.text()


def test_a_program_that_changes_is_loaded_again(tmp_path):
    file = tmp_path / "module_of_a_test.py"
    with served(tmp_path, "--reload", source=APP) as program:
        assert program.get()[2] == "first"
        file.write_text(APP.replace("first", "second"))
        # Whatever the file system's clock: it is another time than before.
        moment = time.time_ns() + 1_000_000_000
        os.utime(file, ns=(moment, moment))
        wait_until(lambda: (answer(program) or [""] * 3)[2] == "second", "the new program serves")
        assert program.end() == 0, program.text()
        # Whoever was replaced has ended in order.
        assert pids(tmp_path, "startup") == pids(tmp_path, "shutdown")
