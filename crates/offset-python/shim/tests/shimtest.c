/* The module shimtest: the shim by itself, without the runtime. Contexts run on stacks of ucontext(3).
 *
 * A context is the number that new() gave. run(context, function) runs the function on it, on the calling thread, up to its end or to
 * its next park(); resume(context) goes on from there. At the end the context is finished, and reset if it may serve again.
 */
#define Py_BUILD_CORE 1
#include "internal.h"

#include "internal/pycore_interp.h"
#if OFFSET_3_13
#include "internal/pycore_ceval.h"
#include "internal/pycore_tstate.h"
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "fields.h"

#define STACK (2 << 20)
#define CHUNK (64 << 10)
#define MAXIMUM 256

struct context {
    PyThreadState *state;
    char *low, *chunk;
    ucontext_t own, caller;
    PyObject *function, *result, *error;
    int running, reusable;
    int keeps; /* whether it parks by offset_leave, see `trade` */
    const struct field *left; /* what `leave` has asked for */
    PyObject *left_value;
};

static struct context contexts[MAXIMUM];
static int used;
static int unbinds; /* whether a thread's slot is emptied after each run on it, as before a machine goes idle */
static __thread struct context *current;
static __thread PyThreadState *maker; /* of this thread's contexts */

/* ---- the end of a goroutine ---- */

/* offset_context_finish, with a field as a goroutine's C code may have left it. A number is put back before anybody follows it. */
static int finish(struct context *context)
{
    const struct field *left = context->left;
    if (left == NULL) {
        return offset_context_finish(context->state);
    }
    context->left = NULL;
    _PyErr_StackItem handled = {.exc_value = context->left_value};
    uintptr_t before = get_field(left, context->state);
    if (left->kind == OBJECT) {
        Py_XDECREF((PyObject *)before);
        set_field(left, context->state, (uintptr_t)context->left_value);
        return offset_context_finish(context->state);
    }
    set_field(left, context->state, left->kind == HANDLED ? (uintptr_t)&handled : 64);
    int reusable = offset_context_finish(context->state);
    if (left->kind == HANDLED) {
        Py_DECREF(handled.exc_value);
    } else {
        set_field(left, context->state, before);
    }
    return reusable;
}

/* ---- contexts ---- */

/* Frames of Rust abort the process when they are unwound; these stand for some. */
static void abort_if_unwound(const int *inside)
{
    if (*inside) {
        abort();
    }
}
#define AS_RUST() int inside __attribute__((cleanup(abort_if_unwound))) = 1
#define DONE() (void)(inside = 0)

/* The call of a goroutine's function, in the frame that the shim gives each call into Python. */
static PyObject *call(PyObject *function)
{
    ENTER();
    PyObject *result = PyObject_CallNoArgs(function);
    LEAVE();
    return result;
}

static PyObject *take_error(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

static void body(unsigned number)
{
    AS_RUST();
    struct context *context = &contexts[number];
    for (;;) {
        if (context->keeps) {
            offset_enter(context->state);
        } else {
            offset_attach(context->state);
        }
        offset_apply_tracing();
        context->result = call(context->function);
        context->error = context->result == NULL ? take_error() : NULL;
        Py_CLEAR(context->function);
        context->reusable = finish(context);
        offset_detach();
        if (context->reusable) {
            offset_context_reset(context->state);
        }
        context->running = 0;
        swapcontext(&context->own, &context->caller);
    }
}

static struct context *of(PyObject *number)
{
    long index = PyLong_AsLong(number);
    if (index < 0 || index >= used || contexts[index].state == NULL) {
        PyErr_SetString(PyExc_ValueError, "no such context");
        return NULL;
    }
    return &contexts[index];
}

/* Goes on with the context until it parks (None) or ends (the pair of the result and whether the context may serve again). */
static PyObject *enter(struct context *context)
{
    PyThreadState *state = offset_detach();
    struct context *outer = current;
    uintptr_t identity = offset_get_identity();
    offset_bind_thread(context->state);
    offset_set_identity((uintptr_t)context->low);
    current = context;
    swapcontext(&context->caller, &context->own);
    current = outer;
    offset_set_identity(identity);
    if (unbinds) {
        offset_unbind_thread();
    }
    offset_bind_thread(state);
    offset_attach(state);
    if (context->running) {
        Py_RETURN_NONE;
    }
    PyObject *error = context->error;
    context->error = NULL;
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
        return NULL;
    }
    PyObject *result = context->result;
    context->result = NULL;
    return Py_BuildValue("Ni", result, context->reusable);
}

