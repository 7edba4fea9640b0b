"""Calls in a run of trio: what `token=trio_token` means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from offset.aio._await import Call


def begin(call: Call) -> None:
    """Make a call a task of the run; called by it."""
    trio.lowlevel.spawn_system_task(_run, call, name="offset call", context=call.variables)


async def _run(call: Call) -> None:
    coroutine = call.coroutine()
    try:
        result = None
        with trio.CancelScope() as scope:
            call.cancel = scope.cancel
            if call.cancelled:
                scope.cancel()
            result = await coroutine
    except trio.Cancelled:
        # The run ends.
        call.end(None, asyncio.CancelledError("the run of trio has ended"))
        raise
    except BaseException as error:
        # Whoever awaits it has it; in a system task it would end the run.
        call.end(None, error)
    else:
        call.end(result, asyncio.CancelledError() if scope.cancelled_caught else None)
    finally:
        call.cancel = None
