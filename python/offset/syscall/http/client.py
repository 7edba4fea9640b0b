"""`http.client` whose connections park only the goroutine: a rebound copy over `offset.syscall.socket` and `ssl`."""

import http.client as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["socket", "ssl"])
