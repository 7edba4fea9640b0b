"""Thread identity: a goroutine is one thread to whatever asks, wherever it runs, and has what Python keeps by it.

Locks, connections, buffered files and imports behave between goroutines as between threads; what tells one thread from
another tells one goroutine from another. `test_rescue.py` has the moves themselves.
"""

import contextlib
import io
import logging
import sqlite3
import sys
import threading
import time

import pytest
from helpers import PATIENCE, go_parked, main_goroutine, wait_ended
from offset import current, go, gosched, makechan
from traps import displace, gil_only


@main_goroutine
def test_every_goroutine_has_an_identity_of_its_own():
    gate, idents, threads = makechan(), [], []

    def body():
        idents.append(threading.get_ident())
        threads.append(threading.current_thread())
        gate.recv_ok()
        assert threading.get_ident() in idents
        assert threading.current_thread().ident == threading.get_ident() == current().ident

    goroutines = [go_parked(body) for _ in range(20)]
    assert len({*idents, threading.get_ident()}) == 21
    assert len({id(thread) for thread in threads}) == 20
    assert [thread.ident for thread in threads] == idents
    assert threading.main_thread() not in threads
    gate.close()
    wait_ended(*goroutines)


@gil_only
@main_goroutine
def test_the_identity_stays_over_a_move(make_trap):
    def body(park):
        before = threading.get_ident(), threading.current_thread(), current()
        park()
        return before == (threading.get_ident(), threading.current_thread(), current())

    same, home, after, _ = displace(make_trap, body)
    assert same
    assert home != after


# ---- what Python keeps by thread identity --------------------------------------------------------


@gil_only
@pytest.mark.parametrize(
    "make_lock", [threading.Lock, threading.RLock, threading.Condition], ids=["lock", "rlock", "cond"]
)
@main_goroutine
def test_a_plain_lock_held_over_parks(make_lock):
    lock, inside, entered = make_lock(), [], 0

    def body(number):
        nonlocal entered
        for _ in range(3):
            with lock:
                inside.append(number)
                for _ in range(3):
                    gosched()
                assert inside == [number]
                inside.clear()
                entered += 1
            gosched()

    wait_ended(*[go(body, number) for number in range(8)])
    assert entered == 24


@gil_only
@main_goroutine
def test_an_rlock_is_recursive_over_parks_and_moves(make_trap):
    lock = threading.RLock()

    def body(park):
        with lock:
            park()
            with lock:
                return lock._is_owned()

    owned, home, after, _ = displace(make_trap, body)
    assert owned
    assert home != after
    with lock:
        assert lock._is_owned()


@gil_only
@main_goroutine
def test_events_and_queues_of_the_standard_library():
    import queue

    items, event, got = queue.Queue(1), threading.Event(), []

    def consume():
        event.wait(PATIENCE)
        for _ in range(10):
            got.append(items.get(timeout=PATIENCE))

    def produce():
        gosched()
        event.set()
        for number in range(10):
            items.put(number, timeout=PATIENCE)

    wait_ended(go(consume), go(produce))
    assert got == list(range(10))


@gil_only
@main_goroutine
def test_a_database_connection_belongs_to_its_goroutine(make_trap):
    def body(park):
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("create table numbers (value integer)")
            connection.execute("insert into numbers values (7)")
            park()
            return connection.execute("select value from numbers").fetchall()

    rows, home, after, _ = displace(make_trap, body)
    assert rows == [(7,)]
    assert home != after


@main_goroutine
def test_a_database_connection_of_another_goroutine_is_refused():
    """As of another thread, even where both run on one OS thread."""
    connections, gate = makechan(1), makechan()

    def owner():
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connections.send(connection)
            gate.recv()

    goroutine = go_parked(owner, reason="chan receive")
    with pytest.raises(sqlite3.ProgrammingError):
        connections.recv().execute("select 1")
    gate.send(None)
    wait_ended(goroutine)


