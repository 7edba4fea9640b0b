//! Signals on channels: what Go's `os/signal` promises, without a host. Each test has signals of its own.

#![allow(missing_docs)]
// The thread sanitizer delays signals and ends a child that starts threads.
#![cfg(not(tsan))]

use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::RecvError;
use offset_runtime::signal::{self, ChanListener, Set};
use offset_runtime::{clock, fork};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

type Signals = Arc<Chan<i32>>;

fn set(signals: &[i32]) -> Set {
    signals.iter().fold(0, |all, signal| all | 1 << (signal - 1))
}

fn listen(capacity: usize, signals: &[i32]) -> Signals {
    let chan = Arc::new(Chan::new(capacity).unwrap());
    signal::notify(ChanListener::new(chan.clone(), |signal| signal), set(signals)).unwrap();
    chan
}

fn stop(chan: &Signals) -> bool {
    signal::stop(ChanListener::key_of(chan))
}

fn send(signal: i32) {
    // SAFETY: plain system calls.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// To this thread: it has been handled when this returns.
fn send_here(signal: i32) {
    // SAFETY: plain call.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

fn recv(chan: &Signals) -> Result<i32, RecvError> {
    chan.recv(Wait::Until(clock::after(Duration::from_secs(60))))
}

fn action(signal: i32) -> libc::sigaction {
    // SAFETY: plain data, filled in by the call.
    unsafe {
        let mut action = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut action), 0);
        action
    }
}

fn set_handler(signal: i32, handler: usize) {
    let mut new = action(signal);
    new.sa_sigaction = handler;
    new.sa_flags = 0;
    // SAFETY: a handler of this file, or a constant.
    assert_eq!(unsafe { libc::sigaction(signal, &new, std::ptr::null_mut()) }, 0);
}

#[test]
fn each_listener_gets_a_copy_and_a_full_channel_drops() {
    let (one, all) = (listen(1, &[libc::SIGHUP]), listen(8, &[libc::SIGHUP, libc::SIGWINCH]));
    send_here(libc::SIGHUP);
    assert_eq!(recv(&all), Ok(libc::SIGHUP));
    send_here(libc::SIGHUP);
    assert_eq!(recv(&all), Ok(libc::SIGHUP));
    send_here(libc::SIGWINCH);
    assert_eq!(recv(&all), Ok(libc::SIGWINCH));
    assert_eq!(recv(&one), Ok(libc::SIGHUP));
    assert!(stop(&one));
    send_here(libc::SIGHUP);
    assert_eq!(recv(&all), Ok(libc::SIGHUP));
    assert!(stop(&all));
    assert!(!stop(&all));
    assert!(one.is_empty() && all.is_empty());
}

#[test]
fn a_listener_that_waits_is_woken_and_an_unbuffered_channel_drops() {
    let chan = listen(0, &[libc::SIGUSR1]);
    send_here(libc::SIGUSR1);
    // Until the first was dropped, nobody waits.
    let other = listen(1, &[libc::SIGUSR1]);
    send_here(libc::SIGUSR1);
    assert_eq!(recv(&other), Ok(libc::SIGUSR1));
    let waiting = std::thread::spawn({
        let chan = chan.clone();
        move || recv(&chan)
    });
    while chan.counts().1 == 0 {
        std::thread::yield_now();
    }
    send(libc::SIGUSR1);
    assert_eq!(waiting.join().unwrap(), Ok(libc::SIGUSR1));
    stop(&chan);
    stop(&other);
}

