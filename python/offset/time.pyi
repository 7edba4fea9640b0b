"""Time, as Go's package `time`. Durations are seconds."""

from datetime import timedelta
from typing import Final

from offset._runtime import NilChan, RecvChan
from offset._runtime import Ticker as Ticker
from offset._runtime import Timer as Timer
from offset._runtime import after as after
from offset._runtime import after_func as after_func
from offset._runtime import now as now
from offset._runtime import sleep as sleep

__all__ = [
    "HOUR",
    "MICROSECOND",
    "MILLISECOND",
    "MINUTE",
    "NANOSECOND",
    "SECOND",
    "After",
    "AfterFunc",
    "Tick",
    "Ticker",
    "Timer",
    "after",
    "after_func",
    "now",
    "sleep",
    "tick",
]

NANOSECOND: Final[float]
MICROSECOND: Final[float]
MILLISECOND: Final[float]
SECOND: Final[float]
MINUTE: Final[float]
HOUR: Final[float]

def tick(d: float | timedelta) -> RecvChan[float] | NilChan:
    """Give the channel of a new `Ticker(d)`; `nilchan` for a period that is zero or negative."""

After = after
AfterFunc = after_func
Tick = tick
