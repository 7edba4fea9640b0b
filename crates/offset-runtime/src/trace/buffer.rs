//! The memory that events are written to: chunks, the buffer of a writer, and the recorder that keeps the chunks.
//!
//! Invariants:
//! * A chunk has one writer, for its life. Words below `len` are written and never change; the writer publishes them by a Release
//!   store of `len`, and anybody may read them after an Acquire load of it, at any moment, without stopping the writer.
//! * A buffer's chunk is of the generation that its writer last saw. When recording starts or ends the generation goes up, so a
//!   writer that comes late writes into a chunk that nobody reads any more, and takes a new one with its next event.
//! * The recorder's lock is a leaf. It is taken once in 4,095 words.

use super::clock::ticks;
use super::{EVENTS, GENERATION_SHIFT, generation_of, stop_events};
use crate::lock::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

/// Words of a chunk. A model has few, so that a writer soon needs another one.
pub(crate) const WORDS: usize = if cfg!(loom) { 2 } else { 4_096 };
pub(crate) const CHUNK_BYTES: usize = WORDS * size_of::<u64>();

// A record: one word, and for some kinds further ones.
pub(crate) const KIND_BITS: u32 = 7;
/// The clock was read because the monitor's tick has gone up: what was not stamped before it was over long ago.
pub(crate) const FORCED: u64 = 1 << KIND_BITS;
pub(crate) const DELTA_SHIFT: u32 = KIND_BITS + 1;
/// In units of four ticks since the last stamp.
pub(crate) const DELTA_MASK: u64 = (1 << 24) - 1;
/// The clock was not read.
pub(crate) const UNSTAMPED: u64 = DELTA_MASK;
pub(crate) const ID_SHIFT: u32 = 32;
pub(crate) const TICKS_A_UNIT: u32 = 2;

/// Events that follow each other within so many units (about 200 ns) are fast ...
const FAST: u64 = 128;
/// ... and after so many fast ones in a row ...
const FAST_IN_A_ROW: u32 = 16;
/// ... the clock, which costs as much as all the rest, is read for one event in sixteen.
const SKIPPED: u32 = 15;

/// See the module.
pub(crate) struct Chunk {
    /// The machine that wrote it; 0 for everybody else.
    pub(crate) track: u32,
    pub(crate) generation: u64,
    /// The clock, when it was taken.
    pub(crate) base: u64,
    /// The clock, when its writer had done with it; 0 until then.
    sealed: AtomicU64,
    len: AtomicUsize,
    words: Box<[AtomicU64]>,
}

