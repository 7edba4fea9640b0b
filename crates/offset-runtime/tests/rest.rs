//! How a runtime comes to rest: what the watcher is told, and what becomes of machines without work. These tests look at the
//! whole process, so they have it for themselves and take turns.

#![allow(missing_docs)]

use offset_runtime::blocking::submit;
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::clock;
use offset_runtime::goroutine::{Handle, WaitReason};
use offset_runtime::host::Plain;
use offset_runtime::scheduler;
use offset_runtime::sync::Note;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const EVER: Wait = Wait::Until(None);

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn go(work: impl FnOnce() + Send + 'static) -> Handle {
    scheduler::spawn(Plain::payload(work))
}

fn join(goroutine: &Handle) {
    scheduler::join(goroutine, clock::after(Duration::from_secs(60))).expect("a goroutine did not end within a minute");
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < limit, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits, as a plain thread, until the watcher is told something.
fn told(note: &Note) {
    note.wait(clock::after(Duration::from_secs(60))).expect("the watcher was not told within a minute");
    note.clear();
}

#[test]
fn the_watcher_is_told_when_nothing_can_happen_any_more() {
    let _alone = alone();
    let chan = Arc::new(Chan::<()>::new(0).unwrap());
    let note = Arc::new(Note::default());
    scheduler::watch(Some(note.clone()));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let chan = chan.clone();
            go(move || chan.recv(EVER).unwrap())
        })
        .collect();
    until("all are parked", || chan.counts().1 == 3);
    until("it is told of the deadlock", || {
        told(&note);
        scheduler::quiescent()
    });
    assert_eq!(scheduler::num_goroutine(), 3);
    for _ in 0..3 {
        chan.send((), EVER).unwrap();
    }
    waiting.iter().for_each(join);
    until("it is told of the end", || {
        told(&note);
        scheduler::num_goroutine() == 0
    });
    scheduler::watch(None);
}

#[test]
fn a_timer_and_a_blocking_call_may_still_do_something() {
    let _alone = alone();
    let sleeper = go(|| {
        scheduler::sleep(clock::after(Duration::from_secs(3_600)), WaitReason::Sleep);
    });
    until("it sleeps", || sleeper.wait_reason() == WaitReason::Sleep);
    assert!(!scheduler::quiescent(), "a timer is set");
    sleeper.cancel();
    join(&sleeper);
    until("all is quiet", scheduler::quiescent);

    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let done = Arc::new(Note::default());
    let call = move || {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
    };
    assert!(submit((Box::new(call), done.clone())).is_ok());
    assert!(!scheduler::quiescent(), "a call is under way");
    writer.write_all(&[0]).unwrap();
    done.wait(None).unwrap();
    until("all is quiet", scheduler::quiescent);
}

#[test]
fn machines_without_work_go_away() {
    let _alone = alone();
    let (readers, writers): (Vec<_>, Vec<_>) = (0..5).map(|_| std::io::pipe().unwrap()).unzip();
    let blocked: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            go(move || {
                let mut byte = [0];
                reader.read_exact(&mut byte).unwrap();
            })
        })
        .collect();
    until("each has a machine", || scheduler::stats().stuck_machines == 5);
    assert!(scheduler::stats().machines >= 6 && scheduler::stats().handoffs >= 5);
    for mut writer in writers {
        writer.write_all(&[0]).unwrap();
    }
    blocked.iter().for_each(join);
    until("one machine is left", || scheduler::stats().machines == 1);
    assert_eq!(scheduler::stats().stuck_machines, 0);
    // It still works, and so do new ones.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let blocked = go(move || {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
    });
    let writer = go(move || writer.write_all(&[0]).unwrap());
    join(&writer);
    join(&blocked);
}

#[test]
fn a_machine_that_a_timer_woke_is_watched() {
    let _alone = alone();
    // By then nothing has run for so long that the monitor sleeps; nobody but the clock wakes the machine.
    let when = clock::after(Duration::from_millis(1_200));
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let blocked = go(move || {
        scheduler::sleep(when, WaitReason::Sleep);
        reader.read_exact(&mut [0]).unwrap();
    });
    let other = go(move || {
        scheduler::sleep(when.map(|when| when + 1), WaitReason::Sleep);
        writer.write_all(&[1]).unwrap();
    });
    // Without a rescue the first never ends.
    join(&blocked);
    join(&other);
}
