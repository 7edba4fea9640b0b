//! Generations: each forked child is a new one, in which nothing that waited in the parent is ever woken.

use std::sync::atomic::{AtomicU32, Ordering};

/// Written in a forked child only, where one thread lives; read everywhere.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The generation that lives in this process.
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Takes what a fork must not cut in half: no timer fires while it is held.
pub struct Prepared(#[allow(dead_code)] std::mem::ManuallyDrop<parking_lot::MutexGuard<'static, ()>>);

/// To be called in the parent right before a fork.
#[cfg(not(loom))]
pub fn prepare() -> Prepared {
    Prepared(std::mem::ManuallyDrop::new(crate::timer::FIRING.lock()))
}

/// To be called in the parent right after a fork.
#[cfg(not(loom))]
pub fn parent(prepared: Prepared) {
    drop(std::mem::ManuallyDrop::into_inner(prepared.0));
}

/// To be called in the child right after a fork: the runtime is empty again and starts anew with the next goroutine.
/// The stack that this is called on, a goroutine's perhaps, is from now on that of a plain thread.
#[cfg(not(loom))]
pub fn child(prepared: Prepared) {
    drop(std::mem::ManuallyDrop::into_inner(prepared.0));
    GENERATION.fetch_add(1, Ordering::Relaxed);
    crate::scheduler::start_over();
}
