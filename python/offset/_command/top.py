"""`offset top [PID]`: what the goroutines and channels of a live process do, again and again."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from typing import TYPE_CHECKING

from offset import _outside
from offset._command import _arguments, _screen, _view

if TYPE_CHECKING:
    import argparse

    from offset._command._view import Answer, View

HELP = "show what the goroutines and channels of a live process do, as it changes"

# A process is asked no more often than takes this part of its time.
_SHARE = 10
# As many rows as a page of keys moves by.
_PAGE = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    text = "the process; it must be yours, unless you are root. Without it the only one that runs on offset"
    parser.add_argument("pid", type=int, nargs="?", help=text)
    parser.add_argument(
        "--interval", type=_arguments.seconds, default=1.0, metavar="SECONDS", help="how often to look (1)"
    )
    parser.add_argument(
        "--timeout", type=_arguments.seconds, default=10.0, metavar="SECONDS", help="how long to wait (10)"
    )
    parser.add_argument("--filter", default="", metavar="WORDS", help="only what has all of these words")
    parser.add_argument("--channels", action="store_true", help="begin with the channels, not the goroutines")
    parser.add_argument("--once", action="store_true", help="print what there is now, as where there is no terminal")


def run(options: argparse.Namespace) -> int:
    """Show the process until the user has seen enough, or it ends. Once, if the output is no terminal."""
    try:
        pid = _the_only_one() if options.pid is None else options.pid
        view = _view.View(pid, "channels" if options.channels else "goroutines", options.filter)
        if options.once or not _screen.usable():
            view.width = 10_000 if not sys.stdout.isatty() else shutil.get_terminal_size().columns
            answer = _ask(view, options.timeout)
            view.take(answer)
            # The encoding of a pipe may lack what names have.
            text = "\n".join(_view.lines(view, answer)) + "\n"
            encoding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
            return 0
        return _follow(view, options.interval, options.timeout)
    except _outside.AskError as error:
        print(f"offset top: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _follow(view: View, interval: float, timeout: float) -> int:
    # The first question is asked before the screen is taken: what is wrong with it belongs where the user typed.
    answer = _ask(view, timeout)
    with _screen.screen() as screen:
        while True:
            view.take(answer)
            asked = time.monotonic()
            pause = max(interval, _SHARE * answer[view.show]["seconds"])
            again = False
            while not again and (left := asked + pause - time.monotonic()) > 0:
                view.width, view.height = screen.size()
                screen.draw(_view.lines(view, answer), 4)
                key = screen.key(left)
                if key == "q" and not view.typing:
                    return 0
                again = _press(view, key)
            try:
                answer = _ask(view, timeout)
            except _outside.AskError:
                if not _ends(view.pid):
                    raise
                break
    print(f"process {view.pid} has ended")
    return 0


def _press(view: View, key: str) -> bool:
    """Do what a key means; tell whether the process is to be asked at once."""
    if view.typing:
        if key in ("enter", "escape"):
            view.typing = False
            view.query = "" if key == "escape" else view.query
            view.selected = 0
            return True
        if key == "backspace":
            view.query = view.query[:-1]
        elif len(key) == 1 and key.isprintable():
            view.query += key
        return False
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -_PAGE, "page down": _PAGE}
    if key in steps:
        view.selected = max(0, view.selected + steps[key])
    elif key == "enter":
        view.opened = not view.opened
    elif key == "/":
        view.typing, view.query = True, ""
    elif key in ("g", "c"):
        view.show = "goroutines" if key == "g" else "channels"
        view.selected, view.opened = 0, False
        return True
    elif key == "escape" and view.query:
        view.query = ""
        return True
    return False


def _ask(view: View, timeout: float) -> Answer:
    text = _outside.ask(view.pid, f"live {view.show} {view.query}", timeout)
    try:
        answer: Answer = json.loads(text)
    except ValueError:
        raise _outside.AskError(f"process {view.pid}: {_view.plain(text.strip())}") from None
    return answer


def _ends(pid: int) -> bool:
    """Tell whether a process that does not answer any more is one that has ended, or does so in a moment."""
    for _ in range(20):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # Its parent has not asked for its status yet.
                if file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def _the_only_one() -> int:
    """Give the process of this user that listens. Raises AskError if there is none, or several, which it names."""
    found = set()
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
            for line in sockets:
                name = re.search(r" @offset-(\d+)(?:-\d+)?$", line.rstrip("\n"))
                if name and _ours(int(name[1])):
                    found.add(int(name[1]))
    except OSError:
        pass
    if not found:
        raise _outside.AskError("no process of yours that runs on offset was found; name one: offset top PID")
    if len(found) > 1:
        listed = "".join(f"\n  {pid:>8}  {_command_of(pid)}" for pid in sorted(found))
        raise _outside.AskError(f"several processes run on offset; name one:{listed}")
    return found.pop()


def _ours(pid: int) -> bool:
    try:
        return os.geteuid() in (0, os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return False


def _command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return _view.plain(file.read().replace("\0", " ").strip())[:100]
    except OSError:
        return "?"
