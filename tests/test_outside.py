"""`offset dump PID`: a live process says what its goroutines do, to whom it should, and goes on.

Invariant: the processes that are asked are children of the test, which says when they end: they read a line first.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

import offset
import pytest
from asked import PARKED, PROGRAM, Asked, command
from helpers import FREE_THREADED, PATIENCE, run_script
from offset import _outside

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux's")


def test_the_command_prints_all_stacks_and_the_process_goes_on():
    asked = Asked(PARKED.replace("COUNT", "3"))
    with asked as process:
        status, text, errors = command("dump", process.pid)
    assert (status, errors) == (0, "")
    assert len(re.findall(r"^goroutine \d+ \[chan receive\] worker:$", text, re.MULTILINE)) == 3
    assert re.search(r"^goroutine 1 \[blocking call\] main:$", text, re.MULTILINE)
    assert text.count("in worker\n") == 3
    assert re.search(r"^created by .* in main.* in goroutine 1$", text, re.MULTILINE)
    assert re.search(r"^thread MainThread:$", text, re.MULTILINE)
    assert "in _until_over\n" in text
    assert asked.output[0] == "went on\n"
    assert asked.process.returncode == 0


def test_many_are_put_together():
    with Asked(PARKED.replace("COUNT", "300")) as process:
        text = _outside.ask(process.pid, "dump", PATIENCE)
        full = _outside.ask(process.pid, "full", PATIENCE)
    assert text.startswith("301 goroutines\n\n300 goroutines [chan receive, ")
    assert text.count("in worker") == 1
    assert "and 280 more" in text
    assert len(re.findall(r"^goroutine \d+ \[chan receive\]", full, re.MULTILINE)) == 300


def test_the_other_forms():
    program = PARKED.replace("COUNT", "2").replace("jobs.recv()", "makechan().recv()")
    with Asked(program) as process:
        group = command("dump", "--group", process.pid)
        leaks = command("dump", "--leaks", process.pid)
        stats = command("dump", "--stats", process.pid)
        unknown = _outside.ask(process.pid, "nonsense")
    assert (group[0], leaks[0], stats[0]) == (0, 0, 0)
    assert group[1].startswith("2 goroutines [chan receive, ")
    assert leaks[1].startswith("2 goroutines are leaked")
    assert json.loads(stats[1])["goroutines"] == 3
    assert "cannot say 'nonsense'; it knows dump" in unknown


@pytest.mark.parametrize(
    "busy",
    [
        "go(time.sleep, PATIENCE); PAUSE(0.01); ready(); end()",
        "go(hog); go(hog); PAUSE(0.01); ready(); END",
        "ready(); end()",
    ],
    ids=["calls in C", "hogs", "main in C"],
)
def test_whatever_the_program_does(busy):
    hog = "\ndef hog():\n    while True:\n        pass\n"
    # Without the GIL the main goroutine would not go on after a park, as one of the others then has its machine.
    words = {
        "PATIENCE": str(PATIENCE),
        "PAUSE": "time.sleep" if FREE_THREADED else "offset.sleep",
        "END": "end()" if FREE_THREADED else "offset.syscall.blocking(end)",
    }
    for word, meaning in words.items():
        busy = busy.replace(word, meaning)
    program = f"{PROGRAM}{hog}\ndef main():\n    {busy}\n\noffset.run(main, grace=0)\n"
    with Asked(program) as process:
        text = _outside.ask(process.pid, "dump", PATIENCE)
        process.stdin.write("\n")
        process.stdin.flush()
    assert re.search(r"^goroutine 1 \[", text, re.MULTILINE)


def test_outside_of_run():
    program = "one = go(nilchan.recv)\nwhile not one.wait_reason:\n    time.sleep(0.001)\nready()\nend()\n"
    with Asked(PROGRAM + program) as process:
        text = _outside.ask(process.pid, "dump", PATIENCE)
    assert "goroutine 1 [chan receive (nil chan)] NilChan.recv:" in text
    assert "thread MainThread:" in text


def test_while_nothing_happens_deadlocks_are_still_found():
    status, _, stderr = run_script(PROGRAM + "offset.run(nilchan.recv)")
    assert status == 1
    assert "DeadlockError" in stderr


def test_a_forked_child_answers_for_itself():
    program = (
        PROGRAM
        + """
