"""`stats()` of every object: what it says, and that asking changes nothing."""

from __future__ import annotations

import pytest
from helpers import go_parked, main_goroutine, wait_ended
from offset import context, default, go, makechan, nilchan, runtime, select, sync, time


@main_goroutine
def test_a_channel_counts_values_and_waiters():
    channel = makechan(2)
    for value in range(3):
        channel.try_send(value)
    sender = go_parked(channel.send, 3)
    assert channel.stats() == {"len": 2, "cap": 2, "closed": False, "senders": 1, "receivers": 0, "passed": 2}
    assert channel.sender().stats() == channel.receiver().stats() == channel.stats()
    for _ in range(3):
        channel.recv()
    wait_ended(sender)
    channel.close()
    assert channel.stats() == {"len": 0, "cap": 2, "closed": True, "senders": 0, "receivers": 0, "passed": 3}
    assert nilchan.stats()["cap"] == 0


@main_goroutine
def test_a_case_says_what_it_did():
    channel = makechan(1)
    sending, receiving = channel.if_send(1), channel.if_recv()
    assert sending.stats() == {"sends": True, "ok": False, "index": -1}
    assert select(receiving, sending) is sending
    assert sending.stats() == {"sends": True, "ok": True, "index": 1}
    assert select(nilchan.if_recv(), nilchan.if_recv(), receiving) is receiving
    assert receiving.stats() == {"sends": False, "ok": True, "index": 2}
    assert select(receiving, default) is default


@main_goroutine
def test_both_sides_of_a_rwmutex_say_the_same():
    mutex = sync.RWMutex()
    reading = mutex.rlocker()
    with reading:
        writer = go_parked(mutex.lock)
        assert reading.stats() == mutex.stats()
        assert mutex.stats() == {"locked": False, "readers": 1, "writers_waiting": 1, "readers_waiting": 0}
    wait_ended(writer)
    assert reading.stats()["locked"]
    mutex.unlock()


@main_goroutine
def test_a_goroutine_says_what_it_waits_for_and_how_long():
    channel = makechan()
    goroutine = go_parked(channel.recv)
    stats = goroutine.stats()
    assert (stats["id"], stats["status"], stats["wait_reason"]) == (goroutine.id, "waiting", "chan receive")
    assert stats["waited"] >= 0.0
    channel.send(None)
    wait_ended(goroutine)
    assert goroutine.stats()["status"] == "dead"


@main_goroutine
def test_a_scope_says_whether_it_is_entered():
    ctx, cancel = context.with_cancel(context.background())
    scope = context.scope(ctx)
    assert scope.stats() == {"entered": False, "err": None, "deadline": None}
    with scope:
        assert scope.stats()["entered"]
        cancel()
        assert isinstance(scope.stats()["err"], context.Canceled)
    assert not scope.stats()["entered"]
    assert context.timeout(2).stats() == {"seconds": 2.0}


@pytest.mark.parametrize(
    "make",
    [
        sync.Mutex,
        sync.RWMutex,
        sync.WaitGroup,
        sync.Once,
        sync.Map,
        sync.Pool,
        lambda: sync.Cond(sync.Mutex()),
        lambda: sync.Semaphore(3),
        sync.atomic.Int,
        sync.atomic.Bool,
        sync.atomic.Ref,
        lambda: time.Timer(100.0),
        lambda: time.Ticker(100.0),
        runtime.leaks,
    ],
)
@main_goroutine
def test_it_is_a_dict_of_plain_values_and_asking_changes_nothing(make):
    asked = make()
    first = asked.stats()
    assert all(isinstance(name, str) for name in first)
    assert asked.stats() == first
    if hasattr(asked, "stop"):
        asked.stop()


@main_goroutine
def test_the_runtime_counts():
    before = runtime.stats()
    wait_ended(go(time.sleep, 0))
    after = runtime.stats()
    assert after["spawned"] == before["spawned"] + 1
    assert after["switches"] > before["switches"]
