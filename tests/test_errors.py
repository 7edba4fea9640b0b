"""docs/errors.md shows what offset says to the mistakes of newcomers, and the table there says the same.

Invariants:

* A section is a program that makes a mistake and the lines of its output that matter. Each of those is a line
  of the real output, in this order, with anything in the place of "..."; other lines may stand between them.
* What the table says one sees is in the lines of the section that it links to.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import helpers
import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

# What has another outcome on builds without the GIL, as the page says, or none that is certain.
NEED_GIL = {"Python's `time.sleep`", "`run` is forgotten"}

# Where it is for the machine to say who comes first, in so many runs one will go as the page has it.
RUNS = {
    "A send after the close": 5,
    "`add` comes too late": 5,
    "Locks in another order": 5,
    "A goroutine that nobody can wake": 5,
    "Python's `time.sleep`": 5,
    "`run` is forgotten": 20,
}


class Section(NamedTuple):
    """One mistake."""

    title: str
    program: str
    lines: list[str]


def sections() -> list[Section]:
    pattern = r"^### ([^\n]+)\n\n```python\n(.*?)^```\n\n```text\n(.*?)^```$"
    text = PAGE.read_text(encoding="utf-8")
    return [
        Section(found[1], found[2], found[3].splitlines())
        for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def anchor(title: str) -> str:
    """What GitHub makes of a title."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def rows() -> dict[str, list[str]]:
    """The cells of the table, by the section that a row links to."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^\| \[(.+)\]\(#(.+?)\) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    return {link: [title, seen, advice] for title, link, seen, advice in found}


def missing(wanted: list[str], output: str) -> str | None:
    """The first of the wanted lines that does not follow on the others."""
    lines = iter(output.splitlines())
    for want in wanted:
        pattern = ".*".join(map(re.escape, want.split("...")))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return want
    return None


def test_every_section_has_a_program_and_its_lines() -> None:
    titles = re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == [section.title for section in sections()]
    assert set(titles) >= NEED_GIL | RUNS.keys()


def test_the_table_has_every_section_in_order() -> None:
    assert list(rows()) == [anchor(section.title) for section in sections()]


@pytest.mark.parametrize("section", sections(), ids=lambda section: anchor(section.title))
def test_the_table_says_what_the_section_shows(section: Section) -> None:
    title, seen, _ = rows()[anchor(section.title)]
    assert title.lower() == section.title.lower()
    quoted = re.fullmatch(r"`([^`]+)`", seen)
    if quoted:
        assert any(quoted[1] in line for line in section.lines)


@pytest.mark.parametrize("section", sections(), ids=lambda section: anchor(section.title))
def test_a_mistake_leads_to_what_the_page_shows(section: Section, tmp_path: Path) -> None:
    if helpers.FREE_THREADED and section.title in NEED_GIL:
        pytest.skip("without the GIL it goes otherwise")
    file = tmp_path / "program.py"
    file.write_text(section.program, encoding="utf-8")
    for _ in range(RUNS.get(section.title, 1)):
        ended = helpers.run_script(file)
        output = ended.stdout + ended.stderr
        # It ends by itself, well or with a traceback.
        assert ended.returncode in (0, 1), output
        wanted = missing(section.lines, output)
        if wanted is None:
            return
    raise AssertionError(f"not in the output: {wanted}\n\n{output}")
