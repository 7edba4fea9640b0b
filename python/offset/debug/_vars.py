"""Values that a program publishes, as Go's package `expvar`."""

from __future__ import annotations

import gc
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from offset import _live, _runtime

if TYPE_CHECKING:
    from collections.abc import Callable

# By name, the value or what gives it. It only grows, in single steps.
_published: dict[str, tuple[Any]] = {}


def publish(name: str, value: Any, /) -> None:
    """Show a value at `/debug/vars`, as Go's `expvar.Publish`.

    `value` is shown as it is at the time of a request; if it is callable, it is called, without arguments, in a
    goroutine, and its result is shown: `publish("jobs", jobs.stats)`. What JSON cannot say is shown by its `repr`, and
    an exception instead of the value. Raises ValueError if the name is taken, as names are for the whole process.
    """
    if not isinstance(name, str):
        raise TypeError(f"publish needs a name, not {type(name).__name__}")
    entry = (value,)
    if name in BUILT_IN or _published.setdefault(name, entry) is not entry:
        raise ValueError(f"the name {name!r} is published already")


def _cmdline() -> list[str]:
    return [str(word) for word in getattr(sys, "orig_argv", sys.argv)]


BUILT_IN: dict[str, Callable[[], Any]] = {
    "cmdline": _cmdline,
    "collector": gc.get_stats,
    "goroutines": lambda: _runtime.states() if _runtime.started() else {},
    "process": _live.process,
    "runtime": _runtime.stats,
}


def text() -> str:
    """Give all values as a JSON object with a line for each, by name."""
    known = BUILT_IN | {name: value for name, (value,) in _published.copy().items()}
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_value(known[name])}" for name in sorted(known)) + "\n}\n"


def _value(value: Any) -> str:
    try:
        if callable(value):
            value = value()
        return json.dumps(_plain(value), default=repr)
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


def _plain(value: Any) -> Any:
    """Give a copy without what JSON has no words for: numbers that are none, keys that are no strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(each) for key, each in list(value.items())}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
