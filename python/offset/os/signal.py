"""Signals as values on channels, as Go's package `os/signal`.

`notify(ch, SIGTERM)` makes each SIGTERM a value that can be received on `ch`. It works in goroutines and in
plain threads, with and without `run`: a handler of the runtime's own takes the signal, and a thread of its
own sends it, so the main thread has no part in it, whatever it does.

A signal that is notified is not handled by Python: a notified SIGINT raises no KeyboardInterrupt. `stop`
and `reset` put back what was there before. A forked child begins with what was there before.
"""

from __future__ import annotations

import atexit
import errno
import functools
import signal
from operator import index
from typing import TYPE_CHECKING, SupportsIndex

from offset import _run, _runtime, context

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from offset._runtime import Chan, SendChan

__all__ = ["ignore", "ignored", "notify", "notify_context", "reset", "stop"]

# By its type no channel to send on.
_NILCHAN: object = _runtime.nilchan

# Signals that no program can catch. The C library keeps two more for itself, which `valid_signals` leaves out.
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}
_CATCHABLE = {int(number) for number in signal.valid_signals()} - _UNCATCHABLE
# Faults of the program: ignoring them ends it, and takes the message with it.
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}


def notify(ch: Chan[Any] | SendChan[Any], /, *signals: SupportsIndex) -> None:
    """Send the signals on `ch` from now on; without signals, all that can be caught.

    The values are of `signal.Signals`, or integers where that has no name. Sending does not wait: a full
    channel drops the signal, so give it room, one place for one kind of signal. Further calls for the same
    channel add to its signals, and each of several channels gets a copy. It takes the place of handlers set
    before by `signal.signal`; one that is set later takes its place.

    Raises OSError for signals that cannot be caught (SIGKILL, SIGSTOP), ValueError for numbers that are no
    signals and for `nilchan`, and TypeError for what is no channel to send on.
    """
    if ch is _NILCHAN:
        raise ValueError("notify() on nilchan: nothing could ever be received")
    chosen = _set(signals, _CATCHABLE)
    _prepare()
    _runtime.signal_notify(ch, chosen)


def notify_context(parent: context.Context, /, *signals: SupportsIndex) -> tuple[context.Context, Callable[[], None]]:
    """Give a context below `parent` that is canceled by the first of the signals, and a function `stop()`.

    Without signals any will do. The text of `context.cause` names the signal that came. `stop` cancels the context,
    and the signals do again what they did before; call it as soon as the context is no longer needed. Goes by Go's
    `signal.NotifyContext`. Raises as `notify`, and TypeError if `parent` is no context.
    """
    ctx, cancel = context.with_cancel_cause(parent)
    ch: Chan[Any] = _runtime.Chan(1, "signal.notify_context")
    try:
        notify(ch, *signals)
    except BaseException:
        cancel(None)
        raise

    over: Any = ctx.done()

    def watch() -> None:
        case = _runtime.select(ch.if_recv(), over.if_recv())
        if case.index == 0:
            cancel(context.Canceled(f"{getattr(case.value, 'name', f'signal {case.value}')} received"))

    if ctx.err() is None:
        _runtime.go(watch).name = "notify_context"

    def end() -> None:
        cancel(None)
        stop(ch)

    return ctx, end


def stop(ch: Chan[Any] | SendChan[Any], /) -> None:
    """Send no more signals on `ch`: once this has returned, none comes.

    Those that came before are in the channel, as far as there was room. Signals that no other channel is
    notified of do again what they did before `notify`.
    """
    if ch is not _NILCHAN:
        _runtime.signal_stop(ch)
        _run.give_signals_back()


def ignore(*signals: SupportsIndex) -> None:
    """Let nothing happen when one of the signals comes, whatever `notify` was told before; without signals, all.

    `reset` undoes it. Children and the programs that they run ignore them, too. Raises as `notify`.
    """
    _runtime.signal_ignore(_set(signals, _CATCHABLE - _FAULTS))
    _run.give_signals_back()


def ignored(sig: SupportsIndex, /) -> bool:
    """Tell whether nothing happens when `sig` comes, by `ignore` or from the start of the program."""
    return _runtime.signal_ignored(_number(sig))


def reset(*signals: SupportsIndex) -> None:
    """Undo `notify` and `ignore` for the signals; without signals, for all.

    They do again what they did before, and no channel is sent them any more. Raises ValueError for numbers
    that are no signals.
    """
    _runtime.signal_reset(_set(signals, _CATCHABLE, strict=False))
    _run.give_signals_back()


def _number(sig: SupportsIndex) -> int:
    number = index(sig)
    if not 1 <= number < signal.NSIG:
        raise ValueError(f"there is no signal {number}")
    return number


def _set(signals: tuple[SupportsIndex, ...], every: set[int], *, strict: bool = True) -> int:
    """Give the set of `signals` as the runtime takes it: a number with a bit for each."""
    numbers = [_number(sig) for sig in signals] if signals else every
    bits = 0
    for number in numbers:
        if number in _CATCHABLE:
            bits |= 1 << (number - 1)
        elif strict:
            name = getattr(_object(number), "name", f"signal {number}")
            raise OSError(errno.EINVAL, f"{name} cannot be caught or ignored")
    return bits


def _object(number: int) -> int:
    try:
        return signal.Signals(number)
    except ValueError:
        return number


@functools.cache
def _prepare() -> None:
    """What the first `notify` of a process needs, and its children have from it."""
    _runtime.signal_objects([_object(number) for number in range(signal.NSIG)])
    # Nobody is left to receive, and an exit that hangs must be one that Ctrl-C ends.
    atexit.register(_end)


def _end() -> None:
    _runtime.signal_reset(_runtime.signal_wanted())
    _run.give_signals_back()
