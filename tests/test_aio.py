"""`offset.aio` from goroutines: `await_`, and the loop that the library owns.

Invariants: whatever ends a goroutine's wait ends the coroutine, which has run its `finally` blocks by then; errors
cross with their traceback, context variables both ways; nothing is left of a loop when its run is over.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
import traceback

import offset
import pytest
from coroutines import Sleeper, numbers, ready
from helpers import (
    PATIENCE,
    go_parked,
    in_thread,
    main_goroutine,
    run_script,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import aio, context, go, makechan, run

pytestmark = pytest.mark.usefixtures("loop_patience")

variable = contextvars.ContextVar("variable", default="nothing")


# ---- await_ -----------------------------------------------------------------------------------


@main_goroutine
def test_a_coroutine_gives_its_result():
    async def add(left, right):
        await asyncio.sleep(0)
        return left + right

    assert aio.await_(ready(5)) == 5
    assert aio.await_(add(1, 2)) == 3


@main_goroutine
def test_other_awaitables():
    class Thing:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "the thing"

    async def future_of_the_loop():
        return asyncio.get_running_loop().create_future()

    assert aio.await_(Thing()) == "the thing"
    future = aio.await_(future_of_the_loop())
    future.get_loop().call_soon_threadsafe(future.set_result, 7)
    assert aio.await_(future) == 7


@main_goroutine
def test_what_cannot_be_awaited_is_refused():
    with pytest.raises(TypeError, match="not int"):
        aio.await_(5)
    with pytest.raises(TypeError, match="call it first"):
        aio.await_(ready)
    with pytest.raises(TypeError, match="a token is a running loop"):
        aio.await_(ready(), token=object())
    # It is closed: no warning that nobody has awaited it.
    with pytest.raises(TypeError, match="duration"):
        aio.await_(ready(), timeout="soon")
    for thing, hint in (
        (makechan(), r"not Chan; iterate\(\) goes through it"),
        (concurrent.futures.Future(), "Future of concurrent.futures; its result"),
        ([5], "asyncio.gather"),
    ):
        with pytest.raises(TypeError, match=hint):
            aio.await_(thing)
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), pytest.raises(RuntimeError, match="does not run"):
        aio.await_(ready(), token=loop)
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), pytest.raises(RuntimeError, match="in a coroutine, and give that to"):
        aio.await_(loop.create_future())


@main_goroutine
def test_a_loop_that_gets_no_thread_leaves_nothing_behind(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            aio.await_(ready())
    assert aio.await_(ready("as ever")) == "as ever"


def test_on_the_thread_of_a_loop_it_would_never_end():
    async def main():
        with pytest.raises(RuntimeError, match="would stop the event loop"):
            aio.await_(ready())
        with pytest.raises(RuntimeError, match="would stop the event loop"):
            aio.iterate(makechan())

    asyncio.run(main())
    run(lambda: aio.await_(main()))


def test_plain_threads_await_as_well():
    def main():
        assert in_thread(lambda: aio.await_(ready(3))) == 3
        assert in_thread(lambda: list(aio.iterate(numbers(3)))) == [0, 1, 2]

    run(main)


@main_goroutine
def test_only_the_goroutine_waits():
    async def echo(requests, answers):
        async for request in requests:
            await answers.asend(request * 2)

    requests, answers = makechan(), makechan()
    server = go(lambda: aio.await_(echo(requests, answers)))
    wait_parked(server, reason="await")
    assert server.wait_reason == "await"
    for number in range(20):
        requests.send(number)
        assert answers.recv(timeout=PATIENCE) == number * 2
    requests.close()
    wait_ended(server)


@main_goroutine
def test_many_at_once():
    gate = makechan()

    async def number_of(number):
        await gate.arecv()
        return number

    results = makechan(100)
    goroutines = [go(lambda number=number: results.send(aio.await_(number_of(number)))) for number in range(100)]
    wait_until(lambda: gate.stats()["receivers"] == 100)
    for _ in range(100):
        gate.send(None)
    wait_ended(*goroutines)
    assert sorted(results.recv() for _ in range(100)) == list(range(100))


@main_goroutine
def test_errors_cross_with_their_traceback():
    async def inner():
        await asyncio.sleep(0)
        raise ValueError("from inside")

    async def outer():
        await inner()

    with pytest.raises(ValueError, match="from inside") as caught:
        aio.await_(outer())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_errors_cross_with_their_traceback"
    assert names[-2:] == ["outer", "inner"]


@main_goroutine
def test_errors_that_are_none_of_exception_cross_too():
    class Own(BaseException):
        pass

    async def fail(error):
        raise error

    async def cancel_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def fail_later(error):
        await asyncio.sleep(0)
        raise error

    for error in (Own, SystemExit, KeyboardInterrupt):
        for way in (fail, fail_later):
            with pytest.raises(error):
                aio.await_(way(error()))
    with pytest.raises(RuntimeError, match="StopIteration"):
        aio.await_(fail(StopIteration()))
    with pytest.raises(asyncio.CancelledError):
        aio.await_(cancel_itself())


@main_goroutine
def test_context_variables_cross_both_ways():
    other = contextvars.ContextVar("other")

    async def change(pause):
        seen = variable.get()
        if pause:
            await asyncio.sleep(0)
        variable.set(seen + ", and the coroutine")
        other.set(pause)
        return seen

    variable.set("the goroutine")
    for pause in (False, True):
        before = variable.get()
        assert aio.await_(change(pause)) == before
        assert variable.get() == before + ", and the coroutine"
        assert other.get() is pause


# ---- what ends a wait ----------------------------------------------------------------------------


@main_goroutine
def test_a_timeout_cancels_the_coroutine():
    sleeper = Sleeper(stubborn=3)
    with pytest.raises(TimeoutError):
        aio.await_(sleeper.sleep(), timeout=0.01)
    assert sleeper.ended in (["cancelled"], [])
    assert bool(sleeper.ended) == (len(sleeper.began) == 1)


@main_goroutine
def test_a_result_that_comes_with_the_timeout_is_given():
    async def late():
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "all the same"

    # One that is cancelled before it begins has no result.
    while True:
        with contextlib.suppress(TimeoutError):
            assert aio.await_(late(), timeout=0.05) == "all the same"
            break


@main_goroutine
def test_cancelling_the_goroutine_cancels_the_coroutine():
    sleeper, left = Sleeper(stubborn=2), []

    def body():
        try:
            aio.await_(sleeper.sleep())
        except offset.GoroutineExit:
            left.append(list(sleeper.ended))
            raise

    goroutine = go(body)
    sleeper.began.recv(timeout=PATIENCE)
    goroutine.cancel()
    wait_ended(goroutine)
    # It had ended before the goroutine went on.
    assert left == [["cancelled"]]


# One that comes between the making of the coroutine and the call leaves it as it is.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@main_goroutine
def test_a_cancellation_at_any_moment_leaves_no_coroutine_behind(rng):
    begun, ended = [], []

    async def sleep():
        begun.append(None)
        try:
            await asyncio.sleep(PATIENCE * 10)
        finally:
            ended.append(None)

    aio.await_(ready())
    for _ in range(100):
        goroutine = go(lambda: aio.await_(sleep()))
        for _ in range(rng.randrange(300)):
            if rng.random() < 0.1:
                offset.gosched()
        goroutine.cancel()
        wait_ended(goroutine)
        assert len(begun) == len(ended)


@main_goroutine
def test_a_context_that_ends_cancels_the_coroutine():
    sleeper = Sleeper()
    with pytest.raises(context.DeadlineExceeded), context.timeout(0.02):
        aio.await_(sleeper.sleep())
    assert bool(sleeper.ended) == (len(sleeper.began) == 1)
    ctx, cancel = context.with_cancel(context.background())
    cancel()
    with pytest.raises(context.Canceled), context.scope(ctx):
        aio.await_(Sleeper().sleep())


def test_ctrl_c_cancels_the_coroutine_of_the_main_goroutine():
    ended = run_script(
        """
        import asyncio, os, signal
        from offset import aio, run

        async def sleep():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(600)
            finally:
                print("cancelled", flush=True)

        def main():
            try:
                aio.await_(sleep())
            except KeyboardInterrupt:
                print("interrupted", flush=True)

        run(main)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "cancelled\ninterrupted\n"), ended.stderr


