//! Hand-off: the model plays the monitor and takes processors from machines that run a goroutine, at any moment. Every
//! goroutine ends, so no processor is lost; what may not move goes on where it was; and a machine picks a goroutine only while
//! it holds the processor (`Machine::run` asserts that).

use super::harness::{Count, check, check_with, finish, go, go_nowhere, go_straight, join, runtime, thread};
use crate::bed;
use crate::chan::{Chan, Wait};
use crate::goroutine::{Handle, WaitReason};
use crate::lock::{Condvar, Lock, yield_now};
use crate::machine::{self, Machine};
use crate::scheduler::{self, Runtime};
use crate::sync::Note;
use std::sync::Arc;

/// Takes processor `index` from its machine if that runs a goroutine.
fn take(runtime: &'static Runtime, index: usize) -> bool {
    let processor = &runtime.processors[index];
    let tick = {
        let state = processor.lock();
        if !state.running {
            return false;
        }
        state.tick
    };
    runtime.hand_off(processor, tick)
}

/// A goroutine that gives up its stack twice and, unless it may move, goes on where it started.
fn wanderer(moves: bool, runs: &Count) -> Handle {
    let runs = runs.clone();
    go(move || {
        let home = machine::this();
        scheduler::gosched();
        assert!(moves || std::ptr::eq(home, machine::this()), "it was moved");
        runs.add(1);
    })
}

fn straight(runs: &Count) -> Handle {
    let runs = runs.clone();
    go_straight(move || {
        runs.add(1);
    })
}

fn assert_at_rest(runtime: &'static Runtime, runs: &Count, count: u32) {
    assert_eq!(runs.get(), count, "each goroutine runs once");
    let stats = scheduler::stats();
    assert_eq!((stats.goroutines, stats.runnable), (0, 0));
    finish();
    assert_eq!(scheduler::stats().stuck_machines, 0);
    assert_eq!(scheduler::stats().machines, 0);
    for processor in &runtime.processors {
        assert!(!processor.lock().running);
    }
}

fn one_processor(moves: bool) {
    check(move || {
        let runtime = runtime(1, moves);
        let runs = Count::default();
        let goroutines = [wanderer(moves, &runs), straight(&runs)];
        take(runtime, 0);
        goroutines.iter().for_each(join);
        assert_at_rest(runtime, &runs, 2);
    });
}

#[test]
fn a_processor_is_taken_and_goroutines_stay_at_home() {
    one_processor(false);
}

#[test]
fn a_processor_is_taken_and_goroutines_move() {
    one_processor(true);
}

#[test]
fn the_monitor_is_awake_while_a_goroutine_runs() {
    check(|| {
        let runtime = runtime(1, true);
        let awake = Arc::new((Lock::new(false), Condvar::new()));
        let monitor = {
            let awake = awake.clone();
            thread(move || {
                bed::sleep(runtime);
                *awake.0.lock() = true;
                awake.1.notify_one();
            })
        };
        // It holds up its machine until the monitor is there to take the processor away.
        let stuck = go_straight(move || {
            let mut seen = awake.0.lock();
            while !*seen {
                awake.1.wait(&mut seen);
            }
        });
        join(&stuck);
        monitor.join().unwrap();
        finish();
    });
}

