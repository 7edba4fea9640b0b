"""Several processors: goroutines that run Python at once, and what must hold for them and for what they share.

On builds with the GIL there is one processor; most of these tests hold there as well and are run there too.
"""

import collections
import gc
import itertools
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import offset
import pytest
from helpers import FREE_THREADED, PATIENCE, Thread, main_goroutine, run_script, wait_ended, wait_parked, wait_until
from offset import GoroutineExit, _runtime, go, gosched, makechan, nilchan, run, runtime, select, sync, testing

PROCESSORS = runtime.stats()["processors"]

parallel = pytest.mark.skipif(PROCESSORS < 2, reason="needs two processors: a build without the GIL, and two cores")
no_moves = pytest.mark.skipif(not FREE_THREADED, reason="with the GIL, started goroutines may move")


def meet(places: list[bool], own: int) -> None:
    """Wait, without a park, until every one of `places` is taken: so each is on a processor of its own."""
    places[own] = True
    while not all(places):
        pass


class Thing:
    """Something that a weak reference can watch."""


# ---- processors ------------------------------------------------------------------------------


def processors_of(program: str, cores: set[int]) -> int:
    ended = run_script(f"import os; os.sched_setaffinity(0, {cores})\n" + program)
    assert (ended.returncode, ended.stderr) == (0, "")
    return int(ended.stdout)


@pytest.mark.parametrize(
    "program",
    [
        "import offset, offset.runtime as r\nprint(offset.run(lambda: r.stats()['processors']))",
        "import offset.runtime as r\nprint(r.stats()['processors'])",
        "import offset, offset.runtime as r\noffset.go(print, end='').join()\nprint(r.gomaxprocs())",
    ],
    ids=["in run", "before anything", "outside run"],
)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="chooses cores")
def test_there_is_one_processor_a_core_without_the_gil_and_one_with_it(program: str) -> None:
    cores = os.sched_getaffinity(0)
    assert processors_of(program, {min(cores)}) == 1
    # A quota of processor time counts, too, so there may be fewer than cores.
    assert processors_of(program, cores) == PROCESSORS <= (len(cores) if FREE_THREADED else 1)


@parallel
@main_goroutine
def test_goroutines_run_python_at_once() -> None:
    # Neither parks: each spins until it sees what the other wrote.
    places = [False, False]
    wait_ended(*[go(meet, places, own) for own in range(2)])


@parallel
def test_goroutines_that_a_plain_thread_starts_run_at_once() -> None:
    places = [False, False]
    wait_ended(*[go(meet, places, own) for own in range(2)])


@parallel
@main_goroutine
def test_a_processor_that_sleeps_is_woken_for_a_goroutine_that_another_one_starts() -> None:
    for _ in range(200):
        places = [False, False]
        child = go(meet, places, 0)
        # This goroutine keeps its own processor busy, so the child has to start on another one.
        meet(places, 1)
        wait_ended(child)


# ---- where goroutines run --------------------------------------------------------------------


@no_moves
def test_a_started_goroutine_never_moves_and_a_thread_state_stays_on_its_thread() -> None:
    # In a process of its own: where decimal is loaded no thread state is used twice.
    program = """
import os, sys, threading
import offset
from offset import go, gosched, run, runtime
homes, strays = {}, []

def visitor(rounds):
    ident, native = threading.get_ident(), threading.get_native_id()
    # A thread state is known by its identity, and is pooled where it was born.
    before = homes.setdefault(ident, native)
    if before != native and os.path.exists(f"/proc/self/task/{before}"):
        strays.append((ident, before, native))
    for _ in range(rounds):
        gosched()
        offset.sleep(0)
        assert threading.get_native_id() == native

def hog():
    end = offset.time.now() + 0.03
    while offset.time.now() < end:
        pass

def main():
    for turn in range(20):
        group = [go(visitor, 20) for _ in range(50)]
        # It loses its processor meanwhile, so goroutines start on further machines.
        if turn % 5 == 0:
            group.append(go(hog))
        for goroutine in group:
            goroutine.join()

run(main)
assert "_decimal" not in sys.modules
print(strays, runtime.stats()["moves"], len(homes) < 1000)
"""
    assert run_script(program) == (0, "[] 0 True\n", "")


