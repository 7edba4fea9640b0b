//! The pool for calls that block: threads of their own, made on demand, gone after a while without work.
//!
//! A thread is idle (and sleeps) or works; those that work are limited. Jobs beyond the limit queue in order. A job owns all that
//! it needs, so its caller may give it up at any time. The thread that became idle last is the first to work again: its memory is
//! still in the caches, and those that are not needed any more sleep long enough to go away. One that has worked stays awake for a
//! little while where the next job tends to come soon (`vigil`).
//!
//! All of [`State`] is under the pool's lock.

use crate::error::WaitError;
use crate::goroutine::WaitReason;
use crate::lock::{Condvar, Guard, Lock, spawn};
use crate::sync::Note;
use crate::vigil::{self, Vigil};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const IDLE_LIFE: Duration = Duration::from_secs(5);
/// The limit until [`set_max_threads`] says otherwise.
const LIMIT: usize = 512;

/// What is to be done.
pub type Work = Box<dyn FnOnce() + Send>;

/// The same, and the note that says that it is.
type Job = (Work, Arc<Note>);

pub(crate) struct Pool {
    state: Lock<State>,
    /// Calls whose end has not been told yet.
    untold: AtomicUsize,
    /// How many jobs are queued, for who looks without the lock.
    queued: AtomicUsize,
    /// Of threads that have nothing to do.
    vigil: Vigil,
}

/// Where an idle thread sleeps. Never freed, as whoever calls it may be late; used again by a later thread.
pub(crate) struct Bed {
    wakeup: Condvar,
    /// It has been taken off the list, to look for a job. Under the pool's lock.
    called: Cell<bool>,
    /// When it was rung; 0 if it was not. For `vigil` only.
    rung_at: AtomicU64,
}

// SAFETY: the cell is under the pool's lock.
unsafe impl Sync for Bed {}

impl Bed {
    /// Calls who sleeps here and has been taken off the list.
    pub(crate) fn ring(&self) {
        self.rung_at.store(vigil::call(), Ordering::Relaxed);
        self.wakeup.notify_one();
    }
}

struct State {
    jobs: VecDeque<Job>,
    /// Calls that are queued or running.
    calls: usize,
    threads: usize,
    /// The beds of the threads that sleep, the latest last.
    idle: Vec<&'static Bed>,
    /// Beds without a thread.
    spare: Vec<&'static Bed>,
    /// Threads that are about to look for a job: called, new, done with the last one, or awake for the next. Each looks at the
    /// queue under the lock once it counts no more.
    coming: usize,
    limit: usize,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool {
            state: Lock::new(State {
                jobs: VecDeque::new(),
                calls: 0,
                threads: 0,
                idle: Vec::new(),
                spare: Vec::new(),
                coming: 0,
                limit: LIMIT,
            }),
            untold: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            vigil: Vigil::new(),
        }
    }

    /// A call is under way for ever, of which machines await the end.
    #[cfg(loom)]
    pub(crate) fn pretend(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a call may still wake somebody.
    pub(crate) fn busy(&self) -> bool {
        // Acquire pairs with the Release of the thread that did the last call: whom it woke is in a queue.
        self.untold.load(Ordering::Acquire) > 0
    }

    /// Calls that are queued or running, and threads.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.calls, state.threads)
    }
}

/// Limits the calls that run at once, at least one; gives the previous limit. What runs goes on.
pub fn set_max_threads(limit: usize) -> usize {
    let pool = &crate::scheduler::runtime().blocking;
    let mut state = pool.state.lock();
    let before = std::mem::replace(&mut state.limit, limit.max(1));
    for _ in 0..state.jobs.len() {
        match pool.staff(&mut state) {
            Staffed::No => break,
            Staffed::Yes => {}
            Staffed::By(bed) => bed.ring(),
        }
    }
    before
}

/// Runs a job on a thread of the pool and sets its note then. Gives it back undone if no thread can be had.
pub fn submit(job: Job) -> Result<(), Job> {
    if let Some(bed) = queue(job)? {
        bed.ring();
    }
    Ok(())
}

/// Has a thread of the pool do a goroutine's work, and waits until that is done. The outer error gives it back undone, if no
/// thread can be had.
pub fn run(work: Work) -> Result<Result<(), WaitError>, Work> {
    let done = Arc::new(Note::default());
    let bed = queue((work, done.clone())).map_err(|(work, _)| work)?;
    if let Some(goroutine) = crate::scheduler::current() {
        goroutine.come_back_first();
    }
    if let Some(bed) = bed {
        // It would take what this goroutine has, the host and perhaps the processor: so it is called when that is free.
        crate::machine::call_later(bed);
    }
    let result = done.wait_for(WaitReason::Blocking, None);
    // Nobody waited.
    crate::machine::call_now();
    Ok(result)
}

