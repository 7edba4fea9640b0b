"""A million parked goroutines: what they cost, and that every one of them ends.

Slow, and needs 8 GB of memory: run with `--run-slow`. The figures are printed (`-s` shows them).
"""

import os
import sys

import pytest
from helpers import FREE_THREADED, run_script

COUNT = 1_000_000

# Resident memory and page tables together, in bytes.
LIMIT = int(7.5 * 1024**3)


def memory_of_machine():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(FREE_THREADED, reason="a thread state costs ten times as much without the GIL")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(memory_of_machine() < LIMIT + 2 * 1024**3, reason="needs more memory than there is")
def test_a_million_parked_goroutines():
    ended = run_script(
        """
        import sys, time
        import offset

        def memory():
            with open("/proc/self/status") as file:
                sizes = {line.split(":")[0]: line.split()[1] for line in file if line.endswith("kB\\n")}
            return int(sizes["VmRSS"]) * 1024, int(sizes["VmPTE"]) * 1024

        def parked(gate, count):
            count.add(1)
            gate.recv_ok()
            count.add(-1)

        def main(total):
            gate, count = offset.makechan(), offset.sync.atomic.Int()
            resident, tables = memory()
            begin = time.perf_counter()
            for _ in range(total):
                offset.go(parked, gate, count)
            while count.load() < total:
                offset.gosched()
            started = time.perf_counter()
            most_resident, most_tables = memory()
            gate.close()
            while offset.runtime.num_goroutine() > 1:
                offset.sleep(0.01)
            finished = time.perf_counter()
            assert count.load() == 0
            print("bytes", most_resident + most_tables)
            print(f"resident {(most_resident - resident) / total:.0f} B, page tables "
                  f"{(most_tables - tables) / total:.0f} B each; started in {(started - begin) / total * 1e6:.2f} us, "
                  f"ended in {(finished - started) / total * 1e6:.2f} us each")

        offset.run(main, int(sys.argv[1]))
        """,
        COUNT,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr
    figures = ended.stdout.splitlines()
    print(figures[1])
    assert int(figures[0].removeprefix("bytes ")) <= LIMIT, ended.stdout
