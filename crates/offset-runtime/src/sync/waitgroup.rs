//! Go's `sync.WaitGroup`: waits until a counter is zero.

use super::wait;
use crate::clock::Deadline;
use crate::error::{Misuse, WaitError};
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::wait_queue::WaitQueue;

/// See the module.
pub struct WaitGroup(Lock<State>);

struct State {
    count: i64,
    queue: WaitQueue<()>,
}

impl Default for WaitGroup {
    fn default() -> Self {
        WaitGroup(Lock::new(State { count: 0, queue: WaitQueue::new() }))
    }
}

impl WaitGroup {
    /// Adds `delta`, which may be negative; at zero, all that wait go on. A misuse changes nothing.
    pub fn add(&self, delta: i64) -> Result<(), Misuse> {
        let mut state = self.0.lock();
        let count = state.count.checked_add(delta).ok_or(Misuse::Overflow)?;
        if count < 0 {
            return Err(Misuse::NegativeCounter);
        }
        state.count = count;
        if count == 0 {
            while let Some(claim) = state.queue.serve(|_| {}, |_| {}) {
                claim.wake();
            }
        }
        Ok(())
    }

    /// Waits until the counter is zero.
    pub fn wait(&self, deadline: Deadline) -> Result<(), WaitError> {
        wait(&self.0, |state| state.count == 0, |state| &mut state.queue, WaitReason::WaitGroup, deadline)
    }

    /// The counter, and how many wait for its zero.
    pub fn counts(&self) -> (i64, usize) {
        let state = self.0.lock();
        (state.count, state.queue.len())
    }

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        &raw const self.0 as usize
    }
}
