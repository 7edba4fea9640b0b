//! Signals as values on channels, with the rules of Go's `os/signal`: a handler of our own notes the signal, a thread of our own
//! sends it. Neither needs the host, so it makes no difference what the host's threads are doing.
//!
//! The handler touches atomics and wakes the thread; it knows no listener. `LISTENERS` is held while what is pending is sent and
//! while somebody begins or ceases to listen, so after [`stop`] nothing is sent. No signal is lost on the way out: whoever
//! ceases to listen retires the signal (`inbox`), and sends what is pending before the listener goes. A handler that comes later
//! passes the signal on to the action that was there before us.
//!
//! `LISTENERS` comes before all other locks. Who listens sends to channels and so may wake goroutines under it.

use crate::chan::{Chan, Wait};
use crate::inbox::Inbox;
use crate::lock::atomic::{AtomicBool, AtomicPtr, Ordering};
use crate::lock::{Guard, Lock, spawn};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::Arc;

pub use crate::inbox::Set;

/// The greatest number of a signal.
pub const LAST: i32 = 64;

/// The signals that a fault of the program raises. Those that somebody has sent are signals like others.
const FAULTS: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// What is wanted changes under `LISTENERS`.
static INBOX: Inbox = Inbox::new();
/// Whether there is a thread. Written under `LISTENERS`.
static SERVED: AtomicBool = AtomicBool::new(false);
/// The action that was there before ours, by number; never freed, as a handler may look at any time.
static BEFORE: [AtomicPtr<libc::sigaction>; LAST as usize + 1] =
    [const { AtomicPtr::new(null_mut()) }; LAST as usize + 1];

static LISTENERS: Lock<State> = Lock::new(State { listeners: Vec::new(), ours: [Ours::Nothing; LAST as usize + 1] });

struct State {
    listeners: Vec<(Set, Arc<dyn Listener>)>,
    /// What we have made of each signal, by number.
    ours: [Ours; LAST as usize + 1],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours {
    Nothing,
    Caught,
    Ignored,
}

/// Somebody who is told of signals.
pub trait Listener: Send + Sync {
    /// Tells two listeners apart.
    fn key(&self) -> usize;
    /// A signal has come. Called without the host; must not wait.
    fn tell(&self, signal: i32);
}

/// Sends signals on a channel, as far as there is room.
pub struct ChanListener<T> {
    chan: Arc<Chan<T>>,
    /// Makes the value that is sent. Neither it nor the drop of the value needs the host.
    value: fn(i32) -> T,
}

impl<T: Send + 'static> ChanListener<T> {
    /// A listener for `chan`.
    pub fn new(chan: Arc<Chan<T>>, value: fn(i32) -> T) -> Arc<Self> {
        Arc::new(ChanListener { chan, value })
    }
}

impl<T> ChanListener<T> {
    /// The key of the listener of `chan`.
    pub fn key_of(chan: &Arc<Chan<T>>) -> usize {
        Arc::as_ptr(chan) as usize
    }
}

impl<T: Send + 'static> Listener for ChanListener<T> {
    fn key(&self) -> usize {
        Self::key_of(&self.chan)
    }

    fn tell(&self, signal: i32) {
        // A full channel drops, and so does a closed one: there is nobody here to be told of the mistake.
        let _ = self.chan.send((self.value)(signal), Wait::No);
    }
}

/// The system refuses a thread.
#[derive(Debug, PartialEq, Eq)]
pub struct NoThread;

fn bit(signal: i32) -> Set {
    1 << (signal - 1)
}

fn numbers(set: Set) -> impl Iterator<Item = i32> {
    (1..=LAST).filter(move |&signal| set & bit(signal) != 0)
}

// Actions.

/// What happens now when `signal` comes; None where there is no such signal.
fn action(signal: i32) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: the place is ours, and filled in if the call succeeds.
    unsafe { (libc::sigaction(signal, null(), action.as_mut_ptr()) == 0).then(|| action.assume_init()) }
}

fn set_action(signal: i32, action: &libc::sigaction) {
    // SAFETY: an action that was there before, the handler of this file, or a constant.
    unsafe { libc::sigaction(signal, action, null_mut()) };
}

fn plain(handler: usize) -> libc::sigaction {
    // SAFETY: plain data, for which all zeroes are valid; the set is ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        libc::sigemptyset(&mut action.sa_mask);
        action
    }
}

fn handler() -> usize {
    on_signal as *const () as usize
}

impl State {
    /// Keeps what is there now as what was there before us.
    fn remember(&self, signal: i32, now: libc::sigaction) {
        let place = &BEFORE[signal as usize];
        // SAFETY: what was stored is never freed nor written again.
        let known = unsafe { place.load(Ordering::Relaxed).as_ref() };
        let same = known.is_some_and(|known| {
            known.sa_sigaction == now.sa_sigaction
                && known.sa_flags == now.sa_flags
                // SAFETY: the sets are plain bytes, and both are filled in.
                && unsafe { libc::memcmp((&raw const known.sa_mask).cast(), (&raw const now.sa_mask).cast(), 8) } == 0
        });
        if !same {
            // Release pairs with the Acquire of `pass_on`.
            place.store(Box::leak(Box::new(now)), Ordering::Release);
        }
    }

