"""`python -m offset`: Python's own prompt, whose statements run in the main goroutine of a run that lasts.

The main thread reads, as Python's prompt does, with its editing, history and completion; it runs no goroutine, so all
of them go on while somebody types. Each statement is handed to the main goroutine, the same one for all of them:
contextvars and `threading.local` stay. Meanwhile the main thread does what it does in `run`.

Invariants:

* `_code` is what the main goroutine has to do; it alone takes that back, when it is done. While it is None the main
  thread reads, and Ctrl-C is the reader's; else it is the main goroutine's.
* What was typed may be several statements, one after the other. A Ctrl-C ends the rest of them: `_skips` is set until
  something else is typed. If it found the main goroutine outside of one, nobody has been told: then `_untold` is set,
  and the next one to be over, or to come, raises it in the main thread.
* The session ends by `exit()` or the end of the input, and by SystemExit in any goroutine, at the next statement.
  Nothing else ends it: a deadlock is raised in the statement that waits, what leaves another goroutine is reported.
"""

from __future__ import annotations

import builtins
import code
import functools
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import offset
from offset import _dump, _exit, _run, _runtime
from offset._command import _program
from offset._command import run as _script
from offset._errors import DeadlockError, GoroutineExit

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    Work = Callable[[], Any]

_OPENING = "import offset; from offset import *"

# How CPython begins to say that something belongs into a coroutine.
_COLOURED = ("'await' outside", "asynchronous", "'async for' outside", "'async with' outside")


def run() -> int:
    """Read and run statements until the end; the exit status. What comes from a pipe or a file is run as a script."""
    if sys.stdin is None or not sys.stdin.isatty():
        try:
            program = _program.load("-")
        except _program.LoadError as error:
            print(f"offset: {error}", file=sys.stderr)
            return 2
        except SyntaxError as error:
            sys.excepthook(SyntaxError, error.with_traceback(None), None)
            return 1
        sys.argv[:] = ["-"]
        return _script.execute(*program)
    sys.argv[:] = [""]
    module = _program.main_module()
    if not sys.flags.safe_path:
        sys.path[0] = ""
    exec(_OPENING, vars(module))
    session = Session(vars(module))
    before = builtins.input
    try:
        _run.start(session, session.work)
    finally:
        builtins.input = before
    return 0


