//! Generations: each forked child is a new one, in which nothing that waited in the parent is ever woken.

#[cfg(not(loom))]
use crate::goroutine::Handle;
use std::sync::atomic::{AtomicU32, Ordering};

/// Written in a forked child only, where one thread lives; read everywhere.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The generation that lives in this process.
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// To be called in the parent right before a fork: no signal is sent on, no timer rings, no edge is handed out, no stack is taken or
/// given back, and no goroutine is listed or unlisted, until [`parent`] or [`child`]. The calling thread blocks all signals until then.
#[cfg(not(loom))]
pub fn prepare() {
    crate::signal::before_fork();
    std::mem::forget(crate::timer::FIRING.lock());
    std::mem::forget(crate::netpoll::DELIVERING.lock());
    crate::stack::before_fork();
    crate::scheduler::runtime().registry.before_fork();
    crate::trace::before_fork();
}

/// To be called in the parent right after a fork.
///
/// # Safety
/// The calling thread has called [`prepare`].
#[cfg(not(loom))]
pub unsafe fn parent() {
    // SAFETY: by contract.
    unsafe {
        unlock();
        crate::signal::after_fork();
    }
}

/// Gives back the locks that both sides have.
///
/// # Safety
/// As for [`parent`].
#[cfg(not(loom))]
unsafe fn unlock() {
    // SAFETY: `prepare` took the locks on this thread and forgot their guards.
    unsafe {
        crate::trace::after_fork();
        crate::scheduler::runtime().registry.after_fork();
        crate::stack::after_fork();
        crate::netpoll::DELIVERING.force_unlock();
        crate::timer::FIRING.force_unlock();
    }
}

/// To be called in the child right after a fork: the runtime is empty again and starts anew with the next goroutine.
/// The stack that this is called on, a goroutine's perhaps, is from now on that of a plain thread. `bury` is called with each
/// goroutine of the parent.
///
/// # Safety
/// The calling thread has called [`prepare`] in the parent, and is the only one of the process.
#[cfg(not(loom))]
pub unsafe fn child(bury: impl FnMut(&Handle)) {
    // SAFETY: by contract.
    unsafe { unlock() };
    crate::scheduler::goroutines().iter().for_each(bury);
    GENERATION.fetch_add(1, Ordering::Relaxed);
    crate::scheduler::start_over();
    crate::trace::start_over();
    // Last: signals come in again.
    // SAFETY: by contract.
    unsafe { crate::signal::start_over() };
}
