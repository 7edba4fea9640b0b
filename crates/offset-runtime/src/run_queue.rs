//! A first-in first-out queue of runnable goroutines, linked through the goroutines themselves, under its processor's lock.
//!
//! Goroutines that have not started are kept apart from those that have, because only they may start on any machine,
//! because other processors steal only them, and because they wait their turn while computing machines are at their cap.
//! A number that each gets on arrival keeps the two in one order.

use crate::goroutine::Goroutine;
use std::ptr::null;

/// One linked list.
struct List {
    head: *const Goroutine,
    tail: *const Goroutine,
}

impl List {
    const fn new() -> List {
        List { head: null(), tail: null() }
    }

    fn push_back(&mut self, goroutine: &Goroutine) {
        goroutine.run_next.set(null());
        if self.head.is_null() {
            self.head = goroutine;
        } else {
            // SAFETY: queued goroutines are alive, and their links are ours while we hold the lock.
            unsafe { (*self.tail).run_next.set(goroutine) };
        }
        self.tail = goroutine;
    }

    fn push_front(&mut self, goroutine: &Goroutine) {
        goroutine.run_next.set(self.head);
        if self.head.is_null() {
            self.tail = goroutine;
        }
        self.head = goroutine;
    }

    fn pop(&mut self) -> *const Goroutine {
        let goroutine = self.head;
        if !goroutine.is_null() {
            // SAFETY: as in `push_back`.
            self.head = unsafe { (*goroutine).run_next.get() };
        }
        goroutine
    }

    /// Takes the `at`th out; how many there are if there are not so many.
    fn remove(&mut self, at: usize) -> Result<*const Goroutine, usize> {
        let (mut before, mut goroutine) = (null::<Goroutine>(), self.head);
        for passed in 0..at {
            if goroutine.is_null() {
                return Err(passed);
            }
            before = goroutine;
            // SAFETY: as in `push_back`.
            goroutine = unsafe { (*goroutine).run_next.get() };
        }
        if goroutine.is_null() {
            return Err(at);
        }
        // SAFETY: as in `push_back`.
        let next = unsafe { (*goroutine).run_next.get() };
        if before.is_null() {
            self.head = next;
        } else {
            // SAFETY: as in `push_back`.
            unsafe { (*before).run_next.set(next) };
        }
        if std::ptr::eq(self.tail, goroutine) {
            self.tail = before;
        }
        Ok(goroutine)
    }

    fn order(&self) -> u64 {
        if self.head.is_null() {
            return u64::MAX;
        }
        // SAFETY: as in `push_back`.
        unsafe { (*self.head).run_order.get() }
    }
}

/// See the module.
pub(crate) struct RunQueue {
    fresh: List,
    started: List,
    arrivals: u64,
    len: usize,
}

// SAFETY: the goroutines in it are alive and belong to the queue until they are popped.
unsafe impl Send for RunQueue {}

impl RunQueue {
    pub(crate) const fn new() -> RunQueue {
        RunQueue { fresh: List::new(), started: List::new(), arrivals: 1, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether one waits that has not started.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.head.is_null()
    }

    pub(crate) fn push_back(&mut self, goroutine: &Goroutine) {
        self.len += 1;
        goroutine.run_order.set(self.arrivals);
        self.arrivals += 1;
        if goroutine.started() { &mut self.started } else { &mut self.fresh }.push_back(goroutine);
    }

    /// Before all others.
    pub(crate) fn push_front(&mut self, goroutine: &Goroutine) {
        self.len += 1;
        goroutine.run_order.set(0);
        self.started.push_front(goroutine);
    }

    /// The one that waits longest.
    pub(crate) fn pop(&mut self) -> Option<*const Goroutine> {
        if self.fresh.order() < self.started.order() { self.pop_fresh() } else { self.pop_started() }
    }

    /// One out of the middle: the `at`th, first those that have started.
    pub(crate) fn pop_at(&mut self, at: usize) -> Option<*const Goroutine> {
        let found = match self.started.remove(at) {
            Ok(found) => found,
            Err(started) => self.fresh.remove(at - started).ok()?,
        };
        self.len -= 1;
        Some(found)
    }

    /// The one that waits longest among those that have started.
    pub(crate) fn pop_started(&mut self) -> Option<*const Goroutine> {
        let goroutine = self.started.pop();
        (!goroutine.is_null()).then(|| {
            self.len -= 1;
            goroutine
        })
    }

    /// The one that waits longest among those that have not started.
    pub(crate) fn pop_fresh(&mut self) -> Option<*const Goroutine> {
        let goroutine = self.fresh.pop();
        (!goroutine.is_null()).then(|| {
            self.len -= 1;
            goroutine
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn goroutine(id: u64, started: bool) -> &'static Goroutine {
        // SAFETY: leaked on purpose: it lives for the whole test process.
        let goroutine = unsafe { &*Goroutine::allocate(id, 0, 0) };
        if started {
            goroutine.home.store(std::ptr::dangling_mut(), std::sync::atomic::Ordering::Relaxed);
        }
        goroutine
    }

    fn drain(queue: &mut RunQueue) -> Vec<u64> {
        // SAFETY: leaked above.
        std::iter::from_fn(|| queue.pop()).map(|goroutine| unsafe { (*goroutine).id() }).collect()
    }

    #[test]
    fn fresh_and_started_leave_in_order_of_arrival() {
        let mut queue = RunQueue::new();
        for id in 0..20 {
            queue.push_back(goroutine(id, id % 3 == 0));
        }
        assert_eq!(queue.len(), 20);
        assert_eq!(drain(&mut queue), (0..20).collect::<Vec<_>>());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_comes_behind_one_put_in_front_is_kept() {
        let mut queue = RunQueue::new();
        for round in 0..2 {
            queue.push_front(goroutine(10 * round + 1, true));
            queue.push_back(goroutine(10 * round + 2, true));
            queue.push_back(goroutine(10 * round + 3, false));
            queue.push_front(goroutine(10 * round, true));
            assert_eq!(drain(&mut queue), (10 * round..10 * round + 4).collect::<Vec<_>>());
            assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn any_can_be_taken_out_of_the_middle() {
        for at in 0..6 {
            let mut queue = RunQueue::new();
            for id in 0..6 {
                queue.push_back(goroutine(id, id % 2 == 0));
            }
            let order = [0, 2, 4, 1, 3, 5];
            // SAFETY: leaked above.
            assert_eq!(queue.pop_at(at).map(|goroutine| unsafe { (*goroutine).id() }), Some(order[at]));
            queue.push_back(goroutine(6, true));
            queue.push_back(goroutine(7, false));
            assert_eq!(drain(&mut queue), (0..8).filter(|&id| id != order[at]).collect::<Vec<_>>());
        }
        assert_eq!(RunQueue::new().pop_at(0), None);
    }

    #[test]
    fn the_front_goes_first_and_fresh_ones_can_be_left_waiting() {
        let mut queue = RunQueue::new();
        queue.push_back(goroutine(1, false));
        queue.push_back(goroutine(2, true));
        queue.push_front(goroutine(3, true));
        // SAFETY: leaked above.
        let id = |popped: Option<*const Goroutine>| popped.map(|goroutine| unsafe { (*goroutine).id() });
        assert_eq!(id(queue.pop_started()), Some(3));
        assert_eq!(id(queue.pop_started()), Some(2));
        assert_eq!(id(queue.pop_started()), None);
        assert_eq!(id(queue.pop_fresh()), Some(1));
        assert_eq!(id(queue.pop()), None);
    }
}
