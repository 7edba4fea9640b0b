"""The trace: which call holds the others up, and that it does so no more.

A crawler fetches eight pages, each in a goroutine. `fetch` waits in a call of C, where the runtime cannot see it, and
the trace names it. Called through `blocking` it waits in a thread of its own, and the trace has nothing to say.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from offset import run, sync
from offset.runtime import trace
from offset.syscall import blocking

PAGES = 8


def fetch(page):
    time.sleep(0.05)


def fetch_aside(page):
    blocking(fetch, page)


def crawl(fetch_page):
    done = sync.WaitGroup()
    for page in range(PAGES):
        done.go(fetch_page, page)
    done.wait()


def traced(fetch_page, path):
    """Crawl under a trace and print how long that took and what froze a machine; whether `fetch` is named."""
    started = time.perf_counter()
    with trace.start(path):
        run(crawl, fetch_page)
    took = time.perf_counter() - started
    command = [sys.executable, "-m", "offset", "trace", "summary", path]
    summary = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    title, *lines = summary.split("\n\n")[1].splitlines()
    print(f"{fetch_page.__name__}: {took:.2f} s. {title}:", *lines, sep="\n")
    return any("in fetch" in line for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        named = traced(fetch, Path(directory, "fetch.json"))
        traced(fetch_aside, Path(directory, "aside.json"))
    if not named:
        sys.exit("the trace did not name the call that held the others up")
