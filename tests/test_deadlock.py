"""DeadlockError: raised when nothing can ever wake anybody, and never while something still could.

Each program runs in a subprocess: the test runner has threads of its own, and a plain thread counts as
somebody who may wake a goroutine.
"""

import re
import signal
import subprocess
import threading

import pytest
from helpers import PATIENCE, run_script, start_script

# A program whose main goroutine and two others run into a deadlock by the statement `block`.
BLOCKED_FOR_EVER = """
import offset
from offset import sync, go, run, makechan, select, nilchan

channel, locked, group = makechan(label="the channel"), sync.Mutex(), sync.WaitGroup()
shared, units = sync.RWMutex(), sync.Semaphore(1)
condition_lock = sync.Mutex()
condition = sync.Cond(condition_lock)
locked.lock(); shared.lock(); group.add(1); units.acquire()

def wait_for_condition():
    with condition_lock:
        condition.wait()

def the_one_who_waits():
    {block}

def main():
    others = [go(the_one_who_waits) for _ in range(2)]
    the_one_who_waits()

try:
    run(main)
except offset.DeadlockError as error:
    print(error)
"""

# What each statement is called in a deadlock, where the contract says so.
BLOCKING = {
    "channel.recv()": r"\[chan receive\b",
    "channel.recv_ok()": r"\[chan receive\b",
    "list(channel)": r"\[chan receive\b",
    "channel.send(1)": r"\[chan send\b",
    "channel.send_exception(ValueError())": r"\[chan send\b",
    "nilchan.recv()": r"\[chan receive\b",
    "nilchan.send(1)": r"\[chan send\b",
    "select(channel.if_recv(), nilchan.if_send(1))": r"\[select\b",
    "select()": r"\[select\b",
    "locked.lock()": r"(?i:\[[^]]*mutex)",
    "shared.lock()": r"(?i:\[[^]]*mutex)",
    "shared.rlock()": r"(?i:\[[^]]*mutex)",
    "group.wait()": r"\[[^]]+\]",
    "wait_for_condition()": r"\[[^]]+\]",
    "units.acquire()": r"\[[^]]+\]",
    "go(nilchan.recv).join()": r"\[[^]]+\]",
}


@pytest.mark.parametrize("block", BLOCKING)
def test_a_deadlock_names_every_goroutine_with_its_wait_reason(block):
    ended = run_script(BLOCKED_FOR_EVER.format(block=block))
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout
    assert "all goroutines are asleep" in text.splitlines()[0]
    waiting = re.findall(rf"^goroutine (\d+) {BLOCKING[block]}", text, re.MULTILINE)
    assert len(set(waiting)) >= 3, text
    assert text.count(", in the_one_who_waits") == 3
    assert ", in main" in text
    assert len(re.findall(r"^created by ", text, re.MULTILINE)) >= 3


def test_an_uncaught_deadlock_ends_the_program():
    ended = run_script(
        """
        import offset
        def main():
            ch = offset.makechan()
            offset.go(ch.recv)
            ch.recv()
        offset.run(main)
        """
    )
    assert ended.returncode == 1
    assert "DeadlockError: all goroutines are asleep" in ended.stderr
    assert len(re.findall(r"^goroutine \d+ \[chan receive\]", ended.stderr, re.MULTILINE)) == 2


def test_run_without_main_finds_deadlocks():
    ended = run_script(
        """
        import offset
        order = []
        def worker(n):
            order.append(n)
        def stuck():
            offset.nilchan.recv()
        for n in range(3):
            offset.go(worker, n)
        offset.go(stuck)
        try:
            offset.run()
        except offset.DeadlockError as error:
            print(sorted(order), "stuck" in str(error), "worker" in str(error))
        print(offset.run())
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "[0, 1, 2] True False\nNone\n"), ended.stderr


def test_finally_blocks_run_after_a_deadlock_and_the_next_run_works():
    ended = run_script(
        """
        import offset
        done = offset.makechan(10)
        def waiter(n):
            try:
                offset.nilchan.recv()
            finally:
                offset.gosched()
                done.send(n)
        def main():
            for n in range(3):
                offset.go(waiter, n)
            waiter(3)
        for attempt in range(3):
            try:
                offset.run(main)
            except offset.DeadlockError:
                print(sorted(done.recv() for _ in range(len(done))), offset.runtime.num_goroutine())
        print(offset.run(lambda: "fine"))
        """
    )
    assert ended.stdout == "[0, 1, 2, 3] 0\n" * 3 + "fine\n", ended.stderr


def test_a_deadlock_in_a_finally_block_is_no_hang():
    """Those that are still blocked after they were cancelled are given up and named."""
    ended = run_script(
        """
        import offset
        def the_incorrigible():
            try:
                offset.nilchan.recv()
            finally:
                offset.nilchan.recv()
        def main():
            offset.go(the_incorrigible)
            offset.nilchan.recv()
        try:
            offset.run(main)
        except offset.DeadlockError:
            print("deadlock")
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "deadlock\n"), ended.stderr
    assert "the_incorrigible" in ended.stderr


