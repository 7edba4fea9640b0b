//! A goroutine: its stack, its park word, its place in the queues, and what its handle shows.
//!
//! Who may touch what:
//! * `parker` - see `park`;
//! * `run_next`, `run_order` - under the lock of the processor whose queue it is in;
//! * `coroutine`, `vessel` fields - the machine that resumes it or has just got it back;
//! * `yielder`, `parked_at` - the goroutine itself; a machine that wants to move it reads `parked_at` while it is runnable, and sets it
//!   to 0 to ask it a question (see `Machine::let_it_look`);
//! * `notes` - see `trace`;
//! * `slot` - under the registry's lock;
//! * `wait` - written by the goroutine before it parks, read by who looks on;
//! * the rest is atomic.
//!
//! A goroutine is counted: one reference for being alive (dropped by its machine at its end), one a handle.

use crate::lock::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use crate::lock::{Cell, Lock};
use crate::machine::Machine;
use crate::park::{Owner, Parker};
use crate::switch::{Coroutine, Yielder};
use crate::wait_queue::WaitQueue;
use std::cell::UnsafeCell;
use std::ptr::{NonNull, null, null_mut};

/// What a goroutine is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// In a run queue.
    Runnable,
    /// On a machine.
    Running,
    /// Parked until somebody makes it ready.
    Waiting,
    /// Over.
    Dead,
}

/// Why a goroutine is parked; shown in dumps and in the deadlock error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum WaitReason {
    None,
    ChanSend,
    ChanReceive,
    ChanSendNil,
    ChanReceiveNil,
    Select,
    SelectNoCases,
    Sleep,
    Mutex,
    RwMutexLock,
    RwMutexRlock,
    WaitGroup,
    Cond,
    Semaphore,
    Join,
    Note,
    Blocking,
    Io,
    Bubble,
    Await,
}

