"""What the tests of the hazards share: the beginning of their programs, an extension, and who is left out.

Each hazard is a known way in which CPython breaks goroutines; NN in a test's name is its number in the
design. Invariant: every program is a subprocess, because without the rule that it tests it may crash.

The rules, where they are, and what was seen when each was switched off (tests are test_hazard_NN_* unless
another file is named; "shim" is crates/offset-python/shim/tests, "core" is
crates/offset-runtime/tests/host.rs):

| NN | rule | where | without it |
|---|---|---|---|
| 01, 02 | a goroutine has a thread identity of its own | identity.c | RLocks deadlock or let two in, "reentrant call" |
| 03 | the PyGILState slot names whose state is attached | attach.c, hand.c | it hangs; a fatal error |
| 04 | 1 or 2 MiB of C stack | stack.rs | decimal and marshal end in the guard |
| 04 | CPython's limits are set to that stack | context.c | repr of deep lists ends in the guard |
| 04 | the guard is larger than any C frame | stack.rs | the neighbour's stack is written to, unnoticed |
| 05 | the first chunk of the data stack has 64 KiB | stack.rs | page faults at each call (3.14 keeps a chunk) |
| 06 | a C frame that hangs round each attach | internal.h | shim: up to 3.13 the process aborts; here seldom |
| 07 | states are deleted where they ran last; no slot dangles | context.c, machine.rs | shim, core: a slot dangles |
| 08, 09 | the thread id is the goroutine's, and readable | context.c | the id is no memory; the wrong one is hit |
| 10 | the main thread waits in ppoll | thread.rs | Ctrl-C is not seen |
| 11 | a second Ctrl-C dumps and exits | _run.py | the program does not end |
| 12 | machines block no signals | host.rs | children inherit the mask |
| 13 | machines that compute are capped | monitor.rs | 26 to 36 threads |
| 14 | waiting to attach is progress | monitor.rs, machine.rs | core: a hand-off; here the cap of 13 hides it |
| 15, 28 | the scan of the C stack forbids a move | scan.rs | frames return on another thread |
| 16 | ... but not for CPython's own frames, nor for calls that are over | scan.rs, machine.rs | deadlock |
| 17 | without the GIL no started goroutine moves | lib.rs | they move (test_free_threading.py, too) |
| 18 | a thread state is born on its machine | machine.rs | what others drop is not freed |
| 19 | one page a parked goroutine; pools | stack.rs, machine.rs | 9,421 bytes each |
| 20 | none; a collection that parks delays collections only | | |
| 21 | dumps of our own, with everybody | _dump.py | 100 of 250 stacks |
| 22 | `go` applies threading.settrace | threading.c | nothing is traced |
| 23 | a thread state is reset before reuse | context.c | shim: each field, one by one |
| 24 | the GIL stays with the thread between goroutines | hand.c | a thread gets in 900 times (mostly) |
| 25 | a child's chunks are cut out of its states | fork.rs | they are still named (no CPython so far frees them) |
| 25 | a child that was forked in a goroutine ends with it | goroutine.rs | another status (test_fork.py, too) |
| 26 | a raised recursion limit ends by name | guard.rs | 3.11: a bare SIGSEGV |
| 27 | machines allocate with a state of their own | host.rs | one stray allocation for each new stack |
| 28 | none for calls that must be left in order; README.md | | |
"""

import os
import shlex
import subprocess
import sys
import sysconfig

import pytest
from helpers import FREE_THREADED, run_script

