"""A supervisor: a worker that fails is started again, a little later each time, and the others do not notice.

Three printers take pages from one queue. A page that jams a printer makes its worker fail; the supervisor waits
a moment and starts it anew. The page is put back once, and given up the second time. When all pages are done
the queue is closed, and the workers return: that is no failure, so nobody starts them again.
"""

from collections import Counter

from offset import makechan, run, supervise, sync, time

PAGES = 12
JAMMING = {3, 7}


class Queue:
    """The pages to print. `left` counts those that are neither printed nor given up."""

    def __init__(self):
        self.pages, self.left = makechan(PAGES), sync.WaitGroup()
        # Guards what is below.
        self.lock = sync.Mutex()
        self.jams, self.printed = Counter(), []

    def fill(self):
        self.left.add(PAGES)
        for page in range(PAGES):
            self.pages.send(page)

    def work(self, printer):
        for page in self.pages:
            time.sleep(2 * time.MILLISECOND)
            if page in JAMMING:
                self.jam(page, printer)
            with self.lock:
                self.printed.append(page)
            self.left.done()

    def jam(self, page, printer):
        with self.lock:
            self.jams[page] += 1
            again = self.jams[page] < 2
        if again:
            self.pages.send(page)
        else:
            self.left.done()
        raise RuntimeError(f"page {page} jams {printer}" + ("" if again else ", and is given up"))


def report(_, error, delay):
    print(f"{error}; its worker starts again in {delay * 1000:.0f} ms")


def main():
    queue = Queue()
    queue.fill()
    backoff = supervise.Backoff(first=10 * time.MILLISECOND, factor=2, jitter=0)
    with supervise.Supervisor(backoff=backoff, on_failure=report) as supervisor:
        for printer in ("laser", "inkjet", "plotter"):
            supervisor.go(queue.work, printer)
        queue.left.wait()
        queue.pages.close()
    print(f"{len(queue.printed)} of {PAGES} pages are printed, after {sum(queue.jams.values())} jams")


if __name__ == "__main__":
    run(main)
