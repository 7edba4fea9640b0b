"""`offset.syscall.threading`: threads that are goroutines, and locks that park only who waits.

What belongs to the original's own code (conditions, barriers, semaphores, timers) is tested by CPython's tests over the
proxies (tests/cpython); here is what is offset's: the start and the end of threads, their register, what waits. Its
locks are in test_syscall_threading_locks.py.
"""

import contextvars
import inspect
import sys
import threading as original

import offset
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    Thread,
    go_parked,
    main_goroutine,
    refusal,
    run_script,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import go, makechan
from offset.syscall import threading


def started(function, *args, **kwargs):
    thread = threading.Thread(target=function, args=args, **kwargs)
    thread.start()
    return thread


def goroutine_of(thread):
    return next(each for each in offset.runtime.goroutines() if each.ident == thread.ident)


# ---- the module ------------------------------------------------------------------------------


def test_signatures_are_the_originals():
    for name in original.__all__:
        value, twin = getattr(original, name), getattr(threading, name)
        if not inspect.isclass(value) and inspect.isroutine(value) and name not in ("Lock", "stack_size"):
            try:
                expected = inspect.signature(value)
            except ValueError:
                continue
            # The test runner has put a hook of its own there.
            if name not in ("get_ident", "excepthook"):
                assert inspect.signature(twin) == expected, name
        elif inspect.isclass(value) and not issubclass(value, BaseException) and value is not original.local:
            for method, function in vars(value).items():
                if inspect.isfunction(function):
                    assert inspect.signature(getattr(twin, method)) == inspect.signature(function), (name, method)


def test_what_is_shared_with_the_original():
    for name in ("local", "settrace", "gettrace", "setprofile", "getprofile", "active_count"):
        assert getattr(threading, name) is getattr(original, name)
    assert threading.ThreadError is RuntimeError
    assert threading.BrokenBarrierError is original.BrokenBarrierError


# ---- threads ---------------------------------------------------------------------------------


def test_a_thread_is_a_goroutine():
    for run in (lambda function: function(), offset.run):
        seen = []

        def work(*args, seen=seen, **kwargs):
            seen.append((offset.current().name, threading.current_thread(), args, kwargs))

        def main(work=work):
            thread = threading.Thread(target=work, name="a worker", args=(1,), kwargs={"two": 2})
            assert isinstance(thread, original.Thread)
            assert (thread.ident, thread.is_alive()) == (None, False)
            assert repr(thread) == "<Thread(a worker, initial)>"
            thread.start()
            thread.join()
            assert not thread.is_alive()
            assert repr(thread) == f"<Thread(a worker, stopped {thread.ident})>"
            return thread

        thread = run(main)
        assert seen == [("a worker", thread, (1,), {"two": 2})]


@main_goroutine
def test_what_the_register_says():
    """Both modules know the threads of both."""
    gate = threading.Event()
    thread = started(gate.wait)
    plain = original.Thread(target=gate.wait)
    plain.start()
    for module in (original, threading):
        assert {thread, plain, module.main_thread()} <= set(module.enumerate())
        assert module.active_count() == len(module.enumerate())
    assert thread.is_alive()
    assert sys._current_frames()[thread.ident]
    gate.set()
    thread.join()
    wait_until(lambda: not plain.is_alive())
    for module in (original, threading):
        assert not {thread, plain} & set(module.enumerate())


@main_goroutine
def test_the_current_thread():
    def work():
        return (
            threading.current_thread(),
            original.current_thread(),
            threading.get_ident() == original.get_ident() == offset.current().ident,
            isinstance(threading.get_native_id(), int),
        )

    class Keeping(threading.Thread):
        def run(self):
            self.seen = work()

    thread = Keeping()
    thread.start()
    thread.join()
    assert thread.seen == (thread, thread, True, True)
    # A goroutine that is no thread is one not started by the module, to both. That of main is the main thread, to one.
    seen = []

    def look():
        mine = threading.current_thread()
        seen.append((isinstance(mine, original._DummyThread), mine is threading.current_thread()))
        seen.append(mine is original.current_thread())

    wait_ended(go(look))
    assert seen == [(True, True), True]
    assert threading.current_thread() is threading.main_thread()
    assert isinstance(original.current_thread(), original._DummyThread)
    plain = original.Thread(target=lambda: seen.append((threading.current_thread(), original.current_thread())))
    seen = []
    plain.start()
    wait_until(lambda: not plain.is_alive())
    assert seen == [(plain, plain)]


