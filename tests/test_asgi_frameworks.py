"""Starlette and FastAPI over `offset.asgi.serve`, as they are."""

import asyncio
import contextlib
import json
import threading

import pytest
from helpers import PATIENCE, collect, main_goroutine, wait_until
from libraries import library
from net_peers import Call, pattern
from offset import aio, go, makechan, syscall
from web import Reader, chunks, connect, request
from web_asgi import ask, serving

pytestmark = pytest.mark.usefixtures("loop_patience")


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What the libraries make when they are imported, and first used, is no test's."""
    library("starlette")
    import anyio.to_thread

    asyncio.run(anyio.to_thread.run_sync(int))


def saying(conn):
    """A function that sends a request and gives the answer."""
    reader = Reader(conn)

    def say(data, head=False):
        conn.write(data)
        return reader.answer(head=head)

    return say


# ---- Starlette -------------------------------------------------------------------------------------


def starlette_app(seen, middleware=True):
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    @contextlib.asynccontextmanager
    async def lifespan(app):
        seen.append("begins")
        yield {"channel": makechan(10)}
        seen.append("ends")

    async def hello(request):
        base = request.base_url
        return PlainTextResponse(f"hello {request.path_params['name']} {request.query_params.get('q')} {base}")

    async def double(request):
        return JSONResponse({"twice": (await request.json())["n"] * 2})

    async def raw(request):
        return PlainTextResponse(str(len(await request.body())))

    async def stream(request):
        async def body():
            for number in range(3):
                await asyncio.sleep(0)
                yield f"{number}\n"

        return StreamingResponse(body())

    async def endless(request):
        async def body():
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                seen.append("stopped")

        return StreamingResponse(body())

    async def disconnected(request):
        seen.append("waits")
        while not await request.is_disconnected():
            await asyncio.sleep(0.001)
        seen.append("disconnected")
        return PlainTextResponse("nobody reads this")

    async def send(request):
        return FileResponse(__file__)

    async def background(request):
        channel = request.state.channel

        async def later():
            await channel.asend("later")

        return PlainTextResponse("now", background=BackgroundTask(later))

    def sync(request):
        # In a thread of Starlette's.
        request.state.channel.send(threading.current_thread().name)
        return PlainTextResponse(request.state.channel.recv(timeout=PATIENCE))

    async def fails(request):
        return 1 // 0

    async def talk(ws):
        await ws.accept(subprotocol=(ws.scope["subprotocols"] or [None])[0])
        async for text in ws.iter_text():
            await ws.send_text(text.upper())
        seen.append("talked")

    class Tagged(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-tag"] = "yes"
            return response

    routes = [
        Route("/hello/{name}", hello),
        Route("/double", double, methods=["POST"]),
        Route("/raw", raw, methods=["POST"]),
        *(Route(f"/{each.__name__}", each) for each in (stream, endless, disconnected, send, background, sync, fails)),
        WebSocketRoute("/talk", talk),
    ]
    around = [Middleware(Tagged), Middleware(GZipMiddleware)] if middleware else []
    return Starlette(routes=routes, lifespan=lifespan, middleware=around)


@main_goroutine
def test_starlette():
    seen = []
    with serving(starlette_app(seen), lifespan="on") as served, connect(served.addr) as conn:
        assert seen == ["begins"]
        say = saying(conn)
        answer = say(request("/hello/%C3%A9?q=%26"))
        assert answer.body.decode() == "hello \xe9 & http://localhost/"
        assert answer.headers["x-tag"] == "yes"
        assert say(request("/hello/x", method="HEAD"), head=True).status == 200
        assert json.loads(say(request("/double", method="POST", body=b'{"n": 21}')).body) == {"twice": 42}
        data = pattern(200_000)
        assert say(request("/raw", method="POST", body=data)).body == b"200000"
        sent = request("/raw", "Transfer-Encoding: chunked", method="POST") + chunks(data[:70_000], data[70_000:])
        assert say(sent).body == b"200000"
        assert say(request("/stream")).body == b"0\n1\n2\n"
        with open(__file__, "rb") as file:
            source = file.read()
        assert say(request("/send")).body == source
        part = say(request("/send", "Range: bytes=3-9"))
        assert (part.status, part.body) == (206, source[3:10])
        assert say(request("/background")).body == b"now"
        assert say(request("/sync")).body == b"later"
        assert b"AnyIO" in say(request("/sync")).body
        assert say(request("/missing")).status == 404
        assert say(request("/hello/x", method="DELETE")).status == 405
    assert seen == ["begins", "ends"]


@main_goroutine
def test_clients_of_starlette_that_go(server_reports):
    seen = []
    # Behind a BaseHTTPMiddleware nobody finds out by `is_disconnected`.
    with serving(starlette_app(seen, middleware=False), lifespan="on") as served:
        for path, last in (("/endless", "stopped"), ("/disconnected", "disconnected")):
            with connect(served.addr) as conn:
                conn.write(request(path))
                if path == "/endless":
                    conn.read_full(100_000)
                else:
                    wait_until(lambda: "waits" in seen, "the request has come")

            def is_over(last=last):
                # A generator that was left ends when it is collected.
                collect()
                return last in seen

            wait_until(is_over, last)


@main_goroutine
def test_errors_in_starlette(server_reports):
    with serving(starlette_app([]), lifespan="on") as served:
        assert ask(served.addr, request("/fails")).status == 500
        wait_until(lambda: server_reports, "it is told")
    # What it has raised through its own answer.
    assert "ZeroDivisionError" in server_reports[0]


@main_goroutine
def test_a_startup_of_starlette_that_fails():
    from starlette.applications import Starlette

    @contextlib.asynccontextmanager
    async def lifespan(app):
        raise ZeroDivisionError("a test")
        yield

    with pytest.raises(RuntimeError, match="a test"), serving(Starlette(lifespan=lifespan), lifespan="auto"):
        pass


@main_goroutine
def test_websockets_of_starlette():
    client = library("websockets.sync.client")
    seen = []

    def talk(addr):
        with client.connect(f"ws://{addr}/talk", subprotocols=["mine"], open_timeout=PATIENCE) as ws:
            ws.send("hello")
            return ws.subprotocol, ws.recv(timeout=PATIENCE)

    with serving(starlette_app(seen), lifespan="on") as served:
        assert syscall.blocking(talk, served.addr) == ("mine", "HELLO")
        wait_until(lambda: "talked" in seen, "it has ended")


# ---- FastAPI ------------------------------------------------------------------------------------------


def fastapi_app(jobs):
    fastapi = library("fastapi")
    app = fastapi.FastAPI()

    class Item(library("pydantic").BaseModel):
        name: str
        price: float = 1.5

    async def session():
        # A dependency that is cleaned up.
        yield "session"

    @app.get("/hello/{name}")
    async def hello(name: str, q: int = 0, session: str = fastapi.Depends(session)):
        return {"name": name, "q": q, "session": session}

    @app.post("/items", status_code=201)
    async def create(item: Item):
        return item

    @app.get("/square/{number}")
    async def square(number: int):
        # A worker, which is a goroutine, is asked over channels.
        reply = makechan(1)
        await jobs[0].asend((number, reply))
        case = await aio.select_async(reply.if_recv(), timeout=PATIENCE)
        return case.value

    @app.get("/goroutine/{number}")
    async def goroutine(number: int):
        done = makechan(1)
        await go(done.send, number)
        return await done.arecv() + await aio.to_goroutine(lambda: number * 100)

    @app.get("/thread/{number}")
    def thread(number: int):
        reply = makechan()
        jobs[0].send((number, reply))
        return reply.recv(timeout=PATIENCE)

    @app.websocket("/squares")
    async def squares(ws: fastapi.WebSocket):
        await ws.accept()
        with contextlib.suppress(fastapi.WebSocketDisconnect):
            while True:
                reply = makechan(1)
                await jobs[0].asend((int(await ws.receive_text()), reply))
                await ws.send_json(await reply.arecv())

    return app


@contextlib.contextmanager
def workers():
    """Goroutines that square what they get on a channel, in a list: FastAPI keeps what functions have."""
    jobs = [makechan()]

    def work():
        for number, reply in jobs[0]:
            reply.send(number * number)

    started = [Call(work) for _ in range(3)]
    try:
        yield jobs
    finally:
        jobs[0].close()
        for call in started:
            call.result()
        jobs.clear()


@main_goroutine
def test_fastapi():
    library("fastapi")
    with workers() as jobs, serving(fastapi_app(jobs), lifespan="auto") as served, connect(served.addr) as conn:
        say = saying(conn)
        assert json.loads(say(request("/hello/x?q=3")).body) == {"name": "x", "q": 3, "session": "session"}
        assert say(request("/hello/x?q=no")).status == 422
        answer = say(request("/items", "Content-Type: application/json", method="POST", body=b'{"name": "x"}'))
        assert (answer.status, json.loads(answer.body)) == (201, {"name": "x", "price": 1.5})
        assert json.loads(say(request("/square/7")).body) == 49
        assert json.loads(say(request("/goroutine/7")).body) == 707
        assert json.loads(say(request("/thread/8")).body) == 64
        assert "/square/{number}" in json.loads(say(request("/openapi.json")).body)["paths"]


@main_goroutine
def test_fastapi_with_many_at_once():
    library("fastapi")
    with workers() as jobs, serving(fastapi_app(jobs)) as served:
        paths = [f"/{kind}/{number}" for kind in ("square", "goroutine", "thread") for number in range(8)]
        calls = [Call(ask, served.addr, request(path)) for path in paths]
        answers = [json.loads(call.result().body) for call in calls]
    squares = [number * number for number in range(8)]
    assert answers == [*squares, *(number * 101 for number in range(8)), *squares]


@main_goroutine
def test_websockets_of_fastapi():
    library("fastapi")
    client = library("websockets.sync.client")

    def talk(addr):
        with client.connect(f"ws://{addr}/squares", open_timeout=PATIENCE) as ws:
            answers = []
            for number in range(5):
                ws.send(str(number))
                answers.append(json.loads(ws.recv(timeout=PATIENCE)))
            return answers

    with workers() as jobs, serving(fastapi_app(jobs)) as served:
        assert syscall.blocking(talk, served.addr) == [0, 1, 4, 9, 16]
