"""What is said about goroutines to a person: `runtime.stack`, the dump on SIGQUIT, a stack that overflowed.

Invariant: whatever ends a process is run in a subprocess, which ends by itself or is killed.
"""

import faulthandler
import gc
import re
import signal
import sys
import textwrap
import threading
import weakref

import offset
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    go_parked,
    in_thread,
    main_goroutine,
    run_script,
    start_script,
    wait_ended,
    wait_parked,
)
from offset import go, makechan, nilchan, runtime

HEADER = r"^goroutine (\d+) \[([^]]+)\]"


def headers(text):
    """The (id, state) pairs of the stacks in `text`, in order."""
    return [(int(number), state) for number, state in re.findall(HEADER, text, re.MULTILINE)]


# ---- runtime.stack ---------------------------------------------------------------------------


def innermost():
    return runtime.stack()


def in_between():
    return innermost()


@main_goroutine
def test_stack_shows_the_calling_goroutine():
    texts = []

    def worker():
        texts.append(in_between())

    goroutine = go(worker)
    wait_ended(goroutine)
    text = texts[0]
    assert headers(text) == [(goroutine.id, "running")]
    assert "worker" in text.splitlines()[0]
    functions = re.findall(r'File ".*test_dump\.py", line \d+, in (\S+)', text)
    assert [name.rpartition(".")[2] for name in functions] == ["worker", "in_between", "innermost"]
    assert "return runtime.stack()" in text
    created_by = text.splitlines()[-1]
    assert created_by.startswith("created by ")
    assert "test_stack_shows_the_calling_goroutine" in created_by
    assert f"goroutine {offset.current().id}" in created_by


@main_goroutine
def test_stack_of_all_shows_what_each_waits_for():
    channel, mutex = makechan(), offset.sync.Mutex()
    mutex.lock()

    def a_receiver():
        channel.recv()

    def a_chooser():
        offset.select(channel.if_recv(), nilchan.if_recv())

    def a_sleeper():
        offset.sleep(3600)

    def a_locker():
        mutex.lock()

    waiters = [go_parked(function) for function in (a_receiver, a_chooser, a_sleeper, a_locker)]
    text = runtime.stack(all=True)
    found = dict(headers(text))
    # The caller comes first.
    assert headers(text)[0] == (offset.current().id, "running")
    for waiter, reason in zip(waiters, ("chan receive", "select", "sleep", "mutex"), strict=True):
        assert reason in found[waiter.id].lower()
        assert waiter.wait_reason in found[waiter.id]
        assert waiter.name.rpartition(".")[2] in text
    for source in ("channel.recv()", "nilchan.if_recv()", "offset.sleep(3600)", "mutex.lock()"):
        assert source in text
    for waiter in waiters:
        waiter.cancel()
    wait_ended(*waiters)


@main_goroutine
def test_stack_without_all_shows_nobody_else():
    waiter = go_parked(nilchan.recv)
    assert len(headers(runtime.stack())) == 1
    assert len(headers(runtime.stack(all=False))) == 1
    waiter.cancel()
    wait_ended(waiter)


@main_goroutine
def test_stack_of_all_has_those_that_have_not_begun():
    """The one that was just made has hardly begun: on a build with the GIL nobody else runs now, as a rule."""
    gate = makechan()
    goroutine = go(gate.recv)
    goroutine.name = "".join(("a", "name"))
    text = runtime.stack(all=True)
    assert goroutine.id in dict(headers(text))
    assert "aname" in text
    gate.send(None)
    wait_ended(goroutine)
    assert goroutine.id not in dict(headers(runtime.stack(all=True)))


@main_goroutine
def test_stack_of_all_shows_many():
    """More than the 100 threads to which faulthandler limits itself."""
    waiters = [go(nilchan.recv) for _ in range(300)]
    wait_parked(*waiters)
    found = dict(headers(runtime.stack(all=True)))
    assert {waiter.id for waiter in waiters} <= set(found)
    for waiter in waiters:
        waiter.cancel()
    wait_ended(*waiters)


def test_stack_outside_a_goroutine():
    """The stack of the calling thread, and those of the goroutines on demand."""
    waiter = go_parked(nilchan.recv)
    try:
        assert "test_stack_outside_a_goroutine" in runtime.stack()
        assert headers(runtime.stack()) == []
        text = runtime.stack(all=True)
        assert "test_stack_outside_a_goroutine" in text
        assert dict(headers(text))[waiter.id] == waiter.wait_reason
        assert "chan receive" in in_thread(runtime.stack, True)
    finally:
        waiter.cancel()
        wait_ended(waiter)


