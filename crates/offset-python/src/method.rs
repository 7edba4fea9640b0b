//! How raw types and functions are made: tables of methods, heap types, arguments, durations.
//!
//! What can park is a raw method on purpose: PyO3 counts attachment an OS thread on entry and exit, which a park in between
//! would unbalance. A single way for all types is simpler than two.

use crate::error::{raise, value_error};
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::bubble;
use offset_runtime::clock::Deadline;
use pyo3_ffi::*;
use std::ffi::CStr;
use std::ptr::null_mut;

pub(crate) type Object = *mut PyObject;

/// A method without arguments.
pub(crate) type NoArgs = unsafe extern "C" fn(Object, Object) -> Object;
/// A method with positional and keyword arguments.
pub(crate) type Fast = unsafe extern "C" fn(Object, *const Object, Py_ssize_t, Object) -> Object;

pub(crate) fn no_args(name: &'static CStr, method: NoArgs, doc: &'static CStr) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunction: method },
        ml_flags: METH_NOARGS,
        ml_doc: doc.as_ptr(),
    }
}

pub(crate) fn one_arg(name: &'static CStr, method: NoArgs, doc: &'static CStr) -> PyMethodDef {
    PyMethodDef { ml_flags: METH_O, ..no_args(name, method, doc) }
}

pub(crate) fn fast(name: &'static CStr, method: Fast, doc: &'static CStr) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunctionFastWithKeywords: method },
        ml_flags: METH_FASTCALL | METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }
}

/// `Type[...]` in annotations.
pub(crate) fn class_getitem() -> PyMethodDef {
    unsafe extern "C" fn alias(class: Object, item: Object) -> Object {
        // SAFETY: plain API call.
        unsafe { Py_GenericAlias(class, item) }
    }
    PyMethodDef { ml_flags: METH_O | METH_CLASS, ..no_args(c"__class_getitem__", alias, c"For annotations.") }
}

pub(crate) fn getter(
    name: &'static CStr,
    get: unsafe extern "C" fn(Object, *mut std::ffi::c_void) -> Object,
    doc: &'static CStr,
) -> PyGetSetDef {
    PyGetSetDef { name: name.as_ptr(), get: Some(get), set: None, doc: doc.as_ptr(), closure: null_mut() }
}

/// What a heap type is made of.
pub(crate) struct TypeSpec {
    pub name: &'static CStr,
    pub doc: &'static CStr,
    pub size: usize,
    pub flags: u64,
    pub methods: Vec<PyMethodDef>,
    pub getters: Vec<PyGetSetDef>,
    pub slots: Vec<(std::ffi::c_int, *mut std::ffi::c_void)>,
}

/// Makes a heap type and adds it to the module; null with an exception set if that fails.
///
/// # Safety
/// Attached; the slots hold functions of the types that their numbers ask for, for objects of `size` bytes.
pub(crate) unsafe fn new_type(module: Object, spec: TypeSpec) -> *mut PyTypeObject {
    let mut methods = spec.methods;
    // SAFETY: all zeroes end the tables.
    methods.push(unsafe { std::mem::zeroed() });
    let mut getters = spec.getters;
    // SAFETY: as above.
    getters.push(unsafe { std::mem::zeroed() });
    let mut slots: Vec<PyType_Slot> = spec.slots.into_iter().map(|(slot, pfunc)| PyType_Slot { slot, pfunc }).collect();
    slots.push(PyType_Slot { slot: Py_tp_methods, pfunc: methods.leak().as_mut_ptr().cast() });
    slots.push(PyType_Slot { slot: Py_tp_getset, pfunc: getters.leak().as_mut_ptr().cast() });
    slots.push(PyType_Slot { slot: Py_tp_doc, pfunc: spec.doc.as_ptr().cast_mut().cast() });
    slots.push(PyType_Slot { slot: 0, pfunc: null_mut() });
    let mut type_spec = PyType_Spec {
        name: spec.name.as_ptr(),
        basicsize: spec.size as i32,
        itemsize: 0,
        flags: (Py_TPFLAGS_DEFAULT | spec.flags) as u32,
        slots: slots.leak().as_mut_ptr(),
    };
    // SAFETY: the tables are leaked, since the type points into them; types live as long as the process.
    unsafe {
        let made = PyType_FromSpec(&mut type_spec);
        if made.is_null() || PyModule_AddType(module, made.cast()) < 0 {
            return null_mut();
        }
        made.cast()
    }
}

