//! Select among goroutines and OS threads.

use super::{after, go, join, start, until};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::select::{Case, Selected, select};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const EVER: Wait = Wait::Until(None);

fn chans<const N: usize>(capacity: usize) -> Arc<[Chan<u32>; N]> {
    Arc::new(std::array::from_fn(|_| Chan::new(capacity).unwrap()))
}

#[test]
fn one_selects_from_many() {
    for thread in [false, true] {
        let chans = chans::<12>(0);
        let senders: Vec<_> = (0..12)
            .map(|me| {
                let chans = chans.clone();
                start(me % 2 == 0, move || {
                    for value in 0..100 {
                        chans[me].send(value, EVER).unwrap();
                    }
                })
            })
            .collect();
        let receiver = {
            let chans = chans.clone();
            start(thread, move || {
                let mut next = [0; 12];
                for _ in 0..1_200 {
                    // More cases than are kept in place.
                    let mut cases: Vec<_> = chans.iter().map(Case::Recv).collect();
                    match select(&mut cases, EVER) {
                        Selected::Received(case, Some(value)) => {
                            assert_eq!(next[case], value);
                            next[case] += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(next, [100; 12]);
            })
        };
        receiver();
        senders.into_iter().for_each(|wait| wait());
        assert!(chans.iter().all(|chan| chan.counts() == (0, 0, 100)));
    }
}

#[test]
fn selects_exchange_with_selects() {
    let chans = chans::<2>(0);
    let sent = Arc::new(AtomicU32::new(0));
    let received = Arc::new(AtomicU32::new(0));
    let parties: Vec<_> = (0..6usize)
        .map(|me| {
            let (chans, sent, received) = (chans.clone(), sent.clone(), received.clone());
            start(me >= 4, move || {
                let (out, into) = (&chans[me % 2], &chans[1 - me % 2]);
                for _ in 0..300 {
                    match select(&mut [Case::Send(out, Some(1)), Case::Recv(into)], Wait::Until(after(200))) {
                        Selected::Sent(0) => sent.fetch_add(1, Ordering::Relaxed),
                        Selected::Received(1, Some(value)) => received.fetch_add(value, Ordering::Relaxed),
                        // The others have finished.
                        Selected::TimedOut => break,
                        other => panic!("{other:?}"),
                    };
                }
            })
        })
        .collect();
    parties.into_iter().for_each(|wait| wait());
    assert_eq!(sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    assert!(sent.load(Ordering::Relaxed) > 0);
    assert!(chans.iter().all(|chan| chan.counts().0 + chan.counts().1 == 0));
}

#[test]
fn nothing_ready() {
    let chans = chans::<2>(0);
    let none = &mut [Case::Recv(&chans[0]), Case::Send(&chans[1], Some(3)), Case::Never];
    assert_eq!(select(none, Wait::No), Selected::TimedOut);
    assert_eq!(select(none, Wait::Until(after(2))), Selected::TimedOut);
    assert!(matches!(none[1], Case::Send(_, Some(3))), "an unsent value stays with its case");
    assert_eq!(select::<u32>(&mut [Case::Never], Wait::Until(after(2))), Selected::TimedOut);
    assert_eq!(select::<u32>(&mut [], Wait::No), Selected::TimedOut);
}

#[test]
fn closed_channels_are_ready() {
    let chans = chans::<2>(0);
    chans[0].close().unwrap();
    assert_eq!(select(&mut [Case::Recv(&chans[0]), Case::Recv(&chans[1])], EVER), Selected::Received(0, None));
    let mut cases = [Case::Send(&chans[0], Some(3)), Case::Never];
    assert_eq!(select(&mut cases, EVER), Selected::SendClosed(0));
    assert!(matches!(cases[0], Case::Send(_, Some(3))));
}

#[test]
fn a_cancelled_select_leaves_nothing() {
    let chans = chans::<2>(0);
    let goroutine = {
        let chans = chans.clone();
        go(move || {
            let mut cases = [Case::Recv(&chans[0]), Case::Send(&chans[1], Some(1))];
            assert_eq!(select(&mut cases, EVER), Selected::Cancelled);
        })
    };
    until("it waits", || chans[1].counts().0 == 1);
    assert!(goroutine.cancel());
    join(&goroutine);
    assert!(chans.iter().all(|chan| chan.counts() == (0, 0, 0)));
}

#[test]
fn every_ready_case_has_its_chance() {
    const ROUNDS: u32 = 6_000;
    let chans = chans::<3>(1);
    let mut chosen = [0; 4];
    for chan in &chans[..2] {
        chan.send(0, EVER).unwrap();
    }
    for _ in 0..ROUNDS {
        // Two receives that are ready, one that is not, and a send that is.
        let mut cases =
            [Case::Recv(&chans[0]), Case::Recv(&chans[2]), Case::Recv(&chans[1]), Case::Send(&chans[2], Some(0))];
        match select(&mut cases, EVER) {
            Selected::Received(case @ (0 | 2), _) => {
                chosen[case] += 1;
                chans[case / 2].send(0, EVER).unwrap();
            }
            Selected::Sent(3) => {
                chosen[3] += 1;
                chans[2].recv(EVER).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    // A third each: ten standard deviations are 365.
    for case in [0, 2, 3] {
        assert!((ROUNDS / 3).abs_diff(chosen[case]) < 400, "{chosen:?}");
    }
}
