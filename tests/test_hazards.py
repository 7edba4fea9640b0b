"""Hazards 1 to 12: identity, stacks, the end of threads and of the interpreter, signals.

Each docstring says which rule of the runtime keeps the hazard away; without that rule the test fails (or,
for races, fails soon). See `hazards.py`.
"""

import re
import signal
import subprocess

import pytest
from hazards import GIL_ONLY, LINUX, PREAMBLE, succeed
from helpers import PATIENCE, run_script, start_script

# ---- identity --------------------------------------------------------------------------------


@GIL_ONLY
@LINUX
def test_hazard_01_a_moved_goroutine_keeps_its_thread_identity():
    """Rule: the identity of a thread, as CPython asks for it, is that of the goroutine.

    Otherwise an RLock held across a rescue cannot be released and a connection of sqlite3 is refused.
    """
    succeed(
        """
def work(moves):
    lock, connection = threading.RLock(), sqlite3.connect(":memory:")
    identity, thread = threading.get_ident(), threading.current_thread()
    with lock, contextlib.closing(connection):
        native = threading.get_native_id()
        started.send(None)
        while not stop:
            offset.gosched()
            with lock:
                assert connection.execute("select 1").fetchone() == (1,)
            assert threading.get_ident() == identity
            assert threading.current_thread() is thread
            if threading.get_native_id() != native:
                native = threading.get_native_id()
                moves.append(native)
    assert lock.acquire(blocking=False)
    lock.release()

started = makechan()

def main():
    moves = [[] for _ in range(5)]
    workers = [go(work, each) for each in moves]
    for _ in workers:
        started.recv()
    hogs = [go(hog) for _ in range(2)]
    end = time.monotonic() + 30
    while not all(moves) and time.monotonic() < end:
        offset.gosched()
    stop.append(True)
    join(*workers, *hogs)
    assert all(moves), moves
    print("fine")
run(main)
"""
    )


def test_hazard_02_two_goroutines_of_one_machine_are_two_threads():
    """Rule: the identity is the goroutine's also while nobody moves; an RLock excludes its neighbours."""
    succeed(
        """
lock, inside = threading.RLock(), makechan()

def owner():
    with lock:
        inside.send(None)
        inside.recv()

def other():
    inside.recv()
    assert lock.acquire(blocking=False) is False
    try:
        lock.release()
    except RuntimeError:
        pass
    else:
        raise AssertionError("released somebody else's lock")
    inside.send(None)

def main():
    join(go(owner), go(other))
    assert lock.acquire(blocking=False)
    print("fine")
run(main)
"""
    )


@GIL_ONLY
@LINUX
def test_hazard_02_shared_buffers_and_conditions():
    """Rule: as above; a buffered writer whose raw file parks takes the next writer for a reentrant call."""
    succeed(
        """
class Parking(io.RawIOBase):
    def __init__(self):
        self.data = b""
    def writable(self):
        return True
    def write(self, data):
        data = bytes(data)
        offset.sleep(0.001)
        self.data += data
        return len(data)

raw = Parking()
shared = io.BufferedWriter(raw, 16)
condition = threading.Condition()

def write(n):
    for _ in range(10):
        shared.write(b"%d" % n * 20)
        shared.flush()
    with condition:
        offset.gosched()
        condition.notify()

def main():
    writers = [go(write, n) for n in range(4)]
    join(*writers)
    assert sorted(raw.data) == sorted(b"0123" * 200), raw.data
    print("fine")
run(main)
"""
    )


def test_hazard_03_callbacks_attach_the_state_of_the_goroutine_that_runs():
    """Rule: PyGILState's slot of the OS thread is set at every resume (3.11), bound at every move (3.12+).

    Otherwise a callback runs in another goroutine's thread state, or deadlocks where the GIL is held.
    """
    succeed(
        """
local = threading.local()
compare_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
libraries = [ctypes.CDLL(None), ctypes.PyDLL(None)]  # Without and with the GIL held round the call.

def work(n):
    local.n = n
    seen = set()
    def compare(left, right):
        seen.add((local.n, offset.current().id))
        return left[0] - right[0]
    callback = compare_type(compare)
    connection = sqlite3.connect(":memory:")
    connection.create_function("whose", 0, lambda: local.n)
    with contextlib.closing(connection):
        for _ in range(50):
            for library in libraries:
                numbers = (ctypes.c_int * 3)(3, 1, 2)
                library.qsort(numbers, 3, 4, callback)
                assert list(numbers) == [1, 2, 3]
                offset.gosched()
            assert connection.execute("select whose()").fetchone() == (n,)
            offset.gosched()
    assert seen == {(n, offset.current().id)}, seen

def main():
    join(*[go(work, n) for n in range(6)])
    print("fine")
run(main)
"""
    )


