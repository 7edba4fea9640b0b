"""offset.runtime.trace: what is recorded, what the files say, and the summary of them.

Times are never compared with a bound from above. What a trace must show is made certain first: a goroutine that
is seen to be frozen is let go only after the machine was handed on.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import itertools
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import helpers
import offset
import pytest
from helpers import main_goroutine
from offset import go, gosched, makechan, runtime, sleep, sync, syscall
from offset.runtime import trace

Event = dict[str, Any]
WAITS = ("chan receive", "chan send")


def recorded(function: Any, path: Path) -> dict[str, Any]:
    """The trace of a program whose main goroutine is `function`."""

    def main() -> None:
        with trace.start(path):
            function()

    offset.run(main)
    return json.loads(path.read_text())


def events(document: dict[str, Any], category: str, **args: object) -> list[Event]:
    return [
        event
        for event in document["traceEvents"]
        if event["cat"] == category and args.items() <= event.get("args", {}).items()
    ]


def number(document: dict[str, Any], name: str) -> int:
    """The goroutine of that name."""
    (found,) = [
        event["tid"]
        for event in document["traceEvents"]
        if event["name"] == "thread_name" and event["pid"] == 2 and event["args"]["name"].endswith(name)
    ]
    return found


def frozen(work: Any) -> None:
    """Call `work`, which blocks or computes until it is told to stop: once another machine has taken over.

    It yields at its end: where nobody has looked at it by then, it looks at itself.
    """
    before = runtime.stats()["handoffs"]
    stop: list[bool] = []

    def look() -> None:
        helpers.wait_until(lambda: runtime.stats()["handoffs"] > before, "a hand-off")
        # The sampler has been asked by then; it gets the interpreter in its turn, as a rule.
        for _ in range(20):
            sleep(0.005)
        stop.append(True)

    goroutine = go(look)
    work(stop)
    helpers.wait_ended(goroutine)


moves_only = pytest.mark.skipif(
    helpers.FREE_THREADED, reason="started goroutines do not move without the GIL: nobody could tell it to stop"
)


def blocks(stop: list[bool]) -> None:
    while not stop:
        time.sleep(0.2)
    gosched()


# ---- the format ------------------------------------------------------------------------------


def check_format(document: dict[str, Any]) -> None:
    """The rules of the Trace Event Format for the phases that are used."""
    assert document["displayTimeUnit"] in ("ms", "ns")
    open_regions: dict[tuple[str, str], int] = {}
    for event in document["traceEvents"]:
        assert {"ph", "pid", "tid", "ts", "cat", "name"} <= event.keys()
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert event["ts"] >= 0
        match event["ph"]:
            case "X":
                assert event["dur"] >= 0
            case "i":
                assert event["s"] in ("g", "p", "t")
            case "b" | "e" as phase:
                key = event["id"], event["name"]
                open_regions[key] = open_regions.get(key, 0) + (1 if phase == "b" else -1)
                assert open_regions[key] >= 0
            case "M":
                assert event["name"] in ("process_name", "thread_name", "goroutine")
            case phase:
                raise AssertionError(f"phase {phase}")
    assert not any(open_regions.values())
    check_nesting(document)


def check_nesting(document: dict[str, Any]) -> None:
    """Slices of one thread follow each other: none begins before the last has ended, but for rounding."""
    threads: dict[tuple[int, int], list[Event]] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            threads.setdefault((event["pid"], event["tid"]), []).append(event)
    for slices in threads.values():
        slices.sort(key=lambda event: (event["ts"], event["dur"]))
        for before, after in itertools.pairwise(slices):
            assert before["ts"] + before["dur"] <= after["ts"] + 1.0, (before, after)


def test_a_program_of_everything_gives_a_well_formed_trace(tmp_path: Path) -> None:
    def main() -> None:
        jobs, results, mutex = makechan(2), makechan(), sync.Mutex()

        def worker(index: int) -> None:
            for job in jobs:
                with trace.region("job"), mutex:
                    gosched()
                trace.log("worker", f'"{index}" \\ did\n{job} \x01 \N{SNOWMAN}')
                results.send(job)

        for index in range(4):
            go(worker, index)
        go(lambda: [jobs.send(job) for job in range(50)])
        assert sorted(results.recv() for _ in range(50)) == list(range(50))
        jobs.close()
        syscall.blocking(sum, [1, 2])
        gc.collect()
        sleep(0.001)

    document = recorded(main, tmp_path / "trace.json")
    check_format(document)
    assert not document["otherData"]["truncated"]
    categories = {event["cat"] for event in document["traceEvents"]}
    assert {"run", "running", "runnable", "wait", "region", "log", "call", "gc"} <= categories
    reasons = {event["name"] for event in events(document, "wait")}
    assert {"chan receive", "sleep", "blocking call"} <= reasons
    assert len([event for event in events(document, "region") if event["ph"] == "b"]) == 50
    messages = {event["name"] for event in events(document, "log")}
    assert len(messages) == 50 and any("\N{SNOWMAN}" in message and '"' in message for message in messages)
    assert next(event["name"] for event in events(document, "call")) == "sum"


def test_a_wait_says_on_what_and_who_ended_it(tmp_path: Path) -> None:
    def main() -> None:
        channel = makechan()

        def receiver() -> None:
            channel.recv()

        goroutine = helpers.go_parked(receiver, reason="chan receive")
        # Long enough for a look at the stack: the clock of that ticks while something runs.
        helpers.wait_until(lambda: time.monotonic() > began + 0.1)
        channel.send(1)
        helpers.wait_ended(goroutine)

    began = time.monotonic()
    document = recorded(main, tmp_path / "trace.json")
    receiver, sender = number(document, "receiver"), number(document, "main")
    (wait,) = events(document, "wait", goroutine=receiver)
    assert wait["name"] == "chan receive"
    assert wait["args"]["woken_by"] == sender
    assert "in test_a_wait_says_on_what_and_who_ended_it.<locals>.main.<locals>.receiver" in wait["args"]["stack"][0]
    (made,) = [e for e in document["traceEvents"] if e["name"] == "goroutine" and e["tid"] == receiver]
    assert made["args"]["creator"] == sender
    assert "helpers.py" in made["args"]["stack"][0]


def test_runs_end_as_they_ended(tmp_path: Path) -> None:
    def main() -> None:
        def quick() -> None:
            gosched()

        helpers.wait_ended(go(quick))

    document = recorded(main, tmp_path / "trace.json")
    runs = events(document, "run", goroutine=number(document, "quick"))
    assert [run["args"]["end"] for run in runs] == ["yield", "end"]


def test_goroutines_that_were_there_before_have_names(tmp_path: Path) -> None:
    def main() -> None:
        channel = makechan()

        def elder() -> None:
            channel.recv()

        goroutine = helpers.go_parked(elder)
        with trace.start(tmp_path / "trace.json"):
            goroutine.name = "an elder"
            channel.send(None)
            helpers.wait_ended(goroutine)

    offset.run(main)
    document = json.loads((tmp_path / "trace.json").read_text())
    elder = number(document, "elder")
    assert [wait["name"] for wait in events(document, "wait", goroutine=elder)] == ["chan receive"]


def test_a_hundred_thousand_switches(tmp_path: Path) -> None:
    """Events so fast that the clock is not read for each: all are there, in order."""
    turns = 25_000

    def main() -> None:
        there, back = makechan(), makechan()

        def pong() -> None:
            for _ in range(turns):
                back.send(there.recv())

        goroutine = go(pong)
        for turn in range(turns):
            there.send(turn)
            back.recv()
        helpers.wait_ended(goroutine)

    document = recorded(main, tmp_path / "trace.json")
    check_nesting(document)
    pong = number(document, "pong")
    # With several processors a value may be there before it is waited for.
    assert len(events(document, "run", goroutine=pong)) >= (1 if helpers.FREE_THREADED else turns)
    reasons = {event["name"] for event in events(document, "wait", goroutine=pong)}
    assert reasons <= {"chan receive", "chan send"}


def test_who_woke_whom_at_full_speed(tmp_path: Path) -> None:
    """Switches that one record tells of: each wait was ended by a neighbour in the ring, who is next or is not."""
    size, turns = 5, 20_000
    ids: list[int] = []

    def main() -> None:
        ring, done = [makechan() for _ in range(size)], sync.WaitGroup()

        def node(index: int) -> None:
            for token in ring[index]:
                if token:
                    ring[(index + 1) % size].send(token - 1)
                else:
                    done.done()

        nodes = [go(node, index) for index in range(size)]
        ids.extend(goroutine.id for goroutine in nodes)
        done.add(2)
        for channel in ring[:2]:
            channel.send(turns)
        done.wait()
        for channel in ring:
            channel.close()
        for goroutine in nodes:
            helpers.wait_ended(goroutine)

    document = recorded(main, tmp_path / "trace.json")
    check_nesting(document)
    main_id = number(document, "main")
    for place, goroutine in enumerate(ids):
        waits = events(document, "wait", goroutine=goroutine)
        before, after = ids[place - 1], ids[(place + 1) % size]
        wakers = {name: {wait["args"].get("woken_by") for wait in waits if wait["name"] == name} for name in WAITS}
        # Between two machines a wait may seem to begin after it has ended, as not each event has its own time.
        unknown = {None} if helpers.FREE_THREADED else set()
        assert wakers["chan receive"] <= {before, main_id} | unknown
        assert wakers["chan send"] <= {after} | unknown
        if not helpers.FREE_THREADED:
            # Each token came by so often, and two never wait at one channel.
            assert len(waits) >= turns // size
            runs = events(document, "run", goroutine=goroutine)
            assert len(runs) >= len(waits)
            assert {run["args"]["end"] for run in runs} <= {*WAITS, "end"}


# ---- freezes ---------------------------------------------------------------------------------


@moves_only
def test_a_call_that_blocks_is_named_with_its_stack(tmp_path: Path) -> None:
    for _ in range(20):
        document = recorded(lambda: frozen(blocks), tmp_path / "trace.json")
        check_format(document)
        # Others may seem to be frozen, too, while the system lets them wait.
        freezes = [run for run in events(document, "run") if "stack" in run["args"] and run["args"].get("handed_off")]
        (freeze,) = [run for run in freezes if "in blocks" in run["args"]["stack"][0]]
        assert freeze["dur"] >= 10_000
        # One that waits for a core where the monitor looks, before its call or between two, seems to compute.
        if not freeze["args"]["computes"]:
            break
    assert freeze["args"]["computes"] is False
    assert events(document, "handoff", goroutine=freeze["args"]["goroutine"], computes=False)
    text = summary(tmp_path / "trace.json")
    assert "main [blocked]" in text and "in blocks" in text and "offset.syscall" in text


@moves_only
def test_a_loop_that_computes_is_named_with_its_stack(tmp_path: Path) -> None:
    def computes(stop: list[bool]) -> None:
        while not stop:
            sum(range(100))
        gosched()

    document = recorded(lambda: frozen(computes), tmp_path / "trace.json")
    freezes = [run for run in events(document, "run") if run["args"].get("computes")]
    assert any("in test_a_loop_that_computes" in run["args"]["stack"][0] for run in freezes if "stack" in run["args"])
    assert "[computed]" in summary(tmp_path / "trace.json")


@main_goroutine
def test_a_freeze_is_seen_on_every_build(tmp_path: Path) -> None:
    def seen() -> bool:
        with trace.start(tmp_path / "trace.json"):
            # Longer by far than it takes the monitor to look, unless the system lets that wait, too.
            time.sleep(0.5)
            gosched()
        document = json.loads((tmp_path / "trace.json").read_text())
        freezes = [run for run in events(document, "run") if run["dur"] > 400_000]
        return any("test_a_freeze_is_seen" in run["args"].get("stack", [""])[0] for run in freezes)

    assert any(seen() for _ in range(5))


# ---- start and stop --------------------------------------------------------------------------


@main_goroutine
def test_start_twice_and_stop_twice(tmp_path: Path) -> None:
    assert not trace.is_enabled()
    trace.stop()
    trace.start(tmp_path / "one.json")
    assert trace.is_enabled()
    with pytest.raises(RuntimeError, match="goes on already"):
        trace.start(tmp_path / "two.json")
    trace.stop()
    trace.stop()
    assert not trace.is_enabled()
    assert not (tmp_path / "two.json").exists()
    assert trace._runtime.trace_gc not in gc.callbacks
    check_format(json.loads((tmp_path / "one.json").read_text()))


def test_start_and_stop_in_a_plain_thread(tmp_path: Path) -> None:
    with trace.start(tmp_path / "trace.json"):
        offset.run(gosched)
    document = json.loads((tmp_path / "trace.json").read_text())
    check_format(document)
    assert next(run["args"]["end"] for run in events(document, "run")) == "yield"


@main_goroutine
def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        trace.start(tmp_path / "missing" / "trace.json")
    for limit in (0, -1):
        with pytest.raises(ValueError, match="positive number of bytes"):
            trace.start(tmp_path / "trace.json", limit=limit)
        with pytest.raises(ValueError, match="positive number of bytes"):
            trace.FlightRecorder(limit=limit)
    for seconds in (0, -1.5):
        with pytest.raises(ValueError, match="positive number of seconds"):
            trace.FlightRecorder(seconds)
    with pytest.raises(ValueError, match="a number of seconds, not NaN"):
        trace.FlightRecorder(float("nan"))
    with pytest.raises(TypeError, match="name is a string, not int"):
        trace.region(3)
    with pytest.raises(TypeError, match="both strings"):
        trace.log("category", 3)
    assert not trace.is_enabled()


@main_goroutine
def test_a_file_object_and_a_compressed_file(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with trace.start(memory):
        gosched()
    check_format(json.loads(memory.getvalue()))
    with trace.start(tmp_path / "trace.json.gz"):
        gosched()
    check_format(json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes())))
    assert "goroutine" in summary(tmp_path / "trace.json.gz")


def test_a_trace_that_is_full_says_so(tmp_path: Path) -> None:
    def main() -> None:
        trace.start(tmp_path / "trace.json", limit=1)
        for _ in range(20_000):
            trace.log("a", "b")
        assert not trace.is_enabled()
        with pytest.warns(RuntimeWarning, match="full before it was stopped"):
            trace.stop()

    offset.run(main)
    document = json.loads((tmp_path / "trace.json").read_text())
    check_format(document)
    assert document["otherData"]["truncated"]
    assert 0 < len(events(document, "log")) < 20_000
    assert "full before it was stopped" in summary(tmp_path / "trace.json")


@main_goroutine
def test_regions_and_logs_without_a_recording_do_nothing() -> None:
    with trace.region("nothing"):
        trace.log("nothing", "at all")


@main_goroutine
def test_a_region_ends_with_an_exception(tmp_path: Path) -> None:
    recording = trace.start(tmp_path / "trace.json")
    with recording, contextlib.suppress(KeyError), trace.region("outer"), trace.region("inner"):
        raise KeyError
    document = json.loads((tmp_path / "trace.json").read_text())
    check_format(document)
    assert [(e["ph"], e["name"]) for e in events(document, "region")] == [
        ("b", "outer"), ("b", "inner"), ("e", "inner"), ("e", "outer"),
    ]  # fmt: skip


@main_goroutine
def test_a_long_message_is_cut_between_characters(tmp_path: Path) -> None:
    with trace.start(tmp_path / "trace.json"):
        trace.log("long", "\N{SNOWMAN}" * 5_000)
    (message,) = events(json.loads((tmp_path / "trace.json").read_text()), "log")
    assert set(message["name"]) == {"\N{SNOWMAN}"}
    assert 1_300 < len(message["name"]) < 1_366


# ---- the flight recorder ---------------------------------------------------------------------


@main_goroutine
def test_a_flight_recorder_keeps_the_last_seconds(tmp_path: Path) -> None:
    recorder = trace.FlightRecorder(seconds=0.05)
    with recorder:
        assert recorder.enabled and trace.is_enabled()
        with pytest.raises(RuntimeError, match="at work already"):
            trace.FlightRecorder().start()
        trace.log("old", "old")
        until = time.monotonic() + 0.2
        helpers.wait_until(lambda: time.monotonic() > until)

        def kept(name: str, file: str) -> set[str]:
            """What a file has of what was logged; `name` was a moment ago."""
            while True:
                began = time.monotonic()
                trace.log(name, name)
                recorder.write_to(tmp_path / file)
                if time.monotonic() - began < 0.05:
                    return {event["name"] for event in events(json.loads((tmp_path / file).read_text()), "log")}

        assert kept("new", "flight.json") == {"new"}
        assert "later" in kept("later", "again.json")
    assert not recorder.enabled and not trace.is_enabled()
    with pytest.raises(RuntimeError, match="not at work"):
        recorder.write_to(tmp_path / "never.json")
    check_format(json.loads((tmp_path / "flight.json").read_text()))


@main_goroutine
def test_a_flight_recorder_is_bounded(tmp_path: Path) -> None:
    with trace.FlightRecorder(seconds=3600, limit=256 << 10) as recorder:
        for turn in range(200_000):
            trace.log("turn", str(turn))
        recorder.write_to(tmp_path / "flight.json")
    turns = [int(event["name"]) for event in events(json.loads((tmp_path / "flight.json").read_text()), "log")]
    assert turns[-1] == 199_999
    assert turns == list(range(turns[0], 200_000))
    assert 1_000 < len(turns) < 100_000


@main_goroutine
def test_a_flight_recorder_beside_a_trace(tmp_path: Path) -> None:
    with trace.start(tmp_path / "trace.json"), trace.FlightRecorder() as recorder:
        trace.log("both", "both")
        recorder.write_to(tmp_path / "flight.json")
    for name in ("trace.json", "flight.json"):
        assert events(json.loads((tmp_path / name).read_text()), "log")


def test_an_exception_that_leaves_a_goroutine_writes_the_recording(tmp_path: Path, reports: list[Any]) -> None:
    def main() -> None:
        with trace.FlightRecorder(on_error=tmp_path / "flight.json"):
            helpers.wait_ended(go(lambda: 1 // 0))

    offset.run(main, on_panic="report")
    assert [type(error) for _, error in reports] == [ZeroDivisionError]
    check_format(json.loads((tmp_path / "flight.json").read_text()))


@main_goroutine
def test_an_exception_that_leaves_the_block_writes_the_recording(tmp_path: Path) -> None:
    with pytest.raises(KeyError), trace.FlightRecorder(on_error=tmp_path / "flight.json"):
        raise KeyError
    check_format(json.loads((tmp_path / "flight.json").read_text()))


def test_a_recording_that_cannot_be_written_is_reported(
    tmp_path: Path, reports: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        with trace.FlightRecorder(on_error=tmp_path / "missing" / "flight.json"):
            helpers.wait_ended(go(lambda: 1 // 0))

    offset.run(main, on_panic="report")
    assert len(reports) == 1
    assert "flight recorder could not be written" in capsys.readouterr().err


# ---- processes -------------------------------------------------------------------------------


def test_a_forked_child_has_no_recording(tmp_path: Path) -> None:
    program = """
        import os, sys
        from offset import go, gosched, run
        from offset.runtime import trace

        def main():
            trace.start("trace.json")
            trace.FlightRecorder().start()
            trace.log("who", "parent")
            child = os.fork()
            if child == 0:
                assert not trace.is_enabled()
                trace.log("who", "child")
                trace.stop()
                with trace.start("child.json"):
                    trace.log("who", "child")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            trace.log("who", "parent still")
            trace.stop()

        run(main)
    """
    done = _program(program, tmp_path)
    assert done.returncode == 0, done.stderr
    for name, who in (("trace.json", ["parent", "parent still"]), ("child.json", ["child"])):
        document = json.loads((tmp_path / name).read_text())
        assert [event["name"] for event in events(document, "log")] == who


def test_a_trace_that_nobody_stopped_is_written_at_exit(tmp_path: Path) -> None:
    program = """
        from offset import go, makechan, run
        from offset.runtime import trace

        def main():
            trace.start("trace.json")
            go(makechan().recv)
            trace.log("said", "something")

        run(main)
    """
    done = _program(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert events(json.loads((tmp_path / "trace.json").read_text()), "log")


def _program(text: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(text), *arguments]
    return subprocess.run(
        command, check=False, cwd=directory, capture_output=True, text=True, timeout=helpers.PATIENCE * 2
    )


# ---- the summary -----------------------------------------------------------------------------


def summary(path: Path, *arguments: str) -> str:
    done = command("summary", str(path), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "offset", "trace", *arguments]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=helpers.PATIENCE * 2)


def test_the_summary_names_who_waited_most(tmp_path: Path) -> None:
    def main() -> None:
        jobs = makechan()

        def worker() -> None:
            jobs.recv()

        goroutines = [go(worker) for _ in range(3)]
        helpers.wait_parked(*goroutines)
        until = time.monotonic() + 0.05
        helpers.wait_until(lambda: time.monotonic() > until)
        for _ in goroutines:
            jobs.send(None)
        helpers.wait_ended(*goroutines)

    recorded(main, tmp_path / "trace.json")
    text = summary(tmp_path / "trace.json", "--top", "3")
    waits = text[text.index("waited most") :]
    assert "worker [chan receive]" in waits and "and 2 more)" in waits
    assert "freeze" not in summary(tmp_path / "trace.json", "--freeze", "1e9").partition("froze")[2]


def test_what_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[1, 2]")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "other.json").write_text('{"traceEvents": [{}]}')
    whole = gzip.compress(b'{"traceEvents": []}' * 1000)
    (tmp_path / "cut.gz").write_bytes(whole[:-20])
    (tmp_path / "damaged.gz").write_bytes(whole[:20] + b"x" * 10 + whole[30:])
    for name, message in (
        ("no.json", "is no trace"),
        ("text", "is no trace"),
        ("other.json", "its events are others"),
        ("cut.gz", "is cut or damaged"),
        ("damaged.gz", "is cut or damaged"),
        ("missing", "No such file"),
    ):
        done = command("summary", str(tmp_path / name))
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert "summary" in command("--help").stdout
