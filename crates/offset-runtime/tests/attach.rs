//! Waiting to attach is progress: a host that takes its time over it makes the monitor hand nothing on.
//!
//! A process of its own, as the host is one for all and counters are looked at.

#![allow(missing_docs)]

use offset_runtime::clock;
use offset_runtime::goroutine::{Goroutine, Handle};
use offset_runtime::host::{Host, Plain, set_host};
use offset_runtime::scheduler;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A gate, open at first.
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap());
    }
}

static INTERPRETER: Gate = Gate { closed: Mutex::new(false), changed: Condvar::new() };

/// `Plain`, but to attach one must pass the gate, as who waits for an interpreter lock.
struct Locked;

// SAFETY: as `Plain`; the gate is opened by the test.
unsafe impl Host for Locked {
    fn context_new(&self, low: usize, base: usize, top: usize) -> usize {
        Plain.context_new(low, base, top)
    }
    fn contexts_delete(&self, contexts: &mut dyn Iterator<Item = usize>) {
        Plain.contexts_delete(contexts);
    }
    fn resume(&self, _context: usize, _identity: usize, _rebind: bool) {}
    fn suspended(&self) {}
    fn unbind(&self) {}
    fn run(&self, goroutine: &Goroutine) {
        INTERPRETER.pass();
        Plain.run(goroutine);
    }
    fn park(&self, _goroutine: &Goroutine) {}
    fn unpark(&self, _goroutine: &Goroutine) {
        INTERPRETER.pass();
    }
    fn may_move(&self, _pointer: usize, _base: usize) -> bool {
        true
    }
    fn frames_may_move(&self, _base: usize) -> bool {
        true
    }
    fn take_cancel(&self, goroutine: &Goroutine) -> bool {
        goroutine.cancelled()
    }
    fn thread_detach(&self) -> usize {
        0
    }
    fn thread_attach(&self, _detached: usize) {}
}

fn go(work: impl FnOnce() + Send + 'static) -> Handle {
    scheduler::spawn(Plain::payload(work))
}

fn join(goroutine: &Handle) {
    scheduler::join(goroutine, clock::after(Duration::from_secs(60))).expect("a goroutine did not end within a minute");
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_waits_to_attach_is_not_rescued_from() {
    set_host(&Locked);
    // One that blocks where nobody told the runtime: it is noticed, and that takes so long here.
    let call = Arc::new(Gate { closed: Mutex::new(true), changed: Condvar::new() });
    let began = Instant::now();
    let blocked = go({
        let call = call.clone();
        move || call.pass()
    });
    until("the processor is handed on", || scheduler::stats().handoffs == 1);
    let noticed = began.elapsed();
    call.set(false);
    join(&blocked);
    // One that starts and one that goes on wait to attach for much longer.
    for yields in 0..2_u64 {
        let handoffs = scheduler::stats().handoffs;
        let switches = scheduler::stats().switches;
        INTERPRETER.set(yields == 0);
        let goroutine = go(move || {
            for _ in 0..yields {
                INTERPRETER.set(true);
                scheduler::gosched();
            }
        });
        until("it is resumed", || scheduler::stats().switches > switches + yields);
        std::thread::sleep(10 * noticed);
        INTERPRETER.set(false);
        join(&goroutine);
        assert_eq!(scheduler::stats().handoffs, handoffs);
    }
}
