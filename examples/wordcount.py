"""A pipeline: count the words of every .py file of the interpreter's own standard library.

    python wordcount.py [WORKERS]

One goroutine finds the files, WORKERS of them (8 unless told) read and count, and main adds up
while a ticker has it show how far they are. A plain loop over the same files must agree.
"""

import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path

from offset import go, makechan, run, select, sync, syscall, time

WORD = re.compile(rb"\w+")


def sources():
    """The paths of the library's files, without what pip has added to it."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if "site-packages" not in path.relative_to(library).parts:
            yield path


def find(paths):
    """Send every path, then say that there are no more."""
    for path in sources():
        paths.send(path)
    paths.close()


def count(paths, counts):
    """Count the words of one file after the other; reading it parks only this goroutine."""
    for path in paths:
        counts.send(Counter(WORD.findall(syscall.blocking(path.read_bytes))))


def show(files, words):
    """Print the progress, on one line where that is possible."""
    end = "\r" if sys.stdout.isatty() else "\n"
    print(f"{files:5} files, {words:9,} words", end=end, flush=True)


def main(workers):
    paths, counts = makechan(), makechan()
    go(find, paths)

    busy = sync.WaitGroup()
    for _ in range(workers):
        busy.go(count, paths, counts)

    def close_when_done():
        busy.wait()
        counts.close()

    go(close_when_done)

    files, total = 0, Counter()
    progress = time.Ticker(200 * time.MILLISECOND)
    while True:
        chosen = select(counts.if_recv(), progress.c.if_recv())
        if chosen.index == 1:
            show(files, total.total())
        elif chosen.ok:
            files += 1
            total.update(chosen.value)
        else:
            break
    progress.stop()
    show(files, total.total())
    print("\nmost common:", ", ".join(f"{word.decode()} {times:,}" for word, times in total.most_common(5)))

    expected = Counter()
    for path in sources():
        expected.update(WORD.findall(path.read_bytes()))
    if total != expected:
        sys.exit(f"a plain loop counts {expected.total():,} words")
    print("a plain loop agrees")


if __name__ == "__main__":
    run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8)
