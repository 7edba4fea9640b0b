//! The scheduler: one [`Runtime`] a process, what goroutines call to spawn, yield and park, and the machines' ledger.
//!
//! `machines` is locked before any processor. The runtime is made at the first use and never freed; a forked child leaves
//! the parent's behind and makes its own.

use crate::bubble::{self, Bubble};
use crate::clock::{self, Deadline, Instant};
use crate::goroutine::{Goroutine, Handle, Registry, Status, WaitReason};
use crate::host::host;
use crate::lock::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::lock::{Lock, global, spawn as spawn_thread, yield_now};
use crate::machine::{self, Machine};
use crate::netpoll::Netpoll;
use crate::park::{CANCELLED, Code, Parker, TIMED_OUT, Ticket};
use crate::processor::Processor;
use crate::switch::{Switch, Yielder, here};
use crate::sync::Note;
use crate::thread::Loan;
use crate::timer::{Node, Timers};
use crate::trace;
use crate::vigil::Vigil;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::time::Duration;

/// More OS threads than this are never made to run goroutines.
/// A model has room for few.
const MACHINES: usize = if cfg!(loom) { 3 } else { 10_000 };

/// Counters and gauges, for whoever wants to see what the runtime does.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Stats {
    pub goroutines: usize,
    pub spawned: u64,
    pub processors: usize,
    pub machines: usize,
    pub idle_machines: usize,
    pub stuck_machines: usize,
    pub runnable: usize,
    pub switches: u64,
    pub handoffs: u64,
    pub moves: u64,
    pub timers: usize,
    pub descriptors: usize,
    pub descriptor_waits: usize,
    pub blocking_calls: usize,
    pub blocking_threads: usize,
    pub contexts: usize,
}

pub(crate) struct Machines {
    /// Waiting for a processor, the latest last.
    pub(crate) idle: Vec<&'static Machine>,
    /// Without a thread, to be used again.
    pub(crate) retired: Vec<&'static Machine>,
    /// On a goroutine without a processor.
    pub(crate) stuck: Vec<&'static Machine>,
    pub(crate) threads: usize,
    last_id: u32,
    /// All that ever had a thread.
    pub(crate) all: Vec<&'static Machine>,
}

/// See the module.
pub(crate) struct Runtime {
    pub(crate) processors: Vec<Processor>,
    pub(crate) timers: Timers,
    pub(crate) registry: Registry,
    pub(crate) machines: Lock<Machines>,
    pub(crate) blocking: crate::blocking::Pool,
    pub(crate) netpoll: Netpoll,
    /// Of machines that wait for the end of a blocking call.
    pub(crate) vigil: Vigil,
    /// Of machines that expect whoever roused them last.
    pub(crate) expectation: Vigil,
    /// Of machines that have rested, and want the host.
    pub(crate) patience: Vigil,
    pub(crate) bubble: Bubble,
    stopping: AtomicBool,
    /// See [`shed`].
    shedding: AtomicBool,
    /// How many contexts there are.
    pub(crate) contexts: AtomicUsize,
    started: AtomicBool,
    /// How many machines were sent on an errand that has neither ended nor parked yet (see `machine::errand`).
    pub(crate) errands: AtomicUsize,
    /// How many goroutines are in queues of machines.
    pub(crate) homing: AtomicUsize,
    watcher: Lock<Option<Arc<Note>>>,
    watched: AtomicBool,
    next_processor: AtomicUsize,
    handoffs: AtomicU64,
    moved: AtomicU64,
}

global! {
    // Not through the door to atomics: what it points to is made once, and a model makes it before its threads.
    static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(null_mut());
}
// What the host has decided: read when the runtime is made, in a forked child again.
global! {
    static PROCESSORS: AtomicUsize = AtomicUsize::new(1);
}
global! {
    static MOVES: AtomicBool = AtomicBool::new(true);
}
global! {
    static POOL: AtomicUsize = AtomicUsize::new(1_024);
}
global! {
    static LAST: AtomicUsize = AtomicUsize::new(0);
}
global! {
    static CREATING: Lock<()> = Lock::new(());
}

