//! A machine without a processor: how it gets one, and when its thread ends.
//!
//! It is on the idle list while it waits, so whoever has a processor for it takes it off there first; a holder that heeds a claim does
//! not. Either puts the processor into the mailbox.

use super::Machine;
use crate::host::host;
use crate::lock::atomic::Ordering;
use crate::processor::Processor;
use crate::scheduler::Runtime;
use crate::trace;
use std::time::Duration;

/// How long a machine without a processor waits before its thread ends.
const IDLE_LIFE: Duration = Duration::from_secs(5);

/// Why a machine is not idle any more.
enum Call {
    Run(&'static Processor),
    Errand,
    Retire,
}

impl Runtime {
    fn machine_idle(&'static self, machine: &'static Machine) {
        self.machines.lock().idle.push(machine);
        for processor in &self.processors {
            let state = processor.lock();
            // No machine could be had when it was to be staffed: here is one.
            if state.holder.is_null() && state.wanted() {
                drop(state);
                self.staff(processor);
            }
        }
        machine.notice_rest(self);
    }

    /// The machines that wait for a processor.
    #[cfg(loom)]
    pub(crate) fn idle_machines(&self) -> Vec<&'static Machine> {
        self.machines.lock().idle.clone()
    }

    /// Takes `machine` off the idle list; false if somebody else has done so.
    fn machine_busy(&self, machine: &'static Machine) -> bool {
        let mut machines = self.machines.lock();
        let before = machines.idle.len();
        machines.idle.retain(|idle| !std::ptr::eq(*idle, machine));
        machines.idle.len() != before
    }

    pub(super) fn machine_ended(&self, machine: &'static Machine) {
        machine.close_account();
        if host().keeps_accounts() {
            machine.notice_rest(self);
        }
        let mut machines = self.machines.lock();
        machine.id.store(0, Ordering::Relaxed);
        machines.threads -= 1;
        machines.retired.push(machine);
    }
}

impl Machine {
    /// Waits for a processor; None when the thread is to end.
    pub(super) fn acquire(&'static self, runtime: &'static Runtime) -> Option<&'static Processor> {
        host().unbind();
        trace::rests(self);
        self.open();
        loop {
            if let Some(processor) = self.ask(runtime) {
                self.close_account();
                let mut mailbox = self.mailbox.lock();
                mailbox.open = false;
                let second = mailbox.processor.take();
                drop(mailbox);
                if let Some(second) = second {
                    runtime.free(second);
                }
                return Some(processor);
            }
            self.open_account(runtime);
            runtime.machine_idle(self);
            match self.await_call(runtime) {
                Call::Run(processor) => {
                    self.close_account();
                    runtime.machine_busy(self);
                    if let Some(last) = self.processor() {
                        last.lock().unclaim(self);
                    }
                    return Some(processor);
                }
                Call::Errand => {
                    runtime.homing.fetch_add(1, Ordering::Relaxed);
                    self.close_account();
                    if let Some(errand) = self.errand(runtime) {
                        self.home_queue.lock().push_back(&raw const *errand);
                    } else {
                        self.put_account_aside(runtime);
                        runtime.homing.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Call::Retire => {
                    // What the host ends with the thread may wake somebody yet.
                    self.put_account_aside(runtime);
                    return None;
                }
            }
        }
    }

    /// Waits on the idle list until it is called off it; with a processor the mailbox is closed, and where the thread is to end.
    fn await_call(&'static self, runtime: &'static Runtime) -> Call {
        let mut mailbox = self.mailbox.lock();
        let mut waited = false;
        loop {
            if let Some(processor) = mailbox.processor.take() {
                mailbox.open = false;
                return Call::Run(processor);
            }
            // SAFETY: the pool is this thread's own.
            if runtime.shedding() && unsafe { !(*self.pool.get()).is_empty() } {
                drop(mailbox);
                self.close_account();
                self.empty_pool(0);
                mailbox = self.mailbox.lock();
                continue;
            }
            let sent = self.errand.load(Ordering::Relaxed);
            if sent || std::mem::take(&mut waited) && self.home_count.load(Ordering::Relaxed) == 0 {
                drop(mailbox);
                let off = runtime.machine_busy(self);
                mailbox = self.mailbox.lock();
                // Who took it off the idle list gives it a processor now; who heeds a claim may have done so.
                if off && mailbox.processor.is_none() {
                    if sent || self.is_sent(runtime) {
                        return Call::Errand;
                    }
                    mailbox.open = false;
                    return Call::Retire;
                }
                if sent && mailbox.processor.is_none() {
                    self.mail.wait(&mut mailbox);
                }
                continue;
            }
            waited = self.mail.wait_for(&mut mailbox, IDLE_LIFE);
        }
    }

    /// Looks for a processor for the goroutines that wait here: one that nobody uses, or the last one, at once or in its turn.
    fn ask(&'static self, runtime: &'static Runtime) -> Option<&'static Processor> {
        let needed = !self.home_queue.lock().is_empty();
        let last = self.processor()?;
        let mut state = last.lock();
        // SAFETY: machines are never freed.
        let holder = unsafe { state.holder.as_ref() };
        // Under the lock with which it becomes so.
        let kept = runtime.keeps(last);
        let senior = !kept
            && self.home_count.load(Ordering::Relaxed) > 0
            && holder.is_some_and(|holder| holder.id.load(Ordering::Relaxed) > self.id.load(Ordering::Relaxed));
        if !(senior || needed) || runtime.stopping() {
            return None;
        }
        if !kept && state.claim(self, senior) {
            return Some(last);
        }
        drop(state);
        if !needed {
            return None;
        }
        let take = |other: &&Processor| {
            let mut state = other.lock();
            !runtime.keeps(other) && state.take(self)
        };
        if let Some(free) = runtime.processors.iter().find(take) {
            last.lock().unclaim(self);
            return Some(free);
        }
        let other = runtime.processors.iter().find(|other| kept && !std::ptr::eq(*other, last))?;
        other.lock().claim(self, false).then_some(other)
    }
}
