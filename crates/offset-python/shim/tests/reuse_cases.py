"""Reuse: the next goroutine of a context sees nothing of the one before, and has no field of it."""

import asyncio
import functools
import gc
import sys
import threading
import unittest

import shimtest
from contexts import FREE_THREADED, VIRTUAL, ContextTest, child, local, on_thread, other, run, variable


def ctypes_function(name, arguments):
    """A function of the interpreter's, taking pointers and giving a number."""
    import ctypes

    function = getattr(ctypes.pythonapi, name)
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p] * arguments
    return function


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
