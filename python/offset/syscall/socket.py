"""The standard module `socket` for goroutines: calls that would block park only the goroutine.

Every name of the original is here, with its signature and its exceptions. A `socket` is one of the original's, too, and
works in plain threads as that does. What looks names up is done in the blocking pool.

Invariants: the descriptor is non-blocking until it is detached, and the original's own timeout is 0, so none of its
calls blocks; `_limit` is the timeout that the user sees. `_waiter` is made when it is needed first, and closed before
the descriptor is.
"""

from __future__ import annotations

import contextlib as _contextlib
import errno as _errno
import functools as _functools
import os as _os
import socket as _original

from offset import _runtime
from offset._errors import DeadlineExceeded as _DeadlineExceeded
from offset.syscall import _rebind

_AF_INET, _AF_INET6, _AF_UNIX = _original.AF_INET, _original.AF_INET6, _original.AF_UNIX
# Plain integers: the operators of the enum are functions of Python's.
_MSG_DONTWAIT, _MSG_WAITALL = int(_original.MSG_DONTWAIT), int(_original.MSG_WAITALL)
# Such a read leaves what it reads where it is, or is of something else.
_MSG_NO_PLAIN_READ = int(_original.MSG_PEEK | _original.MSG_OOB | getattr(_original, "MSG_ERRQUEUE", 0))

# Those whose addresses `Fd.recvfrom` knows.
_FAMILIES = frozenset({_AF_INET, _AF_INET6, _AF_UNIX})

_Plain = _original.socket

# A connect that goes on; for Unix sockets EAGAIN says that the queue is full.
_UNDER_WAY = frozenset({_errno.EINPROGRESS, _errno.EALREADY, _errno.EWOULDBLOCK, _errno.EINTR})


_NUMBERS = (int, float)

# Between them the original takes a timeout as it is; others it rounds or refuses.
_SHORTEST, _LONGEST = 1e-6, 1e6


