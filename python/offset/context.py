"""Contexts, as Go's package `context`: cancellation, deadlines and values that go down a tree of calls.

A context is over when its `cancel` is called, its deadline passes, or one above it is over; that closes its
`done()`, and `err()` says why. Pass it on explicitly and select on `done()`, as in Go, or let everything obey it:

    with context.timeout(1.0):
        greeting = conn.read(100)      # DeadlineExceeded, a TimeoutError, when the second is over

Inside `scope(ctx)` each operation of the goroutine that may wait obeys `ctx`. That is an edge: the error is raised once
a scope, by the operation that waits when the context ends or by the next one, and what is done to clean up may wait
again. The operation has happened, or it has raised, never both.

How it works. Contexts are safe to use from any goroutine and thread, and no lock is held: `_Cancel._outcome` is set
once, by compare-and-swap, and whoever sets it tells the entries of `_below`, each of which is taken out by one party
only. An entry that comes too late sees the outcome and takes itself out again. Nothing here calls itself for those
above or below, so a chain may be as long as it likes. Entries are the contexts below, the functions of `after_func`,
and scopes.

Nothing of that holds the function that ends a context. So if it goes unused while something above, or a timer,
still has the context, nobody can let go of it before its time: that is what a ResourceWarning tells (Go: `go
vet`, lostcancel).
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from offset import _runtime
from offset._duration import seconds as duration
from offset._errors import Canceled, DeadlineExceeded
from offset.sync import atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeAlias

    from offset._duration import Seconds
    from offset._runtime import NilChan, RecvChan

    Done: TypeAlias = RecvChan[Any] | NilChan | None
    Cancel = Callable[[], None]
    CancelCause = Callable[[BaseException | None], None]

__all__ = [
    "Canceled",
    "Context",
    "DeadlineExceeded",
    "after_func",
    "background",
    "cause",
    "current",
    "scope",
    "timeout",
    "todo",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_deadline_cause",
    "with_timeout",
    "with_timeout_cause",
    "with_value",
    "without_cancel",
]


@runtime_checkable
class Context(Protocol):
    """What a context must have (Go: the interface context.Context); classes of your own may take part.

    One that is over must have closed its `done()`. Where such a class has a method `after_func(fn)` that calls
    `fn` when it is over and gives a function `stop() -> bool`, contexts below it use that; otherwise each of them
    takes a goroutine.
    """

    def done(self) -> Done:
        """Give a channel that is closed when the context is over; None or `nilchan` if it never will be."""

    def err(self) -> BaseException | None:
        """Give None, or why it is over: a Canceled or a DeadlineExceeded."""

    def deadline(self) -> float | None:
        """Give when it will be over, in the clock of `time.now()`; None if no time is set."""

    def value(self, key: Any) -> Any:
        """Give the value for `key`, None if there is none."""


# ---- those that are never over ----------------------------------------------------------------


class _Root:
    """`background()` and `todo()`."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def done(self) -> NilChan:
        return _runtime.nilchan

    def err(self) -> None:
        return None

    def deadline(self) -> None:
        return None

    def value(self, key: Any) -> Any:
        return _lookup(self, key)

    def stats(self) -> dict[str, Any]:
        return {"err": None, "deadline": None, "below": 0}

    def __repr__(self) -> str:
        return f"context.{self._name}"


class _Derived:
    """Those that have one above them, and all but a few things from there."""

    __slots__ = ("_parent",)

    # What the text of the context says of it.
    _word = ""

    def __init__(self, parent: Context) -> None:
        self._parent = parent

    def done(self) -> Done:
        return self._parent.done()

    def err(self) -> BaseException | None:
        return self._parent.err()

    def deadline(self) -> float | None:
        return self._parent.deadline()

    def value(self, key: Any) -> Any:
        return _lookup(self, key)

    def stats(self) -> dict[str, Any]:
        """Give why it is over, when it will be, and how many contexts, functions and scopes wait for that."""
        canceller = self.value(_SELF)
        below = len(canceller._below) if isinstance(canceller, _Cancel) else 0
        return {"err": self.err(), "deadline": self.deadline(), "below": below}

    def __repr__(self) -> str:
        words = []
        context: Any = self
        while isinstance(context, _Derived):
            words.append(context._said())
            context = context._parent
        return ".".join([repr(context), *reversed(words)])

    def _said(self) -> str:
        return self._word


