"""Hazards 13 to 24, and 28: machines, frames of C, the collector, dumps, tracing, thread-local frames.

Each docstring says which rule of the runtime keeps the hazard away; without that rule the test fails (or,
for races, fails soon). See `hazards.py`.
"""

import pytest
from hazards import GIL_ONLY, LINUX, PREAMBLE, succeed
from helpers import FREE_THREADED, run_script

# ---- machines --------------------------------------------------------------------------------

# Counts the OS threads of the process while `busy` goroutines or threads run.
WATCHED = """
def watch(over):
    most = 0
    while not over():
        offset.gosched()
        most = max(most, len(os.listdir("/proc/self/task")))
    return most
"""


@GIL_ONLY
@LINUX
def test_hazard_13_machines_that_compute_are_capped():
    """Rule: few machines compute at once; without a cap a hundred hogs make 33 to 101 of them."""
    succeed(
        WATCHED
        + """
def short_hog():
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass

def main():
    goroutines = [go(short_hog) for _ in range(100)]
    most = watch(lambda: all(goroutine.status == "dead" for goroutine in goroutines))
    # One that the system lets wait seems to be blocked, and does not count: a busy host makes some more (18 were seen).
    print("fine" if most <= 28 else most)
run(main)
"""
    )


@GIL_ONLY
@LINUX
def test_hazard_14_waiting_for_the_gil_makes_no_machines():
    """Rule: a goroutine that waits to attach makes progress; plain threads that compute cause no rescue storm."""
    succeed(
        WATCHED
        + """
def main():
    threads = [threading.Thread(target=hog) for _ in range(3)]
    for thread in threads:
        thread.start()
    before = len(os.listdir("/proc/self/task"))
    count = sync.atomic.Int()
    def yielding():
        for _ in range(100):
            offset.gosched()
            count.add(1)
    goroutines = [go(yielding) for _ in range(20)]
    most = watch(lambda: count.load() == 2000)
    stop.append(True)
    join(*goroutines)
    print("fine" if most <= before + 8 else (before, most))
run(main)
"""
    )


# ---- frames of C -----------------------------------------------------------------------------

# Goroutines that wait in calls of the extension, beside hogs that make the runtime move whom it may move; one
# without frames of C shows that it does. Arguments: the directory of the extension, and whether anybody moves.
UNMOVED = """
sys.path.insert(0, sys.argv[1])
import foreign_frames, functools, itertools

moved = []

def movable():
    native = threading.get_native_id()
    while not stop:
        offset.gosched()
        if threading.get_native_id() != native:
            moved.append(True)

def loop():
    while not stop:
        offset.gosched()

def in_foreign_frames(function, answer):
    begun.send(None)
    answer.send(foreign_frames.call(function))

begun, gate = makechan(), makechan()

def main():
    answer = makechan(10)
    functions = FUNCTIONS
    goroutines = [go(in_foreign_frames, function, answer) for function in functions]
    for _ in goroutines:
        begun.recv()
    free = go(movable)
    # Without the GIL main would wait for the one that starts on its own machine.
    hogs = [go(hog) for _ in range(2 if sys.argv[2] == "moves" else 0)]
    end = time.monotonic() + (30 if sys.argv[2] == "moves" else 0.3)
    while not moved and time.monotonic() < end:
        offset.gosched()
    # What they wait for comes while everybody is being moved about.
    gate.close()
    for _ in range(20):
        offset.gosched()
    stop.append(True)
    join(*goroutines, *hogs, free)
    for _ in goroutines:
        before, after, same_memory = answer.recv()
        assert (before, same_memory) == (after, True)
    print("fine", bool(moved))
run(main)
"""


def assert_unmoved(extension, functions):
    moves = "stays" if FREE_THREADED else "moves"
    program = UNMOVED.replace("FUNCTIONS", functions)
    succeed(program, args=(extension, moves), expected=f"fine {not FREE_THREADED}\n")


