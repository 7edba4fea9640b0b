"""The exceptions of `offset.io`."""

from __future__ import annotations


class ClosedPipeError(BrokenPipeError, ValueError):
    """A pipe's end was used that is closed itself.

    An OSError, as for a connection, and a ValueError, as for a file.
    """

    __module__ = "offset.io"


class IncompleteReadError(EOFError):
    """A stream ended before all that was asked for had come.

    `partial` has the bytes that came, `expected` says how many were asked for, or is None where that is not known.
    """

    __module__ = "offset.io"

    def __init__(self, partial: bytes, expected: int | None = None) -> None:
        super().__init__(partial, expected)
        self.partial = partial
        self.expected = expected

    def __str__(self) -> str:
        wanted = "a delimiter" if self.expected is None else f"{self.expected} bytes"
        return f"the stream ended after {len(self.partial)} bytes, before {wanted}"


class LineTooLongError(ValueError):
    """A line, or what `read_until` looked for, is longer than allowed. What was read stays in the buffer."""

    __module__ = "offset.io"
