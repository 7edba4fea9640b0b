//! The poller: which descriptors are registered, who waits in the kernel for them, and who is woken by what it says.
//!
//! A descriptor is registered edge-triggered, once for its life. The kernel is asked by an idle machine, which then sleeps there and
//! not on its processor's condition; by a busy one every so many goroutines; and by the monitor when neither has happened for
//! some time. One thread at a time is in the poller (`turn`); whoever finds it taken goes on.
//!
//! An edge is a hint: it makes whoever waits for the descriptor try again. So one that comes late, for a number that has
//! been used again, does no harm; it finds the entry's generation changed and wakes nobody.
//!
//! Locks, in this order: `turn`, held in the kernel and while edges are handed out; `DELIVERING`, which a fork takes; `table`; a side
//! of a descriptor (see `fd`); a processor. None is held over anything that waits.

#![expect(clippy::disallowed_types, reason = "a forked child has another poller")]

use crate::clock::{self, Instant};
use crate::fd::Shared;
use crate::lock::{Lock, global};
use crate::scheduler::runtime;
use crate::vigil::Vigil;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

global! {
    /// Held while edges are handed out.
    pub(crate) static DELIVERING: Lock<()> = Lock::new(());
}

/// Edges that are taken from the kernel at once.
const BATCH: usize = 256;
/// A machine that always has something to run asks the kernel once in so many goroutines.
pub(crate) const ROUNDS: u64 = 61;
/// The monitor asks when nobody has for so long.
pub(crate) const NEGLECTED: Instant = 10_000_000;

/// Urgent data is asked for because it ends a read: see `tell`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

const WAKER: Token = Token(usize::MAX);
const CLOCK: Token = Token(usize::MAX - 1);

/// See the module.
pub(crate) struct Netpoll {
    kernel: OnceLock<Kernel>,
    table: Lock<Table>,
    /// Entries of `table`.
    registered: AtomicUsize,
    /// Who waits for a descriptor: something that may wake them can happen any time.
    pub(crate) waiting: AtomicUsize,
    asked_at: AtomicU64,
    /// Of the machine that is about to sleep here.
    pub(crate) vigil: Vigil,
}

/// Made with the first registration.
struct Kernel {
    turn: Lock<Turn>,
    registry: Registry,
    waker: Waker,
}

struct Turn {
    poll: Poll,
    events: Events,
    clock: kernel_clock::Clock,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    spare: Vec<usize>,
    by_number: HashMap<RawFd, usize>,
}

#[derive(Default)]
struct Slot {
    /// Goes up when the slot is given up. The token has most of it.
    generation: u32,
    /// All that were made for the number while it was the same file's.
    entries: Vec<Arc<Shared>>,
}

fn token(index: usize, generation: u32) -> Token {
    Token(index | (generation as usize & 0x7fff_ffff) << 32)
}

impl Netpoll {
    pub(crate) fn new() -> Netpoll {
        Netpoll {
            kernel: OnceLock::new(),
            table: Lock::new(Table::default()),
            registered: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            asked_at: AtomicU64::new(0),
            vigil: Vigil::new(),
        }
    }

    /// Has the kernel tell what happens to the descriptor `number`.
    pub(crate) fn register(&self, number: RawFd, shared: &Arc<Shared>) -> io::Result<usize> {
        let kernel = match self.kernel.get() {
            Some(kernel) => kernel,
            None => {
                let made = Kernel::new()?;
                self.kernel.get_or_init(|| made)
            }
        };
        let mut table = self.table.lock();
        if let Some(&index) = table.by_number.get(&number) {
            let slot = &mut table.slots[index];
            let token = token(index, slot.generation);
            if kernel.registry.reregister(&mut SourceFd(&number), token, INTEREST).is_ok() {
                slot.entries.push(shared.clone());
                return Ok(index);
            }
            // It was closed behind our back, which took it from the kernel's list, and its number was used again.
            table.by_number.remove(&number);
            let stale = table.free(index);
            self.registered.fetch_sub(1, Ordering::Relaxed);
            drop(table);
            stale.iter().for_each(|entry| entry.stale());
            table = self.table.lock();
        }
        let index = table.spare.pop().unwrap_or_else(|| {
            table.slots.push(Slot::default());
            table.slots.len() - 1
        });
        let token = token(index, table.slots[index].generation);
        if let Err(error) = kernel.registry.register(&mut SourceFd(&number), token, INTEREST) {
            table.spare.push(index);
            return Err(error);
        }
        table.slots[index].entries.push(shared.clone());
        table.by_number.insert(number, index);
        let first = self.registered.fetch_add(1, Ordering::Relaxed) == 0;
        drop(table);
        if first {
            // Machines that sleep already do so elsewhere.
            runtime().poke();
        }
        Ok(index)
    }

