"""The ways in which a goroutine can be parked.

Each maker gives the wait reason that is expected ("" for any), a function that blocks, and one that releases
whoever is blocked there. `MORE_BLOCKS` go through the package's own Python, or end by themselves.
"""

from __future__ import annotations

import threading

import offset
from helpers import go_parked
from offset import go, makechan, select, sleep
from offset import sync as gosync
from offset.context import background, scope, with_cancel
from offset.syscall import blocking
from offset.syscall import queue as gqueue
from offset.syscall import threading as gthreading


def block_in_recv():
    channel = makechan()
    return "chan receive", channel.recv, lambda: channel.send(None)


def block_in_send():
    channel = makechan()
    return "chan send", lambda: channel.send(None), channel.recv


def block_in_full_send():
    channel = makechan(1)
    channel.send(None)
    return "chan send", lambda: channel.send(None), channel.recv


def block_in_select():
    first, second = makechan(), makechan()
    return "select", lambda: select(first.if_recv(), second.if_send(None)), second.recv


def block_in_timer():
    timer = offset.time.Timer(1e6)
    return "chan receive", timer.c.recv, lambda: timer.reset(0)


def block_in_mutex():
    mutex = gosync.Mutex()
    mutex.lock()
    return "mutex", lambda: (mutex.lock(), mutex.unlock()), mutex.unlock


def block_in_write_lock():
    lock = gosync.RWMutex()
    lock.rlock()
    return "mutex", lambda: (lock.lock(), lock.unlock()), lock.runlock


def block_in_read_lock():
    lock = gosync.RWMutex()
    lock.lock()
    return "mutex", lambda: (lock.rlock(), lock.runlock()), lock.unlock


def block_in_wait_group():
    group = gosync.WaitGroup()
    group.add(1)
    return "", group.wait, group.done


def block_in_cond():
    mutex = gosync.Mutex()
    cond = gosync.Cond(mutex)

    def block():
        with mutex:
            cond.wait()

    return "", block, cond.signal


def block_in_semaphore():
    semaphore = gosync.Semaphore(2)
    semaphore.acquire(2)

    def block():
        with semaphore:
            assert not semaphore.try_acquire(2)

    return "", block, lambda: semaphore.release(2)


def block_in_join():
    channel = makechan()
    target = go_parked(channel.recv)

    def release():
        channel.send(None)

    return "", target.join, release


def block_in_once():
    once, channel = gosync.Once(), makechan()
    go_parked(once.do, channel.recv)
    return "", lambda: once.do(int), lambda: channel.send(None)


BLOCKS = [
    block_in_recv,
    block_in_send,
    block_in_full_send,
    block_in_select,
    block_in_timer,
    block_in_mutex,
    block_in_write_lock,
    block_in_read_lock,
    block_in_wait_group,
    block_in_cond,
    block_in_semaphore,
    block_in_join,
    block_in_once,
]


def block_in_sleep():
    channel = makechan(1)

    def block():
        while not len(channel):
            sleep(0.05)

    return "sleep", block, lambda: channel.send(None)


def block_in_blocking():
    over = threading.Event()
    return "", lambda: blocking(over.wait), over.set


def block_in_conn_read():
    ours, theirs = offset.net.pipe()
    return "", lambda: ours.read(10), lambda: theirs.write(b"x")


def block_in_proxied_lock():
    lock = gthreading.Lock()
    lock.acquire()
    return "", lambda: (lock.acquire(), lock.release()), lock.release


def block_in_proxied_queue():
    box = gqueue.Queue()
    return "", box.get, lambda: box.put(None)


def block_in_io_pipe():
    reader, writer = offset.io.pipe()
    return "", lambda: reader.read(10), lambda: go(writer.write, b"x")


MORE_BLOCKS = [
    block_in_sleep,
    block_in_blocking,
    block_in_conn_read,
    block_in_proxied_lock,
    block_in_proxied_queue,
    block_in_io_pipe,
]


def under(ctx, block, seen):
    """A goroutine's function: `block` in a scope; what it raised goes to `seen`."""

    def body():
        try:
            with scope(ctx):
                block()
                seen.append("done")
        except BaseException as error:
            seen.append(error)

    return body


def over():
    ctx, cancel = with_cancel(background())
    cancel()
    return ctx
