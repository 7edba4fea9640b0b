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
            let machines = self.machines.lock();
            machines.all.iter().for_each(|machine| machine.send());
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
    /// Whether nothing is left for any machine at rest.
    pub(crate) fn settled(&self) -> bool {
        let settled = |machine: &&Machine| {
            let account = machine.account.lock();
            *account != ASIDE && !owed(*account)
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
    pub(super) fn close_account(&self) {
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

    /// Has it done.
    fn send(&self) {
        let account = self.account.lock();
        if !owed(*account) {
            return;
        }
        // Under the lock with which the account is closed, so not after it has been done.
        self.errand.store(true, Ordering::Relaxed);
        drop(account);
        if let Some(processor) = self.processor() {
            let mut state = processor.lock();
            if std::ptr::eq(state.holder, self) {
                // If it does not sleep any more it looks before it sleeps again.
                return state.rouse();
            }
        }
        self.nudge();
    }

    /// The goroutine for that, if it was sent. It runs here and nowhere else.
    pub(super) fn errand(&'static self, runtime: &'static Runtime) -> Option<Handle> {
        if !self.errand.load(Ordering::Relaxed) {
            return None;
        }
        self.errand.store(false, Ordering::Relaxed);
        if runtime.stopping() {
            return None;
        }
        let goroutine = host().errand()?;
        goroutine.own.set(true);
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
