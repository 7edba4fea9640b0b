"""`socketserver` whose servers park only the goroutine; its threads are goroutines. A rebound copy over the proxies."""

import socketserver as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["os", "selectors", "socket", "threading", "time"])
