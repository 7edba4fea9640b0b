//! The pool for calls that block: threads of their own, made on demand, gone after a while without work.
//!
//! A thread is idle (and sleeps) or works; those that work are limited. Jobs beyond the limit queue in order. A job owns all that it needs, so its caller may give it up at any time.

use crate::lock::{Condvar, Lock, spawn};
use crate::sync::Note;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const IDLE_LIFE: Duration = Duration::from_secs(5);
/// The limit until [`set_max_threads`] says otherwise.
const LIMIT: usize = 512;

/// What is to be done, and the note that says that it is.
type Job = (Box<dyn FnOnce() + Send>, Arc<Note>);

pub(crate) struct Pool {
    state: Lock<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    /// Calls that are queued or running.
    calls: usize,
    threads: usize,
    idle: usize,
    /// Have done a job and are about to look for the next.
    returning: usize,
    limit: usize,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool {
            state: Lock::new(State {
                jobs: VecDeque::new(),
                calls: 0,
                threads: 0,
                idle: 0,
                returning: 0,
                limit: LIMIT,
            }),
            work: Condvar::new(),
        }
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
    state.jobs.push_back(job);
    if !pool.staff(&mut state) && state.threads == 0 {
        state.calls -= 1;
        if let Some(job) = state.jobs.pop_back() {
            return Err(job);
        }
    }
    Ok(())
}

impl Pool {
    /// Finds a thread for one more queued job, if one more may run. False if it may not, or there is none to be had.
    fn staff(&'static self, state: &mut State) -> bool {
        if state.threads - state.idle >= state.limit {
            return false;
        }
        if state.idle + state.returning >= state.jobs.len() {
            self.work.notify_one();
            return true;
        }
        let started = spawn("offset-blocking", 8 << 20, move || work(self));
        state.threads += usize::from(started);
        started
    }
}

/// A thread's life. It counts as idle but while it works.
fn work(pool: &'static Pool) {
    let mut state = pool.state.lock();
    loop {
        // This thread is not idle: it is one of those that may work.
        if state.threads - state.idle <= state.limit
            && let Some(job) = state.jobs.pop_front()
        {
            drop(state);
            let (work, done) = job;
            work();
            state = pool.state.lock();
            state.returning += 1;
            state.calls -= 1;
            let quiet = state.calls == 0;
            drop(state);
            done.set();
            if quiet {
                crate::scheduler::runtime().notice_quiet();
            }
            state = pool.state.lock();
            state.returning -= 1;
            continue;
        }
        state.idle += 1;
        let timed_out = pool.work.wait_for(&mut state, IDLE_LIFE);
        state.idle -= 1;
        if timed_out && state.jobs.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}
