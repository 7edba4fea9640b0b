"""`offset.syscall.time`: a sleep that parks only the goroutine."""

import fractions
import sys
import time as original

import offset
import pytest
from helpers import go_parked, main_goroutine, refusal, wait_ended
from offset.syscall import time


class Index:
    """An integer in disguise."""

    def __index__(self):
        return 0


class Seconds(float):
    """A float of a class of its own."""


@pytest.mark.parametrize(
    "value",
    [-1, -0.5, float("nan"), float("inf"), 1e30, 2**70, -(2**70), "1", None, fractions.Fraction(1, 2), 1j],
    ids=repr,
)
def test_what_is_refused(value):
    expected = refusal(lambda: original.sleep(value))
    if not isinstance(expected, tuple):
        # This version takes it.
        return
    assert refusal(lambda: time.sleep(value)) == expected
    assert offset.run(lambda: refusal(lambda: time.sleep(value))) == expected


@pytest.mark.parametrize("value", [0, 0.0, 0.001, Seconds(0.001), Index()], ids=repr)
def test_what_is_taken(value):
    assert time.sleep(value) is None
    assert offset.run(time.sleep, value) is None
    with pytest.raises(TypeError):
        time.sleep()
    with pytest.raises(TypeError):
        time.sleep(seconds=value)


@main_goroutine
def test_a_sleep_parks_the_goroutine():
    sleeping = [go_parked(time.sleep, 3600, reason="sleep") for _ in range(50)]
    for each in sleeping:
        each.cancel()
    wait_ended(*sleeping)


@main_goroutine
def test_a_sleep_of_nothing_lets_others_run():
    turns = []
    other = offset.go(turns.append, "other")
    while not turns:
        time.sleep(0)
    wait_ended(other)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="since 3.13")
@main_goroutine
def test_a_sleep_is_audited():
    events, listening = [], [True]

    def hook(event, args):
        if listening and event == "time.sleep":
            events.append(args)

    sys.addaudithook(hook)
    time.sleep(0.001)
    time.sleep(0)
    listening.clear()
    assert events == [(0.001,), (0,)]


def test_everything_else_is_the_originals(monkeypatch):
    for name in dir(original):
        if not name.startswith("_") and name not in ("sleep", "pthread_getcpuclockid"):
            assert getattr(time, name) is getattr(original, name)
    assert set(time.__all__) == {name for name in dir(original) if not name.startswith("_")}
    # `tzset` changes it.
    monkeypatch.setattr(original, "timezone", 12345)
    assert time.timezone == 12345
    with pytest.raises(AttributeError):
        time.nothing


@main_goroutine
def test_a_goroutine_has_no_clock():
    import threading

    assert time.pthread_getcpuclockid(threading.main_thread().ident) == original.pthread_getcpuclockid(
        threading.main_thread().ident
    )
    with pytest.raises(ProcessLookupError):
        time.pthread_getcpuclockid(threading.get_ident())
