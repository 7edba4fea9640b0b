"""Schedules that follow from a seed: `bubble(fn, seed)` and `explore`, and the plugin of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from helpers import PATIENCE
from offset import context, default, go, gosched, makechan, select, sleep, sync, time
from offset.testing import bubble, explore


def race():
    """The order in which a few goroutines do things, and what `select` chooses."""
    seen, boxes = [], [makechan(1) for _ in range(3)]
    group = sync.WaitGroup()

    def worker(number):
        for step in range(3):
            seen.append((number, step))
            boxes[number % 3].send(number, timeout=1) if step else gosched()

    def reader():
        for _ in range(8):
            case = select(*(box.if_recv() for box in boxes), timeout=2)
            seen.append((case.index, case.value))

    for number in range(4):
        group.go(worker, number)
    group.go(reader)
    group.wait()
    return seen


class Account:
    """A bank account whose deposits are not atomic, as there is an operation between reading and writing."""

    def __init__(self):
        self.balance = 0
        self.log = makechan(100)

    def deposit(self, amount):
        before = self.balance
        self.log.send(("deposit", amount))
        self.balance = before + amount


def deposits():
    account, group = Account(), sync.WaitGroup()
    for _ in range(2):
        group.go(account.deposit, 1)
    group.wait()
    assert account.balance == 2


def order_of_locks():
    """Two locks taken in both orders."""
    first, second = sync.Semaphore(1), sync.Semaphore(1)
    group = sync.WaitGroup()

    def take(one, other):
        with one, other:
            pass

    group.go(take, first, second)
    group.go(take, second, first)
    group.wait()


# ---- seeds -----------------------------------------------------------------------------------


def test_a_seed_gives_the_same_schedule_each_time():
    for seed in range(20):
        assert bubble(race, seed) == bubble(race, seed)


def test_seeds_give_many_schedules():
    assert len({str(bubble(race, seed)) for seed in range(50)}) > 40


def test_without_a_seed_goroutines_run_in_turn():
    def turns():
        seen, group = [], sync.WaitGroup()
        for number in range(5):
            group.go(seen.append, number)
        group.wait()
        return seen

    assert bubble(turns) == list(range(5))
    assert any(bubble(turns, seed) != list(range(5)) for seed in range(5))


def test_the_order_of_timers_follows_from_the_seed():
    def timers():
        seen = []
        for number in range(5):
            time.after_func(1, seen.append, number)
        sleep(2)
        return seen

    for seed in range(10):
        assert bubble(timers, seed) == bubble(timers, seed)
    assert len({str(bubble(timers, seed)) for seed in range(10)}) > 1


def test_a_seed_does_not_let_anybody_starve():
    def main():
        ended = []
        ctx, cancel = context.with_cancel(context.background())

        def spin():
            while ctx.err() is None:
                gosched()
            ended.append(True)

        for _ in range(3):
            go(spin)
        sleep(0)
        for _ in range(20):
            gosched()
        cancel()

    for seed in range(10):
        bubble(main, seed)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**200, True])
def test_any_integer_is_a_seed(seed):
    assert bubble(race, seed) == bubble(race, seed)


def test_a_seeded_bubble_and_an_ordinary_one_leave_nothing_of_each_other():
    for seed in (3, None, 4, None):
        bubble(race, seed)
    assert select(default) is default


def test_the_seed_of_a_failure_is_printed(capfd):
    with pytest.raises(ZeroDivisionError):
        bubble(lambda: 1 // 0, seed=77)
    assert "the bubble failed with seed 77" in capfd.readouterr().err


# ---- explore ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [deposits, order_of_locks])
def test_a_planted_bug_is_found_and_can_be_seen_again(fn, capfd):
    with pytest.raises(BaseException) as caught:
        explore(fn, schedules=200, seed=0)
    (note,) = caught.value.__notes__
    seed = int(note.partition("seed=")[2].partition(")")[0])
    assert seed < 200
    assert f"schedule {seed + 1} of 200" in note
    for _ in range(3):
        with pytest.raises(caught.type):
            bubble(fn, seed)
    # An ordinary schedule does not show it.
    bubble(fn)
    capfd.readouterr()


def test_what_is_right_is_right_in_every_schedule():
    def right():
        account, group, mutex = Account(), sync.WaitGroup(), sync.Mutex()

        def deposit():
            with mutex:
                account.deposit(1)

        for _ in range(3):
            group.go(deposit)
        group.wait()
        assert account.balance == 3

    assert explore(right, schedules=100) == 100


def test_explore_goes_on_from_a_random_seed(capfd):
    seeds = set()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            explore(lambda: 1 // 0)
        seeds.add(caught.value.__notes__[0])
    assert len(seeds) == 3
    capfd.readouterr()


# ---- the plugin ------------------------------------------------------------------------------


# Who leaks is hardly waited for, and who does not as long as it takes.
WAITS = f"""
    from offset.testing import _leaks

    def pytest_runtest_setup(item):
        _leaks.PATIENCE = 0.2 if item.name == "test_leak" else {PATIENCE}