@no_moves
@main_goroutine
def test_goroutines_of_a_machine_that_computes_wait_for_it_and_lose_nothing() -> None:
    # Each machine in turn computes without a park, so that processors change hands all the time.
    channel = makechan()

    def worker(number: int) -> None:
        choose = random.Random(number)
        for _ in range(30):
            if choose.random() < 0.1:
                end = offset.time.now() + 0.012
                while offset.time.now() < end:
                    pass
            elif choose.random() < 0.2:
                offset.sleep(0.001)
            channel.send(number)

    for number in range(20):
        go(worker, number)
    assert collections.Counter(channel.recv(timeout=PATIENCE) for _ in range(600)) == dict.fromkeys(range(20), 30)


# ---- rest and deadlock -----------------------------------------------------------------------


def test_no_false_alarm_while_goroutines_wake_each_other_on_several_processors() -> None:
    def relay(source: offset.Chan[int], sink: offset.Chan[int]) -> None:
        for value in source:
            if value % 7 == 0:
                offset.sleep(0.0001)
            if value % 11 == 0:
                offset.syscall.blocking(int)
            if value % 13 == 0:
                # Starts elsewhere if there is another processor.
                go(sink.send, value)
            else:
                sink.send(value)
        sink.close()

    def main() -> None:
        # One value on its way at a time: everybody else is parked, and a moment without it would be a deadlock.
        channels = [makechan() for _ in range(6)]
        for source, sink in itertools.pairwise(channels):
            go(relay, source, sink)
        for value in range(600):
            channels[0].send(value)
            assert channels[-1].recv() == value
        channels[0].close()

    for _ in range(3):
        run(main)


def test_the_end_of_main_is_never_taken_for_a_goexit() -> None:
    for _ in range(1000):
        assert run(int) == 0


def test_a_deadlock_across_processors_is_found() -> None:
    # In a process without further threads or signal handlers, which might wake somebody.
    program = """
from offset import DeadlockError, go, makechan, nilchan, run
for _ in range(20):
    try:
        run(lambda: [go(nilchan.recv) for _ in range(4)] and makechan().recv())
    except DeadlockError:
        print("found")
"""
    assert run_script(program) == (0, "found\n" * 20, "")


# ---- handles ---------------------------------------------------------------------------------


@main_goroutine
def test_the_list_of_goroutines_while_they_end() -> None:
    stop = sync.atomic.Bool()

    def look() -> None:
        while not stop.load():
            for goroutine in runtime.goroutines():
                assert goroutine.id > 0
                assert goroutine.name
                repr(goroutine)
            gosched()

    lookers = [go(look) for _ in range(2)]
    for _ in range(100):
        # No handle is kept: the object goes with its goroutine.
        group = sync.WaitGroup()
        for _ in range(20):
            group.go(int)
        group.wait()
    stop.store(True)
    wait_ended(*lookers)


@main_goroutine
def test_an_ending_goroutine_has_no_handle_any_more() -> None:
    # What its thread-locals hold ends after its object.
    local, seen = threading.local(), makechan(1)

    class Last:
        def __del__(self) -> None:
            gosched()
            alive = [goroutine.name for goroutine in runtime.goroutines()]
            seen.send((offset.current(), alive))

    def work() -> None:
        local.last = Last()

    go(work)
    current, alive = seen.recv(timeout=PATIENCE)
    assert current is None
    assert not [name for name in alive if "work" in name]


@parallel
@main_goroutine
def test_the_stack_of_a_goroutine_that_runs_on_another_processor() -> None:
    places = [False, False]

    def computes_here() -> None:
        meet(places, 0)

    child = go(computes_here)
    # It is on another processor, since it started while this one did not park.
    while not places[0]:
        pass
    text = runtime.stack(all=True)
    places[1] = True
    wait_ended(child)
    [part] = [part for part in text.split("\n\n") if part.startswith(f"goroutine {child.id} ")]
    assert "in computes_here" in part
    assert "in meet" in part


