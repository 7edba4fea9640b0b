//! Forks: no timer rings and no stack is looked at while the process forks; the child starts with an empty runtime.
//!
//! In the child, before CPython's own clean-up frees the thread states that stayed behind, our chunks are cut out of them:
//! they are no memory that CPython may free.

use crate::shim;
use offset_runtime::{fork, scheduler};
use std::sync::atomic::{AtomicBool, Ordering};

static INSTALLED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn prepare() {
    fork::prepare();
    crate::scan::before_fork();
    crate::greenlet::before_fork();
}

unsafe extern "C" fn parent() {
    // SAFETY: after `prepare`, on the same thread.
    unsafe {
        crate::greenlet::after_fork();
        crate::scan::after_fork();
        fork::parent();
    }
}

unsafe extern "C" fn child() {
    let here = scheduler::current().map_or(0, |goroutine| goroutine.context());
    // SAFETY: after `prepare`, on the only thread of the new process, where the other goroutines' states will never run again.
    unsafe {
        crate::greenlet::after_fork();
        crate::scan::after_fork();
        shim::offset_bytecode_child(here as *mut _, crate::host::base());
        fork::child(|goroutine| {
            let context = goroutine.context();
            if context != 0 && context != here {
                shim::offset_context_cut(context as *mut _, goroutine.stack_base() as *mut _);
            }
        });
    }
    crate::host::forget_states();
    crate::outside::close();
    crate::trace::start_over();
    crate::STARTED.store(false, Ordering::Release);
}

/// Installs the handlers, once a process and its children.
pub(crate) fn install() {
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handlers are functions of this library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    }
}
