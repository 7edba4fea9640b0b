"""Tests of the shim: what belongs to a goroutine goes with it, and CPython never notices whose thread state it was.

Run by run.py. Each test uses contexts of its own, on the thread that made them unless it says otherwise.
"""

import ast
import asyncio
import contextvars
import faulthandler
import functools
import gc
import logging
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import threading
import unittest

import shimtest

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
VIRTUAL = shimtest.install() > 0

variable = contextvars.ContextVar("variable", default="default")
other = contextvars.ContextVar("other", default="default")
local = threading.local()


def run(context, function):
    """The function's result; the context must be fit for another goroutine."""
    result, reusable = shimtest.run(context, function)
    assert reusable == 1
    return result


def on_thread(function):
    """Runs the function on a thread of its own and gives its result."""
    results = []

    def body():
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    result, error = results[0]
    if error is not None:
        raise error
    return result


def child(code, *options):
    """Runs a program in a subprocess; its exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", *options, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


class ContextTest(unittest.TestCase):
    def setUp(self):
        self.context = shimtest.new()
        self.addCleanup(self.delete)

    def delete(self):
        if self.context is not None:
            shimtest.delete(self.context)


class Reuse(ContextTest):
    """The second goroutine of a context sees nothing of the first."""

    def again(self, spoil, look):
        fresh = on_thread(look)
        run(self.context, spoil)
        self.assertEqual(run(self.context, look), fresh)

    def test_threading_local(self):
        def spoil():
            local.value = 1
            self.assertEqual(local.value, 1)

        self.again(spoil, lambda: vars(local).copy())

    def test_threading_local_is_freed(self):
        freed = []

        class Value:
            def __del__(self):
                freed.append(True)

        def spoil():
            local.value = Value()

        run(self.context, spoil)
        gc.collect()
        self.assertEqual(freed, [True])

    def test_context_variable(self):
        # The cache of a ContextVar goes by the state's id and the version of its context, if the state has one.
        def spoil():
            variable.set("spoiled")
            self.assertEqual(variable.get(), "spoiled")

        def look():
            other.set("mine")
            return [variable.get() for _ in range(3)]

        for _ in range(3):
            run(self.context, spoil)
            self.assertEqual(run(self.context, look), ["default"] * 3)

    def test_trace_and_profile(self):
        def spoil():
            sys.settrace(lambda *event: None)
            sys.setprofile(lambda *event: None)

        self.again(spoil, lambda: (sys.gettrace(), sys.getprofile()))
        seen = []

        def trace_all():
            sys.settrace(lambda frame, event, argument: seen.append(event))

        run(self.context, trace_all)
        del seen[:]
        run(self.context, lambda: sum(i for i in range(3)))
        self.assertEqual(seen, [])

    def test_handled_exception(self):
        def spoil():
            try:
                raise ValueError
            except ValueError:
                return sys.exc_info()[0]

        self.again(spoil, sys.exc_info)

    def test_uncaught_exception(self):
        def spoil():
            try:
                raise KeyError("inner")
            except KeyError:
                raise ValueError("outer") from None

        with self.assertRaises(ValueError):
            shimtest.run(self.context, spoil)
        self.assertEqual(run(self.context, sys.exc_info), (None, None, None))

    def test_async_generator_hooks(self):
        def spoil():
            sys.set_asyncgen_hooks(firstiter=lambda generator: None, finalizer=lambda generator: None)

        self.again(spoil, lambda: tuple(sys.get_asyncgen_hooks()))

    def test_origin_tracking(self):
        self.again(lambda: sys.set_coroutine_origin_tracking_depth(3), sys.get_coroutine_origin_tracking_depth)

    def test_running_loop(self):
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        def spoil():
            asyncio._set_running_loop(loop)
            self.assertIs(asyncio.get_running_loop(), loop)

        def look():
            return asyncio._get_running_loop() is None

        self.again(spoil, look)
        references = sys.getrefcount(loop)
        for _ in range(5):
            run(self.context, spoil)
        self.assertEqual(sys.getrefcount(loop), references)

    def test_running_task(self):
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        def spoil():
            asyncio._set_running_loop(loop)
            asyncio.tasks._enter_task(loop, marker)

        async def nothing():
            pass

        marker = loop.create_task(nothing())
        run(self.context, spoil)

        def look():
            asyncio._set_running_loop(loop)
            try:
                return asyncio.current_task()
            finally:
                asyncio._set_running_loop(None)

        if sys.version_info >= (3, 14):
            self.assertIsNone(run(self.context, look))
        else:
            asyncio.tasks._leave_task(loop, marker)
        loop.run_until_complete(marker)

    def test_whole_loop(self):
        async def sleepy():
            await asyncio.sleep(0)
            return 42

        for _ in range(3):
            self.assertEqual(run(self.context, lambda: asyncio.run(sleepy())), 42)

    def test_pending_task_forbids_reuse(self):
        if sys.version_info < (3, 14):
            self.skipTest("tasks are not listed by thread")
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def nothing():
            return 7

        tasks = []
        _, reusable = shimtest.run(self.context, lambda: tasks.append(loop.create_task(nothing())))
        self.assertEqual(reusable, 0)
        self.delete()
        self.context = None
        self.assertIn(tasks[0], asyncio.all_tasks(loop))
        self.assertEqual(loop.run_until_complete(tasks[0]), 7)

    def test_recursion_depth(self):
        def depth():
            level = 0

            def down():
                nonlocal level
                level += 1
                down()

            with self.assertRaises(RecursionError):
                down()
            return level

        first = run(self.context, depth)
        self.assertGreater(first, 900)
        for _ in range(3):
            self.assertEqual(run(self.context, depth), first)

    def test_asynchronous_exception(self):
        # No Python code runs after the call, so the exception is still pending at the end of the goroutine.
        spoil = functools.partial(shimtest.raise_async, shimtest.ident(self.context), KeyError)
        self.assertEqual(run(self.context, spoil), 1)
        self.assertEqual(run(self.context, lambda: sum(i for i in range(1000))), 499500)

    def test_id_is_new(self):
        if not VIRTUAL:
            self.skipTest("no identity")
        get_id = ctypes_function("PyThreadState_GetID", 1)
        ids = {run(self.context, lambda: get_id(shimtest.state(self.context))) for _ in range(4)}
        self.assertEqual(len(ids), 4)

    def test_finalizer_that_parks(self):
        order = []

        class Parks:
            def __del__(self):
                order.append("before")
                shimtest.park()
                order.append("after")

        def body():
            local.value = Parks()

        self.assertIsNone(shimtest.run(self.context, body))
        self.assertEqual(order, ["before"])
        _, reusable = shimtest.resume(self.context)
        self.assertEqual((order, reusable), (["before", "after"], 1))

    def test_finalizer_that_makes_new(self):
        class Chain:
            def __init__(self, left):
                self.left = left

            def __del__(self):
                if self.left:
                    local.value = Chain(self.left - 1)

        def body():
            local.value = Chain(5)

        run(self.context, body)
        self.assertFalse(run(self.context, lambda: hasattr(local, "value")))

    def test_finalizer_without_end(self):
        class Chain:
            go_on = True

            def __del__(self):
                if Chain.go_on:
                    local.value = Chain()

        def body():
            local.value = Chain()

        _, reusable = shimtest.run(self.context, body)
        Chain.go_on = False
        self.assertEqual(reusable, 0)


class Fields(ContextTest):
    """Each field that the shim empties or resets, one by one: most of them no Python program can leave behind."""

    # These are never twice the same, and one is set by each attach, so they have tests of their own.
    NEVER_THE_SAME = ("context_ver", "id", "native_thread_id")

    def test_reset(self):
        run(self.context, lambda: None)
        new = shimtest.new()
        self.addCleanup(shimtest.delete, new)
        fresh = self.fields(new)
        self.assertEqual(self.fields(self.context), fresh)
        for name, value in fresh.items():
            if name == "datastack_cached_chunk":
                continue  # It is emptied at the end of a goroutine: test_cached_chunk.
            with self.subTest(name):
                shimtest.set(self.context, name, value ^ 8)
                self.assertNotEqual(self.fields(self.context)[name], value)
                shimtest.reset(self.context)
                self.assertEqual(self.fields(self.context)[name], value)

    def fields(self, context):
        fields = shimtest.fields(context)
        return {name: value for name, value in fields.items() if name not in self.NEVER_THE_SAME}

    def test_ids_and_versions_are_new(self):
        # Either would do for the cache of a ContextVar.
        before = shimtest.fields(self.context)
        shimtest.reset(self.context)
        after = shimtest.fields(self.context)
        self.assertNotEqual(after["id"], before["id"])
        self.assertNotEqual(after["context_ver"], before["context_ver"])

    def test_references(self):
        class Thing(Exception):
            pass

        for name in shimtest.leavables(True):
            with self.subTest(name):
                thing = Thing()
                before = sys.getrefcount(thing)
                shimtest.leave(self.context, name, thing)
                run(self.context, lambda: None)
                self.assertEqual(sys.getrefcount(thing), before)

    def test_words_that_forbid_reuse(self):
        for name in shimtest.leavables(False):
            with self.subTest(name):
                shimtest.leave(self.context, name, None)
                self.assertEqual(shimtest.run(self.context, lambda: None), (None, 0))
                shimtest.reset(self.context)

    def test_finalizers_handle_nothing(self):
        handled = []

        class Hook:
            def __call__(self, generator):
                pass

            def __del__(self):
                handled.append(sys.exc_info()[0])

        shimtest.leave(self.context, "exc_info", ValueError())
        run(self.context, lambda: sys.set_asyncgen_hooks(finalizer=Hook()))
        self.assertEqual(handled, [None])

    def test_cached_chunk(self):
        if "datastack_cached_chunk" not in shimtest.fields(self.context):
            self.skipTest("no chunk is kept")

        def depth(level):
            if level == 0:
                return 0
            return 1 + depth(level - 1)

        self.assertEqual(run(self.context, lambda: depth(900)), 900)
        self.assertEqual(shimtest.fields(self.context)["datastack_cached_chunk"], 0)

    @unittest.skipIf(FREE_THREADED, "a started goroutine never moves there")
    def test_native_id(self):
        def body():
            own = []
            for _ in range(2):
                own.append((shimtest.fields(self.context)["native_thread_id"], threading.get_native_id()))
                shimtest.park()
            return own

        self.assertIsNone(shimtest.run(self.context, body))
        self.assertIsNone(on_thread(lambda: shimtest.resume(self.context)))
        (first, second), _ = shimtest.resume(self.context)
        self.assertEqual(first[0], first[1])
        self.assertEqual(second[0], second[1])
        self.assertNotEqual(first, second)

    def test_end_of_a_thread(self):
        if sys.version_info >= (3, 13):
            self.skipTest("threading asks for no call at the end of a thread")
        import _thread

        def body():
            sentinel = _thread._set_sentinel()
            sentinel.acquire()
            return sentinel

        self.assertFalse(run(self.context, body).locked())

    def test_stand_in(self):
        if not VIRTUAL:
            self.skipTest("virtual identity is impossible here")
        first = run(self.context, threading.current_thread)
        self.assertNotIn(shimtest.ident(self.context), threading._active)
        self.assertIsNot(run(self.context, threading.current_thread), first)


class Refused(unittest.TestCase):
    """An audit hook may refuse to take a trace function away: then the context is not used again."""

    def test_audit_hook(self):
        status, output = child(
            "import sys, shimtest\n"
            "refuse = False\n"
            "def hook(event, arguments):\n"
            "    if refuse and event in ('sys.settrace', 'sys.setprofile'): raise RuntimeError(event)\n"
            "sys.addaudithook(hook)\n"
            "def body():\n"
            "    global refuse\n"
            "    sys.settrace(lambda *event: None); sys.setprofile(lambda *event: None); refuse = True\n"
            "context = shimtest.new()\n"
            "print(shimtest.run(context, body))\n"
            "refuse = False\n"
            "shimtest.delete(context)\n"
            "print(sys.gettrace(), 'ok')\n"
        )
        self.assertEqual(status, 0, output)
        self.assertIn("(None, 0)", output)
        self.assertIn("None ok", output)


class Identity(ContextTest):
    """A context is a thread in the eyes of whatever asks who it is."""

    def setUp(self):
        super().setUp()
        if not VIRTUAL:
            self.skipTest("virtual identity is impossible here")
        self.other = shimtest.new()

    def delete(self):
        super().delete()
        shimtest.delete(self.other)

    def test_ident(self):
        here = threading.get_ident()
        self.assertEqual(run(self.context, threading.get_ident), shimtest.ident(self.context))
        self.assertEqual(threading.get_ident(), here)

    def test_other_threads_keep_theirs(self):
        ours = set(map(shimtest.ident, (self.context, self.other)))
        shimtest.run(self.context, shimtest.park)
        self.assertNotIn(on_thread(threading.get_ident), ours)
        shimtest.resume(self.context)

    def test_rlock_excludes(self):
        lock = threading.RLock()

        def holder():
            with lock, lock:
                shimtest.park()

        self.assertIsNone(shimtest.run(self.context, holder))
        self.assertFalse(run(self.other, lambda: lock.acquire(blocking=False)))
        self.assertFalse(lock.acquire(blocking=False))
        shimtest.resume(self.context)
        self.assertTrue(run(self.other, lambda: lock.acquire(blocking=False) and not lock.release()))

    @unittest.skipIf(FREE_THREADED, "a started goroutine never moves there")
    def test_moves_with_everything(self):
        lock = threading.RLock()
        seen = []

        def body():
            connection = sqlite3.connect(":memory:")
            local.value = "mine"
            variable.set("mine")
            with lock:
                for _ in range(4):
                    shimtest.park()
                    with lock:
                        connection.execute("select 1").fetchone()
                    seen.append((threading.get_ident(), local.value, variable.get(), threading.get_native_id()))
                    assert shimtest.ensure()
            connection.close()
            return shimtest.slot()

        self.assertIsNone(shimtest.run(self.context, body))
        for _ in range(3):
            self.assertIsNone(on_thread(lambda: shimtest.resume(self.context)))
        slot, reusable = shimtest.resume(self.context)
        self.assertEqual((slot, reusable), (shimtest.state(self.context), 1))
        self.assertEqual({entry[:3] for entry in seen}, {(shimtest.ident(self.context), "mine", "mine")})
        self.assertGreater(len({entry[3] for entry in seen}), 1)

    def test_current_frames(self):
        shimtest.run(self.context, shimtest.park)
        self.assertIsNone(shimtest.run(self.other, lambda: shimtest.park()))
        self.assertEqual(sys._current_frames()[shimtest.ident(self.other)].f_code.co_name, "<lambda>")
        shimtest.resume(self.context)
        shimtest.resume(self.other)

    def test_faulthandler(self):
        # From 3.14 on it asks for the name of the thread that the id points to.
        shimtest.run(self.context, lambda: shimtest.park())
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            text = file.read()
        self.assertIn(f"{shimtest.ident(self.context):016x}", text)
        shimtest.resume(self.context)

    def test_buffered_file_and_logging(self):
        logger = logging.getLogger("shim")

        class Parks(logging.Handler):
            def emit(self, record):
                shimtest.park()

        logger.addHandler(Parks())
        logger.propagate = False
        self.addCleanup(logger.handlers.clear)
        self.assertIsNone(shimtest.run(self.context, lambda: logger.warning("held")))
        lock = logger.handlers[0].lock
        self.assertFalse(run(self.other, lambda: lock.acquire(blocking=False)))
        shimtest.resume(self.context)


class Slots(ContextTest):
    """The slot by which extensions find their thread's state names the one that runs, never one that is gone."""

    def test_ensure_finds_the_context(self):
        self.assertTrue(run(self.context, shimtest.ensure))
        self.assertTrue(shimtest.ensure())

    def test_callback(self):
        def body():
            local.value = "seen"
            return [shimtest.ensure() and local.value for _ in range(3)]

        self.assertEqual(run(self.context, body), ["seen"] * 3)

    def test_interleaved(self):
        other = shimtest.new()

        def body():
            answers = []
            for _ in range(3):
                answers.append(shimtest.ensure())
                shimtest.park()
            return answers

        shimtest.run(self.context, body)
        shimtest.run(other, body)
        for _ in range(2):
            shimtest.resume(self.context)
            shimtest.resume(other)
        self.assertEqual(shimtest.resume(self.context), ([True] * 3, 1))
        self.assertEqual(shimtest.resume(other), ([True] * 3, 1))
        shimtest.delete(other)

    def test_delete_keeps_the_callers_slot(self):
        own = shimtest.slot()
        for _ in range(10):
            context = shimtest.new()
            run(context, lambda: None)
            shimtest.delete(context)
            self.assertEqual(shimtest.slot(), own)
            self.assertTrue(shimtest.ensure())

    def test_delete_after_unbind(self):
        # The context still says that a slot names it; the slot names the caller by now.
        own = shimtest.slot()
        shimtest.unbind_always(True)
        self.addCleanup(shimtest.unbind_always, False)
        context = shimtest.new()
        run(context, lambda: None)
        shimtest.delete(context)
        self.assertEqual(shimtest.slot(), own)
        self.assertTrue(shimtest.ensure())

    def test_delete_of_one_that_never_ran(self):
        own = shimtest.slot()
        shimtest.delete(shimtest.new())
        self.assertEqual(shimtest.slot(), own)

    def test_unbind(self):
        self.assertEqual(shimtest.unbind(), 0)
        self.assertTrue(shimtest.ensure())

    @unittest.skipIf(FREE_THREADED, "a started goroutine never moves there")
    def test_delete_where_it_ran_last(self):
        # The thread that ran it before must not be left with a slot that names it.
        context = shimtest.new()
        shimtest.run(context, lambda: shimtest.park())

        def elsewhere():
            shimtest.resume(context)
            shimtest.delete(context)
            return shimtest.ensure()

        self.assertTrue(on_thread(elsewhere))
        self.assertTrue(run(self.context, shimtest.ensure))
        self.assertTrue(shimtest.ensure())

    def test_count(self):
        before = shimtest.count()
        contexts = [shimtest.new() for _ in range(5)]
        self.assertEqual(shimtest.count(), before + 5)
        for context in contexts:
            shimtest.delete(context)
        self.assertEqual(shimtest.count(), before)


