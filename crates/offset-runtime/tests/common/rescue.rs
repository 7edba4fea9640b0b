//! A goroutine that blocks or computes does not stop the others. Nothing is timed: without a rescue these tests do not end.

use super::{go, join};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::scheduler;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

const EVER: Wait = Wait::Until(None);

#[test]
fn goroutines_blocked_in_system_calls() {
    let chan = Arc::new(Chan::<u32>::new(0).unwrap());
    // More than there are processors, each blocked until a later goroutine writes to its pipe.
    let pipes: Vec<_> = (0..6).map(|_| std::io::pipe().unwrap()).collect();
    let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let blocked: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            let chan = chan.clone();
            go(move || {
                let mut byte = [0];
                reader.read_exact(&mut byte).unwrap();
                chan.send(u32::from(byte[0]), EVER).unwrap();
            })
        })
        .collect();
    let writer = go(move || {
        for mut writer in writers {
            writer.write_all(&[7]).unwrap();
        }
    });
    for _ in 0..6 {
        assert_eq!(chan.recv(EVER), Ok(7));
    }
    join(&writer);
    blocked.iter().for_each(join);
}

#[test]
fn goroutines_that_compute() {
    let flag = Arc::new(AtomicU32::new(0));
    let hogs: Vec<_> = (0..3)
        .map(|_| {
            let flag = flag.clone();
            go(move || {
                while flag.load(Ordering::Relaxed) == 0 {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let chan = Arc::new(Chan::<u32>::new(0).unwrap());
    let pair = [0, 1].map(|me| {
        let chan = chan.clone();
        go(move || {
            for value in 0..50 {
                match me {
                    0 => chan.send(value, EVER).unwrap(),
                    _ => assert_eq!(chan.recv(EVER), Ok(value)),
                }
            }
        })
    });
    pair.iter().for_each(join);
    let last = go(move || flag.store(1, Ordering::Relaxed));
    join(&last);
    hogs.iter().for_each(join);
}

#[test]
fn a_goroutine_moves_on_after_its_machine_was_stuck() {
    let chan = Arc::new(Chan::<u32>::new(0).unwrap());
    let (reader, writer) = std::io::pipe().unwrap();
    let started: Vec<_> = (0..4)
        .map(|_| {
            let chan = chan.clone();
            go(move || {
                for _ in 0..20 {
                    chan.recv(EVER).unwrap();
                    scheduler::gosched();
                }
            })
        })
        .collect();
    let mut reader = reader;
    let blocked = go(move || {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
    });
    for value in 0..80 {
        chan.send(value, EVER).unwrap();
    }
    started.iter().for_each(join);
    let mut writer = writer;
    writer.write_all(&[1]).unwrap();
    join(&blocked);
}

#[test]
fn all_run_at_once_where_each_waits_for_all() {
    // As many as there are processors run at once if those without work steal; further ones are rescued.
    let barrier = Arc::new(Barrier::new(crate::PROCESSORS + 1));
    let parent = go(move || {
        let children: Vec<_> = (0..=crate::PROCESSORS)
            .map(|_| {
                let barrier = barrier.clone();
                go(move || {
                    barrier.wait();
                })
            })
            .collect();
        children.iter().for_each(join);
    });
    join(&parent);
}

#[test]
fn goroutines_locked_to_threads_get_their_machines_back() {
    let goroutines: Vec<_> = (0..4)
        .map(|_| {
            go(|| {
                scheduler::lock_thread(true);
                let thread = std::thread::current().id();
                for _ in 0..3 {
                    std::thread::sleep(std::time::Duration::from_millis(12));
                    scheduler::gosched();
                    assert_eq!(std::thread::current().id(), thread);
                }
            })
        })
        .collect();
    goroutines.iter().for_each(join);
}
