//! A machine: an OS thread that runs goroutines while it holds a processor.
//!
//! Its loop runs no foreign code between goroutines and keeps nothing of theirs on its own stack. A machine whose goroutine
//! makes no progress loses its processor (see `monitor`) without noticing; it finds out when the goroutine gives the stack
//! back. A started goroutine's home is the machine on which it ran last: there its frames are. Another machine that holds the
//! processor takes it over if the host says that its frames may move; otherwise it waits for its home, which then asks for the
//! processor. A machine that was stuck gets the processor back from younger ones, and with it the goroutines, so after a
//! rescue all come together again on the oldest machine.
//!
//! A machine without a processor opens its mailbox, and whoever gives it one puts it in there; a closed mailbox takes none, so
//! no machine ever holds two. `pool`, `call` and `buffer` are touched by the machine's own thread only; `mailbox` and `home_queue` have their locks;
//! the rest is atomic.
//! Machines are never freed: their structs are used again by later threads.

mod acquire;
mod errand;
mod idle;

use crate::blocking::Bed;
use crate::clock::{self, Instant};
use crate::goroutine::{Goroutine, Handle, Status};
use crate::host::host;
use crate::lock::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::lock::{Cell, Condvar, Lock, local};
use crate::netpoll;
use crate::processor::{Processor, State};
use crate::scheduler::{Runtime, runtime};
use crate::stack::Stack;
use crate::switch::{Coroutine, CoroutineResult, Switch};
use crate::trace;
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ptr::{null, null_mut};

/// Stacks and contexts that a machine keeps for the next goroutines while it has work; a part is let go when there are more.
/// Giving memory back means an interrupt on every core, so a burst of goroutines should not do it again and again.
const POOL: usize = 65_536;
/// Vessels that are tidied before it looks again whether there is work, so many at a time, and for how long. Without the GIL
/// CPython takes 150 us to delete a context, and two milliseconds for the last one of those that are let go together (`host`).
const TIDY_STEP: usize = 256;
const TIDY_BATCH: usize = 64;
const TIDY_TIME: Instant = 2_000_000;
/// So many of the last ones at a time, see `scheduler::set_pool`.
const SLOW_STEP: usize = 8;

/// When there is more to tidy.
enum Tidy {
    Now,
    Later,
    Done,
}

/// A C stack and the host's context that goes with it; 0 while there is none.
struct Vessel {
    stack: Stack,
    context: usize,
}

struct Mailbox {
    processor: Option<&'static Processor>,
    /// It has no processor and waits for one, or is about to look for one.
    open: bool,
}

pub(crate) struct Machine {
    pub(crate) id: AtomicU32,
    /// The clock of its thread's processor time.
    clock: AtomicI32,
    /// Sleeps on this under the lock of the processor that it holds.
    pub(crate) sleep: Condvar,
    mailbox: Lock<Mailbox>,
    mail: Condvar,
    /// Runnable goroutines that can run nowhere else, while it holds no processor. Locked before any processor.
    home_queue: Lock<VecDeque<*const Goroutine>>,
    /// Goroutines that started here and have not ended.
    home_count: AtomicUsize,
    /// The processor that it holds, or held last.
    processor: AtomicPtr<Processor>,
    /// On a goroutine's stack without a processor. Written under the lock of the processor that it held.
    pub(crate) stuck: AtomicBool,
    /// Its goroutine waits to attach, which counts as progress.
    pub(crate) attaching: AtomicBool,
    /// The thread's own variables, so that the loop need not look for them.
    thread: AtomicPtr<Thread>,
    /// What [`thread_address`] says on its thread; 0 while it has none. Not through the door to atomics: nobody finds the own one in it
    /// who has not put it there.
    address: std::sync::atomic::AtomicUsize,
    /// What the host is asked with whether something was left for the thread to do, while it rests. See `errand`.
    account: Lock<usize>,
    /// It was: the machine has a goroutine do it when it has nothing else to run.
    errand: AtomicBool,
    /// The account is aside because a bubble is open. The machine's own.
    watching: Cell<bool>,
    /// That one waits for its turn. The machine's own.
    errand_waits: Cell<bool>,
    pool: UnsafeCell<Vec<Vessel>>,
    /// Who is to be called once the goroutine that runs here has given up the stack.
    call: Cell<Option<&'static Bed>>,
    /// The monitor's: processor time at the last look, when it last went up, and whether the goroutine was found to compute.
    pub(crate) used: AtomicU64,
    pub(crate) used_at: AtomicU64,
    pub(crate) computing: AtomicBool,
    pub(crate) marks: trace::Marks,
    /// For events (see `trace`).
    buffer: UnsafeCell<trace::Buffer>,
}

