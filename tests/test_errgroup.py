"""`offset.errgroup`: members end together, no error is lost, none outlives the block."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, wait_ended, wait_parked, wait_until
from offset import GoroutineExit, PanicError, context, current, errgroup, goexit, makechan, run, select, sleep, sync
from offset.context import Canceled, DeadlineExceeded
from offset.errgroup import Group


class Boom(Exception):
    pass


def boom(*args):
    raise Boom(*args)


def forever():
    makechan().recv()


# ---- what comes out --------------------------------------------------------------------------


@main_goroutine
def test_results():
    with Group() as group:
        tasks = [group.go(pow, number, 2) for number in range(10)]
        keyword = group.go(dict, a=1)
    assert [task.result() for task in tasks] == [number**2 for number in range(10)]
    assert keyword.result() == {"a": 1}
    assert all(task.done and task.exception() is None for task in tasks)


@main_goroutine
def test_results_may_be_asked_for_inside():
    with Group() as group:
        assert group.go(lambda: 7).result() == 7
        box = makechan()
        task = group.go(box.recv)
        assert not task.done
        with pytest.raises(TimeoutError):
            task.result(timeout=0.001)
        box.send(8)
        assert task.result(timeout=PATIENCE) == 8


@main_goroutine
def test_one_error_is_raised_alone():
    with pytest.raises(Boom, match="one") as caught, Group() as group:
        task = group.go(boom, "one")
    assert task.exception() is caught.value
    with pytest.raises(Boom):
        task.result()
    # The frames are the function's, not the group's.
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "boom"
    assert "__call__" not in names


@main_goroutine
def test_all_errors_are_raised_the_first_one_first():
    gate, first = makechan(), Boom("first")

    def fail(error):
        with contextlib.suppress(Canceled):
            gate.recv()
        raise error

    def main():
        with Group() as group:
            for index in range(3):
                group.go(fail, ValueError(index))
            group.go(sleep, 0.001)
            group.go(lambda: boom_with(first))

    def boom_with(error):
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        main()
    assert caught.value.exceptions[0] is first
    assert sorted(str(error) for error in caught.value.exceptions[1:]) == ["0", "1", "2"]


@main_goroutine
def test_the_first_error_cancels_the_siblings_with_itself_as_the_cause():
    causes, error = [], Boom("why")

    def sibling():
        try:
            forever()
        except Canceled as canceled:
            causes.append(canceled.__cause__)
            raise

    def fail():
        raise error

    with pytest.raises(Boom) as caught, Group() as group:
        for _ in range(5):
            group.go(sibling)
        group.go(fail)
    assert caught.value is error
    assert causes == [error] * 5
    assert context.cause(group.ctx) is error
    assert group.stats() == {"running": 0, "started": 6, "failed": 6, "limit": None}


@main_goroutine
def test_a_member_may_select_on_the_context_as_in_go():
    def member(group):
        select(group.ctx.done().if_recv())
        raise group.ctx.err()

    with pytest.raises(Boom), Group() as group:
        group.go(member, group)
        group.go(boom)


@main_goroutine
def test_an_error_of_the_block_cancels_the_members():
    with pytest.raises(Boom, match="block"), Group() as group:
        task = group.go(forever)
        raise Boom("block")
    assert type(task.exception()) is Canceled


@main_goroutine
def test_an_error_of_the_block_and_of_members():
    def stubborn():
        try:
            forever()
        finally:
            raise ValueError("member")

    with pytest.raises(ExceptionGroup) as caught, Group() as group:
        group.go(stubborn)
        raise Boom("block")
    assert [str(error) for error in caught.value.exceptions] == ["block", "member"]


@main_goroutine
def test_a_failing_member_ends_the_block_where_it_waits():
    with pytest.raises(Boom, match="member"), Group() as group:
        group.go(boom, "member")
        forever()


@main_goroutine
def test_an_error_that_the_block_got_from_a_task_counts_once():
    with pytest.raises(Boom, match="once"), Group() as group:
        group.go(boom, "once").result()


@main_goroutine
def test_no_member_outlives_the_block():
    ended = []

    def member(index):
        try:
            sleep(0.002 * index)
        finally:
            sleep(0.001)
            ended.append(index)

    with Group() as group:
        for index in range(5):
            group.go(member, index)
    assert sorted(ended) == list(range(5))


@main_goroutine
def test_members_may_start_members():
    def tree(group, depth):
        counted.add(1)
        if depth:
            for _ in range(2):
                group.go(tree, group, depth - 1)

    counted = sync.atomic.Int()
    with Group() as group:
        group.go(tree, group, 8)
    assert counted.load() == 2**9 - 1


@main_goroutine
def test_groups_in_groups():
    """The error of an inner group is an error of the outer one's member, whose siblings end."""
    ended = []

    def sibling():
        try:
            forever()
        finally:
            ended.append(True)

    def inner():
        with Group() as group:
            group.go(sibling)
            group.go(boom, "deep")

    with pytest.raises(Boom, match="deep"), Group() as group:
        group.go(sibling)
        group.go(inner)
    assert ended == [True, True]


