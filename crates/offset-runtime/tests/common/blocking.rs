//! The pool for calls that block.

use super::{go, join, until};
use offset_runtime::blocking::{run, set_max_threads};
use offset_runtime::error::WaitError;
use offset_runtime::scheduler;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// Calls `work` in the pool and waits for it.
fn call(work: impl FnOnce() + Send + 'static) {
    assert!(run(Box::new(work)).is_ok_and(|waited| waited.is_ok()));
}

/// Tests that set or count on the limit of the process take turns.
static LIMIT: Mutex<()> = Mutex::new(());

#[test]
fn calls_run_at_once_and_goroutines_go_on() {
    let _limit = LIMIT.lock().unwrap();
    let barrier = Arc::new(Barrier::new(8));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let barrier = barrier.clone();
            go(move || {
                // All eight calls must be under way at once for any to return.
                call(move || {
                    barrier.wait();
                });
            })
        })
        .collect();
    callers.iter().for_each(join);
}

#[test]
fn a_call_that_nobody_waits_for_is_made() {
    let _limit = LIMIT.lock().unwrap();
    let caller = go(|| {
        for _ in 0..100 {
            // There is a thread that sleeps.
            call(|| ());
            let (left, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            scheduler::current().unwrap().cancel();
            let work = {
                let (left, made) = (left.clone(), made.clone());
                Box::new(move || {
                    // Done sooner it would be waited for.
                    until("the end of the wait", || left.load(Ordering::SeqCst));
                    made.store(true, Ordering::SeqCst);
                })
            };
            assert!(run(work).is_ok_and(|waited| waited == Err(WaitError::Cancelled)));
            left.store(true, Ordering::SeqCst);
            // The goroutine does not give up its stack.
            until("the call", || made.load(Ordering::SeqCst));
        }
    });
    join(&caller);
}

#[test]
fn a_plain_thread_waits_for_its_call() {
    let _limit = LIMIT.lock().unwrap();
    let made = Arc::new(AtomicU32::new(0));
    for count in 1..100 {
        let work = made.clone();
        call(move || {
            work.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(made.load(Ordering::SeqCst), count);
    }
}

#[test]
fn calls_beyond_the_limit_queue() {
    let _limit = LIMIT.lock().unwrap();
    let before = set_max_threads(2);
    let (running, most, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (running, most, done) = (running.clone(), most.clone(), done.clone());
            go(move || {
                call(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                });
                done.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    callers.iter().for_each(join);
    assert_eq!(set_max_threads(before), 2);
    assert_eq!(done.load(Ordering::SeqCst), 20);
    assert!(most.load(Ordering::SeqCst) <= 2);
    until("no call is counted", || scheduler::stats().blocking_calls == 0);
}
