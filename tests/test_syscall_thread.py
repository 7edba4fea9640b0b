"""`offset.syscall._thread`: threads without an object, which are goroutines.

What the original does is tested by CPython's own tests over the proxies.
"""

from __future__ import annotations

import offset
import pytest
from helpers import main_goroutine, run_script, wait_until
from offset.syscall import _thread


@main_goroutine
def test_threads_of_the_module_below():
    gate, seen = _thread.allocate_lock(), []
    gate.acquire()

    def work(*args, **kwargs):
        seen.append((args, kwargs, _thread.get_ident(), offset.current().ident))
        gate.release()

    before = _thread._count()
    ident = _thread.start_new_thread(work, (1,), {"two": 2})
    gate.acquire()
    assert seen == [((1,), {"two": 2}, ident, ident)]
    wait_until(lambda: _thread._count() == before)
    with pytest.raises(TypeError, match="callable"):
        _thread.start_new_thread(1, ())
    with pytest.raises(TypeError, match="tuple"):
        _thread.start_new_thread(work, [])


def test_a_thread_of_the_module_below_that_fails():
    ended = run_script(
        """
        import offset
        from offset.syscall import _thread, threading

        def fail():
            raise ValueError("of the thread")

        def leave():
            _thread.exit()

        def main():
            before = _thread._count()
            _thread.start_new_thread(fail, ())
            _thread.start_new_thread(leave, ())
            while _thread._count() > before:
                offset.gosched()
            print("goes on")

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "goes on\n")
    assert ended.stderr.startswith("Exception ignored in thread started by")
    assert "<function fail at" in ended.stderr
    assert ended.stderr.endswith("ValueError: of the thread\n")
    assert ended.stderr.count("Traceback") == 1


def test_an_interrupt_of_main_by_the_module_below():
    ended = run_script(
        """
        import signal
        import offset
        from offset.syscall import _thread

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def main():
            try:
                _thread.interrupt_main()
                print("too late")
            except KeyboardInterrupt:
                print("at once")
            # The main thread waits for the main goroutine, which waits.
            try:
                offset.go(_thread.interrupt_main)
                offset.sleep(3600)
            except KeyboardInterrupt:
                print("from a goroutine")

        offset.run(main)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "at once\nfrom a goroutine\n", "")
