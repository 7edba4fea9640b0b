"""Signals: Ctrl-C reaches the main goroutine and nobody else, handlers run on the main thread, `call_on_main`.

Invariants: a program is signalled only after it has said that it is where the test wants it; a watchdog
kills it when it hangs, and no duration is asserted.
"""

import contextlib
import contextvars
import re
import signal
import subprocess
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
    run_script,
    start_script,
    wait_ended,
    wait_until,
)
from offset import go, makechan, nilchan, runtime, sync

NO_MOVES = pytest.mark.skipif(
    FREE_THREADED, reason="without the GIL a goroutine waits for those of its machine that do not park"
)

# What the programs of this file begin with.
PREAMBLE = """
import signal, sys, threading, time
import offset
from offset import go, run, sync, select, makechan, nilchan, runtime

# Whoever started the tests may ignore Ctrl-C, which a child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Somebody who may still wake a goroutine: what is parked for ever is no deadlock.
threading.Thread(target=threading.Event().wait, daemon=True).start()

def hog():
    while True:
        pass

def other():
    try:
        nilchan.recv()
    except BaseException as error:
        print("other:", type(error).__name__)
        raise

def go_other():
    "One that has not begun would end without a word."
    goroutine = go(other)
    while not goroutine.wait_reason:
        offset.gosched() if offset.current() else time.sleep(0.001)
"""


@contextlib.contextmanager
def running(program):
    """A program that is killed when it has not ended in time."""
    with start_script(PREAMBLE + program) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            watchdog.join()


def interrupted(program, times=1):
    """Send Ctrl-C after each line "ready", `times` times; give status, further output and stderr."""
    with running(program) as process:
        printed = ""
        for _ in range(times):
            while (line := process.stdout.readline()) != "ready\n":
                assert line, (printed, process.stderr.read())
                printed += line
            process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    return process.returncode, printed + stdout, stderr


# ---- Ctrl-C ----------------------------------------------------------------------------------

# Where main may be parked.
PARKED = {
    "recv": "makechan().recv()",
    "recv with a timeout": "makechan().recv(timeout=3600)",
    "send": "makechan().send(1)",
    "nilchan": "nilchan.recv()",
    "select": "select(makechan().if_recv(), makechan().if_send(1))",
    "empty select": "select()",
    "sleep": "offset.sleep(3600)",
    "timer": "offset.time.after(3600).recv()",
    "iteration": "list(makechan())",
    "mutex": "mutex = sync.Mutex(); mutex.lock(); mutex.lock()",
    "rwmutex": "shared = sync.RWMutex(); shared.rlock(); shared.lock()",
    "wait group": "group = sync.WaitGroup(); group.add(1); group.wait()",
    "condition": "mutex = sync.Mutex(); mutex.lock(); sync.Cond(mutex).wait()",
    "semaphore": "units = sync.Semaphore(1); units.acquire(); units.acquire()",
    "join": "go(nilchan.recv).join()",
    "blocking call": "offset.syscall.blocking(threading.Event().wait)",
}


@pytest.mark.parametrize("where", PARKED)
def test_ctrl_c_reaches_a_parked_main(where):
    status, stdout, stderr = interrupted(
        f"""
def main():
    go_other()
    try:
        # Main is parked by then; an interrupt that comes earlier has the same outcome.
        offset.time.after_func(0.02, print, "ready")
        {PARKED[where]}
    except KeyboardInterrupt:
        print("main was interrupted", threading.main_thread().ident != threading.get_ident())
        raise
    finally:
        print("finally")
try:
    run(main)
except KeyboardInterrupt:
    print("run raised it")
sys.stdout.flush()
{"import os; os._exit(0)" if where == "blocking call" else ""}
"""
    )
    assert stdout == "main was interrupted True\nfinally\nother: GoroutineExit\nrun raised it\n", stderr
    assert (status, stderr) == (0, "")


# What may keep the processor busy while main is parked or runs.
BESIDE = {
    "beside a hog": "go(hog); print('ready'); nilchan.recv()",
    "beside six hogs": "[go(hog) for _ in range(6)]; print('ready'); nilchan.recv()",
    "beside a C call": "go(time.sleep, 3600); print('ready'); nilchan.recv()",
    "beside a yielding goroutine": "go(yielding); print('ready'); nilchan.recv()",
    "computing": "print('ready'); hog()",
    "yielding": "print('ready'); yielding()",
}
# Without the GIL main waits for a goroutine of its own machine that never parks.
IN_THE_WAY = dict.fromkeys(("beside a hog", "beside six hogs", "beside a C call"), NO_MOVES)


