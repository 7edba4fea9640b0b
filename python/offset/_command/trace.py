"""Read traces that `offset.runtime.trace` wrote: who waited, on what, and which calls froze a machine."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from offset._command import _arguments

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    Event = dict[str, Any]

HELP = "summarize a trace of offset.runtime.trace"

# Frames of a stack that are shown.
FRAMES = 4
MILLISECOND = 1_000.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `offset trace`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Name the goroutines that waited most and on what, and the calls that froze a machine."
    summary = actions.add_parser("summary", help=text, description=text)
    summary.add_argument("file", help="what trace.start or a flight recorder wrote; may end in .gz")
    summary.add_argument("--top", type=_arguments.count, default=10, metavar="N", help="lines a table (10)")
    summary.add_argument(
        "--freeze", type=float, default=10.0, metavar="MS", help="what counts as a freeze, in milliseconds (10)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the summary; 1 if the file cannot be read."""
    try:
        text = summary(load(options.file), top=options.top, freeze=options.freeze)
    except OSError as error:
        print(f"offset trace: {options.file}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (EOFError, zlib.error) as error:
        print(f"offset trace: {options.file} is cut or damaged: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"offset trace: {options.file} is no trace: {error}", file=sys.stderr)
        return 1
    except (LookupError, TypeError, AttributeError) as error:
        message = f"its events are others: {type(error).__name__}: {error}"
        print(f"offset trace: {options.file} is no trace of offset's: {message}", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


def load(path: str) -> dict[str, Any]:
    """Read a trace. Raises OSError, or ValueError for what is none."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        trace = json.load(file)
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        raise ValueError("it has no traceEvents")
    return trace


@dataclass
class Group:
    """Events that are shown on one line."""

    total: float = 0.0
    longest: float = 0.0
    count: int = 0
    goroutines: set[int] = field(default_factory=set)
    stack: list[str] = field(default_factory=list)

    def add(self, duration: float, event: Event) -> None:
        args = event.get("args", {})
        self.total += duration
        self.count += 1
        self.goroutines.add(args.get("goroutine", 0))
        stack = args.get("stack", [])
        # That of the longest that has one.
        if stack and (duration >= self.longest or not self.stack):
            self.stack = stack
        self.longest = max(self.longest, duration)


class Trace:
    """The events of a trace by category, and the names of goroutines."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.by_category: dict[str, list[Event]] = defaultdict(list)
        self.names: dict[int, str] = {}
        for event in events:
            if event["ph"] == "M":
                if event["pid"] == 2 and event["name"] == "thread_name":
                    self.names[event["tid"]] = event["args"]["name"]
            elif event["ph"] in "Xi":
                self.by_category[event["cat"]].append(event)

    def name(self, event: Event) -> str:
        number = event["args"].get("goroutine", 0)
        return self.names.get(number, f"goroutine {number}" if number else "a plain thread")

    def total(self, category: str) -> float:
        return float(sum(event["dur"] for event in self.by_category[category]))

    def grouped(self, category: str, key: Callable[[Event], Any]) -> dict[Any, Group]:
        groups: dict[Any, Group] = defaultdict(Group)
        for event in self.by_category[category]:
            groups[key(event)].add(event["dur"], event)
        return groups


def summary(document: dict[str, Any], top: int = 10, freeze: float = 10.0) -> str:
    """The summary of a trace as text; `freeze` in milliseconds."""
    trace = Trace(document["traceEvents"])
    other = document.get("otherData", {})
    span = (other.get("duration_ns", 0) - other.get("from_ns", 0)) / 1000
    counts = {name: len(trace.by_category[name]) for name in ("run", "handoff", "move", "call", "gc")}
    lines = [
        f"{_time(span)} recorded, {_count(len(trace.names), 'goroutine')}, {_count(counts['run'], 'run')} on machines, "
        f"{_count(counts['handoff'], 'hand-off')}, {_count(counts['move'], 'move')}",
        f"{_count(counts['call'], 'blocking call')} took {_time(trace.total('call'))}, "
        f"{_count(counts['gc'], 'collection')} {_time(trace.total('gc'))}",
    ]
    if other.get("truncated"):
        lines.append("The trace was full before it was stopped: what came later is missing.")
    lines += _freezes(trace, top, freeze)
    lines += _waits(trace, top)
    lines += _table(
        f"Goroutines that were runnable longest before they ran (top {top})",
        trace.grouped("runnable", trace.name),
        top,
        str,
    )
    return "\n".join(lines) + "\n"


def _freezes(trace: Trace, top: int, freeze: float) -> list[str]:
    groups: dict[tuple[str, str, tuple[str, ...]], Group] = defaultdict(Group)
    for event in trace.by_category["run"]:
        args = event["args"]
        duration = event["dur"] - args.get("host_wait_us", 0.0)
        if duration < freeze * MILLISECOND:
            continue
        what = {True: "computed", False: "blocked"}.get(args.get("computes"), "no progress")
        stack = tuple(args.get("stack", ()))
        if args.get("stack_is_of_the_end"):
            what += ", seen at its end only"
        groups[trace.name(event), what, stack].add(duration, event)
    title = f"Calls that froze a machine for more than {freeze:g} ms (top {top})"
    lines = _table(title, groups, top, lambda key: f"{key[0]} [{key[1]}]")
    if groups:
        lines += [
            "",
            "What blocked can be called through offset.syscall: the proxy of its module, or syscall.blocking(fn, ...).",
            "What computed shares the interpreter with all others: split it up, or give it a process of its own.",
        ]
    return lines


def _waits(trace: Trace, top: int) -> list[str]:
    groups: dict[tuple[str, str], Group] = trace.grouped("wait", lambda event: (trace.name(event), event["name"]))
    title = f"Goroutines that waited most, by what they waited for (top {top})"
    return _table(title, groups, top, lambda key: f"{key[0]} [{key[1]}]")


def _table(title: str, groups: dict[Any, Group], top: int, label: Callable[[Any], str]) -> list[str]:
    lines = ["", title]
    if not groups:
        return [*lines, "  none"]
    lines.append(f"  {'total':>10} {'longest':>10} {'times':>8}  goroutine")
    for key, group in sorted(groups.items(), key=lambda item: -item[1].total)[:top]:
        number = min(group.goroutines)
        more = f" and {len(group.goroutines) - 1} more" if len(group.goroutines) > 1 else ""
        who = f"  ({number}{more})" if number else ""
        lines.append(f"  {_time(group.total):>10} {_time(group.longest):>10} {group.count:>8}  {label(key)}{who}")
        lines += [f"  {'':>30}    {frame}" for frame in group.stack[:FRAMES]]
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _time(microseconds: float) -> str:
    """A duration to three digits."""
    for unit, size in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if microseconds >= size:
            return (
                f"{microseconds / size:.3g} {unit}"
                if microseconds < 1000 * size
                else f"{microseconds / size:,.0f} {unit}"
            )
    return "0 us" if microseconds == 0 else f"{microseconds:.2g} us"