@main_goroutine
def test_stacks_are_whole_while_their_goroutines_call_and_return() -> None:
    stop = sync.atomic.Bool()

    def even(depth: int) -> None:
        gosched()
        if depth:
            odd(depth - 1)

    def odd(depth: int) -> None:
        gosched()
        if depth:
            even(depth - 1)

    def climb(depth: int) -> None:
        while not stop.load():
            even(depth)

    climbers = [go(climb, depth) for depth in (1, 5, 20, 60)]
    for _ in range(500):
        for part in runtime.stack(all=True).split("\n\n"):
            names = re.findall(r", in (climb|even|odd)\n", part)
            assert names == (["climb"] + ["even", "odd"] * 31)[: len(names)]
        gosched()
    stop.store(True)
    wait_ended(*climbers)


@main_goroutine
def test_names_are_read_and_written_at_once() -> None:
    gate = makechan()
    parked = go(gate.recv)

    def rename(prefix: str) -> None:
        for number in range(2000):
            parked.name = prefix + str(number)
            assert parked.name[0] in "ab"

    parked.name = "a"
    wait_ended(go(rename, "a"), go(rename, "b"))
    gate.send(None)
    wait_ended(parked)


@main_goroutine
def test_one_case_object_in_selects_at_once() -> None:
    channel = makechan(8)
    case = channel.if_recv()
    stop = sync.atomic.Bool()

    def choose() -> None:
        while not stop.load():
            select(case, offset.default)
            assert case.value is None or case.value[0] == 1
            gosched()

    choosers = [go(choose) for _ in range(3)]
    for number in range(3000):
        channel.send([1, number])
    stop.store(True)
    wait_ended(*choosers)


@main_goroutine
def test_cancelling_goroutines_at_every_moment_of_their_lives() -> None:
    choose = random.Random(5)

    def life(wait: object, ends: list[str]) -> None:
        ready = makechan(1)
        try:
            for _ in range(choose.randrange(3)):
                gosched()
            ready.send(None)
            ready.recv()
            wait()
        except GoroutineExit:
            ends.append("cancelled")
            # Delivered once: this wait is not disturbed.
            offset.sleep(0.0001)
            ends.append("slept")
            raise

    def spin() -> None:
        # Not for ever: without the GIL the goroutines of its machine wait for it.
        end = offset.time.now() + 0.005
        while offset.time.now() < end:
            pass

    for _ in range(300):
        ends: list[str] = []
        goroutine = go(life, choose.choice([nilchan.recv, select, lambda: offset.sleep(3600), spin]), ends)
        for _ in range(choose.randrange(4)):
            gosched()
        goroutine.cancel()
        wait_ended(goroutine)
        assert ends in ([], ["cancelled", "slept"])


def test_throwing_an_instance_at_every_moment_of_a_life() -> None:
    # The world stops in between, where sections that run Python would end early. In a small process that takes no time.
    program = """
import gc, random, threading, time
from offset import go, gosched, nilchan, run, sync
choose, stop = random.Random(7), sync.atomic.Bool()

def collect():
    while not stop.load():
        gc.collect(0)
        # A world that stopped again at once would let in few of those that wait to attach.
        time.sleep(0.001)

def life(spins, inside, seen):
    try:
        inside.append(True)
        gosched()
        for _ in range(spins):
            pass
        nilchan.recv()
    except KeyError as error:
        seen.append(error)

def main():
    for number in range(300):
        error, inside, seen = KeyError(number), [], []
        goroutine = go(life, choose.randrange(2000), inside, seen)
        while not inside or choose.random() < 0.5:
            gosched()
        # It may be anywhere in its block, and waits for ever unless it gets this.
        goroutine.throw(error)
        goroutine.join()
        assert seen == [error]
    stop.store(True)

collector = threading.Thread(target=collect)
collector.start()
run(main)
collector.join()
print("all")
"""
    assert run_script(program) == (0, "all\n", "")


# ---- failures --------------------------------------------------------------------------------


def test_goroutines_that_fail_with_one_exception_at_once_fail_once(capfd: pytest.CaptureFixture[str]) -> None:
    error = KeyError("shared")

    def fail(places: list[bool], own: int) -> None:
        if PROCESSORS > 1:
            meet(places, own)
        raise error

    def main() -> None:
        places = [False, False]
        for own in range(2):
            go(fail, places, own)
        nilchan.recv()

    for _ in range(100):
        with pytest.raises(KeyError) as raised:
            run(main)
        assert raised.value is error
        # It would grow by every raise.
        error.__traceback__ = None
        del raised
    capfd.readouterr()


# ---- pools -----------------------------------------------------------------------------------


