//! What the runtime asks of the language that it hosts: attach, detach, a context for each stack, may this one move?
//!
//! The core calls it only where a goroutine starts, parks, resumes and ends, and where an OS thread waits. A test of the
//! core, or a Rust program, uses [`Plain`], which runs boxed closures and attaches to nothing.

#![expect(clippy::disallowed_types, reason = "what is set is there already: no thread is caught in its making")]

use crate::goroutine::{Goroutine, Handle};
use std::sync::OnceLock;

/// The host. Each method says on which stack it is called.
///
/// # Safety
/// An implementor promises that `run` returns only when the goroutine's work is done, that no method but `run`,
/// `thread_attach`, `stack_of`, `check_signals` and `park`/`unpark` waits for long, and that nothing unwinds out of any of them.
pub unsafe trait Host: Sync {
    /// On a machine's own stack, when its OS thread starts.
    fn machine_start(&self) {}

    /// On a machine's own stack, before its OS thread ends.
    fn machine_stop(&self) {}

    /// On a machine's own stack: makes what a goroutine needs besides its C stack. `low` is the lowest usable address, the C stack
    /// grows down from `base`, and `[base, top)` is memory for the host. 0 when it cannot.
    fn context_new(&self, low: usize, base: usize, top: usize) -> usize;

    /// On a machine's own stack: ends contexts whose goroutines have ended, each on the machine that last ran it.
    fn contexts_delete(&self, contexts: &mut dyn Iterator<Item = usize>);

    /// On a machine's own stack, right before a goroutine runs. `identity` is the lowest usable address of its stack.
    fn resume(&self, identity: usize);

    /// On a machine's own stack, right after a goroutine gave it up.
    fn suspended(&self);

    /// On a machine's own stack, before it sleeps: gives up what `park` may have kept.
    fn release(&self) {}

    /// On a machine's own stack, without the host: whether whoever attaches would have to wait just now, as far as can be told.
    fn taken(&self) -> bool {
        false
    }

    /// On a machine's own stack, before it looks for a processor: as `release`, and nothing of this OS thread may name a context
    /// any more.
    fn unbind(&self);

    /// On the goroutine's stack, with its context: the goroutine's whole life.
    fn run(&self, goroutine: &Goroutine);

    /// On the goroutine's stack: gives the host up before the stack is left, or keeps it for whoever runs next on this OS thread, until
    /// that one's `unpark` or `run`, or `release`. Meanwhile the machine's loop runs, which waits for nobody who may want the host.
    fn park(&self, goroutine: &Goroutine);

    /// On the goroutine's stack: takes the host again.
    fn unpark(&self, goroutine: &Goroutine);

    /// On any stack, without the host: may the goroutine whose parked frames lie in `[pointer, base)` run on another OS
    /// thread?
    fn may_move(&self, pointer: usize, base: usize) -> bool;

    /// On the goroutine's stack, which ends at `base`, without the host, on any OS thread: the same question where `may_move` has
    /// said no. It sees words; here frames can be told from what other calls have left behind.
    fn frames_may_move(&self, base: usize) -> bool;

    /// On the goroutine's stack, attached: a cancellation was asked for while it ran. Takes it back if the host has not delivered
    /// it by other means, and says whether it did.
    fn take_cancel(&self, goroutine: &Goroutine) -> bool;

    /// On the goroutine's stack, attached: what `take_cancel` took back could not be delivered; the next wait asks again.
    fn keep_cancel(&self, _goroutine: &Goroutine) {}

    /// On the stack of an OS thread that waits: gives the host up, if it has it. The answer goes to `thread_attach`.
    fn thread_detach(&self) -> usize;

    /// On the stack of an OS thread that waits: takes the host again.
    fn thread_attach(&self, detached: usize);

    /// Whether things are left to do for a machine's thread that sleeps: only then `account`, `owes` and `errand` are called. Always
    /// the same answer.
    fn keeps_accounts(&self) -> bool {
        false
    }

