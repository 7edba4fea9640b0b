/* Calls into Python from Rust, each in a frame that a forced unwinding does not pass (frame.h): the frames of Rust above it stay. */
#include <Python.h>

#include "internal.h"
#include "shim.h"

PyObject *offset_object_call(PyObject *callable, PyObject *args, PyObject *kwargs)
{
    ENTER();
    PyObject *result = args == NULL ? PyObject_CallNoArgs(callable) : PyObject_Call(callable, args, kwargs);
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

PyCodeObject *offset_caller(int *instruction)
{
    PyFrameObject *frame = PyEval_GetFrame();
    if (frame == NULL) {
        return NULL;
    }
    *instruction = PyFrame_GetLasti(frame);
    return PyFrame_GetCode(frame);
}

PyObject *offset_function_name(PyObject *callable)
{
    PyObject *function = PyMethod_Check(callable) ? PyMethod_GET_FUNCTION(callable) : callable;
    return PyFunction_Check(function) ? Py_NewRef(((PyFunctionObject *)function)->func_qualname) : NULL;
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