/// Sorts the arguments of a call into `out` by `names`; the first `required` must be there. False with a TypeError set
/// otherwise. The references are borrowed.
///
/// # Safety
/// Attached; `args`, `count` and `keywords` are those of a `METH_FASTCALL | METH_KEYWORDS` call.
pub(crate) unsafe fn parse(
    function: &str,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
    names: &[&str],
    required: usize,
    out: &mut [Object],
) -> bool {
    let count = count as usize;
    if count > names.len() {
        let plural = if names.len() == 1 { "" } else { "s" };
        raise(
            // SAFETY: a constant of the interpreter.
            unsafe { PyExc_TypeError },
            &format!("{function}() takes at most {} argument{plural}, {count} were given", names.len()),
        );
        return false;
    }
    for (index, slot) in out.iter_mut().enumerate().take(count) {
        // SAFETY: `count` arguments are there.
        *slot = unsafe { *args.add(index) };
    }
    // SAFETY: a tuple of strings or null, by the calling convention.
    let extra = if keywords.is_null() { 0 } else { unsafe { PyTuple_GET_SIZE(keywords) } };
    for index in 0..extra {
        // SAFETY: as above; the values follow the positional ones.
        let (name, value) = unsafe { (text(PyTuple_GET_ITEM(keywords, index)), *args.add(count + index as usize)) };
        match names.iter().position(|known| *known == name) {
            Some(at) if out[at].is_null() => out[at] = value,
            Some(_) => {
                // SAFETY: a constant of the interpreter.
                raise(unsafe { PyExc_TypeError }, &format!("{function}() got two values for its argument '{name}'"));
                return false;
            }
            None => {
                let known = names.join(", ");
                // SAFETY: a constant of the interpreter.
                let error = unsafe { PyExc_TypeError };
                raise(error, &format!("{function}() has no argument '{name}'; it takes {known}"));
                return false;
            }
        }
    }
    if let Some(missing) = (0..required).find(|&index| out[index].is_null()) {
        // SAFETY: a constant of the interpreter.
        raise(unsafe { PyExc_TypeError }, &format!("{function}() needs its argument '{}'", names[missing]));
        return false;
    }
    true
}

/// The text of a `str`; empty, without an exception, for anything else.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn text(object: Object) -> String {
    let mut size = 0;
    // SAFETY: by contract; the buffer belongs to the string and is copied at once.
    unsafe {
        let data = PyUnicode_AsUTF8AndSize(object, &mut size);
        if data.is_null() {
            PyErr_Clear();
            return String::new();
        }
        String::from_utf8_lossy(std::slice::from_raw_parts(data.cast(), size as usize)).into_owned()
    }
}

/// A new `str`, null with an exception set when there is no memory.
pub(crate) fn string(text: &str) -> Object {
    // SAFETY: the bytes are copied; callers are attached, as all of this crate's Python-facing code is.
    unsafe { PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as Py_ssize_t) }
}

/// A new reference to None.
pub(crate) fn none() -> Object {
    // SAFETY: None is there as long as the interpreter.
    unsafe { Py_NewRef(Py_None()) }
}

/// A new reference to True or False.
pub(crate) fn boolean(value: bool) -> Object {
    // SAFETY: plain API call, attached.
    unsafe { PyBool_FromLong(value.into()) }
}

/// Seconds, as a float, an integer or a timedelta, in nanoseconds; negative ones stay negative. None with an exception set
/// for anything else.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn nanoseconds(object: Object) -> Option<i64> {
    // SAFETY: by contract.
    let seconds = unsafe {
        if PyFloat_CheckExact(object) != 0 {
            PyFloat_AS_DOUBLE(object)
        } else if PyFloat_Check(object) != 0
            || PyLong_Check(object) != 0
            || !(*Py_TYPE(object)).tp_as_number.is_null() && (*(*Py_TYPE(object)).tp_as_number).nb_float.is_some()
        {
            let seconds = PyFloat_AsDouble(object);
            if seconds == -1.0 && !PyErr_Occurred().is_null() {
                return None;
            }
            seconds
        } else {
            let total = PyObject_GetAttrString(object, c"total_seconds".as_ptr());
            if total.is_null() {
                PyErr_Clear();
                let kind = CStr::from_ptr((*Py_TYPE(object)).tp_name).to_string_lossy();
                raise(PyExc_TypeError, &format!("a duration is a number of seconds or a timedelta, not {kind}"));
                return None;
            }
            let seconds = PyObject_CallNoArgs(total);
            Py_DECREF(total);
            if seconds.is_null() {
                return None;
            }
            let value = PyFloat_AsDouble(seconds);
            Py_DECREF(seconds);
            if value == -1.0 && !PyErr_Occurred().is_null() {
                return None;
            }
            value
        }
    };
    if seconds.is_nan() {
        value_error("a duration must be a number of seconds, not NaN");
        return None;
    }
    // The cast saturates: 292 years stand for all that is longer.
    Some((seconds * 1e9).round() as i64)
}