    /// Ends a registration, before the descriptor is closed. Nothing happens if the number has been registered again.
    pub(crate) fn deregister(&self, number: RawFd, index: usize, shared: &Arc<Shared>) {
        let Some(kernel) = self.kernel.get() else { return };
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(index) else { return };
        let Some(at) = slot.entries.iter().position(|entry| Arc::ptr_eq(entry, shared)) else { return };
        slot.entries.swap_remove(at);
        if !slot.entries.is_empty() {
            return;
        }
        // It fails if somebody else has closed it, and then there is nothing to do.
        let _ = kernel.registry.deregister(&mut SourceFd(&number));
        table.by_number.remove(&number);
        table.free(index);
        self.registered.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is anything to ask the kernel for.
    #[inline]
    pub(crate) fn in_use(&self) -> bool {
        self.registered.load(Ordering::Relaxed) > 0
    }

    /// How many descriptors are registered.
    pub(crate) fn len(&self) -> usize {
        self.registered.load(Ordering::Relaxed)
    }

    /// Takes the poller if it is free. To be asked only when `in_use`.
    pub(crate) fn enter(&self) -> Option<Visit<'_>> {
        let kernel = self.kernel.get()?;
        Some(Visit { netpoll: self, turn: kernel.turn.try_lock()? })
    }

    /// Hands out what has happened, without waiting.
    pub(crate) fn glance(&self) {
        if let Some(mut visit) = self.enter() {
            visit.wait(Some(0));
            visit.deliver();
            // Who went to sleep meanwhile found the poller taken, and sleeps elsewhere.
            for processor in &runtime().processors {
                let mut state = processor.lock();
                if !state.polling {
                    state.rouse();
                }
            }
        }
    }

    /// Whether nobody has asked the kernel for long.
    pub(crate) fn neglected(&self, now: Instant) -> bool {
        self.in_use() && now.saturating_sub(self.asked_at.load(Ordering::Relaxed)) >= NEGLECTED
    }

    /// Wakes who waits in the kernel, or makes the next one come back at once.
    pub(crate) fn wake(&self) {
        if let Some(kernel) = self.kernel.get() {
            // It can only fail when the counter is full, and then the kernel comes back as well.
            let _ = kernel.waker.wake();
        }
    }

    /// In a forked child: closes the parent's descriptors of the poller.
    pub(crate) fn start_over(&self) {
        if let Some(kernel) = self.kernel.get() {
            // SAFETY: the child has one thread, which is here and never looks at this again: the runtime that this belongs to has
            // been replaced. The lock may be held by a thread of the parent, so it is not asked.
            unsafe { std::ptr::drop_in_place(std::ptr::from_ref(kernel).cast_mut()) };
        }
    }
}

impl Kernel {
    fn new() -> io::Result<Kernel> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKER)?;
        let clock = kernel_clock::Clock::new(&registry, CLOCK)?;
        let turn = Lock::new(Turn { poll, events: Events::with_capacity(BATCH), clock });
        Ok(Kernel { turn, registry, waker })
    }
}

impl Table {
    fn free(&mut self, index: usize) -> Vec<Arc<Shared>> {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        self.spare.push(index);
        std::mem::take(&mut slot.entries)
    }
}

