"""The operating system, as Go's package `os`.

Files, pipes and terminals whose operations park only the goroutine, whatever they are: what the poller takes waits
there, and plain files are read and written on threads of the blocking pool. `offset.os.signal` brings signals to
channels.
"""

import os as _os

from offset.os import _copy, signal
from offset.os._file import File, create, new_file, open, open_file, pipe, read_file, standard, write_file
from offset.os._path import (
    chmod,
    create_temp,
    link,
    lstat,
    mkdir,
    mkdir_all,
    mkdir_temp,
    read_dir,
    readlink,
    remove,
    remove_all,
    rename,
    stat,
    symlink,
    truncate,
)

O_APPEND: int = _os.O_APPEND
O_CREAT: int = _os.O_CREAT
O_EXCL: int = _os.O_EXCL
O_RDONLY: int = _os.O_RDONLY
O_RDWR: int = _os.O_RDWR
O_SYNC: int = _os.O_SYNC
O_TRUNC: int = _os.O_TRUNC
O_WRONLY: int = _os.O_WRONLY
SEEK_CUR: int = _os.SEEK_CUR
SEEK_END: int = _os.SEEK_END
SEEK_SET: int = _os.SEEK_SET

stdin: File = standard(0, "/dev/stdin")
stdout: File = standard(1, "/dev/stdout")
stderr: File = standard(2, "/dev/stderr")

_copy.install()

__all__ = [
    "O_APPEND",
    "O_CREAT",
    "O_EXCL",
    "O_RDONLY",
    "O_RDWR",
    "O_SYNC",
    "O_TRUNC",
    "O_WRONLY",
    "SEEK_CUR",
    "SEEK_END",
    "SEEK_SET",
    "File",
    "chmod",
    "create",
    "create_temp",
    "link",
    "lstat",
    "mkdir",
    "mkdir_all",
    "mkdir_temp",
    "new_file",
    "open",
    "open_file",
    "pipe",
    "read_dir",
    "read_file",
    "readlink",
    "remove",
    "remove_all",
    "rename",
    "signal",
    "stat",
    "stderr",
    "stdin",
    "stdout",
    "symlink",
    "truncate",
    "write_file",
]
