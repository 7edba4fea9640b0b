//! Errands: what is left for a machine that rests is done there, whatever it does when that is noticed; and nobody says that nothing can
//! happen any more before. The model plays the monitor.

use super::harness::{check, finish, go_straight, join, leave_to, left, runtime};
use crate::lock::yield_now;
use crate::machine;
use crate::scheduler::{self, Runtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Looks until it is done.
fn see_to_it(runtime: &'static Runtime) {
    while left() {
        runtime.send_errands();
        // If it is still left now, it was when this was asked.
        let quiet = scheduler::quiescent();
        assert!(!(quiet && left()), "something is left, and nothing can happen any more");
        yield_now();
    }
    assert_eq!(scheduler::num_goroutine(), 0);
}

/// The machine that ran `work`, by its address. It has ended.
fn machine_of(work: impl FnOnce() + Send + 'static) -> usize {
    let address = Arc::new(AtomicUsize::new(0));
    let goroutine = {
        let address = address.clone();
        go_straight(move || {
            address.store(machine::this().addr(), Ordering::Relaxed);
            work();
        })
    };
    join(&goroutine);
    address.load(Ordering::Relaxed)
}

#[test]
fn a_machine_that_sleeps_with_its_processor_is_sent() {
    check(|| {
        let runtime = runtime(1, false);
        leave_to(0);
        let machine = machine_of(|| ());
        leave_to(machine);
        see_to_it(runtime);
        finish();
    });
}

#[test]
fn a_machine_without_a_processor_is_sent() {
    check(|| {
        let runtime = runtime(1, false);
        leave_to(0);
        let machine = machine_of(move || {
            let tick = runtime.processors[0].lock().tick;
            assert!(runtime.hand_off(&runtime.processors[0], tick));
        });
        leave_to(machine);
        see_to_it(runtime);
        finish();
    });
}