@main_goroutine
def test_one_that_will_not_end_is_left_behind(monkeypatch, capfd):
    monkeypatch.setattr("offset._exit.GRACE", 0.05)
    release, began = makechan(), makechan()

    async def refuse():
        await began.asend(None)
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await release.arecv()
        raise ValueError("nobody asks any more")

    async def told(messages):
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: messages.append(told))

    messages = []
    aio.await_(told(messages))
    goroutine = go(lambda: aio.await_(refuse()))
    began.recv(timeout=PATIENCE)
    goroutine.cancel()
    wait_ended(goroutine)
    release.send(None, timeout=PATIENCE)
    wait_until(lambda: messages)
    assert "after its goroutine had gone on" in messages[0]["message"]


# ---- the loop ---------------------------------------------------------------------------------


def loop_threads():
    return [thread for thread in threading.enumerate() if thread.name == "offset-asyncio"]


def test_the_loop_ends_with_its_run_and_its_tasks_with_it():
    ended = []

    async def background():
        try:
            await asyncio.sleep(PATIENCE * 10)
        finally:
            await asyncio.sleep(0)
            ended.append("background")

    async def begin():
        task = asyncio.get_running_loop().create_task(background())
        await asyncio.sleep(0)
        return task

    def main():
        assert aio.await_(begin()).done() is False
        assert len(loop_threads()) == 1

    for _ in range(2):
        run(main)
        assert not loop_threads()
    assert ended == ["background"] * 2


