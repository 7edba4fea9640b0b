"""The live page: what a program's goroutines do, for a browser and for Prometheus.

    python live.py [SECONDS]

A hundred workers wait for jobs on a channel while the page is served. The program reads from it what a scraper would,
and prints some of it; with SECONDS it stays for so long, for a look with a browser.
"""

import json
import sys

from offset import debug, go, makechan, run, sleep
from offset.syscall.urllib.request import urlopen

WORKERS = 100


def work(jobs):
    for _ in jobs:
        sleep(0.001)


def read(server, path):
    with urlopen(f"http://{server.addr}{path}") as answer:
        return answer.read().decode()


def main(seconds):
    jobs = makechan(WORKERS, label="jobs")
    workers = [go(work, jobs) for _ in range(WORKERS)]
    debug.publish("jobs", jobs.stats)
    with debug.serve("127.0.0.1:0") as server:
        for job in range(5 * WORKERS):
            jobs.send(job)
        while json.loads(read(server, "/debug/vars"))["jobs"]["receivers"] < WORKERS:
            sleep(0.01)
        for line in read(server, "/metrics").splitlines():
            if line.startswith("offset_goroutines{"):
                print(line)
        (channel,) = json.loads(read(server, "/debug/live?show=channels&q=jobs"))["channels"]["rows"]
        print(f"channel {channel['label']}: {channel['waiters']} goroutines wait there")
        if seconds:
            print(f"http://{server.addr}/")
            sleep(seconds)
    jobs.close()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 0)