"""


def pytest_run(tmp_path, tests, *options, ini=""):
    """Run pytest on a file of tests in a process of its own; give its report."""
    (tmp_path / "test_file.py").write_text(textwrap.dedent(tests), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n" + textwrap.dedent(ini), encoding="utf-8")
    (tmp_path / "conftest.py").write_text(textwrap.dedent(WAITS), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--strict-markers", *options],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
        check=False,
    )
    return done.stdout + done.stderr


def test_tests_as_goroutines(tmp_path):
    report = pytest_run(
        tmp_path,
        """
        import pytest
        from offset import current, go, makechan

        @pytest.fixture
        def seven():
            return 7

        @pytest.mark.goroutine
        def test_inside(seven):
            assert current() is not None
            box = makechan()
            go(box.send, seven)
            assert box.recv() == 7

        def test_outside():
            assert current() is None

        @pytest.mark.goroutine
        def test_leak():
            go(makechan().recv).name = "leaked"

        @pytest.mark.goroutine
        @pytest.mark.leaves_goroutines
        def test_allowed():
            go(makechan().recv)

        @pytest.mark.goroutine
        @pytest.mark.parametrize("number", [1, 2])
        def test_fails(number):
            assert number == 1

        class TestMethods:
            @pytest.mark.goroutine
            def test_method(self, seven):
                assert current() is not None
        """,
    )
    for name in ("test_inside", "test_outside", "test_allowed", "test_fails[1]", "TestMethods::test_method"):
        assert f"PASSED test_file.py::{name}" in report
    assert "FAILED test_file.py::test_leak - offset.testing._leaks.LeakError: a goroutine is left" in report
    assert "[chan receive] leaked" in report
    assert "FAILED test_file.py::test_fails[2]" in report


def test_tests_in_bubbles(tmp_path):
    report = pytest_run(
        tmp_path,
        """
        import pytest
        from offset import go, makechan, sleep, sync, time

        @pytest.mark.bubble
        def test_clock():
            sleep(365 * 24 * time.HOUR)

        @pytest.mark.bubble
        def test_deadlock():
            makechan().recv()

        @pytest.mark.bubble(schedules=100)
        def test_race():
            box, seen = makechan(1), []
            group = sync.WaitGroup()
            for number in range(2):
                group.go(lambda number=number: (box.send(1), box.recv(), seen.append(number)))
            group.wait()
            assert seen == [0, 1]

        @pytest.mark.bubble(seed=3)
        def test_seed():
            assert False

        @pytest.mark.bubble(size=3)
        def test_mistake():
            pass
        """,
    )
    assert "PASSED test_file.py::test_clock" in report
    assert "FAILED test_file.py::test_deadlock - offset.DeadlockError: all goroutines are asleep" in report
    assert "FAILED test_file.py::test_race" in report
    assert "runs it again" in report
    assert "the seed was 3" in report
    assert "the marker bubble takes seed and schedules" in report


def test_a_seed_from_the_command_line(tmp_path):
    report = pytest_run(
        tmp_path,
        """
        import pytest
        from offset import go, sync

        @pytest.mark.bubble
        def test_order(capsys):
            seen, group = [], sync.WaitGroup()
            for number in range(6):
                group.go(seen.append, number)
            group.wait()
            assert False, f"order {seen}"
        """,
        "--offset-seed=5",
    )
    assert "the seed was 5" in report
    assert "order [" in report
    assert "order [0, 1, 2, 3, 4, 5]" not in report


def test_all_tests_as_goroutines(tmp_path):
    report = pytest_run(
        tmp_path,
        """
        import asyncio
        from offset import current

        def test_inside():
            assert current() is not None
        """,
        ini="offset_goroutines = true",
    )
    assert "PASSED test_file.py::test_inside" in report


def test_leaks_of_all_tests(tmp_path):
    report = pytest_run(
        tmp_path,
        """
        import pytest
        from offset import go, makechan

        def test_leak():
            go(makechan().recv)

        def test_no_leak():
            go(int)

        @pytest.mark.leaves_goroutines
        def test_allowed():
            go(makechan().recv)
        """,
        ini="offset_leak_check = true",
    )
    assert "FAILED test_file.py::test_leak" in report
    assert "PASSED test_file.py::test_no_leak" in report
    assert "PASSED test_file.py::test_allowed" in report


def test_the_plugin_starts_nothing_by_itself(tmp_path):
    report = pytest_run(
        tmp_path,
        """
        import threading

        from offset import runtime

        def test_nothing():
            assert runtime.stats()["machines"] == 0
            assert threading.active_count() == 1
        """,
    )
    assert "PASSED" in report
