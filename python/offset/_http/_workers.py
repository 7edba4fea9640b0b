"""Processes that serve, and the one that starts them: `workers` and `reload`.

The parent listens and forks; it runs no goroutines, so nothing of a scheduler is copied. A child serves on the parent's
sockets, so that no connection is lost while it is replaced.

Invariants:

* Signal handlers of the parent only note what came; the loop acts.
* A child ends when its parent does, however that ends.
* Workers that were `told` end; of the others there are as many as there are to be. A successor (`replaces`) counts once
  it is ready, when it has the one before it told; until then that one counts: a broken program replaces nobody.
* Workers that end again and again are started later and later; if the first ends before it was ready, nothing is
  served.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING

from offset import _run
from offset._errors import DeadlockError
from offset._http import _reload, _serve

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from offset._http._serve import Options

# A worker's exit status when a file of the program has changed.
CHANGED = 75

# How long, in seconds, a worker is not started again that ended before it was ready: at first, and at most.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
# What a worker has, beyond the grace time for its requests, before it is killed.
_PATIENCE = 5.0

# What the parent looks after.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_PR_SET_PDEATHSIG = 1


class _Worker:
    """A process that serves."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        # It says by this that it is ready.
        self.pipe = pipe
        self.ready = False
        self.told = False
        # It is told to end when this one is ready.
        self.replaces: _Worker | None = None

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.told = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def supervise(options: Options, workers: int, reload: bool) -> None:
    """Run `workers` processes that serve, until SIGTERM or SIGINT."""
    options.multiprocess = workers > 1
    own = options.reuse_port and not any(address.startswith("unix:") for address in options.addresses)
    # With sockets of their own the parent must not listen: nobody would accept what the kernel gives to it.
    sockets = options.sockets(only_bound=own)
    # The files of Unix sockets go in the end.
    held = _serve.listeners_files(sockets)
    if not isinstance(options.app, str):
        options.application()
    parent = _Parent(options, workers, reload, sockets, own)
    try:
        parent.run()
    finally:
        for file in held:
            file.remove()
        for sock in sockets:
            sock.close()


