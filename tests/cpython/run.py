"""CPython's own tests over the proxies, in goroutines, beside a plain run of the same tests.

    python tests/cpython/run.py [--quick] [--jobs N] [--gevent PYTHON] [--json FILE] [GROUP | MODULE | TEST ...]

`tests.toml` says which modules of the interpreter's `test` package run in which way. Each runs twice in a
subprocess (`child.py`): as it is, and in a goroutine with the proxies in place of the originals, or unpatched beside
goroutines. The outcomes are compared test by test. A difference must be listed, with its reason, in `differences.toml`;
one that is not, and one that is listed and did not happen, fail the run.

`--gevent` runs them a third time, in an interpreter that has gevent, with everything patched and no test left out;
nothing is compared there, only counted. `--counts` writes the three counts into `counts.json` and the table
`counts.md`.

Invariants:

* A process writes the start and the outcome of each test to a file as they happen. So a test that hangs or crashes is
  known, counts as such, and the others run in another process.
* A test counts as hung when nothing has been written for `--patience` seconds.
* Processes run in sessions of their own; `_running` holds those that are there, which end with this one.
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
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import counts

HERE = Path(__file__).resolve().parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

# Outcomes that say that the test did what it should.
GOOD = ("passed", "skipped", "failed as expected")


class Outcome(dict[str, Any]):
    """The outcome of a test and what is to be said about it."""


Outcomes = dict[str, Outcome]


class Job(NamedTuple):
    """A module and the way in which it runs besides plainly."""

    group: str
    module: str
    way: str
    proxies: list[str]
    chosen: list[str]


class Sides(NamedTuple):
    """What came of a job."""

    plain: Outcomes
    other: Outcomes
    gevent: Outcomes | None


# ---- processes -------------------------------------------------------------------------------

_running: set[int] = set()
_lock = threading.Lock()
# No more processes are started.
_over = threading.Event()


class Over(Exception):
    """The runner ends, and no more processes are started."""


def run(job: Job, way: str, options: argparse.Namespace) -> Outcomes:
    """Run a module's tests in subprocesses, as many as it takes; give the outcomes by the names of the tests."""
    outcomes: Outcomes = {}
    while True:
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory) / "report"
            report.touch()
            ending = watch(job, way, report, sorted(outcomes), directory, options)
            before = len(outcomes)
            running, ended = None, False
            for line in report.read_text(encoding="utf-8").splitlines():
                told = json.loads(line)
                if "start" in told:
                    running = told["start"]
                elif "test" in told:
                    outcomes[told.pop("test")] = Outcome(told)
                    running = None
                else:
                    ended = True
        if ended:
            return outcomes
        if running is not None:
            outcomes[running] = ending
        elif len(outcomes) == before:
            outcomes[job.module] = ending
            return outcomes


def watch(job: Job, way: str, report: Path, done: list[str], directory: str, options: argparse.Namespace) -> Outcome:
    """Run one process until it ends or nothing happens any more; give the outcome of a test that it was in then."""
    command = [sys.executable, "-X", "faulthandler"]
    if way == "gevent":
        command = [options.gevent, "-X", "faulthandler", "-m", "gevent.monkey"]
    told = {"module": job.module, "way": way, "proxies": job.proxies, "report": str(report), "done": done}
    output = Path(directory) / "output"
    with output.open("w") as file:
        with _lock:
            if _over.is_set():
                raise Over
            process = subprocess.Popen(
                [*command, str(HERE / "child.py")],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=directory,
                start_new_session=True,
            )
            _running.add(process.pid)
        assert process.stdin is not None
        process.stdin.write(json.dumps({**told, "chosen": job.chosen, "quick": options.quick}))
        process.stdin.close()
        size, last = 0, time.monotonic()
        hung = False
        while process.poll() is None:
            time.sleep(0.05)
            if report.stat().st_size != size:
                size, last = report.stat().st_size, time.monotonic()
            if time.monotonic() - last > options.patience:
                hung = True
                # The fault handler shows where.
                for number in (signal.SIGABRT, signal.SIGKILL):
                    kill(process.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=5)
        kill(process.pid, signal.SIGKILL)
        with _lock:
            _running.discard(process.pid)
    tail = output.read_text(errors="backslashreplace")[-6000:]
    outcome = f"hung for {options.patience:g} s" if hung else f"ended the process ({process.returncode})"
    return Outcome(outcome=outcome, detail=tail)


