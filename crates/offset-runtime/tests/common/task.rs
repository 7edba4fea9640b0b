//! Tasks of an event loop: their waits, and the mailbox through which they are woken.

use super::{go, join, start, until};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::RecvError;
use offset_runtime::select::Selected;
use offset_runtime::task::{Mailbox, TaskCase, TaskWait};
use std::sync::Arc;

const EVER: Wait = Wait::Until(None);

/// Awaits one of the cases, as a task does that is alone on its loop.
fn select(mailbox: &Arc<Mailbox>, cases: Vec<TaskCase<u32>>) -> Selected<u32> {
    match TaskWait::begin(cases) {
        Ok(selected) => selected,
        Err(wait) => {
            while wait.post(mailbox, 7).is_ok() && !wait.over() {
                let tags = loop {
                    let tags = mailbox.linger();
                    if !tags.is_empty() {
                        break tags;
                    }
                    std::thread::yield_now();
                };
                assert!(tags.iter().all(|tag| *tag == 7));
            }
            wait.unpost();
            wait.finish()
        }
    }
}

fn waiting(chan: &Chan<u32>, case: TaskCase<u32>) -> TaskWait<u32> {
    let before = chan.counts();
    let Err(wait) = TaskWait::begin(vec![case]) else { panic!("it need not wait") };
    assert_eq!(chan.counts().0 + chan.counts().1, before.0 + before.1 + 1);
    wait
}

#[test]
fn nothing_is_lost_between_tasks_goroutines_and_threads() {
    const EACH: u32 = 200;
    for capacity in [0, 1, 5] {
        let chan = Arc::new(Chan::new(capacity).unwrap());
        let seen = Arc::new(offset_runtime::lock::Lock::new(Vec::new()));
        let sending: Vec<_> = (0..3)
            .map(|me| {
                let chan = chan.clone();
                start(me > 0, move || {
                    let mailbox = Mailbox::new().unwrap();
                    for value in me * EACH..(me + 1) * EACH {
                        if me == 2 {
                            let selected = select(&mailbox, vec![TaskCase::Never, TaskCase::Send(chan.clone(), value)]);
                            assert_eq!(selected, Selected::Sent(1));
                        } else {
                            chan.send(value, EVER).unwrap();
                        }
                    }
                })
            })
            .collect();
        let receiving: Vec<_> = (0..2)
            .map(|_| {
                let (chan, seen) = (chan.clone(), seen.clone());
                // A loop's thread, and not a goroutine: that would have to park.
                start(true, move || {
                    let mailbox = Mailbox::new().unwrap();
                    while let Selected::Received(0, Some(value)) = select(&mailbox, vec![TaskCase::Recv(chan.clone())])
                    {
                        seen.lock().push(value);
                    }
                })
            })
            .collect();
        sending.into_iter().for_each(|wait| wait());
        until("all was received", || seen.lock().len() == 3 * EACH as usize);
        chan.close().unwrap();
        receiving.into_iter().for_each(|wait| wait());
        let mut seen = seen.lock();
        seen.sort();
        assert!(seen.iter().copied().eq(0..3 * EACH));
        assert_eq!(chan.counts(), (0, 0, u64::from(3 * EACH)));
    }
}

#[test]
fn a_wait_that_is_taken_back_leaves_nothing() {
    let chan = Arc::new(Chan::new(0).unwrap());
    let wait = waiting(&chan, TaskCase::Recv(chan.clone()));
    assert!(!wait.over());
    assert_eq!(wait.finish(), Selected::Cancelled);
    let wait = waiting(&chan, TaskCase::Send(chan.clone(), 1));
    assert!(wait.expire());
    assert!(!wait.retract(), "it is over");
    assert_eq!(wait.finish(), Selected::TimedOut);
    drop(waiting(&chan, TaskCase::Send(chan.clone(), 1)));
    assert_eq!(chan.counts(), (0, 0, 0));
}

