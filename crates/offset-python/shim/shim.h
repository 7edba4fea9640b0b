/* The seam between the runtime and CPython: everything that needs a header of CPython's, a C cleanup or a C thread-local.
 *
 * A context is the PyThreadState of one goroutine. It runs on the goroutine's own C stack, on one OS thread at a time, and
 * between two goroutines of the same stack it is reset, not deleted.
 *
 * Invariants:
 * - Nothing here allocates memory of its own but three interned names. Python code runs only in the functions that say so.
 * - The root chunk of a context's data stack is the runtime's memory. It is the last chunk of the context's list from
 *   offset_context_new until offset_context_delete or offset_context_cut, so CPython never frees it.
 * - The C-stack limits of a context are set before it is first attached, as CPython would ask for those of the OS thread.
 *
 * "Attached" means: the calling OS thread has an attached thread state (and, on builds that have it, the GIL).
 */
#ifndef OFFSET_SHIM_H
#define OFFSET_SHIM_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* ---- setup.c ---- */

/* Attached, before every other function of this header, once a process: looks up what the others need. NULL, or a sentence
 * that says why this interpreter cannot be served. */
const char *offset_setup(void);

/* An address inside the interpreter's code: in libpython or in the executable. */
uintptr_t offset_interpreter_address(void);

/* ---- attach.c ---- */

/* PyEval_RestoreThread and PyEval_SaveThread. Where CPython 3.11-3.13 ends a thread by pthread_exit as the interpreter exits, the
 * thread hangs in here for ever, and no frame above is unwound. */
void offset_attach(PyThreadState *context);
PyThreadState *offset_detach(void);

/* Makes the next attach of `context` on the calling OS thread name it in the thread's slot of the PyGILState functions. Called
 * with `context` detached, by the one who will attach it. offset_enter does so by itself. */
void offset_bind_thread(PyThreadState *context);

/* Empties the calling OS thread's slot without a look at the state that it names, which may be gone. With nothing attached. */
void offset_unbind_thread(void);

/* ---- hand.c ---- */

/* Attached as `context`, whose goroutine parks: gives the interpreter up, or stays attached until the next offset_enter or
 * offset_release on this OS thread. */
void offset_leave(PyThreadState *context);

/* On `context`'s own stack, with nothing attached but what offset_leave has left: attaches it. */
int offset_enter(PyThreadState *context);

/* Gives up what offset_leave has left, if it has. To be called before this OS thread sleeps, or attaches anything by offset_attach. */
void offset_release(void);

/* Whether somebody has the GIL just now, without any lock; 0 where that cannot be told. */
int offset_taken(void);

/* ---- context.c ---- */

/* A new context whose C stack is [stack_low, stack_low + stack_size) and whose root chunk is `chunk`; writes the first words of
 * `chunk` and nothing else of either. `identity` becomes its thread id: a readable address (from 3.14 on, faulthandler reads
 * there). Attached as another state of this OS thread; on free-threaded builds on the OS thread that will run it. NULL with
 * an exception set. */
PyThreadState *offset_context_new(PyInterpreterState *interpreter, uintptr_t identity, void *stack_low, size_t stack_size,
                                  void *chunk, size_t chunk_size);

/* Attached as `context`, at the end of its goroutine, with no Python frame left: drops all that belonged to the goroutine. Runs
 * Python (finalizers, which may park). 1 if the context may serve another goroutine after offset_context_reset; 0 if something
 * is left that only offset_context_delete can take away. */
int offset_context_finish(PyThreadState *context);

/* Detached, after offset_context_finish: makes the counters, flags and ids those of a new thread. Runs no Python. */
void offset_context_reset(PyThreadState *context);

/* Attached as another state, on the OS thread that ran `context` last: deletes it. No slot of another OS thread may name it
 * (offset_unbind_thread). Runs Python where the context was not finished. The C stack and the chunk are the caller's again. */
void offset_context_delete(PyThreadState *context);

/* Detached: gives a thread state that is new `chunk` for its first Python frames, in place of memory that the interpreter would ask the
 * system for, and give back, each time: where other threads of the process run, that interrupts their processors. To be cut before the
 * state ends. `chunk` may not begin a page: an exiting interpreter would unmap it. */
void offset_context_place(PyThreadState *context, void *chunk, size_t chunk_size);

/* Takes the chunk `root` out of the context's list, wherever it is in it, so that CPython does not free it. Runs no Python, needs
 * nothing attached. Only for a context that has no Python frame left, or that will never run again (in a forked child, at
 * exit). */
void offset_context_cut(PyThreadState *context, void *root);

