//! Locks and counters between goroutines and OS threads.

use super::{after, go, join, start, until};
use offset_runtime::error::{Misuse, WaitError};
use offset_runtime::scheduler;
use offset_runtime::sync::{Cond, Mutex, Note, RwMutex, Semaphore, WaitGroup};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn a_mutex_excludes() {
    let mutex = Arc::new(Mutex::default());
    let inside = Arc::new(AtomicU32::new(0));
    let count = Arc::new(AtomicU32::new(0));
    let parties: Vec<_> = (0..8)
        .map(|me| {
            let (mutex, inside, count) = (mutex.clone(), inside.clone(), count.clone());
            start(me % 4 == 0, move || {
                for round in 0..200 {
                    mutex.lock(None).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    if round % 10 == 0 {
                        scheduler::gosched();
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::Relaxed);
                    mutex.unlock().unwrap();
                }
            })
        })
        .collect();
    parties.into_iter().for_each(|wait| wait());
    assert_eq!(count.load(Ordering::Relaxed), 1_600);
    assert_eq!(mutex.counts(), (false, 0));
    assert_eq!(mutex.unlock(), Err(Misuse::NotLocked));
    assert!(mutex.try_lock() && !mutex.try_lock());
    assert_eq!(mutex.lock(after(2)), Err(WaitError::TimedOut));
}

#[test]
fn a_lock_says_which_goroutine_has_taken_it() {
    let (mutex, lock) = (Arc::new(Mutex::default()), Arc::new(RwMutex::default()));
    assert_eq!((mutex.taker(), lock.writer()), (None, None));
    mutex.lock(None).unwrap();
    assert!(lock.try_lock());
    // This is a thread.
    assert_eq!((mutex.taker(), lock.writer()), (Some(0), Some(0)));
    let waits = {
        let (mutex, lock) = (mutex.clone(), lock.clone());
        go(move || {
            let me = Some(scheduler::current().unwrap().id());
            mutex.lock(None).unwrap();
            lock.lock(None).unwrap();
            assert_eq!((mutex.taker(), lock.writer()), (me, me));
            mutex.unlock().unwrap();
            lock.unlock().unwrap();
        })
    };
    until("the mutex is waited for", || mutex.counts().1 == 1);
    mutex.unlock().unwrap();
    until("the lock is waited for", || lock.counts().2 == 1);
    lock.unlock().unwrap();
    join(&waits);
    assert_eq!((mutex.taker(), lock.writer()), (None, None));
    lock.rlock(None).unwrap();
    assert_eq!(lock.writer(), None);
}

#[test]
fn readers_share_and_writers_do_not() {
    let lock = Arc::new(RwMutex::default());
    // Readers count one each, a writer a thousand.
    let inside = Arc::new(AtomicU32::new(0));
    let parties: Vec<_> = (0..8)
        .map(|me| {
            let (lock, inside) = (lock.clone(), inside.clone());
            start(me % 3 == 0, move || {
                for _ in 0..200 {
                    if me < 2 {
                        lock.lock(None).unwrap();
                        assert_eq!(inside.fetch_add(1_000, Ordering::Relaxed), 0);
                        scheduler::gosched();
                        inside.fetch_sub(1_000, Ordering::Relaxed);
                        lock.unlock().unwrap();
                    } else {
                        lock.rlock(None).unwrap();
                        assert!(inside.fetch_add(1, Ordering::Relaxed) < 1_000);
                        scheduler::gosched();
                        inside.fetch_sub(1, Ordering::Relaxed);
                        lock.runlock().unwrap();
                    }
                }
            })
        })
        .collect();
    parties.into_iter().for_each(|wait| wait());
    assert_eq!(lock.counts(), (false, 0, 0, 0));
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    let lock = Arc::new(RwMutex::default());
    lock.rlock(None).unwrap();
    let writer = {
        let lock = lock.clone();
        go(move || assert_eq!(lock.lock(None), Err(WaitError::Cancelled)))
    };
    until("the writer waits", || lock.counts().2 == 1);
    let reader = {
        let lock = lock.clone();
        go(move || {
            lock.rlock(None).unwrap();
            lock.runlock().unwrap();
        })
    };
    until("the reader waits", || lock.counts().3 == 1);
    writer.cancel();
    join(&writer);
    join(&reader);
    lock.runlock().unwrap();
}

#[test]
fn a_semaphore_bounds_and_serves_in_order() {
    let semaphore = Arc::new(Semaphore::new(5));
    let used = Arc::new(AtomicU32::new(0));
    let parties: Vec<_> = (0..9)
        .map(|me| {
            let (semaphore, used) = (semaphore.clone(), used.clone());
            let units = me % 5 + 1;
            start(me % 3 == 0, move || {
                for _ in 0..100 {
                    semaphore.acquire(u64::from(units), None).unwrap();
                    assert!(used.fetch_add(units, Ordering::Relaxed) + units <= 5);
                    scheduler::gosched();
                    used.fetch_sub(units, Ordering::Relaxed);
                    semaphore.release(u64::from(units)).unwrap();
                }
            })
        })
        .collect();
    parties.into_iter().for_each(|wait| wait());
    assert_eq!(semaphore.counts(), (5, 5, 0));
    assert_eq!(semaphore.release(1), Err(Misuse::NegativeCounter));
    assert_eq!(semaphore.acquire(6, after(2)), Err(WaitError::TimedOut));
}

#[test]
fn a_wait_group_counts() {
    let group = Arc::new(WaitGroup::default());
    let done = Arc::new(AtomicU32::new(0));
    group.add(20).unwrap();
    for me in 0..20 {
        let (group, done) = (group.clone(), done.clone());
        let _ = start(me % 4 == 0, move || {
            done.fetch_add(1, Ordering::Relaxed);
            group.add(-1).unwrap();
        });
    }
    group.wait(None).unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 20);
    assert_eq!(group.add(-1), Err(Misuse::NegativeCounter));
    assert_eq!(group.counts(), (0, 0));
}

#[test]
fn a_condition_serves_one_or_all() {
    let cond = Arc::new(Cond::default());
    let served = Arc::new(AtomicU32::new(0));
    let waiting: Vec<_> = (0..6)
        .map(|me| {
            let (cond, served) = (cond.clone(), served.clone());
            start(me % 2 == 0, move || {
                let place = cond.enlist();
                cond.wait(place, None).unwrap();
                served.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    until("all wait", || cond.len() == 6);
    assert!(cond.signal());
    until("one is served", || served.load(Ordering::Relaxed) == 1);
    assert_eq!(cond.len(), 5);
    cond.broadcast();
    waiting.into_iter().for_each(|wait| wait());
    assert_eq!(served.load(Ordering::Relaxed), 6);
    assert!(!cond.signal() && cond.is_empty());
    let place = cond.enlist();
    assert_eq!(cond.wait(place, after(2)), Err(WaitError::TimedOut));
    let place = cond.enlist();
    cond.leave(place);
    assert!(cond.is_empty());
}

#[test]
fn a_note_is_seen_by_all_until_it_is_cleared() {
    let note = Arc::new(Note::default());
    let waiting: Vec<_> = (0..4)
        .map(|me| {
            let note = note.clone();
            start(me % 2 == 0, move || note.wait(None).unwrap())
        })
        .collect();
    note.set();
    waiting.into_iter().for_each(|wait| wait());
    assert!(note.is_set() && note.clear() && !note.clear());
    assert_eq!(note.wait(after(2)), Err(WaitError::TimedOut));
}
