"""A program in a terminal of its own, for tests that type and read.

Invariant: the master's side is read only here, so what a pattern was not found in yet is kept.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from helpers import PATIENCE, script_environment

# What draws, moves the cursor, or asks the terminal for something.
SEQUENCES = re.compile(r"\x1b\[[0-9;?<>=]*[@A-Za-z]|\x1b[=>]")
# Keys send signals to those whose session the terminal belongs to.
_TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A program in a terminal of 100 columns and 24 lines. `output` is what it has written since keys were pressed."""

    def __init__(self, command, env=None):
        self.command = command
        self.environment = script_environment({"TERM": "xterm", "COLUMNS": None, "LINES": None, **(env or {})})

    def __enter__(self):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, *self.command],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=self.environment,
            start_new_session=True,
        )
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)

    def press(self, keys):
        """Type; what was written before is forgotten."""
        self.output = ""
        os.write(self.master, keys.encode())

    def plain(self):
        """The output without sequences."""
        return SEQUENCES.sub("", self.output)

    def read(self, seconds):
        """Wait so long for output, and add it."""
        if select.select([self.master], [], [], seconds)[0]:
            self.output += os.read(self.master, 65_536).decode(errors="replace")

    def until(self, pattern):
        """Read until the plain output fits `pattern`; give the match."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.plain(), re.MULTILINE)):
            assert time.monotonic() < deadline, f"nothing fits {pattern!r}:\n{self.output!r}"
            self.read(0.2)
        return found

    def end(self):
        """Wait for the end of the program; give its exit status and what it wrote last."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            self.read(0.1)
            assert time.monotonic() < deadline, self.output
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode, self.output
