//! The waiting side of the tasks of an event loop, which have no stack to park: a wait is an object, and who ends it rings the bell of
//! the loop on whose thread the task goes on.
//!
//! A wait borrows a parker from a list that only grows, as the waits of threads do (see `thread`), and the same word decides how it
//! ends. Its waiters lie in the wait itself, so it must be ended before it goes: dropping it does that.
//!
//! Invariants:
//! * A parker's post is set by the owner of the wait, and taken out, under its lock, by whoever comes first: the waker, who puts its tag
//!   into the mailbox before giving the lock back, or the owner. So once the owner has looked, nobody is about to write.
//! * A post that a late waker of an earlier wait takes is a false alarm. The owner looks at the park word, not at the post; it must
//!   post anew and then look once more.
//! * A mailbox is rung, from the time that something is put into it when it is empty, until somebody takes what there is. Nobody has to
//!   sound the bell for who keeps a vigil at it. Its lock is a leaf: it is taken under those of channels. A tag is the host's: it is
//!   only carried.

use crate::chan::Chan;
use crate::goroutine::Handle;
use crate::lock::atomic::{AtomicBool, Ordering};
use crate::lock::{Guard, Lock};
#[cfg(not(loom))]
use crate::os::Bell;
use crate::park::{CANCELLED, Code, Owner, Parker, TIMED_OUT, Ticket};
use crate::select::{self, Case, Selected};
use crate::vigil::Vigil;
use crate::wait_queue::Waiter;
use std::sync::Arc;

/// Where an event loop is told which of its tasks can go on.
pub struct Mailbox {
    state: Lock<Letters>,
    /// Changes under the lock, and is looked at without it.
    rung: AtomicBool,
    bell: Bell,
    vigil: Vigil,
    /// The generation of the process (see `fork`) in which it was made: in another one the bell is the parent's, whose ring would be
    /// lost, and the lock is nobody's to give back. Read-only.
    generation: u32,
}

#[derive(Default)]
struct Letters {
    tags: Vec<usize>,
    /// Somebody keeps a vigil.
    awake: bool,
}

impl Mailbox {
    /// An empty one; None if the system has no descriptor for it.
    pub fn new() -> Option<Arc<Mailbox>> {
        let (state, rung) = (Lock::default(), AtomicBool::new(false));
        let generation = crate::fork::generation();
        Some(Arc::new(Mailbox { state, rung, bell: Bell::new()?, vigil: Vigil::new(), generation }))
    }

    fn left_behind(&self) -> bool {
        self.generation != crate::fork::generation()
    }

    /// Puts a tag in; in a forked child, where nobody takes it out, it is lost.
    pub fn put(&self, tag: usize) {
        if self.left_behind() {
            return;
        }
        let mut state = self.state.lock();
        state.tags.push(tag);
        // Relaxed: the tags are under the lock.
        if !self.rung.swap(true, Ordering::Relaxed) && !state.awake {
            self.bell.ring();
        }
    }

    /// Takes out what there is, and silences the bell. In a forked child there is nothing.
    pub fn take(&self) -> Vec<usize> {
        if self.left_behind() {
            return Vec::new();
        }
        self.bell.silence();
        self.take_from(self.state.lock())
    }

    fn take_from(&self, mut state: Guard<'_, Letters>) -> Vec<usize> {
        state.awake = false;
        self.rung.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.tags)
    }

    /// As `take`, after staying awake for a little while where that has paid of late. One thread at a time, detached.
    pub fn linger(&self) -> Vec<usize> {
        if self.left_behind() {
            return Vec::new();
        }
        self.state.lock().awake = true;
        self.vigil.keep(|| self.rung.load(Ordering::Relaxed));
        self.take_from(self.state.lock())
    }

    /// Takes out what there is, and the tags of all waits that are to be told here, as nobody will look any more: they are over, and
    /// what is sent goes to others. What was handed to one of them before is put back when that goes.
    #[cfg(not(loom))]
    pub fn close(&self) -> Vec<usize> {
        let mut tags = self.take();
        if self.left_behind() {
            return tags;
        }
        for parker in ALL.lock().iter() {
            let Owner::Task(signal) = &parker.owner else { continue };
            // Under the lock the loan is the one that has posted: its end wants the lock, too.
            let mut place = signal.0.lock();
            if let Some(post) = place.take_if(|post| std::ptr::eq(&raw const *post.mailbox, self)) {
                // Nobody is to be woken; if somebody else was first he finds no post.
                let _ = parker.claim(post.ticket, CANCELLED);
                tags.push(post.tag);
            }
        }
        tags
    }

    /// The descriptor that is readable while there is something in it.
    #[cfg(not(loom))]
    pub fn descriptor(&self) -> std::os::fd::RawFd {
        self.bell.descriptor()
    }

    /// Waits until it is rung.
    #[cfg(loom)]
    pub(crate) fn wait(&self) {
        let mut state = self.state.lock();
        while state.tags.is_empty() {
            self.bell.0.wait(&mut state);
        }
    }
}

