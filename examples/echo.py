"""A TCP echo server and its clients in one process: `python echo.py [CLIENTS]`, 10,000 unless told.

All clients are connected at the same time, one goroutine each, and as many serve them. No connection takes a
thread. Each takes two descriptors, so there are as many clients as the system's limit on open files allows. The
server listens on several loopback addresses: with each of them a client may have any port, and so there are
enough. On builds without the GIL it is 1,000 unless told.
"""

import resource
import sys
import sysconfig
import time

from offset import go, makechan, net, run, runtime, sync

# Without the GIL a goroutine that has worked takes 20 times the memory.
CLIENTS = 1_000 if sysconfig.get_config_var("Py_GIL_DISABLED") else 10_000
MESSAGES = 5
ADDRESSES = [f"127.0.0.{number}:0" for number in range(1, 5)]
# So many descriptors are left for everything else.
SPARE = 100
# So many clients connect at the same moment: more would find the queue of a listener full, and wait for seconds.
AT_ONCE = 500


def serve(listener):
    """A goroutine for every connection, until the listener is closed."""
    for conn in listener:
        go(echo, conn)


def echo(conn):
    with conn:
        while data := conn.read(1024):
            conn.write(data)


class Clients:
    """Connect, wait for all the others, and say something."""

    def __init__(self, count):
        self.here, self.done, self.begin = sync.WaitGroup(), sync.WaitGroup(), makechan()
        self.connecting = sync.Semaphore(AT_ONCE)
        self.here.add(count)

    def ask(self, address, number):
        message = f"client {number} says hello".encode()
        with self.connecting:
            conn = net.dial("tcp", address)
        with conn:
            self.here.done()
            self.begin.recv_ok()
            for _ in range(MESSAGES):
                conn.write(message)
                if conn.read_full(len(message)) != message:
                    raise AssertionError("that is not what was said")


def resident():
    """The bytes of memory that the process has."""
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * resource.getpagesize()


def main(count):
    started, before = time.perf_counter(), resident()
    listeners = [net.listen("tcp", address) for address in ADDRESSES]
    clients = Clients(count)
    try:
        for listener in listeners:
            go(serve, listener)
        for number in range(count):
            clients.done.go(clients.ask, listeners[number % len(listeners)].addr, number)
        clients.here.wait()
        connected = time.perf_counter() - started
        clients.begin.close()
        clients.done.wait()
        took = time.perf_counter() - started
        threads, memory = runtime.stats()["machines"], resident() - before
    finally:
        for listener in listeners:
            listener.close()
    print(f"{count:,} clients at once, {count * MESSAGES:,} echoes, {threads} OS threads")
    print(f"{connected:.2f} s until all were connected, {took:.2f} s in all, {memory / count / 1024:.0f} KiB a client")


def allow(wanted):
    """Raise the limit on open files as far as need be; give how many clients it allows, and say if they are fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = (soft - SPARE) // 2
    print(f"{allowed:,} clients, not {wanted:,}: the system allows {soft:,} open files (ulimit -Hn), two for each")
    return allowed


if __name__ == "__main__":
    run(main, allow(int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS))
