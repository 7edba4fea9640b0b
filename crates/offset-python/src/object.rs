//! What channels carry: an owned reference, the time, a signal, or an exception to raise at the receiver, in one tagged word.
//!
//! A timer fires on a machine, which is not attached and can make no Python object; so the time travels as a number and
//! becomes a float where it is received. Signals are sent by a thread of the core's: the same holds for them.

use crate::error::raise_object;
use crate::method::Object;
use crate::shim::Py_DECREF;
use pyo3_ffi::*;

const TAGS: usize = 3;
const TIME: usize = 1;
const EXCEPTION: usize = 2;
const SIGNAL: usize = 3;

/// See the module. Must be dropped attached, but for times and signals.
pub(crate) struct Value(usize);

// SAFETY: a counted reference may be handed to any thread; it is only used attached.
unsafe impl Send for Value {}

impl Value {
    /// A further reference.
    ///
    /// # Safety
    /// Attached; `object` is alive.
    pub(crate) unsafe fn new(object: Object) -> Value {
        // SAFETY: by contract.
        Value(unsafe { Py_NewRef(object) } as usize)
    }

    /// An exception that is raised where it is received.
    ///
    /// # Safety
    /// Attached; `exception` is alive.
    pub(crate) unsafe fn exception(exception: Object) -> Value {
        // SAFETY: by contract.
        Value(unsafe { Py_NewRef(exception) } as usize | EXCEPTION)
    }

    /// A time in nanoseconds.
    pub(crate) fn time(nanos: u64) -> Value {
        Value((nanos as usize) << 2 | TIME)
    }

    /// A signal, by its number.
    pub(crate) fn signal(number: i32) -> Value {
        Value((number as usize) << 2 | SIGNAL)
    }

    /// The object, as a new reference; null with the exception raised if it is one to raise.
    pub(crate) fn receive(self) -> Object {
        let word = self.0;
        std::mem::forget(self);
        let object = (word & !TAGS) as Object;
        match word & TAGS {
            // SAFETY: attached, as who receives is.
            TIME => unsafe { PyFloat_FromDouble((word >> 2) as f64 / 1e9) },
            SIGNAL => crate::signal::object(word >> 2),
            // SAFETY: our reference is given up after the exception has its own.
            EXCEPTION => unsafe {
                raise_object(object);
                Py_DECREF(object);
                std::ptr::null_mut()
            },
            _ => object,
        }
    }

    /// The object that is referred to, for the collector.
    pub(crate) fn referent(&self) -> Option<Object> {
        // Times and signals have the lowest bit set.
        (self.0 & TIME == 0).then_some((self.0 & !TAGS) as Object)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if let Some(object) = self.referent() {
            // SAFETY: our own reference, dropped attached.
            unsafe { Py_DECREF(object) };
        }
    }
}
