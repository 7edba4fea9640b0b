"""`/metrics`: what Prometheus reads, by its own parser."""

from __future__ import annotations

import os
import re

import offset
import pytest
from helpers import go_parked, main_goroutine, wait_ended
from offset import debug, makechan, runtime, time
from offset.debug import _metrics
from pages import ask

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is not installed")


def families(text):
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def value(found, name, **labels):
    (sample,) = [sample for sample in found[name].samples if sample.labels == labels]
    return sample.value


@main_goroutine
def test_the_parser_reads_what_is_served():
    channel = makechan()
    waiting = [go_parked(channel.recv) for _ in range(3)]
    with debug.serve("127.0.0.1:0") as server:
        answer = ask(server.addr, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = families(answer.body)
    assert value(found, "offset_goroutines", state="chan receive") == 3
    assert value(found, "offset_goroutines", state="running") >= 1
    assert value(found, "offset_processors") == runtime.stats()["processors"]
    (info,) = found["offset_info"].samples
    assert (info.value, info.labels["version"]) == (1, offset.__version__)
    assert sum(sample.value for sample in found["offset_machines"].samples) >= 1
    assert {sample.labels["state"] for sample in found["offset_machines"].samples} == {"running", "idle", "stuck"}
    assert value(found, "process_resident_memory_bytes") > 1 << 20
    assert 0 < value(found, "process_open_fds") <= len(os.listdir("/proc/self/fd")) + 10
    assert value(found, "process_cpu_seconds") > 0
    assert found["python_gc_collections"].samples[0].labels == {"generation": "0"}
    for one in waiting:
        one.cancel()
    wait_ended(*waiting)


@main_goroutine
def test_each_metric_follows_the_conventions():
    text = _metrics.text()
    assert text.endswith("\n")
    assert "\r" not in text
    for name, family in families(text).items():
        assert re.fullmatch(r"(offset|process|python_gc)_[a-z_]+", name)
        assert re.search(rf"^# HELP {name}(_total)? .+\.$", text, re.MULTILINE), name
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), name
            assert sample.value >= 0
        # Each name is announced once, before its samples.
        assert len(re.findall(rf"^# TYPE {name}(?:_total)? ", text, re.MULTILINE)) == 1


@main_goroutine
def test_counters_grow():
    before = families(_metrics.text())
    goroutine = offset.go(time.sleep, 0.001)
    wait_ended(goroutine)
    after = families(_metrics.text())
    for name in ("offset_switches", "offset_goroutines_started"):
        assert value(after, name) > value(before, name)
    counters = [name for name, family in after.items() if family.type == "counter"]
    assert {"offset_handoffs", "offset_moves", "offset_switches"} <= set(counters)
    for name in counters:
        for new, old in zip(after[name].samples, before[name].samples, strict=True):
            assert new.value >= old.value


def test_what_labels_and_texts_have_is_escaped():
    odd = 'quote " backslash \\ line\nend'
    text = _metrics._metric("name", "gauge", "line\nand \\", [({"label": odd}, 1.5)])
    (family,) = families(text).values()
    assert family.documentation == "line\nand \\"
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"label": odd}, 1.5)]


def test_before_the_first_goroutine():
    from helpers import run_script

    program = """
        from offset.debug import _metrics, _vars
        text = _metrics.text()
        print("offset_switches_total 0\\n" in text, "offset_goroutines{" in text, '"goroutines": {}' in _vars.text())
    """
    assert run_script(program) == (0, "True False True\n", "")
