"""The operating system, as Go's package `os`.

`offset.os.signal` brings signals to channels.
"""

from offset.os import signal

__all__ = ["signal"]
