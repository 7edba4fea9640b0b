//! CPython as the host of the runtime: thread states as contexts, attach and detach, moves, signals.
//!
//! Each machine has a thread state of its own (`BASE`), attached only to make and delete the contexts of goroutines, because
//! those calls allocate, and an allocation under tracemalloc asks for the state of the OS thread. Otherwise machines never
//! touch Python between goroutines.

use crate::shim;
use crate::shim::{Py_DECREF, PyErr_Clear};
use offset_runtime::goroutine::{Goroutine, Handle};
use offset_runtime::host::Host;
use pyo3_ffi::*;
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicUsize, Ordering};

/// The host.
pub(crate) struct Python;

/// Thread states that are ours: contexts, and those of machines and pool threads. Never more than there are: one is counted once
/// it is made and until it is about to go, so that no foreign thread is ever overlooked.
static STATES: AtomicIsize = AtomicIsize::new(0);
/// How many were about to go so far.
static GONE: AtomicUsize = AtomicUsize::new(0);

/// To be called before a state of ours is deleted.
pub(crate) fn state_goes() {
    STATES.fetch_sub(1, Ordering::SeqCst);
    // After the count and before the deletion: pairs with `foreign_states`.
    GONE.fetch_add(1, Ordering::SeqCst);
}

/// In a forked child all states but the caller's go.
pub(crate) fn forget_states() {
    STATES.store(0, Ordering::SeqCst);
    ADOPTING.store(0, Ordering::SeqCst);
}

/// How many thread states the interpreter has that are not ours.
///
/// # Safety
/// Attached.
pub(crate) unsafe fn foreign_states() -> isize {
    loop {
        let gone = GONE.load(Ordering::SeqCst);
        let ours = STATES.load(Ordering::SeqCst);
        // SAFETY: by contract.
        let all = unsafe { shim::offset_count_threads(PyInterpreterState_Main()) };
        // Otherwise one may have been counted as ours and not been there any more.
        if GONE.load(Ordering::SeqCst) == gone {
            return all - ours;
        }
    }
}

thread_local! {
    static BASE: Cell<*mut PyThreadState> = const { Cell::new(null_mut()) };
}

/// The calling machine's own state; null on other threads.
pub(crate) fn base() -> *mut PyThreadState {
    BASE.with(Cell::get)
}

/// How many threads make a state for themselves at the moment, and whether that is still allowed.
static ADOPTING: AtomicUsize = AtomicUsize::new(0);
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Makes a thread state for this OS thread, which has none, and has it prepared before anybody may take it away. Once the
/// interpreter exits this does not return.
pub(crate) fn adopt_thread_with(prepare: impl FnOnce(*mut PyThreadState)) -> *mut PyThreadState {
    // Pairs with `adopt_no_more`: one of the two sees the other.
    if ADOPTING.fetch_add(1, Ordering::SeqCst) & CLOSED != 0 {
        ADOPTING.fetch_sub(1, Ordering::SeqCst);
        loop {
            std::thread::park();
        }
    }
    // SAFETY: the main interpreter lives until the last of these calls has ended; the call needs no attached state.
    let state = unsafe { PyThreadState_New(PyInterpreterState_Main()) };
    STATES.fetch_add(1, Ordering::SeqCst);
    prepare(state);
    ADOPTING.fetch_sub(1, Ordering::SeqCst);
    state
}

/// The same, with nothing to prepare.
pub(crate) fn adopt_thread() -> *mut PyThreadState {
    adopt_thread_with(|_| {})
}

/// The interpreter is about to exit: from now on nobody makes a thread state. It would be one too many for an interpreter that has
/// counted them (tests/test_exit.py), or that is gone.
///
/// # Safety
/// Attached.
pub(crate) unsafe fn adopt_no_more() {
    ADOPTING.fetch_or(CLOSED, Ordering::SeqCst);
    // Under tracemalloc they need the GIL.
    // SAFETY: attached.
    unsafe {
        let state = shim::offset_detach();
        while ADOPTING.load(Ordering::SeqCst) != CLOSED {
            std::thread::yield_now();
        }
        shim::offset_attach(state);
    }
}

