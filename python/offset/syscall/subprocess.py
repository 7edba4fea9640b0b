"""`subprocess` whose waits for processes and their pipes park only the goroutine: a rebound copy over the proxies."""

import subprocess as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["os", "select", "selectors", "threading", "time"])
