"""What is done with files by their names, as in Go's package `os`: in the blocking pool, as a disk may be slow.

Errors are those of Python's `os`, with the name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from offset._runtime import blocking
from offset.os._file import open_file

if TYPE_CHECKING:
    from offset.os._file import File, Path

# So many names are tried before something else must be wrong.
_TRIES = 100


def stat(name: Path) -> os.stat_result:
    """Tell about a file, as Go's `os.Stat`; of a symbolic link, about what it names. Raises OSError."""
    return blocking(os.stat, name)


def lstat(name: Path) -> os.stat_result:
    """Tell about a file, as Go's `os.Lstat`; of a symbolic link, about the link itself. Raises OSError."""
    return blocking(os.lstat, name)


def read_dir(name: Path = ".") -> list[os.DirEntry[str]]:
    """Give what is in a directory, sorted by name, as Go's `os.ReadDir`. Raises OSError."""
    return blocking(_read_dir, name)


def _read_dir(name: Path) -> list[os.DirEntry[str]]:
    with os.scandir(os.fsdecode(name)) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def mkdir(name: Path, perm: int = 0o777) -> None:
    """Make a directory, as Go's `os.Mkdir`. Raises OSError, such as FileExistsError."""
    blocking(os.mkdir, name, perm)


def mkdir_all(name: Path, perm: int = 0o777) -> None:
    """Make a directory and those that it is in, as Go's `os.MkdirAll`; it may be there already. Raises OSError."""
    blocking(os.makedirs, name, perm, exist_ok=True)


def mkdir_temp(directory: Path = "", pattern: str = "") -> str:
    """Make a directory with a name that nothing has, as Go's `os.MkdirTemp`, and give the name.

    It is made in `directory`, by default the one for temporary files. The last "*" in `pattern` is replaced by
    something random, which is otherwise put at its end. Who made it removes it.
    """
    return blocking(_mkdir_temp, directory, pattern)


def _mkdir_temp(directory: Path, pattern: str) -> str:
    for _ in range(_TRIES):
        name = _random_name(directory, pattern)
        try:
            os.mkdir(name, 0o700)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(f"there is no name of the form {pattern!r} left in {os.fsdecode(directory)!r}")


def create_temp(directory: Path = "", pattern: str = "") -> File:
    """Create a file with a name that nothing has, as Go's `os.CreateTemp`, to read and write.

    Its `name` tells which; `directory` and `pattern` are as in `mkdir_temp`. Who created it removes it.
    """
    for _ in range(_TRIES):
        name = _random_name(directory, pattern)
        try:
            return open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
    raise FileExistsError(f"there is no name of the form {pattern!r} left in {os.fsdecode(directory)!r}")


def _random_name(directory: Path, pattern: str) -> str:
    if os.sep in pattern:
        raise ValueError(f"the pattern {pattern!r} has a {os.sep!r}")
    before, star, after = pattern.rpartition("*")
    if not star:
        before, after = pattern, ""
    where = os.fsdecode(directory) or os.environ.get("TMPDIR") or "/tmp"
    return os.path.join(where, f"{before}{int.from_bytes(os.urandom(5), 'big')}{after}")


def remove(name: Path) -> None:
    """Remove a file or an empty directory, as Go's `os.Remove`. Raises OSError."""
    blocking(_remove, name)


def _remove(name: Path) -> None:
    try:
        os.unlink(name)
    except (IsADirectoryError, PermissionError) as error:
        try:
            os.rmdir(name)
        except NotADirectoryError:
            raise error from None


def remove_all(name: Path) -> None:
    """Remove a file, or a directory with all that is in it, as Go's `os.RemoveAll`; it need not be there."""
    blocking(_remove_all, name)


def _remove_all(name: Path) -> None:
    # For those who need it only: it imports much.
    import shutil

    try:
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        else:
            os.unlink(name)
    except FileNotFoundError:
        pass


def rename(old: Path, new: Path) -> None:
    """Give a file another name, as Go's `os.Rename`; a file that has it is replaced. Raises OSError."""
    blocking(os.rename, old, new)


def link(old: Path, new: Path) -> None:
    """Give a file one more name, as Go's `os.Link`. Raises OSError."""
    blocking(os.link, old, new)


def symlink(old: Path, new: Path) -> None:
    """Make `new` a symbolic link to `old`, as Go's `os.Symlink`. Raises OSError."""
    blocking(os.symlink, old, new)


def readlink(name: Path) -> str:
    """Give what a symbolic link names, as Go's `os.Readlink`. Raises OSError."""
    return blocking(os.readlink, os.fsdecode(name))


def chmod(name: Path, mode: int) -> None:
    """Change the permissions of a file, as Go's `os.Chmod`. Raises OSError."""
    blocking(os.chmod, name, mode)


def truncate(name: Path, size: int) -> None:
    """Make a file `size` bytes long, as Go's `os.Truncate`. Raises OSError."""
    blocking(os.truncate, name, size)
