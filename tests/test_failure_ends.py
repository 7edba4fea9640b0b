"""Other ends than a failure: SystemExit, Ctrl-C, `goexit`, and what the grace time of a run leaves.

Invariant: whatever ends a process is run in a subprocess.
"""

import contextlib
import re
import sys
import threading
import weakref

import offset
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    collect,
    go_parked,
    main_goroutine,
    run_script,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import DeadlockError, GoroutineExit, _failure, go, goexit, gosched, makechan, nilchan, run
from test_failure import Failure, fail

# ---- SystemExit and KeyboardInterrupt --------------------------------------------------------


@pytest.mark.parametrize("where", ["main", "goroutine", "timer"])
def test_system_exit_in_any_goroutine_ends_the_program(where, capsys):
    def main():
        if where == "main":
            sys.exit(7)
        if where == "goroutine":
            go(sys.exit, 7)
        else:
            offset.time.after_func(0.001, sys.exit, 7)
        nilchan.recv()

    with pytest.raises(SystemExit) as raised:
        run(main)
    assert raised.value.code == 7
    assert capsys.readouterr().err == ""


def test_system_exit_ends_a_run_that_only_reports():
    def main():
        go(sys.exit, 3)
        nilchan.recv()

    with pytest.raises(SystemExit) as raised:
        run(main, on_panic="report")
    assert raised.value.code == 3


def test_system_exit_without_main():
    def leave():
        wait_until(_failure.active, "the run is in progress")
        sys.exit(4)

    go_parked(nilchan.recv)
    timer = offset.time.after_func(0.01, leave)
    with pytest.raises(SystemExit) as raised:
        run()
    assert raised.value.code == 4
    assert timer.stop() is False


def test_system_exit_is_raised_alone(reports):
    """A failure of another goroutine that comes while the program ends does not change its code."""

    def stubborn():
        try:
            nilchan.recv()
        finally:
            raise Failure

    def main():
        go_parked(stubborn)
        sys.exit(5)

    with pytest.raises(SystemExit) as raised:
        run(main)
    assert raised.value.code == 5
    assert len(reports) == 1


@pytest.mark.parametrize(
    ("argument", "code", "message"), [("0", 0, ""), ("9", 9, ""), ("", 0, ""), ("'a reason'", 1, "a reason")]
)
@pytest.mark.parametrize("where", ["main()", "offset.go(main); offset.nilchan.recv()"])
def test_the_exit_status_of_a_program(argument, code, message, where):
    ended = run_script(
        f"""
        import sys, offset
        def main():
            sys.exit({argument})
        def start():
            try:
                {where}
            finally:
                print("finally")
        offset.run(start)
        """
    )
    assert (ended.returncode, ended.stdout) == (code, "finally\n")
    assert ended.stderr.strip() == message


def test_an_uncaught_failure_ends_the_program_with_status_1():
    ended = run_script(
        """
        import offset
        def worker():
            raise ValueError("the reason")
        def main():
            offset.go(worker)
            offset.nilchan.recv()
        offset.run(main)
        print("not reached")
        """
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.search(r"goroutine \d+ .*worker", ended.stderr)
    assert ended.stderr.rstrip().endswith("ValueError: the reason")


def test_keyboard_interrupt_raised_in_main():
    with pytest.raises(KeyboardInterrupt):
        run(fail, KeyboardInterrupt())


def test_keyboard_interrupt_raised_in_another_goroutine(reports):
    def main():
        go(fail, KeyboardInterrupt())
        nilchan.recv()

    with pytest.raises(KeyboardInterrupt):
        run(main)


# ---- goexit ----------------------------------------------------------------------------------


@main_goroutine
def test_goexit_ends_the_goroutine_and_runs_its_finally_blocks():
    steps = []

    def worker():
        try:
            try:
                goexit()
            except Exception:
                steps.append("caught as an error")
        finally:
            steps.append("finally")
        steps.append("after")

    wait_ended(go(worker))
    assert steps == ["finally"]


def test_goexit_is_not_reported(reports):
    def main():
        wait_ended(go(goexit))
        return "fine"

    assert run(main) == "fine"
    assert reports == []


def test_goexit_outside_a_goroutine_raises():
    with pytest.raises(RuntimeError, match="outside"):
        goexit()


def test_goexit_in_main_lets_the_others_finish():
    """As Go: the others go on, and when they have ended there is nobody left."""
    done = []
    leave = makechan()

    def worker(number):
        leave.recv()
        gosched()
        done.append(number)

    def main():
        workers = [go_parked(worker, number) for number in range(5)]

        def open_gate():
            wait_parked(*workers)
            for _ in workers:
                leave.send(None)

        go(open_gate)
        goexit()

    with pytest.raises(DeadlockError):
        run(main)
    assert sorted(done) == list(range(5))


def test_goexit_in_main_alone():
    with pytest.raises(DeadlockError):
        run(goexit)


# ---- the grace time --------------------------------------------------------------------------


def test_those_that_do_not_end_in_time_are_named(capsys):
    release = makechan()
    ended = makechan(1)

    def the_stubborn_one():
        try:
            nilchan.recv()
        finally:
            # Somebody may still send: a plain thread lives as long as this test needs it.
            release.recv()
            ended.send(True)

    parked = threading.Event()
    witness = threading.Thread(target=parked.wait)
    witness.start()
    try:
        assert run(lambda: go_parked(the_stubborn_one).id, grace=0.05)
        report = capsys.readouterr().err
        assert "the_stubborn_one" in report
        assert re.search(r"goroutine \d+", report)
        release.send(None)
        assert ended.recv(timeout=PATIENCE) is True
    finally:
        parked.set()
        witness.join()


def test_exit_is_delivered_once():
    """A goroutine that swallows its GoroutineExit is not asked again, and may end in its own way."""
    steps = []
    more = makechan(1)

    def swallowing():
        try:
            nilchan.recv()
        except GoroutineExit:
            steps.append("asked")
        more.send("still alive")
        steps.append(more.recv())

    run(lambda: go_parked(swallowing) and None)
    assert steps == ["asked", "still alive"]


def test_the_grace_time_must_not_be_negative():
    with pytest.raises(ValueError, match="grace"):
        run(lambda: None, grace=-1)


def test_a_run_holds_nothing_after_its_end(reports):
    """Neither the result nor the exception of a run is kept."""

    class Thing:
        pass

    kept = weakref.ref(run(Thing))
    if FREE_THREADED:
        # Made on a machine that is idle by now: it goes with a collection, if not before.
        collect()
    assert kept() is None

    def failing():
        error = Failure()
        errors.append(weakref.ref(error))
        raise error

    errors = []
    with contextlib.suppress(Failure):
        run(failing)
    reports.clear()
    # The frame that raised it held the error, and the error the frame.
    collect()
    assert errors[0]() is None
