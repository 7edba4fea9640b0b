//! A processor: the right to run goroutines, and the queue of those that wait for it.
//!
//! Held by at most one machine at a time. All of [`State`] is under the processor's lock, a leaf: nothing is called while
//! it is held but queue operations and wake-ups of sleeping machines.

use crate::bubble::Bubble;
use crate::clock::{self, Instant};
use crate::goroutine::Goroutine;
use crate::lock::atomic::Ordering;
use crate::lock::{Guard, Lock};
use crate::machine::Machine;
use crate::run_queue::RunQueue;
use crate::vigil;
use std::ptr::null;

/// How long a machine that wants the processor waits while its holder still has goroutines of its own to run.
const CLAIM_PATIENCE: Instant = 500_000;

pub(crate) struct Processor {
    state: Lock<State>,
}

pub(crate) struct State {
    pub(crate) queue: RunQueue,
    /// Null before the first machine was given it.
    pub(crate) holder: *const Machine,
    /// The holder sleeps, under this lock, until the flag is cleared. There is one then.
    pub(crate) idle: bool,
    /// While it sleeps, it does so in the poller.
    pub(crate) polling: bool,
    /// It does not sleep yet, and looks at `idle` before it does.
    pub(crate) watching: bool,
    /// Its last rest was ended by somebody else.
    pub(crate) roused: bool,
    /// When it was called out of its sleep; 0 if it was not.
    pub(crate) called_at: Instant,
    /// The holder is on a goroutine's stack.
    pub(crate) running: bool,
    /// Goes up with each goroutine that is run: the monitor's sign of progress.
    pub(crate) tick: u64,
    /// Machines that are to have the processor next: goroutines that cannot move wait for them, or it was theirs first.
    claimants: Vec<*const Machine>,
    claimed_at: Instant,
    urgent: bool,
    /// As many machines compute as may: goroutines that have not started wait until `fresh_after`.
    pub(crate) full: bool,
    pub(crate) fresh_after: Instant,
    /// The `tick` with which one of them ran last.
    pub(crate) tried: u64,
}

// SAFETY: machines are never freed, and their shared fields are made for sharing.
unsafe impl Send for State {}

impl Processor {
    pub(crate) fn new() -> Processor {
        Processor {
            state: Lock::new(State {
                queue: RunQueue::new(),
                holder: null(),
                idle: false,
                polling: false,
                watching: false,
                roused: false,
                called_at: 0,
                running: false,
                tick: 0,
                claimants: Vec::new(),
                claimed_at: 0,
                urgent: false,
                full: false,
                fresh_after: 0,
                tried: 0,
            }),
        }
    }

    pub(crate) fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// Queues a runnable goroutine and wakes the holder if it sleeps. False if there is no holder yet.
    pub(crate) fn push(&self, goroutine: &Goroutine, front: bool) -> bool {
        let mut state = self.lock();
        if front {
            state.queue.push_front(goroutine);
        } else {
            state.queue.push_back(goroutine);
        }
        state.rouse();
        !state.holder.is_null()
    }
}

impl State {
    /// Wakes the holder if it sleeps.
    pub(crate) fn rouse(&mut self) {
        if self.idle {
            self.idle = false;
            self.roused = true;
            if self.watching {
                self.watching = false;
            } else if self.polling {
                self.polling = false;
                crate::scheduler::runtime().netpoll.wake();
            } else {
                self.called_at = vigil::call();
                // SAFETY: machines are never freed.
                unsafe { (*self.holder).sleep.notify_one() };
            }
            crate::bed::busy();
        }
    }

    /// Makes the processor `machine`'s if nobody holds it, or the holder sleeps.
    pub(crate) fn take(&mut self, machine: &Machine) -> bool {
        if !self.holder.is_null() && !self.idle {
            return false;
        }
        self.rouse();
        self.running = false;
        self.holder = machine;
        self.tick += 1;
        true
    }

    /// `machine` wants the processor. True if it has it now.
    pub(crate) fn claim(&mut self, machine: &Machine, urgent: bool) -> bool {
        if self.take(machine) {
            return true;
        }
        if !self.claimants.contains(&std::ptr::from_ref(machine)) {
            if self.claimants.is_empty() {
                self.claimed_at = clock::now();
            }
            self.claimants.push(machine);
        }
        self.urgent |= urgent;
        false
    }

    pub(crate) fn unclaim(&mut self, machine: &Machine) {
        self.claimants.retain(|&claimant| !std::ptr::eq(claimant, machine));
    }

    pub(crate) fn claimed(&self) -> bool {
        !self.claimants.is_empty()
    }

    /// Whether there is something for a holder to do: a claim is heeded by the holder only.
    pub(crate) fn wanted(&self) -> bool {
        self.queue.len() > 0 || self.claimed()
    }

    /// Whether a claimant, if there is one, is to have the processor now.
    pub(crate) fn claim_is_due(&self) -> bool {
        self.urgent || self.queue.len() == 0 || clock::now() >= self.claimed_at + CLAIM_PATIENCE
    }

    /// The machine that is to have the processor next, if one is.
    pub(crate) fn next_claimant(&mut self) -> Option<*const Machine> {
        if self.claimants.is_empty() {
            return None;
        }
        self.urgent = false;
        self.claimed_at = clock::now();
        Some(self.claimants.remove(0))
    }

    /// The goroutine to run next; or when to ask again, if those that are queued must wait.
    pub(crate) fn pick(&mut self, bubble: &Bubble, processor: &Processor) -> Result<*const Goroutine, Option<Instant>> {
        if bubble.seeded_on(processor) {
            // When others come, and where they are sent, does not follow from the seed: they take no part in it.
            let members = self.queue.members();
            if members > 0 {
                let at = bubble.random(members);
                return self.queue.pop_member(at).ok_or(None);
            }
        }
        // Once their time has come, those that have not started take their turn: started ones that always have something to do
        // must not keep them waiting for ever.
        if !self.full {
            return self.queue.pop().ok_or(None);
        }
        if self.queue.has_fresh() && clock::now() >= self.fresh_after {
            let goroutine = self.queue.pop().ok_or(None)?;
            // SAFETY: runnable goroutines are alive.
            if unsafe { (*goroutine).home.load(Ordering::Relaxed).is_null() } {
                // What the holder does with it is the next tick.
                self.tried = self.tick + 1;
            }
            return Ok(goroutine);
        }
        if let Some(goroutine) = self.queue.pop_started() {
            return Ok(goroutine);
        }
        if self.queue.len() == 0 {
            return Err(None);
        }
        Err(Some(self.fresh_after))
    }
}