import os
def park(*goroutines):
    while not all(one.wait_reason for one in goroutines):
        time.sleep(0.001)
park(go(nilchan.recv))
out, into = os.pipe()
child = os.fork()
if child == 0:
    os.read(out, 1)
    park(go(nilchan.send, 1), go(nilchan.send, 2))
    print(f"{os.getpid()}", flush=True)
    os.read(out, 1)
    os._exit(0)
ready()
sys.stdin.readline()
os.write(into, b"x")
sys.stdin.readline()
os.write(into, b"x")
os.waitpid(child, 0)
"""
    )
    with Asked(program) as process:
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        with open(children) as listed:
            child = int(listed.read().split()[0])
        with pytest.raises(_outside.AskError, match="does not listen"):
            _outside.ask(child, "stats")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{child}\n"
        theirs = _outside.ask(child, "dump", PATIENCE)
        ours = _outside.ask(process.pid, "dump", PATIENCE)
    assert theirs.count("[chan send (nil chan)]") == 2
    assert "[chan receive (nil chan)]" not in theirs
    assert "[chan receive (nil chan)]" in ours


def test_before_the_first_goroutine_and_with_it_switched_off():
    with Asked(PROGRAM + "ready()\nend()\n") as process:
        status, _, errors = command("dump", process.pid)
        assert status == 1
        assert errors.startswith(f"offset dump: process {process.pid} does not listen: it has started no goroutine yet")
    program = PROGRAM + "go(nilchan.recv)\nready()\nend()\n"
    with (
        Asked(program, env={"OFFSET_DUMP": "off"}) as process,
        pytest.raises(_outside.AskError, match="OFFSET_DUMP=off"),
    ):
        _outside.ask(process.pid, "stats")


def test_there_is_no_such_process():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(_outside.AskError, match="there is no process"):
        _outside.ask(gone.pid, "dump")


def test_who_has_the_name_of_another_is_not_asked():
    """A name is anybody's. The process takes another one, and who asks sees who answers."""
    program = PROGRAM + "ready()\nend()\ngo(nilchan.recv)\nready()\nend()\n"
    with Asked(program) as process, socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(f"\0offset-{process.pid}")
        squatter.listen()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert "NilChan.recv" in _outside.ask(process.pid, "dump", PATIENCE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_gets_no_answer():
    program = """
import os, socket, struct, sys
from offset import _outside
os.setuid(65534)
try:
    _outside.ask(int(sys.argv[1]), "dump")
except _outside.AskError as error:
    print(error)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("\\0offset-" + sys.argv[1])
    try:
        connection.sendall(b"dump")
        connection.shutdown(socket.SHUT_WR)
        print(connection.recv(100))
    except ConnectionError:
        print(b"")
"""
    with Asked(PROGRAM + "go(nilchan.recv)\nready()\nend()\n") as process:
        status, stdout, stderr = run_script(program, process.pid)
    assert status == 0, stderr
    first, second = stdout.splitlines()
    assert first == f"process {process.pid} belongs to user 0: ask as that user, or as root"
    assert second == "b''"


def test_who_says_nothing_holds_up_nobody_for_long():
    with Asked(PROGRAM + "go(nilchan.recv)\nready()\nend()\n") as process, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(f"\0offset-{process.pid}")
        assert "NilChan.recv" in _outside.ask(process.pid, "dump", PATIENCE)


def test_the_command_with_what_is_no_command_and_with_a_reader_that_leaves():
    status, _, errors = command("nothing")
    assert status == 2
    assert "there is no command 'nothing'" in errors
    status, text, _ = command("--version")
    assert (status, text) == (0, f"offset {offset.__version__}\n")
    with Asked(PARKED.replace("COUNT", "100")) as process:
        shell = f"{sys.executable} -m offset dump --full {process.pid} | head -1"
        done = subprocess.run(shell, shell=True, check=False, capture_output=True, text=True, timeout=PATIENCE * 4)
    assert done.stdout.startswith("goroutine 1 [")
    assert "Traceback" not in done.stderr