def kill(session: int, number: int) -> None:
    """Send a signal to all processes of a session, as far as there are any."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, number)


def sides(job: Job, options: argparse.Namespace) -> Sides:
    """Run a job in each way; in a hurry only what does not do well is run plainly, too."""
    if not options.quick:
        plain, other = run(job, "plain", options), run(job, job.way, options)
        return Sides(plain, other, run(job, "gevent", options) if options.gevent else None)
    other = run(job, job.way, options)
    bad = [test for test, each in other.items() if each["outcome"] not in GOOD]
    plain = {test: each for test, each in other.items() if test not in bad}
    if bad:
        plain.update(run(job._replace(chosen=bad), "plain", options))
    return Sides(plain, other, None)


def stop(pool: ThreadPoolExecutor) -> None:
    """End the processes that are there, and start no more."""
    pool.shutdown(wait=False, cancel_futures=True)
    with _lock:
        _over.set()
        for session in _running:
            kill(session, signal.SIGKILL)


# ---- what to run -----------------------------------------------------------------------------


def jobs(options: argparse.Namespace) -> list[Job]:
    """What `tests.toml` and the command line ask for, as far as this installation has it."""
    with (HERE / "tests.toml").open("rb") as file:
        groups = tomllib.load(file)
    found = []
    for group, what in groups.items():
        way = f"{what['beside']}" if "beside" in what else "proxies"
        for module in what["modules"]:
            patterns = [name for name in options.names if name.startswith(f"{module}.")]
            if options.names and group not in options.names and module not in options.names and not patterns:
                continue
            if options.quick and module in what.get("slow", []):
                continue
            if is_there(module):
                found.append(Job(group, module, way, what.get("proxies", []), patterns))
            else:
                print(f"{module:52} not in this installation")
    return found


def is_there(module: str) -> bool:
    """Tell whether the installation has a module."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# ---- the comparison --------------------------------------------------------------------------


def listed() -> list[dict[str, Any]]:
    """The known differences that concern this version."""
    with (HERE / "differences.toml").open("rb") as file:
        known: list[dict[str, Any]] = tomllib.load(file).get("difference", [])
    return [each for each in known if VERSION in each.get("versions", [VERSION])]


def is_same(plain: Outcome | None, other: Outcome | None) -> bool:
    """Tell whether two outcomes say the same: good, or bad."""
    if plain is None or other is None:
        return False
    return plain["outcome"] == other["outcome"] or (plain["outcome"] not in GOOD and other["outcome"] not in GOOD)


def agreeing(plain: Outcomes, other: Outcomes) -> int:
    """Count the tests that do well plainly and do the same on the other side."""
    return sum(each["outcome"] in GOOD and is_same(each, other.get(test)) for test, each in plain.items())


