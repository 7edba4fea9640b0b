//! `blocking`: a Python call in the pool.
//!
//! A call is shared between the goroutine that waits and the thread that works. The thread alone touches the function and its
//! arguments; the outcome is written before the note is set and read after it. If the goroutine gives the call up, the thread
//! drops the outcome, attached.

use crate::error::*;
use crate::host::{adopt_thread_with, state_goes};
use crate::method::*;
use crate::scope::interrupted;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::error::WaitError;
use offset_runtime::lock::Lock;
use offset_runtime::vigil::Vigil;
use offset_runtime::{blocking as pool, scheduler};
use pyo3_ffi::*;
use std::ffi::c_void;
use std::sync::Arc;

struct Call {
    /// The number of the goroutine that waits.
    goroutine: u64,
    function: Object,
    args: Object,
    kwargs: Object,
    context: Object,
    outcome: Lock<Outcome>,
}

enum Outcome {
    Pending,
    Returned(Object),
    Raised(Object),
    /// Nobody waits for it any more.
    Abandoned,
    Taken,
}

// SAFETY: by the rules at the top of this file.
unsafe impl Send for Call {}
// SAFETY: as above.
unsafe impl Sync for Call {}

/// What a call has for its first Python frames, kept for the next one of its thread.
const CHUNK: usize = 64 * 1024;
const PAGE: usize = 4096;

thread_local! {
    static MEMORY: Vec<u64> = vec![0; (CHUNK + PAGE) / 8];
}

/// Where the chunk of this thread is: anywhere but at the begin of a page.
fn chunk() -> *mut c_void {
    MEMORY.with(|memory| {
        let address = memory.as_ptr().addr();
        let skip = address.next_multiple_of(PAGE) + 64 - address;
        // SAFETY: there is a page to spare.
        unsafe { memory.as_ptr().cast::<u8>().add(skip % PAGE).cast_mut().cast() }
    })
}

/// Of threads that have been given a call and want the interpreter.
static PATIENCE: Vigil = Vigil::new();

/// Does the call, on a pool thread with a thread state of its own.
fn work(call: &Call) {
    let chunk = chunk();
    // SAFETY: the state is new and this thread's, as is the chunk until it is cut below.
    let state = adopt_thread_with(|state| unsafe { shim::offset_context_place(state, chunk, CHUNK - PAGE) });
    // SAFETY: the state is new and this thread's; the call's references are ours to use and to drop.
    unsafe {
        // Its caller parks just now.
        PATIENCE.keep(|| shim::offset_taken() == 0);
        shim::offset_attach(state);
        PyContext_Enter(call.context);
        let traced = crate::trace::call_begins(call.goroutine, call.function);
        let result = shim::offset_object_call(call.function, call.args, call.kwargs);
        let outcome = if result.is_null() { Outcome::Raised(take_raised()) } else { Outcome::Returned(result) };
        crate::trace::call_ends(traced);
        PyContext_Exit(call.context);
        for part in [call.function, call.args, call.kwargs, call.context] {
            Py_XDECREF(part);
        }
        let mut place = call.outcome.lock();
        let unwanted = if matches!(*place, Outcome::Abandoned) {
            Some(outcome)
        } else {
            *place = outcome;
            None
        };
        drop(place);
        if let Some(Outcome::Returned(object) | Outcome::Raised(object)) = unwanted {
            Py_XDECREF(object);
        }
        state_goes();
        shim::offset_context_cut(state, chunk);
        shim::offset_thread_end(state);
    }
}

unsafe extern "C" fn blocking(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((function, tuple, dict)) = crate::goroutine::call_parts("blocking", 0, args, count, keywords) else {
            return NULL;
        };
        if PyCallable_Check(function) == 0 {
            Py_XDECREF(tuple);
            Py_XDECREF(dict);
            return type_error("blocking() needs a function to call");
        }
        let Some(goroutine) = scheduler::current() else {
            // A plain thread may block as it is.
            let result = shim::offset_object_call(function, tuple, dict);
            Py_XDECREF(tuple);
            Py_XDECREF(dict);
            return result;
        };
        let context = if interrupted() { NULL } else { PyContext_CopyCurrent() };
        if context.is_null() {
            Py_XDECREF(tuple);
            Py_XDECREF(dict);
            return NULL;
        }
        let call = Arc::new(Call {
            goroutine: goroutine.id(),
            function: Py_NewRef(function),
            args: tuple,
            kwargs: dict,
            context,
            outcome: Lock::new(Outcome::Pending),
        });
        let theirs = call.clone();
        let Ok(waited) = pool::run(Box::new(move || work(&theirs))) else {
            for part in [call.function, call.args, call.kwargs, call.context] {
                Py_XDECREF(part);
            }
            return runtime_error("the system refuses a thread for a blocking call");
        };
        match waited {
            Err(WaitError::Cancelled | WaitError::TimedOut) => {
                let before = std::mem::replace(&mut *call.outcome.lock(), Outcome::Abandoned);
                if let Outcome::Returned(object) | Outcome::Raised(object) = before {
                    Py_XDECREF(object);
                }
                cancelled()
            }
            Ok(()) => {
                let outcome = std::mem::replace(&mut *call.outcome.lock(), Outcome::Taken);
                match outcome {
                    Outcome::Returned(result) => result,
                    Outcome::Raised(exception) => {
                        raise_object(exception);
                        Py_DECREF(exception);
                        NULL
                    }
                    Outcome::Pending | Outcome::Abandoned | Outcome::Taken => {
                        runtime_error("a blocking call ended without an outcome")
                    }
                }
            }
        }
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![fast(
        c"blocking",
        blocking,
        c"blocking(fn, /, *args, **kwargs)\n\nCall fn in the pool for blocking calls, with a copy of the caller's contextvars; the goroutine waits, others go on.",
    )]
}
