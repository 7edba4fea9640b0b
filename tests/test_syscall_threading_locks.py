"""The locks of `offset.syscall.threading`: they refuse what the originals refuse, and park only who waits.

Conditions are made of them by the original's own code; here is what a lock of ours must do for those.
"""

import copy
import gc
import pickle
import threading as original
import weakref

import offset
import pytest
from helpers import Thread, go_parked, main_goroutine, refusal, run_script, wait_ended, wait_parked
from offset import go, makechan
from offset.syscall import threading

every_lock = pytest.mark.parametrize("make", [threading.Lock, threading.RLock], ids=["Lock", "RLock"])


REFUSED = {
    "non-blocking with a timeout": lambda lock: lock.acquire(False, 1),
    "non-blocking with no time": lambda lock: lock.acquire(blocking=False, timeout=0),
    "negative": lambda lock: lock.acquire(timeout=-2),
    "a little negative": lambda lock: lock.acquire(True, -1e-12),
    "too long": lambda lock: lock.acquire(timeout=1e30),
    "just too long": lambda lock: lock.acquire(timeout=threading.TIMEOUT_MAX + 1),
    "a large integer": lambda lock: lock.acquire(timeout=2**70),
    "infinity": lambda lock: lock.acquire(timeout=float("inf")),
    "no number": lambda lock: lock.acquire(timeout=float("nan")),
    "text": lambda lock: lock.acquire(timeout="1"),
    "None": lambda lock: lock.acquire(timeout=None),
    "three arguments": lambda lock: lock.acquire(True, 1, 2),
    "an unknown argument": lambda lock: lock.acquire(wait=True),
    "twice the same": lambda lock: lock.acquire(True, blocking=True),
    "release": lambda lock: lock.release(),
}


@every_lock
@pytest.mark.parametrize("what", REFUSED)
def test_wrong_calls_raise_what_the_original_raises(make, what):
    theirs = original.Lock() if make is threading.Lock else original.RLock()
    ours = make()
    expected = refusal(lambda: REFUSED[what](theirs))
    assert isinstance(expected, tuple)
    assert refusal(lambda: REFUSED[what](ours)) == expected
    assert offset.run(lambda: refusal(lambda: REFUSED[what](ours))) == expected
    # Still free.
    assert ours.acquire(False)


@every_lock
def test_isinstance_with_the_original_holds(make):
    theirs = original.Lock() if make is threading.Lock else original.RLock()
    lock = make()
    assert isinstance(lock, type(theirs))
    assert lock.__class__ is type(theirs) and type(lock) is not type(theirs)
    assert not isinstance(theirs, type(lock))
    with pytest.raises(AttributeError):
        lock.__class__ = object


def test_a_class_over_a_proxied_rlock_is_itself():
    class Named(type(threading.RLock())):
        pass

    lock = Named()
    assert lock.__class__ is Named
    assert isinstance(lock, Named) and isinstance(lock, type(threading.RLock()))
    with lock:
        assert lock._is_owned()


@every_lock
def test_right_calls(make):
    lock = make()
    for arguments in [(), (True,), (1,), (True, -1), (True, -1.0), (False,), (0, -1), (True, 0), (True, 0.5)]:
        assert lock.acquire(*arguments) is True
        lock.release()
    assert lock.acquire(timeout=threading.TIMEOUT_MAX)
    lock.release()
    assert lock.acquire(blocking=[1], timeout=True)
    lock.release()
    with lock as entered:
        assert entered is True
        assert lock.locked()
    assert not lock.locked()


def test_a_lock_is_taken_once():
    lock = threading.Lock()
    assert lock.acquire()
    assert lock.acquire(False) is False
    assert lock.acquire(timeout=0) is False
    assert lock.acquire(timeout=0.001) is False
    assert lock.acquire_lock(0) is False
    assert lock.locked()
    assert lock.locked_lock()
    lock.release_lock()
    assert not lock.locked()


def test_a_lock_is_made_as_the_original():
    for arguments, keywords in [((), {}), ((1,), {}), ((), {"name": 1})]:
        theirs = refusal(lambda: type(original.Lock(*arguments, **keywords)) and None)  # noqa: B023 - called at once
        ours = refusal(lambda: type(threading.Lock(*arguments, **keywords)) and None)  # noqa: B023
        assert ours == theirs
    with pytest.raises(TypeError, match="base type"):
        type("Mine", (threading.Lock,), {})


@every_lock
def test_how_a_lock_looks(make):
    lock = make()
    theirs = repr(original.Lock() if make is threading.Lock else original.RLock())
    assert repr(lock).startswith("<unlocked ")
    assert repr(lock).split(" at ")[0].split(" object")[1] == theirs.split(" at ")[0].split(" object")[1]
    with lock:
        assert repr(lock).startswith("<locked ")
    for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle"):
            refuse(lock)
    with pytest.raises(AttributeError):
        lock.name = "mine"
    reference = weakref.ref(lock)
    del lock
    gc.collect()
    assert reference() is None


