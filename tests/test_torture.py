"""`torture.py` for ten seconds; OFFSET_TORTURE_SECONDS says otherwise, and the `seed` fixture replays a failure."""

import os
from pathlib import Path

import pytest
from helpers import run_script

SECONDS = float(os.environ.get("OFFSET_TORTURE_SECONDS", "10"))


@pytest.mark.timeout(SECONDS + 180)
def test_torture(seed):
    ended = run_script(Path(__file__).with_name("torture.py"), SECONDS, seed, timeout=SECONDS + 150)
    assert ended.returncode == 0, f"seed {seed}\n{ended.stdout[-8000:]}\n{ended.stderr[-8000:]}"
    assert ended.stdout.endswith("passed\n"), ended.stdout
