"""Hazards 25 to 27: fork, limits, memory hooks; and whether each hazard has its test.

Each docstring says which rule of the runtime keeps the hazard away; without that rule the test fails (or,
for races, fails soon). See `hazards.py`.
"""

import os
import re
import sys

import pytest
import test_hazards
import test_hazards_runtime
from hazards import LINUX, PREAMBLE, succeed
from helpers import run_script

# ---- fork, limits, memory hooks --------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_hazard_25_a_forked_child_frees_no_memory_of_goroutines(extension):
    """Rule: in the child the chunks of goroutines are taken away from CPython, which might unmap them.

    No version so far does, so what is looked at is whether it still knows them when it begins to clean up. And the
    goroutine that forked is the child's only thread: its end ends the process, with its status.
    """
    succeed(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
sys.path.insert(0, sys.argv[1])
import foreign_frames

def deep(n, function):
    return deep(n - 1, function) if n else function()

def forked():
    child = os.fork()
    if child == 0:
        assert foreign_frames.chunks_at_fork() == 0, foreign_frames.chunks_at_fork()
        deep(500, gc.collect)
        ch = makechan()
        go(lambda: ch.send(deep(300, int)))
        assert ch.recv() == 0
        assert run(lambda: deep(300, int)) == 0
        sys.exit(11)
    return child

def main():
    waiters = [go(deep, n * 20, nilchan.recv) for n in range(20)]
    wait_parked(*waiters)
    # Those of the waiters at least: ours do not begin with a page.
    assert foreign_frames.watch_forks() >= 20
    for n in (0, 100, 400):
        child = deep(n, forked)
        status = os.waitstatus_to_exitcode(offset.syscall.blocking(os.waitpid, child, 0)[1])
        assert status == 11, status
    print("fine")
run(main)
""",
        args=(extension,),
    )


def test_hazard_26_a_raised_recursion_limit_ends_by_name():
    """Rule: what a raised limit lets through runs into the guard, whose message names the goroutine."""
    ended = run_script(
        PREAMBLE
        + """
sys.setrecursionlimit(20_000)

def the_recursive_one():
    return sorted([1, 2], key=lambda _: the_recursive_one())

def main():
    goroutine = go(the_recursive_one)
    join(goroutine)
    print("fine")
offset.excepthook = lambda goroutine, error: print(type(error).__name__)
run(main, on_panic="report")
"""
    )
    if ended.returncode == 0:
        assert ended.stdout in ("RecursionError\nfine\n", "MemoryError\nfine\n")
    else:
        assert re.search(r"goroutine \d+", ended.stderr), ended.stderr
        assert "the_recursive_one" in ended.stderr
        assert "set_stack_size" in ended.stderr


@pytest.mark.parametrize("options", [("-X", "tracemalloc=5"), ("-X", "dev")], ids=["tracemalloc", "dev"])
def test_hazard_27_machines_do_not_touch_python(options):
    """Rule: no call into Python between two goroutines.

    Under `tracemalloc` even raw allocations take the GIL, with whatever thread state is known last.
    """
    succeed(
        """
import tracemalloc
def worker(n, ch):
    for _ in range(20):
        data = [bytes(100) for _ in range(20)]
        offset.gosched()
        if n % 10 == 0:
            time.sleep(0.001)
        offset.syscall.blocking(bytes, 100)
    ch.send(len(data))

def main():
    for _ in range(3):
        ch = makechan()
        for n in range(50):
            go(worker, n, ch)
        timers = [offset.time.after_func(0.001, bytes, 100) for _ in range(20)]
        assert sum(ch.recv() for _ in range(50)) == 1000
        for timer in timers:
            timer.stop()
    if tracemalloc.is_tracing():
        assert tracemalloc.take_snapshot().traces
    print("fine")
run(main)
""",
        *options,
    )


@LINUX
@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 knows one attached state for all threads")
def test_hazard_27_machines_allocate_with_a_state_of_their_own(extension):
    """Rule: as above; what makes and deletes thread states allocates, and does so attached as the machine's own."""
    succeed(
        """
sys.path.insert(0, sys.argv[1])
import foreign_frames
foreign_frames.watch_allocations()

def main():
    for _ in range(3):
        gate = makechan()
        goroutines = [go(gate.recv_ok) for _ in range(200)]
        wait_parked(*goroutines[-5:])
        for _ in range(5):
            go(time.sleep, 0.015)
        gate.close()
        join(*goroutines)
    assert foreign_frames.stray_allocations() == 0, foreign_frames.stray_allocations()
    print("fine")
run(main)
""",
        args=(extension,),
    )


def test_every_hazard_has_a_test():
    """28 of them are known; a number that is missing here was lost."""
    names = [*globals(), *vars(test_hazards), *vars(test_hazards_runtime)]
    numbers = {int(match[1]) for name in names if (match := re.match(r"test_hazard_([0-9]{2})_", name))}
    assert numbers == set(range(1, 29))
