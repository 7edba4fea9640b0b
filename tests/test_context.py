"""`offset.context`: the tree of contexts, as Go's context_test.go has it; scopes are in test_context_scope.py."""

from __future__ import annotations

import datetime
import gc
import math
import threading
import weakref

import offset
import pytest
from helpers import PATIENCE, Thread, in_thread, main_goroutine, wait_until
from offset import context, go, makechan, nilchan, run, select, time
from offset.context import Canceled, DeadlineExceeded

HOUR = time.HOUR


def is_over(ctx):
    """Whether the channel says so."""
    return ctx.done().closed


def wait_over(ctx):
    with pytest.raises(offset.ChannelClosed):
        ctx.done().recv(timeout=PATIENCE)


class Own:
    """A context of a user's making: ends when told, and knows one value."""

    def __init__(self, parent=None):
        self._parent = context.background() if parent is None else parent
        self._done = makechan()
        self._err = None
        self.asked = 0

    def end(self, err):
        self._err = err
        self._done.close()

    def done(self):
        self.asked += 1
        return self._done.receiver()

    def err(self):
        return self._err

    def deadline(self):
        return self._parent.deadline()

    def value(self, key):
        return "mine" if key == "own" else self._parent.value(key)


class Wrapper:
    """A context of a user's making that hands everything on."""

    def __init__(self, inner):
        self._inner = inner

    def done(self):
        return self._inner.done()

    def err(self):
        return self._inner.err()

    def deadline(self):
        return self._inner.deadline()

    def value(self, key):
        return self._inner.value(key)


class Observed(Own):
    """One that calls functions when it is over, as Go's afterFuncer."""

    def __init__(self):
        super().__init__()
        self.functions = []

    def after_func(self, fn):
        self.functions.append(fn)

        def stop():
            if fn in self.functions:
                self.functions.remove(fn)
                return True
            return False

        return stop

    def end(self, err):
        super().end(err)
        while self.functions:
            self.functions.pop()()


# ---- at the top ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [context.background, context.todo])
def test_the_contexts_at_the_top_never_end(make):
    ctx = make()
    assert ctx is make()
    assert ctx.done() is nilchan
    assert ctx.err() is None
    assert ctx.deadline() is None
    assert ctx.value("anything") is None
    assert context.cause(ctx) is None
    assert repr(ctx) == f"context.{make.__name__}"
    assert isinstance(ctx, context.Context)


# ---- cancellation ----------------------------------------------------------------------------


def test_cancel_ends_a_context_once():
    ctx, cancel = context.with_cancel(context.background())
    assert not is_over(ctx)
    assert ctx.err() is None
    assert context.cause(ctx) is None
    cancel()
    assert is_over(ctx)
    assert type(ctx.err()) is Canceled
    assert str(ctx.err()) == "context canceled"
    assert ctx.err() is ctx.err()
    assert context.cause(ctx) is ctx.err()
    before = ctx.err()
    cancel()
    assert ctx.err() is before


def test_the_channel_cannot_be_closed_by_those_who_wait():
    ctx, cancel = context.with_cancel(context.background())
    assert ctx.done() is ctx.done()
    assert not hasattr(ctx.done(), "close")
    assert not hasattr(ctx.done(), "send")
    cancel()


def test_everything_below_ends_and_nothing_above():
    top, cancel_top = context.with_cancel(context.background())
    left, cancel_left = context.with_cancel(top)
    right, cancel_right = context.with_timeout(top, HOUR)
    leaf, cancel_leaf = context.with_cancel(context.with_value(left, "key", 1))
    cancel_left()
    assert [is_over(ctx) for ctx in (top, left, right, leaf)] == [False, True, False, True]
    cancel_top()
    assert [is_over(ctx) for ctx in (top, left, right, leaf)] == [True] * 4
    assert {type(ctx.err()) for ctx in (top, left, right, leaf)} == {Canceled}
    for cancel in (cancel_right, cancel_leaf):
        cancel()


