"""A terminal that a program draws on and gets keys from, by the sequences that all terminals know.

Invariant: whatever ends the block, the terminal is left as it was found.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
}
# A key that sends several characters, or any other.
_SEQUENCE = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_NAMES = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape"}


def usable() -> bool:
    """Tell whether the output is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


# A Ctrl-C that comes right before a wait does not end it: so none is longer, in seconds.
_GLANCE = 0.5


class Screen:
    """The terminal of this process while `screen` is entered."""

    def __init__(self, keys: bool) -> None:
        self._keys = keys
        # What was typed and not given yet.
        self._typed: list[str] = []

    def size(self) -> tuple[int, int]:
        """Give how many columns and lines there are now."""
        return shutil.get_terminal_size()

    def draw(self, lines: list[str], emphasized: int) -> None:
        """Draw over all that is there; the line of index `emphasized` in reverse."""
        width = self.size()[0]
        parts = [
            f"\x1b[7m{line:{width}}\x1b[0m" if index == emphasized else f"{line}\x1b[K"
            for index, line in enumerate(lines)
        ]
        sys.stdout.write("\x1b[H" + "\n".join(parts) + "\x1b[J")
        sys.stdout.flush()

    def key(self, seconds: float) -> str:
        """Wait up to so long for a key and give its name, a character or one of `_KEYS` and `_NAMES`; else ""."""
        if self._typed:
            return self._typed.pop(0)
        until = time.monotonic() + seconds
        watched = [sys.stdin] if self._keys else []
        while not select.select(watched, [], [], max(0.0, min(_GLANCE, until - time.monotonic())))[0]:
            if time.monotonic() >= until:
                return ""
        data = os.read(sys.stdin.fileno(), 1024)
        if not data:
            self._keys = False
            return ""
        found = _SEQUENCE.findall(data.decode(errors="replace"))
        self._typed += [_KEYS.get(text) or _NAMES.get(text, text) for text in found]
        return self._typed.pop(0)


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """Take the terminal over."""
    keys = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if keys else []
    try:
        if keys:
            tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        yield Screen(keys)
    finally:
        sys.stdout.write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        if keys:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
