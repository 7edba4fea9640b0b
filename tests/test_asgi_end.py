"""`offset.asgi.serve`: how an application begins and ends, and how a server and its connections do."""

from __future__ import annotations

import asyncio
import gc

import offset
import pytest
from helpers import PATIENCE, main_goroutine, run_script, wait_until
from offset import asgi, context, go, makechan, net
from web import Reader, connect, request
from web_asgi import ask, begin, hello, say, serving, talking

# ---- the lifespan protocol -------------------------------------------------------------------------------------


def living(events, *, startup="complete", shutdown="complete", inside=hello):
    """An application that notes its beginning and its end."""

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            events.append((scope["type"], dict(scope["state"])))
            scope["state"]["mine"] = True
            await inside(scope, receive, send)
            return
        assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        scope["state"]["shared"] = events
        message = await receive()
        events.append(message["type"])
        await send({"type": f"lifespan.startup.{startup}", "message": "no startup"})
        message = await receive()
        events.append(message["type"])
        await send({"type": f"lifespan.shutdown.{shutdown}", "message": "no shutdown"})

    return app


@main_goroutine
@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_application_that_knows_its_life(mode, server_reports):
    events = []
    with serving(living(events), lifespan=mode) as served:
        assert events == ["lifespan.startup"]
        for _ in range(2):
            assert ask(served.addr).body == b"hello"
        assert events[1] == events[2] == ("http", {"shared": events}), "each has a copy"
    assert events[-1] == "lifespan.shutdown"
    assert server_reports == []
    events.clear()


@main_goroutine
def test_a_shutdown_comes_after_the_last_request():
    events, begun, go_on = [], makechan(1), makechan(1)

    async def slow(scope, receive, send):
        begun.send(True)
        await go_on.arecv()
        events.append("answered")
        await hello(scope, receive, send)

    with serving(living(events, inside=slow), lifespan="on") as served, connect(served.addr) as conn:
        conn.write(request())
        begun.recv(timeout=PATIENCE)
        served.stop()
        with pytest.raises(OSError):
            while True:
                net.dial("tcp", served.addr).close()
        go_on.send(True)
        assert Reader(conn).answer().body == b"hello"
        conn.close()
        served.call.result()
    assert events[2:] == ["answered", "lifespan.shutdown"]
    events.clear()


@main_goroutine
def test_a_startup_that_fails():
    for mode in ("auto", "on"):
        with (
            pytest.raises(RuntimeError, match="startup has failed: no startup"),
            serving(living([], startup="failed"), lifespan=mode),
        ):
            pass


@main_goroutine
def test_an_application_that_does_not_know_its_life(server_reports):
    async def raises(scope, receive, send):
        assert scope["type"] == "http"
        await hello(scope, receive, send)

    async def returns(scope, receive, send):
        if scope["type"] == "http":
            await hello(scope, receive, send)

    for app, what in ((raises, "has raised AssertionError"), (returns, "has returned")):
        for mode in ("auto", "off"):
            with serving(app, lifespan=mode) as served:
                assert ask(served.addr).body == b"hello"
        with pytest.raises(RuntimeError, match=what), serving(app, lifespan="on"):
            pass
    assert server_reports == []


