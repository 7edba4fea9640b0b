//! The run queues of two processors: each goroutine runs once, whether its owner takes it or another processor steals it.

use super::harness::{Count, check, finish, go, go_straight, join, runtime};
use crate::lock::{Condvar, Lock};
use crate::scheduler;
use std::sync::Arc;

#[test]
fn owner_and_thief_take_each_goroutine_once() {
    check(|| {
        runtime(2, true);
        let runs = Count::default();
        let goroutines = [(); 3].map(|()| {
            let runs = runs.clone();
            go_straight(move || {
                runs.add(1);
            })
        });
        goroutines.iter().for_each(join);
        assert_eq!(runs.get(), 3);
        assert_eq!(scheduler::stats().runnable, 0);
        finish();
    });
}

#[test]
fn a_goroutine_that_spawns_and_yields() {
    check(|| {
        runtime(1, true);
        let runs = Count::default();
        let parent = {
            let runs = runs.clone();
            go(move || {
                let child = {
                    let runs = runs.clone();
                    go_straight(move || {
                        runs.add(1);
                    })
                };
                scheduler::gosched();
                assert_eq!(runs.get(), 1, "the child runs before its parent goes on");
                join(&child);
            })
        };
        join(&parent);
        assert_eq!(runs.get(), 1);
        finish();
    });
}

#[test]
fn a_processor_that_goes_to_sleep_sees_what_came_meanwhile() {
    check(|| {
        runtime(2, false);
        let done = Arc::new((Lock::new(false), Condvar::new()));
        // Both processors have machines; one of them is about to sleep when the child is queued at the other.
        let first = go_straight(|| {});
        let parent = go_straight(move || {
            let child = {
                let done = done.clone();
                go_straight(move || {
                    *done.0.lock() = true;
                    done.1.notify_one();
                })
            };
            let mut seen = done.0.lock();
            while !*seen {
                done.1.wait(&mut seen);
            }
            drop(seen);
            drop(child);
        });
        join(&first);
        join(&parent);
        finish();
    });
}
