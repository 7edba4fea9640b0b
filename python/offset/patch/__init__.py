"""Libraries and programs on offset's proxies of the standard library.

`patched_import("requests")` gives a copy of the library that nobody else sees: its modules are loaded once more, under
a private import in which `socket` means `offset.syscall.socket`, and so on. The library itself, the standard library
and `sys.modules` stay as they are.

`patch_all()` is for whole programs: from then on `socket.socket` is the proxy's for everybody, until it is undone.

Nothing is ever patched by an import of offset.
"""

from offset.patch._left import Leftover, leftovers
from offset.patch._program import Patch, patch_all
from offset.patch._report import Replacement, report
from offset.patch._world import patched, patched_import

__all__ = [
    "Leftover",
    "Patch",
    "Replacement",
    "leftovers",
    "patch_all",
    "patched",
    "patched_import",
    "report",
]
