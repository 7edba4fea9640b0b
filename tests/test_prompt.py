"""`python -m offset`: the prompt, in a terminal, with the older reader and with the one of Python 3.13 and later."""

from __future__ import annotations

import os
import re
import sys
import time

import pytest
import terminals

READERS = ["basic", *(["pyrepl"] if sys.version_info >= (3, 13) else [])]


class Prompt(terminals.Terminal):
    """A prompt that has said `>>> `."""

    def __init__(self, reader, tmp_path, **env):
        changes = {"PYTHON_BASIC_REPL": "1" if reader == "basic" else None, "PYTHONSTARTUP": None}
        # Histories are kept there.
        changes |= {"HOME": str(tmp_path), "PYTHON_HISTORY": str(tmp_path / "history")}
        super().__init__([sys.executable, "-m", "offset"], {**changes, **env})

    def __enter__(self):
        super().__enter__()
        try:
            # The first one is what was executed already.
            self.until(r">>> import offset; from offset import \*\s+>>> $")
        except BaseException:
            self.__exit__()
            raise
        return self

    def interrupt_reading(self):
        """Press Ctrl-C until it is noticed: Python's readers overlook one between the prompt and their wait."""
        self.press("\x03")
        deadline = time.monotonic() + 2 * terminals.PATIENCE
        while not re.search(r"(?s)KeyboardInterrupt\r\n.*>>> $", self.plain()):
            assert time.monotonic() < deadline, repr(self.output)
            before = len(self.output)
            self.read(1)
            if len(self.output) == before:
                os.write(self.master, b"\x03")

    def type(self, line, answer=""):
        """Type a line; wait until `answer` has come, by itself on lines, and then the prompt."""
        self.press(line + "\n")
        return self.until(rf"(?s)[\r\n]{answer}.*>>> $")


@pytest.fixture(params=READERS, scope="module")
def reader(request):
    return request.param


@pytest.fixture(scope="module")
def prompt(reader, tmp_path_factory):
    """One for all tests that leave it at `>>> `, as they found it."""
    with Prompt(reader, tmp_path_factory.mktemp("home")) as prompt:
        yield prompt


@pytest.fixture
def own(reader, tmp_path):
    """One for a test that ends it."""
    with Prompt(reader, tmp_path) as prompt:
        yield prompt


def test_statements_run_in_one_goroutine_and_others_go_on_while_nothing_is_typed(prompt):
    prompt.type("current().name", "'main'")
    prompt.type("import contextvars; var = contextvars.ContextVar('v'); token = var.set(5)")
    prompt.type("var.get(), current().id", r"\(5, 1\)")
    prompt.type("ticks = makechan(3)")
    prompt.press("go(lambda: [print(f'tick {n}', flush=True) or sleep(0.01) for n in range(3)]) and None\n")
    # No key is pressed meanwhile.
    prompt.until(r"(?s)tick 0.*tick 1.*tick 2")


def test_channels_meet_at_the_prompt(prompt):
    prompt.type("ch = makechan(); one = go(ch.send, 'value')")
    prompt.type("ch.recv()", "'value'")
    prompt.type("one.join(), _", r"\(True, 'value'\)")


def test_several_lines(prompt):
    prompt.press("def double(n):\n")
    prompt.until(r"\.\.\. +$")
    prompt.press("    return 2 * n\n" if sys.version_info < (3, 13) or prompt_is_basic(prompt) else "return 2 * n\n")
    prompt.until(r"\.\.\. +$")
    prompt.press("\n")
    prompt.until(r">>> $")
    prompt.type("double(21)", "42")


def prompt_is_basic(prompt):
    return prompt.environment.get("PYTHON_BASIC_REPL") == "1"


def test_ctrl_c_ends_a_statement_or_a_line_and_not_the_session(prompt):
    prompt.press("print('now', flush=True); sleep(1000)\n")
    prompt.until(r"now\r\n")
    prompt.press("\x03")
    prompt.until(r"(?s)KeyboardInterrupt\r\n.*>>> $")
    prompt.press("half of a line")
    prompt.until("line")
    prompt.interrupt_reading()
    prompt.type("1 + 1", "2")


def test_ctrl_c_between_two_statements_of_a_line_ends_the_line(prompt):
    """It comes as the first one ends, or the second one begins: either may be the last that was seen of it."""
    for _ in range(30):
        prompt.press("print('now', flush=True); sleep(1000)\n")
        prompt.until(r"now\r\n")
        prompt.press("\x03")
        prompt.until(r"(?s)KeyboardInterrupt\r\n.*>>> $")


def test_a_deadlock_is_raised_in_the_statement_that_waits(prompt):
    prompt.type("makechan(label='never').recv()", r".*DeadlockError: all goroutines are asleep - deadlock!")
    assert "goroutine 1 [chan receive] main:" in prompt.plain()
    assert "_prompt.py" not in prompt.plain()
    prompt.type("2 + 2", "4")


def test_what_fails_elsewhere_is_reported(prompt):
    prompt.press("go(lambda: 1 / 0) and None\n")
    prompt.until(r"(?s)Exception in goroutine \d+.*ZeroDivisionError: division by zero")
    prompt.type("3 + 3", "6")


def test_input_parks(prompt):
    prompt.type("ch = makechan(1)")
    prompt.press("answer = input('your name? ')\n")
    prompt.until(r"your name\? $")
    prompt.type("ann")
    prompt.type("answer", "'ann'")
    prompt.press("input('again? ')\n")
    prompt.until(r"again\? $")
    prompt.interrupt_reading()


def test_a_program_with_run_can_be_pasted(prompt):
    prompt.type("left = go(sleep, 1000)")
    prompt.type("run(lambda: go(sleep, 1000) and 'result')", "'result'")
    prompt.type("[one.name for one in offset.runtime.goroutines()]", r"\['main', 'sleep'\]")
    prompt.type("left.cancel(), left.join()", r"\(None, True\)")


def test_names_are_completed(prompt):
    # What stands before the digit is all that the completion has written: some versions begin the arguments.
    prompt.press("makech\t3")
    begun = prompt.until(r"makechan(\(?)3")[1]
    prompt.type(").cap" if begun else "\x7f(3).cap", "3")


def test_await_is_answered_with_what_does_it_here(own):
    own.type("import asyncio")
    own.type("await asyncio.sleep(0)", r".*SyntaxError: 'await' outside function.*aio\.await_\(\.\.\.\) waits")
    own.type("offset.aio.await_(asyncio.sleep(0, 'done'))", "'done'")


@pytest.mark.parametrize(("end", "status"), [("exit(3)\n", 3), ("\x04", 0), ("import sys; sys.exit(4)\n", 4)])
def test_the_end_ends_all_goroutines(own, end, status):
    own.type("left = go(lambda: [print('began', flush=True), sleep(1000)]); left.join(timeout=0.01)", ".*False")
    own.press(end)
    found, output = own.end()
    assert found == status
    assert "Traceback" not in output


def test_the_startup_file_is_run(reader, tmp_path):
    startup = tmp_path / "startup.py"
    startup.write_text("from_startup = 'here'\n", encoding="utf-8")
    with Prompt(reader, tmp_path, PYTHONSTARTUP=str(startup)) as prompt:
        prompt.type("from_startup", "'here'")
