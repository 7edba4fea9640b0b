"""Goroutines that are started again when they end, the one thing that Erlang has and Go lacks.

    with supervise.Supervisor() as supervisor:
        supervisor.go(serve, listener)
        supervisor.go(refresh, cache, restart="always")

Each child is started again by itself, its siblings go on (one for one). Before each start it waits, longer each time
that it fails soon after the last start. Children that fail too often end the supervisor: all are cancelled, and
`RestartError` is raised.

Invariants: a supervisor is an `errgroup.Group` whose members are the loops of the children, so none outlives the
block, and all obey the group's context. `_lock` guards the times of the restarts.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import offset
from offset import _runtime, errgroup
from offset._duration import seconds as duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Literal

    from offset._duration import Seconds
    from offset.context import Context

    Restart = Literal["failure", "always", "never"]

__all__ = ["Backoff", "Child", "RestartError", "Supervisor"]

_POLICIES = ("failure", "always", "never")


class RestartError(RuntimeError):
    """Children of a supervisor had to be started again too often. The last failure is the `__cause__`."""


class Backoff:
    """How long to wait before the n-th start in a row: `first` seconds, then `factor` times as long, up to `most`.

    `jitter` is the part of it that is random: of 10 seconds and 0.2, between 8 and 12.
    """

    __slots__ = ("factor", "first", "jitter", "most")

    def __init__(self, first: Seconds = 0.1, most: Seconds = 30.0, factor: float = 2.0, jitter: float = 0.1) -> None:
        self.first, self.most = _seconds(first, "first"), _seconds(most, "most")
        if factor < 1:
            raise ValueError(f"the factor of a backoff is 1 or more, got {factor}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"the jitter of a backoff is a part between 0 and 1, got {jitter}")
        self.factor, self.jitter = factor, jitter

    def delay(self, failures: int) -> float:
        """Give the seconds to wait after so many failures in a row, from 1 up."""
        try:
            seconds = min(self.most, self.first * self.factor ** (failures - 1))
        except OverflowError:
            seconds = self.most
        return seconds * (1 + self.jitter * (2 * random.random() - 1))

    def stats(self) -> dict[str, float]:
        """Give what it was made with."""
        return {"first": self.first, "most": self.most, "factor": self.factor, "jitter": self.jitter}


class Child:
    """A goroutine under a supervisor; `Supervisor.go` gives it."""

    __slots__ = ("__weakref__", "_args", "_fn", "_kwargs", "_stopped", "error", "name", "restart", "restarts", "task")

    task: errgroup.Task[Any]

    def __init__(self, fn: Callable[..., object], args: Any, kwargs: Any, restart: Restart, name: str) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._stopped = False
        self.restart = restart
        self.name = name
        self.restarts = 0
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended for good."""
        return self.task.done

    def stop(self) -> None:
        """End it for good, as `Goroutine.cancel` does. Its siblings go on."""
        self._stopped = True
        self.task.cancel()

    def stats(self) -> dict[str, Any]:
        """Give how often it was started again, its last error, whether it has ended, and those of its goroutine."""
        return {"restarts": self.restarts, "error": self.error, **self.task.stats()}

    def __repr__(self) -> str:
        return f"<supervise.Child {self.name} restarts={self.restarts}{' done' if self.done else ''}>"


class Supervisor:
    """Starts goroutines and starts them again when they end; a context manager that waits for them.

    A child that is cancelled, or calls `goexit()`, has ended for good.

    More than `limit` restarts within `within` seconds, of all children together, end it with RestartError. `on_failure`
    is called in the child's goroutine as `on_failure(child, error, delay)` before it waits for the next start; by
    itself a failure is reported as exceptions are that nobody caught (`offset.excepthook`). `ctx` is the context to
    start from.
    """

    __slots__ = ("__weakref__", "_backoff", "_group", "_limit", "_lock", "_on_failure", "_times", "_within")

    def __init__(
        self,
        ctx: Context | None = None,
        *,
        limit: int = 10,
        within: Seconds = 60.0,
        backoff: Backoff | None = None,
        on_failure: Callable[[Child, BaseException, float], object] | None = None,
    ) -> None:
        if limit < 0:
            raise ValueError(f"the limit of restarts must not be negative, got {limit}")
        self._limit, self._within = limit, _seconds(within, "within")
        self._backoff = Backoff() if backoff is None else backoff
        self._on_failure = _report if on_failure is None else on_failure
        self._group = errgroup.Group(ctx)
        self._lock = _runtime.StateMutex()
        self._times: deque[float] = deque()

    @property
    def ctx(self) -> Context:
        """The context that its children obey."""
        return self._group.ctx

    def go(self, fn: Callable[..., object], /, *args: Any, restart: Restart = "failure", **kwargs: Any) -> Child:
        """Start `fn(*args, **kwargs)` in a goroutine, again and again.

        `restart` says when: "failure", after an exception; "always", after a return, too; "never", only now. Raises
        ValueError for another word, TypeError if `fn` cannot be called, RuntimeError once the supervisor is over.
        """
        if restart not in _POLICIES:
            raise ValueError(f"restart is one of {', '.join(_POLICIES)}, not {restart!r}")
        _runtime.check_callable("Supervisor.go", fn)
        child = Child(fn, args, kwargs, restart, errgroup._name(fn))
        # With its name from the start.
        child.task = self._group._start((), self._run, (child,), {}, fn)
        return child

    def stop(self) -> None:
        """End all children, by their context. It is no error."""
        self._group.cancel()

    def wait(self) -> None:
        """Wait until all children have ended for good. Raises RestartError, and what `errgroup.Group.wait` does."""
        self._group.wait()

    def stats(self) -> dict[str, Any]:
        """Give how many children run, and how many restarts count at the moment."""
        with self._lock:
            self._forget(_runtime.now())
            return {"running": self._group.stats()["running"], "recent_restarts": len(self._times)}

    def __enter__(self) -> Self:
        self._group.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._group.__exit__(kind, error, traceback)

    def _run(self, child: Child) -> None:
        """A child's loop."""
        failures = 0
        while not child._stopped:
            began = _runtime.now()
            error: BaseException | None = None
            try:
                child._fn(*child._args, **child._kwargs)
            except Exception as raised:
                if self._group._echoes(raised):
                    raise
                error = raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next)
            if child.restart == "never" or (error is None and child.restart == "failure"):
                if error is not None:
                    child.error = error
                    self._on_failure(child, error, 0.0)
                return
            # It has worked for a while: that it fails now is another matter.
            failures = 1 if _runtime.now() - began > self._within else failures + 1
            delay = self._backoff.delay(failures)
            if error is not None:
                child.error = error
            self._count(child, error)
            if error is not None:
                self._on_failure(child, error, delay)
            error = None
            _runtime.sleep(delay)
            child.restarts += 1

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - self._within:
            self._times.popleft()

    def _count(self, child: Child, error: BaseException | None) -> None:
        now = _runtime.now()
        with self._lock:
            self._forget(now)
            self._times.append(now)
            many = len(self._times) > self._limit
        if many:
            raise RestartError(
                f"{child.name} was to be started again, which would be more than {self._limit} restarts "
                f"within {self._within:g} s"
            ) from error


def _report(child: Child, error: BaseException, delay: float) -> None:
    goroutine = _runtime.current()
    assert goroutine is not None
    offset.excepthook(goroutine, error)


def _seconds(given: Seconds, what: str) -> float:
    seconds = duration(given)
    if not seconds >= 0:
        raise ValueError(f"{what} is a number of seconds, 0 or more, got {seconds}")
    return seconds
