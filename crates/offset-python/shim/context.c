/* Contexts: a thread state for each goroutine, cleaned between two goroutines of the same stack.
 *
 * PyThreadState_Clear makes a thread state unfit for use, so reuse is by hand: offset_context_finish drops what holds references
 * (attached, Python may run), offset_context_reset puts the counters back (detached, it may not). What a new thread state is
 * made of was read in init_threadstate of each version, what is dropped at its end in PyThreadState_Clear; a field of either
 * that is not named here is left alone on purpose:
 * - prev, next, interp, _status, state, holds_gil, _whence: the interpreter's lists and locks keep them.
 * - dict_global_version, mem_free_queue, the free lists, heaps and counts of free-threaded builds: belong to the state.
 * - current_executor and its like: NULL when no Python frame is left.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"
#if OFFSET_3_13
#include "internal/pycore_ceval.h"
#include "internal/pycore_tstate.h"
#endif

#include <stdatomic.h>

/* A finalizer may put new things in place of what is dropped; this many rounds it may. */
#define ROUNDS 100

#if OFFSET_3_13

/* The fields of the structure around the context. */
static inline _PyThreadStateImpl *impl(PyThreadState *context)
{
    return (_PyThreadStateImpl *)((char *)context + offset_impl_shift);
}

#endif

/* Py_CLEAR, but as a call: what a finalizer sees is the empty field. */
static void drop(PyObject **field)
{
    PyObject *object = *field;
    *field = NULL;
    Py_XDECREF(object);
}

/* ---- birth ---- */

#if OFFSET_3_12 && !OFFSET_3_14

/* The first word of a root chunk's data is never part of a frame: it remembers how many nested C calls the stack has room for.
 * A unit of c_recursion_remaining takes up to 1,750 bytes; 192 KiB stay for calls that are not counted. */
static void set_c_limit(PyThreadState *context, _PyStackChunk *root, size_t stack_size)
{
    const size_t reserve = 192 * 1024, unit = 1750;
    size_t units = stack_size > reserve ? (stack_size - reserve) / unit : 0;
    root->data[0] = (PyObject *)(units < 50 ? 50 : units);
    context->c_recursion_remaining = (int)(uintptr_t)root->data[0];
}

#endif

static void place_root(PyThreadState *context, _PyStackChunk *root)
{
    root->top = 0;
    context->datastack_chunk = root;
    /* The first word stays free, as in the interpreter's own root chunks: a frame that began there would free the chunk. */
    context->datastack_top = &root->data[1];
    context->datastack_limit = (PyObject **)((char *)root + root->size);
}

void offset_context_place(PyThreadState *context, void *chunk, size_t chunk_size)
{
    _PyStackChunk *root = chunk;
    root->previous = NULL;
    root->size = chunk_size;
    root->data[0] = NULL;
    place_root(context, root);
}

