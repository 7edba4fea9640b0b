"""Builds the shim with its test module and runs its tests: `python run.py [more interpreters]`.

Without an argument it tests the interpreter that runs it. Needs a C compiler and the interpreter's headers; writes to a
temporary directory only. Each interpreter runs the tests twice, the second time in development mode under tracemalloc.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# What stands by itself: call.c is the way from C into the extension.
PARTS = ["attach", "bytecode", "context", "hand", "identity", "memory", "refcounts", "setup", "threading"]
SOURCES = [f"{part}.c" for part in PARTS]
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fexceptions", "-fPIC", "-shared", "-g"]
DESCRIBE = "import sys, sysconfig; print(sys.version.split()[0], sys.abiflags); print(sysconfig.get_path('include'))"
# Seconds after which a run hangs; one takes a few.
LIMIT = 240
MODES = ([], ["-X", "dev", "-X", "tracemalloc"])


def build(python: str, directory: Path) -> str:
    """Compiles the module into the directory; the interpreter's version."""
    version, include = subprocess.check_output([python, "-I", "-S", "-c", DESCRIBE], text=True).splitlines()
    sources = [TESTS.parent / name for name in SOURCES] + [TESTS / "shimtest.c"]
    headers = ["-I", str(TESTS.parent), "-isystem", f"{include}/internal", "-isystem", include]
    compiler = os.environ.get("CC", "cc")
    subprocess.check_call([compiler, *FLAGS, *headers, *map(str, sources), "-o", str(directory / "shimtest.so")])
    return version


def main(pythons: list[str]) -> int:
    """Tests each interpreter; the number of runs that failed."""
    failures = 0
    for python in pythons or [sys.executable]:
        with tempfile.TemporaryDirectory() as directory:
            version = build(python, Path(directory))
            environment = {**os.environ, "PYTHONPATH": directory}
            for mode in MODES:
                print(f"== {version} {' '.join(mode)}", flush=True)
                try:
                    code = subprocess.call([python, *mode, str(TESTS / "cases.py")], env=environment, timeout=LIMIT)
                except subprocess.TimeoutExpired:
                    code = f"none: it hung for {LIMIT} s"
                if code:
                    failures += 1
                    print(f"exit status {code}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
