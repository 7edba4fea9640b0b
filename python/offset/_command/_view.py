"""What `offset top` shows, as lines of text: a function of what the process answered and of what the user chose.

Invariant: no line is longer than the width, or has a character that a terminal would take for a command; those of the
program (names, labels, sources) are replaced.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from offset._dump import duration

Answer = dict[str, Any]

_BARS = "▁▂▃▄▅▆▇█"
# So many values of a counter are drawn.
_HISTORY = 30
# Characters of a command line.
_LONGEST = 200


@dataclass
class View:
    """What the user chose, and what was seen before. `width` and `height` are characters; a height of 0 has no end."""

    pid: int
    show: str = "goroutines"
    query: str = ""
    typing: bool = False
    selected: int = 0
    opened: bool = False
    width: int = 100
    height: int = 0
    before: Answer | None = None
    rates: dict[str, float] = field(default_factory=dict)
    switches: list[float] = field(default_factory=list)

    def take(self, answer: Answer) -> None:
        """Work out rates from an answer and the one before."""
        before, self.before = self.before, answer
        # The same clock as the answer's: two answers may come late.
        seconds = answer["time"] - before["time"] if before is not None else 0
        if before is not None and seconds > 0:
            for name in ("switches", "handoffs", "moves", "spawned"):
                self.rates[name] = max(0, answer["stats"][name] - before["stats"][name]) / seconds
            self.rates["cpu"] = 100 * max(0, answer["process"]["cpu"] - before["process"]["cpu"]) / seconds
            self.switches = [*self.switches, self.rates["switches"]][-_HISTORY:]


def lines(view: View, answer: Answer) -> list[str]:
    """Give the lines of the screen; the one that the columns' names are in comes fifth."""
    head = [_title(view, answer), _states(answer), _counters(view, answer), _system(answer)]
    table = answer[view.show]
    columns, rows = (_goroutines if view.show == "goroutines" else _channels)(table["rows"])
    foot = _foot(view, table)
    view.selected = max(0, min(view.selected, len(rows) - 1))
    body: list[str] = []
    chosen = 0
    for index, row in enumerate(rows):
        marked = view.height > 0 and index == view.selected
        if marked:
            chosen = len(body)
        body.append((">" if marked else " ") + row)
        if marked and view.opened:
            body += [f"      {line}" for line in _details(table["rows"][index])]
    if view.height:
        room = max(1, view.height - len(head) - 2)
        # The one that is selected is seen, with as much of its stack as there is room for.
        first = max(0, min(chosen, len(body) - room)) if chosen >= room or view.opened else 0
        body = body[first : first + room]
        body += [""] * (room - len(body))
    return [plain(line)[: view.width] for line in [*head, " " + columns, *body, foot]]


