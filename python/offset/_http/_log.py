"""The access log: a line for each request, in the format "combined" of Apache, and how long it took."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from offset import sync

if TYPE_CHECKING:
    from collections.abc import Callable

# What would end a field or a line, or move a terminal's cursor.
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f-\xff]')


def combined(remote: str, request: str, fields: tuple[str, str], status: int, sent: int, seconds: float) -> str:
    """Give the line of a request, without its end; `fields` are the headers Referer and User-Agent."""
    moment = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime())
    request, referer, agent = (_UNSAFE.sub(_escape, field) for field in (request, *fields))
    return f'{remote or "-"} - - [{moment}] "{request}" {status} {sent} "{referer}" "{agent}" {seconds:.6f}'


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


class Watched:
    """A file for lines that is opened anew once it was moved away or removed, as programs that rotate logs do.

    Raises OSError if it cannot be written or opened; the next line tries again.
    """

    def __init__(self, name: str) -> None:
        self._name = os.path.abspath(name)
        # Over the file and its number: one that is closed may be somebody else's at once.
        self._mutex = sync.Mutex()
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _is_there(self) -> bool:
        # First: who comes after the end gets the error.
        own = os.fstat(self._file)
        try:
            return os.path.samestat(os.stat(self._name), own)
        except FileNotFoundError:
            return False

    def write(self, text: str) -> None:
        """Write a line, with its end, in one piece: several processes may write to the file."""
        data = text.encode("utf-8", "backslashreplace")
        with self._mutex:
            if not self._is_there():
                old, self._file = self._file, self._open()
                os.close(old)
            while data:
                data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            old, self._file = self._file, -1
            os.close(old)


def logger(wanted: Any, line: Callable[[Any], str]) -> Callable[[Any], object] | None:
    """Give what is called with each `Access`: for True a `line` of it on stdout, for a file a line there."""
    if wanted is None or wanted is False:
        return None
    if wanted is True:
        return lambda access: print(line(access), file=sys.stdout, flush=True)
    if callable(getattr(wanted, "write", None)):
        return lambda access: wanted.write(line(access) + "\n")
    if callable(wanted):
        # What it takes cannot be looked at.
        return wanted  # type: ignore[no-any-return]
    raise TypeError(f"access_log is True, a file or a function, not {type(wanted).__name__}")
