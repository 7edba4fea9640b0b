"""What the page and `offset top` are made from: goroutines in groups, channels and locks with who waits there."""

from __future__ import annotations

import gc
import os
import time as clock

import offset
import pytest
from helpers import FREE_THREADED, go_parked, main_goroutine, wait_ended, wait_parked
from offset import _live, _runtime, go, makechan, nilchan, select, sync, time
from offset.syscall import threading as proxied


def receiver(channel):
    channel.recv()


def end(*goroutines):
    for goroutine in goroutines:
        goroutine.cancel()
    wait_ended(*goroutines)


def waiters():
    """By a channel or lock, the ids of who waits there."""
    return {id(found): ids for found, ids in _runtime.find_places(gc.get_objects())}


# ---- how many there are -----------------------------------------------------------------------


@main_goroutine
def test_states_are_wait_reasons_and_what_does_not_wait():
    before = _runtime.states()
    channel = makechan()
    started = [go_parked(channel.recv) for _ in range(3)] + [go_parked(nilchan.send, 1)]
    after = _runtime.states()
    assert after["running"] >= 1
    assert after["chan receive"] - before.get("chan receive", 0) == 3
    assert after["chan send (nil chan)"] - before.get("chan send (nil chan)", 0) == 1
    assert sum(after.values()) == offset.runtime.num_goroutine()
    end(*started)


@main_goroutine
def test_the_summary_tells_about_the_process():
    about = _live.summary()["process"]
    assert about["pid"] == os.getpid()
    assert about["offset"] == offset.__version__
    assert about["threads"] > 1
    assert about["resident"] > 1 << 20
    assert about["cpu"] > 0
    # It began before this test, and not long ago.
    assert clock.time() - 86_400 < about["started"] < clock.time() + 2


# ---- who waits where --------------------------------------------------------------------------


@main_goroutine
def test_channels_are_found_with_who_waits_there():
    first, second, idle = makechan(), makechan(label="second"), makechan(3)
    one = go_parked(first.recv)
    both = go_parked(lambda: select(first.if_recv(), second.if_send(1), first.if_recv()))
    late = go_parked(lambda: second.send(2, timeout=3600))
    found = waiters()
    assert found[id(first)] == [one.id, both.id]
    assert found[id(second)] == [both.id, late.id]
    assert found[id(idle)] == []
    end(one, both, late)
    assert waiters()[id(first)] == []


@main_goroutine
@pytest.mark.parametrize("make", [sync.Mutex, sync.RWMutex, proxied.Lock])
def test_locks_are_found_if_somebody_waits_there(make):
    """The collector does not know them: they are found by what holds them."""
    held = {"lock": make()}
    lock, unlock = ("acquire", "release") if make is proxied.Lock else ("lock", "unlock")
    getattr(held["lock"], lock)()
    assert id(held["lock"]) not in waiters()
    waiting = go_parked(lambda: getattr(held["lock"], lock)())
    assert waiters()[id(held["lock"])] == [waiting.id]
    getattr(held["lock"], unlock)()
    wait_ended(waiting)


@main_goroutine
def test_what_only_a_frame_of_a_goroutine_holds_is_found():
    def worker(out):
        mutex = sync.Mutex()
        mutex.lock()
        out.send(id(mutex))
        mutex.lock()

    out = makechan()
    waiting = go(worker, out)
    address = out.recv()
    wait_parked(waiting, reason="Mutex")
    assert waiters()[address] == [waiting.id]
    end(waiting)


@main_goroutine
def test_other_waits_have_a_place_too():
    lock, group, semaphore = sync.Mutex(), sync.WaitGroup(), sync.Semaphore(1)
    cond = sync.Cond(lock)
    group.add(1)
    semaphore.acquire()

    def waits_for_cond():
        lock.lock()
        try:
            cond.wait()
        finally:
            lock.unlock()

    started = [go_parked(group.wait), go_parked(waits_for_cond), go_parked(semaphore.acquire)]
    found = waiters()
    assert [found.get(id(each)) for each in (group, cond, semaphore)] == [[one.id] for one in started]
    end(*started)


def test_find_places_takes_a_list():
    with pytest.raises(TypeError, match="takes a list"):
        _runtime.find_places(())


# ---- looks ------------------------------------------------------------------------------------


