"""What the tests share: bounded waiting, programs in a subprocess, OS threads, leak measurements.

Invariants:

* Nothing here orders events by sleeping. `wait_until` looks again until a condition holds; its
  deadline only bounds a hang, and running into it is a failure.
* `PATIENCE` is the one length of such deadlines, far above what a loaded machine needs.
* Nothing here holds on to an object of the test that called it, so the leak checks stay exact.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import offset

# Seconds after which a wait is taken for a hang.
PATIENCE = 30.0

# True on the builds without the GIL (3.14t, 3.15t), whether or not it was switched on again.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# Seconds between two looks at a condition.
_GLANCE = 0.0005


# ---- waiting ---------------------------------------------------------------------------------


def wait_until(condition: Callable[[], object], what: str = "", timeout: float = PATIENCE) -> None:
    """Return as soon as `condition()` is true, and fail when it is not within `timeout` seconds.

    Works in a goroutine, where it lets the others run, and in an OS thread.
    """
    deadline = time.monotonic() + timeout
    inside = offset.current() is not None
    looks = 0
    while not condition():
        looks += 1
        if inside and looks < 20:
            # Most conditions only need a turn of the others.
            offset.gosched()
        else:
            (offset.sleep if inside else time.sleep)(_GLANCE)
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true after {timeout} s: {what or condition}")


def wait_parked(*goroutines: Any, reason: str = "") -> None:
    """Return when every one of `goroutines` is parked, for a reason that contains `reason`."""
    for goroutine in goroutines:
        wait_until(
            lambda goroutine=goroutine: reason in (goroutine.wait_reason or "") and goroutine.wait_reason,
            f"{goroutine!r} parked for {reason or 'any reason'!r}",
        )


def wait_ended(*goroutines: Any) -> None:
    """Return when every one of `goroutines` has ended."""
    for goroutine in goroutines:
        assert goroutine.join(timeout=PATIENCE), f"{goroutine!r} has not ended"


def go_parked(function: Callable[..., object], /, *args: Any, reason: str = "") -> Any:
    """Start a goroutine and return its handle once it is parked.

    Waiters that must queue up in a known order are started one by one with this.
    """
    goroutine = offset.go(function, *args)
    wait_parked(goroutine, reason=reason)
    return goroutine


def main_goroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a test so that it runs as the main goroutine of a program of its own.

    Fixtures and parameters arrive as before; what the test raises is what the test fails with.
    """

    @functools.wraps(function)
    def run_as_main(*args: Any, **kwargs: Any) -> Any:
        return offset.run(function, *args, **kwargs)

    return run_as_main


def collect() -> None:
    """Run the garbage collector until it finds nothing more; one pass can free what hid the next."""
    for _ in range(5):
        if not gc.collect():
            break


def refusal(call: Callable[[], Any]) -> Any:
    """What a call returns, or what it raises in a form that can be compared."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


# ---- the ways to say one thing ---------------------------------------------------------------

# Every blocking call that receives, as a function of a channel and a timeout.
RECEIVERS: dict[str, Callable[..., Any]] = {
    "recv": lambda channel, timeout=None: channel.recv(timeout=timeout),
    "recv_ok": lambda channel, timeout=None: channel.recv_ok(timeout=timeout)[0],
    "select": lambda channel, timeout=None: offset.select(channel.if_recv(), timeout=timeout).value,
}

# Every blocking call that sends.
SENDERS: dict[str, Callable[..., Any]] = {
    "send": lambda channel, value, timeout=None: channel.send(value, timeout=timeout),
    "select": lambda channel, value, timeout=None: offset.select(channel.if_send(value), timeout=timeout),
}

# Ways to say a timeout that is over at once.
OVER = [0, 0.0, -1, -0.5, datetime.timedelta(0), datetime.timedelta(seconds=-3)]

# Ways to say a short timeout.
SHORT = [0.002, datetime.timedelta(milliseconds=2)]


# ---- OS threads ------------------------------------------------------------------------------


class Thread:
    """A plain OS thread whose result or exception `result` hands over."""

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._value = function(*args, **kwargs)
        except BaseException as error:
            self._error = error

    @property
    def ended(self) -> bool:
        """Has the function returned or raised?"""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the end; give what the function returned, or raise what it raised.

        In a goroutine the wait lets the other goroutines run.
        """
        wait_until(lambda: self.ended, "the end of an OS thread")
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        value, self._value = self._value, None
        return value


