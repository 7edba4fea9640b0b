"""`selectors` whose `select` parks only the goroutine: a rebound copy over `offset.syscall.select`."""

import selectors as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["select"])
