//! The waiting side of OS threads that run no goroutine: plain threads of the host, the main thread among them.
//!
//! A thread borrows a parker for each wait from a list that only grows; parkers are never freed, so that a waker may
//! signal one whose owner has long gone on. A signal that comes too late is absorbed: the sleeper looks at the park word,
//! not at the signal.

use crate::clock::Deadline;
use crate::lock::{Condvar, Lock};
use crate::park::{Code, Owner, Parker, TIMED_OUT, Ticket};

/// Wakes one sleeping thread.
pub(crate) struct ThreadSignal {
    /// True once notified; taken back by the sleeper.
    notified: Lock<bool>,
    wakeup: Condvar,
    /// For a thread that must notice the process's signals while it sleeps; never freed.
    #[cfg(not(loom))]
    bell: std::sync::atomic::AtomicPtr<crate::os::Bell>,
}

impl ThreadSignal {
    pub(crate) fn new() -> Self {
        ThreadSignal {
            notified: Lock::new(false),
            wakeup: Condvar::new(),
            #[cfg(not(loom))]
            bell: std::sync::atomic::AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    pub(crate) fn notify(&self) {
        *self.notified.lock() = true;
        self.wakeup.notify_one();
        #[cfg(not(loom))]
        if let Some(bell) = self.bell() {
            bell.ring();
        }
    }

    #[cfg(not(loom))]
    fn bell(&self) -> Option<&'static crate::os::Bell> {
        // SAFETY: never freed.
        unsafe { self.bell.load(std::sync::atomic::Ordering::Acquire).as_ref() }
    }
}

#[cfg(not(loom))]
mod real {
    use super::*;
    use crate::host::host;
    use crate::os::{Bell, poll_with_mask};
    use crate::park::CANCELLED;
    use std::sync::atomic::Ordering;

    static SPARE: Lock<Vec<&'static Parker>> = Lock::new(Vec::new());

