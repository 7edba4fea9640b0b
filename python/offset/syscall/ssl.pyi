"""The standard module `ssl` for goroutines: handshakes, reads and writes park only the goroutine."""

import ssl as _original
from ssl import *

# In place of the original's, which the star import has brought.
class SSLSocket(_original.SSLSocket):  # type: ignore[no-redef]
    """A TLS socket whose calls park only the goroutine. See `ssl.SSLSocket`."""

class SSLContext(_original.SSLContext):  # type: ignore[no-redef]
    """A context whose sockets park only the goroutine. See `ssl.SSLContext`."""
