"""`wsgi.input`: the body of a request as a file.

Invariants:

* `_http` is None when there is nothing more to read, and once the request is over: what keeps an input reads nothing of
  the next one.
* `_buffer` has what was read for a line and came after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offset._runtime import Http

# As much is asked for at once.
_PIECE = 65_536


class Input:
    """The body of a request: `read`, `readline`, `readlines` and iteration, as PEP 3333 has them.

    A body that is broken, too long or too slow raises `RequestError`; reads past its end give `b""`.
    """

    __slots__ = ("_buffer", "_http")

    def __init__(self, http: Http | None) -> None:
        self._http = http
        self._buffer = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or all of it; fewer only at its end."""
        if size is None or size < 0:
            return self._read_all()
        parts = [self._buffer[:size]]
        self._buffer = self._buffer[size:]
        left = size - len(parts[0])
        while left > 0 and (part := self._more(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def read1(self, size: int | None = -1, /) -> bytes:
        """Read what there is, up to `size` bytes; wait only if there is nothing."""
        most = _PIECE if size is None or size < 0 else size
        if self._buffer:
            data, self._buffer = self._buffer[:most], self._buffer[most:]
            return data
        return self._more(most) if most else b""

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Read what there is into a buffer, and give the number of bytes."""
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.read1(len(octets))
            octets[: len(data)] = data
            return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to the end of a line, and up to `size` bytes."""
        most = None if size is None or size < 0 else size
        parts: list[bytes] = []
        length = 0
        while most is None or length < most:
            part = self._buffer or self._more(_PIECE)
            if not part:
                break
            end = part.find(b"\n") + 1 or len(part)
            if most is not None:
                end = min(end, most - length)
            self._buffer = part[end:]
            parts.append(part[:end])
            length += end
            if parts[-1].endswith(b"\n"):
                break
        return b"".join(parts)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Read all lines, or as many as have `hint` bytes."""
        lines: list[bytes] = []
        total = 0
        while line := self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def stats(self) -> dict[str, object]:
        """Tell about it: whether there may be more to read, and how many bytes were read ahead."""
        return {"open": self._http is not None, "buffered": len(self._buffer)}

    def _read_all(self) -> bytes:
        parts = [self._buffer]
        self._buffer = b""
        while part := self._more(_PIECE):
            parts.append(part)
        return b"".join(parts)

    def _more(self, size: int) -> bytes:
        if self._http is None:
            return b""
        data = self._http.read_body(size)
        if not data:
            self._http = None
        return data

    def _end(self) -> None:
        """Give nothing any more: the request is over."""
        self._http = None
        self._buffer = b""


# Of all requests without a body.
EMPTY = Input(None)
