"""The process that runs the tests of one module of CPython, in one of several ways, and reports as they happen.

What it is to do comes as JSON on its standard input; `way` is one of

* `plain`: as the interpreter does it.
* `proxies`: in the main goroutine, with proxies in the place of their originals, for the module and for what it imports
  from `test`, by name or by statement.
* `thread`: as they are, on the main thread, while goroutines run in the same process.
* `goroutine`: as they are, in the main goroutine, while others run.
* `gevent`: as they are; the process was started with everything patched (`python -m gevent.monkey`).

Invariants: the start and the outcome of each test is in the report before anything else happens, so a test that hangs
or ends the process is known. This file imports nothing of offset's at the top, as gevent's interpreter has none.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable, Iterator

# What tests may use: no screen, no gigabytes. Those that look for other machines do without where there are none.
_RESOURCES = ("curses", "decimal", "network", "subprocess", "tzdata")
# What takes its time.
_SLOW = ("cpu", "walltime")


def main() -> None:
    """Do what standard input says."""
    import unittest

    # Whoever started the tests may ignore Ctrl-C, which a child inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = json.loads(sys.stdin.read())
    way: str = told["way"]
    if way == "proxies":
        substitute(told["proxies"])
    support = importlib.import_module("test.support")
    support.verbose = False
    # A mapping, since 3.14.
    support.use_resources = dict.fromkeys(_RESOURCES if told["quick"] else (*_RESOURCES, *_SLOW))
    with Path(told["report"]).open("a", encoding="utf-8", buffering=1) as file:
        try:
            tests = list(chosen(told["module"], told["done"], told["chosen"]))
        except unittest.SkipTest as skipped:
            tests = []
            file.write(json.dumps({"test": told["module"], "outcome": "skipped", "detail": str(skipped)}) + "\n")

        def run() -> None:
            suite(tests).run(result_class()(file))

        RUN_IN[way](run)
        for failure in beside:
            # Nothing that the plain run has.
            file.write(
                json.dumps({"test": f"{told['module']}, beside it", "outcome": "failed", "detail": failure}) + "\n"
            )
        file.write(json.dumps({"end": True}) + "\n")
    sys.stdout.flush()
    # What a test left running does not matter any more.
    os._exit(0)


def chosen(module: str, done: list[str], patterns: list[str]) -> Iterator[unittest.TestCase]:
    """The tests of a module that match one of the patterns, if there are any, without those that are done."""
    import unittest

    for test in flat(unittest.defaultTestLoader.loadTestsFromName(module)):
        if test.id() not in done and (
            not patterns or any(fnmatch.fnmatchcase(test.id(), pattern) for pattern in patterns)
        ):
            yield test


def flat(suite: Any) -> Iterator[unittest.TestCase]:
    """The tests of a suite."""
    for test in suite:
        if hasattr(test, "__iter__"):
            yield from flat(test)
        else:
            yield test


def suite(tests: list[unittest.TestCase]) -> unittest.TestSuite:
    """A suite of tests."""
    import unittest

    return unittest.TestSuite(tests)


# ---- where they run --------------------------------------------------------------------------

# What was wrong with the goroutines beside the tests.
beside: list[str] = []


def in_goroutine(run: Callable[[], None]) -> None:
    """Run in the main goroutine."""
    import offset

    offset.run(run)


def beside_goroutines(run: Callable[[], None]) -> None:
    """Run, while goroutines wait, send, receive and block an OS thread."""
    import offset

    ticks: offset.Chan[int] = offset.Chan()
    received: list[int] = []
    over = False

    def tick() -> None:
        number = 0
        while not over:
            offset.sleep(0.002)
            ticks.send(number)
            number += 1
        ticks.close()

    def receive() -> None:
        for number in ticks:
            received.append(number)

    def block() -> None:
        while not over:
            # The interpreter's own: it costs an OS thread.
            time.sleep(0.02)

    goroutines = [offset.go(tick), offset.go(receive), offset.go(block)]
    try:
        run()
    finally:
        over = True
        for goroutine in goroutines:
            if not goroutine.join(timeout=60):
                beside.append(f"goroutine {goroutine.name} has not ended: {goroutine.status}, {goroutine.wait_reason}")
        if received != list(range(len(received))):
            beside.append("the numbers that were sent are not those that were received")


def in_goroutine_beside(run: Callable[[], None]) -> None:
    """Run in the main goroutine, while others run."""
    in_goroutine(lambda: beside_goroutines(run))


RUN_IN: dict[str, Callable[[Callable[[], None]], None]] = {
    "plain": lambda run: run(),
    "proxies": in_goroutine,
    "thread": beside_goroutines,
    "goroutine": in_goroutine_beside,
    "gevent": lambda run: run(),
}


# ---- the proxies -----------------------------------------------------------------------------


def substitute(names: list[str]) -> None:
    """Have modules of `test` get the proxies of `names`, in each way in which they ask for modules by name."""
    import builtins
    import pkgutil

    from offset.syscall import _rebind

    chosen = {
        module for module in _rebind.PROXIES for name in names if f"{module}.".startswith(f"{name}.") or name == module
    }
    # `import a.b` gives a.
    chosen |= {module for module in _rebind.PROXIES if any(name.startswith(f"{module}.") for name in names)}
    plain_import, plain_resolve = builtins.__import__, pkgutil.resolve_name

    def importer(
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> Any:
        module = plain_import(name, globals, locals, fromlist or (), level)
        importing = str((globals or {}).get("__name__"))
        if level or importing.partition(".")[0] != "test":
            return module
        for each in (name, *(f"{name}.{part}" for part in fromlist or ())):
            if each in chosen:
                _rebind.proxy(each)
        return _rebind.proxy(module.__name__) if module.__name__ in chosen else module

    def resolve(name: str) -> Any:
        """What `unittest.mock.patch` looks up."""
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            module = ".".join(parts[:length])
            if module in chosen:
                found: Any = _rebind.proxy(module)
                for part in parts[length:]:
                    found = getattr(found, part)
                return found
        return plain_resolve(name)

    builtins.__import__ = importer  # type: ignore[assignment]
    pkgutil.resolve_name = resolve
    support = importlib.import_module("test.support")
    plain_check = support.check__all__

    def check__all__(test_case: Any, module: Any, name_of_module: Any = None, *args: Any, **kwargs: Any) -> None:
        """What the proxy has from its original, exceptions for instance, is the module's, too."""
        names = (name_of_module,) if isinstance(name_of_module, str) else name_of_module or (module.__name__,)
        original = module.__name__.removeprefix("offset.syscall.")
        plain_check(test_case, module, (*names, original, module.__name__, "offset._runtime"), *args, **kwargs)

    support.check__all__ = check__all__
    helper = importlib.import_module("test.support.import_helper")
    for function in ("import_module", "import_fresh_module"):
        setattr(helper, function, finds_proxies(getattr(helper, function), chosen))