@main_goroutine
def test_goroutines_in_groups_the_largest_first_and_a_filter():
    channel = makechan()
    many = [go(receiver, channel) for _ in range(5)]
    other = go_parked(lambda: nilchan.recv())
    wait_parked(*many)
    look = _live.goroutines()
    chosen = look.choose("receiver test_debug_live chan")
    (row,) = chosen["rows"]
    assert (row["state"], row["name"], row["count"]) == ("chan receive", "receiver", 5)
    assert row["at"].endswith("in receiver")
    assert sorted(member[0] for member in row["members"]) == [one.id for one in many]
    assert "channel.recv()" in row["stack"]
    assert row["created"].endswith(f"in goroutine {offset.current().id}")
    assert 0 <= row["shortest"] <= row["longest"]
    assert (chosen["count"], chosen["goroutines"], chosen["left_off"]) == (1, 5, {"rows": 0, "goroutines": 0})
    for query in (str(other.id), f"#{other.id}", f"Goroutine {other.id}"):
        (row,) = look.choose(query)["rows"]
        assert row["members"][0][0] == other.id
    assert look.choose("no such words")["rows"] == []
    assert look.choose("goroutine none")["rows"] == []
    end(*many, other)


@main_goroutine
def test_of_a_group_those_that_wait_longest_and_the_one_that_is_asked_for():
    channel = makechan()
    many = [go(receiver, channel) for _ in range(_live.MEMBERS + 10)]
    wait_parked(*many)
    row = _live.goroutines().choose(str(many[-1].id))["rows"][0]
    assert (row["count"], len(row["members"])) == (len(many), _live.MEMBERS)
    assert row["members"][0][0] == many[-1].id
    end(*many)


@main_goroutine
def test_what_is_left_off_is_said():
    channels = [makechan(label=f"left {index}") for index in range(30)]
    started = [go_parked(channel.recv) for channel in channels[:20]]
    chosen = _live.channels().choose("left", most=8)
    assert len(chosen["rows"]) == 8
    assert (chosen["count"], chosen["goroutines"]) == (30, 20)
    assert chosen["left_off"] == {"rows": 22, "goroutines": 12}
    end(*started)


@main_goroutine
def test_channels_with_length_and_waiters():
    jobs, quiet = makechan(2, label="some jobs"), makechan(1, label="quiet jobs")
    jobs.send(1)
    jobs.send(2)
    quiet.send(3)
    sender = go_parked(jobs.send, 3)
    first, second = _live.channels().choose("jobs")["rows"]
    assert (first["label"], first["length"], first["capacity"]) == ("some jobs", 2, 2)
    assert (first["senders"], first["receivers"], first["members"], first["waiters"]) == (1, 0, [sender.id], 1)
    assert (second["label"], second["waiters"], second["closed"]) == ("quiet jobs", 0, False)
    end(sender)


@main_goroutine
def test_ten_thousand_goroutines_are_a_row():
    channel = makechan(label="ten thousand")
    # Without the GIL one that has run takes 300 KB.
    count = 1_000 if FREE_THREADED else 10_000
    many = [go(receiver, channel) for _ in range(count)]
    wait_parked(*many)
    rows = _live.goroutines().choose()["rows"]
    assert (rows[0]["name"], rows[0]["count"], len(rows[0]["members"])) == ("receiver", count, _live.MEMBERS)
    assert len(rows) < 10
    (row,) = _live.channels().choose("ten thousand")["rows"]
    assert (row["waiters"], row["receivers"], len(row["members"])) == (count, count, _live.MEMBERS)
    end(*many)


@main_goroutine
def test_a_deep_stack_is_shown_at_both_ends():
    def deep(left, channel):
        return deep(left - 1, channel) if left else channel.recv()

    waiting = go_parked(deep, 150, makechan())
    (row,) = _live.goroutines().choose(str(waiting.id))["rows"]
    assert row["stack"].count("in deep\n") == _live.FRAMES
    assert "  ... 91 more frames ...\n" in row["stack"]
    assert row["stack"].index("more frames") < row["stack"].rindex("in deep")
    end(waiting)


@main_goroutine
def test_a_look_holds_nothing():
    channel = makechan(label="held")
    waiting = go_parked(receiver, channel)
    looks = [_live.goroutines(), _live.channels()]
    end(waiting)
    del channel, waiting
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, _runtime.Chan) and one.label == "held"]
    assert looks[1].choose("held")["count"] == 1


@main_goroutine
def test_sleepers_and_those_that_have_not_started():
    # On one processor it starts when this one waits.
    started = [go(time.sleep, 3600), go(time.sleep, 3600)]
    rows = [_live.goroutines().choose(str(one.id))["rows"][0] for one in started]
    assert {row["at"] for row in rows} <= {"(not started)", "(no Python frame)", ""}
    wait_parked(*started)
    (row,) = _live.goroutines().choose(str(started[1].id))["rows"]
    assert (row["state"], row["count"], row["stack"]) in [("sleep", 2, ""), ("sleep", 2, "  (no Python frame)\n")]
    end(*started)