@pytest.mark.parametrize("where", [pytest.param(name, marks=IN_THE_WAY.get(name, ())) for name in BESIDE])
def test_ctrl_c_reaches_main_when_the_processor_is_busy(where):
    """The others never end here, so main says that it saw the interrupt and ends the process itself."""
    status, stdout, stderr = interrupted(
        f"""
import os
def yielding():
    while True:
        offset.gosched()
def main():
    try:
        {BESIDE[where]}
    except KeyboardInterrupt:
        print("main was interrupted")
        os._exit(5)
run(main)
"""
    )
    assert (status, stdout, stderr) == (5, "main was interrupted\n", "")


def test_an_uncaught_ctrl_c_ends_the_program_as_python_does():
    """Killed by SIGINT, as a shell expects it, with Python's traceback."""
    status, stdout, stderr = interrupted(
        """
def the_main_function():
    print("ready")
    nilchan.recv()
go_other()
run(the_main_function)
"""
    )
    assert status == -signal.SIGINT
    assert stdout == "other: GoroutineExit\n"
    assert "the_main_function" in stderr
    assert stderr.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_without_main_ends_the_run():
    status, stdout, stderr = interrupted(
        """
go_other()
def announce():
    # Before the run is in progress it would be an interrupt of the main thread.
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        offset.sleep(0.001)
    print("ready")
    nilchan.recv()
go(announce)
try:
    run()
except KeyboardInterrupt:
    print("run raised it", runtime.num_goroutine())
"""
    )
    assert (status, stdout, stderr) == (0, "other: GoroutineExit\nrun raised it 0\n", "")


def test_main_may_catch_ctrl_c_and_go_on():
    """Each Ctrl-C that main has taken is done with; the next one is a first one again."""
    status, stdout, stderr = interrupted(
        """
def main():
    go_other()
    for number in range(5):
        try:
            print("ready")
            nilchan.recv()
        except KeyboardInterrupt:
            print("interrupt", number)
    return "result"
print(run(main))
""",
        times=5,
    )
    lines = [f"interrupt {number}" for number in range(5)]
    assert stdout.splitlines() == [*lines, "other: GoroutineExit", "result"], stderr
    assert (status, stderr) == (0, "")


def test_ctrl_c_in_a_c_call_is_raised_when_the_call_ends():
    # From the print to the read in C, where no exception is raised.
    program = """
import functools, operator, os
def main():
    read, write = os.pipe()
    def finish():
        sys.stdin.readline()
        os.write(write, b"x")
    # Kept: an interrupt in the callback of a weak reference to it would be lost, as in any Python program.
    thread = threading.Thread(target=finish)
    thread.start()
    try:
        steps = functools.partial(print, "ready"), functools.partial(os.read, read, 1)
        print(list(map(operator.call, steps)))
        while True:
            pass
    except KeyboardInterrupt:
        print("interrupted after the call")
run(main)
"""
    with running(program) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            # Nothing tells that the signal has arrived; the call ends well after it.
            process.wait(timeout=0.5)
        stdout, stderr = process.communicate("go on\n")
    assert stdout in ("[None, b'x']\ninterrupted after the call\n", "interrupted after the call\n"), stderr
    assert (process.returncode, stderr) == (0, "")


def test_a_second_ctrl_c_during_a_c_call_dumps_all_goroutines():
    # From the print to the sleep in C, where no exception is raised.
    program = """
import functools, operator
def the_main_function():
    go_other()
    try:
        list(map(operator.call, (functools.partial(print, "ready"), functools.partial(time.sleep, 3600))))
    finally:
        print("never reached")
run(the_main_function)
"""
    with running(program) as process:
        assert process.stdout.readline() == "ready\n"
        # Signals that come together count as one, so it is sent again until it has worked.
        for _ in range(int(PATIENCE / 0.3)):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.3)
                break
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (130, ""), stderr
    assert "the_main_function" in stderr
    assert ", in other" in stderr
    assert len(re.findall(r"^goroutine \d+ \[", stderr, re.MULTILINE)) == 2


