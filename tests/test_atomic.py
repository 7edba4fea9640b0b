"""`offset.sync.atomic`: `Int`, `Bool` and `Ref`, in one goroutine, among many, and among OS threads."""

from __future__ import annotations

import gc
import sys
import time
import weakref

import pytest
from helpers import FREE_THREADED, Thread, assert_no_growth, main_goroutine, wait_ended, wait_until
from offset import current, go, gosched
from offset.sync import atomic

BIGGEST = 2**63 - 1
SMALLEST = -(2**63)


class Thing:
    """Something that can be watched with a weak reference."""


# ---- Int -------------------------------------------------------------------------------------


def test_an_int_begins_at_zero():
    assert atomic.Int().load() == 0
    assert atomic.Int(7).load() == 7
    assert atomic.Int(value=-7).load() == -7
    assert type(atomic.Int(True).load()) is int


def test_atomic_long_is_the_name_of_2014():
    assert atomic.AtomicLong is atomic.Int


@pytest.mark.parametrize("value", [0, 1, -1, 255, 256, 2**31, 2**32, 2**62, BIGGEST, SMALLEST])
def test_an_int_holds_64_bits(value):
    cell = atomic.Int(value)
    assert cell.load() == value
    other = atomic.Int()
    assert other.store(value) is None
    assert other.load() == value
    assert other.swap(0) == value
    assert cell.compare_and_swap(value, 1) is True
    assert cell.load() == 1


def test_add_gives_the_new_value():
    cell = atomic.Int(10)
    assert cell.add(5) == 15
    assert cell.add(-20) == -5
    assert cell.add(0) == -5
    assert cell.load() == -5


def test_swap_gives_the_old_value():
    cell = atomic.Int(1)
    assert cell.swap(2) == 1
    assert cell.swap(3) == 2
    assert cell.load() == 3


def test_compare_and_swap_changes_only_what_it_expects():
    cell = atomic.Int(1)
    assert cell.compare_and_swap(2, 3) is False
    assert cell.load() == 1
    assert cell.compare_and_swap(1, 3) is True
    assert cell.load() == 3
    # By value, not by identity.
    cell.store(10**15)
    assert cell.compare_and_swap(int("1" + "0" * 15), 4) is True


def test_and_and_or_give_the_old_value():
    cell = atomic.Int(0b1100)
    assert cell.and_(0b0110) == 0b1100
    assert cell.load() == 0b0100
    assert cell.or_(0b0011) == 0b0100
    assert cell.load() == 0b0111
    assert cell.and_(-1) == 0b0111
    assert cell.or_(0) == 0b0111
    assert cell.or_(-1) == 0b0111
    assert cell.load() == -1


def test_bits_of_single_positions():
    for bit in range(63):
        mask = 1 << bit
        cell = atomic.Int()
        assert cell.or_(mask) == 0
        assert cell.or_(mask) == mask
        assert cell.and_(~mask) == mask
        assert cell.load() == 0


def beyond(act, wrapped):
    """Run what leaves the 64 bits: one behaviour, the same everywhere, either an error or Go's wrap."""
    try:
        result = act()
    except OverflowError:
        return "raises"
    assert result == wrapped
    return "wraps"


def test_beyond_64_bits_the_behaviour_is_one():
    cell = atomic.Int(BIGGEST)
    behaviours = {beyond(lambda: cell.add(1), SMALLEST)}
    if behaviours == {"raises"}:
        assert cell.load() == BIGGEST
    cell.store(SMALLEST)
    behaviours.add(beyond(lambda: cell.add(-1), BIGGEST))
    if behaviours == {"raises"}:
        assert cell.load() == SMALLEST
    assert len(behaviours) == 1


@pytest.mark.parametrize("value", [BIGGEST + 1, SMALLEST - 1, 2**100, -(2**100)])
def test_values_of_more_than_64_bits(value):
    """They are refused or wrapped, and a refusal leaves the cell as it was."""
    wrapped = (value - SMALLEST) % 2**64 + SMALLEST
    for operation in ("store", "swap", "add"):
        cell = atomic.Int(0)
        try:
            getattr(cell, operation)(value)
        except OverflowError:
            assert cell.load() == 0
        else:
            assert cell.load() == wrapped


