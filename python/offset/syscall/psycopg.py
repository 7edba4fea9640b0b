"""psycopg, the PostgreSQL adapter, for goroutines: waits for the server park only the goroutine.

Everything is psycopg's own, which must be installed (version 3.2 or later): C or Python, it leaves all waiting to
`Connection.wait`, with generators that say what they want to wait for. A `Connection` of this module drives them by the
poller, and inherits everything else; outside goroutines it works as its original. Names of hosts are looked up by
libpq, which blocks the OS thread meanwhile.

Invariants: who waits on a connection is in `_waiting` by the number of its descriptor, so that `close` can wake it
before libpq closes the descriptor. libpq may leave something unread, so whether there is something is asked before each
wait.
"""

from __future__ import annotations

import functools as _functools
import select as _select
import types as _types

try:
    import psycopg as _original
except ImportError as _error:
    raise type(_error)(f"offset.syscall.psycopg needs psycopg: {_error}", name="psycopg") from _error

from psycopg import connection as _connection
from psycopg import errors as _errors
from psycopg.pq import TransactionStatus as _TransactionStatus

from offset import _runtime
from offset._errors import DeadlineExceeded as _DeadlineExceeded
from offset.syscall import select as _proxied_select

__version__ = _original.__version__
__all__ = list(_original.__all__)

# psycopg's words for what is waited for, and for what there is.
_READ, _WRITE = 1, 2
_NOTHING = 0

_EVENTS = {
    _READ: _select.POLLIN,
    _WRITE: _select.POLLOUT,
    _READ | _WRITE: _select.POLLIN | _select.POLLOUT,
}

# An answer to a request to stop is waited for so long, in seconds, as psycopg does.
_PATIENCE = 5.0

# So often, in seconds, who waits for room and an answer at once looks whether the connection is still there.
_GLANCE = 0.1

_waiting: dict[int, _runtime.Fd] = {}


def _ready(known, milliseconds=0):
    """What a `poll` object says of its one descriptor, in psycopg's words."""
    found = _NOTHING
    for _, events in known.poll(milliseconds):
        if events & _select.POLLNVAL:
            raise _errors.OperationalError("connection socket closed")
        failed = events & (_select.POLLERR | _select.POLLHUP)
        if failed or events & _select.POLLIN:
            found |= _READ
        if failed or events & _select.POLLOUT:
            found |= _WRITE
    return found


def _wait_for(fileno, wanted, seconds):
    """Wait until what is wanted of a descriptor is there; tell what is, nothing when the time is over."""
    known = _select.poll()
    known.register(fileno, _EVENTS[wanted])
    found = _ready(known)
    if found or seconds == 0:
        return found & wanted
    if wanted == _READ | _WRITE:
        known = _proxied_select.poll()
        known.register(fileno, _EVENTS[wanted])
        return _ready(known, 1000 * (_GLANCE if seconds is None else min(seconds, _GLANCE)))
    deadline = None if seconds is None else _runtime.now() + seconds
    try:
        waiter = _waiting[fileno] = _runtime.Fd(fileno)
        try:
            wait = waiter.wait_read if wanted == _READ else waiter.wait_write
            while not found:
                wait(None if deadline is None else deadline - _runtime.now())
                found = _ready(known)
        finally:
            if _waiting.get(fileno) is waiter:
                del _waiting[fileno]
            waiter.close()
    except _DeadlineExceeded:
        raise
    except TimeoutError:
        return _ready(known) & wanted
    except OSError as error:
        raise _errors.OperationalError("connection socket closed") from error
    return found & wanted


def _drive(step, interval, timeout):
    """Drive a generator of psycopg's to its end and give what it returns.

    `step(found)` resumes it, and gives the descriptor and what is wanted of it. The generator is resumed after
    `interval` seconds at the latest, if there is an interval; it is given up after `timeout` seconds.
    """
    deadline = None if timeout is None else _runtime.now() + timeout
    try:
        fileno, wanted = step(None)
        while True:
            limits = [] if interval is None else [interval]
            if deadline is not None:
                limits.append(max(0.0, deadline - _runtime.now()))
            found = _wait_for(fileno, wanted, min(limits, default=None))
            fileno, wanted = step(found)
            if deadline is not None and _runtime.now() >= deadline:
                raise _errors._WaitTimeout("wait timeout expired")
    except StopIteration as end:
        return end.value


def _wait(gen, fileno, interval=None, timeout=None):
    """As psycopg's `waiting.wait`, with no interval unless it is told one."""
    return _drive(lambda found: (fileno, gen.send(found)), interval, timeout)


def _wait_conn(gen, interval=None, timeout=None):
    """As psycopg's `waiting.wait_conn`."""
    return _drive(gen.send, interval or None, timeout)


def _on_our_waits(function):
    """Give a function of psycopg's that is the same but waits in our way."""
    space = {**vars(_connection), "waiting": _types.SimpleNamespace(wait=_wait, wait_conn=_wait_conn)}
    made = _types.FunctionType(function.__code__, space, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return _functools.update_wrapper(made, function)


class Connection(_original.Connection):
    """A connection whose waits park only the goroutine. See `psycopg.Connection`."""

    __module__ = "offset.syscall.psycopg"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lock = _runtime.Lock()

    connect = classmethod(_on_our_waits(_original.Connection.connect.__func__))

    if hasattr(_original.Connection, "cancel_safe"):
        cancel_safe = _on_our_waits(_original.Connection.cancel_safe)

    def wait(self, gen, interval=None, timeout=None):
        """Consume a generator operating on the connection. See `psycopg.Connection.wait`.

        A goroutine that is cancelled in the middle asks the server to stop, as psycopg does on Ctrl-C, so that the
        connection can be used again; where that fails it is closed.
        """
        try:
            return _wait(gen, self.pgconn.socket, interval, timeout)
        except _errors.Error:
            raise
        except BaseException:
            if self.pgconn.transaction_status == _TransactionStatus.ACTIVE:
                self._stop(gen)
            raise

    def _stop(self, gen):
        """Have the server stop what it does, and take its answer."""
        try:
            self._try_cancel(timeout=_PATIENCE)
            _wait(gen, self.pgconn.socket, None, _PATIENCE)
        except _errors.QueryCanceled:
            pass
        except BaseException as error:
            # Its state is unknown.
            self.close()
            if not isinstance(error, Exception):
                raise

    def close(self):
        """Close the connection. See `psycopg.Connection.close`. Who waits on it gets OperationalError."""
        if not self.closed:
            waiter = _waiting.get(self.pgconn.socket)
            if waiter is not None:
                waiter.close()
        super().close()


connect = Connection.connect


def __getattr__(name):
    # Not what a module has of its own: by psycopg's `__path__` the import system would load its modules once more.
    if not name.startswith("__") and hasattr(_original, name):
        return getattr(_original, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


globals().update({name: getattr(_original, name) for name in __all__ if name not in globals()})