def test_finally_blocks_of_goroutines_may_await_at_the_end():
    done = []

    def worker(began):
        try:
            began.send(None)
            makechan().recv()
        finally:
            done.append(aio.await_(ready("cleaned up")))

    def main():
        began = makechan()
        go(worker, began)
        began.recv()

    run(main)
    assert done == ["cleaned up"]


def test_who_comes_too_late_is_told():
    program = """
        import atexit
        from offset import aio, run

        async def ready():
            return "ready"

        def late():
            try:
                print(aio.await_(ready()))
            except RuntimeError as error:
                print(error)

        atexit.register(late)
        print(aio.await_(ready()))
        run(lambda: print(aio.await_(ready())))
        print(aio.await_(ready()))
        """
    ended = run_script(program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[:3] == ["ready"] * 3
    assert len(ended.stdout.splitlines()) == 4


def test_the_interpreter_ends_with_coroutines_under_way():
    ended = run_script(
        """
        import asyncio, threading
        from offset import aio, go, makechan

        began = makechan()

        async def sleep():
            try:
                await began.asend(None)
                await asyncio.sleep(600)
            finally:
                print("the coroutine ends", flush=True)

        go(lambda: aio.await_(sleep()))
        began.recv()
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the coroutine ends\n", "")


def test_a_forked_child_has_a_loop_of_its_own():
    ended = run_script(
        """
        import asyncio, os, warnings
        from offset import aio, run

        warnings.simplefilter("ignore")

        async def pid():
            await asyncio.sleep(0)
            return os.getpid()

        def main():
            assert aio.await_(pid()) == os.getpid()

        def both():
            main()
            if os.fork() == 0:
                os._exit(0 if aio.await_(pid()) == os.getpid() else 3)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
            main()

        main()
        if os.fork() == 0:
            main()
            run(main)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        run(both)
        main()
        print("all of them")
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "all of them\n"), ended.stderr


DEADLOCKS = {
    "after a coroutine": ("aio.await_(asyncio.sleep(0.01)); ch.recv()", True),
    "a task that sends": ("aio.await_(begin(later(ch))); print(ch.recv())", False),
    "a goroutine that awaits": ("go(lambda: aio.await_(later(ch))); print(ch.recv())", False),
    "a timer of the loop": ("aio.await_(timer(ch)); print(ch.recv())", False),
}


@pytest.mark.parametrize(("body", "dead"), DEADLOCKS.values(), ids=DEADLOCKS)
def test_deadlocks_are_found_if_and_only_if_there_are_some(body, dead):
    ended = run_script(
        f"""
        import asyncio, sys
        from offset import DeadlockError, aio, go, makechan, run

        # Of uvloop's loops nobody can tell what they have to do.
        sys.modules["uvloop"] = None

        async def later(ch):
            await asyncio.sleep(0.2)
            await ch.asend("woken")

        async def begin(coroutine):
            global task
            task = asyncio.create_task(coroutine)

        async def timer(ch):
            def ring():
                ch.try_send("woken") or loop.call_later(0.2, ring)

            loop = asyncio.get_running_loop()
            loop.call_later(0.2, ring)

        def main():
            ch = makechan()
            {body}

        try:
            run(main)
        except DeadlockError:
            print("deadlock")
        """
    )
    assert ended.stdout == ("deadlock\n" if dead else "woken\n"), ended.stderr


def test_in_a_bubble_time_stands_still_meanwhile():
    from offset import testing, time

    async def real():
        await asyncio.sleep(0.01)
        return "real"

    def body():
        began = time.now()
        assert aio.await_(real()) == "real"
        assert time.now() == began
        goroutine = go(lambda: aio.await_(real()))
        goroutine.join()
        assert time.now() == began

    run(lambda: aio.await_(ready()))
    testing.bubble(body)
    aio._loop._stop(PATIENCE, None, lambda: False)


@main_goroutine
def test_another_loop_by_its_token():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    wait_until(loop.is_running)

    async def where():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    sleeper = Sleeper()
    try:
        assert aio.await_(where(), token=loop) is loop
        assert aio.await_(where()) is not loop
        future = loop.create_future()
        loop.call_soon_threadsafe(future.set_result, "of the other loop")
        assert aio.await_(future) == "of the other loop"
        goroutine = go(lambda: aio.await_(sleeper.sleep(), token=loop))
        sleeper.began.recv(timeout=PATIENCE)
        goroutine.cancel()
        wait_ended(goroutine)
        assert sleeper.ended == ["cancelled"]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@main_goroutine
def test_a_task_that_would_end_the_program_ends_no_other(caplog):
    gate = makechan()

    async def leave(error):
        async def exits():
            raise error

        return asyncio.get_running_loop(), asyncio.get_running_loop().create_task(exits())

    async def where():
        await gate.arecv()
        return asyncio.get_running_loop()

    results = makechan(1)
    bystander = go_parked(lambda: results.send(aio.await_(where())), reason="await")
    for error in (SystemExit(3), KeyboardInterrupt()):
        loop, task = aio.await_(leave(error))
        wait_until(task.done)
        assert task.exception() is error
        assert aio.await_(ready("the same loop")) == "the same loop"
    gate.send(None, timeout=PATIENCE)
    assert results.recv(timeout=PATIENCE) is loop
    wait_ended(bystander)
    # uvloop raises it at the end of the turn in which it came.
    wait_until(lambda: len(caplog.messages) == 2)
    assert set(caplog.messages) == {"a task would end the program; only the task has ended"}
    caplog.clear()


def test_such_a_task_at_the_end_of_the_loop(caplog):
    ended = []

    async def background(error):
        try:
            await asyncio.sleep(PATIENCE * 10)
        finally:
            await asyncio.sleep(0)
            ended.append(True)
            raise error

    async def begin():
        tasks = [asyncio.create_task(background(error)) for error in (SystemExit(3), KeyboardInterrupt())]
        await asyncio.sleep(0)
        return tasks

    tasks = run(lambda: aio.await_(begin()))
    assert ended == [True, True]
    assert [type(task.exception()) for task in tasks] == [SystemExit, KeyboardInterrupt]
    assert caplog.messages != []
    caplog.clear()


@main_goroutine
def test_another_loop_that_is_closed_before_the_call_begins(monkeypatch):
    monkeypatch.setattr("offset.aio._await._GLANCE", 0.01)
    loop = asyncio.new_event_loop()
    running, submitted = threading.Event(), threading.Event()

    def block():
        # What is handed in meanwhile comes in the next turn, and there is none.
        running.set()
        submitted.wait(PATIENCE)
        loop.stop()

    def body():
        loop.call_soon(block)
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=body)
    thread.start()
    wait_until(running.is_set)
    errors = makechan(1)

    def call():
        try:
            aio.await_(ready(), token=loop)
        except RuntimeError as error:
            errors.send(str(error))

    goroutine = go_parked(call, reason="await")
    submitted.set()
    assert "was closed before the end" in errors.recv(timeout=PATIENCE)
    wait_ended(goroutine)
    thread.join()


@main_goroutine
def test_what_would_end_the_program_crosses_from_another_loop():
    async def fail(pause, error):
        if pause:
            await asyncio.sleep(0)
        raise error

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    wait_until(loop.is_running)
    try:
        for pause in (False, True):
            with pytest.raises(SystemExit):
                aio.await_(fail(pause, SystemExit(3)), token=loop)
        assert aio.await_(ready("goes on"), token=loop) == "goes on"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
