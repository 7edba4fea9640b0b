"""`http.server` whose servers park only the goroutine; its threads are goroutines. A rebound copy over the proxies."""

import http.server as _original

from offset.syscall import _rebind

_rebind.rebind(
    _original,
    globals(),
    proxies=["http", "http.client", "os", "select", "socket", "socketserver", "subprocess", "threading", "time"],
)
