"""The text of a DeadlockError: every goroutine's stack, what it waits for, and what to do about it.

    goroutine 2 [sync.Mutex.Lock] transfer:
      File "bank.py", line 5, in transfer
        with second:
      waits for <offset.Mutex object at 0x7f...>, which goroutine 3 has locked
    created by bank.py:10 in main in goroutine 1

    What to do:
    * Goroutines 2 and 3 wait for each other's locks: take locks in the same order everywhere.

Invariants:

* What a goroutine waits for is found by what holds what, as leaks are (leaks.rs), and may be missing; then
  nothing is said of it, or what is true of all such waits.
* Advice is given for a wait once, however many goroutines wait so.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, NamedTuple

from offset import _dump, _exit, _leaks, _runtime

if TYPE_CHECKING:
    from offset._runtime import Goroutine

# So many pieces of advice are given, and so many goroutines named in one.
_SHOWN = 8

_LOCKS = {"sync.Mutex.Lock", "sync.RWMutex.Lock", "sync.RWMutex.RLock"}
_FOR_OTHERS = {"sync.WaitGroup.Wait", "join"}

# By wait reason. `{what}` is what is waited for, `{waits}` "waits" or "wait".
_ADVICE = {
    "chan receive": "{waits} to receive from {what}, and nobody is left to send on it or to close it: "
    "where values are sent, call close() after the last one; `for` and recv() end with that.",
    "chan send": "{waits} to send on {what}, and nobody is left to receive: "
    "receive as many values as are sent, or make room for them with makechan(size).",
    "chan receive (nil chan)": "{waits} to receive from nilchan, which never has anything: "
    "make a channel with makechan().",
    "chan send (nil chan)": "{waits} to send on nilchan, which nobody ever receives from: "
    "make a channel with makechan().",
    "select": "{waits} in a select of which no case can happen any more: "
    "have somebody close one of its channels, or add a case that comes in any event, ctx.done() or time.after().",
    "select (no cases)": "{waits} in select() without cases, which never ends: give it the cases, or return instead.",
    "sync.WaitGroup.Wait": "{waits} for {what}: "
    "each add() needs one done(), also where the work fails; group.go(fn) does both.",
    "sync.Cond.Wait": "{waits} for a Cond, and nobody is left to call signal() or broadcast(): whoever changes what is "
    "waited for calls it afterwards; and who waits looks first, `while not ready: cond.wait()`.",
    "semacquire": "{waits} for {what}: whoever has acquired them must release() them, as `with semaphore:` does.",
}


class _Wait(NamedTuple):
    """What one goroutine waits for, as far as it was found."""

    goroutine: Goroutine
    reason: str
    places: list[Any]

    @property
    def id(self) -> int:
        return self.goroutine.id

    def awaited(self) -> int | None:
        """Give the goroutine that has the lock that it waits for, or that it joins; 0 for a thread, None if neither."""
        if len(self.places) != 1:
            return None
        (place,) = self.places
        return place.id if isinstance(place, _runtime.Goroutine) else _runtime.taker(place)


def text() -> str:
    """Describe a deadlock."""
    goroutines = _exit.alive()
    waits = _waits()
    stacks = _dump.stacks(goroutines, waits={wait.id: _lines(wait) for wait in waits.values()})
    advice = _advice(waits)
    rest = f"\n\nWhat to do:\n{advice}" if advice else ""
    return f"all goroutines are asleep - deadlock!\n\n{stacks.rstrip()}{rest}"


def _waits() -> dict[int, _Wait]:
    found = _runtime.find_waits(gc.get_objects(), dict(_leaks.depths_of_waiting()))
    return {
        goroutine.id: _Wait(goroutine, goroutine.wait_reason, places)
        for goroutine, places in found
        if goroutine.wait_reason
    }


def _lines(wait: _Wait) -> list[str]:
    """Say what a goroutine waits for."""
    taker = wait.awaited() if wait.reason in _LOCKS else None
    has = "" if taker is None else f", which {_who([taker])} has locked"
    return [f"{place!r}{has}" for place in wait.places if not isinstance(place, _runtime.Member)]


def _advice(waits: dict[int, _Wait]) -> str:
    rings = _rings(waits)
    lines = [_of_ring(ring, waits) for ring in rings]
    inside = {number for ring in rings for number in ring}
    alike: dict[str, list[int]] = {}
    others = [wait for wait in waits.values() if wait.id not in inside]
    # Who waits for a group waits for its members: they are what to look at, if they wait, too.
    causes = [wait for wait in others if wait.reason not in _FOR_OTHERS]
    for wait in causes if causes or rings else others:
        template = _lock_advice(wait) if wait.reason in _LOCKS else _ADVICE.get(wait.reason)
        if template is not None:
            alike.setdefault(template.replace("{what}", _what(wait)), []).append(wait.id)
    for template, numbers in alike.items():
        line = template.replace("{waits}", "waits" if len(numbers) == 1 else "wait")
        lines.append(f"{_who(numbers).capitalize()} {line}")
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more waits of other kinds."]
    return "\n".join(f"* {line}" for line in lines)


def _what(wait: _Wait) -> str:
    """Name what is waited for; in words that fit any such thing if it was not found."""
    (place,) = wait.places if len(wait.places) == 1 else (None,)
    if wait.reason.startswith("chan "):
        label = getattr(place, "label", None)
        return f"the channel {label!r}" if label else "a channel"
    if wait.reason == "sync.WaitGroup.Wait":
        if isinstance(place, _runtime.WaitGroup):
            return f"a WaitGroup whose counter is still {place.stats()['count']}"
        return "a WaitGroup whose counter does not come down"
    if wait.reason == "semacquire":
        if isinstance(place, _runtime.Semaphore):
            counts = place.stats()
            return f"a Semaphore of whose {counts['size']} units {counts['size'] - counts['free']} are out"
        return "units of a Semaphore"
    return type(place).__name__ if place is not None else "a lock"


def _lock_advice(wait: _Wait) -> str:
    """Say what to do about a lock that nobody in a circle has."""
    taker = wait.awaited()
    if taker is None:
        return "{waits} for a lock: unlock it wherever it is locked, as `with` does."
    if taker == 0:
        return "{waits} for a lock that a thread has locked: unlock it there, as `with` does."
    if any(goroutine.id == taker for goroutine in _runtime.all_goroutines()):
        return (
            f"{{waits}} for a lock that goroutine {taker} has, which waits itself: do not wait for others while you "
            "hold a lock that they need."
        )
    return (
        f"{{waits}} for a lock that goroutine {taker} had taken and did not unlock before it ended: `with` unlocks it "
        "however the block is left."
    )


def _rings(waits: dict[int, _Wait]) -> list[list[int]]:
    """Find the goroutines that wait for each other, by locks and joins, in circles."""
    rings: list[list[int]] = []
    seen: set[int] = set()
    for start in waits:
        path: list[int] = []
        number: int | None = start
        while number in waits and number not in seen:
            seen.add(number)
            path.append(number)
            number = waits[number].awaited()
        if number in path:
            rings.append(path[path.index(number) :])
    return rings


def _of_ring(ring: list[int], waits: dict[int, _Wait]) -> str:
    """Say what to do about goroutines that wait for each other."""
    locks = all(waits[number].reason in _LOCKS for number in ring)
    if len(ring) == 1:
        return (
            f"Goroutine {ring[0]} waits for a lock that it has itself, and a lock is not taken twice: unlock it first, "
            "or call there a function that expects it to be locked."
        )
    who = _who(ring).capitalize()
    if not locks:
        return f"{who} wait for each other, one of them with a lock in hand: unlock it before join()."
    chain = ", ".join(f"{number} for one that {waits[number].awaited()} has" for number in ring[:_SHOWN])
    return f"{who} wait for each other's locks ({chain}): take locks in the same order everywhere."


def _who(numbers: list[int]) -> str:
    """Name goroutines; a thread is 0."""
    if numbers == [0]:
        return "a thread"
    if len(numbers) == 1:
        return f"goroutine {numbers[0]}"
    shown = [str(number) for number in numbers[:_SHOWN]]
    if len(numbers) > _SHOWN:
        return f"goroutines {', '.join(shown)} and {len(numbers) - _SHOWN} more"
    return f"goroutines {', '.join(shown[:-1])} and {shown[-1]}"