/// How many goroutines can run the host's code at once. To be called before anything else: a runtime that was made keeps what
/// it has.
pub fn set_processors(count: usize) {
    PROCESSORS.store(count.max(1), Ordering::Relaxed);
}

/// Whether a started goroutine may be moved to another OS thread at all. To be called before the first goroutine starts.
pub fn allow_moves(moves: bool) {
    MOVES.store(moves, Ordering::Relaxed);
}

/// [`shed`] waits no longer where nothing has gone for so long.
const SHED_PAUSE: Instant = 250_000_000;

/// How many stacks, with their contexts, a machine that has no work keeps for the next goroutines. The `last` ones above that go slowly, for
/// a host whose memory is given back only while more is freed.
pub fn set_pool(count: usize, last: usize) {
    POOL.store(count, Ordering::Relaxed);
    LAST.store(last, Ordering::Relaxed);
}

/// See [`set_pool`]. They lose what deep recursion has left in them.
pub(crate) fn pool() -> (usize, usize) {
    (POOL.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed))
}

#[inline]
pub(crate) fn runtime() -> &'static Runtime {
    // SAFETY: set once a process to a leaked box.
    match unsafe { RUNTIME.load(Ordering::Acquire).as_ref() } {
        Some(runtime) => runtime,
        None => create(0),
    }
}

#[cold]
fn create(last_id: u64) -> &'static Runtime {
    let _creating = CREATING.lock();
    // SAFETY: as in `runtime`.
    if let Some(runtime) = unsafe { RUNTIME.load(Ordering::Acquire).as_ref() } {
        return runtime;
    }
    let runtime: &'static Runtime = Box::leak(Box::new(Runtime {
        processors: (0..PROCESSORS.load(Ordering::Relaxed)).map(|_| Processor::new()).collect(),
        timers: Timers::new(),
        registry: Registry::new(last_id),
        machines: Lock::new(Machines {
            idle: Vec::new(),
            retired: Vec::new(),
            stuck: Vec::new(),
            threads: 0,
            last_id: 0,
            all: Vec::new(),
        }),
        blocking: crate::blocking::Pool::new(),
        netpoll: Netpoll::new(),
        vigil: Vigil::new(),
        expectation: Vigil::new(),
        patience: Vigil::new(),
        bubble: Bubble::new(),
        stopping: AtomicBool::new(false),
        shedding: AtomicBool::new(false),
        contexts: AtomicUsize::new(0),
        started: AtomicBool::new(false),
        errands: AtomicUsize::new(0),
        homing: AtomicUsize::new(0),
        watcher: Lock::new(None),
        watched: AtomicBool::new(false),
        next_processor: AtomicUsize::new(0),
        handoffs: AtomicU64::new(0),
        moved: AtomicU64::new(0),
    }));
    RUNTIME.store(std::ptr::from_ref(runtime).cast_mut(), Ordering::Release);
    runtime
}

/// In a forked child.
#[cfg(not(loom))]
pub(crate) fn start_over() {
    machine::start_over();
    crate::task::start_over();
    crate::thread::start_over();
    crate::bed::start_over();
    // SAFETY: as in `runtime`.
    let last_id = unsafe { RUNTIME.load(Ordering::Acquire).as_ref() }.map_or(0, |old| {
        old.netpoll.start_over();
        old.registry.last_id()
    });
    RUNTIME.store(null_mut(), Ordering::Release);
    create(last_id);
}

/// Makes a goroutine for `payload` and queues it. The host's `run` is called with it, once.
pub fn spawn(payload: usize) -> Handle {
    let handle = prepare(payload);
    start(&handle);
    handle
}

/// Makes a goroutine that does not run before it is given to [`start`].
pub fn prepare(payload: usize) -> Handle {
    let runtime = runtime();
    let creator = current().map_or(0, Goroutine::id);
    let goroutine = Goroutine::allocate(runtime.registry.next_id(), creator, payload);
    if bubble::inside() {
        // SAFETY: made just now, nobody else knows of it.
        unsafe { (*goroutine).bubbled.set(true) };
    }
    // SAFETY: `allocate` gives two references: one is the handle's, the other the goroutine's own.
    unsafe { Handle::from_raw(goroutine) }
}

