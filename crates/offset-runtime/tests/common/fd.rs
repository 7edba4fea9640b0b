//! Descriptors: over pairs of Unix sockets, with goroutines and OS threads as the parties.

use super::{after, go, join, start, until, until_parked};
use offset_runtime::clock::Deadline;
use offset_runtime::fd::{Attempt, Direction, Fd, FdError};
use offset_runtime::goroutine::{Status, WaitReason};
use offset_runtime::scheduler;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One end, with its owner.
struct End {
    stream: UnixStream,
    fd: Fd,
}

impl End {
    fn of(stream: UnixStream) -> Arc<End> {
        stream.set_nonblocking(true).unwrap();
        let fd = Fd::new(stream.as_raw_fd()).unwrap();
        Arc::new(End { stream, fd })
    }

    /// Reads up to `size` bytes; a short answer counts as all that there was.
    fn read(&self, size: usize, deadline: Deadline) -> Result<Vec<u8>, FdError> {
        self.fd.run(Direction::Read, deadline, |_| {
            let mut bytes = vec![0; size];
            match (&self.stream).read(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    if count > 0 && count < size { Attempt::Drained(bytes) } else { Attempt::Done(bytes) }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Attempt::Again,
                Err(error) => panic!("{error}"),
            }
        })
    }

    fn write_all(&self, mut data: &[u8], deadline: Deadline) -> Result<(), FdError> {
        while !data.is_empty() {
            let count = self.fd.run(Direction::Write, deadline, |_| match (&self.stream).write(data) {
                Ok(count) => Attempt::Done(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Attempt::Again,
                Err(error) => panic!("{error}"),
            })?;
            data = &data[count..];
        }
        Ok(())
    }
}

fn pair() -> (Arc<End>, Arc<End>) {
    let (one, other) = UnixStream::pair().unwrap();
    (End::of(one), End::of(other))
}

#[test]
fn what_is_written_is_read() {
    for (writer_thread, reader_thread) in [(false, false), (true, false), (false, true), (true, true)] {
        let (one, other) = pair();
        let written: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        let data = written.clone();
        let writing = start(writer_thread, move || {
            one.write_all(&data, after(60_000)).unwrap();
        });
        let reading = start(reader_thread, move || {
            let mut bytes = Vec::new();
            loop {
                let more = other.read(4_096, after(60_000)).unwrap();
                if more.is_empty() {
                    break;
                }
                bytes.extend(more);
            }
            assert!(bytes == written, "something was lost or changed");
        });
        writing();
        reading();
    }
}

#[test]
fn many_pass_a_byte_round() {
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    let goroutines: Vec<_> = (0..pairs.len())
        .map(|index| {
            let from = pairs[index].1.clone();
            let to = pairs[(index + 1) % pairs.len()].0.clone();
            go(move || {
                for _ in 0..20 {
                    let byte = from.read(2, after(60_000)).unwrap();
                    to.write_all(&byte, after(60_000)).unwrap();
                }
            })
        })
        .collect();
    pairs[0].0.write_all(&[7], None).unwrap();
    goroutines.iter().for_each(join);
    assert_eq!(pairs[0].1.read(2, after(60_000)).unwrap(), [7]);
}

#[test]
fn a_wait_ends_in_time() {
    let (one, other) = pair();
    assert_eq!(other.read(1, after(1)), Err(FdError::TimedOut));
    assert_eq!(other.read(1, Some(0)), Err(FdError::TimedOut));
    assert_eq!(other.fd.wait(Direction::Read, after(1)), Err(FdError::TimedOut));
    // What is there is read, though the call's time is over.
    one.write_all(&[1], None).unwrap();
    until("the byte is there", || other.read(1, Some(0)) == Ok(vec![1]));
}

#[test]
fn a_deadline_can_be_moved() {
    let (one, other) = pair();
    other.fd.set_deadline(Direction::Read, Some(1));
    one.write_all(&[1], None).unwrap();
    assert_eq!(other.read(1, None), Err(FdError::TimedOut), "it was over before anything was tried");
    other.fd.set_deadline(Direction::Read, None);
    assert_eq!(other.read(1, after(60_000)), Ok(vec![1]));
    // To an earlier one, of who waits, and to a later one.
    for milliseconds in [1, 50] {
        other.fd.set_deadline(Direction::Read, after(if milliseconds == 1 { 60_000 } else { 20 }));
        let reader = {
            let other = other.clone();
            go(move || assert_eq!(other.read(1, None), Err(FdError::TimedOut)))
        };
        // Or has given up already, where it has little time.
        until("it waits", || reader.wait_reason() == WaitReason::Io || reader.status() == Status::Dead);
        other.fd.set_deadline(Direction::Read, after(milliseconds));
        join(&reader);
    }
    assert_eq!(other.write_all(&[1], None), Ok(()), "the other direction has none");
}

#[test]
fn a_close_wakes_all() {
    let (one, other) = pair();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let other = other.clone();
            go(move || assert_eq!(other.read(1, None), Err(FdError::Closed)))
        })
        .collect();
    readers.iter().for_each(|reader| until_parked(reader, WaitReason::Io));
    assert!(other.fd.close());
    readers.iter().for_each(join);
    assert!(!other.fd.close());
    assert_eq!(other.read(1, None), Err(FdError::Closed));
    assert_eq!(other.fd.wait(Direction::Write, None), Err(FdError::Closed));
    assert_eq!(one.write_all(&[1], None), Ok(()), "the other end is open");
}