def test_dummy_threads_do_not_stay():
    def main():
        def look():
            threading.current_thread()

        wait_ended(*[go(look) for _ in range(20)])

    def left():
        return [each for each in original.enumerate() if isinstance(each, original._DummyThread)]

    # Of goroutines that use the original module, as libraries do, they stay on versions that let no dummy go.
    before = left()
    offset.run(main)
    wait_until(lambda: left() == before, "they have gone")


def test_who_is_a_daemon():
    def flags():
        inherited = []
        outer = threading.Thread(target=lambda: inherited.append(threading.Thread().daemon), daemon=True)
        outer.start()
        outer.join()
        return threading.Thread().daemon, threading.Thread(daemon=True).daemon, inherited

    assert flags() == (False, True, [True])
    assert offset.run(flags) == (False, True, [True])


@main_goroutine
def test_misuse_of_a_thread():
    thread = threading.Thread(target=offset.gosched)
    with pytest.raises(RuntimeError, match="before it is started"):
        thread.join()
    thread.start()
    with pytest.raises(RuntimeError, match="only be started once"):
        thread.start()
    with pytest.raises(RuntimeError, match="daemon status"):
        thread.daemon = True
    thread.join()
    with pytest.raises(RuntimeError):
        threading.Thread.start(thread)
    errors = []
    itself = threading.Thread(target=lambda: errors.append(refusal(itself.join)))
    itself.start()
    itself.join()
    assert errors == [(RuntimeError, "cannot join current thread")]


@main_goroutine
def test_join_with_a_timeout():
    gate = threading.Event()
    thread = started(gate.wait)
    for timeout in (0, -1, 0.001):
        assert thread.join(timeout) is None
        assert thread.is_alive()
    with pytest.raises(OverflowError):
        thread.join(1e30)
    with pytest.raises(ValueError, match="NaN"):
        thread.join(float("nan"))
    with pytest.raises(TypeError):
        thread.join("1")
    gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@main_goroutine
def test_many_wait_for_one_thread():
    gate = threading.Event()
    thread = started(gate.wait)
    waiting = [go_parked(thread.join) for _ in range(4)]
    waiting[0].cancel()
    wait_ended(waiting[0])
    assert thread.is_alive()
    plain = [Thread(thread.join) for _ in range(3)]
    joining = [started(thread.join) for _ in range(3)]
    gate.set()
    wait_ended(*waiting)
    for each in plain:
        each.result()
    for each in joining:
        each.join()
    assert not thread.is_alive()


@main_goroutine
def test_a_thread_that_is_cancelled():
    """As at the end of a run: its `finally` blocks run, nothing is reported, those that wait for it go on."""
    steps, reports = [], []

    def work():
        try:
            makechan().recv()
        finally:
            offset.gosched()
            steps.append("finally")

    thread = started(work)
    goroutine = goroutine_of(thread)
    wait_parked(goroutine)
    hook, threading.excepthook = threading.excepthook, reports.append
    try:
        goroutine.cancel()
        thread.join()
        exiting = started(offset.goexit)
        exiting.join()
    finally:
        threading.excepthook = hook
    assert (steps, reports) == (["finally"], [])
    assert not thread.is_alive()
    assert thread not in original.enumerate()