impl WaitReason {
    /// How many there are.
    pub(crate) const COUNT: usize = 20;
    const ALL: [(WaitReason, &'static str); Self::COUNT] = [
        (WaitReason::None, ""),
        (WaitReason::ChanSend, "chan send"),
        (WaitReason::ChanReceive, "chan receive"),
        (WaitReason::ChanSendNil, "chan send (nil chan)"),
        (WaitReason::ChanReceiveNil, "chan receive (nil chan)"),
        (WaitReason::Select, "select"),
        (WaitReason::SelectNoCases, "select (no cases)"),
        (WaitReason::Sleep, "sleep"),
        (WaitReason::Mutex, "sync.Mutex.Lock"),
        (WaitReason::RwMutexLock, "sync.RWMutex.Lock"),
        (WaitReason::RwMutexRlock, "sync.RWMutex.RLock"),
        (WaitReason::WaitGroup, "sync.WaitGroup.Wait"),
        (WaitReason::Cond, "sync.Cond.Wait"),
        (WaitReason::Semaphore, "semacquire"),
        (WaitReason::Join, "join"),
        (WaitReason::Note, "note"),
        (WaitReason::Blocking, "blocking call"),
        (WaitReason::Io, "IO wait"),
        (WaitReason::Bubble, "bubble"),
        (WaitReason::Await, "await"),
    ];

    /// Go's words for it; empty for `None`.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The one of this number; `None` for a number that none has.
    pub(crate) fn of(number: usize) -> WaitReason {
        Self::ALL.get(number).map_or(WaitReason::None, |entry| entry.0)
    }
}

/// See the module.
pub struct Goroutine {
    pub(crate) parker: Parker,
    references: AtomicUsize,
    id: u64,
    creator: u64,
    /// The host's, 0 once it has called `ending`.
    payload: AtomicUsize,
    status: AtomicU8,
    reason: AtomicU8,
    wait: Wait,
    /// A cancellation was asked for and not delivered yet.
    cancel: AtomicBool,
    /// Goes to the front of the queue when it is next made ready (it comes back from a blocking call).
    pub(crate) front: AtomicBool,
    /// Its context cannot serve another goroutine.
    pub(crate) spoiled: AtomicBool,
    /// What the host keeps of it that belongs to the OS thread where it parked; 0 for nothing. Written by the goroutine before it
    /// parks.
    bond: std::sync::atomic::AtomicUsize,
    /// `lock_os_thread` minus `unlock_os_thread`.
    pub(crate) locks: AtomicU32,
    /// It is the runtime's and not counted. Set before it is listed.
    pub(crate) own: std::sync::atomic::AtomicBool,
    /// Whether it is in the bubble: set before it starts; the root changes its own.
    pub(crate) bubbled: Cell<bool>,
    /// It is in the bubble and counted as asleep there (see `bubble`).
    pub(crate) dozing: std::sync::atomic::AtomicBool,
    /// Its place in the registry.
    slot: Cell<usize>,
    pub(crate) run_next: Cell<*const Goroutine>,
    pub(crate) run_order: Cell<u64>,
    pub(crate) coroutine: UnsafeCell<Option<Coroutine>>,
    pub(crate) yielder: Cell<*const Yielder>,
    pub(crate) parked_at: Cell<usize>,
    /// The stack's base; 0 before there is one.
    pub(crate) stack_base: Cell<usize>,
    /// The stack's lowest usable address; 0 while there is none.
    identity: AtomicUsize,
    context: AtomicUsize,
    /// Where it ran last and its frames are; null until it starts. Machines are never freed while goroutines call them home.
    pub(crate) home: AtomicPtr<Machine>,
    pub(crate) joiners: Lock<Joiners>,
    pub(crate) notes: crate::trace::Notes,
}

/// What a goroutine's present wait is about, for those who look on. Written before it parks, and no part of how the wait ends:
/// no model needs to see it.
#[derive(Default)]
struct Wait {
    /// The addresses of what it waits at, on its stack.
    at: std::sync::atomic::AtomicPtr<usize>,
    count: std::sync::atomic::AtomicUsize,
    /// When it began, in the coarse clock.
    since: std::sync::atomic::AtomicU64,
    /// It ends by itself.
    timed: std::sync::atomic::AtomicBool,
}

/// Who waits for the end.
pub(crate) struct Joiners {
    pub(crate) ended: bool,
    pub(crate) queue: WaitQueue<()>,
}

// SAFETY: the fields are shared by the rules at the top of this file.
unsafe impl Send for Goroutine {}
// SAFETY: as above.
unsafe impl Sync for Goroutine {}

impl Goroutine {
    /// A goroutine that has not started, with one reference for its life and one for a handle.
    pub(crate) fn allocate(id: u64, creator: u64, payload: usize) -> *const Goroutine {
        let goroutine = Box::into_raw(Box::new(Goroutine {
            parker: Parker::new(Owner::Goroutine(null())),
            references: AtomicUsize::new(2),
            id,
            creator,
            payload: AtomicUsize::new(payload),
            status: AtomicU8::new(Status::Runnable as u8),
            reason: AtomicU8::new(0),
            wait: Wait::default(),
            cancel: AtomicBool::new(false),
            front: AtomicBool::new(false),
            spoiled: AtomicBool::new(false),
            bond: std::sync::atomic::AtomicUsize::new(0),
            locks: AtomicU32::new(0),
            own: std::sync::atomic::AtomicBool::new(false),
            bubbled: Cell::new(false),
            dozing: std::sync::atomic::AtomicBool::new(false),
            slot: Cell::new(UNLISTED),
            run_next: Cell::new(null()),
            run_order: Cell::new(0),
            coroutine: UnsafeCell::new(None),
            yielder: Cell::new(null()),
            parked_at: Cell::new(0),
            stack_base: Cell::new(0),
            identity: AtomicUsize::new(0),
            context: AtomicUsize::new(0),
            home: AtomicPtr::new(null_mut()),
            joiners: Lock::new(Joiners { ended: false, queue: WaitQueue::new() }),
            notes: crate::trace::Notes::new(id),
        }));
        // SAFETY: nobody else knows it yet.
        unsafe { (*goroutine).parker.owner = Owner::Goroutine(goroutine) };
        goroutine
    }

