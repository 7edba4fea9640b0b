//! Channels, with Go's rules.
//!
//! Invariants, under the channel's lock: one of the two queues is empty but for stale waiters and for a select that waits on
//! both sides; values are buffered only while no receiver waits, and senders wait only while the buffer is full. The buffer is
//! over-full only by values that were put back. A value is never dropped under the lock: it is handed on, buffered, or given back.

use crate::clock::{Deadline, now};
use crate::error::{Misuse, RecvError, SendError};
use crate::goroutine::{Goroutine, WaitReason};
use crate::lock::{Guard, Lock};
use crate::park::{CANCELLED, Claim};
use crate::scheduler::Party;
use crate::wait_queue::{WaitQueue, Waiter};
use std::collections::VecDeque;

/// How long an operation may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until a deadline, for ever if it is `None`.
    Until(Deadline),
}

/// A channel of values of type `T`.
pub struct Chan<T> {
    state: Lock<State<T>>,
    capacity: usize,
}

pub(crate) struct State<T> {
    pub(crate) buffer: VecDeque<T>,
    /// The numbers of the values that were put back, which are the first of the buffer, in their order.
    returned: VecDeque<u64>,
    pub(crate) receivers: WaitQueue<T>,
    pub(crate) senders: WaitQueue<T>,
    pub(crate) closed: bool,
    /// Values that went through.
    passed: u64,
}

impl<T> State<T> {
    /// Hands `value` to the receiver that waits longest, or buffers it. Gives it back if neither can be.
    #[inline]
    pub(crate) fn offer(&mut self, value: T, capacity: usize) -> Result<Option<Claim>, T> {
        let mut value = value;
        if !self.receivers.is_empty() {
            match self.hand_over(value, self.passed) {
                Ok(claim) => return Ok(Some(claim)),
                Err(back) => value = back,
            }
        }
        if self.buffer.len() < capacity {
            self.passed += 1;
            self.buffer.push_back(value);
            return Ok(None);
        }
        Err(value)
    }

    /// Takes the next value: buffered, or from the sender that waits longest.
    #[inline]
    pub(crate) fn accept(&mut self, capacity: usize) -> Option<(T, Option<Claim>)> {
        let buffered = self.buffer.pop_front();
        self.returned.pop_front();
        // With a value that was put back there may be no room even so.
        if self.senders.is_empty() || (buffered.is_some() && self.buffer.len() >= capacity) {
            return buffered.map(|value| (value, None));
        }
        let (next, claim) = self.next_sender();
        if buffered.is_none() {
            return next.map(|value| (value, claim));
        }
        if let Some(next) = next {
            self.buffer.push_back(next);
        }
        buffered.map(|value| (value, claim))
    }

    /// Hands `value` to the receiver that waits longest; gives it back if all that are queued have gone.
    fn hand_over(&mut self, value: T, number: u64) -> Result<Claim, T> {
        let mut value = Some(value);
        let claim = {
            let value = std::cell::RefCell::new(&mut value);
            self.receivers.serve(
                |waiter| {
                    waiter.set_granted(true);
                    waiter.set_number(number);
                    waiter.put(value.borrow_mut().take());
                },
                |waiter| **value.borrow_mut() = waiter.take(),
            )
        };
        match (claim, value) {
            (Some(claim), _) => {
                self.passed += 1;
                Ok(claim)
            }
            (None, Some(value)) => Err(value),
            (None, None) => unreachable!("an unserved value is given back"),
        }
    }

    fn next_sender(&mut self) -> (Option<T>, Option<Claim>) {
        let taken = std::cell::Cell::new(None);
        let claim = self.senders.serve(
            |waiter| {
                waiter.set_granted(true);
                taken.set(waiter.take());
            },
            |waiter| {
                waiter.set_granted(false);
                waiter.put(taken.take());
            },
        );
        if claim.is_some() {
            self.passed += 1;
        }
        (taken.into_inner(), claim)
    }
}

impl<T> Chan<T> {
    /// A channel that buffers up to `capacity` values; None when there is no memory for them.
    pub fn new(capacity: usize) -> Option<Self> {
        let mut buffer = VecDeque::new();
        buffer.try_reserve_exact(capacity).ok()?;
        Some(Self::with(buffer, capacity))
    }

    /// A channel that buffers whatever is sent; its buffer grows with what is in it.
    pub fn unbounded() -> Self {
        Self::with(VecDeque::new(), usize::MAX)
    }

    fn with(buffer: VecDeque<T>, capacity: usize) -> Self {
        Chan {
            state: Lock::new(State {
                buffer,
                returned: VecDeque::new(),
                receivers: WaitQueue::new(),
                senders: WaitQueue::new(),
                closed: false,
                passed: 0,
            }),
            capacity,
        }
    }

    /// How many values it buffers at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many values are buffered.
    pub fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Whether nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// How many wait to send, how many wait to receive, and how many values have passed.
    pub fn counts(&self) -> (usize, usize, u64) {
        let state = self.state.lock();
        (state.senders.len(), state.receivers.len(), state.passed)
    }

