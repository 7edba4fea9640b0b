"""`PyMySQL` against MariaDB and `pg8000` against PostgreSQL in goroutines: as they are, and as copies over the proxies.

Invariants: the server has all statements under way at once; transactions of goroutines do not see each other's; a
connection whose statement was cut short is closed, as the library defines, and the server's work for it ends.
"""

from __future__ import annotations

import contextlib

import pytest
from helpers import main_goroutine, wait_until
from libraries import Call, Threads, calls, cancel, copies, few, in_time, needs_rescue, original, results

pytestmark = pytest.mark.usefixtures("no_sockets_left")

# Each takes a thread where the library is as it is, and those go only after a while.
AT_ONCE = 12


class Database:
    """How the tests speak to one: the library, or a copy of it, and the server."""

    database = ""

    def __init__(self, library, server):
        self.module, self.server = library, server

    def connect(self, **options):
        """A connection."""
        return self.module.connect(
            host=self.server.host,
            port=self.server.port,
            user=self.server.user,
            password=self.server.password,
            database=self.database,
            **options,
        )


class MariaDB(Database):
    """How the tests speak to MariaDB."""

    library = "pymysql"
    database = "test"
    take = "SELECT GET_LOCK('gate', 30)"
    give = "SELECT RELEASE_LOCK('gate')"
    waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'"
    table = "CREATE TABLE accounts (id INT PRIMARY KEY, amount INT) ENGINE=InnoDB"
    for_update = "SELECT amount FROM accounts WHERE id = 1 FOR UPDATE"
    ask = "SELECT %s"

    def timeouts(self):
        """The options of a connection that does not wait."""
        return {"read_timeout": 0.2}

    def timed_out(self):
        """What a statement raises that takes too long."""
        return self.module.err.OperationalError


class PostgreSQL(Database):
    """How the tests speak to PostgreSQL."""

    library = "pg8000.dbapi"
    database = "postgres"
    take = "SELECT pg_advisory_lock(1)"
    give = "SELECT pg_advisory_unlock(1)"
    waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
    table = "CREATE TABLE accounts (id INT PRIMARY KEY, amount INT)"
    for_update = "SELECT amount FROM accounts WHERE id = 1 FOR UPDATE"
    ask = "SELECT CAST(%s AS INT)"

    def timeouts(self):
        """The options of a connection that does not wait."""
        return {"timeout": 0.2}

    def timed_out(self):
        """What a statement raises that takes too long."""
        return (TimeoutError, self.module.InterfaceError)


KINDS = {"mariadb": MariaDB, "postgres": PostgreSQL}


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    """A kind of server, and one of it that runs."""
    kind = KINDS[request.param]
    copies(kind.library)
    return kind, request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def copied(server):
    """The copy of the library, and its server."""
    kind, running = server
    return kind(copies(kind.library)[0], running)


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def database(request, server, copied):
    """The library in both ways, and its server."""
    kind, running = server
    return copied if request.param == "a copy" else kind(original(kind.library)[0], running)


@contextlib.contextmanager
def connection(database, **options):
    conn = database.connect(**options)
    try:
        yield conn
    finally:
        with contextlib.suppress(Exception):
            conn.close()


def execute(conn, statement, *values):
    """Execute a statement; give the rows, as tuples."""
    cursor = conn.cursor()
    try:
        cursor.execute(statement, values)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


class Outside:
    """A connection that looks at the server from outside."""

    def __init__(self, database):
        self.database = database
        self.conn = database.connect()

    def execute(self, statement):
        """Execute a statement outside of transactions."""
        try:
            return execute(self.conn, statement)
        finally:
            self.conn.commit()

    def waiting(self):
        """How many wait for the gate."""
        return self.execute(self.database.waiting)[0][0]

    def close(self):
        """End it; what it has been is let go of."""
        self.conn.close()
        self.conn = None


@pytest.fixture
def outside(copied):
    with contextlib.closing(Outside(copied)) as made:
        yield made


@pytest.fixture
def accounts(copied, outside):
    """A table of two accounts."""
    outside.execute("DROP TABLE IF EXISTS accounts")
    outside.execute(copied.table)
    outside.execute("INSERT INTO accounts VALUES (1, 100), (2, 100)")
    yield
    outside.execute("DROP TABLE accounts")


def pass_the_gate(number, database):
    """Wait until the gate is free; a connection each."""
    with connection(database) as conn:
        execute(conn, database.take)
        execute(conn, database.give)
        return execute(conn, database.ask, number)[0][0]


@main_goroutine
def test_all_wait_at_once(database, outside):
    with connection(database) as keeper:
        execute(keeper, database.take)
        begun = calls(AT_ONCE, pass_the_gate, database)
        wait_until(lambda: outside.waiting() == AT_ONCE, "the server has all of them")
        execute(keeper, database.give)
        assert [int(answer) for answer in results(begun)] == list(range(AT_ONCE))


@main_goroutine
def test_those_of_a_copy_take_no_threads(copied, outside):
    threads = Threads()
    count = 24
    with connection(copied) as keeper:
        execute(keeper, copied.take)
        begun = calls(count, pass_the_gate, copied)
        wait_until(lambda: outside.waiting() == count, "the server has all of them")
        few(threads, count)
        execute(keeper, copied.give)
        results(begun)


@main_goroutine
def test_transactions_are_apart(database, outside, accounts):
    def transfer(number):
        with connection(database) as conn:
            for _ in range(5):
                (amount,) = execute(conn, database.for_update)[0]
                execute(conn, "UPDATE accounts SET amount = %s WHERE id = 1", amount - 1)
                execute(conn, "UPDATE accounts SET amount = amount + 1 WHERE id = 2")
                if number % 2:
                    conn.commit()
                else:
                    conn.rollback()

    results(calls(6, transfer))
    assert outside.execute("SELECT amount FROM accounts ORDER BY id") == [(85,), (115,)]


@main_goroutine
def test_large_results_are_whole(database):
    text = "offset" * 100_000

    def fetch(number):
        with connection(database) as conn:
            return execute(conn, "SELECT %s", f"{number}{text}")[0][0] == f"{number}{text}"

    assert results(calls(4, fetch)) == [True] * 4


@main_goroutine
def test_errors_are_those_of_the_library(database):
    with connection(database) as conn:
        with pytest.raises(database.module.Error, match="no_such_table"):
            execute(conn, "SELECT * FROM no_such_table")
        conn.rollback()
        assert int(execute(conn, database.ask, 1)[0][0]) == 1


@main_goroutine
def test_who_is_out_of_time_has_lost_the_connection(database, outside):
    with connection(database) as keeper:
        execute(keeper, database.take)

        def work(_):
            conn = in_time(lambda: database.connect(**database.timeouts()), database.timed_out())
            with contextlib.closing(conn), pytest.raises(database.timed_out()):
                execute(conn, database.take)

        results(calls(4, work))
        execute(keeper, database.give)
    wait_until(lambda: outside.waiting() == 0, "the server waits for nobody")


@main_goroutine
def test_who_is_cancelled_has_lost_the_connection(copied, outside):
    with connection(copied) as keeper:
        execute(keeper, copied.take)
        with connection(copied) as conn:
            call = Call(execute, conn, copied.take)
            # A server need not notice that a client has gone before it has something to say to it.
            wait_until(lambda: outside.waiting() == 1, "the server has it")
            cancel(call.parked())
            if copied.library == "pymysql":
                # It knows that it cannot go on. pg8000 does not, as with any exception that it does not expect.
                assert not conn.open
        execute(keeper, copied.give)
    wait_until(lambda: outside.waiting() == 0, "the server waits for nobody")
