//! A machine that has nothing to run: how it sleeps, and what it does before.
//!
//! It keeps its processor, whose state says that it is idle, or why it will notice by itself; whoever queues something there, or wants
//! the processor, ends that under the processor's lock. It stays awake for a little while first if a call, the poller, or whoever ended
//! its last rest is likely to have something soon, and afterwards if others have the host. It tidies its pool, the last of it slowly.

use super::{Machine, Tidy};
use crate::clock::{self, Instant};
use crate::host::host;
use crate::lock::Guard;
use crate::lock::atomic::Ordering;
use crate::netpoll;
use crate::processor::{Processor, State};
use crate::scheduler::Runtime;
use crate::trace;
use crate::vigil;
use std::time::Duration;

/// After that long without work a machine tidies its pool.
const TIDY_AFTER: Instant = 1_000_000_000;

impl Machine {
    /// Sleeps, holding the processor, until there is something to do.
    pub(super) fn idle(
        &'static self,
        runtime: &'static Runtime,
        processor: &'static Processor,
        retry: Option<Instant>,
    ) -> Guard<'static, State> {
        host().release();
        trace::rests(self);
        let mut state = processor.lock();
        if state.queue.len() > 0 && retry.is_none() || !std::ptr::eq(state.holder, self) {
            return state;
        }
        self.open_account(runtime);
        state.idle = true;
        drop(state);
        // Who queued one elsewhere a moment ago found this processor not idle yet, and woke nobody.
        if retry.is_none() && runtime.any_fresh(processor) {
            state = processor.lock();
            self.wakes(runtime, &mut state);
            return state;
        }
        self.notice_rest(runtime);
        state = processor.lock();
        let slept_at = clock::now();
        let mut tidy_after = if runtime.shedding() { 0 } else { TIDY_AFTER };
        let mut polled = false;
        // A model has enough to do with those that wait for calls.
        let expects = std::mem::take(&mut state.roused) && !cfg!(loom);
        let mut watched = false;
        let mut listened = false;
        // Another machine may have taken the processor meanwhile, and sleep with it by now.
        while state.idle && std::ptr::eq(state.holder, self) && !runtime.stopping() && !state.claimed() {
            let due = runtime.timers.next().min(retry.unwrap_or(Instant::MAX));
            let tidy_at = slept_at.saturating_add(tidy_after);
            let until = due.min(tidy_at);
            let now = if until == Instant::MAX { 0 } else { clock::now() };
            if now >= due {
                break;
            }
            if now >= tidy_at {
                drop(state);
                self.put_account_aside(runtime);
                tidy_after = match self.tidy() {
                    Tidy::Now => 0,
                    Tidy::Later => now - slept_at + TIDY_AFTER,
                    Tidy::Done => Instant::MAX,
                };
                if self.open_account(runtime) {
                    self.notice_rest(runtime);
                }
                state = processor.lock();
                continue;
            }
            let busy = runtime.blocking.busy();
            // The poller has a vigil of its own, and a timer is not to wait for one.
            let expects = expects
                && runtime.netpoll.waiting.load(Ordering::Relaxed) == 0
                && (until == Instant::MAX || until - now > vigil::MOST);
            if !watched && (busy || expects) {
                // The call, or what others do, may be a short one.
                watched = true;
                state.watching = true;
                drop(state);
                let vigil = if busy { &runtime.vigil } else { &runtime.expectation };
                vigil.keep(|| {
                    let state = processor.lock();
                    !state.idle || !std::ptr::eq(state.holder, self)
                });
                state = processor.lock();
                if std::ptr::eq(state.holder, self) {
                    state.watching = false;
                }
                continue;
            }
            if runtime.netpoll.in_use()
                && let Some(mut visit) = runtime.netpoll.enter()
            {
                if !listened && runtime.netpoll.waiting.load(Ordering::Relaxed) > 0 {
                    // What is waited for may be on its way. Without anything it does not get to the kernel a second time.
                    listened = true;
                    state.watching = true;
                    drop(state);
                    let roused = || {
                        let state = processor.lock();
                        !state.idle || !std::ptr::eq(state.holder, self)
                    };
                    runtime.netpoll.vigil.keep(|| {
                        visit.wait(Some(0));
                        visit.any() || roused()
                    });
                    state = processor.lock();
                    if std::ptr::eq(state.holder, self) {
                        state.watching = false;
                        state.idle &= !visit.any();
                    }
                    if visit.any() {
                        drop(state);
                        visit.deliver();
                        polled = true;
                        state = processor.lock();
                    }
                    continue;
                }
                state = self.sleep_in_poller(processor, state, visit, until);
                polled = true;
                continue;
            }
            state.called_at = 0;
            if until == Instant::MAX {
                self.sleep.wait(&mut state);
            } else {
                self.sleep.wait_for(&mut state, Duration::from_nanos(until - now));
            }
            let called_at = std::mem::take(&mut state.called_at);
            if std::ptr::eq(state.holder, self) {
                vigil::woken(called_at);
            }
        }
        self.wakes(runtime, &mut state);
        if polled && runtime.processors.len() > 1 {
            // Another one that sleeps takes the poller over.
            drop(state);
            runtime.find_help(processor);
            state = processor.lock();
        }
        if state.queue.len() > 0 && std::ptr::eq(state.holder, self) {
            drop(state);
            if host().taken() {
                // Who has it may be about to give it up.
                runtime.patience.keep(|| !host().taken());
            }
            state = processor.lock();
        }
        state
    }

    /// It rests no more, or somewhere else if it has lost the processor meanwhile.
    fn wakes(&self, runtime: &Runtime, state: &mut State) {
        if std::ptr::eq(state.holder, self) {
            state.idle = false;
            self.close_account();
        } else {
            self.put_account_aside(runtime);
        }
    }

    /// Sleeps in the poller until something happens there, somebody rouses the processor, or `until`.
    fn sleep_in_poller(
        &'static self,
        processor: &'static Processor,
        mut state: Guard<'static, State>,
        mut visit: netpoll::Visit<'_>,
        until: Instant,
    ) -> Guard<'static, State> {
        state.polling = true;
        drop(state);
        visit.wait((until != Instant::MAX).then_some(until));
        state = processor.lock();
        if std::ptr::eq(state.holder, self) {
            // Whom it wakes now need not wake it.
            state.polling = false;
            state.idle &= !visit.any();
        }
        drop(state);
        visit.deliver();
        processor.lock()
    }
}
