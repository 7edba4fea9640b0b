/* What the files of the shim share: the versions they know, the frame that no forced unwinding passes, the layout check. */
#ifndef OFFSET_INTERNAL_H
#define OFFSET_INTERNAL_H

#include "shim.h"

#include <unistd.h>
#ifdef __linux__
#include <link.h> /* dl_iterate_phdr, by the _GNU_SOURCE of Python's own configuration */
#endif

/* ---- versions ---- */

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x03100000
#error "offset knows CPython 3.11 to 3.15; for any other, each field of a thread state must be looked at again"
#endif
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030E0000
#error "offset knows free-threaded CPython from 3.14 on"
#endif

#define OFFSET_3_12 (PY_VERSION_HEX >= 0x030C0000)
#define OFFSET_3_13 (PY_VERSION_HEX >= 0x030D0000)
#define OFFSET_3_14 (PY_VERSION_HEX >= 0x030E0000)
#define OFFSET_3_15 (PY_VERSION_HEX >= 0x030F0000)

/* One fixed place in the thread's block, without a call: the extension is loaded once and never unloaded. */
#define OFFSET_THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))

/* ---- the frame ----
 *
 * CPython 3.11-3.13 ends a thread that wants the GIL while the interpreter exits by pthread_exit, which unwinds the thread's
 * stack. Frames of Rust must not be unwound: the process aborts. So each call that may take the GIL stands in a frame with a
 * cleanup that never returns: the thread stays there until the process ends, as 3.14 and later arrange by themselves. Needs
 * -fexceptions. test_exit_while_threads_want_the_gil in tests/process_cases.py fails without it.
 */

static inline void offset_stay(const int *inside)
{
    while (*inside) {
        pause();
    }
}

/* Declares the frame's flag; LEAVE() before every way out. */
#define ENTER() int offset_inside __attribute__((cleanup(offset_stay))) = 1
#define LEAVE() (void)(offset_inside = 0)

/* ---- layout ----
 *
 * The public PyThreadState of a minor version only ever grows at its end; but the structure around it (_PyThreadStateImpl)
 * starts there, so an extension that was built with one patch release may find it moved in another.
 */

/* How many bytes further the fields of _PyThreadStateImpl lie in the running interpreter than the headers say. */
extern Py_ssize_t offset_impl_shift;

/* Whether interpreter->ceval lies where the headers say; asked for on 3.11 and 3.12 only. */
extern int offset_ceval_known;

/* Finds the slot of the PyGILState functions. Attached. 0 if it cannot be found. */
int offset_slot_find(void);
int offset_slot_known(void);
void offset_slot_write(PyThreadState *state);

#if OFFSET_3_12

/* A thread-local variable of the interpreter, in the form that __tls_get_addr takes. */
struct tls_place {
    unsigned long module;
    unsigned long offset;
};

/* Finds the one that `getter` reads. Attached. 0 if it cannot be found. */
int tls_find(struct tls_place *place, PyThreadState *(*getter)(void));

/* The calling thread's. */
PyThreadState **tls_address(struct tls_place *place);

#endif

/* Looks whether a goroutine can stay attached while others run. Attached, after offset_slot_find. */
void offset_hand_setup(void);

/* Detached: makes the next attach on this OS thread name the context in its slot. */
void offset_bind(PyThreadState *context);

/* Attached as `context`, which is about to be given up: no slot names it any more. */
void offset_unbind(PyThreadState *context);

/* The context runs on this OS thread: gives it the thread's number. */
void offset_number(PyThreadState *context);

/* Makes the names that threading.c looks for. Attached. 0 with an exception set if there is no memory. */
int offset_threading_setup(void);

/* Attached as `context`, at the end of its goroutine: drops what `threading.current_thread` has made to stand for it. May run
 * Python. */
void offset_forget_stand_in(PyThreadState *context);

/* Attached as the machine's own state: `context`, which is new, runs on that state's copies of the bytecode, as long as it lives. */
void offset_bytecode_share(PyThreadState *context);

/* `context` will run no more: puts its own index back, to be given free. */
void offset_bytecode_part(PyThreadState *context);

/* Attached as another state: PyThreadState_Clear, and its memory goes where it should. In a frame of ENTER(). */
void offset_memory_clear(PyThreadState *context);

/* Looks whether offset_refcounts_first can do its work. Attached. */
void offset_refcounts_setup(void);

/* ---- loaded objects ---- */

#ifdef __linux__

static inline int object_contains(const struct dl_phdr_info *object, uintptr_t address)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && address - object->dlpi_addr - segment->p_vaddr < segment->p_memsz) {
            return 1;
        }
    }
    return 0;
}

#endif

#endif