#[test]
fn the_mailbox_has_the_tag_of_who_is_served_and_no_other() {
    let chan = Arc::new(Chan::new(0).unwrap());
    let mailbox = Mailbox::new().unwrap();
    let first = waiting(&chan, TaskCase::Recv(chan.clone()));
    let second = waiting(&chan, TaskCase::Recv(chan.clone()));
    assert_eq!((first.post(&mailbox, 1), second.post(&mailbox, 2)), (Ok(()), Ok(())));
    assert_eq!(mailbox.take(), []);
    chan.send(10, Wait::No).unwrap();
    assert_eq!((mailbox.take(), first.unpost()), (vec![1], None));
    assert_eq!(first.finish(), Selected::Received(0, Some(10)));
    assert_eq!(second.unpost(), Some(2));
    chan.send(11, Wait::No).unwrap();
    // It is told at once that there is nothing to wait for.
    assert_eq!(second.post(&mailbox, 3), Err(3));
    assert_eq!(mailbox.take(), []);
    assert_eq!(second.finish(), Selected::Received(0, Some(11)));
}

#[test]
fn a_value_that_is_put_back_is_the_next() {
    let chan: Arc<Chan<u32>> = Arc::new(Chan::new(1).unwrap());
    chan.send(1, Wait::No).unwrap();
    let sender = {
        let chan = chan.clone();
        start(true, move || chan.send(2, EVER).unwrap())
    };
    until("the sender waits", || chan.counts().0 == 1);
    chan.put_back(0);
    assert_eq!(chan.len(), 2);
    assert_eq!(chan.recv(Wait::No), Ok(0));
    assert_eq!((chan.recv(Wait::No), chan.recv(Wait::No)), (Ok(1), Ok(2)));
    sender();
    let wait = waiting(&chan, TaskCase::Recv(chan.clone()));
    chan.put_back(3);
    assert_eq!(wait.finish(), Selected::Received(0, Some(3)));
    chan.close().unwrap();
    chan.put_back(4);
    assert_eq!(chan.recv(Wait::No), Ok(4));
}

#[test]
fn values_that_are_put_back_keep_their_order() {
    let chan: Arc<Chan<u32>> = Arc::new(Chan::new(0).unwrap());
    let mut waits: Vec<_> = (0..4).map(|_| waiting(&chan, TaskCase::Recv(chan.clone()))).collect();
    let last = waits.pop().unwrap();
    for value in 1..4 {
        chan.send(value, Wait::No).unwrap();
    }
    // The one that still waits gets the second value first, and hands it on.
    let first = waits.remove(0);
    assert_eq!(waits.remove(0).withdraw(), Selected::Received(0, None));
    assert_eq!(waits.remove(0).withdraw(), Selected::Received(0, None));
    assert_eq!(first.withdraw(), Selected::Received(0, None));
    assert_eq!(last.withdraw(), Selected::Received(0, None));
    assert_eq!(chan.counts(), (0, 0, 3));
    assert_eq!([(); 3].map(|()| chan.recv(Wait::No)), [Ok(1), Ok(2), Ok(3)]);
    assert_eq!(chan.recv(Wait::No), Err(RecvError::TimedOut));
}

#[test]
fn a_task_waits_for_the_end_of_a_goroutine() {
    let chan: Arc<Chan<u32>> = Arc::new(Chan::new(0).unwrap());
    let goroutine = {
        let chan = chan.clone();
        go(move || _ = chan.recv(EVER))
    };
    let mailbox = Mailbox::new().unwrap();
    let Some(wait) = TaskWait::<u32>::join(&goroutine) else { panic!("it has ended") };
    let Some(other) = TaskWait::<u32>::join(&goroutine) else { panic!("it has ended") };
    assert_eq!(wait.post(&mailbox, 5), Ok(()));
    assert_eq!(other.finish(), Selected::Cancelled);
    chan.send(1, EVER).unwrap();
    join(&goroutine);
    until("the task is told", || wait.over());
    until("by its mailbox", || mailbox.take() == [5]);
    assert_eq!(wait.finish(), Selected::Received(0, None));
    assert!(TaskWait::<u32>::join(&goroutine).is_none());
}
