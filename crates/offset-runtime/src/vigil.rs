//! Staying awake for a little while before a sleep, where that has paid of late: to be woken takes longer than many a wait.
//!
//! A vigil in vain makes the next ones rarer, one that pays makes them the rule again. So whoever waits long soon goes to sleep at
//! once, at the price of a vigil in so many. There are none where only one thread can run at a time.
//!
//! One takes about as long as a sleep costs, so who keeps it in vain pays twice at the most. That is two wake-ups, with what it takes
//! to fall asleep and to call. A wake-up takes 5 us on one machine and 50 on another, so it is measured where machines, the monitor
//! and the threads of the pool sleep ([`woken`]); who sleeps in the poller is not told when he was called.

use crate::clock::{Instant, now};
use crate::lock::yield_now;
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What a wake-up is taken to take, at the least and at most.
const SHORTEST: Instant = 10_000;
const LONGEST: Instant = 50_000;
/// How long a vigil takes at most.
pub(crate) const MOST: Instant = 2 * LONGEST;
/// Looks between two at the clock, and turns between two looks.
const LOOKS: u32 = 16;
const TURNS: u32 = 8;
/// After vigils in vain one in two to the power of so many is kept.
const RAREST: u32 = 8;

/// How long a wake-up takes, of late; 0 before the first one.
static WAKING: AtomicU64 = AtomicU64::new(0);

/// The time of a call, for [`woken`].
#[inline]
pub(crate) fn call() -> Instant {
    // A model's clock is something that its threads share.
    if cfg!(loom) { 0 } else { now() }
}

/// The caller was called at that time, and is awake; 0 if it was not called.
#[inline]
pub(crate) fn woken(called_at: Instant) {
    if called_at != 0 {
        // Of two at the same time one is lost.
        let next = learned(WAKING.load(Ordering::Relaxed), now().saturating_sub(called_at));
        WAKING.store(next, Ordering::Relaxed);
    }
}

/// What a wake-up is taken to take after one that `took` so long.
fn learned(known: Instant, took: Instant) -> Instant {
    // Down fast and up slowly: what has come late waited for a processor, too, and then a vigil would have kept others from it.
    let next = match known {
        0 => took.min(LONGEST),
        _ if took < known => known - (known - took) / 4,
        _ => known + (took.min(LONGEST) - known) / 8,
    };
    next.max(SHORTEST)
}

/// Looks again and again, for as long as two wake-ups take, whether it has happened; whether it has. At once false where only one thread can
/// run at a time.
fn watch(mut happened: impl FnMut() -> bool) -> bool {
    if !several_threads_can_run() {
        return false;
    }
    let until = now() + 2 * WAKING.load(Ordering::Relaxed).max(SHORTEST);
    while now() < until {
        for _ in 0..LOOKS {
            if happened() {
                return true;
            }
            for _ in 0..TURNS {
                std::hint::spin_loop();
            }
        }
    }
    false
}

/// See the module.
#[derive(Default)]
pub struct Vigil {
    /// How many in a row were in vain.
    vain: AtomicU32,
    /// How many more are left out.
    skip: AtomicU32,
}

impl Vigil {
    /// One that is kept the first time.
    pub const fn new() -> Vigil {
        Vigil { vain: AtomicU32::new(0), skip: AtomicU32::new(0) }
    }

    /// Looks again and again whether it has happened; whether it has. At once false when no vigil is kept.
    pub fn keep(&self, mut happened: impl FnMut() -> bool) -> bool {
        if cfg!(loom) {
            yield_now();
            return happened();
        }
        let skip = self.skip.load(Ordering::Relaxed);
        if skip > 0 {
            self.skip.store(skip - 1, Ordering::Relaxed);
            return false;
        }
        if watch(happened) {
            self.vain.store(0, Ordering::Relaxed);
            return true;
        }
        let vain = (self.vain.load(Ordering::Relaxed) + 1).min(RAREST);
        self.vain.store(vain, Ordering::Relaxed);
        self.skip.store((1 << vain) - 1, Ordering::Relaxed);
        false
    }
}

fn several_threads_can_run() -> bool {
    // No `OnceLock`: to count them takes a while, and a child that is forked meanwhile would wait for the end of that for ever.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut count = COUNT.load(Ordering::Relaxed);
    if count == 0 {
        count = std::thread::available_parallelism().map_or(1, NonZero::get);
        COUNT.store(count, Ordering::Relaxed);
    }
    count > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many looks are taken.
    fn looks(vigil: &Vigil, pays: bool) -> u32 {
        let mut looks = 0;
        let paid = vigil.keep(|| {
            looks += 1;
            pays
        });
        assert_eq!(paid, pays && looks > 0);
        looks
    }

    #[test]
    fn what_a_wakeup_takes_is_learned() {
        let after = |known, wakeups: &mut dyn Iterator<Item = Instant>| wakeups.fold(known, learned);
        let quiet = after(0, &mut std::iter::repeat_n(25_000, 1_000));
        assert_eq!(quiet, 25_000);
        // One in eight has waited for a processor.
        let mixed = after(quiet, &mut (0..1_000).map(|round| if round % 8 == 0 { 9_000_000 } else { 25_000 }));
        assert!((25_000..=30_000).contains(&mixed), "{mixed}");
        let late = after(mixed, &mut std::iter::repeat_n(9_000_000, 1_000));
        assert!((49_000..=LONGEST).contains(&late), "{late}");
        assert_eq!(after(late, &mut std::iter::repeat_n(1_000, 20)), SHORTEST);
    }

    #[test]
    fn those_in_vain_become_rare_and_one_that_pays_makes_them_the_rule() {
        if !several_threads_can_run() {
            return;
        }
        let vigil = Vigil::new();
        let kept = (0..10_000).filter(|_| looks(&vigil, false) > 0).count();
        assert!((30..60).contains(&kept), "{kept}");
        let left_out = (0..).take_while(|_| looks(&vigil, true) == 0).count();
        assert!(left_out < 256, "{left_out}");
        assert!((0..10).all(|_| looks(&vigil, true) == 1));
        assert!(looks(&vigil, false) > 1);
    }
}
