"""Durations as the package takes them: seconds, or a `datetime.timedelta`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    Seconds = float | timedelta


def seconds(given: Seconds) -> float:
    """Give a duration in seconds.

    Raises TypeError for what is none, and ValueError for NaN, with the words of the runtime's own calls.
    """
    if hasattr(given, "total_seconds"):
        return given.total_seconds()
    if isinstance(given, str | bytes) or not (hasattr(given, "__float__") or hasattr(given, "__index__")):
        raise TypeError(f"a duration is a number of seconds or a timedelta, not {type(given).__name__}")
    value = float(given)
    if value != value:
        raise ValueError("a duration must be a number of seconds, not NaN")
    return value
