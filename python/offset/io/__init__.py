"""Streams of bytes, as Go's packages `io` and `bufio`.

`pipe` is a synchronous pipe in memory. `copy`, `read_all`, `read_full` and the rest work on anything that has
`read(n) -> bytes` or `write(data) -> n`: pipes, connections, Python's own binary files. The end of a stream is
b"", again and again. Waiting parks the goroutine as far as the stream itself does that.
"""

from offset.io._buffered import BufferedReader, BufferedWriter
from offset.io._copy import LimitedReader, Reader, Writer, copy, discard, multi_writer, read_all, read_full, tee
from offset.io._errors import ClosedPipeError, IncompleteReadError, LineTooLongError
from offset.io._pipe import PipeReader, PipeWriter, pipe

__all__ = [
    "BufferedReader",
    "BufferedWriter",
    "ClosedPipeError",
    "IncompleteReadError",
    "LimitedReader",
    "LineTooLongError",
    "PipeReader",
    "PipeWriter",
    "Reader",
    "Writer",
    "copy",
    "discard",
    "multi_writer",
    "pipe",
    "read_all",
    "read_full",
    "tee",
]