    /// Its number, from 1 upwards, never used twice in a process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of the goroutine that created it; 0 when a plain thread did.
    pub fn creator(&self) -> u64 {
        self.creator
    }

    /// Whether the runtime has started it for itself: it is not counted.
    pub fn is_own(&self) -> bool {
        self.own.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What the host gave to `spawn`; 0 once it has called [`Goroutine::ending`].
    pub fn payload(&self) -> usize {
        self.payload.load(Ordering::Relaxed)
    }

    /// What it is doing at the moment. In a forked child, goroutines that stayed behind in the parent are dead.
    pub fn status(&self) -> Status {
        if self.parker.left_behind() {
            return Status::Dead;
        }
        // Pairs with the Release of `set_status`.
        match self.status.load(Ordering::Acquire) {
            0 => Status::Runnable,
            1 => Status::Running,
            2 => Status::Waiting,
            _ => Status::Dead,
        }
    }

    /// To be called by the host before it lets go of the payload, which it gets back: nothing will ask for it any more.
    pub fn ending(&self) -> usize {
        crate::scheduler::runtime().registry.unlist(self);
        self.payload.swap(0, Ordering::Relaxed)
    }

    /// To be called by the host at its end: what is left in its context must not reach another goroutine.
    pub fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    /// What `set_bond` has set; 0 before.
    #[inline]
    pub fn bond(&self) -> usize {
        self.bond.load(Ordering::Relaxed)
    }

    /// To be called by the host before the goroutine parks: `bond` belongs to this OS thread, and the goroutine is to go on here. 0 is
    /// nothing.
    #[inline]
    pub fn set_bond(&self, bond: usize) {
        self.bond.store(bond, Ordering::Relaxed);
    }

    /// When it is next made ready it goes to the front of its queue (it comes back from a blocking call).
    pub fn come_back_first(&self) {
        self.front.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_status(&self, status: Status) {
        // Release pairs with the Acquire of `status`: who sees it dead sees all that it did.
        self.status.store(status as u8, Ordering::Release);
    }

    /// Why it is parked, or `None`.
    pub fn wait_reason(&self) -> WaitReason {
        if self.status() != Status::Waiting {
            return WaitReason::None;
        }
        self.last_reason()
    }

    /// Why it was last parked, whatever it does now.
    pub(crate) fn last_reason(&self) -> WaitReason {
        WaitReason::of(self.reason_number().into())
    }

    pub(crate) fn reason_number(&self) -> u8 {
        self.reason.load(Ordering::Relaxed)
    }

    /// Notes why it is about to park, and at what. `at` lies on its stack.
    pub(crate) fn set_wait(&self, reason: WaitReason, at: &[usize], timed: bool) {
        self.reason.store(reason as u8, Ordering::Relaxed);
        self.wait.at.store(at.as_ptr().cast_mut(), Ordering::Relaxed);
        self.wait.count.store(at.len(), Ordering::Relaxed);
        self.wait.since.store(crate::clock::coarse(), Ordering::Relaxed);
        self.wait.timed.store(timed, Ordering::Relaxed);
    }

    /// For how many nanoseconds it has been waiting, to some milliseconds; 0 if it is not.
    pub fn waited(&self) -> u64 {
        if self.status() != Status::Waiting {
            return 0;
        }
        crate::clock::coarse().saturating_sub(self.wait.since.load(Ordering::Relaxed))
    }

    /// The addresses of what its present wait is for: of a channel, of the state of a lock (`address` of each), of a goroutine that it
    /// joins. None if it does not wait, if its wait is over already, or ends by itself.
    ///
    /// # Safety
    /// The goroutine cannot go on meanwhile, as the host is kept from it.
    pub unsafe fn waits_at(&self) -> Option<&[usize]> {
        if self.wait.timed.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: by contract.
        unsafe { self.parked_at() }
    }

    /// As `waits_at`, also of waits that end by themselves.
    ///
    /// # Safety
    /// As for `waits_at`.
    pub unsafe fn parked_at(&self) -> Option<&[usize]> {
        if self.status() != Status::Waiting || self.parker.waiting().is_none() {
            return None;
        }
        // SAFETY: by contract the frame that noted them is still there.
        Some(unsafe {
            std::slice::from_raw_parts(self.wait.at.load(Ordering::Relaxed), self.wait.count.load(Ordering::Relaxed))
        })
    }

    /// Where those wait who join it.
    pub fn address(&self) -> usize {
        &raw const self.joiners as usize
    }

    /// The lowest usable address of its stack, by which the host knows it; 0 before it starts and after its end.
    pub fn identity(&self) -> usize {
        self.identity.load(Ordering::Relaxed)
    }

    /// The host's context; 0 before it starts and after its end.
    pub fn context(&self) -> usize {
        self.context.load(Ordering::Relaxed)
    }

    /// Where its C stack starts and the host's memory begins, if it has a context; otherwise 0, or where it was.
    pub fn stack_base(&self) -> usize {
        self.stack_base.get()
    }

    pub(crate) fn set_vessel(&self, context: usize, identity: usize, base: usize) {
        // A forked child sees this as it was at any moment: where there is a context, there is its base.
        if context != 0 {
            self.stack_base.set(base);
        }
        self.identity.store(identity, Ordering::Relaxed);
        // Release: a reader that sees the context sees the base. There is no reader on another thread: the base must only
        // not be written later.
        self.context.store(context, Ordering::Release);
    }

    /// Whether a cancellation was asked for and not delivered yet.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Ends the present wait, if there is one, as cancelled; otherwise notes the wish for the next wait. False when the
    /// wish was only noted, so that the host may deliver it by other means. `host().take_cancel` decides at the next wait.
    pub fn cancel(&self) -> bool {
        let mut over = None;
        loop {
            self.cancel.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            // A wait that has ended otherwise, or will never go on in a forked child, may be seen for a while: the wish is for the next.
            let Some(ticket) = self.parker.waiting().filter(|&ticket| over != Some(ticket)) else { return false };
            // Whoever takes the wish ends a wait by it: the goroutine, which may be in its next one by now, or we.
            if !self.take_wish() {
                return true;
            }
            let claim = self.parker.claim(ticket, crate::park::CANCELLED);
            claim.wake();
            if claim.won() {
                return true;
            }
            over = Some(ticket);
        }
    }

    /// Takes the wish to be cancelled; false if there is none, or somebody has taken it.
    pub(crate) fn take_wish(&self) -> bool {
        self.cancel.swap(false, Ordering::Relaxed)
    }

    /// Puts back what `take_wish` took: the goroutine's own, for its next wait.
    pub(crate) fn wish(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Notes the wish to be cancelled for the next wait; the present one, if there is one, goes on.
    pub fn note_cancel(&self) {
        self.wish();
    }

    /// Forgets a cancellation that was noted.
    pub fn forget_cancel(&self) {
        self.cancel.store(false, Ordering::Relaxed);
    }

    /// Whether the process was forked inside it: then it is the child's only thread, and its end ends the child.
    pub fn forked(&self) -> bool {
        self.parker.left_behind()
    }

    /// Whether it has been on a machine.
    pub fn started(&self) -> bool {
        !self.home.load(Ordering::Relaxed).is_null()
    }
}

/// A counted reference to a goroutine.
pub struct Handle(NonNull<Goroutine>);

// SAFETY: a handle only gives shared access to a `Sync` value whose count is atomic.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Whether it has ended, with all that it does at its end.
    pub fn ended(&self) -> bool {
        // In a forked child nobody is there to end, and its lock may be held for ever.
        self.forked() || self.joiners.lock().ended
    }

    /// Takes over one reference.
    ///
    /// # Safety
    /// The caller owns a reference to `goroutine` and gives it away.
    pub(crate) unsafe fn from_raw(goroutine: *const Goroutine) -> Handle {
        // SAFETY: a goroutine's address is not null.
        Handle(unsafe { NonNull::new_unchecked(goroutine.cast_mut()) })
    }

    /// A further reference to a goroutine that the caller knows to be alive.
    pub fn new(goroutine: &Goroutine) -> Handle {
        goroutine.references.fetch_add(1, Ordering::Relaxed);
        Handle(NonNull::from(goroutine))
    }
}

impl std::ops::Deref for Handle {
    type Target = Goroutine;
    fn deref(&self) -> &Goroutine {
        // SAFETY: the reference that we hold keeps it.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        Handle::new(self)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Release pairs with the Acquire fence of the last drop: it sees all that was done through other references.
        if self.references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: it was the last reference; the goroutine has ended, so its coroutine is gone.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

const UNLISTED: usize = usize::MAX;

/// The goroutines that are alive, how many of them are the program's, and their numbers.
pub(crate) struct Registry {
    /// Those whose host has not called `ending`.
    alive: Lock<Vec<*const Goroutine>>,
    count: AtomicUsize,
    last_id: AtomicU64,
    /// How many were the runtime's own.
    own: AtomicU64,
}

// SAFETY: the pointers are to goroutines that are alive while listed.
unsafe impl Send for Registry {}
// SAFETY: as above; the list is under its lock.
unsafe impl Sync for Registry {}

impl Registry {
    pub(crate) fn new(last_id: u64) -> Registry {
        Registry {
            alive: Lock::new(Vec::new()),
            count: AtomicUsize::new(0),
            last_id: AtomicU64::new(last_id),
            own: AtomicU64::new(0),
        }
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// How many the program has made so far.
    pub(crate) fn spawned(&self) -> u64 {
        self.last_id() - self.own.load(Ordering::Relaxed)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn add(&self, goroutine: &Goroutine) {
        if goroutine.is_own() {
            self.own.fetch_add(1, Ordering::Relaxed);
        } else {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        let mut alive = self.alive.lock();
        goroutine.slot.set(alive.len());
        alive.push(goroutine);
    }

    /// Takes one off the list, if it is still there.
    pub(crate) fn unlist(&self, goroutine: &Goroutine) {
        let mut alive = self.alive.lock();
        let slot = goroutine.slot.replace(UNLISTED);
        if slot == UNLISTED {
            return;
        }
        alive.swap_remove(slot);
        if let Some(&moved) = alive.get(slot) {
            // SAFETY: listed, so alive.
            unsafe { (*moved).slot.set(slot) };
        }
    }

    /// One has ended; whether it was the last that counts.
    pub(crate) fn ended(&self, goroutine: &Goroutine) -> bool {
        // The host has had it unlisted, if it keeps the rules; a host without a payload of its own need not.
        if goroutine.payload() != 0 {
            self.unlist(goroutine);
        }
        !goroutine.is_own() && self.count.fetch_sub(1, Ordering::Relaxed) == 1
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many are listed, the runtime's own among them.
    pub(crate) fn listed(&self) -> usize {
        self.alive.lock().len()
    }

    /// Shows all that are listed, under the lock.
    pub(crate) fn visit(&self, mut show: impl FnMut(&Goroutine)) {
        for &goroutine in self.alive.lock().iter() {
            // SAFETY: listed, so alive.
            show(unsafe { &*goroutine });
        }
    }

    /// Holds the list for a fork.
    #[cfg(not(loom))]
    pub(crate) fn before_fork(&self) {
        std::mem::forget(self.alive.lock());
    }

    /// Gives it back, in the parent and in the child.
    ///
    /// # Safety
    /// After [`Registry::before_fork`], on the same thread.
    #[cfg(not(loom))]
    pub(crate) unsafe fn after_fork(&self) {
        // SAFETY: by contract.
        unsafe { self.alive.force_unlock() };
    }

    /// Handles of all that are alive, by number.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        let alive = self.alive.lock();
        // SAFETY: listed, so alive; the reference is taken before the lock is given back.
        let mut handles: Vec<_> = alive.iter().map(|&goroutine| Handle::new(unsafe { &*goroutine })).collect();
        drop(alive);
        handles.sort_by_key(|handle| handle.id());
        handles
    }
}
