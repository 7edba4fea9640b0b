//! A forked child starts with an empty runtime that works, whatever the parent's goroutines and threads were doing.

#![allow(missing_docs)]
// The thread sanitizer ends a child that starts threads.
#![cfg(not(tsan))]

use offset_runtime::chan::{Chan, Wait};
use offset_runtime::clock;
use offset_runtime::error::{RecvError, SendError};
use offset_runtime::fork;
use offset_runtime::goroutine::{Handle, Status, WaitReason};
use offset_runtime::host::Plain;
use offset_runtime::scheduler;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const EVER: Wait = Wait::Until(None);

fn go(work: impl FnOnce() + Send + 'static) -> Handle {
    scheduler::spawn(Plain::payload(work))
}

fn soon() -> clock::Deadline {
    clock::after(Duration::from_secs(60))
}

fn join(goroutine: &Handle) {
    scheduler::join(goroutine, soon()).expect("a goroutine did not end within a minute");
}

/// Forks, does `work` in the child, and waits for its end. The child may not unwind into the test's harness.
fn in_child(work: impl FnOnce()) {
    fork::prepare();
    // SAFETY: the child calls `fork::child` first, and leaves by `_exit` or by a signal.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: prepared above, on this thread, which is the only one.
        unsafe { fork::child(|_| ()) };
        // A child that hangs is ended by this.
        // SAFETY: plain system calls.
        unsafe { libc::alarm(60) };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    // SAFETY: prepared above, on this thread.
    unsafe { fork::parent() };
    let mut status = 0;
    // SAFETY: the status is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
}

/// Goroutines that park, wake, sleep and start others.
fn all_works() {
    let chan = Arc::new(Chan::new(1).unwrap());
    let senders: Vec<_> = (0..8)
        .map(|value| {
            let chan = chan.clone();
            go(move || {
                scheduler::sleep(clock::after(Duration::from_millis(1)), WaitReason::Sleep);
                chan.send(value, EVER).unwrap();
            })
        })
        .collect();
    let sum: u32 = (0..8).map(|_| chan.recv(Wait::Until(soon())).unwrap()).sum();
    assert_eq!(sum, 28);
    senders.iter().for_each(join);
    assert_eq!(scheduler::num_goroutine(), 0);
}

#[test]
fn a_child_starts_empty_and_works() {
    scheduler::set_processors(2);
    let chan = Arc::new(Chan::<u32>::new(0).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let parked = {
        let chan = chan.clone();
        go(move || assert_eq!(chan.recv(EVER), Ok(7)))
    };
    // Others are at every point of their lives when it forks, again and again.
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            go(move || {
                while !stop.load(Ordering::Relaxed) {
                    join(&go(scheduler::gosched));
                    scheduler::sleep(clock::after(Duration::from_micros(50)), WaitReason::Sleep);
                }
            })
        })
        .collect();
    while parked.wait_reason() != WaitReason::ChanReceive {
        std::thread::yield_now();
    }
    for _ in 0..50 {
        in_child(|| {
            assert_eq!(scheduler::num_goroutine(), 0);
            assert_eq!(parked.status(), Status::Dead);
            join(&parked);
            // Whoever waits in the parent takes no value here.
            assert_eq!(chan.send(1, Wait::No), Err(SendError::TimedOut(1)));
            assert_eq!(chan.recv(Wait::No), Err(RecvError::TimedOut));
            all_works();
        });
    }
    // In a goroutine, whose stack becomes that of a plain thread.
    let inside = go(|| {
        in_child(|| {
            assert!(scheduler::current().is_none());
            all_works();
            // And once more, in a child's child.
            in_child(all_works);
        });
    });
    join(&inside);
    stop.store(true, Ordering::Relaxed);
    busy.iter().for_each(join);
    chan.send(7, EVER).unwrap();
    join(&parked);
    all_works();
}
