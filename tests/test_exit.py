"""The end of the interpreter with goroutines parked, computing and blocked: no crash, no hang.

Invariants: each program is a subprocess; each scenario is repeated, as what can go wrong (a machine that
wants the GIL of an interpreter that is going away) is a race. What has to be seen on stdout is written
with `os.write`, since the interpreter's own streams go away, too.
"""

import os
import re
import signal
import threading

import pytest
from helpers import FREE_THREADED, PATIENCE, run_script, start_script

REPETITIONS = int(os.environ.get("OFFSET_EXIT_REPETITIONS", "2"))

DEV = ("-X", "dev", "-W", "error")

PREAMBLE = """
import os, signal, sys, threading, time
import offset
from offset import go, makechan, nilchan, run, runtime, sync

# Whoever started the tests may ignore Ctrl-C, which a child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def parked(wait=nilchan.recv):
    try:
        wait()
    finally:
        say("finally")
        os.write(let_go, b"xx")

def computing():
    while True:
        pass

def yielding():
    while True:
        offset.gosched()

def blocked_in_c():
    time.sleep(3600)

held, let_go = os.pipe()

def blocked_in_c_until_then():
    os.read(held, 1)

def blocked_in_the_pool():
    offset.syscall.blocking(time.sleep, 3600)

def trading():
    ch = makechan()
    go(lambda: [ch.send(None) for _ in iter(int, 1)])
    for _ in ch:
        pass

def reading():
    read, write = os.pipe()
    os.write(write, b"x" * 1000)
    while True:
        os.read(read, 1)
        os.write(write, b"x")

def begin(*functions):
    "Start goroutines and wait until they have begun, and those that park have parked."
    goroutines = [go(function) for function in functions]
    restless = (computing, yielding, trading, reading, blocked_in_c, blocked_in_c_until_then)
    begun = lambda goroutine, function: goroutine.started if function in restless else goroutine.wait_reason
    while not all(map(begun, goroutines, functions)):
        # Without the GIL none of them may start on the caller's machine: it could not be moved away from there.
        free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
        offset.gosched() if offset.current() and not free_threaded else time.sleep(0.001)
    return goroutines
"""

# What goroutines do when the interpreter exits, and how many lines "finally" there are then.
LEFT = {
    "nothing": ("pass", 0),
    "one that has ended": ("go(int).join()", 0),
    "parked": ("begin(*[parked] * 20)", 20),
    "sleeping": ("begin(*[lambda: parked(lambda: offset.sleep(3600))] * 5)", 5),
    "in a select": ("begin(*[lambda: parked(offset.select)] * 5)", 5),
    "waiting for a lock": ("mutex = sync.Mutex(); mutex.lock(); begin(*[lambda: parked(mutex.lock)] * 5)", 5),
    "not started": ("for _ in range(20): go(parked)", None),
    "yielding": ("begin(parked, yielding, yielding)", 1),
    "trading": ("begin(parked, trading, trading)", 1),
    "computing": ("begin(parked, computing)", 1),
    "many that compute": ("begin(parked, *[computing] * 8)", None if FREE_THREADED else 1),
    "blocked in C": ("begin(parked, blocked_in_c, blocked_in_c)", None),
    "blocked in the pool": ("begin(parked, blocked_in_the_pool, blocked_in_the_pool)", 1),
    "reading and writing": ("begin(parked, reading, reading)", 1),
    "timers": ("timer = offset.time.after_func(0.001, yielding); offset.time.tick(0.001); begin(parked)", 1),
    "all of it": ("begin(parked, yielding, trading, computing, blocked_in_c, blocked_in_the_pool, reading)", None),
}
if not FREE_THREADED:
    # There the one that parks may wait for the machine of one that waits for it.
    LEFT["blocked in C until then"] = ("begin(parked, *[blocked_in_c_until_then] * 2)", 1)

# Where some never end: the grace time is over before the interpreter exits, and need not be long.
ENDLESS = ("blocked in C", "all of it")

