"""The scheduler: nobody is lost, nobody starves, and what is not needed goes away.

What happens when a goroutine blocks or computes where nobody told the runtime is in
`test_rescue.py`. Invariants checked here: every goroutine that is ready runs; a chain of goroutines
that wake each other holds up no other one; OS threads, stacks and CPU time are used only as needed.
"""

from __future__ import annotations

import sys
import threading

import offset
import pytest
from helpers import (
    FREE_THREADED,
    PATIENCE,
    Thread,
    go_parked,
    in_thread,
    main_goroutine,
    os_thread_count,
    run_script,
    wait_ended,
    wait_parked,
    wait_until,
)
from offset import current, go, gosched, makechan, run, sleep
from offset.sync import WaitGroup, atomic

# ---- everybody runs --------------------------------------------------------------------------


@main_goroutine
def test_ten_thousand_goroutines_run():
    group, ran = WaitGroup(), []
    for number in range(10_000):
        group.go(ran.append, number)
    group.wait()
    assert sorted(ran) == list(range(10_000))


@main_goroutine
def test_goroutines_start_goroutines():
    group, leaves = WaitGroup(), atomic.Int()

    def grow(depth):
        if depth == 0:
            leaves.add(1)
            return
        group.go(grow, depth - 1)
        group.go(grow, depth - 1)

    grow(11)
    group.wait()
    assert leaves.load() == 2**11


def test_threads_start_goroutines_while_others_run():
    group, ran = WaitGroup(), atomic.Int()

    def spawn():
        for _ in range(300):
            group.go(lambda: (gosched(), ran.add(1)))

    def main():
        threads = [Thread(spawn) for _ in range(4)]
        spawn()
        for thread in threads:
            thread.result()
        group.wait(timeout=PATIENCE)

    run(main)
    assert ran.load() == 1500


def test_an_idle_runtime_wakes_for_a_thread():
    """Each goroutine starts from rest; one wake-up that is lost would hang."""
    for number in range(300):
        answer = makechan(1)
        assert go(answer.send, number).join(timeout=PATIENCE)
        assert answer.recv(timeout=PATIENCE) == number


def test_threads_and_goroutines_wake_each_other():
    there, back = makechan(), makechan()

    def echo():
        for value in there:
            back.send(value)

    goroutine = go(echo)
    for number in range(500):
        there.send(number)
        assert back.recv(timeout=PATIENCE) == number
    there.close()
    assert goroutine.join(timeout=PATIENCE)


@main_goroutine
def test_parks_and_wake_ups_at_random_lose_nobody(rng):
    channels = [makechan(rng.choice([0, 0, 1, 4])) for _ in range(5)]
    plans = [[rng.randrange(5) for _ in range(100)] for _ in range(20)]
    counts = [sum(plan.count(index) for plan in plans) for index in range(5)]
    received = atomic.Int()

    def send(plan):
        for index in plan:
            channels[index].send(index)
            if index == 0:
                gosched()
            elif index == 1:
                sleep(0)

    def receive(index, count):
        for _ in range(count):
            assert channels[index].recv() == index
            received.add(1)

    receivers = [go(receive, index, count) for index, count in enumerate(counts)]
    threads = [Thread(send, plan) for plan in plans[:4]]
    wait_ended(*[go(send, plan) for plan in plans[4:]], *receivers)
    for thread in threads:
        thread.result()
    assert received.load() == 2000


# ---- nobody starves --------------------------------------------------------------------------


def assert_turns(turns=200):
    """Fail unless a goroutine that yields gets so many turns beside whatever else runs."""
    taken = atomic.Int()

    def body():
        for _ in range(turns):
            gosched()
            taken.add(1)

    wait_ended(go(body))
    assert taken.load() == turns


@main_goroutine
def test_two_that_play_ping_pong_starve_nobody():
    ping, pong, stop = makechan(), makechan(), False

    def first():
        while not stop:
            ping.send(None)
            pong.recv()
        ping.close()

    def second():
        for _ in ping:
            pong.send(None)

    players = [go(first), go(second)]
    assert_turns()
    stop = True
    wait_ended(*players)


@main_goroutine
def test_a_chain_of_starts_starves_nobody():
    """Each goroutine starts its successor and ends: what was started last must not always be next."""
    stop, links, ended = False, atomic.Int(), makechan()

    def link():
        links.add(1)
        if stop:
            ended.close()
        else:
            go(link)

    go(link)
    assert_turns()
    stop = True
    ended.recv_ok()
    wait_until(lambda: offset.runtime.num_goroutine() == 1, "the last link has ended")
    assert links.load() > 0


@main_goroutine
def test_those_that_yield_starve_no_sleeper_and_no_thread():
    stop = False

    def yielder():
        while not stop:
            gosched()

    yielders = [go(yielder) for _ in range(5)]
    for _ in range(5):
        sleep(0.001)
    channel = makechan()
    thread = Thread(channel.send, "from a thread")
    assert channel.recv(timeout=PATIENCE) == "from a thread"
    thread.result()
    assert offset.syscall.blocking(lambda: "from the pool") == "from the pool"
    stop = True
    wait_ended(*yielders)


@main_goroutine
def test_a_busy_buffer_starves_nobody():
    channel, stop = makechan(10), False

    def produce():
        while not stop:
            channel.send(None)
        channel.close()

    def consume():
        for _ in channel:
            pass

    busy = [go(produce), go(consume)]
    assert_turns()
    stop = True
    wait_ended(*busy)


