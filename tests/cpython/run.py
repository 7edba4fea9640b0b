"""CPython's own tests over the proxies, in goroutines, beside a plain run of the same tests.

    python tests/cpython/run.py [--json FILE] [GROUP | MODULE | TEST ...]

`tests.toml` says which modules of the interpreter's `test` package run over which proxies. Each runs twice in a
subprocess: as it is, and in the main goroutine of `offset.run` with the proxies in place of the originals, for the
module and for what it imports from `test`. The outcomes are compared test by test. A difference must be listed,
with its reason, in `differences.toml`; one that is not, and one that is listed and did not happen, fail the run.

Invariants:

* A process writes the start and the outcome of each test to a file as they happen. So a test that hangs or crashes is
  known, counts as such, and the others run in another process.
* A test counts as hung when nothing has been written for `PATIENCE` seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import unittest
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

# Seconds in which something must happen.
PATIENCE = 120

# Outcomes that say that the test did what it should.
GOOD = ("passed", "skipped", "failed as expected")


# ---- the process that runs a module ----------------------------------------------------------


def child(module: str, proxies: list[str], report: Path, done: list[str], chosen: list[str]) -> None:
    """Run the tests of a module, without those in `done`, and report to a file."""
    import unittest

    if proxies:
        substitute(proxies)
    importlib.import_module("test.support").verbose = False
    loaded = unittest.defaultTestLoader.loadTestsFromName(module)
    tests = [test for test in flat(loaded) if test.id() not in done]
    if chosen:
        tests = [test for test in tests if any(fnmatch.fnmatch(test.id(), pattern) for pattern in chosen)]
    suite = unittest.TestSuite(tests)
    with report.open("a", encoding="utf-8", buffering=1) as file:

        def main() -> None:
            suite.run(result_class()(file))
            file.write(json.dumps({"end": True}) + "\n")

        if proxies:
            import offset

            offset.run(main)
        else:
            main()
    sys.stdout.flush()
    # What a test left running does not matter any more.
    os._exit(0)


def substitute(names: list[str]) -> None:
    """Have modules of `test` import the proxies of `names`."""
    import builtins

    from offset.syscall import _rebind

    chosen = {
        module for module in _rebind.PROXIES for name in names if f"{module}.".startswith(f"{name}.") or name == module
    }
    # `import a.b` gives a.
    chosen |= {module for module in _rebind.PROXIES if any(name.startswith(f"{module}.") for name in names)}
    plain_import = builtins.__import__

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

    builtins.__import__ = importer  # type: ignore[assignment]
    helper = importlib.import_module("test.support.import_helper")
    for function in ("import_module", "import_fresh_module"):
        setattr(helper, function, finds_proxies(getattr(helper, function), chosen))


def finds_proxies(function: Any, chosen: set[str]) -> Any:
    """Make a function that imports a module by its name give the proxy."""
    from offset.syscall import _rebind

    def imports(name: str, *args: Any, **kwargs: Any) -> Any:
        return _rebind.proxy(name) if name in chosen else function(name, *args, **kwargs)

    return imports


def flat(suite: Any) -> Iterator[unittest.TestCase]:
    """The tests of a suite."""
    for test in suite:
        if hasattr(test, "__iter__"):
            yield from flat(test)
        else:
            yield test


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

        def tell(self, **what: object) -> None:
            self.file.write(json.dumps(what) + "\n")

        def startTest(self, test: Any) -> None:
            super().startTest(test)
            self.outcome, self.detail, self.running = "passed", "", True
            self.tell(start=test.id())

        def stopTest(self, test: Any) -> None:
            super().stopTest(test)
            self.running = False
            self.tell(test=test.id(), outcome=self.outcome, detail=self.detail)

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


# ---- the process that compares ---------------------------------------------------------------


class Outcome(dict[str, str]):
    """The outcome of a test and what is to be said about it."""


def run(module: str, proxies: list[str], chosen: list[str]) -> dict[str, Outcome]:
    """Run a module's tests in subprocesses, as many as it takes; give the outcomes by the names of the tests."""
    outcomes: dict[str, Outcome] = {}
    while True:
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory) / "report"
            report.touch()
            ending = watch(module, proxies, report, sorted(outcomes), chosen, directory)
            before = len(outcomes)
            running, ended = None, False
            for line in report.read_text(encoding="utf-8").splitlines():
                told = json.loads(line)
                if "start" in told:
                    running = told["start"]
                elif "test" in told:
                    outcomes[told["test"]] = Outcome(outcome=told["outcome"], detail=told["detail"])
                    running = None
                else:
                    ended = True
        if ended:
            return outcomes
        if running is not None:
            outcomes[running] = Outcome(ending)
        elif len(outcomes) == before:
            outcomes[module] = Outcome(ending)
            return outcomes