PyThreadState *offset_context_new(PyInterpreterState *interpreter, uintptr_t identity, void *stack_low, size_t stack_size,
                                  void *chunk, size_t chunk_size)
{
    PyThreadState *context = PyThreadState_New(interpreter);
    if (context == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    offset_context_place(context, chunk, chunk_size);
    context->thread_id = identity;
    offset_bytecode_share(context);
#if OFFSET_3_14
    if (PyUnstable_ThreadState_SetStackProtection(context, stack_low, stack_size) < 0) {
        offset_context_delete(context);
        return NULL;
    }
#elif OFFSET_3_12
    (void)stack_low;
    set_c_limit(context, chunk, stack_size);
#else
    (void)stack_low;
    (void)stack_size;
#endif
    return context;
}

/* ---- context variables ---- */

int offset_variables_copy(PyObject **copy)
{
    PyObject *current = PyThreadState_Get()->context;
    *copy = NULL;
    if (current == NULL || PyObject_Size(current) == 0) {
        return 1;
    }
    *copy = PyContext_CopyCurrent();
    return *copy != NULL;
}

/* ---- the end of a goroutine ---- */

#if OFFSET_3_12
#define EXCEPTION(context) ((context)->current_exception)
#else
#define EXCEPTION(context) ((context)->curexc_type)
#endif

/* What holds a reference, or a hook, in the name of the goroutine. A goroutine that did nothing special has none of it. */
static int owns_anything(PyThreadState *context)
{
    uintptr_t owned = (uintptr_t)EXCEPTION(context) | (uintptr_t)context->exc_state.exc_value | (uintptr_t)context->dict
                      | (uintptr_t)context->async_exc | (uintptr_t)context->context
                      | (uintptr_t)context->async_gen_firstiter | (uintptr_t)context->async_gen_finalizer
                      | (uintptr_t)context->c_traceobj | (uintptr_t)context->c_profileobj;
    owned |= context->c_tracefunc != NULL || context->c_profilefunc != NULL || context->exc_info != &context->exc_state;
#if OFFSET_3_13
    owned |= (uintptr_t)context->threading_local_key | (uintptr_t)context->threading_local_sentinel;
    owned |= (uintptr_t)impl(context)->asyncio_running_loop;
#else
    owned |= context->on_delete != NULL;
#endif
#if OFFSET_3_14
    owned |= (uintptr_t)impl(context)->asyncio_running_task;
#endif
    return owned != 0;
}

/* One round of what PyThreadState_Clear does, in its order: an object's finalizer finds the rest still there. */
static void drop_owned(PyThreadState *context)
{
    PyErr_Clear();
#if OFFSET_3_13
    drop(&context->threading_local_key);
    drop(&context->threading_local_sentinel);
    drop(&impl(context)->asyncio_running_loop);
#else
    if (context->on_delete != NULL) {
        void (*on_delete)(void *) = context->on_delete;
        context->on_delete = NULL;
        on_delete(context->on_delete_data);
        context->on_delete_data = NULL;
    }
#endif
#if OFFSET_3_14
    drop(&impl(context)->asyncio_running_task);
#endif
    drop(&context->dict);
    Py_XDECREF(offset_take_async_exc(context));
    context->exc_info = &context->exc_state;
    drop(&context->exc_state.exc_value);
    /* These count the interpreter's traced threads too, so the fields are not ours to write. */
    if (context->c_profilefunc != NULL || context->c_profileobj != NULL) {
        PyEval_SetProfile(NULL, NULL);
    }
    if (context->c_tracefunc != NULL || context->c_traceobj != NULL) {
        PyEval_SetTrace(NULL, NULL);
    }
    drop(&context->async_gen_firstiter);
    drop(&context->async_gen_finalizer);
    drop(&context->context);
}

/* Whether nothing is left that only the end of the thread state can take away. */
static int reusable(PyThreadState *context)
{
#if OFFSET_3_15
    if (context->ensure.counter != 0 || context->ensure.owned_guard != NULL) {
        return 0;
    }
#endif
#if OFFSET_3_14
    /* Tasks that are still pending are listed under the thread that made them; its end hands them to the interpreter. */
    struct llist_node *tasks = &impl(context)->asyncio_tasks_head;
    if (tasks->next != tasks) {
        return 0;
    }
#endif
#if OFFSET_3_13
    return context->delete_later == NULL && context->critical_section == 0;
#elif OFFSET_3_12
    return context->trash.delete_later == NULL;
#else
    return context->trash_delete_later == NULL;
#endif
}

#if OFFSET_3_14

/* Chunks above the root go as their frames go, but one is kept for the next call that needs it. */
static void drop_cached_chunk(PyThreadState *context)
{
    if (offset_impl_shift < 0) {
        return; /* a patch release before the one that keeps it */
    }
    _PyStackChunk *chunk = context->datastack_cached_chunk;
    if (chunk != NULL) {
        PyObjectArenaAllocator allocator;
        PyObject_GetArenaAllocator(&allocator);
        context->datastack_cached_chunk = NULL;
        allocator.free(allocator.ctx, chunk, chunk->size);
    }
}

#endif

int offset_context_finish(PyThreadState *context)
{
    int rounds = 0;
    ENTER();
    offset_forget_stand_in(context);
    if (owns_anything(context)) {
        do {
            drop_owned(context);
        } while (owns_anything(context) && context->c_tracefunc == NULL && context->c_profilefunc == NULL && ++rounds < ROUNDS);
        /* A finalizer may have asked for it again. */
        offset_forget_stand_in(context);
    }
    LEAVE();
    if (owns_anything(context)) {
        return 0;
    }
#if OFFSET_3_14
    drop_cached_chunk(context);
#endif
    return reusable(context);
}

/* ---- between two goroutines ---- */

/* A state's id is its own for ever in CPython, and caches rely on it (ContextVar's, asyncio's running loop up to 3.12). These
 * are out of the interpreter's reach, which counts from one. */
static uint64_t next_id(void)
{
    static _Atomic uint64_t last = UINT64_C(1) << 62;
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

#if OFFSET_3_13

static void reset_frames(PyThreadState *context)
{
#if OFFSET_3_15
    context->current_frame = context->base_frame;
    context->last_profiled_frame = NULL;
#else
    context->current_frame = NULL;
#endif
}

/* The version bits above stay, they follow the interpreter's; a request to drop the GIL is renewed by the one who waits. */
static void reset_requests(PyThreadState *context)
{
    const uintptr_t requests = _PY_ASYNC_EXCEPTION_BIT | _PY_GIL_DROP_REQUEST_BIT;
    if (_Py_atomic_load_uintptr_relaxed(&context->eval_breaker) & requests) {
        _Py_atomic_and_uintptr(&context->eval_breaker, ~requests);
    }
#if OFFSET_3_14
    context->remote_debugger_support.debugger_pending_call = 0;
#endif
}

#else

static void reset_frames(PyThreadState *context)
{
    context->cframe = &context->root_cframe;
    context->root_cframe.current_frame = NULL;
    context->root_cframe.previous = NULL;
#if !OFFSET_3_12
    context->root_cframe.use_tracing = 0;
#endif
}

static void reset_requests(PyThreadState *context)
{
#if OFFSET_3_12
    context->trash.delete_nesting = 0;
#else
    context->trash_delete_nesting = 0;
#endif
}

#endif

static void reset_recursion(PyThreadState *context, _PyStackChunk *root)
{
    (void)root;
    context->recursion_headroom = 0;
#if OFFSET_3_12
    context->py_recursion_remaining = context->py_recursion_limit;
    context->what_event = -1;
#else
    context->recursion_remaining = context->recursion_limit;
    context->tracing_what = 0;
#endif
#if OFFSET_3_12 && !OFFSET_3_14
    context->c_recursion_remaining = (int)(uintptr_t)root->data[0];
#endif
}

void offset_context_reset(PyThreadState *context)
{
    _PyStackChunk *root = context->datastack_chunk;
    place_root(context, root);
    reset_frames(context);
    reset_recursion(context, root);
    reset_requests(context);
    context->exc_info = &context->exc_state;
    context->exc_state.previous_item = NULL;
    context->gilstate_counter = 1;
    context->tracing = 0;
    context->coroutine_origin_tracking_depth = 0;
    context->context_ver++;
    context->id = next_id();
}

/* ---- death ---- */

void offset_context_cut(PyThreadState *context, void *root)
{
    _PyStackChunk *chunk = root;
    if (context->datastack_chunk == chunk) {
        /* The next frame, if there ever is one, begins a list of the interpreter's own. */
        context->datastack_chunk = NULL;
        context->datastack_top = NULL;
        context->datastack_limit = NULL;
        return;
    }
    for (_PyStackChunk *above = context->datastack_chunk; above != NULL; above = above->previous) {
        if (above->previous == chunk) {
            above->previous = chunk->previous;
            return;
        }
    }
}

void offset_context_delete(PyThreadState *context)
{
    offset_bytecode_part(context);
    _PyStackChunk *root = context->datastack_chunk;
    while (root != NULL && root->previous != NULL) {
        root = root->previous;
    }
    if (root != NULL) {
        offset_context_cut(context, root);
    }
#if OFFSET_3_12
    /* The bit tells PyThreadState_Delete to empty this thread's slot, which is wrong where that names another state. */
    if (PyGILState_GetThisThreadState() != context) {
        context->_status.bound_gilstate = 0;
    }
#endif
    ENTER();
    offset_memory_clear(context);
    PyThreadState_Delete(context);
    LEAVE();
}

/* ---- asynchronous exceptions, threads, tracing ---- */

PyObject *offset_take_async_exc(PyThreadState *context)
{
#if OFFSET_3_13
    /* The flag first: SetAsyncExc stores the exception, then the flag, so one that comes meanwhile is not lost. */
    _Py_atomic_and_uintptr(&context->eval_breaker, ~(uintptr_t)_PY_ASYNC_EXCEPTION_BIT);
    PyObject *exception = _Py_atomic_exchange_ptr(&context->async_exc, NULL);
#else
    PyObject *exception = context->async_exc;
    context->async_exc = NULL;
    if (exception != NULL && offset_ceval_known) {
        /* Left set, it would send every thread down the slow path of the evaluation loop until another exception comes. A
         * thread that has one of its own pending sets it again when it takes the GIL. */
        context->interp->ceval.pending.async_exc = 0;
    }
#endif
    return exception;
}

int offset_has_async_exc(PyThreadState *context)
{
#if OFFSET_3_13
    return _Py_atomic_load_ptr(&context->async_exc) != NULL;
#else
    return context->async_exc != NULL;
#endif
}

int offset_raise_async(unsigned long identity, PyObject *exception)
{
    return PyThreadState_SetAsyncExc(identity, exception);
}

Py_ssize_t offset_count_threads(PyInterpreterState *interpreter)
{
    Py_ssize_t count = 0;
    /* With a GIL, a state enters the list at its head and leaves it under the GIL: a walk from any head is safe. */
#ifdef Py_GIL_DISABLED
    PyMutex_Lock(&_PyRuntime.interpreters.mutex);
#endif
    for (PyThreadState *state = PyInterpreterState_ThreadHead(interpreter); state != NULL; state = PyThreadState_Next(state)) {
        count++;
    }
#ifdef Py_GIL_DISABLED
    PyMutex_Unlock(&_PyRuntime.interpreters.mutex);
#endif
    return count;
}

unsigned long offset_thread_identity(PyThreadState *state)
{
    return state->thread_id;
}
