"""Run every scenario on every rival in turn, and write results.json, results.md and results.svg.

    python benchmarks/run.py                                    all of it, five times: twenty minutes
    python benchmarks/run.py --rivals offset,go --scenarios pingpong,yield --times 9
    python benchmarks/run.py --alone --scenarios offload        before all other processes (SCHED_FIFO, for root)
    python benchmarks/run.py --out results-3.11 --render        only write the table and the plot again

Invariants:

* Each sample is a process of its own. Within a scenario the rivals take turns (A B C, A B C, ...), so
  that what slows the machine down for a while slows all of them down.
* New samples of a rival and scenario replace the old ones; the others stay. What is compared with one
  another ought to come from one run: the report says when it does not.
* offset runs in this interpreter, in which it must be installed; the rivals in a virtual environment
  of this interpreter's version, made at the first run in the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report
from scenarios import SCENARIOS, THOUSANDTH_PRIME, Scenario

HERE = Path(__file__).resolve().parent
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}{'t' if FREE_THREADED else ''}"
ENVIRONMENT = HERE.parent / f".venv-bench-{VERSION}"
PYTHON = ENVIRONMENT / "bin" / "python"
GO_PROGRAM = ENVIRONMENT / "go-scenarios"

# Seconds after which a sample is given up, and seconds after which a cell gets no more samples.
SAMPLE_LIMIT = 240
CELL_LIMIT = 60

# Bytes of free memory that a scenario of a million tasks needs.
MILLION_MEMORY = 10 << 30


@dataclass(frozen=True)
class Rival:
    """Something to measure: the command, its environment, and its pace (see `Scenario.sizes`)."""

    name: str
    command: tuple[str | Path, ...]
    pace: str
    environment: dict[str, str] = field(default_factory=dict)
    million: bool = False
    network_only: bool = False

    def does(self, scenario: Scenario) -> bool:
        """Is there anything to measure?"""
        return (self.million or not scenario.million) and (scenario.network or not self.network_only)


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("offset", (sys.executable, HERE / "on_offset.py"), "fast", million=True),
        Rival(
            "offset-socket", (sys.executable, HERE / "on_offset.py"), "fast", {"BENCH_NET": "socket"}, network_only=True
        ),
        Rival("go", (GO_PROGRAM,), "fast", million=True),
        Rival("go-p1", (GO_PROGRAM,), "fast", {"GOMAXPROCS": "1"}, million=True),
        Rival("asyncio", (PYTHON, HERE / "on_asyncio.py"), "slow", million=True),
        Rival("uvloop", (PYTHON, HERE / "on_asyncio.py"), "slow", {"BENCH_LOOP": "uvloop"}),
        Rival(
            "uvloop-protocols",
            (PYTHON, HERE / "on_asyncio.py"),
            "slow",
            {"BENCH_LOOP": "uvloop", "BENCH_NET": "protocols"},
            network_only=True,
        ),
        Rival("rloop", (PYTHON, HERE / "on_asyncio.py"), "slow", {"BENCH_LOOP": "rloop"}),
        Rival("gevent", (PYTHON, HERE / "on_gevent.py"), "slow", million=True),
        Rival("threads", (PYTHON, HERE / "on_threads.py"), "threads"),
    )
}


# ---- preparing ---------------------------------------------------------------------------------


def prepare(rivals: list[str], scenarios: list[str]) -> dict[str, str]:
    """Make the environment and the Go program where they are needed; give the versions of everything."""
    requirements = HERE / "requirements.txt"
    marker = ENVIRONMENT / ".installed"
    if not marker.exists() or marker.stat().st_mtime < requirements.stat().st_mtime:
        print(f"making {ENVIRONMENT.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for line in requirements.read_text().splitlines():
            if line and not line.startswith("#") and subprocess.run([*pip, line], check=False).returncode:
                print(f"{line} cannot be installed for this interpreter: left out", flush=True)
        marker.touch()

    listing = subprocess.run(
        [PYTHON, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    versions = {package["name"]: package["version"] for package in json.loads(listing)}
    versions = {name: versions[name] for name in ("gevent", "uvloop", "rloop") if name in versions}

    networks = any(SCENARIOS[name].network for name in scenarios)
    if networks or any(RIVALS[name].command[0] == GO_PROGRAM for name in rivals):
        go = ENVIRONMENT / "bin" / "go"
        subprocess.run([go, "build", "-o", GO_PROGRAM, "."], cwd=HERE / "go", check=True)
        answer = subprocess.run([go, "version"], check=True, capture_output=True, text=True).stdout
        versions["go"] = answer.split()[2].removeprefix("go")
    if {"offset", "offset-socket"} & set(rivals):
        ask = "import offset; print(offset.__version__)"
        asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
        if asked.returncode:
            sys.exit(f"offset cannot be imported by {sys.executable}; `make build` installs it\n{asked.stderr}")
        versions["offset"] = asked.stdout.strip()
    return versions


# ---- measuring ---------------------------------------------------------------------------------


class Others:
    """The number of cores that processes other than ours kept busy during a `with` block, in `cores`."""

    def __enter__(self) -> Others:
        self._started, self._used = time.monotonic(), self._used_so_far()
        return self

    def __exit__(self, *exception: object) -> None:
        passed = time.monotonic() - self._started
        self.cores = round(max(0.0, (self._used_so_far() - self._used) / passed), 2)

    @staticmethod
    def _used_so_far() -> float:
        with open("/proc/stat") as stat:
            ticks = [int(each) for each in stat.readline().split()[1:9]]
        idle = ticks[3] + ticks[4]
        ours = sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - ours


def free_memory() -> int:
    """The bytes that can be allocated before the machine is short of memory."""
    with open("/proc/meminfo") as information:
        for line in information:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0


def go_first() -> None:
    """Let this process and its children run before all others of the machine; a twentieth is left to those."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def measure(rival: Rival, scenario: Scenario, alone: bool) -> dict[str, Any]:
    """One sample; it has "failed" and the reason when there is none."""
    if scenario.million and free_memory() < MILLION_MEMORY:
        return {"failed": "too little memory"}
    size = scenario.size(rival.pace)
    try:
        ended = subprocess.run(
            [*rival.command, scenario.name, str(size)],
            cwd=HERE,
            env={
                **os.environ,
                "PYTHONDONTWRITEBYTECODE": "1",
                "BENCH_CLIENT": str(GO_PROGRAM),
                **rival.environment,
            },
            capture_output=True,
            text=True,
            timeout=SAMPLE_LIMIT,
            preexec_fn=go_first if alone else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"over {SAMPLE_LIMIT} s"}
    if ended.returncode or not ended.stdout:
        said = ended.stderr.strip().splitlines() or ["without a word"]
        return {"failed": f"ended with {ended.returncode}: {said[-1][:100]}"}
    sample: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    if scenario.name == "sieve":
        if sample["last"] != THOUSANDTH_PRIME:
            return {"failed": f"a wrong prime, {sample['last']}"}
    elif sample["operations"] != size:
        return {"failed": f"{sample['operations']} operations instead of {size}"}
    return {"size": size, "alone": alone, **sample}