/// The calling thread has the poller.
pub(crate) struct Visit<'a> {
    netpoll: &'a Netpoll,
    turn: crate::lock::Guard<'a, Turn>,
}

impl Visit<'_> {
    /// Waits in the kernel until something happens, somebody calls [`Netpoll::wake`], or `until`: at once if that is 0.
    pub(crate) fn wait(&mut self, until: Option<Instant>) {
        let Turn { poll, events, clock } = &mut *self.turn;
        let timeout = match until {
            None => None,
            Some(0) => Some(Duration::ZERO),
            Some(until) => clock.set(until),
        };
        if poll.poll(events, timeout).is_err() {
            // Interrupted: whoever asked looks again.
            events.clear();
        }
        self.netpoll.asked_at.store(clock::now(), Ordering::Relaxed);
    }

    /// Whether something has happened.
    pub(crate) fn any(&self) -> bool {
        !self.turn.events.is_empty()
    }

    /// Makes those runnable for whom something has happened.
    pub(crate) fn deliver(self) {
        if self.turn.events.is_empty() {
            return;
        }
        let _delivering = DELIVERING.lock();
        let table = self.netpoll.table.lock();
        for event in &self.turn.events {
            let Token(word) = event.token();
            if event.token() == WAKER || event.token() == CLOCK {
                continue;
            }
            let index = word & 0xffff_ffff;
            if let Some(slot) = table.slots.get(index)
                && token(index, slot.generation) == event.token()
            {
                slot.entries.iter().for_each(|entry| tell(entry, event));
            }
        }
    }
}

fn tell(entry: &Shared, event: &Event) {
    let failed = event.is_error();
    let (read_ended, write_ended) = (event.is_read_closed() || failed, event.is_write_closed() || failed);
    // A read stops before an urgent byte, and what came after it brings no edge of its own: short answers prove nothing any more.
    let cut = event.is_priority();
    if event.is_readable() || read_ended || cut {
        entry.edge(crate::fd::Direction::Read, read_ended || cut);
    }
    if event.is_writable() || write_ended {
        entry.edge(crate::fd::Direction::Write, write_ended);
    }
}

#[cfg(target_os = "linux")]
mod kernel_clock {
    //! The kernel counts the poller's time in milliseconds; timers are finer.
    use crate::clock::{self, Instant};
    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::time::Duration;

    /// From so long on a millisecond does not matter.
    const COARSE: u64 = 100_000_000;

    pub(super) struct Clock {
        timer: OwnedFd,
        armed: Instant,
    }

    impl Clock {
        pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Clock> {
            // SAFETY: a plain system call, whose answer is checked before it is owned.
            let timer = unsafe {
                let number = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
                if number < 0 {
                    return Err(io::Error::last_os_error());
                }
                OwnedFd::from_raw_fd(number)
            };
            registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Clock { timer, armed: 0 })
        }

        /// Has the poller come back at `until`; the timeout to give it.
        pub(super) fn set(&mut self, until: Instant) -> Option<Duration> {
            let left = until.saturating_sub(clock::now());
            if left == 0 || left >= COARSE {
                return Some(Duration::from_nanos(left));
            }
            if self.armed != until {
                let value = libc::timespec { tv_sec: 0, tv_nsec: left as libc::c_long };
                let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                let setting = libc::itimerspec { it_interval: never, it_value: value };
                // SAFETY: both pointers are good for the call.
                if unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) }
                    < 0
                {
                    return Some(Duration::from_nanos(left));
                }
                self.armed = until;
            }
            None
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel_clock {
    //! The poller's own timeout does.
    use crate::clock::{self, Instant};
    use mio::{Registry, Token};
    use std::io;
    use std::time::Duration;

    pub(super) struct Clock;

    impl Clock {
        pub(super) fn new(_registry: &Registry, _token: Token) -> io::Result<Clock> {
            Ok(Clock)
        }

        pub(super) fn set(&mut self, until: Instant) -> Option<Duration> {
            Some(Duration::from_nanos(until.saturating_sub(clock::now())))
        }
    }
}
