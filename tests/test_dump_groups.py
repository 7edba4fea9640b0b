"""Dumps that put equal stacks together, and what they say of times and creators."""

from __future__ import annotations

import re
import time
import types
from pathlib import Path

import offset
from helpers import go_parked, main_goroutine, run_script, wait_ended, wait_parked, wait_until
from offset import _dump, errgroup, go, gosched, makechan, runtime, supervise, sync


def end(*goroutines):
    for goroutine in goroutines:
        goroutine.cancel()
    wait_ended(*goroutines)


def a_receiver(channel):
    channel.recv()


def a_sender(channel):
    channel.send(1)


@main_goroutine
def test_equal_stacks_are_put_together():
    channel, other = makechan(), makechan()
    sender = go(a_sender, other)
    receivers = [go(a_receiver, channel) for _ in range(3)]
    wait_parked(sender, *receivers)
    first, groups, single = runtime.stack(all=True, group=True).split("\n\n")
    assert first.startswith(f"goroutine {offset.current().id} [running] ")
    ids = ", ".join(str(receiver.id) for receiver in receivers)
    assert re.match(rf"3 goroutines \[chan receive, \d+\.\d s( to \d+\.\d s)?\] a_receiver: {ids}\n", groups)
    assert groups.count("in a_receiver\n    channel.recv()\n") == 1
    assert re.search(rf"^created by .* in goroutine {offset.current().id}$", groups, re.MULTILINE)
    assert re.match(rf"goroutine {sender.id} \[chan send, \d+\.\d s\] a_sender:\n", single)
    end(sender, *receivers)


@main_goroutine
def test_what_differs_is_apart():
    channel, mutex = makechan(), sync.Mutex()
    mutex.lock()
    different = [
        go(a_receiver, channel),
        go(lambda: channel.recv()),
        go(mutex.lock),
        go(a_sender, channel.receiver() and makechan()),
    ]
    different.append(go(a_receiver, channel))
    wait_parked(*different)
    text = _dump.grouped(different)
    # The first and the last were started by different lines.
    assert len(re.findall(r"^goroutine \d+ \[", text, re.MULTILINE)) == 5
    end(*different)


@main_goroutine
def test_long_lists_of_ids_are_cut_and_large_groups_come_first():
    channel = makechan()
    sender = go_parked(a_sender, makechan())
    receivers = [go(a_receiver, channel) for _ in range(30)]
    wait_parked(*receivers)
    text = _dump.grouped([sender, *receivers])
    assert text.startswith("30 goroutines [chan receive")
    assert f"{receivers[19].id} and 10 more\n" in text
    end(sender, *receivers)


@main_goroutine
def test_creators_are_counted():
    channel = makechan()
    made = []

    def parent():
        made.append(go(a_receiver, channel))

    for _ in range(4):
        wait_ended(go(parent))
    wait_parked(*made)
    assert _dump.grouped(made).rstrip().endswith("in 4 goroutines")
    end(*made)


@main_goroutine
def test_waited_says_for_how_long():
    assert offset.current().waited == 0.0
    channel = makechan()
    goroutine = go_parked(a_receiver, channel)
    before = goroutine.waited
    wait_until(lambda: goroutine.waited > before)
    assert goroutine.stats()["waited"] >= before
    channel.send(1)
    wait_ended(goroutine)
    assert goroutine.waited == 0.0


@main_goroutine
def test_a_new_wait_starts_anew():
    channel = makechan()

    def worker():
        for _ in channel:
            pass

    goroutine = go_parked(worker)
    wait_until(lambda: goroutine.waited > 0.2)
    sent = time.monotonic()
    channel.send(1)
    # Its clock ticks seldom; the wait of before is longer by more than that.
    wait_until(lambda: goroutine.wait_reason and goroutine.waited < time.monotonic() - sent + 0.1)
    channel.close()
    wait_ended(goroutine)


def test_minutes_are_shown_as_go_does():
    def header(seconds, times=True):
        shown = types.SimpleNamespace(id=7, wait_reason="sleep", status="waiting", name="main", waited=seconds)
        return _dump.header(shown, times)

    assert header(59) == "goroutine 7 [sleep] main"
    assert header(61) == "goroutine 7 [sleep, 1 minute] main"
    assert header(61, times=False) == "goroutine 7 [sleep] main"
    assert header(7300) == "goroutine 7 [sleep, 121 minutes] main"


def test_durations():
    assert [_dump.duration(seconds) for seconds in (0.04, 59, 90, 5400, 90000)] == [
        "0.0 s",
        "59.0 s",
        "1.5 min",
        "1.5 h",
        "1.0 d",
    ]


# ---- who created it --------------------------------------------------------------------------


def inside_the_package(source, name):
    """A function whose code says that it is in a file of the package."""
    scope = {"go": go}
    file = str(Path(offset.__file__).with_name("helper.py"))
    exec(compile(source, file, "exec"), scope)
    return scope[name]


@main_goroutine
def test_created_at_looks_past_the_package():
    start = inside_the_package("def start(fn):\n    return inner(fn)\ndef inner(fn):\n    return go(fn)\n", "start")
    goroutine = start(gosched)
    assert goroutine.created_at.startswith(f"{__file__}:")
    assert goroutine.created_at.endswith(" in test_created_at_looks_past_the_package")
    group = sync.WaitGroup()
    member = group.go(gosched)
    assert member.created_at.startswith(f"{__file__}:")
    wait_ended(goroutine, member)


@main_goroutine
def test_members_and_children_were_created_by_the_program():
    with errgroup.Group() as group, supervise.Supervisor() as supervisor:
        member = group.go(gosched)
        child = supervisor.go(gosched)
        places = member.goroutine.created_at, child.task.goroutine.created_at
    assert all(place.startswith(f"{__file__}:") for place in places)


@main_goroutine
def test_what_the_package_starts_by_itself_says_so():
    start = inside_the_package("def start():\n    made.append(go(int))\nmade = []\n", "start")
    wait_ended(go(start))
    (goroutine,) = start.__globals__["made"]
    assert goroutine.created_at.endswith("helper.py:2 in start")


# ---- SIGQUIT ---------------------------------------------------------------------------------


def test_sigquit_puts_many_together():
    status, _, stderr = run_script(
        """
        import os, signal, offset
        def worker(channel):
            channel.recv()
        def main():
            channel = offset.makechan()
            workers = [offset.go(worker, channel) for _ in range(400)]
            while not all(worker.wait_reason for worker in workers):
                offset.gosched()
            os.kill(os.getpid(), signal.SIGQUIT)
            offset.nilchan.recv()
        offset.run(main)
        """
    )
    assert status == 2
    assert stderr.startswith("SIGQUIT: quit\n\n401 goroutines\n\n400 goroutines [chan receive, ")
    assert stderr.count("in worker") == 1
    assert ", in main" in stderr
