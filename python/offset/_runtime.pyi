"""The extension: goroutines, channels, select, timers, locks, and the scheduler under them.

Durations are seconds, as `float` or `datetime.timedelta`. Every blocking call takes `timeout=None` and
raises TimeoutError when the time is over; a timeout that is over already tries once. Blocking calls work in
goroutines and in plain threads alike.
"""

import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Set
from datetime import timedelta
from types import CodeType
from typing import Any, Final, Generic, Literal, ParamSpec, Self, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer

from offset.context import Context

_T = TypeVar("_T")
_S = TypeVar("_S")
_P = ParamSpec("_P")
_SendT = TypeVar("_SendT", contravariant=True)
_RecvT = TypeVar("_RecvT", covariant=True)

_Seconds: TypeAlias = float | timedelta

# Goroutines.

def go(fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine:
    """Start a goroutine that calls `fn(*args, **kwargs)`, as Go's `go` statement, and give its handle.

    It gets a copy of the caller's contextvars. The first call of a process starts the runtime's threads.
    Raises TypeError if `fn` is not callable.
    """

def gosched() -> None:
    """Let the other goroutines run first, as Go's `runtime.Gosched`."""

def sleep(seconds: _Seconds, /) -> None:
    """Sleep for `seconds`, as Go's `time.Sleep`: other goroutines run meanwhile.

    Zero or less returns at once.
    """

def current() -> Goroutine | None:
    """Give the handle of the calling goroutine, or None outside a goroutine."""

def now() -> float:
    """Give the time of the monotonic clock in seconds."""

@final
class Goroutine:
    """The handle of a goroutine, as given by `go`."""

    @property
    def id(self) -> int:
        """The number of the goroutine, unique in the process and never used again."""
    name: str
    """The name shown in reports; at first the `__qualname__` of the function. It can be set."""
    @property
    def status(self) -> Literal["runnable", "running", "waiting", "dead"]:
        """What the goroutine does at the moment."""
    @property
    def wait_reason(self) -> str | None:
        """What a parked goroutine waits for, in Go's words ("chan receive", "select"); otherwise None."""
    @property
    def created_at(self) -> str:
        """Where `go` was called, as "file:line in function"."""
    @property
    def waited(self) -> float:
        """For how many seconds it has been waiting, to a few milliseconds; 0.0 when it does not."""
    @property
    def creator(self) -> int:
        """The id of the goroutine that called `go`; 0 for a plain thread."""
    @property
    def ident(self) -> int:
        """The thread identity inside the goroutine, its key in `sys._current_frames()`.

        0 before its start and after its end.
        """
    @property
    def _own(self) -> bool:
        """Whether the runtime has started it for itself (`offset._errand`)."""
    @property
    def started(self) -> bool:
        """Whether the goroutine has begun to run."""
    def join(self, timeout: _Seconds | None = None) -> bool:
        """Wait for the end of the goroutine.

        Gives True when it has ended, and False when the time is over.
        """
    def cancel(self) -> None:
        """Raise GoroutineExit inside the goroutine, once, where it is parked or at its next step.

        Its `finally` blocks run and may block. One that has not begun ends without beginning; nothing
        happens if it has ended. A wait ends in one way only: cancelled, or with what it waited for. One that
        computes gets it between two instructions, as the main thread of a program gets KeyboardInterrupt;
        from CPython 3.14 on that may be between the entry of a `with` and its block.
        """
    def _throwing(self) -> bool:
        """Tell whether what was thrown last has not been raised yet."""
    def throw(self, exc: BaseException | type[BaseException], /) -> None:
        """Raise `exc` inside the goroutine, where it is parked or at its next step."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the goroutine."""
    def __await__(self) -> Generator[Any]:
        """Wait for the end of the goroutine in a task of asyncio or trio; only the task waits.

        If the task is cancelled, so is the goroutine, as a task would be that it awaits.
        """

def goroutines() -> list[Goroutine]:
    """Give the handles of the goroutines that have not ended, by id."""

def all_goroutines() -> list[Goroutine]:
    """Give the same with the goroutines that the runtime has started for itself (`_errand`)."""

def num_goroutine() -> int:
    """Count the goroutines that have not ended, as Go's `runtime.NumGoroutine`."""

# Channels.

@final
class Chan(Generic[_T]):
    """A channel with room for `size` values, as Go's `chan T`; without room, sender and receiver meet.

    Senders and receivers are served in order of arrival. Any object can be sent, None included. The label
    is shown in errors. Raises ValueError for a negative size and TypeError for one that is no integer.
    """

    def __new__(cls, size: int = 0, label: str | None = None) -> Self: ...
    def __class_getitem__(cls, item: Any, /) -> types.GenericAlias: ...
    def send(self, value: _T, timeout: _Seconds | None = None) -> None:
        """Send a value; wait while there is neither room nor a receiver.

        Raises ChannelClosed on a closed channel.
        """
    def recv(self, timeout: _Seconds | None = None) -> _T:
        """Receive a value; wait while there is none.

        Raises ChannelClosed once the channel is closed and drained.
        """
    def recv_ok(self, timeout: _Seconds | None = None) -> tuple[_T | None, bool]:
        """Receive as Go's `v, ok := <-ch`.

        `(value, True)`, or `(None, False)` once the channel is closed and drained.
        """
    def try_send(self, value: _T, /) -> bool:
        """Send if that is possible without waiting; tell whether it was. Raises ChannelClosed if closed."""
    def try_recv(self) -> tuple[_T | None, bool]:
        """Receive without waiting.

        `(value, True)`, or `(None, False)` once closed and drained. Raises WouldBlock if empty.
        """
    def send_exception(self, exc: BaseException, timeout: _Seconds | None = None) -> None:
        """Send an exception that is raised at the receiver, with its traceback."""
    def close(self) -> None:
        """Close the channel: no value can be sent any more, those in it can be received.

        A second close raises ChannelClosed.
        """
    @property
    def closed(self) -> bool:
        """Whether the channel was closed; there may still be values in it."""
    @property
    def cap(self) -> int:
        """How many values the channel has room for."""
    @property
    def label(self) -> str | None:
        """The label given when the channel was made."""
    def if_recv(self) -> Case[_T]:
        """Make the case of `select` that receives from this channel."""
    def if_send(self, value: _T, /) -> Case[Any]:
        """Make the case of `select` that sends `value` on this channel."""
    def sender(self) -> SendChan[_T]:
        """Give the end of this channel that can only send, as Go's `chan<- T`."""
    def receiver(self) -> RecvChan[_T]:
        """Give the end of this channel that can only receive, as Go's `<-chan T`."""
    def arecv(self, timeout: _Seconds | None = None) -> Coroutine[Any, Any, _T]:
        """Receive in a task of asyncio or trio: `await ch.arecv()`; only the task waits.

        If the task is cancelled nothing is received: a value that was on its way to it goes back into the
        channel, before all others.
        """
    def asend(self, value: _T, timeout: _Seconds | None = None) -> Coroutine[Any, Any, None]:
        """Send in a task of asyncio or trio: `await ch.asend(value)`; only the task waits.

        If the task is cancelled when the value has just been received, the send succeeds, and the cancellation
        comes at the next await.
        """
    def stats(self) -> dict[str, Any]:
        """Give counters of the channel: its length, its capacity, and who waits."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __iter__(self) -> Iterator[_T]:
        """Receive until the channel is closed and drained, as Go's `for v := range ch`."""
    def __aiter__(self) -> AsyncIterator[_T]:
        """Receive in a task of asyncio or trio until the channel is closed and drained."""

def unbounded() -> Chan[Any]:
    """Give a channel whose buffer grows: a send never waits."""

@final
class SendChan(Generic[_SendT]):
    """The end of a channel that can only send, as Go's `chan<- T`; made by `Chan.sender()`."""

    def __class_getitem__(cls, item: Any, /) -> types.GenericAlias: ...
    def send(self, value: _SendT, timeout: _Seconds | None = None) -> None:
        """Send a value, as `Chan.send`."""
    def try_send(self, value: _SendT, /) -> bool:
        """Send without waiting, as `Chan.try_send`."""
    def send_exception(self, exc: BaseException, timeout: _Seconds | None = None) -> None:
        """Send an exception that is raised at the receiver."""
    def close(self) -> None:
        """Close the channel."""
    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
    @property
    def cap(self) -> int:
        """How many values the channel has room for."""
    @property
    def label(self) -> str | None:
        """The label of the channel."""
    def if_send(self, value: _SendT, /) -> Case[Any]:
        """Make the case of `select` that sends `value`."""
    def asend(self, value: _SendT, timeout: _Seconds | None = None) -> Coroutine[Any, Any, None]:
        """Send in a task, as `Chan.asend`."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the channel."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...

@final
class RecvChan(Generic[_RecvT]):
    """The end of a channel that can only receive, as Go's `<-chan T`; made by `Chan.receiver()`."""

    def __class_getitem__(cls, item: Any, /) -> types.GenericAlias: ...
    def recv(self, timeout: _Seconds | None = None) -> _RecvT:
        """Receive a value, as `Chan.recv`."""
    def recv_ok(self, timeout: _Seconds | None = None) -> tuple[_RecvT | None, bool]:
        """Receive with Go's second value, as `Chan.recv_ok`."""
    def try_recv(self) -> tuple[_RecvT | None, bool]:
        """Receive without waiting, as `Chan.try_recv`."""
    @property
    def closed(self) -> bool:
        """Whether the channel was closed; there may still be values in it."""
    @property
    def cap(self) -> int:
        """How many values the channel has room for."""
    @property
    def label(self) -> str | None:
        """The label of the channel."""
    def if_recv(self) -> Case[_RecvT]:
        """Make the case of `select` that receives."""
    def arecv(self, timeout: _Seconds | None = None) -> Coroutine[Any, Any, _RecvT]:
        """Receive in a task, as `Chan.arecv`."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the channel."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __iter__(self) -> Iterator[_RecvT]:
        """Receive until the channel is closed and drained."""
    def __aiter__(self) -> AsyncIterator[_RecvT]:
        """Receive in a task of asyncio or trio until the channel is closed and drained."""

@final
class NilChan:
    """The type of `nilchan`, Go's nil channel: blocks for ever, is never chosen, cannot be closed."""

    def __class_getitem__(cls, item: Any, /) -> types.GenericAlias: ...
    def send(self, value: object, timeout: _Seconds | None = None) -> None:
        """Block for ever, or until the time is over."""
    def recv(self, timeout: _Seconds | None = None) -> Any:
        """Block for ever, or until the time is over."""
    def recv_ok(self, timeout: _Seconds | None = None) -> tuple[Any, bool]:
        """Block for ever, or until the time is over."""
    def try_send(self, value: object, /) -> bool:
        """Give False."""
    def try_recv(self) -> tuple[Any, bool]:
        """Raise WouldBlock."""
    def send_exception(self, exc: BaseException, timeout: _Seconds | None = None) -> None:
        """Block for ever, or until the time is over."""
    def close(self) -> None:
        """Raise ChannelClosed: a nil channel cannot be closed."""
    @property
    def closed(self) -> bool:
        """False."""
    @property
    def cap(self) -> int:
        """0."""
    @property
    def label(self) -> str | None:
        """The label shown in errors."""
    def if_recv(self) -> Case[Any]:
        """Make a case that is never chosen."""
    def if_send(self, value: object, /) -> Case[Any]:
        """Make a case that is never chosen."""
    def sender(self) -> SendChan[Any]:
        """Give the sending end."""
    def receiver(self) -> RecvChan[Any]:
        """Give the receiving end."""
    def arecv(self, timeout: _Seconds | None = None) -> Coroutine[Any, Any, Any]:
        """Block the task for ever."""
    def asend(self, value: object, timeout: _Seconds | None = None) -> Coroutine[Any, Any, None]:
        """Block the task for ever."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the channel."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __aiter__(self) -> AsyncIterator[Any]: ...

nilchan: Final[NilChan]
"""Go's nil channel: blocks for ever, is never chosen by `select`."""

@final
class Case(Generic[_RecvT]):
    """One case of `select`, made by `if_recv` or `if_send`.

    Two cases are equal if channel and direction are.
    """

    def __class_getitem__(cls, item: Any, /) -> types.GenericAlias: ...
    @property
    def value(self) -> _RecvT:
        """What was received; None if the channel was closed and drained."""
    @property
    def ok(self) -> bool:
        """Whether a value was received: False if the channel was closed and drained."""
    @property
    def index(self) -> int:
        """The position of the case among the arguments of `select`."""
    def stats(self) -> dict[str, Any]:
        """Give whether it sends, and whether and where it happened."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Default:
    """The type of `default`."""

default: Final[Default]
"""The case of `select` that happens when no other can happen at once, as Go's `default:`."""

@overload
def select(*, timeout: _Seconds | None = None) -> Any: ...
@overload
def select(*cases: Case[_T], timeout: _Seconds | None = None) -> Case[_T]: ...
@overload
def select(*cases: Case[_T] | Default, timeout: _Seconds | None = None) -> Case[_T] | Default: ...
@overload
def select(*cases: Case[Any] | Default, timeout: _Seconds | None = None) -> Any:
    """Wait until one of the cases can happen, let it happen, and give that case object, as Go's `select`.

    Among several that can happen one is chosen at random. With `default` among the cases it does not wait,
    and gives `default` if no other can happen. Without cases it blocks for ever. Sending on a closed
    channel raises ChannelClosed.
    """

# Tasks of asyncio and trio.

@overload
def select_async(*, timeout: _Seconds | None = None) -> Coroutine[Any, Any, Any]: ...
@overload
def select_async(*cases: Case[_T], timeout: _Seconds | None = None) -> Coroutine[Any, Any, Case[_T]]: ...
@overload
def select_async(
    *cases: Case[_T] | Default, timeout: _Seconds | None = None
) -> Coroutine[Any, Any, Case[_T] | Default]: ...
@overload
def select_async(*cases: Case[Any] | Default, timeout: _Seconds | None = None) -> Coroutine[Any, Any, Any]:
    """Do as `select` in a task of asyncio or trio: `case = await select_async(...)`; only the task waits.

    If the task is cancelled no case happens, but for a send whose value has just been received: then the
    cancellation comes at the next await.
    """

def ended(goroutine: Goroutine, /) -> Operation[None]:
    """Give the end of a goroutine, to be awaited."""

@final
class Operation(Coroutine[Any, Any, _T]):
    """What a task of asyncio or trio awaits: an operation on a channel, a select, the end of a goroutine.

    It is used by one at a time: its methods raise RuntimeError while another thread is in one of them, or it itself in
    `send`, `throw` or `close`.
    """

    @property
    def timeout(self) -> _Seconds | None:
        """As it was given."""
    @property
    def waiting(self) -> bool:
        """Whether it waits."""
    def send(self, value: Any, /) -> Any:
        """Go on, as a coroutine does."""
    def throw(self, *args: Any) -> Any:
        """Raise an exception where it waits, as in a coroutine."""
    def close(self) -> None:
        """Take it back, if it has not happened."""
    def begin(self, mailbox: Mailbox, wake: object, /) -> bool:
        """Wait, and have `wake` put into the mailbox when that is over; gives False if there is no need."""
    def expire(self) -> Any:
        """End the wait because its time is over; gives what wakes the task, to be woken by the caller, or None."""
    def retract(self) -> bool:
        """End the wait because the task is cancelled; gives False if it is over."""
    def stats(self) -> dict[str, Any]:
        """Give what it does, and whether it waits."""
    def __await__(self) -> Generator[Any, None, _T]: ...

@final
class Mailbox:
    """Where an event loop is told which of its tasks can go on, and is given calls."""

    def fileno(self) -> int:
        """Give the descriptor that is readable while there is something in it."""
    def put(self, item: object, /) -> None:
        """Put something in, for the loop to deliver."""
    def take(self) -> list[Any]:
        """Take out what there is."""
    def close(self) -> list[Any]:
        """Take out what there is and all that would be put in later: the waits of those tasks are over."""
    def linger(self, notes: list[Note], /) -> list[Any]:
        """Set the notes, and take out what there is after waiting for a little while, where that has paid of late."""

# Time.

@final
class Timer:
    """Sends the time on its channel `c` once, `d` seconds from now, as Go's `time.Timer`."""

    def __new__(cls, d: _Seconds) -> Self: ...
    @property
    def c(self) -> RecvChan[float]:
        """The channel on which the time arrives. Timers of `after_func` send nothing on it."""
    def stop(self) -> bool:
        """Stop the timer and tell whether it was active. No value from before can be received afterwards."""
    def reset(self, d: _Seconds, /) -> bool:
        """Start the timer anew for `d` seconds from now and tell whether it was active."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the timer."""

@final
class Ticker:
    """Sends the time on its channel `c` every `d` seconds, as Go's `time.Ticker`.

    Drops ticks for slow receivers.

    Raises ValueError for a period that is not positive.
    """

    def __new__(cls, d: _Seconds) -> Self: ...
    @property
    def c(self) -> RecvChan[float]:
        """The channel on which the times arrive."""
    def stop(self) -> None:
        """Stop the ticker. The channel is not closed."""
    def reset(self, d: _Seconds, /) -> None:
        """Start the ticker anew with a period of `d` seconds."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the ticker."""

def after(d: _Seconds, /) -> RecvChan[float]:
    """Give a channel on which the time arrives once, `d` seconds from now, as Go's `time.After`."""

def after_func(d: _Seconds, fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Timer:
    """Call `fn(*args, **kwargs)` in its own goroutine `d` seconds from now, as Go's `time.AfterFunc`."""

# Locks.

@final
class Mutex:
    """A lock, as Go's `sync.Mutex`, handed on in order of arrival.

    A context manager. Anybody may unlock it.
    """

    def lock(self, timeout: _Seconds | None = None) -> None:
        """Lock; wait while it is locked."""
    def unlock(self) -> None:
        """Unlock. Raises RuntimeError if it is not locked."""
    def try_lock(self) -> bool:
        """Lock if that is possible without waiting; tell whether it was."""
    @property
    def locked(self) -> bool:
        """Whether it is locked at the moment."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the lock."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@final
class StateMutex:
    """A Mutex for short sections of the package's own: scopes do not end the wait for it."""

    def lock(self) -> None:
        """Lock; wait while it is locked."""
    def unlock(self) -> None:
        """Unlock. Raises RuntimeError if it is not locked."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@final
class RWMutex:
    """A lock for many readers or one writer, as Go's `sync.RWMutex`.

    A writer that waits holds new readers off.

    As a context manager it locks for writing; `rlocker()` gives one for reading.
    """

    def lock(self, timeout: _Seconds | None = None) -> None:
        """Lock for writing; wait for the readers and the writer to leave."""
    def unlock(self) -> None:
        """Unlock for writing. Raises RuntimeError if it is not locked for writing."""
    def try_lock(self) -> bool:
        """Lock for writing if that is possible without waiting; tell whether it was."""
    def rlock(self, timeout: _Seconds | None = None) -> None:
        """Lock for reading; wait for the writer to leave."""
    def runlock(self) -> None:
        """Undo one `rlock`. Raises RuntimeError if it is not locked for reading."""
    def try_rlock(self) -> bool:
        """Lock for reading if that is possible without waiting; tell whether it was."""
    def rlocker(self) -> RLocker:
        """Give a lock whose `lock` and `unlock` are `rlock` and `runlock`."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the lock."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@final
class RLocker:
    """The reading side of an RWMutex, made by `RWMutex.rlocker()`. A context manager."""

    def lock(self, timeout: _Seconds | None = None) -> None:
        """Lock for reading."""
    def unlock(self) -> None:
        """Undo one `lock`."""
    def stats(self) -> dict[str, Any]:
        """Give those of its RWMutex."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@final
class WaitGroup:
    """Waits for a number of goroutines, as Go's `sync.WaitGroup`."""

    def add(self, delta: int = 1) -> None:
        """Add to the counter. Raises ValueError if it would become negative."""
    def done(self) -> None:
        """Take one from the counter. Raises ValueError if it is zero."""
    def wait(self, timeout: _Seconds | None = None) -> None:
        """Wait until the counter is zero."""
    def go(self, fn: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> Goroutine:
        """Add one, and start a goroutine that calls `fn(*args, **kwargs)` and is done afterwards."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the group."""

@final
class Member:
    """The function of a goroutine that a WaitGroup counts."""

@final
class Cond:
    """A condition to wait for, as Go's `sync.Cond`.

    `lock` is a Mutex, an RWMutex or what `rlocker()` gives.
    """

    def __new__(cls, lock: Mutex | StateMutex | RWMutex | RLocker) -> Self: ...
    def wait(self, timeout: _Seconds | None = None) -> None:
        """Unlock, wait for a signal, lock again. Raises RuntimeError if the lock is not held."""
    def signal(self) -> None:
        """Wake the one that has waited longest."""
    def broadcast(self) -> None:
        """Wake all that wait."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the condition."""

@final
class Semaphore:
    """A number of units to acquire, first come first served. A context manager for one unit."""

    def __new__(cls, n: int) -> Self: ...
    def acquire(self, n: int = 1, timeout: _Seconds | None = None) -> None:
        """Take `n` units; wait until they are free and those who came before have been served."""
    def try_acquire(self, n: int = 1) -> bool:
        """Take `n` units if that is possible without waiting; tell whether it was."""
    def release(self, n: int = 1) -> None:
        """Give `n` units back. Raises ValueError if more would be free than there are."""
    def stats(self) -> dict[str, Any]:
        """Give counters of the semaphore."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@final
class Lock:
    """A lock with the methods of `threading.Lock`, handed on in order of arrival."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; wait while it is held, at most `timeout` seconds. False if that took too long.

        What a wrong call raises is what `threading.Lock` of this interpreter raises.
        """
    def release(self) -> None:
        """Give it to who waits longest, or free it. Raises RuntimeError if it is not held."""
    def locked(self) -> bool:
        """Tell whether it is held."""
    def acquire_lock(self, blocking: bool = True, timeout: float = -1) -> bool:
        """An older name of `acquire`."""
    def release_lock(self) -> None:
        """An older name of `release`."""
    def locked_lock(self) -> bool:
        """An older name of `locked`."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *args: object) -> None: ...
    def _at_fork_reinit(self) -> None: ...
    def _release_save(self) -> None: ...
    def _acquire_restore(self, state: None, /) -> None: ...

class RLock:
    """A lock with the methods of `threading.RLock`; its owner, a goroutine or a thread, may take it again."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; wait while another has it, at most `timeout` seconds. False if that took too long."""
    def release(self) -> None:
        """Undo one `acquire`. Raises RuntimeError unless the caller has it."""
    def locked(self) -> bool:
        """Tell whether anybody has it."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *args: object) -> None: ...
    def _at_fork_reinit(self) -> None: ...
    def _is_owned(self) -> bool: ...
    def _recursion_count(self) -> int: ...
    def _release_save(self) -> tuple[int, int]: ...
    def _acquire_restore(self, state: tuple[int, int], /) -> None: ...

@final
class Int:
    """An atomic integer of 64 bits, as Go's `atomic.Int64`."""

    def __new__(cls, value: int = 0) -> Self: ...
    def load(self) -> int:
        """Give the value."""
    def store(self, value: int, /) -> None:
        """Set the value."""
    def add(self, delta: int, /) -> int:
        """Add to the value and give the new one."""
    def swap(self, new: int, /) -> int:
        """Set the value and give the one before."""
    def compare_and_swap(self, old: int, new: int, /) -> bool:
        """Set the value to `new` if it is `old`; tell whether that happened."""
    def and_(self, mask: int, /) -> int:
        """Keep the bits of `mask` and give the value before."""
    def or_(self, mask: int, /) -> int:
        """Set the bits of `mask` and give the value before."""
    def stats(self) -> dict[str, Any]:
        """Give the value."""

@final
class Bool:
    """An atomic truth value, as Go's `atomic.Bool`."""

    def __new__(cls, value: bool = False) -> Self: ...
    def load(self) -> bool:
        """Give the value."""
    def store(self, value: bool, /) -> None:
        """Set the value."""
    def swap(self, new: bool, /) -> bool:
        """Set the value and give the one before."""
    def compare_and_swap(self, old: bool, new: bool, /) -> bool:
        """Set the value to `new` if it is `old`; tell whether that happened."""
    def stats(self) -> dict[str, Any]:
        """Give the value."""

@final
class Ref(Generic[_S]):
    """An atomic reference to an object, as Go's `atomic.Pointer`; compared by identity."""

    def __new__(cls, value: _S = ...) -> Self: ...
    def __class_getitem__(cls, item: Any, /) -> types.GenericAlias: ...
    def load(self) -> _S:
        """Give the object."""
    def store(self, value: _S, /) -> None:
        """Set the object."""
    def swap(self, new: _S, /) -> _S:
        """Set the object and give the one before."""
    def compare_and_swap(self, old: _S, new: _S, /) -> bool:
        """Set the object to `new` if it is the very object `old`; tell whether that happened."""
    def stats(self) -> dict[str, Any]:
        """Give the object."""

# The blocking pool, and the runtime.

def blocking(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call `fn(*args, **kwargs)` on a thread of the blocking pool; give its result, or raise what it raises.

    Only the calling goroutine waits; it comes back at the front of the run queue. The caller's contextvars
    apply. If the wait is given up (the goroutine is cancelled), the call goes on to its end and its result
    is dropped.
    """

def lock_os_thread() -> None:
    """Keep the calling goroutine on its OS thread, as Go's `runtime.LockOSThread`."""

def unlock_os_thread() -> None:
    """Undo one `lock_os_thread`."""

def set_block_profile_rate(rate: int, /) -> int:
    """Count one wait in `rate` nanoseconds of waiting; 1 for all, 0 for none; gives the previous rate.

    As Go's `runtime.SetBlockProfileRate`. Waits on channels, in select, for locks, wait groups and joins count; sleep,
    descriptors and blocking calls do not. Raises ValueError below 0.
    """

def set_mutex_profile_fraction(rate: int, /) -> int:
    """Count one in `rate` waits for a Mutex or RWMutex; 1 for all, 0 for none; gives the previous rate.

    As Go's `runtime.SetMutexProfileFraction`. Raises ValueError below 0.
    """

def profile_records(mutex: bool, /) -> list[tuple[int, int, list[tuple[CodeType, int]]]]: ...
def trace_start(flight: bool, limit: int, seconds: float | None = None) -> bool: ...
def trace_stop(flight: bool, descriptor: int, /) -> bool | None: ...
def trace_write(flight: bool, descriptor: int, /) -> bool | None: ...
def trace_active(flight: bool, /) -> bool: ...
def trace_recording() -> bool: ...
def trace_region(begins: bool, name: str, /) -> None: ...
def trace_log(category: str, message: str, /) -> None: ...
def trace_gc(phase: str, info: dict[str, int], /) -> None: ...
def set_max_threads(n: int, /) -> int:
    """Limit the threads of the blocking pool to `n`, more calls queue; gives the previous limit."""

def gomaxprocs(n: int = 0, /) -> int:
    """Set how many processors run goroutines and give the previous number; 0 changes nothing.

    On a build of CPython with the GIL there is one processor whatever is asked for.
    """

def set_stack_size(bytes: int, /) -> int:
    """Set the size of the C stacks of goroutines made from now on, in bytes; gives the previous size."""

def stats() -> dict[str, Any]:
    """Give the counters of the runtime."""

# What the package uses.

@final
class Note:
    """An event that a thread or a goroutine waits for.

    The main thread's wait runs signal handlers and raises what they raise.
    """

    def set(self) -> None:
        """Set the note and wake who waits."""
    def clear(self) -> None:
        """Clear the note."""
    def is_set(self) -> bool:
        """Tell whether the note is set."""
    def wait(self, timeout: _Seconds | None = None) -> bool:
        """Wait until the note is set. Gives False when the time is over."""
    def wait_await(self, timeout: _Seconds | None = None) -> bool:
        """Wait, for what an event loop does, which the wait reason says: "await"."""

class Fd:
    """The operations of a descriptor that park only the goroutine; of a plain thread, they block it.

    It does not own the descriptor: `close` it before that is closed. A descriptor that is no socket must be
    non-blocking. Each operation raises OSError as the system does, TimeoutError when its time or the deadline is
    over, and OSError (EBADF) once it is closed. A write cut short has `characters_written`.
    """

    def __new__(cls, fileno: int) -> Self: ...
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    def recv(self, bufsize: int, flags: int = 0, timeout: _Seconds | None = None) -> bytes:
        """Read as `socket.recv`."""
    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0, timeout: _Seconds | None = None) -> int:
        """Read as `socket.recv_into`."""
    def send(self, data: Buffer, flags: int = 0, timeout: _Seconds | None = None) -> int:
        """Write a part as `socket.send`."""
    def sendall(self, data: Buffer, flags: int = 0, timeout: _Seconds | None = None) -> int:
        """Write all of it and give its length. Writes do not interleave."""
    def recvfrom(self, bufsize: int, flags: int = 0, timeout: _Seconds | None = None) -> tuple[bytes, Any]:
        """Read as `socket.recvfrom`."""
    def sendto(self, data: Buffer, address: Any, flags: int = 0, timeout: _Seconds | None = None) -> int:
        """Write as `socket.sendto`, to an address of the `socket` module's whose host is written out."""
    def accept(self, timeout: _Seconds | None = None) -> int:
        """Accept a connection and give its descriptor, which is non-blocking."""
    def wait_read(self, timeout: _Seconds | None = None) -> None:
        """Wait until reading may be possible, after an attempt that was not."""
    def wait_write(self, timeout: _Seconds | None = None) -> None:
        """Wait until writing may be possible, after an attempt that was not."""
    def set_deadline(self, when: _Seconds | None, /) -> None:
        """Let operations fail from `when` on, on the clock of `now()`; None for never. Those that wait heed it too."""
    def set_read_deadline(self, when: _Seconds | None, /) -> None:
        """As `set_deadline`, of reads."""
    def set_write_deadline(self, when: _Seconds | None, /) -> None:
        """As `set_deadline`, of writes."""
    def check_read(self) -> None:
        """Raise what a read would before it tries anything: when it is closed, or the deadline over."""
    def check_write(self) -> None:
        """Raise what a write would before it tries anything."""
    def close(self) -> bool:
        """Let all operations fail, those that wait too. Gives False if that was done before."""
    def fileno(self) -> int:
        """The descriptor's number, -1 once it is closed."""

class Descriptor:
    """A descriptor that is closed when nobody uses it any more, and attempts on it that do not wait."""

    def __new__(cls, fileno: int) -> Self: ...
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    def acquire(self) -> int:
        """Begin to use it: its number, -1 if it is closed."""
    def release(self) -> int:
        """End a use: the number if it is to be closed now, else -1."""
    def close(self) -> int | None:
        """Let nobody begin to use it: the number if it is to be closed now, -1 if the last user does that.

        None if it was closed before.
        """
    def fileno(self) -> int:
        """The descriptor's number, -1 once it is closed."""
    def read_now(self, size: int, offset: int = -1) -> Any:
        """Read what can be had without waiting, at `offset` or the position; None if nothing can.

        NotImplemented where the system has no such attempts for this file. Raises OSError.
        """
    def write_now(self, data: Buffer, /) -> Any:
        """Write what can be written without waiting and give how much; None and NotImplemented as `read_now`."""

class Stream:
    """As `Fd`, for a class whose objects are connections: its calls without those of sockets.

    A read that was answered with less than it asked for has emptied a stream: the next one waits first.
    """

    def __new__(cls, fileno: int) -> Self: ...
    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
    def read(self, n: int, /) -> bytes:
        """Read up to `n` bytes; wait until there are any. `b""` is the end."""
    def read_into(self, buffer: Buffer, /) -> int:
        """Read into a buffer as `read`, and give the number of bytes; 0 is the end."""
    def write(self, data: Buffer, /) -> int:
        """Write all of `data` and give its length. Writes of several goroutines do not interleave.

        The exception of one that was cut short has the number of bytes in `characters_written`.
        """
    def set_deadline(self, when: _Seconds | None, /) -> None:
        """Let reads and writes raise TimeoutError from `when` on, a time of `offset.time.now()`; None for never.

        It may be moved at any time; who waits already heeds it too.
        """
    def set_read_deadline(self, when: _Seconds | None, /) -> None:
        """As `set_deadline`, of reads only."""
    def set_write_deadline(self, when: _Seconds | None, /) -> None:
        """As `set_deadline`, of writes only."""
    def fileno(self) -> int:
        """The descriptor's number, -1 once it is closed."""
    def _wait_read(self, timeout: _Seconds | None = None) -> None: ...
    def _wait_write(self, timeout: _Seconds | None = None) -> None: ...
    def _lock_write(self) -> int: ...
    def _unlock_write(self) -> None: ...
    def _check_write(self) -> None: ...
    def _close(self) -> bool: ...

@final
class ResponseHead:
    """The head of a response that was checked, for one `Http`."""

    @property
    def status(self) -> int:
        """The status; 0 once the head was used."""

def response_head(status: bytes, headers: Iterable[Iterable[bytes]]) -> ResponseHead:
    """Make the head of a response of a status line and pairs of bytes.

    Raises TypeError and ValueError for what cannot be one.
    """

class Http:
    """The server's side of a connection that speaks HTTP/1.1, request by request. See `offset.wsgi._connection`.

    `stream` is a `Stream`; unless `direct` says that the bytes on the wire are the protocol's own, its methods
    `read` and `write` are called. `base` is what all environs begin with. `times` are those for a head, between
    requests, for a part of a body and for a write, in seconds, `sizes` those of a target, a head, the number of
    fields and a body; None is no limit.
    """

    def __new__(
        cls,
        stream: Stream,
        base: dict[str, Any],
        direct: bool,
        times: tuple[float | None, ...],
        sizes: tuple[int | None, ...],
        server: bytes,
    ) -> Self: ...
    def next(self) -> dict[str, Any] | None:
        """Wait for a request and give its environ; None when the connection is over."""
    def next_scope(self) -> dict[str, Any] | None:
        """The same, and give its scope, as ASGI has it."""
    def read_body(self, n: int, /) -> bytes:
        """Read up to `n` bytes of the request's body; `b""` is its end. Raises `RequestError`."""
    def read_there(self, n: int, /) -> bytes | None:
        """As `read_body`, without waiting: None if nothing of it is there."""
    def go_on(self) -> None:
        """Tell a client that waits for it to send the body."""
    @property
    def body_over(self) -> bool:
        """Whether the body was read to its end."""
    def feed(self, data: Buffer, /) -> None:
        """Put bytes that were read already before what comes; `b""` is the end."""
    def detach(self) -> bytes:
        """Speak HTTP no more, and give what has come after the request."""
    def drain(self) -> None:
        """End the connection at the next moment between two requests."""
    def starter(self) -> Callable[..., Callable[[bytes], None]]:
        """Give the `start_response`, as PEP 3333 has it, of the request that was given last; it begins no other's."""
    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        """Begin the response to whatever request there is, or to one that was refused."""
    def write(self, data: Buffer, /) -> None:
        """Write bytes of the response's body, with its head before the first."""
    def respond(self, body: object, /) -> int:
        """Write a list of bytes and end the response: 0 if it is none, 1, or 2 if its length is not what the head
        says."""
    def begin(self, head: ResponseHead, data: Buffer) -> None:
        """Write a head that was made elsewhere, and the first bytes of the body, or none."""
    def answer(self, head: ResponseHead, data: Buffer) -> int:
        """Write a head that was made elsewhere, and all of the body: 1, or 2 if its length is not what that says."""
    def finish(self) -> int:
        """End the response: 1, or 2 if its length was not what its head said."""
    @property
    def gone(self) -> bool:
        """Whether a write has failed: the client has gone, or takes nothing."""
    def begin_file(self, size: int, /) -> int | None:
        """Write the head before a file of so many bytes, and give how many the caller is to send; None if it has
        begun."""
    def sent_file(self, size: int, /) -> None:
        """Say how many bytes the caller has sent."""
    def take_back(self) -> bool:
        """Forget a response of which nothing has gone out, for another one; False if something has."""
    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
    @property
    def special(self) -> int:
        """1 if the request has a body, plus 2 if it asks for another protocol."""
    @property
    def status(self) -> int:
        """The status of the response; 0 before there is one."""
    @property
    def sent(self) -> int:
        """The bytes of the response's body so far."""
    @property
    def sent_head(self) -> bool:
        """Whether the head of the response has gone out."""
    @property
    def unread(self) -> bool:
        """Whether something may be coming that was not read."""
    @property
    def refused_line(self) -> bytes:
        """The first line of a request that was refused; `b""` if it has not come whole."""
    @property
    def refusal(self) -> tuple[int, str] | None:
        """The status and the reason with which a request was refused."""

def watch(note: Note | None, /) -> None:
    """Name the note that is set when the runtime becomes quiescent and when the last goroutine ends."""

def quiescent() -> bool:
    """Tell whether no goroutine can go on by itself: no timer, descriptor or blocking call either."""

def foreign_threads() -> int:
    """Count the Python threads that are neither the runtime's nor the caller."""

def positions(idents: Set[int], /) -> dict[int, list[tuple[types.CodeType, int]]]:
    """Give the frames of the threads of these identities, as of one moment: (code, line), the innermost first."""

def find_leaks(
    objects: list[Any], depths: dict[types.CodeType, bytes], spared: int, handles: bool, /
) -> list[tuple[Goroutine, list[Any]]]:
    """Give the goroutines that wait for what nobody else can reach, each with what it waits for."""

def find_waits(objects: list[Any], depths: dict[types.CodeType, bytes], /) -> list[tuple[Goroutine, list[Any]]]:
    """Give the goroutines that only others can wake, each with the channels, locks and goroutines that it waits for."""

def taker(lock: object, /) -> int | None:
    """Give the id of the goroutine that has taken a Mutex or RWMutex, 0 for a thread; None if nobody has."""

def check_callable(name: str, fn: object) -> None:
    """Raise TypeError if what is called `name` cannot start `fn` by calling it: it is not callable, or a coroutine or
    generator function.
    """

def states() -> dict[str, int]:
    """Count the goroutines by wait reason, or by status if they do not wait."""

def find_places(objects: list[Any], /) -> list[tuple[Any, list[int]]]:
    """Give the channels among `objects`, and locks at which somebody waits, each with the ids of who waits there."""

def set_package(directory: str, /) -> None:
    """Name the directory of the package, with a slash: `Goroutine.created_at` looks past its files, but for _run.py."""

def set_answer(fn: Callable[[bytes], bytes], /) -> None:
    """Set what answers questions from outside, on a thread of the runtime's own."""

def set_errand(fn: Callable[[], object], /) -> None:
    """Set what goroutines of the runtime's own run on machines at rest, so that CPython settles what it left there."""

def set_uncaught(fn: Callable[[Goroutine, BaseException | None], object], /) -> None:
    """Set what is called, in the failing goroutine, when an exception other than GoroutineExit leaves it.

    In a forked child it is called at the end of the goroutine that forked in any case, with None if there is no
    exception.
    """

def set_started_hook(fn: Callable[[], object], /) -> None:
    """Set what is called once before the first `go` of a process starts threads."""

def started() -> bool:
    """Tell whether a first `go` has happened in this process."""

def shutdown() -> None:
    """Let the runtime's threads take no more goroutines. The last thing that is called at exit."""

# Signals. A set of them is a number with the bit `n - 1` for signal n.

def signal_objects(objects: list[int], /) -> None:
    """Say what is received for each signal: a list with an object for each number."""

def signal_notify(ch: Chan[Any] | SendChan[Any], signals: int) -> None:
    """Send the signals of a set on `ch`, besides those that it is sent already."""

def signal_stop(ch: Chan[Any] | SendChan[Any], /) -> None:
    """Send no more signals on `ch`."""

def signal_ignore(signals: int, /) -> None:
    """Ignore the signals of a set; they are sent on no channel any more."""

def signal_reset(signals: int, /) -> None:
    """Make the signals of a set do what they did before `signal_notify` and `signal_ignore`."""

def signal_ignored(number: int, /) -> bool:
    """Tell whether a signal does nothing."""

def signal_wanted() -> int:
    """Give the set of the signals that are sent on channels."""

def signal_held() -> int:
    """Give the set of the signals that are sent on channels or were ignored by `signal_ignore`."""

# ---- scopes ------------------------------------------------------------------------------------

@final
class Scope:
    """A stretch of a goroutine's life in which what waits obeys a context."""

    def __new__(cls, context: Context) -> Self: ...
    def enter(self) -> None:
        """From here on the current goroutine obeys it. Raises RuntimeError in a plain thread, and the second time."""
    def leave(self) -> None:
        """To here. Raises RuntimeError in another goroutine."""
    def interrupt(self) -> None:
        """Let the goroutine's present or next wait be ended. From any thread."""

def scope_context() -> Context | None:
    """The context of the current goroutine's innermost scope."""

def set_error_of(hook: Callable[[Context], BaseException], /) -> None:
    """Set the function that gives the exception for a context that is over."""

# ---- bubbles -----------------------------------------------------------------------------------

def bubble_begin(seed: int | None, /) -> None:
    """Make the current goroutine the root of a bubble, whose schedule follows `seed` unless that is None."""

def bubble_leave() -> None:
    """Wait until the other members have ended, and end the bubble. Raises DeadlockError if they never will."""

def bubble_abandon() -> None:
    """Leave the bubble to the members that are left."""

def bubble_wait() -> None:
    """Wait until all other members are durably blocked."""

def in_bubble() -> bool:
    """Tell whether the current goroutine is in a bubble."""

def bubble_fail() -> None:
    """Say that the current goroutine has failed, for which the others of its bubble will be cancelled."""

def bubble_hold(busy: bool, /) -> None:
    """Count the current goroutine as not asleep whatever it waits for, or no more."""

def set_bubble_deadlock(hook: Callable[[str], BaseException], /) -> None:
    """Set the function that gives the DeadlockError of a bubble, from what its main goroutine waited for."""
