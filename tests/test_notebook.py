"""Goroutines in a notebook: a real kernel of Jupyter's, which runs asyncio, and cells as somebody types them."""

from __future__ import annotations

import os
import queue
import sys
import time

import pytest
from helpers import PATIENCE

pytest.importorskip("ipykernel", reason="ipykernel is not installed", exc_type=ImportError)
manager = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed", exc_type=ImportError)

pytestmark = [
    # zmq keeps threads and descriptors, jupyter_client an event loop.
    pytest.mark.leaves("threads", "descriptors"),
    pytest.mark.filterwarnings("ignore"),
]


class Notebook:
    """A kernel, and one cell after the other."""

    def __init__(self, home):
        self.home = home

    def __enter__(self):
        self.manager = manager.KernelManager()
        # Of this interpreter, whatever kernels are installed.
        self.manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        environment = {**os.environ, "HOME": str(self.home), "IPYTHONDIR": str(self.home), "JUPYTER_PLATFORM_DIRS": "1"}
        self.manager.start_kernel(env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=4 * PATIENCE)
        self.cell("from offset import *\nimport offset, asyncio")
        return self

    def __exit__(self, *error):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def send(self, text):
        """Begin a cell; give its number."""
        return self.client.execute(text)

    def messages(self, number):
        """What a cell shows, until it has ended."""
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                assert time.monotonic() < deadline, "the cell has not ended"
                continue
            if message["parent_header"].get("msg_id") != number:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return
            yield message["msg_type"], content

    def result(self, number):
        """What a cell gives: the text that it prints, then its value; or the name of its error, and its text."""
        printed, value = "", ""
        for kind, content in self.messages(number):
            if kind == "stream":
                printed += content["text"]
            elif kind == "execute_result":
                value = content["data"]["text/plain"]
            elif kind == "error":
                return content["ename"], content["evalue"]
        return printed, value

    def cell(self, text):
        """Run a cell to its end; give its result."""
        return self.result(self.send(text))


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    with Notebook(tmp_path_factory.mktemp("home")) as notebook:
        yield notebook


def test_goroutines_go_on_between_cells(notebook):
    notebook.cell("numbers = makechan()\ncounter = go(lambda: [numbers.send(n) for n in range(3)] and numbers.close())")
    assert notebook.cell("[numbers.recv(), numbers.recv()]") == ("", "[0, 1]")
    assert notebook.cell("list(numbers), counter.join()") == ("", "([2], True)")


def test_what_a_goroutine_prints_is_shown(notebook):
    assert notebook.cell("go(print, 'from a goroutine').join() and None") == ("from a goroutine\n", "")


def test_a_cell_may_be_a_program(notebook):
    text = """
def main():
    answers = makechan()
    go(answers.send, current().name)
    return answers.recv()

run(main)
"""
    assert notebook.cell(text) == ("", "'main'")


def test_cells_wait_in_asyncio_too(notebook):
    text = """
there, back = makechan(), makechan()
def add():
    for n in there:
        back.send(n + 1)

adding = go(add)
async def ask(n):
    await there.asend(n)
    return await back.arecv()

await asyncio.gather(ask(1), asyncio.sleep(0.01, "slept"))
"""
    assert notebook.cell(text) == ("", "[2, 'slept']")
    assert notebook.cell("there.close()\nawait adding\nadding.status") == ("", "'dead'")


def test_what_fails_in_a_goroutine_is_reported_and_the_kernel_goes_on(notebook):
    printed, value = notebook.cell("go(lambda: 1 / 0).join()")
    assert "Exception in goroutine" in printed
    assert "ZeroDivisionError: division by zero" in printed
    assert value == "True"


# A cell in an `await` is left out: the kernel notices an interrupt there when something else happens, whatever waits.
@pytest.mark.parametrize("waits", ["makechan().recv()", "sleep(1000)", "run(sleep, 1000)", "run(makechan().recv)"])
def test_a_cell_that_waits_can_be_interrupted(notebook, waits):
    number = notebook.send(f"print('waits', flush=True)\n{waits}")
    shown = notebook.messages(number)
    assert "stream" in (kind for kind, _ in shown)
    notebook.manager.interrupt_kernel()
    assert [content["ename"] for kind, content in shown if kind == "error"] == ["KeyboardInterrupt"]
    assert notebook.cell("1 + 1") == ("", "2")
