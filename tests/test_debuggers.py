"""What debuggers and profilers see of goroutines: pdb, `sys._current_frames`, faulthandler, py-spy.

Invariant: the programs are subprocesses that are told what to do by lines on their standard input.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig

import pytest
from helpers import FREE_THREADED, PATIENCE, go_parked, main_goroutine, run_script, start_script, wait_ended
from offset import makechan

# `seen` counts while a ticker goes round, for as long as the program runs.
STOPS = """
import offset

seen = 0

def ticker():
    global seen
    while True:
        offset.sleep(0.001)
        seen += 1

def inner(value):
    breakpoint()
    return value + 1

def worker(channel):
    value = channel.recv()
    print("result", inner(value), flush=True)

def main():
    channel = offset.makechan()
    {ticker}
    goroutine = offset.go(worker, channel)
    channel.send(41)
    goroutine.join()
    print("main went on", flush=True)

offset.run(main)
"""
WITH_TICKER = STOPS.format(ticker="offset.go(ticker)")


def test_breakpoint_stops_in_the_goroutine():
    commands = ["p value", "w", "up", "p channel", "down", "n", "p value * 2", "c", ""]
    status, stdout, stderr = run_script(STOPS.format(ticker="pass"), input="\n".join(commands))
    assert status == 0, stderr
    assert "(Pdb) 41\n" in stdout
    assert re.search(r"worker\(\)\n.*\n.*inner\(\)", stdout), stdout
    assert "<offset.Chan 0/0>" in stdout
    assert "(Pdb) 82\n" in stdout
    assert "result 42\n" in stdout
    assert stdout.endswith("main went on\n")


@pytest.mark.skipif(FREE_THREADED, reason="the goroutines of a machine wait for one that blocks in C")
def test_the_others_go_on_at_the_prompt():
    with start_script(WITH_TICKER) as process:
        ticks = []
        for _ in range(2):
            process.stdin.write("!print('ticks', seen)\n")
            process.stdin.flush()
            line = ""
            while not line.startswith("ticks"):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                line = line.rpartition("(Pdb) ")[2]
            ticks.append(int(line.split()[1]))
            if len(ticks) < 2:
                # As many as it takes: how fast they go is not the subject.
                process.stdin.write(
                    f"!__import__('time').sleep(0.2) or [None for _ in iter(lambda: seen > {ticks[0]}, True)]\n"
                )
        stdout, stderr = process.communicate("c\n", timeout=PATIENCE)
    assert ticks[1] > ticks[0]
    assert stdout.endswith("main went on\n"), stderr


def test_stepping_stays_in_the_goroutine():
    commands = ["n", "n", "n", "c", ""]
    status, stdout, stderr = run_script(WITH_TICKER, input="\n".join(commands))
    assert status == 0, stderr
    assert "inner()\n" in stdout
    assert "worker()" in stdout
    assert "ticker()" not in stdout


def test_quitting_the_debugger_ends_the_program():
    # From 3.14 on it asks whether to, and exits.
    status, stdout, stderr = run_script(WITH_TICKER, input="q\ny\n")
    assert "result" not in stdout
    assert status == 1
    assert ("bdb.BdbQuit" in stderr) == (sys.version_info < (3, 14))


def test_a_post_mortem_shows_the_goroutines_frames():
    program = """
    import pdb, sys, offset
    def failing(denominator):
        return 1 / denominator
    try:
        offset.run(lambda: offset.go(failing, 0).join(), on_panic="raise")
    except ZeroDivisionError as error:
        pdb.post_mortem(error.__traceback__)
    """
    status, stdout, stderr = run_script(program, input="p denominator\nq\n")
    assert status == 0, stderr
    assert "(Pdb) 0\n" in stdout


@main_goroutine
def test_current_frames_has_each_goroutine_by_its_ident():
    def worker(channel):
        mark = channel
        mark.recv()

    channel = makechan()
    goroutines = [go_parked(worker, channel) for _ in range(5)]
    frames = sys._current_frames()
    for goroutine in goroutines:
        assert frames[goroutine.ident].f_code is worker.__code__
        assert frames[goroutine.ident].f_locals["mark"] is channel
    frames = None
    for goroutine in goroutines:
        goroutine.cancel()
    wait_ended(*goroutines)


def test_faulthandler_prints_goroutines_as_threads():
    status, _, stderr = run_script(
        """
        import faulthandler, offset
        def worker(channel):
            channel.recv()
        def main():
            goroutine = offset.go(worker, offset.makechan())
            while not goroutine.wait_reason:
                offset.gosched()
            print(f"{goroutine.ident:#018x}", file=__import__("sys").stderr, flush=True)
            faulthandler.dump_traceback(all_threads=True)
        offset.run(main)
        """
    )
    assert status == 0, stderr
    ident = stderr.splitlines()[0]
    assert re.search(rf"Thread {ident}.*\n  File \"<string>\", line \d+ in worker\n", stderr), stderr


# ---- py-spy ----------------------------------------------------------------------------------

PYSPY = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")

SLEEPS = """
import sys, offset

def a_parked_worker(channel):
    channel.recv()

def main():
    goroutines = [offset.go(a_parked_worker, channel) for _ in range(5)]
    while not all(goroutine.wait_reason for goroutine in goroutines):
        offset.gosched()
    print("ready", flush=True)
    offset.syscall.blocking(sys.stdin.readline)

channel = offset.makechan()
offset.run(main)
"""


def spy(process):
    done = subprocess.run(
        [PYSPY, "dump", "--pid", str(process.pid)], check=False, capture_output=True, text=True, timeout=PATIENCE * 2
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(PYSPY is None, reason="py-spy is not installed: there is no wheel for this machine")
def test_py_spy_shows_goroutines():
    plain = "import sys; print('ready', flush=True); sys.stdin.readline()"
    with start_script(plain) as process:
        assert process.stdout.readline() == "ready\n"
        status, text, errors = spy(process)
        process.communicate("\n", timeout=PATIENCE)
    if status != 0:
        pytest.skip(f"py-spy cannot look into any program of this Python here: {errors.strip().splitlines()[-1]}")
    with start_script(SLEEPS) as process:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        status, text, errors = spy(process)
        process.communicate("\n", timeout=PATIENCE)
    assert status == 0, errors
    assert text.count("a_parked_worker (") == 5, text
    assert "main (" in text