    /// Makes `new` what happens, whatever it is now. What we did ourselves is not what was there before.
    fn take(&mut self, signal: i32, new: Ours) {
        let Some(now) = action(signal) else { return };
        if !self.is_ours(signal, &now) {
            self.remember(signal, now);
        }
        let mut wanted = plain(libc::SIG_IGN);
        if new == Ours::Caught {
            wanted = plain(handler());
            // On the stack that machines have for it: a goroutine's may be used up. Calls into the kernel go on, as no code of
            // the host's waits for them to be interrupted.
            wanted.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            // SAFETY: the set is ours.
            unsafe { libc::sigfillset(&mut wanted.sa_mask) };
        }
        set_action(signal, &wanted);
        self.ours[signal as usize] = new;
    }

    /// Puts back what was there before, unless somebody has set something else since.
    fn give_back(&mut self, signal: i32) {
        if action(signal).is_some_and(|now| self.is_ours(signal, &now)) {
            // SAFETY: stored before the signal became ours, never freed.
            if let Some(before) = unsafe { BEFORE[signal as usize].load(Ordering::Relaxed).as_ref() } {
                set_action(signal, before);
            }
        }
        self.ours[signal as usize] = Ours::Nothing;
    }

    fn is_ours(&self, signal: i32, now: &libc::sigaction) -> bool {
        match self.ours[signal as usize] {
            Ours::Nothing => false,
            Ours::Caught => now.sa_sigaction == handler(),
            Ours::Ignored => now.sa_sigaction == libc::SIG_IGN,
        }
    }

    /// Tells the listeners what has come.
    fn send_pending(&self) {
        for signal in numbers(INBOX.take()) {
            for (set, listener) in &self.listeners {
                if set & bit(signal) != 0 {
                    listener.tell(signal);
                }
            }
        }
    }

    /// Takes `set` out of what is wanted, whose actions are others already, and tells the listeners what came before.
    fn settle(&self, set: Set) {
        INBOX.retire(set);
        self.send_pending();
    }

    /// Takes the signals from all listeners; gives those that have none left.
    fn take_from_all(&mut self, set: Set) -> Vec<(Set, Arc<dyn Listener>)> {
        for (wanted, _) in &mut self.listeners {
            *wanted &= !set;
        }
        self.listeners.extract_if(.., |(wanted, _)| *wanted == 0).collect()
    }

    fn wanted(&self) -> Set {
        self.listeners.iter().fold(0, |all, (wanted, _)| all | wanted)
    }
}

// The handler, and the thread.

unsafe extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the calling thread's own word.
    let errno = unsafe { *crate::os::errno() };
    // SAFETY: a signal handler's argument.
    let fault = FAULTS.contains(&signal) && unsafe { (*info).si_code } > 0;
    let wanted = !fault && INBOX.note(bit(signal));
    if !wanted {
        // SAFETY: the arguments of a signal handler.
        unsafe { pass_on(signal, info, context) };
    }
    // SAFETY: as above.
    unsafe { *crate::os::errno() = errno };
}

/// Does what would have been done without us: a fault, or a signal that nobody wants any more.
///
/// # Safety
/// Called by the handler with its arguments.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // Acquire pairs with the Release of `remember`.
    let before = BEFORE[signal as usize].load(Ordering::Acquire);
    // SAFETY: never freed; a handler is called as it asked to be; the calls are among those that a handler may make.
    unsafe {
        let Some(before) = before.as_ref() else { return };
        if before.sa_sigaction == libc::SIG_IGN {
        } else if before.sa_sigaction == libc::SIG_DFL {
            if FAULTS.contains(&signal) {
                // The instruction runs again, and ends the process.
                set_action(signal, before);
            }
            if action(signal).is_some_and(|now| now.sa_sigaction == libc::SIG_DFL) {
                // Blocked until this handler returns.
                libc::raise(signal);
            }
        } else if before.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(before.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: unsafe extern "C" fn(libc::c_int) = std::mem::transmute(before.sa_sigaction);
            handler(signal);
        }
    }
}

/// The thread's life, which is the process's.
fn serve() {
    // Signals go to threads that can do something with them: the host's main thread may be waiting to be interrupted.
    block_signals();
    loop {
        let seen = INBOX.count();
        LISTENERS.lock().send_pending();
        INBOX.sleep(seen);
    }
}

/// Blocks all signals on the calling thread; gives what was blocked before.
fn block_signals() -> libc::sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both sets are ours, and filled in by the calls.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

// What the host calls. A listener that goes is dropped when the lock is free again.

