"""A chat server on plain `socket` objects: what one says, everybody in the room reads.

    python chat.py serve [PORT]     serves on PORT, 8000 unless told (0: any); talk to it with `nc`
    python chat.py                  serves on a free port, has two clients talk, and checks what they read

One goroutine owns the room; a client has one that reads its lines and one that writes to it. None
of the calls on the sockets knows of goroutines.
"""

import socket
import sys
from contextlib import suppress

from offset import default, go, makechan, run, select

# A client that is more messages behind than this loses the newest, and holds up nobody.
BEHIND = 100


class Room:
    """The channels of the room; a client is the channel of the messages that it is to read."""

    def __init__(self):
        self.entering, self.leaving, self.messages = makechan(), makechan(), makechan()

    def serve(self):
        """Let clients in and out, and pass the messages on. Nobody else touches `clients`."""
        clients = set()
        while True:
            event = select(self.messages.if_recv(), self.entering.if_recv(), self.leaving.if_recv())
            match event.index:
                case 0:
                    for client in clients:
                        select(client.if_send(event.value), default)
                case 1:
                    clients.add(event.value)
                case 2:
                    clients.remove(event.value)
                    event.value.close()


def serve(listener, room):
    """Take connections until the listener is shut down."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            go(read, connection, room)


def read(connection, room):
    """Ask for a name, then send every line of the client to the room."""
    client = makechan(BEHIND)
    with connection, connection.makefile(encoding="utf-8", errors="replace") as lines, suppress(OSError):
        connection.sendall(b"Your name?\n")
        name = lines.readline().strip()
        if not name:
            return
        go(write, connection, client)
        room.entering.send(client)
        room.messages.send(f"{name} has come")
        with suppress(OSError):
            for line in lines:
                room.messages.send(f"{name}: {line.rstrip()}")
        room.leaving.send(client)
        room.messages.send(f"{name} has gone")


def write(connection, client):
    """Write the messages of a client to its socket, until it has left the room."""
    with suppress(OSError):
        for message in client:
            connection.sendall(f"{message}\n".encode())


class Visitor:
    """A client of the test."""

    def __init__(self, port, name):
        self.name = name
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.lines = self.socket.makefile(encoding="utf-8")
        self.reads("Your name?")
        self.says(name)

    def says(self, text):
        self.socket.sendall(f"{text}\n".encode())

    def reads(self, expected):
        line = self.lines.readline().rstrip()
        print(f"{self.name} reads: {line}")
        if line != expected:
            sys.exit(f"and not: {expected}")

    def goes(self):
        self.lines.close()
        self.socket.close()


def test(port):
    """Two visitors come, talk and go."""
    ann = Visitor(port, "ann")
    ann.reads("ann has come")
    bob = Visitor(port, "bob")
    for visitor in (ann, bob):
        visitor.reads("bob has come")
    ann.says("hello, bob")
    for visitor in (ann, bob):
        visitor.reads("ann: hello, bob")
    bob.says("goodbye")
    for visitor in (ann, bob):
        visitor.reads("bob: goodbye")
    bob.goes()
    ann.reads("bob has gone")
    ann.goes()
    print("everybody has read what was said")


def main(port=None):
    room = Room()
    go(room.serve)
    with socket.create_server(("127.0.0.1", port or 0)) as listener:
        bound = listener.getsockname()[1]
        if port is not None:
            print(f"serving on port {bound}", flush=True)
            serve(listener, room)
            return
        go(serve, listener, room)
        test(bound)
        # A goroutine that sits in accept() is woken by this.
        listener.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            run(main, 8000)
        case ["serve", port]:
            run(main, int(port))
        case _:
            run(main)
