"""psycopg in goroutines, through its hooks: psycopg 3 as `offset.syscall.psycopg`, psycopg 2 by its wait callback.

Invariants: the server has all statements under way at once, and none of them takes a thread; a statement that is cut
short is cancelled on the server, and its connection is usable or closed, as psycopg defines for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from helpers import PATIENCE, main_goroutine, run_script, wait_until
from libraries import Call, Threads, calls, cancel, copies, few, library, needs_rescue, results
from offset import context, syscall

pytestmark = pytest.mark.usefixtures("no_sockets_left")

AT_ONCE = 12
WAITING = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
ACTIVE = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"


@pytest.fixture(scope="module")
def psycopg():
    """psycopg 3 for goroutines."""
    library("psycopg")
    from offset.syscall import psycopg

    return psycopg


@pytest.fixture(scope="module")
def address(postgres_server):
    """Where the server is, in words of libpq."""
    server = postgres_server
    return f"host={server.host} port={server.port} user={server.user} password={server.password} dbname=postgres"


class Outside:
    """A connection that looks at the server from outside, in plain calls."""

    def __init__(self, address):
        self.conn = library("psycopg").connect(address, autocommit=True)

    def ask(self, statement):
        return self.conn.execute(statement).fetchone()[0]

    def close(self):
        self.conn.close()
        self.conn = None


@pytest.fixture
def outside(psycopg, address):
    with contextlib.closing(Outside(address)) as made:
        yield made


# ---- psycopg 3 ---------------------------------------------------------------------------------


@main_goroutine
def test_all_wait_at_once_and_take_no_threads(psycopg, address, outside):
    outside.ask("SELECT pg_advisory_lock(1)")
    threads = Threads()
    count = 40

    def work(number):
        with psycopg.connect(address) as conn:
            conn.execute("SELECT pg_advisory_lock_shared(1)")
            return conn.execute("SELECT %s::int", [number]).fetchone()[0]

    begun = calls(count, work)
    wait_until(lambda: outside.ask(WAITING) == count, "the server has all of them")
    few(threads, count)
    outside.ask("SELECT pg_advisory_unlock(1)")
    assert results(begun) == list(range(count))


@needs_rescue
@main_goroutine
def test_the_original_works_too(psycopg, address, outside):
    original = library("psycopg")
    outside.ask("SELECT pg_advisory_lock(1)")

    def work(number):
        with original.connect(address) as conn:
            conn.execute("SELECT pg_advisory_lock_shared(1)")
            return conn.execute("SELECT %s::int", [number]).fetchone()[0]

    begun = calls(AT_ONCE, work)
    wait_until(lambda: outside.ask(WAITING) == AT_ONCE, "the server has all of them")
    outside.ask("SELECT pg_advisory_unlock(1)")
    assert results(begun) == list(range(AT_ONCE))


@main_goroutine
def test_it_is_psycopgs(psycopg, address):
    original = library("psycopg")
    assert issubclass(psycopg.Connection, original.Connection)
    assert psycopg.Error is original.Error
    assert psycopg.rows is original.rows
    assert set(psycopg.__all__) == set(original.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        psycopg.no_such_name
    with psycopg.connect(address, row_factory=psycopg.rows.dict_row, autocommit=True) as conn:
        assert isinstance(conn, original.Connection)
        assert conn.execute("SELECT 1 AS one").fetchall() == [{"one": 1}]
        with pytest.raises(psycopg.errors.UndefinedTable):
            conn.execute("SELECT * FROM no_such_table")
        with conn.cursor(binary=True) as cursor:
            assert cursor.execute("SELECT %s::bytea", [b"\0\1"]).fetchone() == {"bytea": b"\0\1"}


@main_goroutine
def test_everything_that_waits(psycopg, address):
    with psycopg.connect(address) as conn:
        conn.execute("CREATE TEMPORARY TABLE numbers (value INT, text TEXT)")
        with conn.cursor() as cursor, cursor.copy("COPY numbers FROM STDIN") as copy:
            for number in range(5_000):
                copy.write_row((number, "x" * 100))
        with conn.cursor() as cursor, cursor.copy("COPY numbers TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 5_000
        with conn.cursor("named") as cursor:
            cursor.execute("SELECT value FROM numbers ORDER BY value")
            cursor.itersize = 1_000
            assert sum(value for (value,) in cursor) == sum(range(5_000))
        with conn.cursor() as cursor:
            assert sum(1 for _ in cursor.stream("SELECT * FROM numbers")) == 5_000
            cursor.executemany("INSERT INTO numbers VALUES (%s, %s)", [(number, "y") for number in range(100)])
        with conn.transaction(), contextlib.suppress(ZeroDivisionError), conn.transaction():
            conn.execute("DELETE FROM numbers")
            raise ZeroDivisionError
        with conn.pipeline():
            answers = [conn.execute("SELECT count(*) + %s FROM numbers", [number]) for number in range(10)]
        assert [answer.fetchone()[0] for answer in answers] == [5_100 + number for number in range(10)]
        # More than the buffers hold, both ways.
        text = "offset" * 1_000_000
        assert conn.execute("SELECT %s::text", [text]).fetchone()[0] == text


@main_goroutine
def test_a_connection_is_shared_under_its_lock(psycopg, address):
    with psycopg.connect(address, autocommit=True) as conn:
        answers = results(calls(AT_ONCE, lambda number: conn.execute("SELECT %s::int", [number]).fetchone()[0]))
    assert answers == list(range(AT_ONCE))


@main_goroutine
def test_notifications(psycopg, address, outside):
    def listen(_):
        with psycopg.connect(address, autocommit=True) as conn:
            conn.execute("LISTEN news")
            ready.append(conn)
            return [note.payload for note in conn.notifies(timeout=PATIENCE, stop_after=3)]

    ready = []
    begun = calls(3, listen)
    wait_until(lambda: len(ready) == 3, "all listen")
    for number in range(3):
        outside.ask(f"SELECT pg_notify('news', '{number}')")
    assert results(begun) == [["0", "1", "2"]] * 3
    with psycopg.connect(address, autocommit=True) as conn:
        conn.execute("LISTEN news")
        assert list(conn.notifies(timeout=0.02)) == []
        assert conn.execute("SELECT 1").fetchone() == (1,)
    ready.clear()


@main_goroutine
def test_who_is_cancelled_can_use_the_connection(psycopg, address, outside):
    with psycopg.connect(address, autocommit=True) as conn:
        for number in range(3):
            call = Call(conn.execute, "SELECT pg_sleep(60)")
            wait_until(lambda: outside.ask(ACTIVE) == 1, "the server has it")
            cancel(call.parked())
            assert not conn.closed
            assert conn.execute("SELECT %s::int", [number]).fetchone() == (number,)
            wait_until(lambda: outside.ask(ACTIVE) == 0, "the server has stopped")


@main_goroutine
def test_a_context_bounds_a_statement(psycopg, address, outside):
    with psycopg.connect(address, autocommit=True) as conn:
        for number in range(3):
            with pytest.raises(context.DeadlineExceeded), context.timeout(0.05):
                conn.execute("SELECT pg_sleep(60)")
            assert conn.execute("SELECT %s::int", [number]).fetchone() == (number,)
        wait_until(lambda: outside.ask(ACTIVE) == 0, "the server has stopped")


@main_goroutine
def test_a_transaction_of_who_is_cancelled_is_rolled_back(psycopg, address, outside):
    outside.conn.execute("DROP TABLE IF EXISTS kept")
    outside.conn.execute("CREATE TABLE kept (value INT)")

    def work():
        with psycopg.connect(address) as conn:
            conn.execute("INSERT INTO kept VALUES (1)")
            conn.execute("SELECT pg_sleep(60)")

    call = Call(work)
    wait_until(lambda: outside.ask(ACTIVE) == 1, "the server has it")
    cancel(call.parked())
    wait_until(lambda: outside.ask(ACTIVE) == 0, "the server has stopped")
    assert outside.ask("SELECT COUNT(*) FROM kept") == 0
    outside.conn.execute("DROP TABLE kept")


@main_goroutine
def test_who_closes_wakes_who_waits(psycopg, address, start, outside):
    conn = psycopg.connect(address, autocommit=True)
    waiting = start(conn.execute, "SELECT pg_sleep(60)")
    wait_until(lambda: outside.ask(ACTIVE) == 1, "the server has it")
    waiting.parked()
    conn.close()
    with pytest.raises(psycopg.OperationalError):
        waiting.result()
    assert conn.closed
    outside.ask("SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")


@main_goroutine
def test_a_server_that_goes(psycopg, address, outside):
    with psycopg.connect(address, autocommit=True) as conn:
        waiting = Call(conn.execute, "SELECT pg_sleep(60)")
        wait_until(lambda: outside.ask(ACTIVE) == 1, "the server has it")
        outside.ask(f"SELECT pg_terminate_backend({conn.info.backend_pid})")
        with pytest.raises(psycopg.errors.AdminShutdown):
            waiting.result()
        assert conn.broken


@main_goroutine
def test_nobody_answers(psycopg, address):
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect("host=127.0.0.1 port=1 user=gopher")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"host=127.0.0.1 port={silent.getsockname()[1]} user=gopher connect_timeout=2"
        for call in calls(AT_ONCE, lambda _: psycopg.connect(where)):
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                call.result()


@pytest.fixture(scope="module")
def pools():
    """The copy of psycopg_pool."""
    return copies("psycopg_pool")[0]


@main_goroutine
def test_a_pool(psycopg, pools, address):
    threads = Threads()
    with pools.ConnectionPool(address, min_size=2, max_size=3, timeout=PATIENCE, open=False) as pool:
        pool.wait(PATIENCE)

        def work(number):
            with pool.connection() as conn:
                assert type(conn) is psycopg.Connection
                return conn.execute("SELECT %s::int + 0 * count(pg_sleep(0.001))", [number]).fetchone()[0]

        assert results(calls(AT_ONCE, work)) == list(range(AT_ONCE))
        few(threads, AT_ONCE)
        with pool.connection(), pool.connection(), pool.connection(), pytest.raises(pools.PoolTimeout):
            pool.getconn(timeout=0.01)


def test_outside_goroutines_it_is_as_the_original(psycopg, address):
    done = []

    def work():
        with psycopg.connect(address) as conn:
            done.append(conn.execute("SELECT 1").fetchone())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == [(1,)] * 4


# The implementation is chosen when psycopg is imported, once a process.
PURE = """
    from offset import go, run
    from offset.syscall import psycopg


    def main():
        assert psycopg.pq.__impl__ == "python", psycopg.pq.__impl__
        with psycopg.connect() as conn, psycopg.connect() as other:
            conn.execute("SELECT pg_advisory_lock(2)")
            waiting = go(other.execute, "SELECT pg_advisory_lock(2)")
            while "IO wait" not in (waiting.wait_reason or ""):
                psycopg.connect().close()
            conn.execute("SELECT pg_advisory_unlock(2)")
            assert waiting.join(timeout=30)
            print(conn.execute("SELECT 'done'").fetchone()[0])


    run(main)
