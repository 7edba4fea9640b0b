"""Which files a program is made of, and whether one of them has changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class Watcher:
    """Compares the times of files: of those of imported modules, or of all Python files below the current directory."""

    def __init__(self, everything: bool = False) -> None:
        self._everything = everything
        self._times: dict[str, int] = {}
        self.changed()

    def changed(self) -> bool:
        """Tell whether a file has changed since the last look; new files are only noted."""
        found = False
        for name in self._files():
            try:
                when = os.stat(name).st_mtime_ns
            except OSError:
                when = 0
            known = self._times.setdefault(name, when)
            if known != when:
                self._times[name] = when
                found = True
        return found

    def _files(self) -> set[str]:
        names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        files = {name for name in names if isinstance(name, str)}
        if self._everything:
            files.update(str(path) for path in Path.cwd().rglob("*.py"))
        return files
