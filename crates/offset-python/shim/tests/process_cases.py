"""Stacks and the ends of a process."""

import ast
import gc
import unittest

import shimtest
from contexts import FREE_THREADED, ContextTest, child, run


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


@unittest.skipUnless(FREE_THREADED, "all threads run on one copy of the bytecode")
class Bytecode(unittest.TestCase):
    """Contexts run on the copy of bytecode of the thread that made them, and no two threads ever get the same one."""

    # No index is free twice, or free and in use.
    CHECK = (
        "def check(threads, states):\n"
        "    held, free = shimtest.indices()\n"
        "    assert len(set(free)) == len(free) and not set(free) & set(held), (held, free)\n"
        "    assert len(set(held)) == threads and len(held) == states, held\n"
        "def work():\n"
        "    return sum(each % 7 for each in range(1000))\n"
    )

    def test_one_copy(self):
        status, output = child(
            Endings.PARKED + self.CHECK + "check(1, 21)\n"
            "more = [shimtest.new() for _ in range(5)]\n"
            "for context in more: assert shimtest.run(context, work) == (work(), 1)\n"
            "check(1, 26)\n"
            "for context in more: shimtest.delete(context)\n"
            "check(1, 21); gc.collect()\n"
            "threads = [threading.Thread(target=lambda: (barrier.wait(), work())) for _ in range(5)]\n"
            "barrier = threading.Barrier(6)\n"
            "for thread in threads: thread.start()\n"
            "while threading.active_count() < 6: pass\n"
            "check(6, 26); barrier.wait()\n"
            "for thread in threads: thread.join()\n"
            "for context in contexts: shimtest.resume(context); shimtest.delete(context)\n"
            "check(1, 1); print('done')\n"
        )
        self.assertEqual((status, output), (0, "done\n"))

    def test_fork(self):
        # In the main thread, and in a context, which goes on with the copy that it is at.
        for call in ("fork()", "shimtest.run(shimtest.new(), fork)"):
            with self.subTest(call):
                status, output = child(
                    Endings.PARKED + self.CHECK + "def fork():\n"
                    "    pid = os.fork()\n"
                    "    if pid == 0:\n"
                    "        check(1, 1); gc.collect(); work()\n"
                    "        threads = [threading.Thread(target=barrier.wait) for _ in range(30)]\n"
                    "        for thread in threads: thread.start()\n"
                    "        while threading.active_count() < 31: pass\n"
                    "        check(31, 31); barrier.wait()\n"
                    "        os._exit(7)\n"
                    "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
                    "barrier = threading.Barrier(31)\n"
                    f"{call}\n"
                    "shimtest.cut_all()\n",
                    "-W",
                    "ignore",
                )
                self.assertEqual((status, output), (0, "7\n"))


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