class _Parent:
    def __init__(self, options: Options, workers: int, reload: bool, sockets: list[socket.socket], own: bool) -> None:
        self._options = options
        self._count = workers
        self._reload = reload
        self._sockets = sockets
        # Each worker listens by itself, so that the kernel shares the connections out.
        self._own = own
        self._workers: dict[int, _Worker] = {}
        self._came: list[int] = []
        self._pause = 0.0
        self._again = 0.0
        self._announced = False
        self._broken = False
        self._watcher: _reload.Watcher | None = None
        self._stopping: float | None = None

    # ---- the loop ----

    def run(self) -> None:
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        awake, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._awake = awake
        woken = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            while not (self._stopping is not None and not self._workers):
                self._step()
        finally:
            signal.set_wakeup_fd(woken)
            for worker in self._workers.values():
                worker.stop(signal.SIGKILL)
            self._reap(wait=True)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(awake)
            os.close(self._wake)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)

    def _step(self) -> None:
        now = time.monotonic()
        timeout = None
        if self._stopping is None and self._serving() < self._count:
            if self._broken:
                # What is wrong with the program is not put right by itself.
                timeout = 0.5
                if self._watcher is None or self._watcher.changed():
                    self._broken, self._again = False, now
            if not self._broken and now >= self._again:
                self._start()
                return
            timeout = timeout or max(0.0, self._again - now)
        if self._stopping is not None:
            timeout = max(0.0, self._stopping - now)
            if not timeout:
                for worker in self._workers.values():
                    worker.stop(signal.SIGKILL)
                self._stopping = now + _PATIENCE
        pipes = [worker.pipe for worker in self._workers.values() if not worker.ready]
        readable, _, _ = select.select([self._awake, *pipes], [], [], timeout)
        for worker in list(self._workers.values()):
            if worker.pipe in readable:
                self._heard(worker)
        if self._awake in readable:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._awake, 4096):
                    pass
        while self._came:
            self._act(self._came.pop(0))

    def _serving(self) -> int:
        return sum(not worker.told and worker.replaces is None for worker in self._workers.values())

    def _act(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            if self._stopping is not None:
                return
            # Those that are being replaced are so by a program that may be old by now, too.
            replaced = {worker.replaces for worker in self._workers.values()}
            for worker in list(self._workers.values()):
                if not worker.told and worker not in replaced:
                    self._start(worker)
        else:
            hurried = self._stopping is not None
            grace = self._options.grace
            self._stopping = time.monotonic() + (
                _PATIENCE if hurried else (1e6 if grace is None else grace + _PATIENCE)
            )
            for worker in self._workers.values():
                worker.stop()

    def _heard(self, worker: _Worker) -> None:
        """Take what a worker says, or that it ended before it could."""
        text = os.read(worker.pipe, 4096)
        worker.ready = True
        if text:
            self._pause = 0.0
            old, worker.replaces = worker.replaces, None
            while old is not None:
                old.stop()
                old = old.replaces
            if not self._announced:
                self._announced = True
                address = text.decode(errors="surrogateescape")
                if self._options.on_ready is not None:
                    self._options.on_ready(address)
                if self._options.ready is not None:
                    self._options.ready.send(address)

    def _reap(self, wait: bool = False) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1 if not wait else next(iter(self._workers)), 0 if wait else os.WNOHANG)
            except ChildProcessError:
                self._workers.clear()
                return
            if not pid:
                return
            worker = self._workers.pop(pid, None)
            if worker is None:
                continue
            if not worker.ready and select.select([worker.pipe], [], [], 0)[0]:
                self._heard(worker)
            os.close(worker.pipe)
            self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        for other in self._workers.values():
            if other.replaces is worker:
                other.replaces = worker.replaces
        if worker.told or self._stopping is not None:
            return
        if code == CHANGED:
            self._again = 0.0
            return
        if not self._announced and not self._reload:
            raise RuntimeError("the workers end before they serve; what they said is on stderr")
        self._say(f"worker {worker.pid} has ended with {f'status {code}' if code >= 0 else signal.Signals(-code).name}")
        if self._reload:
            self._broken = True
        else:
            self._wait_longer()

    def _wait_longer(self) -> None:
        self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
        self._again = time.monotonic() + self._pause

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{self._options.kind.name}: {text}\n")
        sys.stderr.flush()

    # ---- workers ----

    def _start(self, replaces: _Worker | None = None) -> None:
        read, write = os.pipe()
        # What changes from now on was not loaded, or is loaded as it is then.
        self._watcher = _reload.Watcher(everything=True) if self._reload else None
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # One that comes while the child has its parent's handlers would be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = -1
        try:
            pid = os.fork()
        except OSError as error:
            os.close(read)
            os.close(write)
            if not self._announced:
                raise
            # There may be room for one later; the others serve.
            self._say(f"a worker cannot be started: {error.strerror}")
            self._wait_longer()
            return
        finally:
            if pid:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if pid:
            os.close(write)
            self._workers[pid] = _Worker(pid, read)
            self._workers[pid].replaces = replaces
            return
        status = 1
        try:
            _end_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            # A terminal sends it to all of them; what becomes of the requests is the parent's to say.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for descriptor in (read, self._awake, self._wake, *(worker.pipe for worker in self._workers.values())):
                os.close(descriptor)
            status = self._be_worker(write)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if not isinstance(end.code, int | None):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _be_worker(self, pipe: int) -> int:
        options = self._options

        def on_ready(address: str) -> None:
            os.write(pipe, address.encode(errors="surrogateescape"))
            os.close(pipe)

        options.on_ready, options.ready = on_ready, None
        watcher = _reload.Watcher() if self._reload else None
        sockets = self._sockets
        if self._own:
            sockets = options.sockets_again(self._sockets)
        try:
            changed = _run.run(_serve.serve_worker, options, sockets, watcher)
        except DeadlockError:
            raise
        except Exception:
            # It was reported by the goroutine that it left.
            return 1
        return CHANGED if changed else 0


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process, gracefully, when its parent is gone."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