/// Runs `work` with this machine's own thread state attached.
fn with_base<R>(work: impl FnOnce() -> R) -> R {
    let base = base();
    // SAFETY: the state is this thread's own; the slot may name a goroutine's, so it is bound anew.
    unsafe {
        shim::offset_release();
        shim::offset_bind_thread(base);
        shim::offset_attach(base);
        shim::offset_refcounts_first(base);
        let result = work();
        shim::offset_detach();
        shim::offset_unbind_thread();
        result
    }
}

/// Attaches a goroutine's context.
///
/// # Safety
/// As for `offset_enter`.
#[inline]
unsafe fn enter(goroutine: &Goroutine, context: *mut PyThreadState) {
    // SAFETY: by contract.
    if unsafe { shim::offset_enter(context) } != 0 && offset_runtime::trace::recording() {
        offset_runtime::trace::attached_late(goroutine);
    }
}

/// Whether a module is loaded that remembers thread states by their address, and what belonged to them: `_decimal` does.
/// tests/test_locals.py fails if such a state is used again.
unsafe fn remembers_contexts() -> bool {
    static NAME: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
    // SAFETY: attached; the name is kept for ever, the dictionary is borrowed.
    unsafe {
        let mut name = NAME.load(Ordering::Acquire);
        if name.is_null() {
            // Another thread has the same one.
            name = PyUnicode_InternFromString(c"_decimal".as_ptr());
            NAME.store(name, Ordering::Release);
        }
        PyDict_Contains(PyImport_GetModuleDict(), name) == 1
    }
}

// SAFETY: `run` returns when the goroutine's function has; nothing unwinds: exceptions are Python's, and the forced unwinding
// of an exiting interpreter ends in the shim's frames.
unsafe impl Host for Python {
    fn machine_start(&self) {
        crate::guard::arm_thread();
        BASE.with(|base| base.set(adopt_thread()));
    }

    fn machine_stop(&self) {
        let base = BASE.with(|base| base.replace(null_mut()));
        // SAFETY: this thread's own state, used for the last time.
        unsafe {
            shim::offset_bind_thread(base);
            shim::offset_attach(base);
            crate::greenlet::machine_ends();
            shim::offset_refcounts_leave();
            state_goes();
            shim::offset_thread_end(base);
        }
        crate::guard::disarm_thread();
    }

    fn context_new(&self, low: usize, base: usize, top: usize) -> usize {
        let chunk = base;
        let context = with_base(|| {
            // SAFETY: the ranges are the stack's, made just now.
            unsafe {
                shim::offset_context_new(
                    PyInterpreterState_Main(),
                    low,
                    low as *mut _,
                    base - low,
                    chunk as *mut _,
                    top - chunk,
                )
            }
        });
        if !context.is_null() {
            STATES.fetch_add(1, Ordering::SeqCst);
        }
        context as usize
    }

    fn contexts_delete(&self, contexts: &mut dyn Iterator<Item = usize>) {
        with_base(|| {
            let mut contexts = contexts.peekable();
            while let Some(context) = contexts.next() {
                let context = context as *mut PyThreadState;
                shim::offset_memory_settle();
                state_goes();
                // SAFETY: its goroutine has ended, and this machine ran it last.
                unsafe {
                    // One of them looks.
                    if contexts.peek().is_some() {
                        shim::offset_memory_apart(context);
                    }
                    shim::offset_context_delete(context);
                }
            }
        });
    }

    fn keeps_accounts(&self) -> bool {
        cfg!(Py_GIL_DISABLED)
    }

    fn account(&self) -> usize {
        shim::offset_refcounts_account()
    }

    fn owes(&self, account: usize) -> bool {
        // SAFETY: by the trait's rule the machine is kept at rest, or this is its thread: no state of it is deleted meanwhile.
        unsafe { shim::offset_refcounts_owed(account) != 0 }
    }

    fn errand(&self) -> Option<Handle> {
        with_base(crate::goroutine::errand)
    }

    fn resume(&self, identity: usize) {
        shim::offset_set_identity(identity);
    }