    /// By which those who wait at it know it.
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    pub(crate) fn lock(&self) -> Guard<'_, State<T>> {
        self.state.lock()
    }

    /// Sends `value`.
    pub fn send(&self, value: T, wait: Wait) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(SendError::Closed(value));
        }
        let value = match state.offer(value, self.capacity) {
            Ok(claim) => {
                drop(state);
                if let Some(claim) = claim {
                    claim.wake();
                }
                return Ok(());
            }
            Err(value) => value,
        };
        let deadline = match wait {
            Wait::No => return Err(SendError::TimedOut(value)),
            Wait::Until(deadline) => deadline,
        };
        if deadline.is_some_and(|when| when <= now()) {
            return Err(SendError::TimedOut(value));
        }
        let party = Party::new();
        let ticket = party.parker().arm();
        let waiter = Waiter::new(party.parker(), ticket, 0, Some(value));
        state.senders.push_back(&waiter);
        drop(state);
        let code = party.block(ticket, WaitReason::ChanSend, &[self.address()], deadline);
        if code == 0 && waiter.granted() {
            return Ok(());
        }
        if code != 0 {
            self.state.lock().senders.remove(&waiter);
        }
        let Some(value) = waiter.take() else { unreachable!("an unsent value stays with its sender") };
        Err(match code {
            0 => SendError::Closed(value),
            CANCELLED => SendError::Cancelled(value),
            _ => SendError::TimedOut(value),
        })
    }

    /// Receives a value.
    pub fn recv(&self, wait: Wait) -> Result<T, RecvError> {
        let mut state = self.state.lock();
        if let Some((value, claim)) = state.accept(self.capacity) {
            drop(state);
            if let Some(claim) = claim {
                claim.wake();
            }
            return Ok(value);
        }
        if state.closed {
            return Err(RecvError::Closed);
        }
        let deadline = match wait {
            Wait::No => return Err(RecvError::TimedOut),
            Wait::Until(deadline) => deadline,
        };
        if deadline.is_some_and(|when| when <= now()) {
            return Err(RecvError::TimedOut);
        }
        let party = Party::new();
        let ticket = party.parker().arm();
        let waiter = Waiter::new(party.parker(), ticket, 0, None);
        state.receivers.push_back(&waiter);
        drop(state);
        match party.block(ticket, WaitReason::ChanReceive, &[self.address()], deadline) {
            0 => waiter.take().ok_or(RecvError::Closed),
            code => {
                self.state.lock().receivers.remove(&waiter);
                Err(if code == CANCELLED { RecvError::Cancelled } else { RecvError::TimedOut })
            }
        }
    }

    /// Takes back a value whose receiver could not do anything with it: the next one gets it, before all others.
    pub fn put_back(&self, value: T) {
        self.put_back_as(value, 0);
    }

    /// As `put_back`, for a value before which so many had passed: before all others but those put back before which fewer had. So
    /// what several receivers that waited could do nothing with comes in its order, whoever of them is first.
    pub(crate) fn put_back_as(&self, value: T, number: u64) {
        let mut state = self.state.lock();
        let handed = if state.receivers.is_empty() { Err(value) } else { state.hand_over(value, number) };
        match handed {
            Ok(claim) => {
                // It has passed once, not twice.
                state.passed -= 1;
                drop(state);
                claim.wake();
            }
            Err(value) => {
                let place = state.returned.partition_point(|other| *other < number);
                state.returned.insert(place, number);
                state.buffer.insert(place, value);
            }
        }
    }

    /// Closes it: who waits to receive finds it closed, who waits to send gets the value back.
    pub fn close(&self) -> Result<(), Misuse> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Misuse::AlreadyClosed);
        }
        state.closed = true;
        let state = &mut *state;
        for queue in [&mut state.receivers, &mut state.senders] {
            while let Some(claim) = queue.serve(|waiter| waiter.set_granted(false), |_| {}) {
                claim.wake();
            }
        }
        Ok(())
    }

    /// Takes out what is buffered, without waking senders: for the host's collector, when nobody else can reach it.
    pub fn take_buffer(&self) -> VecDeque<T> {
        let mut state = self.state.lock();
        state.returned.clear();
        std::mem::take(&mut state.buffer)
    }

    /// Shows each value that a sender waits with, unless the lock is held: for the host, while it is kept from all others.
    pub fn visit_senders(&self, show: &mut dyn FnMut(&Goroutine, &T)) {
        let Some(state) = self.state.try_lock() else { return };
        state.senders.visit(|waiter| {
            if let Some(goroutine) = waiter.goroutine() {
                waiter.show(&mut |value| show(goroutine, value));
            }
        });
    }

    /// Shows each buffered value, unless the lock is held: for the host's collector, which may look at any time.
    pub fn visit(&self, visit: &mut dyn FnMut(&T)) {
        if let Some(state) = self.state.try_lock() {
            state.buffer.iter().for_each(visit);
        }
    }
}
