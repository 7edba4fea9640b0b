"""The one list of scenarios: what each does, how large it is, and what the report shows of it.

Every rival has each scenario under the same name, in its own program (`on_*.py`, `go/scenarios.go`),
and does the same work in it. A rival that has no such thing leaves it out. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# Constants of the scenarios; go/scenarios.go repeats them.
BUFFER = 128  # of the one channel of buffered
PRODUCERS = 4  # of fanin
FANIN_BUFFER = 16  # of each of its channels, or of the one queue that stands for them
MUTEX_TASKS = 100
THOUSANDTH_PRIME = 7919
HOG_SECONDS = 0.05  # of computing, by each task of hogs


@dataclass(frozen=True)
class Scenario:
    """One kind of work.

    `sizes` has one number for each pace of a rival: "fast" (Go and offset), "slow" (other libraries)
    and "threads". Where the cost of an operation depends on how many there are, the first two are equal.
    `million` marks what only rivals that fit into the memory of a usual machine do, `network` what is a
    server to the client in go/client.go.
    """

    name: str
    does: str
    operation: str
    sizes: tuple[int, int, int]
    million: bool = False
    network: bool = False

    def size(self, pace: str) -> int:
        """How many operations a rival of that pace does."""
        return self.sizes[("fast", "slow", "threads").index(pace)]

    def is_smaller(self, size: int) -> bool:
        """Is a sample of that size not what the scenario asks for, and its cost another?"""
        return self.sizes[0] == self.sizes[1] != size


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "spawn",
            "start 100,000 tasks that each add one to a counter, and wait for all of them",
            "task",
            (100_000, 100_000, 20_000),
        ),
        Scenario(
            "pingpong",
            "two tasks send a value to and fro over two unbuffered channels",
            "round trip",
            (1_000_000, 100_000, 20_000),
        ),
        Scenario(
            "buffered",
            "one producer, one consumer, a channel of 128",
            "value",
            (5_000_000, 500_000, 100_000),
        ),
        Scenario(
            "fanin",
            "four producers, one consumer that selects from their channels of 16 (no select: one queue of 16)",
            "value",
            (2_000_000, 200_000, 100_000),
        ),
        Scenario(
            "sieve",
            "the prime sieve over unbuffered channels, up to the 1000th prime",
            "run",
            (1000, 1000, 1000),
        ),
        Scenario(
            "mutex",
            "100 tasks lock, add one to a counter, yield while they hold the lock, and unlock",
            "lock and unlock",
            (1_000_000, 100_000, 20_000),
        ),
        Scenario(
            "parked",
            "100,000 tasks wait to receive; then each is sent a value",
            "task",
            (100_000, 100_000, 10_000),
        ),
        Scenario(
            "parked1m",
            "the same with 1,000,000 tasks",
            "task",
            (1_000_000, 1_000_000, 0),
            million=True,
        ),
        Scenario(
            "timers",
            "100,000 tasks sleep between 0 and 1 s each",
            "timer",
            (100_000, 100_000, 10_000),
        ),
        Scenario(
            "yield",
            "two tasks that do nothing but yield to each other",
            "yield",
            (5_000_000, 500_000, 100_000),
        ),
        Scenario(
            "hogs",
            "100 tasks compute 50 ms each beside one that yields: the longest that it had to wait for its next turn",
            "task",
            (100, 100, 100),
        ),
        Scenario(
            "offload",
            "a function that does nothing, called in the thread pool again and again (Go: in a goroutine)",
            "call",
            (50_000, 10_000, 10_000),
        ),
        Scenario(
            "echo_1x64",
            "a TCP server sends back what comes: 1 connection, one message of 64 B at a time",
            "request",
            (60_000, 30_000, 30_000),
            network=True,
        ),
        Scenario(
            "echo_100x64",
            "the same with 100 connections at once",
            "request",
            (200_000, 100_000, 50_000),
            network=True,
        ),
        Scenario(
            "echo_1x16384",
            "1 connection, messages of 16 KiB",
            "request",
            (40_000, 20_000, 20_000),
            network=True,
        ),
        Scenario(
            "echo_100x16384",
            "100 connections, messages of 16 KiB",
            "request",
            (100_000, 60_000, 40_000),
            network=True,
        ),
        Scenario(
            "idle",
            "10,000 connections that have sent one byte and wait for more",
            "connection",
            (10_000, 10_000, 10_000),
            network=True,
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """One line of the table: a value of a sample, turned into `unit`. Less is better in all of them.

    `wanted` is the most that offset may need, as multiples of what rivals need, `wanted_value` as a value;
    `peers` is how many times better than the best other Python library it is to be. `of` is which of
    offset's entries that is about.
    """

    label: str
    unit: str
    scenario: str
    key: str
    factor: float = 1.0
    each: bool = True
    wanted: Mapping[str, float] = field(default_factory=dict)
    wanted_value: float | None = None
    peers: float | None = None
    of: str = "offset"

    def is_time(self) -> bool:
        """Is it the time of one operation, by the clock on the wall?"""
        return self.key == "seconds" and self.each

    def value(self, sample: dict[str, float]) -> float | None:
        """The value of this row in a sample; None where it was not measured."""
        if self.key not in sample:
            return None
        return sample[self.key] * self.factor / (sample["operations"] if self.each else 1)


# Of an echo server.
ECHO = {"go": 1.0, "uvloop": 1.0}

ROWS = [
    Row("spawn", "ns a task", "spawn", "seconds", 1e9, wanted={"go": 1.0}),
    Row("ping-pong", "ns a round trip", "pingpong", "seconds", 1e9, wanted={"go": 1.0}, peers=10),
    Row("buffered", "ns a value", "buffered", "seconds", 1e9, wanted={"go": 1.5}),
    Row("fan-in", "ns a value", "fanin", "seconds", 1e9, wanted={"go": 2.0}),
    Row("sieve", "ms", "sieve", "seconds", 1e3, wanted={"go": 1.5}, peers=10),
    Row("contended mutex", "ns an operation", "mutex", "seconds", 1e9, wanted={"go": 1.0}),
    Row("yield", "ns a yield", "yield", "seconds", 1e9, wanted={"go": 1.2}, peers=10),
    Row("timers, processor time", "us a timer", "timers", "cpu_seconds", 1e6, wanted={"go": 2.0}),
    Row("timers, whole run", "s", "timers", "seconds", each=False),
    Row("hogs: longest gap", "ms", "hogs", "gap_seconds", 1e3, each=False, wanted={"go-p1": 1.5}),
    Row("hogs: whole run", "s", "hogs", "seconds", each=False),
    Row("offload", "us a call", "offload", "seconds", 1e6, wanted={"threads": 0.5, "asyncio": 0.2}),
    Row("parked 100,000: memory", "bytes a task", "parked", "resident_bytes", wanted_value=5500),
    Row("parked 100,000: page tables", "bytes a task", "parked", "page_table_bytes"),
    Row("parked 100,000: start", "us a task", "parked", "start_seconds", 1e6, wanted_value=3.0),
    Row("parked 100,000: wake and end", "us a task", "parked", "wake_seconds", 1e6),
    Row("parked 1,000,000: memory", "bytes a task", "parked1m", "resident_bytes"),
    Row("parked 1,000,000: page tables", "bytes a task", "parked1m", "page_table_bytes"),
    Row("parked 1,000,000: start", "us a task", "parked1m", "start_seconds", 1e6),
    Row("parked 1,000,000: wake and end", "us a task", "parked1m", "wake_seconds", 1e6),
    Row("echo, 1 x 64 B", "us a request", "echo_1x64", "seconds", 1e6, wanted=ECHO),
    Row("echo, 100 x 64 B", "us a request", "echo_100x64", "seconds", 1e6, wanted=ECHO),
    Row("echo, 1 x 16 KiB", "us a request", "echo_1x16384", "seconds", 1e6, wanted=ECHO),
    Row("echo, 100 x 16 KiB", "us a request", "echo_100x16384", "seconds", 1e6, wanted=ECHO),
    Row("idle connections: memory", "bytes each", "idle", "resident_bytes", wanted_value=12_000),
    Row("idle connections: page tables", "bytes each", "idle", "page_table_bytes"),
]

# The same of the proxied sockets, of which 1.3 times as many requests as of gevent are wanted.
SOCKET_ROWS = [
    replace(row, label=row.label.replace("echo", "proxied socket"), wanted={"gevent": 1 / 1.3}, of="offset-socket")
    for row in ROWS
    if row.wanted is ECHO
]
