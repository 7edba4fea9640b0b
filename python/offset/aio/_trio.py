"""Calls in a run of trio: what `token=trio_token` means. Who has a token has imported trio."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offset.aio._await import Call

_OVER = "the run of trio has ended"


def begin(call: Call) -> None:
    """Make a call a task of the run; called by it."""
    trio: Any = sys.modules["trio"]
    try:
        trio.lowlevel.spawn_system_task(_run, trio, call, name="offset call", context=call.variables)
    except RuntimeError:
        # The run ends: it begins no more tasks.
        if not call.begun:
            call.end(None, RuntimeError(_OVER))


async def _run(trio: Any, call: Call) -> None:
    if call.begun:
        return
    call.begun = True
    try:
        result = None
        with trio.CancelScope() as scope:
            call.cancel = scope.cancel
            result = await call.take()
    except trio.Cancelled:
        # The run ends.
        call.end(None, asyncio.CancelledError(_OVER))
        raise
    except BaseException as error:
        # Whoever awaits it has it; in a system task it would end the run.
        call.end(None, error)
    else:
        call.end(result, asyncio.CancelledError() if scope.cancelled_caught else None)
    finally:
        call.cancel = None
