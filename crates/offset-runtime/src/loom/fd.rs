//! Descriptors: the model hands out the edges, and a counter stands for what there is to read.

use super::harness::{check, finish, go, join, runtime, thread};
use crate::fd::{Attempt, Direction, Fd, FdError};
use crate::lock::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

struct Pipe {
    fd: Fd,
    there: AtomicU32,
}

impl Pipe {
    fn new() -> Arc<Pipe> {
        Arc::new(Pipe { fd: Fd::new(0).unwrap(), there: AtomicU32::new(0) })
    }

    /// As the kernel: what comes first, then its edge.
    fn put(&self) {
        self.there.fetch_add(1, Ordering::AcqRel);
        self.fd.shared().edge(Direction::Read, false);
    }

    fn get(&self) -> Result<u32, FdError> {
        self.fd.run(Direction::Read, None, |_| match self.there.swap(0, Ordering::AcqRel) {
            0 => Attempt::Again,
            count => Attempt::Drained(count),
        })
    }
}

#[test]
fn no_edge_is_lost() {
    check(|| {
        runtime(1, false);
        let pipe = Pipe::new();
        let reader = {
            let pipe = pipe.clone();
            go(move || {
                let mut count = 0;
                while count < 2 {
                    count += pipe.get().unwrap();
                }
            })
        };
        pipe.put();
        pipe.put();
        join(&reader);
        finish();
    });
}

#[test]
fn an_edge_between_the_own_attempt_and_the_wait_is_seen() {
    check(|| {
        runtime(1, false);
        let pipe = Pipe::new();
        let reader = {
            let pipe = pipe.clone();
            go(move || {
                while pipe.there.swap(0, Ordering::AcqRel) == 0 {
                    pipe.fd.wait(Direction::Read, None).unwrap();
                }
            })
        };
        pipe.put();
        join(&reader);
        finish();
    });
}

#[test]
fn a_close_ends_a_wait_or_comes_before_it() {
    check(|| {
        runtime(1, false);
        let pipe = Pipe::new();
        let reader = {
            let pipe = pipe.clone();
            go(move || assert_eq!(pipe.get(), Err(FdError::Closed)))
        };
        let closing = {
            let pipe = pipe.clone();
            thread(move || pipe.fd.close())
        };
        assert!(closing.join().unwrap());
        join(&reader);
        finish();
    });
}

#[test]
fn a_deadline_that_is_set_is_noticed_by_who_waits() {
    check(|| {
        runtime(1, false);
        let pipe = Pipe::new();
        let reader = {
            let pipe = pipe.clone();
            go(move || assert_eq!(pipe.get(), Err(FdError::TimedOut)))
        };
        // It is over already.
        pipe.fd.set_deadline(Direction::Read, Some(0));
        join(&reader);
        finish();
    });
}

#[test]
fn who_is_woken_when_the_time_is_over_loses_no_edge() {
    check(|| {
        runtime(1, false);
        let pipe = Pipe::new();
        // All that there was is taken: from now on an attempt waits for an edge.
        pipe.there.store(1, Ordering::Release);
        assert_eq!(pipe.get(), Ok(1));
        let reader = {
            let pipe = pipe.clone();
            go(move || match pipe.get() {
                Ok(count) => assert_eq!(count, 1),
                Err(error) => assert_eq!(error, FdError::TimedOut),
            })
        };
        pipe.put();
        pipe.fd.set_deadline(Direction::Read, Some(0));
        join(&reader);
        pipe.fd.set_deadline(Direction::Read, None);
        if pipe.there.load(Ordering::Acquire) != 0 {
            assert_eq!(pipe.get(), Ok(1));
        }
        finish();
    });
}
