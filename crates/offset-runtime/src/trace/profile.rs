//! How long goroutines wait, and whose locks they wait for: Go's block and mutex profiles.
//!
//! The core measures and chooses which waits count; the host keeps them by stack. A wait shorter than the rate counts now and then, and
//! for more than itself, so that sums are right on average.

use super::{BLOCK, MUTEX, change};
use crate::goroutine::{Goroutine, WaitReason};
use crate::host::host;
use crate::park::Claim;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Waits, where they ended.
    Block,
    /// Waits for locks, where the lock was given up.
    Mutex,
}

/// Nanoseconds, 0 for none.
static BLOCK_RATE: AtomicU64 = AtomicU64::new(0);
/// One in so many, 0 for none.
static MUTEX_FRACTION: AtomicU64 = AtomicU64::new(0);
static DICE: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);

/// One wait in `nanos` nanoseconds of waiting counts; 1 for all, 0 for none. Gives what it was.
pub fn set_block_rate(nanos: u64) -> u64 {
    let before = BLOCK_RATE.swap(nanos, Ordering::Relaxed);
    change(|mode| if nanos > 0 { mode | BLOCK } else { mode & !BLOCK });
    before
}

/// One wait for a lock in `fraction` counts; 1 for all, 0 for none. None leaves it. Gives what it was.
pub fn set_mutex_fraction(fraction: Option<u64>) -> u64 {
    let Some(fraction) = fraction else { return MUTEX_FRACTION.load(Ordering::Relaxed) };
    let before = MUTEX_FRACTION.swap(fraction, Ordering::Relaxed);
    change(|mode| if fraction > 0 { mode | MUTEX } else { mode & !MUTEX });
    before
}

/// A random number (an unguarded xorshift: two threads may get the same one, which does no harm).
fn roll() -> u64 {
    let mut dice = DICE.load(Ordering::Relaxed);
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    DICE.store(dice, Ordering::Relaxed);
    dice
}

/// How many waits one of `nanos` stands for, and how long they were together; None if it does not count.
fn weigh(nanos: u64, rate: u64, dice: u64) -> Option<(f64, u64)> {
    if rate == 0 {
        return None;
    }
    if nanos >= rate {
        return Some((1.0, nanos));
    }
    if nanos == 0 || dice % rate >= nanos {
        return None;
    }
    Some((rate as f64 / nanos as f64, rate))
}

/// On its stack, attached: `goroutine` has waited.
#[cold]
pub(super) fn blocked(goroutine: &Goroutine, nanos: u64) {
    let counts = !matches!(
        goroutine.last_reason(),
        WaitReason::None
            | WaitReason::Sleep
            | WaitReason::Blocking
            | WaitReason::Io
            | WaitReason::Note
            | WaitReason::Await
    );
    if counts && let Some((count, nanos)) = weigh(nanos, BLOCK_RATE.load(Ordering::Relaxed), roll()) {
        host().profile(Profile::Block, count, nanos);
    }
}

/// Since when the goroutine has waited whose wait for a lock `claim` has ended; 0 if that is not known. Before it is woken.
pub(crate) fn waiters_since(claim: &Claim) -> u64 {
    if super::mode() & MUTEX == 0 {
        return 0;
    }
    match claim {
        // SAFETY: parked and claimed: it stays where it is until the claimer has made it ready.
        Claim::Parked(goroutine) => unsafe { (**goroutine).notes.waits_since.load(Ordering::Relaxed) },
        _ => 0,
    }
}

/// On any stack, attached: a lock was handed on to one that waited since then.
pub(crate) fn handed_on(since: u64) {
    let fraction = MUTEX_FRACTION.load(Ordering::Relaxed);
    if since != 0 && fraction != 0 && roll().is_multiple_of(fraction) {
        let nanos = crate::clock::now().saturating_sub(since);
        host().profile(Profile::Mutex, fraction as f64, nanos.saturating_mul(fraction));
    }
}

#[cfg(test)]
mod tests {
    use super::weigh;

    #[test]
    fn a_wait_as_long_as_the_rate_counts_for_itself() {
        assert_eq!(weigh(1_000, 1_000, 5), Some((1.0, 1_000)));
        assert_eq!(weigh(7, 1, u64::MAX), Some((1.0, 7)));
    }

    #[test]
    fn shorter_ones_count_on_average() {
        let (mut count, mut nanos) = (0.0, 0);
        for dice in 0..1_000 {
            if let Some((counts, lasts)) = weigh(10, 1_000, dice) {
                count += counts;
                nanos += lasts;
            }
        }
        assert!((count - 1_000.0_f64).abs() < 1e-6);
        assert_eq!(nanos, 10_000);
    }

    #[test]
    fn without_a_rate_nothing_counts() {
        assert_eq!(weigh(1_000, 0, 0), None);
        assert_eq!(weigh(0, 1_000, 0), None);
    }
}
