"""Imports inside goroutines, and what importing the package itself does: nothing.

The import system keeps a lock a module by thread identity; goroutines must be threads to it.
"""

import importlib
import sys
import textwrap

import offset
import pytest
from helpers import FREE_THREADED, PATIENCE, Thread, main_goroutine, run_script, wait_ended
from offset import go, makechan

# Who waits for the lock of an import in C stops its machine, and with it the goroutine that parked with the lock.
PARKS_WITH_A_PLAIN_LOCK = pytest.mark.skipif(
    FREE_THREADED, reason="without the GIL a plain lock across a park may deadlock: no goroutine can be moved away"
)

# Large modules of the standard library; each pulls in dozens of others.
LARGE = [
    "argparse",
    "asyncio",
    "concurrent.futures",
    "csv",
    "ctypes",
    "dataclasses",
    "decimal",
    "email.mime.text",
    "http.server",
    "inspect",
    "json",
    "logging.config",
    "multiprocessing.pool",
    "pathlib",
    "pickle",
    "pydoc",
    "sqlite3",
    "ssl",
    "tarfile",
    "typing",
    "unittest.mock",
    "urllib.request",
    "xml.dom.minidom",
    "zipfile",
]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules and make them importable; they are forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
            written.append(name)
        importlib.invalidate_caches()

    yield write
    for name in written:
        sys.modules.pop(name, None)


# ---- the package itself ----------------------------------------------------------------------


def test_importing_changes_nothing():
    """No thread, no handler, no hook, no descriptor, no module but ours and the standard library's."""
    ended = run_script(
        """
        import atexit, builtins, gc, os, signal, socket, sys, threading, time

        def state():
            return {
                "threads": len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1,
                "descriptors": len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0,
                "handlers": [signal.getsignal(number) for number in signal.valid_signals()],
                "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
                "exit functions": atexit._ncallbacks(),
                "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.gettrace(),
                          sys.getprofile(), threading.gettrace(), threading.getprofile()),
                "settings": (sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(), gc.isenabled()),
                "meta path": (list(sys.meta_path), list(sys.path_hooks)),
                "functions": [vars(module)[name] for module in (time, threading, socket, os, builtins)
                              for name in ("sleep", "Lock", "RLock", "socket", "fork", "read", "__import__")
                              if name in vars(module)],
                "identity": threading.get_ident() == threading.main_thread().ident,
            }

        before = state()
        import offset
        after = state()
        for name, value in before.items():
            assert after[name] == value, (name, value, after[name])
        print("unchanged")
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "unchanged\n"), ended.stderr


# Ways to import the package, as statements.
WAYS = {
    "submodules first": "import offset.time, offset.sync.atomic, offset.runtime, offset.syscall",
    "in a thread": """
thread = threading.Thread(target=__import__, args=("offset",))
thread.start()
thread.join()
""",
    "twice": """
import offset
for name in list(sys.modules):
    if name.partition(".")[0] == "offset" and name != "offset._runtime":
        del sys.modules[name]
""",
    "reloaded": "import importlib, offset.time; importlib.reload(offset.time)",
    "everything": "from offset import *",
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_import(way):
    ended = run_script(
        f"""
import sys, threading
{WAYS[way]}
import offset
ch = offset.makechan()
offset.go(ch.send, "sent")
print(ch.recv(), offset.run(int))
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "sent 0\n", "")


