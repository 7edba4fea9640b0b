//! Locks and counters: handed on to one party at a time, and to nobody who has left.

use super::harness::{Count, check, thread};
use crate::error::WaitError;
use crate::lock::{Lock, UnsafeCell};
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

/// Units that are held, counted where loom looks: between one access and the next others may run.
struct Units {
    semaphore: Semaphore,
    held: Lock<u64>,
}

impl Units {
    fn new(size: u64) -> Arc<Units> {
        Arc::new(Units { semaphore: Semaphore::new(size), held: Lock::new(0) })
    }

    fn hold(&self, units: u64) {
        let size = self.semaphore.counts().0;
        let mut held = self.held.lock();
        *held += units;
        assert!(*held <= size, "more than there are");
    }

    fn release(&self, units: u64) {
        *self.held.lock() -= units;
        self.semaphore.release(units).unwrap();
    }

    fn assert_at_rest(&self) {
        let (size, free, waiting) = self.semaphore.counts();
        assert_eq!((free, waiting), (size, 0));
    }
}

#[test]
fn a_semaphore_gives_out_no_more_than_it_has() {
    check(|| {
        let units = Units::new(2);
        let others = [1, 2].map(|count| {
            let units = units.clone();
            thread(move || {
                units.semaphore.acquire(count, None).unwrap();
                units.hold(count);
                units.release(count);
            })
        });
        units.semaphore.acquire(1, None).unwrap();
        units.hold(1);
        units.release(1);
        others.into_iter().for_each(|other| other.join().unwrap());
        units.assert_at_rest();
    });
}

#[test]
fn a_release_serves_all_that_it_suffices_for() {
    check(|| {
        let units = Units::new(2);
        assert!(units.semaphore.try_acquire(2));
        let others = [(); 2].map(|()| {
            let units = units.clone();
            thread(move || units.semaphore.acquire(1, None).unwrap())
        });
        units.semaphore.release(2).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(units.semaphore.counts(), (2, 0, 0));
    });
}

#[test]
fn a_large_request_holds_small_ones_back_until_it_gives_up() {
    check(|| {
        let units = Units::new(2);
        assert!(units.semaphore.try_acquire(1));
        let large = {
            let units = units.clone();
            thread(move || {
                let acquired = units.semaphore.acquire(2, SOON);
                assert_eq!(acquired, Err(WaitError::TimedOut), "one unit is never given back");
            })
        };
        let small = {
            let units = units.clone();
            thread(move || units.semaphore.acquire(1, None).unwrap())
        };
        // Who came behind the large one is let in when that gives up, although nobody releases anything.
        small.join().unwrap();
        large.join().unwrap();
        assert_eq!(units.semaphore.counts(), (2, 0, 0));
    });
}

#[test]
fn nobody_gets_in_before_who_waits_longer() {
    check(|| {
        let units = Units::new(2);
        assert!(units.semaphore.try_acquire(1));
        let large = {
            let units = units.clone();
            thread(move || {
                units.semaphore.acquire(2, None).unwrap();
                units.hold(2);
                units.release(2);
            })
        };
        let waits = units.semaphore.counts().2 == 1;
        assert!(!(units.semaphore.try_acquire(1) && waits), "the large one is first");
        // All are free now, or one that was taken just now is not.
        let taken = 2 - units.semaphore.counts().1;
        let small = {
            let units = units.clone();
            thread(move || {
                let waits = units.semaphore.counts().2 == 1;
                let small = units.semaphore.acquire(1, SOON).is_ok();
                assert!(!(small && waits), "the large one is first");
                if small {
                    units.semaphore.release(1).unwrap();
                }
            })
        };
        small.join().unwrap();
        units.semaphore.release(taken).unwrap();
        large.join().unwrap();
        units.assert_at_rest();
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
fn a_wait_group_lets_nobody_go_before_zero() {
    check(|| {
        let shared = Arc::new((WaitGroup::default(), Count::default()));
        shared.0.add(2).unwrap();
        let workers = [(); 2].map(|()| {
            let shared = shared.clone();
            thread(move || {
                shared.1.add(1);
                shared.0.add(-1).unwrap();
            })
        });
        assert_eq!(shared.0.wait(None), Ok(()));
        assert_eq!(shared.1.get(), 2);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
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
