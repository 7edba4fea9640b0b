"""The page of `offset.debug` in a headless Chromium. `make browser-test` runs it alone, and keeps what it saw.

Invariant: the program whose page it is runs by itself, and ends when the test says so.
"""

from __future__ import annotations

import os
from pathlib import Path

import browser
import pytest
from helpers import PATIENCE, start_script

WANTED = os.environ.get("OFFSET_BROWSER_TESTS", "0") not in ("", "0")

pytestmark = [
    pytest.mark.skipif(
        not WANTED and browser.program() is None,
        reason="there is no Chromium: install one (Debian: chromium-headless-shell), or name it in CHROMIUM",
    ),
    pytest.mark.timeout(600),
]
pytest.importorskip("websockets", reason="websockets is not installed")

PROGRAM = """
import os, sys
import offset
from offset import debug, go, makechan, nilchan, select, sync, time

def session(quit):
    select(quit.if_recv(), time.after(3600).if_recv())

def locked(mutex):
    with mutex:
        nilchan.recv()

def named(channel):
    channel.recv()

def deep(left, channel):
    return deep(left - 1, channel) if left else channel.recv()

def busy():
    while True:
        for _ in range(50):
            offset.gosched()
        time.sleep(0.01)

def main():
    quit = makechan(label="quit")
    sessions = [go(session, quit) for _ in range(10_000)]
    mutex = sync.Mutex()
    for _ in range(5):
        go(locked, mutex)
    for index in range(400):
        # A stack of its own for each: more than are shown.
        go(named, makechan(label=f"topic {index}")).name = f"subscriber-{index}"
    go(deep, 100, makechan(5))
    go(nilchan.recv).name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    labelled = makechan(2, label="</td><b>label</b>")
    labelled.send(1)
    go(busy)
    while not all(one.wait_reason for one in sessions):
        offset.gosched()
    debug.publish("sessions", len(sessions))
    server = debug.serve("127.0.0.1:0", token=os.environ.get("TOKEN"))
    print(server.addr, flush=True)
    offset.syscall.blocking(sys.stdin.readline)
    server.close()
    offset.syscall.blocking(sys.stdin.readline)

offset.run(main)
"""

ROWS = "document.querySelectorAll('#{} button.row, #{} div.row:not(.head)').length"


@pytest.fixture
def shots(tmp_path):
    """Where what was seen is kept."""
    place = Path(os.environ.get("OFFSET_SCREENSHOTS") or tmp_path)
    place.mkdir(parents=True, exist_ok=True)
    return place


@pytest.fixture(scope="module")
def tab():
    """One browser for all."""
    with browser.chromium() as tab:
        yield tab


@pytest.fixture
def program(request):
    """A program with 10,000 goroutines, and the address of its page."""
    with start_script(PROGRAM, env={"TOKEN": getattr(request, "param", None)}) as process:
        process.addr = process.stdout.readline().strip()
        assert process.addr, process.stderr.read()
        yield process
        process.communicate("\n\n", timeout=PATIENCE)


def rows(table):
    return ROWS.replace("{}", table)


def click(tab, selector):
    tab.evaluate(f"document.querySelector({selector!r}).click()")


def search(tab, text):
    tab.evaluate(f"$('filter').value = {text!r}; $('filter').dispatchEvent(new Event('input'))")


def test_ten_thousand_goroutines(tab, program, shots):
    tab.open(f"http://{program.addr}/")
    tab.wait(f"{rows('goroutines')} > 100")
    first = tab.evaluate("document.querySelector('#goroutines button.row').innerText")
    assert "10,000" in first
    assert "select" in first
    note = tab.evaluate("$('note').innerText")
    assert "groups of equal stacks" in note
    assert "left off" in note
    assert tab.evaluate(rows("goroutines")) == 200
    # It is kept up to date: two more points at least, and no error.
    tab.wait("history_.length >= 3")
    assert tab.evaluate("charts.length") == 8
    assert tab.evaluate("document.querySelectorAll('.chart path').length") >= 10
    assert tab.evaluate("charts[0].value.textContent").startswith("10,4")
    assert tab.evaluate("history_[history_.length - 1].values.switches") > 0
    tab.screenshot(shots / "light.png")

    click(tab, "#goroutines button.row")
    tab.wait("document.querySelector('.more pre')?.textContent.includes('in session')")
    assert tab.evaluate("document.querySelectorAll('.members tbody tr').length") == 40
    assert "created by" in tab.evaluate("document.querySelector('.more pre').textContent")
    # What is open stays open, and where it was scrolled to.
    tab.evaluate("document.querySelector('.members').scrollTop = 60")
    tab.evaluate("window.points = history_.length")
    tab.wait("history_.length > points + 1")
    assert tab.evaluate("document.querySelector('.members').scrollTop") == 60
    tab.screenshot(shots / "stack.png")
    click(tab, "#goroutines button.row")
    tab.wait("!document.querySelector('.more')")

    search(tab, "subscriber-399")
    tab.wait(f"{rows('goroutines')} === 1")
    search(tab, "deep deep")
    tab.wait("$('goroutines').innerText.includes('in deep') && !$('goroutines').innerText.includes('subscriber')")
    click(tab, "#goroutines button.row")
    tab.wait("document.querySelector('.more pre')?.textContent.includes('more frames')")
    search(tab, "nothing has these words")
    tab.wait("$('goroutines').innerText.includes('Nothing fits')")
    search(tab, "")
    tab.wait(f"{rows('goroutines')} === 200")
    assert tab.errors == []
    assert {url.split("?")[0] for url in tab.requests} == {
        f"http://{program.addr}/",
        f"http://{program.addr}/debug/live",
    }