def test_a_subinterpreter_is_refused_cleanly():
    """The import raises ImportError there; the main interpreter goes on."""
    ended = run_script(
        """
        import sys
        import offset
        offset.run(int)
        try:
            import _interpreters
            make, run = _interpreters.create, _interpreters.exec
        except ImportError:
            import _xxsubinterpreters as interpreters
            make, run = interpreters.create, interpreters.run_string
        code = '''if True:
            import os
            try:
                import offset
            except ImportError:
                os.write(1, b"refused\\\\n")
            else:
                os.write(1, b"accepted\\\\n")
        '''
        for _ in range(2):
            run(make(), code)
        print(offset.run(lambda: "goes on"))
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "refused\nrefused\ngoes on\n"), ended.stderr


# ---- imports in goroutines -------------------------------------------------------------------


# Plain threads that import these at once on 3.15t see half of `email._policybase` about one time in ten, or hang.
IMPORTS_RACE = pytest.mark.skipif(FREE_THREADED, reason="without the GIL CPython's imports race, in plain threads too")


@pytest.mark.parametrize(
    "together",
    [False, pytest.param(True, marks=IMPORTS_RACE)],
    ids=["one after the other", "all at once"],
)
def test_large_packages_are_imported_in_goroutines(together):
    """Each import runs on the stack of a goroutine, from the compiler's recursion to the module's code."""
    ended = run_script(
        f"""
        import sys, offset
        sys.dont_write_bytecode = True
        failed = []
        def load(name):
            try:
                __import__(name)
                assert name in sys.modules
            except BaseException as error:
                failed.append((name, repr(error)))
        def main():
            goroutines = []
            for name in {LARGE!r}:
                goroutines.append(offset.go(load, name))
                if not {together}:
                    goroutines[-1].join()
            for goroutine in goroutines:
                goroutine.join()
        offset.run(main)
        print(failed)
        """,
        timeout=110,
    )
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr


def test_sources_are_compiled_in_goroutines(tmp_path):
    """Without cached bytecode: CPython's own compiler must fit on the stack, whatever the module."""
    ended = run_script(
        f"""
        import sys, offset
        def main():
            for name in {LARGE!r}:
                __import__(name)
            return "compiled"
        print(offset.run(main))
        """,
        env={"PYTHONPYCACHEPREFIX": str(tmp_path)},
        timeout=110,
    )
    assert (ended.returncode, ended.stdout) == (0, "compiled\n"), ended.stderr


@PARKS_WITH_A_PLAIN_LOCK
def test_two_goroutines_import_one_module_whose_body_parks(package):
    """The second waits for the first, as a second thread would, and both get the finished module."""
    package(
        a_parking_module="""
        import offset
        value = "unfinished"
        executed = []
        executed.append(True)
        for _ in range(20):
            offset.sleep(0.001)
        value = "finished"
        """
    )
    values = []

    def load():
        import a_parking_module

        values.append(a_parking_module.value)

    def main():
        wait_ended(*[go(load) for _ in range(5)])

    offset.run(main)
    assert values == ["finished"] * 5
    assert sys.modules["a_parking_module"].executed == [True]


def test_a_module_body_may_wait_for_other_goroutines(package):
    package(
        a_served_module="""
        import offset
        answer = offset.makechan()
        offset.go(answer.send, "served")
        value = answer.recv()
        """
    )

    def main():
        import a_served_module

        return a_served_module.value

    assert offset.run(main) == "served"


@PARKS_WITH_A_PLAIN_LOCK
def test_circular_imports_of_two_goroutines(package):
    """Each holds the lock of one module and wants the other's: Python's deadlock avoidance tells them apart."""
    package(
        left_module="""
        import offset
        offset.sleep(0.01)
        import right_module
        name = "left"
        """,
        right_module="""
        import offset
        offset.sleep(0.01)
        import left_module
        name = "right"
        """,
    )
    names = []

    def load(name):
        names.append(importlib.import_module(name).__name__)

    def main():
        wait_ended(go(load, "left_module"), go(load, "right_module"))
        return sys.modules["left_module"].name, sys.modules["right_module"].name

    assert offset.run(main) == ("left", "right")
    assert sorted(names) == ["left_module", "right_module"]


def test_a_goroutine_and_a_thread_import_one_module(package):
    package(
        a_shared_module="""
        import offset
        offset.sleep(0.02)
        value = "finished"
        """
    )

    def load():
        import a_shared_module

        return a_shared_module.value

    answers = makechan(1)
    goroutine = go(lambda: answers.send(load()))
    thread = Thread(load)
    assert thread.result() == "finished"
    assert answers.recv(timeout=PATIENCE) == "finished"
    wait_ended(goroutine)


@PARKS_WITH_A_PLAIN_LOCK
@main_goroutine
def test_a_failed_import_leaves_the_lock_free(package):
    """Whoever waited for the lock meanwhile gets what a thread would get; nobody is left waiting."""
    package(
        a_broken_module="""
        import offset
        offset.gosched()
        raise ValueError("broken")
        """
    )
    outcomes = []

    def load():
        try:
            importlib.import_module("a_broken_module")
        except ValueError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("a module whose import failed")

    wait_ended(*[go(load) for _ in range(3)])
    assert len(outcomes) == 3
    assert "broken" in outcomes
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module("a_broken_module")


@main_goroutine
def test_a_cancelled_import_leaves_the_lock_free(package):
    package(
        a_blocking_module="""
        import offset
        offset.makechan().recv(timeout=gate[0])
        """
    )
    started = makechan(1)

    def load():
        started.send(True)
        importlib.import_module("a_blocking_module")

    import builtins

    builtins.gate = [3600]
    try:
        goroutine = go(load)
        started.recv(timeout=PATIENCE)
        offset.gosched()
        goroutine.cancel()
        wait_ended(goroutine)
        builtins.gate = [0.001]
        with pytest.raises(TimeoutError):
            importlib.import_module("a_blocking_module")
    finally:
        del builtins.gate


@PARKS_WITH_A_PLAIN_LOCK
def test_imports_beside_a_hog(package):
    """A goroutine that holds an import lock is moved to another machine; it can still release it."""
    package(
        a_moved_module="""
        import time, offset
        for _ in range(5):
            time.sleep(0.02)
            offset.gosched()
        value = "finished"
        """
    )
    stop = []

    def hog():
        while not stop:
            pass

    def load():
        import a_moved_module

        return a_moved_module.value

    def main():
        hogs = [go(hog) for _ in range(2)]
        values = makechan(3)
        loaders = [go(lambda: values.send(load())) for _ in range(3)]
        try:
            wait_ended(*loaders)
        finally:
            stop.append(True)
        wait_ended(*hogs)
        return [values.recv() for _ in loaders]

    assert offset.run(main) == ["finished"] * 3


def test_numpy_works_in_goroutines():
    """A large extension with thread-local state of its own."""
    pytest.importorskip("numpy")
    ended = run_script(
        """
        import offset
        def work(n, ch):
            import numpy
            matrix = numpy.arange(10_000, dtype=float).reshape(100, 100)
            for _ in range(20):
                offset.gosched()
                with numpy.errstate(divide="raise"):
                    offset.gosched()
                    matrix = matrix @ matrix
                    matrix /= numpy.abs(matrix).max()
            ch.send(bool(numpy.isfinite(matrix).all()))
        def main():
            ch = offset.makechan()
            for n in range(4):
                offset.go(work, n, ch)
            return [ch.recv() for _ in range(4)]
        print(offset.run(main))
        """
    )
    assert (ended.returncode, ended.stdout) == (0, f"{[True] * 4}\n"), ended.stderr