class _Value(_Derived):
    __slots__ = ("_key", "_value")

    def __init__(self, parent: Context, key: Any, value: Any) -> None:
        super().__init__(parent)
        self._key = key
        self._value = value

    def _said(self) -> str:
        return f"with_value({self._key!r})"


class _WithoutCancel(_Derived):
    __slots__ = ()

    _word = "without_cancel"

    def done(self) -> NilChan:
        return _runtime.nilchan

    def err(self) -> None:
        return None

    def deadline(self) -> None:
        return None


class _Key:
    """Asked for this one, a context gives the nearest `_Cancel`, through classes of others, too."""

    def __repr__(self) -> str:
        return "the context that ends"


_SELF = _Key()


def _lookup(context: Any, key: Any) -> Any:
    """Look for a value from `context` upwards."""
    while True:
        if type(context) is _Value:
            if context._key is key or context._key == key:
                return context._value
        elif isinstance(context, _Cancel):
            if key is _SELF:
                return context
        elif type(context) is _Root or (key is _SELF and type(context) is _WithoutCancel):
            return None
        elif not isinstance(context, _Derived):
            return context.value(key)
        context = context._parent


# ---- those that end ----------------------------------------------------------------------------


class _Outcome:
    """Why a context is over."""

    __slots__ = ("cause", "err")

    def __init__(self, err: BaseException, cause: BaseException | None) -> None:
        self.err = err
        self.cause = err if cause is None else cause


class _Entry(Protocol):
    """Who is told when a context is over."""

    def _over(self, outcome: _Outcome) -> dict[_Entry, None]:
        """Take it in, once, and give who is to be told next."""


class _Cancel(_Derived):
    __slots__ = ("__weakref__", "_below", "_done", "_leave", "_outcome", "_receiver")

    _word = "with_cancel"

    def __init__(self, parent: Context) -> None:
        super().__init__(parent)
        self._done: _runtime.Chan[Any] = _runtime.Chan(0, "context.done")
        self._receiver = self._done.receiver()
        self._outcome: atomic.Ref[_Outcome | None] = atomic.Ref(None)
        self._below: dict[_Entry, None] = {}
        self._leave: Callable[[], object] = _nothing

    def done(self) -> RecvChan[Any]:
        return self._receiver

    def err(self) -> BaseException | None:
        outcome = self._outcome.load()
        return None if outcome is None else outcome.err

    def _join(self) -> None:
        """Be over when the parent is."""
        self._leave = _enter(self._parent, self)
        if self._outcome.load() is not None:
            self._leave()

    def _over(self, outcome: _Outcome) -> dict[_Entry, None]:
        if not self._outcome.compare_and_swap(None, outcome):
            return {}
        self._done.close()
        self._release()
        return self._below

    def _release(self) -> None:
        self._leave()
        self._leave = _nothing

    def _end(self, err: BaseException, cause: BaseException | None) -> None:
        """Be over, and let all below be."""
        if self._outcome.load() is None:
            _tell(self, _Outcome(err, cause))

    def _kept(self) -> bool:
        """Whether it takes a place somewhere until it is over."""
        return self._leave is not _nothing and self._outcome.load() is None


class _Deadline(_Cancel):
    __slots__ = ("_timer", "_when")

    def __init__(self, parent: Context, when: float) -> None:
        super().__init__(parent)
        self._when = when
        self._timer: _runtime.Timer | None = None

    def deadline(self) -> float:
        return self._when

    def _start(self, cause: BaseException | None) -> None:
        left = self._when - _runtime.now()
        if left <= 0:
            self._end(_exceeded(), cause)
        elif self._outcome.load() is None:
            self._timer = _runtime.after_func(left, self._end, _exceeded(), cause)
            if self._outcome.load() is not None:
                self._timer.stop()

    def _release(self) -> None:
        super()._release()
        if self._timer is not None:
            self._timer.stop()

    def _kept(self) -> bool:
        return self._timer is not None and self._outcome.load() is None

    def _said(self) -> str:
        return f"with_deadline({self._when:.3f})"


