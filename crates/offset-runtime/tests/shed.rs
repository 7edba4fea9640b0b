//! The end of a process: machines let go of the stacks and contexts that they keep. Nothing else runs in this process, as they keep none
//! from then on.

#![allow(missing_docs)]

use offset_runtime::chan::{Chan, Wait};
use offset_runtime::host::Plain;
use offset_runtime::{clock, scheduler};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVER: Wait = Wait::Until(None);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn machines_let_go_of_what_they_keep() {
    scheduler::set_processors(2);
    let (gate, end) = (Arc::new(Chan::<()>::new(0).unwrap()), Arc::new(Chan::<()>::new(0).unwrap()));
    let waiting = |chan: &Arc<Chan<()>>| {
        let chan = chan.clone();
        scheduler::spawn(Plain::payload(move || assert!(chan.recv(EVER).is_err())))
    };
    let first: Vec<_> = (0..500).map(|_| waiting(&gate)).collect();
    // Their machines lose their processors: what these keep goes, too.
    let slow: Vec<_> =
        (0..4).map(|_| scheduler::spawn(Plain::payload(|| std::thread::sleep(Duration::from_millis(200))))).collect();
    let last = waiting(&end);
    let limit = Instant::now() + MINUTE;
    while scheduler::stats().contexts < 505 {
        assert!(Instant::now() < limit, "not all have begun: {:?}", scheduler::stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    gate.close().unwrap();
    for goroutine in first.iter().chain(&slow) {
        scheduler::join(goroutine, clock::after(MINUTE)).unwrap();
    }
    assert!(scheduler::stats().contexts > 400, "{:?}", scheduler::stats());
    // As long as it goes on: a machine may be late.
    while scheduler::stats().contexts > 1 {
        assert!(Instant::now() < limit, "{:?}", scheduler::stats());
        scheduler::shed(MINUTE);
    }
    // Who goes on keeps what it has.
    end.close().unwrap();
    scheduler::join(&last, clock::after(MINUTE)).unwrap();
    while scheduler::stats().contexts > 0 {
        assert!(Instant::now() < limit, "{:?}", scheduler::stats());
        scheduler::shed(MINUTE);
    }
}
