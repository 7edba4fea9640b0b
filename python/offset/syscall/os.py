"""`os` whose calls that wait park only the goroutine: reads and writes of pipes, terminals and sockets, and waits
for processes. A signal that somebody sends to the own process has been handled when `kill` returns. Everything else is
the original's.

A descriptor is waited for before the call, which is the original's and may find it empty again, if somebody else was
faster; then it blocks as any call does. Plain files are always ready. A child that has a pidfd is waited for by it, any
child in the blocking pool.
"""

import os as _original
import select as _select

from offset import _runtime
from offset.syscall import _rebind
from offset.syscall._main import on_main as _on_main
from offset.syscall._main import settle as _settle


def _wait(number, event, wait):
    """Wait, in a goroutine, until a descriptor is ready for an event of `select.poll`, or has failed."""
    if _runtime.current() is None or not isinstance(number, int):
        return
    known = _select.poll()
    known.register(number, event)
    if known.poll(0):
        return
    try:
        waiter = _runtime.Fd(number)
    except OSError:
        # Nothing that can be waited for: the call says what it is.
        return
    try:
        while not known.poll(0):
            wait(waiter)
    finally:
        waiter.close()


def _reading(number):
    _wait(number, _select.POLLIN | _select.POLLPRI, _runtime.Fd.wait_read)


def _writing(number):
    _wait(number, _select.POLLOUT, _runtime.Fd.wait_write)


def _blocks(number):
    try:
        return _original.get_blocking(number)
    except (OSError, TypeError, OverflowError):
        return False


def read(fd, length, /):
    """Read from a descriptor. See `os.read`."""
    if _blocks(fd):
        _reading(fd)
    return _original.read(fd, length)


def write(fd, data, /):
    """Write to a descriptor. See `os.write`."""
    if _blocks(fd):
        _writing(fd)
    return _original.write(fd, data)


def readv(fd, buffers, /):
    """Read from a descriptor into buffers. See `os.readv`."""
    if _blocks(fd):
        _reading(fd)
    return _original.readv(fd, buffers)


def writev(fd, buffers, /):
    """Write buffers to a descriptor. See `os.writev`."""
    if _blocks(fd):
        _writing(fd)
    return _original.writev(fd, buffers)


def sendfile(out_fd, in_fd, offset, count, *args, **kwargs):
    """Copy from a descriptor to another. See `os.sendfile`."""
    if _blocks(out_fd):
        _writing(out_fd)
    return _original.sendfile(out_fd, in_fd, offset, count, *args, **kwargs)


def splice(src, dst, count, *args, **kwargs):
    """Move data between two descriptors, of which one is a pipe. See `os.splice`."""
    if _blocks(src) and kwargs.get("offset_src") is None and not args:
        _reading(src)
    if _blocks(dst) and kwargs.get("offset_dst") is None and len(args) < 2:
        _writing(dst)
    return _original.splice(src, dst, count, *args, **kwargs)


def _await_child(pid):
    """Wait, in a goroutine, for the end of a child that has a number; whether it could be waited for so."""
    try:
        number = _original.pidfd_open(pid)
    except (AttributeError, OSError):
        return False
    try:
        waiter = _runtime.Fd(number)
    except OSError:
        _original.close(number)
        return False
    try:
        known = _select.poll()
        known.register(number, _select.POLLIN)
        while not known.poll(0):
            waiter.wait_read()
    finally:
        waiter.close()
        _original.close(number)
    return True


def _wait_for(call, pid, options, *args):
    if _runtime.current() is None or options & _original.WNOHANG:
        return call(*args)
    if options == 0 and isinstance(pid, int) and pid > 0 and _await_child(pid):
        return call(*args)
    return _runtime.blocking(call, *args)


def waitpid(pid, options, /):
    """Wait for a child. See `os.waitpid`."""
    return _wait_for(_original.waitpid, pid, options, pid, options)


def wait():
    """Wait for any child. See `os.wait`."""
    return _wait_for(_original.wait, -1, 0)


def wait3(options):
    """Wait for any child. See `os.wait3`."""
    return _wait_for(_original.wait3, -1, options, options)


def wait4(pid, options):
    """Wait for a child. See `os.wait4`."""
    return _wait_for(_original.wait4, pid, options, pid, options)


def waitid(idtype, id, options, /):
    """Wait for a child. See `os.waitid`."""
    return _wait_for(_original.waitid, -1, options, idtype, id, options)


def system(command):
    """Run a shell's command. See `os.system`."""
    if _runtime.current() is None:
        return _original.system(command)
    return _runtime.blocking(_original.system, command)


def kill(pid, signal, /):
    """Send a signal to a process. See `os.kill`: one to this process has been handled when it returns."""
    if pid == _original.getpid():
        _on_main(_original.kill, pid, signal)
        _settle()
    else:
        _original.kill(pid, signal)


_rebind.rebind(
    _original,
    globals(),
    replace={
        _name: globals()[_name]
        for _name in (
            "kill",
            "read",
            "readv",
            "sendfile",
            "splice",
            "system",
            "wait",
            "wait3",
            "wait4",
            "waitid",
            "waitpid",
            "write",
            "writev",
        )
        if hasattr(_original, _name)
    },
)