static PyObject *new(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct context *context = &contexts[used];
    maker = PyThreadState_Get();
    char *memory = used == MAXIMUM ? MAP_FAILED : mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return PyErr_NoMemory();
    }
    context->low = memory;
    /* Like the runtime's: not aligned to a page, in the page where the C stack begins. */
    context->chunk = memory + STACK - CHUNK - 2048;
    size_t size = (size_t)(context->chunk - memory);
    context->state = offset_context_new(PyInterpreterState_Get(), (uintptr_t)memory, memory, size, context->chunk, CHUNK);
    if (context->state == NULL) {
        return NULL;
    }
    getcontext(&context->own);
    context->own.uc_stack.ss_sp = memory;
    context->own.uc_stack.ss_size = size;
    makecontext(&context->own, (void (*)(void))body, 1, used);
    return PyLong_FromLong(used++);
}

static PyObject *run(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *number, *function;
    if (!PyArg_ParseTuple(args, "OO", &number, &function)) {
        return NULL;
    }
    struct context *context = of(number);
    if (context == NULL) {
        return NULL;
    }
    context->function = Py_NewRef(function);
    context->running = 1;
    return enter(context);
}

/* Goes on with each of the contexts in turn until all have ended, as a machine does with what is runnable: nothing is attached or given
 * up between them but by offset_enter and offset_leave. What each has returned or raised. */
static PyObject *trade(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *numbers, *function;
    if (!PyArg_ParseTuple(args, "O!O", &PyTuple_Type, &numbers, &function)) {
        return NULL;
    }
    struct context *traders[MAXIMUM];
    Py_ssize_t count = PyTuple_GET_SIZE(numbers);
    for (Py_ssize_t i = 0; i < count; i++) {
        traders[i] = of(PyTuple_GET_ITEM(numbers, i));
        if (traders[i] == NULL) {
            return NULL;
        }
        traders[i]->function = Py_NewRef(function);
        traders[i]->running = traders[i]->keeps = 1;
    }
    PyThreadState *state = offset_detach();
    uintptr_t identity = offset_get_identity();
    for (int running = 1; running;) {
        running = 0;
        for (Py_ssize_t i = 0; i < count; i++) {
            if (traders[i]->running) {
                running = 1;
                offset_set_identity((uintptr_t)traders[i]->low);
                current = traders[i];
                swapcontext(&traders[i]->caller, &traders[i]->own);
            }
        }
    }
    current = NULL;
    offset_release();
    offset_unbind_thread();
    offset_set_identity(identity);
    offset_bind_thread(state);
    offset_attach(state);
    PyObject *results = PyList_New(0);
    for (Py_ssize_t i = 0; i < count && results != NULL; i++) {
        PyObject *result = traders[i]->error != NULL ? traders[i]->error : traders[i]->result;
        traders[i]->keeps = 0;
        traders[i]->error = traders[i]->result = NULL;
        if (PyList_Append(results, result) < 0) {
            Py_CLEAR(results);
        }
        Py_DECREF(result);
    }
    return results;
}

/* Whether somebody has the interpreter: the calling thread, and nobody where there is no other thread. */
static PyObject *taken(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    int here = offset_taken();
    PyThreadState *state = offset_detach();
    int nobody = offset_taken();
    offset_attach(state);
    return Py_BuildValue("ii", here, nobody);
}

