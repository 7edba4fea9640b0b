"""`offset.time`: many sleepers and timers at once."""

from __future__ import annotations

import offset.time as gotime
from helpers import (
    FREE_THREADED,
    main_goroutine,
    run_script,
)
from offset import makechan

# A span that passes quickly, and one that never passes within a test.
SOON = 0.005
NEVER = 1e5


@main_goroutine
def test_many_timers_with_one_time():
    fired = makechan(2000)
    for _ in range(2000):
        gotime.after_func(SOON, fired.send, None)
    for _ in range(2000):
        fired.recv()


@main_goroutine
def test_many_timers_that_are_stopped():
    for _ in range(20):
        timers = [gotime.Timer(NEVER) for _ in range(500)]
        assert all(timer.stop() for timer in timers)
    assert gotime.after(0).recv() <= gotime.now()


def test_a_hundred_thousand_goroutines_sleep():
    """In a process of its own, which must wake them all, and be as small again afterwards."""
    finished = run_script(
        """
        import sys
        import offset
        from offset import go, makechan, run, sleep
        from offset.sync import WaitGroup

        count = int(sys.argv[1])

        def main():
            woken, group = [], WaitGroup()

            def sleeper(number):
                sleep(1 + number % 1000 / 1000)
                woken.append(number)

            for number in range(count):
                group.go(sleeper, number)
            group.wait()
            assert sorted(woken) == list(range(count))
            # A cancelled sleeper leaves its timer behind for nobody.
            goroutines = [go(sleep, 1e6) for _ in range(count // 10)]
            for goroutine in goroutines:
                goroutine.cancel()
            for goroutine in goroutines:
                assert goroutine.join()
            print("all woken", offset.runtime.num_goroutine())

        run(main)
        """,
        # Without the GIL a thread state is eight times as large, and far slower to make and to clear.
        5_000 if FREE_THREADED else 100_000,
        timeout=110,
    )
    assert finished == (0, "all woken 1\n", "")
