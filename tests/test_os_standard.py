"""`offset.os`: standard input, output and error, of each kind, in programs of their own.

Invariant: what a program does with them is not seen by others who share them.
"""

from __future__ import annotations

import os as python
import pty
import select
import signal
import socket
import subprocess
import sys
import textwrap
import tty

import pytest
from helpers import PATIENCE, run_script, start_script

STREAMS = """
    import os, sys
    from offset import go, io, os as files, run, runtime, sleep

    def flags():
        import fcntl
        return [fcntl.fcntl(number, fcntl.F_GETFL) for number in range(3)]
"""


@pytest.mark.parametrize("kind", ["pipe", "file", "socket", "null"])
def test_standard_input_of_each_kind(kind, tmp_path):
    program = f"""
    {STREAMS}
    def main():
        before = flags()
        print(len(files.stdin.read()), flags() == before)
    run(main)
    """
    data = b"x" * 300_000
    command = [sys.executable, "-c", textwrap.dedent(program)]
    if kind == "pipe":
        output = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    elif kind == "file":
        (tmp_path / "input").write_bytes(data)
        with open(tmp_path / "input", "rb") as file:
            file.seek(100_000)
            output = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, check=True).stdout
    elif kind == "socket":
        one, other = socket.socketpair()
        with subprocess.Popen(command, stdin=one, stdout=subprocess.PIPE) as process:
            one.close()
            other.sendall(data)
            other.close()
            output = process.communicate()[0]
    else:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    assert output == b"%d True\n" % {"file": 200_000, "null": 0}.get(kind, len(data))


def test_standard_streams_that_are_shared_or_redirected():
    program = f"""
    {STREAMS}
    def main():
        # Another process reads from the same pipe before we do.
        assert os.popen("head -c 5").read() == "12345"
        assert files.stdin.read(3) == b"678"
        reading = go(files.stdin.read, 1)
        while reading.wait_reason != "IO wait":
            sleep(0.001)
        # By its number: where it leads now.
        saved = os.dup(1)
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        files.stdout.write(b"elsewhere")
        assert os.read(reader, 100) == b"elsewhere"
        os.dup2(saved, 1)
        assert files.stdout.write(b"here\\n") == 5
        files.stderr.write(b"")
        os.write(2, b"go on")
        reading.join()
    run(main)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"12345678")
        process.stdin.flush()
        assert process.stderr.read(5) == b"go on"
        stdout, stderr = process.communicate(b"9", timeout=PATIENCE)
    assert (process.returncode, stdout, stderr) == (0, b"here\n", b"")


def test_a_closed_standard_stream():
    program = f"""
    {STREAMS}
    def main():
        # Now that the runtime has its own descriptors.
        ends = files.pipe()
        os.close(0)
        for stream in (files.stdin, files.stdin):
            try:
                stream.read(1)
            except OSError as error:
                print(error, flush=True)
        files.stdout.close()
        try:
            files.stdout.write(b"x")
        except OSError as error:
            print(error, file=sys.stderr)
        for end in ends:
            end.close()
    run(main)
    sys.stdout = None
    """
    status, stdout, stderr = run_script(program)
    assert status == 0
    assert stdout == "[Errno 9] read /dev/stdin: Bad file descriptor\n" * 2
    assert stderr == "[Errno 9] write /dev/stdout: closed\n"


def test_an_interrupt_reaches_who_reads_standard_input():
    program = f"""
    {STREAMS}
    def main():
        try:
            print("ready", flush=True)
            files.stdin.read(1)
        except KeyboardInterrupt:
            print("interrupted")
    run(main)
    """
    with start_script(program) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"


def test_a_program_at_a_terminal():
    program = """
    import os, sys
    from offset import go, makechan, os as files, run, runtime, sleep

    def main():
        lines = makechan()
        def read():
            for line in files.stdin:
                lines.send(line)
            lines.close()
        go(read)
        files.stdout.write(b"ready\\n")
        for line in lines:
            files.stdout.write(b"got " + line)
            # No descriptor of the shell's is changed, and nobody is blocked.
            assert all(os.get_blocking(number) for number in range(3))
            while runtime.stats()["stuck_machines"]:
                sleep(0.001)
        files.stdout.write(b"end\\n")
    run(main)
    """
    master, slave = pty.openpty()
    tty.setraw(slave)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=slave, stdout=slave, stderr=subprocess.PIPE
    ) as process:
        python.close(slave)
        seen = b""

        def until(text):
            nonlocal seen
            while text not in seen:
                assert select.select([master], [], [], PATIENCE)[0], (seen, process.poll())
                seen += python.read(master, 1000)

        until(b"ready\n")
        python.write(master, b"one\n")
        until(b"got one\n")
        python.write(master, b"two\n")
        until(b"got two\n")
        # Its end: there is no signal, as the terminal is nobody's controlling one.
        python.close(master)
        _, stderr = process.communicate(timeout=PATIENCE)
    # It hung up: reading ends, and what it says goes nowhere.
    assert b"Input/output error" in stderr, stderr