static PyObject *resume(PyObject *self, PyObject *number)
{
    (void)self;
    struct context *context = of(number);
    return context == NULL ? NULL : enter(context);
}

static PyObject *park(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct context *context = current;
    AS_RUST();
    if (context->keeps) {
        offset_leave(context->state);
    } else {
        offset_detach();
    }
    swapcontext(&context->own, &context->caller);
    if (context->keeps) {
        offset_enter(context->state);
    } else {
        offset_attach(context->state);
    }
    DONE();
    Py_RETURN_NONE;
}

/* ---- the end of the interpreter ---- */

#if OFFSET_3_13
#define is_finalizing Py_IsFinalizing
#else
#define is_finalizing _Py_IsFinalizing
#endif

static atomic_int waits, attaches;

/* Wants to be attached again as soon as the interpreter ends. */
static PyObject *park_until_exit(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    AS_RUST();
    PyThreadState *own = offset_detach();
    waits = 1;
    while (!is_finalizing()) {
        usleep(100);
    }
    attaches = 1;
    offset_attach(own);
    DONE();
    Py_RETURN_NONE;
}

/* Whether the other one waits for that (False); waits for its wish, and for what might come of it (True), with the GIL. */
static PyObject *await_exit(PyObject *self, PyObject *stage)
{
    (void)self;
    if (stage == Py_False) {
        return PyBool_FromLong(waits);
    }
    while (!attaches) {
        usleep(100);
    }
    usleep(200000);
    Py_RETURN_NONE;
}

static PyObject *delete(PyObject *self, PyObject *number)
{
    (void)self;
    struct context *context = of(number);
    if (context == NULL) {
        return NULL;
    }
    PyThreadState *state = context->state;
    context->state = NULL;
    offset_context_delete(state);
    /* Nobody may write to the memory of a deleted context. */
    mprotect(context->low, STACK, PROT_NONE);
    Py_RETURN_NONE;
}

/* The indices into the copies of bytecode: those of all states, and those that are free. None on builds that have one copy. */
static PyObject *indices(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
#ifdef Py_GIL_DISABLED
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    _PyIndexHeap *heap = &interpreter->tlbc_indices.free_indices;
    PyObject *held = PyList_New(0), *free = PyList_New(0), *each;
    for (PyThreadState *state = interpreter->threads.head; state != NULL; state = state->next) {
        each = PyLong_FromLong(((_PyThreadStateImpl *)((char *)state + offset_impl_shift))->tlbc_index);
        PyList_Append(held, each);
        Py_DECREF(each);
    }
    for (Py_ssize_t i = 0; i < heap->size; i++) {
        each = PyLong_FromLong(heap->values[i]);
        PyList_Append(free, each);
        Py_DECREF(each);
    }
    return Py_BuildValue("NN", held, free);
#else
    Py_RETURN_NONE;
#endif
}

static void cut_contexts(void)
{
    for (int i = 0; i < used; i++) {
        if (contexts[i].state != NULL) {
            offset_context_cut(contexts[i].state, contexts[i].chunk);
            contexts[i].state = NULL;
        }
    }
}

/* In a forked child, before the interpreter deletes the states of the threads that it does not have. */
static void forked(void)
{
    offset_bytecode_child(current == NULL ? NULL : current->state, maker);
    cut_contexts();
}

static PyObject *cut_all(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    cut_contexts();
    Py_RETURN_NONE;
}

static PyObject *ident(PyObject *self, PyObject *number)
{
    (void)self;
    struct context *context = of(number);
    return context == NULL ? NULL : PyLong_FromVoidPtr(context->low);
}

static PyObject *state(PyObject *self, PyObject *number)
{
    (void)self;
    struct context *context = of(number);
    return context == NULL ? NULL : PyLong_FromVoidPtr(context->state);
}

