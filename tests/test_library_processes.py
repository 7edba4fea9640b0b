"""`subprocess` pipelines in goroutines: as it is, and the proxy.

Invariants: all children live at once; what goes in comes out; whoever is cancelled or out of time leaves no child and
no descriptor.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from helpers import PATIENCE, main_goroutine, wait_parked, wait_until
from libraries import Call, Threads, calls, cancel, few, needs_rescue, results
from offset.syscall import subprocess as proxied

AT_ONCE = 8


@pytest.fixture(params=[pytest.param(subprocess, marks=needs_rescue), proxied], ids=["as it is", "the proxy"])
def processes(request):
    """The module, in both ways."""
    return request.param


@contextlib.contextmanager
def pipeline(processes, *commands):
    """Children, each of which reads what the one before writes: the first's stdin, the last's stdout, all of them."""
    with contextlib.ExitStack() as stack:
        children = []
        for command in commands:
            source = children[-1].stdout if children else processes.PIPE
            children.append(stack.enter_context(processes.Popen(command, stdin=source, stdout=processes.PIPE)))
            if len(children) > 1:
                # Only the next one reads it.
                source.close()
        yield children[0].stdin, children[-1].stdout, children


@main_goroutine
def test_pipelines_at_once(processes):
    alive = []

    def work(number):
        with pipeline(processes, ["cat"], ["tr", "a-z", "A-Z"], ["sort"]) as (source, sink, children):
            alive.append(children)
            wait_until(lambda: len(alive) == AT_ONCE, "all have started")
            assert all(child.poll() is None for child in children)
            for line in ("pear", "apple", f"fig {number}"):
                source.write(f"{line}\n".encode())
            source.close()
            text = sink.read().decode()
        assert [child.returncode for child in children] == [0, 0, 0]
        return text

    assert results(calls(AT_ONCE, work)) == [f"APPLE\nFIG {number}\nPEAR\n" for number in range(AT_ONCE)]


@main_goroutine
def test_those_of_the_proxy_take_no_threads():
    count = 24
    threads = Threads()
    reader, writer = os.pipe()
    begun = calls(count, lambda _: proxied.run(["cat"], stdin=reader, capture_output=True).stdout)
    # Each has its child by then, which has the pipe.
    wait_parked(*[call.goroutine for call in begun], reason="IO wait")
    few(threads, count)
    os.close(reader)
    os.close(writer)
    assert results(begun) == [b""] * count


@main_goroutine
def test_much_goes_through(processes):
    data = os.urandom(1 << 20)

    def work(number):
        return processes.run(["cat"], input=data[number:], capture_output=True, check=True).stdout == data[number:]

    assert results(calls(4, work)) == [True] * 4


@main_goroutine
def test_who_is_out_of_time_has_the_child_still(processes):
    def work(_):
        with processes.Popen(["sh", "-c", "echo here; exec sleep 600"], stdout=processes.PIPE) as child:
            assert child.stdout.readline() == b"here\n"
            for _ in range(2):
                with pytest.raises(processes.TimeoutExpired):
                    child.communicate(timeout=0.02)
            assert child.poll() is None
            child.kill()
            assert child.communicate(timeout=PATIENCE) == (b"", None)
            return child.returncode

    assert results(calls(4, work)) == [-9] * 4


@main_goroutine
def test_run_ends_the_child_of_who_is_cancelled(tmp_path):
    for number in range(3):
        mark = tmp_path / f"{number}"
        # It waits for what `run` says to it once it has it, and not while it makes it.
        command = ["sh", "-c", f"read -r _; echo $$ >{mark}; exec sleep 600"]
        call = Call(proxied.run, command, input=b"go on\n", capture_output=True)
        wait_until(lambda mark=mark: mark.exists() and mark.read_text().endswith("\n"), "the child runs")
        cancel(call.parked())
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)


@main_goroutine
def test_errors_are_those_of_the_library(processes):
    with pytest.raises(processes.CalledProcessError, match="status 3"):
        processes.run(["sh", "-c", "exit 3"], check=True)
    with pytest.raises(FileNotFoundError):
        processes.run(["/no/such/program"])