@main_goroutine
def test_the_end_of_an_outer_group_ends_the_inner_one():
    def inner():
        with Group() as group:
            group.go(forever)
            group.go(forever)

    with pytest.raises(Boom), Group() as group:
        group.go(inner)
        sleep(0.001)
        boom()


# ---- contexts --------------------------------------------------------------------------------


@main_goroutine
def test_the_context_is_below_that_of_the_scope_around():
    with context.timeout(0.01) as around, pytest.raises(DeadlineExceeded), Group() as group:
        assert group.ctx.deadline() == around.deadline()
        assert context.current() is group.ctx
        group.go(forever)
    parent = context.with_value(context.background(), "key", "value")
    with Group(parent) as group:
        assert group.go(lambda: context.current().value("key")).result() == "value"
    assert type(group.ctx.err()) is Canceled


@main_goroutine
def test_the_end_of_the_context_is_one_error_however_many_members():
    ctx, cancel = context.with_cancel(context.background())
    with pytest.raises(Canceled) as caught, Group(ctx) as group:
        for _ in range(10):
            group.go(forever)
        cancel()
    assert not isinstance(caught.value, BaseExceptionGroup)


@main_goroutine
def test_members_that_ended_well_make_no_error_of_a_cancelled_group():
    def member():
        try:
            forever()
        except Canceled:
            return "tidy"

    with Group() as group:
        tasks = [group.go(member) for _ in range(3)]
        group.cancel()
    assert [task.result() for task in tasks] == ["tidy"] * 3


@main_goroutine
def test_a_members_own_deadline_is_an_error():
    def member():
        with context.timeout(0.001):
            forever()

    with pytest.raises(DeadlineExceeded), Group() as group:
        group.go(member)
        group.go(forever)


@main_goroutine
def test_a_group_that_is_cancelled_by_itself_has_no_error():
    with Group() as group:
        group.go(forever)
        group.go(group.cancel)
        forever()
    with pytest.raises(Boom), Group() as group:
        group.go(forever)
        group.cancel(ValueError("enough"))
        boom()
    # What came before counts.
    with pytest.raises(Boom), Group() as group:
        group.go(boom)
        sleep(0.001)
        group.cancel()


# ---- ends of other kinds ---------------------------------------------------------------------


@main_goroutine
def test_a_cancelled_member_is_no_error():
    with Group() as group:
        task, other = group.go(forever), group.go(goexit)
        task.cancel()
    for ended in (task, other):
        with pytest.raises(PanicError, match="ended before its function returned"):
            ended.result()


@main_goroutine
def test_a_member_that_is_cancelled_before_it_begins():
    with Group(limit=1) as group:
        for _ in range(20):
            group.go(sleep, 0).cancel()
    assert group.stats()["running"] == 0


@main_goroutine
def test_a_member_that_is_cancelled_as_it_begins_gives_its_place_back():
    begin = errgroup._Member.__call__.__code__

    def tracer(frame, event, arg):
        # The cancellation of somebody who computes is raised before the first line: here, where it breaks nothing off.
        if event == "call" and frame.f_code is begin and names.pop() == "cancelled":
            beginning.try_send(current())
            while True:
                pass

    names = ["other", "cancelled"]
    beginning = makechan(1)
    cancelling = Thread(lambda: beginning.recv().cancel())
    with Group(limit=1) as group:
        threading.settrace(tracer)
        try:
            task = group.go(sleep, 0)
            other = group.go(int)
        finally:
            threading.settrace(None)
        assert other.result() == 0
    cancelling.result()
    with pytest.raises(PanicError, match="ended before its function returned"):
        task.result()
    assert group.stats()["running"] == 0


@main_goroutine
def test_the_block_may_be_cancelled():
    ended = []

    def member():
        try:
            forever()
        finally:
            sleep(0.001)
            ended.append(True)

    def body():
        with Group() as group:
            group.go(member)
            forever()

    goroutine = go_parked(body)
    goroutine.cancel()
    wait_ended(goroutine)
    assert ended == [True]


