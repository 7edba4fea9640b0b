"""The command `offset`, also `python -m offset`."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# By the name that is typed, the module in `offset._command`.
COMMANDS = ["dump", "top", "trace"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, those of the process if None; give the exit status."""
    import offset

    parser = argparse.ArgumentParser(prog="offset", description="Look into programs that run on offset.")
    parser.add_argument("--version", action="version", version=f"offset {offset.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"offset._command.{name}")
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        module.arguments(subparser)
        subparser.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has.
        sys.stderr.close()
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