/// Queues a goroutine that was prepared. To be called once for each.
pub fn start(handle: &Handle) {
    let runtime = runtime();
    runtime.registry.add(handle);
    if runtime.bubble.has(handle) {
        runtime.bubble.joined();
    }
    wake_up(runtime);
    let mode = trace::mode();
    if mode & trace::EVENTS != 0 {
        trace::created(handle, mode);
    }
    ready(&**handle);
}

/// Makes sure that there is a monitor, and a machine that looks at the timers.
pub(crate) fn wake_up(runtime: &'static Runtime) {
    if !runtime.started.load(Ordering::Relaxed) && !runtime.started.swap(true, Ordering::AcqRel) {
        crate::monitor::start();
        runtime.staff(&runtime.processors[0]);
    }
}

/// Ends a prepared goroutine that will never be started.
pub fn abandon(handle: Handle) {
    // SAFETY: the reference that the goroutine held for being alive.
    drop(unsafe { Handle::from_raw(&*handle) });
}

/// The goroutine that runs on the calling OS thread.
pub fn current() -> Option<&'static Goroutine> {
    // SAFETY: it is alive while it runs, and the answer is only used by itself.
    unsafe { machine::current().as_ref() }
}

/// Makes a goroutine runnable whose wait the caller has ended, or that is new.
pub(crate) fn ready(goroutine: *const Goroutine) {
    // SAFETY: parked and claimed, or new: it stays where it is until it is queued here.
    let goroutine = unsafe { &*goroutine };
    let runtime = runtime();
    let mode = trace::mode();
    if mode & trace::EVENTS != 0 {
        trace::ready(goroutine, mode);
    }
    goroutine.set_status(Status::Runnable);
    if runtime.bubble.has(goroutine) {
        runtime.bubble.wakes(goroutine);
    }
    let front = goroutine.front.load(Ordering::Relaxed);
    if front {
        goroutine.front.store(false, Ordering::Relaxed);
    }
    let home = goroutine.home.load(Ordering::Relaxed);
    // SAFETY: machines are never freed.
    let machine = unsafe { if home.is_null() { machine::this().as_ref() } else { home.as_ref() } };
    let processor = match machine.and_then(Machine::processor) {
        Some(processor) => processor,
        None => {
            let next = runtime.next_processor.fetch_add(1, Ordering::Relaxed);
            &runtime.processors[next % runtime.processors.len()]
        }
    };
    if !processor.push(goroutine, front) {
        runtime.staff(processor);
    } else if runtime.processors.len() > 1 && home.is_null() {
        runtime.find_help(processor);
    }
}

/// Lets the other runnable goroutines of this processor run first.
pub fn gosched() {
    match current() {
        Some(goroutine) => leave(goroutine, Switch::Yield),
        None => yield_now(),
    }
}

/// To be called by the host as soon as it has attached a goroutine that starts.
pub fn attached(goroutine: &Goroutine) {
    // Its home is the machine on which it runs; in a child that was forked inside it, one that is no more.
    // SAFETY: machines are never freed.
    if let Some(machine) = unsafe { goroutine.home.load(Ordering::Relaxed).as_ref() } {
        machine.attaching.store(false, Ordering::Relaxed);
    }
}

fn leave(goroutine: &Goroutine, switch: Switch) {
    let parks = switch == Switch::Park;
    let mode = trace::mode();
    if trace::any(mode) {
        trace::leaves(goroutine, mode, parks);
    }
    host().park(goroutine);
    // SAFETY: set when the goroutine started, valid as long as its stack.
    let yielder = unsafe { &*goroutine.yielder.get() };
    goroutine.parked_at.set(here());
    yielder.suspend(switch);
    while goroutine.parked_at.get() == 0 {
        answer(goroutine, yielder);
    }
    host().unpark(goroutine);
    attached(goroutine);
    let mode = trace::mode();
    if trace::any(mode) && parks && goroutine.notes.waited(mode) {
        trace::back(goroutine, mode);
    }
}

