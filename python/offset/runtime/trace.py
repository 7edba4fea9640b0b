"""What goroutines did, event by event, as Go's package `runtime/trace`.

    with trace.start("trace.json"):
        ...

The file is in the Trace Event Format: Perfetto (ui.perfetto.dev) shows it, `python -m offset trace summary` reads it.
A name that ends in ".gz" is compressed. `docs/trace.md` says what is in it.

Invariants:

* A recording belongs to the process that started it: a forked child has none, and writes nothing.
* `gc.callbacks` holds ours while there is a recording of either kind, `atexit` while there is a trace; then only.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import gzip
import os
import shutil
import tempfile
import warnings
from typing import TYPE_CHECKING, BinaryIO

from offset import _duration, _runtime
from offset._runtime import blocking

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from offset._duration import Seconds

    File = str | os.PathLike[str] | BinaryIO

__all__ = ["FlightRecorder", "is_enabled", "log", "region", "start", "stop"]

# Bytes of events that a trace keeps at most, and a flight recorder. JSON takes up to sixty times as many.
TRACE_LIMIT = 64 << 20
FLIGHT_LIMIT = 16 << 20

# Where the trace that goes on is to be written.
_target: list[File] = []
# The flight recorder that is at work.
_recorders: list[FlightRecorder] = []


# ---- traces ----------------------------------------------------------------------------------


class _Started:
    """What `start` gives: leaving its `with` block stops the trace."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        stop()


def start(file: File, *, limit: int = TRACE_LIMIT) -> _Started:
    """Record events until `stop`, which writes them to `file`: a path, or a binary file (Go: trace.Start).

    May be used as a context manager that stops at its end. When `limit` bytes of events are full, the rest is not
    recorded, and `stop` warns. A trace that nobody has stopped is written when the interpreter exits. Raises
    RuntimeError if a trace goes on already, OSError if the file cannot be made, ValueError if `limit` is not positive.
    """
    _check_limit(limit)
    if _runtime.trace_active(False):
        raise RuntimeError("a trace goes on already; call trace.stop() first")
    if not hasattr(file, "write"):
        # What cannot be written is to be known now.
        with open(file, "wb"):
            pass
    if not _runtime.trace_start(False, limit):
        raise RuntimeError("a trace goes on already; call trace.stop() first")
    _target[:] = [file]
    atexit.register(stop)
    _watch()
    return _Started()


def stop() -> None:
    """End the trace and write it (Go: trace.Stop). Does nothing if there is none. Raises OSError if that fails."""
    target = _target.copy()
    _target.clear()
    atexit.unregister(stop)
    if not target:
        return
    try:
        truncated = _write_to(target[0], lambda descriptor: _runtime.trace_stop(False, descriptor))
    finally:
        _runtime.trace_stop(False, -1)
        _watch()
    if truncated:
        message = "the trace was full before it was stopped; give trace.start a larger limit, or use a FlightRecorder"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def is_enabled() -> bool:
    """Whether events are recorded, for a trace or a flight recorder (Go: trace.IsEnabled)."""
    return _runtime.trace_recording()


# ---- what programs say -----------------------------------------------------------------------


