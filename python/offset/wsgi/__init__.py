"""WSGI applications over HTTP/1.1, a goroutine a connection.

`serve(app)` serves Flask, Django and whatever else PEP 3333 describes as it is. An application that waits, in the
ways of this package or by blocking, or that computes, does not stop the others.

`offset._http` listens, accepts and has the processes; `_connection` has the requests of a connection, over the parser
in Rust (`offset._runtime.Http`); `_input`, `_file` and `_upgrade` are what an application finds in its environ.
"""

from offset._errors import RequestError
from offset._http._limits import Limits
from offset.wsgi._access import Access
from offset.wsgi._file import FileWrapper
from offset.wsgi._input import Input
from offset.wsgi._serve import serve
from offset.wsgi._upgrade import UpgradedSocket

__all__ = ["Access", "FileWrapper", "Input", "Limits", "RequestError", "UpgradedSocket", "serve"]