/// Queues a job; who is to be called for it, if anybody is.
fn queue(job: Job) -> Result<Option<&'static Bed>, Job> {
    let pool = &crate::scheduler::runtime().blocking;
    let mut state = pool.state.lock();
    state.calls += 1;
    pool.untold.fetch_add(1, Ordering::Relaxed);
    state.jobs.push_back(job);
    pool.queued.store(state.jobs.len(), Ordering::Relaxed);
    let staffed = pool.staff(&mut state);
    if matches!(staffed, Staffed::No) && state.threads == 0 {
        state.calls -= 1;
        pool.untold.fetch_sub(1, Ordering::Relaxed);
        let job = state.jobs.pop_back();
        pool.queued.store(state.jobs.len(), Ordering::Relaxed);
        if let Some(job) = job {
            return Err(job);
        }
    }
    Ok(if let Staffed::By(bed) = staffed { Some(bed) } else { None })
}

/// Whether there is a thread for a queued job.
enum Staffed {
    /// It may not run yet, or there is no thread to be had.
    No,
    /// One looks for it without being called.
    Yes,
    /// One that is to be called, once the pool's lock is free.
    By(&'static Bed),
}

impl Pool {
    /// Finds a thread for one more queued job, if one more may run.
    fn staff(&'static self, state: &mut State) -> Staffed {
        if state.coming >= state.jobs.len() {
            return Staffed::Yes;
        }
        if state.threads - state.idle.len() >= state.limit {
            return Staffed::No;
        }
        if let Some(bed) = state.idle.pop() {
            state.coming += 1;
            bed.called.set(true);
            return Staffed::By(bed);
        }
        if !spawn("offset-blocking", 8 << 20, move || work(self)) {
            return Staffed::No;
        }
        state.threads += 1;
        state.coming += 1;
        Staffed::Yes
    }
}

/// Sleeps until called; false if that did not happen for a while. Either way the thread is not idle any more.
fn rest<'a>(mut state: Guard<'a, State>, bed: &'static Bed) -> (Guard<'a, State>, bool) {
    bed.called.set(false);
    bed.rung_at.store(0, Ordering::Relaxed);
    state.idle.push(bed);
    let mut timed_out = false;
    while !bed.called.get() && !timed_out {
        timed_out = bed.wakeup.wait_for(&mut state, IDLE_LIFE);
    }
    if bed.called.get() {
        vigil::woken(bed.rung_at.load(Ordering::Relaxed));
    } else {
        state.idle.retain(|&other| !std::ptr::eq(other, bed));
    }
    (state, bed.called.get())
}

/// A thread's life. It counts as idle only while it sleeps.
fn work(pool: &'static Pool) {
    let mut state = pool.state.lock();
    let bed = state.spare.pop();
    let bed = bed.unwrap_or_else(|| {
        Box::leak(Box::new(Bed { wakeup: Condvar::new(), called: Cell::new(false), rung_at: AtomicU64::new(0) }))
    });
    let mut worked = false;
    loop {
        state.coming -= 1;
        // This thread is one of those that may work.
        while state.threads - state.idle.len() <= state.limit
            && let Some(job) = state.jobs.pop_front()
        {
            pool.queued.store(state.jobs.len(), Ordering::Relaxed);
            worked = true;
            drop(state);
            let (work, done) = job;
            work();
            // From here on it is free, though it may not have got round to looking for a job: before its caller goes on.
            state = pool.state.lock();
            state.coming += 1;
            state.calls -= 1;
            drop(state);
            done.set();
            if pool.untold.fetch_sub(1, Ordering::Release) == 1 {
                crate::scheduler::runtime().notice_quiet();
            }
            state = pool.state.lock();
            state.coming -= 1;
        }
        // One is enough.
        if std::mem::take(&mut worked) && state.coming == 0 && state.jobs.is_empty() {
            state.coming += 1;
            drop(state);
            pool.vigil.keep(|| pool.queued.load(Ordering::Relaxed) > 0);
            state = pool.state.lock();
            continue;
        }
        let called;
        (state, called) = rest(state, bed);
        if !called {
            break;
        }
    }
    state.threads -= 1;
    state.spare.push(bed);
}
