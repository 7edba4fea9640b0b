"""What `offset doctor` knows of libraries: those that docs/libraries.md is about, and those that wait or compute in C.

Invariant: a library is "tested" only if docs/libraries.md has it; a test compares.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_AWAIT = "its coroutines run on a loop of offset's: aio.await_(...)"
_COPY = 'a copy parks only the goroutine: patch.patched_import("{}")'

# By the name of the distribution, in the form that the package index compares.
TESTED = {
    "aiohttp": _AWAIT,
    "dnspython": _COPY.format("dns.resolver"),
    "httpx": _AWAIT,
    "paramiko": _COPY.format("paramiko"),
    "pg8000": _COPY.format("pg8000"),
    "psycopg": "import it from offset.syscall: its waits park only the goroutine",
    "psycopg2": "give it a wait callback that parks (docs/libraries.md has its five lines)",
    "psycopg2-binary": "give it a wait callback that parks (docs/libraries.md has its five lines)",
    "pymysql": _COPY.format("pymysql"),
    "redis": _COPY.format("redis"),
    "requests": _COPY.format("requests"),
    "urllib3": _COPY.format("urllib3"),
    "websockets": _COPY.format("websockets.sync.client"),
}

# They wait for others inside a library in C, which no copy reaches.
WAITS_IN_C = {
    "confluent-kafka",
    "cx-oracle",
    "grpcio",
    "mysqlclient",
    "pycurl",
    "pymssql",
    "pyodbc",
    "python-ldap",
    "pyzmq",
}

COMPUTES = {"duckdb", "numpy", "opencv-python", "pandas", "polars", "scikit-learn", "scipy", "tensorflow", "torch"}

PATCHES = {"eventlet", "gevent"}

KINDS = {
    "tested": "works as it is, and better so",
    "waits": "waits in C, where only a thread can wait for it: syscall.blocking(fn, ...) (not tested)",
    "computes": "computes in C: what takes long belongs into syscall.blocking(fn, ...) (not tested)",
    "patches": "patches the standard library in its own way: a process can be patched by one of the two only",
    "extension": "has extension modules; if a call waits or takes long in them: syscall.blocking(fn, ...) (not tested)",
}
"""By kind, what is said of all of it."""


class Found(NamedTuple):
    """A library that is installed here, and what it needs."""

    name: str
    version: str
    kind: str
    advice: str


def installed() -> list[Found]:
    """Look through what is installed, by name; what is pure Python and not known is left out."""
    found = {each.name: each for each in _look()}
    return sorted(found.values())


def _look() -> Iterator[Found]:
    for distribution in importlib.metadata.distributions():
        # What is broken has no name.
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        kind = _kind(name, distribution) if name and name != "offset" else None
        if kind is not None:
            yield Found(name, distribution.version, kind, TESTED.get(name, KINDS[kind]))


def _kind(name: str, distribution: importlib.metadata.Distribution) -> str | None:
    if name in TESTED:
        return "tested"
    for kind, names in (("waits", WAITS_IN_C), ("computes", COMPUTES), ("patches", PATCHES)):
        if name in names:
            return kind
    files = distribution.files or []
    return "extension" if any(file.suffix == ".so" for file in files) else None
