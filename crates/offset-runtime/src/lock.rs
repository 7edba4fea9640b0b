//! The one door to locks, atomics, checked cells, statics and threads, so that loom can stand in for them.
//!
//! While a [`Lock`] of this crate is held nothing foreign runs: no drop of a channel's value, no host call, no callback,
//! nothing that parks. Locks are taken in this order and never the other way round:
//! machines, then processor; a machine's home queue, then processor; timers, then processor; channel (in address order), then
//! timers; processors in their order. Under a processor's lock only a machine's mailbox and the monitor's bed are taken.

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

    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::{AtomicU32, Ordering};
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

    const FREE: u32 = 0;
    const LOCKED: u32 = 1;
    /// Locked, and somebody may sleep.
    const WANTED: u32 = 2;
    /// Looks at a lock before sleeping: its holder needs a few instructions.
    const SPINS: u32 = 100;

    /// A mutual exclusion lock.
    pub struct Lock<T> {
        word: AtomicU32,
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
            Lock { word: AtomicU32::new(FREE), value: std::cell::UnsafeCell::new(value) }
        }

        /// Waits until it is free and takes it.
        #[inline]
        pub fn lock(&self) -> Guard<'_, T> {
            // Acquire pairs with the Release of `force_unlock`: what the last holder wrote is seen.
            if self.word.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
                self.wait();
            }
            Guard(self)
        }

        #[cold]
        fn wait(&self) {
            for _ in 0..SPINS {
                // Acquire: as in `lock`.
                if self.word.load(Ordering::Relaxed) == FREE
                    && self.word.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok()
                {
                    return;
                }
                std::hint::spin_loop();
            }
            // Acquire: as in `lock`. It may be taken as wanted though nobody else waits, which costs one call at its end.
            while self.word.swap(WANTED, Ordering::Acquire) != FREE {
                sleep(&self.word, WANTED, None);
            }
        }

        /// Takes it if it is free.
        #[inline]
        pub fn try_lock(&self) -> Option<Guard<'_, T>> {
            // Acquire: as in `lock`.
            let taken = self.word.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_ok();
            taken.then(|| Guard(self))
        }

        /// Gives it back for a guard that was forgotten.
        ///
        /// # Safety
        /// The caller holds the lock, and no guard of it lives.
        #[inline]
        pub unsafe fn force_unlock(&self) {
            // Release pairs with the Acquire of whoever takes it next.
            if self.word.swap(FREE, Ordering::Release) == WANTED {
                wake_one(&self.word);
            }
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
    pub(crate) struct Condvar {
        sequence: AtomicU32,
    }

    impl Condvar {
        pub(crate) const fn new() -> Condvar {
            Condvar { sequence: AtomicU32::new(0) }
        }

        /// Sleeps until notified, or for no reason.
        pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            self.sleep(guard, None);
        }

        /// As `wait`, for `time` at most; true if that is over.
        pub(crate) fn wait_for<T>(&self, guard: &mut Guard<'_, T>, time: Duration) -> bool {
            self.sleep(guard, Some(time))
        }

        pub(crate) fn notify_one(&self) {
            self.sequence.fetch_add(1, Ordering::Relaxed);
            wake_one(&self.sequence);
        }

        fn sleep<T>(&self, guard: &mut Guard<'_, T>, time: Option<Duration>) -> bool {
            // Read under the lock: who notifies after it was given back changes the word, and the kernel does not sleep.
            let seen = self.sequence.load(Ordering::Relaxed);
            let lock = guard.0;
            // SAFETY: the guard holds it, is not used while it does not, and holds it again below.
            unsafe { lock.force_unlock() };
            let timed_out = sleep(&self.sequence, seen, time);
            std::mem::forget(lock.lock());
            timed_out
        }
    }

    /// Sleeps while the word is `seen`, or for no reason; true if the time is over.
    fn sleep(word: &AtomicU32, seen: u32, time: Option<Duration>) -> bool {
        let time = time.map(|time| libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: time.subsec_nanos() as libc::c_long,
        });
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the word and the time outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, seen, time) };
        // SAFETY: the calling thread's own word.
        result != 0 && unsafe { *libc::__errno_location() } == libc::ETIMEDOUT
    }

    fn wake_one(word: &AtomicU32) {
        // SAFETY: only the address is used, to look for sleepers on it.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
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
