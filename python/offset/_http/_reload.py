"""Which files a program is made of, and whether one of them has changed."""

from __future__ import annotations

import os
import sys

# Directories with much in them, and nothing of the program.
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


class Watcher:
    """Compares the times of files: of those of imported modules, or of all Python files below the current directory.

    The times of the latter are noted at once, so that a change is seen that comes while a module is imported.
    """

    def __init__(self, everything: bool = False) -> None:
        self._everything = everything
        self._times: dict[str, int] = {}
        for name in _below(os.getcwd()) | _imported():
            self._look(name)

    def changed(self) -> bool:
        """Tell whether a file has changed since the last look.

        With `everything` one that is new is a change, as it may be what was missing; otherwise it is only noted.
        """
        below = _below(os.getcwd()) if self._everything else set()
        new = below - self._times.keys()
        # Of all of them: each look notes what it sees.
        return sum(self._look(name) for name in _imported() | below) > 0 or bool(new)

    def _look(self, name: str) -> bool:
        try:
            when = os.stat(name).st_mtime_ns
        except OSError:
            when = 0
        before = self._times.setdefault(name, when)
        self._times[name] = when
        return before != when


def _imported() -> set[str]:
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {os.path.abspath(name) for name in names if isinstance(name, str)}


def _below(top: str) -> set[str]:
    found: set[str] = set()
    for directory, inside, names in os.walk(top):
        inside[:] = [name for name in inside if not name.startswith(".") and name not in _SKIPPED]
        found.update(os.path.join(directory, name) for name in names if name.endswith(".py"))
    return found
