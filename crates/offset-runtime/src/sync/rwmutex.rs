//! Go's `sync.RWMutex`: many readers or one writer. A waiting writer holds new readers back, and when a writer leaves, the
//! readers that wait by then go before the next writer, so neither side is starved.

use super::{wait, wait_with};
use crate::clock::Deadline;
use crate::error::{Misuse, WaitError};
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::park::Claim;
use crate::scheduler::current;
use crate::wait_queue::WaitQueue;

/// See the module.
pub struct RwMutex(Lock<State>);

struct State {
    writing: bool,
    /// The goroutine that took it last for writing, 0 for a thread. Means something while `writing` only.
    writer: u64,
    reading: usize,
    readers: WaitQueue<()>,
    writers: WaitQueue<()>,
}

impl State {
    fn admit_writer(&mut self) -> Option<Claim> {
        if self.writing || self.reading > 0 {
            return None;
        }
        let mut writer = 0;
        let claim =
            self.writers.serve(|waiter| writer = waiter.goroutine().map_or(0, |goroutine| goroutine.id()), |_| {});
        self.writing = claim.is_some();
        self.writer = writer;
        claim
    }

    /// Takes it for writing by the caller if it is free.
    fn write(&mut self) -> bool {
        if self.writing || self.reading > 0 {
            return false;
        }
        self.writing = true;
        self.writer = current().map_or(0, |goroutine| goroutine.id());
        true
    }

    /// Since when the first of them has waited, if that is measured; otherwise 0.
    fn admit_readers(&mut self) -> u64 {
        let mut since = 0;
        while !self.writing {
            let Some(claim) = self.readers.serve(|_| {}, |_| {}) else { break };
            self.reading += 1;
            if since == 0 {
                since = crate::trace::waiters_since(&claim);
            }
            claim.wake();
        }
        since
    }
}

impl Default for RwMutex {
    fn default() -> Self {
        RwMutex(Lock::new(State {
            writing: false,
            writer: 0,
            reading: 0,
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
        }))
    }
}

impl RwMutex {
    /// Takes it for writing.
    pub fn lock(&self, deadline: Deadline) -> Result<(), WaitError> {
        wait_with(
            &self.0,
            State::write,
            |state| &mut state.writers,
            None,
            |state| {
                // Readers that were held back for this writer may go on.
                if state.writers.is_empty() {
                    state.admit_readers();
                }
            },
            WaitReason::RwMutexLock,
            deadline,
        )
    }

    /// Takes it for writing if it is free.
    pub fn try_lock(&self) -> bool {
        self.0.lock().write()
    }

    /// Gives up writing.
    pub fn unlock(&self) -> Result<(), Misuse> {
        let mut state = self.0.lock();
        if !state.writing {
            return Err(Misuse::NotLocked);
        }
        state.writing = false;
        let mut since = state.admit_readers();
        let claim = state.admit_writer();
        drop(state);
        if let Some(claim) = claim {
            since = crate::trace::waiters_since(&claim);
            claim.wake();
        }
        if since != 0 {
            crate::trace::handed_on(since);
        }
        Ok(())
    }

    /// Takes it for reading.
    pub fn rlock(&self, deadline: Deadline) -> Result<(), WaitError> {
        wait(
            &self.0,
            |state| {
                let free = !state.writing && state.writers.is_empty();
                state.reading += usize::from(free);
                free
            },
            |state| &mut state.readers,
            WaitReason::RwMutexRlock,
            deadline,
        )
    }

    /// Takes it for reading if no writer has it or waits for it.
    pub fn try_rlock(&self) -> bool {
        let mut state = self.0.lock();
        let free = !state.writing && state.writers.is_empty();
        state.reading += usize::from(free);
        free
    }

    /// Gives up reading.
    pub fn runlock(&self) -> Result<(), Misuse> {
        let mut state = self.0.lock();
        if state.reading == 0 {
            return Err(Misuse::NotLocked);
        }
        state.reading -= 1;
        let claim = state.admit_writer();
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

    /// Whether it is locked for writing, by how many for reading, and how many wait to write and to read.
    pub fn counts(&self) -> (bool, usize, usize, usize) {
        let state = self.0.lock();
        (state.writing, state.reading, state.writers.len(), state.readers.len())
    }

    /// The goroutine that has it for writing, 0 for a thread; None while nobody has.
    pub fn writer(&self) -> Option<u64> {
        let state = self.0.lock();
        state.writing.then_some(state.writer)
    }

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        &raw const self.0 as usize
    }
}
