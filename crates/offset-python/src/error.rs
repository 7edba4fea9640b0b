//! Exceptions: the package's own, and how the core's errors become Python's.
//!
//! Each function here sets the exception of the calling thread and gives null, so that a method can return its answer.

use crate::method::{Object, string};
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::error::{Misuse, WaitError};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The classes of `offset._errors`, kept for ever.
pub(crate) static CHANNEL_CLOSED: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
pub(crate) static WOULD_BLOCK: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
pub(crate) static GOROUTINE_EXIT: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
pub(crate) static DEADLINE_EXCEEDED: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
pub(crate) static REQUEST_ERROR: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

/// `offset._errors.carrier`.
pub(crate) static CARRIER: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

/// Imports the classes; false with an exception set if that fails.
pub(crate) fn load() -> bool {
    // SAFETY: called while the module is initialised, attached.
    unsafe {
        let module = PyImport_ImportModule(c"offset._errors".as_ptr());
        if module.is_null() {
            return false;
        }
        for (name, place) in [
            (c"carrier", &CARRIER),
            (c"ChannelClosed", &CHANNEL_CLOSED),
            (c"WouldBlock", &WOULD_BLOCK),
            (c"GoroutineExit", &GOROUTINE_EXIT),
            (c"DeadlineExceeded", &DEADLINE_EXCEEDED),
            (c"RequestError", &REQUEST_ERROR),
        ] {
            let class = PyObject_GetAttrString(module, name.as_ptr());
            if class.is_null() {
                return false;
            }
            place.store(class, Ordering::Relaxed);
        }
        Py_DECREF(module);
        true
    }
}

/// Raises `class(message)`.
pub(crate) fn raise(class: Object, message: &str) -> Object {
    let text = string(message);
    if !text.is_null() {
        // SAFETY: attached, as all of this crate's Python-facing code is.
        unsafe {
            PyErr_SetObject(class, text);
            Py_DECREF(text);
        }
    }
    null_mut()
}

pub(crate) fn value_error(message: &str) -> Object {
    // SAFETY: a constant of the interpreter.
    raise(unsafe { PyExc_ValueError }, message)
}

pub(crate) fn type_error(message: &str) -> Object {
    // SAFETY: a constant of the interpreter.
    raise(unsafe { PyExc_TypeError }, message)
}

pub(crate) fn runtime_error(message: &str) -> Object {
    // SAFETY: a constant of the interpreter.
    raise(unsafe { PyExc_RuntimeError }, message)
}

pub(crate) fn timed_out(what: &str) -> Object {
    // SAFETY: a constant of the interpreter.
    raise(unsafe { PyExc_TimeoutError }, &format!("{what} timed out"))
}

pub(crate) fn channel_closed(message: &str) -> Object {
    raise(CHANNEL_CLOSED.load(Ordering::Relaxed), message)
}

/// Raises what a send on a closed channel does.
pub(crate) fn sent_on_closed(channel: &str) -> Object {
    channel_closed(&format!("send on closed {channel}; close it after the last send, and only where values are sent"))
}

pub(crate) fn would_block(message: &str) -> Object {
    raise(WOULD_BLOCK.load(Ordering::Relaxed), message)
}

/// Raises an exception object or class as it is; an object keeps its traceback.
///
/// # Safety
/// Attached; `exception` is an exception or an exception class.
pub(crate) unsafe fn raise_object(exception: Object) -> Object {
    // SAFETY: by contract.
    unsafe {
        if PyType_Check(exception) != 0 {
            PyErr_SetNone(exception);
        } else {
            PyErr_SetObject(Py_TYPE(exception).cast(), exception);
        }
    }
    null_mut()
}

/// Takes the exception that is set, with its traceback; null if none is. The caller owns it.
///
/// # Safety
/// Attached.
pub(crate) unsafe fn take_raised() -> Object {
    // SAFETY: by contract.
    #[cfg(Py_3_12)]
    unsafe {
        PyErr_GetRaisedException()
    }
    // SAFETY: by contract.
    #[cfg(not(Py_3_12))]
    unsafe {
        let (mut class, mut exception, mut traceback) = (null_mut(), null_mut(), null_mut());
        PyErr_Fetch(&raw mut class, &raw mut exception, &raw mut traceback);
        if class.is_null() {
            return null_mut();
        }
        PyErr_NormalizeException(&raw mut class, &raw mut exception, &raw mut traceback);
        if !traceback.is_null() {
            PyException_SetTraceback(exception, traceback);
        }
        Py_XDECREF(class);
        Py_XDECREF(traceback);
        exception
    }
}

/// A wait ended because the goroutine was cancelled, or a signal handler raised in the waiting thread.
pub(crate) fn cancelled() -> Object {
    // SAFETY: attached.
    if unsafe { PyErr_Occurred() }.is_null() {
        crate::cancel::raise_thrown();
    }
    null_mut()
}

/// What `result` means for a method that waits and gives None.
pub(crate) fn waited(result: Result<(), WaitError>, what: &str) -> Object {
    match result {
        Ok(()) => crate::method::none(),
        Err(WaitError::TimedOut) => timed_out(what),
        Err(WaitError::Cancelled) => cancelled(),
    }
}

/// What a forbidden use of `what` raises.
pub(crate) fn misuse(error: Misuse, what: &str) -> Object {
    match error {
        Misuse::AlreadyClosed => {
            channel_closed(&format!("{what} is closed already; close it once, where the last value is sent"))
        }
        Misuse::NotLocked => runtime_error(&format!("{what} is not locked; unlock it only after a lock")),
        Misuse::NegativeCounter => value_error(&format!(
            "{what} would become negative; each done() or release() needs its add() or acquire() before"
        )),
        Misuse::Overflow => value_error(&format!("{what} would overflow")),
    }
}

/// Raises `StopIteration(result)` and takes the result over; always null.
///
/// # Safety
/// Attached, with no exception set.
pub(crate) unsafe fn raise_stop(result: Object) -> Object {
    // SAFETY: by contract.
    unsafe {
        let stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if !stop.is_null() {
            // No look at what exception is handled at the moment: nobody will see this one.
            #[cfg(Py_3_12)]
            PyErr_SetRaisedException(stop);
            #[cfg(not(Py_3_12))]
            {
                raise_object(stop);
                Py_DECREF(stop);
            }
        }
        null_mut()
    }
}

/// The same for the `__next__` that an `await` calls, which looks at no more than the value: the exception is made in less time.
///
/// # Safety
/// As for [`raise_stop`].
pub(crate) unsafe fn end_await(result: Object) -> Object {
    // SAFETY: by contract; the new exception is ours, and of the type whose field is written.
    unsafe {
        if Py_IsNone(result) != 0 {
            // No exception is as good as an empty one.
            Py_DECREF(result);
            return null_mut();
        }
        #[cfg(Py_3_12)]
        {
            let class = PyExc_StopIteration.cast::<PyTypeObject>();
            // There is one such tuple, always.
            let nothing = PyTuple_New(0);
            let stop = (*class).tp_new.map_or(null_mut(), |new| new(class, nothing, null_mut()));
            Py_DECREF(nothing);
            if stop.is_null() {
                Py_DECREF(result);
                return null_mut();
            }
            let place = &raw mut (*stop.cast::<PyStopIterationObject>()).value;
            Py_XDECREF(std::ptr::replace(place, result));
            PyErr_SetRaisedException(stop);
            null_mut()
        }
        #[cfg(not(Py_3_12))]
        raise_stop(result)
    }
}
