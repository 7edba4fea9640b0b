"""`offset.syscall.concurrent.futures`: futures that park only who waits, and executors whose calls are goroutines."""

import asyncio
import concurrent.futures as original
import contextvars
import gc
import logging
import operator
import weakref

import offset
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, run_script, wait_ended, wait_until
from offset import makechan
from offset.syscall import threading
from offset.syscall.concurrent import futures
from offset.syscall.concurrent.futures import GoroutineExecutor, ThreadPoolExecutor

every_executor = pytest.mark.parametrize("make", [GoroutineExecutor, ThreadPoolExecutor], ids=["goroutine", "thread"])


def in_and_out(function):
    """Run a test outside goroutines, too."""
    return pytest.mark.parametrize("run", [offset.run, lambda main: main()], ids=["goroutine", "thread"])(function)


# ---- futures ---------------------------------------------------------------------------------


def test_the_names_are_those_of_the_original():
    # `InvalidStateError` is not in that of 3.11, though in the module.
    assert set(futures.__all__) - {"InvalidStateError"} == {*original.__all__, "GoroutineExecutor"} - {
        "InvalidStateError"
    }
    for name in futures.__all__:
        assert hasattr(futures, name)
    assert issubclass(futures.Future, original.Future)
    assert issubclass(GoroutineExecutor, original.Executor)
    with pytest.raises(AttributeError):
        futures.nothing


@main_goroutine
def test_waiting_for_a_future_parks_the_goroutine():
    future = futures.Future()
    waiting = [go_parked(future.result) for _ in range(50)]
    future.set_running_or_notify_cancel()
    future.set_result("result")
    wait_ended(*waiting)
    assert future.result() == "result"
    with pytest.raises(original.TimeoutError):
        futures.Future().result(timeout=0.001)


@main_goroutine
def test_a_cancelled_future():
    future = futures.Future()
    caught = []

    def wait():
        try:
            future.result()
        except original.CancelledError as error:
            caught.append(error)

    waiting = go_parked(wait)
    assert future.cancel()
    wait_ended(waiting)
    assert len(caught) == 1


@main_goroutine
def test_wait_and_as_completed_take_futures_of_both_kinds():
    with original.ThreadPoolExecutor(2) as plain, GoroutineExecutor() as ours:
        gate = threading.Event()
        mixed = [plain.submit(gate.wait), ours.submit(gate.wait), ours.submit(int)]
        done, pending = futures.wait(mixed, return_when=futures.FIRST_COMPLETED)
        assert done == {mixed[2]}
        assert pending == set(mixed[:2])
        gate.set()
        assert futures.wait(mixed).done == set(mixed)
        assert set(futures.as_completed(mixed)) == set(mixed)
        assert set(original.as_completed(mixed)) == set(mixed)
    with pytest.raises(original.TimeoutError):
        list(futures.as_completed([futures.Future()], timeout=0.001))


@main_goroutine
def test_the_end_of_a_goroutine_does_not_travel_in_a_future():
    """Who asks for the result of a call whose goroutine was cancelled goes on."""
    executor = GoroutineExecutor()
    future = executor.submit(makechan().recv)
    working = next(each for each in offset.runtime.goroutines() if "recv" in each.name)
    wait_until(lambda: working.wait_reason)
    working.cancel()
    with pytest.raises(offset.PanicError, match="before it gave a result") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, offset.GoroutineExit)
    wait_ended(working)
    executor.shutdown()
    # One that is only put there is not raised.
    other = futures.Future()
    other.set_exception(offset.GoroutineExit())
    assert isinstance(other.exception(), offset.PanicError)


# ---- both executors --------------------------------------------------------------------------


@every_executor
@in_and_out
def test_calls_give_their_results(make, run):
    def main():
        with make(3) as executor:
            future = executor.submit(divmod, 17, 5)
            assert isinstance(future, original.Future)
            assert future.result() == (3, 2)
            assert isinstance(executor.submit(operator.truediv, 1, 0).exception(), ZeroDivisionError)
            keywords = executor.submit(lambda *args, **kwargs: (args, kwargs), 1, fn=2, self=3)
            assert keywords.result() == ((1,), {"fn": 2, "self": 3})
            assert list(executor.map(pow, range(10), range(10))) == [n**n for n in range(10)]
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(int)

    run(main)


@every_executor
def test_a_bad_number_of_workers(make):
    for number in (0, -1):
        with pytest.raises(ValueError, match="greater than 0"):
            make(number)


@every_executor
@main_goroutine
def test_no_more_than_the_workers_run_at_once(make):
    running, most = 0, 0
    lock, meeting = threading.Lock(), threading.Barrier(3)

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # As many as may be are there at once.
        meeting.wait(PATIENCE)
        with lock:
            running -= 1

    with make(3) as executor:
        for _ in range(30):
            executor.submit(work)
    assert most == 3


@every_executor
@main_goroutine
def test_shutdown_waits_or_cancels(make):
    gate, begun = threading.Event(), makechan(1)
    executor = make(1)
    running = executor.submit(lambda: (begun.send(True), gate.wait())[1])
    pending = [executor.submit(int) for _ in range(3)]
    assert begun.recv(timeout=PATIENCE)
    assert not running.cancel()
    assert pending[0].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(each.cancelled() for each in pending)
    waiting = go_parked(executor.shutdown)
    gate.set()
    wait_ended(waiting)
    assert running.result() is True


@every_executor
@main_goroutine
def test_an_executor_is_used_by_threads_and_goroutines(make):
    with make(4) as executor:
        plain = [Thread(lambda: sum(executor.map(abs, range(50)))) for _ in range(3)]
        ours = executor.submit(lambda: sum(futures.Future and [1, 2, 3]))
        assert ours.result(timeout=PATIENCE) == 6
        assert [each.result() for each in plain] == [1225] * 3


