"""Identity, slots, switches: what belongs to a goroutine goes with it, and CPython never notices whose state it was."""

import faulthandler
import logging
import sqlite3
import sys
import tempfile
import threading
import unittest

import shimtest
from contexts import FREE_THREADED, VIRTUAL, ContextTest, child, local, on_thread, run, variable


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

    def test_who_looks_sees_whether_somebody_has_the_gil(self):
        self.assertEqual(shimtest.taken(), (int(not FREE_THREADED), 0))

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
