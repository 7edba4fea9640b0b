//! Bubbles by the core alone, for any number of processors; the executables beside this directory choose one. One test after the
//! other: there is one bubble a process.

use offset_runtime::bubble::{self, BubbleError};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::RecvError;
use offset_runtime::goroutine::WaitReason;
use offset_runtime::host::Plain;
use offset_runtime::{clock, scheduler};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

const SECOND: u64 = 1_000_000_000;

pub fn go(work: impl FnOnce() + Send + 'static) -> offset_runtime::goroutine::Handle {
    scheduler::spawn(Plain::payload(work))
}

fn one() -> MutexGuard<'static, bool> {
    static CONFIGURED: Mutex<bool> = Mutex::new(false);
    let mut configured = CONFIGURED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !std::mem::replace(&mut *configured, true) {
        crate::configure();
    }
    configured
}

/// Runs `work` in a bubble of its own, on a goroutine.
pub fn in_bubble<T: Send + 'static>(seed: Option<u64>, work: impl FnOnce() -> T + Send + 'static) -> T {
    after(|| (), seed, work)
}

/// The same after something that is not in the bubble.
pub fn after<T: Send + 'static>(
    before: impl FnOnce() + Send + 'static,
    seed: Option<u64>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let _one = one();
    let result = Arc::new(Mutex::new(None));
    let theirs = result.clone();
    let root = go(move || {
        before();
        assert_eq!(bubble::begin(seed), Ok(()));
        let value = work();
        assert_eq!(bubble::leave(), Ok(()));
        *theirs.lock().unwrap() = Some(value);
    });
    assert!(scheduler::join(&root, None).is_ok());
    assert!(bubble::clear().is_empty());
    let value = result.lock().unwrap().take();
    value.expect("the bubble ended")
}

pub fn sleep(seconds: u64) -> bool {
    scheduler::sleep(Some(bubble::now() + seconds * SECOND), WaitReason::Sleep)
}

#[test]
fn the_clock_jumps() {
    let real = clock::now();
    let passed = in_bubble(None, || {
        let start = bubble::now();
        for _ in 0..100 {
            assert!(sleep(86_400));
        }
        bubble::now() - start
    });
    assert_eq!(passed, 100 * 86_400 * SECOND);
    assert!(clock::now() - real < 60 * SECOND);
}

#[test]
fn sleepers_wake_in_the_order_of_their_times() {
    let order = in_bubble(None, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let sleepers: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|seconds| {
                let order = order.clone();
                go(move || {
                    sleep(seconds);
                    order.lock().unwrap().push(seconds);
                })
            })
            .collect();
        for sleeper in sleepers {
            assert!(scheduler::join(&sleeper, None).is_ok());
        }
        order.lock().unwrap().clone()
    });
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn wait_lets_the_others_come_to_rest() {
    in_bubble(None, || {
        let chan = Arc::new(Chan::<u32>::new(0).expect("small"));
        let steps = Arc::new(AtomicUsize::new(0));
        let (theirs, counted) = (chan.clone(), steps.clone());
        go(move || {
            for _ in 0..5 {
                counted.fetch_add(1, Ordering::Relaxed);
                scheduler::gosched();
            }
            assert!(matches!(theirs.recv(Wait::Until(None)), Ok(7)));
        });
        assert_eq!(bubble::wait(), Ok(()));
        assert_eq!(steps.load(Ordering::Relaxed), 5);
        assert!(chan.send(7, Wait::Until(None)).is_ok());
        assert_eq!(bubble::wait(), Ok(()));
    });
}

#[test]
fn a_deadlock_ends_the_wait_of_the_root() {
    in_bubble(None, || {
        let chan = Arc::new(Chan::<u32>::new(0).expect("small"));
        let theirs = chan.clone();
        let other = go(move || assert!(matches!(theirs.recv(Wait::Until(None)), Ok(1))));
        let mine = Chan::<u32>::new(0).expect("small");
        assert!(matches!(mine.recv(Wait::Until(None)), Err(RecvError::Cancelled)));
        assert_eq!(bubble::take_deadlock(), Some(WaitReason::ChanReceive));
        assert_eq!(bubble::take_deadlock(), None);
        assert!(chan.send(1, Wait::Until(None)).is_ok());
        assert!(scheduler::join(&other, None).is_ok());
    });
}

#[test]
fn time_stands_still_once_the_root_is_leaving() {
    in_bubble(None, || {
        let other = go(|| assert!(sleep(1)));
        assert_eq!(bubble::leave(), Err(BubbleError::Cancelled));
        assert_eq!(bubble::take_deadlock(), Some(WaitReason::Bubble));
        assert!(scheduler::join(&other, None).is_ok());
    });
}

#[test]
fn what_is_left_ends_on_the_clock_when_the_root_is_gone() {
    let (ended, other) = in_bubble(None, || {
        let ended = Arc::new(AtomicUsize::new(0));
        let counted = ended.clone();
        let other = go(move || {
            sleep(3_600);
            counted.fetch_add(1, Ordering::Relaxed);
        });
        bubble::abandon();
        assert_eq!(bubble::wait(), Err(BubbleError::Outside));
        assert!(scheduler::join(&other, None).is_ok());
        // For the frame around, which leaves it.
        assert_eq!(bubble::begin(None), Ok(()));
        (ended, other)
    });
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    drop(other);
}

/// In which order eight goroutines run that yield now and then.
fn order(seed: Option<u64>) -> Vec<usize> {
    order_after(|| (), seed)
}

pub fn order_after(before: impl FnOnce() + Send + 'static, seed: Option<u64>) -> Vec<usize> {
    after(before, seed, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let members: Vec<_> = (0..8)
            .map(|number| {
                let order = order.clone();
                go(move || {
                    for _ in 0..3 {
                        order.lock().unwrap().push(number);
                        bubble::jostle();
                        scheduler::gosched();
                    }
                })
            })
            .collect();
        for member in members {
            assert!(scheduler::join(&member, None).is_ok());
        }
        order.lock().unwrap().clone()
    })
}

#[test]
fn a_seed_decides_the_schedule() {
    let orders: Vec<_> = (0..20).map(|seed| order(Some(seed))).collect();
    for (seed, expected) in orders.iter().enumerate() {
        assert_eq!(&order(Some(seed as u64)), expected);
    }
    let mut different = orders.clone();
    different.sort();
    different.dedup();
    assert!(different.len() > 15);
}

#[test]
fn there_is_one_bubble_and_it_has_an_inside() {
    assert_eq!(bubble::begin(None), Err(BubbleError::Outside));
    in_bubble(None, || {
        assert_eq!(bubble::begin(None), Err(BubbleError::Busy));
        assert!(bubble::inside());
    });
    assert_eq!(bubble::wait(), Err(BubbleError::Outside));
    assert!(!bubble::inside());
}
