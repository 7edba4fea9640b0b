/* How a goroutine gives the interpreter up and gets it again: where another one of the same OS thread runs next, the GIL stays with
 * the thread and only the thread state changes.
 *
 * PyEval_SaveThread and PyEval_RestoreThread take a mutex and signal a condition variable each, and between the two any thread
 * that wants the GIL may get in and keep it for a time slice. So a goroutine that parks stays attached (offset_leave); whoever runs next
 * on this thread takes its place (offset_enter), and a machine that has nothing to run gives the GIL up (offset_release).
 *
 * `held` is the context that parked and is attached still. It belongs to its OS thread, which holds the GIL as long as it is set. What
 * CPython has in a thread's name is changed with the GIL held, as CPython does:
 * - the variable of the interpreter that names the attached state (3.12 on; found by what the getter reads, see tls_find);
 * - `active`, `state` and `holds_gil` of both states, `bound_gilstate` and the slot of the PyGILState functions;
 * - `last_holder` of the GIL (3.13 on), whose state gets the request to drop it. Who waits reads it, and writes the request, under the
 *   GIL's mutex, so a context may be deleted after an attach of another state, which takes that mutex, and not before.
 *
 * A request that came is heeded: then the GIL is really dropped. One that comes for a context that has just been left is repeated by
 * whoever waits, after a time slice; the stale bit must be taken back, or a later drop would wait for a switch that nobody
 * wants.
 *
 * What else CPython does when a thread takes the GIL is left to CPython: if there is something for the context (has_news) the GIL is
 * dropped and taken.
 *
 * On free-threaded builds there is nothing to keep: a detached thread holds up nobody.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#include "internal/pycore_ceval.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_gil.h"
#if !OFFSET_3_12
#include "internal/pycore_runtime.h"
#endif

#if !defined(Py_GIL_DISABLED)

/* Whether the GIL can be kept; written once, by offset_hand_setup. */
static int can_keep;

OFFSET_THREAD_LOCAL PyThreadState *held;

#if OFFSET_3_12

static struct tls_place current;

/* Where that variable is for the calling thread; NULL until asked for. */
OFFSET_THREAD_LOCAL PyThreadState **current_here;

static void write_current(PyThreadState *state)
{
    if (current_here == NULL) {
        current_here = tls_address(&current);
    }
    *current_here = state;
}

static PyThreadState *read_current(void)
{
#if OFFSET_3_13
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

#endif

#if OFFSET_3_13

static struct _gil_runtime_state *gil_of(PyThreadState *state)
{
    return state->interp->ceval.gil;
}

static int drop_requested(PyThreadState *state)
{
    return (_Py_atomic_load_uintptr_relaxed(&state->eval_breaker) & _PY_GIL_DROP_REQUEST_BIT) != 0;
}

/* The version of what is traced is copied to a state when it takes the GIL, and so is the request to make pending calls. */
static int has_news(PyThreadState *state)
{
    struct _ceval_state *ceval = &state->interp->ceval;
    uintptr_t breaker = _Py_atomic_load_uintptr_relaxed(&state->eval_breaker);
    return (breaker & ~(uintptr_t)_PY_EVAL_EVENTS_MASK) != _Py_atomic_load_uintptr_relaxed(&ceval->instrumentation_version)
        || _Py_atomic_load_int32_relaxed(&ceval->pending.npending) != 0;
}

#else

static int drop_requested(PyThreadState *state)
{
    return _Py_atomic_load_relaxed(&state->interp->ceval.gil_drop_request) != 0;
}

/* Who takes the GIL tells the evaluation loop of an exception that waits for it. */
static int has_news(PyThreadState *state)
{
    return state->async_exc != NULL;
}

#endif

static void change(PyThreadState *from, PyThreadState *to)
{
#if OFFSET_3_12
    from->_status.active = 0;
    from->_status.bound_gilstate = 0;
#if OFFSET_3_14
    _Py_atomic_store_int_relaxed(&from->holds_gil, 0);
    _Py_atomic_store_int_relaxed(&to->holds_gil, 1);
#elif OFFSET_3_13
    from->_status.holds_gil = 0;
    to->_status.holds_gil = 1;
#endif
#if OFFSET_3_13
    _Py_atomic_store_int_relaxed(&from->state, _Py_THREAD_DETACHED);
    _Py_atomic_store_ptr_relaxed(&gil_of(to)->last_holder, to);
    if (drop_requested(to)) {
        _Py_atomic_and_uintptr(&to->eval_breaker, ~(uintptr_t)_PY_GIL_DROP_REQUEST_BIT);
    }
    _Py_atomic_store_int_relaxed(&to->state, _Py_THREAD_ATTACHED);
#endif
    write_current(to);
    offset_slot_write(to);
    to->_status.bound_gilstate = 1;
    to->_status.active = 1;
#else
    (void)from;
    PyThreadState_Swap(to);
    offset_slot_write(to);
#endif
}

/* Whose the main interpreter's GIL is: its word, written once, by offset_hand_setup; NULL where it is not found. */
#if OFFSET_3_13
static const int *taken;

int offset_taken(void)
{
    return taken != NULL && _Py_atomic_load_int_relaxed(taken) == 1;
}
#else
static _Py_atomic_int *taken;

int offset_taken(void)
{
    return taken != NULL && _Py_atomic_load_relaxed(taken) == 1;
}
#endif

void offset_hand_setup(void)
{
    PyThreadState *state = PyThreadState_Get();
#if OFFSET_3_13
    struct _gil_runtime_state *gil = gil_of(state);
    int known = gil != NULL && gil->last_holder == state && gil->locked == 1;
#else
    int known = offset_ceval_known;
#if OFFSET_3_12
    struct _gil_runtime_state *gil = known ? state->interp->ceval.gil : NULL;
#else
    struct _gil_runtime_state *gil = known ? &_PyRuntime.ceval.gil : NULL;
#endif
    known = known && gil != NULL && _Py_atomic_load_relaxed(&gil->last_holder) == (uintptr_t)state
        && _Py_atomic_load_relaxed(&gil->locked) == 1;
#endif
    taken = known ? &gil->locked : NULL;
#if OFFSET_3_12
    known = known && tls_find(&current, read_current);
#endif
    can_keep = known && offset_slot_known();
}

void offset_leave(PyThreadState *context)
{
    if (can_keep && !drop_requested(context)) {
        held = context;
    } else {
        offset_unbind(context);
        offset_detach();
    }
}

void offset_release(void)
{
    PyThreadState *context = held;
    if (context != NULL) {
        held = NULL;
        offset_unbind(context);
        offset_detach();
    }
}

int offset_enter(PyThreadState *context)
{
    PyThreadState *before = held;
    int kept = before != NULL && !drop_requested(before) && !has_news(context);
    if (kept) {
        held = NULL;
        if (before != context) {
            change(before, context);
        }
    } else {
        offset_release();
        offset_bind(context);
        offset_attach(context);
    }
    offset_number(context);
    return !kept;
}

#else

int offset_taken(void)
{
    return 0;
}

void offset_hand_setup(void)
{
}

void offset_leave(PyThreadState *context)
{
    offset_unbind(context);
    offset_detach();
}

void offset_release(void)
{
}

int offset_enter(PyThreadState *context)
{
    offset_bind(context);
    offset_attach(context);
    offset_number(context);
    return 0;
}

#endif
