//! What is raised in a goroutine from outside: `cancel` and `throw`, and how they are delivered.
//!
//! `thrown`, `exiting` and `at_wait` of a goroutine's object are touched in exclusive sections of it, in which no Python runs: where the
//! goroutine is at the moment is decided once. It gets what is thrown at its next wait, or, where it computes, by CPython's
//! means for exceptions from other threads. `scope` ends waits by the same note in the core; it never interrupts what computes.

use crate::error::*;
use crate::goroutine::{GoroutineObject, core, object_of};
use crate::method::*;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::goroutine::{Goroutine, Status};
use offset_runtime::scheduler;
use pyo3_ffi::*;
use std::sync::atomic::Ordering;

/// What `throw_into` could not do as it is: CPython takes a class only, and this instance has none yet.
struct NeedsClass;

/// Has `exception` raised in the goroutine; `class` is what CPython is asked to raise for it, or null if that is still to be made.
/// Gives what was to be raised before, for the caller to drop.
///
/// # Safety
/// In an exclusive section of `object`, in which no Python may run: where the goroutine is at the moment is decided once, and it does not
/// come to its end, or past the question of `take_cancel`, meanwhile.
unsafe fn throw_into(object: Object, exception: Object, class: Object) -> (Object, Result<(), NeedsClass>) {
    let goroutine = core(object);
    let it = object.cast::<GoroutineObject>();
    // SAFETY: attached; `object` is ours, `exception` is alive.
    unsafe {
        if goroutine.payload() == 0 || (*it).over {
            return (NULL, Ok(()));
        }
        let before = std::mem::replace(&mut (*it).thrown, Py_NewRef(exception));
        (*it).by_async = false;
        if goroutine.cancel() {
            return (before, Ok(()));
        }
        if goroutine.started() && (is_current(goroutine) || goroutine.status() != Status::Running) {
            (*it).at_wait = true;
        } else if goroutine.identity() != 0 {
            if class.is_null() {
                return (before, Err(NeedsClass));
            }
            shim::offset_raise_async(goroutine.identity() as std::ffi::c_ulong, class);
            (*it).by_async = true;
        }
        (before, Ok(()))
    }
}

pub(crate) fn is_current(goroutine: &Goroutine) -> bool {
    scheduler::current().is_some_and(|current| current.id() == goroutine.id())
}

pub(crate) unsafe extern "C" fn cancel(object: Object, _: Object) -> Object {
    // SAFETY: `object` is ours; the class is kept for ever.
    unsafe {
        let exit = GOROUTINE_EXIT.load(Ordering::Relaxed);
        let before = exclusive(object, || {
            let it = object.cast::<GoroutineObject>();
            if std::mem::replace(&mut (*it).exiting, true) {
                // Asked for once more: one that has not come to a wait since gets it where it computes.
                if core(object).status() == Status::Running
                    && core(object).payload() != 0
                    && !(*it).over
                    && std::mem::replace(&mut (*it).at_wait, false)
                {
                    shim::offset_raise_async(core(object).identity() as std::ffi::c_ulong, exit);
                }
                return NULL;
            }
            // All of it is on the way out.
            crate::scope::deliver_all(object);
            throw_into(object, exit, exit).0
        });
        Py_XDECREF(before);
    }
    none()
}

/// # Safety
/// Attached; `object` is a goroutine, `exception` is alive.
pub(crate) unsafe extern "C" fn throw(object: Object, exception: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let is_class =
            PyType_Check(exception) != 0 && PyType_IsSubtype(exception.cast(), PyExc_BaseException.cast()) != 0;
        if !is_class && PyObject_IsInstance(exception, PyExc_BaseException) != 1 {
            return type_error("throw() takes an exception or an exception class");
        }
        // An instance travels in a class whose instance it is. To make one runs Python, so that is not done in the section; for one
        // that waits it is not needed.
        let waits = core(object).status() == Status::Waiting || is_current(core(object));
        let mut class = if is_class { Py_NewRef(exception) } else { NULL };
        let mut ready = is_class || waits;
        loop {
            if !ready {
                class = PyObject_CallOneArg(CARRIER.load(Ordering::Relaxed), exception);
                if class.is_null() {
                    return NULL;
                }
            }
            let (before, result) = exclusive(object, || throw_into(object, exception, class));
            Py_XDECREF(before);
            ready = result.is_ok();
            if ready {
                Py_XDECREF(class);
                return none();
            }
        }
    }
}

