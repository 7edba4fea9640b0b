//! Scopes: a context that the operations of a goroutine obey, from `enter` to `leave`.
//!
//! Scopes nest: a goroutine's object holds the innermost one, each the one around it. When a scope's context is over, whoever ends the
//! context calls `interrupt`: the scope is *due*, and the goroutine's present or next operation that may wait raises instead. That
//! happens once a scope, so that cleaning up may wait. Where several are due, the outermost one's error is raised, for those inside it
//! too: all of them are on the way out. So they are when the goroutine is cancelled.
//!
//! The chain, the states and the counts are touched in exclusive sections of the goroutine's object, in which no Python runs. Only the
//! goroutine itself enters, leaves and delivers; anybody interrupts. `INTERRUPTED` may lag behind: an operation that does not see it
//! yet happens, as if it had come before. One that waits asks the core's note (`cancel::settle`), which never lags.

use crate::cancel::settle;
use crate::error::*;
use crate::goroutine::{GoroutineObject, core, object_of};
use crate::method::*;
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::scheduler;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Not entered yet. Zero, as memory is at birth.
    New,
    Active,
    /// Its context is over, and nothing was raised for it.
    Due,
    /// Its error was raised, or that of one around it.
    Delivered,
    Left,
}

#[repr(C)]
struct ScopeObject {
    head: PyObject,
    /// Set at birth.
    context: Object,
    /// The goroutine that entered it, from then on.
    goroutine: Object,
    /// The scope around it, which the chain holds.
    outer: Object,
    state: State,
}

static ERROR_OF: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

/// How many goroutines have scopes that are due, and bubbles a seed: none, at nearly every question.
static INTERRUPTED: AtomicUsize = AtomicUsize::new(0);

fn it(object: Object) -> *mut ScopeObject {
    object.cast()
}

fn current_object() -> Object {
    scheduler::current().map_or(NULL, object_of)
}

/// To be asked at the start of each operation that may wait: true, with an exception set, if a scope of the current goroutine is due.
#[inline]
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) != 0 && interrupted_here()
}

/// Has `interrupted` look more closely, or stop that: for a bubble with a seed, which lets others run in between.
pub(crate) fn attend(more: bool) {
    if more {
        INTERRUPTED.fetch_add(1, Ordering::Relaxed);
    } else {
        INTERRUPTED.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cold]
fn interrupted_here() -> bool {
    offset_runtime::bubble::jostle();
    let object = current_object();
    // SAFETY: attached, in this very goroutine.
    unsafe {
        let goroutine = object.cast::<GoroutineObject>();
        !object.is_null()
            && exclusive(object, || (*goroutine).due > 0 && (*goroutine).shields == 0)
            && raise_due(object)
    }
}

/// While one is there, scopes do not end the waits of the current goroutine: they end the first one after it.
pub(crate) struct Shield(Object);

impl Shield {
    pub(crate) fn new() -> Shield {
        let object = current_object();
        if !object.is_null() {
            // SAFETY: attached, in this very goroutine.
            unsafe { exclusive(object, || (*object.cast::<GoroutineObject>()).shields += 1) };
        }
        Shield(object)
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: attached, in the same goroutine, whose object is alive while it runs.
            unsafe { exclusive(self.0, || (*self.0.cast::<GoroutineObject>()).shields -= 1) };
        }
    }
}

