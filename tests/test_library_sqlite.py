"""`sqlite3` in goroutines, as it is: a connection belongs to a goroutine as to a thread, wherever the goroutine runs.

Invariants: `check_same_thread` is on, and lets the goroutine that connected use the connection after any park and any
move, and nobody else; a transaction may be held while its goroutine is parked.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time

import offset
import pytest
from helpers import PATIENCE, main_goroutine
from libraries import Call, calls, cancel, needs_rescue, results
from offset import go, gosched, makechan, sleep
from offset.sync import Mutex, WaitGroup

AT_ONCE = 12


@pytest.fixture
def connect(tmp_path):
    """Gives connections, which are closed by the goroutine that has made them."""

    def make(name="data", **options):
        return contextlib.closing(sqlite3.connect(tmp_path / f"{name}.db", timeout=PATIENCE, **options))

    with make() as conn:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("CREATE TABLE numbers (owner INT, value INT)")
        conn.commit()
    return make


def parks():
    """Wait in some ways, in which others go on."""
    gosched()
    sleep(0.001)
    channel = makechan()
    go(channel.send, None)
    channel.recv(timeout=PATIENCE)


@main_goroutine
def test_transactions_are_held_over_parks(connect):
    here = WaitGroup()
    here.add(AT_ONCE)

    def work(number):
        with connect(number) as conn:
            conn.execute("CREATE TABLE numbers (value INT)")
            conn.commit()
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("INSERT INTO numbers VALUES (?)", [number])
            here.done()
            # Now all are in a transaction.
            here.wait(timeout=PATIENCE)
            for _ in range(5):
                parks()
                conn.execute("INSERT INTO numbers VALUES (?)", [number])
                assert conn.in_transaction
            conn.commit()
            return conn.execute("SELECT COUNT(*), MIN(value), MAX(value) FROM numbers").fetchone()

    assert results(calls(AT_ONCE, work)) == [(6, number, number) for number in range(AT_ONCE)]


@main_goroutine
def test_who_reads_sees_one_state(connect):
    stop, begun = makechan(), makechan(1)

    def read(_):
        with connect() as conn:
            conn.execute("BEGIN")
            before = conn.execute("SELECT COUNT(*) FROM numbers").fetchone()
            for _ in range(10):
                parks()
                assert conn.execute("SELECT COUNT(*) FROM numbers").fetchone() == before
            conn.rollback()

    def write():
        count = 0
        with connect() as conn:
            while not stop.closed:
                conn.execute("INSERT INTO numbers VALUES (1, 1)")
                conn.commit()
                count += 1
                begun.try_send(None)
                parks()
        return count

    writing = Call(write)
    begun.recv(timeout=PATIENCE)
    results(calls(AT_ONCE, read))
    stop.close()
    assert writing.result() > 0


@main_goroutine
def test_a_connection_is_its_goroutines(connect):
    with connect() as conn:

        def use():
            with pytest.raises(sqlite3.ProgrammingError, match="created in a thread can only be used in that same"):
                conn.execute("SELECT 1")

        Call(use).result()
        assert conn.execute("SELECT 1").fetchone() == (1,)


@main_goroutine
def test_one_connection_under_a_lock(connect):
    lock = Mutex()
    with connect(check_same_thread=False) as conn:

        def work(number):
            for value in range(10):
                with lock:
                    conn.execute("INSERT INTO numbers VALUES (?, ?)", [number, value])
                    gosched()
                    conn.commit()

        results(calls(AT_ONCE, work))
        assert conn.execute("SELECT COUNT(*) FROM numbers").fetchone() == (AT_ONCE * 10,)


@needs_rescue
@main_goroutine
def test_writers_wait_for_each_other(connect):
    def work(number):
        with connect() as conn:
            for value in range(3):
                # Who comes second sleeps in C until the first, which is parked, has been moved and is done.
                conn.execute("BEGIN IMMEDIATE")
                parks()
                conn.execute("INSERT INTO numbers VALUES (?, ?)", [number, value])
                conn.commit()

    results(calls(5, work))
    with connect() as conn:
        assert conn.execute("SELECT COUNT(*) FROM numbers").fetchone() == (15,)


@needs_rescue
@main_goroutine
def test_a_connection_moves_with_its_goroutine(connect):
    def block(_):
        for _ in range(5):
            time.sleep(0.02)
            gosched()

    def work(number):
        with connect(number) as conn:
            conn.execute("CREATE TABLE numbers (value INT)")
            for value in range(50):
                conn.execute("INSERT INTO numbers VALUES (?)", [value])
                parks()
            conn.commit()
            return conn.execute("SELECT COUNT(*) FROM numbers").fetchone()

    # While those are blocked these are moved to other threads.
    blocked = calls(4, block)
    assert results(calls(8, work)) == [(50,)] * 8
    results(blocked)


@main_goroutine
def test_a_function_of_sql_may_park(connect):
    def work(number):
        seen = []

        def wait(value):
            parks()
            seen.append((offset.current().id, value))
            return value + number

        with connect() as conn:
            conn.create_function("wait", 1, wait)
            rows = conn.execute("SELECT wait(1), wait(2), wait(3)").fetchone()
        assert [value for _, value in seen] == [1, 2, 3]
        assert {who for who, _ in seen} == {offset.current().id}
        return rows

    assert results(calls(AT_ONCE, work)) == [(1 + number, 2 + number, 3 + number) for number in range(AT_ONCE)]


@main_goroutine
def test_who_is_cancelled_rolls_back(connect):
    def work():
        with connect() as conn, conn:
            conn.execute("INSERT INTO numbers VALUES (1, 1)")
            makechan().recv()

    for _ in range(3):
        cancel(Call(work).parked())
    with connect() as conn:
        assert conn.execute("SELECT COUNT(*) FROM numbers").fetchone() == (0,)
        conn.execute("BEGIN IMMEDIATE")