class _Canceller:
    """The function that ends a context."""

    __slots__ = ("__weakref__", "_context")

    def __init__(self, context: _Cancel) -> None:
        self._context = context

    def __call__(self) -> None:
        self._context._end(_canceled(), None)

    def __del__(self) -> None:
        if self._context._kept() and not sys.is_finalizing():
            warnings.warn(
                f"{self._context!r} is not over, and its cancel function is lost, uncalled: call it in a `finally` "
                "block when the work is done, or use `with context.timeout(seconds)`; until then it takes its place",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class _CauseCanceller(_Canceller):
    __slots__ = ()

    def __call__(self, cause: BaseException | None = None) -> None:
        _cause(cause, "cancel")
        self._context._end(_canceled(), cause)


def _canceled() -> Canceled:
    return Canceled("context canceled")


def _exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("context deadline exceeded")


def _nothing() -> None:
    pass


def _tell(entry: _Entry, outcome: _Outcome) -> None:
    """Let an entry know that it is over, and all below it, those above first."""
    waiting = [entry]
    for told in waiting:
        below = told._over(outcome)
        while below:
            # In the order in which they came; some may be taken out meanwhile, and others may come.
            waiting.extend(other for other in below.copy() if below.pop(other, _SELF) is None)


def _enter(parent: Context, entry: _Entry) -> Callable[[], object]:
    """Have `entry` told when `parent` is over, at once if it is. Gives a function that takes it out again."""
    canceller = parent.value(_SELF)
    if isinstance(canceller, _Cancel) and canceller.done() is parent.done():
        canceller._below[entry] = None
        outcome = canceller._outcome.load()
        if outcome is not None:
            if canceller._below.pop(entry, _SELF) is None:
                _tell(entry, outcome)
            return _nothing
        return lambda: canceller._below.pop(entry, None)
    done = parent.done()
    if done is None or done is _NILCHAN:
        return _nothing
    err = parent.err()
    if err is not None:
        _tell(entry, _Outcome(err, cause(parent)))
        return _nothing

    def over() -> None:
        _tell(entry, _Outcome(parent.err() or _canceled(), cause(parent)))

    after = getattr(parent, "after_func", None)
    if after is not None:
        stop: Callable[[], object] = after(over)
        return stop
    left: _runtime.Chan[Any] = _runtime.Chan(1, "context.left")

    def watch() -> None:
        if _runtime.select(done.if_recv(), left.if_recv()).index == 0:
            over()

    _runtime.go(watch)
    return lambda: left.try_send(None)


# By its type no channel.
_NILCHAN: object = _runtime.nilchan


def _above(parent: Context, function: str) -> None:
    """Refuse what is no context."""
    for name in ("done", "err", "deadline", "value"):
        if not callable(getattr(parent, name, None)):
            raise TypeError(
                f"{function}() needs a context to start from, not {type(parent).__name__}; "
                "background() is the one at the top"
            )


def _cause(given: BaseException | None, function: str) -> None:
    if given is not None and not isinstance(given, BaseException):
        raise TypeError(f"{function}() takes an exception or None as the cause, not {type(given).__name__}")


# ---- the package -------------------------------------------------------------------------------

_BACKGROUND = _Root("background")
_TODO = _Root("todo")


def background() -> Context:
    """Give the context at the top, never over and without values (Go: context.Background)."""
    return _BACKGROUND


def todo() -> Context:
    """Give one like `background()`, for where it is not clear yet which to use (Go: context.TODO)."""
    return _TODO


def with_cancel(parent: Context) -> tuple[Context, Cancel]:
    """Give a context below `parent` and a function that ends it with Canceled (Go: context.WithCancel).

    Call the function as soon as the work is done, whatever became of it: until then `parent` keeps the context.
    Calls after the first do nothing. If it is lost uncalled while the context takes a place above, there is a
    ResourceWarning, which `python -X dev` shows. Raises TypeError if `parent` is no context.
    """
    _above(parent, "with_cancel")
    context = _Cancel(parent)
    context._join()
    return context, _Canceller(context)


def with_cancel_cause(parent: Context) -> tuple[Context, CancelCause]:
    """As `with_cancel`; the function takes an exception, or None, that `cause` gives (Go: context.WithCancelCause)."""
    _above(parent, "with_cancel_cause")
    context = _Cancel(parent)
    context._join()
    return context, _CauseCanceller(context)


def with_deadline(parent: Context, t: float) -> tuple[Context, Cancel]:
    """As `with_cancel`; at `t`, in the clock of `time.now()`, it ends with DeadlineExceeded (Go: context.WithDeadline).

    If `parent` has an earlier deadline that counts.
    """
    return with_deadline_cause(parent, t, None)


def with_deadline_cause(parent: Context, t: float, cause: BaseException | None) -> tuple[Context, Cancel]:
    """As `with_deadline`, with what `cause` gives when the time has come (Go: context.WithDeadlineCause)."""
    _above(parent, "with_deadline")
    _cause(cause, "with_deadline_cause")
    when = float(t)
    if when != when:
        raise ValueError("a deadline must be a time in the clock of time.now(), not NaN")
    earlier = parent.deadline()
    if earlier is not None and earlier <= when:
        return with_cancel(parent)
    context = _Deadline(parent, when)
    context._join()
    context._start(cause)
    return context, _Canceller(context)


def with_timeout(parent: Context, seconds: Seconds) -> tuple[Context, Cancel]:
    """As `with_deadline`, so many seconds from now (Go: context.WithTimeout)."""
    return with_timeout_cause(parent, seconds, None)


def with_timeout_cause(parent: Context, seconds: Seconds, cause: BaseException | None) -> tuple[Context, Cancel]:
    """As `with_timeout`, with what `cause` gives when the time is over (Go: context.WithTimeoutCause)."""
    return with_deadline_cause(parent, _runtime.now() + duration(seconds), cause)


def with_value(parent: Context, key: Any, value: Any) -> Context:
    """Give a context below `parent` in which `key` has a value (Go: context.WithValue).

    For what belongs to a request and crosses others' code. To keep keys apart use an object of your own as key:
    keys are compared by `==`. Raises ValueError if the key is None.
    """
    _above(parent, "with_value")
    if key is None:
        raise ValueError("None cannot be a key; use an object of your own, or a string")
    return _Value(parent, key, value)


def without_cancel(parent: Context) -> Context:
    """Give a context with the values of `parent`, never over and without a deadline (Go: context.WithoutCancel)."""
    _above(parent, "without_cancel")
    return _WithoutCancel(parent)


class _Function:
    """What `after_func` is to call."""

    __slots__ = ("_fn", "_state")

    def __init__(self, fn: Callable[[], object]) -> None:
        self._fn: Callable[[], object] | None = fn
        self._state = atomic.Bool(False)

    def take(self) -> bool:
        """Decide, once, between the call and the end of the wish for it."""
        return self._state.compare_and_swap(False, True)

    def _over(self, outcome: _Outcome) -> dict[_Entry, None]:
        if self.take() and self._fn is not None:
            _runtime.go(self._fn)
        self._fn = None
        return {}


def after_func(ctx: Context, fn: Callable[[], object]) -> Callable[[], bool]:
    """Call `fn` in a goroutine of its own when `ctx` is over, at once if it is (Go: context.AfterFunc).

    Gives a function `stop()`, which tells whether it has kept `fn` from being called. Raises TypeError for what is no
    context or not callable.
    """
    _above(ctx, "after_func")
    if not callable(fn):
        raise TypeError(f"after_func() needs a function to call, not {type(fn).__name__}")
    function = _Function(fn)
    leave = _enter(ctx, function)

    def stop() -> bool:
        stopped = function.take()
        leave()
        return stopped

    return stop


def cause(ctx: Context) -> BaseException | None:
    """Give why `ctx` is over: the cause that was given, or else `ctx.err()`; None if it is not (Go: context.Cause)."""
    canceller = ctx.value(_SELF)
    if isinstance(canceller, _Cancel) and canceller.done() is ctx.done():
        outcome = canceller._outcome.load()
        return None if outcome is None else outcome.cause
    return ctx.err()


# ---- scopes ------------------------------------------------------------------------------------


class _Told:
    """A scope among those who are told."""

    __slots__ = ("_scope",)

    def __init__(self, scope: _runtime.Scope) -> None:
        self._scope = scope

    def _over(self, outcome: _Outcome) -> dict[_Entry, None]:
        self._scope.interrupt()
        return {}


class scope:
    """Have all that waits in a `with` block of the goroutine obey a context; gives the context.

    Receiving, sending, `select`, locks, wait groups, `sleep`, connections, `syscall.blocking` and `join` raise
    `ctx.err()`, Canceled or DeadlineExceeded, when the context ends while they wait, and before they do anything if it
    has ended. That happens once; after it, what waits in the block waits as usual. Scopes nest, and where several are
    over the outermost one's error is raised. A goroutine that is started inside is outside of the scope: give it the
    context. A call that blocks in C waits to its end, and what `syscall.blocking` runs goes on without its caller.

    Raises TypeError for what is no context, and RuntimeError in a plain thread and when it is entered twice.
    """

    __slots__ = ("_ctx", "_entered", "_leave", "_scope")

    def __init__(self, ctx: Context) -> None:
        _above(ctx, "scope")
        self._ctx = ctx
        self._scope = _runtime.Scope(ctx)
        self._leave: Callable[[], object] = _nothing
        self._entered = False

    def stats(self) -> dict[str, Any]:
        """Give whether it is entered, and why its context is over and when it will be."""
        return {"entered": self._entered, "err": self._ctx.err(), "deadline": self._ctx.deadline()}

    def __enter__(self) -> Context:
        self._scope.enter()
        try:
            self._leave = _enter(self._ctx, _Told(self._scope))
        except BaseException:
            self._scope.leave()
            raise
        self._entered = True
        return self._ctx

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.leave()
        self._leave()
        self._entered = False


class timeout:
    """Give a `with` block of the goroutine so many seconds: a `scope` of a context that ends then.

    The context is below that of the scope around it, if there is one that is not over yet, and over at the end of the
    block. When the time is over DeadlineExceeded, which is a TimeoutError, is raised by what waits. Raises as `scope`.
    """

    __slots__ = ("_cancel", "_scope", "_seconds")

    def __init__(self, seconds: Seconds) -> None:
        self._seconds = duration(seconds)

    def stats(self) -> dict[str, Any]:
        """Give how many seconds it has."""
        return {"seconds": self._seconds}

    def __enter__(self) -> Context:
        around = current()
        # Where that is over it is to be cleaned up, and it has raised, or will.
        ctx, self._cancel = with_timeout(around if around.err() is None else without_cancel(around), self._seconds)
        self._scope = scope(ctx)
        try:
            return self._scope.__enter__()
        except BaseException:
            self._cancel()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._scope.__exit__(kind, error, traceback)
        finally:
            self._cancel()


def current() -> Context:
    """Give the context of the innermost scope of this goroutine, `background()` outside of scopes and goroutines."""
    ctx: Context | None = _runtime.scope_context()
    return _BACKGROUND if ctx is None else ctx


def _error_of(ctx: Context) -> BaseException:
    """Give what a scope raises: an object of its own each time, as an exception has one traceback."""
    err = ctx.err()
    if err is None:
        return _canceled()
    if type(err) in (Canceled, DeadlineExceeded):
        fresh = type(err)(*err.args)
        said = cause(ctx)
        if said is not err:
            fresh.__cause__ = said
        return fresh
    return err


_runtime.set_error_of(_error_of)
