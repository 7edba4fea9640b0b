"""What goroutines of the runtime's own run.

On a free-threaded build an object that one thread has made and another drops is freed by its maker, when that
runs Python again. The thread of a machine that has nothing to run sleeps, so the monitor has it run this
(`shim/refcounts.c`).
"""


def settle() -> None:
    """Do nothing: CPython has done what it had left for this thread by the time that a function begins."""
