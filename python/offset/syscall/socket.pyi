"""The standard module `socket` for goroutines: calls that would block park only the goroutine."""

import socket as _original
from socket import *
from socket import SocketType as SocketType
from socket import error as error

# In place of the original's, which the star import has brought.
class socket(_original.socket):  # type: ignore[no-redef]
    """A socket whose calls park only the goroutine. See `socket.socket`."""
