"""`urllib.request` whose requests park only the goroutine: a rebound copy over the proxies."""

import urllib.request as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["http", "http.client", "os", "socket", "ssl", "time"])
