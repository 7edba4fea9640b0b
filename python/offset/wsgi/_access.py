"""What an access log is told of a request, and its line there."""

from __future__ import annotations

from typing import Any, NamedTuple

from offset._http import _log


class Access(NamedTuple):
    """A request that was answered, for an access log."""

    environ: dict[str, Any]
    """The environ, as the application has left it."""
    status: int
    """The status of the response."""
    sent: int
    """How many bytes its body had."""
    seconds: float
    """How long it took, from the head of the request to the end of the response."""


def line(access: Access) -> str:
    """Give the line of the log, without its end."""
    environ = access.environ
    request = f"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI')} {environ.get('SERVER_PROTOCOL')}"
    fields = (str(environ.get("HTTP_REFERER", "-")), str(environ.get("HTTP_USER_AGENT", "-")))
    remote = environ.get("REMOTE_ADDR") or ""
    return _log.combined(remote, request, fields, access.status, access.sent, access.seconds)
