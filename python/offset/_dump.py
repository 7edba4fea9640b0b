"""Stacks of goroutines as text, in the shape of Go's dumps with Python's lines for the frames.

    goroutine 7 [chan receive] worker:
      File "pool.py", line 12, in worker
        job = jobs.recv()
    created by pool.py:20 in main in goroutine 1

`grouped` puts those with equal stacks together:

    3 goroutines [chan receive, 0.2 s to 2.1 min] worker: 7, 8, 9
      File "pool.py", line 12, in worker
    ...

Invariant: the frames of all goroutines are collected at one moment, in which none of them runs, and before the
first source line is read, because reading one may let other goroutines run. The frames that `run` puts under
the main function are left out.
"""

from __future__ import annotations

import linecache
import sys
import threading
import traceback
from typing import TYPE_CHECKING, NamedTuple

from offset import _runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import CodeType, FrameType, TracebackType

    from offset._runtime import Goroutine

    # The id of a goroutine, for how many seconds it waits, the id of its creator.
    Member = tuple[int, float, int]
    # Where a goroutine is, or why that cannot be said.
    Body = list["Position"] | str
    Position = tuple[CodeType, int]

# Code objects whose frames carry a goroutine's function and say nothing about the program.
hidden: set[CodeType] = set()
# So many stacks are printed one by one; of more, equal ones are put together.
MANY = 200
# So many ids of a group are listed.
LISTED = 20
# The file whose `go` starts main goroutines, followed by a colon.
starter = ""


class Task(NamedTuple):
    """A task of the library's own event loop."""

    name: str
    state: str
    where: Body


# Gives the tasks of the library's own event loop, None if it is too busy to tell; set by what starts that.
tasks_of_loop: Callable[[], list[Task] | None] = list


def write(text: str) -> None:
    """Write `text` to `sys.stderr` in one piece and flush it; without a usable stderr, do nothing."""
    stream = sys.stderr
    try:
        stream.write(text)
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass


