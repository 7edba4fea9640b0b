"""The rescue: nothing that blocks, and no endless loop, stops the other goroutines.

    python rescue.py [LIMIT]

Fifty goroutines call the interpreter's own `time.sleep(1)`, which knows nothing of goroutines; one
computes without end, and one prints a tick ten times a second. All the sleepers must have woken
within LIMIT seconds, 2.5 unless told; one after the other they would take fifty.
"""

import sys
import time

from offset import go, makechan, run, select, sync
from offset.time import MILLISECOND, Ticker, now

SLEEPERS = 50


def compute():
    number = 0
    while True:
        number += 1


def keep_ticking(started, done, total):
    """Print the ticks until `done` is closed, then send how many there were."""
    ticker, ticks = Ticker(100 * MILLISECOND), 0
    while True:
        chosen = select(ticker.c.if_recv(), done.if_recv())
        if chosen.index == 1:
            total.send(ticks)
            return
        ticks += 1
        print(f"tick at {chosen.value - started:.1f} s")


def main(limit):
    done, total = makechan(), makechan()
    awake = sync.atomic.Int()
    sleepers = sync.WaitGroup()

    def nap():
        time.sleep(1)
        awake.add(1)

    started = now()
    go(keep_ticking, started, done, total)
    go(compute)
    for _ in range(SLEEPERS):
        sleepers.go(nap)
    sleepers.wait()
    took = now() - started

    done.close()
    ticks = total.recv()
    print(f"{awake.load()} of {SLEEPERS} sleepers awake after {took:.2f} s, {ticks} ticks meanwhile")
    if took > limit:
        sys.exit(f"that is over the limit of {limit} s")


if __name__ == "__main__":
    run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 2.5)