/// The goroutine was woken only to say whether its frames may move (see `Machine::let_it_look`), perhaps by a thread that is
/// not its own.
#[cold]
fn answer(goroutine: &Goroutine, yielder: &Yielder) {
    goroutine.parked_at.set(here());
    yielder.suspend(Switch::Answer(host().frames_may_move(goroutine.stack_base.get())));
}

/// Who waits: the current goroutine, or the calling OS thread.
pub(crate) struct Party {
    goroutine: Option<&'static Goroutine>,
    loan: Option<Loan>,
}

impl Party {
    pub(crate) fn new() -> Party {
        let goroutine = current();
        Party { goroutine, loan: if goroutine.is_none() { Some(Loan::new()) } else { None } }
    }

    pub(crate) fn parker(&self) -> &Parker {
        match (self.goroutine, &self.loan) {
            (Some(goroutine), _) => &goroutine.parker,
            (None, Some(loan)) => loan.0,
            (None, None) => unreachable!("a party is one or the other"),
        }
    }

    /// Waits until `ticket` is claimed. No lock may be held; the waiters with the ticket are in their queues.
    /// `at` are the addresses of what is waited at, if others are to see them.
    pub(crate) fn block(&self, ticket: Ticket, reason: WaitReason, at: &[usize], deadline: Deadline) -> Code {
        let Some(goroutine) = self.goroutine else {
            let Some(loan) = &self.loan else { unreachable!("a party is one or the other") };
            return crate::thread::sleep(loan.0, ticket, deadline);
        };
        // Pairs with the fence in `Goroutine::cancel`: either it sees our ticket, or we see its wish.
        fence(Ordering::SeqCst);
        if goroutine.cancelled() && host().take_cancel(goroutine) && goroutine.take_wish() {
            if goroutine.parker.claim(ticket, CANCELLED).won() {
                return CANCELLED;
            }
            goroutine.wish();
            // What was waited for has happened: the wish stays for the next wait.
            host().keep_cancel(goroutine);
        }
        let node = Node::new();
        if let Some(when) = deadline {
            let runtime = runtime();
            let timers = bubble::timers(runtime, runtime.bubble.has(goroutine));
            // SAFETY: the node lies in this frame, which does not end before the time-out or `remove` below.
            if unsafe { timers.add_deadline(when, &goroutine.parker, ticket, &node) } {
                runtime.poke();
            }
        }
        goroutine.set_wait(reason, at, deadline.is_some());
        goroutine.set_status(Status::Waiting);
        leave(goroutine, Switch::Park);
        let code =
            goroutine.parker.outcome().unwrap_or_else(|| crate::dump::fatal("a goroutine was resumed unclaimed"));
        if deadline.is_some() && code != TIMED_OUT {
            let runtime = runtime();
            bubble::timers(runtime, runtime.bubble.has(goroutine)).remove(&node);
        }
        // The frame is ours again (the model `park::a_timer_leaves_the_frame_that_it_ends_alone` fails if it is not).
        debug_assert!(node.is_out());
        code
    }
}

/// Sleeps until `deadline`, for ever if there is none. False if it was cancelled.
pub fn sleep(deadline: Deadline, reason: WaitReason) -> bool {
    if deadline.is_some_and(|when| when <= bubble::now()) {
        gosched();
        return true;
    }
    let party = Party::new();
    let ticket = party.parker().arm();
    party.block(ticket, reason, &[], deadline) == TIMED_OUT
}

/// Waits for the end of a goroutine.
pub fn join(goroutine: &Handle, deadline: Deadline) -> Result<(), crate::error::WaitError> {
    if goroutine.forked() {
        // Nobody is there to end, and its lock may be held for ever.
        return Ok(());
    }
    crate::sync::wait(
        &goroutine.joiners,
        |joiners| joiners.ended,
        |joiners| &mut joiners.queue,
        WaitReason::Join,
        deadline,
    )
}