def test_main_ends_beside_those_that_never_end():
    def yielder():
        while True:
            gosched()

    def main():
        started = [go(yielder) for _ in range(5)]
        gosched()
        return started

    for goroutine in run(main):
        assert goroutine.join(timeout=0)


# ---- what is used ----------------------------------------------------------------------------


@main_goroutine
def test_parked_goroutines_use_no_os_threads():
    channel, before = makechan(), os_thread_count()
    goroutines = [go(channel.recv_ok) for _ in range(1000)]
    wait_parked(*goroutines)
    assert os_thread_count() < before + 20
    channel.close()
    wait_ended(*goroutines)


@main_goroutine
def test_stacks_and_thread_states_are_used_again():
    idents = set()
    for _ in range(500):
        wait_ended(go(lambda: idents.add(threading.get_ident())))
    assert len(idents) < 100


def test_threads_that_a_rescue_needed_go_away():
    finished = run_script(
        """
        import os, threading, time
        import offset
        from offset import go, run

        def count():
            return len(os.listdir("/proc/self/task"))

        def main():
            offset.sleep(0.01)
            before = count()
            pipes = [os.pipe() for _ in range(20)]
            inside = []
            goroutines = [go(lambda reader=reader: (inside.append(1), os.read(reader, 1))) for reader, _ in pipes]
            peak = []

            def release():
                while len(inside) < 20:
                    time.sleep(0.001)
                peak.append(count())
                for _, writer in pipes:
                    os.write(writer, b"!")

            thread = threading.Thread(target=release)
            thread.start()
            for goroutine in goroutines:
                goroutine.join()
            assert peak[0] >= before + 15, (before, peak)
            deadline = time.monotonic() + 45
            while count() > before + 4:
                assert time.monotonic() < deadline, (before, peak, count())
                offset.sleep(0.1)

        run(main)
        print("gone")
        """
    )
    assert finished == (0, "gone\n", "")


IDLE = """
    import resource, sys, threading, time
    import offset
    from offset import go, makechan, run

    seconds = float(sys.argv[1])

    def cpu():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    def main():
        # Whatever the runtime can start has been started: machines, the monitor, the pool, timers.
        goroutines = [go(time.sleep, 0.05) for _ in range(3)]
        offset.syscall.blocking(time.sleep, 0.001)
        goroutines += [go(makechan().recv) for _ in range(100)] + [go(offset.sleep, 1e6)]
        threading.Thread(target=makechan().recv, daemon=True).start()
        offset.sleep(1)
        before = cpu()
        offset.sleep(seconds)
        print(cpu() - before)
        for goroutine in goroutines:
            goroutine.cancel()

    run(main)
"""


def idle_share(seconds):
    """The share of one processor that an idle program uses."""
    finished = run_script(IDLE, seconds, timeout=seconds + 45)
    assert finished.returncode == 0, finished
    return float(finished.stdout) / seconds


def test_an_idle_program_hardly_uses_the_processor():
    assert idle_share(3) < 0.02


@pytest.mark.slow
def test_an_idle_program_uses_less_than_a_thousandth_of_the_processor():
    assert idle_share(30) < 0.001


# ---- steering --------------------------------------------------------------------------------


@main_goroutine
def test_gomaxprocs_gives_the_number_before():
    before = offset.runtime.gomaxprocs()
    assert type(before) is int
    assert before == 1 or FREE_THREADED
    assert offset.runtime.gomaxprocs(0) == before
    for number in (3, 1, 100, -1):
        assert offset.runtime.gomaxprocs(number) >= 1
        assert_turns(20)
    offset.runtime.gomaxprocs(before)
    assert offset.runtime.gomaxprocs(0) == before


@main_goroutine
def test_the_stack_size_can_be_set():
    before = offset.runtime.set_stack_size(4 << 20)
    try:
        assert before >= 256 << 10
        assert offset.runtime.set_stack_size(4 << 20) == 4 << 20
        assert_turns(20)
        with pytest.raises((ValueError, OverflowError)):
            offset.runtime.set_stack_size(-1)
    finally:
        offset.runtime.set_stack_size(before)
    assert_turns(20)


@main_goroutine
def test_locking_to_an_os_thread_nests():
    runtime, channel = offset.runtime, makechan()

    def body():
        native = threading.get_native_id()
        runtime.lock_os_thread()
        runtime.lock_os_thread()
        for _ in range(5):
            channel.recv()
            assert threading.get_native_id() == native
        runtime.unlock_os_thread()
        channel.recv()
        assert threading.get_native_id() == native
        runtime.unlock_os_thread()
        channel.recv()

    goroutine = go_parked(body)
    for _ in range(7):
        channel.send(None)
    wait_ended(goroutine)
    # One that ends while it is locked takes nothing with it.
    wait_ended(go(runtime.lock_os_thread))
    assert_turns(20)


@main_goroutine
def test_the_runtime_counts():
    stats = offset.runtime.stats()
    assert isinstance(stats, dict)
    assert stats
    assert all(isinstance(name, str) for name in stats)
    assert in_thread(offset.runtime.stats).keys() == stats.keys()


@main_goroutine
def test_frames_of_parked_goroutines_are_seen():
    """Whoever looks at `sys._current_frames`, as profilers do, sees each goroutine as a thread."""
    channel = makechan()

    def somewhere_deep():
        channel.recv_ok()

    goroutines = [go_parked(lambda: somewhere_deep()) for _ in range(10)]
    frames = sys._current_frames()
    for goroutine in goroutines:
        names = []
        frame = frames[goroutine.ident]
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        assert names[:2] == ["somewhere_deep", "<lambda>"]
    assert current().ident in frames
    channel.close()
    del frame, frames
    wait_ended(*goroutines)