/// Sends the signals of `set` to `listener` from now on, besides those that it is sent already.
pub fn notify(listener: Arc<dyn Listener>, set: Set) -> Result<(), NoThread> {
    let mut state = LISTENERS.lock();
    if !SERVED.load(Ordering::Relaxed) {
        if !spawn("offset-signals", 128 * 1024, serve) {
            return Err(NoThread);
        }
        SERVED.store(true, Ordering::Relaxed);
    }
    let known = state.listeners.iter_mut().find(|(_, known)| known.key() == listener.key());
    let spare = if let Some((wanted, _)) = known {
        *wanted |= set;
        Some(listener)
    } else if set != 0 {
        state.listeners.push((set, listener));
        None
    } else {
        Some(listener)
    };
    // Before the actions: a handler that finds its signal unwanted would pass it on.
    INBOX.want(set);
    for signal in numbers(set) {
        state.take(signal, Ours::Caught);
    }
    drop(state);
    drop(spare);
    Ok(())
}

/// Sends nothing more to the listener with this key, once this has returned. Signals that nobody else listens to do again what
/// they did before. True if it was a listener.
pub fn stop(key: usize) -> bool {
    let mut state = LISTENERS.lock();
    let Some(place) = state.listeners.iter().position(|(_, listener)| listener.key() == key) else { return false };
    let left =
        state.listeners.iter().enumerate().filter(|(at, _)| *at != place).fold(0, |all, (_, (set, _))| all | set);
    let unwanted = state.wanted() & !left;
    for signal in numbers(unwanted) {
        state.give_back(signal);
    }
    state.settle(unwanted);
    let gone = state.listeners.remove(place);
    drop(state);
    drop(gone);
    true
}

/// Lets nothing happen when a signal of `set` comes; nobody listens to it any more.
pub fn ignore(set: Set) {
    cease(set, |state, signal| state.take(signal, Ours::Ignored));
}

/// Makes the signals of `set` do again what they did before [`notify`] or [`ignore`].
pub fn reset(set: Set) {
    cease(set, State::give_back);
}

fn cease(set: Set, change: impl Fn(&mut State, i32)) {
    let mut state = LISTENERS.lock();
    for signal in numbers(set) {
        change(&mut state, signal);
    }
    state.settle(set);
    let gone = state.take_from_all(set);
    drop(state);
    drop(gone);
}

/// Whether `signal` does nothing, by our doing or not.
pub fn ignored(signal: i32) -> bool {
    action(signal).is_some_and(|now| now.sa_sigaction == libc::SIG_IGN)
}

/// What somebody listens to.
pub fn wanted() -> Set {
    INBOX.wanted()
}

/// What is caught or ignored by our doing.
pub fn held() -> Set {
    let state = LISTENERS.lock();
    (1..=LAST).filter(|&signal| state.ours[signal as usize] != Ours::Nothing).fold(0, |all, signal| all | bit(signal))
}

// Forks. Between the two the forking thread blocks all signals: one that is sent to the child at once waits until the child
// has the actions that it is meant to have.

/// What the forking thread had blocked before. Under `LISTENERS`.
struct Blocked(UnsafeCell<MaybeUninit<libc::sigset_t>>);
// SAFETY: reached under the lock only.
unsafe impl Sync for Blocked {}
static BLOCKED: Blocked = Blocked(UnsafeCell::new(MaybeUninit::uninit()));

/// Before a fork.
pub(crate) fn before_fork() {
    std::mem::forget(LISTENERS.lock());
    let blocked = block_signals();
    // SAFETY: under the lock.
    unsafe { (*BLOCKED.0.get()).write(blocked) };
}

/// After it, in the parent.
///
/// # Safety
/// The calling thread has called [`before_fork`].
pub(crate) unsafe fn after_fork() {
    // SAFETY: by contract; the set was filled in.
    unsafe {
        let blocked = (*BLOCKED.0.get()).assume_init();
        LISTENERS.force_unlock();
        libc::pthread_sigmask(libc::SIG_SETMASK, &blocked, null_mut());
    }
}

/// After it, in the child: nobody listens to anything, and what was caught does again what it did before. What is ignored stays so, as
/// it does over a fork.
///
/// # Safety
/// The calling thread has called [`before_fork`], and is the only one of the process.
pub(crate) unsafe fn start_over() {
    // SAFETY: by contract. The lock is taken anew, for its guard.
    let mut state: Guard<'_, State> = unsafe {
        LISTENERS.force_unlock();
        LISTENERS.lock()
    };
    for signal in 1..=LAST {
        if state.ours[signal as usize] == Ours::Caught {
            state.give_back(signal);
        }
    }
    // Their channels may be locked for ever, by threads of the parent.
    std::mem::forget(std::mem::take(&mut state.listeners));
    INBOX.clear();
    SERVED.store(false, Ordering::Relaxed);
    drop(state);
    // SAFETY: filled in before the fork.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, (*BLOCKED.0.get()).as_ptr(), null_mut()) };
}
