"""`runtime.leaks`: goroutines that wait for what nobody else can reach are found, and no other.

Each case starts goroutines that wait for ever, and gives their handles. In `LEAKED` all of them are leaked; in
`REACHED` somebody has what they wait for, in some place where one could overlook it, and what keeps it is given, too.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import gc
import signal
import threading
import weakref

import offset
import pytest
from helpers import PATIENCE, main_goroutine, run_script, wait_ended, wait_parked, wait_until
from offset import context, go, gosched, makechan, nilchan, runtime, select, sync
from offset.syscall import threading as proxied


def found():
    """The ids of the goroutines that are found."""
    return [goroutine.id for goroutine in runtime.leaks()]


def end(*goroutines):
    for goroutine in goroutines:
        goroutine.cancel()
    wait_ended(*goroutines)


def receives(channel):
    channel.recv()


# ---- leaked ----------------------------------------------------------------------------------


def bound_method():
    return [go(makechan().recv)]


def argument():
    return [go(receives, makechan())]


def keyword():
    return [go(lambda *, channel: channel.recv(), channel=makechan())]


def closure():
    channel = makechan()

    def worker():
        channel.recv()

    return [go(worker)]


def iteration():
    def worker(jobs):
        for job in jobs:
            print(job)

    return [go(worker, makechan(3))]


def sender():
    return [go(lambda channel: channel.send([channel]), makechan())]


def buffer_of_itself():
    channel = makechan(1)
    channel.send(channel)
    return [go(lambda: channel.send(1))]


def several_on_one():
    channel = makechan()
    return [go(receives, channel) for _ in range(5)]


def ring():
    channels = [makechan() for _ in range(6)]
    return [go(lambda mine, next: mine.recv() or next.send(1), channels[i - 1], channels[i]) for i in range(6)]


def selection():
    a, b = makechan(), makechan()
    return [go(lambda: select(a.if_recv(), b.if_send([b]), nilchan.if_recv()))]


def long_selection():
    channels = [makechan() for _ in range(30)]
    return [go(lambda: select(*[channel.if_recv() for channel in channels]))]


def nothing_to_select():
    return [go(select), go(nilchan.recv), go(nilchan.send, 1)]


def ends():
    channel = makechan()
    return [go(channel.receiver().recv), go(receives, channel.receiver())]


def locked_mutex():
    mutex = sync.Mutex()
    mutex.lock()

    def worker():
        with mutex:
            pass

    return [go(mutex.lock), go(worker), go(worker)]


def locked_rwmutex():
    mutex = sync.RWMutex()
    mutex.lock()
    reading = mutex.rlocker()

    def reader():
        with reading:
            pass

    return [go(mutex.lock), go(mutex.rlock), go(reader)]


def proxied_lock():
    lock = proxied.Lock()
    lock.acquire()
    return [go(lock.acquire), go(proxied.Semaphore(0).acquire)]


def wait_group():
    group = sync.WaitGroup()
    return [group.go(makechan().recv), go(group.wait)]


def condition():
    def worker():
        mutex = sync.Mutex()
        mutex.lock()
        sync.Cond(mutex).wait()

    return [go(worker)]


def semaphore():
    return [go(sync.Semaphore(0).acquire)]


def joined():
    goroutine = go(makechan().recv)
    return [goroutine, go(goroutine.join)]


def in_a_generator():
    def values(channel):
        yield 1
        yield channel.recv()

    def worker():
        for value in values(makechan()):
            print(value)

    return [go(worker)]


def in_a_method():
    class Worker:
        def __init__(self):
            self.jobs = makechan()
            self.itself = self

        def run(self, *args, **kwargs):
            self.jobs.recv()

    return [go(Worker().run), go(lambda worker: worker.run(*[1], a=2), Worker())]


def while_handling():
    def worker(channel):
        try:
            raise ValueError(channel)
        except ValueError:
            channel.recv()

    return [go(worker, makechan())]


def in_its_context():
    variable = contextvars.ContextVar("channel")

    def worker():
        variable.set(makechan())
        variable.get().recv()

    return [go(worker)]


def in_a_scope_of_its_own():
    def worker():
        ctx, cancel = context.with_cancel(context.background())
        with context.scope(ctx):
            makechan().recv()
        cancel()

    return [go(worker)]


def weakly_held():
    channel = makechan()
    weak.append(weakref.ref(channel))
    return [go(receives, channel)]


weak = []


LEAKED = [
    bound_method,
    argument,
    keyword,
    closure,
    iteration,
    sender,
    buffer_of_itself,
    several_on_one,
    ring,
    selection,
    long_selection,
    nothing_to_select,
    ends,
    locked_mutex,
    locked_rwmutex,
    proxied_lock,
    wait_group,
    condition,
    semaphore,
    joined,
    in_a_generator,
    in_a_method,
    while_handling,
    in_its_context,
    in_a_scope_of_its_own,
    weakly_held,
]


@pytest.mark.parametrize("case", LEAKED, ids=lambda case: case.__name__)
@main_goroutine
def test_what_nobody_reaches_is_found(case):
    goroutines = case()
    wait_parked(*goroutines)
    weak.clear()
    assert found() == [goroutine.id for goroutine in goroutines]
    leaks = runtime.leaks(end=True)
    assert list(leaks) == goroutines
    wait_ended(*goroutines)
    assert found() == []


# ---- not leaked ------------------------------------------------------------------------------


def a_local_variable():
    channel = makechan()
    return [go(receives, channel)], channel


def a_global_variable():
    somewhere["channel"] = makechan()
    return [go(receives, somewhere["channel"])], None


somewhere = {}


def an_end():
    channel = makechan()
    return [go(receives, channel)], channel.sender()


def a_method():
    channel = makechan()
    return [go(receives, channel)], channel.send


def a_case():
    channel = makechan()
    return [go(receives, channel)], channel.if_send(1)


def a_buffer():
    channel, other = makechan(), makechan(1)
    other.send({"channel": (channel,)})
    return [go(receives, channel)], other


def a_value_on_its_way():
    channel, other = makechan(), makechan()
    return [go(receives, channel), go(other.send, channel)], other


def a_chain():
    channels = [makechan() for _ in range(6)]
    return [go(lambda mine, next: mine.recv() or next.send(1), *channels[i : i + 2]) for i in range(5)], channels[0]


def the_reading_side():
    mutex = sync.RWMutex()
    mutex.lock()
    return [go(mutex.lock)], mutex.rlocker()


def a_goroutine_that_has_not_started():
    channel = makechan()
    return [go(receives, channel)], go(lambda: (gosched(), channel.close()))


def a_goroutine_that_sleeps():
    channel = makechan()
    sleeper = go(lambda mine: offset.sleep(PATIENCE), channel)
    return [go(receives, channel), sleeper], None


def a_holder_of_the_lock():
    mutex = sync.Mutex()

    def holder():
        with mutex:
            offset.sleep(PATIENCE)

    holding = go(holder)
    wait_parked(holding, reason="sleep")

    def worker():
        with mutex:
            pass

    return [holding, go(worker), go(worker)], None


def a_goroutine_in_c():
    channel = makechan()

    def slow():
        offset.sleep(PATIENCE)
        yield 1

    return [go(receives, channel), go(list, map(channel.send, slow()))], None


def a_member_of_the_group():
    group, channel = sync.WaitGroup(), makechan()
    return [group.go(receives, channel), go(group.wait)], channel


def a_goroutine_that_is_joined():
    channel = makechan()
    goroutine = go(receives, channel)
    return [goroutine, go(goroutine.join)], channel


def a_timer():
    channel = makechan()
    return [go(receives, channel)], offset.time.after_func(PATIENCE, channel.close)


def a_tick():
    return [go(receives, offset.time.after(PATIENCE))], None


def a_timeout():
    return [go(makechan().recv, PATIENCE), go(lambda: select(makechan().if_recv(), timeout=PATIENCE))], None


def a_generator():
    channel = makechan()

    def values(channel):
        yield 1
        channel.close()

    generator = values(channel)
    next(generator)
    return [go(receives, channel)], generator


def a_traceback():
    channel = makechan()

    def fail(channel):
        raise ValueError

    try:
        fail(channel)
    except ValueError as error:
        return [go(receives, channel)], error.__traceback__


def a_context_variable():
    variable = contextvars.ContextVar("channel")
    channel = makechan()
    context = contextvars.copy_context()
    context.run(variable.set, channel)
    return [go(receives, channel)], (context, variable)


def a_partial():
    channel = makechan()
    return [go(receives, channel)], functools.partial(receives, channel)


def an_exit_function():
    channel = makechan()

    def at_exit():
        channel.close()

    atexit.register(at_exit)
    return [go(receives, channel)], lambda: atexit.unregister(at_exit)


def a_context():
    ctx, cancel = context.with_cancel(context.background())

    def worker():
        with context.scope(ctx):
            makechan().recv()

    return [go(worker)], cancel


def a_deadline():
    def worker():
        with context.timeout(PATIENCE):
            makechan().recv()

    return [go(worker)], None


REACHED = [
    a_context,
    a_deadline,
    a_local_variable,
    a_global_variable,
    an_end,
    a_method,
    a_case,
    a_buffer,
    a_value_on_its_way,
    a_chain,
    the_reading_side,
    a_goroutine_that_sleeps,
    a_holder_of_the_lock,
    a_goroutine_in_c,
    a_member_of_the_group,
    a_goroutine_that_is_joined,
    a_timer,
    a_tick,
    a_timeout,
    a_generator,
    a_traceback,
    a_context_variable,
    a_partial,
    an_exit_function,
]


@pytest.mark.parametrize("case", REACHED, ids=lambda case: case.__name__)
@main_goroutine
def test_what_somebody_reaches_is_not_found(case):
    goroutines, keeper = case()
    wait_parked(*goroutines)
    assert found() == []
    end(*goroutines)
    if case is an_exit_function:
        keeper()
    elif case is a_timer:
        keeper.stop()
    somewhere.clear()
    keeper = None


@main_goroutine
def test_a_signal_handler_that_the_goroutine_has_too_reaches_it():
    # The handler is in a variable of C's, and in the frame of who waits: once is not twice.
    def worker(ready):
        channel = makechan()

        def handler(*args):
            channel.close()

        before = runtime.call_on_main(signal.signal, signal.SIGUSR1, handler)
        try:
            ready.append(True)
            channel.recv_ok()
        finally:
            runtime.call_on_main(signal.signal, signal.SIGUSR1, before)

    ready = []
    goroutine = go(worker, ready)
    wait_until(lambda: ready)
    wait_parked(goroutine, reason="chan receive")
    assert found() == []
    end(goroutine)


@main_goroutine
def test_a_signal_channel_is_reached():
    channel = makechan(1)
    offset.os.signal.notify(channel, signal.SIGUSR2)
    goroutine = go(receives, channel)
    wait_parked(goroutine)
    held = weakref.ref(channel)
    del channel
    assert found() == []
    offset.os.signal.stop(held())
    end(goroutine)


@main_goroutine
def test_a_thread_reaches_what_it_has():
    channel, stop = makechan(), threading.Event()
    ready = threading.Event()

    def thread(channel):
        ready.set()
        stop.wait()

    running = threading.Thread(target=thread, args=(channel,))
    running.start()
    ready.wait()
    goroutine = go(receives, channel)
    del channel
    wait_parked(goroutine)
    assert found() == []
    stop.set()
    running.join()
    del running
    assert found() == [goroutine.id]
    end(goroutine)


@main_goroutine
def test_a_thread_that_waits_itself_reaches_what_it_waits_for():
    channel, other = makechan(), makechan()
    running = threading.Thread(target=lambda ours, other: ours.recv_ok(), args=(channel, other))
    running.start()
    goroutine = go(receives, other)
    del other
    wait_parked(goroutine)
    assert found() == []
    channel.close()
    running.join()
    end(goroutine)


@main_goroutine
def test_a_handle_reaches_nothing_unless_it_is_to_count():
    goroutine = go(makechan().recv)
    wait_parked(goroutine)
    assert list(runtime.leaks()) == [goroutine]
    assert list(runtime.leaks(handles=True)) == []
    number = goroutine.id
    del goroutine
    assert [leaked.id for leaked in runtime.leaks(handles=True)] == [number]
    runtime.leaks(end=True)


@main_goroutine
def test_what_becomes_unreachable_is_found_then():
    channel = makechan()
    goroutines = [go(receives, channel) for _ in range(3)]
    wait_parked(*goroutines)
    assert found() == []
    del channel
    assert found() == [goroutine.id for goroutine in goroutines]
    end(*goroutines)


@main_goroutine
def test_garbage_in_a_cycle_reaches_nothing():
    channel = makechan()
    goroutine = go(receives, channel)
    wait_parked(goroutine)
    gc.disable()
    try:
        cycle = [channel]
        cycle.append(cycle)
        del channel, cycle
        assert found() == [goroutine.id]
    finally:
        gc.enable()
    end(goroutine)


@main_goroutine
def test_main_is_never_found_and_neither_is_who_asks():
    asked = []
    go(lambda: asked.append(found())).join()
    assert asked == [[]]
    channel = makechan()
    main = offset.current()
    checked = go(lambda: (wait_parked(main), channel.send(found())))
    assert channel.recv() == []
    checked.join()


@main_goroutine
def test_leaks_says_what_they_wait_for_and_where_they_were_created():
    def fetch(results):
        results.send(1)

    goroutines = [go(fetch, makechan(label="results")) for _ in range(3)]
    wait_parked(*goroutines)
    leaks = runtime.leaks()
    assert leaks.waits == {goroutine.id: ["<offset.Chan 'results' 0/0>"] for goroutine in goroutines}
    assert leaks.stats() == {"chan send": 3}
    text = str(leaks)
    assert text.startswith(
        "3 goroutines are leaked: nobody else can reach what they wait for\n\n3 goroutines [chan send"
    )
    assert "results.send(1)" in text
    assert "waits for <offset.Chan 'results' 0/0>" in text
    assert "test_leaks_says_what_they_wait_for" in text.splitlines()[-1]
    leaks.cancel()
    wait_ended(*goroutines)
    assert str(runtime.leaks()) == "no goroutine is leaked"


@main_goroutine
def test_their_finally_blocks_run_and_may_wait():
    steps = []

    def worker(channel):
        try:
            channel.recv()
        finally:
            steps.append("in")
            gosched()
            offset.sleep(0.001)
            steps.append("out")

    goroutine = go(worker, makechan())
    wait_parked(goroutine)
    runtime.leaks(end=True)
    wait_ended(goroutine)
    assert steps == ["in", "out"]


def test_outside_a_run():
    goroutine = go(makechan().recv)
    wait_parked(goroutine)
    assert found() == [goroutine.id]
    end(goroutine)


def test_without_any_goroutine():
    status, stdout, stderr = run_script("from offset import runtime; print(runtime.leaks())")
    assert (status, stdout, stderr) == (0, "no goroutine is leaked\n", "")


# ---- against a naive model -------------------------------------------------------------------


def expected(roots, held, waited):
    """Which goroutines are live: by what the roots have, what each holds, and what each waits for."""
    reached, live = set(roots), set()
    while True:
        woken = {number for number in range(len(waited)) if number not in live and reached & set(waited[number])}
        if not woken:
            return live
        live |= woken
        for number in woken:
            reached |= set(held[number]) | set(waited[number])


@pytest.mark.parametrize("way", range(4))
@main_goroutine
def test_random_programs(rng, way):
    for _ in range(25):
        count, size = rng.randrange(1, 12), rng.randrange(1, 12)
        channels = [makechan() for _ in range(count)]
        held = [rng.sample(range(count), rng.randrange(min(4, count) + 1)) for _ in range(size)]
        waited = [rng.sample(range(count), rng.randrange(1, min(3, count) + 1)) for _ in range(size)]
        roots = rng.sample(range(count), rng.randrange(count + 1))

        def waits(places, kept):
            if len(places) == 1 and way % 2:
                places[0].recv()
            else:
                select(*[place.if_recv() for place in places])

        def by_closure(places, kept):
            return lambda: waits(places, kept)

        goroutines = []
        for kept, places in zip(held, waited, strict=True):
            mine, theirs = [channels[place] for place in places], {place: channels[place] for place in kept}
            goroutines.append(go(waits, mine, theirs) if way < 2 else go(by_closure(mine, theirs)))
            del mine, theirs
        wait_parked(*goroutines)
        rooted = [channels[root] for root in roots]
        del channels
        live = expected(roots, held, waited)
        leaked = [goroutine.id for number, goroutine in enumerate(goroutines) if number not in live]
        assert found() == leaked
        end(*goroutines)
        del rooted
