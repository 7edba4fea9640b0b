//! Descriptors whose operations wait: an attempt, and if there is nothing, a wait until the kernel says that there may be.
//!
//! Each direction is a [`Side`] under its own lock. An attempt is a system call that does not wait, made under the side's lock: so no
//! edge comes between the attempt and the look whether one has come, and no attempt is made after `close` has been through both sides,
//! when the number may be somebody else's. Edges (from `netpoll`) wake all who wait on the side, and each tries again. An edge is
//! remembered until an attempt is made: who is woken by it may make none, as the side's deadline is over by then.
//!
//! On a stream a short answer means that there is no more, so the next attempt waits for an edge first. Not once the peer
//! has hung up, or has sent urgent data: what that brings may come without another edge.
//!
//! A fork takes no lock of these. Edges are handed out under `DELIVERING`, and attempts are made with the host, which a forking thread
//! has, too. A host that several threads have at once must stop the others before it forks, as CPython does (it stops the world): a
//! descriptor that another thread was trying would be lost to the child. tests/test_fork.py tries it.

use crate::clock::{Deadline, now};
use crate::goroutine::WaitReason;
use crate::lock::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::lock::{Guard, Lock};
use crate::park::CANCELLED;
use crate::scheduler::{Party, runtime, wake_up};
use crate::wait_queue::{WaitQueue, Waiter};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Why an operation on a descriptor did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdError {
    /// It is closed, or was while the operation waited.
    Closed,
    /// The time was over.
    TimedOut,
    /// The goroutine was cancelled, or the thread interrupted, while it waited.
    Cancelled,
}

/// What an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Something to read, a connection to accept, or the end.
    Read,
    /// Room to write, or a connection that is made.
    Write,
}

/// What an attempt gave.
pub enum Attempt<R> {
    /// It is done.
    Done(R),
    /// It is done, and took all that there was.
    Drained(R),
    /// It would have had to wait.
    Again,
}

struct Side {
    /// An edge has come that no attempt has used.
    edge: bool,
    /// The last attempt took all that there was.
    drained: bool,
    /// The peer has hung up, there was an error or urgent data: a short answer may not be all that there was.
    ended: bool,
    closed: bool,
    /// Operations fail from then on.
    deadline: Deadline,
    queue: WaitQueue<()>,
}

/// What the poller knows of a descriptor.
pub(crate) struct Shared {
    read: Lock<Side>,
    write: Lock<Side>,
}

impl Shared {
    fn side(&self, direction: Direction) -> &Lock<Side> {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    /// Something has happened: whoever waits tries again. `ended`: short answers are not all that there was from now on.
    pub(crate) fn edge(&self, direction: Direction, ended: bool) {
        self.wake(direction, true, |side| {
            side.ended |= ended;
            side.edge = true;
        });
    }

    /// Its number is somebody else's now.
    pub(crate) fn stale(&self) {
        self.wake(Direction::Read, false, |side| side.closed = true);
        self.wake(Direction::Write, false, |side| side.closed = true);
    }

    /// Changes a side, and wakes all who wait there; by an edge, or to look at what has changed.
    fn wake(&self, direction: Direction, edge: bool, change: impl FnOnce(&mut Side)) {
        let mut side = self.side(direction).lock();
        change(&mut side);
        while let Some(claim) = side.queue.serve(|waiter| waiter.set_granted(edge), |_| {}) {
            claim.wake();
        }
    }
}

/// A descriptor that is registered with the poller. It is not owned: who owns it calls [`Fd::close`] before closing it.
pub struct Fd {
    number: RawFd,
    shared: Arc<Shared>,
    /// The place in the poller's table, and the generation of the process (see `fork`) in which it is there.
    index: AtomicUsize,
    generation: AtomicU32,
    /// Operations in a row that did not wait.
    streak: AtomicU32,
}

/// After so many operations that did not wait, the others run first.
const STREAK: u32 = 32;

impl Fd {
    /// Registers `number`. An error of the kernel's if it cannot be waited for (`EPERM`: a plain file).
    pub fn new(number: RawFd) -> io::Result<Fd> {
        let side = || {
            Lock::new(Side {
                edge: false,
                drained: false,
                ended: false,
                closed: false,
                deadline: None,
                queue: WaitQueue::new(),
            })
        };
        let shared = Arc::new(Shared { read: side(), write: side() });
        let index = runtime().netpoll.register(number, &shared)?;
        let generation = AtomicU32::new(crate::fork::generation());
        Ok(Fd { number, shared, index: AtomicUsize::new(index), generation, streak: AtomicU32::new(0) })
    }

    /// Through which a model hands out edges.
    #[cfg(loom)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The descriptor's number.
    pub fn number(&self) -> RawFd {
        self.number
    }

    /// Whether [`Fd::close`] was called.
    pub fn closed(&self) -> bool {
        self.shared.read.lock().closed
    }

