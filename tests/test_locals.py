"""What belongs to one goroutine, as it belongs to one thread elsewhere.

Contextvars (copied from whoever called `go`), `threading.local`, the handled exception, trace and
profile functions, the recursion depth, asyncio's running loop. Two invariants: a park never mixes
them, and a goroutine that gets a used stack and thread state finds nothing of its predecessor's.
"""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import gc
import sys
import threading
import traceback
import weakref

import pytest
from helpers import FREE_THREADED, PATIENCE, go_parked, in_thread, main_goroutine, wait_ended, wait_until
from offset import current, go, goexit, gosched, makechan

VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("VARIABLE", default="default")
LOCAL = threading.local()


class Thing:
    """Something that can be watched with a weak reference."""


def in_goroutine(function, /, *args):
    """Run `function` in a goroutine of its own and give what it returns."""
    results = makechan(1)
    goroutine = go(lambda: results.send(function(*args)))
    wait_ended(goroutine)
    return results.recv(timeout=PATIENCE)


# ---- contextvars -----------------------------------------------------------------------------


@main_goroutine
def test_the_context_is_copied_when_go_is_called():
    token = VARIABLE.set("at go")
    goroutine_sees = makechan(1)
    goroutine = go(lambda: goroutine_sees.send(VARIABLE.get()))
    VARIABLE.reset(token)
    VARIABLE.set("later")
    wait_ended(goroutine)
    assert goroutine_sees.recv() == "at go"


@main_goroutine
def test_changes_of_the_context_stay_in_the_goroutine():
    VARIABLE.set("spawner")

    def body():
        VARIABLE.set("goroutine")
        return VARIABLE.get()

    assert in_goroutine(body) == "goroutine"
    assert VARIABLE.get() == "spawner"


def test_the_context_of_a_thread_is_copied_too():
    def spawn():
        VARIABLE.set("thread")
        return in_goroutine(VARIABLE.get)

    assert in_thread(spawn) == "thread"
    assert contextvars.copy_context().run(spawn) == "thread"
    assert VARIABLE.get() == "default"


@main_goroutine
def test_a_park_does_not_mix_contexts():
    def body(number):
        VARIABLE.set(number)
        for _ in range(20):
            gosched()
            assert VARIABLE.get() == number
            token = VARIABLE.set((number, "inner"))
            gosched()
            assert VARIABLE.get() == (number, "inner")
            VARIABLE.reset(token)

    wait_ended(*[go(body, number) for number in range(30)])
    assert VARIABLE.get() == "default"


@main_goroutine
def test_a_park_inside_context_run_keeps_the_context():
    channel = makechan()
    context = contextvars.copy_context()

    def inner():
        VARIABLE.set("inner")
        channel.recv()
        return VARIABLE.get()

    def body():
        VARIABLE.set("outer")
        assert context.run(inner) == "inner"
        assert VARIABLE.get() == "outer"

    goroutine = go_parked(body, reason="chan receive")
    # Entered by a goroutine that is parked, it cannot be entered by another, as between threads.
    with pytest.raises(RuntimeError):
        context.run(int)
    channel.send(None)
    wait_ended(goroutine)
    assert context[VARIABLE] == "inner"


@main_goroutine
def test_decimal_contexts_are_apart():
    def body(precision):
        with decimal.localcontext() as context:
            context.prec = precision
            for _ in range(10):
                gosched()
                digits = str(decimal.Decimal(1) / decimal.Decimal(3))
                assert len(digits) == precision + len("0.")

    wait_ended(*[go(body, precision) for precision in range(3, 20)])


# ---- threading.local -------------------------------------------------------------------------


@main_goroutine
def test_a_thread_local_belongs_to_the_goroutine():
    LOCAL.value = "main"

    def body(number):
        assert not hasattr(LOCAL, "value")
        LOCAL.value = number
        for _ in range(20):
            gosched()
            assert LOCAL.value == number

    wait_ended(*[go(body, number) for number in range(30)])
    assert LOCAL.value == "main"
    del LOCAL.value


@main_goroutine
def test_a_thread_local_with_init_is_made_for_each_goroutine():
    made_in = []

    class Counted(threading.local):
        def __init__(self, first):
            self.values = [first]
            made_in.append(current().id)

    counted = Counted("first")

    def body(number):
        counted.values.append(number)
        gosched()
        return list(counted.values)

    assert [in_goroutine(body, number) for number in range(3)] == [["first", number] for number in range(3)]
    assert len(set(made_in)) == 4