def test_channels_and_locks(tab, program, shots):
    tab.open(f"http://{program.addr}/#channels", dark=True)
    tab.wait(f"{rows('channels')} > 100")
    first = tab.evaluate("document.querySelector('#channels div.row:not(.head)').innerText")
    assert first.split("\n")[:2] == ["10,000", "quit"]
    tab.wait("history_.length >= 3")
    tab.screenshot(shots / "channels-dark.png")
    search(tab, "mutex")
    tab.wait(f"{rows('channels')} === 1")
    assert "waiters 4" in tab.evaluate("$('channels').innerText")
    # From a lock to a goroutine that waits there.
    number = tab.evaluate("document.querySelector('#channels .ids button').innerText")
    click(tab, "#channels .ids button")
    tab.wait(f"!$('goroutines').hidden && {rows('goroutines')} === 1")
    assert tab.evaluate("$('filter').value") == number
    assert "Mutex" in tab.evaluate("$('goroutines').innerText")
    assert tab.evaluate("location.hash") == "#goroutines"


def test_what_the_program_says_is_text(tab, program):
    tab.open(f"http://{program.addr}/")
    search(tab, "onerror")
    tab.wait(f"{rows('goroutines')} === 1")
    assert "<img src=x onerror=alert(1)><script>alert(2)</script>" in tab.evaluate("$('goroutines').textContent")
    assert tab.evaluate("document.querySelectorAll('main img, main script').length") == 0
    tab.evaluate("show('channels', 'label</b>')")
    tab.wait(f"{rows('channels')} === 1")
    assert "</td><b>label</b>" in tab.evaluate("$('channels').textContent")
    assert tab.errors == []
    # The policy holds what would get past that.
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hurt = 1\">')")
    tab.wait("document.images[0].complete")
    assert tab.evaluate("window.hurt") is None


def test_as_text(tab, program):
    tab.open(f"http://{program.addr}/#text")
    for path, text in (
        ("/debug/goroutines", "10000 goroutines [select"),
        ("/debug/vars", '"sessions": 10000'),
        ("/metrics", 'offset_goroutines{state="select"} 10000'),
        ("/debug/leaks", "leaked"),
    ):
        click(tab, f"[data-text='{path}']")
        tab.wait(f"$('answer').textContent.includes({text!r})")


def test_in_a_narrow_window_nothing_is_cut_off(tab, program, shots):
    for dark in (False, True):
        tab.open(f"http://{program.addr}/", width=400, height=800, dark=dark)
        tab.wait(f"{rows('goroutines')} > 100 && history_.length >= 3")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        tab.screenshot(shots / f"narrow-{'dark' if dark else 'light'}.png")
        click(tab, "#goroutines button.row")
        tab.wait("document.querySelector('.more pre')")
        tab.evaluate("$('bar').scrollIntoView()")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        tab.screenshot(shots / f"narrow-{'dark' if dark else 'light'}-stack.png")


def test_pause_and_the_end_of_the_program(tab, program):
    tab.open(f"http://{program.addr}/")
    tab.wait("history_.length >= 2")
    click(tab, "#pause")
    tab.evaluate("window.points = history_.length")
    assert tab.evaluate("paused && $('pause').textContent") == "Go on"
    click(tab, "#pause")
    tab.wait("history_.length > points")
    program.stdin.write("\n")
    program.stdin.flush()
    tab.wait("$('trouble').textContent.includes('does not answer')")


@pytest.mark.parametrize("program", ["a-token"], indirect=True)
def test_the_token_does_not_stay_in_the_address(tab, program, shots):
    tab.open(f"http://{program.addr}/?token=a-token")
    tab.wait(f"{rows('goroutines')} > 100")
    assert tab.evaluate("location.href") == f"http://{program.addr}/#goroutines"
    tab.requests.clear()
    tab.wait("history_.length >= 3")
    assert not any("token" in url for url in tab.requests)
    assert tab.evaluate("document.body.innerHTML.includes('a-token')") is False
    # It stays in this tab: the page can be loaded again.
    tab.evaluate("window.old = true; location.reload()")
    tab.wait(f"!window.old && {rows('goroutines')} > 100")
    # Another tab is asked for it.
    tab.evaluate("sessionStorage.clear(); window.old = true; location.reload()")
    tab.wait("!window.old && $('ask').open")
    tab.screenshot(shots / "token.png")
    tab.evaluate("$('token').value = 'wrong'; $('ask').querySelector('button').click()")
    tab.wait("$('trouble').textContent.includes('wrong') && $('ask').open")
    tab.evaluate("$('token').value = 'a-token'; $('ask').querySelector('button').click()")
    tab.wait(f"{rows('goroutines')} > 100 && !$('trouble').textContent")