impl Chunk {
    pub(crate) fn new(track: u32, generation: u64, base: u64) -> Chunk {
        Chunk {
            track,
            generation,
            base,
            sealed: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What has been written so far.
    pub(crate) fn read(&self) -> Vec<u64> {
        // Acquire pairs with the Release of `publish`.
        let len = self.len.load(Ordering::Acquire);
        self.words[..len].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// By the writer alone.
    #[inline]
    pub(crate) fn put(&self, at: usize, word: u64) {
        self.words[at].store(word, Ordering::Relaxed);
    }

    /// By the writer alone.
    #[inline]
    pub(crate) fn publish(&self, len: usize) {
        // Release pairs with the Acquire of `read`.
        self.len.store(len, Ordering::Release);
    }
}

/// What one writer has: touched by its thread only, or under a lock.
pub(crate) struct Buffer {
    /// Counted: the recorder may have let go of it.
    chunk: *const Chunk,
    used: usize,
    /// The last mode (see `trace`) that it wrote under.
    seen: u64,
    /// The clock at the last stamp.
    last: u64,
    fast: u32,
    skip: u32,
    /// How many events the next stamp is for.
    group: u64,
    /// That a goroutine gave the stack back, not written yet: most often another one runs next, and one word says both. 0 for none.
    pending: u64,
}

// SAFETY: the chunk is shared by the rules at the top of this file.
unsafe impl Send for Buffer {}

impl Buffer {
    pub(crate) const fn new() -> Buffer {
        Buffer { chunk: std::ptr::null(), used: 0, seen: 0, last: 0, fast: 0, skip: 0, group: 1, pending: 0 }
    }

    /// Makes room for `words` under `mode` and two more, and takes note of the monitor's tick. Whether that has gone up.
    #[inline]
    fn prepare(&mut self, track: u32, mode: u64, words: usize) -> bool {
        self.settle();
        if self.seen == mode && self.used + words + 2 <= WORDS {
            return false;
        }
        self.renew(track, mode, words)
    }

    /// Writes what is pending.
    pub(crate) fn settle(&mut self) {
        if self.pending != 0 {
            let word = std::mem::take(&mut self.pending);
            self.push(word);
            self.publish();
        }
    }

    #[cold]
    fn renew(&mut self, track: u32, mode: u64, words: usize) -> bool {
        let same = generation_of(self.seen) == generation_of(mode) && !self.chunk.is_null();
        self.seen = mode;
        if same && self.used + words + 2 <= WORDS {
            let forced = self.skip > 0;
            self.skip = 0;
            return forced;
        }
        self.end();
        self.last = ticks();
        let chunk = super::RECORDER.lock().take(track, generation_of(mode), self.last);
        self.chunk = Arc::into_raw(chunk);
        (self.fast, self.skip, self.group) = (0, 0, 1);
        false
    }

    /// Lets the chunk go.
    pub(crate) fn end(&mut self) {
        self.settle();
        if !self.chunk.is_null() {
            // SAFETY: the reference is this buffer's.
            let chunk = unsafe { Arc::from_raw(self.chunk) };
            chunk.sealed.store(ticks(), Ordering::Relaxed);
        }
        self.chunk = std::ptr::null();
        self.used = 0;
    }

    /// Lets the parent's chunk go, without a look at it.
    #[cfg(not(loom))]
    pub(crate) fn forget(&mut self) {
        *self = Buffer::new();
    }

    #[inline]
    fn push(&mut self, word: u64) {
        // SAFETY: counted by this buffer; `prepare` has made one.
        unsafe { (*self.chunk).put(self.used, word) };
        self.used += 1;
    }

    #[inline]
    fn publish(&self) {
        // SAFETY: as in `push`.
        unsafe { (*self.chunk).publish(self.used) };
    }

    /// What the clock says, in units since the last stamp. What does not fit into a record gets one of its own.
    fn stamp(&mut self) -> u64 {
        let now = ticks();
        let units = now.saturating_sub(self.last) >> TICKS_A_UNIT;
        if units < FAST * self.group {
            self.fast += 1;
        } else {
            self.fast = 0;
        }
        self.skip = if self.fast >= FAST_IN_A_ROW { SKIPPED } else { 0 };
        self.group = u64::from(self.skip) + 1;
        if units >= DELTA_MASK {
            self.last = now;
            self.push(super::TIME | UNSTAMPED << DELTA_SHIFT);
            self.push(now);
            return 0;
        }
        self.last += units << TICKS_A_UNIT;
        units
    }

    /// One event. `stamped`: its time matters by itself; otherwise it happens with the one before it.
    #[inline(always)]
    pub(crate) fn event(&mut self, track: u32, mode: u64, kind: u64, id: u64, stamped: bool) {
        if self.seen == mode && self.used + 1 < WORDS && self.skip > 0 && id >> 32 == 0 && self.pending == 0 {
            self.skip -= u32::from(stamped);
            self.push(kind | UNSTAMPED << DELTA_SHIFT | id << ID_SHIFT);
            return self.publish();
        }
        self.event_slowly(track, mode, kind, id, stamped);
    }

    /// A goroutine gave the stack back.
    #[inline(always)]
    pub(crate) fn left(&mut self, track: u32, mode: u64, kind: u64, id: u64) {
        if self.seen == mode && self.used + 1 < WORDS && self.skip > 0 && id >> 32 == 0 && self.pending == 0 {
            self.skip -= 1;
            self.pending = kind | UNSTAMPED << DELTA_SHIFT | id << ID_SHIFT;
        } else {
            self.event_slowly(track, mode, kind, id, true);
        }
    }

    /// A goroutine runs, right after the last one if `straight`.
    #[inline(always)]
    pub(crate) fn runs(&mut self, track: u32, mode: u64, id: u64, straight: bool) {
        if self.pending != 0 && straight && self.seen == mode && id >> 32 == 0 {
            let end = std::mem::take(&mut self.pending) & ((1 << KIND_BITS) - 1);
            let kind = super::SWITCH + super::end_code(end);
            self.push(kind | UNSTAMPED << DELTA_SHIFT | id << ID_SHIFT);
            self.publish();
        } else {
            self.event(track, mode, super::RUN, id, !straight);
        }
    }

    #[inline(never)]
    fn event_slowly(&mut self, track: u32, mode: u64, kind: u64, id: u64, stamped: bool) {
        self.head(track, mode, kind, id, stamped, 2);
        self.publish();
    }

    #[inline]
    fn head(&mut self, track: u32, mode: u64, kind: u64, id: u64, stamped: bool, words: usize) {
        let forced = self.prepare(track, mode, words);
        let delta = if !stamped {
            // With the one before it, whenever that was.
            if self.group > 1 { UNSTAMPED } else { 0 }
        } else if self.skip > 0 {
            self.skip -= 1;
            UNSTAMPED
        } else {
            self.stamp()
        };
        if id >> 32 != 0 {
            self.push(super::WIDE | UNSTAMPED << DELTA_SHIFT | id >> 32 << ID_SHIFT);
        }
        let flag = if forced { FORCED } else { 0 };
        self.push(kind | flag | delta << DELTA_SHIFT | id << ID_SHIFT);
    }

    /// An event with a number.
    pub(crate) fn number(&mut self, track: u32, mode: u64, kind: u64, id: u64, number: u64) {
        self.head(track, mode, kind, id, true, 3);
        self.push(number);
        self.publish();
    }

    /// An event with a number below 2^32 and a text of at most [`super::LONGEST`] bytes.
    pub(crate) fn text(&mut self, track: u32, mode: u64, kind: u64, id: u64, number: u32, text: &[u8]) {
        self.head(track, mode, kind, id, kind != super::NAME, 3 + text.len().div_ceil(8));
        self.push(u64::from(number) | (text.len() as u64) << 32);
        for part in text.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.push(u64::from_le_bytes(word));
        }
        self.publish();
    }
}

/// One recording that goes on.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) first: u64,
    /// The generation in which it ended, because it was full.
    pub(crate) until: Option<u64>,
    /// Chunks that it may keep.
    pub(crate) limit: usize,
    /// How many ticks it looks back; None for ever.
    pub(crate) window: Option<u64>,
    /// The clocks when it began.
    pub(crate) began: super::clock::Anchor,
}

impl Session {
    fn wants(&self, chunk: &Chunk) -> bool {
        chunk.generation >= self.first && self.until.is_none_or(|until| chunk.generation < until)
    }
}

/// All chunks that a recording may want, in the order in which they were taken.
pub(crate) struct Recorder {
    chunks: Vec<Arc<Chunk>>,
    pub(crate) trace: Option<Session>,
    pub(crate) flight: Option<Session>,
    /// Chunks of the trace.
    traced: usize,
    since_pruned: usize,
    /// Chunks that nobody uses; their memory has been touched.
    spare: Vec<Arc<Chunk>>,
}

/// Fewer spare chunks than that, and the sampler's thread makes as many more: a machine need not wait for the kernel's pages.
const SPARE: usize = 32;

impl Recorder {
    pub(crate) const fn new() -> Recorder {
        Recorder { chunks: Vec::new(), trace: None, flight: None, traced: 0, since_pruned: 0, spare: Vec::new() }
    }

