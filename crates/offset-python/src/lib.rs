//! The extension `offset._runtime`: CPython as the host of `offset-runtime`.
//!
//! `host` is what the core calls; `shim` is all that knows CPython's structs; `identity` and `scan` make moves possible; the
//! rest are types and functions, one file a concept, made by `method`. Importing the module starts nothing and changes
//! nothing: `set_up` does, at the first `go`.

mod atomic;
mod blocking;
mod bubble;
mod buffer;
mod callable;
mod cancel;
mod chan;
mod dump;
mod error;
mod fd;
mod file;
mod fork;
mod goroutine;
mod greenlet;
mod guard;
mod host;
mod http;
mod identity;
mod leaks;
mod lock;
mod mailbox;
mod method;
mod note;
mod object;
mod outside;
mod packet;
mod runtime;
mod scan;
mod scope;
mod select;
mod shim;
mod signal;
mod sync;
mod task;
mod timer;
mod trace;
mod waits;

use method::Object;
use pyo3_ffi::*;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;

/// Whether the first goroutine of this process has been asked for.
pub(crate) static STARTED: AtomicBool = AtomicBool::new(false);

/// What the first `go` of a process sets up.
pub(crate) fn set_up() {
    // SAFETY: attached, after the shim's own setup.
    let identity = unsafe { identity::install() } == identity::Identity::Virtual;
    offset_runtime::scheduler::allow_moves(identity && !PARALLEL);
    fork::install();
    guard::install();
}

/// Whether goroutines can run Python at once.
const PARALLEL: bool = cfg!(Py_GIL_DISABLED);

unsafe extern "C" fn exec(module: Object) -> c_int {
    // A thread may wait on a channel before the first goroutine starts, so the host is named here.
    // SAFETY: attached, before anything else of the shim is used; the answer is a constant.
    unsafe {
        // Later versions do not get here: the module's definition says so.
        if PyInterpreterState_Get() != PyInterpreterState_Main() {
            error::raise(PyExc_ImportError, "offset runs in the main interpreter only");
            return -1;
        }
        let refusal = shim::offset_setup();
        if !refusal.is_null() {
            error::raise(PyExc_ImportError, &std::ffi::CStr::from_ptr(refusal).to_string_lossy());
            return -1;
        }
    }
    offset_runtime::host::set_host(&host::Python);
    if cfg!(not(Py_3_12)) {
        // Its limit of 1000 calls is the only one, and sort keys that sort take 1.6 KB a call (tests/test_recursion.py).
        offset_runtime::stack::set_stack_size(2 << 20);
    }
    // `run` watches the runtime, and so makes it, before the first `go` sets up the rest.
    offset_runtime::scheduler::set_processors(if PARALLEL {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    } else {
        1
    });
    if PARALLEL {
        // Each thread state has heaps of its own, 200 to 300 KB that every collection looks through. The allocator gives a
        // region of them back to the system when memory of another one is freed, a while later.
        offset_runtime::scheduler::set_pool(128, 96);
    }
    // SAFETY: the module's exec slot, attached.
    let ok = unsafe {
        error::load()
            && goroutine::register(module)
            && scope::register(module)
            && chan::register(module)
            && select::register(module)
            && sync::register(module)
            && note::register(module)
            && mailbox::register(module)
            && task::register(module)
            && lock::register(module)
            && timer::register(module)
            && atomic::register(module)
            && fd::register(module)
            && file::register(module)
            && http::register(module)
    };
    if ok { 0 } else { -1 }
}

/// The module's entry point.
///
/// # Safety
/// Called by the interpreter's import, attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__runtime() -> *mut PyObject {
    let mut methods: Vec<PyMethodDef> = [
        callable::functions(),
        goroutine::functions(),
        scope::functions(),
        bubble::functions(),
        chan::functions(),
        select::functions(),
        note::functions(),
        http::functions(),
        task::functions(),
        timer::functions(),
        blocking::functions(),
        runtime::functions(),
        dump::functions(),
        leaks::functions(),
        waits::functions(),
        outside::functions(),
        signal::functions(),
        trace::functions(),
    ]
    .concat();
    // SAFETY: all zeroes end the table.
    methods.push(unsafe { std::mem::zeroed() });
    let mut slots = vec![PyModuleDef_Slot { slot: Py_mod_exec, value: exec as *mut c_void }];
    #[cfg(Py_3_12)]
    slots.push(PyModuleDef_Slot {
        slot: Py_mod_multiple_interpreters,
        value: Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED,
    });
    #[cfg(Py_3_13)]
    slots.push(PyModuleDef_Slot { slot: Py_mod_gil, value: Py_MOD_GIL_NOT_USED });
    slots.push(PyModuleDef_Slot { slot: 0, value: null_mut() });
    let definition = Box::leak(Box::new(PyModuleDef {
        m_base: PyModuleDef_HEAD_INIT,
        m_name: c"_runtime".as_ptr(),
        m_doc: c"The core of offset. Use the package's own modules.".as_ptr(),
        m_size: 0,
        m_methods: methods.leak().as_mut_ptr(),
        m_slots: slots.leak().as_mut_ptr(),
        m_traverse: None,
        m_clear: None,
        m_free: None,
    }));
    // SAFETY: the definition is leaked, as the interpreter keeps it.
    unsafe { PyModuleDef_Init(definition) }
}
