"""OS threads: threading, queue.Queue, concurrent.futures, sockets that block.

There is no unbuffered channel and no select: queues of one value, or one queue, stand for them.
"""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue, SimpleQueue

from common import Clock, Gap, Parking, Result, calibrate, count, delays, main, nothing, visit
from scenarios import BUFFER, FANIN_BUFFER, HOG_SECONDS, MUTEX_TASKS, PRODUCERS

threading.stack_size(256 * 1024)


def start(function, *args) -> threading.Thread:
    """A daemon thread that has been started."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def join(threads) -> None:
    """Wait for the end of all of them."""
    for thread in threads:
        thread.join()


def spawn(n: int) -> Result:
    hits, lock = 0, threading.Lock()

    def task():
        nonlocal hits
        with lock:
            hits += 1

    with Clock() as clock:
        join([start(task) for _ in range(n)])
    return clock.result(hits)


def pingpong(n: int) -> Result:
    there, back = Queue(1), Queue(1)

    def pong():
        for _ in range(n):
            back.put(there.get())

    with Clock() as clock:
        start(pong)
        for i in range(n):
            there.put(i)
            back.get()
    return clock.result(n)


def through_queue(n: int, size: int, producers: int) -> Result:
    """`producers` put n values in all into one queue, and one thread takes them out."""
    share, values = n // producers, Queue(size)

    def produce():
        for i in range(share):
            values.put(i)

    with Clock() as clock:
        for _ in range(producers):
            start(produce)
        for _ in range(share * producers):
            values.get()
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

    with Clock() as clock:
        numbers = Queue(1)
        start(generate, numbers)
        for _ in range(n):
            prime = numbers.get()
            rest = Queue(1)
            start(keep_indivisible, numbers, rest, prime)
            numbers = rest
    return clock.result(1, last=prime)


def mutex(n: int) -> Result:
    lock, held = threading.Lock(), 0

    def task():
        nonlocal held
        for _ in range(n // MUTEX_TASKS):
            with lock:
                held += 1
                time.sleep(0)

    with Clock() as clock:
        join([start(task) for _ in range(MUTEX_TASKS)])
    return clock.result(held)


def parked(n: int) -> Result:
    wake, started = SimpleQueue(), threading.Semaphore(0)

    def task():
        started.release()
        wake.get()

    parking = Parking(n)
    tasks = [start(task) for _ in range(n)]
    for _ in range(n):
        started.acquire()
    parking.parked()
    for i in range(n):
        wake.put(i)
    join(tasks)
    return parking.result()


def timers(n: int) -> Result:
    waits = delays(n)
    with Clock() as clock:
        join([start(time.sleep, delay) for delay in waits])
    return clock.result(n)


def yield_(n: int) -> Result:
    def task():
        for _ in range(n // 2):
            time.sleep(0)

    with Clock() as clock:
        join([start(task), start(task)])
    return clock.result(n // 2 * 2)


def hogs(n: int) -> Result:
    turns, left = calibrate(HOG_SECONDS), n

    def task():
        nonlocal left
        count(turns)
        left -= 1

    with Clock() as clock:
        tasks = [start(task) for _ in range(n)]
        gap = Gap()
        while left:
            time.sleep(0)
            gap.turn()
        join(tasks)
    return clock.result(n, gap_seconds=gap.seconds)


def offload(n: int) -> Result:
    with ThreadPoolExecutor() as pool:
        pool.submit(nothing).result()
        with Clock() as clock:
            for _ in range(n):
                pool.submit(nothing).result()
    return clock.result(n)


def serve(n: int) -> Result:
    def echo(connection):
        with connection:
            while data := connection.recv(65_536):
                connection.sendall(data)

    def accept(listener):
        while True:
            start(echo, listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        start(accept, listener)
        return visit(listener.getsockname()[1], n)


if __name__ == "__main__":
    main(globals())
