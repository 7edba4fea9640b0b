//! The pool for calls that block.

use super::{go, join, until};
use offset_runtime::blocking::{set_max_threads, submit};
use offset_runtime::goroutine::WaitReason;
use offset_runtime::scheduler;
use offset_runtime::sync::Note;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// Calls `work` in the pool and waits for it.
fn call(work: impl FnOnce() + Send + 'static) {
    let note = Arc::new(Note::default());
    assert!(submit((Box::new(work), note.clone())).is_ok());
    note.wait_for(WaitReason::Blocking, None).unwrap();
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
                scheduler::current().unwrap().come_back_first();
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
