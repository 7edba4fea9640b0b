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

    fn members(&self) -> usize {
        let (mut count, mut at) = (0, self.head);
        // SAFETY: as in `push_back`.
        while let Some(goroutine) = unsafe { at.as_ref() } {
            count += usize::from(goroutine.bubbled.get());
            at = goroutine.run_next.get();
        }
        count
    }

    /// Takes the `at`th of a bubble's goroutines out; how many there are if there are not so many.
    fn remove_member(&mut self, at: usize) -> Result<*const Goroutine, usize> {
        let (mut before, mut here, mut passed) = (null::<Goroutine>(), self.head, 0);
        // SAFETY: as in `push_back`.
        while let Some(goroutine) = unsafe { here.as_ref() } {
            if goroutine.bubbled.get() {
                if passed == at {
                    let next = goroutine.run_next.get();
                    // SAFETY: as in `push_back`.
                    match unsafe { before.as_ref() } {
                        Some(before) => before.run_next.set(next),
                        None => self.head = next,
                    }
                    if std::ptr::eq(self.tail, goroutine) {
                        self.tail = before;
                    }
                    return Ok(here);
                }
                passed += 1;
            }
            before = here;
            here = goroutine.run_next.get();
        }
        Err(passed)
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

    /// How many of a bubble's goroutines there are, if the one that waits longest is one of them; 0 otherwise.
    pub(crate) fn members(&self) -> usize {
        let first = if self.fresh.order() < self.started.order() { &self.fresh } else { &self.started };
        // SAFETY: as in `push_back`.
        if unsafe { first.head.as_ref() }.is_some_and(|first| first.bubbled.get()) {
            self.started.members() + self.fresh.members()
        } else {
            0
        }
    }

    /// The `at`th of a bubble's goroutines, first those that have started.
    pub(crate) fn pop_member(&mut self, at: usize) -> Option<*const Goroutine> {
        let found = match self.started.remove_member(at) {
            Ok(found) => found,
            Err(started) => self.fresh.remove_member(at - started).ok()?,
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
    fn any_member_of_a_bubble_can_be_taken_out_of_the_middle() {
        for at in 0..6 {
            let mut queue = RunQueue::new();
            for id in 0..6 {
                let member = goroutine(id, id % 2 == 0);
                member.bubbled.set(true);
                queue.push_back(member);
                queue.push_back(goroutine(10 + id, id % 3 == 0));
            }
            assert_eq!(queue.members(), 6);
            let order = [0, 2, 4, 1, 3, 5];
            // SAFETY: leaked above.
            assert_eq!(queue.pop_member(at).map(|goroutine| unsafe { (*goroutine).id() }), Some(order[at]));
            // The rest keeps its order, and has its end where it was.
            queue.push_back(goroutine(6, true));
            queue.push_back(goroutine(7, false));
            let rest = (0..6).flat_map(|id| [id, 10 + id]).chain(6..8);
            assert_eq!(drain(&mut queue), rest.filter(|&id| id != order[at]).collect::<Vec<_>>());
        }
        assert_eq!(RunQueue::new().pop_member(0), None);
    }

    #[test]
    fn members_wait_for_who_came_before_them() {
        let mut queue = RunQueue::new();
        let member = goroutine(2, false);
        member.bubbled.set(true);
        queue.push_back(goroutine(1, true));
        queue.push_back(member);
        assert_eq!(queue.members(), 0);
        // SAFETY: leaked above.
        assert_eq!(queue.pop().map(|goroutine| unsafe { (*goroutine).id() }), Some(1));
        assert_eq!(queue.members(), 1);
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