# How a program comes to its end: the text of the program, its status, what follows on stderr.
ENDINGS = {
    "the end of the script": ("{left}", 0, ""),
    "run": ("def main():\n    {left}\nrun(main, grace=offset._exit.GRACE)", 0, ""),
    "an exception": ("{left}\nraise ValueError('the end')", 1, "ValueError: the end"),
    "sys.exit": ("{left}\nsys.exit(7)", 7, ""),
    "os._exit": ("{left}\nos._exit(8)", 8, ""),
}


# Every way to leave with every kind of goroutine would take long; the unusual ways get the kinds that differ.
SCENARIOS = [
    (ending, left)
    for ending in ENDINGS
    for left in LEFT
    if ending in ("the end of the script", "run") or left in ("parked", "trading", "computing", "all of it")
]


def graced(program, endless=False):
    """A program whose grace time at exit is short where some do not end, and else as long as it takes."""
    return PREAMBLE + f"import offset._exit\noffset._exit.GRACE = {0.2 if endless else PATIENCE}\n" + program


def finish(program, options=(), endless=False):
    """Run a program; `endless` if it leaves goroutines that do not end, which then cost no time here."""
    return run_script(graced(program, endless), interpreter_options=options)


@pytest.mark.parametrize(("ending", "left"), SCENARIOS)
def test_exit_with_goroutines_left(ending, left):
    statements, finally_lines = LEFT[left]
    program, status, message = ENDINGS[ending]
    for repetition in range(REPETITIONS):
        options = DEV if repetition % 2 else ()
        ended = finish(program.format(left=statements), options, left in ENDLESS)
        told = f"repetition {repetition} {options}: {ended}"
        assert ended.returncode == status, told
        assert message in ended.stderr, told
        assert set(ended.stdout.splitlines()) <= {"finally"}, told
        if ending == "os._exit":
            assert ended.stdout == "", told
        elif finally_lines is not None:
            assert ended.stdout.count("finally") == finally_lines, told
        for sign in ("Fatal Python error", "panicked", "fatal error", "forced unwind", "core dumped"):
            assert sign not in ended.stderr, told


# What drops the last reference to `Stubborn()`, whose finalizer never ends.
DROPS = {
    "an argument": "go(int.__add__, 1, Stubborn())",
    "a result": "go(Stubborn)",
    "a local of the thread": "go(lambda: setattr(local, 'x', Stubborn()))",
    "a context variable": "variable = contextvars.ContextVar('v'); go(lambda: variable.set(Stubborn()) and None)",
    "an exception": "go(goexit, Stubborn())",
    "an unstarted goroutine": "go(lambda: go(int, Stubborn()).cancel())",
    "a channel": "go(lambda: makechan(1).send(Stubborn()))",
    "a received value": "ch = makechan(1); ch.send(Stubborn()); go(lambda: ch.recv() and None)",
    "a case": "go(lambda: makechan(1).if_send(Stubborn()) and None)",
    "an atomic": "ref = offset.sync.atomic.Ref(Stubborn()); go(ref.store, None)",
    "a timer": "go(lambda: offset.time.after_func(3600, int, Stubborn()).stop())",
    "a blocking call": "go(offset.syscall.blocking, lambda thing: None, Stubborn())",
    "a blocking call's result": "go(offset.syscall.blocking, Stubborn)",
    "a blocking call's thread": "go(offset.syscall.blocking, lambda: setattr(local, 'x', Stubborn()))",
}


@pytest.mark.skipif(FREE_THREADED, reason="without the GIL the thread that made an object finalizes it")
@pytest.mark.parametrize("drop", DROPS)
def test_exit_while_a_finalizer_runs(drop):
    """It wants the interpreter that is going away, wherever it was called: its thread stays where it is."""
    ended = finish(
        f"""
import contextvars
began = threading.Event()
class Stubborn:
    def __del__(self):
        began.set()
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
def goexit(thing):
    raise offset.GoroutineExit(thing)
local = threading.local()
{DROPS[drop]}
assert began.wait({PATIENCE})
""",
        endless=True,
    )
    assert ended.returncode == 0, ended


