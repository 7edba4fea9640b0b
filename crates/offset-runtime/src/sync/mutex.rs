//! Go's `sync.Mutex`: not owned by anyone, so that one party may lock it and another unlock it.

use super::wait;
use crate::clock::Deadline;
use crate::error::{Misuse, WaitError};
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::wait_queue::WaitQueue;

/// See the module.
pub struct Mutex(Lock<State>);

struct State {
    locked: bool,
    queue: WaitQueue<()>,
}

impl Default for Mutex {
    fn default() -> Self {
        Mutex(Lock::new(State { locked: false, queue: WaitQueue::new() }))
    }
}

impl Mutex {
    /// Takes the lock, waiting for it if need be.
    pub fn lock(&self, deadline: Deadline) -> Result<(), WaitError> {
        wait(
            &self.0,
            |state| !std::mem::replace(&mut state.locked, true),
            |state| &mut state.queue,
            WaitReason::Mutex,
            deadline,
        )
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().locked, true)
    }

    /// Gives the lock to who waits longest, or frees it.
    pub fn unlock(&self) -> Result<(), Misuse> {
        let mut state = self.0.lock();
        if !state.locked {
            return Err(Misuse::NotLocked);
        }
        let claim = state.queue.serve(|_| {}, |_| {});
        state.locked = claim.is_some();
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

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        &raw const self.0 as usize
    }
}