def test_pools_are_registered_with_the_collector_once() -> None:
    program = """
import gc, threading
from offset import sync
gate = threading.Barrier(8)
def make():
    gate.wait()
    sync.Pool()
threads = [threading.Thread(target=make) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(gc.callbacks))
"""
    for _ in range(5):
        assert run_script(program) == (0, "1\n", "")


@pytest.mark.skipif(not FREE_THREADED, reason="with the GIL few collections are full ones")
def test_every_collection_empties_pools() -> None:
    pool, thing = sync.Pool(), Thing()
    watch = weakref.ref(thing)
    pool.put(thing)
    del thing
    kept = []

    def gone() -> bool:
        kept.append([[] for _ in range(10_000)])
        return watch() is None

    wait_until(gone, "collections by themselves")


# ---- memory ----------------------------------------------------------------------------------


@parallel
@pytest.mark.parametrize("way", ["through a channel", "through a deque"])
def test_what_one_processor_makes_and_another_drops_is_freed_without_a_collection(way: str) -> None:
    count, alive, places = 20_000, sync.atomic.Int(), [False, False]
    channel: offset.Chan[Thing] = makechan(16)
    queue: collections.deque[Thing] = collections.deque()
    most = 0

    def produce() -> None:
        meet(places, 0)
        for _ in range(count):
            thing = Thing()
            alive.add(1)
            weakref.finalize(thing, alive.add, -1).atexit = False
            if way == "through a channel":
                channel.send(thing)
            else:
                # Never parks: the other one has to keep up.
                while len(queue) > 100:
                    pass
                queue.append(thing)

    def consume() -> None:
        nonlocal most
        meet(places, 1)
        for _ in range(count):
            if way == "through a channel":
                thing = channel.recv()
            else:
                while not queue:
                    pass
                thing = queue.popleft()
            del thing
            most = max(most, alive.load())

    gc.disable()
    try:
        run(lambda: wait_ended(go(produce), go(consume)))
    finally:
        gc.enable()
    # Without the rule of shim/refcounts.c none of them goes.
    assert most < count / 4


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def keeps_apart(make: Callable[[], Any], park: Callable[[], object] = nilchan.recv) -> list[Any]:
    """Call `make` in eight goroutines on several machines, which park then."""
    made: offset.Chan[Any] = makechan()

    def keeper() -> None:
        thing = make()
        # Without the GIL the goroutines of its machine wait for it, so the others start elsewhere.
        time.sleep(0.05)
        made.send(thing)
        del thing
        park()

    keepers = [go(keeper) for _ in range(8)]
    things = [made.recv() for _ in keepers]
    for each in keepers:
        wait_parked(each, reason="chan receive")
    return things


@no_moves
@pytest.mark.usefixtures("no_collections")
def test_what_machines_at_rest_have_made_is_freed_when_another_one_drops_it() -> None:
    def main() -> None:
        things = keeps_apart(Thing)
        watched = [weakref.ref(thing) for thing in things]
        assert runtime.stats()["machines"] > PROCESSORS
        things.clear()
        wait_until(lambda: not any(ref() for ref in watched))

    run(main)


class Closes:
    """A value whose end is told to others."""

    def __init__(self, ends: offset.Chan[object]) -> None:
        self.ends = ends

    def __del__(self) -> None:
        self.ends.send(offset.current())


@no_moves
@pytest.mark.usefixtures("no_collections")
def test_who_waits_for_the_end_of_a_value_is_in_no_deadlock() -> None:
    ends: offset.Chan[object] = makechan(8)

    def main() -> None:
        things = keeps_apart(lambda: Closes(ends))
        things.clear()
        # Nobody else runs: what was dropped here is settled where it was made.
        enders = [ends.recv() for _ in range(8)]
        assert None not in enders
        assert set(enders) != {offset.current()}

    run(main)


@no_moves
@pytest.mark.usefixtures("no_collections")
def test_what_a_plain_thread_drops_while_nothing_runs_is_freed() -> None:
    ends: offset.Chan[object] = makechan(8)

    def main() -> None:
        things = keeps_apart(lambda: Closes(ends))

        def drop() -> None:
            # The monitor sleeps by then.
            time.sleep(1)
            things.clear()

        thread = threading.Thread(target=drop)
        thread.start()
        for _ in range(8):
            ends.recv(timeout=PATIENCE)
        thread.join()

    run(main)


