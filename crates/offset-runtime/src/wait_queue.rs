//! Waiters and the queues they wait in: doubly linked lists through nodes that live on the waiting stacks.
//!
//! Invariants:
//! * A queue, and the links and slot of each waiter in it, are under the lock of the channel or lock that owns the queue.
//! * A waiter stays where it is from `push_back` until it is out of the queue and its wait is over; its owner leaves the
//!   wait only after that, so a waiter found in a queue is alive for as long as the lock is held.
//! * Who takes a waiter out by `pop`/`serve` must claim its ticket before it gives the lock back; if the claim is lost the
//!   waiter is stale (timed out, cancelled, or another case of its select happened) and its owner removes nothing more.

use crate::goroutine::Goroutine;
use crate::lock::{Cell, UnsafeCell};
use crate::park::{Claim, Code, Owner, Parker, Ticket};
use std::ptr::null;

/// One party waiting at one queue.
pub(crate) struct Waiter<T> {
    previous: Cell<*const Waiter<T>>,
    next: Cell<*const Waiter<T>>,
    queued: Cell<bool>,
    parker: *const Parker,
    ticket: Ticket,
    code: Code,
    /// The value on its way: put in by the sender, taken out by the receiver.
    slot: UnsafeCell<Option<T>>,
    /// What the waker wants to say besides: true for success, false for "closed".
    granted: Cell<bool>,
    /// How many values had passed through the channel before the one that it received.
    number: Cell<u64>,
}

impl<T> Waiter<T> {
    pub(crate) fn new(parker: &Parker, ticket: Ticket, code: Code, value: Option<T>) -> Self {
        Waiter {
            previous: Cell::new(null()),
            next: Cell::new(null()),
            queued: Cell::new(false),
            parker,
            ticket,
            code,
            slot: UnsafeCell::new(value),
            granted: Cell::new(false),
            number: Cell::new(0),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.get()
    }

    pub(crate) fn set_number(&self, number: u64) {
        self.number.set(number);
    }

    pub(crate) fn granted(&self) -> bool {
        self.granted.get()
    }

    pub(crate) fn set_granted(&self, granted: bool) {
        self.granted.set(granted);
    }

    pub(crate) fn put(&self, value: Option<T>) {
        // SAFETY: the caller holds the queue's lock, or is the owner after its wait.
        self.slot.with_mut(|slot| unsafe { *slot = value });
    }

    pub(crate) fn take(&self) -> Option<T> {
        // SAFETY: as in `put`.
        self.slot.with_mut(|slot| unsafe { (*slot).take() })
    }

    /// Shows the value, if there is one.
    pub(crate) fn show(&self, show: &mut dyn FnMut(&T)) {
        // SAFETY: as in `put`.
        if let Some(value) = self.slot.with_mut(|slot| unsafe { &*slot }) {
            show(value);
        }
    }

    /// The goroutine that waits, if it is one and its wait is not over.
    pub(crate) fn goroutine(&self) -> Option<&Goroutine> {
        // SAFETY: the waiter is in a queue whose lock is held, so its owner has not left.
        let parker = unsafe { &*self.parker };
        match parker.owner {
            // SAFETY: the goroutine holds the parker.
            Owner::Goroutine(goroutine) if parker.waiting() == Some(self.ticket) => Some(unsafe { &*goroutine }),
            _ => None,
        }
    }

    pub(crate) fn claim(&self) -> Claim {
        // SAFETY: the waiter is in, or was just taken from, a queue whose lock is held, so its owner has not left.
        unsafe { (*self.parker).claim(self.ticket, self.code) }
    }
}

/// A queue of waiters, served first come first.
pub(crate) struct WaitQueue<T> {
    head: *const Waiter<T>,
    tail: *const Waiter<T>,
    /// The generation of the process in which its waiters wait.
    generation: u32,
}

// SAFETY: the waiters are shared under the lock that guards the queue.
unsafe impl<T: Send> Send for WaitQueue<T> {}

impl<T> WaitQueue<T> {
    pub(crate) fn new() -> Self {
        WaitQueue { head: null(), tail: null(), generation: crate::fork::generation() }
    }

    /// In a forked child the parent's waiters are gone for good.
    fn refresh(&mut self) {
        if self.generation != crate::fork::generation() {
            *self = WaitQueue::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null() || self.generation != crate::fork::generation()
    }

    pub(crate) fn len(&self) -> usize {
        let mut count = 0;
        let mut at = if self.is_empty() { null() } else { self.head };
        while !at.is_null() {
            count += 1;
            // SAFETY: queued waiters are alive under the lock.
            at = unsafe { (*at).next.get() };
        }
        count
    }

    /// Shows each waiter.
    pub(crate) fn visit(&self, mut show: impl FnMut(&Waiter<T>)) {
        let mut at = if self.is_empty() { null() } else { self.head };
        while !at.is_null() {
            // SAFETY: queued waiters are alive under the lock.
            let waiter = unsafe { &*at };
            show(waiter);
            at = waiter.next.get();
        }
    }

    pub(crate) fn push_back(&mut self, waiter: &Waiter<T>) {
        self.refresh();
        waiter.previous.set(self.tail);
        waiter.next.set(null());
        waiter.queued.set(true);
        if self.tail.is_null() {
            self.head = waiter;
        } else {
            // SAFETY: queued waiters are alive under the lock.
            unsafe { (*self.tail).next.set(waiter) };
        }
        self.tail = waiter;
    }

    /// Takes `waiter` out if it is still in.
    pub(crate) fn remove(&mut self, waiter: &Waiter<T>) {
        if !waiter.queued.replace(false) {
            return;
        }
        let (previous, next) = (waiter.previous.get(), waiter.next.get());
        // SAFETY: neighbours in the queue are alive under the lock.
        unsafe {
            if previous.is_null() {
                self.head = next
            } else {
                (*previous).next.set(next)
            }
            if next.is_null() { self.tail = previous } else { (*next).previous.set(previous) }
        }
    }

    /// The first waiter, left in its place.
    pub(crate) fn front(&self) -> Option<&Waiter<T>> {
        // SAFETY: queued waiters are alive under the lock, for which the borrow of the queue stands.
        if self.is_empty() { None } else { Some(unsafe { &*self.head }) }
    }

    /// Takes the first waiter out.
    pub(crate) fn pop(&mut self) -> Option<*const Waiter<T>> {
        self.refresh();
        let waiter = self.head;
        if waiter.is_null() {
            return None;
        }
        // SAFETY: queued waiters are alive under the lock.
        self.remove(unsafe { &*waiter });
        Some(waiter)
    }

    /// Ends the wait of the first waiter that can still be served, after `fill` has given it what it waits for; `undo` takes
    /// that back from one that turned out stale. The claim is to be woken once the lock is given back.
    pub(crate) fn serve(
        &mut self,
        mut fill: impl FnMut(&Waiter<T>),
        mut undo: impl FnMut(&Waiter<T>),
    ) -> Option<Claim> {
        while let Some(waiter) = self.pop() {
            // SAFETY: popped under the lock, so alive until it is claimed.
            let waiter = unsafe { &*waiter };
            fill(waiter);
            let claim = waiter.claim();
            if claim.won() {
                return Some(claim);
            }
            undo(waiter);
        }
        None
    }
}
