//! Tests of the runtime that hold for any number of processors; the executables beside this directory choose one. The host
//! is `Plain`: goroutines are closures. Tests of one executable run side by side in one runtime. What they share is under the
//! runtime's own lock: the thread sanitizer sees through that, and not through one of a library that it did not build.

#![expect(clippy::disallowed_types, reason = "tests do not fork")]

mod blocking;
mod chan;
mod fd;
mod goroutine;
mod model;
mod rescue;
mod select;
mod sync;
mod task;
mod timer;

use offset_runtime::clock;
use offset_runtime::goroutine::{Goroutine, Handle, WaitReason};
use offset_runtime::host::Plain;
use offset_runtime::scheduler;
use std::sync::Once;
use std::time::Duration;

/// Starts a goroutine.
fn go(work: impl FnOnce() + Send + 'static) -> Handle {
    static CONFIGURED: Once = Once::new();
    CONFIGURED.call_once(|| scheduler::set_processors(crate::PROCESSORS));
    scheduler::spawn(Plain::payload(work))
}

/// Waits for the end of a goroutine.
fn join(goroutine: &Handle) {
    scheduler::join(goroutine, after(60_000)).expect("a goroutine did not end within a minute");
}

/// Starts a party: a goroutine, or an OS thread. Gives what waits for its end.
fn start(thread: bool, work: impl FnOnce() + Send + 'static) -> Box<dyn FnOnce()> {
    if thread {
        let thread = std::thread::spawn(work);
        Box::new(move || thread.join().unwrap())
    } else {
        let goroutine = go(work);
        Box::new(move || join(&goroutine))
    }
}

/// A deadline so many milliseconds ahead.
fn after(milliseconds: u64) -> clock::Deadline {
    clock::after(Duration::from_millis(milliseconds))
}

/// Polls until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < limit, "not within a minute: {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn until_parked(goroutine: &Goroutine, reason: WaitReason) {
    until(reason.as_str(), || goroutine.wait_reason() == reason);
}
