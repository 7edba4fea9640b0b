"""What the means for whole programs cost above the plain way: scopes, groups, bubbles, the search for leaks, dumps.

    make build && .venv/bin/python benchmarks/overheads.py [--times 7] [--out benchmarks/overheads.md] [NAME ...]

An overhead has two sides that do the same work, the plain one and the other one. Each sample is a process of its
own; the sides take turns, and the best of each is compared: what else the machine does only adds. For the same
reason it is processor time that is measured. Standard library only.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import offset
from offset import context, errgroup, go, makechan, run, runtime, select, sync, testing

# How many goroutines there are to look at.
MANY = 10_000
ROUNDS = 200_000
TASKS = 50_000

# Does the work so many times and gives the seconds of processor time that it took.
Side = Callable[[int], float]


class Overhead(NamedTuple):
    """One comparison. `unit` is the unit of the figures, of which there are `scale` in a second."""

    name: str
    plainly: str
    plain: Side
    otherwise: str
    other: Side
    rounds: int
    unit: str = "ns"
    scale: float = 1e9


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


_NOTHING = _Nothing()


# ---- channels --------------------------------------------------------------------------------


def pingpong(count: int, around: Callable[[], Any] = lambda: _NOTHING) -> float:
    there, back = makechan(), makechan()

    def pong() -> None:
        with around():
            for _ in range(count):
                back.send(there.recv())

    def ping() -> None:
        go(pong)
        with around():
            for number in range(count):
                there.send(number)
                back.recv()

    return timed(ping)


def in_scopes(count: int) -> float:
    ctx, cancel = context.with_timeout(context.background(), 3600)
    try:
        return pingpong(count, lambda: context.scope(ctx))
    finally:
        cancel()


def by_select(count: int) -> float:
    """Go's own way to obey a context."""
    ctx, cancel = context.with_timeout(context.background(), 3600)
    there, back, done = makechan(), makechan(), ctx.done()
    assert done is not None
    over = done.if_recv()

    def pong() -> None:
        taking = there.if_recv()
        for _ in range(count):
            case = select(taking, over)
            select(back.if_send(case.value), over)

    def ping() -> None:
        go(pong)
        taking = back.if_recv()
        for number in range(count):
            select(there.if_send(number), over)
            select(taking, over)

    seconds = timed(ping)
    cancel()
    return seconds


def plain_select(count: int) -> float:
    """The same selects with a channel that is never ready in the place of the context's."""
    there, back, never = makechan(), makechan(), makechan().if_recv()

    def pong() -> None:
        taking = there.if_recv()
        for _ in range(count):
            case = select(taking, never)
            select(back.if_send(case.value), never)

    def ping() -> None:
        go(pong)
        taking = back.if_recv()
        for number in range(count):
            select(there.if_send(number), never)
            select(taking, never)

    return timed(ping)


def enter_nothing(count: int) -> float:
    def work() -> None:
        for _ in range(count):
            with _NOTHING:
                pass

    return timed(work)


def enter_timeout(count: int) -> float:
    def work() -> None:
        for _ in range(count):
            with context.timeout(3600):
                pass

    return timed(work)


# ---- groups ----------------------------------------------------------------------------------


def nothing() -> None:
    pass


def go_and_wait(count: int) -> float:
    def work() -> None:
        group = sync.WaitGroup()
        for _ in range(count):
            group.go(nothing)
        group.wait()

    return timed(work)


def errgroup_go(count: int) -> float:
    def work() -> None:
        with errgroup.Group() as group:
            for _ in range(count):
                group.go(nothing)

    return timed(work)


# ---- goroutines to look at ----------------------------------------------------------------------


def wait(channel: offset.Chan[Any]) -> None:
    channel.recv()


def among_many(look: Callable[[], object], reached: bool = True) -> Side:
    """Look while so many goroutines wait for channels that main has, or that nobody has."""

    def side(count: int) -> float:
        channels = [makechan() for _ in range(MANY)]
        waiting = [go(wait, channel) for channel in channels]
        while any(goroutine.wait_reason is None for goroutine in waiting[-1:]):
            offset.sleep(0.01)
        if not reached:
            channels.clear()
        look()
        seconds = timed(lambda: [look() for _ in range(count)])
        for goroutine in waiting:
            goroutine.cancel()
        return seconds

    return side


