"""Processes that have no descriptor left: for programs of tests, which have `TESTS` in their environment."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

TESTS = {"PYTHONPATH": str(Path(__file__).parent)}


def take_all(limit: int) -> list[int]:
    """Set the limit of descriptors and take those that are left; give them, to be closed later.

    The runtime's monitor opens a file now and then, for some microseconds, so what is free is looked for again.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    taken: list[int] = []
    for _ in range(5):
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            time.sleep(0.005)
    return taken
