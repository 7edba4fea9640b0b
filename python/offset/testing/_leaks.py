"""Goroutines that are left when they should not be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from offset import _dump, _runtime
from offset._duration import seconds as duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offset._duration import Seconds

# How long goroutines that are about to end get for that.
PATIENCE = 1.0

# They get it in turns of so many seconds. A turn counts as that however long it took: where the machine stands still
# for a second, nobody has had the time to end.
_TURN = 0.02


class LeakError(AssertionError):
    """Goroutines are left. The text has their stacks, what they wait for and where they were created."""


@contextlib.contextmanager
def leak_check(patience: Seconds = PATIENCE) -> Iterator[None]:
    """Raise LeakError at the end of a `with` block if goroutines that were started inside are left.

    They get `patience` seconds to end, not counting those in which the process as a whole stood still. If the block
    raises, that is raised.
    """
    seconds = duration(patience)
    before = {goroutine.id for goroutine in _runtime.goroutines()}
    yield
    left = remaining(before, seconds)
    if left:
        raise LeakError(describe(left))


def remaining(before: set[int], seconds: float) -> list[_runtime.Goroutine]:
    """Give the goroutines that are there and were not `before`, once they had so long to end."""
    left = seconds
    while True:
        found = _started_since(before)
        if not found or left <= 0:
            return found
        for goroutine in found:
            while left > 0 and not goroutine.join(timeout=min(left, _TURN)):
                left -= _TURN
        # They may have started others on their way out, which may do so, too, without an end.
        left -= _TURN


def _started_since(before: set[int]) -> list[_runtime.Goroutine]:
    here = _runtime.current()
    return [
        goroutine
        for goroutine in _runtime.goroutines()
        if goroutine.id not in before and (here is None or goroutine.id != here.id)
    ]


def describe(left: list[_runtime.Goroutine]) -> str:
    """Name the goroutines that are left, with their stacks."""
    count = "a goroutine is" if len(left) == 1 else f"{len(left)} goroutines are"
    return f"{count} left:\n\n{_dump.stacks(left)}"
