"""Everything at once, at random, from a seed: `python tests/torture.py SECONDS SEED`.

Workers choose one action after the other until the time is over. Each action checks what it must find
afterwards; each worker checks after each action that what belongs to it (its locals, its context, its
identity, its handled exception) is still its own. The counts that are printed show what was done.

Invariants:

* The choices of a worker depend on the seed and on its number; how the workers interleave does not.
* A value that is sent is received exactly once, in the order of its sender: the sums at the end agree.
* On a free-threaded build goroutines do not wait for each other in C (plain locks and RLocks across parks),
  because none can be moved away from a machine that is blocked.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import faulthandler
import gc
import hashlib
import io
import json
import logging
import os
import random
import sqlite3
import sys
import sysconfig
import threading
import time
import traceback

import offset
from offset import GoroutineExit, go, gosched, makechan, nilchan, runtime, select, sync

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# There a task that dies on another thread than its own is seen by the collector, and by `asyncio.all_tasks`, while it
# dies: plain threads crash, too (python/cpython#153809).
TASKS_DIE_UNSAFELY = FREE_THREADED and sys.version_info < (3, 15)

WORKERS = 60
FOREIGN_THREADS = 3

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default=None)
local = threading.local()


class Failure(Exception):
    """Raised and caught by the actions."""


class Torture:
    """What the workers share. The counters are atomic; `errors` only grows."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.end = time.monotonic() + seconds
        self.seed = seed
        self.errors: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.counts_lock = sync.Mutex()
        self.channels = [makechan(random.Random(seed + n).choice((0, 0, 1, 8))) for n in range(12)]
        self.sent, self.received = sync.atomic.Int(), sync.atomic.Int()
        self.lock, self.rlock, self.mutex, self.shared = (
            threading.Lock(),
            threading.RLock(),
            sync.Mutex(),
            sync.RWMutex(),
        )
        self.inside, self.inside_mutex, self.writers = [0], [0], [0]
        self.units, self.holding = sync.Semaphore(5), sync.atomic.Int()
        self.moves = sync.atomic.Int()
        self.log = logging.Logger("torture")
        self.log.addHandler(logging.StreamHandler(io.StringIO()))

    def over(self) -> bool:
        """Is the time over, or did anybody fail?"""
        return bool(self.errors) or time.monotonic() > self.end

    def fail(self, who: str) -> None:
        """Keep the exception that is being handled."""
        self.errors.append(f"{who}:\n{traceback.format_exc()}")

    # ---- actions: each is called with the random choices of its worker ------------------------

    def send(self, choose: random.Random) -> None:
        value = choose.randrange(1000)
        with contextlib.suppress(TimeoutError):
            choose.choice(self.channels).send(value, timeout=choose.random() / 100)
            self.sent.add(value)

    def receive(self, choose: random.Random) -> None:
        with contextlib.suppress(TimeoutError):
            self.received.add(choose.choice(self.channels).recv(timeout=choose.random() / 100))

    def select(self, choose: random.Random) -> None:
        value = choose.randrange(1000)
        channels = choose.sample(self.channels, 4)
        cases = [channel.if_recv() for channel in channels[:2]] + [channel.if_send(value) for channel in channels[2:]]
        if choose.random() < 0.3:
            cases.append(offset.default)
        try:
            chosen = select(*cases, nilchan.if_recv(), timeout=choose.random() / 100)
        except TimeoutError:
            return
        if chosen is offset.default:
            return
        assert chosen is cases[chosen.index]
        if chosen.index < 2:
            assert chosen.ok
            self.received.add(chosen.value)
        else:
            self.sent.add(value)

    def child(self, choose: random.Random) -> None:
        channel, value = makechan(choose.choice((0, 1))), object()
        go(channel.send, value)
        assert channel.recv() is value

    def storm(self, choose: random.Random) -> None:
        count = choose.randrange(1, 200)
        channel = makechan(choose.choice((0, count)))
        for number in range(count):
            go(channel.send, number)
        assert sum(channel.recv() for _ in range(count)) == count * (count - 1) // 2

    def pipeline(self, choose: random.Random) -> None:
        first, last = makechan(), makechan(2)

        def stage(source, sink):
            for value in source:
                sink.send(value + 1)
            sink.close()

        middle = makechan(1)
        go(stage, first, middle)
        go(stage, middle, last)

        def feed():
            for number in range(10):
                first.send(number)
            first.close()

        go(feed)
        assert list(last) == list(range(2, 12))

    def exceptions(self, choose: random.Random) -> None:
        try:
            try:
                raise Failure("outer")
            except Failure as outer:
                gosched()
                assert sys.exc_info()[1] is outer
                try:
                    raise KeyError("inner")
                except KeyError as inner:
                    offset.sleep(choose.random() / 1000)
                    assert inner.__context__ is outer
                    assert sys.exc_info()[1] is inner
                assert sys.exc_info()[1] is outer
                raise
        except Failure:
            gosched()
        assert sys.exc_info() == (None, None, None)

    def sent_exceptions(self, choose: random.Random) -> None:
        channel, error = makechan(), Failure("sent")
        go(channel.send_exception, error)
        try:
            channel.recv()
        except Failure as received:
            assert received is error
        else:
            raise AssertionError("the exception was not raised")
        finally:
            del error

    def generators(self, choose: random.Random) -> None:
        def numbers(depth):
            if depth:
                yield from numbers(depth - 1)
            gosched()
            yield depth

        depth = choose.randrange(20)
        assert list(numbers(depth)) == list(range(depth + 1))
        generator = numbers(5)
        assert [next(generator) for _ in range(3)] == [0, 1, 2]
        generator.close()

    def sort_keys(self, choose: random.Random) -> None:
        values = choose.sample(range(1000), 20)

        def key(value):
            if value % 5 == 0:
                gosched()
            return -value

        assert sorted(values, key=key) == sorted(values, reverse=True)

    def contexts(self, choose: random.Random) -> None:
        mine = object()

        def inner():
            variable.set(mine)
            gosched()
            assert variable.get() is mine

        before = variable.get()
        contextvars.copy_context().run(inner)
        assert variable.get() is before
        channel = makechan(1)
        go(lambda: channel.send(variable.get()))
        assert channel.recv() is before

    def locals(self, choose: random.Random) -> None:
        channel = makechan(1)
        go(lambda: channel.send(hasattr(local, "number")))
        assert channel.recv() is False

    def sleep(self, choose: random.Random) -> None:
        offset.sleep(choose.random() / 100)

    def unpatched_sleep(self, choose: random.Random) -> None:
        time.sleep(choose.random() * 0.03)

    def compute(self, choose: random.Random) -> None:
        end = time.thread_time() + choose.random() * 0.02
        while time.thread_time() < end:
            pass

    def compute_in_c(self, choose: random.Random) -> None:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", choose.randrange(1, 5000))
        data = {"numbers": [choose.randrange(1000) for _ in range(50)]}
        assert json.loads(json.dumps(data)) == data

    def collect(self, choose: random.Random) -> None:
        cycle = [object()]
        cycle.append(cycle)
        del cycle
        gc.collect(choose.choice((0, 0, 0, 1)) if not FREE_THREADED else 0)

    def recurse(self, choose: random.Random) -> None:
        def down(depth):
            if depth == 0:
                gosched()
                return 0
            return 1 + down(depth - 1)

        depth = choose.randrange(300)
        assert down(depth) == depth
        with contextlib.suppress(RecursionError):
            down(10_000_000)

    def plain_lock(self, choose: random.Random) -> None:
        with self.lock:
            if not FREE_THREADED:
                gosched()

    def reentrant_lock(self, choose: random.Random) -> None:
        if FREE_THREADED:
            return
        with self.rlock, self.rlock:
            assert self.inside[0] == 0
            self.inside[0] = 1
            try:
                gosched()
                assert self.inside[0] == 1
            finally:
                self.inside[0] = 0

    def mutexes(self, choose: random.Random) -> None:
        with self.mutex:
            assert self.inside_mutex[0] == 0
            self.inside_mutex[0] = 1
            gosched()
            self.inside_mutex[0] = 0

    def reader_and_writer(self, choose: random.Random) -> None:
        if choose.random() < 0.2:
            with self.shared:
                assert self.writers[0] == 0
                self.writers[0] = 1
                gosched()
                self.writers[0] = 0
        else:
            with self.shared.rlocker():
                assert self.writers[0] == 0
                gosched()
                assert self.writers[0] == 0

    def semaphore(self, choose: random.Random) -> None:
        with self.units:
            assert self.holding.add(1) <= 5
            gosched()
            self.holding.add(-1)

    def wait_group(self, choose: random.Random) -> None:
        group, done = sync.WaitGroup(), sync.atomic.Int()
        count = choose.randrange(1, 10)
        for _ in range(count):
            group.go(done.add, 1)
        group.wait()
        assert done.load() == count

    def cancel(self, choose: random.Random) -> None:
        steps: list[str] = []

        def victim():
            try:
                choose_wait[0]()
            except GoroutineExit:
                steps.append("cancelled")
                offset.sleep(0.0001)
                raise
            finally:
                steps.append("finally")

        choose_wait = [
            choose.choice((nilchan.recv, select, lambda: offset.sleep(3600), lambda: [gosched() for _ in iter(int, 1)]))
        ]
        goroutine = go(victim)
        if choose.random() < 0.8:
            while not goroutine.started:
                gosched()
        goroutine.cancel()
        goroutine.join()
        assert steps in (["cancelled", "finally"], []), steps

    def timers(self, choose: random.Random) -> None:
        fired = makechan(1)
        timer = offset.time.after_func(choose.random() / 500, fired.try_send, True)
        offset.sleep(choose.random() / 500)
        if not timer.stop():
            assert fired.recv() is True
        ticker = offset.time.Ticker(0.0005)
        try:
            ticker.c.recv()
            assert ticker.c.recv() > 0
        finally:
            ticker.stop()

    def database(self, choose: random.Random) -> None:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.create_function("parking", 1, lambda value: (gosched(), value)[1])
            connection.execute("create table numbers (n)")
            connection.executemany("insert into numbers values (?)", [(n,) for n in range(10)])
            gosched()
            assert connection.execute("select sum(parking(n)) from numbers").fetchone() == (45,)

    def logging(self, choose: random.Random) -> None:
        self.log.warning("worker %s did %s", local.number, choose.random())

    def blocking(self, choose: random.Random) -> None:
        assert offset.syscall.blocking(variable.get) is variable.get()
        with contextlib.suppress(Failure):
            offset.syscall.blocking(raising)

    def handles(self, choose: random.Random) -> None:
        for goroutine in choose.sample(runtime.goroutines(), 1):
            assert goroutine.status in ("runnable", "running", "waiting", "dead")
            str(goroutine.wait_reason)
            repr(goroutine)

    def stacks(self, choose: random.Random) -> None:
        if choose.random() < 0.1:
            assert f"goroutine {offset.current().id} [" in runtime.stack(all=True)

    def thread(self, choose: random.Random) -> None:
        channel = makechan()
        thread = threading.Thread(target=channel.send, args=("from a thread",))
        thread.start()
        assert channel.recv() == "from a thread"
        offset.syscall.blocking(thread.join)

    def event_loop(self, choose: random.Random) -> None:
        if TASKS_DIE_UNSAFELY:
            return

        async def main():
            await asyncio.gather(*[asyncio.sleep(0) for _ in range(5)])
            return 5

        assert offset.syscall.blocking(asyncio.run, main()) == 5

    # ---- the workers ---------------------------------------------------------------------------

    def worker(self, number: int) -> None:
        """Choose and act until the time is over."""
        choose = random.Random(self.seed * 1_000_003 + number)
        actions, weights = zip(*ACTIONS.items(), strict=True)
        mine = object()
        variable.set(mine)
        local.number = number
        identity, thread = threading.get_ident(), threading.current_thread()
        native, done = threading.get_native_id(), collections.Counter()
        try:
            while not self.over():
                [name] = choose.choices(actions, weights)
                getattr(self, name)(choose)
                done[name] += 1
                assert local.number == number
                assert variable.get() is mine
                assert threading.get_ident() == identity
                assert threading.current_thread() is thread
                assert sys.exc_info() == (None, None, None)
                if threading.get_native_id() != native:
                    native = threading.get_native_id()
                    self.moves.add(1)
        except BaseException:
            self.fail(f"worker {number} in {name}")
        finally:
            with self.counts_lock:
                self.counts.update(done)

    def foreigner(self, number: int) -> None:
        """A plain thread that does what any thread may do."""
        choose = random.Random(self.seed * 1_000_003 + 1000 + number)
        local.number = number
        try:
            while not self.over():
                name = choose.choice(("send", "receive", "select", "child", "mutexes", "wait_group", "cancel"))
                getattr(self, name)(choose)
                with self.counts_lock:
                    self.counts[f"thread: {name}"] += 1
                assert local.number == number
        except BaseException:
            self.fail(f"thread {number}")

    def main(self) -> None:
        """Start everybody, wait, and settle the accounts."""
        threads = [threading.Thread(target=self.foreigner, args=(n,), daemon=True) for n in range(FOREIGN_THREADS)]
        for thread in threads:
            thread.start()
        workers = [go(self.worker, number) for number in range(WORKERS)]
        for worker in workers:
            while not worker.join(timeout=1):
                if time.monotonic() > self.end + 60:
                    self.errors.append(f"a worker has not ended:\n{runtime.stack(all=True)}")
                    return
        for thread in threads:
            offset.syscall.blocking(thread.join)
        # What is still in the buffers.
        for channel in self.channels:
            channel.close()
            for value in channel:
                self.received.add(value)
        if self.sent.load() != self.received.load():
            self.errors.append(f"sent {self.sent.load()}, received {self.received.load()}")


