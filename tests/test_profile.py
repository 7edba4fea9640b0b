"""The block and mutex profiles: what counts, under which stack, and that pprof reads the files.

The format is decoded here by its numbers, and once by `go tool pprof` where there is a Go toolchain.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers
import pytest
from helpers import main_goroutine
from offset import go, makechan, runtime, sleep, sync

Stack = tuple[str, ...]


# ---- profile.proto ---------------------------------------------------------------------------


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            yield key >> 3, data[at : at + value]
            at += value
        else:
            assert key & 7 == 0
            yield key >> 3, value


def packed(data: bytes) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        values.append(value)
    return values


def decode(data: bytes) -> dict[Stack, tuple[int, int]]:
    """By stack, innermost function first: how many waits, how many nanoseconds."""
    top = list(fields(gzip.decompress(data)))
    strings = [value.decode() for field, value in top if field == 6]
    assert strings[0] == ""
    kinds = [dict(fields(value)) for field, value in top if field == 1]
    assert [(strings[kind[1]], strings[kind[2]]) for kind in kinds] == [
        ("contentions", "count"),
        ("delay", "nanoseconds"),
    ]
    functions = {entry[1]: entry for entry in (dict(fields(value)) for field, value in top if field == 5)}
    placed = [dict(fields(value)) for field, value in top if field == 4]
    locations = {entry[1]: dict(fields(entry[4])) for entry in placed}
    assert set(functions) == set(range(1, len(functions) + 1))
    result = {}
    for field, value in top:
        if field == 2:
            sample = dict(fields(value))
            places = [locations[place] for place in packed(sample[1])]
            assert all(place[2] > 0 for place in places)
            count, nanos = packed(sample[2])
            stack = tuple(strings[functions[place[1]][2]] for place in places)
            before = result.get(stack, (0, 0))
            result[stack] = before[0] + count, before[1] + nanos
    return result


def profile(write: Any) -> dict[Stack, tuple[int, int]]:
    file = io.BytesIO()
    write(file)
    return decode(file.getvalue())


def of(records: dict[Stack, tuple[int, int]], name: str) -> tuple[int, int]:
    """What was counted under stacks whose innermost function has a name that ends so."""
    found = [value for stack, value in records.items() if stack[0].endswith(name)]
    return sum(count for count, _ in found), sum(nanos for _, nanos in found)


@pytest.fixture
def every_wait() -> Iterator[None]:
    assert runtime.set_block_profile_rate(1) == 0
    assert runtime.set_mutex_profile_fraction(1) == 0
    yield
    assert runtime.set_block_profile_rate(0) == 1
    assert runtime.set_mutex_profile_fraction(0) == 1


# ---- what counts -----------------------------------------------------------------------------


@main_goroutine
def test_a_wait_for_a_channel_counts_where_it_was(every_wait: None) -> None:
    def blocked_receiver() -> None:
        channel.recv()

    channel = makechan()
    started = time.monotonic_ns()
    goroutine = helpers.go_parked(blocked_receiver)
    began = time.monotonic_ns()
    helpers.wait_until(lambda: time.monotonic_ns() > began + 20_000_000)
    channel.send(None)
    helpers.wait_ended(goroutine)
    count, nanos = of(profile(runtime.block_profile), "blocked_receiver")
    assert count == 1
    assert 20_000_000 <= nanos <= time.monotonic_ns() - started + 1_000_000_000


@main_goroutine
def test_sleep_does_not_count(every_wait: None) -> None:
    def sleeper() -> None:
        sleep(0.001)

    helpers.wait_ended(go(sleeper))
    assert of(profile(runtime.block_profile), "sleeper") == (0, 0)


@main_goroutine
def test_without_a_rate_nothing_counts() -> None:
    def uncounted() -> None:
        channel.recv()

    channel = makechan()
    goroutine = helpers.go_parked(uncounted)
    channel.send(None)
    helpers.wait_ended(goroutine)
    assert of(profile(runtime.block_profile), "uncounted") == (0, 0)


@pytest.mark.parametrize("kind", ["mutex", "write", "read"])
def test_a_lock_counts_where_it_was_given_up(kind: str, every_wait: None) -> None:
    @main_goroutine
    def run() -> None:
        lock: Any = sync.Mutex() if kind == "mutex" else sync.RWMutex()
        take = lock.rlock if kind == "read" else lock.lock
        give = lock.runlock if kind == "read" else lock.unlock

        def gives_up() -> None:
            lock.unlock()

        def wants() -> None:
            take()
            give()

        before = of(profile(runtime.mutex_profile), "gives_up")[0]
        lock.lock()
        goroutine = helpers.go_parked(wants)
        began = time.monotonic_ns()
        helpers.wait_until(lambda: time.monotonic_ns() > began + 10_000_000)
        gives_up()
        helpers.wait_ended(goroutine)
        records = profile(runtime.mutex_profile)
        count, nanos = of(records, "gives_up")
        assert count == before + 1
        assert nanos >= 10_000_000
        assert of(records, "wants") == (0, 0)
        assert of(profile(runtime.block_profile), "wants")[1] >= 10_000_000

    run()


@main_goroutine
def test_rates_and_their_mistakes() -> None:
    assert runtime.set_block_profile_rate(1_000_000) == 0
    assert runtime.set_block_profile_rate(0) == 1_000_000
    for function in (runtime.set_block_profile_rate, runtime.set_mutex_profile_fraction):
        with pytest.raises(ValueError, match="at least 0"):
            function(-1)
        with pytest.raises(TypeError):
            function("often")


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    for function in (runtime.block_profile, runtime.mutex_profile):
        with pytest.raises(OSError):
            function(tmp_path / "missing" / "profile.pb.gz")


# ---- pprof itself ----------------------------------------------------------------------------


def go_tool() -> str | None:
    """A Go toolchain: OFFSET_GO, the one of the system, or the one of the benchmarks."""
    if named := os.environ.get("OFFSET_GO"):
        return named
    here = Path(__file__).resolve().parent.parent
    found = sorted(here.glob(".venv-bench*/lib/python3*/site-packages/go/bin/go"))
    return shutil.which("go") or (str(found[0]) if found else None)


@pytest.mark.timeout(900)
@pytest.mark.skipif(go_tool() is None, reason="no Go toolchain; `make bench` installs one, OFFSET_GO names one")
def test_go_tool_pprof_reads_it(tmp_path: Path, every_wait: None) -> None:
    @main_goroutine
    def run() -> None:
        def for_pprof() -> None:
            channel.recv()

        channel = makechan()
        goroutine = helpers.go_parked(for_pprof)
        channel.send(None)
        helpers.wait_ended(goroutine)
        runtime.block_profile(tmp_path / "block.pb.gz")

    run()
    tool = go_tool()
    assert tool is not None
    # The first call builds the tool, into Go's own cache.
    environment = {**os.environ, "PPROF_TMPDIR": str(tmp_path)}
    line = [tool, "tool", "pprof", "-top", "-sample_index=contentions", str(tmp_path / "block.pb.gz")]
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=environment, timeout=800)
    assert done.returncode == 0, done.stderr
    assert "Type: contentions" in done.stdout
    assert "for_pprof" in done.stdout
