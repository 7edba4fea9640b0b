"""A network in memory, for bubbles: a listener whose connections are `net.pipe`s.

Invariant: an end that was put into `_backlog` is given out by `accept` or closed by `close`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset._errors import WouldBlock
from offset.net import PipeConn, pipe
from offset.net._listen import Accepting

if TYPE_CHECKING:
    from offset._duration import Seconds


class Listener(Accepting[PipeConn]):
    """Connections in memory: `dial()` here is `accept()` there. A context manager that closes; `listen` gives it."""

    def __init__(self, name: str, backlog: int) -> None:
        self._name = name
        self._backlog: _runtime.Chan[PipeConn] = _runtime.Chan(backlog, name)
        self._closed: _runtime.Chan[None] = _runtime.Chan(0, name)
        self._accepted = 0

    @property
    def addr(self) -> str:
        """Its name."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed.closed

    def dial(self, timeout: Seconds | None = None) -> PipeConn:
        """Connect to it; wait while too many wait to be accepted, up to `timeout` seconds.

        Raises ConnectionRefusedError when it is closed, and TimeoutError.
        """
        ours, theirs = pipe()
        if not self.closed:
            case = _runtime.select(self._backlog.if_send(theirs), self._closed.if_recv(), timeout=timeout)
            if case.index == 0:
                if self.closed:
                    self._refuse()
                return ours
        ours.close()
        theirs.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"dial {self._name}: the listener is closed")

    def accept(self, timeout: Seconds | None = None) -> PipeConn:
        """Wait for a connection and give it, up to `timeout` seconds.

        Raises OSError once it is closed, and TimeoutError.
        """
        if not self.closed:
            case: Any = _runtime.select(self._backlog.if_recv(), self._closed.if_recv(), timeout=timeout)
            if case.index == 0:
                self._accepted += 1
                accepted: PipeConn = case.value
                return accepted
        raise OSError(errno.EBADF, f"accept {self._name}: closed")

    def close(self) -> None:
        """Close it. Who waits in `accept` or `dial` gets an OSError; connections that nobody accepted are closed."""
        if not self.closed:
            self._closed.close()
        self._refuse()

    def _refuse(self) -> None:
        while True:
            try:
                left, _ = self._backlog.try_recv()
            except WouldBlock:
                return
            if left is not None:
                left.close()

    def stats(self) -> dict[str, object]:
        """Give its name, how many connections were accepted and wait for that, and whether it is closed."""
        return {
            "addr": self._name,
            "accepted": self._accepted,
            "waiting": len(self._backlog),
            "closed": self.closed,
        }

    def __repr__(self) -> str:
        return f"<offset.testing.Listener {self._name}{' closed' if self.closed else ''}>"


def listen(name: str = "memory", backlog: int = 16) -> Listener:
    """Give a listener in memory, for programs that take one from `net.listen`. Works in bubbles and elsewhere.

    `backlog` is how many connections may wait to be accepted.
    """
    return Listener(name, backlog)
