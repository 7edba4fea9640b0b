"""What the tests of the hazards share: the beginning of their programs, and who is left out.

Each hazard is a known way in which CPython breaks goroutines; NN in a test's name is its number in the
design. Invariant: every program is a subprocess, because without the rule that it tests it may crash.
"""

import sys

import pytest
from helpers import FREE_THREADED, run_script

GIL_ONLY = pytest.mark.skipif(
    FREE_THREADED, reason="started goroutines never move on a free-threaded build: their memory belongs to a thread"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or needs virtual thread identity")

# What the programs begin with. `hogs` keep processors busy until `stop` is set.
PREAMBLE = """
import contextlib, ctypes, gc, io, os, signal, sqlite3, sys, threading, time
import offset
from offset import go, makechan, nilchan, run, runtime, sync

# Whoever started the tests may ignore Ctrl-C, which a child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Somebody who may still wake a goroutine: what is parked for ever is no deadlock.
threading.Thread(target=threading.Event().wait, daemon=True).start()

stop = []

def hog():
    while not stop:
        pass

def join(*goroutines):
    for goroutine in goroutines:
        assert goroutine.join(timeout=30), (goroutine, runtime.stack(all=True))

def wait_parked(*goroutines):
    end = time.monotonic() + 30
    while not all(goroutine.wait_reason for goroutine in goroutines):
        assert time.monotonic() < end
        offset.sleep(0.001) if offset.current() else time.sleep(0.001)
"""


def succeed(program, *options, expected="fine\n", env=None, args=()):
    """Run a program that must print `expected` and end well."""
    ended = run_script(PREAMBLE + program, *args, interpreter_options=options, env=env)
    assert (ended.returncode, ended.stdout) == (0, expected), ended.stdout + ended.stderr
    return ended
