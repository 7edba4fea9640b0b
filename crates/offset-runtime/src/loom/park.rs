//! The park word: claims against each other and against the mark; and the whole way of a goroutine that parks, with its
//! machine, against a counterpart, a timer and a cancellation.

use super::harness::{check, check_with, finish, go, join, let_time_pass, runtime, thread};
use crate::alarm::ChanTimer;
use crate::chan::{Chan, Wait};
use crate::clock::LATER;
use crate::error::{RecvError, SendError};
use crate::goroutine::WaitReason;
use crate::lock::UnsafeCell;
use crate::park::{Claim, Code, Owner, Parker, TIMED_OUT};
use crate::scheduler;
use crate::sync::Note;
use crate::thread::ThreadSignal;
use crate::timer::{Node, Timers};
use std::sync::{Arc, Mutex};

struct Word {
    parker: Parker,
    /// What each claimer puts in before its claim. loom sees an access that is not ordered.
    slots: [UnsafeCell<u32>; 2],
    /// What the owner leaves behind when it parks, for who resumes it.
    stack: UnsafeCell<u32>,
    resumed: super::harness::Count,
}

// SAFETY: the cells are what is tested.
unsafe impl Sync for Word {}
// SAFETY: as above.
unsafe impl Send for Word {}

const CODES: [Code; 2] = [0, TIMED_OUT];

impl Word {
    fn new() -> Arc<Word> {
        Arc::new(Word {
            parker: Parker::new(Owner::Goroutine(std::ptr::null())),
            slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
            stack: UnsafeCell::new(0),
            resumed: Default::default(),
        })
    }

    /// What the owner does when it goes on.
    fn resume(&self) {
        assert_eq!(self.resumed.add(1), 0, "resumed twice");
        let code = self.parker.outcome().expect("resumed unclaimed");
        let winner = CODES.iter().position(|&one| one == code).expect("a code that nobody gave");
        // SAFETY: ordered after the claim, as loom checks.
        self.slots[winner].with_mut(|slot| assert_eq!(unsafe { *slot }, 7));
        // SAFETY: ordered after the mark, as loom checks.
        self.stack.with_mut(|stack| assert_eq!(unsafe { *stack }, 8));
    }
}

#[test]
fn one_claim_wins_and_one_side_makes_ready() {
    check_with(3, || {
        let word = Word::new();
        let ticket = word.parker.arm();
        let claimers = [0, 1].map(|index| {
            let word = word.clone();
            thread(move || {
                // SAFETY: nobody else touches this slot before a claim is won.
                word.slots[index].with_mut(|slot| unsafe { *slot = 7 });
                let claim = word.parker.claim(ticket, CODES[index]);
                if let Claim::Parked(_) = claim {
                    word.resume();
                }
                claim.won()
            })
        });
        // SAFETY: nobody else touches it before it is parked.
        word.stack.with_mut(|stack| unsafe { *stack = 8 });
        if word.parker.mark_parked() {
            word.resume();
        }
        let won = claimers.map(|claimer| claimer.join().unwrap());
        assert!(won[0] != won[1], "one claim must win");
        assert_eq!(word.resumed.get(), 1);
    });
}

#[test]
fn a_late_claim_does_not_end_the_next_wait() {
    check_with(3, || {
        let word = Word::new();
        let first = word.parker.arm();
        let late = {
            let word = word.clone();
            thread(move || word.parker.claim(first, TIMED_OUT).won())
        };
        let early = word.parker.claim(first, 0).won();
        if !early {
            assert!(late.join().unwrap());
            return;
        }
        // The wait ended without a park; the next one begins while the late claim is under way.
        let second = word.parker.arm();
        assert_eq!(word.parker.waiting(), Some(second));
        assert!(!word.parker.mark_parked(), "nobody claims the second wait");
        assert!(!late.join().unwrap());
        assert_eq!(word.parker.claim(second, 0), Claim::Parked(std::ptr::null()));
    });
}

#[test]
fn a_goroutine_that_parks_is_found_by_its_counterpart() {
    check(|| {
        runtime(1, true);
        let chan = Arc::new(Chan::new(0).unwrap());
        let receiver = {
            let chan = chan.clone();
            go(move || assert_eq!(chan.recv(Wait::Until(None)), Ok(5)))
        };
        assert_eq!(chan.send(5, Wait::Until(None)), Ok(()));
        join(&receiver);
        finish();
    });
}

/// A goroutine waits for a value that a thread offers once; main ends the wait by other means. Either the value arrives or it
/// goes back.
fn offered_once(deadline: Option<u64>, end: fn(&crate::goroutine::Handle), expected: RecvError) {
    check(move || {
        runtime(1, true);
        let chan = Arc::new(Chan::new(0).unwrap());
        let result = Arc::new(Mutex::new(None));
        let receiver = {
            let (chan, result) = (chan.clone(), result.clone());
            go(move || {
                let received = chan.recv(Wait::Until(deadline));
                *result.lock().unwrap() = Some(received);
            })
        };
        let sender = {
            let chan = chan.clone();
            thread(move || chan.send(5, Wait::No))
        };
        end(&receiver);
        join(&receiver);
        let sent = sender.join().unwrap();
        let received = *result.lock().unwrap();
        match received {
            // It was cancelled before it started.
            None => assert_eq!(sent, Err(SendError::TimedOut(5))),
            Some(Ok(5)) => assert_eq!(sent, Ok(())),
            Some(other) => {
                assert_eq!(other, Err(expected));
                assert_eq!(sent, Err(SendError::TimedOut(5)));
            }
        }
        assert_eq!(chan.counts().1, 0, "a waiter was left behind");
        finish();
    });
}

