//! Functions of `offset.runtime`.

use crate::error::*;
use crate::method::*;
use offset_runtime::{blocking, scheduler, stack};
use pyo3_ffi::*;

/// How long the exit waits for machines to let go of what is theirs.
#[cfg(Py_GIL_DISABLED)]
const SHED: std::time::Duration = std::time::Duration::from_secs(30);

unsafe extern "C" fn quiescent(_: Object, _: Object) -> Object {
    boolean(scheduler::quiescent())
}

unsafe extern "C" fn foreign_threads(_: Object, _: Object) -> Object {
    // SAFETY: attached. One of the states that are not ours is the caller's.
    unsafe {
        let foreign = crate::host::foreign_states();
        let caller = isize::from(scheduler::current().is_none());
        PyLong_FromSsize_t((foreign - caller).max(0))
    }
}

unsafe extern "C" fn lock_os_thread(_: Object, _: Object) -> Object {
    scheduler::lock_thread(true);
    none()
}

unsafe extern "C" fn unlock_os_thread(_: Object, _: Object) -> Object {
    if scheduler::current().is_some() && !scheduler::lock_thread(false) {
        return runtime_error("the goroutine is not locked to its thread; call lock_os_thread() before");
    }
    none()
}

/// A count of at least `least`; None with an exception set otherwise.
unsafe fn count(object: Object, least: i64, what: &str) -> Option<usize> {
    // SAFETY: attached; `object` is alive.
    let value = unsafe { PyLong_AsLongLong(object) };
    // SAFETY: attached.
    if value == -1 && unsafe { !PyErr_Occurred().is_null() } {
        return None;
    }
    if value < least {
        value_error(&format!("{what} must be at least {least}, got {value}"));
        return None;
    }
    Some(value as usize)
}

unsafe extern "C" fn set_max_threads(_: Object, limit: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { count(limit, 1, "the limit on threads") }
        .map_or(NULL, |limit| int(blocking::set_max_threads(limit) as u64))
}

unsafe extern "C" fn set_stack_size(_: Object, bytes: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { count(bytes, stack::MIN_STACK as i64, "the stack size") }
        .map_or(NULL, |bytes| int(stack::set_stack_size(bytes) as u64))
}

unsafe extern "C" fn gomaxprocs(_: Object, args: *const Object, given: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 1];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("gomaxprocs", args, given, keywords, &["n"], 0, &mut out) {
            return NULL;
        }
        if !out[0].is_null() && PyLong_AsLongLong(out[0]) == -1 && !PyErr_Occurred().is_null() {
            return NULL;
        }
    }
    int(scheduler::processors() as u64)
}

unsafe extern "C" fn stats(_: Object, _: Object) -> Object {
    let stats = scheduler::stats();
    let count = |value: usize| int(value as u64);
    let items = [
        (c"goroutines", count(stats.goroutines)),
        (c"spawned", int(stats.spawned)),
        (c"processors", count(stats.processors)),
        (c"machines", count(stats.machines)),
        (c"idle_machines", count(stats.idle_machines)),
        (c"stuck_machines", count(stats.stuck_machines)),
        (c"runnable", count(stats.runnable)),
        (c"switches", int(stats.switches)),
        (c"handoffs", int(stats.handoffs)),
        (c"moves", int(stats.moves)),
        (c"timers", count(stats.timers)),
        (c"descriptors", count(stats.descriptors)),
        (c"descriptor_waits", count(stats.descriptor_waits)),
        (c"blocking_calls", count(stats.blocking_calls)),
        (c"blocking_threads", count(stats.blocking_threads)),
        (c"contexts", count(stats.contexts)),
        (c"stack_size", count(stack::stack_size())),
        (c"thread_identity", string(crate::identity::decided().map_or("undecided", crate::identity::Identity::name))),
    ];
    // SAFETY: attached, new references.
    unsafe { dict(&items) }
}

unsafe extern "C" fn shutdown(_: Object, _: Object) -> Object {
    if scheduler::started() {
        // There the interpreter takes two milliseconds for each state that it finds, and more than a machine does.
        #[cfg(Py_GIL_DISABLED)]
        // SAFETY: attached.
        unsafe {
            let state = crate::shim::offset_detach();
            scheduler::shed(SHED);
            crate::shim::offset_attach(state);
        }
        scheduler::shutdown();
        // SAFETY: attached.
        unsafe { crate::host::adopt_no_more() };
    }
    none()
}

unsafe extern "C" fn started(_: Object, _: Object) -> Object {
    boolean(scheduler::started())
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        no_args(c"quiescent", quiescent, c"quiescent() -> bool\n\nWhether nothing can happen any more by the runtime's own doing."),
        no_args(c"foreign_threads", foreign_threads, c"foreign_threads() -> int\n\nHow many threads there are that are neither the runtime's nor the caller's."),
        no_args(c"lock_os_thread", lock_os_thread, c"lock_os_thread()\n\nKeep this goroutine on its OS thread (Go: runtime.LockOSThread)."),
        no_args(c"unlock_os_thread", unlock_os_thread, c"unlock_os_thread()\n\nUndo one lock_os_thread(). RuntimeError if there is none."),
        one_arg(c"set_max_threads", set_max_threads, c"set_max_threads(n) -> int\n\nLimit the threads for blocking calls; the previous limit. ValueError below 1."),
        one_arg(c"set_stack_size", set_stack_size, c"set_stack_size(bytes) -> int\n\nThe size of C stacks made from now on, at first 1 MiB (2 MiB on 3.11); the previous size. ValueError below 256 KiB."),
        fast(c"gomaxprocs", gomaxprocs, c"gomaxprocs(n=0) -> int\n\nHow many goroutines can run at once: one with the GIL, one a core without. n has no effect."),
        no_args(c"stats", stats, c"stats() -> dict\n\nCounters and gauges of the runtime."),
        no_args(c"shutdown", shutdown, c"shutdown()\n\nStop the machines, for good."),
        no_args(c"started", started, c"started() -> bool\n\nWhether a goroutine was ever started in this process."),
    ]
}
