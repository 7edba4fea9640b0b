"""`offset.sync`: what wait groups, conditions and semaphores leave behind."""

from __future__ import annotations

import contextlib

from helpers import (
    assert_no_growth,
    go_parked,
    main_goroutine,
    wait_ended,
)
from offset.sync import Cond, Mutex, Semaphore, WaitGroup


@main_goroutine
def test_waiting_leaves_nothing_behind():
    mutex, group, semaphore = Mutex(), WaitGroup(), Semaphore(1)
    cond = Cond(mutex)
    semaphore.acquire()
    group.add()

    def wait_for_cond(timeout=None):
        with mutex:
            cond.wait(timeout=timeout)

    def use():
        for block in (wait_for_cond, group.wait, semaphore.acquire):
            for timeout in (0, 1e-6):
                with contextlib.suppress(TimeoutError):
                    block(timeout=timeout)
            goroutine = go_parked(block)
            goroutine.cancel()
            wait_ended(goroutine)
        cond.signal()
        WaitGroup().go(int)
        Cond(Mutex())
        Semaphore(1).acquire()

    assert_no_growth(use, probes=[mutex, cond, group, semaphore], repeats=100)
    for thing in (mutex, cond, group, semaphore):
        assert isinstance(thing.stats(), dict)
