"""The site that `make docs` has built: its links, and its pages in a headless Chromium. `make docs-test` runs this.

Invariant: the browser reaches a server of the test's, which serves the files, and nothing else.
"""

from __future__ import annotations

import functools
import http.server
import importlib
import importlib.util
import os
import threading
from pathlib import Path

import browser
import pytest
from test_docs import MODULES, public_names

ROOT = Path(__file__).resolve().parent.parent
SITE = os.environ.get("OFFSET_SITE", "")

if SITE:
    for name in MODULES:
        # Here: what a module makes once is no leak of a test.
        importlib.import_module(name)

LOOKS = {"light": (1300, False), "dark": (1300, True), "narrow": (400, True)}

PAGES = [
    "index",
    "tour",
    "tour-01-channels",
    "how",
    "benchmarks",
    "troubleshooting",
    "libraries",
    "command",
    "migrating-go",
    "api",
    "reference-offset",
    "reference-offset.errgroup",
]

built = pytest.mark.skipif(not SITE, reason="the site is tested by make docs-test")
seen = pytest.mark.skipif(browser.program() is None, reason="there is no Chromium: install one, or name it in CHROMIUM")


@pytest.fixture
def address():
    """Where the site is served."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=SITE)) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield "http://127.0.0.1:%d" % server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


def checker():
    spec = importlib.util.spec_from_file_location("check", ROOT / "docs" / "site" / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check


def test_the_checker_finds_what_is_wrong(tmp_path):
    (tmp_path / "index.html").write_text(
        """<h1 id="here"></h1> <a href="#here"></a> <a href="other.html#there"></a> <a href="https://example.org/"></a>
        <a href="#nowhere"></a> <a href="none.html"></a> <img src="https://example.org/picture.png">""",
        encoding="utf-8",
    )
    (tmp_path / "other.html").write_text("""<p id="there"></p> <a href="index.html#lost"></a>""", encoding="utf-8")
    assert checker()(tmp_path) == [
        "index.html: #nowhere has no such place",
        "index.html: none.html is not there",
        "index.html: fetches https://example.org/picture.png",
        "other.html: index.html#lost has no such place",
    ]


@built
def test_all_links_lead_somewhere_and_nothing_is_fetched():
    assert checker()(Path(SITE)) == []


@built
def test_every_public_name_is_in_the_reference():
    missing = []
    for module in MODULES:
        page = (Path(SITE) / f"reference-{module}.html").read_text(encoding="utf-8")
        missing += [f"{module}.{name}" for name in public_names(module) if f'"{module}.{name}"' not in page]
    assert missing == []


@built
@seen
@pytest.mark.timeout(600)
def test_pages_look_right(address, tmp_path):
    shots = Path(os.environ.get("OFFSET_SCREENSHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    with browser.chromium() as tab:
        for name in PAGES:
            for look, (width, dark) in LOOKS.items():
                tab.open(f"{address}/{name}.html", width=width, height=1600, dark=dark)
                scheme = "slate" if dark else "default"
                tab.wait(f"document.body.getAttribute('data-md-color-scheme') === '{scheme}'")
                tab.screenshot(shots / f"site-{name}-{look}.png")
                # Wide tables and pictures move inside their own frames.
                assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, look)
                assert tab.evaluate("document.querySelector('h1').innerText.length > 0"), (name, look)
                assert all(url.startswith((address, "data:", "blob:")) for url in tab.requests), tab.requests
                assert tab.errors == [], (name, look)


@built
@seen
def test_the_search_finds_pages(address):
    with browser.chromium() as tab:
        tab.open(f"{address}/index.html")
        tab.wait("document.querySelector('.md-search__input').offsetWidth > 0")
        tab.evaluate("document.querySelector('.md-search__input').focus()")
        tab.call("Input.insertText", text="deadlock")
        tab.wait("document.querySelectorAll('.md-search-result__item').length > 3")
        assert tab.errors == []
