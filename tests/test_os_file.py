"""`offset.os`: plain files, which are read and written in the pool or from the page cache.

Pipes, FIFOs and terminals are in test_os_wait.py. Invariant: whoever waits parks, and takes no machine.
"""

from __future__ import annotations

import errno
import gc
import gzip
import io as buffered
import os as python
import stat
import threading
import warnings

import offset
import pytest
from helpers import PATIENCE, Thread, go_parked, main_goroutine, run_script, wait_ended, wait_parked, wait_until
from net_peers import MUCH
from offset import go, io, os, syscall
from offset.os import _copy, _ways
from streams import connected

TEXT = b"".join(b"line %d\n" % number for number in range(10_000))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture(params=["goroutine", "thread"])
def in_and_out(request):
    """Run a function in a goroutine, or as it is."""
    return offset.run if request.param == "goroutine" else lambda main: main()


# ---- reading and writing ---------------------------------------------------------------------


def test_what_is_written_is_read(path, in_and_out):
    def main():
        with os.create(path) as file:
            assert file.write(b"hello, ") == 7
            assert file.write(memoryview(bytearray(b"world"))) == 5
            assert file.write(b"") == 0
            assert file.seek(0) == 0
            assert [file.read(5), file.read(), file.read(), file.read(1)] == [b"hello", b", world", b"", b""]
            assert file.read_at(5, 7) == b"world"
            assert file.read_at(100, 7) == b"world"
            assert file.read_at(1, 100) == b""
            assert file.write_at(b"W", 7) == 1
            assert file.seek(-5, os.SEEK_END) == 7
            buffer = bytearray(10)
            assert file.read_into(buffer) == 5
            assert buffer[:5] == b"World"
            assert file.seek(0, os.SEEK_CUR) == 12
            file.truncate(3)
            file.sync()
            file.chmod(0o600)
            assert (file.stat().st_size, stat.S_IMODE(file.stat().st_mode)) == (3, 0o600)
            assert file.name == str(path)
            assert file.stats() == {"name": str(path), "waits": "pool", "closed": False}
        assert file.closed
        assert path.read_bytes() == b"hel"

    in_and_out(main)


def test_files_as_a_whole(path, in_and_out):
    def main():
        os.write_file(path, TEXT, 0o640)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~_umask()
        assert os.read_file(path) == TEXT
        os.write_file(path, bytearray(b"short"))
        assert os.read_file(str(path).encode()) == b"short"
        assert int(os.read_file("/proc/self/stat").split()[0]) == python.getpid()

    in_and_out(main)


def gone(number):
    """Is a descriptor closed? The runtime's monitor may have its number for a moment."""
    try:
        python.fstat(number)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


def _umask():
    mask = python.umask(0)
    python.umask(mask)
    return mask


def test_lines(path):
    path.write_bytes(TEXT + b"x" * 100_000)
    with os.open(path) as file:
        lines = list(file)
    assert b"".join(lines) == TEXT + b"x" * 100_000
    assert len(lines) == 10_001


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        ("r", b"old", b"old"),
        ("r+b", b"old", b"new"),
        ("w", b"old", b"new"),
        ("wb+", None, b"new"),
        ("a", b"old", b"oldnew"),
        ("ab+", None, b"new"),
        ("x", None, b"new"),
    ],
)
def test_modes(path, mode, before, after):
    if before is not None:
        path.write_bytes(before)
    with os.open(path, mode) as file:
        if mode == "r":
            with pytest.raises(OSError, match=f"write {path}"):
                file.write(b"new")
        else:
            file.write(b"new")
        if mode.startswith("a"):
            with pytest.raises(ValueError, match="append"):
                file.write_at(b"x", 0)
        if "+" not in mode and mode != "r":
            with pytest.raises(OSError, match=f"read {path}: Bad file descriptor"):
                file.read(1)
    assert path.read_bytes() == after


