//! What goes wrong with an operation on a descriptor, and what it raises.

use super::{Answer, it};
use crate::error::*;
use crate::method::*;
use crate::shim::{Py_DECREF, PyErr_Clear};
use offset_runtime::fd::FdError;
use pyo3_ffi::*;
use std::ffi::c_int;

/// What goes wrong with an operation, besides what the system says.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    Fd(FdError),
    System(c_int),
}

impl From<FdError> for Failure {
    fn from(error: FdError) -> Self {
        Failure::Fd(error)
    }
}

pub(crate) fn settle(result: Result<Answer, FdError>) -> Result<usize, Failure> {
    result?.map_err(Failure::System)
}

/// The system's words for an error.
fn words(number: c_int) -> String {
    // SAFETY: the text is the C library's, copied at once.
    unsafe { std::ffi::CStr::from_ptr(libc::strerror(number)) }.to_string_lossy().into_owned()
}

/// Raises what `failure` means for `what` with `object`.
///
/// # Safety
/// Attached; `object` is one of ours.
pub(crate) unsafe fn fail(object: Object, failure: Failure, what: &str) -> Object {
    if let (true, Failure::Fd(FdError::TimedOut)) = (it(object).plain, failure) {
        // SAFETY: a constant of the interpreter.
        return raise(unsafe { PyExc_TimeoutError }, "timed out");
    }
    let (number, text) = match failure {
        Failure::Fd(FdError::Cancelled) => return cancelled(),
        Failure::Fd(FdError::TimedOut) => (libc::ETIMEDOUT, "timed out".to_owned()),
        Failure::Fd(FdError::Closed) if !it(object).plain => (libc::EBADF, "closed".to_owned()),
        Failure::Fd(FdError::Closed) => (libc::EBADF, words(libc::EBADF)),
        Failure::System(number) => (number, words(number)),
    };
    // SAFETY: by contract. A subclass tells what it is connected to by `_name`; it may fail, and is then left out.
    unsafe {
        let name = if it(object).plain { NULL } else { PyObject_GetAttrString(object, c"_name".as_ptr()) };
        let message = if name.is_null() {
            if !it(object).plain && PyErr_ExceptionMatches(PyExc_Exception) == 0 {
                // The goroutine was cancelled, or interrupted, while it ran there.
                return NULL;
            }
            PyErr_Clear();
            text
        } else {
            let message = format!("{what} {}: {text}", self::text(name));
            Py_DECREF(name);
            message
        };
        let arguments = Py_BuildValue(c"(is)".as_ptr(), number, c"".as_ptr());
        if arguments.is_null() {
            return NULL;
        }
        let message = string(&message);
        if message.is_null() || PyTuple_SetItem(arguments, 1, message) < 0 {
            Py_DECREF(arguments);
            return NULL;
        }
        // OSError makes itself the subclass that the number asks for.
        let error = PyObject_CallObject(PyExc_OSError, arguments);
        Py_DECREF(arguments);
        if !error.is_null() {
            raise_object(error);
            Py_DECREF(error);
        }
    }
    NULL
}

/// Notes on the exception that is set how much had been written by then.
pub(crate) unsafe fn note_written(written: usize) {
    // SAFETY: attached, with an exception set.
    unsafe {
        let raised = take_raised();
        if raised.is_null() {
            return;
        }
        let count = int(written as u64);
        if count.is_null() || PyObject_SetAttrString(raised, c"characters_written".as_ptr(), count) < 0 {
            PyErr_Clear();
        }
        if !count.is_null() {
            Py_DECREF(count);
        }
        raise_object(raised);
        Py_DECREF(raised);
    }
}
