"""Libraries of asyncio from plain functions in goroutines: httpx, redis.asyncio, aiohttp's server and client.

Invariants: they are used as they are, on offset's loop, and share their pools of connections between goroutines; what
ends a goroutine's wait ends the request.
"""

from __future__ import annotations

import asyncio
import contextlib

import helpers
import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from libraries import Threads, calls, cancel, few, library, results
from offset import aio, context, go, makechan

# libuv has a pipe for the whole process from its first loop on.
aio._loop._new_event_loop().close()

AT_ONCE = 12


class Server:
    """An HTTP server of asyncio's streams. It answers `/slow` when it is released, others with their path."""

    def __init__(self):
        self.slow, self.release = makechan(100), makechan()
        self.gone = makechan(100)

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1]
                if path == b"/slow":
                    await self.slow.asend(None)
                    released = asyncio.ensure_future(self.release.arecv())
                    gone = asyncio.ensure_future(reader.read(1))
                    done, _ = await asyncio.wait([released, gone], return_when=asyncio.FIRST_COMPLETED)
                    (gone if released in done else released).cancel()
                    if released not in done:
                        await self.gone.asend(None)
                        return
                    await asyncio.wait([released, gone])
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
                await writer.drain()

    async def listen(self):
        return await asyncio.start_server(self.serve, "127.0.0.1", 0)


@contextlib.contextmanager
def served():
    """A server, and its address."""
    server = Server()
    listener = aio.await_(server.listen())
    try:
        yield server, "http://{}:{}".format(*listener.sockets[0].getsockname())
    finally:
        listener.close()


@pytest.fixture(scope="module")
def httpx():
    library("anyio._backends._asyncio")
    return library("httpx")


@pytest.fixture(scope="module")
def aiohttp():
    return library("aiohttp")


# ---- httpx --------------------------------------------------------------------------------------


@main_goroutine
def test_httpx_from_plain_functions(httpx):
    def fetch(number, client, url):
        return aio.await_(client.get(f"{url}/{number}")).text

    with served() as (_, url), aio.enter(httpx.AsyncClient(timeout=PATIENCE)) as client:
        assert results(calls(AT_ONCE, fetch, client, url)) == [f"/{number}" for number in range(AT_ONCE)]


@main_goroutine
def test_httpx_waits_without_a_thread_each(httpx):
    def fetch(_, client, url):
        return aio.await_(client.get(f"{url}/slow")).status_code

    with served() as (server, url), aio.enter(httpx.AsyncClient(timeout=PATIENCE)) as client:
        aio.await_(client.get(url + "/"))
        threads = Threads()
        begun = calls(AT_ONCE, fetch, client, url)
        for _ in range(AT_ONCE):
            server.slow.recv(timeout=PATIENCE)
        few(threads, AT_ONCE)
        for _ in range(AT_ONCE):
            server.release.send(None)
        assert results(begun) == [200] * AT_ONCE


@main_goroutine
def test_what_ends_the_wait_ends_the_request_of_httpx(httpx):
    def fetch(_, client, url):
        return aio.await_(client.get(f"{url}/slow"))

    with served() as (server, url), aio.enter(httpx.AsyncClient(timeout=PATIENCE)) as client:
        (call,) = calls(1, fetch, client, url)
        server.slow.recv(timeout=PATIENCE)
        cancel(call)
        server.gone.recv(timeout=PATIENCE)
        ctx, end = context.with_cancel(context.background())

        def obey():
            with contextlib.suppress(context.Canceled), context.scope(ctx):
                fetch(0, client, url)

        goroutine = go(obey)
        server.slow.recv(timeout=PATIENCE)
        end()
        server.gone.recv(timeout=PATIENCE)
        helpers.wait_ended(goroutine)
        assert aio.await_(client.get(url + "/after")).text == "/after"


@main_goroutine
def test_a_response_of_httpx_is_streamed(httpx):
    with (
        served() as (_, url),
        aio.enter(httpx.AsyncClient(timeout=PATIENCE)) as client,
        aio.enter(client.stream("GET", url + "/streamed")) as response,
    ):
        assert b"".join(aio.iterate(response.aiter_bytes())) == b"/streamed"


# ---- redis.asyncio -------------------------------------------------------------------------------


@main_goroutine
def test_redis_asyncio_from_plain_functions(redis_server):
    redis = library("redis.asyncio")

    def work(number, client):
        aio.await_(client.set(f"key {number}", number))
        aio.await_(client.rpush("list", number))
        return int(aio.await_(client.get(f"key {number}")))

    def make():
        return redis.Redis(host=redis_server.host, port=redis_server.port, decode_responses=True)

    with aio.enter(make) as client:
        aio.await_(client.flushall())
        assert results(calls(AT_ONCE, work, client)) == list(range(AT_ONCE))
        assert sorted(map(int, aio.await_(client.lrange("list", 0, -1)))) == list(range(AT_ONCE))
        with aio.enter(client.pubsub()) as listener:
            aio.await_(listener.subscribe("news"))
            heard = makechan(3)
            waiting = go(lambda: [heard.send(message["data"]) for message in messages(listener, 3)])
            wait_until(lambda: aio.await_(client.publish("probe", 1)) == 0)
            for number in range(3):
                aio.await_(client.publish("news", number))
            assert [heard.recv(timeout=PATIENCE) for _ in range(3)] == ["0", "1", "2"]
            helpers.wait_ended(waiting)


def messages(listener, count):
    """The next messages that were published."""
    found = 0
    with contextlib.closing(aio.iterate(listener.listen())) as all_of_them:
        for message in all_of_them:
            if message["type"] == "message":
                yield message
                found += 1
                if found == count:
                    return


# ---- aiohttp ------------------------------------------------------------------------------------


@main_goroutine
def test_a_server_and_a_client_of_aiohttp(aiohttp):
    from aiohttp import web

    def work(text):
        # A plain function, in a goroutine, that serves a request.
        answers = makechan()
        go(lambda: answers.send(text.upper()))
        return answers.recv()

    async def handle(request):
        return web.Response(text=await aio.to_goroutine(work, await request.text()))

    async def start():
        app = web.Application()
        app.router.add_post("/", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner

    def post(number, session, url):
        with aio.enter(session.post(url, data=f"text {number}")) as response:
            return aio.await_(response.text())

    runner = aio.await_(start())
    try:
        url = "http://{}:{}/".format(*runner.addresses[0][:2])
        with aio.enter(aiohttp.ClientSession) as session:
            texts = results(calls(AT_ONCE, post, session, url))
        assert texts == [f"TEXT {number}" for number in range(AT_ONCE)]
    finally:
        aio.await_(runner.cleanup())
