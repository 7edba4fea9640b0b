"""`dnspython` in goroutines, against servers that the library itself makes the answers of: as it is, and as a copy.

Invariants: the server has all questions before it answers one; a question whose answer does not come leaves no socket.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest
from helpers import PATIENCE, main_goroutine
from libraries import Call, Threads, calls, cancel, copies, few, needs_rescue, original, results

pytestmark = pytest.mark.usefixtures("no_sockets_left")

# Each takes a thread where the library is as it is, and those go only after a while.
AT_ONCE = 12
MODULES = (
    "dns",
    "dns.resolver",
    "dns.message",
    "dns.rrset",
    "dns.flags",
    "dns.query",
    "dns.exception",
    "dns.asyncquery",
)


@pytest.fixture(scope="module")
def copied():
    """The copy of dns."""
    return copies(*MODULES)[0]


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def dns(request, copied):
    """The library, in both ways."""
    return copied if request.param == "a copy" else original(*MODULES)[0]


class Names:
    """A server of names in a plain thread, on UDP and TCP."""

    def __init__(self, at_once=1):
        self.dns = original(*MODULES)[0]
        self.at_once = at_once
        self.questions = 0
        self.packets, self.streams = self.bind()
        self.port = self.packets.getsockname()[1]
        self.threads = [threading.Thread(target=self.udp), threading.Thread(target=self.tcp)]

    @staticmethod
    def bind():
        """Two sockets with one number of a port, which somebody else may have for the other kind."""
        while True:
            packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            packets.bind(("127.0.0.1", 0))
            try:
                return packets, socket.create_server(packets.getsockname())
            except OSError:
                packets.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.packets.sendto(b"", self.packets.getsockname())
        socket.create_connection(self.streams.getsockname()).close()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.packets.close()
        self.streams.close()

    def answer(self, wire, cut=False):
        """Answer a question; names that begin with "long" do not fit into a packet, some others are not known."""
        question = self.dns.message.from_wire(wire)
        name = question.question[0].name
        answer = self.dns.message.make_response(question)
        if cut and name.to_text().startswith("long"):
            answer.flags |= self.dns.flags.TC
        elif name.to_text().startswith("missing"):
            answer.set_rcode(3)
        else:
            answer.answer.append(self.dns.rrset.from_text(name, 60, "IN", "TXT", f'"{name}"'))
        return answer.to_wire()

    def udp(self):
        held = []
        while True:
            wire, client = self.packets.recvfrom(10_000)
            if not wire:
                return
            self.questions += 1
            if b"never" in wire:
                continue
            held.append((wire, client))
            if len(held) >= self.at_once:
                for wire, client in held:
                    self.packets.sendto(self.answer(wire, cut=True), client)
                held.clear()

    def tcp(self):
        while True:
            conn, _ = self.streams.accept()
            with conn, conn.makefile("rwb") as stream:
                size = stream.read(2)
                if not size:
                    return
                wire = self.answer(stream.read(*struct.unpack("!H", size)))
                stream.write(struct.pack("!H", len(wire)) + wire)

    def resolver(self, dns):
        """A resolver that asks this server."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.port
        resolver.lifetime = resolver.timeout = PATIENCE
        return resolver


def text(answer):
    return answer.rrset[0].strings[0].decode()


@main_goroutine
def test_all_ask_at_once(dns):
    with Names(AT_ONCE) as names:
        resolver = names.resolver(dns)
        answers = results(calls(AT_ONCE, lambda number: text(resolver.resolve(f"n{number}.test", "TXT"))))
    assert answers == [f"n{number}.test." for number in range(AT_ONCE)]


@main_goroutine
def test_those_of_a_copy_take_no_threads(copied):
    count = 60
    threads = Threads()
    with Names(count) as names:
        resolver = names.resolver(copied)
        begun = calls(count - 1, lambda number: text(resolver.resolve(f"n{number}.test", "TXT")))
        for call in begun:
            call.parked()
        few(threads, count)
        begun += calls(1, lambda _: text(resolver.resolve("last.test", "TXT")))
        results(begun)


@main_goroutine
def test_what_does_not_fit_comes_by_tcp(dns):
    with Names() as names:
        resolver = names.resolver(dns)
        assert text(resolver.resolve("long.test", "TXT")) == "long.test."
        assert text(resolver.resolve("short.test", "TXT", tcp=True)) == "short.test."


@main_goroutine
def test_errors_are_those_of_the_library(dns):
    with Names() as names:
        resolver = names.resolver(dns)
        with pytest.raises(dns.resolver.NXDOMAIN):
            resolver.resolve("missing.test", "TXT")
        with pytest.raises(dns.resolver.LifetimeTimeout):
            resolver.resolve("never.test", "TXT", lifetime=0.05)
        assert text(resolver.resolve("again.test", "TXT")) == "again.test."


@main_goroutine
def test_who_is_cancelled_leaves_nothing(copied):
    with Names() as names, contextlib.ExitStack():
        resolver = names.resolver(copied)
        cancel(Call(resolver.resolve, "never.test", "TXT").parked())
        assert text(resolver.resolve("again.test", "TXT")) == "again.test."
