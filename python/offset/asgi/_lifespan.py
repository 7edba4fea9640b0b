"""The lifespan protocol: what an application does before its first request and after its last.

Invariants: everything here happens on the loop's thread, but `check` and `end`, which the goroutine of the server
calls, and `started` and `over`, on which it waits. `error` and `outcome` are written before something is sent on
`started`, and read afterwards.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

from offset import _dump, _runtime

if TYPE_CHECKING:
    from offset._runtime import Note
    from offset.asgi._connection import Service


class Lifespan:
    """The task in which an application speaks it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked = False
        self._shutdown: asyncio.Future[None] | None = None
        # What has become of the startup: "complete", "failed", or what else has ended it.
        self.outcome = ""
        self.message = ""
        self.error: BaseException | None = None
        self.started: _runtime.Chan[str] = _runtime.Chan(1, "the startup of an application")
        self.over = _runtime.Note()

    def __call__(self, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        """Begin."""
        self._loop = loop
        self._shutdown = loop.create_future()
        self._task = loop.create_task(self._run(), name="lifespan", context=self._service.context.copy())
        return True

    async def _run(self) -> None:
        service = self._service
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": service.state}
        try:
            await service.app(scope, self._receive, self._send)
        except BaseException as error:
            if self.outcome == "complete":
                if not isinstance(error, asyncio.CancelledError):
                    what = "".join(traceback.format_exception(error))
                    service.report(f"{service.name}: the application's lifespan has failed\n{what}")
            elif not self.outcome:
                self.error = error
                self._say("raised")
        else:
            if not self.outcome:
                self._say("returned")
        finally:
            self._task = None
            self.over.set()

    def _say(self, outcome: str) -> None:
        self.outcome = outcome
        self.started.try_send(outcome)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        assert self._shutdown is not None
        await asyncio.shield(self._shutdown)
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed"):
            if self.outcome:
                raise RuntimeError(f"{kind} was sent after the startup was over")
            self.message = str(message.get("message", ""))
            self._say(kind.rpartition(".")[2])
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            if self._shutdown is None or not self._shutdown.done():
                raise RuntimeError(f"{kind} was sent before lifespan.shutdown")
            if kind.endswith("failed"):
                said = message.get("message") or "without a message"
                self._service.report(f"{self._service.name}: the application's shutdown has failed: {said}\n")
            self.over.set()
        else:
            raise RuntimeError(f"an application of lifespan sends lifespan.startup.complete and the like, not {kind!r}")

    # ---- the goroutine of the server ----

    def check(self, needed: bool) -> None:
        """Raise RuntimeError if the startup has failed, or, if it is `needed`, was not spoken."""
        error, self.error = self.error, None
        try:
            if self.outcome == "failed":
                raise RuntimeError(f"the application's startup has failed: {self.message or 'without a message'}")
            if needed and self.outcome != "complete":
                how = f"has raised {error!r}" if self.outcome == "raised" else "has returned"
                raise RuntimeError(f"the application {how} instead of answering lifespan.startup") from error
        finally:
            # Its traceback holds this frame.
            del error

    def end(self, timeout: float | None) -> None:
        """Have the application end, and wait for that up to `timeout` seconds."""
        service = self._service
        service.owner.mailbox.put(self._stop if self.outcome == "complete" else self._cancel)
        if service.owner.closed or self.over.wait_await(timeout):
            return
        service.report(f"{service.name}: the application's shutdown has taken too long\n")
        service.owner.mailbox.put(self._cancel)

    def _stop(self, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        if self._shutdown is not None and not self._shutdown.done():
            self._shutdown.set_result(None)
        return True

    def _cancel(self, loop: asyncio.AbstractEventLoop, ended: list[Note]) -> bool:
        if self._task is not None:
            self._task.cancel()
        return True


_dump.hidden.add(Lifespan._run.__code__)