@no_moves
@pytest.mark.usefixtures("no_collections")
def test_the_clock_of_a_bubble_stands_while_something_is_to_be_freed() -> None:
    def inside() -> float:
        ends: offset.Chan[object] = makechan(8)
        over: offset.Chan[None] = makechan()
        things = keeps_apart(lambda: Closes(ends), over.recv_ok)
        ticks = go(offset.sleep, 1000)
        dropped_at = offset.time.now()
        things.clear()
        for _ in range(8):
            ends.recv()
        took = offset.time.now() - dropped_at
        over.close()
        ticks.join()
        return took

    for _ in range(5):
        assert testing.bubble(inside) == 0


@no_moves
@pytest.mark.usefixtures("no_collections")
def test_a_finalizer_that_waits_ends_with_the_run() -> None:
    ended: list[object] = []

    def main() -> None:
        here = offset.current()

        class Waits:
            def __del__(self) -> None:
                if offset.current() is not here:
                    try:
                        nilchan.recv()
                    except GoroutineExit as end:
                        ended.append(end)

        things = keeps_apart(Waits)
        things.clear()
        wait_until(lambda: any(each._own and each.wait_reason for each in _runtime.all_goroutines()))

    run(main)
    assert ended


@no_moves
@pytest.mark.usefixtures("no_collections")
def test_goroutines_of_the_runtimes_own_are_not_the_programs() -> None:
    seen: offset.Chan[tuple[bool, int, int]] = makechan(8)

    def main() -> None:
        main = offset.current()

        class Looks:
            def __del__(self) -> None:
                own = offset.current()
                listed = own is not main and own in runtime.goroutines()
                # As any code in a goroutine it may park, and block.
                offset.sleep(0.01)
                time.sleep(0.05)
                seen.send((listed, len(runtime.goroutines()), runtime.num_goroutine()))

        things = keeps_apart(Looks)
        there = runtime.num_goroutine()
        things.clear()
        assert [seen.recv() for _ in range(8)] == [(False, there, there)] * 8

    run(main)


# ---- threads beside goroutines ---------------------------------------------------------------


@main_goroutine
def test_threads_and_goroutines_start_the_runtime_together() -> None:
    program = """
import threading, offset
from offset import go, makechan
channel, gate = makechan(), threading.Barrier(8)
def begin(number):
    gate.wait()
    go(channel.send, number)
threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
print(sorted(channel.recv() for _ in threads))
"""
    ended = run_script(program)
    assert ended == (0, f"{list(range(8))}\n", "")


def test_threads_and_goroutines_hand_values_to_each_other_at_once() -> None:
    channel, count = makechan(), 500

    def send(base: int) -> None:
        for number in range(count):
            channel.send(base + number)

    def main() -> None:
        senders = [Thread(send, 0), Thread(send, count), go(send, 2 * count), go(send, 3 * count)]
        got = [channel.recv() for _ in range(4 * count)]
        assert sorted(got) == list(range(4 * count))
        for sender in senders[:2]:
            wait_until(lambda sender=sender: sender.ended)
        wait_ended(*senders[2:])

    run(main)


@main_goroutine
def test_a_parked_goroutine_is_seen_as_parked_from_another_processor() -> None:
    for _ in range(200):
        gate = makechan()
        goroutine = go(gate.recv)
        wait_parked(goroutine, reason="chan receive")
        gate.send(None)
        wait_ended(goroutine)


@no_moves
def test_a_crowd_gives_its_memory_back_when_it_has_gone():
    """Each thread state has heaps of its own, which a deleted one leaves to whoever looks."""
    ended = run_script(
        """
import os, time
import offset

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def work(gate):
    made = [{n: str(n)} for n in range(200)]
    gate.recv_ok()
    made = [(n, [n]) for n in range(200)]

def main():
    gate = offset.makechan()
    crowd = [offset.go(work, gate) for _ in range(2000)]
    offset.sleep(0.1)
    gate.close()
    for each in crowd:
        each.join()

before = resident()
offset.run(main)
there = resident()
while resident() - before > (there - before) / 2:
    time.sleep(0.05)
print("fine")
"""
    )
    assert (ended.stdout, ended.stderr) == ("fine\n", "")
