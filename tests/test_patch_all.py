"""`offset.patch.patch_all`: whole programs on the proxies, each in a process of its own.

Invariants: what others get from a patched module is the proxy's; the module's own code, and offset's, go on with the
originals; outside goroutines everything does what it did; undoing leaves no trace.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import offset
import pytest
from helpers import run_script
from offset import patch
from offset.patch import _names

# What the programs have in common.
PRELUDE = """
import os, sys, threading, time
import offset
from offset import go, patch, run

def threads():
    return len(os.listdir("/proc/self/task"))

def states(names):
    return {name: {key: id(getattr(sys.modules[name], key)) for key in dir(sys.modules[name])} for name in names}
"""


def output(program, *args, **kwargs):
    """Run a program in which `patch_all` is to be called, and give what it printed."""
    status, stdout, stderr = run_script(PRELUDE + textwrap.dedent(program), *args, **kwargs)
    assert status == 0, stderr
    assert stderr == ""
    return stdout


# ---- what is exchanged -----------------------------------------------------------------------


def test_names_are_the_proxies_and_come_back():
    program = """
    import queue, select, selectors, socket, socketserver, ssl, subprocess
    import concurrent.futures, concurrent.futures.thread, http.client, http.server, urllib.request
    from offset.patch import _names
    from offset.syscall import _rebind

    names = [name for name in _names.MODULES]
    for name in names:
        __import__(name)
    before = states(names)
    inside = {name: dict(vars(sys.modules[name])) for name in names}
    kinds = {name: type(sys.modules[name]) for name in names}
    with patch.patch_all() as patched:
        for name, attribute in [
            ("socket", "socket"), ("socket", "create_connection"), ("ssl", "SSLContext"), ("ssl", "SSLSocket"),
            ("select", "poll"), ("selectors", "DefaultSelector"), ("time", "sleep"), ("os", "read"), ("os", "waitpid"),
            ("subprocess", "Popen"), ("subprocess", "run"), ("queue", "Queue"), ("queue", "SimpleQueue"),
            ("threading", "Lock"), ("threading", "RLock"), ("threading", "Thread"), ("threading", "current_thread"),
            ("concurrent.futures", "ThreadPoolExecutor"), ("concurrent.futures", "Future"),
            ("concurrent.futures", "ProcessPoolExecutor"), ("http.client", "HTTPConnection"),
            ("http.server", "ThreadingHTTPServer"), ("urllib.request", "urlopen"), ("socketserver", "TCPServer"),
        ]:
            value = getattr(sys.modules[name], attribute)
            assert value is getattr(_rebind.proxy(name), attribute), (name, attribute)
            assert id(value) != before[name][attribute], (name, attribute)
        # What does nothing else stays.
        assert id(os.makedirs) == before["os"]["makedirs"]
        assert id(os.PathLike) == before["os"]["PathLike"]
        assert id(queue.Empty) == before["queue"]["Empty"]
        # The modules' own code means what it meant.
        for name in names:
            assert all(vars(sys.modules[name])[key] is value for key, value in inside[name].items()), name
        assert patched.replaced == patch.report()
        assert ("time", "sleep", "offset.syscall.time.sleep") in patch.report()
        assert patched.stats()["names"] == len(patched.replaced) > 100
    assert states(names) == before
    assert {name: type(sys.modules[name]) for name in names} == kinds
    assert patch.report() == patched.replaced == patch.leftovers() == []
    # Nor is anything left in offset.
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "offset":
            assert not any(type(value).__name__ == "View" for value in vars(module).values()), name
    patched.undo()
    print("ok")
    """
    assert output(program) == "ok\n"


def test_code_that_was_executed_often():
    # The interpreter has learnt where it finds a name by then.
    program = """
    import socket

    def found():
        return {time.sleep for _ in range(5000)} | {socket.socket for _ in range(5000)}

    before = found()
    for _ in range(3):
        with patch.patch_all():
            inside = found()
            assert len(inside) == 2 and not inside & before
        assert found() == before
    with patch.patch_all():
        try:
            socket.nothing
        except AttributeError as error:
            print(error)
    """
    assert output(program) == "module 'socket' has no attribute 'nothing'\n"


def test_only_what_is_asked_for():
    program = """
    import queue, select, selectors, socket
    first = patch.patch_all(**{name: name == "select" for name in
        "socket ssl select time os subprocess queue threading futures socketserver http urllib signal".split()})
    assert {each.module for each in first.replaced} == {"select", "selectors"}
    second = patch.patch_all(socket=False)
    assert not {"select", "selectors", "socket"} & {each.module for each in second.replaced}
    third = patch.patch_all()
    assert {each.module for each in third.replaced} == {"socket"}
    assert patch.patch_all().replaced == []
    for one in (second, first, third):
        modules = {each.module for each in one.replaced}
        one.undo()
        assert not any(each.module in modules for each in patch.report())
    with patch.patch_all() as outer:
        with patch.patch_all() as inner:
            pass
        assert time.sleep.__module__ == "offset.syscall.time"
    print(type(time) is type(sys), patch.report())
    """
    assert output(program) == "True []\n"


def test_names_that_modules_took_before(tmp_path):
    (tmp_path / "library.py").write_text(
        textwrap.dedent(
            """
            import threading
            import time
            from time import sleep
            from threading import Lock, Thread
            from queue import *
            from socket import socket as real_socket

            real_sleep = time.sleep

            class Worker(Thread):
                pause = staticmethod(time.sleep)

                def wait(self, sleep=time.sleep, *, lock=threading.Lock):
                    pass

            def later(sleep=time.sleep):
                pass
            """
        ),
        encoding="utf-8",
    )
    program = """
    sys.path.insert(0, sys.argv[1])
    import library
    before = {name: id(value) for name, value in vars(library).items()}
    with patch.patch_all():
        assert library.sleep is time.sleep and library.Lock is threading.Lock and library.Thread is threading.Thread
        assert library.Queue is sys.modules["queue"].Queue
        assert id(library.real_sleep) == before["real_sleep"]
        assert ("library", "sleep", "offset.syscall.time.sleep") in patch.report()
        for leftover in sorted(patch.leftovers()):
            print(*leftover, sep=", ")
        library.Lock = None
    # What somebody else has set meanwhile stays.
    assert library.Lock is None
    del before["Lock"], library.Lock
    assert before == {name: id(value) for name, value in vars(library).items()}
    """
    assert output(program, tmp_path).splitlines() == [
        "library, name real_sleep, time.sleep",
        "library, name real_socket, socket.socket",
        "library.Worker, attribute pause, time.sleep",
        "library.Worker, base, threading.Thread",
        "library.Worker.wait, default, time.sleep",
        "library.Worker.wait, default of lock, threading.Lock",
        "library.later, default, time.sleep",
    ]


def test_who_sets_a_name_means_everybody():
    program = """
    import ssl, socket, urllib.request
    from unittest import mock
    from offset.syscall import socket as proxy

    original = vars(socket)["getaddrinfo"]
    with patch.patch_all():
        with mock.patch("socket.getaddrinfo", side_effect=OSError("mocked")):
            for module in (socket, proxy):
                try:
                    module.create_connection(("localhost", 1))
                except OSError as error:
                    assert str(error) == "mocked"
                else:
                    raise AssertionError
        assert socket.getaddrinfo is proxy.getaddrinfo is not original
        assert vars(socket)["getaddrinfo"] is original
        was = socket.getaddrinfo
        socket.getaddrinfo = len
        assert vars(proxy)["getaddrinfo"] is socket.getaddrinfo is len
        socket.getaddrinfo = was
        assert proxy.getaddrinfo is was
        del socket.getaddrinfo
        for module in (socket, proxy):
            assert not hasattr(module, "getaddrinfo")
        socket.getaddrinfo = was
        # A hook that everybody knows.
        seen = []
        threading.excepthook = lambda args: seen.append(args.exc_type)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        assert seen == [ZeroDivisionError]
        ssl._create_default_https_context = len
    assert socket.getaddrinfo is original
    assert proxy.getaddrinfo is was
    # It is not undone, as it was not done by us.
    assert ssl._create_default_https_context is len
    print("ok")
    """
    assert output(program) == "ok\n"


def test_what_others_have_put_there_before_stays():
    program = """
    import socket
    from offset.syscall import socket as proxy

    was = vars(proxy)["gethostbyname"]
    socket.gethostbyname = lambda name: "fake"
    with patch.patch_all():
        assert socket.gethostbyname("x") == proxy.gethostbyname("x") == "fake"
        assert not any(each.name == "gethostbyname" for each in patch.report())
    assert socket.gethostbyname("x") == "fake"
    assert proxy.gethostbyname is was
    print("ok")
    """
    assert output(program) == "ok\n"


# ---- what is in the way ----------------------------------------------------------------------


def refusal(program, *args, **kwargs):
    """Give what `patch_all` says when it refuses, having done nothing."""
    body = f"""
    def refused():
        try:
            patch.patch_all()
        except RuntimeError as error:
            assert patch.report() == [] and type(time) is type(sys)
            print(error)
        else:
            raise AssertionError("it was not refused")
    {textwrap.indent(textwrap.dedent(program), "    ").strip()}
    patch.patch_all().undo()
    """
    return output(body, *args, **kwargs)


def test_a_loop_that_runs_is_in_the_way():
    program = """
    import asyncio
    async def main():
        refused()
    asyncio.run(main())
    """
    assert "an asyncio event loop runs in this thread" in refusal(program)
    program = """
    import asyncio
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    refused()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    """
    assert "an asyncio event loop runs in thread" in refusal(program)


def test_a_lock_that_is_held_is_in_the_way():
    program = """
    import types
    library = sys.modules["library"] = types.ModuleType("library")
    library.lock = threading.Lock()
    library.again = threading.RLock()
    library.condition = threading.Condition()
    class Class:
        lock = threading.Lock()
    Class.__module__ = "library"
    library.Class = Class
    with library.lock:
        refused()
    with library.condition:
        refused()
    with Class.lock:
        refused()
    with library.again:
        refused()
    def hold():
        with library.again:
            held.set()
            done.wait()
    held, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    refused()
    done.set()
    thread.join()
    """
    lines = refusal(program).splitlines()
    assert [line.split("now: ")[1].split(" is held")[0] for line in lines] == [
        "library.lock",
        "library.condition",
        "library.Class.lock",
        "library.again",
        "library.again",
    ]


def test_others_that_patch_are_in_the_way():
    program = """
    import types
    for name, fields in [("gevent.monkey", {"saved": {"time": {}}}), ("eventlet.patcher", {"already_patched": {1: 1}})]:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(fields)
        refused()
        del sys.modules[name]
    real = sys.modules["time"]
    sys.modules["time"] = types.ModuleType("time")
    refused()
    sys.modules["time"] = real
    """
    one, two, three = refusal(program).splitlines()
    assert "gevent has patched" in one
    assert "eventlet has patched" in two
    assert "sys.modules['time'] is not" in three


def test_an_unknown_module_is_a_mistake():
    with pytest.raises(TypeError, match="sockets"):
        patch.patch_all(sockets=True)


# ---- offset itself ---------------------------------------------------------------------------


def test_offset_imports_no_patched_module_inside_a_function():
    # It would get the proxy there, and call itself.
    wrong = []
    package = Path(offset.__file__).parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module]
                wrong += [f"{path.name}:{node.lineno} {name}" for name in names if name in _names.MODULES]
    assert not wrong


def test_goroutines_channels_and_nets_of_a_patched_program():
    program = """
    from offset import makechan, net, io, sync, syscall

    def main():
        with net.listen("tcp", "127.0.0.1:0") as listener:
            def serve():
                for conn in listener:
                    go(io.copy, conn, conn)
            go(serve)
            with net.dial("tcp", listener.addr) as conn:
                conn.write(b"hello")
                assert conn.read_full(5) == b"hello"
        with net.listen_packet("udp", "127.0.0.1:0") as one, net.listen_packet("udp", "127.0.0.1:0") as two:
            one.write_to(b"packet", two.addr)
            assert two.read_from(100) == (b"packet", one.addr)
        assert net.lookup_host("localhost")
        assert syscall.blocking(time.sleep, 0) is None
        try:
            offset.makechan().recv(timeout=0.001)
        except TimeoutError:
            print(offset.runtime.stack().splitlines()[0].partition(" [")[0])

    with patch.patch_all():
        run(main)
        try:
            run(lambda: offset.nilchan.recv())
        except offset.DeadlockError as error:
            assert "goroutine" in str(error)
    run(main)
    """
    for line in output(program).splitlines():
        assert re.fullmatch(r"goroutine \d+", line)