def raising() -> None:
    """Raise in the blocking pool."""
    raise Failure


# The actions and how often each is chosen.
ACTIONS = {
    "send": 20, "receive": 20, "select": 20, "child": 10, "storm": 1, "pipeline": 4, "exceptions": 8,
    "sent_exceptions": 4, "generators": 6, "sort_keys": 4, "contexts": 4, "locals": 4, "sleep": 6,
    "unpatched_sleep": 1, "compute": 2, "compute_in_c": 3, "collect": 1, "recurse": 2, "plain_lock": 4,
    "reentrant_lock": 2, "mutexes": 6, "reader_and_writer": 6, "semaphore": 6, "wait_group": 4, "cancel": 4,
    "timers": 4, "database": 2, "logging": 4, "blocking": 4, "handles": 4, "stacks": 1, "thread": 1,
    "event_loop": 1,
}  # fmt: skip


def main(seconds: float, seed: int) -> int:
    """Torture the runtime for `seconds`; give the exit status."""
    faulthandler.dump_traceback_later(seconds + 100, exit=True)
    torture = Torture(seconds, seed)
    started = time.monotonic()
    offset.run(torture.main)
    faulthandler.cancel_dump_traceback_later()
    print(f"Python {sys.version.split()[0]}{'t' * FREE_THREADED}, seed {seed}, {time.monotonic() - started:.1f} s")
    for name, count in sorted(torture.counts.items()):
        print(f"{count:9,} {name}")
    print(f"{torture.moves.load():9,} moves to another OS thread")
    for error in torture.errors[:5]:
        print(error)
    missing = [] if seconds < 5 else sorted(set(ACTIONS) - set(torture.counts))
    if missing:
        print("never done:", *missing)
    print("failed" if torture.errors or missing else "passed")
    return 1 if torture.errors or missing else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} SECONDS SEED")
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
