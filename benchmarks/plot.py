"""Draw the samples of run.py: every rival as a multiple of Go, scenario by scenario, less is better.

    python plot.py results.json results.svg

Runs in the environment of the rivals, which has matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
from report import PEERS, Samples
from scenarios import ROWS

COLOURS = {
    "offset": "#d6336c",
    "offset-socket": "#f783ac",
    "go-p1": "#74c0fc",
    "asyncio": "#adb5bd",
    "uvloop": "#868e96",
    "uvloop-protocols": "#4263eb",
    "rloop": "#9775fa",
    "gevent": "#69b34c",
    "threads": "#b08968",
}


def draw(data: dict, target: Path) -> None:
    """Write the plot."""
    # Text stays text and nothing depends on the day, so the file is small and changes with the data only.
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "offset", "font.size": 9})
    from matplotlib import pyplot

    samples = Samples(data["samples"])
    # Left out: what has no operation, what 100,000 tasks show already, and a cost next to nothing in Go.
    omitted = ("1,000,000", "page tables", "whole run")
    rows = [row for row in ROWS if samples.median("go", row) and not any(words in row.label for words in omitted)]
    rivals = [
        name for name in ("offset", "offset-socket", "go-p1", *PEERS) if any(samples.values(name, row) for row in rows)
    ]
    height = 0.8 / len(rivals)

    figure, axes = pyplot.subplots(figsize=(9, 0.75 * len(rows) + 1))
    for place, rival in enumerate(rivals):
        points = [(at, ratio) for at, row in enumerate(rows) if (ratio := samples.ratio(rival, "go", row))]
        axes.barh(
            [at + (place - (len(rivals) - 1) / 2) * height for at, _ in points],
            # A bar on this scale needs a beginning: it starts at Go's 1.
            [ratio - 1 for _, ratio in points],
            height=height,
            left=1,
            color=COLOURS[rival],
            label=rival,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("multiple of what Go needs (left of 1: less than Go)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="best")
    axes.set_title(f"CPython {data['machine']['python']}, Go {data['versions'].get('go', '')}")
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