def test_what_cannot_be_opened(path):
    with pytest.raises(FileNotFoundError) as caught:
        os.open(path)
    assert caught.value.filename == str(path)
    for mode in ("", "rw", "t", "rt", "rbb", None):
        with pytest.raises(ValueError, match="there is no mode"):
            os.open(path, mode)
    path.write_bytes(b"")
    with pytest.raises(FileExistsError):
        os.open(path, "x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.new_file(10_000)
    with os.open(path.parent) as directory, pytest.raises(IsADirectoryError, match=f"read {path.parent}"):
        directory.read(1)


def test_mistakes(path):
    with os.create(path) as file:
        with pytest.raises(TypeError, match="bytes"):
            file.write("text")
        with pytest.raises(TypeError):
            file.read("1")
        with pytest.raises(TypeError, match="written to"):
            file.read_into(b"abc")
        for call in (lambda: file.read_at(-1, 0), lambda: file.read_at(1, -1), lambda: file.write_at(b"", -1)):
            with pytest.raises(ValueError, match="_at"):
                call()
        with pytest.raises(OSError, match=f"seek {path}: Invalid"):
            file.seek(-1)
        with pytest.raises(OSError, match=f"deadline of {path}: plain files"):
            file.set_deadline(1)


def test_a_closed_file(path):
    file = os.create(path)
    file.close()
    file.close()
    assert file.fileno() == -1
    calls = {
        "read": [lambda: file.read(1), lambda: file.read(0), file.read, lambda: file.read_at(1, 0)],
        "write": [lambda: file.write(b"x"), lambda: file.write_at(b"x", 0)],
        "seek": [lambda: file.seek(0)],
        "stat": [file.stat],
        "set a deadline of": [lambda: file.set_deadline(1)],
    }
    for what, each in calls.items():
        for call in each:
            with pytest.raises(OSError, match=f"{what} {path}: closed"):
                call()


def test_a_write_that_is_cut_short_says_how_much():
    resource = pytest.importorskip("resource")
    program = """
    import resource, signal, sys
    from offset import os, run
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    def main():
        with os.create(sys.argv[1]) as file:
            try:
                file.write(bytes(300_000))
            except OSError as error:
                print(error.characters_written, error.strerror)
    run(main)
    """
    assert resource.RLIMIT_FSIZE is not None
    with os.create_temp() as file:
        status, stdout, stderr = run_script(program, file.name)
        assert (status, stdout) == (0, f"100000 write {file.name}: File too large\n"), stderr
        os.remove(file.name)


def test_a_file_that_is_forgotten_is_closed(path):
    path.write_bytes(b"x")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        file = os.open(path)
        number = file.fileno()
        del file
        gc.collect()
    assert [each.category for each in caught if str(path) in str(each.message)] != []
    wait_until(lambda: gone(number), "the descriptor is closed")


# ---- in the pool -----------------------------------------------------------------------------


def test_pages_in_the_cache_need_no_pool(path, monkeypatch):
    path.write_bytes(TEXT)
    with os.open(path) as file:
        if file._current()._descriptor.read_now(1) is NotImplemented:
            pytest.skip("this file system does not say what is in the cache")
        file.seek(0)
        monkeypatch.setattr(_ways.Numbered, "pool", None)
        assert b"".join(iter(lambda: file.read(4096), b"")) == TEXT
        assert file.read_at(10, 0) == TEXT[:10]


@pytest.fixture
def no_cache(monkeypatch):
    """Let nothing be in the page cache."""
    monkeypatch.setattr(_ways.Numbered, "_attempt", lambda self, direction, *args: None)


@main_goroutine
def test_a_thousand_goroutines_on_files(tmp_path):
    def work(number):
        path = tmp_path / str(number)
        with os.create(path) as file:
            for part in range(10):
                file.write(b"%d\n" % (number + part))
            file.seek(0)
            assert [int(line) for line in file] == list(range(number, number + 10))
        os.remove(path)

    wait_ended(*[go(work, number) for number in range(1000)])
    assert os.read_dir(tmp_path) == []


@main_goroutine
def test_many_use_one_file(path, no_cache):
    part = b"0123456789" * 1000

    def write(file, number):
        for _ in range(10):
            file.write(part)
            assert file.read_at(10, 0) == part[:10]

    with os.open(path, "a+") as file:
        wait_ended(*[go(write, file, number) for number in range(50)])
    assert path.read_bytes() == part * 500


@main_goroutine
def test_others_run_while_one_waits_for_a_disk(path, no_cache, monkeypatch):
    # The disk is slow: the call waits until it is let go.
    slow, waiting = threading.Event(), threading.Event()
    plain_read = python.read

    def read(number, n):
        waiting.set()
        assert slow.wait(PATIENCE)
        return plain_read(number, n)

    path.write_bytes(b"data")
    with os.open(path) as file:
        monkeypatch.setattr(_ways.os, "read", read)
        got = []
        reader = go(lambda: got.append(file.read(4)))
        wait_until(waiting.is_set)
        wait_parked(reader, reason="blocking call")
        wait_until(lambda: offset.runtime.stats()["stuck_machines"] == 0)
        slow.set()
        wait_ended(reader)
    assert got == [b"data"]


@main_goroutine
def test_a_descriptor_is_closed_when_the_last_call_has_ended(path, no_cache, monkeypatch):
    slow, waiting = threading.Event(), threading.Event()
    seen = []

    def read(number, n):
        waiting.set()
        assert slow.wait(PATIENCE)
        seen.append(python.fstat(number).st_ino)
        return b"late"

    path.write_bytes(b"data")
    file = os.open(path)
    inode = file.stat().st_ino
    monkeypatch.setattr(_ways.os, "read", read)
    reader = go(file.read, 4)
    wait_until(waiting.is_set)
    # Given up: the thread goes on.
    reader.cancel()
    wait_ended(reader)
    number = file.fileno()
    file.close()
    # The number is still the file's.
    with os.create(path.parent / "other") as other:
        assert other.fileno() != number
        slow.set()
        wait_until(lambda: seen and offset.runtime.stats()["blocking_calls"] == 0)
    assert seen == [inode]
    wait_until(lambda: gone(number), "the descriptor is closed")


@main_goroutine
def test_an_open_that_is_given_up_leaves_no_descriptor(path, monkeypatch):
    slow, waiting = threading.Event(), threading.Event()

    class Opened(offset.os._file._Opened):
        def __init__(self, *args):
            super().__init__(*args)
            waiting.set()
            assert slow.wait(PATIENCE)

    path.write_bytes(b"")
    monkeypatch.setattr(offset.os._file, "_Opened", Opened)
    opening = go(os.open, path)
    wait_until(waiting.is_set)
    opening.cancel()
    wait_ended(opening)
    slow.set()
    wait_until(lambda: offset.runtime.stats()["blocking_calls"] == 0)


def test_threads_and_goroutines_share_a_file(path):
    path.write_bytes(TEXT)
    lines = []
    with os.open(path) as file:
        reader = io.BufferedReader(file)

        def read():
            lines.extend(iter(reader.read_line, b""))

        threads = [Thread(read) for _ in range(3)]
        offset.run(lambda: wait_ended(*[go(read) for _ in range(3)]))
        for thread in threads:
            thread.result()
    assert sorted(lines) == sorted(TEXT.splitlines(keepends=True))


# ---- by name ---------------------------------------------------------------------------------


def test_what_is_done_by_name(tmp_path, in_and_out):
    def main():
        where = tmp_path / "a" / "b"
        with pytest.raises(FileNotFoundError):
            os.mkdir(where)
        os.mkdir_all(where)
        os.mkdir_all(where)
        with pytest.raises(FileExistsError):
            os.mkdir(where)
        os.write_file(where / "one", b"12345")
        os.link(where / "one", where / "two")
        os.symlink("one", where / "three")
        assert os.readlink(where / "three") == "one"
        assert [entry.name for entry in os.read_dir(where)] == ["one", "three", "two"]
        assert os.stat(where / "three").st_size == 5
        assert stat.S_ISLNK(os.lstat(where / "three").st_mode)
        os.truncate(where / "one", 2)
        os.chmod(where / "one", 0o400)
        assert (os.stat(where / "two").st_size, stat.S_IMODE(os.stat(where / "two").st_mode)) == (2, 0o400)
        os.rename(where / "two", where / "four")
        with pytest.raises(OSError, match="not empty"):
            os.remove(where)
        os.remove(where / "four")
        with pytest.raises(FileNotFoundError):
            os.remove(where / "four")
        os.mkdir(where / "empty")
        os.remove(where / "empty")
        os.remove_all(where / "one")
        os.remove_all(tmp_path / "a")
        os.remove_all(tmp_path / "a")
        assert os.read_dir(tmp_path) == []

    in_and_out(main)


def test_temporary_names(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with os.create_temp(pattern="a*.txt") as file:
        file.write(b"x")
        assert python.path.dirname(file.name) == str(tmp_path)
        name = python.path.basename(file.name)
        assert name.startswith("a") and name.endswith(".txt") and len(name) > 6
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    names = {os.mkdir_temp(tmp_path, "dir") for _ in range(10)}
    assert len(names) == 10
    assert all(python.path.basename(name).startswith("dir") for name in names)
    with pytest.raises(ValueError, match="has a '/'"):
        os.mkdir_temp(pattern="a/b")
    with pytest.raises(FileNotFoundError):
        os.create_temp(tmp_path / "nothing")
    monkeypatch.setattr(offset.os._path, "_random_name", lambda *_: names.copy().pop())
    for call in (os.create_temp, os.mkdir_temp):
        with pytest.raises(FileExistsError, match="left"):
            call(tmp_path, "dir")


# ---- copying ---------------------------------------------------------------------------------


@pytest.fixture
def big(path):
    path.write_bytes(TEXT * 20)
    return path


def by_the_kernel(monkeypatch):
    """Let nothing be read or written by Python."""
    monkeypatch.setattr(io._copy, "read_some", None)


def test_a_file_is_copied_to_a_file(big, tmp_path, monkeypatch):
    by_the_kernel(monkeypatch)
    with os.open(big) as source, os.create(tmp_path / "copy") as target:
        assert io.copy(target, source, 7) == 7
        assert io.copy(target, source) == len(TEXT) * 20 - 7
        assert (source.seek(0, 1), target.seek(0, 1)) == (len(TEXT) * 20,) * 2
    assert (tmp_path / "copy").read_bytes() == TEXT * 20


@main_goroutine
def test_a_file_is_copied_to_a_connection(big, monkeypatch):
    with connected() as (there, here), os.open(big) as source:
        got = []
        reader = go(lambda: got.append(there.read_full(len(TEXT) * 20 - 5)))
        source.seek(5)
        with monkeypatch.context() as patched:
            by_the_kernel(patched)
            assert io.copy(here, source, 10) == 10
            assert source.seek(0, 1) == 15
            assert io.copy(here, source) == len(TEXT) * 20 - 15
            assert source.seek(0, 1) == len(TEXT) * 20
        wait_ended(reader)
    assert got == [(TEXT * 20)[5:]]


@main_goroutine
def test_a_copy_to_a_connection_that_is_cut_short_says_how_much_was_sent(path):
    path.write_bytes(bytes(MUCH))
    with connected() as (there, here), os.open(path) as source:
        got = []
        reader = go(lambda: got.append(there.read_full(100_000)))
        copier = go_parked(copied, here, source, got)
        wait_ended(reader)
        here.set_write_deadline(0.0)
        wait_ended(copier)
        error, sent = got[-1], source.seek(0, 1)
        assert type(error) is TimeoutError
        assert 100_000 <= error.characters_written == sent < MUCH


@main_goroutine
def test_a_copy_to_a_pipe_that_is_cut_short_says_how_much_was_moved(big, monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr(_copy, "_PIECE", 4096)
    with read, write, os.open(big) as source:
        got = []
        copier = go_parked(copied, write, source, got)
        read.close()
        wait_ended(copier)
        assert type(got[0]) is BrokenPipeError
        assert 4096 < got[0].characters_written == source.seek(0, 1) < len(TEXT) * 20


def test_a_copy_to_a_file_that_is_cut_short_says_how_much_was_moved(big, tmp_path, monkeypatch):
    monkeypatch.setattr(_copy, "_FILE_PIECE", 1000)
    moved = []

    def full(source, target, size):
        if len(moved) == 3:
            raise OSError(errno.ENOSPC, "full")
        moved.append(copy_file_range(source, target, size))
        return moved[-1]

    copy_file_range = python.copy_file_range
    monkeypatch.setattr(python, "copy_file_range", full)
    with os.open(big) as source, os.create(tmp_path / "copy") as target:
        with pytest.raises(OSError, match="copy to") as caught:
            io.copy(target, source)
        assert caught.value.characters_written == 3000


def copied(target, source, got):
    """Copy, and note what it raises."""
    try:
        io.copy(target, source)
    except OSError as error:
        got.append(error.with_traceback(None))


@main_goroutine
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_of_python_s_is_copied_to_a_connection(big, buffering, monkeypatch):
    with connected() as (there, here), open(big, "rb", buffering=buffering) as source:
        got = []
        reader = go(lambda: got.append(there.read_full(len(TEXT) * 20 - 5)))
        # The buffer is ahead of the position.
        assert len(source.read(5)) == 5
        with monkeypatch.context() as patched:
            by_the_kernel(patched)
            assert io.copy(here, source, 10) == 10
            assert source.tell() == 15
            assert io.copy(here, source) == len(TEXT) * 20 - 15
            assert source.tell() == len(TEXT) * 20
        wait_ended(reader)
    assert got == [(TEXT * 20)[5:]]


@main_goroutine
def test_files_whose_bytes_are_not_the_system_s_are_read(path):
    class Louder(buffered.FileIO):
        def read(self, n=-1):
            return super().read(n).upper()

    path.write_bytes(b"quiet")
    with connected() as (there, here):
        with Louder(path) as source:
            assert io.copy(here, source) == 5
        with open(path, "r+b") as source:
            source.write(b"QU")
            source.seek(0)
            assert io.copy(here, source) == 5
        with gzip.open(path, "wb") as packed:
            packed.write(b"unpacked")
        with gzip.open(path) as source:
            assert io.copy(here, source) == 8
        assert there.read_full(18) == b"QUIETQUietunpacked"
        with open(path, "rb") as source:
            pass
        with pytest.raises(ValueError, match="closed"):
            io.copy(here, source)
        with open(path, "ab", buffering=0) as source, pytest.raises(buffered.UnsupportedOperation):
            io.copy(here, source)


@pytest.mark.parametrize("name", ["/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_files_whose_size_the_system_makes_up(name, tmp_path):
    if not python.path.exists(name):
        pytest.skip("it is not there")
    with os.open(name) as source, os.create(tmp_path / "copy") as target:
        assert io.copy(target, source) > 0


def test_what_is_appended_to_is_copied_plainly(big, tmp_path):
    target = tmp_path / "log"
    target.write_bytes(b"before\n")
    with os.open(big) as source, os.open(target, "a") as log:
        assert io.copy(log, source) == len(TEXT) * 20
    assert target.read_bytes() == b"before\n" + TEXT * 20


def test_copies_of_what_is_no_file_go_on_as_before(big, tmp_path):
    with os.open(big) as source:
        memory = buffered.BytesIO()
        assert io.copy(memory, source) == len(TEXT) * 20
    with os.create(tmp_path / "copy") as target:
        assert io.copy(target, buffered.BytesIO(TEXT)) == len(TEXT)
    assert (tmp_path / "copy").read_bytes() == TEXT


def test_blocking_calls_are_given_files(path):
    # A file goes wherever a descriptor does.
    with os.create(path) as file:
        assert syscall.blocking(python.fsync, file) is None
