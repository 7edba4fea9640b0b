"""Dumps say where the tasks of the library's own loop are, too.

Invariant: who asks looks from outside, as `offset dump` does, at a program that goes on.
"""

import re
import textwrap

import pytest
from helpers import FREE_THREADED, run_script, start_script
from offset import _outside

START = """
import asyncio, contextlib, os, signal, sys, threading, time
from offset import aio, go, makechan, run
from offset.aio import _stacks

# The loop may stand still for a while, with all of the machine.
_stacks._ANSWER = 60

def waiting(begun):
    # When the task that calls this waits.
    asyncio.get_running_loop().call_soon(begun.try_send, None)

async def inner(begun, how_long):
    waiting(begun)
    await asyncio.sleep(how_long)

async def outer(begun):
    await inner(begun, 1000)

async def anonymous(begun):
    def steps():
        yield from asyncio.sleep(1000).__await__()
    class Thing:
        def __await__(self):
            return steps()
    waiting(begun)
    await Thing()

def start(function, count):
    begun = makechan(count)
    for _ in range(count):
        go(aio.await_, function(begun))
        begun.recv()

def until_told():
    print("ready", flush=True)
    sys.stdin.readline()
"""


def asked(tmp_path, main, *questions):
    """What a program answers, after `main`, of which its last line is no more than `ready`."""
    path = tmp_path / "program.py"
    path.write_text(START + textwrap.dedent(main) + "\nrun(main)\n")
    with start_script(path) as process:
        line = process.stdout.readline()
        assert line == "ready\n", line + process.stderr.read()
        return [_outside.ask(process.pid, question) for question in questions]