def test_a_context_below_one_that_is_over_is_over():
    top, cancel_top = context.with_cancel_cause(context.background())
    why = ValueError("why")
    cancel_top(why)
    below, cancel = context.with_timeout(top, HOUR)
    assert is_over(below)
    assert type(below.err()) is Canceled
    assert context.cause(below) is why
    cancel()


def test_a_long_chain_ends_at_once():
    chain = [context.with_cancel(context.background())]
    for _ in range(10_000):
        chain.append(context.with_cancel(context.with_value(chain[-1][0], "depth", len(chain))))
    assert chain[-1][0].value("depth") == 10_000
    assert chain[-1][0].value("missing") is None
    assert len(repr(chain[-1][0])) > 100_000
    chain[0][1]()
    assert all(is_over(ctx) for ctx, _ in chain)


def test_nothing_grows_over_ten_thousand_children():
    top, cancel_top = context.with_cancel(context.background())
    for _ in range(10_000):
        below, cancel = context.with_timeout(top, HOUR)
        assert top.stats()["below"] == 1
        cancel()
        assert is_over(below)
        stop = context.after_func(top, int)
        assert stop()
    assert top.stats()["below"] == 0
    cancel_top()


def test_an_ended_context_is_let_go_by_the_one_above():
    top, cancel_top = context.with_cancel(context.background())
    below, cancel = context.with_cancel(top)
    cancel()
    watch = weakref.ref(below)
    del below, cancel
    gc.collect()
    assert watch() is None
    cancel_top()


@main_goroutine
def test_many_wait_for_one_end():
    ctx, cancel = context.with_cancel(context.background())
    ended = makechan(100)

    def wait():
        select(ctx.done().if_recv())
        ended.send(ctx.err())

    for _ in range(100):
        go(wait)
    threads = [Thread(lambda: ctx.done().recv_ok(timeout=PATIENCE)) for _ in range(3)]
    cancel()
    assert {type(ended.recv(timeout=PATIENCE)) for _ in range(100)} == {Canceled}
    for thread in threads:
        assert thread.result() == (None, False)


@main_goroutine
def test_ending_and_beginning_at_once(rng):
    """Contexts that begin below one that is just being ended end, too, whoever comes first."""
    for _ in range(50):
        top, cancel_top = context.with_cancel(context.background())
        made, started, pause = [], makechan(4), rng.randrange(100)

        def begin(top=top, made=made, started=started, pause=pause):
            started.send(None)
            for index in range(100):
                made.append(context.with_cancel(top)[0])
                if index > pause:
                    offset.gosched()

        threads = [Thread(begin) for _ in range(2)]
        goroutines = [go(begin) for _ in range(2)]
        for _ in range(4):
            started.recv(timeout=PATIENCE)
        cancel_top()
        for thread in threads:
            thread.result()
        for goroutine in goroutines:
            assert goroutine.join(timeout=PATIENCE)
        assert len(made) == 400
        assert all(is_over(ctx) for ctx in made)
        assert top.stats()["below"] == 0


# ---- causes ----------------------------------------------------------------------------------


def test_the_first_cause_stays():
    ctx, cancel = context.with_cancel_cause(context.background())
    first = ValueError("first")
    cancel(first)
    cancel(ValueError("second"))
    assert type(ctx.err()) is Canceled
    assert context.cause(ctx) is first


def test_without_a_cause_it_is_the_error():
    ctx, cancel = context.with_cancel_cause(context.background())
    cancel(None)
    assert context.cause(ctx) is ctx.err()
    other, cancel_other = context.with_cancel_cause(context.background())
    cancel_other()
    assert context.cause(other) is other.err()