@GIL_ONLY
@LINUX
def test_hazard_03_callbacks_after_a_move():
    """Rule: as above; the slot of the thread to which a goroutine was moved names its state.

    It stays named where it ran last when that machine goes idle, so others come and go here.
    """
    succeed(
        """
local = threading.local()
callback_type = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)

def work(n, moves):
    local.n = n
    native = threading.get_native_id()
    callback = callback_type(lambda argument: argument + local.n)
    started.send(None)
    while not stop:
        offset.gosched()
        assert callback(1) == n + 1
        if threading.get_native_id() != native:
            native = threading.get_native_id()
            moves.append(native)

def block():
    while not stop:
        time.sleep(0.015)
        offset.gosched()

started = makechan()

def main():
    moves = [[] for _ in range(5)]
    workers = [go(work, n, each) for n, each in enumerate(moves)]
    for _ in workers:
        started.recv()
    blockers = [go(block) for _ in range(2)]
    end = time.monotonic() + 30
    while not all(len(each) >= 5 for each in moves) and time.monotonic() < end:
        offset.gosched()
    stop.append(True)
    join(*workers, *blockers)
    assert all(moves), moves
    print("fine")
run(main)
"""
    )


# ---- stacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        # A build without _decimal, as some of 3.15 are, multiplies integers here.
        "import decimal; decimal.getcontext().prec = 200_000; sys.set_int_max_str_digits(0);"
        "x = decimal.Decimal(7) ** 200_000; x * x",
        "compile('[' * 190 + ']' * 190, 'x', 'eval')",
        "compile('if a: pass\\n' + 'elif a: pass\\n' * 2000, 'x', 'exec')",
        "import ast; ast.literal_eval('-' * 50_000 + '1')",
        "import marshal; marshal.loads(b'(\\x01\\x00\\x00\\x00' * 1990 + b'N')",
        "compile('a if a else ' * 3000 + 'a', 'x', 'eval')",
    ],
    ids=["decimal", "brackets", "elif", "literal_eval", "marshal", "conditional"],
)
def test_hazard_04_ordinary_calls_fit_on_the_stack(statement):
    """Rule: 1 MiB of usable C stack (2 MiB on 3.11), and CPython's own limits are set to it."""
    succeed(
        f"""
def main():
    try:
        {statement}
    except (RecursionError, MemoryError):
        pass
    print("fine")
run(main)
"""
    )


def test_hazard_04_deep_data_ends_in_an_exception():
    """Rule: CPython's own limits on nested C calls are set to the goroutine's stack, whatever they measure."""
    succeed(
        """
def main():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    try:
        repr(nested)
    except (RecursionError, MemoryError):
        print("fine")
run(main)
"""
    )


@LINUX
def test_hazard_04_a_large_frame_does_not_step_over_the_guard(extension):
    """Rule: the guard is larger than the largest frame of CPython (262 KB, in decimal).

    Otherwise such a call at the end of the stack writes into the neighbour's, and nobody notices.
    """
    ended = run_script(
        PREAMBLE
        + """
sys.path.insert(0, sys.argv[1])
import foreign_frames

def the_deep_one():
    foreign_frames.large_frame_at_the_end(offset.current().ident)

def main():
    neighbours = [go(nilchan.recv) for _ in range(20)]
    wait_parked(*neighbours)
    join(go(the_deep_one))
    print("it was not noticed")
run(main)
""",
        extension,
    )
    assert ended.stdout == "", ended.stdout
    assert re.search(r"goroutine \d+", ended.stderr), ended.stderr
    assert "the_deep_one" in ended.stderr
    assert "set_stack_size" in ended.stderr


@LINUX
def test_hazard_05_calls_at_any_small_depth_map_no_memory():
    """Rule: the first chunk of a goroutine's data stack has 64 KiB.

    With a small one each call that crosses its end maps and unmaps a chunk: a page fault a call.
    """
    succeed(
        """
import resource
def leaf(a=1, b=2, c=3, d=4, e=5, f=6, g=7, h=8):
    return a
def at_depth(n):
    if n:
        return at_depth(n - 1)
    for _ in range(200):
        leaf()
def main():
    for n in range(100):
        at_depth(n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for n in range(100):
        at_depth(n)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print("fine" if faults < 100 else faults)
run(main)
"""
    )


# ---- the end of threads and of the interpreter -----------------------------------------------


@pytest.mark.parametrize(
    "body", ["hog()", "exec('while True: os.read(read, 1), os.write(write, b\"x\")')"], ids=["hog", "io"]
)
def test_hazard_06_the_exit_of_the_interpreter_unwinds_no_rust(body):
    """Rule: a frame of C hangs a thread that is unwound while it waits for the GIL (3.11 to 3.13).

    Otherwise pthread_exit unwinds frames that must not be unwound, and the process aborts.
    """
    for _ in range(4):
        ended = run_script(
            PREAMBLE
            + f"""
import offset._exit
offset._exit.GRACE = 0.05
read, write = os.pipe()
os.write(write, b"x" * 100)
def busy():
    {body}
goroutines = [go(busy) for _ in range(3)]
time.sleep(0.03)
"""
        )
        assert ended.returncode == 0, ended


