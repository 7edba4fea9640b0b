"""fork, `multiprocessing` and `subprocess`: a child starts with an empty runtime, which works again.

Invariant: each program that forks is a subprocess of the test, and so are its children (one process group,
killed as a whole when something hangs). The programs print with `os.write`: a forked child shares the
buffers of its parent.
"""

import os
import sys

import pytest
from helpers import FREE_THREADED, run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

# What the programs begin with. `work` uses every part of the runtime once and gives 45.
PREAMBLE = """
import os, signal, sys, threading, time, traceback, warnings
import offset
from offset import go, run, makechan, nilchan, runtime, sync

# Whoever started the tests may ignore Ctrl-C, which a child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)
warnings.simplefilter("ignore", DeprecationWarning)  # Forking a process with threads.

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def work():
    ch, mutex, group, total = makechan(), sync.Mutex(), sync.WaitGroup(), []
    def worker(n):
        offset.sleep(0.001)
        with mutex:
            total.append(n)
        ch.send(n)
        group.done()
    for n in range(10):
        group.add(1)
        go(worker, n)
    received = sum(ch.recv() for _ in range(10))
    group.wait()
    assert sorted(total) == list(range(10))
    assert offset.syscall.blocking(pow, 2, 10) == 1024
    try:
        nilchan.recv(timeout=0.01)
    except TimeoutError:
        return received

def wait_for(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def leave(function):
    "Run the child's part and end the child without the parent's cleanup."
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        say(traceback.format_exc())
    finally:
        os._exit(status)

def crowd(count):
    "Goroutines that live through the fork, in every kind of wait."
    locked = sync.Mutex()
    locked.lock()
    waits = [nilchan.recv, lambda: offset.sleep(3600), locked.lock, lambda: offset.time.after(3600).recv()]
    goroutines = [go(waits[n % 4]) for n in range(count)]
    while not all(goroutine.wait_reason for goroutine in goroutines):
        offset.gosched() if offset.current() else time.sleep(0.001)
"""


def succeed(program, *options, expected):
    ended = run_script(PREAMBLE + program, interpreter_options=options)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, expected), ended.stdout + ended.stderr
    return ended


# ---- fork from a plain thread ----------------------------------------------------------------


def test_a_child_before_the_first_go():
    succeed(
        """
child = os.fork()
if child == 0:
    leave(lambda: say("child", run(work)))
say("status", wait_for(child))
say("parent", run(work))
""",
        expected=["child 45", "status 0", "parent 45"],
    )


@pytest.mark.parametrize("before", ["run(work)", "crowd(40)", "run(work); crowd(4)"])
@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
def test_the_child_of_a_plain_thread_starts_empty_and_works(before, options):
    succeed(
        f"""
{before}
child = os.fork()
if child == 0:
    def part():
        say("left", runtime.num_goroutine(), len(runtime.goroutines()), offset.current())
        say("child", run(work))
        say("child", run(work))
        go(say, "child without run").join()
    leave(part)
say("status", wait_for(child))
say("parent", run(work))
""",
        *options,
        expected=[
            "left 0 0 None",
            "child 45",
            "child 45",
            "child without run",
            "status 0",
            "parent 45",
        ],
    )


def test_a_child_that_ends_in_the_ordinary_way():
    """Its atexit functions run, `threading` shuts down, and the goroutines of its parent are not waited for."""
    succeed(
        """
import atexit
crowd(20)
child = os.fork()
if child == 0:
    atexit.register(say, "child atexit")
    say("child", run(work))
    sys.exit(3)
say("status", wait_for(child))
atexit.register(say, "parent atexit")
""",
        expected=["child 45", "child atexit", "status 3", "parent atexit"],
    )


def test_a_child_that_ends_with_goroutines_of_its_own():
    succeed(
        """
crowd(20)
child = os.fork()
if child == 0:
    def worker():
        try:
            nilchan.recv()
        finally:
            say("finally of the child")
    worker = go(worker)
    while not worker.wait_reason:
        time.sleep(0.001)
    sys.exit(4)
say("status", wait_for(child))
""",
        expected=["finally of the child", "status 4"],
    )