    /// A parker on loan to the calling thread.
    pub(crate) struct Loan(pub(crate) &'static Parker);

    impl Loan {
        pub(crate) fn new() -> Self {
            let spare = SPARE.lock().pop();
            Loan(spare.unwrap_or_else(|| Box::leak(Box::new(Parker::new(Owner::Thread(ThreadSignal::new()))))))
        }
    }

    impl Drop for Loan {
        fn drop(&mut self) {
            SPARE.lock().push(self.0);
        }
    }

    /// In a forked child: the loans and signals of the parent's threads are not ours.
    pub(crate) fn start_over() {
        // SAFETY: the child has one thread, so nobody holds or waits for the lock that is overwritten; the parent's
        // parkers carry the generation of the parent and stay unused.
        unsafe { std::ptr::write((&raw const SPARE).cast_mut(), Lock::new(Vec::new())) };
    }

    fn signal(parker: &Parker) -> &ThreadSignal {
        match &parker.owner {
            Owner::Thread(signal) => signal,
            _ => unreachable!("neither goroutines nor tasks sleep as threads"),
        }
    }

    /// Sleeps until the wait `ticket` is over; at the deadline, or when a signal handler raises, ends it itself.
    pub(crate) fn sleep(parker: &'static Parker, ticket: Ticket, deadline: Deadline) -> Code {
        let code = if host().handles_signals() {
            sleep_with_signals(parker, ticket, deadline)
        } else {
            sleep_plain(parker, ticket, deadline)
        };
        *signal(parker).notified.lock() = false;
        code
    }

    /// Ends the wait with `code`, unless it is over already; gives how it ended.
    fn end(parker: &Parker, ticket: Ticket, code: Code) -> Option<Code> {
        if parker.left_behind() {
            // A signal handler has forked during the wait. In the child nobody else can end it.
            return Some(code);
        }
        // The claim is our own: there is nobody to wake.
        let _ = parker.claim(ticket, code);
        parker.outcome()
    }

    fn sleep_plain(parker: &Parker, ticket: Ticket, deadline: Deadline) -> Code {
        let signal = signal(parker);
        let attached = host().thread_detach();
        let code = loop {
            if let Some(code) = parker.outcome() {
                break code;
            }
            let mut notified = signal.notified.lock();
            if std::mem::take(&mut *notified) {
                continue;
            }
            match deadline {
                None => signal.wakeup.wait(&mut notified),
                Some(when) => {
                    let now = crate::clock::now();
                    if now >= when {
                        drop(notified);
                        if let Some(code) = end(parker, ticket, TIMED_OUT) {
                            break code;
                        }
                        continue;
                    }
                    signal.wakeup.wait_for(&mut notified, std::time::Duration::from_nanos(when - now));
                }
            }
        };
        host().thread_attach(attached);
        code
    }

    /// Signals stay blocked from before the last look at what came until the kernel lets them in again inside `poll_with_mask`, so
    /// none is slept through.
    fn sleep_with_signals(parker: &Parker, ticket: Ticket, deadline: Deadline) -> Code {
        let signal = signal(parker);
        if signal.bell().is_none()
            && let Some(bell) = Bell::new()
        {
            signal.bell.store(Box::leak(Box::new(bell)), Ordering::Release);
        }
        // Without a descriptor (EMFILE) the thread sleeps in short slices below.
        let bell = signal.bell();
        // A signal for the process that comes while this thread blocks it is handled on another thread, which does not wake
        // us; so the first sleeps are short, and none is longer than a second.
        let mut slice = 1_000_000;
        loop {
            if let Some(code) = parker.outcome() {
                return code;
            }
            // With all signals let in: threads and processes that a handler starts inherit what is blocked. Only the handler of a
            // signal that comes right now, before they are blocked, runs below.
            let mut raised = host().check_signals();
            // SAFETY: sigset_t is plain data, written by the calls that read it.
            let (mut all, mut before) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
            // SAFETY: both sets are ours.
            unsafe {
                libc::sigfillset(&mut all);
                libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            }
            let restore = || {
                // SAFETY: the set was filled in above.
                unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
            };
            raised = raised || host().check_signals();
            if raised {
                restore();
                if end(parker, ticket, CANCELLED) == Some(CANCELLED) {
                    return CANCELLED;
                }
                // What was waited for has happened: that stands, and the handler's exception is raised later.
                host().defer_exception();
                continue;
            }
            if let Some(code) = parker.outcome() {
                restore();
                return code;
            }
            let left = match deadline {
                None => None,
                Some(when) => {
                    let now = crate::clock::now();
                    if now >= when {
                        restore();
                        if let Some(code) = end(parker, ticket, TIMED_OUT) {
                            return code;
                        }
                        continue;
                    }
                    Some(when - now)
                }
            };
            let left = left.unwrap_or(u64::MAX).min(if bell.is_none() { 10_000_000 } else { slice });
            slice = (slice * 2).min(1_000_000_000);
            let attached = host().thread_detach();
            poll_with_mask(bell.map_or(-1, Bell::descriptor), left, &before);
            if let Some(bell) = bell {
                bell.silence();
            }
            restore();
            host().thread_attach(attached);
        }
    }
}

#[cfg(not(loom))]
pub(crate) use real::{Loan, sleep, start_over};

#[cfg(loom)]
mod modelled {
    //! A parker of its own for each wait; a deadline may come at any moment, so it comes at once.
    use super::*;

    pub(crate) fn sleep(parker: &Parker, ticket: Ticket, deadline: Deadline) -> Code {
        let Owner::Thread(signal) = &parker.owner else { unreachable!() };
        loop {
            if let Some(code) = parker.outcome() {
                return code;
            }
            if deadline.is_some() {
                let _ = parker.claim(ticket, TIMED_OUT);
                continue;
            }
            let mut notified = signal.notified.lock();
            if std::mem::take(&mut *notified) {
                continue;
            }
            signal.wakeup.wait(&mut notified);
        }
    }

    pub(crate) struct Loan(pub(crate) &'static Parker);
    impl Loan {
        pub(crate) fn new() -> Self {
            Loan(Box::leak(Box::new(Parker::new(Owner::Thread(ThreadSignal::new())))))
        }
    }
}

#[cfg(loom)]
pub(crate) use modelled::{Loan, sleep};
