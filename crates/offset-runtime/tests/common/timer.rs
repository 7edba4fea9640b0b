//! Sleeping, and timers that send or start something.

use super::{after, go, join, until, until_parked};
use offset_runtime::alarm::{ChanTimer, FuncTimer};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::clock::now;
use offset_runtime::goroutine::WaitReason;
use offset_runtime::host::Plain;
use offset_runtime::scheduler;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const EVER: Wait = Wait::Until(None);
const MILLISECOND: u64 = 1_000_000;

#[test]
fn nobody_wakes_early() {
    let sleepers: Vec<_> = (0..500)
        .map(|index| {
            go(move || {
                let until = now() + (index * 7 % 30) * MILLISECOND;
                assert!(scheduler::sleep(Some(until), WaitReason::Sleep));
                assert!(now() >= until);
            })
        })
        .collect();
    sleepers.iter().for_each(join);
}

#[test]
fn a_sleep_can_be_cancelled() {
    let sleeper = go(|| assert!(!scheduler::sleep(None, WaitReason::Sleep)));
    until_parked(&sleeper, WaitReason::Sleep);
    sleeper.cancel();
    join(&sleeper);
}

fn chan_timer() -> (Arc<Chan<u64>>, Arc<ChanTimer<u64>>) {
    let chan = Arc::new(Chan::new(1).unwrap());
    (chan.clone(), ChanTimer::new(chan, |instant| instant))
}

#[test]
fn a_timer_sends_the_time_once() {
    let (chan, timer) = chan_timer();
    let when = now() + 2 * MILLISECOND;
    assert!(!timer.reset(when, 0));
    assert!(chan.recv(EVER).unwrap() >= when);
    assert!(!timer.stop());
    assert_eq!(chan.len(), 0);
}

#[test]
fn no_stale_value_after_stop_or_reset() {
    let (chan, timer) = chan_timer();
    for round in 0..200 {
        timer.reset(now() + round % 5 * MILLISECOND / 5, 0);
        if round % 3 == 0 {
            until("it has rung", || chan.len() == 1);
        }
        if round % 2 == 0 {
            timer.stop();
            assert_eq!(chan.len(), 0, "a stale value");
        } else {
            let when = now() + MILLISECOND / 2;
            timer.reset(when, 0);
            assert!(chan.recv(EVER).unwrap() >= when, "a stale value");
        }
    }
}

#[test]
fn a_ticker_ticks_until_it_is_stopped() {
    let (chan, timer) = chan_timer();
    timer.reset(now() + MILLISECOND, MILLISECOND);
    let mut last = 0;
    for _ in 0..10 {
        let tick = chan.recv(EVER).unwrap();
        assert!(tick > last);
        last = tick;
    }
    assert!(timer.stop());
    assert_eq!(chan.len(), 0);
    assert!(!timer.stop());
}

#[test]
fn a_timer_starts_a_goroutine_unless_it_is_stopped() {
    let runs = Arc::new(AtomicU32::new(0));
    let prepare = || {
        let runs = runs.clone();
        scheduler::prepare(Plain::payload(move || {
            runs.fetch_add(1, Ordering::Relaxed);
        }))
    };
    let timer = FuncTimer::new();
    let goroutine = prepare();
    assert!(timer.reset(goroutine.clone(), now() + MILLISECOND).is_none());
    join(&goroutine);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert!(timer.stop().is_none());

    timer.reset(prepare(), now() + 3_600_000 * MILLISECOND);
    let before = timer.reset(prepare(), now() + 3_600_000 * MILLISECOND);
    let last = timer.stop();
    for handle in [before, last] {
        let handle = handle.expect("it was set");
        let payload = handle.payload();
        scheduler::abandon(handle);
        // SAFETY: the goroutine that owned it will not run.
        drop(unsafe { Box::from_raw(payload as *mut Box<dyn FnOnce() + Send>) });
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[test]
fn timers_go_on_beside_goroutines_that_never_park() {
    let done = Arc::new(AtomicU32::new(0));
    let yielders: Vec<_> = (0..3)
        .map(|_| {
            let done = done.clone();
            go(move || {
                while done.load(Ordering::Relaxed) == 0 {
                    scheduler::gosched();
                }
            })
        })
        .collect();
    let sleeper = go(move || {
        scheduler::sleep(after(5), WaitReason::Sleep);
        done.store(1, Ordering::Relaxed);
    });
    join(&sleeper);
    yielders.iter().for_each(join);
}
