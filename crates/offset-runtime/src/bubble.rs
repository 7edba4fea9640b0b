//! Bubbles, as Go's `testing/synctest`: goroutines that see a clock of their own, which jumps to the next timer when all of them are
//! durably blocked; with a seed their schedule and the choices of `select` are a function of it.
//!
//! One bubble at a time. The goroutine that begins it is its root; whoever a member starts, directly or by a timer, is a member.
//! All of them run on one processor, so that they run one after the other but for hand-offs. With a seed there are none, and where
//! there is another processor for those that want one, the root's machine keeps its own: started members cannot follow it elsewhere
//! without the GIL.
//!
//! `active` counts the members that are not *dozing*: parked for a reason that only another member, or the clock, can end.
//! A machine counts a member out before it marks it parked, under `parking`, and takes that back if its wait has ended
//! meanwhile; whoever ends the wait later counts it in (`scheduler::ready`) before it queues it. So `active` is 0, looked at under
//! `parking`, only if nothing can happen in the bubble by itself, and the machine that sees it so, on its own stack, lets the next
//! thing happen (`advance`), under `clock`. Who waits for that, and the root at its end, are under `state`.
//!
//! No model of loom: a bubble's members are parked and marked under one lock, and the clock is moved with
//! nothing running; the models of parking cover the rest. Under loom there are no bubbles.

use crate::clock::{self, Instant};
use crate::goroutine::{Goroutine, Handle, WaitReason};
use crate::lock::Lock;
use crate::park::{CANCELLED, Claim, Code, Parker, Ticket};
use crate::processor::Processor;
use crate::scheduler::{self, Party, Runtime, current, runtime};
use crate::timer::{Alarm, Timers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, Ordering};

/// What the clock of each bubble starts with: midnight of 2000-01-01 UTC, as Go has it.
const START: Instant = 946_684_800 * 1_000_000_000;

/// So many rings of timers that wake nobody are taken for a deadlock: tickers that nobody listens to go on for ever.
const IDLE_RINGS: usize = 100_000;

/// Why a bubble cannot do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BubbleError {
    /// There is one already, or the last one's goroutines have not ended.
    Busy,
    /// The caller is not in a bubble, or in no goroutine.
    Outside,
    /// Somebody else waits already.
    Waiting,
    /// The caller was cancelled.
    Cancelled,
}

/// The bubble of a process.
pub(crate) struct Bubble {
    open: AtomicBool,
    active: AtomicIsize,
    members: AtomicIsize,
    /// Where a member ran last: all of them run there, one after the other, wherever that is.
    processor: AtomicPtr<Processor>,
    now: AtomicU64,
    /// 0 without a seed; else the state of the generator, which is never 0.
    random: AtomicU64,
    pub(crate) timers: Timers,
    /// Held while a member is counted out and marked. A leaf, taken under a processor's lock.
    parking: Lock<()>,
    /// Held while the next thing is made to happen: after a hand-off members run on two machines, and both may see that all doze.
    /// No processor may be locked when it is taken.
    clock: Lock<()>,
    state: Lock<State>,
}

struct State {
    /// Waits until all others doze.
    waiter: Option<(*const Parker, Ticket)>,
    root: *const Goroutine,
    /// The root waits for the end of the others: time stands still.
    leaving: bool,
    /// A member has failed: the root will be cancelled.
    failed: bool,
    /// The root is gone without waiting: what is left may end as it likes.
    abandoned: bool,
    /// The root's wait, for this, was ended as nothing else could have been.
    deadlocked: Option<WaitReason>,
}

// SAFETY: the pointers are to members that are alive: they are taken out before their waits end.
unsafe impl Send for State {}

impl Bubble {
    pub(crate) fn new() -> Bubble {
        Bubble {
            open: AtomicBool::new(false),
            active: AtomicIsize::new(0),
            members: AtomicIsize::new(0),
            processor: AtomicPtr::new(std::ptr::null_mut()),
            now: AtomicU64::new(0),
            random: AtomicU64::new(0),
            timers: Timers::new(),
            parking: Lock::new(()),
            clock: Lock::new(()),
            state: Lock::new(State {
                waiter: None,
                root: std::ptr::null(),
                leaving: false,
                failed: false,
                abandoned: false,
                deadlocked: None,
            }),
        }
    }