def test_the_cause_goes_down_and_not_up():
    top, cancel_top = context.with_cancel_cause(context.background())
    middle, cancel_middle = context.with_cancel_cause(top)
    leaf, cancel_leaf = context.with_cancel(context.with_value(middle, "key", 1))
    why = RuntimeError("middle")
    cancel_middle(why)
    assert context.cause(leaf) is why
    assert context.cause(context.with_value(leaf, "k", 2)) is why
    assert context.cause(top) is None
    cancel_top(ValueError("late"))
    assert context.cause(middle) is why
    cancel_leaf()


def test_a_cause_for_the_deadline():
    slow = TimeoutError("the printer is slow")
    ctx, cancel = context.with_timeout_cause(context.background(), 0.005, slow)
    wait_over(ctx)
    assert type(ctx.err()) is DeadlineExceeded
    assert context.cause(ctx) is slow
    cancel()
    other, cancel_other = context.with_deadline_cause(context.background(), time.now() + HOUR, slow)
    cancel_other()
    assert type(context.cause(other)) is Canceled


# ---- deadlines -------------------------------------------------------------------------------


def test_a_deadline_ends_it():
    when = time.now() + 0.02
    ctx, cancel = context.with_deadline(context.background(), when)
    assert ctx.deadline() == when
    assert ctx.err() is None or time.now() >= when
    wait_over(ctx)
    assert time.now() >= when
    assert type(ctx.err()) is DeadlineExceeded
    assert isinstance(ctx.err(), TimeoutError)
    assert str(ctx.err()) == "context deadline exceeded"
    cancel()
    assert type(ctx.err()) is DeadlineExceeded


@pytest.mark.parametrize("seconds", [0, -1, datetime.timedelta(seconds=-5), -math.inf])
def test_a_deadline_that_has_passed(seconds):
    ctx, cancel = context.with_timeout(context.background(), seconds)
    assert is_over(ctx)
    assert type(ctx.err()) is DeadlineExceeded
    cancel()


def test_the_earlier_deadline_counts():
    top, cancel_top = context.with_timeout(context.background(), 0.01)
    later, cancel_later = context.with_timeout(top, HOUR)
    assert later.deadline() == top.deadline()
    sooner, cancel_sooner = context.with_timeout(later, 0)
    assert type(sooner.err()) is DeadlineExceeded
    wait_over(later)
    assert type(later.err()) is DeadlineExceeded
    for cancel in (cancel_top, cancel_later, cancel_sooner):
        cancel()


def test_a_timedelta_and_never():
    ctx, cancel = context.with_timeout(context.background(), datetime.timedelta(hours=1))
    assert 3500 < ctx.deadline() - time.now() <= 3600
    cancel()
    ctx, cancel = context.with_timeout(context.background(), math.inf)
    assert not is_over(ctx)
    cancel()
    assert type(ctx.err()) is Canceled


def test_cancel_stops_the_timer():
    def timers():
        return offset.runtime.stats()["timers"]

    before = timers()
    made = [context.with_timeout(context.background(), HOUR) for _ in range(100)]
    assert timers() >= before + 100
    for _, cancel in made:
        cancel()
    assert timers() < before + 100
    top, cancel_top = context.with_cancel(context.background())
    made = [context.with_timeout(top, HOUR) for _ in range(100)]
    cancel_top()
    assert timers() < before + 100


def test_a_deadline_is_no_reason_for_a_deadlock():
    def main():
        ctx, cancel = context.with_timeout(context.background(), 0.01)
        select(ctx.done().if_recv())
        cancel()
        return type(ctx.err())

    assert run(main) is DeadlineExceeded


# ---- values ----------------------------------------------------------------------------------


def test_values_shadow_those_above():
    top = context.with_value(context.background(), "a", 1)
    below, cancel = context.with_cancel(context.with_value(top, "b", 2))
    lowest = context.with_value(below, "a", 3)
    assert (top.value("a"), top.value("b")) == (1, None)
    assert (below.value("a"), below.value("b")) == (1, 2)
    assert (lowest.value("a"), lowest.value("b")) == (3, 2)
    cancel()
    assert lowest.value("b") == 2
    assert type(lowest.err()) is Canceled