#[cfg(loom)]
struct Bell(crate::lock::Condvar);

#[cfg(loom)]
impl Bell {
    fn new() -> Option<Bell> {
        Some(Bell(crate::lock::Condvar::new()))
    }

    fn ring(&self) {
        self.0.notify_one();
    }

    fn silence(&self) {}
}

/// Wakes a task.
pub(crate) struct TaskSignal(Lock<Option<Post>>);

struct Post {
    mailbox: Arc<Mailbox>,
    tag: usize,
    #[cfg(not(loom))]
    ticket: Ticket,
}

impl TaskSignal {
    fn new() -> Self {
        TaskSignal(Lock::new(None))
    }

    pub(crate) fn notify(&self) {
        let mut place = self.0.lock();
        if let Some(post) = place.take() {
            post.mailbox.put(post.tag);
        }
    }
}

#[cfg(not(loom))]
static SPARE: Lock<Vec<&'static Parker>> = Lock::new(Vec::new());
/// Those on loan, too. Taken under the locks of channels and goroutines; under it only those of signals are.
#[cfg(not(loom))]
static ALL: Lock<Vec<&'static Parker>> = Lock::new(Vec::new());

/// In a forked child: the parkers of the parent's tasks are not ours.
#[cfg(not(loom))]
pub(crate) fn start_over() {
    for list in [&raw const SPARE, &raw const ALL] {
        // SAFETY: the child has one thread, so nobody holds or waits for the lock that is overwritten; the parent's parkers carry the
        // generation of the parent and stay unused.
        unsafe { std::ptr::write(list.cast_mut(), Lock::new(Vec::new())) };
    }
}

/// A parker on loan to one wait, which has begun.
struct Loan {
    parker: &'static Parker,
    ticket: Ticket,
}

impl Loan {
    fn new() -> Loan {
        #[cfg(not(loom))]
        let spare = SPARE.lock().pop();
        #[cfg(loom)]
        let spare = None;
        let parker: &'static Parker = spare.unwrap_or_else(|| {
            let parker = Box::leak(Box::new(Parker::new(Owner::Task(TaskSignal::new()))));
            #[cfg(not(loom))]
            ALL.lock().push(parker);
            parker
        });
        Loan { parker, ticket: parker.arm() }
    }

    fn signal(&self) -> &TaskSignal {
        match &self.parker.owner {
            Owner::Task(signal) => signal,
            _ => unreachable!("a task's parker was made here"),
        }
    }

    /// How the wait ended, once it has.
    fn outcome(&self) -> Option<Code> {
        self.parker.outcome()
    }

    /// Ends the wait, unless that has happened.
    fn end(&self, code: Code) -> Code {
        // The claim is our own: there is nobody to wake.
        let _ = self.parker.claim(self.ticket, code);
        self.outcome().unwrap_or(code)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.parker.left_behind() {
            // Somebody in the parent may have held the lock.
            return;
        }
        *self.signal().0.lock() = None;
        #[cfg(not(loom))]
        SPARE.lock().push(self.parker);
    }
}

/// What a task waits for.
enum Place<T> {
    /// Channels, by the cases of a select, whether they send, and their waiters.
    Channels(Vec<(Option<Arc<Chan<T>>>, bool)>, Box<[Waiter<T>]>),
    /// The end of a goroutine.
    Goroutine(Handle, Box<Waiter<()>>),
}

/// A wait of a task that has begun.
pub struct TaskWait<T> {
    loan: Loan,
    /// None once it is over for its owner, too.
    place: Option<Place<T>>,
}

// SAFETY: the waiters' links are touched under the locks of their queues; the rest belongs to whoever owns the wait.
unsafe impl<T: Send> Send for TaskWait<T> {}

/// One case of what a task waits for.
pub enum TaskCase<T> {
    /// Sends the value.
    Send(Arc<Chan<T>>, T),
    /// Receives.
    Recv(Arc<Chan<T>>),
    /// Never ready.
    Never,
}

impl<T> TaskWait<T> {
    /// Does one of `cases` if that is possible at once; otherwise begins to wait for it.
    pub fn begin(cases: Vec<TaskCase<T>>) -> Result<Selected<T>, TaskWait<T>> {
        let mut places = Vec::with_capacity(cases.len());
        let mut values = Vec::with_capacity(cases.len());
        for case in cases {
            let (place, value) = match case {
                TaskCase::Send(chan, value) => ((Some(chan), true), Some(value)),
                TaskCase::Recv(chan) => ((Some(chan), false), None),
                TaskCase::Never => ((None, false), None),
            };
            places.push(place);
            values.push(value);
        }
        let mut borrowed: Vec<Case<'_, T>> = borrow(&places);
        for (case, value) in borrowed.iter_mut().zip(&mut values) {
            if let Case::Send(_, slot) = case {
                *slot = value.take();
            }
        }
        let mut undone = match select::attempt(&mut borrowed) {
            Ok(selected) => return Ok(selected),
            Err(undone) => undone,
        };
        let loan = Loan::new();
        let waiters: Box<[Waiter<T>]> = borrowed
            .iter_mut()
            .enumerate()
            .map(|(index, case)| {
                let value = if let Case::Send(_, value) = case { value.take() } else { None };
                Waiter::new(loan.parker, loan.ticket, index as u16, value)
            })
            .collect();
        // From here on they stay where they are until all of them are out of the queues.
        select::enqueue(&borrowed, &mut undone, |index| &waiters[index]);
        drop(undone);
        drop(borrowed);
        Err(TaskWait { loan, place: Some(Place::Channels(places, waiters)) })
    }