#[test]
fn what_was_there_before_comes_back() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_: i32) {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    let handler = count as *const () as usize;
    set_handler(libc::SIGUSR2, handler);
    send_here(libc::SIGUSR2);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    let ways: [fn(&Signals); 3] = [
        |chan| assert!(stop(chan)),
        |_| signal::reset(set(&[libc::SIGUSR2])),
        |_| {
            signal::ignore(set(&[libc::SIGUSR2]));
            assert!(signal::ignored(libc::SIGUSR2));
            assert!(signal::held() & set(&[libc::SIGUSR2]) != 0);
            send_here(libc::SIGUSR2);
            signal::reset(set(&[libc::SIGUSR2]));
        },
    ];
    for (turn, way) in ways.iter().enumerate() {
        let chan = listen(1, &[libc::SIGUSR2]);
        assert!(!signal::ignored(libc::SIGUSR2));
        assert!(signal::wanted() & set(&[libc::SIGUSR2]) != 0);
        send_here(libc::SIGUSR2);
        assert_eq!(recv(&chan), Ok(libc::SIGUSR2));
        way(&chan);
        assert_eq!((signal::wanted() | signal::held()) & set(&[libc::SIGUSR2]), 0);
        assert_eq!(action(libc::SIGUSR2).sa_sigaction, handler);
        send_here(libc::SIGUSR2);
        assert_eq!(CALLS.load(Ordering::SeqCst), turn as u32 + 2);
        assert!(chan.is_empty());
    }
    // Somebody has set another action meanwhile: that stays.
    let chan = listen(1, &[libc::SIGUSR2]);
    set_handler(libc::SIGUSR2, libc::SIG_IGN);
    stop(&chan);
    assert_eq!(action(libc::SIGUSR2).sa_sigaction, libc::SIG_IGN);
    // ... and is what was there before the next time.
    let chan = listen(1, &[libc::SIGUSR2]);
    assert!(!signal::ignored(libc::SIGUSR2));
    stop(&chan);
    assert!(signal::ignored(libc::SIGUSR2));
}

#[test]
fn a_signal_is_received_or_does_what_it_did_before() {
    static BEFORE: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_: i32) {
        BEFORE.fetch_add(1, Ordering::SeqCst);
    }
    set_handler(libc::SIGALRM, count as *const () as usize);
    let mut received = 0;
    for round in 1..=2_000 {
        let chan = listen(1, &[libc::SIGALRM]);
        let going = Arc::new(AtomicBool::new(false));
        let stopper = std::thread::spawn({
            let (chan, going) = (chan.clone(), going.clone());
            move || {
                while !going.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                stop(&chan);
            }
        });
        going.store(true, Ordering::Relaxed);
        send_here(libc::SIGALRM);
        stopper.join().unwrap();
        received += chan.len() as u32;
        assert_eq!(received + BEFORE.load(Ordering::SeqCst), round, "a signal was lost");
    }
}

#[test]
fn many_threads_signal_while_listeners_come_and_go() {
    let keeper = listen(1, &[libc::SIGVTALRM]);
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let over = over.clone();
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    send_here(libc::SIGVTALRM);
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    for _ in 0..200 {
        let chan = listen(1, &[libc::SIGVTALRM]);
        assert_eq!(recv(&chan), Ok(libc::SIGVTALRM));
        stop(&chan);
        let _ = chan.recv(Wait::No);
        assert_eq!(chan.recv(Wait::No), Err(RecvError::TimedOut), "a signal came after the stop");
    }
    over.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    stop(&keeper);
}

#[test]
fn a_child_starts_with_what_was_there_before() {
    let chan = listen(4, &[libc::SIGTERM]);
    fork::prepare();
    // SAFETY: the child calls `fork::child` first, and is ended by a signal.
    let child = unsafe { libc::fork() };
    // Else the signal below would go to everybody.
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: prepared above, on this thread, which is the only one.
        unsafe {
            fork::child(|_| ());
            libc::alarm(60);
            loop {
                libc::pause();
            }
        }
    }
    // While this thread blocks it: it waits for the child, which has the parent's handler still.
    // SAFETY: plain system call.
    assert_eq!(unsafe { libc::kill(child, libc::SIGTERM) }, 0);
    // SAFETY: prepared above, on this thread.
    unsafe { fork::parent() };
    let mut status = 0;
    // SAFETY: the status is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(libc::WTERMSIG(status), libc::SIGTERM);
    send(libc::SIGTERM);
    assert_eq!(recv(&chan), Ok(libc::SIGTERM));
    stop(&chan);
    assert!(chan.is_empty());
}
