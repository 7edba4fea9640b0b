"""A TCP echo server and its clients in one process: `python echo.py [CLIENTS]`, 1000 unless told.

All clients are connected at the same time, one goroutine each, and as many serve them. No connection takes a thread.
"""

import resource
import sys
import time

from offset import go, makechan, net, run, runtime, sync

MESSAGES = 5


def serve(listener):
    """A goroutine for every connection, until the listener is closed."""
    for conn in listener:
        go(echo, conn)


def echo(conn):
    with conn:
        while data := conn.read(1024):
            conn.write(data)


def ask(address, number, here, begin):
    """Connect, wait for all the others, and say something."""
    message = f"client {number} says hello".encode()
    with net.dial("tcp", address) as conn:
        here.done()
        begin.recv_ok()
        for _ in range(MESSAGES):
            conn.write(message)
            if conn.read_full(len(message)) != message:
                raise AssertionError("that is not what was said")


def main(clients):
    started = time.perf_counter()
    here, done, begin = sync.WaitGroup(), sync.WaitGroup(), makechan()
    with net.listen("tcp", "127.0.0.1:0") as listener:
        go(serve, listener)
        here.add(clients)
        for number in range(clients):
            done.go(ask, listener.addr, number, here, begin)
        here.wait()
        threads = runtime.stats()["machines"]
        begin.close()
        done.wait()
    took = time.perf_counter() - started
    print(f"{clients} clients at once, {clients * MESSAGES} echoes, {threads} OS threads, {took:.2f} s")


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    # Two descriptors a client, and some to spare; as many as the system lets us have.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    run(main, wanted if most == resource.RLIM_INFINITY else min(wanted, (most - 100) // 2))