def in_thread(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run `function` in an OS thread of its own and give what it returns or raises."""
    return Thread(function, *args, **kwargs).result()


# ---- programs in a subprocess ----------------------------------------------------------------


class Finished(NamedTuple):
    """How a program ended. `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def script_command(program: str | Path, *args: object, interpreter_options: Iterable[str] = ()) -> list[str]:
    """The command that runs `program`, source text or a file, with this interpreter."""
    command = [sys.executable, *interpreter_options]
    is_file = isinstance(program, Path) or ("\n" not in program and program.endswith(".py"))
    if is_file:
        command.append(os.fspath(program))
    else:
        command += ["-c", textwrap.dedent(os.fspath(program))]
    return [*command, *map(str, args)]


def script_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's environment with `changes`; None removes a variable.

    The output of a program is not buffered: what it printed before a crash is seen.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for name, value in (changes or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def run_script(
    program: str | Path,
    *args: object,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 130,
    input: str | None = None,
    cwd: str | Path | None = None,
    interpreter_options: Iterable[str] = (),
) -> Finished:
    """Run a program in a subprocess with this interpreter and say how it ended.

    `program` is source text (its common indentation is removed) or a path that ends with ".py";
    `args` become its `sys.argv[1:]`. A program that has not ended after `timeout` seconds fails the
    test; it is then asked for the stacks of its threads, and killed with all that it started.
    """
    with start_script(program, *args, env=env, cwd=cwd, interpreter_options=interpreter_options) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            stdout, stderr = _kill_and_read(process)
            raise AssertionError(
                f"the program has not ended after {timeout} s\n---- stdout ----\n{stdout}\n---- stderr ----\n{stderr}"
            ) from None
    return Finished(process.returncode, stdout, stderr)


@contextlib.contextmanager
def start_script(
    program: str | Path,
    *args: object,
    env: Mapping[str, str | None] | None = None,
    cwd: str | Path | None = None,
    interpreter_options: Iterable[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """A program as in `run_script`, while it runs: for tests that talk to it or signal it.

    It leads a process group of its own, so that Ctrl-C here does not reach it, and the group is
    killed when the `with` block is left.
    """
    process = subprocess.Popen(
        script_command(program, *args, interpreter_options=interpreter_options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        env=script_environment(env),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


def _kill_and_read(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a program that hangs; SIGABRT first, as a fault handler answers it with the stacks."""
    for number in (signal.SIGABRT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5)
    return "", ""


# ---- leaks -----------------------------------------------------------------------------------


def live_objects(prefix: str = "") -> Counter[str]:
    """How many objects of each type the collector tracks, for types whose full name begins so."""
    counts: Counter[str] = Counter()
    for kind, count in Counter(map(type, gc.get_objects())).items():
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name.startswith(prefix):
            counts[name] += count
    return counts


def assert_no_growth(
    function: Callable[[], object],
    repeats: int = 100,
    probes: Iterable[object] = (),
    warm_up: int = 20,
) -> None:
    """Run `function` again and again and fail if the interpreter holds more each time.

    Three things are compared, none of which depends on the size of the process: the exact
    reference counts of `probes` (objects that `function` uses and is expected to let go), the
    number of objects of each type, and the number of memory blocks, which shows leaks of objects
    that the collector does not track. A leak grows by `repeats` or more in every round, while the
    caches and free lists of the interpreter and of the runtime fill more and more slowly; so growth
    is a failure when every one of six rounds shows it. Runs in a goroutine and outside.
    """
    watched = list(probes)
    for _ in range(warm_up):
        function()
    # Every later measurement is taken beside one that is kept; so is the first.
    beside = _holdings(watched)
    before = _holdings(watched)
    del beside
    for _ in range(6):
        for _ in range(repeats):
            function()
        after = _holdings(watched)
        report = _growth(before, after, repeats)
        if not report:
            return
        before = after
    raise AssertionError(f"every {repeats} runs leave something behind:\n" + "\n".join(report))


def _growth(before: _Holdings, after: _Holdings, repeats: int) -> list[str]:
    """A line for each thing that there is markedly more of."""
    lines = [
        f"  references to probe {index}: {old} -> {new}"
        for index, (old, new) in enumerate(zip(before.references, after.references, strict=True))
        if new > old
    ]
    grown = (after.objects - before.objects).items()
    lines += [f"  objects of {name}: +{count}" for name, count in grown if count >= repeats / 2]
    # Without the GIL, blocks that another thread freed count until their own thread has seen it.
    if not FREE_THREADED and after.blocks - before.blocks >= 0.9 * repeats:
        lines.append(f"  memory blocks: +{after.blocks - before.blocks}")
    return lines


class _Holdings(NamedTuple):
    references: list[int]
    objects: Counter[str]
    blocks: int


def _holdings(watched: list[object]) -> _Holdings:
    collect()
    objects = live_objects()
    references = [sys.getrefcount(thing) for thing in watched]
    return _Holdings(references, objects, sys.getallocatedblocks())


def open_descriptors() -> dict[int, str]:
    """The open file descriptors of this process and what each leads to; empty where unknown."""
    found: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            # The descriptor that listed the directory is gone by now.
            with contextlib.suppress(FileNotFoundError):
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def os_thread_count() -> int:
    """The number of OS threads of this process, those of the runtime included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()