#[test]
fn a_timer_against_a_counterpart() {
    offered_once(Some(LATER), |_| let_time_pass(), RecvError::TimedOut);
}

#[test]
fn a_cancellation_against_a_counterpart() {
    offered_once(
        None,
        |receiver| {
            receiver.cancel();
        },
        RecvError::Cancelled,
    );
}

#[test]
fn a_cancellation_ends_one_wait() {
    check_with(3, || {
        runtime(1, true);
        let chan = Arc::new(Chan::<u32>::new(0).unwrap());
        let result = Arc::new(Mutex::new(None));
        let receiver = {
            let (chan, result) = (chan.clone(), result.clone());
            go(move || {
                let first = chan.recv(Wait::Until(None));
                *result.lock().unwrap() = Some((first, chan.recv(Wait::Until(Some(LATER)))));
            })
        };
        receiver.cancel();
        let_time_pass();
        join(&receiver);
        // None: it was cancelled before it started.
        if let Some(received) = *result.lock().unwrap() {
            assert_eq!(received, (Err(RecvError::Cancelled), Err(RecvError::TimedOut)));
        }
        finish();
    });
}

#[test]
fn a_timer_leaves_the_frame_that_it_ends_alone() {
    check_with(3, || {
        let timers = Arc::new(Timers::new());
        // A thread's, as there is no machine here that could be told.
        let parker: &'static Parker = Box::leak(Box::new(Parker::new(Owner::Thread(ThreadSignal::new()))));
        let ticket = parker.arm();
        let machine = {
            let timers = timers.clone();
            thread(move || timers.run(LATER))
        };
        let node = Node::new();
        // SAFETY: the node stays until the thread has ended.
        let _ = unsafe { timers.add_deadline(LATER, parker, ticket, &node) };
        // It gives up its stack, finds itself claimed, and goes on at once: its frame is used for other things.
        if parker.mark_parked() {
            assert_eq!(parker.outcome(), Some(TIMED_OUT));
            assert!(node.is_out());
        }
        machine.join().unwrap();
        timers.remove(&node);
        assert!(node.is_out());
    });
}

#[test]
fn two_goroutines_on_two_machines() {
    check_with(1, || {
        runtime(2, true);
        let chan = Arc::new(Chan::new(0).unwrap());
        let goroutines = [0, 1].map(|index| {
            let chan = chan.clone();
            go(move || match index {
                0 => assert_eq!(chan.recv(Wait::Until(None)), Ok(5)),
                _ => assert_eq!(chan.send(5, Wait::Until(None)), Ok(())),
            })
        });
        goroutines.iter().for_each(join);
        assert_eq!(scheduler::num_goroutine(), 0, "listed after its end");
        finish();
    });
}

/// The value is not looked at.
fn nothing(_now: u64) -> u32 {
    0
}

#[test]
fn a_machine_that_sleeps_is_told_of_a_timer() {
    check(|| {
        // Time passes for who sleeps until a time: who sleeps without one must be told.
        crate::clock::run();
        runtime(1, true);
        let chan = Arc::new(Chan::new(1).unwrap());
        let receiver = {
            let chan = chan.clone();
            go(move || assert_eq!(chan.recv(Wait::Until(None)), Ok(0)))
        };
        let timer = ChanTimer::new(chan, nothing);
        assert!(!timer.reset(crate::clock::now() + LATER, 0));
        join(&receiver);
        finish();
    });
}

#[test]
fn a_machine_that_keeps_a_vigil_sees_what_becomes_runnable() {
    check(|| {
        let runtime = runtime(1, true);
        runtime.blocking.pretend();
        let chan = Arc::new(Chan::new(0).unwrap());
        let receiver = {
            let chan = chan.clone();
            go(move || {
                assert_eq!(chan.recv(Wait::Until(None)), Ok(1));
                assert_eq!(chan.recv(Wait::Until(None)), Ok(2));
            })
        };
        for value in [1, 2] {
            assert_eq!(chan.send(value, Wait::Until(None)), Ok(()));
        }
        join(&receiver);
        finish();
    });
}

#[test]
fn the_watcher_is_told_that_all_are_parked() {
    check(|| {
        runtime(1, true);
        let chan = Arc::new(Chan::new(0).unwrap());
        let note = Arc::new(Note::default());
        let receiver = {
            let chan = chan.clone();
            go(move || assert_eq!(chan.recv(Wait::Until(None)), Ok(1)))
        };
        scheduler::watch(Some(note.clone()));
        while !scheduler::quiescent() {
            note.wait(None).unwrap();
            note.clear();
        }
        // No false alarm: whoever is to be woken is parked for good.
        assert_eq!(receiver.wait_reason(), WaitReason::ChanReceive);
        scheduler::watch(None);
        assert_eq!(chan.send(1, Wait::No), Ok(()));
        join(&receiver);
        finish();
    });
}
