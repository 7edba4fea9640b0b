"""The access log: a line for each request, in the format "combined" of Apache, and how long it took."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# What would end a field or a line, or move a terminal's cursor.
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f-\xff]')


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
    now = time.localtime()
    moment = time.strftime("%d/%b/%Y:%H:%M:%S %z", now)
    request = f"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI')} {environ.get('SERVER_PROTOCOL')}"
    fields = (request, environ.get("HTTP_REFERER", "-"), environ.get("HTTP_USER_AGENT", "-"))
    request, referer, agent = (_UNSAFE.sub(_escape, str(field)) for field in fields)
    return (
        f"{environ.get('REMOTE_ADDR') or '-'} - - [{moment}] "
        f'"{request}" {access.status} {access.sent} "{referer}" "{agent}" {access.seconds:.6f}'
    )


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def logger(wanted: Any) -> Callable[[Access], object] | None:
    """Give what is called for each request: for True a line on stdout, for a file a line there."""
    if wanted is None or wanted is False:
        return None
    if wanted is True:
        return lambda access: print(line(access), file=sys.stdout, flush=True)
    if callable(getattr(wanted, "write", None)):
        return lambda access: wanted.write(line(access) + "\n")
    if callable(wanted):
        # What it takes cannot be looked at.
        return wanted  # type: ignore[no-any-return]
    raise TypeError(f"access_log is True, a file or a function, not {type(wanted).__name__}")
