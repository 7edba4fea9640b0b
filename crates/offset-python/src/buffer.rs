//! Arguments of reads and writes: buffers, sizes, flags.

use crate::error::value_error;
use crate::method::Object;
use pyo3_ffi::*;
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// A size that is not negative; None with an exception set otherwise.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn size_argument(object: Object, what: &str) -> Option<usize> {
    // SAFETY: attached; `object` is alive.
    let size = unsafe { PyLong_AsSsize_t(object) };
    // SAFETY: attached.
    if size == -1 && unsafe { !PyErr_Occurred().is_null() } {
        return None;
    }
    if size < 0 {
        value_error(&format!("{what} must not be negative, got {size}"));
        return None;
    }
    Some(size as usize)
}

/// `flags`, 0 when it is missing; None with an exception set if it is no number.
///
/// # Safety
/// Attached; `object` is null or alive.
pub(crate) unsafe fn flags_argument(object: Object) -> Option<c_int> {
    if object.is_null() {
        return Some(0);
    }
    // SAFETY: attached; `object` is alive.
    let flags = unsafe { PyLong_AsLong(object) };
    // SAFETY: attached.
    if flags == -1 && unsafe { !PyErr_Occurred().is_null() } { None } else { Some(flags as c_int) }
}

/// A buffer that an argument exports, given back in the end.
pub(crate) struct Buffer(Py_buffer);

impl Buffer {
    /// None with an exception set if it exports none.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    pub(crate) unsafe fn of(object: Object, flags: c_int) -> Option<Buffer> {
        let mut view = MaybeUninit::<Py_buffer>::zeroed();
        // SAFETY: attached; `object` is alive.
        if unsafe { PyObject_GetBuffer(object, view.as_mut_ptr(), flags) } < 0 {
            return None;
        }
        // SAFETY: filled in just now.
        Some(Buffer(unsafe { view.assume_init() }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len as usize
    }

    /// What is in it.
    ///
    /// # Safety
    /// Nobody else writes there meanwhile.
    pub(crate) unsafe fn octets(&self) -> &[u8] {
        if self.len() == 0 {
            // What is empty may be nowhere.
            return &[];
        }
        // SAFETY: so many bytes are there, as long as it is exported.
        unsafe { std::slice::from_raw_parts(self.at(0), self.len()) }
    }

    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        // SAFETY: callers stay within the buffer.
        unsafe { self.0.buf.cast::<u8>().add(offset) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: attached, as all of this crate's Python-facing code is; it was filled in.
        unsafe { PyBuffer_Release(&raw mut self.0) };
    }
}