/// Changes the count of due scopes. In an exclusive section of `goroutine`.
unsafe fn count_due(goroutine: *mut GoroutineObject, due: u32) {
    // SAFETY: by contract.
    unsafe {
        match (std::mem::replace(&mut (*goroutine).due, due), due) {
            (0, 1..) => _ = INTERRUPTED.fetch_add(1, Ordering::Relaxed),
            (1.., 0) => _ = INTERRUPTED.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Raises the error of the outermost scope whose context is over, or what comes from outside meanwhile; false if none is due.
///
/// # Safety
/// Attached; `object` is the current goroutine's.
pub(crate) unsafe fn raise_due(object: Object) -> bool {
    // SAFETY: by contract. The chain is changed by this goroutine only.
    unsafe {
        let goroutine = object.cast::<GoroutineObject>();
        // What a context does to answer may wait.
        let _shield = Shield::new();
        let mut chain = Vec::new();
        exclusive(object, || {
            let mut scope = (*goroutine).scope;
            while !scope.is_null() {
                chain.push((Py_NewRef(scope), (*it(scope)).state));
                scope = (*it(scope)).outer;
            }
        });
        // A context is over before those below it are, so one further out may be over and have interrupted nobody yet.
        let found = chain.iter().rposition(|&(scope, state)| {
            state == State::Due || state == State::Active && is_over(object, (*it(scope)).context)
        });
        let interrupted = !PyErr_Occurred().is_null();
        if interrupted {
            // What was due is so still, unless the goroutine was cancelled.
        } else if let Some(found) = found {
            exclusive(object, || {
                let mut due = (*goroutine).due;
                for &(scope, _) in &chain[..=found] {
                    match (*it(scope)).state {
                        State::Due => due -= 1,
                        State::Active => {}
                        State::New | State::Delivered | State::Left => continue,
                    }
                    (*it(scope)).state = State::Delivered;
                }
                count_due(goroutine, due);
                settle(object);
            });
            raise_error_of((*it(chain[found].0)).context);
        }
        for (scope, _) in chain {
            Py_DECREF(scope);
        }
        interrupted || found.is_some()
    }
}

/// The goroutine ends for another reason, so that none of its scopes has to say anything any more.
///
/// # Safety
/// In an exclusive section of `object`.
pub(crate) unsafe fn deliver_all(object: Object) {
    // SAFETY: by contract.
    unsafe {
        let goroutine = object.cast::<GoroutineObject>();
        let mut scope = (*goroutine).scope;
        while !scope.is_null() {
            (*it(scope)).state = State::Delivered;
            scope = (*it(scope)).outer;
        }
        count_due(goroutine, 0);
    }
}

/// The scopes that a goroutine is in, borrowed: its chain holds a reference to each. Whoever reaches one may end the goroutine's wait.
///
/// # Safety
/// The goroutine of `object` is parked and stays so.
pub(crate) unsafe fn chain(object: Object) -> Vec<Object> {
    let mut scopes = Vec::new();
    // SAFETY: by contract.
    unsafe {
        let mut scope = (*object.cast::<GoroutineObject>()).scope;
        while !scope.is_null() {
            scopes.push(scope);
            scope = (*it(scope)).outer;
        }
    }
    scopes
}

/// Whether a context is over, by its own word; true as well, with an exception set, if that was interrupted. A context that fails to
/// answer is not over.
unsafe fn is_over(object: Object, context: Object) -> bool {
    // SAFETY: attached, in the goroutine of `object`; the scope holds its context.
    unsafe {
        let method = PyObject_GetAttrString(context, c"err".as_ptr());
        let error = if method.is_null() { NULL } else { PyObject_CallNoArgs(method) };
        let over = !error.is_null() && Py_IsNone(error) == 0;
        Py_XDECREF(error);
        Py_XDECREF(method);
        if PyErr_Occurred().is_null() {
            return over;
        }
        // What is not an ordinary exception, or is what somebody has thrown, is no answer of the context's.
        let it = object.cast::<GoroutineObject>();
        let thrown = exclusive(object, || (*it).by_async && !(*it).thrown.is_null());
        let interrupted = thrown || PyErr_ExceptionMatches(PyExc_Exception) == 0;
        if !interrupted {
            PyErr_Clear();
        }
        interrupted
    }
}

/// Raises what `offset.context` gives for a context that is over.
unsafe fn raise_error_of(context: Object) {
    // SAFETY: attached; the hook is kept for ever.
    unsafe {
        let error = PyObject_CallOneArg(ERROR_OF.load(Ordering::Relaxed), context);
        if !error.is_null() {
            raise_object(error);
            Py_DECREF(error);
        }
    }
}

/// The goroutine is over: scopes that were never left, by generators that nobody ended, are so now.
///
/// # Safety
/// Attached, in the goroutine of `object`.
pub(crate) unsafe fn leave_all(object: Object) {
    // SAFETY: by contract.
    unsafe {
        let goroutine = object.cast::<GoroutineObject>();
        if (*goroutine).scope.is_null() {
            return;
        }
        let mut scope = exclusive(object, || {
            count_due(goroutine, 0);
            settle(object);
            let innermost = std::mem::replace(&mut (*goroutine).scope, NULL);
            let mut scope = innermost;
            while !scope.is_null() {
                (*it(scope)).state = State::Left;
                scope = (*it(scope)).outer;
            }
            innermost
        });
        while !scope.is_null() {
            let outer = std::mem::replace(&mut (*it(scope)).outer, NULL);
            Py_DECREF(scope);
            scope = outer;
        }
    }
}

unsafe extern "C" fn new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let mut names = [c"context".as_ptr().cast_mut(), null_mut()];
        let mut context = NULL;
        if PyArg_ParseTupleAndKeywords(args, kwargs, c"O:Scope".as_ptr(), names.as_mut_ptr().cast(), &raw mut context)
            == 0
        {
            return NULL;
        }
        let scope = allocate::<ScopeObject>(class);
        if !scope.is_null() {
            (*scope).context = Py_NewRef(context);
        }
        scope.cast()
    }
}

unsafe extern "C" fn enter(object: Object, _: Object) -> Object {
    let goroutine = current_object();
    if goroutine.is_null() {
        return runtime_error(
            "a scope works inside goroutines only; in a plain thread give the operation a timeout, or do it by run() or go()",
        );
    }
    // SAFETY: attached, in this very goroutine.
    unsafe {
        let fresh = exclusive(goroutine, || {
            if (*it(object)).state != State::New {
                return false;
            }
            (*it(object)).state = State::Active;
            (*it(object)).goroutine = Py_NewRef(goroutine);
            let innermost = &mut (*goroutine.cast::<GoroutineObject>()).scope;
            (*it(object)).outer = std::mem::replace(innermost, Py_NewRef(object));
            true
        });
        if !fresh {
            return runtime_error("a scope is entered once; make another one");
        }
    }
    none()
}

unsafe extern "C" fn leave(object: Object, _: Object) -> Object {
    // SAFETY: attached; `object` is ours.
    unsafe {
        let owner = (*it(object)).goroutine;
        if owner.is_null() || owner != current_object() {
            if !owner.is_null() && (*it(object)).state == State::Left {
                return none();
            }
            return runtime_error("a scope is left by the goroutine that entered it");
        }
        let goroutine = owner.cast::<GoroutineObject>();
        let linked = exclusive(owner, || {
            let mut place = &raw mut (*goroutine).scope;
            while !(*place).is_null() && *place != object {
                place = &raw mut (*it(*place)).outer;
            }
            if (*place).is_null() {
                return false;
            }
            *place = std::mem::replace(&mut (*it(object)).outer, NULL);
            if (*it(object)).state == State::Due {
                count_due(goroutine, (*goroutine).due - 1);
            }
            (*it(object)).state = State::Left;
            settle(owner);
            true
        });
        if linked {
            // The chain's reference; the caller has its own.
            Py_DECREF(object);
        }
    }
    none()
}

unsafe extern "C" fn interrupt(object: Object, _: Object) -> Object {
    // SAFETY: attached; `object` is ours. Its goroutine is written once, when it is entered, before anybody knows of it.
    unsafe {
        let owner = (*it(object)).goroutine;
        if !owner.is_null() {
            let goroutine = owner.cast::<GoroutineObject>();
            exclusive(owner, || {
                if (*it(object)).state == State::Active && core(owner).payload() != 0 {
                    (*it(object)).state = State::Due;
                    count_due(goroutine, (*goroutine).due + 1);
                    if (*goroutine).shields > 0 {
                        core(owner).note_cancel();
                    } else {
                        core(owner).cancel();
                    }
                }
            });
        }
    }
    none()
}

/// The context of the current goroutine's innermost scope, or None.
unsafe extern "C" fn scope_context(_: Object, _: Object) -> Object {
    let object = current_object();
    // SAFETY: attached, in this very goroutine; a scope holds its context.
    unsafe {
        let scope = if object.is_null() { NULL } else { (*object.cast::<GoroutineObject>()).scope };
        if scope.is_null() { none() } else { Py_NewRef((*it(scope)).context) }
    }
}

unsafe extern "C" fn set_error_of(_: Object, hook: Object) -> Object {
    // SAFETY: the hook is kept for ever.
    ERROR_OF.store(unsafe { Py_NewRef(hook) }, Ordering::Relaxed);
    none()
}

unsafe extern "C" fn traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: the collector's calling convention. The goroutine's object is not one of the collector's.
    unsafe {
        let context = (*it(object)).context;
        let answer = if context.is_null() { 0 } else { visit(context, arg) };
        if answer != 0 { answer } else { visit(Py_TYPE(object).cast(), arg) }
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone, so it is in no chain.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        Py_XDECREF((*it(object)).context);
        Py_XDECREF((*it(object)).goroutine);
        free(object);
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        no_args(c"scope_context", scope_context, c"The context of the current goroutine's innermost scope, or None."),
        one_arg(
            c"set_error_of",
            set_error_of,
            c"Set the function that gives the exception for a context that is over.",
        ),
    ]
}

/// Adds the type to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let spec = TypeSpec {
        name: c"offset._runtime.Scope",
        doc: c"Scope(context)\n\nA stretch of a goroutine's life in which what waits obeys a context.",
        size: size_of::<ScopeObject>(),
        flags: u64::from(Py_TPFLAGS_HAVE_GC as u32),
        methods: vec![
            no_args(c"enter", enter, c"From here on the current goroutine obeys it."),
            no_args(c"leave", leave, c"To here."),
            no_args(
                c"interrupt",
                interrupt,
                c"The context is over: end the goroutine's present or next wait. From any thread.",
            ),
        ],
        getters: vec![],
        slots: vec![slot!(Py_tp_new, new), slot!(Py_tp_dealloc, dealloc), slot!(Py_tp_traverse, traverse)],
    };
    // SAFETY: the slots fit the object.
    let made = unsafe { new_type(module, spec) };
    !made.is_null()
}
