"""Live processes that are asked from outside, for the tests of `offset dump` and `offset top`.

Invariant: they are children of the test, which says when they end: they read a line first.
"""

from __future__ import annotations

import subprocess
import sys

from helpers import PATIENCE, start_script

# What each of them begins with, and what a program does to wait for its end.
PROGRAM = """
import sys, threading, time
import offset
from offset import go, makechan, nilchan, runtime

def ready():
    print("ready", flush=True)

def end():
    sys.stdin.readline()
"""

PARKED = (
    PROGRAM
    + """
def worker(jobs):
    jobs.recv()

def tell(main):
    while main.wait_reason != "blocking call":
        time.sleep(0.001)
    ready()

def main():
    workers = [go(worker, jobs) for _ in range(COUNT)]
    while not all(one.wait_reason for one in workers):
        offset.gosched()
    threading.Thread(target=tell, args=(offset.current(),)).start()
    offset.syscall.blocking(end)
    print("went on", flush=True)

jobs = makechan()
offset.run(main)
"""
)


class Asked:
    """A process that runs a program until the block is over."""

    def __init__(self, program, **options):
        self.started = start_script(program, **options)

    def __enter__(self):
        self.process = self.started.__enter__()
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()
        return self.process

    def __exit__(self, *error):
        try:
            self.output = self.process.communicate("\n", timeout=PATIENCE)
        finally:
            self.started.__exit__(*error)


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "offset", *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=4 * PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr
