"""`offset.patch`: copies of libraries that are bound to the proxies.

Invariants: the original, `sys.modules` and the standard library stay as they were; a copy gets proxies however it
imports them; two copies have nothing in common but what is not copied.
"""

from __future__ import annotations

import dataclasses
import http.server
import importlib.machinery
import json
import socket
import sys
import textwrap
import typing

import pytest
from helpers import run_script
from offset import patch
from offset.syscall import _rebind
from offset.syscall import socket as proxied_socket
from offset.syscall import time as proxied_time
from offset.syscall.http import server

# What a proxy makes when it is imported is no test's.
for _name in _rebind.PROXIES:
    _rebind.proxy(_name)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Give a function that writes a module of a library that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lib", "other")]:
        del sys.modules[name]


def test_each_way_to_import(library):
    library(
        "lib/__init__.py",
        """
        import socket, time as clock
        import os.path
        import http.client
        from socket import create_connection, socket as Socket
        from urllib import request
        from . import inner
        from .inner import deep
        from lib.inner.deep import found

        def later():
            import socket
            import concurrent.futures
            from http import client
            return socket, concurrent.futures, client
        """,
    )
    library("lib/inner/__init__.py", "from ..inner.deep import *\n__all__ = ['deep']\n")
    library("lib/inner/deep.py", "import select\nfound = select.select\n")
    lib = patch.patched_import("lib")
    assert lib.socket is proxied_socket
    assert lib.clock is proxied_time
    assert lib.create_connection is proxied_socket.create_connection
    assert lib.Socket is proxied_socket.socket
    assert lib.os.__name__ == "offset.syscall.os"
    assert lib.os.path is importlib.import_module("os.path")
    assert lib.http.client.__name__ == "offset.syscall.http.client"
    assert lib.request.__name__ == "offset.syscall.urllib.request"
    assert lib.found.__module__ == "offset.syscall.select"
    assert lib.inner.deep is lib.deep
    assert [module.__name__ for module in lib.later()] == [
        "offset.syscall.socket",
        "offset.syscall.concurrent.futures",
        "offset.syscall.http.client",
    ]


def test_the_original_is_left_alone(library):
    library("lib/__init__.py", "import socket\nfrom lib import part\n")
    library("lib/part.py", "class Kind: pass\n")
    before = set(sys.modules)
    copy = patch.patched_import("lib")
    assert {name for name in sys.modules if name not in before and name.startswith("lib")} == set()
    original = importlib.import_module("lib")
    assert original.socket is socket
    assert original is not copy
    assert original.part.Kind is not copy.part.Kind
    again = patch.patched_import("lib")
    assert again.part is not copy.part


def test_libraries_that_import_each_other(library):
    library("lib/__init__.py", "import other\nvalue = 1\nfrom other import value as theirs\n")
    library("other.py", "import lib\nvalue = 2\ndef ours(): return lib.value\n")
    lib, other = patch.patched("lib", "other")
    assert lib.other is other
    assert other.lib is lib
    assert (lib.theirs, other.ours()) == (2, 1)


def test_what_is_shared(library):
    library("lib.py", "import json, logging, _socket, collections.abc\n")
    lib = patch.patched_import("lib")
    assert lib.json is json
    assert lib.logging is importlib.import_module("logging")
    assert lib._socket is importlib.import_module("_socket")


def test_a_package_with_extension_modules_is_shared_unless_it_is_named(library):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[-1]
    library("other/__init__.py", "import socket\nimport other.inner\n")
    library("other/inner.py", "import socket\n")
    library(f"other/deep/speedups{suffix}", "")
    library("lib.py", "import other.inner\nfrom other.inner import socket\n")
    lib = patch.patched_import("lib")
    assert lib.other is importlib.import_module("other")
    assert lib.socket is lib.other.inner.socket is socket
    lib, other = patch.patched("lib", "other")
    assert lib.other is other
    assert lib.socket is other.inner.socket is proxied_socket
    # Any module of it will do.
    lib, inner = patch.patched("lib", "other.inner")
    assert lib.other.inner is inner
    assert inner.socket is proxied_socket


def test_a_module_inside_a_package_of_the_standard_library():
    client = patch.patched_import("xmlrpc.client")
    assert client is not importlib.import_module("xmlrpc.client")
    assert client.http.client is _rebind.proxy("http.client")
    # Its package is a proxy.
    robots = patch.patched_import("urllib.robotparser")
    assert robots is not importlib.import_module("urllib.robotparser")
    assert robots.urllib.request is _rebind.proxy("urllib.request")


