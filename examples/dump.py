"""A dump: why nobody goes on, asked from outside while the program runs.

    python dump.py

Twenty workers have a result each, and the collector has left after three: the others wait for ever. The command
`offset dump --group PID`, from a terminal or, as here, from the program itself, says where. Then the results are
fetched and the program ends.
"""

import os
import sys

from offset import go, makechan, run, sleep
from offset.syscall import subprocess

WORKERS = 20
ENOUGH = 3


def work(jobs, results):
    for job in jobs:
        results.send(job * job)


def main():
    jobs, results = makechan(WORKERS), makechan()
    workers = [go(work, jobs, results) for _ in range(WORKERS)]
    for job in range(WORKERS):
        jobs.send(job)
    jobs.close()
    squares = {results.recv() for _ in range(ENOUGH)}
    while results.stats()["senders"] < WORKERS - ENOUGH:
        sleep(0.001)

    command = [sys.executable, "-m", "offset", "dump", "--group", str(os.getpid())]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in dump.split("\n\n"):
        if "[chan send" in block:
            print(block)

    squares |= {results.recv() for _ in range(WORKERS - ENOUGH)}
    for worker in workers:
        worker.join()
    print(len(squares), "squares")


if __name__ == "__main__":
    run(main)