/// The deadline of a `timeout` argument that may be missing or None. The inner None means for ever; the outer one that an
/// exception is set.
///
/// # Safety
/// Attached; `timeout` is null or alive.
pub(crate) unsafe fn deadline(timeout: Object) -> Option<Deadline> {
    // SAFETY: by contract.
    if timeout.is_null() || unsafe { Py_IsNone(timeout) } != 0 {
        return Some(None);
    }
    // SAFETY: by contract.
    let nanos = unsafe { nanoseconds(timeout) }?;
    if nanos == i64::MAX {
        return Some(None);
    }
    Some(Some(if nanos <= 0 { 0 } else { bubble::now().saturating_add(nanos as u64) }))
}

/// The deadline of a call that takes nothing but `timeout=None`.
///
/// # Safety
/// As for [`parse`].
pub(crate) unsafe fn only_timeout(
    function: &str,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Option<Deadline> {
    if count == 0 && keywords.is_null() {
        return Some(None);
    }
    let mut out = [null_mut(); 1];
    // SAFETY: by contract.
    unsafe {
        if !parse(function, args, count, keywords, &["timeout"], 0, &mut out) {
            return None;
        }
        deadline(out[0])
    }
}

/// A new dictionary of names and values, whose references it takes over.
///
/// # Safety
/// Attached; the values are new references or null.
pub(crate) unsafe fn dict(items: &[(&CStr, Object)]) -> Object {
    // SAFETY: by contract.
    unsafe {
        let dict = PyDict_New();
        for (name, value) in items {
            if !dict.is_null() && !value.is_null() {
                PyDict_SetItemString(dict, name.as_ptr(), *value);
            }
            Py_XDECREF(*value);
        }
        dict
    }
}

/// A new `int`.
pub(crate) fn int(value: u64) -> Object {
    // SAFETY: plain API call, attached.
    unsafe { PyLong_FromUnsignedLongLong(value) }
}

/// Runs `work` while no other thread runs such a section of `object`; with the GIL that is so anyway. If `work` waits or runs
/// Python, the section may end in between.
///
/// # Safety
/// Attached; `object` is alive.
#[inline]
pub(crate) unsafe fn exclusive<R>(object: Object, work: impl FnOnce() -> R) -> R {
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: by contract; the section lies in this frame and ends before it.
    unsafe {
        let mut section = std::mem::MaybeUninit::<PyCriticalSection>::zeroed();
        PyCriticalSection_Begin(section.as_mut_ptr(), object);
        let result = work();
        PyCriticalSection_End(section.as_mut_ptr());
        result
    }
    #[cfg(not(Py_GIL_DISABLED))]
    {
        let _ = object;
        work()
    }
}

/// Allocates an object of `class`, all zeroes behind its head.
///
/// # Safety
/// Attached; `class` is one of this crate's types.
pub(crate) unsafe fn allocate<T>(class: *mut PyTypeObject) -> *mut T {
    // SAFETY: by contract.
    unsafe { PyType_GenericAlloc(class, 0).cast() }
}

/// Frees an object of one of this crate's heap types, whose fields are gone already.
///
/// # Safety
/// Attached; called from its dealloc.
pub(crate) unsafe fn free(object: Object) {
    // SAFETY: by contract; a heap type's instance holds a reference to its type.
    unsafe {
        let class = Py_TYPE(object);
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        Py_DECREF(class.cast());
    }
}

/// A slot's function as the untyped pointer that a table wants.
macro_rules! slot {
    ($slot:expr, $function:expr) => {
        ($slot, $function as *mut std::ffi::c_void)
    };
}
pub(crate) use slot;

/// No object.
pub(crate) const NULL: Object = null_mut();
