"""`offset.supervise`: children are started again by policy, with patience that ends."""

from __future__ import annotations

import datetime

import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from offset import current, goexit, makechan, run, sleep
from offset.context import Canceled
from offset.supervise import Backoff, RestartError, Supervisor

AT_ONCE = Backoff(first=0, jitter=0)


class Boom(Exception):
    pass


def quiet(child, error, delay):
    """No report."""


def forever():
    makechan().recv()


def supervisor(**options):
    return Supervisor(**{"backoff": AT_ONCE, "on_failure": quiet, **options})


def failing(times, then=None):
    """A function that fails so often."""
    calls = []

    def fn():
        calls.append(current().id)
        if len(calls) <= times:
            raise Boom(len(calls))
        if then is not None:
            then()

    return fn, calls


# ---- policies --------------------------------------------------------------------------------


@main_goroutine
def test_a_failure_is_a_reason_to_start_again():
    fn, calls = failing(3)
    with supervisor() as group:
        child = group.go(fn)
    assert len(calls) == 4
    assert child.restarts == 3
    assert str(child.error) == "3"
    assert child.done


@main_goroutine
def test_a_return_is_one_with_always():
    calls = []
    enough = makechan(1)

    def fn():
        calls.append(True)
        if len(calls) == 5:
            enough.send(None)
            forever()

    with supervisor() as group:
        child = group.go(fn, restart="always")
        enough.recv()
        child.stop()
    assert child.restarts == 4
    assert child.error is None


@main_goroutine
def test_nothing_is_one_with_never():
    told = []
    fn, calls = failing(1)
    with supervisor(on_failure=lambda child, error, delay: told.append((child.name, str(error), delay))) as group:
        child = group.go(fn, restart="never")
        sibling = group.go(lambda: 1)
    assert len(calls) == 1
    assert child.restarts == sibling.restarts == 0
    assert told == [(child.name, "1", 0.0)]


@main_goroutine
def test_siblings_go_on():
    steady = []

    def sibling():
        steady.append(True)
        box.recv()

    box = makechan()
    fn, _ = failing(5)
    with supervisor() as group:
        group.go(sibling)
        group.go(fn)
        box.send(None)
    assert steady == [True]


@main_goroutine
def test_arguments_are_given_each_time():
    seen = []

    def fn(*args, **kwargs):
        seen.append((args, kwargs))
        if len(seen) < 3:
            raise Boom

    with supervisor() as group:
        group.go(fn, 1, key=2)
    assert seen == [((1,), {"key": 2})] * 3


# ---- limits ----------------------------------------------------------------------------------


@main_goroutine
def test_too_many_restarts_end_it():
    ended = []

    def sibling():
        try:
            forever()
        except Canceled as error:
            ended.append(type(error.__cause__))
            raise

    fn, calls = failing(1000)
    with pytest.raises(RestartError, match=r"more than 3 restarts within 60 s") as caught, supervisor(limit=3) as group:
        group.go(sibling)
        group.go(fn)
    assert len(calls) == 4
    assert isinstance(caught.value.__cause__, Boom)
    assert str(caught.value.__cause__) == "4"
    assert ended == [RestartError]


@main_goroutine
def test_old_restarts_do_not_count():
    fn, calls = failing(6, then=None)

    def slowly():
        sleep(0.004)
        fn()

    with supervisor(limit=3, within=0.01) as group:
        child = group.go(slowly)
    assert child.restarts == 6
    assert len(calls) == 7
    stats = group.stats()
    assert stats.keys() == {"running", "recent_restarts"}
    assert stats["running"] == 0
    assert stats["recent_restarts"] <= 3


@main_goroutine
def test_no_restart_at_all():
    with pytest.raises(RestartError), supervisor(limit=0) as group:
        group.go(failing(1)[0])


# ---- waiting before a start ------------------------------------------------------------------


