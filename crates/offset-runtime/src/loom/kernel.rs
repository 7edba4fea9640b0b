//! The kernel's part of a futex: it compares the word and lists the sleeper in one step, as far as wakers can see.

use crate::lock::atomic::{AtomicU32, Ordering};
use crate::lock::{Condvar, Lock, global};
use std::sync::Arc;
use std::time::Duration;

/// By the addresses of their words.
type Sleepers = Vec<(usize, Arc<Condvar>)>;

global! {
    static SLEEPERS: Lock<Sleepers> = Lock::new(Vec::new());
}

/// Time does not pass here.
pub(crate) fn sleep(word: &AtomicU32, seen: u32, _time: Option<Duration>) -> bool {
    let mut sleepers = SLEEPERS.lock();
    if word.load(Ordering::Relaxed) == seen {
        let wakeup = Arc::new(Condvar::new());
        sleepers.push((std::ptr::from_ref(word) as usize, wakeup.clone()));
        while sleepers.iter().any(|(_, other)| Arc::ptr_eq(other, &wakeup)) {
            wakeup.wait(&mut sleepers);
        }
    }
    false
}

pub(crate) fn wake_one(word: &AtomicU32) {
    let mut sleepers = SLEEPERS.lock();
    let address = std::ptr::from_ref(word) as usize;
    if let Some(at) = sleepers.iter().position(|(other, _)| *other == address) {
        let (_, wakeup) = sleepers.remove(at);
        wakeup.notify_one();
    }
}
