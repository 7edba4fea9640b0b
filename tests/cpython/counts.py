"""What passes of CPython's tests plainly, with offset and under gevent, side by side: `counts.json`, `counts.md`.

`counts.json` holds the last counts of each version of Python; a run replaces those of the modules that it ran.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

# Asks gevent which of the tests named on standard input its own run disables. It lists them without `test.`.
_ASK = """
import json, sys
import gevent
from gevent.testing import patched_tests_setup as setup
out = {f"test.{name}" for name in setup.disabled_tests}
print(json.dumps([gevent.__version__, [name for name in json.load(sys.stdin) if name in out]]))
"""

_WAYS = {
    "proxies": "in a goroutine, over the proxies",
    "thread": "unpatched on the main thread, beside goroutines",
    "goroutine": "unpatched in the main goroutine, beside others",
}


class Row(NamedTuple):
    """The counts of a module in one way."""

    group: str
    module: str
    way: str
    good: list[str]
    """The tests that do well plainly."""
    offset: int
    """How many of them do the same with offset."""
    gevent: int | None
    """How many do under gevent."""


def write(directory: Path, version: str, rows: list[Row], gevent: str | None) -> None:
    """Take the counts of a version into the files."""
    file = directory / "counts.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    release, left_out = ask(gevent, rows) if gevent else ("", set())
    before = known.get(version, {"gevent": "", "rows": []})
    counted = {(row["module"], row["way"]): row for row in before["rows"]}
    for row in rows:
        counted[row.module, row.way] = {
            "group": row.group,
            "module": row.module,
            "way": row.way,
            "plain": len(row.good),
            "offset": row.offset,
            "gevent": row.gevent,
            "left out": sum(test in left_out for test in row.good),
        }
    known[version] = {"gevent": release or before["gevent"], "rows": list(counted.values())}
    file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    (directory / "counts.md").write_text(table(known), encoding="utf-8")


def ask(gevent: str, rows: list[Row]) -> tuple[str, set[str]]:
    """Ask gevent for its version, and what its own run leaves out of the tests that do well plainly."""
    names = json.dumps([test for row in rows for test in row.good])
    answer = subprocess.run([gevent, "-c", _ASK], input=names, capture_output=True, text=True, check=True)
    release, left_out = json.loads(answer.stdout)
    return release, set(left_out)


def table(known: dict[str, dict[str, object]]) -> str:
    """The page with the table of each version."""
    lines = [
        "# CPython's own tests, counted side by side",
        "",
        "Made by `make gevent-tests` (with `PYTHON=python3.12` for another version), which runs each module three",
        "times: as it is; with offset, in a goroutine, with the proxies in place of the originals; and under gevent,",
        "with everything patched (`python -m gevent.monkey`). No test is left out on any side.",
        "",
        "*plain* counts the tests that do well plainly (passed, skipped or failed as expected), *offset* and *gevent*",
        "those of them that do the same there, *left out* those that gevent's own run disables. What differs with",
        "offset is listed, with the reasons, in [differences.toml](differences.toml).",
    ]
    for version, counted in sorted(known.items()):
        rows = counted["rows"]
        assert isinstance(rows, list)
        release = f" (gevent {counted['gevent']})" if counted["gevent"] else ""
        lines += ["", f"## CPython {version}{release}"]
        for way, what in _WAYS.items():
            chosen = [row for row in rows if row["way"] == way]
            if chosen:
                lines += ["", f"{what[0].upper()}{what[1:]}:", "", *_rows(chosen)]
    return "\n".join(lines) + "\n"


def _rows(rows: list[dict[str, object]]) -> list[str]:
    columns = ("plain", "offset", "gevent", "left out")
    lines = [f"| module | {' | '.join(columns)} |", "|---|---|---|---|---|"]
    total = dict.fromkeys(columns, 0)
    for row in rows:
        lines.append(
            f"| {str(row['module']).removeprefix('test.')} | {' | '.join(_cell(row[name]) for name in columns)} |"
        )
        for name in columns:
            number = row[name]
            total[name] += number if isinstance(number, int) else 0
    cells = [_cell(total[name] if any(row[name] is not None for row in rows) else None) for name in columns]
    return [*lines, f"| **all** | {' | '.join(f'**{cell}**' for cell in cells)} |"]


def _cell(number: object) -> str:
    return "" if number is None else f"{number:,}"
