//! Timers: one heap for the process, ordered by time.
//!
//! An entry is either the deadline of a parked goroutine, whose node lies on its stack and is out of the heap before the stack
//! goes on, or a counted [`Alarm`]. Deadlines are taken out and then claimed, under the heap's lock: by the claim the node is its
//! owner's again, who removes it himself if the wait ended in another way. Alarms are rung outside the heap's lock but under
//! `FIRING`, which a fork takes.

use crate::clock::Instant;
use crate::lock::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::lock::{Cell, Lock, global};
use crate::park::{Claim, Parker, TIMED_OUT, Ticket};
use std::sync::Arc;

global! {
    /// Held while alarms ring.
    pub(crate) static FIRING: Lock<()> = Lock::new(());
}

const OUT: u32 = u32::MAX;
/// An empty heap keeps room for so many entries.
const KEPT: usize = 4_096;
/// Children of a heap node.
const WIDTH: usize = 4;

/// Something that rings at a time. `ring` runs on a machine, without the host, and must not wait.
pub(crate) trait Alarm: Send + Sync {
    /// Its place in the heap.
    fn node(&self) -> &Node;
    /// The time has come. `turn` tells this arming from later ones.
    fn ring(&self, turn: u64, now: Instant);
    /// It will never ring: gives what it was to start.
    fn abandon(&self) -> Option<crate::goroutine::Handle> {
        None
    }
}

/// Names an entry of the heap. All fields are under the heap's lock.
pub(crate) struct Node {
    /// The entry's slot; `OUT` while there is no entry. Atomic because a model must see what happens between two accesses.
    slot: AtomicU32,
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
        Node { slot: AtomicU32::new(OUT), turn: Cell::new(0), period: Cell::new(0) }
    }

    /// Whether it has no entry. For its owner, once nobody else knows the node, or under the heap's lock.
    pub(crate) fn is_out(&self) -> bool {
        self.slot.load(Ordering::Relaxed) == OUT
    }
}

enum What {
    Deadline { parker: *const Parker, ticket: Ticket, node: *const Node },
    Ring(Arc<dyn Alarm>),
}

struct Entry {
    when: Instant,
    slot: u32,
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

/// The entries, ordered as a heap. Where each is stands in a table of its own and not in its node: nodes lie on as many stacks, and
/// to write to each that moves took longer than all the rest.
struct Heap {
    entries: Vec<Entry>,
    /// By slot: the place of its entry in `entries`.
    places: Vec<u32>,
    spare: Vec<u32>,
}

/// The timers of the process.
pub(crate) struct Timers {
    heap: Lock<Heap>,
    /// The earliest time in the heap, `u64::MAX` when it is empty. Written under the lock, read anywhere.
    next: AtomicU64,
}

// SAFETY: the raw pointers in entries obey the rules at the top of this file.
unsafe impl Send for Timers {}
// SAFETY: as above.
unsafe impl Sync for Timers {}

impl Timers {
    pub(crate) fn new() -> Timers {
        let heap = Heap { entries: Vec::new(), places: Vec::new(), spare: Vec::new() };
        Timers { heap: Lock::new(heap), next: AtomicU64::new(u64::MAX) }
    }

    /// The earliest time that is waited for; `u64::MAX` when there is none.
    pub(crate) fn next(&self) -> Instant {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.lock().entries.len()
    }

    /// Ends the wait `ticket` as timed out at `when`. True if this is now the earliest of all.
    ///
    /// # Safety
    /// `node` and `parker` stay where they are until the wait has ended as timed out or [`Timers::remove`] was called for `node`.
    pub(crate) unsafe fn add_deadline(
        &self,
        when: Instant,
        parker: *const Parker,
        ticket: Ticket,
        node: &Node,
    ) -> bool {
        self.insert(&mut self.heap.lock(), when, What::Deadline { parker, ticket, node })
    }

