"""`offset.syscall.queue`: queues between goroutines and threads."""

import gc
import queue as original
import threading

import offset
import pytest
from helpers import PATIENCE, Thread, assert_no_growth, go_parked, main_goroutine, wait_ended
from offset import go
from offset.syscall import queue

every_queue = pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])


@every_queue
def test_an_instance_is_one_of_the_originals(kind):
    assert isinstance(getattr(queue, kind)(), getattr(original, kind))
    assert getattr(queue, kind).__doc__ == getattr(original, kind).__doc__
    assert repr(getattr(queue, kind)[int]) == f"offset.syscall.queue.{kind}[int]"


def test_the_exceptions_are_the_originals():
    assert (queue.Empty, queue.Full) == (original.Empty, original.Full)


@every_queue
def test_items_go_through(kind):
    def main():
        items = getattr(queue, kind)()
        taking = go_parked(lambda: [items.get() for _ in range(5)])
        for n in range(5):
            items.put(n)
        wait_ended(taking)
        assert items.empty()
        for n in (3, 1, 2):
            items.put(n)
        assert (items.qsize(), items.empty()) == (3, False)
        return [items.get() for _ in range(3)]

    order = {"LifoQueue": [2, 1, 3], "PriorityQueue": [1, 2, 3]}.get(kind, [3, 1, 2])
    assert offset.run(main) == order
    assert main() == order


@every_queue
def test_the_ways_to_be_empty(kind):
    items = getattr(queue, kind)()

    def main():
        for wait in (
            items.get_nowait,
            lambda: items.get(False),
            lambda: items.get(block=False, timeout=-1),
            lambda: items.get(timeout=0),
            lambda: items.get(True, 0.001),
        ):
            with pytest.raises(original.Empty) as caught:
                wait()
            assert caught.value.__cause__ is None
        with pytest.raises(ValueError, match="non-negative"):
            items.get(timeout=-1)

    main()
    offset.run(main)


@main_goroutine
def test_a_bounded_queue_holds_senders_up():
    items = queue.Queue(1)
    items.put("first")
    with pytest.raises(original.Full):
        items.put_nowait("refused")
    with pytest.raises(original.Full):
        items.put("refused", timeout=0.001)
    waiting = [go_parked(items.put, n) for n in range(3)]
    assert [items.get() for _ in range(4)] == ["first", 0, 1, 2]
    wait_ended(*waiting)


@main_goroutine
def test_join_and_task_done():
    items, done = queue.Queue(), []
    for n in range(20):
        items.put(n)

    def work():
        while True:
            try:
                n = items.get_nowait()
            except original.Empty:
                return
            offset.gosched()
            done.append(n)
            items.task_done()

    workers = [go(work) for _ in range(4)]
    items.join()
    assert sorted(done) == list(range(20))
    wait_ended(*workers)
    with pytest.raises(ValueError, match="too many"):
        items.task_done()


@pytest.mark.skipif(not hasattr(original.Queue, "shutdown"), reason="since 3.13")
@main_goroutine
def test_shutdown_wakes_those_that_wait():
    items = queue.Queue(1)
    ended = []

    def take():
        try:
            items.get()
        except original.ShutDown:
            ended.append(True)

    waiting = [go_parked(take) for _ in range(3)]
    items.shutdown()
    wait_ended(*waiting)
    assert ended == [True] * 3


@every_queue
@main_goroutine
def test_between_goroutines_and_threads(kind):
    items, taken = getattr(queue, kind)(), queue.SimpleQueue()

    def take():
        while (item := items.get(timeout=PATIENCE))[0] == 0:
            taken.put(item[1])

    plain = [Thread(take) for _ in range(2)]
    goroutines = [go(take) for _ in range(2)]
    for n in range(400):
        items.put((0, n))
        if n % 50 == 0:
            offset.gosched()
    if kind == "LifoQueue":
        # The last of these would come before what is still in it.
        while not items.empty():
            offset.gosched()
    for _ in range(4):
        items.put((1, None))
    wait_ended(*goroutines)
    for each in plain:
        each.result()
    assert sorted(taken.get_nowait() for _ in range(400)) == list(range(400))
    assert taken.empty()


@every_queue
@main_goroutine
def test_a_cancelled_get_loses_nothing(kind):
    items = getattr(queue, kind)()
    waiting = [go_parked(items.get) for _ in range(3)]
    waiting[0].cancel()
    wait_ended(waiting[0])
    for n in range(3):
        items.put(n)
    wait_ended(*waiting)
    assert items.qsize() == 1


@main_goroutine
def test_simple_queue_wakes_in_order():
    items, order = queue.SimpleQueue(), []
    waiting = [go_parked(lambda n=n: order.append((n, items.get()))) for n in range(5)]
    for n in range(5):
        items.put(n)
    wait_ended(*waiting)
    assert sorted(order) == [(n, n) for n in range(5)]


def test_simple_queue_may_be_put_to_by_a_finalizer():
    """In the middle of whatever else, another `put` included, as the one in C."""
    items = queue.SimpleQueue()

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            items.put("finalized")

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(500):
            Cycle()
            items.put([])
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert sum(items.get() == "finalized" for _ in range(1000)) == 500


def test_simple_queue_takes_every_argument_of_the_others():
    items = queue.SimpleQueue()
    items.put(1, False, timeout=5)
    items.put(item=2, block=True)
    items.put_nowait(3)
    items.put(None)
    items.put(Exception)
    assert [items.get(block=True, timeout=1) for _ in range(5)] == [1, 2, 3, None, Exception]
    for timeout in (1e30, float("nan")):
        with pytest.raises((OverflowError, ValueError)):
            items.get(timeout=timeout)
    with pytest.raises(TypeError):
        items.get(timeout="1")


def test_simple_queue_lets_go_of_what_it_holds():
    class Item:
        pass

    def use():
        items = queue.SimpleQueue()
        items.put(Item())
        items.put(items)
        items.get()

    assert_no_growth(use)


def test_the_original_is_untouched():
    assert original.Queue.__init__.__globals__ is vars(original)
    assert vars(original)["threading"] is threading
    assert isinstance(original.Queue().mutex, type(threading.Lock()))