def test_a_timer_that_was_stopped_wakes_nobody():
    ended = run_script(
        """
        import offset
        def main():
            timer = offset.time.Timer(3600)
            ticker = offset.time.Ticker(3600)
            later = offset.time.after_func(3600, print, "never")
            assert timer.stop() and later.stop()
            ticker.stop()
            timer.c.recv()
        try:
            offset.run(main)
        except offset.DeadlockError:
            print("deadlock")
        """
    )
    assert ended.stdout == "deadlock\n", ended.stderr


def test_a_plain_thread_that_has_ended_wakes_nobody():
    ended = run_script(
        """
        import threading, offset
        ch = offset.makechan()
        gate = threading.Event()
        def main():
            thread = threading.Thread(target=gate.wait)
            thread.start()
            offset.time.after_func(0.05, gate.set)
            ch.recv()
        try:
            offset.run(main)
        except offset.DeadlockError:
            print("deadlock", gate.is_set())
        """
    )
    assert ended.stdout == "deadlock True\n", ended.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_a_signal_handler_that_was_taken_back_wakes_nobody():
    ended = run_script(
        """
        import signal, offset
        def main():
            offset.runtime.call_on_main(signal.signal, signal.SIGUSR1, signal.SIG_DFL)
            offset.nilchan.recv()
        signal.signal(signal.SIGUSR1, lambda *args: None)
        try:
            offset.run(main)
        except offset.DeadlockError:
            print("deadlock")
        """
    )
    assert ended.stdout == "deadlock\n", ended.stderr


# ---- no false alarm --------------------------------------------------------------------------

# Programs whose goroutines all sleep while something that is not a goroutine is going to wake them.
WOKEN = {
    "a sleeping goroutine": """
        def main():
            offset.go(lambda: (offset.sleep(0.15), ch.send("woken")))
            return ch.recv()
    """,
    "a timer": """
        def main():
            return "woken" if offset.time.after(0.15).recv() else ""
    """,
    "a ticker": """
        def main():
            ticks = offset.time.tick(0.05)
            for _ in range(6):
                ticks.recv()
            return "woken"
    """,
    "a function of a timer": """
        def main():
            offset.time.after_func(0.15, ch.send, "woken")
            return ch.recv()
    """,
    "a timeout": """
        def main():
            try:
                ch.recv(timeout=0.15)
            except TimeoutError:
                return "woken"
    """,
    "a timeout of select": """
        def main():
            try:
                offset.select(ch.if_recv(), timeout=0.15)
            except TimeoutError:
                return "woken"
    """,
    "the timeout of another goroutine": """
        def other():
            try:
                offset.nilchan.recv(timeout=0.15)
            except TimeoutError:
                ch.send("woken")
        def main():
            offset.go(other)
            return ch.recv()
    """,
    "a plain thread": """
        def main():
            thread = threading.Thread(target=lambda: (time.sleep(0.15), ch.send("woken")))
            thread.start()
            return ch.recv()
    """,
    "a plain thread that never used the runtime before": """
        gate = threading.Event()
        thread = threading.Thread(target=lambda: (gate.wait(), time.sleep(0.15), ch.send("woken")))
        thread.start()
        def main():
            gate.set()
            return ch.recv()
    """,
    "a daemon thread": """
        def main():
            threading.Thread(target=lambda: (time.sleep(0.15), ch.send("woken")), daemon=True).start()
            return ch.recv()
    """,
    "a plain timer thread": """
        def main():
            threading.Timer(0.3, ch.send, ["woken"]).start()
            return ch.recv()
    """,
    "a blocking call": """
        def main():
            offset.go(lambda: (offset.syscall.blocking(time.sleep, 0.15), ch.send("woken")))
            return ch.recv()
    """,
    "a goroutine blocked where nobody told the runtime": """
        def main():
            offset.go(lambda: (time.sleep(0.15), ch.send("woken")))
            return ch.recv()
    """,
    "a goroutine that computes": """
        def compute():
            end = time.monotonic() + 0.15
            while time.monotonic() < end:
                pass
            ch.send("woken")
        def main():
            offset.go(compute)
            return ch.recv()
    """,
    "a child process read in the blocking pool": """
        def main():
            def read():
                command = [sys.executable, "-c", "import time; time.sleep(0.15); print('woken')"]
                ch.send(offset.syscall.blocking(subprocess.check_output, command, text=True).strip())
            offset.go(read)
            return ch.recv()
    """,
    "a call on the main thread": """
        def main():
            def call():
                offset.runtime.call_on_main(time.sleep, 0.15)
                ch.send("woken")
            offset.go(call)
            return ch.recv()
    """,
    "a signal handler": """
        def handler(number, frame):
            ch.try_send("woken")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        ch = offset.makechan(1)
        def main():
            return ch.recv()
    """,
    "a signal handler installed while everybody sleeps": """
        def handler(number, frame):
            ch.try_send("woken")
        def arm():
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.15)
        ch = offset.makechan(1)
        def main():
            offset.go(offset.runtime.call_on_main, arm)
            return ch.recv()
    """,
    "a thread of concurrent.futures": """
        def main():
            pool = concurrent.futures.ThreadPoolExecutor(1)
            pool.submit(lambda: (time.sleep(0.15), ch.send("woken")))
            try:
                return ch.recv()
            finally:
                offset.syscall.blocking(pool.shutdown)
    """,
    "an asyncio loop in a plain thread": """
        async def send():
            await asyncio.sleep(0.15)
            await ch.asend("woken")
        def main():
            threading.Thread(target=asyncio.run, args=(send(),)).start()
            return ch.recv()
    """,
}


