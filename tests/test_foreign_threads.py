"""OS threads that the runtime did not make: plain Python threads, pools, event loops, threads made in C.

Any of them may start goroutines and use channels and locks, with a `run` in progress or without.
"""

import asyncio
import concurrent.futures
import ctypes
import queue
import sqlite3
import sys
import threading
import time

import offset
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    Thread,
    go_parked,
    in_thread,
    main_goroutine,
    run_script,
    wait_ended,
    wait_until,
)
from offset import GoroutineExit, current, go, makechan, nilchan, runtime, sync

# ---- starting goroutines ---------------------------------------------------------------------


def test_a_plain_thread_is_no_goroutine():
    assert current() is None
    assert in_thread(current) is None


def test_any_thread_may_start_goroutines():
    results = makechan(100)

    def start(number):
        goroutine = go(lambda: results.send((number, current().id)))
        assert goroutine.join(timeout=PATIENCE)
        return goroutine.id

    threads = [Thread(start, number) for number in range(8)]
    identities = [thread.result() for thread in threads]
    assert sorted(results.recv() for _ in threads) == sorted(enumerate(identities))
    assert len(set(identities)) == 8


def test_a_goroutine_outlives_the_thread_that_started_it():
    gate = makechan()
    answers = makechan(1)
    goroutine = in_thread(go, lambda: answers.send(gate.recv()))
    gate.send("after the end of its maker")
    assert answers.recv(timeout=PATIENCE) == "after the end of its maker"
    wait_ended(goroutine)
    assert goroutine.creator == 0


