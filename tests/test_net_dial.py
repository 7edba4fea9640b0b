"""`offset.net`: dialing, addresses, and the names of hosts.

Invariants: whoever wins, loses, is refused, gives up or is cancelled, no descriptor is left, as the leak check sees;
a lookup that hangs stops nobody.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import socket
import threading

import helpers
import offset
import pytest
from helpers import PATIENCE, SHORT, go_parked, main_goroutine, wait_ended, wait_until
from net_peers import Call, ThreadCall, assert_nobody_dials, pattern
from offset import context, go, net
from offset.net import _address, _dial, _listen, _lookup
from offset.time import now


class Deaf:
    """A listener whose queue is full: who dials it waits."""

    def __init__(self, family=socket.AF_INET):
        self.family = family
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.sock = socket.socket(family)
        self.sock.bind((host, 0))
        self.sock.listen(0)
        self.fillers = []
        for _ in range(4):
            filler = socket.socket(family)
            filler.setblocking(False)
            filler.connect_ex(self.sock.getsockname())
            self.fillers.append(filler)
        # It takes one, or two, and then none.
        wait_until(lambda: self.full() and self.full(), "a full queue")

    def full(self):
        with socket.socket(self.family) as probe:
            probe.settimeout(0.02)
            return probe.connect_ex(self.sock.getsockname()) == errno.EAGAIN

    @property
    def endpoint(self):
        return _address.Endpoint(self.family, socket.SOCK_STREAM, self.sock.getsockname())

    @property
    def addr(self):
        return _address.text(self.sock.getsockname())

    def close(self):
        for sock in [self.sock, *self.fillers]:
            sock.close()


@pytest.fixture
def deaf():
    with contextlib.closing(Deaf()) as listener:
        yield listener


@pytest.fixture
def deaf6():
    with contextlib.closing(Deaf(socket.AF_INET6)) as listener:
        yield listener


# Sockets that nobody listens on: as long as they are there nobody else is given their ports.
_held = []


@pytest.fixture(autouse=True)
def held():
    """The ports of `refusing`, which are let go after the test."""
    yield
    while _held:
        _held.pop().close()


def refusing(family=socket.AF_INET):
    """An endpoint where nobody listens."""
    sock = socket.socket(family)
    _held.append(sock)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    return _address.Endpoint(family, socket.SOCK_STREAM, sock.getsockname())


def endpoint_of(listener):
    host, port = _address.split(listener.addr)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _address.Endpoint(family, socket.SOCK_STREAM, (host, int(port)))


@pytest.fixture
def known(monkeypatch):
    """Let every name lead to the endpoints that it is called with."""

    def set_endpoints(*endpoints):
        monkeypatch.setattr(_lookup, "endpoints", lambda *_, **__: list(endpoints))

    return set_endpoints


# ---- one address -----------------------------------------------------------------------------


def test_a_refused_connection_names_the_address(start):
    _, _, (host, port) = refusing()
    with pytest.raises(ConnectionRefusedError, match=rf"dial tcp {host}:{port}: Connection refused") as caught:
        start(net.dial, "tcp", f"{host}:{port}").result()
    assert caught.value.errno == errno.ECONNREFUSED


def test_nobody_at_a_unix_socket_is_named(tmp_path, start):
    path = tmp_path / "socket"
    with pytest.raises(FileNotFoundError, match=f"dial unix {path}: No such file"):
        start(net.dial, "unix", str(path)).result()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(ConnectionRefusedError, match=f"dial unix {path}: Connection refused"):
        start(net.dial, "unix", str(path)).result()
    with pytest.raises(ConnectionRefusedError, match="dial unix @offset-nobody: "):
        net.dial("unix", "@offset-nobody")


@pytest.mark.parametrize("short", SHORT)
def test_a_dial_that_hangs_ends_in_time(deaf, start, short):
    with pytest.raises(TimeoutError, match=f"dial tcp {deaf.addr}: timed out") as caught:
        start(net.dial, "tcp", deaf.addr, timeout=short).result()
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("short", [0, *SHORT])
def test_a_full_queue_of_a_unix_socket_is_waited_for(tmp_path, start, short):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as opened:
        sock.bind(path)
        sock.listen(0)
        opened.enter_context(net.dial("unix", path))
        with pytest.raises(TimeoutError, match=f"dial unix {path}: timed out"):
            start(net.dial, "unix", path, timeout=short).result()
        late = start(net.dial, "unix", path, timeout=PATIENCE)
        opened.enter_context(sock.accept()[0])
        opened.enter_context(late.result())


@main_goroutine
def test_a_dial_that_waits_is_cancelled(deaf, tmp_path):
    call = Call(net.dial, "tcp", deaf.addr).parked()
    call.goroutine.cancel()
    with pytest.raises(offset.GoroutineExit):
        call.result()


@main_goroutine
def test_a_timeout_holds_for_the_dial_only():
    with (
        net.listen("tcp", "127.0.0.1:0") as listener,
        net.dial("tcp", listener.addr, timeout=PATIENCE) as client,
        listener.accept() as server,
    ):
        reader = Call(client.read, 10).parked()
        server.write(b"x")
        assert reader.result() == b"x"


@main_goroutine
@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_nothing_is_tried_when_the_time_is_over_already(network, tmp_path):
    address = "127.0.0.1:0" if network == "tcp" else str(tmp_path / "socket")
    with net.listen(network, address) as listener:
        for timeout in (0, -1, datetime.timedelta(0)):
            with pytest.raises(TimeoutError, match=f"dial {network} {listener.addr}: timed out") as caught:
                net.dial(network, listener.addr, timeout=timeout)
            assert caught.value.errno == errno.ETIMEDOUT
        gone, cancel = context.with_cancel(context.background())
        cancel()
        with pytest.raises(context.Canceled):
            net.dial(network, listener.addr, context=gone)
        with pytest.raises(context.Canceled), context.scope(gone):
            net.dial(network, listener.addr)
        late, cancel = context.with_timeout(context.background(), 0)
        with pytest.raises(context.DeadlineExceeded):
            net.dial(network, listener.addr, context=late)
        cancel()
        assert_nobody_dials(listener)


@main_goroutine
def test_no_address_is_tried_when_the_lookup_took_the_time(known, monkeypatch):
    with net.listen("tcp", "127.0.0.1:0") as listener:
        known(endpoint_of(listener))
        # It looks at the clock for the deadline, before the lookup, for the lookup, and after it.
        clock = iter([0.0, 0.5, 0.5])
        monkeypatch.setattr(_listen._runtime, "now", lambda: next(clock, 2.0))
        with pytest.raises(TimeoutError, match="dial tcp host:80: timed out"):
            net.dial("tcp", "host:80", timeout=1)
        monkeypatch.undo()
        assert_nobody_dials(listener)


@pytest.mark.parametrize(
    ("timeout", "error", "words"),
    [
        ("1", TypeError, "a duration is a number of seconds or a timedelta, not str"),
        (float("nan"), ValueError, "a duration must be a number of seconds, not NaN"),
    ],
)
def test_what_is_no_timeout_is_refused(timeout, error, words):
    with net.listen("tcp", "127.0.0.1:0") as listener:
        for call in (lambda: net.dial("tcp", listener.addr, timeout=timeout), lambda: listener.accept(timeout=timeout)):
            with pytest.raises(error, match=words):
                call()
        assert_nobody_dials(listener)


@main_goroutine
def test_a_connection_to_itself_is_none():
    # The system may give a socket the very port that it is to connect to.
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert _dial._met_itself(sock)
    with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", listener.addr) as client:
        assert not _dial._met_itself(client._sock)


@main_goroutine
def test_connections_are_tuned_as_in_go():
    with (
        net.listen("tcp", "127.0.0.1:0") as listener,
        net.dial("tcp", listener.addr) as client,
        listener.accept() as server,
    ):
        for conn in (client, server):
            assert conn._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert conn._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert conn._sock.getblocking() is False


# ---- several addresses -----------------------------------------------------------------------


@main_goroutine
def test_the_first_family_has_a_head_start(known, monkeypatch):
    monkeypatch.setattr(_dial, "_HEAD_START", 1000)
    with net.listen("tcp", "[::1]:0") as first, net.listen("tcp", "127.0.0.1:0") as second:
        known(endpoint_of(first), endpoint_of(second))
        with net.dial("tcp", "name:1") as conn:
            assert conn.remote_addr == first.addr
            first.accept().close()
        with pytest.raises(TimeoutError):
            second.accept(timeout=0)


@main_goroutine
def test_the_other_family_comes_at_once_when_the_first_is_refused(known, monkeypatch):
    monkeypatch.setattr(_dial, "_HEAD_START", 1000)
    with net.listen("tcp", "127.0.0.1:0") as second:
        known(refusing(socket.AF_INET6), endpoint_of(second))
        with net.dial("tcp", "name:1") as conn, second.accept():
            assert conn.remote_addr == second.addr


@main_goroutine
def test_the_other_family_comes_after_the_head_start(known, deaf6):
    with net.listen("tcp", "127.0.0.1:0") as second:
        known(deaf6.endpoint, endpoint_of(second))
        before = now()
        with net.dial("tcp", "name:1", timeout=PATIENCE) as conn, second.accept():
            assert conn.remote_addr == second.addr
        assert now() - before >= _dial._HEAD_START


@main_goroutine
def test_the_first_family_may_still_win_after_the_other_was_refused(known, deaf6, monkeypatch):
    monkeypatch.setattr(_dial, "_HEAD_START", 0)
    known(deaf6.endpoint, refusing())
    call = Call(net.dial, "tcp", "name:1", timeout=PATIENCE).parked()
    wait_until(lambda: len([it for it in offset.runtime.goroutines() if it.name == "dial"]) == 1)
    # There is room now.
    deaf6.sock.setblocking(False)
    taken = []

    def drain():
        with contextlib.suppress(BlockingIOError):
            while True:
                taken.append(deaf6.sock.accept()[0])
        return call.ended

    wait_until(drain, "the connection")
    with call.result() as conn:
        assert conn.remote_addr == deaf6.addr
    for sock in taken:
        sock.close()


@main_goroutine
def test_both_families_refused_give_the_error_of_the_first(known):
    for first, second in ((socket.AF_INET, socket.AF_INET6), (socket.AF_INET6, socket.AF_INET)):
        endpoints = refusing(first), refusing(second)
        known(*endpoints)
        for _ in range(20):
            with pytest.raises(ConnectionRefusedError, match=rf":{endpoints[0].address[1]}: Connection refused"):
                net.dial("tcp", "name:1")


@main_goroutine
def test_both_families_deaf_end_in_time(known, deaf, deaf6, monkeypatch):
    monkeypatch.setattr(_dial, "_HEAD_START", 0.001)
    known(deaf6.endpoint, deaf.endpoint)
    with pytest.raises(TimeoutError, match="timed out"):
        net.dial("tcp", "name:1", timeout=0.05)


@main_goroutine
def test_a_race_is_cancelled(known, deaf, deaf6, monkeypatch):
    monkeypatch.setattr(_dial, "_HEAD_START", 0)
    known(deaf6.endpoint, deaf.endpoint)
    call = Call(net.dial, "tcp", "name:1").parked()
    racers = [it for it in offset.runtime.goroutines() if it.name == "dial"]
    call.goroutine.cancel()
    with pytest.raises(offset.GoroutineExit):
        call.result()
    wait_ended(*racers)


@main_goroutine
def test_the_addresses_of_one_family_are_tried_in_turn(known):
    with net.listen("tcp", "127.0.0.1:0") as listener:
        known(refusing(), refusing(), endpoint_of(listener))
        with net.dial("tcp", "name:1") as conn, listener.accept():
            assert conn.remote_addr == listener.addr
        bad = refusing(), refusing()
        known(*bad)
        with pytest.raises(ConnectionRefusedError, match=f":{bad[0].address[1]}: "):
            net.dial("tcp", "name:1")


@main_goroutine
def test_each_address_gets_its_share_of_the_time(known, deaf, monkeypatch):
    monkeypatch.setattr(_dial, "_SHORTEST_TURN", 0.01)
    with net.listen("tcp", "127.0.0.1:0") as listener:
        known(deaf.endpoint, *[endpoint_of(listener)] * 99)
        # The first takes a hundredth of it, and has not taken what the others need.
        with net.dial("tcp", "name:1", timeout=PATIENCE) as conn, listener.accept():
            assert conn.remote_addr == listener.addr


@main_goroutine
def test_a_racer_that_fails_in_an_unforeseen_way_is_an_error_of_dial(known):
    nonsense = _address.Endpoint(socket.AF_INET6, socket.SOCK_STREAM, ("::1",))
    known(nonsense, refusing())
    with pytest.raises(ValueError, match="not enough values"):
        net.dial("tcp", "name:1")


@main_goroutine
@pytest.mark.slow
def test_no_descriptor_is_left_after_many_races(known, rng):
    races(known, rng, 1000)


@main_goroutine
def test_no_descriptor_is_left_after_some_races(known, rng):
    races(known, rng, 100)


def races(known, rng, count):
    """Race over real listeners, with random head starts, and cancel some."""
    before = helpers.open_descriptors()
    with net.listen("tcp", "[::1]:0") as first, net.listen("tcp", "127.0.0.1:0") as second:
        servers = [go(lambda listener=listener: [conn.close() for conn in listener]) for listener in (first, second)]
        here = [endpoint_of(first), endpoint_of(second)]
        gone = [refusing(socket.AF_INET6), refusing()]
        start = _dial._HEAD_START
        try:
            for _ in range(count):
                _dial._HEAD_START = rng.choice([0, 0.0001, 0.001])
                ends = [rng.choice(pair) for pair in zip(here, gone, strict=True)]
                rng.shuffle(ends)
                known(*ends)
                call = Call(net.dial, "tcp", "name:1", timeout=rng.choice([None, 0.0005, 1]))
                for _ in range(rng.randrange(6)):
                    offset.gosched()
                if rng.random() < 0.3:
                    call.goroutine.cancel()
                with contextlib.suppress(OSError, offset.GoroutineExit):
                    conn = call.result()
                    if conn is not None:
                        conn.close()
        finally:
            _dial._HEAD_START = start
    wait_ended(*servers)
    wait_until(lambda: len(helpers.open_descriptors()) <= len(before) + 3, "the end of the losers")


# ---- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "has no port"),
        ("", "has no port"),
        ("[::1]", "has no port"),
        ("::1:80", "too many colons"),
        ("[::1:80", r"form .*\[host\]:port"),
        ("::1]:80", "too many colons|a character"),
        ("[[::1]]:80", "a character"),
        ("a]b:80", "a character"),
        ("a\0b:80", "a character"),
        ("localhost:65536", "between 0 and 65535"),
        ("localhost:" + "9" * 5000, "between 0 and 65535"),
        ("localhost:-1", "neither a number nor the name"),
        ("localhost:+80", "neither a number nor the name"),
        ("localhost: 80", "neither a number nor the name"),
        ("localhost:no-such-service", "neither a number nor the name"),
        ("localhost:\u0668\u0660", "neither a number nor the name"),
        ("a..b:80", "is no name of a host"),
        ("a" * 100 + ".example:80", "is no name of a host"),
    ],
)
def test_what_is_no_address_is_refused_in_clear_words(network, address, words):
    listen = net.listen if network == "tcp" else net.listen_packet
    for call in (net.dial, listen):
        with pytest.raises(ValueError, match=words):
            call(network, address)


@pytest.mark.parametrize("address", [80, None, b"localhost:80", ("localhost", 80)])
def test_what_is_no_string_is_refused(address):
    for call, network in ((net.dial, "tcp"), (net.listen, "tcp"), (net.dial, "unix"), (net.listen_packet, "unixgram")):
        with pytest.raises(TypeError, match="address"):
            call(network, address)


def test_networks_that_there_are_not_are_refused():
    for network in ("", "TCP", "ip", "http", None, 4, []):
        for call in (net.dial, net.listen, net.listen_packet):
            with pytest.raises(ValueError, match="there is no network"):
                call(network, "127.0.0.1:80")
    for network in ("udp", "udp4", "udp6", "unixgram"):
        with pytest.raises(ValueError, match=f"'{network}' does not do for this; it is one of tcp"):
            net.listen(network, "127.0.0.1:0")
    for network in ("tcp", "tcp4", "tcp6", "unix"):
        with pytest.raises(ValueError, match=f"'{network}' does not do for this; it is one of udp"):
            net.listen_packet(network, "127.0.0.1:0")


def test_an_address_of_the_wrong_version_is_refused():
    for network, address in (("tcp4", "[::1]:80"), ("udp4", "[::1]:80"), ("tcp6", "127.0.0.1:80")):
        with pytest.raises(ValueError, match="which this network does not have"):
            net.dial(network, address)


def test_a_path_with_a_zero_is_refused():
    for call in (net.dial, net.listen):
        with pytest.raises(ValueError, match="zero"):
            call("unix", "a\0b")


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [("::1", 80, "[::1]:80"), ("a.b", "http", "a.b:http"), ("", 1, ":1"), ("fe80::1%lo", 2, "[fe80::1%lo]:2")],
)
def test_addresses_are_joined_and_split(host, port, address):
    assert _address.join(host, port) == address
    assert _address.split(address) == (host, str(port))


def test_services_have_names(monkeypatch):
    assert _address.port_number("http", socket.SOCK_STREAM) == 80
    assert _address.port_number("domain", socket.SOCK_DGRAM) == 53
    assert _address.port_number("00443", socket.SOCK_STREAM) == 443

    def unknown(*_):
        raise OSError("service/proto not found")

    # Where the system has no list, the common ones are known.
    monkeypatch.setattr(socket, "getservbyname", unknown)
    assert _address.port_number("https", socket.SOCK_STREAM) == 443
    with pytest.raises(ValueError):
        _address.port_number("tftp", socket.SOCK_DGRAM)


def test_addresses_are_written_as_go_writes_them():
    for address, text in (
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (("fe80::1", 80, 0, socket.if_nametoindex("lo")), "[fe80::1%lo]:80"),
        (("fe80::1", 80, 0, 999_999), "[fe80::1%999999]:80"),
        ("/a/path", "/a/path"),
        (b"\0abstract", "@abstract"),
        ("", ""),
        (None, ""),
    ):
        assert _address.text(address) == text
    # A name that is no text leads back to itself.
    assert _address.unix_path(_address.text(b"\0\xff\x80")) == b"\0\xff\x80"


# ---- names of hosts --------------------------------------------------------------------------


@main_goroutine
def test_the_zone_of_an_address_is_kept():
    zone = socket.if_indextoname(1)
    assert net.lookup_host(f"fe80::1%{zone}") == [f"fe80::1%{zone}"]
    assert net.lookup_host("fe80::1") == ["fe80::1"]


@main_goroutine
def test_hosts_are_looked_up():
    found = net.lookup_host("localhost")
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found
    assert net.lookup_host("127.0.0.1") == ["127.0.0.1"]
    assert net.lookup_host("::1") == ["::1"]
    for bad in ("", None, 4, b"localhost"):
        with pytest.raises(ValueError, match="the name of a host is a string"):
            net.lookup_host(bad)


class Resolver:
    """Stands in for `socket.getaddrinfo`: notes what it is asked, and answers when it is told to."""

    def __init__(self):
        self.asked = []
        self.gate = threading.Event()
        self.error = None

    def __call__(self, host, port, family=0, type=0, proto=0, flags=0):
        self.asked.append(host)
        assert self.gate.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, type, proto, "", ("127.0.0.1", 0))]


class Flights(dict):
    """Lookups under way, and how often somebody has looked for one to share."""

    looked = 0

    def get(self, key, default=None):
        found = super().get(key, default)
        self.looked += 1
        return found


@pytest.fixture
def resolver(monkeypatch):
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.gate.set()


def test_a_lookup_stops_nobody_and_is_shared(resolver, start, monkeypatch):
    flights = Flights()
    monkeypatch.setattr(_lookup._table, "flights", flights)
    calls = [start(net.lookup_host, "slow.example") for _ in range(5)]
    wait_until(lambda: resolver.asked)
    others = [start(net.lookup_host, f"{number}.example") for number in range(3)]
    wait_until(lambda: len(resolver.asked) == 4)
    # Who has not looked for the others before the answer comes asks anew.
    wait_until(lambda: flights.looked == 8)
    # Others go on meanwhile, on the network too.
    with (
        net.listen("tcp", "127.0.0.1:0") as listener,
        net.dial("tcp", listener.addr) as client,
        listener.accept() as server,
    ):
        client.write(b"x")
        assert server.read(1) == b"x"
    assert not any(call.ended for call in calls + others)
    # Both kinds of callers share one: those that came later have not asked again.
    late = Call(net.lookup_host, "slow.example").parked()
    resolver.gate.set()
    for call in [*calls, *others, late]:
        assert call.result() == ["127.0.0.1"]
    assert resolver.asked.count("slow.example") == 1
    # The next one asks again.
    assert net.lookup_host("slow.example") == ["127.0.0.1"]
    assert resolver.asked.count("slow.example") == 2


@pytest.mark.parametrize("short", [0, *SHORT])
def test_a_lookup_that_hangs_is_given_up(resolver, start, short):
    with pytest.raises(TimeoutError, match=r"lookup slow\.example: timed out") as caught:
        start(net.lookup_host, "slow.example", timeout=short).result()
    assert caught.value.errno == errno.ETIMEDOUT
    # Without any time it is not looked up; a short one may be over before that begins.
    with pytest.raises(TimeoutError, match=r"(lookup slow\.example|dial tcp slow\.example:80): timed out"):
        start(net.dial, "tcp", "slow.example:80", timeout=short).result()


@main_goroutine
def test_a_lookup_that_hangs_is_cancelled_and_leaves_the_others_alone(resolver):
    calls = [Call(net.lookup_host, "slow.example").parked() for _ in range(3)]
    calls[0].goroutine.cancel()
    with pytest.raises(offset.GoroutineExit):
        calls[0].result()
    resolver.gate.set()
    assert [call.result() for call in calls[1:]] == [["127.0.0.1"]] * 2
    assert resolver.asked == ["slow.example"]


@main_goroutine
def test_a_lookup_that_is_cancelled_before_it_begins_leaves_nothing(resolver):
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(context.Canceled), context.scope(ctx):
        net.lookup_host("slow.example")
    # It has not had its turn, unless without the GIL.
    (lookup,) = (each for each in offset.runtime.goroutines() if each.name == "lookup")
    lookup.cancel()
    assert lookup.join(PATIENCE)
    assert not _lookup._table.flights


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            socket.gaierror,
            "lookup slow.example: Name or",
        ),
        (OSError(errno.EMFILE, "Too many open files"), OSError, "lookup slow.example: Too many"),
        (UnicodeError("label too long"), ValueError, "'slow.example' is no name of a host: label too long"),
    ],
)
def test_a_lookup_that_fails_fails_for_all(resolver, start, error, kind, words):
    resolver.error = error
    calls = [start(net.lookup_host, "slow.example") for _ in range(3)]
    wait_until(lambda: resolver.asked)
    resolver.gate.set()
    for call in calls:
        with pytest.raises(kind, match=words) as caught:
            call.result()
        assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


def test_a_name_without_addresses_is_an_error(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    with pytest.raises(socket.gaierror, match=r"lookup nowhere\.example: no addresses"):
        net.dial("tcp", "nowhere.example:80")


def test_a_lookup_outlives_the_run_that_began_it(resolver):
    def main():
        go_parked(net.lookup_host, "slow.example")
        wait_until(lambda: resolver.asked)

    offset.run(main, on_panic="report")
    # The one of the run was cancelled; who wants to know still gets an answer.
    call = ThreadCall(net.lookup_host, "slow.example")
    wait_until(lambda: len(resolver.asked) == 2)
    resolver.gate.set()
    assert call.result() == ["127.0.0.1"]


def test_who_shares_a_lookup_of_a_run_that_ends_gets_an_answer(resolver):
    calls = []

    def main():
        go_parked(net.lookup_host, "slow.example")
        wait_until(lambda: resolver.asked)
        calls.append(ThreadCall(net.lookup_host, "slow.example"))

    offset.run(main)
    resolver.gate.set()
    assert calls.pop().result() == ["127.0.0.1"]


def test_a_forked_child_looks_up_for_itself():
    ended = helpers.run_script("""
        import os, socket, threading
        from offset import go, net, run

        real, asked, never = socket.getaddrinfo, threading.Event(), threading.Event()

        def hangs(*arguments):
            asked.set()
            never.wait()

        def main():
            socket.getaddrinfo = hangs
            go(net.lookup_host, "localhost")
            while not asked.is_set():
                asked.wait(0.01)
            child = os.fork()
            if not child:
                socket.getaddrinfo = real
                os._exit(0 if net.lookup_host("localhost", timeout=20) else 1)
            assert os.waitpid(child, 0)[1] == 0
            print("found")

        run(main)
        never.set()
    """)
    assert (ended.returncode, ended.stdout) == (0, "found\n"), ended.stderr


@main_goroutine
def test_what_a_name_leads_to_is_dialed(resolver):
    resolver.gate.set()
    with net.listen("tcp", "127.0.0.1:0") as listener:
        port = listener.addr.rpartition(":")[2]
        with net.dial("tcp", f"some.example:{port}") as client, listener.accept() as server:
            assert client.remote_addr == listener.addr
            client.write(pattern(10))
            assert server.read_full(10) == pattern(10)