def test_keys_are_objects():
    class Key:
        pass

    one, other = Key(), Key()
    ctx = context.with_value(context.with_value(context.background(), one, "one"), other, "other")
    assert (ctx.value(one), ctx.value(other), ctx.value(Key())) == ("one", "other", None)
    # Not even hashable ones are asked for.
    assert context.with_value(ctx, [1], "list").value([1]) == "list"


def test_none_is_no_key():
    with pytest.raises(ValueError, match="None cannot be a key"):
        context.with_value(context.background(), None, 1)


# ---- without_cancel --------------------------------------------------------------------------


def test_without_cancel_keeps_only_the_values():
    top, cancel = context.with_timeout(context.with_value(context.background(), "key", 1), HOUR)
    free = context.without_cancel(top)
    below, cancel_below = context.with_cancel(free)
    cancel()
    assert free.done() is nilchan
    assert free.err() is None
    assert free.deadline() is None
    assert context.cause(free) is None
    assert free.value("key") == 1
    assert not is_over(below)
    cancel_below()
    assert is_over(below)


# ---- after_func ------------------------------------------------------------------------------


@main_goroutine
def test_after_func_is_called_in_a_goroutine_of_its_own():
    ctx, cancel = context.with_cancel(context.background())
    called = makechan(2)
    stop = context.after_func(ctx, lambda: called.send(offset.current().id))
    with pytest.raises(TimeoutError):
        called.recv(timeout=0.01)
    cancel()
    assert called.recv(timeout=PATIENCE) != offset.current().id
    assert not stop()
    # And at once where it is over.
    context.after_func(ctx, lambda: called.send(0))
    assert called.recv(timeout=PATIENCE) == 0


def test_after_func_can_be_stopped():
    ctx, cancel = context.with_cancel(context.background())
    called = []
    stop = context.after_func(ctx, lambda: called.append(1))
    assert stop()
    assert not stop()
    assert ctx.stats()["below"] == 0
    cancel()
    assert run(lambda: time.sleep(0.01)) is None
    assert called == []


@main_goroutine
def test_after_func_and_stop_at_once():
    """Either it is called or stop says that it was not."""
    for _ in range(200):
        ctx, cancel = context.with_cancel(context.background())
        called = makechan(1)
        stop = context.after_func(ctx, lambda called=called: called.send(None))
        thread = Thread(cancel)
        stopped = stop()
        thread.result()
        if stopped:
            assert len(called) == 0
        else:
            called.recv(timeout=PATIENCE)
        assert not stop()


@main_goroutine
def test_after_func_of_a_context_that_never_ends():
    stop = context.after_func(context.background(), int)
    assert stop()


# ---- contexts of others ----------------------------------------------------------------------


@main_goroutine
def test_a_context_of_a_users_own_takes_part():
    own = Own(context.with_value(context.background(), "above", 1))
    below, cancel = context.with_cancel(context.with_value(own, "below", 2))
    assert [below.value(key) for key in ("own", "above", "below", "none")] == ["mine", 1, 2, None]
    assert not is_over(below)
    why = RuntimeError("of its own")
    own.end(why)
    wait_over(below)
    assert below.err() is why
    assert context.cause(below) is why
    late, cancel_late = context.with_cancel(own)
    assert is_over(late)
    assert late.err() is why
    assert isinstance(own, context.Context)
    cancel()
    cancel_late()


@main_goroutine
def test_waiting_for_a_context_of_a_users_own_ends_with_the_one_below():
    own = Own()
    before = offset.runtime.num_goroutine()
    made = [context.with_cancel(own) for _ in range(10)]
    assert offset.runtime.num_goroutine() == before + 10
    for _, cancel in made:
        cancel()
    wait_until(lambda: offset.runtime.num_goroutine() == before, "the goroutines have ended")