def test_hazard_07_thread_states_are_deleted_where_they_last_ran():
    """Rule: a thread state is deleted only on the machine that last ran it, or pooled.

    Otherwise PyGILState's slot of a thread dangles: callbacks deadlock or write into freed memory. Bursts
    of goroutines that move and end overflow the pools while callbacks run everywhere.
    """
    succeed(
        """
callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

def short(gate, n):
    gate.recv_ok()
    if n % 50 == 0:
        time.sleep(0.012)
    assert callback_type(lambda argument: argument + 1)(n) == n + 1

def main():
    for burst in range(4):
        gate = makechan()
        goroutines = [go(short, gate, n) for n in range(1000)]
        offset.gosched()
        gate.close()
        for n in range(20):
            assert callback_type(lambda argument: argument)(n) == n
            offset.gosched()
        join(*goroutines)
        goroutines.clear()
        gc.collect()
    threads = [threading.Thread(target=callback_type(lambda argument: argument), args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        offset.syscall.blocking(thread.join)
    print("fine")
run(main)
""",
        "-X",
        "dev",
    )


@LINUX
def test_hazard_08_the_identity_can_be_dereferenced():
    """Rule: the identity is a readable address in the goroutine's own memory; 3.14's faulthandler reads there."""
    succeed(
        """
import faulthandler
def main():
    waiters = [go(nilchan.recv) for _ in range(50)]
    wait_parked(*waiters)
    with open("/proc/self/maps") as file:
        areas = [line.split()[:2] for line in file]
    for waiter in waiters:
        [rights] = [rights for area, rights in areas
                    if int(area.partition("-")[0], 16) <= waiter.ident < int(area.partition("-")[2], 16)]
        assert rights.startswith("r"), (rights, hex(waiter.ident))
        ctypes.string_at(waiter.ident, 8)
    with open(os.devnull, "w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    print("fine")
run(main)
"""
    )


def test_hazard_09_an_asynchronous_exception_hits_whom_it_names():
    """Rule: each thread state has the identity of its goroutine, not that of the thread which made it."""
    succeed(
        """
class Asynchronous(Exception):
    pass

def throw(identity):
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    return set_exception(ctypes.c_ulong(identity), ctypes.py_object(Asynchronous))

hit = []

def victim(name, wait):
    try:
        begun.append(name)
        wait()
        for _ in range(1000):
            pass
    except Asynchronous:
        hit.append(name)

gate, begun = makechan(), []

def spin():
    while not stop:
        time.sleep(0.001)

def main():
    thread = threading.Thread(target=victim, args=("thread", spin))
    thread.start()
    goroutines = [go(victim, n, gate.recv) for n in range(5)]
    wait_parked(*goroutines)
    while "thread" not in begun:
        offset.sleep(0.001)
    frames = sys._current_frames()
    assert {each.ident for each in goroutines} | {thread.ident, threading.get_ident()} <= set(frames)
    assert len({each.ident for each in goroutines} | {thread.ident, threading.get_ident()}) == 7
    del frames
    assert throw(thread.ident) == 1
    offset.syscall.blocking(thread.join)
    assert hit == ["thread"], hit
    assert throw(goroutines[3].ident) == 1
    for _ in goroutines:
        gate.send(None)
    join(*goroutines)
    assert hit == ["thread", 3], hit
    print("fine")
run(main)
"""
    )


# ---- signals ---------------------------------------------------------------------------------


def test_hazard_10_ctrl_c_wakes_the_waiting_main_thread():
    """Rule: the main thread waits in a call that signals interrupt, and runs their handlers."""
    succeed(
        """
def main():
    far = offset.time.after(3600)  # Something is to happen: `run` does not look about for a deadlock meanwhile.
    try:
        offset.time.after_func(0.02, os.kill, os.getpid(), signal.SIGINT)
        nilchan.recv()
    except KeyboardInterrupt:
        print("fine")
run(main)
"""
    )


def test_hazard_11_a_second_ctrl_c_gets_through_a_c_call():
    """Rule: main in a C call cannot be interrupted; the second Ctrl-C dumps the stacks and exits with 130."""
    # From the print to the sleep in C, where no exception is raised.
    program = """
import functools, operator
def the_main_function():
    list(map(operator.call, (functools.partial(print, "ready"), functools.partial(time.sleep, 3600))))
run(the_main_function)
"""
    with start_script(PREAMBLE + program) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(int(PATIENCE / 0.3)):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=0.3)
            except subprocess.TimeoutExpired:
                continue
            break
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert "the_main_function" in stderr


@LINUX
def test_hazard_12_machines_block_no_signals():
    """Rule: the signal mask of a machine is that of the program; a child inherits it and must be mortal."""
    succeed(
        """
import subprocess
def mask():
    with open("/proc/thread-self/status") as file:
        return [line for line in file if line.startswith("SigBlk")]

def main():
    assert mask() == before, (mask(), before)
    assert offset.syscall.blocking(mask) == before
    program = "import sys, time; print(open('/proc/self/status').read(), flush=True); time.sleep(3600)"
    command = [sys.executable, "-I", "-S", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        lines = iter(child.stdout.readline, "")
        assert next(line for line in lines if line.startswith("SigBlk")) == before[0]
        child.terminate()
        status = child.wait()
    assert status == -signal.SIGTERM, status
    print("fine")
before = mask()
run(main)
"""
    )