class socket(_Plain):
    """A socket whose calls park only the goroutine. See `socket.socket`."""

    __slots__ = ("_limit", "_passed_on", "_waiter")

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        super().__init__(family, type, proto, fileno)
        self._limit = super().gettimeout()
        # Whether one of this class gets the descriptor.
        self._passed_on = False
        self._waiter = None
        super().setblocking(False)

    # Waiting.

    def _fd(self):
        waiter = self._waiter
        if waiter is None:
            number = self.fileno()
            if number < 0:
                raise OSError(_errno.EBADF, _os.strerror(_errno.EBADF))
            waiter = self._waiter = _runtime.Fd(number)
        return waiter

    def _reading(self, flags, operation, *args):
        """Call `operation(*args)`, again each time that something has come, until it does not block."""
        return self._patient(_runtime.Fd.wait_read, flags, operation, args)

    def _writing(self, flags, operation, *args):
        """Call `operation(*args)`, again each time that there is room, until it does not block."""
        return self._patient(_runtime.Fd.wait_write, flags, operation, args)

    def _patient(self, wait, flags, operation, args):
        limit = self._limit
        if limit == 0.0 or flags & _MSG_DONTWAIT:
            return operation(*args)
        deadline = None if limit is None else _runtime.now() + limit
        while True:
            try:
                return operation(*args)
            except BlockingIOError:
                pass
            wait(self._fd(), None if deadline is None else deadline - _runtime.now())

    # Timeouts.

    def settimeout(self, value, /):
        # The original would have the system change the descriptor's mode, to what is then undone.
        if self.fileno() >= 0:
            if value is None:
                self._limit = None
                return
            if type(value) in _NUMBERS and (value == 0 or _SHORTEST <= value <= _LONGEST):
                self._limit = float(value)
                return
        super().settimeout(value)
        self._limit = super().gettimeout()
        super().setblocking(False)

    def gettimeout(self):
        return self._limit

    @property
    def timeout(self):
        return self._limit

    def setblocking(self, flag, /):
        # With a system call, which says whether there is a descriptor.
        super().setblocking(False)
        self._limit = None if flag else 0.0

    def getblocking(self):
        return self._limit != 0.0

    # Reading.

    def recv(self, bufsize, flags=0, /):
        limit = self._limit
        if limit == 0.0 or flags & _MSG_DONTWAIT:
            return super().recv(bufsize, flags)
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        if flags & _MSG_WAITALL and self._waits_for_all(flags):
            buffer = bytearray(bufsize)
            return bytes(buffer[: self._fill(memoryview(buffer), flags)])
        return (self._waiter or self._fd()).recv(bufsize, flags, limit)

    def recv_into(self, buffer, nbytes=0, flags=0):
        limit = self._limit
        if limit == 0.0 or flags & _MSG_DONTWAIT:
            return super().recv_into(buffer, nbytes, flags)
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        if flags & _MSG_WAITALL and self._waits_for_all(flags):
            with memoryview(buffer) as view, view.cast("B") as octets:
                if nbytes > len(octets):
                    raise ValueError("buffer too small for requested bytes")
                with octets[: nbytes or len(octets)] as wanted:
                    return self._fill(wanted, flags)
        return (self._waiter or self._fd()).recv_into(buffer, nbytes, flags, limit)

    def _waits_for_all(self, flags):
        """Whether a read with MSG_WAITALL waits: the original's does unless it has a timeout."""
        return self._limit is None and self.type == _original.SOCK_STREAM and not flags & _MSG_NO_PLAIN_READ

    def _fill(self, view, flags):
        """Read until a buffer is full or the end comes."""
        filled = 0
        while filled < len(view):
            with view[filled:] as rest:
                count = self._fd().recv_into(rest, 0, flags & ~_MSG_WAITALL, None)
            if not count:
                break
            filled += count
        return filled

    def recvfrom(self, bufsize, flags=0, /):
        limit = self._limit
        if limit == 0.0 or flags & _MSG_DONTWAIT or self.family not in _FAMILIES:
            return self._reading(flags, super().recvfrom, bufsize, flags)
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        return (self._waiter or self._fd()).recvfrom(bufsize, flags, limit)

    def recvfrom_into(self, buffer, nbytes=0, flags=0):
        return self._reading(flags, super().recvfrom_into, buffer, nbytes, flags)

    def recvmsg(self, bufsize, ancbufsize=0, flags=0, /):
        return self._reading(flags, super().recvmsg, bufsize, ancbufsize, flags)

    def recvmsg_into(self, buffers, ancbufsize=0, flags=0, /):
        # What can be gone through once only may be needed again.
        return self._reading(flags, super().recvmsg_into, list(buffers), ancbufsize, flags)

    # Writing.

    def send(self, data, flags=0, /):
        limit = self._limit
        if limit == 0.0 or flags & _MSG_DONTWAIT:
            return super().send(data, flags)
        return (self._waiter or self._fd()).send(data, flags, limit)

    def sendall(self, data, flags=0, /):
        limit = self._limit
        if limit == 0.0 or flags & _MSG_DONTWAIT:
            return super().sendall(data, flags)
        (self._waiter or self._fd()).sendall(data, flags, limit)
        return None

    def sendto(self, data, *args):
        if args and isinstance(args[-1], tuple) and self.family in (_AF_INET, _AF_INET6):
            args = (*args[:-1], self._found(args[-1]))
        flags = args[0] if len(args) > 1 and isinstance(args[0], int) else 0
        return self._writing(flags, super().sendto, data, *args)

    def sendmsg(self, buffers, ancdata=(), flags=0, address=None, /):
        return self._writing(flags, super().sendmsg, list(buffers), list(ancdata), flags, address)

    if hasattr(_Plain, "sendmsg_afalg"):

        def sendmsg_afalg(self, msg=(), *, op, iv=None, assoclen=None, flags=0):
            keywords = {"op": op, "flags": flags}
            if iv is not None:
                keywords["iv"] = iv
            if assoclen is not None:
                keywords["assoclen"] = assoclen
            return self._writing(flags, _functools.partial(super().sendmsg_afalg, msg, **keywords))

    def _sendfile_use_sendfile(self, file, offset=0, count=None):
        self._check_sendfile_params(file, offset, count)
        try:
            number = file.fileno()
            size = _os.fstat(number).st_size
        except (AttributeError, OSError) as error:
            raise _original._GiveupOnSendfile(error) from None
        if not size:
            return 0
        if self._limit == 0.0:
            raise ValueError("non-blocking sockets are not supported")
        total = 0
        try:
            while count is None or total < count:
                chunk = min((count or size) - total if count else size, 1 << 30)
                try:
                    sent = self._writing(0, _os.sendfile, self.fileno(), number, offset + total, chunk)
                except TimeoutError:
                    raise
                except OSError as error:
                    if total == 0:
                        # It may be no file that can be sent so.
                        raise _original._GiveupOnSendfile(error) from None
                    raise
                if sent == 0:
                    break
                total += sent
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset + total)
        return total

    # Connecting.

    def _found(self, address):
        """Give an address whose host's name has been looked up where that stops nobody."""
        host = address[0] if address else None
        if not isinstance(host, str) or not host or _literal(host):
            return address
        if host in ("<broadcast>", "255.255.255.255"):
            return address
        found = getaddrinfo(host, None, self.family, self.type, self.proto)
        return (found[0][4][0], *address[1:]) if len(address) > 2 else (found[0][4][0], address[1])

    def _finish_connect(self, address):
        """Connect, and give the number of the error, 0 for none."""
        if isinstance(address, tuple) and self.family in (_AF_INET, _AF_INET6) and len(address) > 1:
            address = self._found(address)
        result = super().connect_ex(address)
        limit = self._limit
        if result not in _UNDER_WAY or limit == 0.0:
            return result
        deadline = None if limit is None else _runtime.now() + limit
        while result == _errno.EAGAIN and self.family == _AF_UNIX:
            # The listener's queue is full, and the system does not tell when it has room.
            if deadline is not None and _runtime.now() >= deadline:
                return _TIMED_OUT
            _runtime.sleep(0.002)
            result = super().connect_ex(address)
        while result in _UNDER_WAY:
            try:
                self._fd().wait_write(None if deadline is None else deadline - _runtime.now())
            except _DeadlineExceeded:
                raise
            except TimeoutError:
                return _TIMED_OUT
            result = self.getsockopt(_original.SOL_SOCKET, _original.SO_ERROR)
            if result == 0:
                # An edge may come before the end.
                result = super().connect_ex(address)
        return 0 if result == _errno.EISCONN else result

    def connect(self, address, /):
        result = self._finish_connect(address)
        if result == _TIMED_OUT:
            raise TimeoutError("timed out")
        if result:
            raise OSError(result, _os.strerror(result))

    def connect_ex(self, address, /):
        result = self._finish_connect(address)
        return _errno.EAGAIN if result == _TIMED_OUT else result

    def accept(self):
        number, address = self._reading(0, self._accept)
        made = socket(self.family, self.type, self.proto, fileno=number)
        # As the original: it blocks unless there is a default, whatever this one does.
        if _original.getdefaulttimeout() is None and self._limit:
            made.setblocking(True)
        return made, address

    # The end.

    def _real_close(self, _ss=_Plain):
        if self._waiter is not None:
            self._waiter.close()
        super()._real_close()

    def detach(self):
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
        if self._limit is None and not self._passed_on and self.fileno() >= 0:
            # Whoever gets the descriptor expects it as the original leaves it (`multiprocessing` does). One that
            # somebody has closed is given away all the same.
            with _contextlib.suppress(OSError):
                super().setblocking(True)
        return super().detach()


