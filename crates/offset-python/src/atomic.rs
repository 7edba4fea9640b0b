//! `offset.sync.atomic`: a 64-bit integer, a truth value and a reference that change in one step, with or without the GIL.

use crate::method::*;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::lock::Lock;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

#[repr(C)]
struct IntObject {
    head: PyObject,
    value: AtomicI64,
}

#[repr(C)]
struct RefObject {
    head: PyObject,
    /// The reference is taken and given under this lock, which is held for a pointer's copy.
    value: Lock<Object>,
}

/// Whether a cell holds truth values.
fn int_cell<'a>(object: Object) -> &'a AtomicI64 {
    // SAFETY: `object` is an Int or a Bool, alive as the caller's argument.
    unsafe { &(*object.cast::<IntObject>()).value }
}

/// A Python integer as 64 bits, wrapping as Go's do; None with an exception set if it is none.
unsafe fn wrapped(object: Object) -> Option<i64> {
    // SAFETY: attached; `object` is alive.
    unsafe {
        let index = PyNumber_Index(object);
        if index.is_null() {
            return None;
        }
        let value = PyLong_AsUnsignedLongLongMask(index);
        Py_DECREF(index);
        (value != u64::MAX || PyErr_Occurred().is_null()).then_some(value as i64)
    }
}

fn long(value: i64) -> Object {
    // SAFETY: attached.
    unsafe { PyLong_FromLongLong(value) }
}

unsafe fn one_optional(name: &std::ffi::CStr, args: Object, kwargs: Object) -> Option<Object> {
    let mut names = [c"value".as_ptr().cast_mut(), null_mut()];
    let mut value = NULL;
    // SAFETY: the arguments of a tp_new.
    let parsed =
        unsafe { PyArg_ParseTupleAndKeywords(args, kwargs, name.as_ptr(), names.as_mut_ptr().cast(), &raw mut value) };
    (parsed != 0).then_some(value)
}

unsafe extern "C" fn int_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let Some(value) = one_optional(c"|O:Int", args, kwargs) else { return NULL };
        let Some(value) = (if value.is_null() { Some(0) } else { wrapped(value) }) else { return NULL };
        let object = allocate::<IntObject>(class);
        if !object.is_null() {
            (*object).value.store(value, SeqCst);
        }
        object.cast()
    }
}

unsafe extern "C" fn bool_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let Some(value) = one_optional(c"|O:Bool", args, kwargs) else { return NULL };
        let truth = if value.is_null() { 0 } else { PyObject_IsTrue(value) };
        if truth < 0 {
            return NULL;
        }
        let object = allocate::<IntObject>(class);
        if !object.is_null() {
            (*object).value.store(truth.into(), SeqCst);
        }
        object.cast()
    }
}

unsafe extern "C" fn cell_dealloc(object: Object) {
    // SAFETY: the last reference is gone; a number needs no end.
    unsafe { free(object) }
}

unsafe extern "C" fn int_load(object: Object, _: Object) -> Object {
    long(int_cell(object).load(SeqCst))
}

macro_rules! int_operation {
    ($name:ident, |$cell:ident, $value:ident| $result:expr) => {
        unsafe extern "C" fn $name(object: Object, value: Object) -> Object {
            // SAFETY: the calling convention.
            let Some($value) = (unsafe { wrapped(value) }) else { return NULL };
            let $cell = int_cell(object);
            $result
        }
    };
}

int_operation!(int_store, |cell, value| {
    cell.store(value, SeqCst);
    none()
});
int_operation!(int_add, |cell, value| long(cell.fetch_add(value, SeqCst).wrapping_add(value)));
int_operation!(int_swap, |cell, value| long(cell.swap(value, SeqCst)));
int_operation!(int_and, |cell, value| long(cell.fetch_and(value, SeqCst)));
int_operation!(int_or, |cell, value| long(cell.fetch_or(value, SeqCst)));

unsafe extern "C" fn int_cas(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("compare_and_swap", args, count, keywords, &["old", "new"], 2, &mut out) {
            return NULL;
        }
        let (Some(old), Some(new)) = (wrapped(out[0]), wrapped(out[1])) else { return NULL };
        boolean(int_cell(object).compare_exchange(old, new, SeqCst, SeqCst).is_ok())
    }
}

