"""`offset top`: once where there is no terminal, and in one, as it changes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter

import pytest
import terminals
from asked import PARKED, PROGRAM, Asked, command
from helpers import FREE_THREADED, PATIENCE, script_environment, start_script
from offset import _outside
from offset._command import _view, top

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux's")

LABELLED = PARKED.replace("jobs = makechan()", 'jobs = makechan(7, label="the jobs")')


# ---- once -------------------------------------------------------------------------------------


def test_where_there_is_no_terminal_it_is_printed_once():
    asked = Asked(LABELLED.replace("COUNT", "3"))
    with asked as process:
        status, text, errors = command("top", process.pid)
        channels = command("top", process.pid, "--channels")[1]
        filtered = command("top", process.pid, "--filter", "main blocking")[1]
    assert (status, errors) == (0, "")
    lines = text.splitlines()
    assert lines[0].startswith(f"offset top {process.pid}  up ")
    assert lines[1] == "Goroutines  4: 3 chan receive, 1 blocking call"
    assert re.match(r"Since start [\d,]+ switches, \d+ hand-offs, \d+ moves, 4 started$", lines[2])
    assert "processor" in lines[3]
    assert lines[4].split() == ["COUNT", "STATE", "WAITS", "FUNCTION", "WHERE"]
    assert re.match(r" +3  chan receive +\d+\.\d s .* worker +<string>:\d+ in worker$", lines[5])
    assert re.match(r"2 groups; looking took \d+ ms$", lines[-1])
    assert re.search(
        r"^ +3  the jobs +0/7  offset\.Chan +0 send, 3 receive, 0 passed; goroutines 2, 3, 4$", channels, re.M
    )
    assert [line.split()[-1] for line in filtered.splitlines()[5:-1]] == ["main"]
    assert "\x1b" not in text + channels
    assert asked.output[0] == "went on\n"
    assert asked.process.returncode == 0


def test_of_ten_thousand_goroutines():
    # Without the GIL one that has run takes 300 KB.
    count = 1_000 if FREE_THREADED else 10_000
    with Asked(LABELLED.replace("COUNT", str(count))) as process:
        status, text, _ = command("top", process.pid, "--timeout", 120)
        answer = json.loads(_outside.ask(process.pid, "live channels the jobs", PATIENCE))
    assert status == 0
    assert re.search(rf"^ +{count:,}  chan receive ", text, re.MULTILINE)
    (row,) = answer["channels"]["rows"]
    assert (row["waiters"], row["members"][:2]) == (count, [2, 3])


def test_processes_that_cannot_be_asked():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with Asked(PROGRAM + "ready()\nend()\n") as process:
        for pid, why in (
            (gone.pid, f"there is no process {gone.pid}"),
            (process.pid, f"process {process.pid} does not"),
        ):
            status, text, errors = command("top", pid)
            assert (status, text) == (1, "")
            assert errors.startswith(f"offset top: {why}")
            assert "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments", [["x"], ["1", "--interval", "0"], ["1", "--interval", "nan"], ["1", "--timeout", "x"]]
)
def test_arguments_that_are_none(arguments):
    status, _, errors = command("top", *arguments)
    assert status == 2
    assert "error: argument" in errors


def test_who_answers_something_else():
    """A process with an older version does not know the question."""
    program = """
        import os, socket
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\\0offset-{os.getpid()}")
            listener.listen()
            print("ready", flush=True)
            connection = listener.accept()[0]
            with connection:
                while connection.recv(100):
                    pass
                connection.sendall(b"this process cannot say 'live'; it knows dump\\x1b[2J\\n")
    """
    with start_script(program) as process:
        assert process.stdout.readline() == "ready\n"
        status, _, errors = command("top", process.pid)
    assert errors == f"offset top: process {process.pid}: this process cannot say 'live'; it knows dump?[2J\n"
    assert status == 1


def test_without_a_number_it_takes_the_only_one(monkeypatch):
    with Asked(PROGRAM + "go(nilchan.recv)\nready()\nend()\n") as first:
        with Asked(PROGRAM + "go(nilchan.recv)\nready()\nend()\n") as second:
            monkeypatch.setattr(top, "_ours", lambda pid: pid in (first.pid, second.pid))
            with pytest.raises(_outside.AskError, match=rf"name one:\n +{min(first.pid, second.pid)}  .*python"):
                top._the_only_one()
        monkeypatch.setattr(top, "_ours", lambda pid: pid == first.pid)
        assert top._the_only_one() == first.pid
    monkeypatch.setattr(top, "_ours", lambda pid: False)
    with pytest.raises(_outside.AskError, match="no process of yours"):
        top._the_only_one()


# ---- in a terminal ----------------------------------------------------------------------------


class Terminal(terminals.Terminal):
    """`offset top` in a terminal of 100 columns and 24 lines."""

    def __init__(self, *arguments):
        super().__init__([sys.executable, "-m", "offset", "top", *map(str, arguments)])

    def until(self, pattern):
        """Read until a screen fits `pattern`, and give its lines."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for screen in self.output.split("\x1b[H")[1:]:
                if screen.endswith("\x1b[J") and re.search(pattern, screen, re.MULTILINE):
                    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).split("\r\n")
            assert time.monotonic() < deadline, f"no screen fits {pattern!r}:\n{self.output}"
            self.read(0.2)


