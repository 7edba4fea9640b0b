//! Who sleeps where: machines that slept before there was anything to poll for, and plain threads that wait alone.
//!
//! A process of its own, as nobody else may use descriptors.

#![allow(missing_docs)]

use offset_runtime::clock;
use offset_runtime::fd::{Attempt, Direction, Fd};
use offset_runtime::host::Plain;
use offset_runtime::scheduler;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Reads a byte, for a minute at most.
fn read(stream: &mut UnixStream, fd: &Fd) -> u8 {
    let deadline = clock::after(Duration::from_secs(60));
    fd.run(Direction::Read, deadline, |_| {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(count) => Attempt::Done(if count == 1 { byte[0] } else { 0 }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Attempt::Again,
            Err(error) => panic!("{error}"),
        }
    })
    .expect("nobody polled")
}

#[test]
fn a_thread_that_waits_alone_is_woken() {
    // A machine sleeps before the first descriptor is there, and the monitor goes to bed.
    let goroutine = scheduler::spawn(Plain::payload(|| ()));
    scheduler::join(&goroutine, clock::after(Duration::from_secs(60))).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while !scheduler::quiescent() {
        assert!(Instant::now() < limit, "the runtime does not come to rest");
        std::thread::yield_now();
    }
    // The monitor looks for half a second more; whatever it did would hide that nobody else does. Nothing fails if it is late.
    std::thread::sleep(Duration::from_secs(1));
    for round in 1..=20 {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let fd = Fd::new(other.as_raw_fd()).unwrap();
        let waiting = std::thread::spawn(move || read(&mut other, &fd));
        // Mostly it waits by then; the test is right in either case.
        std::thread::sleep(Duration::from_millis(5));
        one.write_all(&[round]).unwrap();
        assert_eq!(waiting.join().unwrap(), round);
    }
}