def test_a_dump_follows_what_is_awaited(tmp_path):
    main = """
        def main():
            start(outer, 1)
            start(anonymous, 1)
            until_told()
    """
    (text,) = asked(tmp_path, main, "dump")
    found = re.findall(r"^task (.*) \[(.*)\]:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert [state for _, state, _ in found] == ["await", "await"], text
    for stack, functions, line in zip(
        [stack for _, _, stack in found],
        [["outer", "inner", "sleep"], ["anonymous"]],
        ["await asyncio.sleep(how_long)", "await Thing()"],
        strict=True,
    ):
        assert re.findall(r", in (\w+)$", stack, re.MULTILINE)[: len(functions)] == functions, text
        assert line in stack, text
    # Between the goroutines that wait for them and the threads.
    order = [text.index(part) for part in ("goroutine 1 [", " [await] await_", "\ntask ", "\nthread ")]
    assert order == sorted(order), text


@pytest.mark.parametrize("way", ["__await__ of a coroutine's", "async for", "async with", "anext"])
def test_a_dump_looks_behind_what_stands_between(tmp_path, way):
    main = """
        class Thing:
            def __await__(self):
                return inner(self.begun, 1000).__await__()

        async def stream(begun):
            await inner(begun, 1000)
            yield

        @contextlib.asynccontextmanager
        async def manager(begun):
            await inner(begun, 1000)
            yield

        async def user(begun):
            if WAY == "async for":
                async for _ in stream(begun):
                    pass
            elif WAY == "async with":
                async with manager(begun):
                    pass
            elif WAY == "anext":
                await anext(stream(begun), None)
            else:
                thing = Thing()
                thing.begun = begun
                await thing

        def main():
            start(user, 1)
            until_told()
    """
    (text,) = asked(tmp_path, main.replace("WAY", repr(way)), "dump")
    (stack,) = re.findall(r"^task .* \[await\]:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert "in user" in stack.splitlines()[0]
    assert "await asyncio.sleep(how_long)" in stack, text


def test_tasks_that_cannot_be_told_do_not_keep_the_rest_back(tmp_path):
    main = """
        class Shy(asyncio.Task):
            def get_name(self):
                raise ZeroDivisionError("not mine")

        async def shy(begun):
            Shy(inner(begun, 1000), loop=asyncio.get_running_loop())
            await asyncio.sleep(1000)

        def main():
            start(shy, 1)
            until_told()
    """
    (text,) = asked(tmp_path, main, "dump")
    assert "tasks of asyncio cannot be told: ZeroDivisionError: not mine\n" in text
    assert "goroutine 1 [" in text and "\nthread MainThread:" in text


def test_equal_ones_are_put_together(tmp_path):
    main = """
        def main():
            start(outer, 30)
            until_told()
    """
    grouped, full, plain = asked(tmp_path, main, "group", "full", "dump")
    (names,) = re.findall(r"^30 tasks \[await\]: (.*) and 10 more\n", grouped, re.MULTILINE)
    assert len(set(names.split(", "))) == 20
    assert grouped.count("await inner(begun, 1000)") == 1
    for text in (full, plain):
        assert len(re.findall(r"^task .* \[await\]:$", text, re.MULTILINE)) == 30


def test_many_are_put_together_without_being_told(tmp_path):
    main = """
        def main():
            async def crowd(begun):
                rest = [asyncio.create_task(inner(begun, 1000)) for _ in range(300)]
                await asyncio.gather(*rest)
            go(aio.await_, crowd(begun := makechan(300)))
            for _ in range(300):
                begun.recv()
            until_told()
    """
    (text,) = asked(tmp_path, main, "dump")
    assert re.search(r"^300 tasks \[await\]: .* and 280 more$", text, re.MULTILINE), text
    assert re.search(r"^task .* \[await\]:\n.*, in crowd\n", text, re.MULTILINE), text


def test_a_loop_that_is_stuck(tmp_path):
    main = """
        async def stuck(begun):
            begun.try_send(None), time.sleep(1000)

        def main():
            _stacks._ANSWER = 0.1
            begun = makechan(1)
            go(aio.await_, stuck(begun))
            begun.recv()
            until_told()
    """
    (text,) = asked(tmp_path, main, "dump")
    if FREE_THREADED:
        assert "\ntasks of asyncio: their loop is busy and does not answer" in text, text
    else:
        assert re.search(
            r"^task .* \[running\]:\n  \(the stack of thread offset-asyncio shows where\)\n", text, re.MULTILINE
        ), text
    thread = text[text.index("\nthread offset-asyncio:") :]
    assert "time.sleep(1000)" in thread, text


def test_without_a_loop_there_are_none(tmp_path):
    main = """
        def main():
            until_told()
    """
    for text in asked(tmp_path, main, "dump", "group", "full"):
        assert "\ntask" not in text


def test_sigquit_shows_them(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        START
        + textwrap.dedent("""
        def main():
            start(outer, 1)
            os.kill(os.getpid(), signal.SIGQUIT)

        run(main)
        """)
    )
    status, _, stderr = run_script(path)
    assert status == 2
    stack = r"^task .* \[await\]:\n(?:  .*\n)*    await asyncio.sleep\(how_long\)\n"
    assert re.search(stack, stderr, re.MULTILINE), stderr


@pytest.mark.parametrize(("path", "name"), [("/a/b?c=1", "GET /a/b"), ("/a%0Atask x", r"'GET /a\ntask x'")])
def test_a_request_is_a_task_by_its_name(tmp_path, path, name):
    main = """
        import socket
        from offset.asgi import serve

        async def app(scope, receive, send):
            if scope["type"] == "http":
                asyncio.get_running_loop().call_soon(lambda: print("ready", flush=True))
                await asyncio.sleep(1000)

        def ready(address):
            host, port = address.split(":")
            global client
            client = socket.create_connection((host, int(port)))
            client.sendall(b"GET PATH HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")

        def main():
            serve(app, "127.0.0.1:0", ready)
    """
    (text,) = asked(tmp_path, main.replace("PATH", path.replace(" ", "%20")), "dump")
    stack = text[text.index(f"\ntask {name} [await]:\n") :]
    assert re.search(r", in app\n    await asyncio.sleep\(1000\)\n", stack), text