def test_a_copy_is_found_by_its_name(library):
    library(
        "lib.py",
        """
        from __future__ import annotations
        import dataclasses, sys, typing
        from dataclasses import dataclass, field

        @dataclass
        class Point:
            x: int
            kind: typing.ClassVar[Kind] = None
            only: dataclasses.KW_ONLY
            y: int = field(default=2)
            given: dataclasses.InitVar[int] = 0

        class Kind: pass

        me = sys.modules[__name__]
        hints = typing.get_type_hints(Point)
        sys.modules["other"] = "another"
        import other
        """,
    )
    lib = patch.patched_import("lib")
    assert lib.me is lib
    assert lib.other == "another"
    assert "lib" not in sys.modules
    assert "other" not in sys.modules
    assert [one.name for one in dataclasses.fields(lib.Point)] == ["x", "y"]
    assert lib.Point(1, y=3, given=4) == lib.Point(1, y=3)
    assert lib.hints["kind"] == typing.ClassVar[lib.Kind]
    # The original's names are the original's.
    original = importlib.import_module("lib")
    assert original.hints["kind"] == typing.ClassVar[original.Kind]
    assert original.Kind is not lib.Kind
    del sys.modules["other"]


def test_sys_is_the_interpreters(library):
    library("lib.py", "import sys\nfrom sys import version_info\n")
    lib = patch.patched_import("lib")
    assert lib.sys.version_info is sys.version_info
    assert lib.version_info is sys.version_info
    assert lib.sys.modules["json"] is json
    lib.sys.a_name = 1
    assert sys.a_name == 1
    del lib.sys.a_name
    assert not hasattr(sys, "a_name")
    assert "getrefcount" in dir(lib.sys)


def test_a_module_of_the_standard_library(library):
    simple_server = patch.patched_import("wsgiref.simple_server")
    assert simple_server.HTTPServer is server.HTTPServer
    assert importlib.import_module("wsgiref.simple_server").HTTPServer is http.server.HTTPServer


def test_what_cannot_be_copied(library):
    library("lib/__init__.py", "")
    with pytest.raises(ValueError, match=r"import offset\.syscall\.socket"):
        patch.patched_import("socket")
    with pytest.raises(TypeError, match="not written in Python"):
        patch.patched_import("_socket")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        patch.patched_import("no_such_library")
    with pytest.raises(ModuleNotFoundError, match=r"lib\.missing"):
        patch.patched_import("lib.missing")
    with pytest.raises(TypeError, match="names of modules"):
        patch.patched_import(json)
    with pytest.raises(TypeError, match="at least"):
        patch.patched()


def test_an_error_in_the_library_is_the_users(library):
    library("lib/__init__.py", "from lib.part import nothing\n")
    library("lib/part.py", "")
    with pytest.raises(ImportError, match="nothing"):
        patch.patched_import("lib")
    library("lib/__init__.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        patch.patched_import("lib")
    library("lib/__init__.py", "import lib.part, no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        patch.patched_import("lib")


def test_the_report(library):
    library("lib/__init__.py", "import lib.part\nimport time\n")
    library("lib/part.py", "import queue\n")
    for _ in range(2):
        patch.patched_import("lib")
        for expected in (("lib.part", "queue", "offset.syscall.queue"), ("lib", "time", "offset.syscall.time")):
            assert patch.report().count(expected) == 1
    assert patch.report()[0].proxy.startswith("offset.syscall.")


# ---- libraries of many users -----------------------------------------------------------------

COPIES = """
    import importlib.util, sys
    from offset import patch

    for name in sys.argv[1:]:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            copy = patch.patched_import(name)
            assert copy.__name__ == name
            assert sys.modules.get(name) is not copy
    print(sorted({each.partition(".")[0] for each in sys.modules} & {each.partition(".")[0] for each in sys.argv}))
"""


def test_libraries_are_copied_without_their_originals():
    names = ("redis", "requests", "urllib3", "pymysql", "pg8000.dbapi", "dns.resolver", "xmlrpc.client", "paramiko")
    status, stdout, stderr = run_script(COPIES, *names)
    assert (status, stdout) == (0, "[]\n"), stderr
