"""What a live process answers to those who ask from outside, and how they ask.

The process listens at an abstract Unix socket (outside.rs says why); `ask` is the other side. A question is some
words, then the end; the answer is text in UTF-8, then the end. Both sides look who the other one is, as names of
sockets are anybody's.

Invariant: `answer` runs on a thread that is no goroutine's, attached for the time that it takes, and takes no lock
that a parked goroutine may hold.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING

from offset import _dump, _runtime

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = 8


class AskError(Exception):
    """The process cannot be asked; the text says why, and what to do."""


# ---- the process -------------------------------------------------------------------------------


def _dump_text() -> str:
    return f"{_dump.everything()}\n{_threads()}"


def _full_text() -> str:
    return f"{_dump.everything(group=False)}\n{_threads()}"


def _group_text() -> str:
    return f"{_dump.everything(group=True)}\n{_threads()}"


def _leaks_text() -> str:
    from offset import _leaks

    return f"{_leaks.leaks()}\n"


def _stats_text() -> str:
    import json

    return json.dumps(_runtime.stats()) + "\n"


def _live_text(*words: str) -> str:
    """Give what `offset top` shows: the summary, and the rows of `words[0]`, a table, that fit the other words."""
    import json

    from offset import _live

    result = _live.summary()
    looks = {"goroutines": _live.goroutines, "channels": _live.channels}
    if words and words[0] in looks:
        result[words[0]] = looks[words[0]]().choose(" ".join(words[1:]))
    return json.dumps(result) + "\n"


QUESTIONS: dict[str, Callable[..., str]] = {
    "dump": _dump_text,
    "full": _full_text,
    "group": _group_text,
    "leaks": _leaks_text,
    "live": _live_text,
    "stats": _stats_text,
}


def _threads() -> str:
    """Format the stacks of the plain threads."""
    goroutines = {goroutine.ident for goroutine in _runtime.all_goroutines()} | {threading.get_ident()}
    # Not `threading.enumerate`, which takes a lock; its register is in no stub.
    names = {ident: thread.name for ident, thread in threading._active.copy().items()}  # type: ignore[attr-defined]
    frames = {ident: frame for ident, frame in sys._current_frames().items() if ident not in goroutines}
    return "\n".join(f"thread {names.get(ident, ident)}:\n{_dump.frames(frame)}" for ident, frame in frames.items())


def answer(question: bytes) -> bytes:
    """Answer a question. What goes wrong is the answer, too."""
    try:
        word, *rest = question.decode().split() or [""]
        if word not in QUESTIONS or (rest and word != "live"):
            text = f"this process cannot say {' '.join([word, *rest])!r}; it knows {', '.join(QUESTIONS)}\n"
        else:
            text = QUESTIONS[word](*rest)
    except BaseException as error:
        text = f"the process could not answer: {_dump.exception(error)}"
    return text.encode(errors="backslashreplace")


# ---- who asks ----------------------------------------------------------------------------------


def ask(pid: int, question: str, timeout: float = 10.0) -> str:
    """Ask the process `pid` and give its answer. Raises AskError if that is not possible, with the reason."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        raise AskError(f"there is no process {pid}") from None
    if owner != os.geteuid() and os.geteuid() != 0:
        raise AskError(f"process {pid} belongs to user {owner}: ask as that user, or as root")
    inside = _number_inside(pid)
    for name in [f"\0offset-{inside}", *(f"\0offset-{inside}-{index}" for index in range(1, _NAMES))]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(name)
            except OSError:
                continue
            size = struct.calcsize("3i")
            peer, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            if peer != pid:
                continue
            try:
                connection.sendall(question.encode())
                connection.shutdown(socket.SHUT_WR)
                parts = []
                while part := connection.recv(1 << 16):
                    parts.append(part)
            except TimeoutError:
                raise AskError(
                    f"process {pid} has not answered in {timeout:g} s: something keeps the GIL, perhaps a call in C; "
                    "py-spy dump --native or gdb show what"
                ) from None
            except OSError as error:
                raise AskError(f"process {pid} has broken off: {error}") from None
            if not parts:
                raise AskError(f"process {pid} gave no answer: it is about to exit, or belongs to another user")
            return b"".join(parts).decode(errors="replace")
    raise AskError(
        f"process {pid} does not listen: it has started no goroutine yet, runs with OFFSET_DUMP=off, "
        "or is in another network namespace (ask from inside its container)"
    )


def _number_inside(pid: int) -> int:
    """Give the number by which the process knows itself, in its own namespace."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except (OSError, ValueError):
        pass
    return pid