def test_those_that_do_not_end_are_named():
    """The grace time is over: each is named on stderr, and the program ends all the same."""
    ended = finish(
        """
import functools, operator
inside = set()
def the_endless_loop():
    while True:
        try:
            inside.add("the loop")
            computing()
        except offset.GoroutineExit:
            pass
def the_one_in_c():
    # In C from the first step to the second, where no cancellation is raised.
    list(map(operator.call, (functools.partial(inside.add, "the call"), functools.partial(time.sleep, 3600))))
go(the_endless_loop)
go(the_one_in_c)
while len(inside) < 2:
    time.sleep(0.001)
""",
        endless=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "the_endless_loop" in ended.stderr
    assert "the_one_in_c" in ended.stderr
    assert len(re.findall(r"goroutine \d+ \[", ended.stderr)) >= 2


def test_finally_blocks_may_use_everything_at_exit():
    """They may park, start goroutines, import, call into the pool, and wait for each other."""
    ended = finish(
        """
def careful(number, mine, yours):
    try:
        nilchan.recv()
    finally:
        offset.sleep(0.001)
        mine.send(number)
        other = yours.recv()
        helped = makechan()
        go(helped.send, "helped")
        import colorsys
        say(other, helped.recv(), offset.syscall.blocking(pow, 2, 5), colorsys.__name__)
left, right = makechan(1), makechan(1)
begin(lambda: careful(1, left, right), lambda: careful(2, right, left))
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == ["1 helped 32 colorsys", "2 helped 32 colorsys"]


def test_an_exception_at_exit_is_reported():
    ended = finish(
        """
def failing():
    try:
        nilchan.recv()
    finally:
        raise ValueError("while leaving")
begin(failing, parked)
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "finally\n"), ended.stderr
    assert "ValueError: while leaving" in ended.stderr
    assert "failing" in ended.stderr


def test_functions_of_atexit_may_use_goroutines():
    """Whether registered before or after the first `go`: goroutines can be started and waited for."""
    ended = finish(
        """
import atexit
def last():
    say("last", runtime.num_goroutine())
def first():
    ch = makechan()
    go(ch.send, "a value")
    say("first", ch.recv(), run(lambda: "a run"))
atexit.register(last)
begin(parked)
atexit.register(first)
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.splitlines()) == ["finally", "first a value a run", "last 0"]
    assert ended.stdout.endswith("last 0\n")


def test_go_after_the_end_fails_cleanly():
    """When the runtime has been stopped a new goroutine is refused or never runs; nothing hangs."""
    for _ in range(REPETITIONS):
        ended = finish(
            """
import atexit
def last():
    try:
        go(say, "a late goroutine")
    except RuntimeError:
        pass
    say("last")
atexit.register(last)
go(int).join()
"""
        )
        assert ended.returncode == 0, ended
        assert "last" in ended.stdout.splitlines()
        assert "Fatal" not in ended.stderr


def test_objects_with_finalizers_at_exit():
    """Finalizers that use channels run while the interpreter clears its modules."""
    for _ in range(REPETITIONS):
        ended = finish(
            """
class Late:
    def __init__(self):
        self.ch = makechan(1)
    def __del__(self):
        try:
            self.ch.send("value")
            os.write(1, b"finalized\\n")
        except BaseException:
            os.write(1, b"refused\\n")
module_level = Late()
cycle = [Late()]
cycle.append(cycle)
def holding():
    thing = Late()
    nilchan.recv()
begin(holding, holding)
"""
        )
        assert ended.returncode == 0, ended
        assert 2 <= len(ended.stdout.splitlines()) <= 4, ended
        assert "Fatal" not in ended.stderr


def test_plain_threads_may_use_goroutines_until_they_end():
    """Python joins plain threads first; goroutines live that long."""
    ended = finish(
        """
ch = makechan()
def echo():
    for value in ch:
        ch.send(value + 1)
def thread():
    gate.wait()
    time.sleep(0.05)
    ch.send(1)
    say(ch.recv())
gate = threading.Event()
threading.Thread(target=thread).start()
begin(echo)
gate.set()
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "2\n", "")


@pytest.mark.parametrize("waits", ["nilchan.recv()", "offset.sleep(3600)", "mutex.lock()", "offset.select()"])
def test_daemon_threads_blocked_in_the_runtime(waits):
    """A daemon thread is left where it is; it does not keep the program alive."""
    for _ in range(REPETITIONS):
        ended = finish(
            f"""
mutex = sync.Mutex()
mutex.lock()
def thread():
    ready.set()
    {waits}
ready = threading.Event()
threading.Thread(target=thread, daemon=True).start()
ready.wait()
begin(parked)
"""
        )
        assert (ended.returncode, ended.stdout) == (0, "finally\n"), ended
        assert "Fatal" not in ended.stderr


def test_daemon_threads_that_trade_with_goroutines():
    for repetition in range(REPETITIONS):
        ended = finish(
            """
ch = makechan()
def send():
    while True:
        ch.send(1)
def receive():
    while True:
        ch.recv()
for _ in range(2):
    threading.Thread(target=send, daemon=True).start()
begin(receive, receive, parked)
ch.recv()
""",
            DEV if repetition % 2 else (),
        )
        assert (ended.returncode, ended.stdout) == (0, "finally\n"), ended
        assert "Fatal" not in ended.stderr


def test_sys_exit_in_a_goroutine_without_run():
    """There is no run that could raise it: the program goes on, or ends with the code, and nothing else."""
    ended = finish(
        """
goroutine = go(sys.exit, 3)
goroutine.join()
say("goes on")
"""
    )
    assert (ended.returncode, ended.stdout) in ((0, "goes on\n"), (3, "")), ended


@pytest.mark.parametrize("left", ["begin(parked)", "begin(parked, computing)", "begin(parked, trading)"])
@pytest.mark.parametrize("ending", ["the end of the script", "run"])
def test_exit_by_ctrl_c(left, ending):
    """Unwound as Python does: finally blocks, then death by SIGINT."""
    program = {
        "the end of the script": "{left}\nsay('ready')\nmakechan().recv()\n",
        "run": "def main():\n    {left}\n    say('ready')\n    offset.time.after(3600).recv()\n"
        f"run(main, grace={PATIENCE})\n",
    }[ending].format(left=left)
    with start_script(graced(program)) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate()
        finally:
            watchdog.cancel()
            watchdog.join()
    assert (process.returncode, stdout) == (-signal.SIGINT, "finally\n"), stderr
    assert "KeyboardInterrupt" in stderr


def test_ctrl_c_during_the_grace_time_ends_it():
    program = (
        PREAMBLE
        + """
import offset._exit
offset._exit.GRACE = 3600
def slow():
    try:
        nilchan.recv()
    finally:
        say("ready")
        nilchan.recv(timeout=3600)
begin(slow)
"""
    )
    with start_script(program) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate()
        finally:
            watchdog.cancel()
            watchdog.join()
    assert process.returncode in (0, 130, -signal.SIGINT), (process.returncode, stderr)


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="needs POSIX signals")
def test_sigterm_kills_as_usual():
    with start_script(PREAMBLE + "begin(parked, computing)\nsay('ready')\nmakechan().recv()\n") as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=PATIENCE) == -signal.SIGTERM


def test_the_traceback_of_the_program_comes_whole():
    """What a goroutine printed just before the end is not lost, nor cut into by the end."""
    ended = finish(
        """
def main():
    go(print, "from a goroutine").join()
    raise ValueError("the end of main")
run(main)
"""
    )
    assert (ended.returncode, ended.stdout) == (1, "from a goroutine\n")
    assert ended.stderr.rstrip().endswith("ValueError: the end of main")


@pytest.mark.parametrize("options", [("-X", "tracemalloc"), ("-X", "importtime"), ("-X", "faulthandler"), ("-B", "-s")])
def test_exit_under_options_of_the_interpreter(options):
    for _ in range(REPETITIONS):
        ended = finish(LEFT["all of it"][0] + "\n", options, endless=True)
        assert ended.returncode == 0, ended
        assert "Fatal" not in ended.stderr


def test_exit_with_the_debug_allocator():
    for _ in range(REPETITIONS):
        ended = run_script(graced(LEFT["all of it"][0], endless=True), env={"PYTHONMALLOC": "debug"})
        assert ended.returncode == 0, ended
