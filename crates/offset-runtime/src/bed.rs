//! Where the monitor sleeps while no goroutine runs.
//!
//! No wake-up is missed: who puts a goroutine on a machine says so under the lock of its processor, and calls [`busy`] under it;
//! the monitor says that it sleeps, and looks at each processor under its lock then. Whoever comes second sees the other. It is the
//! same with who finds, under the lock of the ledger, that an errand is to be run.

use crate::clock::Instant;
use crate::host::host;
use crate::lock::atomic::{AtomicBool, Ordering};
use crate::lock::{Condvar, Lock, global};
use crate::scheduler::Runtime;
use crate::vigil;
use std::time::Duration;

/// How often the sleeper looks for errands.
const GLANCE: Duration = Duration::from_millis(250);

struct Bed {
    /// Somebody sleeps, or is about to. Set to false under the lock by who wakes it.
    asleep: AtomicBool,
    /// A leaf: taken with a processor locked, and held over nothing. When the sleeper was called.
    lock: Lock<Instant>,
    alarm: Condvar,
}

global! {
    static BED: Bed = Bed { asleep: AtomicBool::new(false), lock: Lock::new(0), alarm: Condvar::new() };
}

/// A goroutine runs, or is about to, or a machine has to be sent on an errand: the monitor must watch again. Called with the processor
/// locked, or the ledger.
#[inline]
pub(crate) fn busy() {
    if BED.asleep.load(Ordering::Relaxed) {
        wake();
    }
}

#[cold]
fn wake() {
    let mut called_at = BED.lock.lock();
    BED.asleep.store(false, Ordering::Relaxed);
    *called_at = vigil::call();
    BED.alarm.notify_one();
}

/// Sleeps until somebody is busy; not at all if a goroutine runs, or there is an errand.
pub(crate) fn sleep(runtime: &Runtime) {
    // Relaxed: seen by whoever locks a processor after we have looked at it.
    BED.asleep.store(true, Ordering::Relaxed);
    // Not asked under the lock: `busy` takes it with a processor locked.
    if !any_running(runtime) && !runtime.any_errand() {
        let mut lock = BED.lock.lock();
        // A call before that found nobody asleep.
        *lock = 0;
        while BED.asleep.load(Ordering::Relaxed) {
            if !host().keeps_accounts() {
                BED.alarm.wait(&mut lock);
            } else if BED.alarm.wait_for(&mut lock, GLANCE) {
                // Other threads of the host may leave something, too, and say nothing. Not asked under the lock.
                drop(lock);
                let left = runtime.any_errand();
                lock = BED.lock.lock();
                if left {
                    break;
                }
            }
        }
        vigil::woken(std::mem::take(&mut *lock));
    }
    BED.asleep.store(false, Ordering::Relaxed);
}

/// Whether a goroutine runs or could.
pub(crate) fn any_running(runtime: &Runtime) -> bool {
    runtime.processors.iter().any(|processor| {
        let state = processor.lock();
        state.running || state.queue.len() > 0
    })
}

/// In a forked child nobody sleeps yet.
#[cfg(not(loom))]
pub(crate) fn start_over() {
    let bed = Bed { asleep: AtomicBool::new(false), lock: Lock::new(0), alarm: Condvar::new() };
    // SAFETY: the child has one thread, so nobody uses what is overwritten.
    unsafe { std::ptr::write((&raw const BED).cast_mut(), bed) };
}
