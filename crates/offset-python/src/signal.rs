//! What `offset.os.signal` is made of: sets of signals as numbers, and the objects that are received for them.
//!
//! A signal is sent without the GIL, so a channel carries its number. `OBJECTS` has what it becomes at the receiver; it is filled
//! once, before the first signal is caught, and never emptied.

use crate::chan::{self, CHAN, SEND_CHAN};
use crate::error::*;
use crate::method::*;
use crate::object::Value;
use offset_runtime::signal::{self, ChanListener, LAST, Set};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

static OBJECTS: [AtomicPtr<PyObject>; LAST as usize + 1] = [const { AtomicPtr::new(null_mut()) }; LAST as usize + 1];

/// A new reference to what is received for a signal.
pub(crate) fn object(number: usize) -> Object {
    // SAFETY: attached, as who receives is; the objects are kept for ever.
    unsafe {
        match OBJECTS[number].load(Ordering::Relaxed) {
            NULL => PyLong_FromSize_t(number),
            object => Py_NewRef(object),
        }
    }
}

unsafe extern "C" fn signal_objects(_: Object, objects: Object) -> Object {
    // SAFETY: the calling convention; the list's items are borrowed.
    unsafe {
        if PyList_Check(objects) == 0 || PyList_Size(objects) != OBJECTS.len() as Py_ssize_t {
            return type_error("signal_objects() takes a list with an object for each number");
        }
        for (number, place) in OBJECTS.iter().enumerate() {
            let object = Py_NewRef(PyList_GetItem(objects, number as Py_ssize_t));
            // What was there before is kept, too: it may be about to be received.
            place.store(object, Ordering::Relaxed);
        }
    }
    none()
}

/// The set that a number stands for; None with an exception set.
unsafe fn set(number: Object) -> Option<Set> {
    // SAFETY: attached; `number` is alive.
    unsafe {
        let set = PyLong_AsUnsignedLongLong(number);
        (set != u64::MAX || PyErr_Occurred().is_null()).then_some(set)
    }
}

unsafe extern "C" fn signal_notify(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("signal_notify", args, count, keywords, &["ch", "signals"], 2, &mut out) {
            return NULL;
        }
        let class = Py_TYPE(out[0]);
        if class != CHAN.load(Ordering::Relaxed) && class != SEND_CHAN.load(Ordering::Relaxed) {
            let kind = std::ffi::CStr::from_ptr((*class).tp_name).to_string_lossy();
            return type_error(&format!("notify() needs a channel that can be sent on, not {kind}"));
        }
        let Some(core) = chan::core(out[0]) else {
            return value_error("notify() on nilchan: nothing could ever be received");
        };
        let Some(set) = set(out[1]) else { return NULL };
        crate::fork::install();
        match signal::notify(ChanListener::new(core.clone(), Value::signal), set) {
            Ok(()) => none(),
            Err(signal::NoThread) => runtime_error("the system refuses a thread for signals"),
        }
    }
}

unsafe extern "C" fn signal_stop(_: Object, ch: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let class = Py_TYPE(ch);
        if class == CHAN.load(Ordering::Relaxed) || class == SEND_CHAN.load(Ordering::Relaxed) {
            if let Some(core) = chan::core(ch) {
                signal::stop(ChanListener::<Value>::key_of(core));
            }
            return none();
        }
        let kind = std::ffi::CStr::from_ptr((*class).tp_name).to_string_lossy();
        type_error(&format!("stop() needs a channel that notify() was called with, not {kind}"))
    }
}

unsafe extern "C" fn signal_ignore(_: Object, signals: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(set) = (unsafe { set(signals) }) else { return NULL };
    crate::fork::install();
    signal::ignore(set);
    none()
}

unsafe extern "C" fn signal_reset(_: Object, signals: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(set) = (unsafe { set(signals) }) else { return NULL };
    signal::reset(set);
    none()
}

unsafe extern "C" fn signal_ignored(_: Object, number: Object) -> Object {
    // SAFETY: the calling convention.
    let number = unsafe { PyLong_AsLong(number) };
    // SAFETY: attached.
    if number == -1 && unsafe { !PyErr_Occurred().is_null() } {
        return NULL;
    }
    boolean(i32::try_from(number).is_ok_and(signal::ignored))
}

unsafe extern "C" fn signal_wanted(_: Object, _: Object) -> Object {
    int(signal::wanted())
}

unsafe extern "C" fn signal_held(_: Object, _: Object) -> Object {
    int(signal::held())
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        one_arg(
            c"signal_objects",
            signal_objects,
            c"signal_objects(objects)\n\nSay what is received for each signal, by number.",
        ),
        fast(
            c"signal_notify",
            signal_notify,
            c"signal_notify(ch, signals)\n\nSend the signals of a set on a channel, too.",
        ),
        one_arg(c"signal_stop", signal_stop, c"signal_stop(ch)\n\nSend no more signals on a channel."),
        one_arg(c"signal_ignore", signal_ignore, c"signal_ignore(signals)\n\nIgnore the signals of a set."),
        one_arg(
            c"signal_reset",
            signal_reset,
            c"signal_reset(signals)\n\nMake the signals of a set do what they did before.",
        ),
        one_arg(c"signal_ignored", signal_ignored, c"signal_ignored(number) -> bool\n\nWhether a signal does nothing."),
        no_args(
            c"signal_wanted",
            signal_wanted,
            c"signal_wanted() -> int\n\nThe set of the signals that are sent on channels.",
        ),
        no_args(
            c"signal_held",
            signal_held,
            c"signal_held() -> int\n\nThe set of the signals that are sent on channels or ignored.",
        ),
    ]
}
