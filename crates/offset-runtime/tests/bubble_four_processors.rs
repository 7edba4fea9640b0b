//! Bubbles with four processors and goroutines that stay where they started, as on a free-threaded build of CPython.

mod bubbles;

use bubbles::{go, in_bubble, order_after, sleep};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::scheduler;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn configure() {
    scheduler::set_processors(4);
    scheduler::allow_moves(false);
}

/// Long enough for the monitor to hand a processor on.
fn hold_up() {
    std::thread::sleep(Duration::from_millis(40));
}

#[test]
fn a_seed_decides_the_schedule_whatever_happened_before() {
    let expected = order_after(|| (), Some(3));
    for _ in 0..10 {
        let handed_on = order_after(hold_up, Some(3));
        assert_eq!(handed_on, expected);
    }
}

#[test]
fn a_seed_decides_the_schedule_beside_others() {
    let expected = order_after(|| (), Some(3));
    for blocks in [false, true] {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = stop.clone();
        let beside = order_after(
            move || {
                for _ in 0..8 {
                    let stop = theirs.clone();
                    go(move || {
                        while !stop.load(Ordering::Relaxed) {
                            if blocks {
                                std::thread::sleep(Duration::from_micros(100));
                            }
                            scheduler::gosched();
                        }
                    });
                }
                hold_up();
            },
            Some(3),
        );
        stop.store(true, Ordering::Relaxed);
        assert_eq!(beside, expected);
    }
}

#[test]
fn the_clock_goes_on_though_members_run_on_two_machines() {
    in_bubble(None, || {
        let chan = Arc::new(Chan::<u32>::new(0).expect("small"));
        let theirs = chan.clone();
        let held_up = go(move || {
            // Others get the processor.
            hold_up();
            scheduler::gosched();
            // The other one runs last, and this one parks last.
            assert!(theirs.send(1, Wait::Until(None)).is_ok());
            std::thread::sleep(Duration::from_millis(5));
            assert!(sleep(2));
        });
        let other = go(move || {
            assert!(matches!(chan.recv(Wait::Until(None)), Ok(1)));
            assert!(sleep(1));
        });
        assert!(scheduler::join(&held_up, None).is_ok());
        assert!(scheduler::join(&other, None).is_ok());
    });
}
