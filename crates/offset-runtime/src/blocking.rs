//! The pool for calls that block: threads of their own, made on demand, gone after a while without work.
//!
//! Jobs beyond the limit queue in order. A job owns all that it needs, so its caller may give it up at any time.

use crate::lock::{Condvar, Lock};
use std::collections::VecDeque;
use std::time::Duration;

const IDLE_LIFE: Duration = Duration::from_secs(5);
/// The limit until [`set_max_threads`] says otherwise.
const LIMIT: usize = 512;

type Job = Box<dyn FnOnce() + Send>;

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
    limit: usize,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool {
            state: Lock::new(State { jobs: VecDeque::new(), calls: 0, threads: 0, idle: 0, limit: LIMIT }),
            work: Condvar::new(),
        }
    }

    /// Calls that are queued or running, and threads.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.calls, state.threads)
    }
}

/// Limits the threads of the pool, at least one; gives the previous limit.
pub fn set_max_threads(limit: usize) -> usize {
    let mut state = crate::scheduler::runtime().blocking.state.lock();
    std::mem::replace(&mut state.limit, limit.max(1))
}

/// Runs `job` on a thread of the pool. Whoever wants to know of its end has the job say so. Gives it back undone if no
/// thread can be had.
pub fn submit(job: Job) -> Result<(), Job> {
    let runtime = crate::scheduler::runtime();
    let pool = &runtime.blocking;
    let mut state = pool.state.lock();
    state.calls += 1;
    state.jobs.push_back(job);
    if state.idle >= state.jobs.len() {
        pool.work.notify_one();
    } else if state.threads < state.limit {
        let thread = std::thread::Builder::new().name("offset-blocking".into()).stack_size(8 << 20);
        match thread.spawn(move || work(pool)) {
            Ok(_) => state.threads += 1,
            Err(_) if state.threads > 0 => {}
            Err(_) => {
                state.calls -= 1;
                if let Some(job) = state.jobs.pop_back() {
                    return Err(job);
                }
            }
        }
    }
    Ok(())
}

fn work(pool: &'static Pool) {
    let mut state = pool.state.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = pool.state.lock();
            state.calls -= 1;
            if state.calls == 0 {
                drop(state);
                crate::scheduler::runtime().notice_quiet();
                state = pool.state.lock();
            }
            continue;
        }
        if state.threads > state.limit {
            break;
        }
        state.idle += 1;
        let timed_out = pool.work.wait_for(&mut state, IDLE_LIFE).timed_out();
        state.idle -= 1;
        if timed_out && state.jobs.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}
