"""`urllib.request` whose requests park only the goroutine: a rebound copy over the proxies."""

import http.client as _client  # noqa: F401 - has a proxy, which takes its place
import ssl as _ssl  # noqa: F401 - as above
import urllib.request as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["http", "http.client", "os", "socket", "ssl", "time"])