#[test]
fn a_processor_that_is_given_up_goes_to_who_claimed_it() {
    check(|| {
        let runtime = runtime(1, false);
        let processor = &runtime.processors[0];
        // Machines without threads: one was given the processor but has another one, one waits with goroutines of its own.
        let [busy, waiting] = [(); 2].map(|()| -> &'static Machine { Box::leak(Box::new(Machine::new())) });
        processor.lock().holder = busy;
        assert!(!processor.lock().claim(waiting, false));
        runtime.free(processor);
        while !std::ptr::eq(processor.lock().holder, waiting) {
            yield_now();
        }
        finish();
    });
}

#[test]
fn a_processor_is_taken_twice() {
    check(|| {
        let runtime = runtime(1, false);
        let runs = Count::default();
        let goroutines = [wanderer(false, &runs), straight(&runs), straight(&runs)];
        take(runtime, 0);
        take(runtime, 0);
        goroutines.iter().for_each(join);
        assert_at_rest(runtime, &runs, 3);
    });
}

#[test]
fn a_goroutine_moves_once_its_thread_has_let_it_go() {
    // The harness's host asserts it.
    for parks in [false, true] {
        check(move || {
            let runtime = runtime(1, true);
            let runs = Count::default();
            let chan = Arc::new(Chan::<u32>::new(0).unwrap());
            let goroutine = {
                let (runs, chan) = (runs.clone(), chan.clone());
                go(move || {
                    assert!(take(runtime, 0));
                    if parks {
                        assert_eq!(chan.recv(Wait::Until(None)), Ok(1));
                    } else {
                        scheduler::gosched();
                    }
                    runs.add(1);
                })
            };
            if parks {
                assert_eq!(chan.send(1, Wait::Until(None)), Ok(()));
            }
            join(&goroutine);
            assert_at_rest(runtime, &runs, 1);
        });
    }
}

#[test]
fn a_younger_machine_comes_back_to_one_that_sleeps() {
    // It happens without preemptions; more than one take minutes.
    check_with(1, || {
        let runtime = runtime(1, false);
        let runs = Count::default();
        // Each loses its processor while it runs. The second one's machine gives it back to the first one's, which has nothing
        // left to do.
        let first = {
            let runs = runs.clone();
            go_straight(move || {
                assert!(take(runtime, 0));
                runs.add(1);
            })
        };
        let second = {
            let runs = runs.clone();
            go(move || {
                take(runtime, 0);
                scheduler::gosched();
                runs.add(1);
            })
        };
        join(&first);
        join(&second);
        assert_at_rest(runtime, &runs, 2);
    });
}

#[test]
fn a_machine_that_gives_way_has_let_its_goroutines_go() {
    // The harness's host asserts it.
    check(|| {
        let runtime = runtime(1, true);
        let runs = Count::default();
        let chan = Arc::new(Chan::<u32>::new(0).unwrap());
        // The first machine has a goroutine that waits, so it comes back for the processor that the second one loses it.
        let waiting = {
            let (runs, chan) = (runs.clone(), chan.clone());
            go(move || {
                assert_eq!(chan.recv(Wait::Until(None)), Ok(1));
                runs.add(1);
            })
        };
        let begun = Count::default();
        let stuck = {
            let (runs, begun) = (runs.clone(), begun.clone());
            go_straight(move || {
                assert!(take(runtime, 0));
                while begun.get() == 0 {
                    yield_now();
                }
                runs.add(1);
            })
        };
        let next = {
            let runs = runs.clone();
            go(move || {
                begun.add(1);
                while !runtime.processors[0].lock().claimed() {
                    yield_now();
                }
                scheduler::gosched();
                runs.add(1);
            })
        };
        join(&stuck);
        join(&next);
        assert_eq!(chan.send(1, Wait::Until(None)), Ok(()));
        join(&waiting);
        assert_at_rest(runtime, &runs, 3);
    });
}

#[test]
fn two_processors_are_taken() {
    check_with(1, || {
        let runtime = runtime(2, false);
        let runs = Count::default();
        let goroutines = [wanderer(false, &runs), straight(&runs)];
        take(runtime, 0);
        take(runtime, 1);
        goroutines.iter().for_each(join);
        assert_at_rest(runtime, &runs, 2);
    });
}

#[test]
fn a_home_that_got_a_processor_by_itself_is_not_given_it_again() {
    check(|| {
        let runtime = runtime(2, false);
        let (here, other) = (&runtime.processors[0], &runtime.processors[1]);
        // A machine without a thread, which has taken no mail: it found a processor since the goroutine was left to it, and sleeps.
        let home: &'static Machine = Box::leak(Box::new(Machine::new()));
        assert!(home.give(other));
        {
            let mut state = other.lock();
            state.holder = home;
            state.idle = true;
        }
        let goroutine = go_nowhere();
        runtime.send_home(&goroutine, home, here);
        // Its next wake-up would be nobody's.
        assert!(std::ptr::eq(other.lock().holder, home));
        scheduler::abandon(goroutine);
    });
}

#[test]
fn the_watcher_is_told_when_a_machine_that_was_stuck_comes_to_rest() {
    check(|| {
        let runtime = runtime(1, false);
        let note = Arc::new(Note::default());
        let chan = Arc::new(Chan::<u32>::new(0).unwrap());
        let receiver = {
            let chan = chan.clone();
            go(move || assert_eq!(chan.recv(Wait::Until(None)), Ok(1)))
        };
        scheduler::watch(Some(note.clone()));
        take(runtime, 0);
        while !scheduler::quiescent() {
            note.wait(None).unwrap();
            note.clear();
        }
        assert_eq!(receiver.wait_reason(), WaitReason::ChanReceive);
        scheduler::watch(None);
        assert_eq!(chan.send(1, Wait::No), Ok(()));
        join(&receiver);
        finish();
    });
}
