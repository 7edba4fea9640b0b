"""`offset.syscall.signal`: to signals the main goroutine is the main thread; so it is to `offset.syscall.threading`.

What the original does is tested by CPython's own tests over the proxies. Invariant: whoever sends a signal that it
must have seen does so in the main goroutine, where the call returns when the handler has run.
"""

from __future__ import annotations

import inspect
import signal as plain
import threading as plain_threading

import offset
import pytest
from helpers import Thread, go_parked, in_thread, main_goroutine, run_script, wait_ended, wait_until
from offset import go, makechan, nilchan
from offset.syscall import os, select, signal, socket, threading, time

SIGNAL = signal.SIGUSR1


class Hangup(Exception):
    """What a handler raises."""


@pytest.fixture
def handler():
    """A handler of `SIGNAL` that takes note of who ran it; what was there before comes back."""
    seen = []

    def note(number, frame):
        seen.append((number, offset.current(), plain_threading.current_thread()))

    note.seen = seen
    before = plain.getsignal(SIGNAL)
    yield note
    plain.signal(SIGNAL, before)
    seen.clear()


@pytest.fixture
def raising():
    """Set a handler of SIGALRM that raises, and give a function that lets the signal come."""

    def raise_it(number, frame):
        raise Hangup

    before = plain.signal(plain.SIGALRM, raise_it)
    yield lambda: plain.setitimer(plain.ITIMER_REAL, 0.02)
    plain.setitimer(plain.ITIMER_REAL, 0)
    plain.signal(plain.SIGALRM, before)


# ---- the module ------------------------------------------------------------------------------


def test_it_has_what_the_original_has():
    assert {name for name in vars(plain) if not name.startswith("_")} <= set(vars(signal))
    assert signal.Signals is plain.Signals
    assert signal.default_int_handler is plain.default_int_handler
    for name in ("signal", "getsignal", "set_wakeup_fd", "raise_signal", "pthread_kill", "alarm", "setitimer", "pause"):
        assert getattr(plain, name) is not getattr(signal, name)
        assert inspect.getdoc(getattr(signal, name))


# ---- handlers --------------------------------------------------------------------------------


@main_goroutine
def test_the_main_goroutine_sets_handlers(handler):
    before = signal.signal(SIGNAL, handler)
    assert signal.getsignal(SIGNAL) is plain.getsignal(SIGNAL) is handler
    for send in (
        lambda: signal.raise_signal(SIGNAL),
        lambda: os.kill(os.getpid(), SIGNAL),
        lambda: signal.pthread_kill(threading.get_ident(), SIGNAL),
    ):
        send()
        # At once, on the main thread.
        assert handler.seen == [(SIGNAL, None, plain_threading.main_thread())]
        handler.seen.clear()
    assert signal.signal(SIGNAL, before) is handler


@main_goroutine
def test_others_do_not(handler):
    def attempt():
        with pytest.raises(ValueError, match="main thread"):
            signal.signal(SIGNAL, handler)
        with pytest.raises(ValueError, match="main thread"):
            signal.set_wakeup_fd(-1)

    wait_ended(go(attempt))
    in_thread(attempt)


def test_outside_run_it_is_the_original(handler):
    before = signal.signal(SIGNAL, handler)
    signal.raise_signal(SIGNAL)
    assert len(handler.seen) == 1
    assert signal.signal(SIGNAL, before) is handler
    with pytest.raises(TypeError):
        signal.signal(SIGNAL, "no handler")


@main_goroutine
def test_a_signal_that_another_goroutine_or_thread_sends(handler):
    signal.signal(SIGNAL, handler)
    # To the thread on which it is, where nobody waits for signals.
    wait_ended(go(signal.raise_signal, SIGNAL))
    assert len(handler.seen) == 1
    in_thread(signal.raise_signal, SIGNAL)
    assert len(handler.seen) == 2
    wait_ended(go(os.kill, os.getpid(), SIGNAL))
    assert len(handler.seen) == 3
    in_thread(lambda: signal.pthread_kill(plain_threading.get_ident(), SIGNAL))
    assert len(handler.seen) == 4
    sleeping = go_parked(nilchan.recv)
    signal.pthread_kill(sleeping.ident, SIGNAL)
    assert len(handler.seen) == 5
    sleeping.cancel()
    # By the original, which tells nobody.
    wait_ended(go(plain.raise_signal, SIGNAL))
    wait_until(lambda: len(handler.seen) == 6)
    assert {thread for _, _, thread in handler.seen} == {plain_threading.main_thread()}


def compute():
    while True:
        pass


@main_goroutine
def test_what_a_handler_raises_is_not_the_senders(raising):
    seen = []

    def send():
        signal.raise_signal(signal.SIGALRM)
        seen.append("sent")

    with pytest.raises(Hangup):
        go(send).join()
        raise AssertionError("it was raised elsewhere")
    wait_until(lambda: seen == ["sent"])


