"""`logging` in goroutines, its handlers under contention: as it is, and as a copy whose handlers park.

Invariants: each record arrives once and whole, those of a goroutine in their order; a handler lets one goroutine in at
a time, though what it writes to parks.
"""

from __future__ import annotations

import contextlib
import io
import logging
import logging.handlers
import pickle
import queue
import struct
import types
from collections import defaultdict

import offset
import pytest
from helpers import PATIENCE, main_goroutine, wait_until
from libraries import Call, calls, copies, needs_rescue, results
from offset import gosched, net
from offset.sync import WaitGroup
from offset.syscall import queue as proxied_queue

WRITERS, RECORDS = 10, 30


@pytest.fixture(scope="module")
def copied():
    """The copy, and the queue that goes with it."""
    copy, handlers = copies("logging", "logging.handlers")
    return types.SimpleNamespace(logging=copy, handlers=handlers, queue=proxied_queue)


@pytest.fixture(params=[pytest.param("as it is", marks=needs_rescue), "a copy"])
def library(request, copied):
    """logging, in both ways."""
    return (
        copied
        if request.param == "a copy"
        else types.SimpleNamespace(logging=logging, handlers=logging.handlers, queue=queue)
    )


@contextlib.contextmanager
def logger(handler):
    """A logger of the standard library, which everybody uses, with a handler of either kind."""
    made = logging.getLogger("tests.libraries")
    made.propagate = False
    made.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    made.addHandler(handler)
    try:
        yield made
    finally:
        made.removeHandler(handler)
        handler.close()


def write(number, log):
    for record in range(RECORDS):
        log.info("%d %d %s", number, record, "x" * 50)
        if record % 3 == 0:
            gosched()


def check(lines):
    """Each record once, those of a goroutine in order."""
    seen = defaultdict(list)
    for line in lines:
        number, record, text = line.split()
        assert text == "x" * 50
        seen[int(number)].append(int(record))
    assert seen == {number: list(range(RECORDS)) for number in range(WRITERS)}


@main_goroutine
def test_a_file(library, tmp_path):
    path = tmp_path / "log"
    with logger(library.logging.FileHandler(path)) as log:
        results(calls(WRITERS, write, log))
    check(path.read_text().splitlines())


@main_goroutine
def test_files_in_turn(library, tmp_path):
    handler = library.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=2_000, backupCount=1_000)
    with logger(handler) as log:
        results(calls(WRITERS, write, log))
    files = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:] or 0))
    assert len(files) > 5
    check(line for path in files for line in path.read_text().splitlines())


@main_goroutine
def test_one_is_inside_at_a_time(library):
    class Slow(io.StringIO):
        inside = 0

        def write(self, text):
            # The handler's lock is held over these parks.
            self.inside += 1
            assert self.inside == 1
            gosched()
            self.inside -= 1
            return super().write(text)

    stream = Slow()
    with logger(library.logging.StreamHandler(stream)) as log:
        results(calls(WRITERS, write, log))
    check(stream.getvalue().splitlines())


@main_goroutine
def test_a_queue_and_its_listener(library):
    stream = io.StringIO()
    target = library.logging.StreamHandler(stream)
    target.setFormatter(logging.Formatter("%(message)s"))
    records = library.queue.Queue(10)

    class Patient(library.handlers.QueueHandler):
        def enqueue(self, record):
            # Writers wait while the queue is full.
            self.queue.put(record, timeout=PATIENCE)

    listener = library.handlers.QueueListener(records, target)
    listener.start()
    with logger(Patient(records)) as log:
        results(calls(WRITERS, write, log))
    # The listener does not wait for room when it is told to stop.
    wait_until(records.empty, "all records are taken")
    listener.stop()
    check(stream.getvalue().splitlines())


@main_goroutine
def test_a_socket(library):
    got = []

    def serve(listener):
        with listener.accept() as conn:
            while True:
                try:
                    (size,) = struct.unpack(">L", conn.read_full(4))
                except EOFError:
                    return
                got.append(logging.makeLogRecord(pickle.loads(conn.read_full(size))))

    with net.listen("tcp", "127.0.0.1:0") as listener:
        serving = Call(serve, listener)
        host, port = listener.addr.rsplit(":", 1)
        with logger(library.handlers.SocketHandler(host, int(port))) as log:
            results(calls(WRITERS, write, log))
        serving.result()
    check(record.getMessage() for record in got)


@main_goroutine
def test_a_record_names_its_goroutine():
    class Names(logging.Handler):
        def emit(self, record):
            seen.append((record.getMessage(), record.thread))

    seen = []

    with logger(Names()) as log:
        here = WaitGroup()
        here.add(WRITERS)

        def note(number):
            # While all are there, their identities are different.
            here.done()
            here.wait(timeout=PATIENCE)
            log.info("%d", number)

        results(calls(WRITERS, note))
    assert sorted(int(text) for text, _ in seen) == list(range(WRITERS))
    if offset.runtime.stats()["thread_identity"] == "virtual":
        assert len({thread for _, thread in seen}) == WRITERS
