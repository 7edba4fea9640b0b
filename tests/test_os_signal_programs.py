"""`offset.os.signal` in programs of their own: what ends a process, the main thread, `run`, forks, exit, faults.

A program is signalled only after it has said that it is where the test wants it; a watchdog kills it when it hangs.
"""

import signal as python
import threading

import pytest
from helpers import FREE_THREADED, PATIENCE, run_script, start_script

# What they begin with.
PREAMBLE = """
import os, signal as python, sys, threading, time, warnings
import offset
from offset import go, makechan, nilchan, run, runtime, select
from offset.os import signal

# Whoever started the tests may ignore them, which a child inherits.
python.signal(python.SIGINT, python.default_int_handler)
python.signal(python.SIGQUIT, python.SIG_DFL)
python.signal(python.SIGHUP, python.SIG_DFL)

def kill(number):
    os.kill(os.getpid(), number)

# 3.12 and later warn of a fork beside threads.
warnings.simplefilter("ignore", DeprecationWarning)

channel = makechan(1)
"""


def output(program, *args):
    """What a program prints that ends well and has nothing to complain about."""
    status, stdout, stderr = run_script(PREAMBLE + program, *args)
    assert (status, stderr) == (0, ""), stdout + stderr
    return stdout


def signalled(program, number, times=1):
    """Send a signal after each line "ready", `times` times; give status, further output and stderr."""
    with start_script(PREAMBLE + program) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        printed = ""
        try:
            for _ in range(times):
                while (line := process.stdout.readline()) != "ready\n":
                    assert line, (printed, process.stderr.read())
                    printed += line
                process.send_signal(number)
            stdout, stderr = process.communicate()
        finally:
            watchdog.cancel()
            watchdog.join()
    return process.returncode, printed + stdout, stderr


NO_MOVES = pytest.mark.skipif(
    FREE_THREADED, reason="without the GIL a goroutine waits for those of its machine that do not park"
)

MAIN_THREADS = {
    "computes": "while not got: pass",
    "is blocked in C": "lock = threading.Lock(); lock.acquire(); closer(lock); lock.acquire()",
    "sleeps": "threading.Timer(0, closer, [None]).start()\nwhile not got: time.sleep(0.01)",
    "receives": "print(channel2.recv())",
    "waits in run": "run(channel2.recv)",
}
BESIDE_A_HOG = {"waits in run beside a hog": "run(beside_a_hog, grace=0)"}


@pytest.mark.parametrize("doing", [*MAIN_THREADS, *(pytest.param(each, marks=NO_MOVES) for each in BESIDE_A_HOG)])
def test_it_makes_no_difference_what_the_main_thread_does(doing):
    status, stdout, stderr = signalled(
        f"""
got = []
channel2 = makechan(1)

def receive():
    value = channel.recv()
    print("received", value.name, flush=True)
    # The main thread may end the program from here on.
    got.append(value)
    channel2.send(1)
    if {doing!r} in ("is blocked in C", "waits in run beside a hog"):
        os._exit(0)

def closer(lock):
    pass

def beside_a_hog():
    def hog():
        while True: pass
    go(hog)
    channel2.recv()
    nilchan.recv()

signal.notify(channel, python.SIGTERM)
go(receive)
print("ready", flush=True)
{(MAIN_THREADS | BESIDE_A_HOG)[doing]}
""",
        python.SIGTERM,
    )
    assert stdout.splitlines()[0] == "received SIGTERM", stderr
    assert (status, stderr) == (0, "")


def test_ctrl_c_is_a_value_and_then_an_interrupt_again():
    status, stdout, stderr = signalled(
        """
def main():
    signal.notify(channel, python.SIGINT)
    for _ in range(2):
        print("ready", flush=True)
        print(channel.recv().name)
    signal.stop(channel)
    try:
        print("ready", flush=True)
        nilchan.recv()
    except KeyboardInterrupt:
        print("interrupted")
    return "done"

# Somebody who may still wake a goroutine.
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(run(main))
print(python.getsignal(python.SIGINT) is python.default_int_handler)
""",
        python.SIGINT,
        times=3,
    )
    assert stdout == "SIGINT\nSIGINT\ninterrupted\ndone\nTrue\n", stderr
    assert (status, stderr) == (0, "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGQUIT"])
def test_a_signal_that_is_notified_is_none_of_run_s(number):
    status, stdout, stderr = signalled(
        f"""
number = python.{number}
before = python.getsignal(number)
signal.notify(channel, number)

def main(where):
    print("ready", flush=True)
    print(where, channel.recv().name)

def turn(where):
    print("ready", flush=True)
    print(where, channel.recv().name)

turn("before")
run(turn, "in")
turn("between")
run(turn, "in another")
turn("after")
signal.stop(channel)
print(python.getsignal(number) is before)
""",
        python.Signals[number],
        times=5,
    )
    names = [f"{where} {number}" for where in ("before", "in", "between", "in another", "after")]
    assert stdout.splitlines() == [*names, "True"], stderr
    assert (status, stderr) == (0, "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGQUIT"])
