"""`Once`, `once_func`, `once_value`, `Pool` and `Map` of `offset.sync`."""

from __future__ import annotations

import contextlib
import gc
import traceback
import weakref

import offset
import pytest
from helpers import (
    Thread,
    assert_no_growth,
    collect,
    go_parked,
    in_thread,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import PanicError, go, goexit, gosched, makechan, select
from offset.sync import Map, Once, Pool, once_func, once_value


class Thing:
    """Something that can be watched with a weak reference."""


# ---- Once ------------------------------------------------------------------------------------


@main_goroutine
def test_a_function_is_done_once():
    once, calls = Once(), []
    for number in range(3):
        assert once.do(lambda number=number: calls.append(number)) is None
    assert calls == [0]


@main_goroutine
def test_everybody_waits_until_it_is_done():
    """Go's TestOnce: whoever comes back from `do` finds the function finished."""
    once, calls = Once(), []

    def slow():
        for _ in range(20):
            gosched()
        calls.append("done")

    def body():
        once.do(slow)
        assert calls == ["done"]

    threads = [Thread(body) for _ in range(3)]
    wait_ended(*[go(body) for _ in range(20)])
    for thread in threads:
        thread.result()
    assert calls == ["done"]


@main_goroutine
def test_an_error_counts_as_done():
    once, calls = Once(), []

    def fail():
        calls.append("called")
        raise LookupError("once")

    with pytest.raises(LookupError, match="once"):
        once.do(fail)
    once.do(fail)
    once.do(lambda: calls.append("other"))
    assert calls == ["called"]


@pytest.mark.parametrize("ending", ["goexit", "cancel"])
@main_goroutine
def test_an_end_of_the_goroutine_counts_as_done(ending):
    once, channel = Once(), makechan()

    def body():
        channel.recv()
        goexit()

    goroutine = go_parked(once.do, body)
    behind = go(once.do, lambda: pytest.fail("called a second time"))
    wait_parked(behind)
    if ending == "cancel":
        goroutine.cancel()
    else:
        channel.send(None)
    wait_ended(goroutine, behind)


@main_goroutine
def test_once_leaves_nothing_behind():
    thing = Thing()

    def use():
        once = Once()
        once.do(lambda: thing)
        with contextlib.suppress(LookupError):
            once.do(lambda: thing)

    assert_no_growth(use, probes=[thing])
    assert isinstance(Once().stats(), dict)


# ---- once_func and once_value ------------------------------------------------------------------


@main_goroutine
def test_once_func_calls_once():
    calls = []
    function = once_func(lambda: calls.append("called"))
    assert calls == []
    for _ in range(3):
        assert function() is None
    assert calls == ["called"]


@main_goroutine
def test_once_value_gives_the_value_of_the_one_call():
    made = []

    def make():
        made.append(object())
        return made[-1]

    value = once_value(make)
    got = []
    wait_ended(*[go(lambda: got.append(value())) for _ in range(20)])
    got += [in_thread(value), value()]
    assert len(made) == 1
    assert all(each is made[0] for each in got)


@pytest.mark.parametrize("make", [once_func, once_value])
@main_goroutine
def test_every_call_raises_the_one_exception(make):
    calls = []

    def fail():
        calls.append("called")
        raise LookupError("the only one")

    function = make(fail)
    caught, lengths = [], []
    for _ in range(4):
        with pytest.raises(LookupError, match="the only one") as info:
            function()
        caught.append(info.value)
        lengths.append(len(traceback.extract_tb(info.value.__traceback__)))
        assert traceback.extract_tb(info.value.__traceback__)[-1].name == "fail"
    assert calls == ["called"]
    assert all(each is caught[0] for each in caught)
    # Every caller sees where it came from, and it does not grow with the callers.
    assert len(set(lengths[1:])) == 1


@pytest.mark.parametrize("make", [once_func, once_value])
@main_goroutine
def test_a_call_that_ended_its_goroutine_is_an_error_for_the_next(make):
    function = make(goexit)
    ended = go(function)
    wait_ended(ended)
    for _ in range(2):
        with pytest.raises(PanicError):
            function()


@pytest.mark.parametrize("make", [once_func, once_value])
@main_goroutine
def test_the_function_is_let_go_once_it_was_called(make):
    """As in Go: what only the first call needs is not kept for the others."""
    thing = Thing()
    watch = weakref.ref(thing)

    def work(held=thing):
        """Hold the thing."""

    function = make(work)
    del thing, work
    assert watch() is not None
    function()
    assert watch() is None
    function()


@pytest.mark.parametrize("make", [once_func, once_value])
def test_the_made_function_takes_after_its_function(make):
    def work():
        """Say what it does."""

    function = make(work)
    assert function.__name__ == "work"
    assert function.__doc__ == "Say what it does."
    with pytest.raises(TypeError):
        make(None)
    with pytest.raises(TypeError):
        function("argument")


# ---- Pool ------------------------------------------------------------------------------------


@main_goroutine
def test_an_empty_pool_gives_none_or_what_new_makes():
    assert Pool().get() is None
    made = []

    def new():
        made.append(Thing())
        return made[-1]

    pool = Pool(new)
    assert pool.get() is made[0]
    assert pool.get() is made[1]
    assert Pool(new=new).get() is made[2]


@main_goroutine
def test_a_pool_gives_back_what_was_put():
    gc.disable()
    try:
        pool = Pool(lambda: "new")
        things = [Thing() for _ in range(5)]
        for thing in things:
            assert pool.put(thing) is None
        got = [pool.get() for _ in range(5)]
        assert {id(thing) for thing in got} == {id(thing) for thing in things}
        assert pool.get() == "new"
        # As in Go nothing is nothing.
        pool.put(None)
        assert pool.get() == "new"
    finally:
        gc.enable()


@main_goroutine
def test_the_collector_empties_a_pool():
    pool, thing = Pool(), Thing()
    watch = weakref.ref(thing)
    pool.put(thing)
    del thing
    for _ in range(3):
        gc.collect()
    assert watch() is None
    assert pool.get() is None


@main_goroutine
def test_a_pool_that_is_dropped_drops_what_it_holds():
    pool, thing = Pool(), Thing()
    watch = weakref.ref(thing)
    pool.put(thing)
    del pool, thing
    assert watch() is None


@main_goroutine
def test_nobody_gets_what_another_has():
    """Go's TestPoolStress, with owners: what `get` gives belongs to its taker alone."""
    pool, owners = Pool(dict), {}

    def body(number):
        for _ in range(100):
            thing = pool.get()
            assert thing.setdefault("owner", number) == number
            gosched()
            assert thing.pop("owner") == number
            owners[id(thing)] = number
            pool.put(thing)

    threads = [Thread(body, f"thread {number}") for number in range(3)]
    wait_ended(*[go(body, number) for number in range(20)])
    for thread in threads:
        thread.result()
    assert owners


@main_goroutine
def test_pools_leave_nothing_behind():
    thing = Thing()

    def use():
        pool = Pool(Thing)
        pool.put(thing)
        pool.get()
        pool.put(thing)

    assert_no_growth(use, probes=[thing])
    assert isinstance(Pool().stats(), dict)


# ---- Map -------------------------------------------------------------------------------------


@main_goroutine
def test_the_operations_of_a_map():
    items = Map()
    assert items.load("a") == (None, False)
    assert items.store("a", 1) is None
    assert items.load("a") == (1, True)
    assert items.load_or_store("a", 2) == (1, True)
    assert items.load_or_store("b", 2) == (2, False)
    assert items.swap("a", 3) == (1, True)
    assert items.swap("c", 4) == (None, False)
    assert items.compare_and_swap("a", 1, 5) is False
    assert items.compare_and_swap("a", 3, 5) is True
    assert items.load_and_delete("a") == (5, True)
    assert items.load_and_delete("a") == (None, False)
    assert items.delete("b") is None
    assert items.delete("b") is None
    assert items.load("c") == (4, True)
    assert items.clear() is None
    assert items.load("c") == (None, False)
    assert isinstance(items.stats(), dict)


@main_goroutine
def test_compare_and_swap_of_an_absent_key():
    """Go's TestCompareAndSwap_NonExistingKey: absent is not None."""
    items = Map()
    assert items.compare_and_swap("a", None, "new") is False
    assert items.load("a") == (None, False)
    items.store("a", None)
    assert items.load("a") == (None, True)
    assert items.compare_and_swap("a", None, "new") is True
    assert items.load("a") == ("new", True)


@main_goroutine
def test_none_is_an_ordinary_key_and_value():
    items = Map()
    items.store(None, None)
    assert items.load(None) == (None, True)
    assert items.load_or_store(None, 1) == (None, True)
    assert items.swap(None, None) == (None, True)
    assert items.load_and_delete(None) == (None, True)


@main_goroutine
def test_keys_must_be_hashable():
    items = Map()
    items.store("some", "value")
    for operation in (items.load, items.delete, items.load_and_delete):
        with pytest.raises(TypeError):
            operation([])
    for operation in (items.store, items.load_or_store, items.swap):
        with pytest.raises(TypeError):
            operation([], 1)
    # A refusal leaves no lock behind.
    items.store("a", 1)
    assert items.load("a") == (1, True)


@main_goroutine
def test_range_visits_every_key():
    items, seen = Map(), {}
    assert items.range(lambda key, value: pytest.fail("nothing to visit")) is None
    for number in range(20):
        items.store(number, str(number))
    items.range(lambda key, value: seen.update({key: value}) or True)
    assert seen == {number: str(number) for number in range(20)}


@main_goroutine
def test_range_stops_when_its_function_gives_false():
    items, seen = Map(), []
    for number in range(20):
        items.store(number, number)

    def visit(key, value):
        seen.append(key)
        return len(seen) < 5

    items.range(visit)
    assert len(seen) == 5
    seen.clear()
    with pytest.raises(ZeroDivisionError):
        items.range(lambda key, value: seen.append(key) or 1 / 0)
    assert len(seen) == 1
    items.store("still", "works")


@main_goroutine
def test_range_may_change_the_map_it_visits():
    """Go's TestMapRangeNestedCall: every operation inside `range`, another `range` included."""
    items = Map()
    for number in range(8):
        items.store(number, number)
    seen = []

    def inner(key, value):
        return items.load(key) == (value, True)

    def visit(key, value):
        seen.append(key)
        items.range(inner)
        assert items.load_or_store(key, "other") == (value, True)
        items.store(key + 100, value)
        items.delete((key + 1) % 8)
        items.swap(key, -value)
        items.load_and_delete(key)
        return True

    items.range(visit)
    assert len(seen) == len(set(seen))
    assert set(seen) >= {0}
    # What was deleted before its turn is not visited.
    assert all((key + 1) % 8 not in seen[position + 1 :] for position, key in enumerate(seen))


@main_goroutine
def test_range_may_park():
    items, channel, seen = Map(), makechan(), []
    for number in range(3):
        items.store(number, number)

    def visit(key, value):
        seen.append((key, channel.recv()))
        return True

    finished = makechan()
    goroutine = go_parked(lambda: (items.range(visit), finished.close()))
    # Nobody is locked out meanwhile.
    items.store("more", 1)
    assert items.load("more") == (1, True)
    while select(channel.if_send("go on"), finished.if_recv()).index == 0:
        wait_until(lambda: goroutine.wait_reason or finished.closed, "the next visit or the end")
    wait_ended(goroutine)
    assert [key for key, _ in seen[:3]] == [0, 1, 2]


@main_goroutine
def test_a_map_does_what_a_dict_does(rng):
    """Go's TestMapMatchesRWMutex: random operations against the plain thing."""
    items, plain = Map(), {}

    def expect(key):
        return (plain[key], True) if key in plain else (None, False)

    for _ in range(3000):
        key, value, old = rng.randrange(10), rng.randrange(4), rng.randrange(4)
        operation = rng.randrange(8)
        before = expect(key)
        if operation == 0:
            items.store(key, value)
            plain[key] = value
        elif operation == 1:
            assert items.load_or_store(key, value) == (before if before[1] else (value, False))
            plain.setdefault(key, value)
        elif operation == 2:
            assert items.load_and_delete(key) == before
            plain.pop(key, None)
        elif operation == 3:
            items.delete(key)
            plain.pop(key, None)
        elif operation == 4:
            assert items.swap(key, value) == before
            plain[key] = value
        elif operation == 5:
            assert items.compare_and_swap(key, old, value) is (before == (old, True))
            if before == (old, True):
                plain[key] = value
        elif operation == 6 and rng.random() < 0.02:
            items.clear()
            plain.clear()
        assert items.load(key) == expect(key)
    seen = {}
    items.range(lambda key, value: seen.update({key: value}) or True)
    assert seen == plain


@main_goroutine
def test_one_wins_the_store():
    items, winners = Map(), []

    def body(number):
        for key in range(50):
            actual, loaded = items.load_or_store(key, number)
            if not loaded:
                assert actual == number
                winners.append(key)
            if key % 5 == 0:
                gosched()

    threads = [Thread(body, f"thread {number}") for number in range(3)]
    wait_ended(*[go(body, number) for number in range(20)])
    for thread in threads:
        thread.result()
    assert sorted(winners) == list(range(50))


@main_goroutine
def test_one_wins_the_delete():
    items, winners = Map(), []
    for key in range(200):
        items.store(key, key)

    def body(_):
        for key in range(200):
            value, loaded = items.load_and_delete(key)
            if loaded:
                assert value == key
                winners.append(key)

    threads = [Thread(body, number) for number in range(4)]
    wait_ended(*[go(body, number) for number in range(4)])
    for thread in threads:
        thread.result()
    assert sorted(winners) == list(range(200))


@main_goroutine
def test_counting_by_compare_and_swap():
    items = Map()
    items.store("count", 0)

    def body(_):
        for _ in range(100):
            while True:
                old, _loaded = items.load("count")
                if items.compare_and_swap("count", old, old + 1):
                    break
                gosched()

    threads = [Thread(body, number) for number in range(3)]
    wait_ended(*[go(body, number) for number in range(10)])
    for thread in threads:
        thread.result()
    assert items.load("count") == (1300, True)


@main_goroutine
def test_range_beside_changes():
    """Go's TestConcurrentRange: keys that stay are visited exactly once, whatever else happens."""
    items, stop = Map(), False
    for key in range(100):
        items.store(key, key)

    def change(step):
        while not stop:
            for key in range(0, 100, step):
                items.store(key, key)
                items.store(-key - 1, key)
                items.delete(-key - 1)
                gosched()

    changing = [go(change, step) for step in (3, 5, 7)]
    for _ in range(20):
        seen = []

        def visit(key, value, seen=seen):
            if key >= 0:
                assert value == key
                seen.append(key)
            gosched()
            return True

        items.range(visit)
        assert sorted(seen) == list(range(100))
    stop = True
    wait_ended(*changing)


@main_goroutine
def test_clear_beside_changes():
    """Go's TestConcurrentClear."""
    items = Map()

    def body(number):
        for key in range(50):
            items.store(key, number)
            gosched()
            items.load(key)
            if key % 10 == 0:
                items.clear()

    wait_ended(*[go(body, number) for number in range(10)])
    items.clear()
    items.range(lambda key, value: pytest.fail(f"{key} is left"))


@main_goroutine
def test_a_finalizer_may_use_the_map_its_object_was_in():
    items, seen = Map(), []

    class Last:
        def __del__(self):
            seen.append(items.load_or_store("finalizer", "ran")[0])

    for remove in (
        lambda: items.store("key", None),
        lambda: items.delete("key"),
        lambda: items.swap("key", None),
        items.clear,
    ):
        items.store("key", Last())
        remove()
    collect()
    assert seen == ["ran"] * 4


@main_goroutine
def test_maps_leave_nothing_behind():
    thing = Thing()

    def use():
        items = Map()
        items.store("a", thing)
        items.swap("a", thing)
        items.compare_and_swap("a", thing, thing)
        items.load_or_store("b", thing)
        items.range(lambda key, value: True)
        items.load_and_delete("a")
        items.clear()
        items.store("c", thing)

    assert_no_growth(use, probes=[thing])
    assert offset.runtime.num_goroutine() == 1
