"""`offset run SCRIPT`, `-m MODULE`, `-c PROGRAM`: a program, from its first line on, as the main goroutine.

The program needs no `run(main)`; where it has one, that calls `main`. With `--patch` the proxies stand in the place of
the standard library's modules before the first line (`offset.patch.patch_all`).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from offset import _dump, _exit, _run
from offset._command import _program
from offset._errors import DeadlockError

if TYPE_CHECKING:
    import types

HELP = "run a script or a module as the main goroutine"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = (
        "offset run [--patch] SCRIPT [ARGUMENT ...]\n       offset run [--patch] -m MODULE [ARGUMENT ...]\n"
        "       offset run [--patch] -c PROGRAM [ARGUMENT ...]"
    )
    text = "first put the proxies of offset.syscall in the place of the standard library's modules"
    parser.add_argument("--patch", action="store_true", help=text)
    text = "run a module, as python -m does; what follows are its arguments"
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help=text)
    text = "run a text, as python -c does; what follows are its arguments"
    parser.add_argument("-c", dest="text", nargs=argparse.REMAINDER, metavar="PROGRAM", help=text)
    text = "a file, a directory or archive with a __main__.py, or - for standard input; what follows are its arguments"
    # All that follows the first word is the program's, options too.
    program = parser.add_argument("program", nargs=argparse.PARSER, metavar="SCRIPT", help=text)
    program.required = False
    parser.set_defaults(program=[])


def run(options: argparse.Namespace) -> int:
    """Run the program; its exit status as `python` would give it."""
    words = [*(options.module or []), *(options.text or []), *options.program]
    if not words:
        print("offset run: name a script, a module with -m, or a text with -c", file=sys.stderr)
        return 2
    if options.patch:
        from offset import patch

        patch.patch_all()
    sys.argv[:] = words
    try:
        if options.text is not None:
            sys.argv[0] = "-c"
            code, module = _program.load_text(words[0])
        else:
            code, module = _program.load(words[0]) if options.module is None else _program.load_module(words[0])
    except _program.LoadError as error:
        print(f"offset run: {error}", file=sys.stderr)
        return 2
    except SyntaxError as error:
        sys.excepthook(SyntaxError, error.with_traceback(None), None)
        return 1
    if getattr(module, "__spec__", None) is not None:
        sys.argv[0] = module.__file__ or words[0]
    return execute(code, module)


def execute(code: types.CodeType, module: types.ModuleType) -> int:
    """Run the code of a program as the main goroutine; give the exit status."""

    def main() -> None:
        _program.be_main_thread()
        exec(code, vars(module))

    main.__qualname__ = "main"
    _dump.hidden.add(main.__code__)
    program = _run.Run("raise", _exit.GRACE)
    program.hosts = True
    try:
        _run.start(program, main)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # All others have been reported by the goroutine that they left; but who reports in a way of his own wants it.
        if sys.excepthook is not sys.__excepthook__:
            raise
        if isinstance(error, DeadlockError):
            _dump.write(f"offset.DeadlockError: {error}\n")
        return 1
    return 0