/* The fields that a reset writes, by name. */
static PyObject *fields(PyObject *self, PyObject *number)
{
    (void)self;
    struct context *context = of(number);
    PyObject *dict = context == NULL ? NULL : PyDict_New();
    for (const struct field *field = numbers; dict != NULL && field->name != NULL; field++) {
        PyObject *value = PyLong_FromUnsignedLong(get_field(field, context->state));
        if (value == NULL || PyDict_SetItemString(dict, field->name, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *set(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *number;
    const char *name;
    unsigned long value;
    if (!PyArg_ParseTuple(args, "Osk", &number, &name, &value)) {
        return NULL;
    }
    struct context *context = of(number);
    const struct field *field = context == NULL ? NULL : find_field(numbers, name);
    if (field == NULL) {
        return NULL;
    }
    set_field(field, context->state, value);
    Py_RETURN_NONE;
}

/* The context must be idle. */
static PyObject *reset(PyObject *self, PyObject *number)
{
    (void)self;
    struct context *context = of(number);
    if (context == NULL) {
        return NULL;
    }
    offset_context_reset(context->state);
    Py_RETURN_NONE;
}

/* The next goroutine of the context leaves something in this field at its end: the object, or 64. */
static PyObject *leave(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *number, *value;
    const char *name;
    if (!PyArg_ParseTuple(args, "OsO", &number, &name, &value)) {
        return NULL;
    }
    struct context *context = of(number);
    const struct field *field = context == NULL ? NULL : find_field(leavable, name);
    if (field == NULL) {
        return NULL;
    }
    context->left = field;
    context->left_value = field->kind == WORD ? NULL : Py_NewRef(value);
    Py_RETURN_NONE;
}

/* The names of the fields that `leave` puts an object in (true), or a number. */
static PyObject *leavables(PyObject *self, PyObject *objects)
{
    (void)self;
    PyObject *names = PyList_New(0);
    for (const struct field *field = leavable; names != NULL && field->name != NULL; field++) {
        if ((field->kind == WORD) == (objects == Py_True)) {
            continue;
        }
        PyObject *name = PyUnicode_FromString(field->name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

/* Detaches, empties this thread's slot, and gives what the slot then names: 0. */
static PyObject *unbind(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyThreadState *own = offset_detach();
    offset_unbind_thread();
    PyThreadState *named = PyGILState_GetThisThreadState();
    offset_bind_thread(own);
    offset_attach(own);
    return PyLong_FromVoidPtr(named);
}

static PyObject *unbind_always(PyObject *self, PyObject *flag)
{
    (void)self;
    unbinds = PyObject_IsTrue(flag);
    Py_RETURN_NONE;
}

static PyObject *slot(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromVoidPtr(PyGILState_GetThisThreadState());
}

/* What an extension does on a thread of its own: the pair says which state it found, and whether the GIL was held. */
static PyObject *ensure(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyThreadState *own = offset_detach();
    PyGILState_STATE before = PyGILState_Ensure();
    PyThreadState *found = PyThreadState_Get();
    PyGILState_Release(before);
    offset_attach(own);
    return PyBool_FromLong(found == own);
}

/* Takes and drops. 1 if there was one. */
static int take(PyThreadState *own)
{
    PyObject *exception = offset_take_async_exc(own);
    Py_XDECREF(exception);
    return exception != NULL;
}

static PyObject *take_async(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromLong(take(PyThreadState_Get()));
}

/* Raises and takes at once, before the interpreter can look. */
static PyObject *raise_and_take(PyObject *self, PyObject *exception)
{
    (void)self;
    PyThreadState *own = PyThreadState_Get();
    int found = offset_raise_async(own->thread_id, exception);
    return Py_BuildValue("ii", found, take(own));
}

static PyObject *raise_async(PyObject *self, PyObject *args)
{
    (void)self;
    unsigned long identity;
    PyObject *exception;
    if (!PyArg_ParseTuple(args, "kO", &identity, &exception)) {
        return NULL;
    }
    return PyLong_FromLong(offset_raise_async(identity, exception));
}

static PyObject *count(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromSsize_t(offset_count_threads(PyInterpreterState_Get()));
}

static PyObject *install(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromLong(offset_identity_install());
}

/* On a context: n times what the end of a goroutine costs, in nanoseconds each. */
static PyObject *cost(PyObject *self, PyObject *number)
{
    (void)self;
    long n = PyLong_AsLong(number);
    PyThreadState *scratch = PyThreadState_Get();
    struct timespec start, end;
    int reusable = 1;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < n; i++) {
        reusable &= offset_context_finish(scratch);
        scratch->context_ver++;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double finish = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / (double)n;
    struct context *idle = &contexts[used - 1];
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < n; i++) {
        offset_context_reset(idle->state);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double reset = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / (double)n;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < n; i++) {
        offset_apply_tracing();
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double tracing = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / (double)n;
    return Py_BuildValue("dddi", finish, reset, tracing, reusable);
}

static PyMethodDef methods[] = {
    {"new", new, METH_NOARGS, "A new context."},
    {"run", run, METH_VARARGS, "Runs a function on a context, to its end or its first park()."},
    {"taken", taken, METH_NOARGS, "Whether somebody has the GIL: while this thread is attached, while it is not."},
    {"trade", trade, METH_VARARGS, "Runs a function on each of some contexts, in turns."},
    {"resume", resume, METH_O, "Goes on with a parked context."},
    {"park", park, METH_NOARGS, "Goes back to who runs the context."},
    {"park_until_exit", park_until_exit, METH_NOARGS, "Detaches until the interpreter ends."},
    {"await_exit", await_exit, METH_O, "Whether another thread does, or, as the interpreter ends, waits until it wants to attach."},
    {"delete", delete, METH_O, "Deletes a context and forbids its memory."},
    {"cut_all", cut_all, METH_NOARGS, "Takes the chunks of all contexts away, as in a forked child."},
    {"indices", indices, METH_NOARGS, "The indices into the copies of bytecode, of states and free ones."},
    {"ident", ident, METH_O, "The identity of a context."},
    {"state", state, METH_O, "The address of a context's thread state."},
    {"fields", fields, METH_O, "The fields of a context that a reset writes."},
    {"set", set, METH_VARARGS, "Writes one of them."},
    {"reset", reset, METH_O, "offset_context_reset of an idle context."},
    {"leave", leave, METH_VARARGS, "Has the next goroutine of a context leave something in a field."},
    {"leavables", leavables, METH_O, "The names of such fields: for objects, or for numbers."},
    {"unbind", unbind, METH_NOARGS, "What this thread's slot names once it is emptied."},
    {"unbind_always", unbind_always, METH_O, "Whether each run empties the thread's slot at its end."},
    {"slot", slot, METH_NOARGS, "The state that this thread's slot names."},
    {"ensure", ensure, METH_NOARGS, "Whether PyGILState_Ensure finds the state that runs."},
    {"take_async", take_async, METH_NOARGS, "offset_take_async_exc."},
    {"raise_and_take", raise_and_take, METH_O, "Raises on itself and takes it back."},
    {"raise_async", raise_async, METH_VARARGS, "offset_raise_async."},
    {"count", count, METH_NOARGS, "offset_count_threads."},
    {"install", install, METH_NOARGS, "offset_identity_install."},
    {"cost", cost, METH_O, "What finish, reset and apply_tracing cost."},
    {NULL, NULL, 0, NULL},
};

static int exec(PyObject *module)
{
    (void)module;
    const char *reason = offset_setup();
    if (reason != NULL) {
        PyErr_SetString(PyExc_ImportError, reason);
        return -1;
    }
    return pthread_atfork(NULL, NULL, forked) == 0 ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "shimtest", "The shim under test.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_shimtest(void)
{
    return PyModuleDef_Init(&definition);
}