class Session(_run.Run):
    """The run in progress while the prompt is there."""

    hosts = True

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__("report", _exit.GRACE)
        self.namespace = namespace
        self._code: Work | None = None
        self._result: Any = None
        self._exit: SystemExit | None = None
        self._skips = self._untold = False
        # Says to the main goroutine that there is work.
        self._wake: _runtime.Chan[None] = _runtime.Chan(1, "prompt")
        self._input: Callable[[object], str] = builtins.input

    # What goroutines call.

    def work(self) -> None:
        """Do what the prompt is given, one statement after the other: the main goroutine."""
        here = _runtime.current()
        assert here is not None
        here.name = "main"
        _program.be_main_thread()
        while not self.winding_down:
            try:
                while self._code is None:
                    self._wake.recv()
                self._do(self._code)
            except KeyboardInterrupt:
                # It came when the statement was over.
                self._skips = self._untold = True
            except GoroutineExit:
                if self.winding_down:
                    raise

    def _do(self, work: Work) -> None:
        try:
            if not self._skips:
                self._result = work()
        except SystemExit as exc:
            self._exit = exc
        except KeyboardInterrupt:
            self._skips = self._untold = True
        finally:
            self._code = None
            self.note.set()

    def input(self, prompt: object = "", /) -> str:
        """Read a line as the built-in function does, on the main thread; only the goroutine waits."""
        if _runtime.current() is None:
            return self._input(prompt)
        return _run.call_on_main(self._input, prompt)

    # What the main thread does.

    def take_input(self) -> None:
        """Have `input()` park the goroutine that calls it."""
        self._input, builtins.input = builtins.input, self.input

    def submit(self, work: Work) -> Any:
        """Have the main goroutine do something, and wait for its end."""
        self._result, self._code = None, work
        if not len(self._wake):
            self._wake.send(None)
        while self._code is not None and not self.ends:
            self._wait()
        if self._exit is not None or self.ends:
            raise self._exit or self.ends[-1]
        if self._untold:
            self._untold = False
            raise KeyboardInterrupt
        result, self._result = self._result, None
        return result

    def begin(self) -> None:
        """Something was typed: what was interrupted before is over."""
        self._skips = self._untold = False

    def shown(self, error: BaseException | None) -> None:
        """What a statement has raised was shown."""
        if isinstance(error, KeyboardInterrupt):
            self._skips = True

    def on_interrupt(self, number: int, frame: types.FrameType | None) -> None:
        """Handle SIGINT."""
        if self._code is None:
            signal.default_int_handler(number, frame)
        else:
            super().on_interrupt(number, frame)

    def _over(self) -> bool:
        return self._code is None or bool(self.ends)

    def _ends_by(self, deadlock: DeadlockError) -> bool:
        assert self.main is not None
        self.main.throw(deadlock)
        return False

    def _until_over(self, main: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert main is not None
        self._start(main, args, kwargs)
        try:
            _read(self)
        except SystemExit as exc:
            self.ends.append(exc)


def _read(session: Session) -> None:
    """Read statements, in the way of this Python's prompt."""
    base, loop = _reader(session)

    # Which class that is depends on the version.
    class Console(base):  # type: ignore[valid-type, misc]
        def push(self, *args: Any, **kwargs: Any) -> Any:
            session.begin()
            return super().push(*args, **kwargs)

        def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
            error = sys.exc_info()[1]
            super().showsyntaxerror(*args, **kwargs)
            if isinstance(error, SyntaxError) and str(error.msg).startswith(_COLOURED):
                self.write("Here aio.await_(...) waits for a coroutine; aio.iterate() and aio.enter() do the rest.\n")

        def showtraceback(self) -> None:
            error = sys.exc_info()[1]
            super().showtraceback()
            session.shown(error)

        def runcode(self, code: types.CodeType) -> Any:
            return session.submit(functools.partial(super().runcode, code))

    console = Console(session.namespace)
    _prepare(session)
    session.take_input()
    if not sys.flags.quiet:
        first = f"offset {offset.__version__} on Python {sys.version.split()[0]}: statements run in the main goroutine,"
        console.write(f"{first}\nall others go on while you type. exit() or Ctrl-D ends them.\n")
        console.write(f"{getattr(sys, 'ps1', '>>> ')}{_OPENING}\n")
    _startup(session, console)
    loop(console)


def _reader(session: Session) -> tuple[Any, Callable[[Any], None]]:
    """Give the class of the console, and what reads for it: the prompt of Python 3.13 and later, or the older one."""
    if not os.environ.get("PYTHON_BASIC_REPL") and sys.version_info >= (3, 13):
        try:
            # Python has no stubs for it.
            from _pyrepl import console, main, readline, simple_interact  # type: ignore[import-not-found]

            if main.CAN_USE_PYREPL:
                # It puts an `input` of its own into the builtins, once.
                readline._setup(session.namespace)
                return console.InteractiveColoredConsole, simple_interact.run_multiline_interactive_console
        except (ImportError, AttributeError):
            # It is nobody's interface: where it has changed there is the other one.
            pass
    return code.InteractiveConsole, lambda console: console.interact(banner="", exitmsg="")


def _prepare(session: Session) -> None:
    """Set up history and completion as Python's prompt does."""
    hook = getattr(sys, "__interactivehook__", None)
    if hook is None:
        return
    hook()
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(session.namespace).complete)


def _startup(session: Session, console: Any) -> None:
    """Run the file that PYTHONSTARTUP names."""
    path = None if sys.flags.ignore_environment else os.environ.get("PYTHONSTARTUP")
    if not path:
        return
    try:
        with open(path, "rb") as file:
            source = file.read()
        console.runcode(compile(source, path, "exec", dont_inherit=True))
    except SystemExit:
        raise
    except Exception:
        console.showtraceback()


_interpreter = code.InteractiveInterpreter.runcode
_dump.hidden.update(function.__code__ for function in (Session.work, Session._do, _interpreter))