@main_goroutine
def test_stack_follows_generators_and_callbacks():
    def generate():
        yield nilchan.recv()

    def keyed():
        sorted([1], key=lambda _: next(generate()))

    waiter = go_parked(keyed)
    text = runtime.stack(all=True)
    part = text[text.index(f"goroutine {waiter.id} ") :].split("\n\n")[0]
    names = [name.rpartition(".")[2] for name in re.findall(r", in (\S+)", part)]
    assert names[-3:] == ["keyed", "<lambda>", "generate"]
    waiter.cancel()
    wait_ended(waiter)


@main_goroutine
def test_stacks_hold_no_frames():
    """The text is only text: what the goroutines hold dies with them."""

    class Thing:
        pass

    def holder(things):
        thing = Thing()
        things.append(weakref.ref(thing))
        nilchan.recv()

    things = []
    waiter = go_parked(holder, things)
    text = runtime.stack(all=True)
    waiter.cancel()
    wait_ended(waiter)
    assert "holder" in text
    if FREE_THREADED:
        # What another thread has held for a moment is counted by the next collection.
        gc.collect()
    assert things[0]() is None


# ---- SIGQUIT ---------------------------------------------------------------------------------

QUIT = pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="there is no SIGQUIT here")


# A plain thread, who may still wake a goroutine: what is parked for ever is no deadlock.
WITNESS = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


def quit_program(program):
    """Send SIGQUIT to a program once it has printed "ready"; give its status, stdout and stderr."""
    with start_script(WITNESS + textwrap.dedent(program)) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            process.send_signal(signal.SIGQUIT)
            stdout, stderr = process.communicate()
        finally:
            watchdog.cancel()
            watchdog.join()
    return process.returncode, stdout, stderr


@QUIT
@pytest.mark.parametrize(
    "beside",
    [
        "print('ready'); offset.nilchan.recv()",
        "offset.go(hog); print('ready'); offset.nilchan.recv()",
        "print('ready'); hog()",
        "print('ready'); time.sleep(3600)",
        "offset.go(time.sleep, 3600); print('ready'); offset.nilchan.recv()",
    ],
    ids=["parked", "beside a hog", "in a hog", "in a C call", "beside a C call"],
)
def test_sigquit_prints_all_goroutines_and_exits_with_2(beside):
    """As Go: "SIGQUIT: quit", the stack of every goroutine, status 2; nothing is unwound."""
    status, stdout, stderr = quit_program(
        f"""
        import time, offset
        def hog():
            while True:
                pass
        def a_waiting_worker():
            try:
                offset.makechan().recv()
            finally:
                print("unwound")
        def the_main_function():
            workers = [offset.go(a_waiting_worker) for _ in range(150)]
            while not all(worker.wait_reason for worker in workers):
                offset.gosched()
            {beside}
        offset.run(the_main_function)
        """
    )
    assert (status, stdout) == (2, ""), stderr
    assert stderr.startswith("SIGQUIT: quit")
    states = headers(stderr)
    assert len(states) >= 151
    assert sum(state == "chan receive" for _, state in states) >= 150
    assert stderr.count(", in a_waiting_worker") == 150
    assert ", in the_main_function" in stderr
    assert "created by " in stderr


@QUIT
def test_sigquit_without_main():
    status, _, stderr = quit_program(
        """
        import signal, time, offset
        worker = offset.go(offset.sleep, 3600)
        def witness():
            while not worker.wait_reason or signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL:
                time.sleep(0.001)
            print("ready")
        threading.Thread(target=witness).start()
        offset.run()
        """
    )
    assert status == 2
    assert [state for _, state in headers(stderr)] == ["sleep"]


@QUIT
def test_a_handler_of_the_program_stays():
    status, stdout, stderr = quit_program(
        """
        import signal, offset
        ch = offset.makechan(1)
        signal.signal(signal.SIGQUIT, lambda *args: ch.try_send("handled"))
        def main():
            print("ready")
            print(ch.recv())
        offset.run(main)
        """
    )
    assert (status, stdout, stderr) == (0, "handled\n", "")


@QUIT
def test_sigquit_is_left_alone_outside_run():
    before = signal.getsignal(signal.SIGQUIT)

    def main():
        return runtime.call_on_main(signal.getsignal, signal.SIGQUIT)

    inside = offset.run(main)
    assert signal.getsignal(signal.SIGQUIT) == before
    assert before != signal.SIG_DFL or inside != before