    fn suspended(&self) {
        shim::offset_set_identity(0);
    }

    fn release(&self) {
        // SAFETY: by contract.
        unsafe { shim::offset_release() };
    }

    fn taken(&self) -> bool {
        shim::offset_taken() != 0
    }

    fn unbind(&self) {
        // SAFETY: by contract; then this thread's slot only is written.
        unsafe {
            shim::offset_release();
            shim::offset_unbind_thread();
        }
    }

    fn run(&self, goroutine: &Goroutine) {
        let context = goroutine.context() as *mut PyThreadState;
        // SAFETY: the context is this goroutine's. It is reset right before use and not after: once it is detached, an exiting
        // interpreter may free it (tests/test_exit.py). It may be attached here still, by the goroutine that used it last. The
        // object goes before `finish`, as its end may run Python; from then on the goroutine has none.
        unsafe {
            shim::offset_context_reset(context);
            enter(goroutine, context);
            shim::offset_refcounts_first(context);
            offset_runtime::scheduler::attached(goroutine);
            crate::goroutine::main(goroutine);
            Py_DECREF(crate::goroutine::end(goroutine));
            crate::greenlet::ends();
            if shim::offset_context_finish(context) == 0 || remembers_contexts() {
                goroutine.spoil();
            }
            shim::offset_leave(context);
        }
    }

    fn park(&self, goroutine: &Goroutine) {
        // SAFETY: attached, as who parks is.
        unsafe {
            crate::greenlet::leaves(goroutine);
            shim::offset_leave(goroutine.context() as *mut _);
        }
    }

    fn unpark(&self, goroutine: &Goroutine) {
        let context = goroutine.context() as *mut PyThreadState;
        // SAFETY: left by `park`.
        unsafe {
            enter(goroutine, context);
            shim::offset_refcounts_first(context);
            crate::greenlet::comes(goroutine);
        }
    }

    fn stack(&self) -> u32 {
        crate::trace::stack()
    }

    fn stack_of(&self, goroutine: u64, still: &dyn Fn() -> bool) -> u32 {
        crate::trace::stack_of(goroutine, still)
    }

    fn profile(&self, profile: offset_runtime::trace::Profile, count: f64, nanos: u64) {
        crate::trace::profile(profile, count, nanos);
    }

    fn may_move(&self, pointer: usize, base: usize) -> bool {
        crate::scan::may_move(pointer, base)
    }

    fn frames_may_move(&self, base: usize) -> bool {
        crate::scan::frames_may_move(base)
    }

    fn take_cancel(&self, goroutine: &Goroutine) -> bool {
        crate::cancel::take_cancel(goroutine)
    }

    fn keep_cancel(&self, goroutine: &Goroutine) {
        crate::cancel::keep_cancel(goroutine);
    }

    fn thread_detach(&self) -> usize {
        // SAFETY: attached, as who waits is.
        unsafe { shim::offset_detach() as usize }
    }

    fn thread_attach(&self, detached: usize) {
        // SAFETY: what `thread_detach` gave.
        unsafe { shim::offset_attach(detached as *mut _) };
    }

    fn handles_signals(&self) -> bool {
        offset_runtime::os::is_main_thread()
    }

    fn check_signals(&self) -> bool {
        // SAFETY: attached.
        unsafe { PyErr_CheckSignals() < 0 }
    }

    fn defer_exception(&self) {
        // SAFETY: attached, with an exception set.
        unsafe {
            let raised = crate::error::take_raised();
            if raised.is_null() {
                return;
            }
            // An instance travels in a class whose instance it is, as in `cancel::throw`. No lock is held here.
            let mut class = PyObject_CallOneArg(crate::error::CARRIER.load(Ordering::Relaxed), raised);
            if class.is_null() {
                PyErr_Clear();
                class = Py_NewRef(Py_TYPE(raised).cast());
            }
            shim::offset_raise_async(PyThread_get_thread_ident(), class);
            Py_DECREF(class);
            Py_DECREF(raised);
        }
    }
}

unsafe extern "C" {
    fn PyThread_get_thread_ident() -> std::ffi::c_ulong;
}