@LINUX
def test_hazard_15_a_call_without_a_second_frame_of_python_counts(extension):
    """Rule: whether a goroutine may move is read from its C stack, not from its frames of Python.

    Those show nothing when an extension calls a method of a channel directly.
    """
    assert_unmoved(
        extension,
        """[
        functools.partial(gate.recv_ok),
        gate.recv_ok,
        lambda: foreign_frames.call(gate.recv_ok),
        functools.partial(list, itertools.starmap(gate.recv_ok, [(), ()])),
    ]""",
    )


@GIL_ONLY
@LINUX
@pytest.mark.parametrize(
    "inside",
    [
        "next(generator())",
        "Thing().attribute",
        "cached()",
        "Thing().missing",
        "sorted([1], key=lambda _: park())",
        "Thing(True)",
        "Thing().__enter__()",
        "list(map(lambda _: park(), [1]))",
        "max([1], key=lambda _: park())",
        "park(*(), **{})",
    ],
)
def test_hazard_16_harmless_frames_of_c_may_move(inside):
    """Rule: frames of CPython itself do not keep a goroutine on its machine.

    Otherwise a plain lock held in such a place and wanted by a neighbour is never released.
    """
    succeed(
        f"""
import functools
lock = threading.Lock()

def park():
    with lock:
        inside.send(None)
        for _ in range(20):
            offset.sleep(0.002)

def generator():
    yield park()

@functools.lru_cache
def cached():
    return park()

class Thing:
    def __init__(self, parks=False):
        if parks:
            park()
    def __getattr__(self, name):
        return park()
    def __enter__(self):
        return park()
    @property
    def attribute(self):
        return park()

inside = makechan()

def holder():
    {inside}

def wanting():
    with lock:
        pass

def main():
    goroutine = go(holder)
    inside.recv()
    join(go(wanting), go(wanting), goroutine)
    print("fine")
run(main)
"""
    )


@GIL_ONLY
@LINUX
def test_hazard_16_what_calls_left_behind_keeps_nobody_from_moving(extension):
    """Rule: where the scan finds foreign code the frames are looked at; a word of a call that is over does not count.

    Stacks are used again, and frames leave out much of what they cover, so words that calls of another goroutine
    left behind show through. A goroutine that is kept on its machine for one, with a plain lock that the next
    goroutine there waits for, stays for ever.
    """
    succeed(
        """
import logging
sys.path.insert(0, sys.argv[1])
import foreign_frames

class Parking(io.RawIOBase):
    def __init__(self):
        self.data = b""
    def writable(self):
        return True
    def write(self, data):
        offset.gosched()
        self.data += bytes(data)
        offset.gosched()
        return len(data)

def leave_words(depth):
    connection = sqlite3.connect(":memory:")
    with contextlib.closing(connection):
        connection.create_function("twice", 1, lambda value: 2 * value)
        assert connection.execute("select twice(?)", (depth,)).fetchone() == (2 * depth,)
    if depth:
        foreign_frames.call(lambda: sorted([depth], key=lambda _: leave_words(depth - 1)))

def talk(logger):
    for count in range(5):
        logger.info("message %d", count)

def main():
    for _ in range(20):
        join(*[go(leave_words, 10) for _ in range(12)])
        raw = Parking()
        logger = logging.Logger("goroutines", logging.INFO)
        logger.addHandler(logging.StreamHandler(io.TextIOWrapper(raw, write_through=True)))
        join(*[go(talk, logger) for _ in range(6)])
        assert raw.data.count(b"\\n") == 30, raw.data
    print("fine")
run(main)
""",
        args=(extension,),
    )


