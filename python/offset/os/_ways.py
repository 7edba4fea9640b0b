"""How the operations of a file wait: in the poller, or on a thread of the blocking pool.

* `Polled`: a pipe, a FIFO or a terminal that was opened here. Nobody shares it, so it is non-blocking, and an operation
  tries, and parks in the poller if there is nothing.
* `Numbered`: everything else, which is left as it is. Plain files are read from the page cache where Linux lets that be
  asked for, and are otherwise read and written in the pool. Whatever the poller takes is waited for there first.

`O_NONBLOCK` belongs to the open file, which others may share: setting it on standard input makes the shell that started
us, and whatever else it started, fail with EAGAIN. Go has such files block a thread (and puts those that are handed on
back to blocking). Opening /proc/self/fd/0 anew would make an open file of our own, but needs permissions that we may
not have after `su`, keeps a pipe open that the program closes or redirects by its number, and gives a plain file
another position. So what is shared stays blocking, and is used by its number: a call is made when the poller says that
it will not wait, with RWF_NOWAIT where the kernel knows that (pipes, page cache), else in the pool, since somebody else
may have been faster. A wait registers anew, so it heeds `dup2`.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from offset import _runtime
from offset._errors import DeadlineExceeded, note_written, noted_written

if TYPE_CHECKING:
    from collections.abc import Callable

    T = TypeVar("T")

READ, WRITE = 0, 1

_EVENTS = (select.POLLIN | select.POLLPRI, select.POLLOUT)
_WHAT = ("read", "write")

# As much is read, and written, by one call in the pool.
_MOST = 1 << 20
# The kernel has room for so much in a pipe or terminal that can be written to.
_PIECE = 4096


class Polled(_runtime.Stream):
    """The operations of a non-blocking descriptor of our own."""

    _name = ""

    def __init__(self, number: int) -> None:
        self.deadlines: list[float | None] = [None, None]

    def wait(self, direction: int) -> None:
        """Wait until something may be possible."""
        (self._wait_read, self._wait_write)[direction]()

    def stop(self) -> None:
        """Let all operations fail, those that wait too."""
        self._close()

    def set_deadlines(self, when: float | None, *directions: int) -> None:
        """Let operations fail from `when` on."""
        for direction in directions:
            (self.set_read_deadline, self.set_write_deadline)[direction](when)
            self.deadlines[direction] = when


class Numbered:
    """The operations of a descriptor that others may share."""

    def __init__(
        self,
        descriptor: _runtime.Descriptor,
        name: str,
        pollable: bool,
        deadlines: list[float | None] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._name = name
        # Until the poller says otherwise.
        self.pollable = pollable
        # Whether the kernel knows of attempts that do not wait; by direction, as are the deadlines.
        self._attempts = [True, True]
        self._deadlines = deadlines or [None, None]
        self._waiting: dict[_runtime.Fd, int] = {}
        # One whole write at a time.
        self._writing = _runtime.Mutex()
        # What a thread of the pool has read for somebody who had given up by then. Under the lock, as is a `_Read`.
        self._left = b""
        self._lock = _runtime.Mutex()

    # Reading and writing.

    def read(self, n: int) -> bytes:
        """Read up to `n` bytes, at least one; b"" at the end."""
        while True:
            self._check(READ)
            if self._left:
                data = self._take_left(n)
            elif self._attempts[READ]:
                data = self._attempt(READ, n)
            else:
                data = None
            if isinstance(data, bytes):
                return data
            if self._may_proceed(READ):
                try:
                    return self._read_in_pool(min(n, _MOST))
                except BlockingIOError:
                    # It is non-blocking, as others have made it, and somebody was faster.
                    continue

    def _take_left(self, n: int) -> bytes | None:
        with self._lock:
            data, self._left = self._left[:n], self._left[n:]
            return data or None

    def _read_in_pool(self, n: int) -> bytes:
        """Read in the pool. What is read for a goroutine that has been cancelled meanwhile is the next one's."""
        if not self.pollable:
            return self.pool(READ, os.read, n)
        read = _Read()
        try:
            return self.pool(READ, self._read_for, n, read)
        except BaseException:
            with self._lock:
                read.given_up = True
                self._left += read.data
            raise

    def _read_for(self, number: int, n: int, read: _Read) -> bytes:
        data = os.read(number, n)
        with self._lock:
            if not read.given_up:
                read.data = data
                return data
            self._left += data
        # Those who wait for the poller look there.
        self.stop()
        return b""

    def read_at(self, n: int, offset: int) -> bytes:
        """Read `n` bytes from `offset` on, fewer at the end only."""
        self._check(READ)
        if self._attempts[READ]:
            data = self._attempt(READ, n, offset)
            if isinstance(data, bytes) and len(data) in (0, n):
                return data
        return self.pool(READ, _read_at, n, offset)

    def write(self, data: bytes) -> int:
        """Write all of `data`. The exception of a write that was cut short has `characters_written`."""
        done = 0
        with self._writing:
            self._check(WRITE)
            try:
                while done < len(data):
                    done += self._write_some(memoryview(data)[done:])
            except BaseException as error:
                note_written(error, done + noted_written(error))
                raise
        return done

    def _write_some(self, data: memoryview) -> int:
        while True:
            self._check(WRITE)
            if self._attempts[WRITE]:
                count = self._attempt(WRITE, data)
                if isinstance(count, int):
                    return count
            if self._may_proceed(WRITE):
                try:
                    # Little by little where it may take long, so that deadlines and a close are heeded in between.
                    return self.pool(WRITE, os.write, data[:_PIECE] if self.pollable else data[:_MOST])
                except BlockingIOError:
                    continue

    def write_at(self, data: bytes, offset: int) -> int:
        """Write all of `data` at `offset`."""
        return self.pool(WRITE, _write_at, data, offset)

    # Waiting.

    def _check(self, direction: int) -> None:
        if self._descriptor.closed:
            self._fail(direction)
        when = self._deadlines[direction]
        if when is not None and when <= _runtime.now():
            self._late(direction)

    def _attempt(self, direction: int, *args: Any) -> Any:
        """Make an attempt that does not wait; None or NotImplemented if it gave nothing."""
        call = self._descriptor.read_now if direction == READ else self._descriptor.write_now
        try:
            result = call(*args)
        except DeadlineExceeded:
            raise
        except OSError as error:
            self._fail(direction, error)
        if result is NotImplemented:
            self._attempts[direction] = False
        return result

    def _may_proceed(self, direction: int) -> bool:
        """Wait for the poller; whether a call may be made now, and not an attempt."""
        if not self.pollable:
            return True
        if not self._attempts[direction] and self.ready(direction):
            return True
        return not self.wait(direction)

    def ready(self, direction: int) -> bool:
        """Whether a call would not wait."""
        number = self._descriptor.acquire()
        try:
            known = select.poll()
            known.register(max(number, 0), _EVENTS[direction])
            return number < 0 or bool(known.poll(0))
        finally:
            if number >= 0:
                self._leave()

    def wait(self, direction: int) -> bool:
        """Wait until something may be possible; False if the poller does not take such files."""
        number = self._descriptor.acquire()
        if number < 0:
            self._fail(direction)
        try:
            try:
                waiter = _runtime.Fd(number)
            except OSError:
                self.pollable = False
                return False
            self._waiting[waiter] = direction
            try:
                # Somebody may have changed either before it was known to him, or left something.
                self._check(direction)
                if direction == READ and self._left:
                    return True
                when = None
                while when != self._deadlines[direction]:
                    when = self._deadlines[direction]
                    waiter.set_deadline(when)
                (waiter.wait_read if direction == READ else waiter.wait_write)()
            except DeadlineExceeded:
                raise
            except TimeoutError:
                self._late(direction)
            except OSError as error:
                # Otherwise it was woken to look at something.
                if self._descriptor.closed or not waiter.closed:
                    self._fail(direction, error)
            finally:
                del self._waiting[waiter]
                waiter.close()
        finally:
            self._leave()
        return True

    def set_deadlines(self, when: float | None, *directions: int) -> None:
        """Let operations fail from `when` on; OSError if the poller does not take such files."""
        if self._descriptor.closed:
            self._fail(None)
        if not (self.pollable and self._takes()):
            raise OSError(errno.ENOTSUP, f"set a deadline of {self._name}: plain files have none")
        for direction in directions:
            self._deadlines[direction] = when
        for waiter, direction in list(self._waiting.items()):
            if direction in directions:
                waiter.set_deadline(when)

    def _takes(self) -> bool:
        """Whether the poller takes it."""
        number = self._descriptor.acquire()
        try:
            _runtime.Fd(number).close()
        except OSError:
            self.pollable = False
        finally:
            if number >= 0:
                self._leave()
        return self.pollable

    def stop(self) -> None:
        """Wake all who wait, to look whether the descriptor is closed, or something left."""
        for waiter in list(self._waiting):
            waiter.close()

    # In the pool.

    def pool(self, direction: int | None, function: Callable[..., T], *args: Any) -> T:
        """Call `function(number, *args)` in the blocking pool."""
        try:
            result: T = _runtime.blocking(self.use, function, args)
            return result
        except (BlockingIOError, DeadlineExceeded):
            raise
        except OSError as error:
            self._fail(direction, error)

    def use(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        """Call `function(number, *args)`. It goes on if its goroutine gives it up, so it keeps the number open."""
        number = self._descriptor.acquire()
        if number < 0:
            raise OSError(errno.EBADF, "closed")
        try:
            return function(number, *args)
        finally:
            self._leave()

    def _leave(self) -> None:
        number = self._descriptor.release()
        if number >= 0:
            os.close(number)

    # Failing.

    def _fail(self, direction: int | None, error: OSError | None = None) -> NoReturn:
        what = None if direction is None else _WHAT[direction]
        raise named(error, what, self._name, self._descriptor.closed) from None

    def _late(self, direction: int) -> NoReturn:
        raise TimeoutError(errno.ETIMEDOUT, f"{_WHAT[direction]} {self._name}: timed out") from None


class _Read:
    """A read in the pool: what came, and whether its goroutine has given it up."""

    __slots__ = ("data", "given_up")

    def __init__(self) -> None:
        self.data = b""
        self.given_up = False


def named(error: OSError | None, what: str | None, name: str, closed: bool) -> OSError:
    """Make the exception that says what happened to which file."""
    what = "use" if what is None else what
    if error is None or (closed and error.errno == errno.EBADF):
        return OSError(errno.EBADF, f"{what} {name}: closed")
    if error.errno is None:
        return error
    made = OSError(error.errno, f"{what} {name}: {os.strerror(error.errno)}")
    if hasattr(error, "characters_written"):
        note_written(made, noted_written(error))
    return made


# What runs in the pool.


def _read_at(number: int, n: int, offset: int) -> bytes:
    parts = []
    while n > 0 and (part := os.pread(number, min(n, _MOST), offset)):
        parts.append(part)
        n -= len(part)
        offset += len(part)
    return b"".join(parts)


def _write_at(number: int, data: bytes, offset: int) -> int:
    view, done = memoryview(data), 0
    try:
        while done < len(view):
            done += os.pwrite(number, view[done : done + _MOST], offset + done)
    except OSError as error:
        note_written(error, done)
        raise
    return done
