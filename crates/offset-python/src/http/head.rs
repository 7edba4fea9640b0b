//! `ResponseHead`: the head of a response, made and checked where there is no connection at hand.
//!
//! An application of ASGI answers on the thread of an event loop, which must hear there what is wrong with it, while a goroutine may be
//! inside the connection. Invariant: a head is made once and taken once (`take`), by whoever holds the only use of it.

use super::reply::raise_wrong;
use crate::error::*;
use crate::method::*;
use crate::shim::Py_DECREF;
use offset_runtime::http::response::Response;
use pyo3_ffi::*;
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
struct HeadObject {
    head: PyObject,
    /// Touched in exclusive sections of the object.
    response: UnsafeCell<Option<Response>>,
}

static HEAD: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

/// Takes the response out of a head; None, with an exception set, if that is none, or was taken before.
///
/// # Safety
/// Attached; `object` is alive.
pub(super) unsafe fn take(object: Object) -> Option<Response> {
    // SAFETY: by contract; nothing waits in the section.
    unsafe {
        if Py_TYPE(object) != HEAD.load(Ordering::Relaxed) {
            type_error("a response begins with a ResponseHead");
            return None;
        }
        let mut response = None;
        exclusive(object, || response = (*(*object.cast::<HeadObject>()).response.get()).take());
        if response.is_none() {
            runtime_error("this head was used before");
        }
        response
    }
}

/// The bytes of an object of bytes; None, with an exception set, if it is none.
unsafe fn octets<'a>(object: Object, what: &str) -> Option<&'a [u8]> {
    // SAFETY: attached; the caller holds the object.
    unsafe {
        if PyBytes_Check(object) == 0 {
            let kind = std::ffi::CStr::from_ptr((*Py_TYPE(object)).tp_name).to_string_lossy();
            type_error(&format!("{what} must be bytes, not {kind}"));
            return None;
        }
        Some(std::slice::from_raw_parts(PyBytes_AsString(object).cast(), PyBytes_Size(object) as usize))
    }
}

/// Adds a pair of bytes to a head; false with an exception set.
unsafe fn add(response: &mut Response, pair: Object) -> bool {
    // SAFETY: attached; a live object. The parts are our own references while they are looked at.
    unsafe {
        let parts = PySequence_Tuple(pair);
        if parts.is_null() || PyTuple_Size(parts) != 2 {
            if !parts.is_null() {
                Py_DECREF(parts);
            }
            type_error("each of the headers must be a pair of a name and a value, both of them bytes");
            return false;
        }
        let (name, value) = (PyTuple_GetItem(parts, 0), PyTuple_GetItem(parts, 1));
        let ok = match (octets(name, "the name of a header"), octets(value, "the value of a header")) {
            (Some(name), Some(value)) => match response.field(name, value) {
                Ok(()) => true,
                Err(wrong) => raise_wrong(wrong, pair),
            },
            _ => false,
        };
        Py_DECREF(parts);
        ok
    }
}

unsafe fn fill(response: &mut Response, status: Object, headers: Object) -> bool {
    // SAFETY: attached; live objects.
    unsafe {
        let Some(line) = octets(status, "the status") else { return false };
        if let Err(wrong) = response.start(line) {
            return raise_wrong(wrong, status);
        }
        let iterator = PyObject_GetIter(headers);
        if iterator.is_null() {
            return false;
        }
        let mut ok = true;
        while ok {
            let pair = PyIter_Next(iterator);
            if pair.is_null() {
                break;
            }
            ok = add(response, pair);
            Py_DECREF(pair);
        }
        Py_DECREF(iterator);
        ok && PyErr_Occurred().is_null()
    }
}

/// `response_head(status, headers)`.
unsafe extern "C" fn response_head(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("response_head", args, count, keywords, &["status", "headers"], 2, &mut out) {
            return NULL;
        }
        let mut response = Response::default();
        if !fill(&mut response, out[0], out[1]) {
            return NULL;
        }
        let object = allocate::<HeadObject>(HEAD.load(Ordering::Relaxed));
        if !object.is_null() {
            std::ptr::write(&raw mut (*object).response, UnsafeCell::new(Some(response)));
        }
        object.cast()
    }
}

unsafe extern "C" fn get_status(object: Object, _: *mut std::ffi::c_void) -> Object {
    let mut status = 0;
    // SAFETY: attached; one of ours. Nothing waits in the section.
    unsafe {
        exclusive(object, || {
            status = (*(*object.cast::<HeadObject>()).response.get()).as_ref().map_or(0, |response| response.status);
        });
    }
    int(status.into())
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        drop((*(*object.cast::<HeadObject>()).response.get()).take());
        free(object);
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![fast(
        c"response_head",
        response_head,
        c"response_head(status, headers) -> ResponseHead\n\nMake the head of a response of a status line and pairs of bytes.",
    )]
}

/// Adds the type; false with an exception set if that fails.
///
/// # Safety
/// Attached; `module` is the module that is initialised.
pub(super) unsafe fn register(module: Object) -> bool {
    let spec = TypeSpec {
        name: c"offset._runtime.ResponseHead",
        doc: c"The head of a response that was checked.",
        size: size_of::<HeadObject>(),
        flags: Py_TPFLAGS_DISALLOW_INSTANTIATION,
        methods: vec![],
        getters: vec![getter(c"status", get_status, c"The status; 0 once the head was used.")],
        slots: vec![slot!(Py_tp_dealloc, dealloc)],
    };
    // SAFETY: the slots fit the object; attached.
    HEAD.store(unsafe { new_type(module, spec) }, Ordering::Relaxed);
    !HEAD.load(Ordering::Relaxed).is_null()
}
