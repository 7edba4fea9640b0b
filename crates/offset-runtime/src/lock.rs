//! The one door to locks and atomics, so that loom can stand in for them.
//!
//! While a [`Lock`] of this crate is held nothing foreign runs: no drop of a channel's value, no host call, no callback,
//! nothing that parks. Locks are taken in this order and never the other way round:
//! machines, then processor; timers, then processor; channel (in address order), then timers.
//! A processor's lock is a leaf.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;

#[cfg(not(loom))]
pub(crate) use self::futex::Condvar;
#[cfg(not(loom))]
pub(crate) use parking_lot::{Mutex as Lock, MutexGuard as Guard};

#[cfg(not(loom))]
mod futex {
    use parking_lot::MutexGuard;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A condition variable on a futex. parking_lot's keeps its sleepers in a table of the process, with nodes on their
    /// stacks; a forked child would find its parent's threads in there. tests/test_fork.py fails with that one.
    pub(crate) struct Condvar {
        sequence: AtomicU32,
    }

    impl Condvar {
        pub(crate) const fn new() -> Condvar {
            Condvar { sequence: AtomicU32::new(0) }
        }

        /// Sleeps until notified, or for no reason.
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            self.sleep(guard, None);
        }

        /// As `wait`, for `time` at most; true if that is over.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> bool {
            self.sleep(guard, Some(time))
        }

        pub(crate) fn notify_one(&self) {
            self.sequence.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the word is ours; the call only looks for sleepers on it.
            unsafe { libc::syscall(libc::SYS_futex, &self.sequence, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
        }

        fn sleep<T>(&self, guard: &mut MutexGuard<'_, T>, time: Option<Duration>) -> bool {
            // Read under the lock: who notifies after it was given back changes the word, and the kernel does not sleep.
            let seen = self.sequence.load(Ordering::Relaxed);
            let time = time.map(|time| libc::timespec {
                tv_sec: time.as_secs() as libc::time_t,
                tv_nsec: time.subsec_nanos() as libc::c_long,
            });
            MutexGuard::unlocked(guard, || {
                let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
                // SAFETY: the word and the time outlive the call.
                let result = unsafe {
                    libc::syscall(
                        libc::SYS_futex,
                        &self.sequence,
                        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                        seen,
                        time,
                    )
                };
                // SAFETY: the calling thread's own word.
                result != 0 && unsafe { *libc::__errno_location() } == libc::ETIMEDOUT
            })
        }
    }
}

#[cfg(loom)]
pub(crate) use self::model::{Condvar, Guard, Lock};

#[cfg(loom)]
mod model {
    //! loom's mutex and condition variable under parking_lot's signatures.
    pub(crate) use loom::sync::MutexGuard as Guard;

    pub(crate) struct Lock<T>(loom::sync::Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Lock(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }

        pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Condvar(loom::sync::Condvar::new())
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            // SAFETY: the guard is taken out, handed to loom, and the one that loom gives back is put in its place
            // before anybody can see the gap; loom's wait does not unwind between the two.
            unsafe {
                let taken = std::ptr::read(guard);
                let back = match self.0.wait(taken) {
                    Ok(back) => back,
                    Err(poisoned) => poisoned.into_inner(),
                };
                std::ptr::write(guard, back);
            }
        }
    }
}
