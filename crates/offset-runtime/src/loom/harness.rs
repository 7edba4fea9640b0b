//! What the models have in common.

use crate::goroutine::{Goroutine, Handle};
use crate::host::{Host, Plain, set_host};
use crate::machine;
use crate::scheduler;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Runs `model` in every interleaving with a few preemptions.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    check_with(2, model);
}

/// As `check`, with so many preemptions unless `LOOM_MAX_PREEMPTIONS` says otherwise.
pub(crate) fn check_with(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    set_host(&Keeper);
    builder.check(move || {
        kept().clear();
        ACCOUNTS.set(false);
        model();
    });
}

/// Which machine keeps the host from which goroutine that parked, by their addresses. No model waits while it is locked.
static KEPT: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<(usize, usize)>> {
    KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

crate::lock::global! {
    // Touched by whoever may come too early or too late, so that loom tries both.
    static ORDER: crate::lock::atomic::AtomicUsize = crate::lock::atomic::AtomicUsize::new(0);
}

thread_local! {
    // All threads of a model are one of the system's.
    /// Whether the host keeps accounts in this model.
    static ACCOUNTS: Cell<bool> = const { Cell::new(false) };
}

crate::lock::global! {
    // The machine, by its address, for which something is left to do; 0 if there is none.
    static LEFT: crate::lock::Lock<usize> = crate::lock::Lock::new(0);
}

/// Leaves something to do to a machine. The model calls this at its beginning with 0: the host keeps accounts.
pub(crate) fn leave_to(machine: usize) {
    ACCOUNTS.set(true);
    *LEFT.lock() = machine;
}

/// Whether that is not done yet.
pub(crate) fn left() -> bool {
    *LEFT.lock() != 0
}

/// `Plain`, but a machine keeps the host between goroutines, and no other may run one that it has kept it from.
struct Keeper;

impl Keeper {
    fn enter(&self, goroutine: &Goroutine) {
        self.release();
        let goroutine = std::ptr::from_ref(goroutine).addr();
        assert!(kept().iter().all(|entry| entry.1 != goroutine), "another machine keeps the host from it");
    }
}

// SAFETY: as `Plain`; the rest only takes notes.
unsafe impl Host for Keeper {
    fn context_new(&self, low: usize, base: usize, top: usize) -> usize {
        Plain.context_new(low, base, top)
    }
    fn contexts_delete(&self, contexts: &mut dyn Iterator<Item = usize>) {
        Plain.contexts_delete(contexts);
    }
    fn keeps_accounts(&self) -> bool {
        ACCOUNTS.get()
    }
    fn account(&self) -> usize {
        machine::this().addr()
    }
    fn owes(&self, account: usize) -> bool {
        *LEFT.lock() == account
    }
    fn errand(&self) -> Option<Handle> {
        let handle = scheduler::prepare(Plain::payload(|| {
            let left = std::mem::take(&mut *LEFT.lock());
            assert!(left == 0 || left == machine::this().addr(), "it is done on another machine");
        }));
        crate::switch::without_thread(handle.id());
        Some(handle)
    }
    fn resume(&self, identity: usize) {
        Plain.resume(identity);
    }
    fn suspended(&self) {}
    fn release(&self) {
        let machine = machine::this().addr();
        ORDER.fetch_add(1, crate::lock::atomic::Ordering::Relaxed);
        kept().retain(|entry| entry.0 != machine);
    }
    fn unbind(&self) {
        self.release();
    }
    fn run(&self, goroutine: &Goroutine) {
        self.enter(goroutine);
        Plain.run(goroutine);
    }
    fn park(&self, goroutine: &Goroutine) {
        kept().push((machine::this().addr(), std::ptr::from_ref(goroutine).addr()));
    }
    fn unpark(&self, goroutine: &Goroutine) {
        self.enter(goroutine);
    }
    fn may_move(&self, pointer: usize, base: usize) -> bool {
        Plain.may_move(pointer, base)
    }
    fn frames_may_move(&self, base: usize) -> bool {
        Plain.frames_may_move(base)
    }
    fn take_cancel(&self, goroutine: &Goroutine) -> bool {
        Plain.take_cancel(goroutine)
    }
    fn thread_detach(&self) -> usize {
        0
    }
    fn thread_attach(&self, _detached: usize) {}
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

/// A goroutine that is never started, for a model that passes it around; to be given to `scheduler::abandon`.
pub(crate) fn go_nowhere() -> Handle {
    scheduler::prepare(Plain::payload(|| ()))
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
