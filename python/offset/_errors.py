"""The exceptions of the package, in pure Python.

The extension imports this module while it is initialised, so it imports nothing of the package. They name
`offset` as their module: that is where a program finds them.
"""


class ChannelError(Exception):
    """The base of the errors that channels raise."""

    __module__ = "offset"


class ChannelClosed(ChannelError):
    """A send on, or a second close of, a closed channel; or a receive from one that is closed and drained.

    The message contains the label of the channel, if it has one.
    """

    __module__ = "offset"


class WouldBlock(ChannelError):
    """`try_recv` found no sender and nothing in the buffer."""

    __module__ = "offset"


class DeadlockError(RuntimeError):
    """All goroutines are asleep, and nothing can ever wake one of them.

    Its text names every goroutine with its wait reason, its stack and where it was created.
    """

    __module__ = "offset"


class GoroutineExit(BaseException):
    """Raised inside a goroutine to end it: by `goexit()`, `Goroutine.cancel()`, the end of a run, and exit.

    It is delivered once. `finally` blocks run and may block. It is no error: a goroutine that ends by it is
    not reported.
    """

    __module__ = "offset"


class PanicError(RuntimeError):
    """Something that is run only once was ended before it gave a result."""

    __module__ = "offset"


class Canceled(Exception):
    """The context was canceled (Go: context.Canceled). Where a cause was given it is the `__cause__`."""

    __module__ = "offset.context"


class DeadlineExceeded(TimeoutError):
    """The deadline of the context has passed (Go: context.DeadlineExceeded).

    Code of ours that tells its own timeouts apart from others' lets it through.
    """

    __module__ = "offset.context"


class RequestError(OSError):
    """A request cannot be read to its end: it is broken, too long, too slow, or its client has gone.

    `status` is the status code to answer with, `reason` a sentence that says what was wrong. An application that
    lets it through has the server answer.
    """

    __module__ = "offset.wsgi"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def carrier(exc: BaseException) -> type[BaseException]:
    """Give a class whose only instance is ``exc``: CPython raises a class in another thread, never an instance."""
    return type(type(exc).__name__, (type(exc),), {"__new__": lambda cls: exc})


def note_written(exc: BaseException, count: int) -> None:
    """Say on what ended a write how many bytes had been written, as BlockingIOError does."""
    # The other exceptions have no such attribute by themselves.
    exc.characters_written = count  # type: ignore[attr-defined]


def noted_written(exc: BaseException) -> int:
    """Give how many bytes had been written before `exc`, as far as it says so."""
    count = getattr(exc, "characters_written", 0)
    return count if isinstance(count, int) else 0