    /// A chunk for a writer.
    fn take(&mut self, track: u32, generation: u64, base: u64) -> Arc<Chunk> {
        let spare = self.spare.pop().and_then(|mut chunk| {
            let it = Arc::get_mut(&mut chunk)?;
            (it.track, it.generation, it.base) = (track, generation, base);
            it.sealed.store(0, Ordering::Relaxed);
            it.len.store(0, Ordering::Relaxed);
            Some(chunk)
        });
        if self.spare.len() < SPARE {
            super::sampler::more_chunks();
        }
        let chunk = spare.unwrap_or_else(|| Arc::new(Chunk::new(track, generation, base)));
        self.add(&chunk);
        chunk
    }

    /// Whether more spare chunks are wanted: as many as may still be recorded, if that is less.
    pub(crate) fn wants_spare(&self) -> bool {
        let left = match (&self.trace, &self.flight) {
            (Some(trace), None) => trace.limit.saturating_sub(self.traced),
            (_, Some(flight)) => flight.limit.saturating_sub(self.chunks.len()).max(1),
            (None, None) => 0,
        };
        self.spare.len() < (2 * SPARE).min(left)
    }

    pub(crate) fn add_spare(&mut self, chunk: Arc<Chunk>) {
        self.spare.push(chunk);
    }

