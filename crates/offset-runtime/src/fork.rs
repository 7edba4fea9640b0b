//! Generations: each forked child is a new one, in which nothing that waited in the parent is ever woken.

use std::sync::atomic::{AtomicU32, Ordering};

/// Written in a forked child only, where one thread lives; read everywhere.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The generation that lives in this process.
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// To be called in the parent right before a fork: no timer rings until [`parent`] or [`child`].
#[cfg(not(loom))]
pub fn prepare() {
    std::mem::forget(crate::timer::FIRING.lock());
}

/// To be called in the parent right after a fork.
///
/// # Safety
/// The calling thread has called [`prepare`].
#[cfg(not(loom))]
pub unsafe fn parent() {
    // SAFETY: `prepare` took the lock on this thread and forgot its guard.
    unsafe { crate::timer::FIRING.force_unlock() };
}

/// To be called in the child right after a fork: the runtime is empty again and starts anew with the next goroutine.
/// The stack that this is called on, a goroutine's perhaps, is from now on that of a plain thread.
///
/// # Safety
/// The calling thread has called [`prepare`] in the parent, and is the only one of the process.
#[cfg(not(loom))]
pub unsafe fn child() {
    // SAFETY: as in `parent`.
    unsafe { crate::timer::FIRING.force_unlock() };
    GENERATION.fetch_add(1, Ordering::Relaxed);
    crate::scheduler::start_over();
}