class _Region:
    """What `region` gives."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Self:
        _runtime.trace_region(True, self._name)
        return self

    def __exit__(self, *exc: object) -> None:
        _runtime.trace_region(False, self._name)


def region(name: str) -> _Region:
    """Give a stretch of work a name: `with trace.region("parse"):` (Go: trace.WithRegion).

    Shown on the goroutine's own track. Regions nest; each is to end in the goroutine in which it began. Costs next
    to nothing while nothing is recorded. Raises TypeError if the name is no string.
    """
    if not isinstance(name, str):
        raise TypeError(f"a region's name is a string, not {type(name).__name__}")
    return _Region(name)


def log(category: str, message: str) -> None:
    """Put a message into the trace, with a category to find it by (Go: trace.Log). Cut after 4 KiB together.

    Raises TypeError if either is no string.
    """
    if not isinstance(category, str) or not isinstance(message, str):
        raise TypeError("trace.log takes a category and a message, both strings")
    _runtime.trace_log(category, message)


# ---- the flight recorder ---------------------------------------------------------------------


class FlightRecorder:
    """Keeps the events of the last `seconds`, to be written if something goes wrong (Go: trace.FlightRecorder).

        with trace.FlightRecorder(seconds=10, on_error="flight.json"):
            serve()

    `limit` bounds the memory in bytes: where so much happens that it does not hold the time, the oldest events go.
    With `on_error` an exception that leaves a goroutine, or the `with` block, has the recording written there; a later
    one writes over it. One recorder can be at work at a time, beside a trace. Raises ValueError if `seconds` or
    `limit` is not positive.
    """

    __slots__ = ("_process", "limit", "on_error", "seconds")

    def __init__(self, seconds: Seconds = 10.0, *, limit: int = FLIGHT_LIMIT, on_error: File | None = None) -> None:
        _check_limit(limit)
        self.seconds = _duration.seconds(seconds)
        if not self.seconds > 0:
            raise ValueError(f"a flight recorder keeps a positive number of seconds, not {seconds!r}")
        self.limit = limit
        self.on_error = on_error
        self._process = 0

    @property
    def enabled(self) -> bool:
        """Whether it is at work."""
        return self in _recorders and self._process == os.getpid()

    def start(self) -> None:
        """Begin to record. Raises RuntimeError if this recorder or another one is at work."""
        if not _runtime.trace_start(True, self.limit, self.seconds):
            raise RuntimeError("a flight recorder is at work already; stop it first")
        self._process = os.getpid()
        _recorders[:] = [self]
        _watch()

    def stop(self) -> None:
        """Stop, and forget what was recorded. Does nothing if it is not at work."""
        if self.enabled:
            _recorders.clear()
            _runtime.trace_stop(True, -1)
            _watch()

    def write_to(self, file: File) -> None:
        """Write the last seconds to `file`, a path or a binary file, and go on.

        Raises RuntimeError if the recorder is not at work, OSError if the file cannot be written.
        """
        if not self.enabled:
            raise RuntimeError("the flight recorder is not at work; call start() first")
        _write_to(file, lambda descriptor: _runtime.trace_write(True, descriptor))

    def stats(self) -> dict[str, Any]:
        """Whether it is at work, and its bounds."""
        return {"enabled": self.enabled, "seconds": self.seconds, "limit": self.limit}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if exc is not None and self.on_error is not None and self.enabled:
                self.write_to(self.on_error)
        finally:
            self.stop()


def failed() -> None:
    """An exception has left a goroutine: write the flight recorder's events, if it is to. Raises OSError."""
    for recorder in _recorders.copy():
        if recorder.on_error is not None and recorder.enabled:
            recorder.write_to(recorder.on_error)


# ---- inside ----------------------------------------------------------------------------------


def _check_limit(limit: int) -> None:
    if limit <= 0:
        raise ValueError(f"the limit is a positive number of bytes, not {limit!r}")


def _watch() -> None:
    """Have the collector tell of itself while anything is recorded."""
    wanted = bool(_target or _recorders)
    if wanted and _runtime.trace_gc not in gc.callbacks:
        gc.callbacks.append(_runtime.trace_gc)
    elif not wanted:
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(_runtime.trace_gc)


def _write_to(file: File, write: Callable[[int], bool | None]) -> bool:
    """Call `write` with a descriptor, in the pool for blocking calls, and bring what it writes to `file`."""
    compressed = not hasattr(file, "write") and os.fspath(file).endswith(".gz")
    if hasattr(file, "write") or compressed:
        with tempfile.TemporaryFile() as plain:
            truncated = blocking(write, plain.fileno())
            plain.seek(0)
            with contextlib.ExitStack() as stack:
                sink: Any = stack.enter_context(gzip.open(file, "wb", compresslevel=6)) if compressed else file
                copy: Callable[..., None] = shutil.copyfileobj
                blocking(copy, plain, sink, 1 << 20)
    else:
        with open(file, "wb") as out:
            truncated = blocking(write, out.fileno())
    return bool(truncated)


def _forked() -> None:
    _target.clear()
    _recorders.clear()
    atexit.unregister(stop)
    _watch()


os.register_at_fork(after_in_child=_forked)