    /// Rings `alarm` at `when`, and every `period` nanoseconds from then on unless that is 0, instead of what it was set to
    /// before. Gives whether it was set, and whether it is now the earliest of all.
    pub(crate) fn set(&self, alarm: &Arc<dyn Alarm>, when: Instant, period: u64) -> (bool, bool) {
        let mut heap = self.heap.lock();
        let was = self.take(&mut heap, alarm.node());
        alarm.node().period.set(period);
        let earliest = self.insert(&mut heap, when, What::Ring(alarm.clone()));
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

    fn insert(&self, heap: &mut Heap, when: Instant, what: What) -> bool {
        let slot = heap.spare.pop().unwrap_or_else(|| {
            heap.places.push(OUT);
            heap.places.len() as u32 - 1
        });
        let entry = Entry { when, slot, what };
        let node = entry.node();
        node.slot.store(slot, Ordering::Relaxed);
        node.turn.set(node.turn.get() + 1);
        let at = heap.entries.len();
        heap.entries.push(entry);
        let at = heap.sift_up(at);
        self.next.store(heap.entries[0].when, Ordering::Relaxed);
        at == 0
    }

    fn take(&self, heap: &mut Heap, node: &Node) -> Option<Entry> {
        let slot = node.slot.load(Ordering::Relaxed);
        node.slot.store(OUT, Ordering::Relaxed);
        if slot == OUT {
            return None;
        }
        let at = heap.places.get(slot as usize).map_or(OUT, |&at| at) as usize;
        if !heap.entries.get(at).is_some_and(|entry| std::ptr::eq(entry.node(), node)) {
            // Set before a fork: the heap that it was in stayed behind in the parent.
            return None;
        }
        heap.spare.push(slot);
        let entry = heap.entries.swap_remove(at);
        if at < heap.entries.len() {
            let at = heap.sift_up(at);
            heap.sift_down(at);
        } else if heap.entries.is_empty() && heap.entries.capacity() > KEPT {
            // A burst of timers does not hold its memory for ever.
            *heap = Heap { entries: Vec::new(), places: Vec::new(), spare: Vec::new() };
        }
        self.next.store(heap.entries.first().map_or(u64::MAX, |first| first.when), Ordering::Relaxed);
        Some(entry)
    }

    /// Takes all alarms out; there are no deadlines.
    pub(crate) fn drain(&self) -> Vec<Arc<dyn Alarm>> {
        let mut heap = self.heap.lock();
        let mut alarms = Vec::new();
        while let Some(first) = heap.entries.first() {
            if let What::Ring(alarm) = &first.what {
                alarms.push(alarm.clone());
            }
            let node = std::ptr::from_ref(first.node());
            // SAFETY: the entry that is taken out gives its node up only then. What it owns is held by `alarms`.
            drop(self.take(&mut heap, unsafe { &*node }));
        }
        alarms
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
                let Some(first) = heap.entries.first() else { break };
                if first.when > now {
                    break;
                }
                match &first.what {
                    &What::Deadline { parker, ticket, node } => {
                        // Before the claim: an owner that has not parked yet goes on as soon as it is claimed.
                        // SAFETY: the owner does not leave its wait while the node is in the heap; the entry owns nothing.
                        drop(self.take(&mut heap, unsafe { &*node }));
                        // SAFETY: it leaves once it is claimed by us, or has removed the node under this lock.
                        claims[won] = unsafe { (*parker).claim(ticket, TIMED_OUT) };
                        won += 1;
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
                            heap.entries[0].when = when + period * (1 + (now - when) / period);
                            heap.sift_down(0);
                            self.next.store(heap.entries[0].when, Ordering::Relaxed);
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

impl Heap {
    /// Moves the entry at `at` up to where it belongs, and notes its place.
    fn sift_up(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let parent = (at - 1) / WIDTH;
            if self.entries[parent].when <= self.entries[at].when {
                break;
            }
            self.entries.swap(at, parent);
            self.note(at);
            at = parent;
        }
        self.note(at);
        at
    }

    /// Moves the entry at `at` down to where it belongs, and notes its place.
    fn sift_down(&mut self, mut at: usize) {
        loop {
            let first = at * WIDTH + 1;
            let last = (first + WIDTH).min(self.entries.len());
            let Some(least) = (first..last).min_by_key(|&child| self.entries[child].when) else { break };
            if self.entries[at].when <= self.entries[least].when {
                break;
            }
            self.entries.swap(at, least);
            self.note(at);
            at = least;
        }
        self.note(at);
    }

    fn note(&mut self, at: usize) {
        self.places[self.entries[at].slot as usize] = at as u32;
    }
}