// SAFETY: the fields are shared by the rules at the top of this file.
unsafe impl Send for Machine {}
// SAFETY: as above.
unsafe impl Sync for Machine {}

/// What an OS thread knows of itself.
struct Thread {
    machine: Cell<*const Machine>,
    current: Cell<*const Goroutine>,
}

local! {
    static THREAD: Thread = Thread {
        machine: Cell::new(null()),
        current: Cell::new(null()),
    };
}

/// The goroutine that runs on this OS thread; null when none does. Never inlined: a goroutine may find itself on another
/// thread after a park, and a thread-local's address must not be kept across it.
#[inline(never)]
pub(crate) fn current() -> *const Goroutine {
    THREAD.with(|thread| thread.current.get())
}

/// The machine whose thread this is; null on other threads. Never inlined, as `current`.
#[inline(never)]
pub(crate) fn this() -> *const Machine {
    THREAD.with(|thread| thread.machine.get())
}

/// An address that no other thread has while this one lives.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(loom), not(miri)))]
#[inline(always)]
fn thread_address() -> usize {
    let address;
    // SAFETY: the first word of a thread's control block is its own address, by the system's ABI. Not `pure`: who parks in between
    // may go on on another thread.
    unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) address, options(nostack, preserves_flags, readonly)) };
    address
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(loom), not(miri))))]
#[inline(never)]
fn thread_address() -> usize {
    THREAD.with(|thread| std::ptr::from_ref(thread) as usize)
}

/// Has `bed` called once the goroutine that runs on this thread has given up the stack; at once where none does.
pub(crate) fn call_later(bed: &'static Bed) {
    // A machine that runs none may still come here: the host runs code of others when a thread ends.
    // SAFETY: machines are never freed.
    match unsafe { this().as_ref() } {
        Some(machine) if !current().is_null() => machine.call.set(Some(bed)),
        _ => bed.ring(),
    }
}

/// Calls who is to be called later.
pub(crate) fn call_now() {
    // SAFETY: as above.
    if let Some(bed) = unsafe { this().as_ref() }.and_then(|machine| machine.call.take()) {
        bed.ring();
    }
}

/// Which machine and goroutine a thread is: the stand-in of the switch carries it to the goroutine's thread.
#[cfg(loom)]
pub(crate) struct Place(*const Machine, *const Goroutine);

#[cfg(loom)]
// SAFETY: the pointers are only stored.
unsafe impl Send for Place {}

#[cfg(loom)]
impl Place {
    pub(crate) fn here() -> Place {
        Place(this(), current())
    }

    pub(crate) fn take(&self) {
        THREAD.with(|thread| {
            thread.machine.set(self.0);
            thread.current.set(self.1);
        });
    }
}

