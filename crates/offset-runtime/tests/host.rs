//! What the runtime promises its host: waiting to attach is progress, an idle machine's thread names no context, and one that
//! sleeps keeps none.
//!
//! A process of its own, as the host is one for all; its tests look at counters, so they take turns.

#![allow(missing_docs)]

use offset_runtime::clock;
use offset_runtime::goroutine::{Goroutine, Handle, Status, WaitReason};
use offset_runtime::host::{Host, Plain, set_host};
use offset_runtime::lock::Lock;
use offset_runtime::scheduler;
use std::io::{PipeWriter, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    set_host(&Locked);
    alone
}

/// Taken by whoever attaches while `CONTENDED`, and held by the test then.
static INTERPRETER: Lock<()> = Lock::new(());
static CONTENDED: AtomicBool = AtomicBool::new(false);

fn attach() {
    if CONTENDED.load(Ordering::Relaxed) {
        drop(INTERPRETER.lock());
    }
}

/// What each OS thread has.
type PerThread = Lock<Vec<(ThreadId, usize)>>;

/// The goroutine that each thread's slot names.
static SLOTS: PerThread = Lock::new(Vec::new());

/// The context that each thread has kept from a goroutine that parked.
static KEPT: PerThread = Lock::new(Vec::new());

fn forget(what: &PerThread) {
    let thread = std::thread::current().id();
    what.lock().retain(|entry| entry.0 != thread);
}

/// `Plain`, but there is an interpreter lock to wait for, and threads have slots.
struct Locked;

// SAFETY: as `Plain`; the gate is opened by the test.
unsafe impl Host for Locked {
    fn context_new(&self, low: usize, base: usize, top: usize) -> usize {
        Plain.context_new(low, base, top)
    }
    fn contexts_delete(&self, contexts: &mut dyn Iterator<Item = usize>) {
        Plain.contexts_delete(contexts);
    }
    fn resume(&self, identity: usize) {
        forget(&SLOTS);
        SLOTS.lock().push((std::thread::current().id(), identity));
    }
    fn suspended(&self) {}
    fn release(&self) {
        forget(&KEPT);
    }
    fn unbind(&self) {
        forget(&KEPT);
        forget(&SLOTS);
    }
    fn run(&self, goroutine: &Goroutine) {
        forget(&KEPT);
        attach();
        Plain.run(goroutine);
    }
    fn park(&self, goroutine: &Goroutine) {
        KEPT.lock().push((std::thread::current().id(), goroutine.context()));
    }
    fn unpark(&self, _goroutine: &Goroutine) {
        forget(&KEPT);
        attach();
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

/// One in a call that nobody told the runtime of, and what ends the call.
fn blocked() -> (Handle, PipeWriter) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let goroutine = go(move || {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
    });
    (goroutine, writer)
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
    let _alone = alone();
    // One that blocks where nobody told the runtime: it is noticed, and that takes so long here.
    let handoffs = scheduler::stats().handoffs;
    let began = Instant::now();
    let (blocked, mut writer) = blocked();
    until("the processor is handed on", || scheduler::stats().handoffs > handoffs);
    let noticed = began.elapsed().min(Duration::from_millis(100));
    writer.write_all(&[1]).unwrap();
    join(&blocked);
    // One that starts and one that goes on wait to attach for much longer.
    let waits_undisturbed = |yields: u64| {
        let handoffs = scheduler::stats().handoffs;
        let switches = scheduler::stats().switches;
        let held = INTERPRETER.lock();
        CONTENDED.store(yields == 0, Ordering::Relaxed);
        let goroutine = go(move || {
            for _ in 0..yields {
                CONTENDED.store(true, Ordering::Relaxed);
                scheduler::gosched();
            }
        });
        until("it is resumed", || scheduler::stats().switches > switches + yields);
        std::thread::sleep(10 * noticed);
        CONTENDED.store(false, Ordering::Relaxed);
        drop(held);
        join(&goroutine);
        scheduler::stats().handoffs == handoffs
    };
    for yields in 0..2 {
        // The system may stop its thread before it waits, or after: one undisturbed time is enough.
        assert!((0..20).any(|_| waits_undisturbed(yields)), "it is rescued from");
    }
}

#[test]
fn the_thread_of_an_idle_machine_names_no_context() {
    let _alone = alone();
    let (blocked, mut writer) = blocked();
    // It runs on another machine, and ends the call: one of the two is idle then.
    let other = go(move || writer.write_all(&[1]).unwrap());
    join(&other);
    join(&blocked);
    until("all but one are idle", || {
        let stats = scheduler::stats();
        stats.stuck_machines == 0 && stats.idle_machines + 1 == stats.machines
    });
    // One that is about to sleep is idle already.
    until("no more than one thread names a context", || SLOTS.lock().len() <= 1);
}

#[test]
fn a_machine_that_sleeps_keeps_nothing() {
    let _alone = alone();
    for _ in 0..100 {
        let goroutine = go(|| {
            assert!(!scheduler::sleep(clock::after(Duration::from_secs(3600)), WaitReason::Sleep), "it is cancelled");
        });
        until("it parks", || goroutine.status() == Status::Waiting);
        until("nothing is kept", || KEPT.lock().is_empty());
        goroutine.cancel();
        join(&goroutine);
    }
}
