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
pub(crate) use parking_lot::{Condvar, Mutex as Lock, MutexGuard as Guard};

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
