//! Tasks of an event loop: who is served is told, who is taken back is not served, and a false alarm loses nothing. The loop is a
//! thread that waits at its mailbox.

use super::harness::{check, thread};
use crate::chan::{Chan, Wait};
use crate::error::SendError;
use crate::select::Selected;
use crate::task::{Mailbox, TaskCase, TaskWait};
use std::sync::Arc;

const EVER: Wait = Wait::Until(None);

/// What a task does that awaits a value.
fn receive(chan: &Arc<Chan<u32>>, mailbox: &Arc<Mailbox>, tag: usize) -> Selected<u32> {
    let wait = match TaskWait::begin(vec![TaskCase::Recv(chan.clone())]) {
        Ok(selected) => return selected,
        Err(wait) => wait,
    };
    while wait.post(mailbox, tag).is_ok() && !wait.over() {
        mailbox.wait();
        mailbox.take();
    }
    wait.unpost();
    wait.finish()
}

#[test]
fn who_is_served_is_told() {
    check(|| {
        let chan = Arc::new(Chan::new(0).unwrap());
        let sender = {
            let chan = chan.clone();
            thread(move || assert_eq!(chan.send(5, EVER), Ok(())))
        };
        let mailbox = Mailbox::new().unwrap();
        assert_eq!(receive(&chan, &mailbox, 1), Selected::Received(0, Some(5)));
        sender.join().unwrap();
        assert_eq!(chan.counts(), (0, 0, 1));
    });
}

#[test]
fn a_cancellation_or_a_value_and_never_both() {
    check(|| {
        let chan = Arc::new(Chan::new(0).unwrap());
        let Err(wait) = TaskWait::begin(vec![TaskCase::Recv(chan.clone())]) else { panic!("nobody sends") };
        let mailbox = Mailbox::new().unwrap();
        assert_eq!(wait.post(&mailbox, 1), Ok(()));
        let sender = {
            let chan = chan.clone();
            thread(move || chan.send(5, Wait::No))
        };
        // As a task that is cancelled.
        let tag = wait.unpost();
        let received = wait.finish();
        // Either the owner has it, or it is in the mailbox by now.
        assert_eq!(mailbox.take().len() + usize::from(tag.is_some()), 1);
        let sent = sender.join().unwrap();
        match received {
            Selected::Received(0, Some(5)) => {
                assert_eq!(sent, Ok(()));
                chan.put_back(5);
                assert_eq!(chan.recv(Wait::No), Ok(5));
            }
            Selected::Cancelled => assert_eq!(sent, Err(SendError::TimedOut(5))),
            other => panic!("{other:?}"),
        }
        assert_eq!(mailbox.take(), [], "nobody is about to write");
    });
}

#[test]
fn who_keeps_a_vigil_misses_nothing() {
    check(|| {
        let mailbox = Mailbox::new().unwrap();
        let sender = {
            let mailbox = mailbox.clone();
            thread(move || {
                mailbox.put(1);
                mailbox.put(2);
            })
        };
        let mut found = mailbox.linger();
        while found.len() < 2 {
            mailbox.wait();
            found.extend(mailbox.take());
        }
        assert_eq!(found, [1, 2]);
        sender.join().unwrap();
    });
}
