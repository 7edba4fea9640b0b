"""What a type checker must infer about the package, and refuse. Checked by `make typecheck`; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from io import BytesIO
from signal import SIGTERM, Signals
from typing import assert_type

import offset
from offset import (
    Case,
    Chan,
    Goroutine,
    RecvChan,
    SendChan,
    aio,
    context,
    debug,
    errgroup,
    io,
    net,
    os,
    patch,
    runtime,
    singleflight,
    supervise,
    sync,
    syscall,
    testing,
    time,
)
from offset.os import signal
from offset.sync import atomic


def channels(numbers: Chan[int]) -> None:
    assert_type(numbers.recv(), int)
    assert_type(numbers.recv(timeout=timedelta(seconds=1)), int)
    assert_type(numbers.recv_ok(), tuple[int | None, bool])
    assert_type(numbers.try_send(1), bool)
    assert_type(numbers.sender(), SendChan[int])
    assert_type(numbers.receiver(), RecvChan[int])
    assert_type(numbers.if_recv(), Case[int])
    for number in numbers.receiver():
        assert_type(number, int)
    numbers.send("one")  # type: ignore[arg-type]
    numbers.receiver().send(1)  # type: ignore[attr-defined]
    numbers.sender().recv()  # type: ignore[attr-defined]


def selecting(numbers: Chan[int], others: Chan[int], words: Chan[str]) -> None:
    assert_type(offset.select(numbers.if_recv(), others.if_recv()).value, int)
    either = offset.select(numbers.if_recv(), offset.default)
    if either is not offset.default:
        offset.select(numbers.if_recv(), words.if_send("one"), timeout=0.5)


async def tasks(numbers: Chan[int], goroutine: Goroutine) -> None:
    assert_type(await numbers.arecv(), int)
    await numbers.asend(1)
    async for number in numbers:
        assert_type(number, int)
    await goroutine
    assert_type(await aio.to_goroutine(add, 1, right=2), int)
    assert_type((await aio.select_async(numbers.if_recv(), timeout=1)).value, int)
    await aio.to_goroutine(add, "one", 2)  # type: ignore[arg-type]


async def words() -> AsyncIterator[str]:
    yield "word"


@asynccontextmanager
async def opened(path: str) -> AsyncIterator[int]:
    yield len(path)


async def length(word: str) -> int:
    return len(word)


def awaiting() -> None:
    assert_type(aio.await_(length("word"), timeout=1), int)
    for word in aio.iterate(words()):
        assert_type(word, str)
    with aio.enter(opened("path")) as number:
        assert_type(number, int)
    with aio.enter(opened, "path") as other:
        assert_type(other, int)
    aio.enter(opened, 5)  # type: ignore[call-overload]


def add(left: int, right: int) -> int:
    return left + right


@syscall.syscall
def size(path: str) -> int:
    return len(path)


def calls() -> None:
    assert_type(offset.go(add, 1, 2), Goroutine)
    assert_type(offset.go(add, 1, right=2).join(timeout=1), bool)
    offset.go(add, 1)  # type: ignore[call-arg]
    offset.go(add, "one", 2)  # type: ignore[arg-type]
    assert_type(offset.current(), Goroutine | None)
    assert_type(size("path"), int)
    size(1)  # type: ignore[arg-type]
    assert_type(syscall.blocking(add, 1, 2), int)


def times() -> None:
    offset.sleep(timedelta(seconds=1))
    assert_type(time.after(3 * time.SECOND).recv(), float)
    assert_type(time.Timer(1).stop(), bool)
    assert_type(time.after_func(1, add, 1, 2), time.Timer)


def locks() -> None:
    with sync.Mutex(), sync.RWMutex().rlocker(), sync.Semaphore(2):
        pass
    names: sync.Map[str, int] = sync.Map()
    assert_type(names.load("ann"), tuple[int | None, bool])
    assert_type(names.load_or_store("ann", 1), tuple[int, bool])
    assert_type(sync.once_value(lambda: 1)(), int)
    assert_type(sync.Pool(lambda: "new").get(), str)
    assert_type(atomic.Int().add(1), int)
    assert_type(atomic.Ref("one").load(), str)


def looking() -> None:
    assert_type(runtime.goroutines(), list[Goroutine])
    assert_type(runtime.stack(all=True), str)
    assert_type(runtime.gomaxprocs(), int)


def signals(received: Chan[Signals], anything: SendChan[object]) -> None:
    signal.notify(received, SIGTERM, 1)
    signal.notify(anything)
    assert_type(signal.ignored(SIGTERM), bool)
    signal.stop(received)
    signal.stop(received.receiver())  # type: ignore[arg-type]
    signal.reset("SIGTERM")  # type: ignore[arg-type]


def streams(file: BytesIO) -> None:
    reader, writer = io.pipe()
    assert_type(reader.read(10, timeout=timedelta(seconds=1)), bytes)
    assert_type(writer.write(bytearray(b"hello"), timeout=0.5), int)
    assert_type(io.copy(writer, file), int)
    assert_type(io.copy(io.multi_writer(file, io.discard), io.tee(io.LimitedReader(reader, 10), file), 3), int)
    for line in io.BufferedReader(reader):
        assert_type(line, bytes)
    io.BufferedWriter(file).write("text")  # type: ignore[arg-type]
    io.copy(reader, file)  # type: ignore[arg-type]
    reader.write(b"")  # type: ignore[attr-defined]


def files() -> None:
    with os.open("name") as file, os.create(b"other") as other:
        assert_type(file.read(10), bytes)
        assert_type(other.write(memoryview(b"data")), int)
        assert_type(io.copy(other, file), int)
        file.set_read_deadline(timedelta(seconds=1))
        for line in file:
            assert_type(line, bytes)
    reader, writer = os.pipe()
    assert_type(reader, os.File)
    writer.write("text")  # type: ignore[arg-type]
    os.open_file("name", os.O_RDWR | os.O_CREAT, 0o600)
    os.open("name", 1)  # type: ignore[arg-type]
    assert_type([entry.name for entry in os.read_dir()], list[str])
    os.stdout.write(os.read_file("name"))


def live() -> None:
    with debug.serve("127.0.0.1:0", token="secret") as server:
        assert_type(server.addr, str)
        assert_type(server.stats(), dict[str, object])
    debug.publish("name", server.stats)
    debug.publish(1, 2)  # type: ignore[arg-type]


def patching() -> None:
    with patch.patch_all(threading=False) as patched:
        assert_type(patched.replaced, list[patch.Replacement])
        assert_type([leftover.place for leftover in patch.leftovers()], list[str])


def groups(words: list[str]) -> None:
    with errgroup.Group(limit=8) as group:
        task = group.go(add, 1, 2)
        assert_type(task, errgroup.Task[int])
        assert_type(task.result(timeout=1), int)
        group.go(add, "one", 2)  # type: ignore[arg-type]
        assert_type(group.try_go(len, words), errgroup.Task[int] | None)
    flights: singleflight.Group[bytes] = singleflight.Group()
    assert_type(flights.do("key", lambda: b"page"), tuple[bytes, bool])
    with supervise.Supervisor(limit=3, within=timedelta(minutes=1)) as supervisor:
        supervisor.go(print, "again", restart="always")
        supervisor.go(print, restart="often")  # type: ignore[arg-type]


def contexts() -> None:
    with context.timeout(1.5) as limited:
        assert_type(limited.deadline(), float | None)
    ctx, cancel = context.with_cancel(context.background())
    assert_type(ctx, context.Context)
    cancel()
    assert_type(ctx.err(), BaseException | None)
    context.timeout("soon")  # type: ignore[arg-type]


def networks() -> None:
    with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", listener.addr, timeout=1) as conn:
        assert_type(conn.read(10), bytes)
        assert_type(conn.write(b"hello"), int)
        conn.write("hello")  # type: ignore[arg-type]
        for accepted in listener:
            accepted.close()


def tests() -> None:
    assert_type(testing.bubble(lambda: 1, seed=3), int)
    with testing.leak_check():
        assert_type(offset.run(add, 1, 2), int)
