"""Exceptions that leave a goroutine: the report, the end of the run, and what `run` raises.

Invariant: what a test says about stderr is said of the report that `offset.excepthook` writes; whatever
ends a process is run in a subprocess.
"""

import contextlib
import re
import sys

import offset
import pytest
from helpers import (
    PATIENCE,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_until,
)
from offset import GoroutineExit, _failure, go, gosched, maintask, makechan, nilchan, run


class Failure(Exception):
    """What the goroutines of these tests fail with."""


class Abort(BaseException):
    """A failure that is not an Exception."""


def fail(error):
    raise error


# ---- main ------------------------------------------------------------------------------------


def test_run_gives_what_main_returns():
    assert run(lambda *args, **kwargs: (args, kwargs), 1, "two", three=3) == ((1, "two"), {"three": 3})
    assert run(lambda: None) is None


def test_run_raises_what_main_raises(reports):
    error = Failure("from main")
    with pytest.raises(Failure) as raised:
        run(fail, error)
    assert raised.value is error
    assert "fail" in [frame.name for frame in raised.traceback]


def test_an_exception_can_be_caught_and_run_called_again(reports):
    for number in range(5):
        with pytest.raises(Failure, match=str(number)):
            run(fail, Failure(number))
    assert run(lambda: "fine") == "fine"


def test_main_returning_ends_the_others():
    """The program is over when main returns, as in Go; unlike in Go the others may clean up."""
    ended = []

    def other(number):
        try:
            nilchan.recv()
        finally:
            ended.append(number)

    def main():
        for number in range(10):
            go_parked(other, number)
        return "over"

    assert run(main) == "over"
    assert sorted(ended) == list(range(10))


def test_finally_blocks_of_the_others_may_park():
    steps = []

    def other(mine, yours):
        try:
            nilchan.recv()
        finally:
            mine.send("goodbye")
            steps.append(yours.recv())

    def main():
        left, right = makechan(1), makechan(1)
        go_parked(other, left, right)
        go_parked(other, right, left)

    run(main)
    assert steps == ["goodbye", "goodbye"]


@pytest.mark.parametrize("not_a_function", [3, "main", object()])
def test_main_must_be_callable(not_a_function):
    with pytest.raises(TypeError):
        run(not_a_function)


def test_arguments_need_a_main():
    with pytest.raises(TypeError):
        run(None, 1)


def test_unknown_ways_to_treat_a_failure_are_refused():
    with pytest.raises(ValueError, match="on_panic"):
        run(lambda: None, on_panic="ignore")


@main_goroutine
def test_run_inside_a_goroutine_raises():
    with pytest.raises(RuntimeError, match="goroutine"):
        run(lambda: None)
    with pytest.raises(RuntimeError, match="goroutine"):
        run()


def test_run_while_another_thread_runs_raises():
    def main():
        with pytest.raises(RuntimeError, match="in progress"):
            in_thread(run, lambda: None)

    run(main)


def test_run_on_another_thread(reports):
    assert in_thread(run, lambda: "elsewhere") == "elsewhere"
    with pytest.raises(Failure):
        in_thread(run, fail, Failure())


# ---- maintask --------------------------------------------------------------------------------


def test_maintask_registers_main_for_the_next_run_only():
    calls = []

    @maintask
    def main():
        calls.append(offset.current() is not None)
        return "registered"

    assert run() == "registered"
    assert run() is None
    assert calls == [True]


def test_maintask_gives_the_function_back():
    def main():
        return "result"

    assert maintask(main) is main
    assert run() == "result"


def test_the_last_maintask_counts():
    maintask(lambda: "first")
    maintask(lambda: "second")
    assert run() == "second"


def test_maintask_needs_something_callable():
    with pytest.raises(TypeError):
        maintask(3)
    assert run() is None


# ---- other goroutines ------------------------------------------------------------------------


def test_an_exception_of_any_goroutine_ends_the_run(reports):
    error = Failure("from a goroutine")
    unwound = []

    def main():
        try:
            go(fail, error)
            nilchan.recv()
        except GoroutineExit:
            unwound.append("main")
            raise

    with pytest.raises(Failure) as raised:
        run(main)
    assert raised.value is error
    assert unwound == ["main"]
    assert reports == [("fail", error)]


