"""`redis` in goroutines, against a Redis: as it is, and as a copy over the proxies.

Invariants: the server holds all blocked commands at once; a connection whose command was cut short is dropped, so no
answer is taken for another command's and no value is lost to a client that has gone.
"""

from __future__ import annotations

import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from libraries import Call, Threads, calls, cancel, copies, few, in_time, needs_rescue, original, results

pytestmark = pytest.mark.usefixtures("no_sockets_left")

# Each takes a thread where the library is as it is, and those go only after a while.
AT_ONCE = 12


@pytest.fixture(scope="module")
def copied():
    """The copy of redis."""
    return copies("redis")[0]


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def redis(request, copied):
    """The library, in both ways."""
    return copied if request.param == "a copy" else original("redis")[0]


class Plain:
    """What the tests look at the server with, from outside: a client of plain text."""

    def __init__(self, copied, server):
        self.redis = copied
        self.client = copied.Redis(host=server.host, port=server.port, decode_responses=True)
        self.client.flushall()

    def blocked(self):
        """How many clients are blocked."""
        return self.client.info("clients")["blocked_clients"]

    def connections(self):
        """How many connections there are, besides this one."""
        return len(self.client.client_list(_type="normal")) - 1


@pytest.fixture
def outside(copied, redis_server):
    plain = Plain(copied, redis_server)
    yield plain
    plain.client.close()


def connect(redis, server, **options):
    return redis.Redis(host=server.host, port=server.port, decode_responses=True, **options)


@main_goroutine
def test_all_wait_at_once(redis, redis_server, outside):
    with connect(redis, redis_server) as client:
        begun = calls(AT_ONCE, lambda _: client.blpop("jobs", timeout=PATIENCE))
        wait_until(lambda: outside.blocked() == AT_ONCE, "all are blocked")
        outside.client.rpush("jobs", *range(AT_ONCE))
        assert sorted(int(value) for _, value in results(begun)) == list(range(AT_ONCE))


@main_goroutine
def test_those_of_a_copy_take_no_threads(copied, redis_server, outside):
    count = 60
    threads = Threads()
    with connect(copied, redis_server) as client:
        begun = calls(count, lambda _: client.blpop("jobs", timeout=PATIENCE))
        wait_until(lambda: outside.blocked() == count, "all are blocked")
        few(threads, count)
        outside.client.rpush("jobs", *range(count))
        results(begun)


@main_goroutine
def test_a_pool_is_shared(redis, redis_server, outside):
    pool = redis.BlockingConnectionPool(
        host=redis_server.host, port=redis_server.port, max_connections=3, timeout=PATIENCE, decode_responses=True
    )
    with redis.Redis(connection_pool=pool) as client:

        def work(number):
            for _ in range(10):
                client.incr("count")
            return client.set(f"key {number}", number)

        assert results(calls(12, work)) == [True] * 12
        assert outside.connections() <= 3
        assert client.get("count") == "120"
    pool.disconnect()


@main_goroutine
def test_a_pool_that_is_empty_says_so(redis, redis_server, outside):
    pool = redis.BlockingConnectionPool(host=redis_server.host, port=redis_server.port, max_connections=1, timeout=0.05)
    with redis.Redis(connection_pool=pool) as client:
        waiting = Call(client.blpop, "jobs", timeout=PATIENCE)
        wait_until(lambda: outside.blocked() == 1, "it is blocked")
        with pytest.raises(redis.ConnectionError, match="No connection available"):
            client.ping()
        outside.client.rpush("jobs", 1)
        assert waiting.result() == (b"jobs", b"1")
        assert client.ping()
    pool.disconnect()


@main_goroutine
def test_pipelines_and_transactions(redis, redis_server, outside):
    with connect(redis, redis_server) as client:

        def increment(pipe):
            value = int(pipe.get("total") or 0)
            pipe.multi()
            pipe.set("total", value + 1)

        def work(number):
            for _ in range(5):
                client.transaction(increment, "total")
            with client.pipeline() as pipe:
                for step in range(50):
                    pipe.rpush(f"list {number}", step)
                pipe.execute()

        results(calls(8, work))
        assert client.get("total") == "40"
        for number in range(8):
            assert client.lrange(f"list {number}", 0, -1) == [str(step) for step in range(50)]


@main_goroutine
def test_messages_reach_all_subscribers(redis, redis_server, outside):
    with connect(redis, redis_server) as client:

        def listen(_):
            with client.pubsub(ignore_subscribe_messages=True) as channel:
                channel.subscribe("news")
                seen = []
                for message in channel.listen():
                    if message["data"] == "the end":
                        return seen
                    seen.append(message["data"])
            return None

        begun = calls(5, listen)
        wait_until(lambda: dict(outside.client.pubsub_numsub("news"))["news"] == 5, "all have subscribed")
        for number in range(20):
            outside.client.publish("news", number)
        outside.client.publish("news", "the end")
        assert results(begun) == [[str(number) for number in range(20)]] * 5


@main_goroutine
def test_a_lock_excludes(redis, redis_server, outside):
    inside = []
    with connect(redis, redis_server) as client:

        def work(number):
            with client.lock("lock", timeout=PATIENCE, sleep=0.001):
                inside.append(number)
                client.ping()
                assert inside == [number]
                inside.remove(number)

        results(calls(6, work))


@main_goroutine
def test_who_is_out_of_time_can_go_on(redis, redis_server, outside):
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    with connect(redis, redis_server, socket_timeout=0.05, retry=once) as client:

        def work(number):
            with pytest.raises(redis.TimeoutError):
                client.blpop("jobs", timeout=0)
            return in_time(lambda: client.echo(f"{number}"), redis.TimeoutError)

        assert results(calls(5, work)) == [f"{number}" for number in range(5)]
        wait_until(lambda: outside.blocked() == 0, "the server has seen that they have gone")
        outside.client.rpush("jobs", "kept")
        assert outside.client.llen("jobs") == 1


@main_goroutine
def test_who_is_cancelled_leaves_nothing(copied, redis_server, outside):
    with connect(copied, redis_server) as client:
        for number in range(3):
            call = Call(client.blpop, "jobs", timeout=0)
            wait_until(lambda: outside.blocked() == 1, "it is blocked")
            cancel(call)
            wait_until(lambda: outside.blocked() == 0, "the server has seen that it is gone")
            outside.client.rpush("jobs", number)
            assert outside.client.lrange("jobs", 0, -1) == [str(number)]
            assert client.blpop("jobs", timeout=PATIENCE) == ("jobs", str(number))


@main_goroutine
def test_who_is_cancelled_in_a_subscription_leaves_nothing(copied, redis_server, outside):
    with connect(copied, redis_server) as client:

        def listen():
            with client.pubsub() as channel:
                channel.subscribe("news")
                for _ in channel.listen():
                    pass

        call = Call(listen)
        wait_until(lambda: dict(outside.client.pubsub_numsub("news"))["news"] == 1, "it has subscribed")
        cancel(call.parked())
        wait_until(
            lambda: dict(outside.client.pubsub_numsub("news"))["news"] == 0, "the server has seen that it is gone"
        )


@main_goroutine
def test_errors_are_those_of_the_library(redis, redis_server, outside):
    with connect(redis, redis_server) as client:
        client.set("text", "x")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            client.incr("text")
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    with (
        redis.Redis(host="127.0.0.1", port=1, retry=once) as client,
        pytest.raises(redis.ConnectionError, match="refused"),
    ):
        client.ping()
