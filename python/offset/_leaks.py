"""Goroutines that wait for ever, because nobody else can reach what they wait for.

The search itself is in Rust (leaks.rs). It must know what a parked goroutine's frames hold. From 3.14 on a frame says
how much of its stack is in use; before, that follows from the code and the instruction, and is worked out here.

Invariant of `depths`: what a frame at an instruction does not certainly own, once, is not counted. An instruction that
is not in `_OWNED` counts for nothing on the stack.
"""

from __future__ import annotations

import dis
import gc
import sys
from typing import TYPE_CHECKING

from offset import _dump, _failure, _runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

    from offset._runtime import Goroutine

_UNKNOWN = 255
# Added to the number where a `with` block begins.
_ENTERS = 128
# By instruction, how many of the values on top of the stack the frame may have given up by the time it calls something.
_OWNED = {"CALL": 0, "PRECALL": 0, "CALL_KW": 0, "FOR_ITER": 0, "SEND": 0, "BEFORE_WITH": sys.version_info >= (3, 12)}
_JUMPS = {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"}
_ENDS = {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"}


class Leaks(list["Goroutine"]):
    """The goroutines that `runtime.leaks()` has found, by id.

    `str()` gives their stacks, each with what it waits for and where it was created, equal ones together.
    """

    def __init__(self, goroutines: Iterable[Goroutine], waits: dict[int, list[str]]) -> None:
        super().__init__(goroutines)
        self._waits = waits
        self._text = _dump.grouped(self, waits)

    @property
    def waits(self) -> dict[int, list[str]]:
        """By the id of a goroutine, the channels and locks that it waits for, as text."""
        return self._waits

    def cancel(self) -> None:
        """Raise GoroutineExit in each of them: their `finally` blocks run, and they end."""
        for goroutine in self:
            goroutine.cancel()

    def stats(self) -> dict[str, int]:
        """Give how many they are by wait reason."""
        counts: dict[str, int] = {}
        for goroutine in self:
            reason = goroutine.wait_reason or goroutine.status
            counts[reason] = counts.get(reason, 0) + 1
        return counts

    def __str__(self) -> str:
        count = len(self)
        if not count:
            return "no goroutine is leaked"
        what = "goroutine is" if count == 1 else "goroutines are"
        return f"{count} {what} leaked: nobody else can reach what they wait for\n\n{self._text}"


def leaks(*, end: bool = False, handles: bool = False) -> Leaks:
    """Find the goroutines that wait for ever (Go: the profile "goroutineleak").

    Those are the goroutines that wait, without a timeout, for channels, locks or each other, none of which anybody can
    reach who may still run. To hold a goroutine's handle is no way to reach what it waits for; with `handles` it counts
    as one, as it can be cancelled by it. A scope counts as long as its context may end. What cannot be decided, such as
    what only an extension module holds, counts as reached: a goroutine that is found is leaked, but one may be
    overlooked. The main goroutine of a run is never found, as Ctrl-C reaches it.

    With `end` they are cancelled, too. All Python code stands still meanwhile, for about the time of a full
    collection.
    """
    run = _failure.active()
    depths = dict(depths_of_waiting())
    found = _runtime.find_leaks(gc.get_objects(), depths, run.main_id if run is not None else 0, handles)
    waits = {goroutine.id: [repr(place) for place in places] for goroutine, places in found}
    result = Leaks([goroutine for goroutine, _ in found], waits)
    del found
    if end:
        result.cancel()
    return result


def depths_of_waiting() -> Iterator[tuple[CodeType, bytes]]:
    """Give the depths of the code that waiting goroutines are in, where they are not in the frames."""
    if sys.version_info >= (3, 14):
        return
    waiting = {goroutine.ident for goroutine in _runtime.all_goroutines() if goroutine.wait_reason}
    positions = _runtime.positions(waiting - {0})
    for code in {id(code): code for frames in positions.values() for code, _ in frames}.values():
        yield code, depths(code)


def depths(code: CodeType) -> bytes:
    """Give, for each code unit, how many values on the stack the frame owns while it is there; 255: unknown."""
    steps = {step.offset: step for step in dis.get_instructions(code)}
    following = dict(zip(steps, [*steps][1:], strict=False))
    result = bytearray([_UNKNOWN]) * (len(code.co_code) // 2)
    # A function that is a generator gets what its caller sends where it begins.
    known: dict[int, int] = {}
    work = [(0, 0)] if steps else []
    # Each handler begins with what was on the stack, perhaps the instruction, and the exception.
    # Not public, and so in no stub; nothing that is public gives the table.
    parse = dis._parse_exception_table  # type: ignore[attr-defined]
    work += [(entry.target, entry.depth + entry.lasti + 1) for entry in parse(code)]
    while work:
        offset, depth = work.pop()
        while offset in steps:
            if offset in known:
                if known[offset] != depth:
                    return b""
                break
            known[offset] = depth
            step = steps[offset]
            name = step.opname
            owned = -1
            if name in _OWNED:
                owned = depth - _OWNED[name]
                if name == "CALL" and sys.version_info < (3, 12):
                    # The arguments are told to go with PRECALL, and go here.
                    owned += step.arg or 0
            elif name == "CALL_FUNCTION_EX":
                owned = depth - 1 - (step.arg or 0) % 2
            if 0 <= owned < _ENTERS - 1:
                result[offset // 2] = owned + (_ENTERS if name == "BEFORE_WITH" else 0)
            if name in _ENDS:
                break
            argument = step.arg if step.opcode >= dis.HAVE_ARGUMENT else None
            if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
                work.append((step.argval, depth + dis.stack_effect(step.opcode, argument, jump=True)))
                if name in _JUMPS:
                    break
            depth += 1 if name == "RETURN_GENERATOR" else dis.stack_effect(step.opcode, argument, jump=False)
            if depth < 0:
                return b""
            offset = following.get(offset, -1)
    return bytes(result)