def header(goroutine: Goroutine, times: bool = False) -> str:
    """Give the line that opens a goroutine's stack, without the colon; with `times`, how many minutes it waits."""
    state = goroutine.wait_reason or goroutine.status
    minutes = int(goroutine.waited // 60) if times else 0
    if minutes:
        state += f", {minutes} minute{'s' if minutes > 1 else ''}"
    return f"goroutine {goroutine.id} [{state}] {goroutine.name}"


def creator(goroutine: Goroutine) -> str:
    """Give the line that says where a goroutine was created."""
    return _created(goroutine.created_at, {goroutine.creator})


def _created(place: str, creators: set[int]) -> str:
    if starter and place.startswith(starter):
        return "created by offset.run\n"
    parents = sorted(creators - {0})
    if len(parents) > 1:
        return f"created by {place} in {len(parents)} goroutines\n"
    parent = f" in goroutine {parents[0]}" if parents and 0 not in creators else ""
    return f"created by {place}{parent}\n"


def duration(seconds: float) -> str:
    """Give a time in the unit that suits it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def exception(exc: BaseException) -> str:
    """Format an exception as Python does, without the frames that carry a goroutine's function."""
    return "".join(traceback.format_exception(type(exc), exc, _visible(exc.__traceback__)))


def failure(goroutine: Goroutine, exc: BaseException) -> str:
    """Format the report of an exception that left a goroutine."""
    return f"Exception in {header(goroutine)}:\n{exception(exc)}{creator(goroutine)}"


def stacks(goroutines: Iterable[Goroutine], times: bool = False, waits: dict[int, list[str]] | None = None) -> str:
    """Format the stacks of `goroutines`, one after the other with an empty line between. `waits` as for `grouped`."""
    collected = [
        (header(goroutine, times), body, _waiting(goroutine.id, waits) + creator(goroutine))
        for goroutine, body in _collected(list(goroutines))
    ]
    known: dict[Position, str] = {}
    return "\n".join(f"{head}:\n{_text(body, known)}{tail}" for head, body, tail in collected)


def _waiting(number: int, waits: dict[int, list[str]] | None) -> str:
    return "".join(f"  waits for {line}\n" for line in waits.get(number, ())) if waits else ""


class Group(NamedTuple):
    """Goroutines whose stacks are equal: in the same state, of the same name, created at the same place."""

    state: str
    waiting: bool
    name: str
    place: str
    where: str | tuple[Position, ...]
    lines: tuple[str, ...]
    members: list[Member]
    """By id."""


def groups(goroutines: Iterable[Goroutine], waits: dict[int, list[str]] | None = None) -> list[Group]:
    """Put `goroutines` with equal stacks together; the largest groups first. `waits` as for `grouped`."""
    found: dict[tuple[str, bool, str, str, str | tuple[Position, ...], tuple[str, ...]], list[Member]] = {}
    for goroutine, body in _collected(list(goroutines)):
        reason = goroutine.wait_reason
        where = body if isinstance(body, str) else tuple(body)
        lines = tuple(waits.get(goroutine.id, ())) if waits is not None else ()
        key = (reason or goroutine.status, reason is not None, goroutine.name, goroutine.created_at, where, lines)
        found.setdefault(key, []).append((goroutine.id, goroutine.waited, goroutine.creator))
    result = [Group(*key, members) for key, members in found.items()]
    result.sort(key=lambda group: (-len(group.members), group.members[0]))
    return result


def stack_text(group: Group, known: dict[Position, str]) -> str:
    """Format the stack of a group; `known` keeps the lines for the next one."""
    return _text(group.where if isinstance(group.where, str) else list(group.where), known)


def creator_text(group: Group) -> str:
    """Give the line that says where the goroutines of a group were created."""
    return _created(group.place, {creator for _, _, creator in group.members})


def grouped(goroutines: Iterable[Goroutine], waits: dict[int, list[str]] | None = None) -> str:
    """Format the stacks of `goroutines`, those that are equal once, the largest groups first.

    `waits` are lines that say what a goroutine waits for, by its id.
    """
    known: dict[Position, str] = {}
    parts = []
    for group in groups(goroutines, waits):
        state, members = group.state, group.members
        if group.waiting:
            shortest, longest = (duration(pick(waited for _, waited, _ in members)) for pick in (min, max))
            state += f", {shortest}" + (f" to {longest}" if longest != shortest else "")
        if len(members) == 1:
            head = f"goroutine {members[0][0]} [{state}] {group.name}:\n"
        else:
            head = f"{len(members)} goroutines [{state}] {group.name}: {_listed([member[0] for member in members])}\n"
        text = stack_text(group, known) + "".join(f"  waits for {line}\n" for line in group.lines)
        parts.append(head + text + creator_text(group))
    return "\n".join(parts)


def everything(group: bool | None = None) -> str:
    """Format the stacks of all goroutines, and of the tasks of the library's own event loop.

    Equal ones are put together if `group` says so; if it is None, where there are many.
    """
    goroutines = _runtime.all_goroutines()
    if not (len(goroutines) > MANY if group is None else group):
        text = stacks(goroutines, times=True)
    elif group:
        text = grouped(goroutines)
    else:
        text = f"{len(goroutines)} goroutines\n\n{grouped(goroutines)}"
    try:
        rest = _tasks(group)
    except Exception as error:
        # They are of classes of anybody's.
        rest = f"tasks of asyncio cannot be told: {type(error).__name__}: {error}\n"
    return f"{text}\n{rest}" if rest else text


def _tasks(group: bool | None) -> str:
    """Format where the tasks of the library's own event loop are: what each awaits, the innermost last."""
    tasks = tasks_of_loop()
    if tasks is None:
        return "tasks of asyncio: their loop is busy and does not answer; its thread shows with what\n"
    # A name may have anything in it: a path of a request has what a client sent.
    tasks = [task if task.name.isprintable() else task._replace(name=repr(task.name)) for task in tasks]
    known: dict[Position, str] = {}
    if not (len(tasks) > MANY if group is None else group):
        return "\n".join(f"task {task.name} [{task.state}]:\n{_text(task.where, known)}" for task in tasks)
    found: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        found.setdefault((task.state, _text(task.where, known)), []).append(task.name)
    parts = []
    for (state, where), names in sorted(found.items(), key=lambda item: -len(item[1])):
        if len(names) == 1:
            head = f"task {names[0]} [{state}]:\n"
        else:
            head = f"{len(names)} tasks [{state}]: {_listed(names)}\n"
        parts.append(head + where)
    return "\n".join(parts)


def _listed(things: Sequence[object]) -> str:
    """List the first ones, and say how many more there are."""
    more = f" and {len(things) - LISTED} more" if len(things) > LISTED else ""
    return ", ".join(map(str, things[:LISTED])) + more


def _collected(goroutines: list[Goroutine]) -> list[tuple[Goroutine, Body]]:
    """Give where each of them is, as of one moment."""
    caller = _runtime.current()
    elsewhere = {goroutine.ident for goroutine in goroutines if goroutine != caller and goroutine.ident}
    frames = _runtime.positions(elsewhere) if elsewhere else {}
    return [
        (goroutine, _positions(sys._getframe(1)) if goroutine == caller else _positions_of(goroutine, frames))
        for goroutine in goroutines
    ]


def _text(body: Body, known: dict[Position, str]) -> str:
    return body if isinstance(body, str) else "".join(_line(position, known) for position in body)


def stack(all: bool = False, *, group: bool = False) -> str:
    """Give the stack of the calling goroutine, or with `all` those of every one, as Go's `runtime.Stack`.

    Each stack opens with "goroutine ID [wait reason] name:" and ends with the place where the goroutine was
    created; one that has waited for a minute or more says so, "[chan receive, 3 minutes]". The calling goroutine comes
    first. Outside a goroutine the calling thread's stack comes first.

    With `group` the other goroutines follow in groups of equal stacks, the largest first: how many they are, what they
    wait for, the shortest and the longest time, and their ids, "3 goroutines [chan receive, 0.2 s to 1.5 s] worker:
    7, 8, 9".
    """
    caller = _runtime.current()
    if caller is None:
        known: dict[Position, str] = {}
        own = "".join(_line(position, known) for position in _positions(sys._getframe(1)))
        text = f"thread {threading.current_thread().name} [running]:\n{own}"
    else:
        text = stacks([caller])
    if all:
        others = [goroutine for goroutine in _runtime.all_goroutines() if goroutine != caller]
        rest = grouped(others) if group else stacks(others, times=True)
        if rest:
            text = f"{text}\n{rest}"
    return text


def frames(frame: FrameType | None) -> str:
    """Format the stack that `frame` is on top of."""
    known: dict[Position, str] = {}
    return "".join(_line(position, known) for position in _positions(frame))


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
        source = linecache.getline(code.co_filename, number).strip() or _source_of(code, number)
        text = f'  File "{code.co_filename}", line {number}, in {code.co_name}\n'
        if source:
            text += f"    {source}\n"
        known[position] = text
    return text


def _source_of(code: CodeType, number: int) -> str:
    """Give a line of what is in no file, such as a program after `-c`; from 3.14 on Python keeps that by its code."""
    known = getattr(linecache, "_getlines_from_code", None)
    lines = known(code) if known is not None and code.co_filename.startswith("<") else []
    return lines[number - 1].strip() if number <= len(lines) else ""


def _visible(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code in hidden:
        trace = trace.tb_next
    return trace


_OWN_FILE = write.__code__.co_filename
