//! Go's `sync.Cond`, without its lock: the caller enlists, gives its lock up, waits, and takes the lock again.
//!
//! Between enlisting and waiting the caller runs foreign code (the unlock), so an enlisted place must be able to be served
//! before its owner waits. Each place is a box in an ordered list; a signal serves the first.

use crate::clock::{Deadline, now};
use crate::error::WaitError;
use crate::goroutine::WaitReason;
use crate::lock::Lock;
use crate::scheduler::Party;
use crate::wait_queue::{WaitQueue, Waiter};
use std::collections::VecDeque;

/// See the module.
#[derive(Default)]
pub struct Cond(Lock<State>);

#[derive(Default)]
struct State {
    next: u64,
    /// Places not served yet, in order; each has a queue for its one waiter.
    places: VecDeque<(u64, WaitQueue<()>)>,
}

/// A place in the order of waiting.
#[must_use]
pub struct CondTicket(u64);

impl Cond {
    /// Takes a place: signals from now on may serve it.
    pub fn enlist(&self) -> CondTicket {
        let mut state = self.0.lock();
        state.next += 1;
        let place = state.next;
        state.places.push_back((place, WaitQueue::new()));
        CondTicket(place)
    }

    /// Gives the place up without waiting.
    pub fn leave(&self, ticket: CondTicket) {
        self.0.lock().places.retain(|(place, _)| *place != ticket.0);
    }

    /// Waits until the place is served.
    pub fn wait(&self, ticket: CondTicket, deadline: Deadline) -> Result<(), WaitError> {
        let mut state = self.0.lock();
        let Some((_, queue)) = state.places.iter_mut().find(|(place, _)| *place == ticket.0) else { return Ok(()) };
        if deadline.is_some_and(|when| when <= now()) {
            state.places.retain(|(place, _)| *place != ticket.0);
            return Err(WaitError::TimedOut);
        }
        let party = Party::new();
        let parking = party.parker().arm();
        let waiter = Waiter::new(party.parker(), parking, 0, None);
        queue.push_back(&waiter);
        drop(state);
        match party.block(parking, WaitReason::Cond, &[self.address()], deadline) {
            0 => Ok(()),
            code => {
                let mut state = self.0.lock();
                if let Some((_, queue)) = state.places.iter_mut().find(|(place, _)| *place == ticket.0) {
                    queue.remove(&waiter);
                }
                state.places.retain(|(place, _)| *place != ticket.0);
                Err(if code == crate::park::CANCELLED { WaitError::Cancelled } else { WaitError::TimedOut })
            }
        }
    }

    /// Serves the place that was taken first; false if there is none.
    pub fn signal(&self) -> bool {
        self.serve(u64::MAX)
    }

    fn serve(&self, last: u64) -> bool {
        let mut state = self.0.lock();
        while state.places.front().is_some_and(|(place, _)| *place <= last)
            && let Some((_, mut queue)) = state.places.pop_front()
        {
            if queue.is_empty() {
                return true;
            }
            // A stale waiter (timed out, cancelled) does not use the signal up.
            if let Some(claim) = queue.serve(|_| {}, |_| {}) {
                drop(state);
                claim.wake();
                return true;
            }
        }
        false
    }

    /// Serves all places that were taken before. Not those taken meanwhile, perhaps by parties that this very call woke: they
    /// would find nothing changed, and the call might never end.
    pub fn broadcast(&self) {
        let last = self.0.lock().next;
        while self.serve(last) {}
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.lock().places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        &raw const self.0 as usize
    }
}