@pytest.mark.parametrize("who", WOKEN)
@pytest.mark.parametrize("how", ["run(main)", "run()"])
def test_no_alarm_while_somebody_may_wake_one(who, how):
    """Each program sleeps for a while with no goroutine runnable; then it is woken as it should be."""
    preamble = (
        "import asyncio, concurrent.futures, signal, subprocess, sys, threading, time\n"
        "import offset\n"
        "ch = offset.makechan()\n"
    )
    ending = {
        "run(main)": "print(offset.run(main))\n",
        # A goroutine may begin before `run` does, and then nobody serves its calls on the main thread yet.
        "run()": (
            "def begin():\n"
            "    while True:\n"
            "        try:\n"
            "            offset.runtime.call_on_main(int)\n"
            "        except RuntimeError:\n"
            "            offset.sleep(0.001)\n"
            "        else:\n"
            "            break\n"
            "    print(main())\n"
            "offset.go(begin)\noffset.run()\n"
        ),
    }
    body = "\n".join(line[8:] for line in WOKEN[who].splitlines())
    ended = run_script(preamble + body + "\n" + ending[how])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "woken\n", "")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_no_alarm_while_the_program_handles_a_signal():
    program = """
        import signal, offset
        ch = offset.makechan(1)
        signal.signal(signal.SIGUSR1, lambda *args: ch.try_send("signalled"))
        def main():
            offset.time.after_func(0.1, print, "all asleep from now on")
            print(ch.recv())
        offset.run(main)
    """
    with start_script(program) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "all asleep from now on\n"
            # A false alarm would come now. Nothing shows its absence but that the program lives on.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.send_signal(signal.SIGUSR1)
            stdout, stderr = process.communicate()
        finally:
            watchdog.cancel()
            watchdog.join()
    assert (process.returncode, stdout, stderr) == (0, "signalled\n", "")


def test_no_alarm_under_a_storm_of_short_waits():
    """Everybody sleeps very often, for a moment: between two timers, hand-overs and blocking calls."""
    ended = run_script(
        """
        import random, sys, offset
        def worker(n, ch):
            choose = random.Random(n)
            for _ in range(200):
                what = choose.randrange(4)
                if what == 0:
                    offset.sleep(choose.random() / 2000)
                elif what == 1:
                    offset.syscall.blocking(int)
                elif what == 2:
                    try:
                        offset.nilchan.recv(timeout=choose.random() / 2000)
                    except TimeoutError:
                        pass
                else:
                    offset.time.after(choose.random() / 2000).recv()
            ch.send(n)
        def main():
            ch = offset.makechan()
            for n in range(3):
                offset.go(worker, n, ch)
            return sorted(ch.recv() for _ in range(3))
        for _ in range(5):
            print(offset.run(main))
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "[0, 1, 2]\n" * 5), ended.stderr


def test_a_waiting_thread_is_no_goroutine():
    """Outside `run` a channel blocks its thread as a lock does, and nothing is raised."""
    program = """
        import threading, offset
        ch = offset.makechan()
        thread = threading.Thread(target=lambda: print(ch.recv()))
        thread.start()
        assert offset.run(lambda: "a run meanwhile") == "a run meanwhile"
        ch.send("sent by the main thread")
        thread.join()
    """
    ended = run_script(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "sent by the main thread\n", "")


def test_the_text_is_complete_with_many_goroutines():
    ended = run_script(
        """
        import offset
        def waiter():
            offset.nilchan.recv()
        def main():
            for _ in range(500):
                offset.go(waiter)
            waiter()
        try:
            offset.run(main)
        except offset.DeadlockError as error:
            text = str(error)
            print(text.count("\\ngoroutine "), text.count(", in waiter"))
        """
    )
    assert ended.stdout == "501 501\n", ended.stderr
