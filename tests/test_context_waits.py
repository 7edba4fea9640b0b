"""Scopes of `offset.context` at each way to wait: the operation happens or it does not, and locks are kept."""

from __future__ import annotations

import socket
import threading

import offset
import pytest
from blocks import BLOCKS, MORE_BLOCKS, over, under
from helpers import (
    PATIENCE,
    go_parked,
    main_goroutine,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import (
    context,
    go,
    gosched,
    makechan,
    select,
    sleep,
    sync,
)
from offset.context import Canceled, DeadlineExceeded, background, scope, with_cancel
from offset.syscall import blocking
from offset.syscall import queue as gqueue
from offset.syscall import socket as gsocket
from offset.syscall import threading as gthreading

ATTEMPTS = 50

every_block = pytest.mark.parametrize(
    "make_block", [*BLOCKS, *MORE_BLOCKS], ids=lambda make: make.__name__.removeprefix("block_in_")
)


# ---- at each way to wait ---------------------------------------------------------------------


@every_block
@main_goroutine
def test_what_waits_is_ended_with_its_context(make_block):
    _, block, release = make_block()
    ctx, cancel = with_cancel(background())
    seen = []
    goroutine = go_parked(under(ctx, block, seen))
    cancel()
    wait_ended(goroutine)
    assert [type(error) for error in seen] == [Canceled]
    # The waiter is gone: another one gets what it waited for.
    successor = go_parked(block)
    release()
    wait_ended(successor)


@every_block
@main_goroutine
def test_a_context_that_is_over_lets_nothing_wait(make_block):
    _, block, release = make_block()
    seen = []
    wait_ended(go(under(over(), block, seen)))
    assert [type(error) for error in seen] == [Canceled]
    successor = go_parked(block)
    release()
    wait_ended(successor)


@main_goroutine
def test_what_could_be_had_at_once_is_not_taken():
    box, full, mutex, semaphore, done = makechan(1), makechan(1), sync.Mutex(), sync.Semaphore(2), go(int)
    full.send(1)
    wait_ended(done)
    operations = [
        lambda: box.send(1),
        full.recv,
        full.recv_ok,
        lambda: next(iter(full)),
        lambda: select(box.if_send(1), full.if_recv()),
        mutex.lock,
        mutex.__enter__,
        sync.RWMutex().rlock,
        semaphore.acquire,
        semaphore.__enter__,
        sync.WaitGroup().wait,
        done.join,
        lambda: sleep(0),
        lambda: blocking(int),
        gthreading.Lock().acquire,
    ]
    for operation in operations:
        with pytest.raises(Canceled), scope(over()):
            operation()
    assert len(box) == 0
    assert len(full) == 1
    assert mutex.try_lock()
    assert semaphore.try_acquire(2)


@every_block
@main_goroutine
def test_cleaning_up_may_wait(make_block):
    _, block, release = make_block()
    ctx, cancel = with_cancel(background())
    tidying, seen = makechan(), []

    def body():
        try:
            makechan().recv()
        finally:
            tidying.send(None)
            block()
            seen.append("tidied")

    goroutine = go_parked(under(ctx, body, seen))
    cancel()
    tidying.recv()
    wait_parked(goroutine)
    releasing = go(release)
    wait_ended(goroutine, releasing)
    assert seen[0] == "tidied"
    assert type(seen[1]) is Canceled


@every_block
@main_goroutine
def test_a_scope_that_was_left_ends_nothing(make_block):
    _, block, release = make_block()
    ctx, cancel = with_cancel(background())
    done = []

    def body():
        with scope(ctx):
            pass
        block()
        done.append(True)

    goroutine = go_parked(body)
    cancel()
    gosched()
    assert not done
    releasing = go(release)
    wait_ended(goroutine, releasing)
    assert done == [True]


# ---- locks are kept --------------------------------------------------------------------------


@main_goroutine
def test_a_condition_comes_back_with_its_lock():
    for make in (lambda: sync.Mutex(), gthreading.Lock):
        mutex = make()
        condition = sync.Cond(mutex) if isinstance(mutex, sync.Mutex) else gthreading.Condition(mutex)
        ctx, cancel = with_cancel(background())
        seen = []

        def block(mutex=mutex, condition=condition):
            with mutex:
                condition.wait()

        goroutine = go_parked(under(ctx, block, seen))
        with mutex:
            cancel()
            # It has been woken and waits for the lock.
            sleep(0.005)
            assert not seen
        wait_ended(goroutine)
        assert [type(error) for error in seen] == [Canceled]
        with mutex:
            pass


@main_goroutine
def test_an_end_that_comes_while_a_condition_takes_its_lock_is_for_the_next_wait():
    mutex = sync.Mutex()
    condition = sync.Cond(mutex)
    ctx, cancel = with_cancel(background())
    seen, steps = [], []

    def block():
        with mutex:
            condition.wait()
            steps.append("woken")
            sleep(1e6)

    goroutine = go_parked(under(ctx, block, seen))
    with mutex:
        condition.signal()
        wait_parked(goroutine, reason="Mutex")
        cancel()
        sleep(0.005)
        assert steps == []
    wait_ended(goroutine)
    assert steps == ["woken"]
    assert [type(error) for error in seen] == [Canceled]
    with mutex:
        pass


# ---- blocking calls --------------------------------------------------------------------------


@main_goroutine
def test_a_blocking_call_goes_on_without_its_caller():
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def call():
        began.set()
        may_end.wait(PATIENCE)
        ended.set()

    ctx, cancel = with_cancel(background())
    canceling = go(lambda: (wait_until(began.is_set, "the call has begun"), cancel()))
    with pytest.raises(Canceled), scope(ctx):
        blocking(call)
    wait_ended(canceling)
    assert not ended.is_set()
    may_end.set()
    assert blocking(ended.wait, PATIENCE)
    not_begun = []
    with pytest.raises(Canceled), scope(over()):
        blocking(not_begun.append, 1)
    assert not_begun == []


@main_goroutine
def test_a_write_says_how_far_it_came():
    with (
        offset.net.listen("tcp", "127.0.0.1:0") as listener,
        offset.net.dial("tcp", listener.addr) as conn,
        listener.accept(),
    ):
        ctx, cancel = with_cancel(background())
        seen = []
        goroutine = go_parked(under(ctx, lambda: conn.write(bytes(100_000_000)), seen), reason="IO")
        cancel()
        wait_ended(goroutine)
        assert type(seen[0]) is Canceled
        assert 0 < seen[0].characters_written < 100_000_000
        with pytest.raises(Canceled) as caught, scope(over()):
            conn.write(b"x")
        assert caught.value.characters_written == 0


# ---- networks --------------------------------------------------------------------------------


@main_goroutine
def test_connections_obey():
    with offset.net.listen("tcp", "127.0.0.1:0") as listener:
        waits = [("accept", listener.accept)]
        with offset.net.dial("tcp", listener.addr) as conn, listener.accept() as accepted:
            filled = bytes(10_000_000)
            waits += [
                ("read", lambda: conn.read(10)),
                ("read_full", lambda: accepted.read_full(10)),
                ("read_into", lambda: conn.read_into(bytearray(10))),
                ("write", lambda: accepted.write(filled)),
            ]
            for name, wait in waits:
                ctx, cancel = with_cancel(background())
                seen = []
                goroutine = go_parked(under(ctx, wait, seen))
                cancel()
                wait_ended(goroutine)
                assert [type(error) for error in seen] == [Canceled], name
            # Nothing is broken by it but the write that was cut.
            conn.write(b"still there")
            assert accepted.read_full(11) == b"still there"


@main_goroutine
def test_a_dial_obeys_and_leaves_no_descriptor():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = "127.0.0.1:%d" % full.getsockname()[1]
        fillers = []
        with pytest.raises(TimeoutError), context.timeout(0.3):
            while True:
                fillers.append(offset.net.dial("tcp", address))
        for filler in fillers:
            filler.close()
    with pytest.raises(Canceled), scope(over()):
        offset.net.dial("tcp", address)


@main_goroutine
def test_proxied_sockets_obey():
    left, right = gsocket.socketpair()
    with left, right:
        with pytest.raises(DeadlineExceeded), context.timeout(0.01):
            left.recv(10)
        with pytest.raises(DeadlineExceeded), context.timeout(0.01):
            left.sendall(bytes(10_000_000))
        with pytest.raises(Canceled), scope(over()):
            right.recv(10)


@main_goroutine
def test_closing_is_never_refused():
    """What must not be left out obeys no scope, though it takes locks."""
    ours, theirs = offset.net.pipe()
    reader, writer = offset.io.pipe()
    box, table = gqueue.SimpleQueue(), sync.Map()
    with scope(over()):
        for thing in (ours, theirs, reader, writer):
            thing.close()
        box.put(1)
        table.store("key", 1)
        assert table.load("key") == (1, True)
        with pytest.raises(Canceled):
            box.get()
    assert box.get() == 1


@main_goroutine
def test_packets_and_lookups_obey():
    with offset.net.listen_packet("udp", "127.0.0.1:0") as packets:
        with pytest.raises(DeadlineExceeded), context.timeout(0.01):
            packets.read_from(100)
        with pytest.raises(Canceled), scope(over()):
            packets.write_to(b"x", packets.addr)
    with pytest.raises(Canceled), scope(over()):
        offset.net.lookup_host("localhost")