WAITS = {
    "sleep": lambda pair: time.sleep(3600),
    "recv": lambda pair: pair[0].recv(1),
    "accept": lambda pair: socket.create_server(("127.0.0.1", 0)).accept(),
    "select": lambda pair: select.select([pair[0]], [], []),
    "lock": lambda pair: [lock.acquire() for lock in [threading.Lock()] * 2],
    "event": lambda pair: threading.Event().wait(),
    "channel": lambda pair: makechan().recv(),
    "no wait": lambda pair: compute(),
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_a_handler_raises_ends_a_wait_of_main(wait, raising):
    def main():
        # Somebody who may wake it: what waits for ever is no deadlock.
        go(time.sleep, 3600)
        pair = socket.socketpair()
        with pair[0], pair[1], pytest.raises(Hangup):
            raising()
            WAITS[wait](pair)

    offset.run(main)


@main_goroutine
def test_a_wait_goes_on_after_a_handler(handler):
    signal.signal(SIGNAL, handler)
    one, other = socket.socketpair()
    with one, other:

        def send():
            os.kill(os.getpid(), SIGNAL)
            wait_until(lambda: handler.seen)
            other.send(b"x")

        sending = go(send)
        assert one.recv(1) == b"x"
        wait_ended(sending)


@main_goroutine
def test_what_is_raised_by_a_signal_of_its_own(raising):
    with pytest.raises(Hangup):
        signal.raise_signal(signal.SIGALRM)
    with pytest.raises(Hangup):
        os.kill(os.getpid(), signal.SIGALRM)
    # It has been raised.
    time.sleep(0.001)


@main_goroutine
def test_no_alarm_comes_after_it_was_taken_back(handler):
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(50):
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            if len(handler.seen) % 2:
                time.sleep(0.001)
            signal.alarm(0)
            count = len(handler.seen)
            time.sleep(0.0005)
            assert len(handler.seen) == count
    finally:
        signal.signal(signal.SIGALRM, before)


@main_goroutine
def test_the_descriptor_that_signals_are_written_to(handler):
    signal.signal(SIGNAL, handler)
    one, other = socket.socketpair()
    with one, other:
        other.setblocking(False)
        before = signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)
        signal.raise_signal(SIGNAL)
        assert one.recv(1) == bytes([SIGNAL])
        assert signal.set_wakeup_fd(before) == other.fileno()


def test_pause():
    ended = run_script(
        """
        import offset
        from offset.syscall import os, signal

        def main():
            signal.signal(signal.SIGALRM, lambda *_: print("handled"))
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            signal.pause()
            signal.setitimer(signal.ITIMER_REAL, 0)
            print("done")

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == "handled" and ended.stdout.splitlines()[-1] == "done"


# ---- what run replaces -----------------------------------------------------------------------


@main_goroutine
def test_the_handlers_of_run_are_not_shown():
    assert plain.getsignal(plain.SIGQUIT) is not plain.SIG_DFL
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
    assert signal.signal(signal.SIGQUIT, signal.SIG_IGN) is signal.SIG_DFL
    assert signal.signal(signal.SIGQUIT, signal.SIG_DFL) is signal.SIG_IGN
    # With the default its own is back.
    assert plain.getsignal(plain.SIGQUIT) is not plain.SIG_DFL


def test_a_handler_of_ctrl_c_that_main_sets():
    ended = run_script(
        """
        import offset
        from offset.syscall import os, signal

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def main():
            assert signal.signal(signal.SIGINT, lambda *_: print("mine")) is signal.default_int_handler
            os.kill(os.getpid(), signal.SIGINT)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print("interrupted")
            signal.signal(signal.SIGINT, lambda *_: print("kept"))

        offset.run(main)
        os.kill(os.getpid(), signal.SIGINT)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "mine\ninterrupted\nkept\n", "")


# ---- the main thread -------------------------------------------------------------------------


@main_goroutine
def test_the_main_goroutine_is_the_main_thread():
    main = threading.main_thread()
    assert threading.current_thread() is main is threading.main_thread()
    assert isinstance(main, threading.Thread)
    assert threading.get_ident() == main.ident == offset.current().ident == plain_threading.get_ident()
    assert main in threading.enumerate()
    assert (main.name, main.daemon, main.is_alive()) == ("MainThread", False, True)
    with pytest.raises(RuntimeError, match="cannot join current thread"):
        main.join()
    seen = []
    wait_ended(go(lambda: seen.append((threading.current_thread(), threading.get_ident()))))
    assert seen[0][0] is not main
    assert seen[0][1] != main.ident
    # The real one, which waits, does what it does on behalf of that one.
    assert offset.runtime.call_on_main(lambda: (threading.current_thread(), threading.get_ident())) == (
        main,
        main.ident,
    )


def test_the_main_thread_after_the_main_goroutine():
    main = threading.main_thread()
    assert offset.run(lambda: main.ident) != main.ident
    assert main.ident == plain_threading.main_thread().ident == threading.get_ident()
    assert threading.current_thread() is main


def test_a_run_on_another_thread_has_no_main_thread():
    def main():
        return threading.current_thread() is threading.main_thread()

    assert Thread(offset.run, main).result() is False


def test_a_child_of_the_main_goroutine():
    ended = run_script(
        """
        import os, sys
        import offset
        from offset.syscall import threading

        def main():
            pid = os.fork()
            if pid == 0:
                main = threading.main_thread()
                assert threading.current_thread() is main and threading.get_ident() == main.ident
                assert threading.enumerate() == [main], threading.enumerate()
                print("child", isinstance(main, threading.Thread))
                sys.stdout.flush()
                os._exit(0)
            print("parent", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        offset.run(main)
        """,
        interpreter_options=["-W", "ignore::DeprecationWarning"],
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "child True\nparent 0\n", "")


def test_an_interrupt_without_a_traceback_has_been_seen():
    """A second Ctrl-C ends the process only if main has not seen the first, whatever it did with that."""
    ended = run_script(
        """
        import offset
        from offset.syscall import os, signal

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def compute():
            while True:
                pass

        def main():
            for wait in (offset.nilchan.recv, compute) * 2:
                try:
                    offset.time.after_func(0.01, os.kill, os.getpid(), signal.SIGINT)
                    wait()
                except KeyboardInterrupt as error:
                    print(repr(error.with_traceback(None)))

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "KeyboardInterrupt()\n" * 4, "")
