"""Deep recursion of every kind inside a goroutine ends well: see `recursion_cases.py` for the kinds.

A case may end with a result or with an ordinary exception (RecursionError, MemoryError, SyntaxError, ...).
Those of UNCHECKED, which CPython itself leaves unchecked, may instead end the process with the message of
the guard below the stack, which names the goroutine.

Invariants: the cases of one kind run in one process; after a crash the rest of them runs in a new one, so that
no case depends on another. A case's outcome is found once and kept.
"""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import recursion_cases
import recursion_data  # noqa: F401
from helpers import script_command, script_environment

PROGRAM = Path(__file__).with_name("recursion_cases.py")

# Exceptions that end a case as they may end it on the main thread.
ORDINARY = {
    "result", "RecursionError", "MemoryError", "SyntaxError", "IndentationError", "ValueError", "OverflowError",
    "TypeError", "KeyError", "AttributeError", "JSONDecodeError", "PicklingError", "error", "ParseError",
    "OperationalError", "InterpolationDepthError", "StopIteration", "ArgumentError", "MessageError",
    "HeaderWriteError", "FrozenInstanceError", "InvalidOperation", "DecimalException", "EOFError",
    "PatternError", "RuntimeError", "ReferenceError", "UnicodeEncodeError", "NameError", "RuntimeWarning",
}  # fmt: skip

# What CPython recurses in without a check. Each of these crashes its main thread as well, given data that is
# deep enough for the larger stack there (three million instead of a hundred thousand).
UNCHECKED = {
    "data: bound methods",
    "data: hash of generic aliases",
    "data: hash of tuples",
    "data: next of enumerate",
    "data: next of filter",
    "data: next of generators",
    "data: next of itertools.chain",
    "data: next of itertools.islice",
    "data: next of map",
    "data: next of zip",
}
if sys.version_info < (3, 14):
    # From 3.14 on the stack is measured by its address, and every deallocation is bounded.
    UNCHECKED |= {
        "data: deepcopy of elements",
        "data: equality of deques",
        "data: repr of deques",
        "data: repr of slices",
        "dealloc: cells",
        "dealloc: deque",
        "dealloc: enumerate",
        "dealloc: generators",
        "dealloc: itertools.cycle",
        "dealloc: itertools.islice",
        "dealloc: methods",
        "dealloc: properties",
        "dealloc: slices",
    }


def kinds():
    return list(dict.fromkeys(name.partition(":")[0] for name in recursion_cases.CASES))


@functools.cache
def outcomes(kind):
    """The outcome of each case of a kind; for one that ended the process, its (status, stderr)."""
    waiting = [name for name in recursion_cases.CASES if name.partition(":")[0] == kind]
    found = {}
    while waiting:
        process = subprocess.run(
            script_command(PROGRAM, *waiting),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            env=script_environment(),
            timeout=250,
            check=False,
            start_new_session=True,
        )
        begun = re.findall(r"^begin (.*)$", process.stdout, re.MULTILINE)
        ended = dict(re.findall(r"^end (.*) (\S+)$", process.stdout, re.MULTILINE))
        found.update(ended)
        waiting = [name for name in waiting if name not in ended]
        if waiting and process.returncode == 0:
            raise AssertionError(f"the program ended before {waiting[0]}: {process.stderr}")
        if waiting:
            assert begun, process.stderr
            crashed = begun[-1]
            found[crashed] = (process.returncode, process.stderr)
            waiting = [name for name in waiting if name != crashed]
        elif process.returncode:
            raise AssertionError(f"status {process.returncode} after the last case: {process.stderr}")
    return found


# The first case of a kind waits for all of them, in a process and one more for each that ends its process.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", recursion_cases.CASES)
def test_recursion(name):
    outcome = outcomes(name.partition(":")[0])[name]
    if isinstance(outcome, str):
        assert outcome in ORDINARY
        return
    status, stderr = outcome
    assert name in UNCHECKED, f"ended the process with status {status}:\n{stderr}"
    assert re.search(r"goroutine \d+", stderr), stderr
    assert name in stderr
    assert "set_stack_size" in stderr


def test_there_are_as_many_kinds_as_are_known():
    assert len(recursion_cases.CASES) >= 139
    assert set(recursion_cases.CASES) >= UNCHECKED
    assert len(kinds()) > 5