def test_the_traceback_leads_into_the_goroutine(reports):
    def outer():
        inner()

    def inner():
        raise Failure

    def main():
        go(outer)
        nilchan.recv()

    with pytest.raises(Failure) as raised:
        run(main)
    assert [frame.name for frame in raised.traceback][-2:] == ["outer", "inner"]


def test_a_failure_is_reported_before_the_others_end(monkeypatch):
    steps = []
    monkeypatch.setattr(offset, "excepthook", lambda goroutine, error: steps.append("report"))

    def other():
        try:
            nilchan.recv()
        finally:
            steps.append("other ended")

    def main():
        go_parked(other)
        go(fail, Failure())
        nilchan.recv()

    with pytest.raises(Failure):
        run(main)
    assert steps == ["report", "other ended"]


def test_main_may_clean_up_with_the_help_of_others(reports):
    """What main needs in its `finally` block can still be done by new goroutines."""
    cleaned = []

    def main():
        try:
            go(fail, Failure())
            nilchan.recv()
        finally:
            answer = makechan()
            go(answer.send, "cleaned")
            cleaned.append(answer.recv())

    with pytest.raises(Failure):
        run(main)
    assert cleaned == ["cleaned"]


def test_several_failures_are_raised_as_a_group(reports):
    def stubborn(error):
        try:
            nilchan.recv()
        finally:
            raise error

    errors = [Failure("first"), ValueError("second"), KeyError("third")]

    def main():
        go_parked(stubborn, errors[1])
        go_parked(stubborn, errors[2])
        raise errors[0]

    with pytest.raises(ExceptionGroup) as raised:
        run(main)
    assert raised.value.exceptions[0] is errors[0]
    assert set(raised.value.exceptions) == set(errors)
    assert next(error for _, error in reports) is errors[0]
    assert len(reports) == 3


def test_the_group_is_a_base_group_when_it_must_be(reports):
    def stubborn():
        try:
            nilchan.recv()
        finally:
            raise Abort

    def main():
        go_parked(stubborn)
        raise Failure

    with pytest.raises(BaseExceptionGroup) as raised:
        run(main)
    assert not isinstance(raised.value, ExceptionGroup)
    assert {type(error) for error in raised.value.exceptions} == {Abort, Failure}


def test_a_failure_while_the_run_ends_is_raised_too(reports):
    def other():
        try:
            nilchan.recv()
        finally:
            raise Failure("while ending")

    with pytest.raises(Failure, match="while ending"):
        run(lambda: go_parked(other) and None)
    assert len(reports) == 1


def test_an_exception_of_a_timer_function_is_a_failure(reports):
    def main():
        offset.time.after_func(0.001, fail, Failure("late"))
        nilchan.recv()

    with pytest.raises(Failure, match="late"):
        run(main)
    assert len(reports) == 1


def test_join_does_not_raise_what_the_goroutine_raised(reports):
    def main():
        goroutine = go(fail, Failure())
        assert goroutine.join(timeout=PATIENCE)
        assert goroutine.status == go_ended().status
        return "main goes on"

    def go_ended():
        goroutine = go(int)
        wait_ended(goroutine)
        return goroutine

    assert run(main, on_panic="report") == "main goes on"
    assert len(reports) == 1


def test_an_exception_that_was_caught_is_no_failure(reports):
    def careful():
        with contextlib.suppress(Failure):
            raise Failure

    def main():
        wait_ended(go(careful))
        return "fine"

    assert run(main) == "fine"
    assert reports == []


# ---- on_panic="report" -----------------------------------------------------------------------


def test_with_report_the_run_goes_on(reports):
    errors = [Failure(number) for number in range(3)]

    def main():
        for error in errors:
            wait_ended(go(fail, error))
        return "result"

    assert run(main, on_panic="report") == "result"
    assert [error for _, error in reports] == errors


def test_with_report_run_still_raises_what_main_raises(reports):
    with pytest.raises(Failure, match="main"):
        run(fail, Failure("main"), on_panic="report")


def test_without_main_report_waits_for_all(reports):
    done = []

    def worker(number):
        gosched()
        if number % 2:
            raise Failure(number)
        done.append(number)

    for number in range(10):
        go(worker, number)
    assert run(on_panic="report") is None
    assert sorted(done) == [0, 2, 4, 6, 8]
    # What failed before `run` was called has been reported as well.
    assert sorted(error.args[0] for _, error in reports) == [1, 3, 5, 7, 9]


