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
    /// For a thread that must notice the process's signals while it sleeps: a descriptor to write to.
    #[cfg(not(loom))]
    event: std::sync::atomic::AtomicI32,
}

impl ThreadSignal {
    pub(crate) fn new() -> Self {
        ThreadSignal {
            notified: Lock::new(false),
            wakeup: Condvar::new(),
            #[cfg(not(loom))]
            event: std::sync::atomic::AtomicI32::new(-1),
        }
    }

    pub(crate) fn notify(&self) {
        *self.notified.lock() = true;
        self.wakeup.notify_one();
        #[cfg(not(loom))]
        {
            let event = self.event.load(std::sync::atomic::Ordering::Acquire);
            if event >= 0 {
                let one = 1u64;
                // SAFETY: eight bytes of ours; eventfd accepts them whole. The descriptor is never closed.
                unsafe { libc::write(event, (&raw const one).cast(), 8) };
            }
        }
    }
}

#[cfg(not(loom))]
mod real {
    use super::*;
    use crate::host::host;
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

    /// Signals stay blocked from before the last look at what came until the kernel lets them in again inside `ppoll`, so
    /// none is slept through.
    fn sleep_with_signals(parker: &Parker, ticket: Ticket, deadline: Deadline) -> Code {
        let signal = signal(parker);
        if signal.event.load(Ordering::Relaxed) < 0 {
            // SAFETY: plain system call. Without a descriptor (EMFILE) the thread sleeps in short slices below.
            let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            signal.event.store(event, Ordering::Release);
        }
        let event = signal.event.load(Ordering::Relaxed);
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
            let left = Some(left.unwrap_or(u64::MAX).min(if event < 0 { 10_000_000 } else { slice }));
            slice = (slice * 2).min(1_000_000_000);
            let timeout = left.map(|nanos| libc::timespec {
                tv_sec: (nanos / 1_000_000_000) as libc::time_t,
                tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
            });
            let attached = host().thread_detach();
            let mut poll = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
            // SAFETY: the pollfd, the time and the set live until the call returns.
            unsafe {
                let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
                libc::ppoll(&mut poll, 1, timeout, &before);
                let mut count = 0u64;
                libc::read(event, (&raw mut count).cast(), 8);
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
