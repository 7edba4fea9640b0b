//! What the models have in common.

use crate::goroutine::Handle;
use crate::host::Plain;
use crate::scheduler;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs `model` in every interleaving with a few preemptions.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    check_with(2, model);
}

/// As `check`, with so many preemptions unless `LOOM_MAX_PREEMPTIONS` says otherwise.
pub(crate) fn check_with(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// Makes the runtime. To be called before anything else.
pub(crate) fn runtime(processors: usize, moves: bool) -> &'static scheduler::Runtime {
    scheduler::set_processors(processors);
    scheduler::allow_moves(moves);
    scheduler::runtime()
}

/// Starts a goroutine.
pub(crate) fn go(work: impl FnOnce() + Send + 'static) -> Handle {
    scheduler::spawn(Plain::payload(work))
}

/// Starts a goroutine that will never give up its stack, and needs no thread of loom's.
pub(crate) fn go_straight(work: impl FnOnce() + Send + 'static) -> Handle {
    let handle = scheduler::prepare(Plain::payload(work));
    crate::switch::without_thread(handle.id());
    scheduler::start(&handle);
    handle
}

/// Starts an OS thread.
pub(crate) fn thread<R: 'static>(work: impl FnOnce() -> R + Send + 'static) -> loom::thread::JoinHandle<R> {
    loom::thread::spawn(work)
}

/// Waits for the end of a goroutine.
pub(crate) fn join(goroutine: &Handle) {
    assert!(scheduler::join(goroutine, None).is_ok());
}

/// Lets time pass, and machines notice it.
pub(crate) fn let_time_pass() {
    crate::clock::run();
    scheduler::runtime().poke();
}

/// Ends the threads of all machines. All goroutines have ended.
pub(crate) fn finish() {
    crate::clock::run();
    scheduler::shutdown();
    for machine in scheduler::runtime().idle_machines() {
        machine.nudge();
    }
    crate::lock::join_all();
}

/// Counts without adding to the interleavings.
#[derive(Clone, Default)]
pub(crate) struct Count(std::sync::Arc<AtomicU32>);

impl Count {
    pub(crate) fn add(&self, number: u32) -> u32 {
        self.0.fetch_add(number, Ordering::Relaxed)
    }

    pub(crate) fn subtract(&self, number: u32) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
