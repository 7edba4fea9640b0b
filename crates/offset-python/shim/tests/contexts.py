"""What the tests of the shim share: the module under test, set up, and contexts to run functions in.

Each test uses contexts of its own, on the thread that made them unless it says otherwise.
"""

import contextvars
import subprocess
import sys
import sysconfig
import threading
import unittest

import shimtest

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
VIRTUAL = shimtest.install() > 0

variable = contextvars.ContextVar("variable", default="default")
other = contextvars.ContextVar("other", default="default")
local = threading.local()


def run(context, function):
    """The function's result; the context must be fit for another goroutine."""
    result, reusable = shimtest.run(context, function)
    assert reusable == 1
    return result


def on_thread(function):
    """Runs the function on a thread of its own and gives its result."""
    results = []

    def body():
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    result, error = results[0]
    if error is not None:
        raise error
    return result


def child(code, *options):
    """Runs a program in a subprocess; its exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", *options, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


class ContextTest(unittest.TestCase):
    def setUp(self):
        self.context = shimtest.new()
        self.addCleanup(self.delete)

    def delete(self):
        if self.context is not None:
            shimtest.delete(self.context)