/// Tells whether what was thrown last has not been raised yet. Its traceback would not tell: who catches an exception may clear it.
///
/// # Safety
/// Attached; `object` is a goroutine.
pub(crate) unsafe extern "C" fn throwing(object: Object, _: Object) -> Object {
    // SAFETY: in the section the goroutine does not come to its end, with which its context goes.
    unsafe {
        let pending = exclusive(object, || {
            let it = object.cast::<GoroutineObject>();
            core(object).payload() != 0
                && !(*it).thrown.is_null()
                && (!(*it).by_async || shim::offset_has_async_exc(core(object).context() as *mut _) != 0)
        });
        PyBool_FromLong(pending.into())
    }
}

/// Raises what ended the current goroutine's wait: what `throw` or `cancel` asked for, or else a scope that is due.
pub(crate) fn raise_thrown() -> Object {
    // SAFETY: attached; the payload of the current goroutine is its object.
    unsafe {
        let object = scheduler::current().map_or(NULL, object_of);
        if object.is_null() {
            PyErr_SetNone(GOROUTINE_EXIT.load(Ordering::Relaxed));
            return NULL;
        }
        let it = object.cast::<GoroutineObject>();
        loop {
            let (thrown, pending, due) = exclusive(object, || {
                let thrown = std::mem::replace(&mut (*it).thrown, NULL);
                (*it).at_wait = false;
                // It was also going to be raised where it computes.
                let pending =
                    if thrown.is_null() { NULL } else { shim::offset_take_async_exc(core(object).context() as *mut _) };
                settle(object);
                (thrown, pending, (*it).due > 0)
            });
            Py_XDECREF(pending);
            if !thrown.is_null() {
                raise_object(thrown);
                Py_DECREF(thrown);
            } else if due {
                if !crate::scope::raise_due(object) {
                    // Its scopes have nothing to say any more, as somebody has cancelled it meanwhile: raised here without another
                    // look, that would be raised once more.
                    continue;
                }
            } else if !crate::bubble::raise_deadlock() {
                PyErr_SetNone(GOROUTINE_EXIT.load(Ordering::Relaxed));
            }
            break;
        }
        NULL
    }
}

/// From now on nothing is raised from outside in a goroutine whose function is over. Gives what was to be, for the caller to drop.
///
/// # Safety
/// Attached, in the very goroutine, whose object it is; all scopes have been left.
pub(crate) unsafe fn no_more(object: Object) -> Object {
    // SAFETY: by contract.
    unsafe {
        let (thrown, pending) = exclusive(object, || {
            let it = object.cast::<GoroutineObject>();
            (*it).over = true;
            let thrown = std::mem::replace(&mut (*it).thrown, NULL);
            settle(object);
            (thrown, shim::offset_take_async_exc(core(object).context() as *mut _))
        });
        Py_XDECREF(thrown);
        pending
    }
}

/// Makes the core's note of a cancellation say what there is: it is one bit for whoever wants a wait ended.
///
/// # Safety
/// In an exclusive section of `object`, in its very goroutine.
pub(crate) unsafe fn settle(object: Object) {
    // SAFETY: by contract.
    unsafe {
        let it = object.cast::<GoroutineObject>();
        if (*it).thrown.is_null() && (*it).due == 0 {
            core(object).forget_cancel();
        } else {
            core(object).note_cancel();
        }
    }
}

/// `Host::take_cancel`.
pub(crate) fn take_cancel(goroutine: &Goroutine) -> bool {
    if !goroutine.started() {
        return true;
    }
    let object = object_of(goroutine);
    if object.is_null() {
        // Its last finalizers: a cancellation of before came too late.
        goroutine.forget_cancel();
        return false;
    }
    let it = object.cast::<GoroutineObject>();
    // SAFETY: attached, in this very goroutine.
    unsafe {
        let (taken, dropped) = exclusive(object, || {
            if !goroutine.cancelled() {
                // It ended the wait itself, meanwhile.
                return (false, NULL);
            }
            let pending = shim::offset_take_async_exc(goroutine.context() as *mut _);
            if std::mem::replace(&mut (*it).at_wait, false) || !pending.is_null() {
                return (true, pending);
            }
            // What was thrown has been raised by other means.
            let dropped = std::mem::replace(&mut (*it).thrown, NULL);
            settle(object);
            ((*it).due > 0 && (*it).shields == 0, dropped)
        });
        Py_XDECREF(dropped);
        taken
    }
}

/// `Host::keep_cancel`.
pub(crate) fn keep_cancel(goroutine: &Goroutine) {
    let object = object_of(goroutine);
    if !object.is_null() {
        // SAFETY: attached, in this very goroutine.
        unsafe {
            exclusive(object, || {
                let it = object.cast::<GoroutineObject>();
                (*it).at_wait = !(*it).thrown.is_null();
            });
        }
    }
}
