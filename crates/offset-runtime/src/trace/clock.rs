//! The clock of events: the processor's own counter where all cores share one, else the monotonic clock. A read of the first
//! costs half of one of the second.

use crate::clock::now;

/// What the event clock and the monotonic clock said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) ticks: u64,
    pub(crate) nanos: u64,
}

impl Anchor {
    pub(crate) fn here() -> Anchor {
        Anchor { ticks: ticks(), nanos: now() }
    }

    /// How many nanoseconds after this moment `ticks` was, seen from a `later` one.
    pub(crate) fn nanos_to(&self, ticks: u64, later: &Anchor) -> u64 {
        let span = u128::from(later.ticks.saturating_sub(self.ticks).max(1));
        let nanos = u128::from(later.nanos.saturating_sub(self.nanos));
        (u128::from(ticks.saturating_sub(self.ticks)) * nanos / span) as u64
    }
}

#[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
mod counter {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::sync::atomic::{AtomicBool, Ordering};

    static STEADY: AtomicBool = AtomicBool::new(false);

    /// Looks whether the counter runs at one speed, and on all cores alike.
    pub(crate) fn choose() {
        // SAFETY: every x86-64 has the instruction. Compilers differ on whether it is unsafe.
        #[allow(unused_unsafe)]
        let steady = unsafe { __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0 };
        STEADY.store(steady, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn ticks() -> u64 {
        if STEADY.load(Ordering::Relaxed) {
            // SAFETY: every x86-64 has the instruction.
            unsafe { _rdtsc() }
        } else {
            crate::clock::now()
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
mod counter {
    pub(crate) use crate::clock::now as ticks;

    pub(crate) fn choose() {}
}

pub(crate) use counter::{choose, ticks};
