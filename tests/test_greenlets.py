"""Greenlets in goroutines: each goroutine has its own, as each OS thread has."""

import contextlib
import contextvars
import gc
import json
import random
import threading
import time
import weakref
from pathlib import Path

import offset
import pytest
from helpers import FREE_THREADED, go_parked, in_thread, main_goroutine, run_script, wait_ended, wait_until
from offset import go, makechan, sync, syscall

greenlet = pytest.importorskip("greenlet")
getcurrent = greenlet.getcurrent


def total_main_greenlets() -> int:
    return greenlet._greenlet.get_total_main_greenlets()


def sums(values, main):
    """In a greenlet: adds up what comes, and gives every third value to the main one."""
    total = 0
    for value in values:
        total += value
        if value % 3 == 0:
            main.switch(value)
    return "sum", total


def adds_up_in_a_greenlet(count, results):
    numbers = makechan()

    def feed():
        for number in range(count):
            numbers.send(number)
        numbers.close()

    go(feed)
    main = getcurrent()
    assert main.parent is None
    inner = greenlet.greenlet(sums)
    given = [inner.switch(numbers, main)]
    while not inner.dead:
        offset.gosched()
        given.append(inner.switch())
    results.send((given[:-1], given[-1]))


@main_goroutine
def test_a_greenlet_parks_its_goroutine():
    results = makechan()
    for _ in range(50):
        go(adds_up_in_a_greenlet, 40, results)
    expected = ([*range(0, 40, 3)], ("sum", sum(range(40))))
    assert [results.recv() for _ in range(50)] == [expected] * 50


@main_goroutine
def test_each_goroutine_has_a_main_greenlet_of_its_own():
    mine = getcurrent()
    there, here = makechan(), makechan()

    def other():
        main = getcurrent()
        here.send(main)
        there.recv()
        assert getcurrent() is main
        here.send(main)

    go(other)
    first = here.recv()
    assert getcurrent() is mine
    assert first is not mine
    assert first.parent is None
    there.send(None)
    assert here.recv() is first
    assert getcurrent() is mine