    /// Begins to wait for the end of a goroutine; None if it has ended.
    pub fn join(goroutine: &Handle) -> Option<TaskWait<T>> {
        if goroutine.forked() {
            return None;
        }
        let mut joiners = goroutine.joiners.lock();
        if joiners.ended {
            return None;
        }
        let loan = Loan::new();
        let waiter = Box::new(Waiter::new(loan.parker, loan.ticket, 0, None));
        joiners.queue.push_back(&waiter);
        drop(joiners);
        Some(TaskWait { loan, place: Some(Place::Goroutine(goroutine.clone(), waiter)) })
    }

    /// Has `tag` put into `mailbox` when the wait is over; gives it back if it is, or if it was left behind by a fork.
    pub fn post(&self, mailbox: &Arc<Mailbox>, tag: usize) -> Result<(), usize> {
        if self.loan.parker.left_behind() {
            return Err(tag);
        }
        let mailbox = mailbox.clone();
        #[cfg(not(loom))]
        let post = Post { mailbox, tag, ticket: self.loan.ticket };
        #[cfg(loom)]
        let post = Post { mailbox, tag };
        *self.loan.signal().0.lock() = Some(post);
        // After the post: who claims before this look is seen here, who claims after it sees the post. Both go through the park
        // word and the lock of the signal.
        if self.over() { self.unpost().map_or(Ok(()), Err) } else { Ok(()) }
    }

    /// Takes the tag back, if it has not been put into the mailbox.
    pub fn unpost(&self) -> Option<usize> {
        if self.loan.parker.left_behind() {
            return None;
        }
        self.loan.signal().0.lock().take().map(|post| post.tag)
    }

    /// Whether it is over.
    pub fn over(&self) -> bool {
        self.loan.outcome().is_some() || self.loan.parker.left_behind()
    }

    /// Ends the wait because its time is over; true if it was still going on.
    pub fn expire(&self) -> bool {
        self.loan.outcome().is_none() && self.loan.end(TIMED_OUT) == TIMED_OUT
    }

    /// Ends the wait because its task is cancelled; true if it was still going on.
    pub fn retract(&self) -> bool {
        self.loan.outcome().is_none() && self.loan.end(CANCELLED) == CANCELLED
    }

    /// Ends the wait, if it is not over, and gives what it came to: `Cancelled` if this call ended it. For a goroutine's end it is
    /// `Received` of nothing. The mailbox must have been asked for its tag.
    pub fn finish(mut self) -> Selected<T> {
        self.leave().0
    }

    /// As `finish`, for who can do nothing with a value: it goes back into its channel, and the answer is `Received` of nothing.
    pub fn withdraw(mut self) -> Selected<T> {
        match self.leave() {
            (Selected::Received(index, Some(value)), Some(Place::Channels(places, waiters))) => {
                if let (Some(chan), _) = &places[index] {
                    chan.put_back_as(value, waiters[index].number());
                }
                Selected::Received(index, None)
            }
            (selected, _) => selected,
        }
    }

    /// Ends the wait; gives what it was at, too.
    fn leave(&mut self) -> (Selected<T>, Option<Place<T>>) {
        let Some(place) = self.place.take() else { return (Selected::Cancelled, None) };
        if self.loan.parker.left_behind() {
            // The queues have forgotten it, and somebody in the parent may have held their locks.
            return (Selected::Cancelled, None);
        }
        let code = self.loan.end(CANCELLED);
        let selected = match &place {
            Place::Channels(places, waiters) => select::conclude(&mut borrow(places), code, |index| &waiters[index]),
            Place::Goroutine(goroutine, waiter) => {
                if code != 0 {
                    goroutine.joiners.lock().queue.remove(waiter);
                }
                match code {
                    0 => Selected::Received(0, None),
                    TIMED_OUT => Selected::TimedOut,
                    _ => Selected::Cancelled,
                }
            }
        };
        (selected, Some(place))
    }
}

impl<T> Drop for TaskWait<T> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

fn borrow<T>(places: &[(Option<Arc<Chan<T>>>, bool)]) -> Vec<Case<'_, T>> {
    places
        .iter()
        .map(|(chan, sends)| match chan {
            None => Case::Never,
            Some(chan) if *sends => Case::Send(chan, None),
            Some(chan) => Case::Recv(chan),
        })
        .collect()
}