def test_handles_and_channels_of_before_in_the_child():
    """The goroutines do not exist in the child: nobody is alive, and channels hold what was buffered."""
    succeed(
        """
buffered = makechan(3)
buffered.send("kept")
unbuffered = makechan()
waiter = go(unbuffered.recv)
while not waiter.wait_reason:
    time.sleep(0.001)
reason = waiter.wait_reason
child = os.fork()
if child == 0:
    def part():
        say(buffered.recv(), len(buffered))
        go(buffered.send, "new").join()
        say(buffered.recv())
        # By name: the stack shows this very line.
        say(runtime.num_goroutine(), reason in runtime.stack(all=True))
    leave(part)
say("status", wait_for(child))
unbuffered.send("to the goroutine of the parent")
say(waiter.join())
""",
        expected=["kept 0", "new", "0 False", "status 0", "True"],
    )


def test_joining_a_goroutine_of_the_parent_in_the_child():
    """As a thread of the parent it counts as ended, whatever it did at that moment."""
    succeed(
        """
waiter, sleeper = go(nilchan.recv), go(offset.sleep, 3600)
while not (waiter.wait_reason and sleeper.wait_reason):
    time.sleep(0.001)
child = os.fork()
if child == 0:
    def part():
        for goroutine in (waiter, sleeper):
            goroutine.cancel()
            say(goroutine.status, goroutine.wait_reason, goroutine.join(), run(goroutine.join))
    leave(part)
say("status", wait_for(child))
say(waiter.status)
""",
        expected=["dead None True True"] * 2 + ["status 0", "waiting"],
    )


def test_timers_of_before_in_the_child():
    """They do not ring there, but can be stopped and set again."""
    succeed(
        """
timers = [offset.time.Timer(3600) for _ in range(4)] + [offset.time.after_func(3600, say, "rung") for _ in range(4)]
child = os.fork()
if child == 0:
    def part():
        mine = offset.time.Timer(3600)
        for timer in timers[::2]:
            timer.stop()
        for timer in timers[:4]:
            timer.reset(0.001)
        say(all(isinstance(run(timer.c.recv), float) for timer in timers[:4]))
        for timer in [mine, *timers]:
            timer.stop()
    leave(part)
say("status", wait_for(child))
say([timer.stop() for timer in timers] == [True] * 8)
""",
        expected=["True", "status 0", "True"],
    )


def test_a_signal_handler_that_forks_during_a_wait():
    """The wait goes on in the child, where signals and its timeout can end it and nobody else."""
    succeed(
        """
children = []
ready, tell = os.pipe()
def handle(number, frame):
    children.append(os.fork())
    if not children[0]:
        # A signal that comes before CPython has settled the child is forgotten.
        os.write(tell, b"x")
signal.signal(signal.SIGUSR1, handle)
ch = makechan()
def later():
    os.kill(os.getpid(), signal.SIGUSR1)
    offset.syscall.blocking(os.read, ready, 1)
    while not children:
        offset.sleep(0.001)
    os.kill(children[0], signal.SIGINT)
    say("status", offset.syscall.blocking(wait_for, children[0]))
    ch.send("received")
try:
    # With several processors the signal may come before the wait.
    go(later)
    say(ch.recv())
except KeyboardInterrupt:
    say("interrupted")
    os._exit(3)
""",
        expected=["interrupted", "status 3", "received"],
    )


