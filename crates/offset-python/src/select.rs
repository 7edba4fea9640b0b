//! `select`, its cases, and `default`.
//!
//! A case object holds its channel and, for a send, the value; `select` writes `outcome`, `ok` and `index` of the one that
//! happened, after the core has decided. These are touched in exclusive sections of the case.

use crate::error::*;
use crate::method::*;
use crate::object::Value;
use crate::scope::interrupted;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::chan::Wait;
use offset_runtime::select::{Case, INLINE, Selected, select as core_select};
use offset_runtime::task::TaskCase;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
struct CaseObject {
    head: PyObject,
    chan: Object,
    /// What a send sends; null for a receive.
    sends: Object,
    /// What was received.
    outcome: Object,
    ok: bool,
    index: Py_ssize_t,
}

static CASE: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
static DEFAULT: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

fn it<'a>(object: Object) -> &'a mut CaseObject {
    // SAFETY: `object` is a case, alive as the caller's argument.
    unsafe { &mut *object.cast::<CaseObject>() }
}

/// The case of receiving from `chan`, or of sending `value` if that is not null.
///
/// # Safety
/// Attached; `chan` is a channel object, `value` alive or null.
pub(crate) unsafe fn new_case(chan: Object, value: Object) -> Object {
    // SAFETY: by contract.
    unsafe {
        let object = allocate::<CaseObject>(CASE.load(Ordering::Relaxed));
        if !object.is_null() {
            (*object).chan = Py_NewRef(chan);
            (*object).sends = if value.is_null() { NULL } else { Py_NewRef(value) };
            (*object).index = -1;
        }
        object.cast()
    }
}

