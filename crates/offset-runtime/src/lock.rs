//! The one door to locks, atomics, checked cells, statics and threads, so that loom can stand in for them.
//!
//! While a [`Lock`] of this crate is held nothing foreign runs: no drop of a channel's value, no host call, no callback,
//! nothing that parks. Locks are taken in this order and never the other way round:
//! machines, then processor; a machine's home queue, then processor; timers, then processor; channel (in address order), then
//! timers; processors in their order; a bubble's clock, then its timers, or machines. Under a processor's lock only a machine's mailbox, the
//! monitor's bed, a machine's account and a bubble's parking are taken; under an account only the host is asked what it is about. The
//! lock of those who listen to signals comes before all others.

#[cfg(all(loom, test))]
pub(crate) use self::model::join_all;
#[cfg(loom)]
pub(crate) use self::model::{Cell, Condvar, Guard, Lock, UnsafeCell, atomic, global, local, spawn, yield_now};
#[cfg(not(loom))]
pub(crate) use self::real::{Cell, Condvar, UnsafeCell, atomic, global, local, spawn, yield_now};
#[cfg(not(loom))]
pub use self::real::{Guard, Lock};

#[cfg(not(loom))]
mod real {
    //! Locks that live in their own words and nowhere else. parking_lot keeps its sleepers in a table of the process, with nodes
    //! on their stacks: a forked child would find its parent's threads in there, and a bucket that one of them had locked.
    //! tests/test_fork.py fails with such a condition variable.

    use crate::futex::{Sequence, Word};
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub(crate) use std::cell::Cell;
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread::yield_now;

    /// A static; under loom each execution has its own.
    macro_rules! global {
        ($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $value:expr;) => {
            $(#[$meta])* $vis static $name: $type = $value;
        };
    }

    /// A thread-local with a constant for a start.
    macro_rules! local {
        (static $name:ident: $type:ty = $value:expr;) => {
            thread_local! { static $name: $type = const { $value }; }
        };
    }

    pub(crate) use {global, local};

    /// Starts a thread that nobody joins; false if the system refuses.
    pub(crate) fn spawn(name: &str, stack: usize, main: impl FnOnce() + Send + 'static) -> bool {
        std::thread::Builder::new().name(name.into()).stack_size(stack).spawn(main).is_ok()
    }

    /// A cell whose accesses loom checks against each other.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// Hands out the address for an access that writes.
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            access(self.0.get())
        }
    }

    /// A mutual exclusion lock.
    pub struct Lock<T> {
        word: Word,
        value: std::cell::UnsafeCell<T>,
    }

    // SAFETY: the value is reached by one thread at a time.
    unsafe impl<T: Send> Send for Lock<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send> Sync for Lock<T> {}

    /// The lock is held while this lives.
    pub struct Guard<'a, T>(&'a Lock<T>);

    impl<T> Lock<T> {
        /// A free lock.
        pub const fn new(value: T) -> Lock<T> {
            Lock { word: Word::new(), value: std::cell::UnsafeCell::new(value) }
        }

        /// Waits until it is free and takes it.
        #[inline]
        pub fn lock(&self) -> Guard<'_, T> {
            self.word.lock();
            Guard(self)
        }

        /// Takes it if it is free.
        #[inline]
        pub fn try_lock(&self) -> Option<Guard<'_, T>> {
            self.word.try_lock().then(|| Guard(self))
        }

        /// Gives it back for a guard that was forgotten.
        ///
        /// # Safety
        /// The caller holds the lock, and no guard of it lives.
        #[inline]
        pub unsafe fn force_unlock(&self) {
            self.word.unlock();
        }
    }

    impl<T: Default> Default for Lock<T> {
        fn default() -> Self {
            Lock::new(T::default())
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;
        #[inline]
        fn deref(&self) -> &T {
            // SAFETY: the lock is held.
            unsafe { &*self.0.value.get() }
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: the lock is held, and this is its only guard.
            unsafe { &mut *self.0.value.get() }
        }
    }

    impl<T> Drop for Guard<'_, T> {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: the lock is held by this guard, which ends.
            unsafe { self.0.force_unlock() };
        }
    }

    /// A condition variable.
    pub(crate) struct Condvar(Sequence);

    impl Condvar {
        pub(crate) const fn new() -> Condvar {
            Condvar(Sequence::new())
        }

        /// Sleeps until notified, or for no reason. The lock is free meanwhile.
        pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            self.0.wait(&guard.0.word, None);
        }

        /// As `wait`, for `time` at most; true if that is over.
        pub(crate) fn wait_for<T>(&self, guard: &mut Guard<'_, T>, time: Duration) -> bool {
            self.0.wait(&guard.0.word, Some(time))
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }
}

#[cfg(loom)]
mod model {
    //! loom's counterparts under the signatures of the real ones.
    use std::time::Duration;

    pub(crate) use loom::cell::{Cell, UnsafeCell};
    pub(crate) use loom::sync::{MutexGuard as Guard, atomic};
    pub(crate) use loom::thread::yield_now;

    macro_rules! global {
        ($(#[$meta:meta])* static $name:ident: $type:ty = $value:expr;) => {
            loom::lazy_static! { $(#[$meta])* static ref $name: $type = $value; }
        };
        ($(#[$meta:meta])* pub(crate) static $name:ident: $type:ty = $value:expr;) => {
            loom::lazy_static! { $(#[$meta])* pub(crate) static ref $name: $type = $value; }
        };
    }

    macro_rules! local {
        (static $name:ident: $type:ty = $value:expr;) => {
            loom::thread_local! { static $name: $type = $value; }
        };
    }

    pub(crate) use {global, local};

    global! {
        static THREADS: std::sync::Mutex<Vec<loom::thread::JoinHandle<()>>> = std::sync::Mutex::new(Vec::new());
    }

    pub(crate) fn spawn(_name: &str, _stack: usize, main: impl FnOnce() + Send + 'static) -> bool {
        let thread = loom::thread::spawn(main);
        THREADS.lock().unwrap().push(thread);
        true
    }

    /// Waits for the threads that were spawned. A model must: its statics go when its main thread ends.
    #[cfg(test)]
    pub(crate) fn join_all() {
        loop {
            let thread = THREADS.lock().unwrap().pop();
            let Some(thread) = thread else { return };
            thread.join().unwrap();
        }
    }

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

    impl<T: Default> Default for Lock<T> {
        fn default() -> Self {
            Lock::new(T::default())
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

        /// The time passes as soon as the model has said so (see `clock`); who sleeps then must be notified by the model.
        pub(crate) fn wait_for<T>(&self, guard: &mut Guard<'_, T>, time: Duration) -> bool {
            if crate::clock::runs() {
                crate::clock::skip(time);
                return true;
            }
            self.wait(guard);
            crate::clock::runs()
        }
    }
}