def plain(text: str) -> str:
    """Give the text without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _title(view: View, answer: Answer) -> str:
    about = answer["process"]
    up = f"up {duration(time.time() - about['started'])}  " if "started" in about else ""
    free = "" if about["gil"] else " without the GIL"
    # A program may be among the arguments.
    program = " ".join(" ".join(about["argv"][1:] or about["argv"])[:_LONGEST].split())
    return f"offset top {view.pid}  {up}CPython {about['python']}{free}  offset {about['offset']}  {program}"


def _states(answer: Answer) -> str:
    states = sorted(answer["states"].items(), key=lambda state: (-state[1], state[0]))
    text = ", ".join(f"{count:,} {state}" for state, count in states)
    return f"Goroutines  {answer['stats']['goroutines']:,}" + (f": {text}" if text else "")


def _counters(view: View, answer: Answer) -> str:
    stats = answer["stats"]
    names = {"switches": "switches", "handoffs": "hand-offs", "moves": "moves", "spawned": "started"}
    if not view.rates:
        return "Since start " + ", ".join(f"{stats[name]:,} {text}" for name, text in names.items())
    text = ", ".join(f"{_rate(view.rates[name])} {text}" for name, text in names.items())
    return f"A second    {text}  {_drawn(view.switches)}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _drawn(values: list[float]) -> str:
    most = max(values, default=0)
    return "".join(_BARS[int(value / most * (len(_BARS) - 1))] for value in values) if most else ""


def _system(answer: Answer) -> str:
    stats, about = answer["stats"], answer["process"]
    parts = [
        f"{stats['processors']} processor{'s' if stats['processors'] > 1 else ''}",
        f"{stats['machines']} machines ({stats['idle_machines']} idle, {stats['stuck_machines']} stuck)",
        f"{stats['blocking_calls']} blocking calls",
        f"{stats['timers']:,} timers",
        f"{stats['descriptors']:,} descriptors polled, {stats['descriptor_waits']:,} waits",
    ]
    if "threads" in about:
        parts.insert(1, f"{about['threads']} threads")
        parts.append(f"{about['resident'] / (1 << 20):,.0f} MiB")
    return "System      " + ", ".join(parts)


def _goroutines(rows: list[Answer]) -> tuple[str, list[str]]:
    names = min(30, max([8, *(len(row["name"]) for row in rows)]))
    states = min(24, max([5, *(len(row["state"]) for row in rows)]))
    columns = f"{'COUNT':>9}  {'STATE':{states}}  {'WAITS':21}  {'FUNCTION':{names}}  WHERE"
    shown = []
    for row in rows:
        text = ""
        if row["shortest"] is not None:
            shortest, longest = duration(row["shortest"]), duration(row["longest"])
            text = shortest if shortest == longest else f"{shortest} to {longest}"
        name = row["name"][:names]
        at = row["at"].rpartition("/")[2] if ":" in row["at"] else row["at"]
        shown.append(f"{row['count']:>9,}  {row['state'][:states]:{states}}  {text:21}  {name:{names}}  {at}")
    return columns, shown


def _channels(rows: list[Answer]) -> tuple[str, list[str]]:
    labels = min(30, max([14, *(len(row["label"]) for row in rows)]))
    columns = f"{'WAITERS':>9}  {'LABEL OR ADDRESS':{labels + 2}}  {'LENGTH':>13}  {'KIND':22}  WHO WAITS"
    shown = []
    for row in rows:
        label = (row["label"] or row["at"])[: labels + 2]
        length, who = "", row["about"]
        if "capacity" in row:
            length = f"{row['length']:,}/{row['capacity']:,}"
            closed = ", closed" if row["closed"] else ""
            who = f"{row['senders']:,} send, {row['receivers']:,} receive, {row['passed']:,} passed{closed}"
        ids = ", ".join(map(str, row["members"][:8])) + ("..." if row["waiters"] > 8 else "")
        who = f"{who}; goroutines {ids}" if ids else who
        shown.append(f"{row['waiters']:>9,}  {label:{labels + 2}}  {length:>13}  {row['kind']:22}  {who}")
    return columns, shown


def _details(row: Answer) -> list[str]:
    if "stack" not in row:
        return ["goroutines " + ", ".join(map(str, row["members"]))] if row["members"] else []
    ids = ", ".join(str(member[0]) for member in row["members"][:20])
    more = f" and {row['count'] - 20:,} more" if row["count"] > 20 else ""
    return [*row["stack"].splitlines(), row["created"], f"goroutines {ids}{more}"]


def _foot(view: View, table: Answer) -> str:
    if view.typing:
        return f"Filter: {view.query}_"
    what = "groups" if view.show == "goroutines" else "channels and locks"
    text = f"{table['count']:,} {what}"
    left = table["left_off"]
    if left["rows"]:
        text += f", {left['rows']:,} of them left off ({left['goroutines']:,} goroutines)"
    if view.query:
        text += f", with {view.query!r}"
    text += f"; looking took {table['seconds'] * 1000:,.0f} ms"
    if view.height:
        text += " | q quit, g goroutines, c channels, / filter, arrows and Enter: stack"
    return text