/// The arguments of a call of `function`: the timeout, which may be null, and whether `default` is among the cases. None with an exception
/// set if they are wrong.
///
/// # Safety
/// Attached; `args`, `count` and `keywords` are those of a `METH_FASTCALL | METH_KEYWORDS` call.
pub(crate) unsafe fn arguments(
    function: &str,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Option<(Object, bool)> {
    let total = count as usize;
    // SAFETY: by contract.
    unsafe {
        let mut timeout = NULL;
        if !keywords.is_null() {
            for index in 0..PyTuple_GET_SIZE(keywords) {
                let name = text(PyTuple_GET_ITEM(keywords, index));
                if name != "timeout" {
                    type_error(&format!("{function}() has no argument '{name}'; it takes cases and timeout"));
                    return None;
                }
                timeout = *args.add(total + index as usize);
            }
        }
        let (class, default) = (CASE.load(Ordering::Relaxed), DEFAULT.load(Ordering::Relaxed));
        let mut at_once = false;
        for index in 0..total {
            let case = *args.add(index);
            if case == default {
                at_once = true;
            } else if Py_TYPE(case) != class {
                type_error(&format!(
                    "{function}() takes what ch.if_recv() and ch.if_send(value) give, and default, not a channel or a value itself"
                ));
                return None;
            }
        }
        if total > usize::from(u16::MAX) - 8 {
            value_error(&format!("{function}() takes up to 65,000 cases"));
            return None;
        }
        Some((timeout, at_once))
    }
}

unsafe extern "C" fn select(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let total = count as usize;
    // SAFETY: the calling convention.
    unsafe {
        let Some((timeout, at_once)) = arguments("select", args, count, keywords) else { return NULL };
        let Some(deadline) = deadline(timeout) else { return NULL };
        let default = DEFAULT.load(Ordering::Relaxed);
        let wait = if at_once { Wait::No } else { Wait::Until(deadline) };
        if wait != Wait::No && interrupted() {
            return NULL;
        }
        crate::goroutine::set_selecting(args);
        let selected = run(args, total, wait);
        crate::goroutine::set_selecting(std::ptr::null());
        finish(selected, args, wait, default)
    }
}

/// # Safety
/// Attached; `args` are `total` cases or `default`, held by the caller.
#[inline]
unsafe fn run(args: *const Object, total: usize, wait: Wait) -> Selected<Value> {
    // SAFETY: by contract.
    unsafe {
        let default = DEFAULT.load(Ordering::Relaxed);
        let make = |index: usize| {
            let case = *args.add(index);
            if case == default {
                return Case::Never;
            }
            match crate::chan::core(it(case).chan) {
                None => Case::Never,
                Some(core) if it(case).sends.is_null() => Case::Recv(core),
                Some(core) => Case::Send(core, Some(Value::new(it(case).sends))),
            }
        };
        if total <= INLINE {
            let mut cases = [const { Case::Never }; INLINE];
            for (index, case) in cases.iter_mut().enumerate().take(total) {
                *case = make(index);
            }
            core_select(&mut cases[..total], wait)
        } else {
            let mut cases: Vec<_> = (0..total).map(make).collect();
            core_select(&mut cases, wait)
        }
    }
}

// What the select of a task is made of (see `task`).

/// Does one of the cases, if one is ready; None if none is and `default` is not among them.
///
/// # Safety
/// As for `run`; the cases were checked by [`arguments`].
pub(crate) unsafe fn attempt(args: *const Object, total: usize) -> Option<Object> {
    // SAFETY: by contract.
    unsafe {
        let selected = run(args, total, Wait::No);
        let default = DEFAULT.load(Ordering::Relaxed);
        if matches!(selected, Selected::TimedOut) && !(0..total).any(|index| *args.add(index) == default) {
            return None;
        }
        Some(finish(selected, args, Wait::No, default))
    }
}

/// What `select_async` gives after a wait.
///
/// # Safety
/// As for [`attempt`].
pub(crate) unsafe fn finish_async(selected: Selected<Value>, args: *const Object) -> Object {
    // SAFETY: by contract.
    unsafe { finish(selected, args, Wait::Until(None), DEFAULT.load(Ordering::Relaxed)) }
}

/// A case as a task waits for it.
pub(crate) fn task_case(case: Object) -> TaskCase<Value> {
    match crate::chan::core(it(case).chan) {
        None => TaskCase::Never,
        Some(core) if it(case).sends.is_null() => TaskCase::Recv(core.clone()),
        // SAFETY: attached; the case holds what it sends.
        Some(core) => TaskCase::Send(core.clone(), unsafe { Value::new(it(case).sends) }),
    }
}

/// The channel of a case, borrowed.
pub(crate) fn chan_of(case: Object) -> Object {
    it(case).chan
}

unsafe fn finish(selected: Selected<Value>, args: *const Object, wait: Wait, default: Object) -> Object {
    // SAFETY: called by `select` with its own arguments.
    unsafe {
        let (index, value, ok) = match selected {
            Selected::TimedOut if wait == Wait::No => return Py_NewRef(default),
            Selected::TimedOut => return timed_out("select"),
            Selected::Cancelled => return cancelled(),
            Selected::SendClosed(index) => {
                let chan = it(*args.add(index)).chan;
                return sent_on_closed(&crate::chan::describe(chan));
            }
            Selected::Sent(index) => (index, NULL, true),
            Selected::Received(index, None) => (index, NULL, false),
            Selected::Received(index, Some(value)) => {
                let value = value.receive();
                if value.is_null() {
                    return NULL;
                }
                (index, value, true)
            }
        };
        let case = *args.add(index);
        let before = exclusive(case, || {
            it(case).ok = ok;
            it(case).index = index as Py_ssize_t;
            std::mem::replace(&mut it(case).outcome, value)
        });
        Py_XDECREF(before);
        Py_NewRef(case)
    }
}

type Closure = *mut std::ffi::c_void;

unsafe extern "C" fn get_value(object: Object, _: Closure) -> Object {
    // SAFETY: `object` is a case; what it holds is not let go meanwhile.
    unsafe {
        exclusive(object, || {
            let value = if it(object).sends.is_null() { it(object).outcome } else { it(object).sends };
            if value.is_null() { none() } else { Py_NewRef(value) }
        })
    }
}
unsafe extern "C" fn get_ok(object: Object, _: Closure) -> Object {
    // SAFETY: `object` is a case.
    boolean(unsafe { exclusive(object, || it(object).ok) })
}
unsafe extern "C" fn get_index(object: Object, _: Closure) -> Object {
    // SAFETY: attached.
    unsafe { PyLong_FromSsize_t(exclusive(object, || it(object).index)) }
}

unsafe extern "C" fn stats(object: Object, _: Object) -> Object {
    // SAFETY: `object` is a case; new references.
    unsafe {
        let (ok, index, sends) = exclusive(object, || (it(object).ok, it(object).index, !it(object).sends.is_null()));
        dict(&[(c"sends", boolean(sends)), (c"ok", boolean(ok)), (c"index", PyLong_FromSsize_t(index))])
    }
}

/// What two cases have in common if they are equal: the channel and the direction.
fn key(object: Object) -> (usize, bool) {
    let chan = it(object).chan;
    (crate::chan::core(chan).map_or(0, |core| std::sync::Arc::as_ptr(core) as usize), it(object).sends.is_null())
}

unsafe extern "C" fn compare(object: Object, other: Object, operation: std::ffi::c_int) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        if Py_TYPE(other) != CASE.load(Ordering::Relaxed) || !(operation == Py_EQ || operation == Py_NE) {
            return Py_NewRef(Py_NotImplemented());
        }
    }
    boolean((key(object) == key(other)) == (operation == Py_EQ))
}

