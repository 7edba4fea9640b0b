"""What the tests of libraries share: copies of them, goroutines that are at it all at once, and what is left behind.

Invariants: a copy is made once a session, before the leak check of a test looks round. That operations go on at the
same time is seen by their server, which lets none end before all have come; no clock is looked at.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import helpers
import offset
import pytest
from net_peers import Call
from offset import patch
from offset.syscall import _rebind

# What a proxy makes when it is imported is no test's.
for _name in _rebind.PROXIES:
    _rebind.proxy(_name)

needs_rescue = pytest.mark.skipif(
    helpers.FREE_THREADED,
    reason="the calls block OS threads, and started goroutines never move on a free-threaded build",
)


def library(name: str) -> ModuleType:
    """Import a library, or skip the test if it cannot be had for this interpreter."""
    return pytest.importorskip(name, exc_type=ImportError)


@functools.cache
def copies(*names: str) -> tuple[ModuleType, ...]:
    """Copies of libraries over the proxies, the same for all tests."""
    for name in names:
        library(name)
    return patch.patched(*names)


def original(*names: str) -> tuple[ModuleType, ...]:
    """The libraries as they are."""
    return tuple(library(name) for name in names)


def calls(count: int, function: Callable[..., Any], *args: Any) -> list[Call]:
    """Start `function(number, *args)` in so many goroutines."""
    return [Call(function, number, *args) for number in range(count)]


def results(begun: list[Call]) -> list[Any]:
    """Wait for all; give what they returned, or raise what the first that failed raised."""
    return [call.result() for call in begun]


def in_time(function: Callable[..., Any], too_late: type[BaseException] | tuple[type[BaseException], ...]) -> Any:
    """Call something that has little time until it is done within it, which a busy machine may not manage at once."""
    while True:
        with contextlib.suppress(too_late):
            return function()


def cancel(call: Call) -> None:
    """Cancel a goroutine and wait for its end."""
    call.goroutine.cancel()
    with pytest.raises(offset.GoroutineExit):
        call.result()


class Threads:
    """How many OS threads there are more than before."""

    def __init__(self) -> None:
        self._before = helpers.os_thread_count()

    def more(self) -> int:
        """So many more."""
        return helpers.os_thread_count() - self._before


def few(threads: Threads, at_work: int) -> None:
    """See that those who wait do so without a thread each. Threads that are idle go after a while."""
    helpers.wait_until(lambda: threads.more() < at_work / 3, f"few OS threads for {at_work} that wait")


def sockets() -> int:
    """How many sockets this process has open."""
    return sum(target.startswith("socket:") for target in helpers.open_descriptors().values())


def wait_closed(before: int) -> None:
    """Wait until there are no more sockets than before. An exception's traceback may hold some in a cycle."""

    def closed() -> bool:
        helpers.collect()
        return sockets() <= before

    helpers.wait_until(closed, "all sockets are closed")


@pytest.fixture
def no_sockets_left() -> Iterator[None]:
    """The test closes as many sockets as it opens."""
    before = sockets()
    yield
    wait_closed(before)


def environment(server: Any) -> dict[str, str]:
    """The environment of a program that talks to a server."""
    return {**os.environ, **server.environment}
