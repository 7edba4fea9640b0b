"""Stacks of goroutines as text, in the shape of Go's dumps with Python's lines for the frames.

    goroutine 7 [chan receive] worker:
      File "pool.py", line 12, in worker
        job = jobs.recv()
    created by pool.py:20 in main in goroutine 1

Invariant: the frames of all goroutines are collected at one moment, in which none of them runs, and before the
first source line is read, because reading one may let other goroutines run. The frames that `run` puts under
the main function are left out.
"""

from __future__ import annotations

import linecache
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from offset import _runtime

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType, TracebackType

    from offset._runtime import Goroutine

    Position = tuple[CodeType, int]

# Code objects whose frames carry a goroutine's function and say nothing about the program.
hidden: set[CodeType] = set()
# The file whose `go` starts main goroutines, followed by a colon.
starter = ""


def write(text: str) -> None:
    """Write `text` to `sys.stderr` in one piece and flush it; without a usable stderr, do nothing."""
    stream = sys.stderr
    try:
        stream.write(text)
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass


def header(goroutine: Goroutine) -> str:
    """Give the line that opens a goroutine's stack, without the colon."""
    state = goroutine.wait_reason or goroutine.status
    return f"goroutine {goroutine.id} [{state}] {goroutine.name}"


def creator(goroutine: Goroutine) -> str:
    """Give the line that says where a goroutine was created."""
    if starter and goroutine.created_at.startswith(starter):
        return "created by offset.run\n"
    parent = f" in goroutine {goroutine.creator}" if goroutine.creator else ""
    return f"created by {goroutine.created_at}{parent}\n"


def exception(exc: BaseException) -> str:
    """Format an exception as Python does, without the frames that carry a goroutine's function."""
    return "".join(traceback.format_exception(type(exc), exc, _visible(exc.__traceback__)))


def failure(goroutine: Goroutine, exc: BaseException) -> str:
    """Format the report of an exception that left a goroutine."""
    return f"Exception in {header(goroutine)}:\n{exception(exc)}{creator(goroutine)}"


def stacks(goroutines: Iterable[Goroutine]) -> str:
    """Format the stacks of `goroutines`, one after the other with an empty line between."""
    goroutines = list(goroutines)
    caller = _runtime.current()
    elsewhere = {goroutine.ident for goroutine in goroutines if goroutine != caller and goroutine.ident}
    frames = _runtime.positions(elsewhere) if elsewhere else {}
    collected: list[tuple[str, list[Position] | str, str]] = []
    for goroutine in goroutines:
        found = _positions(sys._getframe(1)) if goroutine == caller else _positions_of(goroutine, frames)
        collected.append((header(goroutine), found, creator(goroutine)))
    del frames
    known: dict[Position, str] = {}
    parts = []
    for head, body, tail in collected:
        text = body if isinstance(body, str) else "".join(_line(position, known) for position in body)
        parts.append(f"{head}:\n{text}{tail}")
    return "\n".join(parts)


def stack(all: bool = False) -> str:
    """Give the stack of the calling goroutine, or with `all` those of every one, as Go's `runtime.Stack`.

    Each stack opens with "goroutine ID [wait reason] name:" and ends with the place where the goroutine was
    created. The calling goroutine comes first. Outside a goroutine the calling thread's stack comes first.
    """
    caller = _runtime.current()
    if caller is None:
        known: dict[Position, str] = {}
        own = "".join(_line(position, known) for position in _positions(sys._getframe(1)))
        text = f"thread {threading.current_thread().name} [running]:\n{own}"
    else:
        text = stacks([caller])
    if all:
        rest = stacks(goroutine for goroutine in _runtime.goroutines() if goroutine != caller)
        if rest:
            text = f"{text}\n{rest}"
    return text


def _positions_of(goroutine: Goroutine, frames: dict[int, list[Position]]) -> list[Position] | str:
    positions = frames.get(goroutine.ident)
    if positions is not None:
        return [position for position in reversed(positions) if position[0] not in hidden]
    return "  (no Python frame)\n" if goroutine.started else "  (not started)\n"


def _positions(frame: FrameType | None) -> list[Position]:
    positions: list[Position] = []
    own = True
    while frame is not None:
        code = frame.f_code
        # The frames of this file are on top of a stack that is asked for by the goroutine itself.
        own = own and code.co_filename == _OWN_FILE
        if not own and code not in hidden:
            positions.append((code, frame.f_lineno or 0))
        frame = frame.f_back
    positions.reverse()
    return positions


def _line(position: Position, known: dict[Position, str]) -> str:
    text = known.get(position)
    if text is None:
        code, number = position
        if number <= 0:
            number = code.co_firstlineno
        source = linecache.getline(code.co_filename, number).strip()
        text = f'  File "{code.co_filename}", line {number}, in {code.co_name}\n'
        if source:
            text += f"    {source}\n"
        known[position] = text
    return text


def _visible(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code in hidden:
        trace = trace.tb_next
    return trace


_OWN_FILE = write.__code__.co_filename
