//! Go's `sync.Mutex`: not owned by anyone, so that one party may lock it and another unlock it. Which goroutine has taken it
//! is noted only for those who look into a deadlock.

use super::wait;
use crate::clock::Deadline;
use crate::error::{Misuse, WaitError};
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::scheduler::current;
use crate::wait_queue::WaitQueue;

/// See the module.
pub struct Mutex(Lock<State>);

struct State {
    locked: bool,
    /// The goroutine that took it last, 0 for a thread. Means something while `locked` only.
    taker: u64,
    queue: WaitQueue<()>,
}

impl Default for Mutex {
    fn default() -> Self {
        Mutex(Lock::new(State { locked: false, taker: 0, queue: WaitQueue::new() }))
    }
}

impl State {
    /// Takes it for the caller if it is free.
    fn take(&mut self) -> bool {
        if self.locked {
            return false;
        }
        self.locked = true;
        self.taker = current().map_or(0, |goroutine| goroutine.id());
        true
    }
}

impl Mutex {
    /// Takes the lock, waiting for it if need be.
    pub fn lock(&self, deadline: Deadline) -> Result<(), WaitError> {
        wait(&self.0, State::take, |state| &mut state.queue, WaitReason::Mutex, deadline)
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> bool {
        self.0.lock().take()
    }

    /// Gives the lock to who waits longest, or frees it.
    pub fn unlock(&self) -> Result<(), Misuse> {
        let mut state = self.0.lock();
        if !state.locked {
            return Err(Misuse::NotLocked);
        }
        let mut taker = 0;
        let claim =
            state.queue.serve(|waiter| taker = waiter.goroutine().map_or(0, |goroutine| goroutine.id()), |_| {});
        state.locked = claim.is_some();
        state.taker = taker;
        drop(state);
        if let Some(claim) = claim {
            let since = crate::trace::waiters_since(&claim);
            claim.wake();
            if since != 0 {
                crate::trace::handed_on(since);
            }
        }
        Ok(())
    }

    /// Whether it is locked, and how many wait for it.
    pub fn counts(&self) -> (bool, usize) {
        let state = self.0.lock();
        (state.locked, state.queue.len())
    }

    /// The goroutine that has taken it, 0 for a thread; None while it is free.
    pub fn taker(&self) -> Option<u64> {
        let state = self.0.lock();
        state.locked.then_some(state.taker)
    }

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        &raw const self.0 as usize
    }
}