def test_without_main_a_failure_ends_the_run(reports):
    started = makechan()
    unwound = []

    def waiter():
        try:
            started.recv()
        finally:
            unwound.append(True)

    def failing():
        wait_until(_failure.active, "the run is in progress")
        raise Failure("no main")

    go(waiter)
    go(failing)
    with pytest.raises(Failure, match="no main"):
        run()
    assert unwound == [True]


# ---- the report ------------------------------------------------------------------------------


def create_failing(error, ready):
    def wait_and_fail():
        ready.recv_ok()
        fail(error)

    return go(wait_and_fail)


def test_the_report_says_who_failed_where_and_who_made_it(capsys):
    goroutines = []

    def main():
        ready = makechan()
        goroutines.append(create_failing(Failure("the message"), ready))
        goroutines[0].name = "the worker"
        ready.close()
        nilchan.recv()

    with pytest.raises(Failure):
        run(main)
    report = capsys.readouterr().err
    assert f"goroutine {goroutines[0].id}" in report
    assert "the worker" in report
    assert "Traceback" in report
    assert re.search(r"test_failure\.py\", line \d+, in fail", report)
    assert "Failure: the message" in report
    assert "create_failing" in report
    assert len(re.findall("the message", report)) == 1, report
    goroutines.clear()


def test_the_report_of_main(capsys):
    def the_main_function():
        raise Failure("in main")

    with pytest.raises(Failure):
        run(the_main_function)
    report = capsys.readouterr().err
    assert re.search(r"goroutine \d+", report)
    assert "the_main_function" in report
    assert "Failure: in main" in report


def test_the_report_shows_causes_and_groups(capsys):
    def failing():
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise ExceptionGroup("the group", [KeyError("a"), TypeError("b")]) from error

    def main():
        wait_ended(go(failing))

    run(main, on_panic="report")
    report = capsys.readouterr().err
    for text in ("the cause", "the group", "KeyError: 'a'", "TypeError: b"):
        assert text in report


def test_outside_run_the_report_is_written_as_well(capsys):
    goroutine = go(fail, Failure("alone"))
    wait_ended(goroutine)
    report = capsys.readouterr().err
    assert f"goroutine {goroutine.id}" in report
    assert "Failure: alone" in report


def test_no_report_for_those_that_were_cancelled(capsys):
    def main():
        goroutine = go_parked(nilchan.recv)
        goroutine.cancel()
        wait_ended(goroutine)
        go_parked(nilchan.recv)

    run(main)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [None, "closed"])
def test_the_report_survives_a_missing_stderr(monkeypatch, stream, tmp_path):
    broken = None
    if stream == "closed":
        broken = open(tmp_path / "stderr", "w")  # noqa: SIM115
        broken.close()
    monkeypatch.setattr(sys, "stderr", broken)
    with pytest.raises(Failure):
        run(fail, Failure())


# ---- excepthook ------------------------------------------------------------------------------


def test_excepthook_gets_the_goroutine_and_the_exception(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        offset, "excepthook", lambda goroutine, error: calls.append((goroutine, error, offset.current()))
    )
    error = Failure("hooked")

    def main():
        goroutine = go(fail, error)
        wait_ended(goroutine)
        return goroutine

    goroutine = run(main, on_panic="report")
    [(reported, reported_error, running)] = calls
    assert (reported.id, running.id) == (goroutine.id, goroutine.id)
    assert reported_error is error
    assert capsys.readouterr().err == ""


def test_excepthook_may_park(monkeypatch):
    through = makechan()
    monkeypatch.setattr(offset, "excepthook", lambda goroutine, error: through.send(error))

    def main():
        go(fail, Failure("sent"))
        return through.recv().args

    assert run(main, on_panic="report") == ("sent",)


def test_an_error_in_excepthook_does_not_hide_the_failure(monkeypatch, capsys):
    monkeypatch.setattr(offset, "excepthook", lambda goroutine, error: fail(ValueError("in the hook")))
    with pytest.raises(Failure, match="the failure"):
        run(fail, Failure("the failure"))
    report = capsys.readouterr().err
    assert "in the hook" in report
    assert "Failure: the failure" in report


def test_the_default_excepthook_can_be_called(capsys):
    original = offset.excepthook

    def main():
        goroutine = go(int)
        wait_ended(goroutine)
        original(goroutine, Failure("by hand"))

    run(main)
    assert "Failure: by hand" in capsys.readouterr().err
