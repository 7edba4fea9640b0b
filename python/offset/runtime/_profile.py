"""The block and mutex profiles in pprof's format: profile.proto, written by hand, compressed.

`go tool pprof` reads them, and so does whatever else reads pprof. The fields are numbered as in
https://github.com/google/pprof/blob/main/proto/profile.proto.
"""

from __future__ import annotations

import gzip
import os
import time
from typing import TYPE_CHECKING, BinaryIO, Generic, TypeVar

from offset import _runtime

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

    File = str | os.PathLike[str] | BinaryIO
    Record = tuple[int, int, list[tuple[CodeType, int]]]


_K = TypeVar("_K")


def block_profile(file: File) -> None:
    """Write where goroutines waited on channels, select and locks, and for how long (Go: the profile "block").

    To a path or a binary file, for `go tool pprof`. Says something once `set_block_profile_rate` was called. Raises
    OSError.
    """
    _write(file, encode(_runtime.profile_records(False)))


def mutex_profile(file: File) -> None:
    """Write where locks were given up that others waited for, and for how long they had (Go: the profile "mutex").

    To a path or a binary file, for `go tool pprof`. Says something once `set_mutex_profile_fraction` was called. Raises
    OSError.
    """
    _write(file, encode(_runtime.profile_records(True)))


def _write(file: File, data: bytes) -> None:
    if hasattr(file, "write"):
        file.write(data)
        return
    with open(file, "wb") as out:
        out.write(data)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    """A field with a number; zero is what a missing one means."""
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _bytes(field, b"".join(map(_varint, values)))


class _Table(Generic[_K]):
    """Numbers for what is named again and again, from `first` upwards."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.numbers: dict[_K, int] = {}

    def number(self, key: _K) -> int:
        return self.numbers.setdefault(key, len(self.numbers) + self.first)


def encode(records: list[Record]) -> bytes:
    """The profile of `records`: (count, nanoseconds, [(code, line), ...]), innermost frame first."""
    strings: _Table[str] = _Table(0)
    functions: _Table[tuple[str, str, int]] = _Table(1)
    locations: _Table[tuple[int, int]] = _Table(1)
    strings.number("")
    out = bytearray()
    for kind, unit in (("contentions", "count"), ("delay", "nanoseconds")):
        out += _bytes(1, _number(1, strings.number(kind)) + _number(2, strings.number(unit)))
    for count, nanos, stack in records:
        places = [locations.number((functions.number(_function(code)), max(line, 0))) for code, line in stack]
        out += _bytes(2, _packed(1, places) + _packed(2, (count, nanos)))
    for (function, line), number in locations.numbers.items():
        out += _bytes(4, _number(1, number) + _bytes(4, _number(1, function) + _number(2, line)))
    for (name, file, start), number in functions.numbers.items():
        text = strings.number(name)
        body = _number(1, number) + _number(2, text) + _number(3, text)
        out += _bytes(5, body + _number(4, strings.number(file)) + _number(5, start))
    period = _number(1, strings.number("contentions")) + _number(2, strings.number("count"))
    tail = _number(9, time.time_ns()) + _bytes(11, period) + _number(12, 1)
    out += tail + _number(14, strings.number("delay"))
    # After everything that has named one.
    for string in strings.numbers:
        out += _bytes(6, string.encode("utf-8", "backslashreplace"))
    return gzip.compress(bytes(out))


def _function(code: CodeType) -> tuple[str, str, int]:
    return code.co_qualname, code.co_filename, code.co_firstlineno
