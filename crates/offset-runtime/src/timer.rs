//! Timers: one heap for the process, ordered by time.
//!
//! An entry is either the deadline of a parked goroutine, whose node lies on its stack and is removed before the stack goes
//! on, or a counted [`Alarm`]. Deadlines are claimed under the heap's lock, so that a node is never used after its owner
//! removed it. Alarms are rung outside the heap's lock but under `FIRING`, which a fork takes.

use crate::clock::Instant;
use crate::lock::Lock;
use crate::park::{Claim, Parker, TIMED_OUT, Ticket};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Held while alarms ring.
pub(crate) static FIRING: parking_lot::Mutex<()> = parking_lot::const_mutex(());

const OUT: u32 = u32::MAX;
/// Children of a heap node.
const WIDTH: usize = 4;

/// Something that rings at a time. `ring` runs on a machine, without the host, and must not wait.
pub(crate) trait Alarm: Send + Sync {
    /// Its place in the heap.
    fn node(&self) -> &Node;
    /// The time has come. `turn` tells this arming from later ones.
    fn ring(&self, turn: u64, now: Instant);
}

/// A place in the heap. All fields are under the heap's lock.
pub(crate) struct Node {
    index: Cell<u32>,
    /// Counts armings.
    turn: Cell<u64>,
    /// Nanoseconds between rings; 0 for a single one.
    period: Cell<u64>,
}

// SAFETY: the cells are only touched under the heap's lock.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

impl Node {
    pub(crate) fn new() -> Node {
        Node { index: Cell::new(OUT), turn: Cell::new(0), period: Cell::new(0) }
    }
}

enum What {
    Deadline { parker: *const Parker, ticket: Ticket, node: *const Node },
    Ring(Arc<dyn Alarm>),
}

struct Entry {
    when: Instant,
    what: What,
}

impl Entry {
    fn node(&self) -> &Node {
        match &self.what {
            // SAFETY: the owner removes the entry before its node goes away.
            What::Deadline { node, .. } => unsafe { &**node },
            What::Ring(alarm) => alarm.node(),
        }
    }
}

/// The heap.
pub(crate) struct Timers {
    heap: Lock<Vec<Entry>>,
    /// The earliest time in the heap, `u64::MAX` when it is empty. Written under the lock, read anywhere.
    next: AtomicU64,
}