def test_a_fork_while_everything_is_busy():
    """The scheduler's locks are free in the child, whatever the other threads did at that moment."""
    succeed(
        """
stop = []
def busy(ch, answers):
    while not stop:
        try:
            ch.send(1, timeout=0.0005)
        except TimeoutError:
            pass
        try:
            answers.recv(timeout=0.0005)
        except TimeoutError:
            pass
def spawning():
    while not stop:
        go(int)
        offset.gosched()
channels = [makechan() for _ in range(4)]
goroutines = [go(busy, channels[n], channels[(n + 1) % 4]) for n in range(4)] + [go(spawning)]
for attempt in range(20):
    child = os.fork()
    if child == 0:
        def part():
            assert run(work) == 45
        leave(part)
    assert wait_for(child) == 0
stop.append(True)
for goroutine in goroutines:
    goroutine.join()
say("done")
""",
        expected=["done"],
    )


def test_a_fork_while_others_try_descriptors():
    """Nobody is in the middle of an attempt: the child may use them all."""
    succeed(
        """
from offset.syscall import socket

pairs = [socket.socketpair() for _ in range(4)]
over = False

def talk(one, other):
    "Attempts that find something, and some that do not."
    one.settimeout(0.001)
    while not over:
        other.send(b"x")
        for _ in range(2):
            try:
                # A child may have been quicker.
                one.recv(1)
            except TimeoutError:
                pass

def child():
    signal.alarm(30)
    for one, other in pairs:
        other.send(b"y")
        one.settimeout(0.001)
        try:
            # The parent reads there, too.
            one.recv(1)
        except TimeoutError:
            pass

threads = [threading.Thread(target=talk, args=pair) for pair in pairs]
for thread in threads:
    thread.start()
statuses = set()
for _ in range(50):
    pid = os.fork()
    if pid == 0:
        leave(child)
    statuses.add(wait_for(pid))
over = True
for thread in threads:
    thread.join()
say(statuses)
""",
        expected=["{0}"],
    )


def test_children_of_children():
    succeed(
        """
def generation(depth):
    run(work)
    crowd(4)
    if depth == 0:
        say("youngest", run(work))
        return
    child = os.fork()
    if child == 0:
        leave(lambda: generation(depth - 1))
    assert wait_for(child) == 0
generation(4)
say("oldest", run(work))
""",
        expected=["youngest 45", "oldest 45"],
    )


# ---- fork from a goroutine -------------------------------------------------------------------


def test_the_child_of_a_goroutine_ends_with_it():
    """The goroutine is the child's only thread; when its function returns, the process ends well."""
    succeed(
        """
def main():
    crowd(8)
    child = os.fork()
    if child == 0:
        say("child", offset.current())
        return
    say("status", offset.syscall.blocking(wait_for, child))
    return "parent"
say(run(main))
""",
        expected=["child None", "status 0", "parent"],
    )


def test_the_child_of_a_goroutine_may_use_the_runtime():
    succeed(
        """
def main():
    crowd(8)
    child = os.fork()
    if child == 0:
        say("child", run(work))
        say("again", run(work))
        go(say, "without run").join()
        os._exit(7)
    say("status", offset.syscall.blocking(wait_for, child))
    say("parent", work())
run(main)
""",
        expected=["child 45", "again 45", "without run", "status 7", "parent 45"],
    )