@main_goroutine
def test_waiting_at_the_end_may_be_cancelled():
    """The members are cancelled, and waited for all the same."""
    ended = []

    def member():
        try:
            forever()
        finally:
            sleep(0.002)
            ended.append(True)

    def body():
        try:
            with Group() as group:
                group.go(member)
                sleep(0)
        except GoroutineExit:
            ended.append("body")
            raise

    goroutine = go_parked(body, reason="WaitGroup")
    goroutine.cancel()
    wait_ended(goroutine)
    assert ended == [True, "body"]


@main_goroutine
def test_a_deadline_while_waiting_at_the_end():
    with pytest.raises(DeadlineExceeded), context.timeout(0.01), Group() as group:
        group.go(forever)


def test_system_exit_of_a_member_ends_the_program():
    def leave():
        raise SystemExit(3)

    def main():
        with Group() as group:
            group.go(forever)
            group.go(leave)

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 3


@main_goroutine
def test_system_exit_is_not_hidden_in_a_group():
    def leave():
        try:
            forever()
        finally:
            raise SystemExit(4)

    with pytest.raises(SystemExit) as caught, Group() as group:
        group.go(leave)
        group.go(boom)
    assert isinstance(caught.value.__cause__, Boom)


# ---- without `with` --------------------------------------------------------------------------


@main_goroutine
def test_go_and_wait():
    group = Group()
    tasks = [group.go(sleep, 0.001) for _ in range(3)]
    group.wait()
    assert all(task.done for task in tasks)
    assert type(group.ctx.err()) is Canceled
    group.wait()
    with pytest.raises(RuntimeError, match="the group is over"):
        group.go(int)
    with pytest.raises(RuntimeError, match="the group is over"):
        group.try_go(int)
    failing = Group()
    failing.go(boom, "late")
    with pytest.raises(Boom, match="late"):
        failing.wait()


def test_a_plain_thread_may_have_a_group():
    with Group(limit=2) as group:
        results = group.map(str, range(5))
    assert results == ["0", "1", "2", "3", "4"]
    with pytest.raises(Boom), Group() as group:
        group.go(boom)


@main_goroutine
def test_several_threads_start_members():
    with Group() as group:
        threads = [Thread(lambda: [group.go(int) for _ in range(50)]) for _ in range(3)]
        for thread in threads:
            thread.result()
    assert group.stats()["started"] == 150


# ---- limits ----------------------------------------------------------------------------------


@main_goroutine
def test_a_limit():
    running, most, here = sync.atomic.Int(), [], sync.WaitGroup()
    here.add(3)

    def member(number):
        most.append(running.add(1))
        if number < 3:
            # As many as may be are in at once.
            here.done()
            here.wait(timeout=PATIENCE)
        sleep(0.001)
        running.add(-1)

    with Group(limit=3) as group:
        for number in range(20):
            group.go(member, number)
    assert max(most) == 3
    assert group.limit == 3


@main_goroutine
def test_try_go():
    gate = makechan()
    with Group(limit=1) as group:
        first = group.try_go(gate.recv)
        assert first is not None
        assert group.try_go(int) is None
        gate.send(None)
        wait_until(lambda: first.done, "the place is free")
        wait_until(lambda: group.try_go(int) is not None, "it was admitted")


@main_goroutine
def test_no_limit_and_none_at_all():
    for limit in (None, -1):
        with Group(limit=limit) as group:
            tasks = [group.try_go(int) for _ in range(100)]
        assert None not in tasks
        assert group.limit is None
    with Group(limit=0) as group:
        assert group.try_go(int) is None
        with pytest.raises(DeadlineExceeded), context.timeout(0.001):
            group.go(int)


@main_goroutine
def test_the_limit_changes_between_members_only():
    gate = makechan()
    group = Group()
    group.go(gate.recv)
    with pytest.raises(RuntimeError, match="while 1 members run"):
        group.set_limit(2)
    gate.send(None)
    wait_until(lambda: not group.stats()["running"], "it has ended")
    group.set_limit(1)
    assert group.limit == 1
    assert group.go(int) is not None
    group.wait()


@main_goroutine
def test_a_failure_ends_who_waits_for_a_place():
    with pytest.raises(Boom), Group(limit=1) as group:
        group.go(lambda: (sleep(0.002), boom()))
        group.go(forever)