@pytest.mark.parametrize("value", [None, "1", 1.0, 1.5, [1], object()], ids=repr)
def test_an_int_takes_integers_only(value):
    cell = atomic.Int(1)
    for operation in (cell.store, cell.add, cell.swap, cell.and_, cell.or_, atomic.Int):
        with pytest.raises(TypeError):
            operation(value)
    with pytest.raises(TypeError):
        cell.compare_and_swap(1, value)
    assert cell.load() == 1


def test_an_int_takes_what_has_an_index():
    class Index:
        def __index__(self):
            return 5

    cell = atomic.Int(Index())
    assert cell.add(Index()) == 10


def test_cells_say_what_they_hold():
    assert "7" in repr(atomic.Int(7))
    assert "True" in repr(atomic.Bool(True))
    for cell in (atomic.Int(7), atomic.Bool(True), atomic.Ref("text")):
        assert isinstance(cell.stats(), dict)


# ---- Bool ------------------------------------------------------------------------------------


def test_a_bool_begins_false():
    assert atomic.Bool().load() is False
    assert atomic.Bool(True).load() is True
    assert atomic.Bool(value=True).load() is True


def test_the_operations_of_a_bool():
    cell = atomic.Bool()
    assert cell.store(True) is None
    assert cell.load() is True
    assert cell.swap(False) is True
    assert cell.swap(False) is False
    assert cell.compare_and_swap(True, False) is False
    assert cell.compare_and_swap(False, True) is True
    assert cell.load() is True


# ---- Ref -------------------------------------------------------------------------------------


def test_a_ref_begins_with_none():
    assert atomic.Ref().load() is None
    thing = Thing()
    assert atomic.Ref(thing).load() is thing
    assert atomic.Ref(value=thing).load() is thing


def test_a_ref_compares_by_identity():
    first, equal = [1], [1]
    cell = atomic.Ref(first)
    assert cell.compare_and_swap(equal, "new") is False
    assert cell.load() is first
    assert cell.compare_and_swap(first, equal) is True
    assert cell.load() is equal
    assert cell.swap(None) is equal
    assert cell.store(first) is None
    assert cell.load() is first


def test_a_ref_does_not_ask_its_objects():
    class Touchy:
        def __eq__(self, other):
            raise AssertionError("compared")

        __hash__ = None

        def __bool__(self):
            raise AssertionError("asked for its truth")

    first, second = Touchy(), Touchy()
    cell = atomic.Ref(first)
    assert cell.compare_and_swap(second, first) is False
    assert cell.compare_and_swap(first, second) is True
    assert cell.load() is second


def test_a_ref_holds_its_object_and_lets_it_go():
    thing = Thing()
    watch = weakref.ref(thing)
    cell = atomic.Ref(thing)
    del thing
    assert watch() is not None
    cell.store(None)
    assert watch() is None
    cell.store(Thing())
    watch = weakref.ref(cell.load())
    assert cell.compare_and_swap(watch(), None)
    assert watch() is None
    cell.store(Thing())
    watch = weakref.ref(cell.load())
    del cell
    assert watch() is None


def test_a_cycle_through_a_ref_is_collected():
    thing = Thing()
    thing.cell = atomic.Ref(thing)
    watch = weakref.ref(thing)
    del thing
    assert watch() is not None
    gc.collect()
    assert watch() is None


def test_a_finalizer_may_use_the_ref_it_was_in():
    cell, seen = atomic.Ref(), []

    class Last:
        def __del__(self):
            seen.append(cell.load())

    cell.store(Last())
    cell.store("after")
    assert seen == ["after"]


def test_a_ref_has_type_arguments():
    assert atomic.Ref[int] is not None
    assert isinstance(atomic.Ref(1), atomic.Ref)


def test_cells_leave_nothing_behind():
    thing = Thing()
    big = 10**15

    def use():
        cell = atomic.Ref(thing)
        cell.swap(thing)
        cell.compare_and_swap(thing, big)
        cell.compare_and_swap(thing, big)
        number = atomic.Int(big)
        number.compare_and_swap(big, big)
        number.add(big)
        atomic.Bool(True).swap(False)

    assert_no_growth(use, probes=[thing, big])


# ---- among goroutines and threads --------------------------------------------------------------