@pytest.mark.parametrize(
    ("ending", "status"),
    [("return", 0), ("sys.exit(9)", 9), ("sys.exit('a reason')", 1), ("raise ValueError", 1), ("offset.goexit()", 0)],
)
@pytest.mark.parametrize("who", ["main", "another goroutine"])
def test_the_exit_status_of_the_child_of_a_goroutine(ending, status, who):
    ending = "raise offset.GoroutineExit" if "goexit" in ending else ending
    ended = run_script(
        PREAMBLE
        + f"""
def body():
    child = os.fork()
    if child == 0:
        {ending}
        return
    say("status", offset.syscall.blocking(wait_for, child))
def main():
    {"body()" if who == "main" else "go(body).join()"}
run(main)
say("parent")
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [f"status {status}", "parent"], ended.stderr
    if ending == "raise ValueError":
        assert "ValueError" in ended.stderr


def test_the_child_of_a_goroutine_keeps_its_frames():
    """The stack below the fork is whole: callers go on, finally blocks run, locals are there."""
    succeed(
        """
local = threading.local()
def outer():
    local.value = "local"
    try:
        return inner() + 1
    finally:
        say(os.getpid() == parent, local.value)
def inner():
    child = os.fork()
    if child:
        offset.syscall.blocking(wait_for, child)
    return 41
def main():
    value = outer()
    say(os.getpid() == parent, value)
parent = os.getpid()
run(main)
""",
        expected=["False local", "False 42", "True local", "True 42"],
    )


def test_locks_held_by_the_goroutine_that_forks():
    """An RLock knows its owner in the child, as in the child of a thread."""
    succeed(
        """
lock = threading.RLock()
def main():
    with lock:
        child = os.fork()
        if child == 0:
            with lock:
                say("entered again")
            os._exit(0)
    say("status", offset.syscall.blocking(wait_for, child))
run(main)
""",
        expected=["entered again", "status 0"],
    )


@pytest.mark.skipif(FREE_THREADED, reason="started goroutines never move on a free-threaded build")
def test_a_moved_goroutine_may_fork():
    """After a rescue the goroutine runs on another machine than the one it started on."""
    succeed(
        """
def hog(stop):
    while not stop:
        pass
def main():
    stop = []
    hogs = [go(hog, stop) for _ in range(2)]
    for _ in range(3):
        time.sleep(0.03)
        child = os.fork()
        if child == 0:
            assert run(work) == 45
            os._exit(0)
        assert offset.syscall.blocking(wait_for, child) == 0
    stop.append(True)
    for goroutine in hogs:
        goroutine.join()
    say("done")
run(main)
""",
        expected=["done"],
    )


def test_fork_exec_from_goroutines():
    succeed(
        """
def spawn(n, ch):
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", f"import sys; sys.exit({n})"])
    ch.send((n, offset.syscall.blocking(wait_for, child)))
def main():
    ch = makechan()
    for n in range(5):
        go(spawn, n, ch)
    say(sorted(ch.recv() for _ in range(5)))
run(main)
""",
        expected=["[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]"],
    )


# ---- multiprocessing -------------------------------------------------------------------------


@pytest.fixture
def program_file(tmp_path):
    """Run a program from a file, as `multiprocessing` imports the main module again."""

    def succeed_from_file(program, expected):
        path = tmp_path / "program.py"
        path.write_text(PREAMBLE + program)
        ended = run_script(path, timeout=90)
        assert (ended.returncode, ended.stdout.splitlines()) == (0, expected), ended.stdout + ended.stderr

    return succeed_from_file


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("caller", ["a goroutine", "the main thread"])
def test_processes_of_multiprocessing(program_file, method, caller):
    program_file(
        f"""
import multiprocessing

def child(queue, n):
    queue.put((n, run(work)))

def parent():
    context = multiprocessing.get_context("{method}")
    queue = context.SimpleQueue()
    processes = [context.Process(target=child, args=(queue, n)) for n in range(3)]
    for process in processes:
        process.start()
    wait = offset.syscall.blocking if offset.current() else lambda fn: fn()
    results = sorted(wait(queue.get) for _ in processes)
    for process in processes:
        wait(process.join)
    return results, [process.exitcode for process in processes]

if __name__ == "__main__":
    crowd(8)
    say({"run(parent)" if caller == "a goroutine" else "parent()"})
    say("parent", run(work))
""",
        ["([(0, 45), (1, 45), (2, 45)], [0, 0, 0])", "parent 45"],
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_multiprocessing(program_file, method):
    program_file(
        f"""
import multiprocessing

def square(n):
    return n * n + run(work) - 45

def parent():
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        return offset.syscall.blocking(pool.map, square, range(6))

if __name__ == "__main__":
    say(run(parent))
""",
        ["[0, 1, 4, 9, 16, 25]"],
    )


def test_the_process_pool_of_concurrent_futures(program_file):
    program_file(
        """
import concurrent.futures, multiprocessing

def square(n):
    return n * n + run(work) - 45

def parent():
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [pool.submit(square, n) for n in range(6)]
        results = [offset.syscall.blocking(future.result) for future in futures]
        offset.syscall.blocking(pool.shutdown)
    return results

if __name__ == "__main__":
    say(run(parent))
""",
        ["[0, 1, 4, 9, 16, 25]"],
    )


def test_the_exit_statuses_of_processes_started_in_goroutines(program_file):
    program_file(
        """
import multiprocessing

def child(how):
    if how == "return":
        return
    if how == "exit":
        sys.exit(5)
    if how == "raise":
        sys.stderr = None
        raise ValueError
    os.kill(os.getpid(), signal.SIGKILL)

def start(how, ch):
    process = multiprocessing.get_context("fork").Process(target=child, args=(how,))
    process.start()
    offset.syscall.blocking(process.join)
    ch.send((how, process.exitcode))

def parent():
    ch = makechan()
    for how in ("return", "exit", "raise", "kill"):
        go(start, how, ch)
    return sorted(ch.recv() for _ in range(4))

if __name__ == "__main__":
    say(run(parent))
""",
        ["[('exit', 5), ('kill', -9), ('raise', 1), ('return', 0)]"],
    )


# ---- subprocess ------------------------------------------------------------------------------


def test_subprocesses_started_in_goroutines():
    succeed(
        """
import subprocess
def start(n, ch):
    command = [sys.executable, "-I", "-S", "-c", f"import sys; print(input()); sys.exit({n})"]
    ended = offset.syscall.blocking(subprocess.run, command, input=f"line {n}", capture_output=True, text=True)
    ch.send((n, ended.returncode, ended.stdout.strip()))
def main():
    ch = makechan()
    for n in range(6):
        go(start, n, ch)
    for result in sorted(ch.recv() for _ in range(6)):
        say(*result)
run(main)
""",
        expected=[f"{n} {n} line {n}" for n in range(6)],
    )


def test_unpatched_subprocesses_in_goroutines():
    """Nobody tells the runtime that they block; on a free-threaded build they only wait for one another."""
    succeed(
        """
import subprocess
def start(n, ch):
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.exit({n})"]
    ch.send((n, subprocess.call(command)))
def main():
    ch = makechan(4)
    goroutines = [go(start, n, ch) for n in range(4)]
    for goroutine in goroutines:
        goroutine.join()
    say(sorted(ch.recv() for _ in range(4)))
run(main)
""",
        expected=["[(0, 0), (1, 1), (2, 2), (3, 3)]"],
    )


def test_a_function_between_fork_and_exec():
    succeed(
        """
import subprocess
def main():
    command = [sys.executable, "-I", "-S", "-c", "import os; print(os.getpgid(0) == os.getpid())"]
    say(subprocess.check_output(command, preexec_fn=lambda: os.setpgid(0, 0), text=True).strip())
run(main)
""",
        expected=["True"],
    )


def test_ctrl_c_in_a_child():
    """The handlers of a run that was in progress in the parent do not stay in the way of the child's run."""
    succeed(
        """
def main():
    child = os.fork()
    if child == 0:
        def interrupted():
            os.kill(os.getpid(), signal.SIGINT)
            nilchan.recv()
        try:
            run(interrupted)
        except KeyboardInterrupt:
            say("interrupted")
        os._exit(0)
    say("status", offset.syscall.blocking(wait_for, child))
run(main)
""",
        expected=["interrupted", "status 0"],
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_has_one_thread_until_its_first_go():
    succeed(
        """
run(work)
crowd(4)
child = os.fork()
if child == 0:
    say(len(os.listdir("/proc/self/task")))
    run(work)
    say(len(os.listdir("/proc/self/task")) > 1)
    os._exit(0)
assert wait_for(child) == 0
""",
        expected=["1", "True"],
    )
