"""Time, as Go's package `time`: sleep, timers, tickers, and the names of durations.

Durations are seconds (`float` or `datetime.timedelta`), and so are the constants: `sleep(100 *
MILLISECOND)`. Times are float seconds of the monotonic clock, as `now()` gives them. Timers follow Go 1.23:
once `stop` or `reset` has returned, no value from before can be received. `After`, `AfterFunc` and `Tick`
are older names of `after`, `after_func` and `tick`.
"""

from offset._runtime import Ticker, Timer, after, after_func, nilchan, now, sleep

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

NANOSECOND = 1e-9
MICROSECOND = 1e-6
MILLISECOND = 1e-3
SECOND = 1.0
MINUTE = 60.0
HOUR = 3600.0


def tick(d):
    """Give the channel of a new `Ticker(d)`: the time every `d` seconds, for ever.

    As in Go a period that is zero or negative gives `nilchan`, which never ticks.
    """
    seconds = d.total_seconds() if hasattr(d, "total_seconds") else d
    if seconds <= 0:
        return nilchan
    return Ticker(d).c


After = after
AfterFunc = after_func
Tick = tick
