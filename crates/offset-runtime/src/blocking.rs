//! The pool for calls that block: threads of their own, made on demand, gone after a while without work.
//!
//! A thread is idle (and sleeps) or works; those that work are limited. Jobs beyond the limit queue in order. A job owns all that
//! it needs, so its caller may give it up at any time. The thread that became idle last is the first to work again: its memory is
//! still in the caches, and those that are not needed any more sleep long enough to go away.
//!
//! All of [`State`] is under the pool's lock.

use crate::lock::{Condvar, Guard, Lock, spawn};
use crate::sync::Note;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const IDLE_LIFE: Duration = Duration::from_secs(5);
/// The limit until [`set_max_threads`] says otherwise.
const LIMIT: usize = 512;

/// What is to be done, and the note that says that it is.
type Job = (Box<dyn FnOnce() + Send>, Arc<Note>);

pub(crate) struct Pool {
    state: Lock<State>,
    /// Calls whose end has not been told yet.
    untold: AtomicUsize,
}

/// Where an idle thread sleeps: on its own stack, which it does not leave while the pool knows the address.
struct Bed {
    wakeup: Condvar,
    /// It has been taken off the list, to look for a job. Under the pool's lock.
    called: Cell<bool>,
}

struct State {
    jobs: VecDeque<Job>,
    /// Calls that are queued or running.
    calls: usize,
    threads: usize,
    /// The beds of the threads that sleep, the latest last.
    idle: Vec<*const Bed>,
    /// Threads that are about to look for a job: called, new, or done with the last one.
    coming: usize,
    limit: usize,
}

// SAFETY: the pointers are used as `Bed` says.
unsafe impl Send for State {}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool {
            state: Lock::new(State {
                jobs: VecDeque::new(),
                calls: 0,
                threads: 0,
                idle: Vec::new(),
                coming: 0,
                limit: LIMIT,
            }),
            untold: AtomicUsize::new(0),
        }
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
        if !pool.staff(&mut state) {
            break;
        }
    }
    before
}

/// Runs a job on a thread of the pool and sets its note then. Gives it back undone if no thread can be had.
pub fn submit(job: Job) -> Result<(), Job> {
    let pool = &crate::scheduler::runtime().blocking;
    let mut state = pool.state.lock();
    state.calls += 1;
    pool.untold.fetch_add(1, Ordering::Relaxed);
    state.jobs.push_back(job);
    if !pool.staff(&mut state) && state.threads == 0 {
        state.calls -= 1;
        pool.untold.fetch_sub(1, Ordering::Relaxed);
        if let Some(job) = state.jobs.pop_back() {
            return Err(job);
        }
    }
    Ok(())
}

impl Pool {
    /// Finds a thread for one more queued job, if one more may run. False if it may not, or there is none to be had.
    fn staff(&'static self, state: &mut State) -> bool {
        if state.coming >= state.jobs.len() {
            return true;
        }
        if state.threads - state.idle.len() >= state.limit {
            return false;
        }
        if let Some(bed) = state.idle.pop() {
            state.coming += 1;
            // SAFETY: its thread is in `rest` until it has seen that it was called, under the lock that we hold.
            unsafe {
                (*bed).called.set(true);
                (*bed).wakeup.notify_one();
            }
            return true;
        }
        let started = spawn("offset-blocking", 8 << 20, move || work(self));
        state.threads += usize::from(started);
        state.coming += usize::from(started);
        started
    }
}

/// Sleeps until called; false if that did not happen for a while. Either way the thread is not idle any more.
fn rest<'a>(mut state: Guard<'a, State>) -> (Guard<'a, State>, bool) {
    let bed = Bed { wakeup: Condvar::new(), called: Cell::new(false) };
    state.idle.push(&raw const bed);
    let mut timed_out = false;
    while !bed.called.get() && !timed_out {
        timed_out = bed.wakeup.wait_for(&mut state, IDLE_LIFE);
    }
    if !bed.called.get() {
        state.idle.retain(|&other| !std::ptr::eq(other, &raw const bed));
    }
    (state, bed.called.get())
}

/// A thread's life. It counts as idle only while it sleeps.
fn work(pool: &'static Pool) {
    let mut state = pool.state.lock();
    loop {
        state.coming -= 1;
        // This thread is one of those that may work.
        while state.threads - state.idle.len() <= state.limit
            && let Some(job) = state.jobs.pop_front()
        {
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
        let called;
        (state, called) = rest(state);
        if !called {
            break;
        }
    }
    state.threads -= 1;
}
