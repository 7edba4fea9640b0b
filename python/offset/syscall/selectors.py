"""The standard module `selectors` for goroutines: `select` parks only the goroutine.

Every name of the original is here; the selectors are of the original's classes, too.
"""

from __future__ import annotations

import selectors as _original
from selectors import *

from offset.syscall import select

globals().update(
    {name: value for name, value in vars(_original).items() if not name.startswith("__") and name != "select"}
)


class SelectSelector(_original.SelectSelector):
    """See `selectors.SelectSelector`."""

    def _select(self, r, w, _, timeout=None):
        return select.select(r, w, [], timeout)


class PollSelector(_original.PollSelector):
    """See `selectors.PollSelector`."""

    _selector_cls = staticmethod(select.poll)


class EpollSelector(_original.EpollSelector):
    """See `selectors.EpollSelector`."""

    _selector_cls = select.epoll


class DefaultSelector(EpollSelector):
    """See `selectors.DefaultSelector`."""
