//! Mailboxes: where an event loop is told which of its tasks can go on, and is given calls.
//!
//! Invariant: what is in a mailbox are references, which `take`, `linger` and `close` hand over. An operation that waits holds the mailbox object, so
//! nobody puts anything in when that goes.

use crate::error::*;
use crate::method::*;
use crate::shim;
use crate::shim::Py_DECREF;
use offset_runtime::task::Mailbox;
use offset_runtime::vigil::Vigil;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
struct MailboxObject {
    head: PyObject,
    core: Option<Arc<Mailbox>>,
}

/// Of loops that have been told something and want the interpreter.
static PATIENCE: Vigil = Vigil::new();

static MAILBOX: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

fn core<'a>(object: Object) -> &'a Arc<Mailbox> {
    // SAFETY: `object` is a mailbox, alive as the caller's argument.
    match unsafe { &(*object.cast::<MailboxObject>()).core } {
        Some(core) => core,
        None => unreachable!("a mailbox is given its core at birth"),
    }
}

unsafe extern "C" fn new(class: *mut PyTypeObject, _: Object, _: Object) -> Object {
    // A task may wait where no goroutine was ever started.
    crate::fork::install();
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let Some(core) = Mailbox::new() else { return PyErr_SetFromErrno(PyExc_OSError) };
        let object = allocate::<MailboxObject>(class);
        if !object.is_null() {
            std::ptr::write(&raw mut (*object).core, Some(core));
        }
        object.cast()
    }
}

unsafe extern "C" fn fileno(object: Object, _: Object) -> Object {
    int(core(object).descriptor() as u64)
}

unsafe extern "C" fn put(object: Object, item: Object) -> Object {
    // SAFETY: the calling convention; the mailbox gets a reference.
    core(object).put(unsafe { Py_NewRef(item) } as usize);
    none()
}

/// A list of what was put in; takes the references over.
unsafe fn items(tags: Vec<usize>) -> Object {
    // SAFETY: attached.
    unsafe {
        let list = PyList_New(tags.len() as Py_ssize_t);
        for (index, tag) in tags.into_iter().enumerate() {
            if list.is_null() {
                Py_DECREF(tag as Object);
            } else {
                PyList_SET_ITEM(list, index as Py_ssize_t, tag as Object);
            }
        }
        list
    }
}

unsafe extern "C" fn take(object: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe { items(core(object).take()) }
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe { items(core(object).close()) }
}

unsafe extern "C" fn linger(object: Object, notes: Object) -> Object {
    // SAFETY: the calling convention; the caller holds both objects meanwhile.
    unsafe {
        if PyList_Check(notes) == 0 {
            return type_error("linger() takes a list of notes");
        }
        let notes: Vec<_> =
            (0..PyList_Size(notes)).filter_map(|index| crate::note::of(PyList_GetItem(notes, index))).collect();
        let state = shim::offset_detach();
        // Who waits for them goes on where it need not wait for this thread to let the interpreter go.
        notes.iter().for_each(|note| note.set());
        let tags = core(object).linger();
        if tags.is_empty() {
            shim::offset_attach(state);
        } else {
            // Who put something in parks just now.
            PATIENCE.keep(|| shim::offset_taken() == 0);
            shim::offset_attach(state);
        }
        items(tags)
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone, and with it all operations that may be about to put something in.
    unsafe {
        let core = (*object.cast::<MailboxObject>()).core.take();
        if let Some(core) = core {
            core.take().into_iter().for_each(|tag| Py_DECREF(tag as Object));
        }
        free(object);
    }
}

/// The core's mailbox behind one.
pub(crate) fn of<'a>(object: Object) -> Option<&'a Arc<Mailbox>> {
    // SAFETY: attached; the object is alive.
    let ours = unsafe { Py_TYPE(object) } == MAILBOX.load(Ordering::Relaxed);
    ours.then(|| core(object))
}

/// Adds the type to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let spec = TypeSpec {
        name: c"offset._runtime.Mailbox",
        doc: c"Where an event loop is told which of its tasks can go on.",
        size: size_of::<MailboxObject>(),
        flags: 0,
        methods: vec![
            no_args(c"fileno", fileno, c"fileno() -> int\n\nThe descriptor that is readable while there is something in it."),
            one_arg(c"put", put, c"put(item)\n\nPut something in, for the loop to deliver."),
            no_args(c"take", take, c"take() -> list\n\nTake out what there is."),
            no_args(c"close", close, c"close() -> list\n\nTake out what there is, and all that would be put in later: those waits are over."),
            one_arg(c"linger", linger, c"linger(notes) -> list\n\nSet the notes, and take out what there is after waiting for a little while, where that has paid of late."),
        ],
        getters: vec![],
        slots: vec![slot!(Py_tp_new, new), slot!(Py_tp_dealloc, dealloc)],
    };
    // SAFETY: the slots fit the object; attached.
    MAILBOX.store(unsafe { new_type(module, spec) }, Ordering::Relaxed);
    !MAILBOX.load(Ordering::Relaxed).is_null()
}
