//! Locks and counters: handed on to one party at a time, and to nobody who has left.

use super::harness::{Count, check, thread};
use crate::error::WaitError;
use crate::lock::UnsafeCell;
use crate::sync::{Cond, Mutex, Note, RwMutex, Semaphore, WaitGroup};
use std::sync::Arc;

const SOON: Option<u64> = Some(crate::clock::LATER);

/// Something that only one party at a time may touch, and in the order of the lock; loom sees it if not.
struct Guarded<L> {
    lock: L,
    value: UnsafeCell<u32>,
}

// SAFETY: what is tested is that the accesses are ordered.
unsafe impl<L: Sync> Sync for Guarded<L> {}
// SAFETY: as above.
unsafe impl<L: Send> Send for Guarded<L> {}

impl<L> Guarded<L> {
    fn new(lock: L) -> Arc<Self> {
        Arc::new(Guarded { lock, value: UnsafeCell::new(0) })
    }

    fn add(&self) {
        // SAFETY: under the lock, as loom checks.
        self.value.with_mut(|value| unsafe { *value += 1 });
    }

    fn get(&self) -> u32 {
        // SAFETY: as in `add`.
        self.value.with_mut(|value| unsafe { *value })
    }
}

#[test]
fn a_mutex_is_handed_on() {
    check(|| {
        let shared = Guarded::new(Mutex::default());
        let work = |shared: &Guarded<Mutex>| {
            shared.lock.lock(None).unwrap();
            shared.add();
            shared.lock.unlock().unwrap();
        };
        let others = [(); 2].map(|()| {
            let shared = shared.clone();
            thread(move || work(&shared))
        });
        work(&shared);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(shared.get(), 3);
        assert_eq!(shared.lock.counts(), (false, 0));
    });
}

#[test]
fn a_mutex_is_not_handed_to_one_who_left() {
    check(|| {
        let shared = Guarded::new(Mutex::default());
        let others = [SOON, None].map(|deadline| {
            let shared = shared.clone();
            thread(move || {
                let locked = shared.lock.lock(deadline);
                if locked.is_ok() {
                    shared.add();
                    shared.lock.unlock().unwrap();
                }
                u32::from(locked.is_ok())
            })
        });
        shared.lock.lock(None).unwrap();
        shared.add();
        shared.lock.unlock().unwrap();
        let locked: u32 = others.into_iter().map(|other| other.join().unwrap()).sum();
        assert!((1..=2).contains(&locked));
        assert_eq!(shared.get(), 1 + locked);
        assert_eq!(shared.lock.counts(), (false, 0));
    });
}

#[test]
fn a_writer_excludes_readers_and_writers() {
    check(|| {
        let shared = Guarded::new(RwMutex::default());
        let writer = {
            let shared = shared.clone();
            thread(move || {
                shared.lock.lock(None).unwrap();
                shared.add();
                shared.lock.unlock().unwrap();
            })
        };
        let reader = {
            let shared = shared.clone();
            thread(move || {
                shared.lock.rlock(None).unwrap();
                let seen = shared.get();
                shared.lock.runlock().unwrap();
                seen
            })
        };
        shared.lock.lock(None).unwrap();
        shared.add();
        shared.lock.unlock().unwrap();
        writer.join().unwrap();
        assert!(reader.join().unwrap() <= 2);
        assert_eq!(shared.get(), 2);
        assert_eq!(shared.lock.counts(), (false, 0, 0, 0));
    });
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    check(|| {
        let lock = Arc::new(RwMutex::default());
        lock.rlock(None).unwrap();
        let writer = {
            let lock = lock.clone();
            thread(move || {
                if lock.lock(SOON).is_ok() {
                    lock.unlock().unwrap();
                }
            })
        };
        let reader = {
            let lock = lock.clone();
            thread(move || {
                lock.rlock(None).unwrap();
                lock.runlock().unwrap();
            })
        };
        // The reader gets in although the first one stays: the writer has given up by then, or came later.
        reader.join().unwrap();
        writer.join().unwrap();
        lock.runlock().unwrap();
        assert_eq!(lock.counts(), (false, 0, 0, 0));
    });
}

#[test]
fn a_semaphore_gives_out_no_more_than_it_has() {
    check(|| {
        let semaphore = Arc::new(Semaphore::new(2));
        let held = Count::default();
        let others = [(1, None), (2, SOON)].map(|(units, deadline)| {
            let (semaphore, held) = (semaphore.clone(), held.clone());
            thread(move || {
                if semaphore.acquire(units, deadline).is_ok() {
                    assert!(held.add(units as u32) + units as u32 <= 2);
                    held.subtract(units as u32);
                    semaphore.release(units).unwrap();
                }
            })
        });
        semaphore.acquire(2, None).unwrap();
        assert_eq!(held.add(2), 0);
        held.subtract(2);
        semaphore.release(2).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(semaphore.counts(), (2, 2, 0));
    });
}

#[test]
fn a_wait_group_lets_all_go_at_zero() {
    check(|| {
        let shared = Guarded::new(WaitGroup::default());
        shared.lock.add(2).unwrap();
        let waiter = {
            let shared = shared.clone();
            thread(move || shared.lock.wait(None))
        };
        let worker = {
            let shared = shared.clone();
            thread(move || {
                shared.add();
                shared.lock.add(-1).unwrap();
            })
        };
        shared.lock.add(-1).unwrap();
        assert_eq!(shared.lock.wait(None), Ok(()));
        assert_eq!(shared.get(), 1);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        worker.join().unwrap();
        assert_eq!(shared.lock.counts(), (0, 0));
    });
}

#[test]
fn a_signal_is_not_used_up_by_one_who_left() {
    check(|| {
        let cond = Arc::new(Cond::default());
        let hasty = cond.enlist();
        let patient = cond.enlist();
        let waiters = [(hasty, SOON), (patient, None)].map(|(ticket, deadline)| {
            let cond = cond.clone();
            thread(move || cond.wait(ticket, deadline))
        });
        let served = cond.signal();
        assert!(served, "the patient one is there");
        let mut waiters = waiters.into_iter();
        let hasty = waiters.next().unwrap().join().unwrap();
        if hasty.is_ok() {
            // It took the signal; the patient one needs another.
            assert!(cond.signal());
        } else {
            assert_eq!(hasty, Err(WaitError::TimedOut));
        }
        assert_eq!(waiters.next().unwrap().join().unwrap(), Ok(()));
        assert!(cond.is_empty());
    });
}

#[test]
fn a_broadcast_serves_who_waits_and_nobody_who_comes_later() {
    check(|| {
        let cond = Arc::new(Cond::default());
        let first = cond.enlist();
        let again = {
            let cond = cond.clone();
            thread(move || {
                cond.wait(first, None).unwrap();
                // Whoever finds its condition unfulfilled takes a place again; the broadcast that woke it must not serve that.
                cond.enlist()
            })
        };
        cond.broadcast();
        let again = again.join().unwrap();
        assert_eq!(cond.len(), 1, "the broadcast served a place taken after it");
        cond.leave(again);
    });
}

#[test]
fn a_note_wakes_all() {
    check(|| {
        let shared = Guarded::new(Note::default());
        let waiters = [(); 2].map(|()| {
            let shared = shared.clone();
            thread(move || shared.lock.wait(None).unwrap())
        });
        shared.add();
        shared.lock.set();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(shared.get(), 1);
    });
}