#[test]
fn a_cancelled_wait_leaves_nothing_behind() {
    let (one, other) = pair();
    let reader = {
        let other = other.clone();
        go(move || assert_eq!(other.read(1, None), Err(FdError::Cancelled)))
    };
    until_parked(&reader, WaitReason::Io);
    reader.cancel();
    join(&reader);
    one.write_all(&[1], None).unwrap();
    assert_eq!(other.read(1, after(60_000)), Ok(vec![1]));
}

#[test]
fn a_number_that_was_used_again_wakes_the_new_one() {
    for told in [true, false] {
        let (one, other) = pair();
        let number = other.stream.as_raw_fd();
        let waiting = {
            let other = other.clone();
            go(move || assert_eq!(other.read(1, None), Err(FdError::Closed)))
        };
        until_parked(&waiting, WaitReason::Io);
        if told {
            other.fd.close();
        }
        // The number now belongs to the end of another pair.
        let (new, replacement) = UnixStream::pair().unwrap();
        // SAFETY: plain system call; both numbers are open.
        assert_eq!(unsafe { libc::dup2(replacement.as_raw_fd(), number) }, number);
        let new = End::of(new);
        let again = Fd::new(number).unwrap();
        join(&waiting);
        let reader = {
            let other = other.clone();
            go(move || {
                let byte = again.run(Direction::Read, after(60_000), |_| {
                    let mut byte = [0];
                    match (&other.stream).read(&mut byte) {
                        Ok(count) => Attempt::Done(byte[..count].to_vec()),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => Attempt::Again,
                        Err(error) => panic!("{error}"),
                    }
                });
                assert_eq!(byte, Ok(vec![9]));
            })
        };
        // The old registration ends only now; the new one must not go with it.
        other.fd.close();
        new.write_all(&[9], None).unwrap();
        join(&reader);
        drop(one);
    }
}

#[test]
fn one_descriptor_may_be_waited_for_by_two() {
    let (one, other) = pair();
    let again = Arc::new(Fd::new(other.stream.as_raw_fd()).unwrap());
    let waiting = {
        let again = again.clone();
        go(move || assert_eq!(again.wait(Direction::Read, None), Err(FdError::Closed)))
    };
    let reader = {
        let other = other.clone();
        go(move || assert_eq!(other.read(1, after(60_000)), Ok(vec![1])))
    };
    until_parked(&reader, WaitReason::Io);
    until_parked(&waiting, WaitReason::Io);
    // The end of one leaves the other.
    again.close();
    join(&waiting);
    one.write_all(&[1], None).unwrap();
    join(&reader);
}