    /// On a machine's own stack, before it rests: what [`Host::owes`] is to be asked with meanwhile; 0 for nothing. It is good until
    /// the next call of a method on this stack.
    fn account(&self) -> usize {
        0
    }

    /// Without the host, on that stack, or on any OS thread under a lock that keeps the machine of `account` at rest: whether others
    /// have left something to do that only that machine's thread can.
    fn owes(&self, _account: usize) -> bool {
        false
    }

    /// On a machine's own stack: a goroutine that does what was left for this OS thread, prepared and not started. None if there is
    /// nothing to do, or no memory.
    fn errand(&self) -> Option<Handle> {
        None
    }

    /// On the goroutine's stack, attached: a number by which the host knows the frames that it is in; 0 for none.
    fn stack(&self) -> u32 {
        0
    }

    /// On an OS thread of the runtime's, without the host: the same of another goroutine, by its number, as long as `still` says that it
    /// is where it was; 0 otherwise. Waits for the host.
    fn stack_of(&self, _goroutine: u64, _still: &dyn Fn() -> bool) -> u32 {
        0
    }

    /// On any stack, attached: `count` waits of together `nanos` nanoseconds, to be kept under the frames that the caller is in.
    fn profile(&self, _profile: crate::trace::Profile, _count: f64, _nanos: u64) {}

    /// Whether the calling OS thread is the one that runs signal handlers.
    fn handles_signals(&self) -> bool {
        false
    }

    /// Runs the handlers of signals that came; true if one of them raised, which ends the wait.
    fn check_signals(&self) -> bool {
        false
    }

    /// What a handler raised must wait, as the operation happened before it.
    fn defer_exception(&self) {}
}

static HOST: OnceLock<&'static dyn Host> = OnceLock::new();

/// Names the host, once, before the first goroutine. A second call changes nothing.
pub fn set_host(host: &'static dyn Host) {
    let _ = HOST.set(host);
}

/// The host.
#[inline]
pub(crate) fn host() -> &'static dyn Host {
    *HOST.get_or_init(|| &Plain)
}

/// A host without a language: a goroutine's payload is a boxed closure.
pub struct Plain;

impl Plain {
    /// The payload that makes a goroutine run `work`.
    pub fn payload(work: impl FnOnce() + Send + 'static) -> usize {
        let work: Box<dyn FnOnce() + Send> = Box::new(work);
        Box::into_raw(Box::new(work)) as usize
    }
}

// SAFETY: `run` is the closure and nothing else; the rest does nothing.
unsafe impl Host for Plain {
    fn context_new(&self, low: usize, _base: usize, _top: usize) -> usize {
        low
    }
    fn contexts_delete(&self, contexts: &mut dyn Iterator<Item = usize>) {
        contexts.for_each(drop);
    }
    fn resume(&self, _identity: usize) {}
    fn suspended(&self) {}
    fn unbind(&self) {}
    fn run(&self, goroutine: &Goroutine) {
        // Else the monitor takes it for one that waits to attach, and never rescues the others from it.
        crate::scheduler::attached(goroutine);
        // SAFETY: the payload was made by `Plain::payload` and a goroutine runs once.
        let work = unsafe { Box::from_raw(goroutine.payload() as *mut Box<dyn FnOnce() + Send>) };
        if !goroutine.cancelled() {
            work();
        }
    }
    fn park(&self, _goroutine: &Goroutine) {}
    fn unpark(&self, _goroutine: &Goroutine) {}
    fn may_move(&self, _pointer: usize, _base: usize) -> bool {
        true
    }
    fn frames_may_move(&self, _base: usize) -> bool {
        true
    }
    fn take_cancel(&self, goroutine: &Goroutine) -> bool {
        goroutine.cancelled()
    }
    fn thread_detach(&self) -> usize {
        0
    }
    fn thread_attach(&self, _detached: usize) {}
}
