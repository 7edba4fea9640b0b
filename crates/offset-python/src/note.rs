//! `Note`, a flag that can be waited for, over the core's.
//!
//! It holds no Python object. What can park is called without any lock or borrow of ours.

use crate::error::*;
use crate::method::*;
use crate::scope::interrupted;
use crate::sync::{Shell, core, dealloc, new_plain};
use offset_runtime::error::WaitError;
use offset_runtime::goroutine::WaitReason;
use offset_runtime::scheduler;
use offset_runtime::sync::Note;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

static NOTE: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

/// The core's note behind a note.
pub(crate) fn of(object: Object) -> Option<Arc<Note>> {
    // SAFETY: attached; the object is alive.
    let ours = unsafe { Py_TYPE(object) } == NOTE.load(Ordering::Relaxed);
    ours.then(|| core::<Arc<Note>>(object).clone())
}

unsafe extern "C" fn set(object: Object, _: Object) -> Object {
    core::<Arc<Note>>(object).set();
    none()
}

unsafe extern "C" fn clear(object: Object, _: Object) -> Object {
    core::<Arc<Note>>(object).clear();
    none()
}

unsafe extern "C" fn is_set(object: Object, _: Object) -> Object {
    boolean(core::<Arc<Note>>(object).is_set())
}

unsafe extern "C" fn wait(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { wait_for(object, "wait", args, count, keywords, WaitReason::Note) }
}

unsafe extern "C" fn wait_await(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    if let Some(goroutine) = scheduler::current() {
        goroutine.come_back_first();
    }
    // SAFETY: the calling convention.
    unsafe { wait_for(object, "wait_await", args, count, keywords, WaitReason::Await) }
}

/// # Safety
/// The arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call of `name`.
unsafe fn wait_for(
    object: Object,
    name: &str,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
    reason: WaitReason,
) -> Object {
    // SAFETY: by contract.
    let Some(deadline) = (unsafe { only_timeout(name, args, count, keywords) }) else { return NULL };
    if interrupted() {
        return NULL;
    }
    match core::<Arc<Note>>(object).wait_for(reason, deadline) {
        Ok(()) => boolean(true),
        Err(WaitError::TimedOut) => boolean(false),
        Err(WaitError::Cancelled) => cancelled(),
    }
}

unsafe extern "C" fn watch(_: Object, note: Object) -> Object {
    // SAFETY: attached; the argument is alive.
    let nothing = unsafe { Py_IsNone(note) } != 0;
    match of(note) {
        Some(note) => scheduler::watch(Some(note)),
        None if nothing => scheduler::watch(None),
        None => return type_error("watch() takes a Note or None"),
    }
    none()
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![one_arg(
        c"watch",
        watch,
        c"watch(note | None)\n\nHave a note set whenever the runtime comes to rest and when the last goroutine ends.",
    )]
}

/// Adds the type to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let note = TypeSpec {
        name: c"offset._runtime.Note",
        doc: c"A flag that can be waited for.",
        size: size_of::<Shell<Arc<Note>>>(),
        flags: 0,
        methods: vec![
            no_args(c"set", set, c"set()\n\nSet the flag; all that wait go on."),
            no_args(c"clear", clear, c"clear()\n\nTake the flag back."),
            no_args(c"is_set", is_set, c"is_set() -> bool"),
            fast(
                c"wait",
                wait,
                c"wait(timeout=None) -> bool\n\nWait until the flag is set; False when timeout seconds pass before.",
            ),
            fast(
                c"wait_await",
                wait_await,
                c"wait_await(timeout=None) -> bool\n\nAs wait(), for what an event loop does; the wait reason is \"await\".",
            ),
        ],
        getters: vec![],
        slots: vec![slot!(Py_tp_new, new_plain::<Arc<Note>>), slot!(Py_tp_dealloc, dealloc::<Arc<Note>>)],
    };
    // SAFETY: the slots fit the object.
    NOTE.store(unsafe { new_type(module, note) }, Ordering::Relaxed);
    !NOTE.load(Ordering::Relaxed).is_null()
}