/// Binds the current goroutine to its OS thread (`add` true) or undoes one such call; false outside goroutines, or when there
/// is nothing to undo.
pub fn lock_thread(add: bool) -> bool {
    let Some(goroutine) = current() else { return false };
    let locks = goroutine.locks.load(Ordering::Relaxed);
    if !add && locks == 0 {
        return false;
    }
    goroutine.locks.store(if add { locks + 1 } else { locks - 1 }, Ordering::Relaxed);
    true
}

/// How many goroutines are alive.
pub fn num_goroutine() -> usize {
    runtime().registry.len()
}

/// Handles of all goroutines that are alive, by number.
pub fn goroutines() -> Vec<Handle> {
    runtime().registry.handles()
}

/// Shows each goroutine whose host has not called `ending` yet, in no order. None of them can do so meanwhile: `show` must be
/// quick, and may not wait or drop anything.
pub fn visit_goroutines(show: impl FnMut(&Goroutine)) {
    runtime().registry.visit(show);
}

/// How many goroutines can run at once.
pub fn processors() -> usize {
    runtime().processors.len()
}

/// Whether a goroutine was ever started in this process.
pub fn started() -> bool {
    runtime().started.load(Ordering::Relaxed)
}

/// Has `note` set whenever nothing can happen any more by the runtime's own doing, and when the last goroutine ends.
pub fn watch(note: Option<Arc<Note>>) {
    let runtime = runtime();
    let mut watcher = runtime.watcher.lock();
    runtime.watched.store(note.is_some(), Ordering::SeqCst);
    let before = std::mem::replace(&mut *watcher, note);
    drop(watcher);
    drop(before);
    runtime.notice_quiet();
}

/// Whether no goroutine runs or is about to, no timer is set, no blocking call is under way and nobody waits for a descriptor.
pub fn quiescent() -> bool {
    runtime().quiet()
}

/// Makes all machines stop at their next chance, for good. What is parked stays parked.
pub fn shutdown() {
    let runtime = runtime();
    runtime.stopping.store(true, Ordering::SeqCst);
    runtime.poke();
    // From here on the host may end what they are about.
    runtime.close_accounts();
}

/// Has the machines let go of all stacks and contexts that no goroutine uses, at the end of the process, and waits for that as long as
/// it goes on, and no longer than `limit`.
pub fn shed(limit: Duration) {
    let runtime = runtime();
    set_pool(0, 0);
    runtime.shedding.store(true, Ordering::SeqCst);
    runtime.poke();
    runtime.machines.lock().idle.iter().for_each(|machine| machine.nudge());
    let until = clock::now().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    let (mut left, mut since) = (usize::MAX, clock::now());
    loop {
        let now = clock::now();
        let contexts = runtime.contexts.load(Ordering::Relaxed);
        if contexts < left {
            (left, since) = (contexts, now);
        }
        if contexts <= runtime.registry.listed() || now >= until || now - since >= SHED_PAUSE {
            return;
        }
        clock::pause(Duration::from_millis(1));
    }
}

/// What the runtime does at the moment and did so far.
pub fn stats() -> Stats {
    let runtime = runtime();
    let (mut runnable, mut switches) = (0, 0);
    for processor in &runtime.processors {
        let state = processor.lock();
        runnable += state.queue.len();
        switches += state.tick;
    }
    let (calls, threads) = runtime.blocking.counts();
    let machines = runtime.machines.lock();
    Stats {
        goroutines: runtime.registry.len(),
        spawned: runtime.registry.spawned(),
        processors: runtime.processors.len(),
        machines: machines.threads,
        idle_machines: machines.idle.len(),
        stuck_machines: machines.stuck.len(),
        runnable: runnable + runtime.homing.load(Ordering::Relaxed),
        switches,
        handoffs: runtime.handoffs.load(Ordering::Relaxed),
        moves: runtime.moved.load(Ordering::Relaxed),
        timers: runtime.timers.len(),
        descriptors: runtime.netpoll.len(),
        descriptor_waits: runtime.netpoll.waiting.load(Ordering::Relaxed),
        blocking_calls: calls,
        blocking_threads: threads,
        contexts: runtime.contexts.load(Ordering::Relaxed),
    }
}