/// In a forked child: the calling thread is no machine any more, even if it is on a goroutine's stack.
pub(crate) fn start_over() {
    // SAFETY: machines are never freed.
    if let Some(machine) = unsafe { this().as_ref() } {
        machine.address.store(0, Ordering::Relaxed);
    }
    THREAD.with(|thread| {
        thread.current.set(null());
        thread.machine.set(null());
    });
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine {
            id: AtomicU32::new(0),
            clock: AtomicI32::new(0),
            sleep: Condvar::new(),
            // Open: the first processor comes before the thread.
            mailbox: Lock::new(Mailbox { processor: None, open: true }),
            mail: Condvar::new(),
            home_queue: Lock::new(VecDeque::new()),
            home_count: AtomicUsize::new(0),
            processor: AtomicPtr::new(null_mut()),
            stuck: AtomicBool::new(false),
            attaching: AtomicBool::new(false),
            thread: AtomicPtr::new(null_mut()),
            address: std::sync::atomic::AtomicUsize::new(0),
            account: Lock::new(errand::CLOSED),
            errand: AtomicBool::new(false),
            watching: Cell::new(false),
            errand_waits: Cell::new(false),
            pool: UnsafeCell::new(Vec::new()),
            call: Cell::new(None),
            used: AtomicU64::new(0),
            used_at: AtomicU64::new(0),
            computing: AtomicBool::new(false),
            marks: trace::Marks::new(),
            buffer: UnsafeCell::new(trace::Buffer::new()),
        }
    }

    /// Its number, while it has a thread.
    pub(crate) fn number(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }

    /// Whether the calling thread is its own: where a register says which thread it is, without a call.
    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        self.address.load(Ordering::Relaxed) == thread_address()
    }

    /// Hands out the buffer for events.
    ///
    /// # Safety
    /// On the machine's own thread; `work` gives no stack back and does not come here again.
    #[inline]
    pub(crate) unsafe fn with_buffer<R>(&self, work: impl FnOnce(&mut trace::Buffer) -> R) -> R {
        // SAFETY: by contract nobody else has it.
        unsafe { work(&mut *self.buffer.get()) }
    }

    /// The processor that it holds or held last.
    pub(crate) fn processor(&self) -> Option<&'static Processor> {
        // SAFETY: processors live as long as the process.
        unsafe { self.processor.load(Ordering::Acquire).as_ref() }
    }

    /// Processor time that its thread has used, in nanoseconds.
    pub(crate) fn time_used(&self) -> u64 {
        clock::thread_time(self.clock.load(Ordering::Relaxed))
    }

    /// Whether its thread runs, or waits for nothing but a processor of the system's.
    pub(crate) fn thread_runs(&self) -> bool {
        clock::thread_runs(self.clock.load(Ordering::Relaxed))
    }

    pub(crate) fn set_processor(&self, processor: &'static Processor) {
        self.processor.store(std::ptr::from_ref(processor).cast_mut(), Ordering::Release);
    }

    /// Hands it a processor that has been made its own, or is made so under the processor's lock; false if it has another one.
    #[must_use]
    pub(crate) fn give(&self, processor: &'static Processor) -> bool {
        let mut mailbox = self.mailbox.lock();
        if !mailbox.open || mailbox.processor.is_some() {
            return false;
        }
        mailbox.processor = Some(processor);
        self.mail.notify_one();
        true
    }

    /// Has it look again, while it waits for a processor, whether the time is over, or its pool is to go.
    pub(crate) fn nudge(&self) {
        let _mailbox = self.mailbox.lock();
        self.mail.notify_one();
    }

    /// Opens the mailbox of a machine whose thread is about to be started again.
    pub(crate) fn open(&self) {
        self.mailbox.lock().open = true;
    }

    /// Leaves a goroutine to this machine, which holds no processor; false, without having done so, if it holds one: then the
    /// goroutine has been queued there.
    pub(crate) fn take_home(&self, runtime: &Runtime, goroutine: &Goroutine) -> bool {
        // Under this lock: the machine looks into the queue after each time that it got a processor and before each time
        // that it waits for one.
        let mut queue = self.home_queue.lock();
        if let Some(processor) = self.processor() {
            let mut state = processor.lock();
            if std::ptr::eq(state.holder, self) {
                state.queue.push_back(goroutine);
                state.rouse();
                return false;
            }
        }
        runtime.homing.fetch_add(1, Ordering::Relaxed);
        queue.push_back(goroutine);
        true
    }

    /// The thread's whole life.
    pub(crate) fn main(&'static self) {
        THREAD.with(|thread| {
            thread.machine.set(self);
            self.thread.store(std::ptr::from_ref(thread).cast_mut(), Ordering::Relaxed);
        });
        self.address.store(thread_address(), Ordering::Relaxed);
        // SAFETY: on its own thread.
        unsafe { self.with_buffer(|buffer| buffer.set_track(self.number())) };
        self.clock.store(clock::this_thread(), Ordering::Relaxed);
        let runtime = runtime();
        host().machine_start();
        while let Some(processor) = self.acquire(runtime) {
            self.set_processor(processor);
            self.run(runtime, processor);
        }
        self.empty_pool(0);
        host().machine_stop();
        // SAFETY: on its own thread.
        unsafe { self.with_buffer(trace::Buffer::end) };
        // Another thread may have it next.
        self.address.store(0, Ordering::Relaxed);
        runtime.machine_ended(self);
    }

    /// Runs goroutines until the processor is lost or handed on.
    fn run(&'static self, runtime: &'static Runtime, processor: &'static Processor) {
        let homed = std::mem::take(&mut *self.home_queue.lock());
        let mut state = processor.lock();
        for &goroutine in homed.iter().rev() {
            // SAFETY: runnable goroutines are alive.
            state.queue.push_front(unsafe { &*goroutine });
        }
        runtime.homing.fetch_sub(homed.len(), Ordering::Relaxed);
        drop(homed);
        // Timers are looked at once before each goroutine: one that is always due must not keep goroutines from running.
        let mut looked = false;
        let mut polled = false;
        loop {
            if !std::ptr::eq(state.holder, self) {
                return;
            }
            if runtime.stopping() {
                state.holder = null();
                state.running = false;
                return;
            }
            if state.claimed() && state.claim_is_due() {
                // The next one may run the goroutine that this thread has kept the host from.
                drop(state);
                trace::rests(self);
                host().release();
                state = processor.lock();
                if !std::ptr::eq(state.holder, self) {
                    return;
                }
                self.put_account_aside(runtime);
                // SAFETY: machines are never freed.
                if let Some(next) = state.next_claimant().map(|next| unsafe { &*next })
                    && next.give(processor)
                {
                    state.holder = next;
                    state.running = false;
                    state.tick += 1;
                    return;
                }
                self.close_account();
            }
            let due = runtime.timers.next();
            if due != Instant::MAX && !looked {
                let now = clock::now();
                if now >= due {
                    looked = true;
                    drop(state);
                    trace::rests(self);
                    runtime.timers.run(now);
                    state = processor.lock();
                    continue;
                }
            }
            if state.tick.is_multiple_of(netpoll::ROUNDS) && runtime.netpoll.in_use() && !polled {
                polled = true;
                drop(state);
                trace::rests(self);
                runtime.netpoll.glance();
                state = processor.lock();
                continue;
            }
            if runtime.bubble.due(processor) {
                drop(state);
                runtime.bubble.run_timers();
                state = processor.lock();
                continue;
            }
            let goroutine = match state.pick(&runtime.bubble, processor) {
                Ok(goroutine) => goroutine,
                Err(retry) => {
                    drop(state);
                    if retry.is_none()
                        && let Some(goroutine) = runtime.steal(processor)
                    {
                        state = processor.lock();
                        // SAFETY: runnable goroutines are alive.
                        state.queue.push_back(unsafe { &*goroutine });
                        continue;
                    }
                    if let Some(errand) = self.errand(runtime) {
                        state = processor.lock();
                        state.queue.push_back(&errand);
                        continue;
                    }
                    looked = false;
                    polled = true;
                    state = self.idle(runtime, processor, retry);
                    continue;
                }
            };
            // SAFETY: runnable goroutines are alive.
            let it = unsafe { &*goroutine };
            if let Some(home) = self.elsewhere(runtime, it) {
                drop(state);
                runtime.send_home(it, home, processor);
                state = processor.lock();
                continue;
            }
            debug_assert!(std::ptr::eq(state.holder, self));
            state.tick += 1;
            state.running = true;
            // Here as well as where an idle machine is woken: a timer wakes it without anybody's doing, and a first one was never idle.
            crate::bed::busy();
            looked = false;
            polled = false;
            drop(state);
            let member = runtime.bubble.has(it);
            if member {
                runtime.bubble.runs_on(processor);
            }
            let errand = it.is_own() && self.errand_waits.get();
            self.leaves_bubble(runtime);
            let left = self.execute(runtime, goroutine);
            if errand {
                runtime.errands.fetch_sub(1, Ordering::SeqCst);
            }
            self.watches_bubble(runtime);
            // One that has ended is no more; one that has not may have begun or left the bubble.
            let member = member || left.is_some() && runtime.bubble.has(it);
            state = processor.lock();
            if let Some(bed) = self.call.take() {
                let next = state.queue.len() > 0;
                drop(state);
                if !next {
                    // Whoever is called is to have it next.
                    host().release();
                }
                bed.ring();
                state = processor.lock();
            }
            if !std::ptr::eq(state.holder, self) {
                // As soon as it is runnable the new holder may run it, and this thread may have kept the host from it.
                drop(state);
                host().release();
                state = processor.lock();
            }
            if let Some(switch) = left {
                // SAFETY: nobody else may touch it before it is marked or queued.
                Machine::let_go_on(runtime, unsafe { &*goroutine }, switch, &mut state);
            }
            if (member || errand) && runtime.bubble.at_rest() {
                drop(state);
                if member {
                    self.advance(runtime)
                } else {
                    self.advance_again(runtime)
                }
                state = processor.lock();
            }
            if std::ptr::eq(state.holder, self) {
                state.running = false;
            } else {
                self.put_account_aside(runtime);
                self.stuck.store(false, Ordering::Relaxed);
                state.rouse();
                drop(state);
                runtime.machine_returned();
                return;
            }
        }
    }

    /// The machine where `goroutine`, just taken from the queue, must run; None if that is here.
    fn elsewhere(&'static self, runtime: &Runtime, goroutine: &Goroutine) -> Option<&'static Machine> {
        let home = goroutine.home.load(Ordering::Relaxed).cast_const();
        if home.is_null() || std::ptr::eq(home, self) {
            return None;
        }
        // SAFETY: machines are never freed.
        let home = unsafe { &*home };
        let movable = runtime.moves()
            && goroutine.locks.load(Ordering::Relaxed) == 0
            && goroutine.bond() == 0
            && (host().may_move(goroutine.parked_at.get(), goroutine.stack_base.get())
                || Machine::let_it_look(goroutine));
        if !movable {
            return Some(home);
        }
        // It is at home where its frames are: what it calls next may be foreign code that must return on this thread.
        home.home_count.fetch_sub(1, Ordering::Relaxed);
        self.home_count.fetch_add(1, Ordering::Relaxed);
        goroutine.home.store(std::ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
        runtime.count_move();
        if trace::recording() {
            trace::moved(goroutine, home, self);
        }
        None
    }

    /// Has a goroutine that was just taken from the queue look at its own frames. A scan says no as well because of words that calls
    /// have left behind, of this goroutine or of the last one on its stack; and a goroutine that stays behind with a lock that
    /// its home's next goroutine waits for stays for ever (test_hazard_16_what_calls_left_behind_keeps_nobody_from_moving).
    #[cold]
    fn let_it_look(goroutine: &Goroutine) -> bool {
        goroutine.parked_at.set(0);
        // SAFETY: a goroutine that has started has a coroutine, and this machine alone has it now.
        let coroutine = unsafe { &mut *goroutine.coroutine.get() };
        matches!(coroutine.as_mut().map(|it| it.resume(())), Some(CoroutineResult::Yield(Switch::Answer(true))))
    }

    /// Makes a goroutine that gave its stack back runnable, or leaves it to who ends its wait. Under the processor's lock, with which
    /// the machine looked whether it has the processor: as long as it has, nobody else runs the goroutine.
    fn let_go_on(runtime: &Runtime, goroutine: &Goroutine, switch: Switch, state: &mut State) {
        match switch {
            Switch::Yield => {}
            Switch::Park if runtime.bubble.has(goroutine) => {
                if !runtime.bubble.mark_parked(goroutine) {
                    return;
                }
            }
            Switch::Park => {
                if !goroutine.parker.mark_parked() {
                    return;
                }
            }
            Switch::Answer(_) => crate::dump::fatal("a goroutine answered without being asked"),
        }
        let mode = trace::mode();
        if switch == Switch::Park && mode & trace::EVENTS != 0 {
            trace::ready(goroutine, mode);
        }
        goroutine.set_status(Status::Runnable);
        if goroutine.front.load(Ordering::Relaxed) {
            goroutine.front.store(false, Ordering::Relaxed);
            state.queue.push_front(goroutine);
        } else {
            state.queue.push_back(goroutine);
        }
    }

    /// Runs `goroutine` until it gives its stack back; why it did so, if it has not ended.
    fn execute(&'static self, runtime: &Runtime, goroutine: *const Goroutine) -> Option<Switch> {
        // SAFETY: it was taken from a queue, so it is alive, and nobody else resumes it.
        let it = unsafe { &*goroutine };
        // SAFETY: the coroutine is ours until it is parked.
        let coroutine = unsafe { &mut *it.coroutine.get() };
        // To make a context takes an attach, too.
        self.attaching.store(true, Ordering::Relaxed);
        if coroutine.is_none() {
            let vessel = self.vessel();
            it.set_vessel(vessel.context, vessel.stack.low(), vessel.stack.base_address());
            // An errand has its home from the beginning.
            if it.home.load(Ordering::Relaxed).is_null() {
                self.settle_here(it);
            } else {
                self.errand_waits.set(false);
            }
            let address = goroutine as usize;
            *coroutine = Some(Coroutine::with_stack(vessel.stack, move |yielder, ()| {
                // SAFETY: a goroutine is alive while it runs.
                let it = unsafe { &*(address as *const Goroutine) };
                it.yielder.set(yielder);
                host().run(it);
            }));
        }
        let Some(coroutine) = coroutine else { unreachable!("made just now") };
        it.set_status(Status::Running);
        let mode = trace::mode();
        if trace::any(mode) {
            trace::runs(self, it, mode);
        }
        host().resume(it.identity());
        // SAFETY: the variables of this very thread, which its machine's loop does not outlive.
        let thread = unsafe { &*self.thread.load(Ordering::Relaxed) };
        thread.current.set(goroutine);
        let result = coroutine.resume(());
        thread.current.set(null());
        host().suspended();
        match result {
            CoroutineResult::Yield(switch) => Some(switch),
            CoroutineResult::Return(()) => {
                let mode = trace::mode();
                if mode & trace::EVENTS != 0 {
                    trace::ended(self, it, mode);
                }
                self.finish(runtime, it);
                None
            }
        }
    }

    /// Makes this machine the home of a goroutine that has none.
    fn settle_here(&'static self, goroutine: &Goroutine) {
        goroutine.home.store(std::ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
        self.home_count.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&'static self, runtime: &Runtime, goroutine: &Goroutine) {
        // SAFETY: the coroutine has ended; its stack is ours again.
        let stack = unsafe { (*goroutine.coroutine.get()).take() }.map(Coroutine::into_stack);
        let context = goroutine.context();
        let home = goroutine.home.load(Ordering::Relaxed);
        // SAFETY: machines are never freed.
        unsafe { (*home).home_count.fetch_sub(1, Ordering::Relaxed) };
        // Before the context goes: a forked child looks at those of all goroutines.
        goroutine.set_vessel(0, 0, 0);
        let spoiled = goroutine.spoiled.load(Ordering::Relaxed);
        if spoiled {
            host().contexts_delete(&mut std::iter::once(context));
            runtime.contexts.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(stack) = stack {
            let context = if spoiled { 0 } else { context };
            // SAFETY: the pool is this thread's own.
            unsafe { (*self.pool.get()).push(Vessel { stack, context }) };
        }
        // All of it under one lock: who joins it does not count it any more, and who does not count it, or sees it dead, can join it.
        let mut joiners = goroutine.joiners.lock();
        joiners.ended = true;
        goroutine.set_status(Status::Dead);
        let last = runtime.registry.ended(goroutine);
        while let Some(claim) = joiners.queue.serve(|waiter| waiter.set_granted(true), |_| {}) {
            claim.wake();
        }
        drop(joiners);
        if runtime.bubble.has(goroutine) {
            runtime.bubble.left();
        }
        if last {
            runtime.last_goroutine_ended();
        }
        // SAFETY: the reference for being alive, which nobody uses any more.
        drop(unsafe { Handle::from_raw(goroutine) });
        // SAFETY: the pool is this thread's own.
        if unsafe { (*self.pool.get()).len() } > POOL {
            self.empty_pool(POOL - POOL / 16);
        }
    }

    /// A stack with its context, used before or new.
    fn vessel(&'static self) -> Vessel {
        loop {
            // SAFETY: the pool is this thread's own.
            let pooled = unsafe { (*self.pool.get()).pop() };
            let stack = match pooled {
                Some(vessel) if !vessel.stack.is_current() => {
                    self.let_go(vec![vessel]);
                    continue;
                }
                Some(vessel) if vessel.context != 0 => return vessel,
                Some(vessel) => Some(vessel.stack),
                None => Stack::new(),
            };
            if let Some(stack) = stack {
                let context = host().context_new(stack.low(), stack.base_address(), stack.top());
                if context != 0 {
                    runtime().contexts.fetch_add(1, Ordering::Relaxed);
                    return Vessel { stack, context };
                }
            }
            crate::dump::fatal("out of memory: no stack for a goroutine");
        }
    }

    /// Lets all but `keep` pooled vessels go.
    fn empty_pool(&self, keep: usize) {
        // SAFETY: the pool is this thread's own.
        let spare = unsafe { (*self.pool.get()).split_off(keep.min((*self.pool.get()).len())) };
        self.let_go(spare);
    }

    fn let_go(&self, spare: Vec<Vessel>) {
        Stack::give_back(Machine::without_contexts(spare).collect());
    }

    /// Deletes the contexts of vessels; their stacks.
    fn without_contexts(spare: Vec<Vessel>) -> impl Iterator<Item = Stack> {
        let mut contexts = spare.iter().map(|vessel| vessel.context).filter(|&context| context != 0).peekable();
        if contexts.peek().is_some() {
            host().contexts_delete(&mut contexts);
            let count = spare.iter().filter(|vessel| vessel.context != 0).count();
            runtime().contexts.fetch_sub(count, Ordering::Relaxed);
        }
        spare.into_iter().map(|vessel| vessel.stack)
    }

    /// One step of making the pool small, and when there is more to do.
    fn tidy(&self) -> Tidy {
        // SAFETY: the pool is this thread's own, and who deletes a context does not touch it.
        let pool = unsafe { &mut *self.pool.get() };
        let (keep, last) = crate::scheduler::pool();
        if pool.len() <= keep {
            pool.iter().for_each(|vessel| vessel.stack.release_pages());
            return Tidy::Done;
        }
        let slowly = pool.len() <= keep + last;
        let (goal, step) = if slowly { (keep, SLOW_STEP) } else { (keep + last, TIDY_STEP) };
        let until = clock::now() + TIDY_TIME;
        // Given back together: that interrupts the other cores once.
        let mut stacks = Vec::new();
        while pool.len() > goal && stacks.len() < step && (stacks.is_empty() || clock::now() < until) {
            let spare = pool.split_off(goal.max(pool.len().saturating_sub(TIDY_BATCH.min(step))));
            stacks.extend(Machine::without_contexts(spare));
        }
        Stack::give_back(stacks);
        if slowly || (last > 0 && pool.len() <= goal) { Tidy::Later } else { Tidy::Now }
    }
}