def test_the_first_go_of_a_program_may_come_from_a_thread():
    ended = run_script(
        """
        import threading, offset
        ch = offset.makechan()
        thread = threading.Thread(target=lambda: offset.go(ch.send, "first"))
        thread.start(); thread.join()
        print(ch.recv())
        print(offset.run(lambda: "then run"))
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "first\nthen run\n", "")


def test_many_threads_come_and_go():
    """Thread states of threads that ended must not be mistaken for those that come next."""
    requests = makechan()

    def serve():
        for value, answer in requests:
            answer.send(value + 1)

    def ask(value):
        answer = makechan()
        requests.send((value, answer))
        return answer.recv()

    servers = [go(serve) for _ in range(3)]
    for round_number in range(20):
        threads = [Thread(ask, number) for number in range(round_number, round_number + 5)]
        assert [thread.result() for thread in threads] == list(range(round_number + 1, round_number + 6))
    requests.close()
    wait_ended(*servers)


def test_threads_started_by_goroutines():
    def main():
        channel = makechan()
        threads = []
        for number in range(10):
            thread = threading.Thread(target=channel.send, args=(number,))
            thread.start()
            threads.append(thread)
        values = sorted(channel.recv() for _ in threads)
        for thread in threads:
            offset.syscall.blocking(thread.join)
        return values

    assert offset.run(main) == list(range(10))


@main_goroutine
def test_the_runtime_is_shared_by_a_run_and_by_threads():
    """What threads start during a run belongs to it: it is ended with it."""
    ended = makechan(1)

    def waiter():
        try:
            nilchan.recv()
        except GoroutineExit:
            ended.send(True)
            raise

    started = in_thread(go, waiter)
    wait_until(lambda: started.wait_reason, "the goroutine of the thread is parked")
    started.cancel()
    assert ended.recv(timeout=PATIENCE)


# ---- waiting for one another -----------------------------------------------------------------


def test_a_thread_joins_a_goroutine():
    gate = makechan()
    goroutine = go_parked(gate.recv)
    assert goroutine.join(timeout=0.01) is False
    joiner = Thread(goroutine.join)
    gate.send(None)
    assert joiner.result() is True


def test_a_mutex_excludes_threads_and_goroutines():
    mutex = sync.Mutex()
    inside, most, count = [], [], []

    def work():
        for _ in range(200):
            with mutex:
                inside.append(None)
                most.append(len(inside))
                count.append(None)
                inside.pop()

    goroutines = [go(work) for _ in range(4)]
    threads = [Thread(work) for _ in range(4)]
    for thread in threads:
        thread.result()
    wait_ended(*goroutines)
    assert (set(most), len(count)) == ({1}, 1600)


def test_a_wait_group_spans_threads_and_goroutines():
    group = sync.WaitGroup()
    group.add(6)
    goroutines = [go(group.done) for _ in range(3)]
    threads = [Thread(group.done) for _ in range(3)]
    in_thread(group.wait, PATIENCE)
    group.wait(timeout=PATIENCE)
    wait_ended(*goroutines)
    for thread in threads:
        thread.result()


@pytest.mark.skipif(
    FREE_THREADED, reason="a goroutine blocked in C stops the started ones of its machine: no moves without the GIL"
)
def test_plain_locks_and_queues_between_threads_and_goroutines():
    """Objects of `threading` and `queue` block the goroutine where nobody told the runtime; all come through."""
    tasks, results = queue.Queue(maxsize=2), queue.Queue()

    def work():
        while (task := tasks.get()) is not None:
            results.put(task * task)

    def main():
        workers = [go(work) for _ in range(4)]
        thread = threading.Thread(target=work)
        thread.start()
        for number in range(100):
            tasks.put(number)
        for _ in range(5):
            tasks.put(None)
        wait_ended(*workers)
        thread.join()
        return sorted(results.get() for _ in range(100))

    assert offset.run(main) == [number * number for number in range(100)]


def test_a_goroutine_waits_for_a_future():
    def main():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(pow, number, 2) for number in range(20)]
            try:
                return [offset.syscall.blocking(future.result, PATIENCE) for future in futures]
            finally:
                offset.syscall.blocking(pool.shutdown)

    assert offset.run(main) == [number * number for number in range(20)]


def test_threads_of_a_pool_use_channels():
    channel = makechan()

    def receive():
        return channel.recv(timeout=PATIENCE)

    sender = go(lambda: [channel.send(number) for number in range(50)])
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        received = sorted(future.result() for future in [pool.submit(receive) for _ in range(50)])
    assert received == list(range(50))
    wait_ended(sender)


def test_an_asyncio_loop_in_a_plain_thread():
    requests, answers = makechan(), makechan()

    async def serve():
        async for value in requests:
            await asyncio.sleep(0)
            await answers.asend(value * 2)

    thread = Thread(asyncio.run, serve())
    client = Thread(lambda: [(requests.send(number), answers.recv())[1] for number in range(20)])
    assert client.result() == [number * 2 for number in range(20)]
    requests.close()
    thread.result()


def test_the_loop_goes_on_while_a_task_waits_for_a_channel():
    channel = makechan()

    async def main():
        receiver = asyncio.create_task(channel.arecv())
        ticks = 0
        while ticks < 50:
            await asyncio.sleep(0)
            ticks += 1
        await channel.asend("from the loop itself")
        return await receiver

    assert asyncio.run(main()) == "from the loop itself"


def test_a_task_that_is_cancelled_leaves_nothing_in_the_queue():
    channel = makechan()

    async def main():
        receiver = asyncio.create_task(channel.arecv())
        while not channel.stats()["receivers"]:
            await asyncio.sleep(0.001)
        receiver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiver

    asyncio.run(main())
    assert channel.stats()["receivers"] == 0
    with pytest.raises(TimeoutError):
        channel.send("nobody is there", timeout=0)


# ---- what belongs to a thread ----------------------------------------------------------------


def test_threads_and_goroutines_have_locals_of_their_own():
    local = threading.local()
    local.value = "of the main thread"

    def body(value):
        assert not hasattr(local, "value")
        local.value = value
        offset.gosched()
        return local.value

    def main():
        assert body("of the goroutine") == "of the goroutine"

    offset.run(main)
    assert in_thread(body, "of the thread") == "of the thread"
    assert local.value == "of the main thread"


@main_goroutine
def test_current_thread_and_get_ident_in_a_goroutine():
    seen = makechan(3)

    def body():
        first = threading.get_ident(), threading.current_thread().ident
        offset.gosched()
        seen.send((*first, threading.get_ident(), threading.current_thread().ident))

    goroutines = [go(body) for _ in range(3)]
    identities = [set(seen.recv()) for _ in goroutines]
    wait_ended(*goroutines)
    assert all(len(each) == 1 for each in identities)
    if runtime.stats().get("thread_identity", "virtual") == "virtual" and not FREE_THREADED:
        # Ended goroutines may lend theirs to the next, so this is said of those that live at once.
        waiting = [go_parked(nilchan.recv) for _ in range(5)]
        assert len({each.ident for each in waiting} | {threading.get_ident()}) == 6
        for each in waiting:
            each.cancel()
        wait_ended(*waiting)


@main_goroutine
def test_goroutines_do_not_pile_up_in_threading():
    """`current_thread()` in a goroutine makes a stand-in, as in any thread that `threading` did not start."""
    before = threading.active_count()
    for _ in range(300):
        wait_ended(go(threading.current_thread))
    assert threading.active_count() < before + 100


# ---- callbacks from C ------------------------------------------------------------------------


def thread_from_c(function):
    """Run `function` in a thread that pthread_create made: one that Python has never heard of."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "pthread_create"):
        pytest.skip("no pthread_create in the C library")
    errors = []

    def body(argument):
        try:
            function()
        except BaseException as error:
            errors.append(error)
        return

    callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(body)
    thread = ctypes.c_ulong()
    assert library.pthread_create(ctypes.byref(thread), None, callback, None) == 0
    return library, thread, callback, errors


def join_from_c(started):
    library, thread, callback, errors = started
    assert library.pthread_join(thread, None) == 0
    del callback
    if errors:
        raise errors[0]


def test_a_thread_made_in_c_uses_goroutines():
    """It attaches by PyGILState_Ensure, beside the thread states of goroutines."""
    requests, answers = makechan(), makechan(10)

    def serve():
        for value in requests:
            answers.send(value + 1)

    def body():
        assert current() is None
        goroutine = go(answers.send, "from its own goroutine")
        assert goroutine.join(timeout=PATIENCE)
        for number in range(5):
            requests.send(number)

    server = go(serve)
    join_from_c(thread_from_c(body))
    requests.close()
    wait_ended(server)
    assert [answers.recv() for _ in range(6)] == ["from its own goroutine", 1, 2, 3, 4, 5]


def test_many_threads_made_in_c_beside_a_run():
    total = sync.atomic.Int()

    def body():
        for _ in range(20):
            total.add(1)
            goroutine = go(total.add, 1)
            assert goroutine.join(timeout=PATIENCE)

    def main():
        started = [thread_from_c(body) for _ in range(5)]
        wait_until(lambda: total.load() == 200, "the threads made in C have done their work")
        return started

    for started in offset.run(main):
        join_from_c(started)
    assert total.load() == 200


@main_goroutine
def test_callbacks_run_in_the_thread_state_of_the_goroutine():
    """ctypes asks PyGILState_Ensure for the state of the OS thread: it must be the goroutine's own."""
    local = threading.local()
    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    library = ctypes.CDLL(None)
    compare_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))

    def body(number):
        local.number = number
        seen = []

        def callback(argument):
            seen.append((local.number, current().id, threading.get_ident()))
            return argument + 1

        def compare(left, right):
            seen.append((local.number, current().id, threading.get_ident()))
            return left[0] - right[0]

        for _ in range(20):
            assert callback_type(callback)(number) == number + 1
            offset.gosched()
            numbers = (ctypes.c_int * 3)(3, 1, 2)
            library.qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), compare_type(compare))
            assert list(numbers) == [1, 2, 3]
        assert set(seen) == {(number, current().id, threading.get_ident())}
        ended.send(number)

    ended = makechan()
    goroutines = [go(body, number) for number in range(5)]
    assert sorted(ended.recv(timeout=PATIENCE) for _ in goroutines) == list(range(5))
    wait_ended(*goroutines)


