//! Channels: no value is lost or doubled, nobody waits for ever. The parties are OS threads, which park by the same word as
//! goroutines and need no machine; `park` has the models with goroutines.

use super::harness::{check, thread};
use crate::chan::{Chan, Wait};
use crate::error::{RecvError, SendError};
use std::sync::Arc;

/// In a model a deadline comes at any moment after the wait began.
const SOON: Wait = Wait::Until(Some(crate::clock::LATER));
const EVER: Wait = Wait::Until(None);

fn chan(capacity: usize) -> Arc<Chan<u32>> {
    Arc::new(Chan::new(capacity).unwrap())
}

/// Nobody is left in a queue.
fn assert_no_waiters(chan: &Chan<u32>) {
    let (senders, receivers, _) = chan.counts();
    assert_eq!((senders, receivers), (0, 0), "a waiter was left behind");
}

fn two_senders_one_receiver(capacity: usize) {
    check(move || {
        let chan = chan(capacity);
        let senders = [1, 2].map(|value| {
            let chan = chan.clone();
            thread(move || assert_eq!(chan.send(value, EVER), Ok(())))
        });
        let received = [chan.recv(EVER).unwrap(), chan.recv(EVER).unwrap()];
        assert!(received == [1, 2] || received == [2, 1], "{received:?}");
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_no_waiters(&chan);
        assert!(chan.is_empty());
    });
}

#[test]
fn two_senders_one_receiver_unbuffered() {
    two_senders_one_receiver(0);
}

#[test]
fn two_senders_one_receiver_buffered() {
    two_senders_one_receiver(1);
}

#[test]
fn two_receivers_share_what_one_sends() {
    check(|| {
        let chan = chan(1);
        let receivers = [(); 2].map(|()| {
            let chan = chan.clone();
            thread(move || chan.recv(EVER).unwrap())
        });
        for value in [1, 2] {
            assert_eq!(chan.send(value, EVER), Ok(()));
        }
        let received = receivers.map(|receiver| receiver.join().unwrap());
        assert_eq!(received[0] + received[1], 3, "{received:?}");
        assert_no_waiters(&chan);
    });
}

#[test]
fn values_stay_in_order_through_a_full_buffer() {
    check(|| {
        let chan = chan(1);
        let sender = {
            let chan = chan.clone();
            thread(move || (1..=3).for_each(|value| assert_eq!(chan.send(value, EVER), Ok(()))))
        };
        for value in 1..=3 {
            assert_eq!(chan.recv(EVER), Ok(value));
        }
        sender.join().unwrap();
        assert_no_waiters(&chan);
    });
}

#[test]
fn a_receive_makes_room_for_the_sender_that_waits() {
    check(|| {
        let chan = chan(1);
        let sender = {
            let chan = chan.clone();
            thread(move || [1, 2].map(|value| chan.send(value, EVER)))
        };
        assert_eq!(chan.recv(EVER), Ok(1));
        // It ends though nobody receives its second value yet.
        assert_eq!(sender.join().unwrap(), [Ok(()), Ok(())]);
        assert_eq!(chan.len(), 1);
        assert_eq!(chan.recv(Wait::No), Ok(2));
        assert_no_waiters(&chan);
    });
}

#[test]
fn close_wakes_every_receiver() {
    check(|| {
        let chan = chan(1);
        let receivers = [(); 2].map(|()| {
            let chan = chan.clone();
            thread(move || chan.recv(EVER))
        });
        assert_eq!(chan.send(1, EVER), Ok(()));
        assert_eq!(chan.close(), Ok(()));
        let received = receivers.map(|receiver| receiver.join().unwrap());
        let good = [[Ok(1), Err(RecvError::Closed)], [Err(RecvError::Closed), Ok(1)]];
        assert!(good.contains(&received), "{received:?}");
        assert_no_waiters(&chan);
    });
}

#[test]
fn close_gives_blocked_senders_their_values_back() {
    check(|| {
        let chan = chan(0);
        let sender = {
            let chan = chan.clone();
            thread(move || chan.send(1, EVER))
        };
        let receiver = {
            let chan = chan.clone();
            thread(move || chan.recv(EVER))
        };
        assert_eq!(chan.close(), Ok(()));
        match sender.join().unwrap() {
            Ok(()) => assert_eq!(receiver.join().unwrap(), Ok(1)),
            Err(error) => {
                assert_eq!(error, SendError::Closed(1));
                assert_eq!(receiver.join().unwrap(), Err(RecvError::Closed));
            }
        }
        assert_no_waiters(&chan);
    });
}

#[test]
fn a_receive_that_times_out_takes_nothing() {
    check(|| {
        let chan = chan(0);
        let receivers = [SOON, EVER].map(|wait| {
            let chan = chan.clone();
            thread(move || chan.recv(wait))
        });
        assert_eq!(chan.send(1, EVER), Ok(()));
        let hasty = receivers.map(|receiver| {
            // The patient one ends by the close if the hasty one got the value.
            let _ = chan.close();
            receiver.join().unwrap()
        });
        let good =
            [[Ok(1), Err(RecvError::Closed)], [Err(RecvError::TimedOut), Ok(1)], [Err(RecvError::Closed), Ok(1)]];
        assert!(good.contains(&hasty), "{hasty:?}");
        assert_no_waiters(&chan);
    });
}

#[test]
fn a_send_that_times_out_leaves_nothing() {
    for capacity in [0, 1] {
        check(move || {
            let chan = chan(capacity);
            let senders = [(1, SOON), (2, EVER)].map(|(value, wait)| {
                let chan = chan.clone();
                thread(move || chan.send(value, wait))
            });
            let first = chan.recv(EVER).unwrap();
            let sent = senders.map(|sender| {
                let _ = chan.close();
                sender.join().unwrap()
            });
            let second = chan.recv(Wait::No).ok();
            let mut arrived: Vec<_> = [Some(first), second].into_iter().flatten().collect();
            arrived.sort();
            let left: Vec<_> = [1, 2].into_iter().zip(&sent).filter(|(_, sent)| sent.is_ok()).map(|(v, _)| v).collect();
            assert_eq!(arrived, left, "{sent:?}");
            for (value, sent) in [1, 2].into_iter().zip(sent) {
                assert!(matches!(sent, Ok(()) | Err(SendError::TimedOut(_) | SendError::Closed(_))));
                if let Err(SendError::TimedOut(back) | SendError::Closed(back)) = sent {
                    assert_eq!(back, value);
                }
            }
            assert_no_waiters(&chan);
        });
    }
}