"""


def test_in_pure_python(psycopg, postgres_server):
    environment = {**postgres_server.environment, "PSYCOPG_IMPL": "python"}
    if run_script("import psycopg", env=environment).returncode:
        pytest.skip("there is no libpq for psycopg in pure Python")
    status, stdout, stderr = run_script(PURE, env=environment)
    assert (status, stdout) == (0, "done\n"), stderr


# ---- psycopg 2 ---------------------------------------------------------------------------------


@pytest.fixture
def psycopg2():
    """psycopg 2, whose waits are ours as long as the test lasts."""
    module = library("psycopg2")
    from psycopg2 import extensions

    def wait(conn):
        while (state := conn.poll()) != extensions.POLL_OK:
            (syscall.wait_readable if state == extensions.POLL_READ else syscall.wait_writable)(conn)

    extensions.set_wait_callback(wait)
    yield module
    extensions.set_wait_callback(None)


@main_goroutine
def test_psycopg2_waits_in_its_callback(psycopg2, address, outside):
    outside.ask("SELECT pg_advisory_lock(1)")
    threads = Threads()
    count = 40

    def work(number):
        with contextlib.closing(psycopg2.connect(address)) as conn, conn, conn.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock_shared(1)")
            cursor.execute("SELECT %s", [number])
            return cursor.fetchone()[0]

    begun = calls(count, work)
    wait_until(lambda: outside.ask(WAITING) == count, "the server has all of them")
    few(threads, count)
    outside.ask("SELECT pg_advisory_unlock(1)")
    assert results(begun) == list(range(count))


@main_goroutine
def test_psycopg2_closes_the_connection_of_who_is_cancelled(psycopg2, address, outside):
    with contextlib.closing(psycopg2.connect(address)) as conn, conn.cursor() as cursor:
        call = Call(cursor.execute, "SELECT pg_sleep(60)")
        wait_until(lambda: outside.ask(ACTIVE) == 1, "the server has it")
        cancel(call.parked())
        # So psycopg 2 does with whatever a callback raises.
        assert conn.closed
    outside.ask("SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