// SAFETY: the raw pointers in entries obey the rules at the top of this file.
unsafe impl Send for Timers {}
// SAFETY: as above.
unsafe impl Sync for Timers {}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers { heap: Lock::new(Vec::new()), next: AtomicU64::new(u64::MAX) }
    }

    /// The earliest time that is waited for; `u64::MAX` when there is none.
    pub(crate) fn next(&self) -> Instant {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.lock().len()
    }

    /// Ends the wait `ticket` as timed out at `when`. True if this is now the earliest of all.
    ///
    /// # Safety
    /// `node` and `parker` stay where they are until [`Timers::remove`] has been called for `node`.
    pub(crate) unsafe fn add_deadline(
        &self,
        when: Instant,
        parker: *const Parker,
        ticket: Ticket,
        node: &Node,
    ) -> bool {
        self.insert(&mut self.heap.lock(), Entry { when, what: What::Deadline { parker, ticket, node } })
    }

    /// Rings `alarm` at `when`, and every `period` nanoseconds from then on unless that is 0, instead of what it was set to
    /// before. Gives whether it was set, and whether it is now the earliest of all.
    pub(crate) fn set(&self, alarm: &Arc<dyn Alarm>, when: Instant, period: u64) -> (bool, bool) {
        let mut heap = self.heap.lock();
        let was = self.take(&mut heap, alarm.node());
        alarm.node().period.set(period);
        let earliest = self.insert(&mut heap, Entry { when, what: What::Ring(alarm.clone()) });
        drop(heap);
        let was_set = was.is_some();
        drop(was);
        (was_set, earliest)
    }

    /// Takes the entry of `node` out; false if it is not in (any more).
    pub(crate) fn remove(&self, node: &Node) -> bool {
        let mut heap = self.heap.lock();
        let was = self.take(&mut heap, node);
        // The entry may own the last reference to an alarm, whose drop is foreign code.
        drop(heap);
        was.is_some()
    }

    /// The turn of an alarm's present arming.
    pub(crate) fn turn(&self, node: &Node) -> u64 {
        let _heap = self.heap.lock();
        node.turn.get()
    }

    fn insert(&self, heap: &mut Vec<Entry>, entry: Entry) -> bool {
        let at = heap.len();
        entry.node().index.set(at as u32);
        entry.node().turn.set(entry.node().turn.get() + 1);
        heap.push(entry);
        let at = sift_up(heap, at);
        self.next.store(heap[0].when, Ordering::Relaxed);
        at == 0
    }

    fn take(&self, heap: &mut Vec<Entry>, node: &Node) -> Option<Entry> {
        let at = node.index.replace(OUT);
        if at == OUT {
            return None;
        }
        let at = at as usize;
        let entry = heap.swap_remove(at);
        if at < heap.len() {
            heap[at].node().index.set(at as u32);
            let at = sift_up(heap, at);
            sift_down(heap, at);
        }
        self.next.store(heap.first().map_or(u64::MAX, |first| first.when), Ordering::Relaxed);
        Some(entry)
    }

    /// Does all that is due at `now`; gives how much that was.
    pub(crate) fn run(&self, now: Instant) -> usize {
        let mut count = 0;
        loop {
            let mut claims = [Claim::Lost; 32];
            let mut won = 0;
            let mut rings = None;
            let mut heap = self.heap.lock();
            while won < claims.len() {
                let Some(first) = heap.first() else { break };
                if first.when > now {
                    break;
                }
                match &first.what {
                    What::Deadline { parker, ticket, .. } => {
                        // SAFETY: the owner cannot leave its wait before it has removed the node under this lock.
                        claims[won] = unsafe { (**parker).claim(*ticket, TIMED_OUT) };
                        won += 1;
                        let node: *const Node = first.node();
                        // SAFETY: as above; the deadline's entry owns nothing.
                        drop(self.take(&mut heap, unsafe { &*node }));
                    }
                    What::Ring(alarm) => {
                        let alarm = alarm.clone();
                        let (turn, period) = (alarm.node().turn.get(), alarm.node().period.get());
                        if period == 0 {
                            let was = self.take(&mut heap, alarm.node());
                            rings = Some((alarm, turn, was));
                        } else {
                            // Go's rule: rings that were missed are left out.
                            let when = first.when;
                            heap[0].when = when + period * (1 + (now - when) / period);
                            sift_down(&mut heap, 0);
                            self.next.store(heap[0].when, Ordering::Relaxed);
                            rings = Some((alarm, turn, None));
                        }
                        break;
                    }
                }
            }
            drop(heap);
            for claim in &claims[..won] {
                claim.wake();
            }
            count += won;
            match rings {
                Some((alarm, turn, was)) => {
                    let _firing = FIRING.lock();
                    alarm.ring(turn, now);
                    drop(was);
                    count += 1;
                }
                None if won == 0 => return count,
                None => {}
            }
        }
    }
}

fn sift_up(heap: &mut [Entry], mut at: usize) -> usize {
    while at > 0 {
        let parent = (at - 1) / WIDTH;
        if heap[parent].when <= heap[at].when {
            break;
        }
        swap(heap, at, parent);
        at = parent;
    }
    at
}

fn sift_down(heap: &mut [Entry], mut at: usize) {
    loop {
        let first = at * WIDTH + 1;
        let last = (first + WIDTH).min(heap.len());
        let Some(least) = (first..last).min_by_key(|&child| heap[child].when) else { break };
        if heap[at].when <= heap[least].when {
            break;
        }
        swap(heap, at, least);
        at = least;
    }
}

fn swap(heap: &mut [Entry], one: usize, other: usize) {
    heap.swap(one, other);
    heap[one].node().index.set(one as u32);
    heap[other].node().index.set(other as u32);
}
