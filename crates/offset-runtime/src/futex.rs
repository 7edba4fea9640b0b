//! What a lock and a condition variable are made of: a word each, on which the kernel lets threads sleep.
//!
//! A lock's word says whether it is held and whether somebody may sleep on it. Who finds it held says that it is wanted before
//! it sleeps, and who frees a wanted one wakes one sleeper, who takes it as wanted again: others may sleep still. A condition's
//! word counts notifications: who sleeps has read it while it held the lock under which it is notified.

use crate::lock::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const FREE: u32 = 0;
const LOCKED: u32 = 1;
/// Locked, and somebody may sleep.
const WANTED: u32 = 2;
/// Looks at a lock before sleeping: its holder needs a few instructions.
const SPINS: u32 = if cfg!(loom) { 1 } else { 100 };

macro_rules! constructor {
    ($value:expr) => {
        #[cfg(not(loom))]
        pub(crate) const fn new() -> Self {
            Self(AtomicU32::new($value))
        }

        #[cfg(loom)]
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new($value))
        }
    };
}

/// A lock's word.
pub(crate) struct Word(AtomicU32);

impl Word {
    constructor!(FREE);

    /// Waits until it is free and takes it.
    #[inline]
    pub(crate) fn lock(&self) {
        if !self.try_lock() {
            self.wait();
        }
    }

    /// Takes it if it is free.
    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        // Acquire pairs with the Release of `unlock`: what the last holder wrote is seen.
        self.0.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..SPINS {
            if self.0.load(Ordering::Relaxed) == FREE && self.try_lock() {
                return;
            }
            std::hint::spin_loop();
        }
        // Acquire: as in `try_lock`. It may be taken as wanted though nobody else waits, which costs one call at its end.
        while self.0.swap(WANTED, Ordering::Acquire) != FREE {
            kernel::sleep(&self.0, WANTED, None);
        }
    }

    /// Gives it back. The caller holds it.
    #[inline]
    pub(crate) fn unlock(&self) {
        // Release pairs with the Acquire of whoever takes it next.
        if self.0.swap(FREE, Ordering::Release) == WANTED {
            kernel::wake_one(&self.0);
        }
    }
}

/// A condition's word.
pub(crate) struct Sequence(AtomicU32);

impl Sequence {
    constructor!(0);

    pub(crate) fn notify_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        kernel::wake_one(&self.0);
    }

    /// Gives the lock back, sleeps until notified, for `time` at most, or for no reason, and takes the lock again; true if the
    /// time is over. The caller holds the lock.
    pub(crate) fn wait(&self, lock: &Word, time: Option<Duration>) -> bool {
        // Read under the lock: who notifies after it was given back changes the word, and the kernel does not sleep.
        let seen = self.0.load(Ordering::Relaxed);
        lock.unlock();
        let timed_out = kernel::sleep(&self.0, seen, time);
        lock.lock();
        timed_out
    }
}

#[cfg(loom)]
pub(crate) use crate::loom::kernel;
#[cfg(not(loom))]
pub(crate) use crate::os as kernel;
