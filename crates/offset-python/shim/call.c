/* Calls into Python from Rust, each in a frame that a forced unwinding does not pass (frame.h): the frames of Rust above it stay. */
#include <Python.h>

#include "internal.h"
#include "shim.h"

/* Keyword arguments of up to so many calls are handed on from here. PyObject_Call would copy them to the heap and hold each, which
 * nobody who looks for leaks could see (leaks.rs). */
#define HANDED_ON 16

static PyObject *call_with_names(PyObject *callable, PyObject *args, PyObject *kwargs)
{
    PyObject *values[HANDED_ON];
    Py_ssize_t count = PyTuple_GET_SIZE(args), at = 0, named = 0;
    PyObject *names = PyTuple_New(PyDict_GET_SIZE(kwargs));
    if (names == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        values[i] = PyTuple_GET_ITEM(args, i);
    }
    PyObject *name;
    while (PyDict_Next(kwargs, &at, &name, &values[count + named])) {
        PyTuple_SET_ITEM(names, named++, Py_NewRef(name));
    }
    PyObject *result = PyObject_Vectorcall(callable, values, (size_t)count, names);
    Py_DECREF(names);
    return result;
}

PyObject *offset_object_call(PyObject *callable, PyObject *args, PyObject *kwargs)
{
    PyObject *result;
    ENTER();
    if (args == NULL) {
        result = PyObject_CallNoArgs(callable);
    } else if (kwargs != NULL && PyVectorcall_Function(callable) != NULL
               && PyTuple_GET_SIZE(args) + PyDict_GET_SIZE(kwargs) < HANDED_ON) {
        result = call_with_names(callable, args, kwargs);
    } else {
        result = PyObject_Call(callable, args, kwargs);
    }
    LEAVE();
    return result;
}

void offset_drop(PyObject *object)
{
    ENTER();
    Py_DECREF(object);
    LEAVE();
}

void offset_clear_error(void)
{
    ENTER();
    PyErr_Clear();
    LEAVE();
}

void offset_thread_end(PyThreadState *state)
{
    ENTER();
    PyThreadState_Clear(state);
    PyThreadState_DeleteCurrent();
    LEAVE();
}

PyObject *offset_call_method(PyObject *object, PyObject *name)
{
    ENTER();
    PyObject *result = PyObject_CallMethodNoArgs(object, name);
    LEAVE();
    return result;
}

/* The directory of the package, with a slash at its end; and the file in it whose goroutines say themselves who made them. */
static char package[4096];
static size_t package_size;
static const char main_file[] = "_run.py";

void offset_package_set(const char *directory, size_t size)
{
    package_size = size < sizeof package ? size : 0;
    memcpy(package, directory, package_size);
}

/* Whether the code is the package's own, which starts goroutines in the name of who calls it. Runs nothing. */
static int is_inside(PyCodeObject *code)
{
    Py_ssize_t size;
    const char *name = package_size > 0 ? PyUnicode_AsUTF8AndSize(code->co_filename, &size) : NULL;
    if (name == NULL) {
        PyErr_Clear();
        return 0;
    }
    return (size_t)size > package_size && memcmp(name, package, package_size) == 0
           && strcmp(name + package_size, main_file) != 0;
}

PyCodeObject *offset_caller(int *instruction)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) {
        return NULL;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    *instruction = PyFrame_GetLasti(frame);
    if (!is_inside(code)) {
        return code;
    }
    /* Where there is nobody else it was the package. */
    for (frame = PyFrame_GetBack(frame); frame != NULL;) {
        PyCodeObject *outer = PyFrame_GetCode(frame);
        int found = !is_inside(outer);
        if (found) {
            Py_SETREF(code, outer);
            *instruction = PyFrame_GetLasti(frame);
        }
        else {
            Py_DECREF(outer);
        }
        Py_SETREF(frame, found ? NULL : PyFrame_GetBack(frame));
    }
    return code;
}

PyObject *offset_function_name(PyObject *callable)
{
    PyObject *function = PyMethod_Check(callable) ? PyMethod_GET_FUNCTION(callable) : callable;
    return PyFunction_Check(function) ? Py_NewRef(((PyFunctionObject *)function)->func_qualname) : NULL;
}

int offset_function_flags(PyObject *callable)
{
    PyObject *function = PyMethod_Check(callable) ? PyMethod_GET_FUNCTION(callable) : callable;
    return PyFunction_Check(function) ? ((PyCodeObject *)PyFunction_GET_CODE(function))->co_flags : 0;
}

/* Channels can hold channels without end: what is nested too deep is put off, by CPython's own means. From 3.14 on these macros do
 * nothing, as the interpreter does it for every type. */
void offset_chan_dealloc(PyObject *chan)
{
    PyObject_GC_UnTrack(chan);
    Py_TRASHCAN_BEGIN(chan, offset_chan_dealloc)
    offset_chan_release(chan);
    Py_TRASHCAN_END
}