@main_goroutine
def test_thread_locals_are_freed_with_the_goroutine():
    local, watches = threading.local(), []

    def body():
        local.thing = Thing()
        watches.append(weakref.ref(local.thing))
        gosched()

    for _ in range(20):
        goroutine = go(body)
        wait_ended(goroutine)
    # They are let go after the end that others see.
    wait_until(lambda: all(watch() is None for watch in watches), "everything was let go")


# ---- the handled exception -------------------------------------------------------------------


@main_goroutine
def test_the_handled_exception_survives_parks():
    def body(number):
        try:
            raise ValueError(number)
        except ValueError as error:
            for _ in range(5):
                gosched()
                assert sys.exc_info()[1] is error
            try:
                raise KeyError(number)
            except KeyError as inner:
                gosched()
                assert sys.exc_info()[1] is inner
                assert inner.__context__ is error
            gosched()
            assert sys.exc_info()[1] is error
            with pytest.raises(ValueError) as again:
                gosched()
                raise
            assert again.value is error
        gosched()
        assert sys.exc_info() == (None, None, None)

    wait_ended(*[go(body, number) for number in range(30)])


@main_goroutine
def test_a_goroutine_does_not_see_the_exception_its_spawner_handles():
    def body():
        assert sys.exc_info() == (None, None, None)
        with pytest.raises(LookupError) as caught:
            raise LookupError
        return caught.value.__context__

    try:
        raise ValueError
    except ValueError as error:
        assert in_goroutine(body) is None
        assert sys.exc_info()[1] is error


@main_goroutine
def test_a_generator_keeps_its_own_handled_exception_over_parks():
    def generate(number):
        try:
            raise ValueError(number)
        except ValueError as error:
            for _ in range(5):
                gosched()
                assert sys.exc_info()[1] is error
                yield number
                assert sys.exc_info()[1] is error

    def body(number):
        try:
            raise KeyError(number)
        except KeyError as error:
            for value in generate(number):
                assert value == number
                gosched()
                assert sys.exc_info()[1] is error

    wait_ended(*[go(body, number) for number in range(20)])


@main_goroutine
def test_a_generator_that_is_parked_runs_for_nobody_else():
    channel = makechan()

    def generate():
        yield channel.recv()

    generator = generate()
    goroutine = go_parked(next, generator, reason="chan receive")
    with pytest.raises(ValueError, match="already executing"):
        next(generator)
    channel.send("value")
    wait_ended(goroutine)
    assert list(generator) == []


@main_goroutine
def test_the_stack_of_a_goroutine_begins_with_its_function():
    def body():
        gosched()
        return [frame.name for frame in traceback.extract_stack()]

    names = in_goroutine(body)
    assert names[-1] == "body"
    assert "test_the_stack_of_a_goroutine_begins_with_its_function" not in names


@main_goroutine
def test_a_traceback_over_a_park_names_every_frame():
    channel = makechan()

    def innermost():
        channel.recv()
        raise LookupError

    def middle():
        innermost()

    def body():
        try:
            middle()
        except LookupError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    results = makechan(1)
    goroutine = go_parked(lambda: results.send(body()), reason="chan receive")
    channel.send(None)
    wait_ended(goroutine)
    assert results.recv() == ["body", "middle", "innermost"]


# ---- tracing ---------------------------------------------------------------------------------


class Recorder:
    """A trace or profile function that notes which goroutine called which of the watched functions."""

    def __init__(self, *names):
        self.names = set(names)
        self.calls = []
        self.returns = []

    def __call__(self, frame, event, argument):
        if frame.f_code.co_name in self.names:
            goroutine = current()
            seen = (goroutine.id if goroutine else 0, frame.f_code.co_name)
            if event == "call":
                self.calls.append(seen)
            elif event == "return":
                self.returns.append(seen)
        return self


def watched_function(parks):
    """Be seen by a recorder, before, between and after parks."""
    for _ in range(parks):
        watched_inner()
        gosched()
    watched_inner()


def watched_inner():
    """Be seen by a recorder."""


