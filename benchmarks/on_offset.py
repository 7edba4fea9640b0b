"""offset: goroutines, channels, select, sync.Mutex, sleep, syscall.blocking, offset.net, all inside offset.run.

BENCH_NET=socket takes the proxied module `socket` for the servers instead of offset.net.
"""

import os

import offset
from common import Clock, Gap, Parking, Result, calibrate, count, delays, main, nothing, visit
from offset import go, gosched, makechan, net, select, sleep, sync, syscall
from offset.syscall import socket
from scenarios import BUFFER, FANIN_BUFFER, HOG_SECONDS, MUTEX_TASKS, PRODUCERS


def spawn(n: int) -> Result:
    hits, running = 0, sync.WaitGroup()

    def task():
        nonlocal hits
        hits += 1
        running.done()

    with Clock() as clock:
        running.add(n)
        for _ in range(n):
            go(task)
        running.wait()
    # Builds without the GIL lose some of the unguarded additions; the wait group has counted the tasks.
    return clock.result(n)


def pingpong(n: int) -> Result:
    there, back = makechan(), makechan()

    def pong():
        for _ in range(n):
            back.send(there.recv())

    with Clock() as clock:
        go(pong)
        for i in range(n):
            there.send(i)
            back.recv()
    return clock.result(n)


def buffered(n: int) -> Result:
    values = makechan(BUFFER)

    def produce():
        for i in range(n):
            values.send(i)

    with Clock() as clock:
        go(produce)
        for _ in range(n):
            values.recv()
    return clock.result(n)


def fanin(n: int) -> Result:
    share = n // PRODUCERS

    def produce(values):
        for i in range(share):
            values.send(i)

    with Clock() as clock:
        sources = [makechan(FANIN_BUFFER) for _ in range(PRODUCERS)]
        for values in sources:
            go(produce, values)
        cases = [values.if_recv() for values in sources]
        for _ in range(share * PRODUCERS):
            select(*cases)
    return clock.result(share * PRODUCERS)


def sieve(n: int) -> Result:
    def generate(numbers):
        i = 2
        while True:
            numbers.send(i)
            i += 1

    def keep_indivisible(source, sink, prime):
        while True:
            number = source.recv()
            if number % prime:
                sink.send(number)

    with Clock() as clock:
        numbers = makechan()
        go(generate, numbers)
        for _ in range(n):
            prime = numbers.recv()
            rest = makechan()
            go(keep_indivisible, numbers, rest, prime)
            numbers = rest
    return clock.result(1, last=prime)


def mutex(n: int) -> Result:
    lock, running, held = sync.Mutex(), sync.WaitGroup(), 0

    def task():
        nonlocal held
        for _ in range(n // MUTEX_TASKS):
            with lock:
                held += 1
                gosched()
        running.done()

    with Clock() as clock:
        running.add(MUTEX_TASKS)
        for _ in range(MUTEX_TASKS):
            go(task)
        running.wait()
    return clock.result(held)


def parked(n: int) -> Result:
    wake, started, done = makechan(), sync.WaitGroup(), sync.WaitGroup()

    def task():
        started.done()
        wake.recv()
        done.done()

    parking = Parking(n)
    started.add(n)
    done.add(n)
    for _ in range(n):
        go(task)
    started.wait()
    parking.parked()
    for i in range(n):
        wake.send(i)
    done.wait()
    return parking.result()


def timers(n: int) -> Result:
    waits, running = delays(n), sync.WaitGroup()

    def task(delay):
        sleep(delay)
        running.done()

    with Clock() as clock:
        running.add(n)
        for delay in waits:
            go(task, delay)
        running.wait()
    return clock.result(n)


def yield_(n: int) -> Result:
    running = sync.WaitGroup()

    def task():
        for _ in range(n // 2):
            gosched()
        running.done()

    with Clock() as clock:
        running.add(2)
        go(task)
        go(task)
        running.wait()
    return clock.result(n // 2 * 2)


def hogs(n: int) -> Result:
    turns, left = calibrate(HOG_SECONDS), n

    def task():
        nonlocal left
        count(turns)
        left -= 1

    with Clock() as clock:
        for _ in range(n):
            go(task)
        gap = Gap()
        while left:
            gosched()
            gap.turn()
    return clock.result(n, gap_seconds=gap.seconds)


def offload(n: int) -> Result:
    syscall.blocking(nothing)
    with Clock() as clock:
        for _ in range(n):
            syscall.blocking(nothing)
    return clock.result(n)


def echo(conn):
    with conn:
        while data := conn.read(65_536):
            conn.write(data)


def echo_socket(connection):
    with connection:
        while data := connection.recv(65_536):
            connection.sendall(data)


def serve(n: int) -> Result:
    def accept():
        for conn in listener:
            go(echo, conn)

    def accept_sockets():
        while True:
            go(echo_socket, sockets.accept()[0])

    if os.environ.get("BENCH_NET") == "socket":
        sockets = socket.create_server(("127.0.0.1", 0), backlog=1024)
        go(accept_sockets)
        port = sockets.getsockname()[1]
    else:
        listener = net.listen("tcp", "127.0.0.1:0")
        go(accept)
        port = int(listener.addr.rpartition(":")[2])
    return syscall.blocking(visit, port, n)


if __name__ == "__main__":
    main(globals(), offset.run)
