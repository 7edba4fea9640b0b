"""Processes that have no descriptor left: for programs of tests, which have `TESTS` in their environment."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

TESTS = {"PYTHONPATH": str(Path(__file__).parent)}


def take_all(limit: int) -> list[int]:
    """Set the limit of descriptors and take those that are left; give them, to be closed later.

    The runtime's monitor opens a file now and then, for some microseconds, or for longer where it is kept from going
    on: what is free is looked for again until none is such a file.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    taken: list[int] = []
    while True:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        files = [number for number in set(range(limit)) - set(taken) if _leads_to(number).startswith("/proc/")]
        with contextlib.suppress(OSError):
            # One that was closed before it was looked at.
            taken.append(os.dup(0))
            continue
        if not files:
            return taken
        time.sleep(0.001)


def _leads_to(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        # Closed meanwhile, or kept by a call that is about to open it.
        return ""