def test_the_end_of_a_run_ends_its_threads():
    ended = run_script(
        """
        import os
        import offset
        from offset.syscall import threading

        inside = []

        def work(n):
            try:
                inside.append(n)
                threading.Event().wait()
            finally:
                # In one piece, as others write, too.
                os.write(1, b"finally %d\\n" % n)

        def main():
            for n in range(3):
                threading.Thread(target=work, args=(n,), daemon=n == 1).start()
            while len(inside) < 3:
                offset.sleep(0.001)
            return "over"

        print(offset.run(main))
        print(threading.active_count())
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.splitlines()) == ["1", "finally 0", "finally 1", "finally 2", "over"]


def test_the_interpreter_waits_for_threads_that_are_no_daemons():
    ended = run_script(
        """
        import offset
        from offset.syscall import threading

        gate = threading.Event()

        def work(n):
            gate.wait()
            offset.sleep(0.05)
            print("ended", n, flush=True)
            if n:
                threading.Thread(target=work, args=(n - 1,)).start()

        threading.Thread(target=work, args=(2,)).start()
        threading.Thread(target=lambda: offset.makechan().recv(), daemon=True).start()
        print("main ends", flush=True)
        gate.set()
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "main ends\nended 2\nended 1\nended 0\n", "")


@main_goroutine
def test_start_does_not_wait_for_a_goroutine_that_never_begins(monkeypatch):
    """Cancelled before it began, as when a run ends while an OS thread starts one."""
    real = offset._runtime.go

    def go_and_cancel(*args):
        goroutine = real(*args)
        goroutine.cancel()
        return goroutine

    # Without the GIL it may have begun by then; it ends all the same.
    monkeypatch.setattr(offset._runtime, "go", go_and_cancel)
    thread = threading.Thread(target=makechan().recv)
    try:
        thread.start()
    except RuntimeError as error:
        assert "cancelled" in str(error)
        assert not thread.is_alive()
    else:
        thread.join()
    assert thread not in original.enumerate()


@main_goroutine
def test_exceptions_go_to_the_excepthook(monkeypatch, capsys):
    error = ValueError("from a thread")

    def fail():
        raise error

    # pytest puts its own there.
    monkeypatch.setattr(original, "excepthook", original.__excepthook__)
    thread = started(fail, name="the failing one")
    thread.join()
    assert "Exception in thread the failing one:" in capsys.readouterr().err
    started(sys.exit).join()
    assert capsys.readouterr().err == ""
    # The original's hook is asked, unless this module's was replaced.
    seen = []
    monkeypatch.setattr(original, "excepthook", lambda args: seen.append(("original", args)))
    started(fail).join()
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(("proxy", args)))
    last = started(fail)
    last.join()
    assert [where for where, _ in seen] == ["original", "proxy"]
    args = seen[1][1]
    assert isinstance(args, original.ExceptHookArgs)
    assert (args.exc_type, args.exc_value, args.thread) == (ValueError, error, last)
    # As where the proxies are in place of the originals.
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(original, "excepthook", threading.excepthook)
    started(fail).join()
    assert "from a thread" in capsys.readouterr().err
    seen.clear()


@main_goroutine
def test_the_context_of_a_thread_is_that_of_a_plain_thread():
    variable = contextvars.ContextVar("variable", default="empty")
    variable.set("set")
    answers = []
    for module in (original, threading):
        thread = module.Thread(target=lambda: answers.append(variable.get()))
        thread.start()
        wait_until(lambda thread=thread: not thread.is_alive())
    assert answers[0] == answers[1]


@main_goroutine
def test_trace_functions_of_threading_apply():
    calls = []

    def trace(frame, event, argument):
        calls.append(frame.f_code.co_name)

    def traced_function():
        pass

    threading.settrace(trace)
    try:
        assert threading.gettrace() is trace
        started(traced_function).join()
    finally:
        threading.settrace(None)
    assert calls.count("traced_function") == 1


@main_goroutine
def test_thread_locals():
    here = threading.local()
    here.value = "main"
    seen = []

    def work(n):
        assert not hasattr(here, "value")
        here.value = n
        offset.gosched()
        seen.append(here.value)

    threads = [started(work, n) for n in range(5)]
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(5))
    assert here.value == "main"


