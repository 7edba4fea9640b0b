"""What keeps a program from being patched: reasons, in words that say what to do.

Nothing that exists is exchanged by patching, so what was made before goes on working; but what is in the middle of
something with the originals would go on with a mixture of both.
"""

from __future__ import annotations

import _thread
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long a lock that another thread holds just for a moment may be waited for, in seconds.
_MOMENT = 0.2

_LOCKS: tuple[type, ...] = (type(_thread.allocate_lock()), _thread.RLock, threading._RLock)


def obstacles(expected: dict[str, types.ModuleType]) -> list[str]:
    """Tell what is in the way. `expected` are the modules to be patched, by name."""
    return [*_others(expected), *_loops(), *_held_locks()]


def _others(expected: dict[str, types.ModuleType]) -> Iterator[str]:
    """Others that patch, and have done so."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and getattr(monkey, "saved", None):
        yield "gevent has patched the standard library: a program can be patched by one of the two only"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and getattr(patcher, "already_patched", None):
        yield "eventlet has patched the standard library: a program can be patched by one of the two only"
    for name, module in expected.items():
        there = sys.modules.get(name)
        if there is not module or not isinstance(there, types.ModuleType):
            yield f"sys.modules[{name!r}] is not the module that its proxy was made of: patch before it is exchanged"


def _loops() -> Iterator[str]:
    """Event loops that run, in any thread: they keep descriptors and timers by the originals."""
    bodies = dict.fromkeys(_asyncio_bodies(), "an asyncio event loop runs")
    seen = set()
    if bodies:
        for ident, frame in sys._current_frames().items():
            step: types.FrameType | None = frame
            while step is not None:
                if step.f_code in bodies:
                    seen.add(ident)
                    where = "in this thread" if ident == threading.get_ident() else f"in thread {ident}"
                    yield f"{bodies[step.f_code]} {where}: call patch_all() before it starts, or when it has ended"
                    break
                step = step.f_back
    events = sys.modules.get("asyncio.events")
    if events is not None and threading.get_ident() not in seen and events._get_running_loop() is not None:
        yield "an event loop runs in this thread: call patch_all() before it starts, or when it has ended"
    lowlevel = sys.modules.get("trio.lowlevel")
    if lowlevel is not None and getattr(lowlevel, "in_trio_run", bool)():
        yield "trio runs in this thread: call patch_all() before it starts, or when it has ended"
    hub = sys.modules.get("gevent._hub_local")
    if hub is not None and hub.get_hub_if_exists():
        yield "a gevent hub runs in this thread: goroutines and greenlets do not share one"


def _asyncio_bodies() -> Iterator[types.CodeType]:
    base = sys.modules.get("asyncio.base_events")
    if base is not None:
        yield base.BaseEventLoop.run_forever.__code__
    runners = sys.modules.get("asyncio.runners")
    if runners is not None:
        # Of loops that are not written in Python, too.
        yield runners.Runner.run.__code__


def _held_locks() -> Iterator[str]:
    """Locks of modules and of their classes that somebody holds: who does is in the middle of something."""
    seen = set()
    for name, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType) or name.partition(".")[0] == "offset" or id(module) in seen:
            continue
        # The main module has two names while multiprocessing is loaded.
        seen.add(id(module))
        for place, lock in _locks_in(name, module):
            if _is_held(lock):
                yield (
                    f"{place} is held: who waits for it in a goroutine would block a thread, as it stays a "
                    f"lock of the original's; call patch_all() when it is free"
                )


def _locks_in(name: str, module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    for attribute, value in list(vars(module).items()):
        yield from _lock_of(f"{name}.{attribute}", value)
        if isinstance(value, type) and getattr(value, "__module__", None) == name:
            for inner, member in list(vars(value).items()):
                yield from _lock_of(f"{name}.{value.__qualname__}.{inner}", member)


def _lock_of(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    lock = getattr(value, "_lock", None) if isinstance(value, threading.Condition) else value
    if issubclass(type(lock), _LOCKS):  # `isinstance` takes those of the proxies for originals
        yield place, lock


def _is_held(lock: Any) -> bool:
    owned = getattr(lock, "_is_owned", None)
    if owned is not None and owned():
        return True
    if not lock.acquire(timeout=_MOMENT):
        return True
    lock.release()
    return False