    /// In a forked child: registers it with the child's own poller.
    #[cold]
    fn register_again(&self) {
        // On failure the waits of this process are woken by deadlines and `close` only; the number is not good for more.
        if let Ok(index) = runtime().netpoll.register(self.number, &self.shared) {
            self.index.store(index, Ordering::Relaxed);
        }
        self.generation.store(crate::fork::generation(), Ordering::Relaxed);
    }

    /// Tries `attempt`, which must not wait, until it gives something; waits in between, until `deadline` or the side's own at
    /// the latest. A deadline of the side that is over fails before anything is tried, one of the call only when it would wait.
    pub fn run<R>(
        &self,
        direction: Direction,
        deadline: Deadline,
        mut attempt: impl FnMut(RawFd) -> Attempt<R>,
    ) -> Result<R, FdError> {
        if self.streak.fetch_add(1, Ordering::Relaxed) >= STREAK {
            self.streak.store(0, Ordering::Relaxed);
            if crate::scheduler::current().is_some() {
                crate::scheduler::gosched();
            }
        }
        let mut woken = false;
        loop {
            let mut side = self.enter(direction)?;
            if woken || side.edge || side.ended || !side.drained {
                side.edge = false;
                match attempt(self.number) {
                    Attempt::Done(result) => {
                        side.drained = false;
                        return Ok(result);
                    }
                    Attempt::Drained(result) => {
                        side.drained = true;
                        return Ok(result);
                    }
                    Attempt::Again => {}
                }
            }
            self.block(side, direction, deadline)?;
            woken = true;
        }
    }

    /// Waits until something happens in this direction that no attempt has used. For who makes attempts of its own: one that
    /// gives nothing, then this, and so on. What it leaves is there for the next [`Fd::run`], without another edge.
    pub fn wait(&self, direction: Direction, deadline: Deadline) -> Result<(), FdError> {
        loop {
            let mut side = self.enter(direction)?;
            // What attempts are made elsewhere is not known here, nor what they leave.
            side.drained = false;
            if std::mem::take(&mut side.edge) {
                return Ok(());
            }
            if self.block(side, direction, deadline)? {
                // What has come by now the caller's attempt will find.
                self.shared.side(direction).lock().edge = false;
                return Ok(());
            }
        }
    }

    /// Fails as an operation in this direction would before it tries anything: when the descriptor is closed, or the side's
    /// deadline over. For who makes attempts of its own.
    pub fn check(&self, direction: Direction) -> Result<(), FdError> {
        self.enter(direction).map(drop)
    }

    /// Locks a side that is open and whose deadline is not over.
    fn enter(&self, direction: Direction) -> Result<Guard<'_, Side>, FdError> {
        if self.generation.load(Ordering::Relaxed) != crate::fork::generation() {
            self.register_again();
        }
        let side = self.shared.side(direction).lock();
        if side.closed {
            return Err(FdError::Closed);
        }
        if side.deadline.is_some_and(|when| when <= now()) {
            return Err(FdError::TimedOut);
        }
        Ok(side)
    }

    /// Waits to be woken; whether by an edge.
    fn block(&self, mut side: Guard<'_, Side>, direction: Direction, deadline: Deadline) -> Result<bool, FdError> {
        let until = match (deadline, side.deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if until.is_some_and(|when| when <= now()) {
            return Err(FdError::TimedOut);
        }
        self.streak.store(0, Ordering::Relaxed);
        let party = Party::new();
        let ticket = party.parker().arm();
        let waiter = Waiter::new(party.parker(), ticket, 0, None);
        side.queue.push_back(&waiter);
        drop(side);
        let runtime = runtime();
        // Somebody must be there to ask the kernel.
        wake_up(runtime);
        runtime.netpoll.waiting.fetch_add(1, Ordering::Relaxed);
        let code = party.block(ticket, WaitReason::Io, &[], until);
        runtime.netpoll.waiting.fetch_sub(1, Ordering::Relaxed);
        if code == 0 {
            return Ok(waiter.granted());
        }
        self.shared.side(direction).lock().queue.remove(&waiter);
        Err(if code == CANCELLED { FdError::Cancelled } else { FdError::TimedOut })
    }

    /// Operations in this direction fail with [`FdError::TimedOut`] from `deadline` on, those that wait already too.
    pub fn set_deadline(&self, direction: Direction, deadline: Deadline) {
        self.shared.wake(direction, false, |side| side.deadline = deadline);
    }

    /// Fails all operations, those that wait too, and ends the registration; false if that was done before. The number may be
    /// closed afterwards.
    pub fn close(&self) -> bool {
        let mut first = false;
        for direction in [Direction::Read, Direction::Write] {
            self.shared.wake(direction, false, |side| first = !std::mem::replace(&mut side.closed, true));
        }
        if first {
            runtime().netpoll.deregister(self.number, self.index.load(Ordering::Relaxed), &self.shared);
        }
        first
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        self.close();
    }
}