impl Runtime {
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn shedding(&self) -> bool {
        self.shedding.load(Ordering::Relaxed)
    }

    pub(crate) fn moves(&self) -> bool {
        MOVES.load(Ordering::Relaxed)
    }

    pub(crate) fn count_move(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes machines that sleep with a processor, so that they look at the timers again.
    pub(crate) fn poke(&self) {
        for processor in &self.processors {
            processor.lock().rouse();
        }
    }

    /// Gives a processor that nobody holds its first machine.
    pub(crate) fn staff(&'static self, processor: &'static Processor) {
        if self.stopping() {
            return;
        }
        let mut machines = self.machines.lock();
        let mut state = processor.lock();
        if !state.holder.is_null() {
            return;
        }
        if let Some(machine) = machines.idle.pop().or_else(|| machines.hire()) {
            state.holder = machine;
            drop(state);
            drop(machines);
            self.send(machine, processor);
        }
    }

    /// Gives up a processor that was made a machine's which has another one.
    pub(crate) fn free(&'static self, processor: &'static Processor) {
        let mut state = processor.lock();
        debug_assert!(!state.idle, "somebody sleeps with a processor that is given up");
        state.holder = std::ptr::null();
        let wanted = state.wanted();
        drop(state);
        if wanted {
            self.staff(processor);
        }
    }

    /// `goroutine` was found on `here` by a machine that may not run it: leaves it to its home.
    pub(crate) fn send_home(&'static self, goroutine: &Goroutine, home: &'static Machine, here: &'static Processor) {
        if !home.take_home(self, goroutine) || home.stuck.load(Ordering::Relaxed) {
            return;
        }
        // It waits for a processor: one that nobody uses, or this one, in its turn.
        for processor in self.processors.iter().filter(|other| !std::ptr::eq(*other, here)) {
            let mut state = processor.lock();
            if std::ptr::eq(state.holder, home) {
                // It has got one meanwhile, and looks into its queue before it runs anything there. It may sleep by now: given to
                // it once more, and then given up because it has it, the processor would be nobody's with somebody asleep on it.
                return;
            }
            if !self.keeps(processor) && state.take(home) {
                drop(state);
                return self.send(home, processor);
            }
        }
        let mut state = here.lock();
        if !self.keeps(here) {
            state.claim(home, false);
            return;
        }
        drop(state);
        let other = self.processors.iter().find(|other| !std::ptr::eq(*other, here));
        if let Some(other) = other.filter(|other| other.lock().claim(home, false)) {
            self.send(home, other);
        }
    }

    /// Whether the machine that holds `processor` gives it to nobody who wants it: see `bubble`. To be asked under its lock.
    pub(crate) fn keeps(&self, processor: &Processor) -> bool {
        self.processors.len() > 1 && self.bubble.seeded_on(processor)
    }

    /// More goroutines wait to start than `busy` can start at once: wakes another processor to steal some.
    pub(crate) fn find_help(&'static self, busy: &Processor) {
        for processor in &self.processors {
            if std::ptr::eq(processor, busy) {
                continue;
            }
            let mut state = processor.lock();
            if state.holder.is_null() {
                drop(state);
                return self.staff(processor);
            }
            if state.idle {
                return state.rouse();
            }
        }
    }

    /// Whether another processor than `own` has goroutines that `own` could start.
    pub(crate) fn any_fresh(&self, own: &Processor) -> bool {
        self.processors.len() > 1
            && !self.bubble.open()
            && self.processors.iter().any(|other| !std::ptr::eq(other, own) && other.lock().queue.has_fresh())
    }

    /// A goroutine that has not started, from another processor's queue.
    pub(crate) fn steal(&self, thief: &Processor) -> Option<*const Goroutine> {
        if self.processors.len() == 1 {
            return None;
        }
        self.processors.iter().filter(|other| !std::ptr::eq(*other, thief)).find_map(|other| {
            let mut state = other.lock();
            // A bubble's goroutines stay together. Under the lock that its root held last, before there were any.
            if self.bubble.open() { None } else { state.queue.pop_fresh() }
        })
    }

    /// The monitor takes a processor from a machine that makes no progress and gives it to another. `tick` is the one under
    /// which no progress was seen.
    pub(crate) fn hand_off(&'static self, processor: &'static Processor, tick: u64) -> bool {
        let mut machines = self.machines.lock();
        let mut state = processor.lock();
        if !state.running || state.tick != tick || self.stopping() || self.bubble.seeded() {
            return false;
        }
        let Some(next) = machines.idle.pop().or_else(|| machines.hire()) else { return false };
        // SAFETY: a running processor has a holder, and machines are never freed.
        let stuck: &'static Machine = unsafe { &*state.holder };
        stuck.stuck.store(true, Ordering::Relaxed);
        machines.stuck.push(stuck);
        state.holder = next;
        state.running = false;
        state.tick += 1;
        drop(state);
        drop(machines);
        self.handoffs.fetch_add(1, Ordering::Relaxed);
        self.send(next, processor);
        true
    }

    fn send(&'static self, machine: &'static Machine, processor: &'static Processor) {
        if machine.id.load(Ordering::Relaxed) != 0 {
            // It was taken off the idle list, so nobody else gives it one, but for a holder that heeds a claim: then this
            // processor goes to the next one.
            if !machine.give(processor) {
                self.free(processor);
            }
            return;
        }
        let id = {
            let mut machines = self.machines.lock();
            machines.last_id += 1;
            machines.last_id
        };
        machine.id.store(id, Ordering::Relaxed);
        machine.open();
        if !machine.give(processor) {
            crate::dump::fatal("a machine without a thread was given two processors");
        }
        if !spawn_thread("offset-machine", 256 * 1024, move || machine.main()) {
            crate::dump::fatal("the system refuses a thread to run goroutines on");
        }
    }

    pub(crate) fn machine_returned(&self) {
        self.machines.lock().stuck.retain(|machine| machine.stuck.load(Ordering::Relaxed));
    }

    pub(crate) fn last_goroutine_ended(&self) {
        if self.watched.load(Ordering::Relaxed) {
            self.tell_watcher();
        }
    }

    fn tell_watcher(&self) {
        let watcher = self.watcher.lock().clone();
        if let Some(note) = watcher {
            note.set();
        }
    }

    /// To be called when something has come to rest.
    pub(crate) fn notice_quiet(&self) {
        if self.watched.load(Ordering::SeqCst) && self.quiet() {
            self.tell_watcher();
        }
    }

    /// A machine that holds a processor and does not sleep may be about to make a goroutine runnable. All processors are looked
    /// at in one moment, and what could wake them only then: what it is that wakes them is over only when that is done.
    fn quiet(&self) -> bool {
        let machines = self.machines.lock();
        let states: Vec<_> = self.processors.iter().map(Processor::lock).collect();
        let at_rest = states.iter().all(|state| {
            (state.idle || state.holder.is_null()) && state.queue.len() == 0 && !state.running && !state.claimed()
        });
        if !(at_rest
            && machines.stuck.is_empty()
            && self.timers.next() == Instant::MAX
            && !self.blocking.busy()
            && self.netpoll.waiting.load(Ordering::Relaxed) == 0)
        {
            return false;
        }
        if !machines.settled(std::ptr::null()) {
            // What is done there may wake somebody.
            crate::bed::busy();
            return false;
        }
        // After that: who does it counts here before its account is closed.
        self.homing.load(Ordering::Relaxed) == 0
    }
}

impl Machines {
    /// A machine without a thread.
    fn hire(&mut self) -> Option<&'static Machine> {
        if self.threads >= MACHINES {
            return None;
        }
        self.threads += 1;
        if self.retired.is_empty() {
            let machine: &Machine = Box::leak(Box::new(Machine::new()));
            self.all.push(machine);
            return Some(machine);
        }
        self.retired.pop()
    }
}
