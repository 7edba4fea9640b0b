"""`imaplib` whose sessions park only the goroutine. A rebound copy over the proxies."""

import imaplib as _original

from offset.syscall import _rebind

_rebind.rebind(_original, globals(), proxies=["socket", "ssl", "subprocess", "time"])
