//! The locks themselves; the other models use loom's. What they guard is in order, and nobody sleeps for ever.

use super::harness::{check_with, thread};
use crate::futex::{Sequence, Word};
use crate::lock::UnsafeCell;
use std::sync::Arc;

struct Shared {
    word: Word,
    changed: Sequence,
    value: UnsafeCell<u32>,
}

// SAFETY: what is tested is that the accesses are ordered.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared { word: Word::new(), changed: Sequence::new(), value: UnsafeCell::new(0) })
    }

    /// Adds to the value, under the lock; gives what it was.
    fn add(&self, number: u32) -> u32 {
        self.value.with_mut(|value| {
            // SAFETY: as loom checks.
            let value = unsafe { &mut *value };
            let before = *value;
            *value += number;
            before
        })
    }

    fn locked<R>(&self, work: impl FnOnce(&Self) -> R) -> R {
        self.word.lock();
        let result = work(self);
        self.word.unlock();
        result
    }

    fn wait_for(&self, number: u32) {
        self.locked(|shared| {
            while shared.add(0) < number {
                shared.changed.wait(&shared.word, None);
            }
        });
    }
}

#[test]
fn a_lock_is_held_by_one_and_wakes_all_in_turn() {
    check_with(3, || {
        let shared = Shared::new();
        let others = [(); 2].map(|()| {
            let shared = shared.clone();
            thread(move || shared.locked(|shared| shared.add(1)))
        });
        shared.locked(|shared| shared.add(1));
        others.into_iter().for_each(|other| assert!(other.join().unwrap() < 3));
        assert_eq!(shared.locked(|shared| shared.add(0)), 3);
    });
}

#[test]
fn a_lock_that_is_only_tried() {
    check_with(3, || {
        let shared = Shared::new();
        let other = {
            let shared = shared.clone();
            thread(move || {
                let taken = shared.word.try_lock();
                if taken {
                    shared.add(1);
                    shared.word.unlock();
                }
                u32::from(taken)
            })
        };
        shared.locked(|shared| shared.add(1));
        assert_eq!(1 + other.join().unwrap(), shared.locked(|shared| shared.add(0)));
    });
}

#[test]
fn a_notification_is_not_slept_through() {
    check_with(3, || {
        let shared = Shared::new();
        let waiter = {
            let shared = shared.clone();
            thread(move || shared.wait_for(1))
        };
        shared.locked(|shared| shared.add(1));
        shared.changed.notify_one();
        waiter.join().unwrap();
    });
}

#[test]
fn two_that_wait_are_woken_by_two_notifications() {
    check_with(2, || {
        let shared = Shared::new();
        let waiters = [(); 2].map(|()| {
            let shared = shared.clone();
            thread(move || shared.wait_for(1))
        });
        // Under the lock, as processors do.
        shared.locked(|shared| {
            shared.add(1);
            shared.changed.notify_one();
            shared.changed.notify_one();
        });
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}
