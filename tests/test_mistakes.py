"""What is told to those who misuse the package, where docs/errors.md does not show it already, and what is no mistake.

* What can be started: `go` and all that start a goroutine refuse the same things in the same words.
* A cancel function that is lost, an error of a group that nobody waited for, goroutines that had not begun at exit.
"""

import asyncio
import functools
import gc
import warnings

import pytest
from helpers import FREE_THREADED, main_goroutine, run_script
from offset import context, errgroup, go, run, supervise, sync, time


async def coroutine_function():
    pass


def generator_function():
    yield


async def async_generator_function():
    yield


class Methods:
    async def coroutine(self):
        pass


STARTERS = {
    "go": go,
    "run": lambda fn: run(fn),
    "WaitGroup.go": lambda fn: sync.WaitGroup().go(fn),
    "Group.go": lambda fn: errgroup.Group().go(fn),
    "Group.try_go": lambda fn: errgroup.Group().try_go(fn),
    "Group.map": lambda fn: errgroup.Group().map(fn, [1]),
    "Supervisor.go": lambda fn: supervise.Supervisor().go(fn),
}


# ---- what can be started ---------------------------------------------------------------------


@pytest.mark.parametrize("name", STARTERS)
def test_what_runs_nothing_when_it_is_called_cannot_be_started(name):
    start = STARTERS[name]
    for function in (coroutine_function, Methods().coroutine):
        with pytest.raises(TypeError, match=rf"^{name} needs .*'{function.__qualname__}' is a coroutine function"):
            start(function)
    for function in (generator_function, async_generator_function):
        with pytest.raises(TypeError, match=rf"^{name} needs .*'{function.__qualname__}' is a generator function"):
            start(function)
    with pytest.raises(TypeError, match=rf"^{name} needs a function to call, not NoneType: write {name}\(f, x\), not"):
        start(None)


def test_a_coroutine_cannot_be_started():
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match=r"not a coroutine; asyncio\.run\(\)"):
        go(coroutine)
    coroutine.close()


@main_goroutine
def test_what_calls_them_can():
    group = sync.WaitGroup()
    group.go(lambda: asyncio.run(coroutine_function()))
    group.go(functools.partial(list, generator_function()))
    group.go(type("Callable", (), {"__call__": lambda self: None})())
    group.wait()


def test_run_without_main_still_waits_for_all():
    assert run() is None
    with pytest.raises(TypeError, match=r"^run needs a function to call, not NoneType"):
        run(None)


# ---- the cancel function ---------------------------------------------------------------------

KEPT = {
    "below another": lambda: context.with_cancel(ABOVE[0]),
    "below another, with a cause": lambda: context.with_cancel_cause(ABOVE[0]),
    "with a timer": lambda: context.with_timeout(context.background(), time.HOUR),
    "with a deadline": lambda: context.with_deadline(context.background(), time.now() + time.HOUR),
    "with a later deadline than the one above": lambda: context.with_timeout(ABOVE[1], 2 * time.HOUR),
}
ABOVE = [context.with_cancel(context.background())[0], context.with_deadline(context.background(), float("inf"))[0]]


@pytest.mark.parametrize("how", KEPT)
def test_a_lost_cancel_function_is_told(how):
    with pytest.warns(ResourceWarning, match="its cancel function is lost, uncalled") as told:
        ctx = KEPT[how]()[0]
        gc.collect()
    assert repr(ctx) in str(told[0].message)
    # It is over some day, at the latest with this.
    ctx._end(context.Canceled(), None)


@pytest.mark.parametrize("how", KEPT)
def test_one_that_was_called_is_not(how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, cancel = KEPT[how]()
        cancel()
        del cancel
        gc.collect()


def test_nor_is_one_of_a_context_that_nothing_keeps_or_that_is_over():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        context.with_cancel(context.background())
        context.with_timeout(context.background(), 0)
        above, cancel = context.with_cancel(context.background())
        below = context.with_timeout(above, time.HOUR)
        cancel()
        del below
        gc.collect()


def test_the_warning_is_seen_in_the_development_mode():
    program = """
        from offset import context, run, time
        def main():
            ctx, _ = context.with_timeout(context.background(), time.HOUR)
        run(main)
        """
    for options, seen in (((), False), (("-X", "dev"), True)):
        ended = run_script(program, interpreter_options=options)
        assert ended.returncode == 0
        assert ("its cancel function is lost" in ended.stderr) is seen


# ---- errors and goroutines that nobody waits for -----------------------------------------------


def test_an_error_of_a_group_that_was_not_waited_for_is_told_once():
    ended = run_script(
        """
        from offset import errgroup, run
        def fail(number):
            raise ValueError(number)
        def main():
            group = errgroup.Group()
            for number in range(2):
                group.go(fail, number).goroutine.join()
            waited = errgroup.Group()
            waited.go(fail, 3)
            try:
                waited.wait()
            except ValueError:
                pass
        run(main)
        """
    )
    assert ended.returncode == 0
    assert ended.stderr.count("errgroup.Group that nobody waited for") == 2
    assert [line for line in ended.stderr.splitlines() if line.startswith("ValueError")] == [
        "ValueError: 0",
        "ValueError: 1",
    ]


@pytest.mark.skipif(FREE_THREADED, reason="without the GIL a goroutine may begin at once")
@pytest.mark.parametrize("count", [1, 3])
def test_goroutines_that_had_not_begun_at_exit_are_told(count):
    what = "a goroutine" if count == 1 else "3 goroutines"
    # On a busy machine they may begin all the same; so many times none of them does.
    for _ in range(20):
        ended = run_script(f"import offset\nfor _ in range({count}):\n    offset.go(print)\n")
        assert ended.returncode == 0
        if not ended.stdout:
            break
    assert ended.stderr.startswith(f"offset: the program has ended, and {what} had not begun (print, created by ")


def test_those_that_had_begun_and_those_after_a_run_are_not():
    ended = run_script(
        """
        import offset, threading
        begun = threading.Event()
        def wait():
            begun.set()
            offset.nilchan.recv()
        offset.go(wait)
        begun.wait()
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = run_script("import offset\noffset.run(lambda: None)\noffset.go(print)\n")
    assert (ended.returncode, ended.stderr) == (0, "")


@main_goroutine
def test_done_by_the_function_of_a_group_is_once_too_often():
    ended = run_script(
        """
        from offset import run, sync
        def main():
            group = sync.WaitGroup()
            group.go(group.done).join()
        run(main)
        """
    )
    assert ended.returncode == 1
    assert "ValueError: the counter of the WaitGroup would become negative" in ended.stderr