def stacks() -> str:
    return runtime.stack(all=True)


def groups() -> str:
    return runtime.stack(all=True, group=True)


OVERHEADS = [
    Overhead("scope", "ping-pong, a round trip", pingpong, "both sides in a `context.scope`", in_scopes, ROUNDS),
    Overhead(
        "select",
        "the same by `select` with a channel that is never ready",
        plain_select,
        "with `ctx.done()` in its place",
        by_select,
        ROUNDS,
    ),
    Overhead("timeout", "an empty `with` block", enter_nothing, "`with context.timeout(3600)`", enter_timeout, TASKS),
    Overhead("errgroup", "`WaitGroup.go`, a task", go_and_wait, "`errgroup.Group.go`", errgroup_go, TASKS),
    Overhead("bubble", "ping-pong in `run`, a round trip", pingpong, "in `testing.bubble`", pingpong, ROUNDS),
    Overhead("seed", "ping-pong in `testing.bubble`, a round trip", pingpong, "with a seed", pingpong, ROUNDS // 10),
    Overhead(
        "leaks",
        f"`gc.collect()` among {MANY:,} goroutines",
        among_many(gc.collect),
        "`runtime.leaks()`, none of them leaked",
        among_many(runtime.leaks),
        5,
        "ms",
        1e3,
    ),
    Overhead(
        "leaked",
        f"`gc.collect()` among {MANY:,} goroutines",
        among_many(gc.collect, reached=False),
        "`runtime.leaks()`, all of them leaked",
        among_many(runtime.leaks, reached=False),
        5,
        "ms",
        1e3,
    ),
    Overhead(
        "stacks",
        f"`sys._current_frames()` of {MANY:,} goroutines",
        among_many(sys._current_frames),
        "`runtime.stack(all=True)`, their text",
        among_many(stacks),
        5,
        "ms",
        1e3,
    ),
    Overhead(
        "groups",
        f"`sys._current_frames()` of {MANY:,} goroutines",
        among_many(sys._current_frames),
        "`runtime.stack(all=True, group=True)`, as `offset dump`",
        among_many(groups),
        5,
        "ms",
        1e3,
    ),
]

# Where a side runs, if not in `run`: in a bubble, with this seed.
BUBBLES: dict[tuple[str, str], int | None] = {("bubble", "other"): None, ("seed", "plain"): None, ("seed", "other"): 1}


def measure(name: str, side: str) -> float:
    """Measure one side, in this process."""
    overhead = next(one for one in OVERHEADS if one.name == name)
    work = overhead.plain if side == "plain" else overhead.other
    if (name, side) in BUBBLES:
        return testing.bubble(lambda: work(overhead.rounds), BUBBLES[name, side])
    return run(work, overhead.rounds)


def sample(name: str, side: str) -> float:
    command = [sys.executable, __file__, "--measure", name, side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    seconds: float = json.loads(done.stdout)
    return seconds


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(names: list[str], times: int) -> list[str]:
    lines = ["| plain | | with | | more |", "|---|---:|---|---:|---:|"]
    for overhead in OVERHEADS:
        if names and overhead.name not in names:
            continue
        samples: dict[str, list[float]] = {"plain": [], "other": []}
        for side in ("plain", "other") * times:
            samples[side].append(sample(overhead.name, side) * overhead.scale / overhead.rounds)
        plain, other = min(samples["plain"]), min(samples["other"])
        more = f"{figure(other - plain)} {overhead.unit}" if other > plain else "0"
        lines.append(
            f"| {overhead.plainly} | {figure(plain)} {overhead.unit} "
            f"| {overhead.otherwise} | {figure(other)} {overhead.unit} | {more} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.name for one in OVERHEADS))
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    lines = table(options.names, options.times)
    arguments = " ".join(["--times", str(options.times), *(["--out", str(options.out)] if options.out else [])])
    text = (
        "# What the means for whole programs cost\n\n"
        f"Made by `python benchmarks/overheads.py {arguments}`: CPython {platform.python_version()} on "
        f"{platform.machine()}, processor time, the best of {options.times} samples of each side.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
