//! What may be started: a function whose call runs it.
//!
//! A call of a coroutine function or a generator function runs nothing of it, and a goroutine would end at once without a word.

use crate::error::type_error;
use crate::method::*;
use crate::shim;
use crate::shim::Py_XDECREF;
use pyo3_ffi::*;

/// Whether what `name` starts can be started by calling `function`; false with a TypeError set.
///
/// # Safety
/// Attached; `function` is alive.
pub(crate) unsafe fn can_be_called(name: &str, function: Object) -> bool {
    // SAFETY: by contract.
    let (callable, flags) = unsafe { (PyCallable_Check(function) != 0, shim::offset_function_flags(function)) };
    let runs = flags & (CO_COROUTINE | CO_ASYNC_GENERATOR | CO_GENERATOR) == 0;
    if !callable || !runs {
        // SAFETY: by contract.
        type_error(&unsafe { refusal(name, function, flags) });
    }
    callable && runs
}

/// Why not, and what to do.
unsafe fn refusal(name: &str, function: Object, flags: std::ffi::c_int) -> String {
    // SAFETY: by contract of `can_be_called`.
    let (kind, called) = unsafe {
        let qualified = shim::offset_function_name(function);
        let called = if qualified.is_null() { String::new() } else { text(qualified) };
        Py_XDECREF(qualified);
        (std::ffi::CStr::from_ptr((*Py_TYPE(function)).tp_name).to_string_lossy(), called)
    };
    if flags & CO_COROUTINE != 0 {
        format!(
            "{name} needs a function to call, and '{called}' is a coroutine function, which runs only when it is awaited; \
             write it without async and await, or give {name} a function that calls asyncio.run({called}())"
        )
    } else if flags != 0 {
        format!(
            "{name} needs a function to call, and '{called}' is a generator function, which runs only while somebody iterates; \
             have it send on a channel what it yields"
        )
    } else if kind == "coroutine" {
        format!("{name} needs a function to call, not a coroutine; asyncio.run() in a function of its own runs one")
    } else {
        format!("{name} needs a function to call, not {kind}: write {name}(f, x), not {name}(f(x))")
    }
}

unsafe extern "C" fn check_callable(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("check_callable", args, count, keywords, &["name", "fn"], 2, &mut out)
            || !can_be_called(&text(out[0]), out[1])
        {
            return NULL;
        }
    }
    none()
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![fast(
        c"check_callable",
        check_callable,
        c"check_callable(name, fn)\n\nRaise TypeError if what is called name cannot start fn by calling it.",
    )]
}
