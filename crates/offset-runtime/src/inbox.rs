//! Where the handler of signals leaves what has come, and the side of the listeners takes it: what both touch, with nothing of
//! the system's, so that loom can look at it.
//!
//! Invariant: what [`Inbox::note`] has said true of is taken by somebody; once [`Inbox::retire`] has returned nothing is noted of
//! what it retired, and what was is there to be taken.

use crate::futex::kernel;
use crate::lock::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::lock::yield_now;

/// Signals, by their bits: that of signal `n` is `1 << (n - 1)`.
pub type Set = u64;

pub(crate) struct Inbox {
    /// What somebody listens to. Written by one side, read by handlers.
    wanted: AtomicU64,
    /// What has come and was not taken yet.
    pending: AtomicU64,
    /// Handlers that have not decided yet, or not noted the signal.
    at_work: AtomicU32,
    /// Counts what was noted; whoever waits sleeps on it.
    noted: AtomicU32,
}

impl Inbox {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Inbox {
            wanted: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            at_work: AtomicU32::new(0),
            noted: AtomicU32::new(0),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Inbox {
            wanted: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            at_work: AtomicU32::new(0),
            noted: AtomicU32::new(0),
        }
    }

    /// Notes that a signal has come, if somebody wants it; false otherwise. Called by handlers, between any two instructions.
    pub(crate) fn note(&self, signal: Set) -> bool {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence of `retire`: either we see that the signal is not wanted any more, or it sees us at work.
        fence(Ordering::SeqCst);
        let wanted = self.wanted.load(Ordering::Relaxed) & signal != 0;
        if wanted {
            // Release pairs with the Acquire of `take`.
            self.pending.fetch_or(signal, Ordering::Release);
            // Release pairs with the Acquire of `count`: who has seen this count sees the bit.
            self.noted.fetch_add(1, Ordering::Release);
            kernel::wake_one(&self.noted);
        }
        // Release pairs with the Acquire of `retire`.
        self.at_work.fetch_sub(1, Ordering::Release);
        wanted
    }

    /// Lets handlers note the signals of `set`.
    pub(crate) fn want(&self, set: Set) {
        // Before the actions are set, by system calls: a handler that finds its signal unwanted passes it on.
        self.wanted.fetch_or(set, Ordering::SeqCst);
    }

    /// Has handlers note the signals of `set` no more, and waits for those that are about to.
    pub(crate) fn retire(&self, set: Set) {
        self.wanted.fetch_and(!set, Ordering::Relaxed);
        // Pairs with the fence of `note`.
        fence(Ordering::SeqCst);
        // Acquire pairs with the Release of `note`.
        while self.at_work.load(Ordering::Acquire) != 0 {
            yield_now();
        }
    }

    /// What is wanted.
    pub(crate) fn wanted(&self) -> Set {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> Set {
        // Acquire pairs with the Release of `note`.
        self.pending.swap(0, Ordering::Acquire)
    }

    /// How often something was noted, for [`sleep`](Inbox::sleep): read before [`take`](Inbox::take).
    pub(crate) fn count(&self) -> u32 {
        // Acquire pairs with the Release of `note`.
        self.noted.load(Ordering::Acquire)
    }

    /// Sleeps until something was noted since the count was `seen`, or for no reason.
    pub(crate) fn sleep(&self, seen: u32) {
        kernel::sleep(&self.noted, seen, None);
    }

    /// Begins anew, in a forked child, where no handler is at work.
    pub(crate) fn clear(&self) {
        self.wanted.store(0, Ordering::SeqCst);
        self.pending.store(0, Ordering::Relaxed);
        self.at_work.store(0, Ordering::Relaxed);
    }
}
