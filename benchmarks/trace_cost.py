"""What a trace and a flight recorder cost in the scenarios of offset: `python trace_cost.py [SCENARIO,...] [TIMES]`.

Each runs without, with a flight recorder and with a trace, in turn; the fastest of TIMES runs counts, by the
clock on the wall and by processor time. The trace is not written: that is not part of the cost of recording.
"""

from __future__ import annotations

import sys
import time

import on_offset
from offset import _runtime, run

SIZES = {
    "pingpong": 400_000,
    "buffered": 2_000_000,
    "fanin": 600_000,
    "sieve": 300,
    "mutex": 300_000,
    "spawn": 50_000,
}
MODES = ("off", "flight", "trace")


def measure(name: str, mode: str) -> tuple[float, float]:
    """Wall and processor time of one run, in seconds."""
    size = SIZES[name]

    def main() -> tuple[float, float]:
        if mode == "flight":
            _runtime.trace_start(True, 16 << 20, 10.0)
        elif mode == "trace":
            _runtime.trace_start(False, 1 << 31)
        try:
            wall, used = time.perf_counter(), time.process_time()
            getattr(on_offset, name)(size)
            return time.perf_counter() - wall, time.process_time() - used
        finally:
            if mode != "off":
                _runtime.trace_stop(mode == "flight", -1)

    return run(main)


def main(names: list[str], times: int) -> None:
    print(f"{'scenario':10} {'off, ns':>10} {'flight':>16} {'trace':>16}   (wall, processor time)")
    for name in names:
        best = {mode: [float("inf"), float("inf")] for mode in MODES}
        for _ in range(times):
            for mode in MODES:
                best[mode] = [min(pair) for pair in zip(best[mode], measure(name, mode), strict=True)]
        off = best["off"]
        cells = [
            " ".join(f"{(value / base - 1) * 100:+7.1f}%" for value, base in zip(best[mode], off, strict=True))
            for mode in MODES[1:]
        ]
        print(f"{name:10} {off[0] * 1e9 / SIZES[name]:10.1f} {cells[0]:>16} {cells[1]:>16}", flush=True)


if __name__ == "__main__":
    chosen = sys.argv[1].split(",") if len(sys.argv) > 1 else list(SIZES)
    main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 9)
