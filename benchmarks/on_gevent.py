"""gevent: greenlets, the unbuffered Channel, Queue, Semaphore, the thread pool of the hub, StreamServer. No select."""

import gevent
from common import Clock, Gap, Parking, Result, calibrate, count, delays, main, nothing, visit
from gevent.lock import Semaphore
from gevent.queue import Channel, Queue
from gevent.server import StreamServer
from scenarios import BUFFER, FANIN_BUFFER, HOG_SECONDS, MUTEX_TASKS, PRODUCERS


def spawn(n: int) -> Result:
    hits = 0

    def task():
        nonlocal hits
        hits += 1

    with Clock() as clock:
        gevent.joinall([gevent.spawn(task) for _ in range(n)])
    return clock.result(hits)


def pingpong(n: int) -> Result:
    there, back = Channel(), Channel()

    def ping():
        for i in range(n):
            there.put(i)
            back.get()

    def pong():
        for _ in range(n):
            back.put(there.get())

    with Clock() as clock:
        gevent.joinall([gevent.spawn(ping), gevent.spawn(pong)])
    return clock.result(n)


def through_queue(n: int, size: int, producers: int) -> Result:
    """`producers` put n values in all into one queue, and one greenlet takes them out."""
    share, values = n // producers, Queue(size)

    def produce():
        for i in range(share):
            values.put(i)

    def consume():
        for _ in range(share * producers):
            values.get()

    with Clock() as clock:
        for _ in range(producers):
            gevent.spawn(produce)
        gevent.spawn(consume).join()
    return clock.result(share * producers)


def buffered(n: int) -> Result:
    return through_queue(n, BUFFER, 1)


def fanin(n: int) -> Result:
    return through_queue(n, FANIN_BUFFER, PRODUCERS)


def sieve(n: int) -> Result:
    def generate(numbers):
        i = 2
        while True:
            numbers.put(i)
            i += 1

    def keep_indivisible(source, sink, prime):
        while True:
            number = source.get()
            if number % prime:
                sink.put(number)

    def head():
        numbers = Channel()
        gevent.spawn(generate, numbers)
        for _ in range(n):
            prime = numbers.get()
            rest = Channel()
            gevent.spawn(keep_indivisible, numbers, rest, prime)
            numbers = rest
        return prime

    with Clock() as clock:
        prime = gevent.spawn(head).get()
    return clock.result(1, last=prime)


def mutex(n: int) -> Result:
    lock, held = Semaphore(1), 0

    def task():
        nonlocal held
        for _ in range(n // MUTEX_TASKS):
            with lock:
                held += 1
                gevent.sleep(0)

    with Clock() as clock:
        gevent.joinall([gevent.spawn(task) for _ in range(MUTEX_TASKS)])
    return clock.result(held)


def parked(n: int) -> Result:
    # Not a Queue: waking n readers of one takes time in the square of n.
    wake, started = Channel(), 0

    def task():
        nonlocal started
        started += 1
        wake.get()

    def feed():
        for i in range(n):
            wake.put(i)

    parking = Parking(n)
    tasks = [gevent.spawn(task) for _ in range(n)]
    while started < n:
        gevent.sleep(0)
    parking.parked()
    gevent.joinall([gevent.spawn(feed), *tasks])
    return parking.result()


def timers(n: int) -> Result:
    waits = delays(n)
    with Clock() as clock:
        gevent.joinall([gevent.spawn(gevent.sleep, delay) for delay in waits])
    return clock.result(n)


def yield_(n: int) -> Result:
    def task():
        for _ in range(n // 2):
            gevent.sleep(0)

    with Clock() as clock:
        gevent.joinall([gevent.spawn(task), gevent.spawn(task)])
    return clock.result(n // 2 * 2)


def hogs(n: int) -> Result:
    turns, left = calibrate(HOG_SECONDS), n

    def task():
        nonlocal left
        count(turns)
        left -= 1

    with Clock() as clock:
        for _ in range(n):
            gevent.spawn(task)
        gap = Gap()
        while left:
            gevent.sleep(0)
            gap.turn()
    return clock.result(n, gap_seconds=gap.seconds)


def offload(n: int) -> Result:
    apply = gevent.get_hub().threadpool.apply

    def task():
        for _ in range(n):
            apply(nothing)

    apply(nothing)
    with Clock() as clock:
        gevent.spawn(task).join()
    return clock.result(n)


def echo(sock, address):
    while data := sock.recv(65_536):
        sock.sendall(data)


def serve(n: int) -> Result:
    server = StreamServer(("127.0.0.1", 0), echo)
    server.start()
    return gevent.get_hub().threadpool.apply(visit, (server.server_port, n))


if __name__ == "__main__":
    main(globals())
