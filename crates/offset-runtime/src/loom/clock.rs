//! A clock that stands still until the model lets it [`run`]. From then on what is to come comes at once: each wait for a
//! time moves it on by that time.

use crate::lock::atomic::{AtomicU64, Ordering};
use crate::lock::global;
use std::time::Duration;

/// A point in time.
pub type Instant = u64;

/// Until when a blocking operation may take: for ever when `None`.
pub type Deadline = Option<Instant>;

/// A deadline that lies ahead until the clock runs.
pub(crate) const LATER: Instant = 1_000;

/// The clock, and whether it runs. One word, read and written by operations that see the latest value: loom must know that
/// time is something that threads share.
const RUNS: u64 = 1 << 63;

global! {
    static NOW: AtomicU64 = AtomicU64::new(1);
}

/// Now.
pub fn now() -> Instant {
    NOW.fetch_add(0, Ordering::AcqRel) & !RUNS
}

/// For those who look on, which no model does.
pub fn coarse() -> Instant {
    0
}

pub(crate) fn runs() -> bool {
    NOW.fetch_add(0, Ordering::AcqRel) & RUNS != 0
}

/// Lets time pass, `LATER` to begin with. Who sleeps must be notified afterwards.
pub(crate) fn run() {
    NOW.fetch_max(LATER | RUNS, Ordering::AcqRel);
}

/// What only sheds contexts, which no model does.
pub(crate) fn pause(time: Duration) {
    skip(time);
}

pub(crate) fn skip(time: Duration) {
    NOW.fetch_add(time.as_nanos() as u64, Ordering::AcqRel);
}

/// The same in every execution.
pub(crate) fn seed() -> u64 {
    0x9E37_79B9_7F4A_7C15
}

/// The deadline that lies `duration` ahead.
pub fn after(_duration: Duration) -> Deadline {
    Some(LATER)
}

pub(crate) fn thread_time(_clock: i32) -> u64 {
    0
}

pub(crate) fn thread_runs(_clock: i32) -> bool {
    false
}

pub(crate) fn this_thread() -> i32 {
    0
}
