"""ASGI applications over HTTP/1.1 and WebSockets, a goroutine a connection and a task of asyncio a request.

`serve(app)` serves FastAPI, Starlette and whatever else the ASGI specification describes as it is. Its tasks run on the
event loop of `offset.aio`, in one thread, and use channels and goroutines by what that offers.

`offset._http` listens, accepts and has the processes; `_connection` has the requests of a connection, over the parser
in Rust (`offset._runtime.Http`), `_exchange` what crosses between a connection and its task, `_websocket` WebSockets,
`_lifespan` the beginning and the end.
"""

from offset._http._limits import Limits
from offset.asgi._access import Access
from offset.asgi._serve import serve

__all__ = ["Access", "Limits", "serve"]