def watch(
    module: str, proxies: list[str], report: Path, done: list[str], chosen: list[str], directory: str
) -> dict[str, str]:
    """Run one process until it ends or nothing happens any more; give the outcome of a test that it was in then."""
    arguments = json.dumps([module, proxies, str(report), done, chosen])
    output = Path(directory) / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(arguments)
        process.stdin.close()
        size, last = 0, time.monotonic()
        hung = False
        while process.poll() is None:
            time.sleep(0.05)
            if report.stat().st_size != size:
                size, last = report.stat().st_size, time.monotonic()
            if time.monotonic() - last > PATIENCE:
                hung = True
                # The fault handler shows where.
                for number in (signal.SIGABRT, signal.SIGKILL):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    tail = output.read_text(errors="backslashreplace")[-6000:]
    return {"outcome": "hung" if hung else f"ended the process ({process.returncode})", "detail": tail}


def listed() -> list[dict[str, Any]]:
    """The known differences that concern this version."""
    with (HERE / "differences.toml").open("rb") as file:
        known: list[dict[str, Any]] = tomllib.load(file).get("difference", [])
    return [each for each in known if VERSION in each.get("versions", [VERSION])]


def is_same(plain: Outcome | None, proxied: Outcome | None) -> bool:
    """Tell whether two outcomes say the same: good, or bad."""
    if plain is None or proxied is None:
        return False
    return plain["outcome"] == proxied["outcome"] or (plain["outcome"] not in GOOD and proxied["outcome"] not in GOOD)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="groups, modules or tests (patterns); all groups if there are none")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        module, proxies, report, done, chosen = json.loads(sys.stdin.read())
        child(module, proxies, Path(report), done, chosen)
    with (HERE / "tests.toml").open("rb") as file:
        groups = tomllib.load(file)
    differences, unseen = listed(), listed()
    everything: dict[str, dict[str, dict[str, Any]]] = {}
    bad = 0
    print(f"{'module':52} {'tests':>6} {'good':>6} {'good over proxies':>18} {'differences':>12}")
    for group, what in groups.items():
        for module in what["modules"]:
            chosen = [name for name in options.names if name.startswith(f"{module}.")]
            if options.names and group not in options.names and module not in options.names and not chosen:
                continue
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:
                found = None
            if found is None:
                print(f"{module:52} not in this installation")
                continue
            plain, proxied = run(module, [], chosen), run(module, what["proxies"], chosen)
            different = [test for test in {**plain, **proxied} if not is_same(plain.get(test), proxied.get(test))]
            good = [sum(each["outcome"] in GOOD for each in side.values()) for side in (plain, proxied)]
            print(f"{module:52} {len(plain):6} {good[0]:6} {good[1]:18} {len(different):12}", flush=True)
            everything[module] = {test: {"plain": plain.get(test), "proxied": proxied.get(test)} for test in plain}
            for test in different:
                everything[module][test] = {"plain": plain.get(test), "proxied": proxied.get(test)}
                reasons = [each for each in differences if fnmatch.fnmatch(test, each["test"])]
                unseen = [each for each in unseen if each not in reasons]
                sides = " -> ".join(
                    (side.get(test) or {"outcome": "not there"})["outcome"] for side in (plain, proxied)
                )
                if reasons:
                    print(f"    {test}: {sides}: {reasons[0]['reason']}")
                else:
                    bad += 1
                    print(f"    {test}: {sides}: NOT LISTED")
                    for text in (proxied.get(test) or {}).get("detail", "").splitlines()[-15:]:
                        print(f"        {text}")
            ran = {*plain, *proxied}
            for each in [each for each in unseen if any(fnmatch.fnmatch(test, each["test"]) for test in ran)]:
                if not each.get("sometimes"):
                    bad += 1
                    print(f"    {each['test']}: listed, but there was no difference")
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