@main_goroutine
def test_callbacks_may_park():
    """The C frame stays on the goroutine's own stack, so a callback may wait like any function."""
    through = makechan()
    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

    def body(number):
        callback = callback_type(lambda argument: through.recv() + argument)
        ended.send((number, callback(number)))

    ended = makechan(5)
    goroutines = [go_parked(body, number) for number in range(5)]
    for _ in goroutines:
        through.send(100)
    wait_ended(*goroutines)
    assert sorted(ended.recv() for _ in goroutines) == [(number, 100 + number) for number in range(5)]


@main_goroutine
def test_functions_of_a_database_may_park():
    def body(number):
        connection = sqlite3.connect(":memory:")
        try:
            connection.create_function("parking", 1, lambda value: (offset.gosched(), value + number)[1])
            for value in range(10):
                assert connection.execute("select parking(?)", (value,)).fetchone() == (value + number,)
        finally:
            connection.close()

    wait_group = sync.WaitGroup()
    for number in range(5):
        wait_group.go(body, number)
    wait_group.wait(timeout=PATIENCE)


def test_tracing_of_threads_goes_on(monkeypatch):
    """`threading.settrace` reaches goroutines as it reaches threads."""
    traced = []

    def tracer(frame, event, argument):
        if frame.f_code is body.__code__:
            traced.append(current() is not None)
        return

    def body():
        return None

    threading.settrace(tracer)
    try:
        wait_ended(go(body))
        in_thread(body)
    finally:
        threading.settrace(None)
    assert True in traced
    assert False in traced


@pytest.mark.skipif(FREE_THREADED, reason="says something about the interpreter's time slices")
def test_a_computing_thread_does_not_stop_goroutines():
    stop = []

    def compute():
        while not stop:
            pass

    def main():
        thread = Thread(compute)
        channel = makechan()
        echo = go(lambda: [channel.send(value) for value in channel.recv()])
        channel.send(range(100))
        received = [channel.recv() for _ in range(100)]
        stop.append(True)
        thread.result()
        wait_ended(echo)
        return received

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        assert offset.run(main) == list(range(100))
    finally:
        sys.setswitchinterval(interval)


def test_sleeping_threads_and_goroutines_beside_each_other():
    """A timeout of a thread ends as one of a goroutine does."""

    def give_up():
        with pytest.raises(TimeoutError):
            nilchan.recv(timeout=0.01)
        started = time.monotonic()
        offset.sleep(0.01)
        return time.monotonic() - started >= 0.01

    results = makechan(1)
    goroutine = go(lambda: results.send(give_up()))
    assert in_thread(give_up)
    assert give_up()
    assert results.recv(timeout=PATIENCE)
    wait_ended(goroutine)