@LINUX
def test_hazard_17_without_the_gil_started_goroutines_stay():
    """Rule: on a free-threaded build a started goroutine never moves; those that have not started go on.

    Its objects live in memory of the thread that allocated them. With the GIL the others go on wholly.
    """
    succeed(
        """
free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()

def restless():
    native = threading.get_native_id()
    while not stop:
        offset.sleep(0.001)
        if free_threaded:
            assert threading.get_native_id() == native

def main():
    goroutines = [go(restless) for _ in range(8)]
    blocked = [go(time.sleep, 0.3) for _ in range(4)]
    ch = makechan(20)
    fresh = [go(ch.send, n) for n in range(20)]
    join(*fresh, *blocked)
    stop.append(True)
    join(*goroutines)
    assert sorted(ch.recv() for _ in range(20)) == list(range(20))
    print("fine")
run(main)
"""
    )


def test_hazard_18_thread_states_are_born_where_they_run():
    """Rule: on a free-threaded build a thread state is made on the machine that will run it.

    Its memory is bound to the OS thread that makes it; here those that call `go` are gone before the
    goroutine begins, and what it allocates is freed elsewhere.
    """
    succeed(
        """
def allocate(ch):
    ch.send([[bytearray(100) for _ in range(100)] for _ in range(10)])

def spawn(ch):
    for _ in range(10):
        go(allocate, ch)

def main():
    for _ in range(5):
        ch = makechan(5)
        threads = [threading.Thread(target=spawn, args=(ch,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            offset.syscall.blocking(thread.join)
        for _ in range(40):
            values = ch.recv()
            assert sum(len(part) for part in values) == 1000
        del values
        gc.collect()
    print("fine")
run(main)
""",
        env={"PYTHONMALLOC": "debug"},
    )


def test_hazard_18_what_other_threads_drop_comes_back_to_where_it_was_born():
    """Rule: as above; a thread state of another OS thread never hears of its own objects that others let go of."""
    succeed(
        """
freed = []

class Thing:
    def __del__(self):
        freed.append(True)

def give(box):
    box.append(Thing())
    thread = threading.Thread(target=box.clear)
    thread.start()
    offset.syscall.blocking(thread.join)
    end = time.monotonic() + 20
    while not freed and time.monotonic() < end:
        offset.gosched()

def main():
    gc.disable()
    for _ in range(10):
        join(go(give, []))
        assert freed == [True], freed
        freed.clear()
    print("fine")
run(main)
"""
    )


@LINUX
def test_hazard_19_memory_of_a_goroutine():
    """Rule: stacks and thread states are pooled a machine; a parked goroutine costs a page where there is a GIL.

    On a free-threaded build it costs more, which the documentation says; it must not grow without end.
    """
    succeed(
        f"""
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def park(gate):
    gate.recv_ok()

def work(ch):
    ch.send(len({{n: [n] * 10 for n in range(1000)}}))

def crowd(count):
    gate = makechan()
    before = resident()
    goroutines = [go(park, gate) for _ in range(count)]
    wait_parked(*goroutines)
    each = (resident() - before) / count
    gate.close()
    join(*goroutines)
    return each

def main():
    crowd(100)
    each = crowd(10_000 if not {FREE_THREADED} else 1_000)
    assert each < (8_000 if not {FREE_THREADED} else 100_000), each
    after = []
    for _ in range(8):
        ch = makechan(500)
        join(*[go(work, ch) for _ in range(500)])
        after.append(resident())
    assert after[-1] - after[2] < 8_000_000, after
    print("fine")
run(main)
"""
    )


# ---- the collector, dumps and tracing --------------------------------------------------------


def test_hazard_20_a_finalizer_that_parks_delays_the_collector_and_no_more():
    """Rule: a collection that parks stops other collections, but no goroutine, and it goes on afterwards."""
    succeed(
        """
finalized = []
gate = makechan()

class Cyclic:
    def __init__(self, parks):
        self.me, self.parks = self, parks
    def __del__(self):
        if self.parks:
            gate.recv()
        finalized.append(self.parks)

def main():
    gc.collect()
    gc.disable()
    Cyclic(True)
    collecting = go(gc.collect)
    wait_parked(collecting)
    Cyclic(False)
    # It finds a collection in progress, and must return all the same.
    join(go(gc.collect))
    assert finalized == [], finalized
    ch = makechan()
    go(ch.send, "others go on")
    assert ch.recv() == "others go on"
    gate.send(None)
    join(collecting)
    gc.collect()
    assert sorted(finalized) == [False, True], finalized
    print("fine")
run(main)
"""
    )


