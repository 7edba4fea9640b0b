"""`offset doctor`: what this machine and this Python give to goroutines, and which installed libraries need care.

Invariant: what is said was looked up or tried just now, in this process; nothing is changed.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import resource
import sys
import sysconfig
import time
from typing import TYPE_CHECKING, NamedTuple

import offset
from offset import _outside, _runtime

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "say what this machine and this Python give to goroutines, and which libraries need care"

# Seconds in which a goroutine blocks its thread, to see what the others do meanwhile.
_BLOCKED = 0.3
# Linux's advice that makes pages a guard without splitting their mapping (kernel 6.13).
_MADV_GUARD_INSTALL = 102
# Address space beside the C stack of each goroutine: the guard, and CPython's first data-stack chunk.
_BESIDE = (384 + 64) * 1024
# Below so many goroutines a limit is worth a note.
_MANY = 10_000


class Finding(NamedTuple):
    """One line of the report. A problem is what offset does not work well with; a note is worth knowing."""

    state: str
    about: str
    text: str
    advice: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(options: argparse.Namespace) -> int:
    """Look, and print; 1 if there is a problem."""
    from offset._command import _libraries

    found = list(findings())
    libraries = _libraries.installed()
    problems = sum(finding.state == "problem" for finding in found)
    if options.json:
        report = {
            "findings": [finding._asdict() for finding in found],
            "libraries": [library._asdict() for library in libraries],
        }
        print(json.dumps(report))
        return int(problems > 0)
    for finding in found:
        mark = {"ok": " ", "note": "*", "problem": "!"}[finding.state]
        print(f"{mark} {finding.about:17} {finding.text}")
        if finding.advice:
            print(f"  {'':17} {finding.advice}")
    print("\nInstalled libraries")
    for kind, about in _libraries.KINDS.items():
        members = [library for library in libraries if library.kind == kind]
        if not members:
            continue
        if kind == "tested":
            for library in members:
                print(f"  {library.name} {library.version}: {library.advice}")
        else:
            names = ", ".join(f"{library.name} {library.version}" for library in members)
            print(f"  {names}: {about}")
    if not libraries:
        print("  none that need care")
    print("  Others are pure Python: they work as they are, and a copy of them parks only the goroutine.")
    print(f"\n{_sum(found, problems)}")
    return int(problems > 0)


def _sum(found: list[Finding], problems: int) -> str:
    notes = sum(finding.state == "note" for finding in found)
    if problems:
        return f"{problems} problem{'s' if problems > 1 else ''} (!), {notes} worth a note (*)."
    return f"No problem, {notes} worth a note (*)." if notes else "No problem."


def findings() -> Iterator[Finding]:
    """Look at everything, one thing after the other."""
    libc = " ".join(platform.libc_ver()).strip() or "another C library than glibc"
    yield Finding("ok", "offset", f"{offset.__version__} in {os.path.dirname(offset.__file__)}")
    yield Finding("ok", "Python", f"{platform.python_implementation()} {sys.version.split()[0]}, {sys.executable}")
    yield Finding("ok", "system", f"{platform.system()} {platform.release()}, {platform.machine()}, {libc}")
    yield from _environment()
    seconds = offset.run(_blocked)
    stats = _runtime.stats()
    yield _gil(stats["processors"])
    yield _identity(stats["thread_identity"])
    yield _rescue(seconds)
    yield from _stacks(stats["stack_size"])
    yield from _limits()
    yield _outside_answer()


def _environment() -> Iterator[Finding]:
    for name in ("OFFSET_THREAD_IDENTITY", "OFFSET_DUMP"):
        if value := os.environ.get(name):
            yield Finding("note", "environment", f"{name}={value} is set")


def _blocked() -> float:
    """Give the longest time that one goroutine waited for its turn while another one blocked their OS thread."""
    blocking = offset.go(time.sleep, _BLOCKED)
    longest, last = 0.0, time.monotonic()
    while blocking.status != "dead":
        offset.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def _free_threaded() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _gil(processors: int) -> Finding:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        text = f"off: {processors} processors; goroutines run Python at once"
        return Finding("ok", "GIL", text, "Those that have started stay on their OS thread: mark calls that block.")
    if _free_threaded():
        text = "on, on a build that can do without: by PYTHON_GIL, -X gil, or an extension module that needs it"
        return Finding("note", "GIL", text, "Goroutines do not run at once; started ones do not move either.")
    return Finding("ok", "GIL", "on: goroutines take turns, as threads do; one processor")


def _identity(identity: str) -> Finding:
    about = "thread identity"
    if identity == "virtual":
        return Finding("ok", about, "virtual: RLocks, get_ident() and sqlite3 tell goroutines apart")
    advice = "An RLock does not tell goroutines of one OS thread apart, and started goroutines do not move: "
    advice += "use offset.sync.Mutex, and syscall.blocking for calls that block."
    if identity == "off":
        return Finding("note", about, "that of the OS thread: OFFSET_THREAD_IDENTITY says so", advice)
    return Finding("problem", about, "that of the OS thread: it cannot be redirected in this interpreter", advice)


def _rescue(seconds: float) -> Finding:
    about = "blocking calls"
    text = f"a goroutine that blocked for {_BLOCKED * 1000:.0f} ms held up another one for {seconds * 1000:.0f} ms"
    if seconds < _BLOCKED / 2:
        return Finding("ok", about, text)
    advice = "Calls that block belong into syscall.blocking here, or to the proxies of offset.syscall."
    # On a free-threaded build that depends on where the two have started.
    return Finding("note", about, text, advice)


def _stacks(size: int) -> Iterator[Finding]:
    yield Finding("ok", "C stacks", f"{size >> 10:,} KiB each, taken from memory as far as they are used")
    mappings = _number("/proc/sys/vm/max_map_count")
    if _guards():
        text = "by advice to the kernel: they do not count as mappings"
        yield Finding("ok", "guard pages", text)
    else:
        text = "by mprotect, two mappings a goroutine" + (
            f" of the {mappings:,} that vm.max_map_count allows" * bool(mappings)
        )
        yield Finding(
            "note", "guard pages", text, "Above 30,000 goroutines new stacks have none. Linux 6.13 does better."
        )
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        count = limit // (size + _BESIDE)
        advice = "Each reserves address space, not memory: raise the limit (ulimit -v)."
        yield Finding("note" if count < _MANY else "ok", "address space", f"enough for {count:,} goroutines", advice)
    if _number("/proc/sys/vm/overcommit_memory") == 2:
        advice = "Set vm.overcommit_memory to 0 or 1 for more than some thousand goroutines."
        yield Finding("note", "overcommit", "the kernel counts reserved address space as memory", advice)


def _guards() -> bool:
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        try:
            pages.madvise(_MADV_GUARD_INSTALL)
        except OSError:
            return False
    return True


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    text = "without a limit" if unlimited else f"{soft:,} at most (ulimit -n), of {hard:,} that may be asked for"
    if unlimited or soft >= _MANY:
        yield Finding("ok", "descriptors", text)
    else:
        advice = "Each connection takes one: resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard)) gives more."
        yield Finding("note", "descriptors", text, advice)
    threads = [
        number
        for number in (_number("/sys/fs/cgroup/pids.max"), resource.getrlimit(resource.RLIMIT_NPROC)[0])
        if number is not None and number >= 0
    ]
    if threads:
        text = f"{min(threads):,} at most"
        advice = "Goroutines need few, calls that block one each: runtime.set_max_threads(n) bounds those."
        state = "note" if min(threads) < 1024 else "ok"
        yield Finding(state, "OS threads", text, advice if state == "note" else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "cores", f"{cores}")


def _outside_answer() -> Finding:
    about = "offset dump, top"
    try:
        _outside.ask(os.getpid(), "stats")
    except _outside.AskError as error:
        return Finding("note", about, f"cannot look into processes here: {error}")
    return Finding("ok", about, "can look into processes of this user that run on offset")


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