def test_stack_size():
    default = offset.runtime.set_stack_size(1 << 20)
    offset.runtime.set_stack_size(default)
    try:
        assert threading.stack_size(8 << 20) == 0
        assert offset.runtime.set_stack_size(8 << 20) == 8 << 20
        # Never smaller than offset's own.
        assert threading.stack_size(64 << 10) == 8 << 20
        assert offset.runtime.set_stack_size(default) == default
        with pytest.raises(ValueError, match="size"):
            threading.stack_size(4096)
        assert threading.stack_size(8 << 20) == 64 << 10
        # As the original: without an argument it sets the default.
        assert threading.stack_size() == 8 << 20
        assert original.stack_size() == 0
    finally:
        threading.stack_size(0)
    assert offset.runtime.set_stack_size(default) == default


@main_goroutine
def test_thousands_of_threads():
    # Without the GIL each takes 300 KB once it has worked.
    many = 500 if FREE_THREADED else 10_000
    gate, count = threading.Event(), threading.Semaphore(0)

    def work():
        gate.wait()
        count.release()

    threads = [started(work) for _ in range(many)]
    assert threading.active_count() > many
    gate.set()
    for thread in threads:
        thread.join()
    assert count._value == many


# ---- what waits ------------------------------------------------------------------------------


@main_goroutine
def test_each_wait_parks_only_its_goroutine():
    """Many wait for one thing, on fewer OS threads than there are waiters."""
    event, condition = threading.Event(), threading.Condition()
    semaphore, barrier = threading.Semaphore(0), threading.Barrier(51)

    def wait_for_condition():
        with condition:
            condition.wait()

    for wait, release in [
        (event.wait, event.set),
        (wait_for_condition, lambda: (condition.acquire(), condition.notify_all(), condition.release())),
        (semaphore.acquire, lambda: semaphore.release(50)),
        (barrier.wait, barrier.wait),
    ]:
        waiting = [go_parked(wait) for _ in range(50)]
        release()
        wait_ended(*waiting)


@main_goroutine
def test_notifications_wake_in_order():
    condition, order = threading.Condition(), []

    def wait(n):
        with condition:
            condition.wait()
            order.append(n)

    waiting = [go_parked(wait, n) for n in range(6)]
    for woken in (range(1), range(1, 3), range(3, 6)):
        with condition:
            condition.notify(len(woken))
        # Which of them is the first to take the lock is for nobody to say.
        wait_ended(*[waiting[n] for n in woken])
        assert sorted(order) == list(range(woken.stop))


@main_goroutine
def test_a_timer():
    fired = makechan(1)
    timer = threading.Timer(0.001, fired.send, ["fired"])
    assert isinstance(timer, original.Timer)
    timer.start()
    assert fired.recv(timeout=PATIENCE) == "fired"
    timer.join()
    late = threading.Timer(3600, fired.send, ["late"])
    late.start()
    late.cancel()
    late.join()
    assert not len(fired)


def test_a_wait_for_ever_is_a_deadlock():
    ended = run_script(
        """
        import re
        import offset
        from offset.syscall import queue, threading

        def main():
            threading.Thread(target=queue.SimpleQueue().get).start()
            threading.Event().wait()

        try:
            offset.run(main)
        except offset.DeadlockError as error:
            print(len(re.findall(r"^goroutine \\d+ \\[", str(error), re.MULTILINE)), "threading.py" in str(error))
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "2 True\n", "")


def test_nothing_needs_goroutines():
    """In a program that has none, but for its threads."""
    ended = run_script(
        """
        from offset import runtime
        from offset.syscall import queue, threading

        lock, ready = threading.RLock(), threading.Event()
        with lock, lock:
            ready.set()
        assert ready.wait(1) and threading.current_thread() is threading.main_thread()
        items = queue.Queue()
        items.put(1)
        print(items.get(), runtime.num_goroutine(), threading.enumerate())
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("1 0 [<_MainThread(MainThread, started ")


def test_ctrl_c_ends_a_wait_in_the_main_thread():
    ended = run_script(
        """
        import os, signal
        from offset.syscall import threading

        try:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            threading.Event().wait()
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted\n", "")
