"""Fixtures and options of the test suite; every test runs under the leak check below.

Invariants that the leak check holds each test to, after a garbage collection:

* every goroutine started during the test has ended;
* no Python thread and no file descriptor is left, and no OS thread beyond the machines that the
  runtime keeps for a while;
* no object of offset's types (channels, cases, handles, timers, locks, ...) is left.

The session warms the runtime up first, so that what it creates once and keeps (its monitor, its
poller, its threads) is not taken for a leak. Between files all that is there is frozen: collections
and counts go through what is newer, or the check of a small test would soon take ten times as long as
the test. A test that leaves something on purpose says so with `@pytest.mark.leaves(...)`, naming
what: "goroutines", "threads", "descriptors", "objects".

Random choices come from the `seed` or `rng` fixture. A failure prints the seed, and
OFFSET_TEST_SEED replays it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

pytest.register_assert_rewrite("helpers", "net_peers", "traps", "libraries", "servers")

import helpers  # noqa: E402
import offset  # noqa: E402
import offset.runtime  # noqa: E402

# Fixtures, for every file.
from hazards import extension  # noqa: E402, F401
from libraries import no_sockets_left  # noqa: E402, F401
from net_peers import kind, start  # noqa: E402, F401
from servers import mariadb_server, postgres_server, redis_server  # noqa: E402, F401
from streams import sizes  # noqa: E402, F401
from traps import make_trap  # noqa: E402, F401

# Seconds in which what a test started may still come to its end.
SETTLE = 10.0

# The runtime's machines and pool threads that may stay, idle, when a test has ended.
IDLE_THREADS = 16

# What Linux calls descriptors that an event loop holds; the runtime may make its own at first need.
EVENT_DESCRIPTORS = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]")

LEFTOVERS = ("goroutines", "threads", "descriptors", "objects")

_failed = pytest.StashKey[bool]()
_seed = pytest.StashKey[int]()


# ---- options and markers ---------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too (also: OFFSET_RUN_SLOW=1)")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores both, and so would the children of the tests that send them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line("markers", "slow: takes minutes or gigabytes; run with --run-slow or -m slow")
    config.addinivalue_line(
        "markers",
        f"leaves(*what): the test leaves these behind on purpose; of {', '.join(LEFTOVERS)}",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--run-slow") or os.environ.get("OFFSET_RUN_SLOW", "0") not in ("", "0")
    if wanted or "slow" in config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="slow: needs --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_report_header(config: pytest.Config) -> list[str]:
    gil = "without the GIL" if helpers.FREE_THREADED else "with the GIL"
    return [f"offset {offset.__version__} on Python {sys.version.split()[0]}, {gil}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
        if _seed in item.stash:
            report.sections.append(("seed", f"replay with OFFSET_TEST_SEED={item.stash[_seed]}"))
    return report


# ---- failures ---------------------------------------------------------------------------------


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, BaseException]]]:
    """The (goroutine name, exception) pairs handed to a replaced `offset.excepthook`."""
    seen: list[tuple[str, BaseException]] = []
    monkeypatch.setattr(offset, "excepthook", lambda goroutine, error: seen.append((goroutine.name, error)))
    yield seen
    seen.clear()


@pytest.fixture
def server_reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What HTTP servers report, instead of on stderr."""
    seen: list[str] = []
    monkeypatch.setattr("offset._http._server.report", seen.append)
    return seen


# ---- randomness ------------------------------------------------------------------------------


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number to seed random choices with; printed when the test fails."""
    text = os.environ.get("OFFSET_TEST_SEED", "")
    value = int(text) if text else random.SystemRandom().getrandbits(32)
    request.node.stash[_seed] = value
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A random generator made from `seed`."""
    return random.Random(seed)


# ---- the leak check --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def warm_runtime() -> None:
    """Make the runtime create all that it creates once."""

    def main() -> None:
        channel = offset.makechan()
        goroutine = offset.go(channel.send, 1)
        foreign = helpers.Thread(channel.recv)
        offset.sleep(0.001)
        with_timeout = offset.makechan()
        with contextlib.suppress(TimeoutError):
            with_timeout.recv(timeout=0.001)
        foreign.result()
        assert goroutine.join(timeout=helpers.PATIENCE)

    offset.run(main)
    offset.syscall.blocking(int)