_TIMED_OUT = -1


def _literal(host):
    for family in (_AF_INET, _AF_INET6):
        try:
            _original.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _looked_up(function):
    """Make a function of the original's that looks names up one that stops nobody."""

    @_functools.wraps(function)
    def look_up(*args, **kwargs):
        try:
            if _runtime.current() is None:
                return function(*args, **kwargs)
            return _runtime.blocking(function, *args, **kwargs)
        finally:
            # The traceback of an exception, which lives as long as that, keeps no argument alive.
            del args, kwargs

    return look_up


gethostbyname = _looked_up(_original.gethostbyname)
gethostbyname_ex = _looked_up(_original.gethostbyname_ex)
gethostbyaddr = _looked_up(_original.gethostbyaddr)
getnameinfo = _looked_up(_original.getnameinfo)


@_functools.wraps(_original.getaddrinfo)
def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    numeric = host is None or (isinstance(host, str) and _literal(host))
    if numeric or _runtime.current() is None:
        return _original.getaddrinfo(host, port, family, type, proto, flags)
    return _runtime.blocking(_original.getaddrinfo, host, port, family, type, proto, flags)


_rebind.rebind(
    _original,
    globals(),
    replace={
        "socket": socket,
        "getaddrinfo": getaddrinfo,
        "gethostbyaddr": gethostbyaddr,
        "gethostbyname": gethostbyname,
        "gethostbyname_ex": gethostbyname_ex,
        "getnameinfo": getnameinfo,
    },
    keep=["SocketType"],
)