def test_a_terminal_is_drawn_on_and_given_back():
    with Asked(LABELLED.replace("COUNT", "300")) as process, Terminal(process.pid, "--interval", 0.05) as terminal:
        screen = terminal.until(r"^>? +300  chan receive")
        assert len(screen) == 24
        assert all(len(line) <= 100 for line in screen)
        assert "q quit" in screen[-1]
        terminal.until(r"A second +\d")
        terminal.press("\r")
        assert any(line.endswith("in worker") for line in terminal.until(r"created by <string>.* in main"))
        terminal.press("\x1b[B")
        terminal.until(r"^> +1 .* main ")
        terminal.press("c")
        terminal.until(r"^> +300  the jobs ")
        terminal.press("/no such")
        terminal.until(r"^Filter: no such_")
        terminal.press("\x7f\x7fq\r")
        terminal.until(r"0 channels and locks, with 'no suq'")
        terminal.press("\x1b")
        terminal.until(r"^> +300  the jobs ")
        terminal.press("g")
        terminal.until(r"^> +300  chan receive")
        terminal.press("q")
        status, output = terminal.end()
    assert status == 0
    assert output.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")


def test_the_end_of_the_process():
    with Asked(LABELLED.replace("COUNT", "2")) as process, Terminal(process.pid, "--interval", 0.05) as terminal:
        terminal.until("chan receive")
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(PATIENCE)
        status, output = terminal.end()
    assert status == 0
    assert output.endswith(f"\x1b[?1049lprocess {process.pid} has ended\r\n")


def test_ctrl_c():
    with Asked(LABELLED.replace("COUNT", "2")) as process, Terminal(process.pid, "--interval", 3600) as terminal:
        terminal.until("chan receive")
        # There is no session whose terminal this is: what Ctrl-C would send.
        terminal.process.send_signal(2)
        status, output = terminal.end()
    assert status == 0
    assert "Traceback" not in output


def test_a_terminal_that_cannot_be_drawn_on():
    with Asked(LABELLED.replace("COUNT", "2")) as process:
        done = subprocess.run(
            [sys.executable, "-m", "offset", "top", str(process.pid)],
            env=script_environment({"TERM": "dumb"}),
            capture_output=True,
            check=True,
            text=True,
            timeout=PATIENCE,
        )
    assert "\x1b" not in done.stdout


# ---- what is shown ----------------------------------------------------------------------------


def answer(rows, **changes):
    names = "goroutines spawned processors machines idle_machines stuck_machines runnable switches handoffs moves"
    names += " timers descriptors descriptor_waits blocking_calls blocking_threads"
    process = {"argv": ["python", "app.py"], "python": "3.13.0", "gil": False, "offset": "1", "cpu": 1.0}
    table = {"rows": rows, "count": len(rows), "goroutines": 0, "left_off": {"rows": 0, "goroutines": 0}}
    table["seconds"] = 0.002
    return {
        "time": 10.0,
        "stats": Counter(names.split()),
        "states": {},
        "process": process,
        "goroutines": table,
    } | changes


def row(**changes):
    return {
        "state": "select",
        "name": "worker",
        "count": 1,
        "shortest": 0.0,
        "longest": 0.0,
        "at": "/a/b.py:3 in worker",
        "created": "created by x",
        "stack": "  File\n    line\n",
        "members": [[7, 0.0, 1]],
    } | changes


def test_what_a_program_has_in_names_does_not_reach_the_terminal():
    odd = row(name="\x1b[2J\x07\nx", state="\r\x9b", at="a\u202e.py:1 in f", stack="  \x1b]0;title\x07\n")
    view = _view.View(1, width=200, height=30, opened=True)
    found = answer([odd], states={"\x1b[1m": 1})
    view.take(found)
    assert all(line.isprintable() for line in _view.lines(view, found))


def test_rates_are_of_the_time_between_two_answers():
    view = _view.View(1)
    first, second = answer([]), answer([], time=12.0)
    second["stats"] = second["stats"] + Counter(switches=3000, handoffs=1)
    second["process"] = second["process"] | {"cpu": 2.0}
    view.take(first)
    assert view.rates == {}
    view.take(second)
    assert (view.rates["switches"], view.rates["handoffs"], view.rates["cpu"]) == (1500, 0.5, 50)
    assert "1,500 switches, 0.5 hand-offs" in _view.lines(view, second)[2]
    # A clock that was set back.
    view.take(answer([], time=1.0))
    assert view.rates["switches"] == 1500


@pytest.mark.parametrize("height", [1, 6, 10, 40])
def test_the_one_that_is_selected_is_seen(height):
    rows = [row(name=f"worker-{index}") for index in range(30)]
    for selected in (0, 1, 15, 29, 99):
        view = _view.View(1, width=90, height=height, selected=selected, opened=True)
        view.take(answer(rows))
        lines = _view.lines(view, answer(rows))
        assert any(line.startswith(">") and f"worker-{min(selected, 29)} " in line for line in lines)
        assert len(lines) == max(height, 7)
    assert view.selected == 29


def test_what_is_left_off_is_said():
    found = answer([row()])
    found["goroutines"] |= {"count": 300, "left_off": {"rows": 299, "goroutines": 5000}}
    assert _view.lines(_view.View(1), found)[-1].startswith("300 groups, 299 of them left off (5,000 goroutines)")
