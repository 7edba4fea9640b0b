"""check.py DIRECTORY: what the built site links to is there, and nothing is fetched from elsewhere.

MkDocs checks the links of pages; this reads what came out of it, the theme's links among them, without a network.
Links that a reader follows to other sites are only counted.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself.
FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("video", "src")}


class Page(HTMLParser):
    """The names that a page can be entered at, and its links: tag, attribute, target."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[tuple[str, str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.names.add(value)
            elif name in ("href", "src"):
                self.links.append((tag, name, value))


def check(directory: Path) -> list[str]:
    """Give what is wrong, a line each."""
    pages = {path: Page(path) for path in sorted(directory.rglob("*.html"))}
    wrong = []
    outside = 0
    for path, page in pages.items():
        for tag, attribute, target in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                outside += 1
                if (tag, attribute) in FETCHED and parts.scheme != "data":
                    wrong.append(f"{path.relative_to(directory)}: fetches {target}")
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            # The page for what is not found has links from the root.
            if path.name == "404.html" and parts.path.startswith("/"):
                continue
            if not there.exists():
                wrong.append(f"{path.relative_to(directory)}: {target} is not there")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].names:
                wrong.append(f"{path.relative_to(directory)}: {target} has no such place")
    links = sum(len(page.links) for page in pages.values())
    print(f"{len(pages)} pages, {links} links, {outside} of them to other sites, {len(wrong)} wrong")
    return wrong


if __name__ == "__main__":
    found = check(Path(sys.argv[1]).resolve())
    print("\n".join(found))
    sys.exit(bool(found))
