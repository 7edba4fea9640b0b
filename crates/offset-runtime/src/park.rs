//! The park word: how a wait ends exactly once.
//!
//! Everyone who can wait, a goroutine or an OS thread, owns one [`Parker`] for life; tasks of event loops borrow one for each wait.
//! A wait goes through these steps:
//!
//! 1. The owner *arms* the parker, which starts a new ticket, and puts waiters that carry the ticket into queues.
//! 2. Whoever ends the wait *claims* the ticket: a counterpart that found the waiter in a queue (and has put the value
//!    into the waiter before), a timer, or a cancellation. One compare-and-swap decides; the losers walk on.
//! 3. The owner gives up its stack, and the machine that ran it marks it *parked*.
//!
//! Claim and mark race. Whoever comes second makes the goroutine runnable: the claimer if it saw the mark, else the
//! machine. So no stack is resumed while it is in use. Go holds the channel's lock across the switch for that; here timers
//! and cancellations claim without any channel's lock, so the word is needed anyway and no lock crosses a switch.
//!
//! Word: ticket (46 bits) | code (16 bits) | CLAIMED | PARKED. A parker that waits for nothing is claimed.
//! Only the owner arms; anybody may claim; only the owner's machine marks.

use crate::goroutine::Goroutine;
use crate::lock::atomic::{AtomicU64, Ordering};
use crate::task::TaskSignal;
use crate::thread::ThreadSignal;

const PARKED: u64 = 1;
const CLAIMED: u64 = 2;
const CODE_SHIFT: u32 = 2;
const TICKET_SHIFT: u32 = 18;

/// How a wait ended: the index of the waiter that was served, or one of the constants below.
pub(crate) type Code = u16;
/// The deadline came first.
pub(crate) const TIMED_OUT: Code = 0xFFFF;
/// The goroutine was cancelled, or the thread interrupted by a signal handler that raised.
pub(crate) const CANCELLED: Code = 0xFFFE;

/// Names one wait of one parker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket(u64);

/// What a claim came to. What a won claim asks for must be done, once.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// Somebody else ended this wait before, or it is over.
    Lost,
    /// Won. The owner's machine will see it; the owner must not be touched any more.
    Early,
    /// Won, and this goroutine is parked: make it ready.
    Parked(*const Goroutine),
    /// Won, and the owner is an OS thread: signal it. Parkers of threads are never freed.
    Thread(*const ThreadSignal),
    /// Won, and the owner is a task: signal it. Parkers of tasks are never freed.
    Task(*const TaskSignal),
}

impl Claim {
    /// Whether this call ended the wait.
    pub(crate) fn won(self) -> bool {
        self != Claim::Lost
    }

    /// Does what a won claim asks for.
    pub(crate) fn wake(self) {
        match self {
            Claim::Lost | Claim::Early => {}
            Claim::Parked(goroutine) => crate::scheduler::ready(goroutine),
            // SAFETY: the signal is part of a thread's parker, and those live as long as the process.
            Claim::Thread(signal) => unsafe { (*signal).notify() },
            // SAFETY: as for threads.
            Claim::Task(signal) => unsafe { (*signal).notify() },
        }
    }
}

/// Who waits.
pub(crate) enum Owner {
    /// A goroutine; the pointer is to the goroutine that holds this very parker.
    Goroutine(*const Goroutine),
    /// An OS thread that is not running a goroutine.
    Thread(ThreadSignal),
    /// A task of an event loop.
    Task(TaskSignal),
}

/// The waiting side of a goroutine or an OS thread.
pub(crate) struct Parker {
    word: AtomicU64,
    /// The generation of the process (see `fork`) in which the owner lives. Read-only.
    generation: u32,
    pub(crate) owner: Owner,
}

// SAFETY: the word is atomic, the signal is made for sharing, and the goroutine pointer is only read.
unsafe impl Send for Parker {}
// SAFETY: as above.
unsafe impl Sync for Parker {}

impl Parker {
    pub(crate) fn new(owner: Owner) -> Self {
        Parker { word: AtomicU64::new(CLAIMED), generation: crate::fork::generation(), owner }
    }

    /// Whether the owner stayed behind in the parent of this process.
    pub(crate) fn left_behind(&self) -> bool {
        self.generation != crate::fork::generation()
    }

    /// Starts a wait. Only the owner may, and only when its last wait is over.
    pub(crate) fn arm(&self) -> Ticket {
        let last = self.word.load(Ordering::Relaxed);
        debug_assert!(last & CLAIMED != 0, "a parker is armed twice");
        let ticket = (last >> TICKET_SHIFT) + 1;
        // Relaxed: the ticket is published by the queue's lock that the owner takes next.
        self.word.store(ticket << TICKET_SHIFT, Ordering::Relaxed);
        Ticket(ticket)
    }

    /// Tries to end the wait `ticket` with `code`. The value must be in the waiter already.
    pub(crate) fn claim(&self, ticket: Ticket, code: Code) -> Claim {
        if self.left_behind() {
            // The owner stayed behind in the parent process: it will never run here.
            return Claim::Lost;
        }
        // Read before the claim: a goroutine that was claimed early may end, and be freed, at any moment.
        let (goroutine, other) = match &self.owner {
            Owner::Goroutine(goroutine) => (*goroutine, None),
            Owner::Thread(signal) => (std::ptr::null(), Some(Claim::Thread(signal))),
            Owner::Task(signal) => (std::ptr::null(), Some(Claim::Task(signal))),
        };
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            if seen >> TICKET_SHIFT != ticket.0 || seen & CLAIMED != 0 {
                return Claim::Lost;
            }
            let next = seen | CLAIMED | u64::from(code) << CODE_SHIFT;
            // Release pairs with the Acquire of `mark_parked` and `outcome`: who resumes sees the value in the waiter.
            // Acquire pairs with the Release of `mark_parked`: who makes ready sees the stack as it was left.
            match self.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    return match other {
                        Some(claim) => claim,
                        None if seen & PARKED != 0 => Claim::Parked(goroutine),
                        None => Claim::Early,
                    };
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The ticket of the wait that is going on, if one is.
    pub(crate) fn waiting(&self) -> Option<Ticket> {
        let seen = self.word.load(Ordering::Relaxed);
        (seen & CLAIMED == 0).then_some(Ticket(seen >> TICKET_SHIFT))
    }

    /// The owner's stack is free from now on. True if the wait is over already, so that the caller must make it ready;
    /// otherwise the owner must not be touched any more.
    #[must_use]
    pub(crate) fn mark_parked(&self) -> bool {
        // Pairs with `claim`, both ways.
        self.word.fetch_or(PARKED, Ordering::AcqRel) & CLAIMED != 0
    }

    /// How the wait ended, once it has.
    pub(crate) fn outcome(&self) -> Option<Code> {
        // Acquire pairs with the Release of `claim`.
        let seen = self.word.load(Ordering::Acquire);
        (seen & CLAIMED != 0).then_some((seen >> CODE_SHIFT) as Code)
    }
}
