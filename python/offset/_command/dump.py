"""`offset dump PID`: the stacks of all goroutines of a live process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from offset import _outside
from offset._command import _arguments

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

HELP = "print the stacks of all goroutines and threads of a live process, which goes on"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pid", type=int, help="the process; it must be yours, unless you are root")
    parser.add_argument(
        "--timeout", type=_arguments.seconds, default=10.0, metavar="SECONDS", help="how long to wait (10)"
    )
    form = parser.add_mutually_exclusive_group()
    for name, text in (
        ("group", "put equal stacks together, however few there are"),
        ("full", "print each stack by itself, however many there are"),
        ("leaks", "only goroutines that wait for ever, for what nobody else can reach"),
        ("stats", "the runtime's counters, as JSON"),
    ):
        form.add_argument(f"--{name}", dest="question", action="store_const", const=name, help=text)
    parser.set_defaults(question="dump")


def run(options: Namespace) -> int:
    """Ask, and print the answer."""
    try:
        text = _outside.ask(options.pid, options.question, options.timeout)
    except _outside.AskError as error:
        print(f"offset dump: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0
