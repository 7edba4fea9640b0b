//! Where goroutines are: the Python frames of many of them, as of one moment.
//!
//! Invariant: while frames are looked at nobody else runs Python, or an owner could leave a frame, and free it, under our eyes. With the
//! GIL that is so as long as nothing here gives it up; without it the world is stopped. So in between nothing is called that
//! could run Python or wait for another thread: no object dies there.

use crate::method::*;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF};
use pyo3_ffi::*;

/// Runs `work` while no other thread runs Python.
///
/// # Safety
/// Attached; `work` gives up neither the GIL nor its thread state.
pub(crate) unsafe fn alone<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: by contract; the pair that `sys._current_frames` uses.
    unsafe {
        unsafe extern "C" {
            fn _PyEval_StopTheWorld(interpreter: *mut PyInterpreterState);
            fn _PyEval_StartTheWorld(interpreter: *mut PyInterpreterState);
        }
        let interpreter = PyInterpreterState_Main();
        _PyEval_StopTheWorld(interpreter);
        let result = work();
        _PyEval_StartTheWorld(interpreter);
        result
    }
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: by contract. On 3.11 an allocation may collect, and so run Python.
    unsafe {
        let collecting = PyGC_Disable();
        let result = work();
        if collecting != 0 {
            PyGC_Enable();
        }
        result
    }
}

/// Adds `(code, line)` of each frame of `state` to `list`, the innermost first. False with an exception set if there is no memory.
///
/// # Safety
/// Attached, and alone; `state` is alive, `list` a list that nobody else has.
unsafe fn add_frames(state: *mut PyThreadState, list: Object) -> bool {
    // SAFETY: by contract. A frame object is the frame's as well as ours, and so is its code, so none dies here.
    unsafe {
        let mut frame = PyThreadState_GetFrame(state);
        while !frame.is_null() {
            let code = PyFrame_GetCode(frame);
            let line = PyLong_FromLong(PyFrame_GetLineNumber(frame).into());
            let position = if line.is_null() { NULL } else { PyTuple_Pack(2, code.cast::<PyObject>(), line) };
            let added = !position.is_null() && PyList_Append(list, position) == 0;
            let back = if added { PyFrame_GetBack(frame) } else { std::ptr::null_mut() };
            for part in [code.cast(), line, position, frame.cast()] {
                Py_XDECREF(part);
            }
            if !added {
                return false;
            }
            frame = back;
        }
        PyErr_Occurred().is_null()
    }
}

unsafe fn collect(wanted: Object, found: Object) -> bool {
    // SAFETY: attached, and alone: no state leaves the list.
    unsafe {
        let mut state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
        while !state.is_null() {
            let identity = PyLong_FromUnsignedLong(shim::offset_thread_identity(state));
            let chosen = if identity.is_null() { -1 } else { PySet_Contains(wanted, identity) };
            let mut ok = chosen >= 0;
            if chosen > 0 {
                let list = PyList_New(0);
                ok = !list.is_null() && add_frames(state, list) && PyDict_SetItem(found, identity, list) == 0;
                Py_XDECREF(list);
            }
            Py_XDECREF(identity);
            if !ok {
                return false;
            }
            state = PyThreadState_Next(state);
        }
        true
    }
}

unsafe extern "C" fn positions(_: Object, wanted: Object) -> Object {
    // SAFETY: the calling convention. A set of our own has whatever ints the caller's has, and nobody waits for its lock.
    unsafe {
        let wanted = PySet_New(wanted);
        let found = if wanted.is_null() { NULL } else { PyDict_New() };
        let mut result = found;
        if !found.is_null() && !alone(|| collect(wanted, found)) {
            Py_DECREF(found);
            result = NULL;
        }
        Py_XDECREF(wanted);
        result
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![one_arg(
        c"positions",
        positions,
        c"positions(idents) -> dict\n\nThe frames of the threads of these identities, as of one moment: by identity, a list of (code, line), innermost first.",
    )]
}
