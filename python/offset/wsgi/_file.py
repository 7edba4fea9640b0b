"""`wsgi.file_wrapper`: a file as the body of a response."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from offset import _runtime
from offset._errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offset._runtime import Http
    from offset.net._conn import Conn

# As much is sent at once.
_PIECE = 1 << 20


class FileWrapper:
    """A file as the body of a response, as PEP 3333 has it: an iterable of blocks of `block_size` bytes.

    What is a plain file of the system is sent from where it stands to its end, by the system itself where the
    connection allows that. The file is closed in the end.
    """

    def __init__(self, filelike: Any, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def stats(self) -> dict[str, object]:
        """Tell about it: the name of the file, if it has one, and the size of the blocks."""
        return {"name": getattr(self.filelike, "name", None), "block_size": self.block_size}

    def __iter__(self) -> Iterator[bytes]:
        while data := self.filelike.read(self.block_size):
            yield data


def send(http: Http, conn: Conn, wrapper: FileWrapper, timeout: float | None) -> int | None:
    """Send the file as `finish` does, and give what that gives; None if it is to be read and written."""
    file = wrapper.filelike
    try:
        status = os.fstat(file.fileno())
        start = file.tell()
    except (AttributeError, OSError, ValueError):
        return None
    # In text mode, or compressed, the bytes of the file are not those of the body.
    if not stat.S_ISREG(status.st_mode) or not _is_raw(file):
        return None
    count = http.begin_file(max(0, status.st_size - start))
    if count is None:
        return None
    if count:
        try:
            http.sent_file(_send(conn, file, start, count, timeout))
        finally:
            if not conn.closed:
                conn.set_write_deadline(None)
    return http.finish()


def _send(conn: Conn, file: Any, start: int, count: int, timeout: float | None) -> int:
    """Send `count` bytes, or those that the file has; a client that takes some of them has the time anew."""
    sent = 0
    while sent < count:
        conn.set_write_deadline(None if timeout is None else _runtime.now() + timeout)
        try:
            done = conn.sendfile(file, start + sent, min(count - sent, _PIECE))
        except DeadlineExceeded:
            raise
        except TimeoutError as error:
            done = getattr(error, "characters_written", 0)
            if not done:
                raise
        if not done:
            break
        sent += done
    return sent


def _is_raw(file: Any) -> bool:
    import io

    return isinstance(file, io.FileIO | io.BufferedReader | io.BufferedRandom) and isinstance(
        getattr(file, "raw", file), io.FileIO
    )