@main_goroutine
def test_a_shutdown_that_fails(server_reports):
    with serving(living([], shutdown="failed"), lifespan="on"):
        pass
    assert server_reports == ["offset.asgi: the application's shutdown has failed: no shutdown\n"]
    server_reports.clear()

    async def raises(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ZeroDivisionError

    with serving(raises, lifespan="on"):
        pass
    assert "lifespan has failed" in server_reports[0] and "ZeroDivisionError" in server_reports[0]


@main_goroutine
def test_a_shutdown_that_does_not_end(server_reports, loop_patience):
    ended = makechan(1)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
            await makechan().arecv()
        finally:
            ended.send(True)

    with serving(app, lifespan="on", grace=0.05):
        pass
    assert ended.recv(timeout=PATIENCE)
    assert server_reports == ["offset.asgi: the application's shutdown has taken too long\n"]


@main_goroutine
def test_a_startup_that_is_stopped():
    begun, ended = makechan(1), makechan(1)

    async def app(scope, receive, send):
        begun.send(True)
        try:
            await makechan().arecv()
        finally:
            ended.send(True)

    ctx, stop = context.with_cancel(context.background())
    server = go(asgi.serve, app, "127.0.0.1:0", stop=ctx, on_ready=pytest.fail)
    begun.recv(timeout=PATIENCE)
    stop()
    assert server.join(timeout=PATIENCE)
    assert ended.recv(timeout=PATIENCE)


@main_goroutine
def test_messages_of_lifespan_that_are_wrong(server_reports):
    found = []

    async def app(scope, receive, send):
        for kind in ("lifespan.nothing", "lifespan.shutdown.complete"):
            with pytest.raises(RuntimeError, match=kind):
                await send({"type": kind})
        await receive()
        await send({"type": "lifespan.startup.complete"})
        with pytest.raises(RuntimeError, match="after the startup was over"):
            await send({"type": "lifespan.startup.complete"})
        found.append(True)
        await receive()

    with serving(app, lifespan="on"):
        pass
    assert (found, server_reports) == ([True], [])


# ---- the end of a server ---------------------------------------------------------------------------------------


@main_goroutine
def test_a_stop_lets_requests_end_and_idle_connections_go():
    begun, go_on = makechan(1), makechan(1)

    async def app(scope, receive, send):
        await begin(send)
        if scope["path"] == "/slow":
            await say(send, b"begun", True)
            begun.send(True)
            await go_on.arecv()
        await say(send, b" and ended")

    with serving(app) as served, connect(served.addr) as idle, connect(served.addr) as busy:
        idle.write(request())
        assert Reader(idle).answer().status == 200
        busy.write(request("/slow"))
        begun.recv(timeout=PATIENCE)
        served.stop()
        assert Reader(idle).at_end()
        assert not served.call.ended
        go_on.send(True)
        reader = Reader(busy)
        assert reader.answer().body == b"begun and ended"
        assert reader.at_end()
        busy.close()
        served.call.result()


@main_goroutine
def test_a_stop_cuts_what_takes_too_long(server_reports):
    begun, ended = makechan(), makechan(1)

    async def app(scope, receive, send):
        await receive()
        await begun.asend(True)
        try:
            await makechan().arecv()
        finally:
            ended.send(await receive())

    with serving(app, grace=0.05) as served, connect(served.addr) as conn:
        conn.write(request())
        begun.recv(timeout=PATIENCE)
        served.stop()
        served.call.result()
        assert ended.recv(timeout=PATIENCE) == {"type": "http.disconnect"}
        assert Reader(conn).at_end()
    assert server_reports == []


@main_goroutine
def test_a_server_that_is_cancelled():
    begun, ended = makechan(1), makechan(1)

    async def app(scope, receive, send):
        begun.send(True)
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.send(True)

    ready = makechan(1)
    server = go(asgi.serve, app, "127.0.0.1:0", ready=ready, lifespan="off")
    with connect(ready.recv(timeout=PATIENCE)) as conn:
        conn.write(request())
        begun.recv(timeout=PATIENCE)
        server.cancel()
        assert server.join(timeout=PATIENCE)
        assert ended.recv(timeout=PATIENCE)
        assert Reader(conn).at_end()


def test_a_run_that_ends_under_a_request(loop_patience):
    # The main goroutine is over, and so is everything else.
    async def app(scope, receive, send):
        begun.send(True)
        await makechan().arecv()

    def main():
        ready = makechan(1)
        go(asgi.serve, app, "127.0.0.1:0", ready=ready, lifespan="off")
        with connect(ready.recv(timeout=PATIENCE)) as conn:
            conn.write(request())
            begun.recv(timeout=PATIENCE)

    begun = makechan(1)
    offset.run(main, grace=PATIENCE)


@main_goroutine
def test_nothing_of_a_request_is_kept():
    class Mine:
        pass

    async def app(scope, receive, send):
        scope["mine"] = Mine()
        await hello(scope, receive, send)

    def there():
        gc.collect()
        return sum(type(thing) is Mine for thing in gc.get_objects())

    with talking(app) as (conn, reader):
        conn.write(request())
        assert reader.answer().body == b"hello"
        wait_until(lambda: not there(), "the scope is gone")


def test_signals_end_it():
    program = """
        import os, signal, sys, threading
        import socket as plain
        import offset
        from offset.asgi import serve

        def say(what):
            # In one piece: `print` writes the end of a line apart, and two threads say something here.
            sys.stdout.write(f"{what}\\n")

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                for kind in ("startup", "shutdown"):
                    say((await receive())["type"])
                    await send({"type": f"lifespan.{kind}.complete"})
                return
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            # From now on nothing new is begun.
            os.kill(os.getpid(), getattr(signal, scope["path"][1:]))
            await offset.aio.to_goroutine(until_nobody_listens)
            await send({"type": "http.response.body", "body": b" and ended"})

        def until_nobody_listens():
            from offset.syscall import socket
            while True:
                try:
                    socket.create_connection(address).close()
                except OSError:
                    return
                offset.sleep(0.001)

        def ready(addr):
            global address
            host, port = addr.split(":")
            address = (host, int(port))
            thread.start()

        def client():
            with plain.create_connection(address) as conn:
                conn.sendall(b"GET /%s HTTP/1.0\\r\\nHost: a\\r\\n\\r\\n" % sys.argv[1].encode())
                data = b""
                while part := conn.recv(1000):
                    data += part
            say(data.endswith(b"begun and ended"))

        thread = threading.Thread(target=client)
        serve(app, "127.0.0.1:0", ready)
        thread.join()
        print("over")
    """
    for number in ("SIGTERM", "SIGINT"):
        status, stdout, stderr = run_script(program, number)
        assert status == 0, stderr
        words = stdout.split()
        assert sorted(words) == ["True", "lifespan.shutdown", "lifespan.startup", "over"], stderr
        assert (words[0], words[-1]) == ("lifespan.startup", "over")