#[test]
fn the_end_after_a_short_read_is_seen() {
    for _ in 0..200 {
        let (one, other) = pair();
        let reader = go(move || {
            assert_eq!(other.read(10, after(60_000)), Ok(vec![1]));
            assert_eq!(other.read(10, after(60_000)), Ok(vec![]));
            assert_eq!(other.read(10, after(60_000)), Ok(vec![]));
        });
        one.write_all(&[1], None).unwrap();
        drop(one);
        join(&reader);
    }
}

#[test]
fn several_readers_share_what_comes() {
    let (one, other) = pair();
    let read = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (other, read) = (other.clone(), read.clone());
            go(move || {
                while !other.read(1, after(60_000)).unwrap().is_empty() {
                    read.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..500 {
        one.write_all(&[1], None).unwrap();
    }
    drop(one);
    readers.iter().for_each(join);
    assert_eq!(read.load(Ordering::Relaxed), 500);
}

#[test]
fn readiness_is_waited_for_without_an_attempt() {
    let (one, other) = pair();
    // The first edge is that of the registration: it can be written to.
    other.fd.wait(Direction::Write, after(60_000)).unwrap();
    for number in 0..100 {
        let waiting = {
            let other = other.clone();
            go(move || {
                loop {
                    let mut byte = [0];
                    match (&other.stream).read(&mut byte) {
                        Ok(count) => return assert_eq!((count, byte), (1, [number])),
                        Err(_) => other.fd.wait(Direction::Read, after(60_000)).unwrap(),
                    }
                }
            })
        };
        one.write_all(&[number], None).unwrap();
        join(&waiting);
    }
}

#[test]
fn what_comes_beside_busy_goroutines_is_noticed() {
    let (one, other) = pair();
    let done = Arc::new(AtomicUsize::new(0));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let done = done.clone();
            go(move || {
                while done.load(Ordering::Relaxed) == 0 {
                    scheduler::gosched();
                }
            })
        })
        .collect();
    let reader = go(move || {
        assert_eq!(other.read(1, after(60_000)), Ok(vec![1]));
        done.store(1, Ordering::Relaxed);
    });
    until_parked(&reader, WaitReason::Io);
    one.write_all(&[1], None).unwrap();
    join(&reader);
    busy.iter().for_each(join);
}

#[test]
fn a_plain_file_cannot_be_waited_for() {
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let error = Fd::new(file.as_raw_fd()).err().unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

/// A read stops before an urgent byte, and what lies behind it brings no edge of its own.
#[cfg(target_os = "linux")]
#[test]
fn what_comes_behind_an_urgent_byte_is_read() {
    use std::net::{TcpListener, TcpStream};

    for early in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        let fd = Arc::new(Fd::new(stream.as_raw_fd()).unwrap());
        let read = {
            let fd = fd.clone();
            move || {
                let mut bytes = Vec::new();
                while bytes.len() < 6 {
                    let part = fd.run(Direction::Read, after(60_000), |_| {
                        let mut part = vec![0; 100];
                        match (&stream).read(&mut part) {
                            Ok(count) => Attempt::Drained(part[..count].to_vec()),
                            Err(error) if error.kind() == ErrorKind::WouldBlock => Attempt::Again,
                            Err(error) => panic!("{error}"),
                        }
                    });
                    bytes.extend(part.unwrap());
                }
                bytes
            }
        };
        let mut send = || {
            peer.write_all(b"abc").unwrap();
            // SAFETY: one byte is there to be sent.
            assert_eq!(unsafe { libc::send(peer.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
            peer.write_all(b"def").unwrap();
        };
        if early {
            send();
            assert_eq!(read(), b"abcdef");
        } else {
            let reader = go(move || assert_eq!(read(), b"abcdef"));
            until_parked(&reader, WaitReason::Io);
            send();
            join(&reader);
        }
    }
}