@pytest.mark.parametrize("how", ["stop(channel)", "reset()", "ignore(number); signal.reset(number)"])
def test_what_run_replaced_comes_back_though_it_was_notified_at_its_end(number, how):
    assert (
        output(
            f"""
number = python.{number}
before = python.getsignal(number)

def turn(where):
    signal.notify(channel, number)
    kill(number)
    print(where, channel.recv().name)

run(turn, "in")
turn("after")
run(turn, "in another")
signal.{how}
print(python.getsignal(number) is before)
"""
        )
        == f"in {number}\nafter {number}\nin another {number}\nTrue\n"
    )


def test_a_stop_in_a_goroutine_leaves_run_s_handler_to_the_main_thread():
    # The goroutine of a run that has ended may not set handlers; the next run's end does.
    status, stdout, stderr = signalled(
        """
def begin():
    signal.notify(channel, python.SIGINT)

run(begin)
worker = go(signal.stop, channel)
worker.join()
try:
    print("ready", flush=True)
    # In turns: CPython forgets a signal that comes right before a wait for ever.
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
run(offset.gosched)
print(python.getsignal(python.SIGINT) is python.default_int_handler)
""",
        python.SIGINT,
    )
    assert stdout == "interrupted\nTrue\n", stderr
    assert (status, stderr) == (0, "")


def test_sigquit_prints_stacks_again_after_stop():
    status, stdout, stderr = signalled(
        """
def main():
    signal.notify(channel, python.SIGQUIT)
    print("ready", flush=True)
    print(channel.recv().name, flush=True)
    signal.stop(channel)
    print("ready", flush=True)
    nilchan.recv()

threading.Thread(target=threading.Event().wait, daemon=True).start()
run(main)
""",
        python.SIGQUIT,
        times=2,
    )
    assert (status, stdout) == (2, "SIGQUIT\n")
    assert "SIGQUIT: quit" in stderr


def test_there_is_no_deadlock_while_a_signal_is_notified():
    status, stdout, stderr = signalled(
        """
def main():
    signal.notify(channel, python.SIGUSR1)
    go(nilchan.recv)
    print("ready", flush=True)
    print(channel.recv().name)
    signal.stop(channel)
    channel.recv()

try:
    run(main)
except offset.DeadlockError:
    print("deadlock")
""",
        python.SIGUSR1,
    )
    assert stdout == "SIGUSR1\ndeadlock\n", stderr
    assert status == 0


@pytest.mark.parametrize("end", ["stop(channel)", "reset()", "reset(python.SIGHUP)"])
def test_then_a_signal_ends_the_program_again(end):
    status, stdout, stderr = run_script(
        PREAMBLE
        + f"""
signal.notify(channel, python.SIGHUP)
kill(python.SIGHUP)
print(channel.recv().name)
signal.{end}
kill(python.SIGHUP)
print("still here")
"""
    )
    assert (status, stdout, stderr) == (-python.SIGHUP, "SIGHUP\n", "")


def test_what_was_ignored_at_the_start_is_ignored_again():
    # As under nohup.
    assert (
        output(
            """
if len(sys.argv) == 1:
    python.signal(python.SIGUSR1, python.SIG_IGN)
    os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], "again"])
print(signal.ignored(python.SIGUSR1))
kill(python.SIGUSR1)
signal.notify(channel, python.SIGUSR1)
print(signal.ignored(python.SIGUSR1))
kill(python.SIGUSR1)
print(channel.recv().name)
signal.stop(channel)
print(signal.ignored(python.SIGUSR1))
kill(python.SIGUSR1)
"""
        )
        == "True\nFalse\nSIGUSR1\nTrue\n"
    )


def test_programs_that_are_started_ignore_what_is_ignored_and_no_more():
    assert (
        output(
            """
import subprocess
ask = "import signal; print([signal.getsignal(n).name for n in (signal.SIGUSR1, signal.SIGUSR2)])"
signal.ignore(python.SIGUSR1)
signal.notify(channel, python.SIGUSR2)
for options in ({}, {"preexec_fn": int}, {"close_fds": False}):
    subprocess.run([sys.executable, "-c", ask], check=True, **options)
"""
        )
        == "['SIG_IGN', 'SIG_DFL']\n" * 3
    )


FORKS = {"the main thread": "child()", "a goroutine": "run(child)", "another thread": "thread(child)"}


