//! Select: exactly one case happens, on both sides of it.

use super::harness::{check, check_with, finish, go, join, runtime, thread};
use crate::chan::{Chan, Wait};
use crate::error::{RecvError, SendError};
use crate::select::{Case, Selected, select};
use std::sync::{Arc, Mutex};

const SOON: Wait = Wait::Until(Some(crate::clock::LATER));
const EVER: Wait = Wait::Until(None);

/// Two channels in one allocation, so that the order of their addresses, and of their locks, is always the same.
fn pair() -> Arc<[Chan<u32>; 2]> {
    Arc::new([Chan::new(0).unwrap(), Chan::new(0).unwrap()])
}

fn assert_no_waiters(chans: &[Chan<u32>]) {
    for chan in chans {
        let (senders, receivers, _) = chan.counts();
        assert_eq!((senders, receivers), (0, 0), "a waiter was left behind");
    }
}

/// Sends 10 + `me` on the one channel or receives from the other.
fn exchange(chans: &[Chan<u32>; 2], me: usize, wait: Wait) -> Selected<u32> {
    select(&mut [Case::Send(&chans[me], Some(10 + me as u32)), Case::Recv(&chans[1 - me])], wait)
}

fn assert_one_exchange(zero: Selected<u32>, one: Selected<u32>) {
    match (zero, one) {
        (Selected::Sent(0), Selected::Received(1, Some(10))) | (Selected::Received(1, Some(11)), Selected::Sent(0)) => {
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_selects_against_each_other() {
    check_with(3, || {
        let chans = pair();
        let other = {
            let chans = chans.clone();
            thread(move || exchange(&chans, 1, EVER))
        };
        let zero = exchange(&chans, 0, EVER);
        assert_one_exchange(zero, other.join().unwrap());
        assert_no_waiters(&chans[..]);
    });
}

#[test]
fn two_selects_that_may_time_out() {
    check(|| {
        let chans = pair();
        let other = {
            let chans = chans.clone();
            thread(move || exchange(&chans, 1, SOON))
        };
        let zero = exchange(&chans, 0, SOON);
        let one = other.join().unwrap();
        if (&zero, &one) != (&Selected::TimedOut, &Selected::TimedOut) {
            assert_one_exchange(zero, one);
        }
        assert_no_waiters(&chans[..]);
    });
}

#[test]
fn a_select_in_a_goroutine_against_one_in_a_thread() {
    check(|| {
        runtime(1, true);
        let chans = pair();
        let result = Arc::new(Mutex::new(None));
        let other = {
            let (chans, result) = (chans.clone(), result.clone());
            go(move || {
                let selected = exchange(&chans, 1, EVER);
                *result.lock().unwrap() = Some(selected);
            })
        };
        let zero = exchange(&chans, 0, EVER);
        join(&other);
        assert_one_exchange(zero, result.lock().unwrap().take().unwrap());
        assert_no_waiters(&chans[..]);
        finish();
    });
}

#[test]
fn a_select_against_two_senders() {
    check(|| {
        let chans = pair();
        let senders = [0, 1].map(|index| {
            let chans = chans.clone();
            thread(move || chans[index].send(index as u32, EVER))
        });
        let mut seen = [false; 2];
        for _ in 0..2 {
            match select(&mut [Case::Recv(&chans[0]), Case::Recv(&chans[1])], EVER) {
                Selected::Received(case, Some(value)) if case as u32 == value && !seen[case] => seen[case] = true,
                other => panic!("{other:?}"),
            }
        }
        senders.into_iter().for_each(|sender| assert_eq!(sender.join().unwrap(), Ok(())));
        assert_no_waiters(&chans[..]);
    });
}

#[test]
fn a_select_against_a_send_and_a_close() {
    check(|| {
        let chans = pair();
        let sender = {
            let chans = chans.clone();
            thread(move || chans[0].send(7, EVER))
        };
        let closer = {
            let chans = chans.clone();
            thread(move || chans[1].close())
        };
        match select(&mut [Case::Recv(&chans[0]), Case::Recv(&chans[1])], EVER) {
            Selected::Received(0, Some(7)) => assert_eq!(sender.join().unwrap(), Ok(())),
            Selected::Received(1, None) => {
                assert_eq!(chans[0].recv(EVER), Ok(7));
                assert_eq!(sender.join().unwrap(), Ok(()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(closer.join().unwrap(), Ok(()));
        assert_no_waiters(&chans[..]);
    });
}

#[test]
fn a_blocked_send_case_gets_its_value_back_at_close() {
    check_with(3, || {
        let chans = pair();
        let closer = {
            let chans = chans.clone();
            thread(move || chans[0].close())
        };
        let mut cases = [Case::Send(&chans[0], Some(7)), Case::Recv(&chans[1])];
        assert_eq!(select(&mut cases, EVER), Selected::SendClosed(0));
        assert!(matches!(cases[0], Case::Send(_, Some(7))), "the value is lost");
        assert_eq!(closer.join().unwrap(), Ok(()));
        assert_no_waiters(&chans[..]);
    });
}

#[test]
fn the_same_channel_twice() {
    check(|| {
        let chans = pair();
        let sender = {
            let chans = chans.clone();
            thread(move || [chans[0].send(1, EVER), chans[0].send(2, SOON)])
        };
        let first = select(&mut [Case::Recv(&chans[0]), Case::Recv(&chans[0])], EVER);
        assert!(matches!(first, Selected::Received(0 | 1, Some(1))), "{first:?}");
        let second = chans[0].recv(SOON);
        let sent = sender.join().unwrap();
        assert_eq!(sent[0], Ok(()));
        match second {
            Ok(value) => assert_eq!((value, &sent[1]), (2, &Ok(()))),
            Err(error) => assert_eq!((error, &sent[1]), (RecvError::TimedOut, &Err(SendError::TimedOut(2)))),
        }
        assert_no_waiters(&chans[..]);
    });
}

#[test]
fn sending_and_receiving_on_one_channel_never_meets_itself() {
    check_with(3, || {
        let chans = pair();
        let both = |chans: &[Chan<u32>; 2], me: u32| {
            select(&mut [Case::Send(&chans[0], Some(me)), Case::Recv(&chans[0])], EVER)
        };
        let other = {
            let chans = chans.clone();
            thread(move || both(&chans, 1))
        };
        let results = [both(&chans, 0), other.join().unwrap()];
        match results {
            [Selected::Sent(0), Selected::Received(1, Some(0))]
            | [Selected::Received(1, Some(1)), Selected::Sent(0)] => {}
            other => panic!("{other:?}"),
        }
        assert_no_waiters(&chans[..]);
    });
}