class Comparison:
    """What was found so far."""

    def __init__(self) -> None:
        self.differences = listed()
        # By the way: a difference of one group is none of another's.
        self.unseen = list(self.differences)
        self.ran: set[tuple[str, str]] = set()
        self.bad = 0
        self.everything: dict[str, dict[str, dict[str, Outcome | None]]] = {}

    def reasons(self, job: Job, test: str) -> list[dict[str, Any]]:
        """What is listed for a test."""
        return [
            each
            for each in self.differences
            if fnmatch.fnmatchcase(test, each["test"]) and job.way in each.get("ways", ["proxies"])
        ]

    def add(self, job: Job, found: Sides) -> None:
        """Compare the sides of a job, and say what differs."""
        plain, other = found.plain, found.other
        different = [test for test in {**plain, **other} if not is_same(plain.get(test), other.get(test))]
        good = [sum(each["outcome"] in GOOD for each in side.values()) for side in (plain, other)]
        line = f"{job.module:52} {job.way:10} {len(plain):6} {good[0]:6} {good[1]:6} {len(different):12}"
        if found.gevent is not None:
            line += f" {agreeing(plain, found.gevent):12}"
        print(line, flush=True)
        self.everything[f"{job.group}: {job.module}"] = {
            test: {"plain": plain.get(test), job.way: other.get(test), "gevent": (found.gevent or {}).get(test)}
            for test in {**plain, **other}
        }
        self.ran.update((job.way, test) for test in {**plain, **other})
        for test in different:
            reasons = self.reasons(job, test)
            self.unseen = [each for each in self.unseen if each not in reasons]
            outcomes = " -> ".join((side.get(test) or {"outcome": "not there"})["outcome"] for side in (plain, other))
            if reasons:
                print(f"    {test}: {outcomes}: {reasons[0]['reason']}", flush=True)
                continue
            self.bad += 1
            print(f"    {test}: {outcomes}: NOT LISTED")
            for text in (other.get(test) or plain.get(test) or {}).get("detail", "").splitlines()[-25:]:
                print(f"        {text}", flush=True)

    def conclude(self) -> None:
        """Say which of the listed differences did not happen."""
        for each in self.unseen:
            ways = each.get("ways", ["proxies"])
            concerned = any(way in ways and fnmatch.fnmatchcase(test, each["test"]) for way, test in self.ran)
            if concerned and not each.get("sometimes"):
                self.bad += 1
                print(f"    {each['test']}: listed, but there was no difference")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="groups, modules or tests (patterns); all groups if there are none")
    parser.add_argument(
        "--quick", action="store_true", help="without what takes long, and plainly only what does not do well"
    )
    parser.add_argument("--jobs", type=int, default=1, help="modules that run at a time")
    parser.add_argument("--patience", type=float, default=120, help="seconds in which something must happen")
    # Processes run elsewhere; a link, as it is in a virtual environment, must stay one.
    parser.add_argument(
        "--gevent", metavar="PYTHON", type=os.path.abspath, help="run them under gevent, too, with this interpreter"
    )
    parser.add_argument("--counts", action="store_true", help="write the counts into counts.json and counts.md")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    options = parser.parse_args()
    # The processes are in sessions of their own: they would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    comparison = Comparison()
    header = f"{'module':52} {'way':10} {'tests':>6} {'plain':>6} {'good':>6} {'differences':>12}"
    print(header + (f" {'gevent':>12}" if options.gevent else ""), flush=True)
    rows: list[counts.Row] = []
    pool = ThreadPoolExecutor(options.jobs)
    try:
        todo = jobs(options)
        for job, future in zip(todo, [pool.submit(sides, job, options) for job in todo], strict=True):
            found = future.result()
            comparison.add(job, found)
            rows.append(row(job, found))
        comparison.conclude()
    finally:
        stop(pool)
    if options.json:
        options.json.write_text(json.dumps(comparison.everything, indent=1), encoding="utf-8")
    if options.counts:
        counts.write(HERE, VERSION, rows, options.gevent)
    return 1 if comparison.bad else 0


def row(job: Job, found: Sides) -> counts.Row:
    """The counts of a job."""
    good = [test for test, each in found.plain.items() if each["outcome"] in GOOD]
    gevent = None if found.gevent is None else agreeing(found.plain, found.gevent)
    return counts.Row(job.group, job.module, job.way, good, agreeing(found.plain, found.other), gevent)


if __name__ == "__main__":
    sys.exit(main())