GIL_ONLY = pytest.mark.skipif(
    FREE_THREADED, reason="started goroutines never move on a free-threaded build: their memory belongs to a thread"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or needs virtual thread identity")

# What the programs begin with. `hogs` keep processors busy until `stop` is set.
PREAMBLE = """
import contextlib, ctypes, gc, io, os, signal, sqlite3, sys, threading, time
import offset
from offset import go, makechan, nilchan, run, runtime, sync

# Whoever started the tests may ignore Ctrl-C, which a child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Somebody who may still wake a goroutine: what is parked for ever is no deadlock.
threading.Thread(target=threading.Event().wait, daemon=True).start()

stop = []

def hog():
    while not stop:
        pass

def join(*goroutines):
    for goroutine in goroutines:
        assert goroutine.join(timeout=30), (goroutine, runtime.stack(all=True))

def wait_parked(*goroutines):
    end = time.monotonic() + 30
    while not all(goroutine.wait_reason for goroutine in goroutines):
        assert time.monotonic() < end
        offset.sleep(0.001) if offset.current() else time.sleep(0.001)
"""


def succeed(program, *options, expected="fine\n", env=None, args=()):
    """Run a program that must print `expected` and end well."""
    ended = run_script(PREAMBLE + program, *args, interpreter_options=options, env=env)
    assert (ended.returncode, ended.stdout) == (0, expected), ended.stdout + ended.stderr
    return ended


# ---- an extension that is none of ours -------------------------------------------------------

EXTENSION = r"""
#define _GNU_SOURCE
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As C++ bindings do: a list of frames in thread-local memory, whose address is kept across a call. */
static __thread long depth;

static PyObject *call(PyObject *module, PyObject *function)
{
    long *here = &depth;
    long before = syscall(SYS_gettid);
    ++*here;
    PyObject *result = PyObject_CallNoArgs(function);
    --*here;
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    return Py_BuildValue("llO", before, (long)syscall(SYS_gettid), here == &depth ? Py_True : Py_False);
}

/* A frame as large as the largest of CPython's, which is written from its far end. */
static __attribute__((noinline)) char large_frame(void)
{
    volatile char frame[262192];
    for (size_t i = 0; i < sizeof frame / 2; i++)
        frame[i] = 1;
    return frame[0];
}

/* Calls it with 16 KiB of stack left, on a stack whose lowest address is given. */
static PyObject *large_frame_at_the_end(PyObject *module, PyObject *low)
{
    char *here = __builtin_frame_address(0);
    volatile char *rest = __builtin_alloca((size_t)(here - (char *)PyLong_AsVoidPtr(low)) - 16384);
    rest[0] = 1;
    return PyLong_FromLong(large_frame());
}

/* pybind11's loader_life_support: frames of one thread are left in the order in which they were entered. */
struct frame { struct frame *before; };
static __thread struct frame *top;

static PyObject *in_order(PyObject *module, PyObject *function)
{
    struct frame frame = {top};
    top = &frame;
    PyObject *result = PyObject_CallNoArgs(function);
    int is_top = top == &frame;
    top = frame.before;
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    return PyBool_FromLong(is_top);
}

/* Chunks of data stacks that do not begin with a page, so that they are none of the interpreter's, in the states
 * that a forked child has not freed yet. That of the goroutine which forked is its own. */
static long strange_chunks;

static void count_chunks(void)
{
    PyThreadState *own = _PyThreadState_UncheckedGet();
    strange_chunks = 0;
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
    for (; state != NULL; state = PyThreadState_Next(state)) {
        _PyStackChunk *chunk = state != own ? state->datastack_chunk : NULL;
        for (; chunk != NULL; chunk = chunk->previous)
            if ((uintptr_t)chunk % 4096 != 0)
                strange_chunks++;
    }
}

/* Handlers run in the order in which they were installed, before anything that Python does in the child. */
static PyObject *watch_forks(PyObject *module, PyObject *unused)
{
    count_chunks();
    if (pthread_atfork(NULL, NULL, count_chunks) != 0)
        return PyErr_NoMemory();
    return PyLong_FromLong(strange_chunks);
}

static PyObject *chunks_at_fork(PyObject *module, PyObject *unused)
{
    return PyLong_FromLong(strange_chunks);
}

/* Raw allocations by a thread that runs no goroutine and has nothing attached, while its slot names a thread
 * state: a hook of tracemalloc's would attach that. */
static PyMemAllocatorEx raw;
static atomic_long strays;

static void look(void)
{
    if (PyThread_get_thread_ident() == (unsigned long)pthread_self() && _PyThreadState_UncheckedGet() == NULL
        && PyGILState_GetThisThreadState() != NULL)
        strays++;
}

static void *looking_malloc(void *context, size_t size)
{
    look();
    return raw.malloc(context, size);
}

static void *looking_calloc(void *context, size_t count, size_t size)
{
    look();
    return raw.calloc(context, count, size);
}

static PyObject *watch_allocations(PyObject *module, PyObject *unused)
{
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw);
    PyMemAllocatorEx looking = raw;
    looking.malloc = looking_malloc;
    looking.calloc = looking_calloc;
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &looking);
    Py_RETURN_NONE;
}

static PyObject *stray_allocations(PyObject *module, PyObject *unused)
{
    return PyLong_FromLong(strays);
}

static PyMethodDef methods[] = {
    {"call", call, METH_O, NULL},
    {"in_order", in_order, METH_O, NULL},
    {"watch_forks", watch_forks, METH_NOARGS, NULL},
    {"chunks_at_fork", chunks_at_fork, METH_NOARGS, NULL},
    {"watch_allocations", watch_allocations, METH_NOARGS, NULL},
    {"stray_allocations", stray_allocations, METH_NOARGS, NULL},
    {"large_frame_at_the_end", large_frame_at_the_end, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "foreign_frames", NULL, -1, methods};

PyMODINIT_FUNC PyInit_foreign_frames(void)
{
    PyObject *module = PyModule_Create(&definition);
#ifdef Py_GIL_DISABLED
    if (module != NULL)
        PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
"""


@pytest.fixture(scope="session")
def extension(tmp_path_factory):
    """The directory with an extension whose frames keep the address of thread-local memory."""
    directory = tmp_path_factory.mktemp("foreign_frames")
    source = directory / "foreign_frames.c"
    source.write_text(EXTENSION)
    target = directory / f"foreign_frames{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = os.environ.get("CC", "cc")
    include = sysconfig.get_path("include")
    options = ["-shared", "-fPIC", "-O1", "-fno-stack-clash-protection", f"-I{include}"]
    command = [*shlex.split(compiler), *options, str(source), "-o", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    except subprocess.CalledProcessError as error:
        if "Python.h" in error.stderr:
            pytest.skip("the headers of this Python are not installed")
        raise AssertionError(error.stderr) from error
    return directory
