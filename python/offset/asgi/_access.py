"""What an access log is told of a request, and its line there."""

from __future__ import annotations

from typing import Any, NamedTuple

from offset._http import _log


class Access(NamedTuple):
    """A request that was answered, for an access log."""

    scope: dict[str, Any]
    """The scope, as the application has left it."""
    status: int
    """The status of the response; 101 for a WebSocket."""
    sent: int
    """How many bytes its body had."""
    seconds: float
    """How long it took, from the head of the request to the end of the response."""


def line(access: Access) -> str:
    """Give the line of the log, without its end."""
    scope = access.scope
    target, query = scope["raw_path"], scope.get("query_string", b"")
    if query:
        target += b"?" + query
    version = scope.get("http_version", "-")
    protocol = version if version == "-" else f"HTTP/{version}"
    request = f"{scope.get('method', 'GET')} {target.decode('latin-1')} {protocol}"
    headers = dict(reversed(scope.get("headers", ())))
    fields = (headers.get(b"referer", b"-").decode("latin-1"), headers.get(b"user-agent", b"-").decode("latin-1"))
    client = scope.get("client")
    return _log.combined(client[0] if client else "", request, fields, access.status, access.sent, access.seconds)
