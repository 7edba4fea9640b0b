//! Locks and counters for goroutines and OS threads alike, handed on in order of arrival.
//!
//! Each keeps its state and its queue under one internal lock that is held for a few instructions. A lock is handed to the
//! waiter that has waited longest before the releaser goes on, so nobody is starved and nobody barges in.

mod cond;
mod mutex;
mod note;
mod rwmutex;
mod semaphore;
mod waitgroup;

pub use cond::{Cond, CondTicket};
pub use mutex::Mutex;
pub use note::Note;
pub use rwmutex::RwMutex;
pub use semaphore::Semaphore;
pub use waitgroup::WaitGroup;

use crate::clock::{Deadline, now};
use crate::error::WaitError;
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::park::CANCELLED;
use crate::scheduler::Party;
use crate::wait_queue::{WaitQueue, Waiter};

/// Waits at the queue that `queue` names until served, unless `ready` says (and takes note) that there is no need.
pub(crate) fn wait<S, T>(
    lock: &Lock<S>,
    ready: impl FnOnce(&mut S) -> bool,
    queue: impl Fn(&mut S) -> &mut WaitQueue<T>,
    reason: WaitReason,
    deadline: Deadline,
) -> Result<(), WaitError> {
    wait_with(lock, ready, queue, None, |_| {}, reason, deadline)
}

/// As [`wait`]; the waiter carries `value`, and `left` sees the state if it leaves unserved.
pub(crate) fn wait_with<S, T>(
    lock: &Lock<S>,
    ready: impl FnOnce(&mut S) -> bool,
    queue: impl Fn(&mut S) -> &mut WaitQueue<T>,
    value: Option<T>,
    left: impl FnOnce(&mut S),
    reason: WaitReason,
    deadline: Deadline,
) -> Result<(), WaitError> {
    let mut state = lock.lock();
    if ready(&mut state) {
        return Ok(());
    }
    if deadline.is_some_and(|when| when <= now()) {
        return Err(WaitError::TimedOut);
    }
    let party = Party::new();
    let ticket = party.parker().arm();
    let waiter = Waiter::new(party.parker(), ticket, 0, value);
    queue(&mut state).push_back(&waiter);
    drop(state);
    match party.block(ticket, reason, &[std::ptr::from_ref(lock) as usize], deadline) {
        0 => Ok(()),
        code => {
            let mut state = lock.lock();
            queue(&mut state).remove(&waiter);
            left(&mut state);
            Err(if code == CANCELLED { WaitError::Cancelled } else { WaitError::TimedOut })
        }
    }
}
