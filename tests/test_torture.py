"""`torture.py` and `torture_net.py` for ten seconds each; OFFSET_TORTURE_SECONDS says otherwise, and the `seed` fixture
replays a failure.
"""

import os
from pathlib import Path

import pytest
from helpers import run_script

SECONDS = float(os.environ.get("OFFSET_TORTURE_SECONDS", "10"))


@pytest.mark.timeout(SECONDS + 280)
@pytest.mark.parametrize("program", ["torture", "torture_net"])
def test_torture(program, seed):
    ended = run_script(Path(__file__).with_name(f"{program}.py"), SECONDS, seed, timeout=SECONDS + 250)
    assert ended.returncode == 0, f"seed {seed}\n{ended.stdout[-8000:]}\n{ended.stderr[-8000:]}"
    assert ended.stdout.endswith("passed\n"), ended.stdout