def test_hazard_21_dumps_show_everybody():
    """Rule: the runtime formats its own dumps; those of faulthandler end after a hundred threads."""
    ended = run_script(
        PREAMBLE
        + """
def waiting():
    nilchan.recv()

def the_overflowing_one():
    thing = ()
    for _ in range(200_000):
        thing = (thing,)
    hash(thing)

def main():
    waiters = [go(waiting) for _ in range(250)]
    wait_parked(*waiters)
    text = runtime.stack(all=True)
    assert text.count("in waiting") == 250, text.count("in waiting")
    assert "in main" in text
    print("fine")
    join(go(the_overflowing_one))
run(main)
"""
    )
    assert ended.stdout == "fine\n", ended.stderr
    assert ended.returncode != 0
    assert "the_overflowing_one" in ended.stderr


def test_hazard_22_tracing_of_threads_reaches_goroutines():
    """Rule: `go` applies what was set with `threading.settrace` and `threading.setprofile`."""
    succeed(
        """
traced, profiled = set(), set()

def tracer(frame, event, argument):
    traced.add((frame.f_code.co_name, offset.current() is not None))
    return tracer

def profiler(frame, event, argument):
    profiled.add((frame.f_code.co_name, offset.current() is not None))

def work():
    offset.gosched()
    return further()

def further():
    return sys.gettrace() is tracer, sys.getprofile() is profiler

def main():
    answers = makechan(1)
    threading.settrace(tracer)
    threading.setprofile(profiler)
    join(go(lambda: answers.send(work())))
    threading.settrace(None)
    threading.setprofile(None)
    assert answers.recv() == (True, True)
    for names in (traced, profiled):
        assert {("work", True), ("further", True)} <= names, names
    traced.clear()
    join(go(work))
    assert not traced
    print("fine")
run(main)
"""
    )


def test_hazard_23_a_used_thread_state_carries_nothing_over():
    """Rule: everything that belonged to a goroutine is reset before its thread state is used again."""
    succeed(
        """
import asyncio, contextvars

variable = contextvars.ContextVar("variable", default="default")
local = threading.local()
base = 0

def depth():
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count

def recursion(n=0):
    try:
        return recursion(n + 1)
    except RecursionError:
        return n

def look():
    try:
        loop = asyncio._get_running_loop()
    except RuntimeError:
        loop = None
    return {
        "variable": variable.get(), "context": len(contextvars.copy_context()),
        "local": vars(local), "exception": sys.exc_info(), "trace": sys.gettrace(),
        "profile": sys.getprofile(), "hooks": tuple(sys.get_asyncgen_hooks()), "loop": loop,
        "origin": sys.get_coroutine_origin_tracking_depth(), "depth": depth(),
    }

def spoil(n):
    variable.set("spoilt")
    assert variable.get() == "spoilt"
    local.value = "spoilt"
    sys.set_asyncgen_hooks(firstiter=print, finalizer=print)
    sys.set_coroutine_origin_tracking_depth(5)
    asyncio._set_running_loop(object())
    sys.settrace(lambda *args: None)
    sys.setprofile(lambda *args: None)
    recursion()
    try:
        raise ValueError("spoilt")
    except ValueError:
        offset.gosched()
        if n % 2:
            offset.goexit()
        if n % 3 == 0:
            raise SystemError("spoilt")

def main():
    offset.excepthook = lambda goroutine, error: None
    ch = makechan()
    go(lambda: ch.send((look(), recursion())))
    fresh, limit = ch.recv()
    assert fresh["variable"] == "default" and fresh["exception"] == (None, None, None), fresh
    for n in range(60):
        join(go(spoil, n))
        go(lambda: ch.send((look(), recursion())))
        found, reached = ch.recv()
        assert found == fresh, (n, found, fresh)
        assert reached == limit, (n, reached, limit)
    assert variable.get() == "default" and not vars(local)
    print("fine")
run(main, on_panic="report")
"""
    )


