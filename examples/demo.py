"""Run all the example programs in turn, each in an interpreter of its own, and show what they print.

Fails when one of them does; the others are run all the same.
"""

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# The programs, in the order of the tour, and what each of them shows.
PROGRAMS = {
    "hello.py": "goroutines: two of them say their word in turn",
    "halves.py": "channels: a list summed in two halves",
    "buffered.py": "buffered channels: two values wait in one",
    "fibonacci.py": "select: Fibonacci numbers until told to quit",
    "boom.py": "select with a default: tick, tick, BOOM!",
    "sieve.py": "a goroutine for every prime: the sieve",
    "wordcount.py": "a pipeline: the words of the standard library",
    "rescue.py": "the rescue: 50 blocked goroutines beside an endless loop",
    "freeze.py": "the trace: which call holds the others up",
    "dump.py": "a dump: where all wait, asked from outside",
    "live.py": "the live page, as a scraper sees it",
    "crawler.py": "a crawler with urllib: 10 pages at once",
    "workers.py": "a worker pool: limited in rate, cancelled by closing a channel",
    "siblings.py": "a group: the first error ends the other members",
    "restart.py": "a supervisor: workers that fail are started again",
    "leak.py": "leaks: goroutines that nobody can wake, by name",
    "explore.py": "schedules from seeds: a bug that shows in some of them",
    "web.py": "a web server: a hundred requests that wait at once",
    "chat.py": "a chat server on plain sockets",
    "both.py": "asyncio, both ways: its streams in plain functions, its tasks at a channel",
    "spider.py": "a crawler with requests: copies on the proxies, and the library as it is",
    "echo.py": "an echo server and ten thousand clients at once, and no threads",
}

# They need goroutines to be moved away from an OS thread that is blocked, which builds without the GIL cannot do.
NEED_MOVES = {"rescue.py", "freeze.py", "chat.py", "spider.py"}
WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# Seconds after which a program is taken to hang.
PATIENCE = 120


def finish(program):
    """Run one program; give an empty string, or what went wrong."""
    try:
        status = subprocess.run([sys.executable, program], timeout=PATIENCE, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"not done after {PATIENCE} s"
    return f"status {status}" if status else ""


def main():
    failed, left_out = [], len(NEED_MOVES) if WITHOUT_GIL else 0
    for name, what in PROGRAMS.items():
        if WITHOUT_GIL and name in NEED_MOVES:
            print(f"\n==== {name}: left out, as a build without the GIL cannot move goroutines")
            continue
        print(f"\n==== {name}: {what}\n", flush=True)
        started = time.monotonic()
        ended = finish(HERE / name)
        print(f"\n---- {time.monotonic() - started:.1f} s{ended and ', FAILED: '}{ended}", flush=True)
        if ended:
            failed.append(name)

    tried = len(PROGRAMS) - left_out
    print(f"\n==== {tried - len(failed)} of {tried} programs did what they should")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
