//! Channels between goroutines and OS threads in every combination.

use super::{after, go, join, start, until, until_parked};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::{Misuse, RecvError, SendError};
use offset_runtime::goroutine::WaitReason;
use offset_runtime::lock::Lock;
use std::sync::Arc;

const EVER: Wait = Wait::Until(None);

fn chan<T>(capacity: usize) -> Arc<Chan<T>> {
    Arc::new(Chan::new(capacity).unwrap())
}

#[test]
fn nothing_is_lost_or_doubled_whoever_sends_and_receives() {
    const EACH: u32 = 200;
    for capacity in [0, 1, 7] {
        for (senders, receivers) in [(1, 1), (3, 1), (1, 3), (3, 3)] {
            for mix in 0..4u32 {
                // Bit 0: the first sender is a thread; bit 1: the first receiver is one.
                let chan = chan::<u32>(capacity);
                let seen = Arc::new(Lock::new(Vec::new()));
                let sending: Vec<_> = (0..senders)
                    .map(|me| {
                        let chan = chan.clone();
                        start(me == 0 && mix & 1 != 0, move || {
                            for value in 0..EACH {
                                chan.send(me * EACH + value, EVER).unwrap();
                            }
                        })
                    })
                    .collect();
                let receiving: Vec<_> = (0..receivers)
                    .map(|me| {
                        let (chan, seen) = (chan.clone(), seen.clone());
                        start(me == 0 && mix & 2 != 0, move || {
                            let mut mine = Vec::new();
                            while let Ok(value) = chan.recv(EVER) {
                                mine.push(value);
                            }
                            // What one sender sent reaches each receiver in order.
                            for sender in 0..senders {
                                assert!(mine.iter().filter(|&value| value / EACH == sender).is_sorted());
                            }
                            seen.lock().extend(mine);
                        })
                    })
                    .collect();
                sending.into_iter().for_each(|wait| wait());
                chan.close().unwrap();
                receiving.into_iter().for_each(|wait| wait());
                let mut seen = seen.lock();
                seen.sort();
                assert!(seen.iter().copied().eq(0..senders * EACH), "{capacity} {senders} {receivers} {mix}");
                assert_eq!(chan.counts(), (0, 0, u64::from(senders * EACH)));
            }
        }
    }
}

#[test]
fn those_who_wait_are_served_in_order() {
    let chan = chan::<usize>(0);
    let got = Arc::new(Lock::new(vec![0; 6]));
    let receivers: Vec<_> = (0..6)
        .map(|me| {
            let (queue, got) = (chan.clone(), got.clone());
            let receiver = start(me % 2 == 1, move || got.lock()[me] = queue.recv(EVER).unwrap());
            until("it waits", || chan.counts().1 == me + 1);
            receiver
        })
        .collect();
    for value in 0..6 {
        chan.send(value, Wait::No).unwrap();
    }
    receivers.into_iter().for_each(|wait| wait());
    assert_eq!(*got.lock(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_closed_channel_is_drained_first() {
    let chan = chan::<u32>(3);
    for value in [1, 2] {
        chan.send(value, Wait::No).unwrap();
    }
    chan.close().unwrap();
    assert_eq!(chan.close(), Err(Misuse::AlreadyClosed));
    assert_eq!(chan.send(3, EVER), Err(SendError::Closed(3)));
    assert_eq!(chan.recv(EVER), Ok(1));
    assert_eq!(chan.recv(Wait::No), Ok(2));
    assert_eq!(chan.recv(EVER), Err(RecvError::Closed));
    assert!(chan.is_closed() && chan.is_empty());
}

#[test]
fn close_ends_every_wait() {
    let empty = chan::<u32>(0);
    let full = chan::<u32>(1);
    full.send(0, Wait::No).unwrap();
    let waiting: Vec<_> = (0..6)
        .flat_map(|me| {
            let (empty, full) = (empty.clone(), full.clone());
            [
                start(me % 2 == 0, move || assert_eq!(empty.recv(EVER), Err(RecvError::Closed))),
                start(me % 2 == 0, move || assert_eq!(full.send(me, EVER), Err(SendError::Closed(me)))),
            ]
        })
        .collect();
    until("all wait", || empty.counts().1 == 6 && full.counts().0 == 6);
    empty.close().unwrap();
    full.close().unwrap();
    waiting.into_iter().for_each(|wait| wait());
    assert_eq!((empty.counts().1, full.counts().0, full.recv(EVER)), (0, 0, Ok(0)));
}

#[test]
fn a_wait_that_is_over_leaves_nothing() {
    for thread in [false, true] {
        let chan = chan::<u32>(0);
        let parties = [
            {
                let chan = chan.clone();
                start(thread, move || assert_eq!(chan.recv(Wait::Until(after(3))), Err(RecvError::TimedOut)))
            },
            {
                let other = Arc::new(Chan::<u32>::new(0).unwrap());
                start(thread, move || {
                    assert_eq!(other.send(9, Wait::Until(after(3))), Err(SendError::TimedOut(9)));
                    assert_eq!(other.counts(), (0, 0, 0));
                })
            },
        ];
        parties.into_iter().for_each(|wait| wait());
        assert_eq!(chan.counts(), (0, 0, 0));
        assert_eq!(chan.send(1, Wait::No), Err(SendError::TimedOut(1)));
        assert_eq!(chan.recv(Wait::Until(Some(0))), Err(RecvError::TimedOut));
    }
}

#[test]
fn deadlines_and_values_that_meet_lose_nothing() {
    let chan = chan::<u32>(0);
    let receiver = {
        let chan = chan.clone();
        go(move || {
            let (mut sum, mut late) = (0, 0);
            loop {
                match chan.recv(Wait::Until(Some(offset_runtime::clock::now() + 20_000))) {
                    Ok(value) => sum += value,
                    Err(RecvError::TimedOut) => late += 1,
                    Err(error) => {
                        assert_eq!(error, RecvError::Closed);
                        break;
                    }
                }
            }
            assert_eq!(sum, 500 * 501 / 2, "{late} were late");
        })
    };
    for value in 1..=500 {
        let mut wait = Wait::Until(Some(offset_runtime::clock::now() + 20_000));
        let mut value = value;
        while let Err(SendError::TimedOut(back)) = chan.send(value, wait) {
            value = back;
            wait = Wait::Until(Some(offset_runtime::clock::now() + 20_000));
        }
    }
    chan.close().unwrap();
    join(&receiver);
    assert_eq!(chan.counts(), (0, 0, 500));
}

#[test]
fn what_is_left_in_a_channel_is_dropped_with_it() {
    let value = Arc::new(());
    let chan = chan::<Arc<()>>(4);
    for _ in 0..4 {
        chan.send(value.clone(), EVER).unwrap();
    }
    let sender = {
        let (chan, value) = (chan.clone(), value.clone());
        go(move || assert!(matches!(chan.send(value, EVER), Err(SendError::Closed(_)))))
    };
    until_parked(&sender, WaitReason::ChanSend);
    let mut seen = 0;
    chan.visit(&mut |_| seen += 1);
    assert_eq!((seen, Arc::strong_count(&value)), (4, 6));
    chan.close().unwrap();
    join(&sender);
    assert_eq!(chan.take_buffer().len(), 4);
    until("all are dropped", || Arc::strong_count(&value) == 1);
}