@pytest.mark.parametrize("install", [sys.settrace, sys.setprofile], ids=["trace", "profile"])
@main_goroutine
def test_a_trace_function_sees_one_goroutine_over_its_parks(install):
    recorder = Recorder("watched_function", "watched_inner")

    def traced():
        install(recorder)
        watched_function(5)
        install(None)

    goroutine = go(traced)
    others = [go(watched_function, 10) for _ in range(5)]
    wait_ended(goroutine, *others)
    inner = [(goroutine.id, "watched_inner")] * 6
    outer = (goroutine.id, "watched_function")
    assert recorder.calls == [outer, *inner]
    assert recorder.returns == [*inner, outer]


@pytest.mark.parametrize(
    ("install", "installed"),
    [(threading.settrace, threading.gettrace), (threading.setprofile, threading.getprofile)],
    ids=["trace", "profile"],
)
@main_goroutine
def test_goroutines_start_with_the_trace_function_of_new_threads(install, installed):
    recorder = Recorder("watched_function", "watched_inner")
    before = installed()
    install(recorder)
    try:
        goroutines = [go(watched_function, 2) for _ in range(3)]
        wait_ended(*goroutines)
    finally:
        install(before)
    late = go(watched_function, 2)
    wait_ended(late)
    assert sorted(recorder.calls) == sorted(
        (goroutine.id, name) for goroutine in goroutines for name in ["watched_function"] + ["watched_inner"] * 3
    )


# ---- recursion -------------------------------------------------------------------------------


def depth():
    """Recurse until Python says that it is too deep, and give how deep that was."""
    reached = 0

    def descend():
        nonlocal reached
        reached += 1
        descend()

    with pytest.raises(RecursionError):
        descend()
    return reached


def at_depth(levels, function):
    """Call `function` that many frames further down."""
    return function() if levels == 0 else at_depth(levels - 1, function)


@main_goroutine
def test_every_goroutine_has_the_whole_recursion_limit():
    full = in_goroutine(depth)
    assert full > sys.getrecursionlimit() - 100
    assert at_depth(400, lambda: in_goroutine(depth)) == full
    assert [in_goroutine(depth) for _ in range(10)] == [full] * 10


@main_goroutine
def test_the_depth_of_parked_goroutines_counts_for_them_alone():
    full, channel = in_goroutine(depth), makechan()
    remaining = []

    def body():
        at_depth(300, channel.recv_ok)
        remaining.append(at_depth(300, depth))

    goroutines = [go_parked(body, reason="chan receive") for _ in range(10)]
    assert in_goroutine(depth) == full
    channel.close()
    wait_ended(*goroutines)
    assert len(set(remaining)) == 1
    # Each level of `at_depth` is a frame, and the frames around it are the same ten or so.
    assert full - 320 < remaining[0] < full - 290


@main_goroutine
def test_a_goroutine_goes_on_after_a_recursion_error():
    def body():
        first = depth()
        gosched()
        return first == depth()

    assert in_goroutine(body)


@main_goroutine
def test_a_new_recursion_limit_holds_in_every_goroutine():
    limit, full = sys.getrecursionlimit(), in_goroutine(depth)
    channel, measured = makechan(), makechan(1)
    parked = go_parked(lambda: (channel.recv(), measured.send(depth())), reason="chan receive")
    own = in_goroutine(lambda: (gosched(), depth())[1])
    sys.setrecursionlimit(limit + 200)
    try:
        assert in_goroutine(depth) == full + 200
        channel.send(None)
        assert abs(measured.recv() - (own + 200)) <= 2
    finally:
        sys.setrecursionlimit(limit)
    wait_ended(parked)
    assert in_goroutine(depth) == full


# ---- asyncio ---------------------------------------------------------------------------------


def test_a_goroutine_does_not_inherit_the_running_loop():
    async def main():
        seen = makechan(1)
        goroutine = go(lambda: seen.send(asyncio._get_running_loop()))
        while not goroutine.join(timeout=0):
            await asyncio.sleep(0)
        return asyncio.get_running_loop() is not None, seen.try_recv()

    assert asyncio.run(main()) == (True, (None, True))