class ParkingStream(io.RawIOBase):
    """A raw file whose writes let other goroutines run in the middle."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        gosched()
        self.data += bytes(data)
        gosched()
        return len(data)


@gil_only
@main_goroutine
def test_a_shared_buffered_file():
    """Two goroutines on one OS thread are no reentrant call."""
    raw = ParkingStream()
    buffered = io.BufferedWriter(raw, 64)

    def body(number):
        for count in range(10):
            buffered.write(b"goroutine %d wrote line number %d\n" % (number, count))

    wait_ended(*[go(body, number) for number in range(5)])
    buffered.flush()
    lines = bytes(raw.data).splitlines()
    assert sorted(lines) == sorted(
        b"goroutine %d wrote line number %d" % (number, count) for number in range(5) for count in range(10)
    )


@gil_only
@main_goroutine
def test_logging_from_many_goroutines():
    raw = ParkingStream()
    handler = logging.StreamHandler(io.TextIOWrapper(raw, write_through=True))
    logger = logging.Logger("goroutines", logging.INFO)
    logger.addHandler(handler)

    def body(number):
        for count in range(5):
            logger.info("goroutine %d message %d", number, count)

    wait_ended(*[go(body, number) for number in range(6)])
    logger.removeHandler(handler)
    handler.close()
    assert sorted(bytes(raw.data).decode().splitlines()) == sorted(
        f"goroutine {number} message {count}" for number in range(6) for count in range(5)
    )


@gil_only
@main_goroutine
def test_a_module_is_imported_once(tmp_path, monkeypatch):
    (tmp_path / "offset_slow_module.py").write_text(
        "import offset, sys\nsys.offset_imports.append(1)\nfor _ in range(5): offset.gosched()\nvalue = object()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "offset_imports", [], raising=False)
    values = []

    def body():
        import offset_slow_module

        values.append(offset_slow_module.value)

    wait_ended(*[go(body) for _ in range(6)])
    assert sys.offset_imports == [1]
    assert len(values) == 6
    assert len({id(value) for value in values}) == 1
    del sys.modules["offset_slow_module"]


@gil_only
@main_goroutine
def test_modules_that_import_each_other(tmp_path, monkeypatch):
    """Python sees the deadlock of two threads in a circle; so it must of two goroutines."""
    for name, other in (("offset_first", "offset_second"), ("offset_second", "offset_first")):
        (tmp_path / f"{name}.py").write_text(f"import offset\noffset.gosched()\nimport {other}\nvalue = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finished = []

    def body(name):
        finished.append(__import__(name).__name__)

    wait_ended(go(body, "offset_first"), go(body, "offset_second"))
    assert sorted(finished) == ["offset_first", "offset_second"]
    for name in finished:
        assert sys.modules.pop(name).value == 1


@gil_only
@main_goroutine
def test_everything_together_with_moves(rng):
    """Locks over parks, connections, unpatched sleeps and loops at once; each keeps its identity."""
    lock, inside, entered, moved = threading.RLock(), [], 0, set()
    plans = [[rng.random() for _ in range(40)] for _ in range(15)]

    def body(number):
        nonlocal entered
        ident, native = threading.get_ident(), threading.get_native_id()
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            for choice in plans[number]:
                if choice < 0.1:
                    with lock, lock:
                        inside.append(number)
                        gosched()
                        assert inside == [number]
                        inside.clear()
                        entered += 1
                elif choice < 0.2:
                    time.sleep(0.012)
                elif choice < 0.25:
                    end = time.thread_time() + 0.012
                    while time.thread_time() < end:
                        pass
                elif choice < 0.6:
                    connection.execute("select 1").fetchone()
                gosched()
                assert threading.get_ident() == ident
                if threading.get_native_id() != native:
                    moved.add(number)

    wait_ended(*[go(body, number) for number in range(15)])
    assert entered == sum(choice < 0.1 for plan in plans for choice in plan)
    assert moved