    /// Whether there is a bubble.
    #[inline]
    pub(crate) fn open(&self) -> bool {
        !cfg!(loom) && self.open.load(Ordering::Relaxed)
    }

    /// Whether `goroutine` is a member. In a child that was forked in a bubble there is none.
    #[inline]
    pub(crate) fn has(&self, goroutine: &Goroutine) -> bool {
        goroutine.bubbled.get() && self.open()
    }

    /// Whether its schedule follows a seed.
    #[inline]
    pub(crate) fn seeded(&self) -> bool {
        self.open() && self.random.load(Ordering::Relaxed) != 0
    }

    /// A number below `bound` that follows from the seed. Members run one after the other, so its state needs no more than this.
    pub(crate) fn random(&self, bound: usize) -> usize {
        let mut x = self.random.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Ordering::Relaxed);
        (((x >> 32) * bound as u64) >> 32) as usize
    }

    /// A member was started.
    pub(crate) fn joined(&self) {
        self.members.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// A member has ended.
    pub(crate) fn left(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        if self.members.fetch_sub(1, Ordering::Relaxed) == 1 && self.state.lock().abandoned {
            self.open.store(false, Ordering::Relaxed);
        }
    }

    /// Marks a member parked, as `Parker::mark_parked`; from then on it dozes if its reason to wait is a durable one.
    #[must_use]
    pub(crate) fn mark_parked(&self, goroutine: &Goroutine) -> bool {
        let _parking = self.parking.lock();
        let dozes = goroutine.wait_reason().is_durable();
        if dozes {
            goroutine.dozing.store(true, Ordering::Relaxed);
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
        let over = goroutine.parker.mark_parked();
        if over {
            self.wakes(goroutine);
        }
        over
    }

    /// One that dozed does so no more.
    pub(crate) fn wakes(&self, goroutine: &Goroutine) {
        if goroutine.dozing.swap(false, Ordering::Relaxed) {
            self.active.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A member is about to run there.
    pub(crate) fn runs_on(&self, processor: &'static Processor) {
        self.processor.store(std::ptr::from_ref(processor).cast_mut(), Ordering::Relaxed);
    }

    /// Makes the processor of the root's machine the bubble's. False if the schedule is to follow from a seed and the machine does
    /// not have it for itself: it was handed on, or others are to have it next.
    fn settle(&self, root: &Goroutine, random: u64) -> bool {
        // SAFETY: it runs, so it has a home, and machines are never freed.
        let home = unsafe { &*root.home.load(Ordering::Relaxed) };
        let Some(processor) = home.processor() else { return true };
        // Under this lock processors are handed on and claimed.
        let state = processor.lock();
        if random != 0 && (!std::ptr::eq(state.holder, home) || state.claimed()) {
            return false;
        }
        self.runs_on(processor);
        self.random.store(random, Ordering::Relaxed);
        true
    }

    /// Whether a machine with this processor is to see to the bubble's timers: two at once would let things happen in no order.
    fn is_on(&self, processor: &Processor) -> bool {
        self.open() && std::ptr::eq(self.processor.load(Ordering::Relaxed), processor)
    }

    /// Whether members run there, in an order that follows from a seed.
    #[inline]
    pub(crate) fn seeded_on(&self, processor: &Processor) -> bool {
        self.seeded() && self.is_on(processor)
    }

    /// Whether all members seem to doze, for a machine that has just run one: it may have been the last.
    #[inline]
    pub(crate) fn at_rest(&self) -> bool {
        self.open() && self.active.load(Ordering::Relaxed) == 0
    }

    fn rests(&self) -> bool {
        // One whose wait has ended may be counted out for a moment.
        let _parking = self.parking.lock();
        self.at_rest()
    }

    /// Whether a timer of the bubble is due without the clock having to move.
    #[inline]
    pub(crate) fn due(&self, processor: &Processor) -> bool {
        self.is_on(processor) && self.timers.next() <= self.now.load(Ordering::Relaxed)
    }

    /// Does what is due.
    pub(crate) fn run_timers(&self) {
        self.timers.run(self.now.load(Ordering::Relaxed));
    }

    /// Lets the next thing happen if all members doze and all is `settled`. On a machine's own stack.
    pub(crate) fn advance(&self, settled: impl Fn() -> bool) {
        let _clock = self.clock.lock();
        let mut idle = 0;
        // Asked each time: who was woken by the clock may have run meanwhile, elsewhere.
        while self.rests() && settled() {
            let mut state = self.state.lock();
            if let Some((parker, ticket)) = state.waiter.take() {
                drop(state);
                // SAFETY: it waits, as it takes itself out before it goes on.
                unsafe { (*parker).claim(ticket, 0) }.wake();
                return;
            }
            if state.leaving {
                let over = self.members.load(Ordering::Relaxed) == 1;
                return self.rouse_root(state, !over);
            }
            let next = self.timers.next();
            if next == Instant::MAX || idle == IDLE_RINGS {
                return self.rouse_root(state, true);
            }
            drop(state);
            let now = self.now.load(Ordering::Relaxed).max(next);
            self.now.store(now, Ordering::Relaxed);
            self.timers.run(now);
            idle += 1;
        }
    }

    /// Ends the root's wait: nothing else can. What is left of a bubble without a root waits for its cancellation.
    fn rouse_root(&self, mut state: crate::lock::Guard<'_, State>, deadlocked: bool) {
        if state.root.is_null() || state.failed {
            return;
        }
        state.leaving = false;
        // SAFETY: the root is alive until it leaves or abandons the bubble, which takes it out.
        let root = unsafe { &*state.root };
        state.deadlocked = deadlocked.then(|| root.wait_reason());
        drop(state);
        let parker = &root.parker;
        if let Some(ticket) = parker.waiting() {
            parker.claim(ticket, if deadlocked { CANCELLED } else { 0 }).wake();
        }
    }
}

impl WaitReason {
    /// Whether a member that waits so can be woken by other members and the clock alone. As in Go, not for a mutex, which
    /// others may hold, nor for what the system does, nor for threads.
    fn is_durable(self) -> bool {
        !matches!(
            self,
            WaitReason::None
                | WaitReason::Mutex
                | WaitReason::RwMutexLock
                | WaitReason::RwMutexRlock
                | WaitReason::Blocking
                | WaitReason::Io
                | WaitReason::Await
        )
    }
}

/// The time that the caller sees: its bubble's if it is in one.
#[inline]
pub fn now() -> Instant {
    match current() {
        Some(goroutine) if inside_of(goroutine) => runtime().bubble.now.load(Ordering::Relaxed),
        _ => clock::now(),
    }
}

/// Whether the calling goroutine is in the bubble.
pub fn inside() -> bool {
    current().is_some_and(inside_of)
}

fn inside_of(goroutine: &Goroutine) -> bool {
    goroutine.bubbled.get() && runtime().bubble.open()
}

/// The timers that the caller's waits and alarms belong to.
#[inline]
pub(crate) fn timers(runtime: &Runtime, bubbled: bool) -> &Timers {
    if bubbled { &runtime.bubble.timers } else { &runtime.timers }
}

/// A number below `bound` if the caller's choices follow a seed.
#[inline]
pub(crate) fn chosen(bound: usize) -> Option<usize> {
    let bubble = &runtime().bubble;
    (bubble.seeded() && inside()).then(|| bubble.random(bound))
}

/// With a seed, sometimes lets the others run first. To be called where a member is about to do what others can see.
pub fn jostle() {
    if chosen(4) == Some(0) {
        scheduler::gosched();
    }
}

/// Makes the current goroutine the root of a bubble.
pub fn begin(seed: Option<u64>) -> Result<(), BubbleError> {
    let Some(goroutine) = current() else { return Err(BubbleError::Outside) };
    let bubble = &runtime().bubble;
    if cfg!(loom) || bubble.open.swap(true, Ordering::AcqRel) {
        return Err(BubbleError::Busy);
    }
    bubble.now.store(START, Ordering::Relaxed);
    // Seeds that are close to each other must not give schedules that are.
    let random = seed.map_or(0, |seed| seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    *bubble.state.lock() =
        State { waiter: None, root: goroutine, leaving: false, failed: false, abandoned: false, deadlocked: None };
    bubble.random.store(0, Ordering::Relaxed);
    while !bubble.settle(goroutine, random) {
        scheduler::gosched();
    }
    goroutine.bubbled.set(true);
    bubble.joined();
    Ok(())
}

/// The root's way out: waits until all others have ended. `Cancelled` if they never will, or it was cancelled itself; then the
/// bubble is still there.
pub fn leave() -> Result<(), BubbleError> {
    let Some(goroutine) = current().filter(|goroutine| inside_of(goroutine)) else { return Err(BubbleError::Outside) };
    let bubble = &runtime().bubble;
    if bubble.members.load(Ordering::Relaxed) > 1 {
        let party = Party::new();
        let ticket = party.parker().arm();
        bubble.state.lock().leaving = true;
        let code: Code = party.block(ticket, WaitReason::Bubble, &[], None);
        bubble.state.lock().leaving = false;
        if code == CANCELLED {
            return Err(BubbleError::Cancelled);
        }
    }
    goroutine.bubbled.set(false);
    bubble.state.lock().root = std::ptr::null();
    bubble.left();
    bubble.open.store(false, Ordering::Relaxed);
    Ok(())
}

/// The root's way out when something went wrong: the others are not waited for, and end as they are cancelled, on their clock.
pub fn abandon() {
    let Some(goroutine) = current().filter(|goroutine| inside_of(goroutine)) else { return };
    let bubble = &runtime().bubble;
    let mut state = bubble.state.lock();
    state.root = std::ptr::null();
    state.abandoned = true;
    drop(state);
    goroutine.bubbled.set(false);
    // If the rest dozes its machine sees it as soon as this goroutine parks or ends.
    bubble.left();
}

/// To be called in a member whose failure ends the program: until the root is cancelled for that, it waits as it does.
pub fn fail() {
    if inside() {
        runtime().bubble.state.lock().failed = true;
    }
}

/// Counts the current goroutine, a member, as not asleep whatever it waits for, until it says otherwise: what it waits for is done by a
/// thread.
pub fn hold(busy: bool) {
    if inside() {
        runtime().bubble.active.fetch_add(if busy { 1 } else { -1 }, Ordering::Relaxed);
    }
}

/// Waits until all other members doze (Go: synctest.Wait).
pub fn wait() -> Result<(), BubbleError> {
    if !inside() {
        return Err(BubbleError::Outside);
    }
    let bubble = &runtime().bubble;
    if bubble.active.load(Ordering::Relaxed) == 1 {
        return Ok(());
    }
    let party = Party::new();
    let ticket = party.parker().arm();
    let mut state = bubble.state.lock();
    if state.waiter.is_some() {
        drop(state);
        // The wait that was begun is not gone through with.
        let _: Claim = party.parker().claim(ticket, 0);
        return Err(BubbleError::Waiting);
    }
    state.waiter = Some((party.parker(), ticket));
    drop(state);
    let code = party.block(ticket, WaitReason::Bubble, &[], None);
    let mut state = bubble.state.lock();
    if state.waiter.is_some_and(|(_, mine)| mine == ticket) {
        state.waiter = None;
    }
    if code == CANCELLED { Err(BubbleError::Cancelled) } else { Ok(()) }
}

/// What the current goroutine, the root, waited for when it was cancelled because nothing else could happen any more; told once.
pub fn take_deadlock() -> Option<WaitReason> {
    if inside() { runtime().bubble.state.lock().deadlocked.take() } else { None }
}

/// Takes out what was still set when the bubble ended: the goroutines that it would have started. The rest is dropped, so this is
/// called attached.
pub fn clear() -> Vec<Handle> {
    let bubble = &runtime().bubble;
    let alarms: Vec<Arc<dyn Alarm>> = if bubble.open() { Vec::new() } else { bubble.timers.drain() };
    alarms.iter().filter_map(|alarm| alarm.abandon()).collect()
}
