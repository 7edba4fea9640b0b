"""asyncio, both ways: plain functions call a library of asyncio, and its tasks feed a channel of goroutines.

The server is one of asyncio, in tasks; it sends each line that it reads to a channel. The clients are goroutines that
call asyncio's streams from plain functions. Another goroutine receives what the tasks send, beside a time limit, with
`select`; it need not know who is at the other end.
"""

import asyncio
from collections import Counter

from offset import aio, errgroup, go, makechan, run, select, time

CLIENTS, LINES = 20, 10


class Server:
    """A server of asyncio that tells a channel what it reads."""

    def __init__(self, heard):
        self.heard = heard

    async def serve(self, reader, writer):
        async for line in reader:
            await self.heard.asend(line.decode().split())
            writer.write(b"heard\n")
        writer.close()

    async def listen(self):
        return await asyncio.start_server(self.serve, "127.0.0.1", 0)


def talk(address, number):
    """Say something, in a goroutine, with no `async` in sight."""
    reader, writer = aio.await_(asyncio.open_connection(*address))
    for line in range(LINES):
        writer.write(f"client {number} line {line}\n".encode())
        if aio.await_(reader.readline(), timeout=30) != b"heard\n":
            raise ConnectionError("the server hears nothing")
    writer.close()


def count(heard, done):
    """Count the lines of each client until all have come."""
    lines, limit = Counter(), time.after(60 * time.SECOND)
    while lines.total() < CLIENTS * LINES:
        case = select(heard.if_recv(), limit.if_recv())
        if case.index == 1:
            raise TimeoutError("the clients are too slow")
        _, client, _, _ = case.value
        lines[client] += 1
    done.send(lines)


def main():
    heard, done = makechan(), makechan()
    go(count, heard, done)
    with aio.enter(aio.await_(Server(heard).listen())) as server, errgroup.Group() as group:
        address = server.sockets[0].getsockname()
        for number in range(CLIENTS):
            group.go(talk, address, number)
        lines = done.recv()
    print(f"{lines.total()} lines of {len(lines)} goroutines came through a server of asyncio")


if __name__ == "__main__":
    run(main)