def measure_all(
    rivals: list[str], scenarios: list[str], times: int, batch: str, alone: bool
) -> Iterator[dict[str, Any]]:
    """The samples, in the order in which they are taken."""
    for scenario in (SCENARIOS[name] for name in scenarios):
        spent = {name: 0.0 for name in rivals if RIVALS[name].does(scenario)}
        for _ in range(times):
            for name in list(spent):
                if spent[name] > CELL_LIMIT:
                    continue
                started = time.monotonic()
                with Others() as others:
                    sample = measure(RIVALS[name], scenario, alone)
                spent[name] += time.monotonic() - started
                sample |= {"rival": name, "scenario": scenario.name, "others": others.cores, "batch": batch}
                if "failed" in sample:
                    del spent[name]
                    print(f"{scenario.name:10} {name:10} {sample['failed']}", flush=True)
                else:
                    each = sample["seconds"] / sample["operations"] * 1e9
                    print(f"{scenario.name:10} {name:10} {each:15,.1f} ns an operation", flush=True)
                yield sample


# ---- the command -------------------------------------------------------------------------------


def chosen(text: str, known: dict[str, Any]) -> list[str]:
    """The names in a comma-separated list, in the order of `known`; all of them when it is empty."""
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - set(known):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [name for name in known if not names or name in names]


def processor() -> str:
    """What the machine says of its processor."""
    with open("/proc/cpuinfo") as information:
        for line in information:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", default="", help=f"of {', '.join(RIVALS)}; all unless told")
    parser.add_argument("--scenarios", default="", help=f"of {', '.join(SCENARIOS)}; all unless told")
    parser.add_argument("--times", type=int, default=5, help="samples of each")
    parser.add_argument("--out", default="results", help="name of the files to write, in benchmarks/")
    parser.add_argument("--alone", action="store_true", help="before all other processes (SCHED_FIFO, for root)")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args()

    path = HERE / f"{options.out}.json"
    data = json.loads(path.read_text()) if path.exists() else {"samples": []}
    if not options.render:
        rivals, scenarios = chosen(options.rivals, RIVALS), chosen(options.scenarios, SCENARIOS)
        data["versions"] = data.get("versions", {}) | prepare(rivals, scenarios)
        data["machine"] = {
            "python": platform.python_version() + (" without the GIL" if FREE_THREADED else ""),
            "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
            "processor": processor(),
            "cores": os.cpu_count(),
        }
        batch = time.strftime("%Y-%m-%d %H:%M")
        replaced = {(name, scenario) for name in rivals for scenario in scenarios}
        data["samples"] = [s for s in data["samples"] if (s["rival"], s["scenario"]) not in replaced]
        for sample in measure_all(rivals, scenarios, options.times, batch, options.alone):
            data["samples"].append(sample)
            path.write_text(json.dumps(data, indent=1) + "\n")
    table = report.render(data, list(RIVALS), options.out)
    (HERE / f"{options.out}.md").write_text(table)
    subprocess.run([PYTHON, HERE / "plot.py", path, HERE / f"{options.out}.svg"], check=True)
    print("\n" + table)


if __name__ == "__main__":
    main()
