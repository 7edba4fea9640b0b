"""What is installed: the files, the one version, and an import that leaves the interpreter as it was."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import json
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import helpers
import offset
from offset import _runtime

ROOT = Path(__file__).resolve().parent.parent


def read_toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def test_py_typed_is_shipped() -> None:
    assert importlib.resources.files(offset).joinpath("py.typed").is_file()


def test_the_live_page_is_shipped() -> None:
    assert importlib.resources.files("offset.debug").joinpath("page.html").is_file()


def test_every_module_is_typed_by_a_stub_or_in_its_source() -> None:
    package = Path(offset.__file__).parent
    stubs = {path.with_suffix("").relative_to(package).as_posix() for path in package.rglob("*.pyi")}
    packages = {"__init__", "runtime/__init__", "sync/__init__", "syscall/__init__"}
    assert packages | {"_runtime", "time", "sync/atomic"} <= stubs


def test_the_version_is_one() -> None:
    version = read_toml("Cargo.toml")["workspace"]["package"]["version"]
    project = read_toml("pyproject.toml")["project"]
    assert offset.__version__ == version
    assert importlib.metadata.version("offset") == version
    # pyproject.toml has no version of its own: the build takes the crate's.
    assert "version" in project["dynamic"]
    assert "version" not in project
    for crate in ("offset-runtime", "offset-python"):
        assert read_toml(f"crates/{crate}/Cargo.toml")["package"]["version"] == {"workspace": True}


def test_the_metadata_says_what_is_needed() -> None:
    metadata = importlib.metadata.metadata("offset")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    needed = [each for each in importlib.metadata.requires("offset") or () if "extra ==" not in each]
    assert not needed, "the package needs nothing at run time"
    classifier = f"Programming Language :: Python :: 3.{sys.version_info.minor}"
    assert classifier in metadata.get_all("Classifier", [])


def test_the_extension_is_the_one_of_this_interpreter() -> None:
    import importlib.machinery

    path = Path(_runtime.__file__)
    assert path.parent == Path(offset.__file__).parent
    assert path.name == "_runtime" + importlib.machinery.EXTENSION_SUFFIXES[0]


WATCHED = """
    import atexit, gc, json, os, signal, sys, threading, time, socket, select, selectors, queue, subprocess, ssl
    import asyncio, logging, contextvars, sqlite3, faulthandler

    def threads():
        return sorted(os.listdir("/proc/self/task"))

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def handlers():
        return {number: repr(signal.getsignal(number)) for number in signal.valid_signals()}

    def caught():
        # The kernel's view: handlers installed past Python are seen too.
        with open("/proc/self/status") as status:
            return [line for line in status if line.startswith(("SigCgt", "SigIgn", "SigBlk"))]

    def hooks():
        names = ("excepthook", "unraisablehook", "displayhook", "breakpointhook")
        found = [id(getattr(sys, name)) for name in names]
        return found + [id(threading.excepthook), sys.getswitchinterval(), sys.getrecursionlimit(), len(gc.callbacks)]

    def attributes():
        return {
            name: {key: id(value) for key, value in list(vars(module).items())}
            for name, module in list(sys.modules.items())
            if not name.startswith("offset") and hasattr(module, "__dict__") and name != "__main__"
        }

    def identity():
        return threading.get_ident(), threading.main_thread().ident, threading.active_count()

    def look():
        return {
            "threads": threads(), "descriptors": descriptors(), "handlers": handlers(), "caught": caught(),
            "hooks": hooks(), "identity": identity(), "callbacks": atexit._ncallbacks(),
        }

    # What the import system itself keeps about modules that are being imported.
    BOOKKEEPING = {"sys", "_frozen_importlib", "_frozen_importlib_external", "importlib._bootstrap"}

    before, modules = look(), attributes()
    import offset, offset.time, offset.sync, offset.sync.atomic, offset.runtime, offset.syscall
    channel = offset.makechan(1)
    channel.send(1)
    after, later = look(), attributes()
    changed = sorted(name for name in modules if name not in BOOKKEEPING and modules[name] != later.get(name))
    print(json.dumps({
        "differences": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
        "changed": changed,
        "started": offset._runtime.started(),
    }))
"""


def test_the_import_starts_no_thread_and_changes_nothing() -> None:
    status, stdout, stderr = helpers.run_script(textwrap.dedent(WATCHED))
    assert status == 0, stderr
    assert json.loads(stdout) == {"differences": {}, "changed": [], "started": False}


def test_the_watch_notices_what_go_starts() -> None:
    """The test above would see a thread: after the first `go` there is one."""
    code = textwrap.dedent(WATCHED).replace("channel.send(1)", "offset.go(channel.send, 1).join()")
    status, stdout, stderr = helpers.run_script(code)
    assert status == 0, stderr
    seen = json.loads(stdout)
    assert seen["started"] is True
    assert "threads" in seen["differences"]