class Hand(ContextTest):
    """The interpreter goes from context to context of one thread, and each finds what is its own."""

    def setUp(self):
        super().setUp()
        self.contexts = (self.context, shimtest.new(), shimtest.new())

    def trade(self, function):
        results = shimtest.trade(self.contexts, function)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for context in self.contexts[1:]:
            shimtest.delete(context)
        self.assertTrue(shimtest.ensure())
        return results

    def test_everybody_finds_their_own(self):
        def body():
            local.value, mine = object(), threading.get_ident()
            variable.set(local.value)
            kept = local.value
            for _ in range(100):
                shimtest.park()
                assert shimtest.ensure()
                assert local.value is variable.get() is kept
                assert threading.get_ident() == mine
            return mine

        self.assertEqual(len(set(self.trade(body))), 3)

    def test_tracing_that_begins_meanwhile(self):
        """Each state has a copy of the version of what is traced; with an old one a function never begins."""
        begun, seen = [], []

        def watched():
            pass

        def trace(frame, event, argument):
            seen.append(frame.f_code.co_name)

        def body():
            first = not begun
            begun.append(True)
            for turn in range(10):
                shimtest.park()
                if first and turn in (3, 7):
                    sys.settrace(trace if turn == 3 else None)
                watched()

        self.trade(body)
        self.assertEqual(seen.count("watched"), 4)

    def test_an_exception_that_comes_while_it_is_parked(self):
        own, hit = [], []

        def body():
            own.append(threading.get_ident())
            try:
                for turn in range(10):
                    if turn == 5 and threading.get_ident() == own[0]:
                        shimtest.raise_async(own[1], KeyError)
                    shimtest.park()
                    sys.getrefcount(None)
            except KeyError:
                hit.append(threading.get_ident())

        self.trade(body)
        self.assertEqual(hit, own[1:2])

    def test_a_thread_gets_in(self):
        stop = threading.Event()
        thread = threading.Thread(target=stop.set)
        begun = []

        def body():
            if not begun:
                begun.append(thread.start())
            while not stop.is_set():
                shimtest.park()

        self.trade(body)
        thread.join()

    def test_threads_that_compute(self):
        """A request to drop the GIL is left with a context that has just parked, again and again."""
        stop, turns = threading.Event(), []

        def compute():
            while not stop.is_set():
                pass

        threads = [threading.Thread(target=compute) for _ in range(2)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()

        def body():
            for _ in range(3000):
                shimtest.park()
            turns.append(True)

        self.trade(body)
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
        self.assertEqual(len(turns), 3)


class Asynchronous(ContextTest):
    def test_take(self):
        self.assertEqual(shimtest.take_async(), 0)
        self.assertEqual(run(self.context, lambda: shimtest.raise_and_take(KeyError)), (1, 1))
        self.assertEqual(run(self.context, shimtest.take_async), 0)

    def test_raise_in_parked(self):
        def body():
            try:
                shimtest.park()
                for _ in range(1000):
                    pass
            except KeyError:
                return "raised"

        shimtest.run(self.context, body)
        self.assertEqual(shimtest.raise_async(shimtest.ident(self.context), KeyError), 1)
        sum(range(1000))
        self.assertEqual(shimtest.resume(self.context), ("raised", 1))

    def test_nobody(self):
        self.assertEqual(shimtest.raise_async(1, KeyError), 0)


class Tracing(ContextTest):
    def test_threading_hooks(self):
        events = []
        threading.settrace(lambda frame, event, argument: events.append((event, frame.f_code.co_name)))
        threading.setprofile(lambda frame, event, argument: events.append(("profile", frame.f_code.co_name)))
        try:

            def traced():
                return 1

            run(self.context, traced)
        finally:
            threading.settrace(None)
            threading.setprofile(None)
        self.assertIn(("call", "traced"), events)
        self.assertIn(("profile", "traced"), events)
        del events[:]
        run(self.context, lambda: None)
        self.assertEqual(events, [])

    def test_imports_nothing(self):
        status, output = child(
            "import sys\n"
            "sys.modules.pop('threading', None)\n"
            "import shimtest\n"
            "print(shimtest.run(shimtest.new(), lambda: 'threading' in sys.modules)[0]); shimtest.cut_all()\n"
        )
        self.assertEqual((status, output.strip()), (0, "False"))


class Stacks(ContextTest):
    """The limits of the context's own C stack hold."""

    def test_deep_calls_and_chunks(self):
        def depth(level):
            return level and 1 + depth(level - 1)

        for _ in range(3):
            self.assertEqual(run(self.context, lambda: depth(800)), 800)

    def test_c_recursion(self):
        class Node:
            def __init__(self, next):
                self.next = next

            def __repr__(self):
                return repr(self.next)

        def body():
            node = None
            for _ in range(20000):
                node = Node(node)
            try:
                repr(node)
            except RecursionError:
                return "RecursionError"

        self.assertEqual(run(self.context, body), "RecursionError")

    def test_parser(self):
        def body():
            kinds = set()
            for size in (50, 500, 5000):
                for text in ("(" * size + ")" * size, "-" * size + "1", "a if a else " * size + "b"):
                    try:
                        ast.literal_eval(text)
                    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
                        kinds.add(type(error).__name__)
            return kinds

        self.assertTrue(run(self.context, body))

    def test_chunk_of_a_parked_deep_frame(self):
        # Chunks of the interpreter's own above ours, while parked.
        def depth(level):
            if level == 0:
                shimtest.park()
                return 0
            return 1 + depth(level - 1)

        self.assertIsNone(shimtest.run(self.context, lambda: depth(700)))
        gc.collect()
        self.assertEqual(shimtest.resume(self.context), (700, 1))


class Endings(unittest.TestCase):
    """The ends of a process, each in one of its own."""

    PARKED = (
        "import gc, os, sys, threading, shimtest\n"
        "def depth(n):\n"
        "    return 1 + depth(n - 1) if n else shimtest.park() or 0\n"
        "contexts = [shimtest.new() for _ in range(20)]\n"
        "for n, context in enumerate(contexts): shimtest.run(context, lambda: depth(n * 20))\n"
    )

    def test_exit_with_parked(self):
        status, output = child(self.PARKED + "shimtest.cut_all(); print('done')\n")
        self.assertEqual((status, output), (0, "done\n"))

    def test_fork_with_parked(self):
        # The child frees the thread states that it does not have; their chunks are not its to free.
        status, output = child(
            self.PARKED + "pid = os.fork()\n"
            "if pid == 0:\n"
            "    gc.collect(); context = shimtest.new()\n"
            "    assert shimtest.run(context, lambda: shimtest.ensure()) == (True, 1)\n"
            "    shimtest.unbind()\n"
            "    native = shimtest.run(context, lambda: shimtest.fields(context)['native_thread_id'])[0]\n"
            "    assert native == threading.get_native_id(), native\n"
            "    shimtest.cut_all(); print('child', flush=True); sys.exit(7)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
            "for context in contexts: shimtest.resume(context)\n"
            "shimtest.cut_all()\n",
            "-W",
            "ignore",
        )
        self.assertEqual((status, output), (0, "child\n7\n"))

    def test_exit_before_a_thread_wants_the_gil(self):
        # 3.11 to 3.13 end such a thread by unwinding it, where it attaches; nothing is left to luck here.
        code = (
            "import threading, time, shimtest\n"
            "class Last:\n"
            "    def __del__(self, wait=shimtest.await_exit): wait(True)\n"
            "last = Last()\n"
            "threading.Thread(target=shimtest.park_until_exit, daemon=True).start()\n"
            "while not shimtest.await_exit(False): time.sleep(0.001)\n"
            "print('done', flush=True)\n"
        )
        self.assertEqual(child(code), (0, "done\n"))

    def test_exit_while_threads_want_the_gil(self):
        # 3.11 to 3.13 end such a thread by unwinding it, from wherever it waits.
        code = (
            "import sys, threading, shimtest\n"
            "started = threading.Barrier(5)\n"
            "def machine():\n"
            "    context = shimtest.new()\n"
            "    def hog():\n"
            "        started.wait()\n"
            "        while True: sum(range(50)); shimtest.park()\n"
            "    shimtest.run(context, hog)\n"
            "    while True: shimtest.resume(context)\n"
            "for _ in range(4): threading.Thread(target=machine, daemon=True).start()\n"
            "started.wait()\n"
            "for _ in range(50): sum(range(10000))\n"
            "print('done', flush=True)\n"
        )
        # Whether a thread is caught in one of our frames is a matter of luck.
        for _ in range(5):
            self.assertEqual(child(code), (0, "done\n"))


def ctypes_function(name, arguments):
    """A function of the interpreter's, taking pointers and giving a number."""
    import ctypes

    function = getattr(ctypes.pythonapi, name)
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p] * arguments
    return function


if __name__ == "__main__":
    print("virtual identity:", VIRTUAL)
    context, idle = shimtest.new(), shimtest.new()
    print("finish, reset, tracing, ns: %.1f %.1f %.1f" % shimtest.run(context, lambda: shimtest.cost(200000))[0][:3])
    shimtest.delete(context)
    shimtest.delete(idle)
    unittest.main(verbosity=1)