@pytest.mark.parametrize("where", FORKS)
def test_a_child_begins_with_what_was_there_before(where):
    assert (
        output(
            f"""
def thread(function):
    it = threading.Thread(target=function)
    it.start()
    it.join()

signals = python.SIGTERM, python.SIGINT, python.SIGUSR1
handled = []
python.signal(python.SIGUSR1, lambda number, frame: handled.append(number))
signal.ignore(python.SIGUSR2)
signal.notify(channel, *signals)

def child():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(1, b"ignored %d\\n" % signal.ignored(python.SIGUSR2))
        kill(python.SIGUSR1)
        while not handled:
            pass
        os.write(1, b"handled\\n")
        own = makechan(1)
        signal.notify(own, python.SIGINT)
        kill(python.SIGINT)
        os.write(1, own.recv(timeout={PATIENCE}).name.encode() + b"\\n")
        os.write(write, b"x")
        os.close(write)
        while True:
            time.sleep(1)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    os.kill(pid, python.SIGTERM)
    status = os.waitpid(pid, 0)[1]
    os.write(1, b"ended by %d\\n" % os.WTERMSIG(status))
    kill(python.SIGINT)
    os.write(1, channel.recv(timeout={PATIENCE}).name.encode() + b"\\n")
    os.write(1, b"%d\\n" % len(channel))

{FORKS[where]}
"""
        )
        == "ignored 1\nhandled\nSIGINT\nended by 15\nSIGINT\n0\n"
    )


def test_children_are_forked_while_signals_come():
    assert (
        output(
            """
signal.notify(channel, python.SIGWINCH)
over = threading.Event()

def storm():
    while not over.is_set():
        kill(python.SIGWINCH)

def main():
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            # It works, and is told of its own signals only.
            own = makechan(1)
            signal.notify(own, python.SIGWINCH)
            go(kill, python.SIGWINCH)
            os._exit(own.recv() != python.SIGWINCH)
        assert os.waitpid(pid, 0)[1] == 0
        channel.recv()

thread = threading.Thread(target=storm)
thread.start()
try:
    run(main)
finally:
    over.set()
    thread.join()
print("done")
"""
        )
        == "done\n"
    )


def test_a_signal_sent_to_a_child_at_once_is_not_lost():
    # Whatever the child has got to, the signal ends it: it is not taken by the handler that it was forked with.
    assert (
        output(
            """
signal.notify(channel, python.SIGTERM)
for turn in range(200):
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    os.kill(pid, python.SIGTERM)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == python.SIGTERM
print(len(channel))
"""
        )
        == "0\n"
    )


EXITS = {
    "with a channel": "",
    "with a goroutine that receives": "one = go(receive_for_ever)\nwhile one.status == 'runnable':\n    time.sleep(0)",
    "in a run": "run(receive_for_ever_beside)",
    "with a thread that receives": "threading.Thread(target=receive_for_ever, daemon=True).start()",
    "by sys.exit": "sys.exit()",
}


@pytest.mark.parametrize("how", EXITS)
def test_a_program_ends_while_signals_come(how):
    # From outside, from another process: until the very end.
    status, stdout, stderr = run_script(
        PREAMBLE
        + f"""
import subprocess
signal.notify(channel, python.SIGWINCH, python.SIGCHLD)

def receive_for_ever():
    while True:
        channel.recv()

def receive_for_ever_beside():
    go(receive_for_ever)
    for _ in range(10):
        offset.gosched()

sender = '''
import os, signal, sys
try:
    while True:
        os.kill(int(sys.argv[1]), signal.SIGWINCH)
except ProcessLookupError:
    pass
'''
subprocess.Popen(
    [sys.executable, "-S", "-c", sender, str(os.getpid())], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
)
channel.recv()
{EXITS[how]}
"""
    )
    assert (status, stdout, stderr) == (0, "", "")


def test_at_exit_signals_do_again_what_they_did_before():
    status, stdout, stderr = signalled(
        """
import atexit

def last():
    print("ready", flush=True)
    time.sleep(3600)

atexit.register(last)
signal.notify(channel, python.SIGTERM)
""",
        python.SIGTERM,
    )
    assert (status, stdout, stderr) == (-python.SIGTERM, "", "")


@pytest.mark.parametrize("where", ["crash()", "run(crash)"])
def test_a_fault_still_ends_the_program(where):
    status, stdout, stderr = run_script(
        PREAMBLE
        + f"""
import ctypes, faulthandler
faulthandler.enable()
signal.notify(channel)
kill(python.SIGSEGV)
print(channel.recv().name, flush=True)

def crash():
    ctypes.string_at(0)

{where}
"""
    )
    assert (status, stdout) == (-python.SIGSEGV, "SIGSEGV\n")
    assert "Segmentation fault" in stderr
    assert "in crash" in stderr


def test_importing_it_changes_nothing():
    assert (
        output(
            """
print(threading.active_count(), len(os.listdir("/proc/self/task")))
print(signal.ignored(python.SIGINT), python.getsignal(python.SIGINT) is python.default_int_handler)
"""
        )
        == "1 1\nFalse True\n"
    )