def among(goroutines, threads, body):
    """Run `body(number)` in so many goroutines and OS threads at once and wait for their ends."""
    started = [go(body, number) for number in range(goroutines)]
    others = [Thread(body, goroutines + number) for number in range(threads)]
    wait_ended(*started)
    for thread in others:
        thread.result()


def step_aside():
    """Let somebody else go on, in a goroutine and in an OS thread."""
    if current() is None:
        time.sleep(0)
    else:
        gosched()


@pytest.fixture(params=[(50, 0), (20, 4), (0, 8)], ids=["goroutines", "both", "threads"])
def crowd(request):
    """How many goroutines and how many threads take part."""
    return request.param


@main_goroutine
def test_no_addition_is_lost(crowd):
    total = atomic.Int()
    seen = [[] for _ in range(sum(crowd))]

    def body(number):
        for _ in range(500):
            seen[number].append(total.add(1))
            if total.load() % 7 == 0:
                step_aside()

    among(*crowd, body)
    assert total.load() == 500 * sum(crowd)
    # Each addition gave a value that no other did, and each saw the total grow.
    assert sorted(value for values in seen for value in values) == list(range(1, total.load() + 1))
    assert all(values == sorted(values) for values in seen)


@main_goroutine
def test_no_compare_and_swap_is_lost(crowd):
    total = atomic.Int()

    def body(number):
        for _ in range(200):
            while True:
                old = total.load()
                if number % 2:
                    step_aside()
                if total.compare_and_swap(old, old + 1):
                    break

    among(*crowd, body)
    assert total.load() == 200 * sum(crowd)


@main_goroutine
def test_one_wins_each_swap(crowd):
    """A lock made of a cell: `swap` gives False to exactly one at a time."""
    lock, inside, entered = atomic.Bool(), [], atomic.Int()

    def body(number):
        for _ in range(50):
            while lock.swap(True):
                step_aside()
            inside.append(number)
            step_aside()
            assert inside == [number]
            inside.clear()
            entered.add(1)
            lock.store(False)

    among(*crowd, body)
    assert entered.load() == 50 * sum(crowd)


@main_goroutine
def test_bits_are_set_and_cleared_one_by_one(crowd):
    bits = atomic.Int()

    def body(number):
        mask = 1 << (number % 60)
        for _ in range(300):
            assert not bits.or_(mask) & mask
            assert bits.and_(~mask) & mask

    among(min(crowd[0], 50), crowd[1], body)
    assert bits.load() == 0


@main_goroutine
def test_a_list_of_refs_loses_nothing(crowd):
    """A stack made of compare-and-swap: what was pushed by all is popped once."""
    head = atomic.Ref()
    popped = [[] for _ in range(sum(crowd))]

    def push(value):
        while True:
            old = head.load()
            if head.compare_and_swap(old, (value, old)):
                return
            step_aside()

    def pop():
        while (old := head.load()) is not None:
            if head.compare_and_swap(old, old[1]):
                return old[0]
            step_aside()
        return None

    def body(number):
        for count in range(100):
            push((number, count))
            if count % 3:
                step_aside()
            value = pop()
            assert value is not None
            popped[number].append(value)

    among(*crowd, body)
    assert head.load() is None
    assert sorted(value for values in popped for value in values) == [
        (number, count) for number in range(sum(crowd)) for count in range(100)
    ]


@main_goroutine
def test_references_stay_exact_among_threads():
    things = [Thing() for _ in range(4)]
    before = [sys.getrefcount(thing) for thing in things]
    cell = atomic.Ref()

    def body(number):
        for count in range(500):
            cell.store(things[(number + count) % 4])
            cell.load()
            cell.swap(things[count % 4])
            cell.compare_and_swap(things[0], things[1])

    among(4, 4, body)
    cell.store(None)

    def exact():
        if FREE_THREADED:
            # What another OS thread let go may be taken off by the collector only.
            gc.collect()
        return [sys.getrefcount(thing) for thing in things] == before

    wait_until(exact, "no reference is left")


@main_goroutine
def test_a_flag_stops_a_loop():
    stop, turns = atomic.Bool(), atomic.Int()

    def body():
        while not stop.load():
            turns.add(1)
            gosched()

    looping = go(body)
    wait_until(lambda: turns.load() > 10, "the loop turns")
    stop.store(True)
    wait_ended(looping)