@GIL_ONLY
@GIL_ONLY
def test_hazard_24_a_switch_does_not_give_the_gil_away():
    """Rule: the GIL stays with the OS thread from goroutine to goroutine, until somebody asks for it."""
    succeed(
        """
turn, seen = 0, set()

def look():
    while not stop:
        seen.add(turn)

def main():
    global turn
    thread = threading.Thread(target=look)
    thread.start()
    began = time.monotonic()
    other = go(lambda: [offset.gosched() for _ in range(200_000)])
    for turn in range(200_000):
        offset.gosched()
    # As often as the interpreter takes turns, however much of that time others have the processors.
    turns = (time.monotonic() - began) / sys.getswitchinterval()
    join(other)
    stop.append(True)
    offset.syscall.blocking(thread.join)
    # Those at which the thread got in.
    print("fine" if len(seen) < 200 + turns else (len(seen), turns))

run(main)
"""
    )


def test_hazard_24_a_computing_thread_slows_goroutines_and_no_more():
    """No rule gives a thread that computes less than its share; everything gets done all the same."""
    succeed(
        """
def main():
    thread = threading.Thread(target=hog)
    thread.start()
    sys.setswitchinterval(0.0005)
    requests, answers = makechan(), makechan()
    def echo():
        for value in requests:
            answers.send(value)
    server = go(echo)
    for n in range(200):
        requests.send(n)
        assert answers.recv() == n
    requests.close()
    stop.append(True)
    join(server)
    print("fine")
run(main)
"""
    )


# ---- thread-local frames ---------------------------------------------------------------------


@LINUX
def test_hazard_28_thread_local_frames_stay_on_their_thread(extension):
    """Rule: a scan of the parked C stack finds code of other extensions, and the goroutine is not moved.

    Bindings of C++ keep a list of their frames in thread-local memory, whose address they hold in a call.
    """
    assert_unmoved(extension, "[loop, lambda: foreign_frames.call(loop), lambda: sorted([1], key=lambda _: loop())]")


@LINUX
def test_hazard_28_calls_that_must_be_left_in_order(extension):
    """Rule: none where two goroutines park inside such calls on one OS thread; README.md says so, and the way out.

    In the pool each call has a thread to itself. Once the first answer is True, README.md is to be changed.
    """
    succeed(
        """
sys.path.insert(0, sys.argv[1])
import foreign_frames

def interleave(call):
    gates, answers = [makechan(), makechan()], [makechan(1), makechan(1)]
    goroutines, threads = [], set()
    for gate, answer in zip(gates, answers):
        goroutines.append(go(lambda: answer.send(call(inside(gate)))))
        threads.add(inside_now.recv())
    for gate, goroutine in zip(gates, goroutines):
        gate.send(None)
        join(goroutine)
    return all([answer.recv() for answer in answers]), len(threads)

def inside(gate):
    def park():
        inside_now.send(threading.get_native_id())
        gate.recv()
    return park

inside_now = makechan()

def main():
    assert foreign_frames.in_order(lambda: foreign_frames.in_order(offset.gosched))
    # Without the GIL another processor may start one of them.
    while (found := interleave(foreign_frames.in_order))[1] > 1:
        pass
    print(found[0])
    print(interleave(lambda park: offset.syscall.blocking(foreign_frames.in_order, park))[0])
run(main)
""",
        args=(extension,),
        expected="False\nTrue\n",
    )
