"""Loops of asyncio that come and go, with tasks that wait at channels.

Invariant: a loop that has gone leaves no waiter, and what is sent afterwards goes to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import offset
import pytest
from helpers import PATIENCE, run_script, wait_ended
from libraries import needs_rescue
from offset import aio, go, makechan, run
from test_aio_tasks import waiting

# libuv has a pipe for the whole process from its first loop on.
aio._loop._new_event_loop().close()


def test_a_loop_that_has_gone_leaves_no_descriptor_and_no_waiter():
    channel = makechan()

    async def main():
        # Cancelled by `asyncio.run`.
        task = asyncio.create_task(channel.arecv())
        await asyncio.sleep(0)
        return weakref.ref(task)

    before = set(aio._tasks._mailboxes)
    tasks = [asyncio.run(main()) for _ in range(5)]
    gc.collect()
    assert channel.stats()["receivers"] == 0
    assert not any(task() for task in tasks)
    assert set(aio._tasks._mailboxes) <= before


LOOPS = [asyncio.new_event_loop, aio._loop._new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "ours"])
def test_waits_end_with_the_loop_that_is_closed_before_its_tasks_are(new_loop, caplog):
    receiving, sending, selecting, handed = makechan(), makechan(), makechan(), makechan()
    go_on = makechan()
    goroutine = go(go_on.recv)
    loop, other = new_loop(), asyncio.new_event_loop()
    tasks = [
        loop.create_task(operation())
        for operation in (
            receiving.arecv,
            lambda: sending.asend("of nobody"),
            lambda: aio.select_async(selecting.if_recv(), selecting.if_send("of nobody")),
            lambda: receiving.arecv(timeout=PATIENCE),
            handed.arecv,
            lambda: aio._tasks._join(goroutine),
        )
    ]
    elsewhere = other.create_task(receiving.arecv())
    for each in (loop, other):
        each.run_until_complete(asyncio.sleep(0))
    assert handed.try_send("on its way")
    references = [weakref.ref(task) for task in tasks]
    loop.close()
    # The next one in the queue gets it.
    receiving.send("to the other loop")
    assert other.run_until_complete(elsewhere) == "to the other loop"
    other.close()
    for refused in (lambda: receiving.try_send("to nobody"), lambda: selecting.try_send("to nobody")):
        assert not refused()
    for channel in (sending, selecting):
        with pytest.raises(offset.WouldBlock):
            channel.try_recv()
    # Nobody keeps them.
    tasks.clear()
    del elsewhere, each
    gc.collect()
    assert not any(reference() for reference in references)
    for channel in (receiving, sending, selecting, handed):
        assert (channel.stats()["receivers"], channel.stats()["senders"]) == (0, 0)
    assert handed.try_recv() == ("on its way", True)
    assert {record.message.splitlines()[0] for record in caplog.records} == {"Task was destroyed but it is pending!"}
    go_on.send(None)
    wait_ended(goroutine)


def test_a_wake_is_not_lost_to_what_a_signal_handler_raises():
    class Interrupted:
        """Where a signal comes as it is woken."""

        woken = 0

        def done(self):
            return False

        def set_result(self, result):
            self.woken += 1
            if self.woken == 1:
                raise KeyboardInterrupt

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        mailbox, interrupted, future = aio._tasks.open_mailbox(loop), Interrupted(), loop.create_future()
        mailbox.put(interrupted)
        mailbox.put(future)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(future)
        assert interrupted.woken == 2


def test_a_wait_that_begins_anew_gives_back_what_would_have_woken_it():
    class Loop(asyncio.SelectorEventLoop):
        def create_future(self):
            if operation.waiting and not left:
                left.append(asyncio.Future(loop=self))
                assert operation.begin(aio._tasks.open_mailbox(self), left[0])
            return super().create_future()

    left, channel = [], makechan()
    operation = channel.arecv()
    with asyncio.Runner(loop_factory=Loop) as runner:

        async def main():
            asyncio.get_running_loop().call_soon(channel.send, 5)
            return await operation

        assert runner.run(main()) == 5
    reference = weakref.ref(left.pop())
    gc.collect()
    assert reference() is None


def test_a_task_that_only_a_channel_knows_is_no_garbage():
    channel, seen = makechan(), []

    async def receive():
        seen.append(await channel.arecv())

    async def main():
        # Nobody keeps it: that its wait does is what is tested.
        asyncio.create_task(receive())  # noqa: RUF006
        await waiting(channel)
        gc.collect()
        channel.send("still there")
        async with asyncio.timeout(PATIENCE):
            while not seen:
                await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == ["still there"]


def test_a_forked_child_forgets_the_waits_of_its_parent():
    ended = run_script(
        """
        import asyncio, os, warnings
        from offset import go, makechan

        warnings.simplefilter("ignore")
        channel = makechan()
        go(channel.recv).cancel()

        async def receive():
            return await channel.arecv()

        async def main():
            task = asyncio.create_task(receive())
            while not channel.stats()["receivers"]:
                await asyncio.sleep(0)
            if os.fork() == 0:
                # Nobody of the parent is here to receive it.
                assert not channel.try_send("to nobody")
                task.cancel()
                del task
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
            channel.send("to the parent's task")
            print(await task)

        asyncio.run(main())
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "to the parent's task\n"), ended.stderr


def test_a_forked_child_takes_no_wake_from_its_parent():
    ended = run_script(
        """
        import asyncio, gc, os, warnings
        from offset import aio, makechan

        warnings.simplefilter("ignore")
        channel = makechan()

        async def main():
            task = asyncio.create_task(channel_receive())
            while not channel.stats()["receivers"]:
                await asyncio.sleep(0)
            mailbox = aio._tasks._mailboxes[asyncio.get_running_loop()]
            channel.send("to the parent's task")
            if os.fork() == 0:
                assert mailbox.take() == []
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
            print(await asyncio.wait_for(task, 60))

        async def channel_receive():
            return await channel.arecv()

        asyncio.run(main())
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "to the parent's task\n"), ended.stderr


@needs_rescue
def test_a_loop_inside_a_goroutine():
    channel = makechan()

    async def main():
        return [await channel.arecv() for _ in range(3)]

    def program():
        goroutine = go(lambda: seen.extend(asyncio.run(main())))
        seen = []
        for number in range(3):
            channel.send(number)
        wait_ended(goroutine)
        assert seen == [0, 1, 2]

    run(program)
