//! The bubble of `offset.testing`: the core's, for Python.

use crate::error::*;
use crate::method::*;
use crate::scope::attend;
use crate::shim::Py_DECREF;
use offset_runtime::bubble::{self, BubbleError};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

static DEADLOCK: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
/// Whether the bubble has a seed.
static SEEDED: AtomicBool = AtomicBool::new(false);

fn answer(result: Result<(), BubbleError>) -> Object {
    match result {
        Ok(()) => none(),
        Err(BubbleError::Busy) => {
            runtime_error("there is a bubble already, or goroutines of the last one have not ended yet")
        }
        Err(BubbleError::Outside) => runtime_error("this works only in a bubble; start it by testing.bubble()"),
        Err(BubbleError::Waiting) => runtime_error("another goroutine is in testing.wait() already"),
        Err(BubbleError::Cancelled) => cancelled(),
    }
}

unsafe extern "C" fn begin(_: Object, seed: Object) -> Object {
    // SAFETY: attached; the argument is alive.
    let seed = unsafe {
        if Py_IsNone(seed) != 0 {
            None
        } else {
            let number = PyLong_AsUnsignedLongLongMask(seed);
            if !PyErr_Occurred().is_null() {
                return NULL;
            }
            Some(number)
        }
    };
    give_up();
    let result = bubble::begin(seed);
    if result.is_ok() && seed.is_some() {
        SEEDED.store(true, Ordering::Relaxed);
        attend(true);
    }
    answer(result)
}

fn over() {
    if SEEDED.swap(false, Ordering::Relaxed) {
        attend(false);
    }
    give_up();
}

/// Lets go of what timers would have started.
fn give_up() {
    for handle in bubble::clear() {
        crate::timer::give_up(handle);
    }
}

unsafe extern "C" fn leave(_: Object, _: Object) -> Object {
    let result = bubble::leave();
    if result.is_ok() {
        over();
    }
    answer(result)
}

unsafe extern "C" fn abandon(_: Object, _: Object) -> Object {
    bubble::abandon();
    over();
    none()
}

unsafe extern "C" fn wait(_: Object, _: Object) -> Object {
    if crate::scope::interrupted() {
        return NULL;
    }
    answer(bubble::wait())
}

unsafe extern "C" fn inside(_: Object, _: Object) -> Object {
    boolean(bubble::inside())
}

unsafe extern "C" fn hold(_: Object, busy: Object) -> Object {
    // SAFETY: attached; the argument is alive.
    bubble::hold(unsafe { PyObject_IsTrue(busy) } == 1);
    none()
}

unsafe extern "C" fn fail(_: Object, _: Object) -> Object {
    bubble::fail();
    none()
}

unsafe extern "C" fn set_deadlock(_: Object, hook: Object) -> Object {
    // SAFETY: the hook is kept for ever.
    DEADLOCK.store(unsafe { Py_NewRef(hook) }, Ordering::Relaxed);
    none()
}

/// Raises the DeadlockError of a bubble whose root's wait was ended because nothing else could; false if it was not.
pub(crate) fn raise_deadlock() -> bool {
    let hook = DEADLOCK.load(Ordering::Relaxed);
    if hook.is_null() {
        return false;
    }
    let Some(reason) = bubble::take_deadlock() else { return false };
    // SAFETY: attached; the hook is kept for ever.
    unsafe {
        let reason = string(reason.as_str());
        if reason.is_null() {
            return true;
        }
        let error = PyObject_CallOneArg(hook, reason);
        Py_DECREF(reason);
        if !error.is_null() {
            raise_object(error);
            Py_DECREF(error);
        }
    }
    true
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        one_arg(c"bubble_begin", begin, c"Make the current goroutine the root of a bubble, with a seed or None."),
        no_args(c"bubble_leave", leave, c"Wait for the other members to end, and end the bubble."),
        no_args(c"bubble_abandon", abandon, c"Leave the bubble to those who are left."),
        no_args(c"bubble_wait", wait, c"Wait until all other members are durably blocked."),
        no_args(c"in_bubble", inside, c"Whether the current goroutine is in a bubble."),
        no_args(c"bubble_fail", fail, c"The current goroutine has failed, for which the others will be cancelled."),
        one_arg(c"bubble_hold", hold, c"Count the current goroutine as not asleep, or no more."),
        one_arg(c"set_bubble_deadlock", set_deadlock, c"Set the function that gives a bubble's DeadlockError."),
    ]
}
