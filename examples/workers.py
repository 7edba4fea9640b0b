"""A worker pool with a limit on its rate, cancelled by closing a channel.

Three workers take jobs from one channel and may begin one every 20 ms between them: a ticker hands
out the permissions. When main has seen enough results it closes `done`, which every one of the
goroutines watches, and waits until they have gone.
"""

from itertools import count

from offset import makechan, run, select, sync, time

WORKERS = 3
ENOUGH = 12


def produce(jobs, done):
    """Send job after job; there are as many as anybody wants."""
    for job in count(1):
        if select(jobs.if_send(job), done.if_recv()).index == 1:
            return


def work(name, jobs, permissions, results, done):
    """Do a job for each permission until told to stop."""
    while True:
        if select(permissions.if_recv(), done.if_recv()).index == 1:
            break
        taken = select(jobs.if_recv(), done.if_recv())
        if taken.index == 1:
            break
        job = taken.value
        if select(results.if_send((name, job, job * job)), done.if_recv()).index == 1:
            break
    print(f"{name} stops")


def main():
    jobs, results, done = makechan(), makechan(), makechan()
    running = sync.WaitGroup()
    limiter = time.Ticker(20 * time.MILLISECOND)

    running.go(produce, jobs, done)
    for number in range(1, WORKERS + 1):
        running.go(work, f"worker {number}", jobs, limiter.c, results, done)

    started = time.now()
    for _ in range(ENOUGH):
        name, job, square = results.recv()
        print(f"{name}: {job} squared is {square}")
    took = time.now() - started

    limiter.stop()
    done.close()
    running.wait()
    print(f"{ENOUGH} results in {took:.2f} s; everybody has stopped")


if __name__ == "__main__":
    run(main)