def finds_proxies(function: Any, chosen: set[str]) -> Any:
    """Make a function that imports a module by its name give the proxy."""
    from offset.syscall import _rebind

    def imports(name: str, *args: Any, **kwargs: Any) -> Any:
        return _rebind.proxy(name) if name in chosen else function(name, *args, **kwargs)

    return imports


# ---- the report ------------------------------------------------------------------------------


def result_class() -> Any:
    """The class of results that reports each outcome when it is there."""
    import unittest

    class Result(unittest.TestResult):
        def __init__(self, file: Any) -> None:
            super().__init__()
            self.file = file
            self.outcome = "passed"
            self.detail = ""
            self.running = False
            self.began = 0.0

        def tell(self, **what: object) -> None:
            self.file.write(json.dumps(what) + "\n")

        def startTest(self, test: Any) -> None:
            super().startTest(test)
            self.outcome, self.detail, self.running = "passed", "", True
            self.began = time.monotonic()
            self.tell(start=test.id())

        def stopTest(self, test: Any) -> None:
            super().stopTest(test)
            if not self.running:
                # 3.12.1 starts no test that is skipped, but stops it.
                return
            self.running = False
            seconds = round(time.monotonic() - self.began, 2)
            self.tell(test=test.id(), outcome=self.outcome, detail=self.detail, seconds=seconds)

        def note(self, test: Any, outcome: str, detail: str) -> None:
            if self.running:
                self.outcome, self.detail = outcome, detail
            else:
                # A fixture of a class or a module.
                self.tell(test=test.id(), outcome=outcome, detail=detail)

        def addError(self, test: Any, err: Any) -> None:
            super().addError(test, err)
            self.note(test, "error", self.errors[-1][1])

        def addFailure(self, test: Any, err: Any) -> None:
            super().addFailure(test, err)
            self.note(test, "failed", self.failures[-1][1])

        def addSkip(self, test: Any, reason: str) -> None:
            super().addSkip(test, reason)
            self.note(test, "skipped", reason)

        def addExpectedFailure(self, test: Any, err: Any) -> None:
            super().addExpectedFailure(test, err)
            self.note(test, "failed as expected", "")

        def addUnexpectedSuccess(self, test: Any) -> None:
            super().addUnexpectedSuccess(test)
            self.note(test, "passed unexpectedly", "")

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
            super().addSubTest(test, subtest, err)
            if err is not None:
                kind = "failed" if issubclass(err[0], test.failureException) else "error"
                known = self.failures if kind == "failed" else self.errors
                self.note(test, kind, known[-1][1])

    return Result


if __name__ == "__main__":
    main()
