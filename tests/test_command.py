"""`offset run`, `offset bench` and `offset doctor`: programs as `python` would run them, figures, findings."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from asked import command
from helpers import FREE_THREADED, PATIENCE, script_environment
from offset._command import _libraries, _measure, bench, doctor

ROOT = Path(__file__).resolve().parent.parent


def offset_run(*arguments, cwd=None, input=None, env=None):
    """Status, output and errors of `offset run`."""
    done = subprocess.run(
        [sys.executable, "-m", "offset", "run", *map(str, arguments)],
        capture_output=True,
        check=False,
        cwd=cwd,
        env=script_environment(env),
        input=input,
        text=True,
        timeout=4 * PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def script(tmp_path):
    """A function that writes a program and gives its path."""

    def write(text, name="program.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


# ---- run: what a program finds -----------------------------------------------------------------

LOOK = """
    import sys, json
    import offset
    main = sys.modules["__main__"]
    print(json.dumps({
        "name": __name__, "argv": sys.argv, "path": sys.path[0], "file": globals().get("__file__"),
        "package": __package__, "spec": __spec__ and __spec__.name, "is_main": vars(main) is globals(),
        "goroutine": offset.current() is not None and offset.current().name,
    }))
"""


def test_a_script_is_main_and_a_goroutine(script):
    path = script(LOOK)
    status, output, errors = offset_run(path, "-x", "--patch", "--", "y")
    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "name": "__main__",
        "argv": [str(path), "-x", "--patch", "--", "y"],
        "path": str(path.parent),
        "file": str(path),
        "package": None,
        "spec": None,
        "is_main": True,
        "goroutine": "main",
    }


@pytest.mark.parametrize("name", ["tool", "package.part"])
def test_a_module_is_main(script, tmp_path, name):
    script(LOOK, "tool.py")
    script(LOOK, "package/part.py")
    status, output, errors = offset_run("-m", name, "-m", "z", cwd=tmp_path)
    assert (status, errors) == (0, "")
    found = json.loads(output)
    file = str(tmp_path / (name.replace(".", "/") + ".py"))
    assert (found["name"], found["spec"], found["file"]) == ("__main__", name, file)
    assert found["argv"] == [file, "-m", "z"]
    assert found["path"] == str(tmp_path)
    assert found["package"] == name.rpartition(".")[0]


def test_a_package_a_directory_and_an_archive_have_a_main(script, tmp_path):
    path = script("import sys; print('here', __name__, sys.argv[1:])", "package/__main__.py")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(path, "__main__.py")
    for arguments in (["-m", "package"], ["package"], ["archive.zip"]):
        assert offset_run(*arguments, "a", cwd=tmp_path) == (0, "here __main__ ['a']\n", "")


def test_standard_input_is_a_script():
    text = "import offset\nprint(__name__, offset.current().name)\n"
    assert offset_run("-", input=text) == (0, "__main__ main\n", "")
    without = subprocess.run(
        [sys.executable, "-m", "offset"], input=text, capture_output=True, text=True, check=False, timeout=4 * PATIENCE
    )
    assert (without.returncode, without.stdout, without.stderr) == (0, "__main__ main\n", "")


def test_a_text_is_a_script(tmp_path):
    status, output, errors = offset_run("-c", textwrap.dedent(LOOK).strip(), "-m", "--patch", cwd=tmp_path)
    assert (status, errors) == (0, "")
    found = json.loads(output)
    assert (found["argv"], found["path"], found["file"]) == (["-c", "-m", "--patch"], "", None)
    assert (found["name"], found["is_main"], found["goroutine"]) == ("__main__", True, "main")


def test_a_script_without_its_command_is_told_of_it():
    status, output, errors = command("program.py")
    assert (status, output) == (2, "")
    assert errors.startswith("offset: there is no command 'program.py', but bench, ")
    assert errors.endswith("; a program: offset run SCRIPT\n")


def test_who_reads_no_further_is_no_error(tmp_path):
    trace = tmp_path / "trace.json"
    trace.write_text('{"traceEvents": []}')
    # Buffered: the end comes when all of it was printed.
    arguments = [sys.executable, "-m", "offset", "trace", "summary", str(trace)]
    environment = script_environment({"PYTHONUNBUFFERED": None})
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            arguments, stdout=write, stderr=subprocess.PIPE, env=environment, timeout=4 * PATIENCE, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_standard_input_has_any_encoding_or_is_not_there(script):
    done = subprocess.run(
        [sys.executable, "-m", "offset", "run", "-"],
        input="# coding: latin-1\nprint(ascii('\xe4'))\n".encode("latin-1"),
        capture_output=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"'\\xe4'\n", b"")
    for arguments in ([], ["run", "-"]):
        closed = [sys.executable, "-c", "import os, sys; os.close(0); os.execv(sys.executable, sys.argv[1:])"]
        done = subprocess.run(
            [*closed, sys.executable, "-m", "offset", *arguments],
            capture_output=True,
            check=False,
            text=True,
            timeout=4 * PATIENCE,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith(": there is no standard input to read a script from\n")
        assert done.stderr.count("\n") == 1


def test_its_threads_are_waited_for_as_those_of_the_main_thread(script):
    path = script("""
        import threading, time

        def work():
            while threading.main_thread().is_alive():
                time.sleep(0.001)
            print("done at the end", flush=True)

        threading.Thread(target=work).start()
        print("main ends", flush=True)
    """)
    assert offset_run(path) == (0, "main ends\ndone at the end\n", "")


def test_what_is_not_there_is_said(script, tmp_path):
    script("", "package/__init__.py")
    for arguments, text in (
        (["nowhere.py"], "can't open 'nowhere.py': No such file or directory"),
        (["-m", "nowhere"], "no module named 'nowhere'"),
        (["-m", "nowhere.at.all"], "no module 'nowhere.at.all': No module named 'nowhere'"),
        (["-m", "package"], "'package' is a package without a module __main__"),
        (["-m", "package.py"], "no module named 'package.py'; name the module, package, not its file"),
        (["-m", "no.py"], "no module 'no.py': No module named 'no'; name the module, no, not its file"),
        (["package"], "'package' is a directory without a file __main__.py"),
        ([""], "the name of the script is empty"),
        ([], "name a script, a module with -m, or a text with -c"),
        (["-c"], "name a script, a module with -m, or a text with -c"),
    ):
        assert offset_run(*arguments, cwd=tmp_path) == (2, "", f"offset run: {text}\n")


@pytest.mark.parametrize("text", ["x = (\n", "x = '\0'\n"])
def test_a_syntax_error_is_shown_as_python_does(script, text):
    status, output, errors = offset_run(script(text))
    assert (status, output) == (1, "")
    assert "SyntaxError" in errors
    assert "offset" not in errors


# ---- run: how a program goes and ends ----------------------------------------------------------


def test_goroutines_and_channels_need_no_run(script):
    path = script("""
        from offset import go, makechan
        numbers = makechan()
        go(lambda: [numbers.send(n) for n in range(3)] and numbers.close())
        print(list(numbers))
    """)
    assert offset_run(path) == (0, "[0, 1, 2]\n", "")


def test_a_script_that_calls_run_works_as_it_is(script):
    path = script("""
        from offset import current, go, run, sleep

        def left():
            try:
                sleep(1000)
            finally:
                print("ended with main", flush=True)

        def main(word):
            one = go(left)
            while not one.wait_reason:
                sleep(0)
            return word

        if __name__ == "__main__":
            outer = current()
            print(run(main, "the result"))
            assert current() is outer
            go(lambda: print("without main"))
            print(run())
    """)
    assert offset_run(path) == (0, "ended with main\nthe result\nwithout main\nNone\n", "")


def test_the_registered_main_task_is_run(script):
    path = script("""
        from offset import maintask, run

        @maintask
        def main():
            return "registered"

        print(run())
    """)
    assert offset_run(path) == (0, "registered\n", "")


def test_what_another_goroutine_raises_is_as_inside_run(script):
    path = script("""
        from offset import go, run

        def main():
            go(lambda: 1 / 0).join()

        run(main, on_panic="report")
        print("went on")
        go(lambda: {}["key"]).join()
        import offset
        offset.sleep(1000)
    """)
    status, output, errors = offset_run(path)
    assert (status, output) == (1, "went on\n")
    assert errors.count("Traceback") == 2
    assert "ZeroDivisionError" in errors
    assert "KeyError: 'key'" in errors


def test_in_another_goroutine_run_is_refused(script):
    path = script("""
        from offset import go, makechan, run
        answers = makechan()

        def other():
            try:
                run(print)
            except RuntimeError as error:
                answers.send(str(error))

        go(other)
        print(answers.recv())
    """)
    assert offset_run(path) == (0, "run() was called inside a goroutine; use go() there\n", "")


def test_an_exception_is_reported_once_and_gives_status_1(script):
    path = script("def f():\n    raise ValueError('why')\n\nf()\n")
    status, output, errors = offset_run(path)
    assert (status, output) == (1, "")
    assert errors.splitlines() == [
        "Exception in goroutine 1 [running] main:",
        "Traceback (most recent call last):",
        f'  File "{path}", line 4, in <module>',
        "    f()",
        *(["    ~^^"] if sys.version_info >= (3, 13) else []),
        f'  File "{path}", line 2, in f',
        "    raise ValueError('why')",
        "ValueError: why",
        "created by offset.run",
    ]


def test_the_excepthook_of_a_program_is_asked(script):
    path = script("""
        import sys
        sys.excepthook = lambda kind, error, traceback: print("hook:", error)
        raise ValueError("why")
    """)
    status, output, _ = offset_run(path)
    assert (status, output) == (1, "hook: why\n")


def test_a_deadlock_is_said(script):
    status, output, errors = offset_run(script("import offset\noffset.makechan().recv()\n"))
    assert (status, output) == (1, "")
    assert errors.startswith("offset.DeadlockError: all goroutines are asleep - deadlock!\n")
    assert "Traceback" not in errors


@pytest.mark.parametrize(("code", "status"), [("7", 7), ("None", 0), ("'text'", 1)])
def test_the_exit_status_is_the_programs(script, code, status):
    path = script(f"import offset, sys\noffset.go(sys.exit, {code}).join()\noffset.sleep(1000)\n")
    found, _, errors = offset_run(path)
    assert (found, errors) == (status, "text\n" if status == 1 else "")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_ends_a_program_as_python_does(script):
    path = script("""
        import offset
        try:
            print("ready", flush=True)
            offset.sleep(1000)
        finally:
            print("ended", flush=True)
    """)
    arguments = [sys.executable, "-m", "offset", "run", str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=4 * PATIENCE)
        finally:
            process.kill()
    assert output == "ended\n"
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


def test_patched_the_standard_library_parks(script):
    text = """
        import os, threading, time
        go_on = threading.Event()

        def wait():
            time.sleep(0.001)
            go_on.wait()

        threads = [threading.Thread(target=wait) for _ in range(200)]
        for thread in threads:
            thread.start()
        native = len(os.listdir("/proc/self/task"))
        go_on.set()
        for thread in threads:
            thread.join()
        print(native < 100)
    """
    assert offset_run("--patch", script(text)) == (0, "True\n", "")
    assert offset_run(script(text.replace("native <", "native >"))) == (0, "True\n", "")


# ---- bench -------------------------------------------------------------------------------------


def test_a_bench_measures_everything_in_all_ways():
    status, output, errors = command("bench", "--seconds", "0.001", "--json")
    assert (status, errors) == (0, "")
    found = json.loads(output)
    assert list(found["seconds"]) == [scenario.name for scenario in _measure.SCENARIOS]
    for row in found["seconds"].values():
        assert sorted(row) == sorted(bench.WAYS)
        assert all(0 < value < 10 for value in row.values())
    assert found["machine"]["gil"] is not FREE_THREADED


def test_the_table_has_a_row_and_a_ratio_for_each():
    seconds = {scenario.name: {"offset": 1e-7, "threads": 2e-5, "asyncio": 1e-6} for scenario in _measure.SCENARIOS}
    lines = bench.table(_measure.SCENARIOS, seconds).splitlines()
    assert re.match(r"offset \S+, CPython \S+( without the GIL)?, Linux ", lines[0])
    assert lines[2].split() == bench.WAYS
    for index, scenario in enumerate(_measure.SCENARIOS):
        row, ratios = lines[3 + 2 * index : 5 + 2 * index]
        assert row.startswith(f"{scenario.name}: {scenario.what} ")
        assert row.split()[-6:] == ["100", "ns", "20", "us", "1", "us"]
        assert ratios.split() == ["200.0x", "10.0x"]


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "nan", "x"])
def test_a_bench_refuses_other_times(seconds):
    status, _, errors = command("bench", f"--seconds={seconds}")
    assert status == 2
    assert "--seconds" in errors


# ---- doctor ------------------------------------------------------------------------------------


def test_the_doctor_finds_what_there_is():
    status, output, errors = command("doctor", "--json")
    assert errors == ""
    found = json.loads(output)
    abouts = {finding["about"]: finding for finding in found["findings"]}
    assert {"offset", "Python", "system", "GIL", "thread identity", "blocking calls", "C stacks", "guard pages"} <= set(
        abouts
    )
    assert abouts["thread identity"]["text"].startswith("virtual")
    assert abouts["GIL"]["text"].startswith("off" if FREE_THREADED else "on")
    assert status == any(finding["state"] == "problem" for finding in found["findings"])
    names = {library["name"]: library for library in found["libraries"]}
    assert names["requests"]["advice"] == 'a copy parks only the goroutine: patch.patched_import("requests")'


def test_the_doctor_speaks_plainly():
    status, output, errors = command("doctor")
    assert (status, errors) == (0, "")
    assert re.search(r"^[ *] GIL +o", output, re.MULTILINE)
    assert "\nInstalled libraries\n  " in output
    assert output.splitlines()[-1].startswith("No problem")


def test_the_doctor_sees_what_is_switched_off():
    environment = script_environment({"OFFSET_THREAD_IDENTITY": "os", "OFFSET_DUMP": "off"})
    done = subprocess.run(
        [sys.executable, "-m", "offset", "doctor", "--json"],
        capture_output=True,
        check=False,
        env=environment,
        text=True,
        timeout=4 * PATIENCE,
    )
    notes = {found["about"]: found for found in json.loads(done.stdout)["findings"] if found["state"] == "note"}
    assert "OFFSET_THREAD_IDENTITY" in notes["thread identity"]["text"]
    assert "does not listen" in notes["offset dump, top"]["text"]
    # Nobody rescues the others of a goroutine that blocks, then.
    assert "blocking calls" in notes or FREE_THREADED


def test_the_doctor_tells_of_small_limits():
    import resource

    previous = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, previous[1]))
        limits = {finding.about: finding for finding in doctor._limits()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, previous)
    assert limits["descriptors"].state == "note"
    assert limits["descriptors"].text.startswith("256 at most")


def test_the_doctor_calls_tested_what_the_page_has():
    page = (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8").lower()
    for name in _libraries.TESTED:
        assert f"`{name.removesuffix('-binary')}`" in page, name
    table = page[page.index("| library |") : page.index("what holds for all copies")]
    for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[2:]:
        for name in re.findall(r"`([\w.]+)`", row):
            assert name in _libraries.TESTED or name in sys.stdlib_module_names or "." in name, name


def test_every_kind_of_library_is_described():
    kinds = {library.kind for library in _libraries.installed()}
    assert "tested" in kinds
    assert kinds <= set(_libraries.KINDS)
