"""The command `offset`, also `python -m offset`. Without arguments it is the prompt."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# By the name that is typed, the module in `offset._command`.
COMMANDS = ["bench", "doctor", "dump", "run", "serve", "top", "trace"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, those of the process if None; give the exit status."""
    import offset

    text = "Run programs on offset, and look into those that run. Without a command: a prompt, where goroutines go on."
    parser = argparse.ArgumentParser(prog="offset", description=text)
    parser.add_argument("--version", action="version", version=f"offset {offset.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"offset._command.{name}")
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        module.arguments(subparser)
        subparser.set_defaults(run=module.run)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        # What was meant for `python` is the likely mistake.
        known = ", ".join(COMMANDS)
        print(f"offset: there is no command {words[0]!r}, but {known}; a program: offset run SCRIPT", file=sys.stderr)
        return 2
    options = parser.parse_args(words)
    if options.command is None:
        from offset._command import _prompt

        return _prompt.run()
    try:
        status: int = options.run(options)
        if sys.stdout is not None and options.command != "run":
            # At the interpreter's end a reader who is gone would be a message and another status.
            sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has. What is left is written to nobody, and not at the end once more.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
