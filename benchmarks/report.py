"""The table of the benchmarks as Markdown, made from the samples that run.py has taken.

A cell is the median of its samples, with the least and the greatest; a ratio is one of medians.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import Any

from scenarios import ROWS, SCENARIOS, SOCKET_ROWS, Row

# Cores that other processes may keep busy before a cell counts as disturbed.
DISTURBED = 0.3

# Rivals that are other Python libraries; Go is what offset is held against.
PEERS = ("asyncio", "uvloop", "uvloop-protocols", "rloop", "gevent", "threads")


class Samples:
    """The samples by rival and scenario."""

    def __init__(self, samples: Iterable[dict[str, Any]]) -> None:
        self._cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for sample in samples:
            self._cells.setdefault((sample["rival"], sample["scenario"]), []).append(sample)

    def cell(self, rival: str, scenario: str) -> list[dict[str, Any]]:
        """The samples of a cell, those that failed included."""
        return self._cells.get((rival, scenario), [])

    def values(self, rival: str, row: Row) -> list[float]:
        """What was measured for a row."""
        values = (row.value(sample) for sample in self.cell(rival, row.scenario) if "failed" not in sample)
        return [value for value in values if value is not None]

    def median(self, rival: str, row: Row) -> float | None:
        """The median for a row; None where nothing was measured."""
        values = self.values(rival, row)
        return median(values) if values else None

    def ratio(self, rival: str, base: str, row: Row) -> float | None:
        """How many times as much `rival` needs as `base`."""
        ours, theirs = self.median(rival, row), self.median(base, row)
        return ours / theirs if ours is not None and theirs else None

    def best_peer(self, row: Row) -> tuple[str, float] | None:
        """The other Python library that needs least, and how much."""
        medians = {peer: value for peer in PEERS if (value := self.median(peer, row)) is not None}
        if not medians:
            return None
        best = min(medians, key=lambda peer: medians[peer])
        return best, medians[best]


def number(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(samples: Samples, rival: str, row: Row) -> str:
    """The text of one cell of the table."""
    values = samples.values(rival, row)
    taken = samples.cell(rival, row.scenario)
    if not values:
        reasons = [sample["failed"] for sample in taken if "failed" in sample]
        return f"failed: {reasons[0]}" if reasons else ""
    text = f"**{number(median(values))}** ({number(min(values))}-{number(max(values))})"
    size = next(sample["size"] for sample in taken if "size" in sample)
    if SCENARIOS[row.scenario].is_smaller(size):
        text += f" of {size:,}"
    if median(sample["others"] for sample in taken) > DISTURBED:
        text += " ~"
    return text


def times(value: float | None) -> str:
    """A ratio as text."""
    return "" if value is None else f"{value:.2f}"


def verdict(row: Row, samples: Samples) -> tuple[str, str]:
    """What is wanted of offset in a row, and whether it holds."""
    wanted, holds = [], []
    for rival, most in row.wanted.items():
        if (ratio := samples.ratio(row.of, rival, row)) is not None:
            wanted.append(f"at most {most:.3g} of {'Go' if rival == 'go' else rival}")
            holds.append(ratio <= most)
    if row.wanted_value is not None and (value := samples.median(row.of, row)) is not None:
        wanted.append(f"at most {row.wanted_value:,g} {row.unit.split()[0]}")
        holds.append(value <= row.wanted_value)
    best, ours = samples.best_peer(row), samples.median(row.of, row)
    if row.peers is not None and best is not None and ours is not None:
        wanted.append(f"{row.peers:g} times the best peer")
        holds.append(best[1] / ours >= row.peers)
    return ", ".join(wanted), ", ".join("yes" if each else "**no**" for each in holds)


def processor_time(row: Row) -> Row:
    """The same row, by the processor time of the process instead of the clock on the wall."""
    return replace(row, key="cpu_seconds")


def table(head: list[str], lines: Iterable[list[str]]) -> list[str]:
    """A Markdown table."""
    return [
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
    ]


def alone(samples: Samples) -> list[str]:
    """Which scenarios were measured before all other processes."""
    names = [name for name in SCENARIOS if any(sample.get("alone") for sample in samples.cell("offset", name))]
    return [f"Before all other processes of the machine (`--alone`): {', '.join(names)}.", ""] if names else []


def cells(samples: Samples, rivals: list[str], rows: list[Row]) -> list[str]:
    """A table of rows for the rivals that have something in one of them."""
    rivals = [rival for rival in rivals if any(samples.values(rival, row) for row in rows)]
    lines = ([f"{row.label}, {row.unit}", *(cell(samples, rival, row) for rival in rivals)] for row in rows)
    return table(["", *rivals], lines) if rivals else []


def render(data: dict[str, Any], rivals: list[str], name: str) -> str:
    """The whole page; `rivals` gives the order of the columns, `name` that of the files."""
    samples = Samples(data["samples"])
    rivals = [rival for rival in rivals if any(samples.values(rival, row) for row in ROWS)]
    machine, versions = data["machine"], data["versions"]
    batches = sorted({sample["batch"] for sample in data["samples"]})
    page = [
        "# Benchmarks",
        "",
        f"CPython {machine['python']} on {machine['system']}, {machine['cores']} cores of "
        f"{machine['processor']}. "
        + ", ".join(f"{library} {version}" for library, version in versions.items())
        + f". Measured on {', '.join(batches)}"
        + (" (not in one run: compare with care)." if len(batches) > 1 else ", in one run."),
        "",
        "Made by `make bench`; README.md says what each scenario does. A cell is the median of its samples "
        "(least-greatest), each sample a process of its own, the rivals in turn. `~`: other processes kept "
        f"more than {DISTURBED} cores busy meanwhile. `go-p1` is Go with GOMAXPROCS=1: one processor, as "
        "offset has on a build with the GIL. Less is better everywhere.",
        "",
        *alone(samples),
        f"![offset and its rivals as multiples of Go]({name}.svg)",
        "",
    ]
    shown = [row for row in ROWS if any(samples.values(rival, row) for rival in rivals)]
    if "offset" in rivals and "go" in rivals:
        page += ["## offset against Go and against the best other Python library", ""]
        lines = []
        for row in [*shown, *SOCKET_ROWS]:
            best, ours = samples.best_peer(row), samples.median(row.of, row)
            if ours is None:
                continue
            lines.append(
                [
                    f"{row.label}, {row.unit}",
                    number(ours),
                    times(samples.ratio(row.of, "go", row)),
                    times(samples.ratio(row.of, "go-p1", row)),
                    times(samples.ratio(row.of, "go", processor_time(row)))
                    if row.key == "seconds" and row.each
                    else "",
                    f"{best[0]}, {number(best[1])}" if best else "",
                    times(best[1] / ours if best else None),
                    *verdict(row, samples),
                ]
            )
        page += table(
            ["", "offset", "/ Go", "/ go-p1", "/ Go, processor", "best peer", "peer / offset", "wanted", "holds"], lines
        )
    networks = [row for row in shown if SCENARIOS[row.scenario].network]
    page += ["## All of them", ""]
    page += cells(samples, rivals, [row for row in shown if row not in networks])
    page += ["## Networks", ""]
    page += cells(samples, rivals, networks)
    page += [
        "## Processor time of the same runs",
        "",
        "User and system time of all threads of the process while the scenario ran: what it costs the machine, and the "
        "steadier number where other processes use the machine too.",
        "",
    ]
    page += cells(samples, rivals, [processor_time(row) for row in shown if row.is_time() and row not in networks])
    page += ["Of a server, without its client:", ""]
    page += cells(samples, rivals, [processor_time(row) for row in networks if row.is_time()])
    return "\n".join(page)