    fn add(&mut self, chunk: &Arc<Chunk>) {
        self.chunks.push(chunk.clone());
        if self.trace.as_ref().is_some_and(|trace| trace.wants(chunk)) {
            self.traced += 1;
            if let Some(trace) = &mut self.trace
                && self.traced >= trace.limit
            {
                trace.until = Some(chunk.generation + 1);
                stop_events(self.flight.is_some());
            }
        }
        self.since_pruned += 1;
        if self.since_pruned >= 32 && self.flight.is_some() {
            self.prune();
        }
    }

    /// Lets go of what no recording wants.
    pub(crate) fn prune(&mut self) {
        self.since_pruned = 0;
        let now = ticks();
        let Recorder { chunks, trace, flight, spare: unused, .. } = self;
        let mut spare = flight.as_ref().map_or(0, |flight| chunks.len().saturating_sub(flight.limit));
        chunks.retain(|chunk| {
            if trace.as_ref().is_some_and(|trace| trace.wants(chunk)) {
                return true;
            }
            let Some(flight) = flight.as_ref().filter(|flight| flight.wants(chunk)) else { return false };
            let sealed = chunk.sealed.load(Ordering::Relaxed);
            if sealed == 0 {
                return true;
            }
            let old = flight.window.is_some_and(|window| sealed < now.saturating_sub(window));
            let over = spare > 0;
            spare -= usize::from(over);
            if (old || over) && unused.len() < 2 * SPARE {
                unused.push(chunk.clone());
            }
            !old && !over
        });
        if trace.is_none() && flight.is_none() {
            unused.clear();
        }
    }

    /// What `session` has recorded.
    pub(crate) fn collect(&self, session: &Session) -> Vec<Arc<Chunk>> {
        self.chunks.iter().filter(|chunk| session.wants(chunk)).cloned().collect()
    }

    /// Starts to count for a trace anew.
    pub(crate) fn restart_count(&mut self) {
        self.traced = 0;
    }
}

/// The mode's next generation, with the flag for events set or not.
pub(crate) fn next_generation(mode: u64, events: bool) -> u64 {
    let generation = (generation_of(mode) + 1) & 0xFF_FFFF;
    let rest = mode & !(0xFF_FFFF << GENERATION_SHIFT) & !EVENTS;
    rest | generation << GENERATION_SHIFT | if events { EVENTS } else { 0 }
}
