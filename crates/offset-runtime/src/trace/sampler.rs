//! Who looks at goroutines that make no progress: where is it?
//!
//! `asked` and `seen` of a machine are slices (see `Machine::slice`) that the sampler was asked to look at, and in which a stack was found.
//! The queue and whether there is a thread are under the lock, which is held for a few instructions.

use super::{EVENTS, FROZE, mode, recording, write};
use crate::goroutine::Goroutine;
use crate::host::host;
use crate::lock::{Condvar, Lock, global, spawn};
use crate::machine::{self, Machine};
use std::sync::atomic::Ordering;

struct Freeze {
    machine: &'static Machine,
    slice: u64,
    goroutine: u64,
}

struct Sampler {
    queue: Vec<Freeze>,
    /// There is a thread.
    runs: bool,
    /// Writers want spare chunks.
    chunks: bool,
}

global! {
    static SAMPLER: Lock<Sampler> = Lock::new(Sampler { queue: Vec::new(), runs: false, chunks: false });
}
global! {
    static WORK: Condvar = Condvar::new();
}

pub(super) fn start() {
    let mut sampler = SAMPLER.lock();
    // Without one stacks of what is frozen are seen later, when it goes on.
    sampler.runs = sampler.runs || spawn("offset-trace", 256 * 1024, work);
}

pub(super) fn stop() {
    let mut sampler = SAMPLER.lock();
    sampler.queue.clear();
    WORK.notify_one();
}

/// The recorder, which is locked, has few spare chunks.
pub(super) fn more_chunks() {
    let mut sampler = SAMPLER.lock();
    if sampler.runs && !sampler.chunks {
        sampler.chunks = true;
        WORK.notify_one();
    }
}

/// Makes spare chunks: writes to all of their memory, without a lock.
fn make_chunks() {
    while super::RECORDER.lock().wants_spare() {
        let chunk = std::sync::Arc::new(super::buffer::Chunk::new(0, 0, 0));
        super::RECORDER.lock().add_spare(chunk);
    }
}

/// The monitor finds that the goroutine on `machine` makes no progress.
pub(crate) fn frozen(machine: &'static Machine) {
    if !recording() {
        return;
    }
    let slice = machine.marks.slice.load(Ordering::Relaxed);
    if machine.marks.asked.swap(slice, Ordering::Relaxed) != slice {
        let goroutine = machine.marks.runs.load(Ordering::Relaxed);
        let mut sampler = SAMPLER.lock();
        sampler.queue.push(Freeze { machine, slice, goroutine });
        WORK.notify_one();
    }
}

fn work() {
    let mut sampler = SAMPLER.lock();
    loop {
        if let Some(freeze) = sampler.queue.pop() {
            drop(sampler);
            look(&freeze);
            sampler = SAMPLER.lock();
        } else if std::mem::take(&mut sampler.chunks) {
            drop(sampler);
            make_chunks();
            sampler = SAMPLER.lock();
        } else if recording() {
            WORK.wait(&mut sampler);
        } else {
            sampler.runs = false;
            return;
        }
    }
}

fn look(freeze: &Freeze) {
    let machine = freeze.machine;
    let stack = host().stack_of(freeze.goroutine, &|| machine.marks.slice.load(Ordering::Relaxed) == freeze.slice);
    let mode = mode();
    if stack != 0 && mode & EVENTS != 0 {
        machine.marks.seen.store(freeze.slice, Ordering::Relaxed);
        write(|buffer| buffer.number(mode, FROZE, freeze.goroutine, stack.into()));
    }
}

/// On its own stack, attached: the goroutine was frozen, and is about to go.
#[cold]
pub(super) fn look_at_oneself(goroutine: &Goroutine, mode: u64) {
    // SAFETY: machines are never freed.
    let Some(machine) = (unsafe { machine::this().as_ref() }) else { return };
    if machine.marks.seen.load(Ordering::Relaxed) == machine.marks.slice.load(Ordering::Relaxed) {
        return;
    }
    let stack = host().stack();
    if stack != 0 {
        // Where it ended up, not where it was: the upper half says so.
        write(|buffer| buffer.number(mode, FROZE, goroutine.id(), u64::from(stack) | 1 << 32));
    }
}

#[cfg(not(loom))]
pub(super) fn before_fork() {
    std::mem::forget(SAMPLER.lock());
}

#[cfg(not(loom))]
pub(super) unsafe fn after_fork() {
    // SAFETY: `before_fork` took it on this thread and forgot the guard.
    unsafe { SAMPLER.force_unlock() };
}

/// The thread stayed behind in the parent.
#[cfg(not(loom))]
pub(super) fn start_over() {
    let mut sampler = SAMPLER.lock();
    sampler.queue.clear();
    (sampler.runs, sampler.chunks) = (false, false);
    drop(sampler);
    // SAFETY: the child has one thread, so nobody uses what is overwritten.
    unsafe { std::ptr::write((&raw const WORK).cast_mut(), Condvar::new()) };
}