/* Attached as `context`: takes a pending asynchronous exception, for the caller to drop, which may run Python. NULL if there is none. */
PyObject *offset_take_async_exc(PyThreadState *context);

/* Whether there is one. The context is alive; it may be another thread's. */
int offset_has_async_exc(PyThreadState *context);

/* Attached: PyThreadState_SetAsyncExc. The number of threads that were found: 0 or 1. */
int offset_raise_async(unsigned long identity, PyObject *exception);

/* Attached: the number of thread states of the interpreter. */
Py_ssize_t offset_count_threads(PyInterpreterState *interpreter);

/* The identity of the thread of `state`, its key in sys._current_frames(). */
unsigned long offset_thread_identity(PyThreadState *state);

/* Attached: a copy of the current context variables, for contextvars.Context; NULL when none is set, which is what every thread begins
 * with anyway. 0 with an exception set. */
int offset_variables_copy(PyObject **copy);

/* ---- refcounts.c: free-threaded builds; on others these do nothing ---- */

/* Attached as `state`: what other threads drop of this OS thread's objects is settled by `state` from now on. To be called after
 * each attach of a context, and of a machine's own state, which must be the first when a context is deleted. */
void offset_refcounts_first(PyThreadState *state);

/* What offset_refcounts_owed is to be asked with about the calling OS thread, which is about to sleep; 0 if there is nothing to ask. */
uintptr_t offset_refcounts_account(void);

/* On any thread, detached: whether others have dropped objects of the thread of `account`, which has attached nothing since it asked for
 * that. Who attaches a context there settles it as soon as it runs Python. */
int offset_refcounts_owed(uintptr_t account);

/* The calling OS thread is about to end, or its states are deleted by others. */
void offset_refcounts_leave(void);

/* ---- memory.c: likewise ---- */

/* Attached, before contexts are deleted: what those before them have left is free to go. */
void offset_memory_settle(void);

/* Attached, before `context` is deleted: that does not look through the memory that others have left. */
void offset_memory_apart(PyThreadState *context);

/* ---- bytecode.c: likewise ---- */

/* In a forked child, before the interpreter deletes the states of the threads that it does not have and before their chunks are cut: each
 * gets its own index back. `context` is the one that goes on, NULL if that is no goroutine's; `machine` the state of the machine
 * that ran it. */
void offset_bytecode_child(PyThreadState *context, PyThreadState *machine);

/* ---- threading.c ---- */

/* Attached as the goroutine, before its function: applies threading.settrace and threading.setprofile as a new thread does.
 * Imports nothing; runs Python only if one of them is set. */
void offset_apply_tracing(void);

/* ---- call.c ---- */

/* Attached: the qualified name of a Python function or method, a new reference; NULL, without an exception, of anything else. */
PyObject *offset_function_name(PyObject *callable);

/* Attached: the flags of the code of a Python function or method (CO_COROUTINE, ...), 0 of anything else. */
int offset_function_flags(PyObject *callable);

/* The dealloc of channels, and what it calls, which is written in Rust: gives up what the channel holds and frees it. */
void offset_chan_dealloc(PyObject *chan);
void offset_chan_release(PyObject *chan);

/* A new reference to the code that calls us, and the offset of its instruction: the innermost outside of the package's directory. NULL
 * without one. */
PyCodeObject *offset_caller(int *instruction);

/* Names that directory. */
void offset_package_set(const char *directory, size_t size);

/* ---- frames.c ---- */

/* How many values are on the stack of a frame of `code` that is at `instruction` and owns them. */
typedef int (*offset_depth)(PyCodeObject *code, int instruction, void *argument);

/* Shows the counted references that a parked thread holds, by its frames and its state. Neither it nor anybody else runs meanwhile; `visit`
 * runs nothing. */
void offset_thread_visit(PyThreadState *state, offset_depth depth, visitproc visit, void *argument);

/* Shows the counted references that an object of a type with Py_TPFLAGS_HAVE_GC holds. As above. */
void offset_object_visit(PyObject *object, visitproc visit, void *argument);

/* Py_REFCNT, which differs from one build to the next. */
Py_ssize_t offset_refcount(PyObject *object);

/* ---- identity.c ---- */

/* The identity of the goroutine that runs on the calling OS thread, 0 for none. Async-signal-safe. */
void offset_set_identity(uintptr_t identity);
uintptr_t offset_get_identity(void);

/* Makes the interpreter see the identity instead of pthread_self() wherever it is not 0. The number of import slots that were
 * redirected, now or by an earlier call; 0 where it is impossible, and then nothing was changed. */
int offset_identity_install(void);

#endif