@main_goroutine
def test_each_goroutine_may_run_a_loop_of_its_own():
    async def steps(number):
        loop = asyncio.get_running_loop()
        for _ in range(5):
            gosched()
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() in asyncio.all_tasks()
            await asyncio.sleep(0)
        return number

    finished = []
    goroutines = [go(lambda number=number: finished.append(asyncio.run(steps(number)))) for number in range(5)]
    wait_ended(*goroutines)
    assert sorted(finished) == list(range(5))


# ---- reuse -----------------------------------------------------------------------------------


def spoil_context():
    VARIABLE.set("spoiled")
    assert VARIABLE.get() == "spoiled"


def spoil_thread_local():
    LOCAL.value = "spoiled"


def spoil_trace():
    sys.settrace(lambda frame, event, argument: None)


def spoil_profile():
    sys.setprofile(lambda frame, event, argument: None)


def spoil_asyncgen_hooks():
    sys.set_asyncgen_hooks(firstiter=lambda generator: None, finalizer=lambda generator: None)


def spoil_origin_tracking():
    sys.set_coroutine_origin_tracking_depth(7)


def spoil_running_loop():
    asyncio._set_running_loop("not really a loop")


def spoil_exception():
    try:
        raise ValueError
    except ValueError:
        goexit()


def spoil_recursion():
    at_depth(300, goexit)


def spoil_recursion_error():
    depth()


def spoil_decimal_context():
    decimal.setcontext(decimal.Context(prec=3))


def spoil_with_a_late_cancel():
    current().cancel()


def spoil_thread_name():
    threading.current_thread().name = "spoiled"


def parked_within(*, context):
    """Leave a goroutine that ended by cancel while it was inside several constructs."""
    try:
        raise KeyError
    except KeyError:
        context.run(lambda: (VARIABLE.set("spoiled"), makechan().recv()))


def spoil_by_cancel():
    goroutine = current()

    def cancel():
        wait_until(lambda: goroutine.wait_reason, "it is parked")
        goroutine.cancel()

    threading.Thread(target=cancel).start()
    parked_within(context=contextvars.copy_context())


SPOILERS = [function for name, function in sorted(globals().items()) if name.startswith("spoil_")]


def impression():
    """What a goroutine finds at its start, in values that can be compared."""
    return {
        "context": VARIABLE.get(),
        "thread local": getattr(LOCAL, "value", "nothing"),
        "trace": sys.gettrace(),
        "profile": sys.getprofile(),
        "asyncgen hooks": tuple(sys.get_asyncgen_hooks()),
        "origin tracking": sys.get_coroutine_origin_tracking_depth(),
        "running loop": asyncio._get_running_loop(),
        "exception": sys.exc_info(),
        "recursion": depth(),
        "decimal": decimal.getcontext().prec,
        "thread name": threading.current_thread().name == "spoiled",
    }


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__.removeprefix("spoil_"))
@main_goroutine
def test_a_reused_thread_state_carries_nothing_over(spoil):
    clean = in_goroutine(impression)
    assert clean == {
        **clean,
        "context": "default",
        "thread local": "nothing",
        "asyncgen hooks": (None, None),
        "origin tracking": 0,
        "running loop": None,
        "exception": (None, None, None),
        "decimal": decimal.DefaultContext.prec,
        "thread name": False,
    }
    for _ in range(5):
        # One after the other, where the next gets what the one before used; then many at once.
        wait_ended(go(spoil))
        assert in_goroutine(impression) == clean
    wait_ended(*[go(spoil) for _ in range(20)])
    found, goroutines = [], []
    for _ in range(20):
        goroutines.append(go(lambda: found.append(impression())))
    wait_ended(*goroutines)
    assert found == [clean] * 20


@main_goroutine
def test_what_spoilers_left_is_freed():
    watches = []

    def body():
        thing = Thing()
        watches.append(weakref.ref(thing))
        VARIABLE.set(thing)
        LOCAL.value = thing
        sys.set_asyncgen_hooks(firstiter=thing.__init__)
        sys.setprofile(lambda frame, event, argument, thing=thing: None)
        try:
            raise ValueError(thing)
        except ValueError:
            goexit()

    for _ in range(10):
        wait_ended(go(body))
    # Without the GIL what another thread dropped of an idle machine's objects goes with a collection, if not before.
    wait_until(
        lambda: all(watch() is None for watch in watches) or (FREE_THREADED and gc.collect() < 0),
        "everything was let go",
    )