def test_a_variable_holds_the_main_greenlet_of_a_goroutine_that_is_over():
    """greenlet takes a reference that ``gc.get_referrers`` does not find, as a variable is, for one that was lost."""
    ended = run_script(
        """
        import sys, greenlet, offset
        from offset import go, makechan

        def references_to_one_that_a_variable_holds():
            one = object()
            return sys.getrefcount(one)

        def main():
            mains, looked = makechan(), makechan()

            def holds():
                main = mains.recv()
                there.send(None)
                # The main thread sees to what the goroutine has left.
                while sys.getrefcount(main) > references_to_one_that_a_variable_holds():
                    offset.sleep(0.01)
                # One too many would be dropped right behind that.
                offset.sleep(0.1)
                looked.send((sys.getrefcount(main), main.dead))

            there = makechan()
            for _ in range(20):
                go(holds)
                go(lambda: (mains.send(greenlet.getcurrent()), there.recv()))
            held = (references_to_one_that_a_variable_holds(), True)
            assert [looked.recv() for _ in range(20)] == [held] * 20

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@main_goroutine
def test_another_goroutines_greenlet_cannot_be_switched_to():
    inner = greenlet.greenlet(lambda: getcurrent().parent.switch("once") or "twice")
    assert inner.switch() == "once"

    def other():
        with pytest.raises(greenlet.error, match="different thread"):
            inner.switch()

    go(other).join()
    assert inner.switch() == "twice"


@main_goroutine
def test_a_goroutine_carries_nothing_over():
    """Also where its set of greenlets is used again."""
    marks = []

    def marked():
        main = getcurrent()
        marks.append((getattr(main, "mark", None), greenlet.gettrace(), main.dead, main.gr_frame is None))
        main.mark = "here"
        greenlet.settrace(lambda event, greenlets: None)

    def plain():
        main = getcurrent()
        marks.append((getattr(main, "mark", None), greenlet.gettrace(), main.dead, main.gr_frame is None))

    for each in (plain, marked, plain, marked, plain, plain):
        go(each).join()
    assert marks == [marks[0]] * 6
    assert marks[0][:3] == (None, None, False)


@main_goroutine
def test_greenlets_that_are_left_die_with_their_goroutine():
    kept = []

    def leaves_one():
        inner = greenlet.greenlet(lambda: getcurrent().parent.switch("left"))
        assert inner.switch() == "left"
        kept.append(inner)

    go(leaves_one).join()
    # What it stands on belongs to others now.
    wait_until(lambda: kept[0].dead)
    with pytest.raises(greenlet.error):
        kept[0].switch()
    gone = weakref.ref(kept.pop())
    gc.collect()
    wait_until(lambda: gone() is None)


@main_goroutine
def test_what_only_a_goroutines_greenlet_holds_goes_with_the_goroutine():
    class Held:
        pass

    ended = []

    def one():
        held = Held()
        ended.append(weakref.ref(held))

        def inner(held):
            try:
                getcurrent().parent.switch()
            finally:
                ended.append("finally")

        it = greenlet.greenlet(inner)
        it.switch(held)

    go(one).join()
    gc.collect()
    assert ended[1:] == ["finally"]
    assert ended[0]() is None


@main_goroutine
def test_main_greenlets_are_freed_and_once_only():
    """Without the GIL greenlet drops a reference too many to one that another thread has made."""
    mains = []

    def seen():
        mains.append(weakref.ref(getcurrent()))

    def gone() -> bool:
        # Threads take note of what others have dropped when they run the next time, or in a collection.
        gc.collect()
        return not any(main() for main in mains)

    for _ in range(100):
        go(seen).join()
    wait_until(gone)


@main_goroutine
def test_sets_of_greenlets_do_not_pile_up():
    def plain():
        inner = greenlet.greenlet(lambda: offset.sleep(0.0001))
        inner.switch()

    def marked():
        getcurrent().mark = "here"

    def dying() -> bool:
        """Whether a thread is still there to die with a set."""
        for thread in Path("/proc/self/task").iterdir():
            # It may end meanwhile.
            with contextlib.suppress(OSError):
                if (thread / "comm").read_text() == "offset-greenlet\n":
                    return True
        return False

    # The sets of the second kind are not used again. A thread dies with each, and leaves one that is as new.
    before = total_main_greenlets()
    for kind in [plain, *[marked] * 10, plain]:
        wait_ended(*[go(kind) for _ in range(20)])
        wait_until(lambda: not dying())
    wait_until(lambda: total_main_greenlets() <= before + 100)


def test_sets_die_with_the_threads_of_machines():
    """A machine that ends takes with it what a goroutine left there unused."""
    ended = run_script(
        """
        import time, offset
        from greenlet import getcurrent
        from greenlet._greenlet import get_total_main_greenlets
        from offset import go, runtime

        def blocks():
            getcurrent()
            # Not one of ours: each has a thread of its own.
            time.sleep(0.2)

        def main():
            left = []
            for _ in range(3):
                waiting = [go(blocks) for _ in range(8)]
                for each in waiting:
                    each.join()
                # Threads that have nothing to do end after some seconds.
                while runtime.stats()["machines"] > 2:
                    offset.sleep(0.1)
                # greenlet sees to it on the main thread, when that gets to it.
                until = time.monotonic() + 20
                while left and get_total_main_greenlets() > left[0] + 2 and time.monotonic() < until:
                    offset.sleep(0.1)
                left.append(get_total_main_greenlets())
            print(left)

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    left = json.loads(ended.stdout)
    assert left[-1] <= left[0] + 2, left


@main_goroutine
def test_context_variables_belong_to_the_greenlet():
    variable = contextvars.ContextVar("variable", default="none")

    def inner():
        variable.set("inside")
        offset.sleep(0.001)
        return variable.get()

    def outer(name):
        variable.set(name)
        it = greenlet.greenlet(inner)
        assert it.switch() == "inside"
        assert variable.get() == name

    wait_ended(*[go(outer, str(index)) for index in range(20)])


@main_goroutine
def test_exceptions_cross_greenlets_and_parks():
    def inner(channel):
        try:
            channel.recv()
        except ZeroDivisionError:
            offset.gosched()
            raise KeyError("from inside") from None

    channel = makechan()
    results = makechan()

    def outer():
        it = greenlet.greenlet(inner)
        try:
            it.switch(channel)
        except KeyError as error:
            results.send(error.args)

    one = go_parked(outer)
    one.throw(ZeroDivisionError())
    assert results.recv() == ("from inside",)


@main_goroutine
def test_a_goroutine_is_cancelled_inside_of_a_greenlet():
    ends = []

    def inner():
        try:
            offset.sleep(3600)
        finally:
            ends.append("inner")

    def outer():
        try:
            greenlet.greenlet(inner).switch()
        finally:
            ends.append("outer")

    one = go_parked(outer)
    one.cancel()
    wait_ended(one)
    assert ends == ["inner", "outer"]


@main_goroutine
def test_greenlets_beside_calls_that_block():
    """Hand-offs and rescues: the machines change, the OS thread of a goroutine that has greenlets does not."""
    done = makechan()

    def inner(seed):
        random_ = random.Random(seed)
        idents = set()
        for _ in range(10):
            what = random_.randrange(4)
            if what == 0:
                time.sleep(0.012)
            elif what == 1:
                offset.sleep(0.001)
            elif what == 2:
                syscall.blocking(time.sleep, 0.001)
            else:
                getcurrent().parent.switch()
            idents.add(threading.get_ident())
        return idents

    def outer(seed):
        it = greenlet.greenlet(inner)
        result = it.switch(seed)
        while not it.dead:
            time.sleep(0.001)
            result = it.switch()
        done.send(result == {threading.get_ident()})

    count = 8 if FREE_THREADED else 40
    for seed in range(count):
        go(outer, seed)
    assert [done.recv() for _ in range(count)] == [True] * count


@main_goroutine
def test_locks_and_selects_inside_of_greenlets():
    mutex, numbers, never = sync.Mutex(), makechan(), makechan()
    order = []

    def inner(number):
        for step in range(20):
            with mutex:
                order.append(number)
                if step % 5 == 0:
                    offset.gosched()
            if step % 4 == 0:
                getcurrent().parent.switch()
            sends = numbers.if_send((number, step))
            assert offset.select(never.if_recv(), sends) is sends

    def outer(number):
        it = greenlet.greenlet(inner)
        it.switch(number)
        while not it.dead:
            it.switch()

    for number in range(10):
        go(outer, number)
    got = [numbers.recv() for _ in range(200)]
    assert sorted(got) == [(number, step) for number in range(10) for step in range(20)]
    assert sorted(order) == sorted([*range(10)] * 20)


def test_the_threads_greenlets_are_there_again_after_run():
    def thread():
        main = getcurrent()
        inner = greenlet.greenlet(lambda: getcurrent().parent.switch("first") or "second")
        assert inner.switch() == "first"
        results = []

        def goroutine():
            results.append(getcurrent() is main)
            with pytest.raises(greenlet.error):
                inner.switch()

        go(goroutine).join()
        assert results == [False]
        assert getcurrent() is main
        assert inner.switch() == "second"

    in_thread(thread)


def test_greenlet_is_imported_by_a_goroutine_that_uses_it_at_once():
    """Others have run on its OS thread before, and do again while it is inside of a greenlet."""
    ended = run_script(
        """
        import offset
        from offset import go, makechan

        def other(channel):
            for value in channel:
                import greenlet
                inner = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch(offset.gosched()))
                inner.switch()
                inner.switch()

        def imports(channel):
            import greenlet

            def inner():
                for number in range(100):
                    channel.send(number)
                return "all sent"

            print(greenlet.greenlet(inner).switch())
            channel.close()

        def main():
            channel = makechan()
            others = [go(other, channel) for _ in range(3)]
            offset.sleep(0.01)
            others.append(go(imports, channel))
            for one in others:
                one.join()

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "all sent\n", "")


def test_main_has_used_greenlets_before_the_runtime_starts():
    ended = run_script(
        """
        import greenlet, offset

        main_thread = greenlet.getcurrent()
        inner = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch("first") or "second")
        assert inner.switch() == "first"

        def main():
            assert greenlet.getcurrent() is not main_thread
            own = greenlet.greenlet(lambda: offset.sleep(0.001) or "own")
            assert own.switch() == "own"

        offset.run(main)
        assert greenlet.getcurrent() is main_thread
        print(inner.switch())
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "second\n", "")


def test_the_process_ends_and_forks_inside_of_greenlets():
    ended = run_script(
        """
        import os, warnings, greenlet, offset
        from offset import go, makechan

        # CPython's own about forks of processes that have threads.
        warnings.simplefilter("ignore", DeprecationWarning)

        def sleeps():
            try:
                offset.sleep(3600)
            finally:
                print("finally")

        def forks():
            child = os.fork()
            if child == 0:
                # A new runtime, with goroutines and greenlets of its own.
                results = makechan()
                go(lambda: results.send(greenlet.greenlet(lambda: offset.sleep(0.001) or "child").switch()))
                print(results.recv(), flush=True)
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        def main():
            ready = makechan()
            go(lambda: greenlet.greenlet(lambda: ready.send(None) or sleeps()).switch())
            ready.recv()
            print(greenlet.greenlet(forks).switch(), flush=True)

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "child\n7\nfinally\n", "")