def test_a_backoff_grows_up_to_its_most():
    backoff = Backoff(first=0.1, most=1.0, factor=2, jitter=0)
    assert [backoff.delay(failures) for failures in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.delay(10**6) == 1.0
    spread = [Backoff(first=1, most=1, jitter=0.2).delay(1) for _ in range(200)]
    assert 0.8 <= min(spread) < max(spread) <= 1.2
    assert Backoff(first=datetime.timedelta(milliseconds=50)).first == 0.05
    assert backoff.stats() == {"first": 0.1, "most": 1.0, "factor": 2, "jitter": 0}


@main_goroutine
def test_it_waits_longer_each_time_that_it_fails_soon():
    delays = []
    fn, _ = failing(4)
    with Supervisor(
        backoff=Backoff(first=0.001, factor=2, jitter=0), on_failure=lambda *told: delays.append(told[2])
    ) as group:
        group.go(fn)
    assert delays == [0.001, 0.002, 0.004, 0.008]


@main_goroutine
def test_a_child_that_waits_for_its_start_can_be_stopped():
    fn, calls = failing(1000)
    with Supervisor(backoff=Backoff(first=1e6), on_failure=quiet) as group:
        child = group.go(fn)
        wait_until(lambda: child.error is not None, "it has failed")
        child.stop()
    assert len(calls) == 1
    assert child.done


# ---- ends ------------------------------------------------------------------------------------


@main_goroutine
def test_stop_ends_all():
    with supervisor() as group:
        for _ in range(3):
            group.go(forever, restart="always")
        sleep(0.001)
        group.stop()
    assert group.stats()["running"] == 0
    assert type(group.ctx.err()) is Canceled


@main_goroutine
def test_goexit_is_an_end():
    with supervisor() as group:
        child = group.go(goexit, restart="always")
    assert child.restarts == 0


def test_the_end_of_the_run_is_an_end(capfd):
    def main():
        group = supervisor()
        group.go(forever, restart="always")
        group.go(failing(2, then=forever)[0])
        sleep(0.002)

    run(main)
    assert capfd.readouterr().err == ""


@main_goroutine
def test_an_error_of_the_block_ends_all():
    with pytest.raises(Boom, match="block"), supervisor() as group:
        group.go(forever, restart="always")
        raise Boom("block")


@main_goroutine
def test_without_a_block():
    group = supervisor()
    fn, calls = failing(2)
    group.go(fn)
    group.wait()
    assert len(calls) == 3
    with pytest.raises(RuntimeError, match="the group is over"):
        group.go(int)


def test_what_a_child_raises_that_ends_programs_does():
    def leave():
        raise SystemExit(5)

    def main():
        with supervisor() as group:
            group.go(leave)

    with pytest.raises(SystemExit):
        run(main)


# ---- reports ---------------------------------------------------------------------------------


def test_a_failure_is_reported_by_itself(capfd):
    def main():
        fn, _ = failing(1)
        with Supervisor(backoff=AT_ONCE) as group:
            group.go(fn)

    run(main)
    report = capfd.readouterr().err
    assert "Boom: 1" in report
    assert "failing.<locals>.fn" in report


@main_goroutine
def test_an_error_in_the_report_is_an_error():
    def report(child, error, delay):
        raise ValueError("the report")

    with pytest.raises(ValueError, match="the report"), supervisor(on_failure=report) as group:
        group.go(failing(1)[0])


@main_goroutine
def test_texts_and_numbers():
    box = makechan()
    with supervisor() as group:
        child = group.go(box.recv)
        wait_until(lambda: child.stats()["status"] == "waiting", "it waits")
        assert child.stats()["restarts"] == 0
        assert group.stats() == {"running": 1, "recent_restarts": 0}
        assert repr(child) == f"<supervise.Child {child.name} restarts=0>"
        box.send(None, timeout=PATIENCE)
    assert repr(child).endswith("done>")


# ---- mistakes --------------------------------------------------------------------------------


def test_mistakes():
    with pytest.raises(ValueError, match="the limit of restarts must not be negative"):
        Supervisor(limit=-1)
    with pytest.raises(ValueError, match="within is a number of seconds"):
        Supervisor(within=-1)
    with pytest.raises(ValueError, match="first is a number of seconds"):
        Backoff(first=-1)
    with pytest.raises(ValueError, match="the factor of a backoff"):
        Backoff(factor=0.5)
    with pytest.raises(ValueError, match="the jitter of a backoff"):
        Backoff(jitter=2)
    group = supervisor()
    with pytest.raises(ValueError, match="restart is one of failure, always, never, not 'sometimes'"):
        group.go(int, restart="sometimes")
    with pytest.raises(TypeError, match="needs a function to call, not int"):
        group.go(3)
    group.wait()
