"""What a DeadlockError says besides the stacks: what each goroutine waits for, who has a lock, and what to do.

Each program runs in a subprocess, as in test_deadlock.py. docs/errors.md has the usual mistakes, which
test_errors.py runs; here are the others.
"""

import re
import textwrap

import pytest
from helpers import main_goroutine, run_script, wait_ended, wait_parked
from offset import _runtime, current, go, makechan, sync

PROLOGUE = """
import offset
from offset import go, gosched, makechan, run, select, sleep, sync

def parked(goroutine):
    while goroutine.wait_reason is None:
        gosched()

"""


def deadlock(body: str) -> str:
    """The text of the deadlock that a main function runs into."""
    program = PROLOGUE + "def main():\n"
    program += textwrap.indent(textwrap.dedent(body), "    ")
    program += "\ntry:\n    run(main)\nexcept offset.DeadlockError as error:\n    print(error)\n"
    ended = run_script(program)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def advice(body: str) -> list[str]:
    """The pieces of advice in it."""
    _, _, text = deadlock(body).partition("\n\nWhat to do:\n")
    assert all(line.startswith("* ") for line in text.splitlines())
    return [line.removeprefix("* ") for line in text.splitlines()]


def test_three_locks_in_a_circle_are_one_piece_of_advice():
    (circle,) = advice(
        """
        locks, here = [sync.Mutex() for _ in range(3)], sync.WaitGroup()
        here.add(3)
        def take(first, second):
            with first:
                here.done()
                here.wait()
                with second:
                    pass
        group = sync.WaitGroup()
        for index in range(3):
            group.go(take, locks[index], locks[(index + 1) % 3])
        group.wait()
        """
    )
    assert circle.startswith("Goroutines 2, 3 and 4 wait for each other's locks")
    assert "2 for one that 3 has, 3 for one that 4 has, 4 for one that 2 has" in circle


@pytest.mark.parametrize("take", ["lock", "rlock"])
def test_a_lock_for_many_readers_has_a_writer(take):
    text = deadlock(
        f"""
        lock = sync.RWMutex()
        lock.lock()
        go(lock.{take}).join()
        """
    )
    assert "  waits for <offset.RWMutex object at 0x" in text
    assert ", which goroutine 1 has locked" in text
    assert "* Goroutines 1 and 2 wait for each other, one of them with a lock in hand: unlock it before join()." in text


def test_who_is_handed_a_lock_has_it():
    text = deadlock(
        """
        lock, never = sync.Mutex(), makechan(label="never")
        def take():
            with lock:
                never.recv()
        lock.lock()
        takers = [go(take), go(take)]
        for taker in takers:
            parked(taker)
        lock.unlock()
        takers[0].join()
        """
    )
    handed = re.search(r"which goroutine ([23]) has locked", text)
    assert handed
    assert re.search(rf"^goroutine {handed[1]} \[chan receive\] ", text, re.MULTILINE)


def test_a_lock_whose_owner_waits_for_something_else():
    lines = advice(
        """
        lock, never = sync.Mutex(), makechan(label="never")
        def take():
            with lock:
                never.recv()
        parked(go(take))
        lock.lock()
        """
    )
    assert lines[0].startswith("Goroutine 1 waits for a lock that goroutine 2 has, which waits itself:")
    assert lines[1].startswith("Goroutine 2 waits to receive from the channel 'never'")


def test_a_lock_that_a_thread_has_taken():
    text = deadlock(
        """
        import threading
        lock = sync.Mutex()
        thread = threading.Thread(target=lock.lock)
        thread.start()
        thread.join()
        lock.lock()
        """
    )
    assert ", which a thread has locked" in text
    assert "* Goroutine 1 waits for a lock that a thread has locked: unlock it there, as `with` does." in text


def test_equal_waits_are_one_piece_of_advice():
    lines = advice(
        """
        jobs = makechan(label="jobs")
        workers = [go(list, jobs) for _ in range(20)]
        workers[0].join()
        """
    )
    (line,) = lines
    assert line.startswith("Goroutines 2, 3, 4, 5, 6, 7, 8, 9 and 12 more wait to receive from the channel 'jobs'")


def test_there_is_not_too_much_advice():
    lines = advice(
        """
        for number in range(30):
            go(makechan(label=f"number {number}").recv)
        select()
        """
    )
    assert len(lines) == 9
    assert re.fullmatch(r"and \d\d more waits of other kinds\.", lines[-1])


def test_units_that_are_out():
    (line,) = advice(
        """
        units = sync.Semaphore(3)
        units.acquire(2)
        units.acquire(2)
        """
    )
    assert line.startswith("Goroutine 1 waits for a Semaphore of whose 3 units 2 are out")


def test_a_select_names_its_channels():
    text = deadlock(
        """
        one, two = makechan(label="one"), makechan(label="two")
        select(one.if_recv(), two.if_send(1))
        """
    )
    assert "  waits for <offset.Chan 'one' 0/0>\n  waits for <offset.Chan 'two' 0/0>\n" in text
    assert "* Goroutine 1 waits in a select of which no case can happen any more" in text


def test_a_deadlock_in_a_bubble_has_it_too():
    ended = run_script(
        """
        from offset import go, makechan, testing
        def main():
            jobs = makechan(label="jobs")
            go(jobs.recv)
            makechan(label="done").recv()
        testing.bubble(main)
        """
    )
    assert ended.returncode == 1
    assert "* Goroutine 2 waits to receive from the channel 'jobs'" in ended.stderr


@main_goroutine
def test_the_taker_of_a_lock():
    lock, begin = sync.Mutex(), makechan()
    me = current().id
    assert _runtime.taker(lock) is None
    assert lock.try_lock()
    assert _runtime.taker(lock) == me
    other = go(lambda: (lock.lock(), begin.recv(), lock.unlock()))
    wait_parked(other, reason="Mutex")
    lock.unlock()
    assert _runtime.taker(lock) == other.id
    begin.send(None)
    wait_ended(other)
    assert _runtime.taker(lock) is None
    assert _runtime.taker(makechan()) is None
