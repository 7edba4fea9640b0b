"""A faster way for `offset.io.copy`: a plain file that Python has opened goes to a connection by `sendfile`.

Only what reads such a file as it is goes this way: a class of a user's own may give other bytes than the system has.
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from offset._errors import noted_written
from offset.io import _copy
from offset.net._conn import Conn

if TYPE_CHECKING:
    from offset.io._copy import Reader, Writer


def install() -> None:
    """Let `offset.io.copy` try this."""
    if copy not in _copy.ways:
        _copy.ways.append(copy)


def copy(dst: Writer, src: Reader, n: int | None) -> int | None:
    """Copy as `offset.io.copy`; None if these are no such file and no plain connection, and nothing is done."""
    if type(dst) is not Conn or not isinstance(src, io.FileIO | io.BufferedReader) or dst.closed:
        return None
    try:
        if not _is_plain(src):
            return None
    except (OSError, ValueError):
        # It is closed, or was detached: the read says so.
        return None
    return send_from_here(dst, src, n)


def _is_plain(src: io.FileIO | io.BufferedReader) -> bool:
    # What is written to a BufferedRandom may not have reached the file.
    raw = src.raw if isinstance(src, io.BufferedReader) else src
    if type(src) not in (io.FileIO, io.BufferedReader) or type(raw) is not io.FileIO or not src.readable():
        return False
    return stat.S_ISREG(os.fstat(src.fileno()).st_mode)


def send_from_here(dst: Conn, src: BinaryIO, n: int | None) -> int:
    """Send `src` from its position on, `n` bytes or to its end; give how many, by which the position is moved."""
    start = src.seek(0, os.SEEK_CUR)
    done = 0
    try:
        done = dst.sendfile(src, start, n)
    except BaseException as error:
        done = noted_written(error)
        raise
    finally:
        # It does not move the position.
        if not src.closed:
            src.seek(start + done)
    return done
