/* Does the running interpreter look as the headers said? Asked once, before the rest of the shim relies on it.
 *
 * Invariant: nothing in the interpreter changes; what is found out is kept here.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"
#if OFFSET_3_13
#include "internal/pycore_tstate.h"
#endif

#include <string.h>

Py_ssize_t offset_impl_shift;
int offset_ceval_known;

uintptr_t offset_interpreter_address(void)
{
    return (uintptr_t)&PyThread_get_thread_ident;
}

#if OFFSET_3_13

static const char *check_layout(void)
{
    const _Py_DebugOffsets *running = &_PyRuntime.debug_offsets;
    if (memcmp(running->cookie, "xdebugpy", sizeof running->cookie) != 0
        || running->thread_state.interp != offsetof(PyThreadState, interp)
        || running->thread_state.thread_id != offsetof(PyThreadState, thread_id)
        || running->thread_state.datastack_chunk != offsetof(PyThreadState, datastack_chunk)
        || running->thread_state.status != offsetof(PyThreadState, _status)
        || running->runtime_state.interpreters_head != offsetof(_PyRuntimeState, interpreters.head)) {
        return "this interpreter's thread states differ from those of the headers that offset was built with";
    }
    offset_impl_shift = (Py_ssize_t)running->thread_state.size - (Py_ssize_t)sizeof(PyThreadState);
    return NULL;
}

#else

static const char *check_layout(void)
{
    offset_ceval_known = PyInterpreterState_Get()->ceval.recursion_limit == Py_GetRecursionLimit();
    return NULL;
}

#endif

const char *offset_setup(void)
{
    if (Py_Version >> 16 != PY_VERSION_HEX >> 16) {
        return "offset was built for another minor version of CPython";
    }
    const char *reason = check_layout();
    if (reason == NULL && !offset_slot_find() && !OFFSET_3_12) {
        reason = "the thread slot of the PyGILState functions was not found";
    }
    if (reason == NULL) {
        offset_hand_setup();
        offset_refcounts_setup();
    }
    if (reason == NULL && !offset_threading_setup()) {
        PyErr_Clear();
        reason = "there is no memory";
    }
    return reason;
}