def test_ctrl_c_during_the_finally_blocks_of_others_hurries_the_end():
    """Main is over; whoever does not end is named at once, instead of after the grace time."""
    status, stdout, stderr = interrupted(
        """
def the_slow_one():
    try:
        nilchan.recv()
    finally:
        print("ready")
        nilchan.recv(timeout=3600)
def main():
    goroutine = go(the_slow_one)
    while not goroutine.wait_reason:
        offset.gosched()
try:
    run(main, grace=3600)
finally:
    print("over")
    sys.stdout.flush()
    import os
    os._exit(0)
"""
    )
    assert (status, stdout) == (0, "over\n")
    assert "the_slow_one" in stderr


def test_ctrl_c_outside_run_interrupts_the_main_thread():
    """A plain script that blocks in a channel is interrupted as one that blocks in a lock."""
    status, stdout, stderr = interrupted(
        """
ch = makechan()
try:
    go(lambda: (offset.sleep(0.02), print("ready"), nilchan.recv()))
    ch.recv()
except KeyboardInterrupt:
    print("interrupted")
go(ch.send, "goes on")
print(ch.recv())
"""
    )
    assert (status, stdout, stderr) == (0, "interrupted\ngoes on\n", "")


@pytest.mark.parametrize(
    "block",
    [
        "select(ch.if_recv())",
        "mutex = sync.Mutex(); mutex.lock(); mutex.lock()",
        "offset.sleep(3600)",
        "go(nilchan.recv).join()",
        "group = sync.WaitGroup(); group.add(1); group.wait()",
    ],
)
def test_ctrl_c_outside_run_interrupts_every_kind_of_wait(block):
    status, stdout, stderr = interrupted(
        f"""
ch = makechan()
try:
    offset.time.after_func(0.02, print, "ready")
    {block}
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert (status, stdout, stderr) == (0, "interrupted\n", "")


# ---- handlers of the program -----------------------------------------------------------------


def test_a_handler_of_the_program_for_sigint_stays():
    status, stdout, stderr = interrupted(
        """
ch = makechan(1)
signal.signal(signal.SIGINT, lambda *args: ch.try_send("handled"))
def main():
    print("ready")
    print(ch.recv())
run(main)
"""
    )
    assert (status, stdout, stderr) == (0, "handled\n", "")


def test_ignored_ctrl_c_stays_ignored():
    program = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
def main():
    print("ready")
    offset.syscall.blocking(sys.stdin.readline)
    print("survived")
run(main)
"""
    with running(program) as process:
        assert process.stdout.readline() == "ready\n"
        # The kernel drops it at once.
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate("go on\n")
    assert (process.returncode, stdout, stderr) == (0, "survived\n", "")


@pytest.mark.parametrize(
    "beside",
    ["", pytest.param("go(hog)", marks=NO_MOVES), pytest.param("go(time.sleep, 3600)", marks=NO_MOVES)],
)
def test_handlers_run_on_the_main_thread(beside):
    program = f"""
import os
ch = makechan(1)
def handler(number, frame):
    ch.try_send((number, threading.get_ident() == threading.main_thread().ident, offset.current()))
signal.signal(signal.SIGUSR1, handler)
def main():
    {beside}
    print("ready")
    print(ch.recv())
    sys.stdout.flush()
    os._exit(0)
run(main)
"""
    with running(program) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        stdout, stderr = process.communicate()
    assert (stdout, stderr) == (f"({int(signal.SIGUSR1)}, True, None)\n", "")


@pytest.mark.parametrize("where", ["channel.recv()", "run(channel.recv)"])
def test_what_a_handler_starts_blocks_no_signals(where):
    """The wait in which it runs blocks them now and then; threads and processes inherit that and could not be ended."""
    ended = run_script(
        PREAMBLE
        + f"""
import os, subprocess
channel = makechan(1)

def blocked(task="thread-self"):
    with open(f"/proc/{{task}}/status") as file:
        return next(line for line in file if line.startswith("SigBlk"))

def handler(number, frame):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(blocked()))
    thread.start()
    thread.join()
    command = [sys.executable, "-S", "-c", "print(*[line for line in open('/proc/self/status') if 'SigBlk' in line])"]
    seen.append(subprocess.run(command, capture_output=True, text=True).stdout)
    channel.try_send([line.split() == before.split() for line in seen])

def sleeps(task):
    with open(f"/proc/self/task/{{task}}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"

def kill():
    while not (channel.stats()["receivers"] and sleeps(os.getpid())):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)

before = blocked()
signal.signal(signal.SIGUSR1, handler)
threading.Thread(target=kill).start()
print({where})
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "[True, True]\n"), ended.stderr


def test_what_a_handler_raises_is_raised_in_main():
    program = """
class Hangup(Exception):
    pass
def handler(number, frame):
    raise Hangup("from the handler")
signal.signal(signal.SIGHUP, handler)
def main():
    go_other()
    try:
        print("ready")
        nilchan.recv()
    except Hangup as error:
        return str(error)
print(run(main))
"""
    with running(program) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        stdout, stderr = process.communicate()
    assert (stdout, stderr) == ("other: GoroutineExit\nfrom the handler\n", "")


def test_run_puts_the_handlers_back():
    """In another process, as the test runner may have handlers of its own."""
    ended = run_script(
        """
        import signal, offset
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        offset.run(lambda: None)
        print([signal.getsignal(number) for number in signal.valid_signals()] == before)
        def main():
            raise ValueError
        try:
            offset.run(main)
        except ValueError:
            print([signal.getsignal(number) for number in signal.valid_signals()] == before)
        def own(number, frame):
            pass
        offset.run(lambda: offset.runtime.call_on_main(signal.signal, signal.SIGINT, own))
        print(signal.getsignal(signal.SIGINT) is own)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "True\nTrue\nTrue\n"), ended.stderr


def test_a_storm_of_signals_does_no_harm():
    """An interval timer fires all the time while goroutines trade."""
    ended = run_script(
        """
        import signal, offset
        count = 0
        def handler(number, frame):
            global count
            count += 1
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        def echo(requests, answers):
            for value in requests:
                answers.send(value)
        def main():
            requests, answers = offset.makechan(), offset.makechan()
            offset.go(echo, requests, answers)
            number = 0
            while count < 200:
                requests.send(number)
                assert answers.recv() == number
                if number % 100 == 0:
                    offset.sleep(0.001)
                number += 1
            requests.close()
            offset.runtime.call_on_main(signal.setitimer, signal.ITIMER_REAL, 0)
            return "fine"
        print(offset.run(main))
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "fine\n"), ended.stderr


# ---- call_on_main ----------------------------------------------------------------------------


@main_goroutine
def test_call_on_main_runs_on_the_main_thread():
    def where(*args, **kwargs):
        return threading.get_ident(), offset.current(), args, kwargs

    ident, goroutine, args, kwargs = runtime.call_on_main(where, 1, two=2)
    assert ident == threading.main_thread().ident
    assert ident != threading.get_ident()
    assert goroutine is None
    assert (args, kwargs) == ((1,), {"two": 2})


@main_goroutine
def test_call_on_main_raises_what_the_function_raises():
    error = KeyError("on main")

    def fail():
        raise error

    with pytest.raises(KeyError) as raised:
        runtime.call_on_main(fail)
    assert raised.value is error


@main_goroutine
def test_call_on_main_has_the_contextvars_of_the_caller():
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("of the goroutine")
    assert runtime.call_on_main(variable.get) == "of the goroutine"


@main_goroutine
def test_call_on_main_lets_the_others_run():
    """The caller is parked; the call itself may wait for goroutines, as any thread may."""
    channel = makechan()
    go(channel.send, "from a goroutine")
    assert runtime.call_on_main(channel.recv) == "from a goroutine"


@main_goroutine
def test_calls_on_main_come_one_after_the_other():
    order, answers, inside = [], makechan(100), []

    def call(number):
        inside.append(number)
        assert len(inside) == 1
        order.append(number)
        inside.pop()
        return number

    for number in range(100):
        go(lambda number=number: answers.send((number, runtime.call_on_main(call, number))))
    for _ in range(100):
        number, answer = answers.recv(timeout=PATIENCE)
        assert number == answer
    assert sorted(order) == list(range(100))


def test_what_a_handler_raises_after_it_ended_the_wait_itself_is_kept_whole():
    ended = run_script(
        """
        import os, signal, sys, threading
        from offset import makechan
        values = makechan()
        raised = [ValueError("kept", 1), SystemExit(7)]
        def handle(number, frame):
            values.send("sent")
            raise raised[0]
        signal.signal(signal.SIGUSR1, handle)
        def interrupt():
            while values.stats()["receivers"] == 0:
                pass
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        for _ in range(len(raised)):
            threading.Thread(target=interrupt).start()
            try:
                values.recv()
                while True:
                    pass
            except ValueError as error:
                print(error is raised.pop(0), error.args)
        """
    )
    assert (ended.returncode, ended.stdout) == (7, "True ('kept', 1)\n"), ended.stderr


@main_goroutine
def test_signal_handlers_can_be_set_through_call_on_main():
    previous = runtime.call_on_main(signal.signal, signal.SIGUSR2, signal.SIG_IGN)
    with pytest.raises(ValueError, match="main thread"):
        signal.signal(signal.SIGUSR2, previous)
    assert runtime.call_on_main(signal.signal, signal.SIGUSR2, previous) == signal.SIG_IGN


@main_goroutine
def test_call_on_main_from_a_plain_thread():
    identities = in_thread(lambda: (runtime.call_on_main(threading.get_ident), threading.get_ident()))
    assert identities[0] == threading.main_thread().ident
    assert identities[1] != identities[0]


def test_call_on_main_on_the_main_thread_is_a_call():
    assert runtime.call_on_main(threading.get_ident) == threading.main_thread().ident


def test_each_call_on_main_is_answered_while_runs_begin_and_end():
    stop, called = sync.atomic.Bool(), sync.atomic.Int()

    def call():
        while not stop.load():
            with contextlib.suppress(RuntimeError):
                assert runtime.call_on_main(called.add, 1) > 0

    threads = [Thread(call) for _ in range(3)]
    for _ in range(300):
        offset.run(int)
    wait_until(lambda: offset.run(lambda: offset.sleep(0.001) or called.load()))
    stop.store(True)
    for thread in threads:
        thread.result()


def test_call_on_main_without_run_raises():
    errors = makechan(1)

    def call():
        try:
            runtime.call_on_main(int)
        except RuntimeError as error:
            errors.send(str(error))

    go(call)
    assert "run()" in errors.recv(timeout=PATIENCE)


def test_call_on_main_after_the_run_raises_or_answers():
    """Calls made while the run ends are answered, one way or the other: nobody waits for ever."""
    outcomes = makechan(100)

    def caller():
        try:
            nilchan.recv()
        finally:
            try:
                outcomes.send(runtime.call_on_main(int))
            except RuntimeError:
                outcomes.send("refused")

    def main():
        for _ in range(20):
            go_parked(caller)

    offset.run(main)
    found = [outcomes.recv(timeout=PATIENCE) for _ in range(20)]
    assert set(found) <= {0, "refused"}


@main_goroutine
def test_a_call_on_main_can_be_given_up():
    entered, leave = makechan(1), makechan()

    def stay():
        entered.send(True)
        leave.recv()

    caller = go(runtime.call_on_main, stay)
    entered.recv(timeout=PATIENCE)
    caller.cancel()
    wait_ended(caller)
    leave.send(None)
    # The main thread is free again.
    assert runtime.call_on_main(int) == 0


def test_ctrl_c_interrupts_a_call_on_main_of_the_main_goroutine():
    status, stdout, stderr = interrupted(
        """
def stay():
    print("ready")
    time.sleep(3600)
def main():
    try:
        runtime.call_on_main(stay)
    except KeyboardInterrupt:
        print("interrupted")
run(main)
"""
    )
    assert (status, stdout, stderr) == (0, "interrupted\n", "")


def test_system_exit_on_the_main_thread_ends_the_program():
    ended = run_script(
        """
        import sys, offset
        offset.run(offset.runtime.call_on_main, sys.exit, 6)
        """
    )
    assert (ended.returncode, ended.stderr) == (6, "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_main_thread_sleeps_while_goroutines_run():
    """It waits in the kernel: its CPU clock stands still beside a goroutine that computes."""
    ended = run_script(
        """
        import time, threading, offset
        def main():
            clock = time.pthread_getcpuclockid(threading.main_thread().ident)
            before = time.clock_gettime(clock)
            end = time.process_time() + 1
            while time.process_time() < end:
                offset.gosched()
            print(time.clock_gettime(clock) - before)
        offset.run(main)
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 0.3
