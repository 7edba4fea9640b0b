//! Starting, yielding, ending, joining, cancelling.

use super::{after, go, join, until_parked};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::{RecvError, WaitError};
use offset_runtime::goroutine::{Status, WaitReason};
use offset_runtime::host::Plain;
use offset_runtime::lock::Lock;
use offset_runtime::scheduler;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const EVER: Wait = Wait::Until(None);

#[test]
fn each_of_many_runs_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let goroutines: Vec<_> = (0..2_000)
        .map(|_| {
            let runs = runs.clone();
            go(move || {
                runs.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    goroutines.iter().for_each(join);
    assert_eq!(runs.load(Ordering::Relaxed), 2_000);
    assert!(goroutines.iter().all(|goroutine| goroutine.status() == Status::Dead));
}

#[test]
fn goroutines_start_goroutines() {
    fn tree(depth: u32, leaves: Arc<AtomicUsize>) {
        if depth == 0 {
            leaves.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let children = [(); 2].map(|()| {
            let leaves = leaves.clone();
            go(move || tree(depth - 1, leaves))
        });
        children.iter().for_each(join);
    }
    let leaves = Arc::new(AtomicUsize::new(0));
    let root = {
        let leaves = leaves.clone();
        go(move || tree(8, leaves))
    };
    join(&root);
    assert_eq!(leaves.load(Ordering::Relaxed), 256);
}

#[test]
fn a_goroutine_knows_itself_and_its_creator() {
    assert!(scheduler::current().is_none());
    let seen = Arc::new(Lock::new((0, 0, 0)));
    let parent = {
        let seen = seen.clone();
        go(move || {
            let me = scheduler::current().unwrap();
            assert_eq!((me.status(), me.creator()), (Status::Running, 0));
            let id = me.id();
            let child = {
                let seen = seen.clone();
                go(move || {
                    let me = scheduler::current().unwrap();
                    *seen.lock() = (id, me.creator(), me.id());
                })
            };
            join(&child);
            assert_eq!(seen.lock().2, child.id());
        })
    };
    join(&parent);
    let (id, creator, child) = *seen.lock();
    assert_eq!((id, creator), (parent.id(), parent.id()));
    assert!(child > id);
}

#[test]
fn yielding_goes_round_on_one_processor() {
    if crate::PROCESSORS != 1 {
        return;
    }
    fn order() -> Vec<u32> {
        let order = Arc::new(Lock::new(Vec::new()));
        let parent = {
            let order = order.clone();
            go(move || {
                let children = [0, 1, 2].map(|me| {
                    let order = order.clone();
                    go(move || {
                        for _ in 0..5 {
                            order.lock().push(me);
                            scheduler::gosched();
                        }
                    })
                });
                children.iter().for_each(join);
            })
        };
        join(&parent);
        std::mem::take(&mut *order.lock())
    }
    // The system may stop one in the middle, and the monitor hand the processor on: one undisturbed time is enough.
    let mut seen = Vec::new();
    for _ in 0..50 {
        seen = order();
        if seen.chunks(3).all(|round| round == [0, 1, 2]) {
            return;
        }
    }
    panic!("{seen:?}");
}

#[test]
fn a_join_may_time_out_and_be_repeated() {
    let chan = Arc::new(Chan::<()>::new(0).unwrap());
    let goroutine = {
        let chan = chan.clone();
        go(move || chan.recv(EVER).unwrap())
    };
    until_parked(&goroutine, WaitReason::ChanReceive);
    assert_eq!(scheduler::join(&goroutine, Some(0)), Err(WaitError::TimedOut));
    assert_eq!(scheduler::join(&goroutine, after(5)), Err(WaitError::TimedOut));
    chan.send((), EVER).unwrap();
    join(&goroutine);
    join(&goroutine);
}

#[test]
fn a_cancelled_wait_ends_and_leaves_nothing_behind() {
    let chan = Arc::new(Chan::<u32>::new(0).unwrap());
    let result = Arc::new(Lock::new(None));
    let goroutine = {
        let (chan, result) = (chan.clone(), result.clone());
        go(move || {
            let first = chan.recv(EVER);
            // It is delivered once: the next wait is a wait again.
            let second = chan.recv(EVER);
            *result.lock() = Some((first, second));
        })
    };
    until_parked(&goroutine, WaitReason::ChanReceive);
    assert!(goroutine.cancel());
    super::until("the second wait", || chan.counts().1 == 1 && goroutine.wait_reason() == WaitReason::ChanReceive);
    chan.send(7, EVER).unwrap();
    join(&goroutine);
    assert_eq!(*result.lock(), Some((Err(RecvError::Cancelled), Ok(7))));
    assert_eq!(chan.counts(), (0, 0, 1));
}

#[test]
fn a_cancellation_of_one_that_runs_ends_its_next_wait() {
    let chan = Arc::new(Chan::<u32>::new(0).unwrap());
    let goroutine = {
        let chan = chan.clone();
        go(move || {
            assert!(!scheduler::current().unwrap().cancel());
            assert_eq!(chan.recv(EVER), Err(RecvError::Cancelled));
        })
    };
    join(&goroutine);
    assert!(!goroutine.cancel(), "one that has ended has no wait");
}

#[test]
fn what_is_abandoned_does_not_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let before = scheduler::num_goroutine();
    for start in [true, false] {
        let runs = runs.clone();
        let payload = Plain::payload(move || {
            runs.fetch_add(1, Ordering::Relaxed);
        });
        let handle = scheduler::prepare(payload);
        if start {
            scheduler::start(&handle);
            join(&handle);
        } else {
            scheduler::abandon(handle);
            // SAFETY: the goroutine that owned it will not run.
            drop(unsafe { Box::from_raw(payload as *mut Box<dyn FnOnce() + Send>) });
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let _ = before;
}

#[test]
fn stacks_are_deep_and_used_again() {
    fn deep(depth: usize) -> usize {
        let frame = std::hint::black_box([depth; 128]);
        if depth == 0 { frame[0] } else { deep(depth - 1) + usize::from(frame[7] == depth) }
    }
    for _ in 0..20 {
        let goroutine = go(|| assert_eq!(deep(200), 200));
        join(&goroutine);
    }
}

#[test]
fn a_locked_goroutine_stays_on_its_thread() {
    let goroutine = go(|| {
        assert!(scheduler::lock_thread(true));
        let thread = std::thread::current().id();
        for _ in 0..20 {
            scheduler::sleep(after(1), WaitReason::Sleep);
            assert_eq!(std::thread::current().id(), thread);
        }
        assert!(scheduler::lock_thread(false));
        assert!(!scheduler::lock_thread(false));
    });
    // Others take the processor from its machine meanwhile.
    let blocked: Vec<_> = (0..3).map(|_| go(|| std::thread::sleep(std::time::Duration::from_millis(15)))).collect();
    join(&goroutine);
    blocked.iter().for_each(join);
}
