//! What others leave for a machine's thread to do while it sleeps, which the host knows (`Host::owes`): the machine is sent to do it, in a
//! goroutine of its own, on a stack with room, from which the monitor rescues the others as from any.
//!
//! A machine that rests has its account open: others may ask the host whether there is something. They do so under the account's
//! lock, a leaf, with which the machine closes it before it calls the host again, or puts it aside if it is to rest on. All are closed
//! before the host ends; none is opened after that. What is left to do may wake somebody, so as long as there is something, or nobody can
//! tell, nobody says that nothing can happen any more (`Runtime::quiet`): the account of a machine that could be taken for one that rests
//! is open or aside, and it looks for quiet itself after it had it aside.
//!
//! A goroutine for an errand is not counted among the program's.

use super::Machine;
use crate::goroutine::Handle;
use crate::host::host;
use crate::lock::atomic::Ordering;
use crate::scheduler::{Machines, Runtime};
use crate::trace;

/// What is in place of an account of which nobody asks.
pub(super) const CLOSED: usize = 0;
/// The same, but something may be left to do.
const ASIDE: usize = usize::MAX;

/// To be asked with the account locked.
fn owed(account: usize) -> bool {
    account != CLOSED && account != ASIDE && host().owes(account)
}

impl Runtime {
    /// Has machines at rest do what was left for their threads.
    pub(crate) fn send_errands(&self) {
        if host().keeps_accounts() {
            self.machines.lock().all.iter().for_each(|machine| machine.send(self));
        }
    }

    /// Whether there is something that [`Runtime::send_errands`] would have done.
    pub(crate) fn any_errand(&self) -> bool {
        host().keeps_accounts() && self.machines.lock().all.iter().any(|machine| owed(*machine.account.lock()))
    }

    /// The runtime stops.
    pub(crate) fn close_accounts(&self) {
        if host().keeps_accounts() {
            self.machines.lock().all.iter().for_each(|machine| *machine.account.lock() = CLOSED);
        }
    }
}

impl Machines {
    /// Whether nothing is left for any machine at rest but `own`, which is awake if it is one.
    pub(crate) fn settled(&self, own: *const Machine) -> bool {
        let settled = |machine: &&Machine| {
            let account = machine.account.lock();
            *account != ASIDE && !owed(*account) || std::ptr::eq(*machine, own)
        };
        !host().keeps_accounts() || self.all.iter().all(settled)
    }
}

impl Machine {
    /// Lets others see from now on whether something is left for its thread to do; nobody at the end of the process. Whether they can.
    pub(super) fn open_account(&self, runtime: &Runtime) -> bool {
        if !host().keeps_accounts() {
            return false;
        }
        let mut account = self.account.lock();
        // Under the lock with which all are closed.
        let open = !runtime.stopping() && !runtime.shedding();
        *account = match open {
            // It is going to be done.
            true if self.errand_waits.get() => ASIDE,
            true => host().account(),
            false => CLOSED,
        };
        open
    }

    /// Nobody looks any more.
    pub(crate) fn close_account(&self) {
        if host().keeps_accounts() {
            *self.account.lock() = CLOSED;
        }
    }

    /// Nobody looks while the machine, which seems to rest, calls the host; `notice_quiet` is to be called after it has been opened.
    pub(super) fn put_account_aside(&self, runtime: &Runtime) {
        if host().keeps_accounts() {
            let mut account = self.account.lock();
            *account = if runtime.stopping() { CLOSED } else { ASIDE };
        }
    }

    /// Whether it is to go on an errand now.
    pub(super) fn is_sent(&self, runtime: &Runtime) -> bool {
        if !host().keeps_accounts() {
            return false;
        }
        let account = self.account.lock();
        let sent = owed(*account);
        // Under the lock with which the account is closed, so not after it has been done.
        if sent && !self.errand.swap(true, Ordering::Relaxed) {
            runtime.errands.fetch_add(1, Ordering::SeqCst);
        }
        sent
    }

    /// The same; it is woken for that.
    fn send(&self, runtime: &Runtime) {
        if !self.is_sent(runtime) {
            return;
        }
        if let Some(processor) = self.processor() {
            let mut state = processor.lock();
            if std::ptr::eq(state.holder, self) {
                // If it does not sleep any more it looks before it sleeps again.
                return state.rouse();
            }
        }
        self.nudge();
    }

    /// Lets the next thing happen in a bubble whose members all doze, if nothing is left to do that might wake one. On the machine's own
    /// stack.
    pub(super) fn advance(&self, runtime: &Runtime) {
        runtime.bubble.advance(|| self.is_settled(runtime));
    }

    /// A goroutine has left the stack, and a bubble is open: until the machine rests, or runs another one, nobody can tell whether something
    /// is left here.
    pub(super) fn watches_bubble(&self, runtime: &Runtime) {
        if host().keeps_accounts() && runtime.bubble.open() {
            self.put_account_aside(runtime);
            self.watching.set(true);
        }
    }

    /// It runs another one, which does what is left as soon as it runs code of the host.
    pub(super) fn leaves_bubble(&self, runtime: &Runtime) {
        if self.watching.replace(false) {
            self.close_account();
            self.advance_again(runtime);
        }
    }

    /// Asks once more what `advance` may have been told no to: whoever was asked then is done, or others can see what is left here.
    pub(super) fn advance_again(&self, runtime: &Runtime) {
        if host().keeps_accounts() && !runtime.bubble.seeded() && runtime.bubble.at_rest() {
            self.advance(runtime);
        }
    }

    /// Whether nothing is left to do, here or on a machine at rest. What is left is going to be done now, and `advance_again` is called
    /// when it is; so it is by machines that come to rest, or run something else, as nobody can tell before. With a seed all members are
    /// on one machine, which alone may move the clock, as what follows must follow from the seed.
    fn is_settled(&self, runtime: &Runtime) -> bool {
        if !host().keeps_accounts() || runtime.bubble.seeded() {
            return true;
        }
        if !self.errand_waits.get() && owed(host().account()) && !self.errand.swap(true, Ordering::Relaxed) {
            runtime.errands.fetch_add(1, Ordering::SeqCst);
        }
        runtime.send_errands();
        runtime.errands.load(Ordering::SeqCst) == 0 && runtime.machines.lock().settled(self)
    }

    /// The machine has come to rest, and its account is open: what could not be said before may be so.
    pub(crate) fn notice_rest(&self, runtime: &Runtime) {
        runtime.notice_quiet();
        self.advance_again(runtime);
    }

    /// The goroutine for that, if it was sent. It runs here and nowhere else.
    pub(super) fn errand(&'static self, runtime: &'static Runtime) -> Option<Handle> {
        if !self.errand.load(Ordering::Relaxed) {
            return None;
        }
        self.errand.store(false, Ordering::Relaxed);
        let errand = if runtime.stopping() { None } else { host().errand() };
        let Some(goroutine) = errand else {
            runtime.errands.fetch_sub(1, Ordering::SeqCst);
            return None;
        };
        goroutine.own.store(true, std::sync::atomic::Ordering::Relaxed);
        self.errand_waits.set(true);
        self.settle_here(&goroutine);
        runtime.registry.add(&goroutine);
        let mode = trace::mode();
        if mode & trace::EVENTS != 0 {
            trace::created(&goroutine, mode);
        }
        Some(goroutine)
    }
}