@pytest.fixture(scope="module", autouse=True)
def settled(warm_runtime: None) -> None:
    """What earlier files have imported and kept stays: the leak check of each test would go through it twice."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, settled: None) -> Iterator[None]:
    """Fail a test that passed but left something behind; see the head of this file."""
    allowed: set[str] = set()
    for marker in request.node.iter_markers("leaves"):
        assert set(marker.args) <= set(LEFTOVERS), f"unknown leftover in {marker}"
        allowed.update(marker.args)
    before = Inventory()
    yield
    if request.node.stash.get(_failed, False):
        # The traceback keeps the test's objects; only see to it that the next test starts clean.
        end_goroutines(before)
        return
    # Values of fixtures live until pytest lets go of them, after this check.
    held = list((getattr(request.node, "funcargs", None) or {}).values())
    deadline = time.monotonic() + SETTLE
    while left := before.leftovers(allowed, held):
        if helpers.FREE_THREADED:
            # Frames may hold what they have loaded until a collection.
            gc.collect()
        if time.monotonic() > deadline:
            end_goroutines(before)
            pytest.fail("the test left behind:\n" + "\n".join(left), pytrace=False)
        time.sleep(0.005)


class Inventory:
    """What there is at one moment, to be compared with what there is later."""

    def __init__(self) -> None:
        # The check of the test before has collected already; twice a test would cost more than most tests.
        self.goroutines = {goroutine.id for goroutine in offset.runtime.goroutines()}
        self.threads = set(python_threads())
        self.thread_count = helpers.os_thread_count()
        self.descriptors = helpers.open_descriptors()
        self.objects = helpers.live_objects("offset.")

    def leftovers(self, allowed: set[str], held: list[object]) -> list[str]:
        """A line for each thing that is there now and was not then, except the kinds `allowed`."""
        left: list[str] = []
        if "goroutines" not in allowed:
            left += [f"goroutine {describe(goroutine)}" for goroutine in self.new_goroutines()]
        if "threads" not in allowed:
            left += [f"thread {thread.name}" for thread in set(python_threads()) - self.threads]
            count = helpers.os_thread_count()
            if count > self.thread_count + IDLE_THREADS:
                left.append(f"OS threads: {self.thread_count} -> {count}")
        if "descriptors" not in allowed:
            for number, target in helpers.open_descriptors().items():
                if self.descriptors.get(number) != target and target not in EVENT_DESCRIPTORS:
                    left.append(f"descriptor {number}: {target}")
        if "objects" not in allowed and not left:
            gc.collect()
            kept = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in held)
            grown = helpers.live_objects("offset.") - self.objects - kept
            left += [f"{count} x {name}" for name, count in grown.items()]
        return left

    def new_goroutines(self) -> list[Any]:
        """The live goroutines that were not there then."""
        return [each for each in offset.runtime.goroutines() if each.id not in self.goroutines]


def python_threads() -> list[threading.Thread]:
    """The threads that somebody started; not the stand-ins that `threading` makes for others."""
    return [each for each in threading.enumerate() if type(each).__name__ != "_DummyThread"]


def describe(goroutine: Any) -> str:
    """A goroutine in the words of a deadlock report."""
    return f"{goroutine.id} [{goroutine.wait_reason or goroutine.status}]: {goroutine.name}"


def end_goroutines(before: Inventory) -> None:
    """Cancel what a failed test left, so that it does not disturb the next one."""
    for goroutine in before.new_goroutines():
        goroutine.cancel()
    deadline = time.monotonic() + SETTLE
    while before.new_goroutines() and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.fixture
def loop_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cancelled in a loop of offset's may take as long to end as the machine needs."""
    monkeypatch.setattr("offset._exit.GRACE", helpers.PATIENCE)
