"""Coroutines and generators that tests of `offset.aio` wait for."""

from __future__ import annotations

import asyncio

from helpers import PATIENCE
from offset import aio, makechan

# libuv has a pipe for the whole process from its first loop on.
aio._loop._new_event_loop().close()


async def ready(value=None):
    return value


class Sleeper:
    """A coroutine that sleeps until it is cancelled, and says what became of it."""

    def __init__(self, stubborn=0):
        self.began = makechan(1)
        self.ended = []
        self.stubborn = stubborn

    async def sleep(self):
        try:
            self.began.try_send(None)
            await asyncio.sleep(PATIENCE * 10)
        except asyncio.CancelledError:
            for _ in range(self.stubborn):
                await asyncio.sleep(0)
            self.ended.append("cancelled")
            raise


async def numbers(count, ended=None):
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)
        if ended is not None:
            ended.append(asyncio.current_task())