@pytest.mark.parametrize("limit", ["3", 1.5, True])
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(TypeError, match="a limit is a number or None"):
        Group(limit=limit)


def test_what_cannot_be_called_is_refused():
    group = Group()
    for start in (group.go, group.try_go):
        with pytest.raises(TypeError, match="needs a function to call, not int"):
            start(3)
    with pytest.raises(TypeError, match="needs a function to call, not int"):
        group.map(3, [])
    assert group.stats()["running"] == 0
    group.wait()


# ---- map -------------------------------------------------------------------------------------


@main_goroutine
def test_map_gives_results_in_order():
    def work(number):
        sleep(0.001 * (number % 3))
        return number * number

    with Group(limit=4) as group:
        assert group.map(work, range(50)) == [number * number for number in range(50)]
        assert group.map(work, []) == []
        assert group.map(work, iter([3])) == [9]


@main_goroutine
def test_map_takes_items_as_there_is_place():
    taken, running, most, here = [], sync.atomic.Int(), [], sync.WaitGroup()
    here.add(3)

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    def work(number):
        most.append((running.add(1), len(taken) - number))
        if number < 3:
            here.done()
            here.wait(timeout=PATIENCE)
        sleep(0.0005)
        running.add(-1)

    with Group() as group:
        group.map(work, items(), limit=3)
    assert max(count for count, _ in most) == 3
    assert max(ahead for _, ahead in most) <= 4


@main_goroutine
def test_map_tells_of_its_progress():
    told = []
    with Group() as group:
        group.map(str, [1, 2, 3], progress=lambda done, total: told.append((done, total)))
        group.map(str, iter([1, 2]), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3), (1, None), (2, None)]


@main_goroutine
def test_map_raises_the_first_error_when_all_have_ended():
    ended = []

    def work(number):
        if number == 2:
            boom(number)
        try:
            forever()
        finally:
            sleep(0.001)
            ended.append(number)

    group = Group()
    with pytest.raises(Boom, match="2"):
        group.map(work, range(5))
    assert len(ended) == group.stats()["started"] - 1
    with pytest.raises(Boom, match="2"):
        group.wait()
    with pytest.raises(Boom, match="2"), Group(limit=3) as group:
        group.map(work, range(100))
    assert group.stats()["started"] < 100


@main_goroutine
def test_an_error_of_the_items_cancels_the_calls():
    def items():
        yield 1
        yield 2
        raise Boom("items")

    with pytest.raises(Boom, match="items"), Group() as group:
        group.map(lambda _: forever(), items())
    assert group.stats()["running"] == 0


@main_goroutine
def test_members_of_a_map_have_the_functions_name():
    def work(_):
        return current().name

    with Group() as group:
        names = group.map(work, [1, 2])
        assert group.go(lambda: current().name).goroutine.name.endswith("<lambda>")
    assert {name.rpartition(".")[2] for name in names} == {"work"}


# ---- leaks -----------------------------------------------------------------------------------


@main_goroutine
def test_a_group_keeps_no_ended_members():
    class Thing:
        pass

    with Group() as group:
        watches = []
        for _ in range(100):
            thing = Thing()
            watches.append(weakref.ref(thing))
            group.go(lambda thing: None, thing).result()
            del thing
        gc.collect()
        assert sum(watch() is not None for watch in watches) <= 1


@main_goroutine
def test_a_storm(rng):
    """Groups that fail, are cancelled and end at random times keep their promises."""

    def member(seed):
        sleep(seed % 5 / 10_000)
        if seed % 11 == 0:
            boom(seed)
        select(makechan().if_recv(), timeout=seed % 3 / 10_000 + 1e-5)

    def one(seeds):
        with contextlib.suppress(TimeoutError, Boom, ExceptionGroup), Group(limit=4) as group:
            for seed in seeds:
                group.go(member, seed)
        assert group.stats()["running"] == 0
        return True

    with Group() as outer:
        tasks = [outer.go(one, [rng.randrange(1, 1000) for _ in range(20)]) for _ in range(50)]
    assert all(task.result() for task in tasks)


def test_texts():
    def main():
        box = makechan()
        with Group() as group:
            task = group.go(box.recv)
            wait_parked(task.goroutine)
            assert repr(group) == "<errgroup.Group of 1 running>"
            assert repr(task).endswith("running>")
            assert task.stats()["done"] is False
            box.send(1)
        assert repr(group) == "<errgroup.Group of 0 running, over>"
        assert repr(task).endswith("returned>")

    run(main)