# ---- a stack that overflowed -----------------------------------------------------------------

# The hash of a tuple recurses in C without a check, on every version.
OVERFLOW = """
import sys, offset
def nested(depth):
    thing = ()
    for _ in range(depth):
        thing = (thing,)
    return thing
def the_deep_one(depth):
    hash(nested(depth))
    print("hashed")
"""


def test_a_stack_overflow_is_reported_by_name():
    """The guard below the stack is hit: the message names the goroutine and shows both ways out."""
    ended = run_script(
        OVERFLOW
        + """
def main():
    for _ in range(5):
        offset.go(offset.nilchan.recv)
    goroutine = offset.go(the_deep_one, 100_000)
    goroutine.name = "the overflowing one"
    print(goroutine.id)
    goroutine.join()
offset.run(main)
"""
    )
    assert ended.returncode not in (0, 1), ended.stderr
    number = ended.stdout.strip()
    assert number.isdigit(), ended.stdout
    assert re.search(rf"goroutine {number}\b", ended.stderr), ended.stderr
    assert "the overflowing one" in ended.stderr
    assert "stack" in ended.stderr
    assert "set_stack_size" in ended.stderr
    assert "call_on_main" in ended.stderr


@pytest.mark.parametrize("way", ["set_stack_size", "call_on_main"])
def test_the_ways_out_that_the_message_shows(way):
    program = {
        "set_stack_size": """
def main():
    previous = offset.runtime.set_stack_size(64 * 1024 * 1024)
    assert 256 * 1024 <= previous <= 8 * 1024 * 1024
    offset.go(the_deep_one, 100_000).join()
    assert offset.runtime.set_stack_size(previous) >= 64 * 1024 * 1024
""",
        "call_on_main": """
def main():
    offset.runtime.call_on_main(the_deep_one, 20_000)
""",
    }[way]
    ended = run_script(OVERFLOW + program + "offset.run(main)\n")
    assert (ended.returncode, ended.stdout) == (0, "hashed\n"), ended.stderr


def test_a_segmentation_fault_elsewhere_stays_one():
    """The guard's handler passes on what it does not know."""
    ended = run_script(
        """
        import ctypes, offset
        def main():
            ctypes.string_at(8)
        offset.run(main)
        """
    )
    assert ended.returncode == -signal.SIGSEGV
    assert "set_stack_size" not in ended.stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_faulthandler_goes_on_working(when):
    """Enabled before or after the runtime started; with the states of parked goroutines to print."""
    enable = "faulthandler.enable()"
    ended = run_script(
        f"""
        import ctypes, faulthandler, offset
        {enable if when == "before" else ""}
        def a_faulty_function():
            ctypes.string_at(8)
        def main():
            waiters = [offset.go(offset.nilchan.recv) for _ in range(20)]
            while not all(waiter.wait_reason for waiter in waiters):
                offset.gosched()
            {enable if when == "after" else ""}
            a_faulty_function()
        offset.run(main)
        """
    )
    assert ended.returncode == -signal.SIGSEGV, ended.stderr
    assert "Segmentation fault" in ended.stderr
    assert "a_faulty_function" in ended.stderr


def test_faulthandler_can_dump_all_threads_among_goroutines(tmp_path):
    """Each parked goroutine is a thread to faulthandler; 3.14 reads memory at its identity."""

    def main():
        waiters = [go_parked(nilchan.recv) for _ in range(20)]
        with open(tmp_path / "dump", "w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        for waiter in waiters:
            waiter.cancel()
        wait_ended(*waiters)

    offset.run(main)
    text = (tmp_path / "dump").read_text()
    assert text.count("hread 0x") >= 20, text


def test_goroutines_are_threads_to_the_interpreter():
    """`sys._current_frames` has an entry for each, by its identity."""

    def waiting_here():
        nilchan.recv()

    def main():
        waiters = [go_parked(waiting_here) for _ in range(20)]
        identities = {waiter.ident for waiter in waiters}
        frames = sys._current_frames()
        names = [frames[identity].f_code.co_name for identity in identities]
        del frames
        for waiter in waiters:
            waiter.cancel()
        wait_ended(*waiters)
        return len(identities), names, {waiter.ident for waiter in waiters}

    count, names, afterwards = offset.run(main)
    assert count == 20
    assert set(names) == {"waiting_here"}
    assert afterwards == {0}