@main_goroutine
def test_waiting_for_a_lock_parks_the_goroutine():
    lock = threading.Lock()
    lock.acquire()
    order = []

    def take(n):
        with lock:
            order.append(n)

    waiting = [go_parked(take, n, reason="utex") for n in range(5)]
    lock.release()
    wait_ended(*waiting)
    assert order == list(range(5))


@main_goroutine
def test_a_lock_goes_to_and_fro_between_goroutines_and_threads():
    lock, count = threading.Lock(), 0

    def work():
        nonlocal count
        for _ in range(300):
            with lock:
                before = count
                if count % 50 == 0 and offset.current() is not None:
                    offset.gosched()
                count = before + 1

    threads = [Thread(work) for _ in range(3)]
    wait_ended(*[go(work) for _ in range(3)])
    for thread in threads:
        thread.result()
    assert count == 1800


@every_lock
@main_goroutine
def test_a_cancelled_wait_does_not_take_the_lock(make):
    lock = make()
    with lock:
        waiting = go_parked(lock.acquire)
        waiting.cancel()
        wait_ended(waiting)
        next_one = go_parked(lambda: lock.acquire() and lock.release())
    wait_ended(next_one)
    assert not lock.locked()


@main_goroutine
def test_an_rlock_belongs_to_a_goroutine():
    lock = threading.RLock()
    assert lock.acquire()
    assert lock.acquire(False)
    assert lock._recursion_count() == 2
    assert f"owner={offset.current().ident} count=2" in repr(lock)

    def other():
        assert not lock._is_owned()
        assert lock._recursion_count() == 0
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0.001) is False
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    Thread(other).result()
    other_goroutine = makechan(1)
    go(lambda: other_goroutine.send(refusal(other)))
    assert other_goroutine.recv() is None
    lock.release()
    offset.gosched()
    lock.release()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    assert not lock._is_owned()


def test_an_rlock_is_saved_and_restored():
    lock = threading.RLock()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock._release_save()
    lock.acquire()
    lock.acquire()
    state = lock._release_save()
    assert state == (2, threading.get_ident())
    assert not lock.locked()
    lock._acquire_restore(state)
    assert lock._recursion_count() == 2
    with pytest.raises(TypeError):
        lock._acquire_restore(None)


def test_an_rlock_can_be_subclassed():
    class Mine(type(threading.RLock())):
        def __init__(self, name):
            self.name = name
            self.itself = self

    lock = Mine("mine")
    with lock:
        assert lock._is_owned()
    reference = weakref.ref(lock)
    del lock
    gc.collect()
    assert reference() is None


@every_lock
def test_a_lock_is_free_in_a_forked_child(make):
    """Though goroutines of the parent hold it and wait for it."""
    ended = run_script(
        f"""
        import os, offset
        from offset.syscall import threading

        def main():
            lock = threading.{make.__name__}()
            thread = threading.Thread(target=lambda: (lock.acquire(), offset.sleep(0.2), lock.release()))
            thread.start()
            other = threading.Thread(target=lambda: lock.acquire() and lock.release())
            other.start()
            pid = os.fork()
            if pid == 0:
                lock._at_fork_reinit()
                ok = lock.acquire(timeout=5) and not thread.is_alive() and not other.is_alive()
                thread.join()
                again = threading.Thread(target=print, args=("again", ok), kwargs={{"flush": True}})
                again.start()
                again.join()
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            thread.join()
            other.join()

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "again True\n7\n", "") or (
        ended.returncode,
        ended.stdout,
        "fork" in ended.stderr,
    ) == (0, "again True\n7\n", True)


@main_goroutine
def test_a_condition_has_its_lock_after_a_cancelled_wait():
    """With either lock, also when somebody else has it at that moment."""
    for lock in (threading.Lock(), threading.RLock()):
        condition = threading.Condition(lock)
        held = []

        def wait(condition=condition, lock=lock, held=held):
            with condition:
                try:
                    condition.wait()
                finally:
                    held.append(lock.locked())

        waiting = go_parked(wait)
        condition.acquire()
        waiting.cancel()
        wait_parked(waiting)
        assert not held
        waiting.cancel()
        condition.release()
        wait_ended(waiting)
        assert held == [True]
        assert not condition._waiters
        assert condition.acquire(False)
        condition.release()


@main_goroutine
def test_a_second_exception_does_not_take_a_conditions_lock_away():
    condition = threading.Condition()
    seen = []

    def wait():
        try:
            with condition:
                try:
                    condition.wait()
                except LookupError:
                    seen.append(condition._is_owned())
            makechan().recv()
        except ArithmeticError:
            seen.append("at the next wait")

    waiting = go_parked(wait)
    condition.acquire()
    waiting.throw(LookupError())
    wait_parked(waiting)
    waiting.throw(ArithmeticError())
    offset.gosched()
    condition.release()
    wait_ended(waiting)
    assert seen == [True, "at the next wait"]
