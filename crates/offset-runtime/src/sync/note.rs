//! A flag that can be waited for, as in Go's runtime.

use super::wait;
use crate::clock::Deadline;
use crate::error::WaitError;
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::wait_queue::WaitQueue;

/// See the module.
pub struct Note(Lock<State>);

struct State {
    set: bool,
    queue: WaitQueue<()>,
}

impl Default for Note {
    fn default() -> Self {
        Note(Lock::new(State { set: false, queue: WaitQueue::new() }))
    }
}

impl Note {
    /// Sets the flag; all that wait go on.
    pub fn set(&self) {
        let mut state = self.0.lock();
        state.set = true;
        while let Some(claim) = state.queue.serve(|_| {}, |_| {}) {
            claim.wake();
        }
    }

    /// Takes the flag back; gives what it was.
    pub fn clear(&self) -> bool {
        std::mem::take(&mut self.0.lock().set)
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.0.lock().set
    }

    /// Waits until the flag is set.
    pub fn wait(&self, deadline: Deadline) -> Result<(), WaitError> {
        self.wait_for(WaitReason::Note, deadline)
    }

    /// As `wait`, for a reason that says more.
    pub fn wait_for(&self, reason: WaitReason, deadline: Deadline) -> Result<(), WaitError> {
        wait(&self.0, |state| state.set, |state| &mut state.queue, reason, deadline)
    }
}