unsafe extern "C" fn hash(object: Object) -> Py_hash_t {
    let (address, receives) = key(object);
    ((address >> 4) as Py_hash_t ^ Py_hash_t::from(receives)).max(0)
}

unsafe extern "C" fn repr(object: Object) -> Object {
    // SAFETY: `object` is a case and holds its channel.
    unsafe {
        let chan = PyObject_Repr(it(object).chan);
        if chan.is_null() {
            return NULL;
        }
        let what = if it(object).sends.is_null() { "receive from" } else { "send to" };
        let result = string(&format!("<case {what} {}>", text(chan)));
        Py_DECREF(chan);
        result
    }
}

unsafe extern "C" fn traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: `object` is a case; the collector's calling convention.
    unsafe {
        for child in [it(object).chan, it(object).sends, it(object).outcome, Py_TYPE(object).cast()] {
            if !child.is_null() {
                let answer = visit(child, arg);
                if answer != 0 {
                    return answer;
                }
            }
        }
        0
    }
}

unsafe extern "C" fn clear(object: Object) -> std::ffi::c_int {
    // SAFETY: `object` is a case; each field is emptied before its reference goes. The channel stays: a case without one could
    // not be compared any more, and channels are cleared by themselves.
    unsafe {
        for field in [&raw mut it(object).sends, &raw mut it(object).outcome] {
            let child = std::ptr::replace(field, NULL);
            Py_XDECREF(child);
        }
        0
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        clear(object);
        Py_XDECREF(it(object).chan);
        free(object);
    }
}

unsafe extern "C" fn default_repr(_: Object) -> Object {
    string("offset.default")
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![fast(
        c"select",
        select,
        c"select(*cases, timeout=None)\n\nDo one of the cases and return it; wait until one is possible (Go: the select statement). With default among them never wait. TimeoutError after timeout seconds, ChannelClosed if a send is chosen whose channel is closed.",
    )]
}

/// Adds the types and `default` to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let closed_type = u64::from(Py_TPFLAGS_DISALLOW_INSTANTIATION as u32);
    let case = TypeSpec {
        name: c"offset.Case",
        doc: c"One case of a select, made by if_recv() and if_send(). Equal to another of the same channel and direction.",
        size: size_of::<CaseObject>(),
        flags: closed_type | u64::from(Py_TPFLAGS_HAVE_GC as u32),
        methods: vec![
            class_getitem(),
            no_args(c"stats", stats, c"stats() -> dict\n\nWhether it sends, and whether and where it happened."),
        ],
        getters: vec![
            getter(c"value", get_value, c"What was received, or what is to be sent."),
            getter(c"ok", get_ok, c"False if the channel was closed and drained."),
            getter(c"index", get_index, c"Its place among the cases of the select in which it happened; -1 before."),
        ],
        slots: vec![
            slot!(Py_tp_dealloc, dealloc),
            slot!(Py_tp_traverse, traverse),
            slot!(Py_tp_clear, clear),
            slot!(Py_tp_repr, repr),
            slot!(Py_tp_richcompare, compare),
            slot!(Py_tp_hash, hash),
        ],
    };
    let default = TypeSpec {
        name: c"offset.Default",
        doc: c"The type of default.",
        size: size_of::<PyObject>(),
        flags: closed_type,
        methods: vec![],
        getters: vec![],
        slots: vec![slot!(Py_tp_repr, default_repr)],
    };
    // SAFETY: the slots fit the objects; attached.
    unsafe {
        let made = new_type(module, case);
        let default = new_type(module, default);
        if made.is_null() || default.is_null() {
            return false;
        }
        CASE.store(made, Ordering::Relaxed);
        let default: Object = allocate::<PyObject>(default).cast();
        DEFAULT.store(default, Ordering::Relaxed);
        !default.is_null() && PyModule_AddObjectRef(module, c"default".as_ptr(), default) == 0
    }
}
