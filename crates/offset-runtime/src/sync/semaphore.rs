//! A weighted semaphore, first come first served: a large request at the front holds smaller ones behind it back.

use super::wait_with;
use crate::clock::Deadline;
use crate::error::{Misuse, WaitError};
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::wait_queue::WaitQueue;

/// See the module.
pub struct Semaphore {
    size: u64,
    state: Lock<State>,
}

struct State {
    free: u64,
    queue: WaitQueue<u64>,
}

impl State {
    fn admit(&mut self) {
        loop {
            let wanted = match self.queue.front() {
                // The request lies in the waiter's slot; it is put back as it is only looked at.
                Some(waiter) => {
                    let wanted = waiter.take().unwrap_or(0);
                    waiter.put(Some(wanted));
                    wanted
                }
                None => return,
            };
            if wanted > self.free {
                return;
            }
            let Some(waiter) = self.queue.pop() else { return };
            // SAFETY: popped under the lock, so alive until it is claimed.
            let claim = unsafe { (*waiter).claim() };
            if claim.won() {
                self.free -= wanted;
                claim.wake();
            }
        }
    }
}

impl Semaphore {
    /// A semaphore of `size` units, all free.
    pub fn new(size: u64) -> Self {
        Semaphore { size, state: Lock::new(State { free: size, queue: WaitQueue::new() }) }
    }

    /// Takes `units`. More than there are at all are waited for in vain, as in Go, but hold nobody back.
    pub fn acquire(&self, units: u64, deadline: Deadline) -> Result<(), WaitError> {
        if units > self.size {
            return match crate::scheduler::sleep(deadline, WaitReason::Semaphore) {
                true => Err(WaitError::TimedOut),
                false => Err(WaitError::Cancelled),
            };
        }
        wait_with(
            &self.state,
            |state| {
                let free = state.queue.is_empty() && state.free >= units;
                if free {
                    state.free -= units;
                }
                free
            },
            |state| &mut state.queue,
            Some(units),
            State::admit,
            WaitReason::Semaphore,
            deadline,
        )
    }

    /// Takes `units` if they are free and nobody waits.
    pub fn try_acquire(&self, units: u64) -> bool {
        let mut state = self.state.lock();
        let free = state.queue.is_empty() && state.free >= units;
        if free {
            state.free -= units;
        }
        free
    }

    /// Gives `units` back.
    pub fn release(&self, units: u64) -> Result<(), Misuse> {
        let mut state = self.state.lock();
        if units > self.size - state.free {
            return Err(Misuse::NegativeCounter);
        }
        state.free += units;
        state.admit();
        Ok(())
    }

    /// Its size, the free units, and how many wait.
    pub fn counts(&self) -> (u64, u64, usize) {
        let state = self.state.lock();
        (self.size, state.free, state.queue.len())
    }

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        &raw const self.state as usize
    }
}