@every_executor
def test_asyncio_runs_calls_in_it(make):
    async def main():
        with make(2) as executor:
            loop = asyncio.get_running_loop()
            return await asyncio.gather(*[loop.run_in_executor(executor, pow, 2, n) for n in range(5)])

    assert asyncio.run(main()) == [1, 2, 4, 8, 16]


@every_executor
@main_goroutine
def test_nothing_is_kept(make):
    class Argument:
        pass

    with make(2) as executor:
        argument = Argument()
        reference = weakref.ref(argument)
        future = executor.submit(id, argument)
        future.result()
        del argument
        wait_until(lambda: (gc.collect(), reference() is None)[1])


# ---- GoroutineExecutor -----------------------------------------------------------------------


@main_goroutine
def test_each_call_has_its_goroutine():
    with GoroutineExecutor() as executor:
        gate = threading.Event()
        waiting = [executor.submit(gate.wait) for _ in range(1000)]
        wait_until(lambda: executor.stats() == {"running": 1000, "pending": 0})
        gate.set()
        assert all(future.result() for future in waiting)


@pytest.mark.parametrize("limit", [None, 1])
@main_goroutine
def test_a_call_has_the_context_of_who_submitted_it(limit):
    variable = contextvars.ContextVar("variable")
    with GoroutineExecutor(limit) as executor:
        answers = []
        for n in range(5):
            variable.set(n)
            answers.append(executor.submit(variable.get))
        assert [answer.result() for answer in answers] == list(range(5))


@main_goroutine
def test_calls_begin_in_order():
    order = []
    with GoroutineExecutor(1) as executor:
        for n in range(20):
            executor.submit(order.append, n)
        assert executor.stats()["running"] <= 1
    assert order == list(range(20))


@main_goroutine
def test_a_call_that_never_begins_is_cancelled():
    executor = GoroutineExecutor(1)
    offset.runtime.lock_os_thread()
    futures_ = [executor.submit(int) for _ in range(3)]
    for goroutine in offset.runtime.goroutines():
        if goroutine.id != offset.current().id and not goroutine.started:
            goroutine.cancel()
    # Without the GIL it may have begun. However that is, each has an end.
    done, pending = futures.wait(futures_, timeout=PATIENCE)
    assert not pending
    assert all(each.cancelled() or each.result() == 0 for each in done)
    executor.shutdown()
    assert executor.stats() == {"running": 0, "pending": 0}


# ---- ThreadPoolExecutor ----------------------------------------------------------------------


def test_a_pool_outlives_a_run(caplog):
    executor = ThreadPoolExecutor(2)

    def main():
        gate = makechan()
        waiting = executor.submit(gate.recv)
        assert executor.submit(int).result() == 0
        return waiting

    for _ in range(3):
        with caplog.at_level(logging.DEBUG):
            waiting = offset.run(main)
        with pytest.raises(offset.PanicError):
            waiting.result(timeout=PATIENCE)
        # Cancelled workers are no failures.
        assert not caplog.records
    assert executor.submit(int).result(timeout=PATIENCE) == 0
    executor.shutdown()


@main_goroutine
def test_initializers():
    here = threading.local()

    def prepare(value):
        here.value = value

    with ThreadPoolExecutor(2, "mine", prepare, ("ready",)) as executor:
        assert executor.submit(lambda: here.value).result() == "ready"
        assert executor.submit(lambda: threading.current_thread().name).result().startswith("mine_")


def test_a_failing_initializer_breaks_the_pool(caplog):
    def main():
        with ThreadPoolExecutor(1, initializer=operator.truediv, initargs=(1, 0)) as executor:
            with pytest.raises(original.BrokenExecutor):
                executor.submit(int).result(timeout=PATIENCE)
            wait_until(lambda: executor._broken)
            with pytest.raises(original.BrokenExecutor):
                executor.submit(int)

    offset.run(main)
    assert any("initializer" in record.message for record in caplog.records)
    # They hold the exception, and with it the frames of the worker.
    caplog.clear()


def test_the_interpreter_waits_for_pools():
    ended = run_script(
        """
        import os
        import offset
        from offset.syscall.concurrent.futures import ThreadPoolExecutor

        executor = ThreadPoolExecutor(2)
        for n in range(4):
            # In one piece, as others write, too.
            executor.submit(lambda n=n: (offset.sleep(0.02 * n), os.write(1, b"ended %d\\n" % n)))
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.splitlines()) == [f"ended {n}" for n in range(4)]


def test_a_pool_that_is_dropped_ends_its_workers():
    def main():
        executor = ThreadPoolExecutor(2)
        assert executor.submit(int).result() == 0
        del executor
        gc.collect()
        wait_until(lambda: offset.runtime.num_goroutine() == 1)

    offset.run(main)


# ---- ProcessPoolExecutor ---------------------------------------------------------------------


def test_a_pool_of_processes():
    ended = run_script(
        """
        import operator, multiprocessing, offset
        import concurrent.futures
        from offset.syscall.concurrent import futures

        def main():
            context = multiprocessing.get_context("spawn")
            with futures.ProcessPoolExecutor(2, mp_context=context) as executor:
                assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
                future = executor.submit(pow, 2, 10)
                assert isinstance(future, futures.Future)
                print(future.result(), list(executor.map(abs, [-1, -2, 3])))
                print(type(executor.submit(operator.truediv, 1, 0).exception()))

        if __name__ == "__main__":
            offset.run(main)
        """,
        timeout=110,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "1024 [1, 2, 3]\n<class 'ZeroDivisionError'>\n"