unsafe extern "C" fn int_stats(object: Object, _: Object) -> Object {
    // SAFETY: attached, a new reference.
    unsafe { dict(&[(c"value", long(int_cell(object).load(SeqCst)))]) }
}

unsafe extern "C" fn bool_stats(object: Object, _: Object) -> Object {
    // SAFETY: attached, a new reference.
    unsafe { dict(&[(c"value", boolean(int_cell(object).load(SeqCst) != 0))]) }
}

unsafe extern "C" fn ref_stats(object: Object, _: Object) -> Object {
    // SAFETY: attached, a new reference.
    unsafe { dict(&[(c"value", ref_load(object, NULL))]) }
}

unsafe extern "C" fn int_repr(object: Object) -> Object {
    string(&format!("Int({})", int_cell(object).load(SeqCst)))
}

unsafe extern "C" fn bool_load(object: Object, _: Object) -> Object {
    boolean(int_cell(object).load(SeqCst) != 0)
}

unsafe extern "C" fn bool_store(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention.
    let truth = unsafe { PyObject_IsTrue(value) };
    if truth < 0 {
        return NULL;
    }
    int_cell(object).store(truth.into(), SeqCst);
    none()
}

unsafe extern "C" fn bool_swap(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention.
    let truth = unsafe { PyObject_IsTrue(value) };
    if truth < 0 {
        return NULL;
    }
    boolean(int_cell(object).swap(truth.into(), SeqCst) != 0)
}

unsafe extern "C" fn bool_cas(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("compare_and_swap", args, count, keywords, &["old", "new"], 2, &mut out) {
            return NULL;
        }
        let (old, new) = (PyObject_IsTrue(out[0]), PyObject_IsTrue(out[1]));
        if old < 0 || new < 0 {
            return NULL;
        }
        boolean(int_cell(object).compare_exchange(old.into(), new.into(), SeqCst, SeqCst).is_ok())
    }
}

unsafe extern "C" fn bool_repr(object: Object) -> Object {
    string(if int_cell(object).load(SeqCst) != 0 { "Bool(True)" } else { "Bool(False)" })
}

fn ref_cell<'a>(object: Object) -> &'a Lock<Object> {
    // SAFETY: `object` is a Ref, alive as the caller's argument.
    unsafe { &(*object.cast::<RefObject>()).value }
}

unsafe extern "C" fn ref_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let Some(value) = one_optional(c"|O:Ref", args, kwargs) else { return NULL };
        let object = allocate::<RefObject>(class);
        if !object.is_null() {
            let value = if value.is_null() { none() } else { Py_NewRef(value) };
            std::ptr::write(&raw mut (*object).value, Lock::new(value));
        }
        object.cast()
    }
}

unsafe extern "C" fn ref_load(object: Object, _: Object) -> Object {
    // SAFETY: the reference is held while the lock is.
    unsafe { Py_NewRef(*ref_cell(object).lock()) }
}

unsafe extern "C" fn ref_swap(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention; the old reference goes to the caller.
    unsafe { std::mem::replace(&mut *ref_cell(object).lock(), Py_NewRef(value)) }
}

unsafe extern "C" fn ref_store(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention; the old object is let go after the lock.
    unsafe {
        let before = ref_swap(object, value);
        Py_DECREF(before);
    }
    none()
}

unsafe extern "C" fn ref_cas(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention; the old object is let go after the lock.
    unsafe {
        if !parse("compare_and_swap", args, count, keywords, &["old", "new"], 2, &mut out) {
            return NULL;
        }
        let mut cell = ref_cell(object).lock();
        if *cell != out[0] {
            return boolean(false);
        }
        let before = std::mem::replace(&mut *cell, Py_NewRef(out[1]));
        drop(cell);
        Py_DECREF(before);
        boolean(true)
    }
}