def test_a_wrapper_of_a_users_own_costs_no_goroutine():
    inner, cancel = context.with_cancel_cause(context.background())
    before = offset.runtime.num_goroutine()
    below, cancel_below = context.with_timeout(Wrapper(inner), HOUR)
    assert offset.runtime.num_goroutine() == before
    assert inner.stats()["below"] == 1
    why = ValueError("inside")
    cancel(why)
    assert is_over(below)
    assert context.cause(below) is why
    assert context.cause(Wrapper(inner)) is why
    cancel_below()


def test_a_context_with_after_func_is_asked_to_call():
    own = Observed()
    below, cancel = context.with_cancel(own)
    other, cancel_other = context.with_cancel(own)
    assert len(own.functions) == 2
    cancel_other()
    assert len(own.functions) == 1
    why = ValueError("over")
    own.end(why)
    assert is_over(below)
    assert below.err() is why
    assert type(other.err()) is Canceled
    cancel()


def test_a_context_that_gives_none_for_done_never_ends():
    class Forever(Own):
        def done(self):
            return None

    below, cancel = context.with_cancel(Forever())
    assert not is_over(below)
    cancel()


# ---- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 3, "background", object(), context.background])
@pytest.mark.parametrize(
    "make",
    [
        context.with_cancel,
        context.with_cancel_cause,
        lambda parent: context.with_timeout(parent, 1),
        lambda parent: context.with_deadline(parent, 1),
        lambda parent: context.with_value(parent, "k", 1),
        context.without_cancel,
        lambda parent: context.after_func(parent, int),
        context.scope,
    ],
)
def test_what_is_no_context_is_refused(make, wrong):
    with pytest.raises(TypeError, match=r"needs a context to start from.*background\(\)"):
        make(wrong)


def test_what_is_no_cause_is_refused():
    ctx, cancel = context.with_cancel_cause(context.background())
    with pytest.raises(TypeError, match="takes an exception or None as the cause, not str"):
        cancel("because")
    assert ctx.err() is None
    cancel()
    with pytest.raises(TypeError, match="cause"):
        context.with_timeout_cause(context.background(), 1, "slow")


@pytest.mark.parametrize("seconds", ["1", b"1", None, [], math.nan])
def test_what_is_no_duration_is_refused(seconds):
    with pytest.raises((TypeError, ValueError)):
        context.with_timeout(context.background(), seconds)
    with pytest.raises((TypeError, ValueError)), context.timeout(seconds):
        pass


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="needs a function to call, not int"):
        context.after_func(context.background(), 3)


# ---- the rest --------------------------------------------------------------------------------


def test_a_context_says_how_it_was_made():
    ctx, cancel = context.with_deadline(context.background(), time.now() + HOUR)
    text = repr(context.with_value(context.without_cancel(context.with_cancel(ctx)[0]), "user", "secret"))
    cancel()
    assert text.startswith("context.background.with_deadline(")
    assert text.endswith(").with_cancel.without_cancel.with_value('user')")
    # Values may be anything, passwords too.
    assert "secret" not in text


def test_stats():
    ctx, cancel = context.with_cancel(context.background())
    assert ctx.stats() == {"err": None, "deadline": None, "below": 0}
    _, cancel_below = context.with_cancel(ctx)
    assert ctx.stats()["below"] == 1
    assert context.with_value(ctx, "k", 1).stats()["below"] == 1
    cancel()
    assert ctx.stats() == {"err": ctx.err(), "deadline": None, "below": 0}
    assert context.background().stats() == {"err": None, "deadline": None, "below": 0}
    cancel_below()


def test_a_plain_thread_may_do_it_all():
    ctx, cancel = context.with_cancel(context.background())
    waiting = threading.Event()

    def wait():
        waiting.set()
        return select(ctx.done().if_recv(), timeout=PATIENCE).ok

    thread = Thread(wait)
    waiting.wait(PATIENCE)
    in_thread(cancel)
    assert thread.result() is False
