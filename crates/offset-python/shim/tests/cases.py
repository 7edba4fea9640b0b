"""Runs the tests of the shim, after a line that says what its parts cost.

Run by run.py. An argument names a module, a class or a test: `reuse_cases.Fields`.
"""

import sys
import unittest

import shimtest
from contexts import VIRTUAL

MODULES = ["reuse_cases", "thread_cases", "process_cases"]

if __name__ == "__main__":
    print("virtual identity:", VIRTUAL)
    context, idle = shimtest.new(), shimtest.new()
    print("finish, reset, tracing, ns: %.1f %.1f %.1f" % shimtest.run(context, lambda: shimtest.cost(200000))[0][:3])
    shimtest.delete(context)
    shimtest.delete(idle)
    unittest.main(module=None, argv=[sys.argv[0], *(sys.argv[1:] or MODULES)], verbosity=1)
