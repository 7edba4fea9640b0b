"""What the site has besides the pages in docs/: MkDocs calls the functions here by their names.

* Each section of docs/tour.md is a lesson of its own, one after the other, as in Go's tour.
* Each public module has a page of reference, made from its docstrings and stubs.
* CHANGELOG.md and its like, and the results of the benchmarks with their plot, which `make bench` makes.

Invariant: links on the pages are right in the repository, where they are read as well; here they are bent to where the
pages lie on the site. One to a file that the site has not becomes plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

PROJECT = ["CHANGELOG.md", "CONTRIBUTING.md", "HACKING.md", "SECURITY.md"]


def modules() -> list[str]:
    """The public modules, as docs/api.md has them."""
    return re.findall(r"^## (offset\S*)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def lessons() -> list[tuple[str, str]]:
    """The title and the text of each lesson; the first one has the opening of the page, too."""
    text = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    opening, first, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    found = [("Goroutines", opening.replace("on this page", "of the tour") + first)]
    for section in sections:
        title = section.partition("\n")[0].removeprefix("## ")
        # A level up: what was a part of the page is a page.
        found.append((title.replace("`", ""), re.sub(r"^#(#+) ", r"\1 ", section, flags=re.MULTILINE)))
    return found


def lesson_file(index: int, title: str) -> str:
    return "tour.md" if index == 0 else f"tour-{index:02}-{slug(title)}.md"


def on_config(config: Any) -> Any:
    """Complete the navigation."""
    for entry in config.nav:
        if "Tour" in entry:
            entry["Tour"] = [{title: lesson_file(index, title)} for index, (title, _) in enumerate(lessons())]
        elif "Reference" in entry:
            entry["Reference"] += [{name: f"reference-{name}.md"} for name in modules()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    made = {name: (ROOT / name).read_text(encoding="utf-8") for name in PROJECT}
    made["benchmarks.md"] = benchmarks()
    for name in modules():
        # The package's own page has its names; those of its modules have pages.
        made[f"reference-{name}.md"] = f"# {name}\n\n::: {name}\n"
    for index, (title, text) in enumerate(lessons()):
        made[lesson_file(index, title)] = text
    for name, text in made.items():
        old = files.get_file_from_path(name)
        if old is not None:
            files.remove(old)
        files.append(File.generated(config, name, content=text))
    return files


def benchmarks() -> str:
    """The page of the results, with the plot inside it, in the colours of the page."""
    results = (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8")
    about = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    plot = (ROOT / "benchmarks" / "results.svg").read_text(encoding="utf-8")
    plot = plot[plot.index("<svg") :]
    plot = re.sub(r"<metadata>.*?</metadata>", "", plot, flags=re.DOTALL)
    plot = (
        plot.replace("fill: #ffffff", "fill: none").replace("#000000", "currentColor").replace("black", "currentColor")
    )
    # Markdown ends a block of HTML at an empty line.
    plot = re.sub(r"\n\s*\n", "\n", plot)
    picture = f'<figure class="plot">{plot}</figure>'
    results = re.sub(r"!\[[^\]]*\]\(results\.svg\)", lambda _: picture, results)
    read = about[about.index("## How to read the table") : about.index("## What recording costs")]
    scenarios = about[about.index("| scenario |") : about.index("## How to read the table")]
    what = f"## What is done\n\n{scenarios}"
    return f"{results}\n{what}\n{read}".replace("README.md says", "the table below says")


def _title(markdown: str) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", markdown, re.MULTILINE)
    return found[1] if found else "Every name"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Bend links."""

    def bend(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target or not target:
            return link[0]
        name = target.removeprefix("../").removeprefix("docs/")
        if name == "benchmarks" or name.startswith("benchmarks/"):
            name, anchor = "benchmarks.md", ""
        if name == "LICENSE" or files.get_file_from_path(name) is None:
            return text
        if text.endswith(".md"):
            # A reader of the site sees titles, not files.
            text = _title(files.get_file_from_path(name).content_string)
        return f"[{text}]({name}{anchor})"

    # Not in programs: what looks like a link there is none.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)#\s]*)(#[^)\s]*)?\)", bend, parts[index])
    return "".join(parts)