unsafe extern "C" fn ref_traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    let held = ref_cell(object).try_lock().map_or(NULL, |cell| *cell);
    // SAFETY: the collector's calling convention.
    unsafe {
        let answer = if held.is_null() { 0 } else { visit(held, arg) };
        if answer != 0 { answer } else { visit(Py_TYPE(object).cast(), arg) }
    }
}

unsafe extern "C" fn ref_clear(object: Object) -> std::ffi::c_int {
    // SAFETY: attached; the old object is let go after the lock.
    unsafe {
        let before = std::mem::replace(&mut *ref_cell(object).lock(), none());
        Py_XDECREF(before);
    }
    0
}

unsafe extern "C" fn ref_dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        Py_XDECREF(*ref_cell(object).lock());
        free(object);
    }
}

/// Adds the types to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let int = TypeSpec {
        name: c"offset.sync.atomic.Int",
        doc: c"Int(value=0)\n\nA 64-bit integer; wraps as Go's int64 does (Go: sync/atomic.Int64).",
        size: size_of::<IntObject>(),
        flags: 0,
        methods: vec![
            no_args(c"stats", int_stats, c"stats() -> dict\n\nThe present value."),
            no_args(c"load", int_load, c"load() -> int"),
            one_arg(c"store", int_store, c"store(value)"),
            one_arg(c"add", int_add, c"add(delta) -> int\n\nAdd; the new value."),
            one_arg(c"swap", int_swap, c"swap(new) -> int\n\nSet; the old value."),
            fast(c"compare_and_swap", int_cas, c"compare_and_swap(old, new) -> bool\n\nSet to new if it is old."),
            one_arg(c"and_", int_and, c"and_(mask) -> int\n\nBitwise and; the old value."),
            one_arg(c"or_", int_or, c"or_(mask) -> int\n\nBitwise or; the old value."),
        ],
        getters: vec![],
        slots: vec![slot!(Py_tp_new, int_new), slot!(Py_tp_dealloc, cell_dealloc), slot!(Py_tp_repr, int_repr)],
    };
    let boolean = TypeSpec {
        name: c"offset.sync.atomic.Bool",
        doc: c"Bool(value=False)\n\nA truth value (Go: sync/atomic.Bool).",
        size: size_of::<IntObject>(),
        flags: 0,
        methods: vec![
            no_args(c"stats", bool_stats, c"stats() -> dict\n\nThe present value."),
            no_args(c"load", bool_load, c"load() -> bool"),
            one_arg(c"store", bool_store, c"store(value)"),
            one_arg(c"swap", bool_swap, c"swap(new) -> bool\n\nSet; the old value."),
            fast(c"compare_and_swap", bool_cas, c"compare_and_swap(old, new) -> bool\n\nSet to new if it is old."),
        ],
        getters: vec![],
        slots: vec![slot!(Py_tp_new, bool_new), slot!(Py_tp_dealloc, cell_dealloc), slot!(Py_tp_repr, bool_repr)],
    };
    let reference = TypeSpec {
        name: c"offset.sync.atomic.Ref",
        doc: c"Ref(value=None)\n\nA reference to any object, compared by identity (Go: sync/atomic.Pointer).",
        size: size_of::<RefObject>(),
        flags: u64::from(Py_TPFLAGS_HAVE_GC as u32),
        methods: vec![
            no_args(c"stats", ref_stats, c"stats() -> dict\n\nThe present value."),
            no_args(c"load", ref_load, c"load()"),
            one_arg(c"store", ref_store, c"store(value)"),
            one_arg(c"swap", ref_swap, c"swap(new)\n\nSet; the old object."),
            fast(
                c"compare_and_swap",
                ref_cas,
                c"compare_and_swap(old, new) -> bool\n\nSet to new if it is the object old.",
            ),
            class_getitem(),
        ],
        getters: vec![],
        slots: vec![
            slot!(Py_tp_new, ref_new),
            slot!(Py_tp_dealloc, ref_dealloc),
            slot!(Py_tp_traverse, ref_traverse),
            slot!(Py_tp_clear, ref_clear),
        ],
    };
    // SAFETY: the slots fit the objects.
    [int, boolean, reference].into_iter().all(|spec| !unsafe { new_type(module, spec) }.is_null())
}
