/* What a goroutine has to do with the module threading: it applies settrace and setprofile at its start as a new thread does, and
 * leaves no entry behind at its end.
 *
 * The module keeps the two functions in its variables _trace_hook and _profile_hook on every version we know (what its gettrace
 * and getprofile return), and the stand-ins for threads that it did not start in _active, by identity. It is never imported from
 * here: who used it has imported it.
 */
#include "internal.h"

#include <stdatomic.h>

/* Names, made by offset_threading_setup and kept for ever. */
static PyObject *threading_name, *trace_hook_name, *profile_hook_name, *active_name;

int offset_threading_setup(void)
{
    threading_name = PyUnicode_InternFromString("threading");
    trace_hook_name = PyUnicode_InternFromString("_trace_hook");
    profile_hook_name = PyUnicode_InternFromString("_profile_hook");
    active_name = PyUnicode_InternFromString("_active");
    return threading_name != NULL && trace_hook_name != NULL && profile_hook_name != NULL && active_name != NULL;
}

/* A new reference to dict[name], or NULL without an exception. */
static PyObject *lookup(PyObject *dict, PyObject *name)
{
    PyObject *value;
#if OFFSET_3_13
    if (PyDict_GetItemRef(dict, name, &value) < 0) {
        PyErr_Clear();
    }
#else
    value = Py_XNewRef(PyDict_GetItemWithError(dict, name));
    if (value == NULL) {
        PyErr_Clear();
    }
#endif
    return value;
}

/* sys.settrace or sys.setprofile of the hook in `variables`, if there is one. */
static void apply(PyObject *variables, PyObject *hook_name, const char *setter_name)
{
    PyObject *hook = lookup(variables, hook_name);
    PyObject *setter = hook != NULL && hook != Py_None ? PySys_GetObject(setter_name) : NULL;
    if (setter != NULL) {
        PyObject *result = PyObject_CallOneArg(setter, hook);
        if (result == NULL) {
            PyErr_WriteUnraisable(hook);
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(hook);
}

/* The module's variables, a borrowed reference, or NULL while nobody has imported it. Kept from the first time on: to look a
 * module up takes longer than all the rest. */
static PyObject *threading_variables(void)
{
    static _Atomic(PyObject *) known;
    PyObject *variables = atomic_load_explicit(&known, memory_order_acquire);
    if (variables != NULL) {
        return variables;
    }
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *threading = PyDict_Check(modules) ? lookup(modules, threading_name) : NULL;
    if (threading != NULL && PyModule_Check(threading)) {
        /* Both threads of a race find the same one; a reference too many is held for ever, as one is in any case. */
        variables = Py_NewRef(PyModule_GetDict(threading));
        atomic_store_explicit(&known, variables, memory_order_release);
    }
    Py_XDECREF(threading);
    return variables;
}

void offset_apply_tracing(void)
{
    ENTER();
    PyObject *variables = threading_variables();
    if (variables != NULL) {
        apply(variables, trace_hook_name, "settrace");
        apply(variables, profile_hook_name, "setprofile");
    }
    LEAVE();
}

void offset_forget_stand_in(PyThreadState *context)
{
#if !OFFSET_3_13
    /* From 3.13 on the module does this itself. Before, the stand-in would pass for that of the next goroutine on this stack. */
    PyObject *variables = threading_variables();
    PyObject *active = variables != NULL ? lookup(variables, active_name) : NULL;
    /* The main thread is in there. What comes with another thread's identity is none of ours. */
    if (active != NULL && PyDict_CheckExact(active) && PyDict_GET_SIZE(active) > 1) {
        PyObject *identity = PyLong_FromUnsignedLong(context->thread_id);
        if (identity == NULL || (PyDict_GetItemWithError(active, identity) != NULL && PyDict_DelItem(active, identity) < 0)) {
            PyErr_Clear();
        }
        Py_XDECREF(identity);
    }
    Py_XDECREF(active);
#else
    (void)context;
#endif
}
