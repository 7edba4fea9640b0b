//! The memory that events are written to: chunks, the buffer of a writer, and the recorder that keeps the chunks.
//!
//! Invariants:
//! * A chunk has one writer, for its life. The writer publishes words by a Release store of `len`, and anybody may read those below
//!   it after an Acquire load of it, at any moment, without stopping the writer. None of them changes but the last one, as long as it
//!   is that: its writer may put one in its place that says the same and more.
//! * A buffer's chunk is of the generation that its writer last saw. When recording starts or ends the generation goes up, so a
//!   writer that comes late writes into a chunk that nobody reads any more, and takes a new one with its next event.
//! * The recorder's lock is a leaf. It is taken once in 4,095 words.

use super::clock::ticks;
use super::{EVENTS, GENERATION_SHIFT, generation_of, left_kind, stop_events};
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
/// What a number has above these goes before it, in a record of its own.
pub(crate) const ID_BITS: u32 = 28;
pub(crate) const ID_MASK: u64 = (1 << ID_BITS) - 1;
/// A record of a kind from HANDED on has two numbers and no time: this is the first one's place, the other's is behind it.
pub(crate) const FIRST_SHIFT: u32 = KIND_BITS + 1;
pub(crate) const SECOND_SHIFT: u32 = FIRST_SHIFT + ID_BITS;
pub(crate) const TICKS_A_UNIT: u32 = 2;

/// Records that follow each other within so many units (about 400 ns) are fast ...
const FAST: u64 = 256;
/// ... and after so many fast ones in a row ...
const FAST_IN_A_ROW: u32 = 16;
/// ... the clock, which costs more than two records, is read for one in thirty-two.
const SKIPPED: usize = 31;
/// No stop is later: what is pending then is a record of two words, or one of a goroutine that runs.
const LAST_STOP: usize = WORDS.saturating_sub(3);
/// At a stamp the cache is told that the words this far ahead are written next: another core has cleared them, and the next locked
/// instruction would wait until they are here.
const AHEAD: usize = SKIPPED + 1;

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

    /// The clock, when the last of it had been written; the end of time if there may be more.
    pub(super) fn sealed(&self) -> u64 {
        match self.sealed.load(Ordering::Relaxed) {
            0 => u64::MAX,
            sealed => sealed,
        }
    }

    /// What has been written so far.
    pub(crate) fn read(&self) -> Vec<u64> {
        // Acquire pairs with the Release of `publish`.
        let len = self.len.load(Ordering::Acquire);
        self.words[..len].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Writes a word that is not published yet, or is the last one and says the same and more.
    ///
    /// # Safety
    /// By the writer alone, and `at` is below `WORDS`.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, at: usize, word: u64) {
        debug_assert!(at < self.words.len());
        // SAFETY: by contract.
        unsafe { self.words.get_unchecked(at) }.store(word, Ordering::Relaxed);
    }

    /// The word at `at`, for the writer alone.
    ///
    /// # Safety
    /// As for `put`.
    #[inline(always)]
    unsafe fn get(&self, at: usize) -> u64 {
        debug_assert!(at < self.words.len());
        // SAFETY: by contract.
        unsafe { self.words.get_unchecked(at) }.load(Ordering::Relaxed)
    }

    /// Has the cache ready for words that will be written.
    #[inline]
    fn expect(&self, at: usize) {
        #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
        // SAFETY: it may be any address; processors that do not know the instruction take it for none at all.
        unsafe {
            let word = self.words.as_ptr().wrapping_add(at);
            std::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
        let _ = at;
    }

    /// By the writer alone.
    #[inline]
    pub(crate) fn publish(&self, len: usize) {
        // Release pairs with the Acquire of `read`.
        self.len.store(len, Ordering::Release);
    }
}

/// What one writer has: touched by its thread only, or under a lock. In cache lines of its own: others look at the rest of a machine.
#[repr(align(64))]
pub(crate) struct Buffer {
    /// The mode (see `trace`) under which records go without a stamp at the moment, and what was written last is the first word of one;
    /// 0 if they do not.
    quick: u64,
    /// That the goroutine that ran gave the stack back, not written yet: most often another one runs next, and one word says both. The
    /// kind of that word; 0 for none.
    pending: u64,
    /// Counted: the recorder may have let go of it.
    chunk: *const Chunk,
    used: usize,
    /// The next stamp comes here; there is room until then.
    stop: usize,
    /// The goroutine that runs, or ran last, if `known`.
    running: u64,
    /// The last mode that it wrote under.
    seen: u64,
    /// The clock at the last stamp, and what was used after it.
    last: u64,
    mark: usize,
    fast: u32,
    /// The machine whose it is; 0 for everybody else's.
    track: u32,
    /// What follows the last stamp goes without one.
    grouped: bool,
    /// This recording has seen the goroutine begin to run.
    known: bool,
    /// A goroutine gave the stack back just now, and that has been written.
    left: bool,
}

// SAFETY: the chunk is shared by the rules at the top of this file.
unsafe impl Send for Buffer {}

/// The lower half of a record that somebody was made ready, without a stamp.
const JUST_READY: u32 = (super::READY | UNSTAMPED << DELTA_SHIFT) as u32;

/// A goroutine's records without a stamp, of one word, but for the kind; 0 if its number has no room in that.
pub(crate) const fn plain(id: u64) -> u64 {
    if id <= ID_MASK { UNSTAMPED << DELTA_SHIFT | id << ID_SHIFT } else { 0 }
}

impl Buffer {
    pub(crate) const fn new() -> Buffer {
        Buffer {
            quick: 0,
            pending: 0,
            chunk: std::ptr::null(),
            used: 0,
            stop: 0,
            running: 0,
            seen: 0,
            last: 0,
            mark: 0,
            fast: 0,
            track: 0,
            grouped: false,
            known: false,
            left: false,
        }
    }

    /// Whose events it gets from now on.
    pub(crate) fn set_track(&mut self, track: u32) {
        self.track = track;
    }

    /// Makes room for `words` under `mode` and two more, and takes note of the monitor's tick. Whether that has gone up.
    #[inline]
    fn prepare(&mut self, mode: u64, words: usize) -> bool {
        self.settle();
        if self.seen == mode && self.used + words + 2 <= WORDS {
            return false;
        }
        self.renew(mode, words)
    }

    /// Writes what is pending. What comes next does not follow it at once.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.left = false;
        if self.pending != 0 {
            self.settle_pending();
        }
    }

    #[inline(never)]
    fn settle_pending(&mut self) {
        let code = std::mem::take(&mut self.pending) - super::SWITCH;
        self.record(left_kind(code), UNSTAMPED, self.running);
        self.publish();
    }

    #[cold]
    fn renew(&mut self, mode: u64, words: usize) -> bool {
        let same = generation_of(self.seen) == generation_of(mode);
        self.seen = mode;
        if same && !self.chunk.is_null() && self.used + words + 2 <= WORDS {
            let forced = self.grouped && self.used > self.mark;
            (self.quick, self.stop) = (0, 0);
            return forced;
        }
        self.end();
        self.known &= same;
        (self.seen, self.last) = (mode, ticks());
        let chunk = super::RECORDER.lock().take(self.track, generation_of(mode), self.last);
        self.chunk = Arc::into_raw(chunk);
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
        let Buffer { track, running, known, .. } = *self;
        *self = Buffer { track, running, known, ..Buffer::new() };
    }

    /// Lets the parent's chunk go, without a look at it.
    #[cfg(not(loom))]
    pub(crate) fn forget(&mut self) {
        *self = Buffer::new();
    }

    #[inline(always)]
    fn push(&mut self, word: u64) {
        // SAFETY: counted by this buffer; `prepare` has made one, and room in it.
        unsafe { (*self.chunk).put(self.used, word) };
        self.used += 1;
    }

    #[inline(always)]
    fn publish(&self) {
        // SAFETY: as in `push`.
        unsafe { (*self.chunk).publish(self.used) };
    }

    /// The first words of a record.
    fn record(&mut self, kind: u64, delta: u64, id: u64) {
        if id > ID_MASK {
            self.push(super::WIDE | UNSTAMPED << DELTA_SHIFT | id >> ID_BITS << ID_SHIFT);
        }
        self.push(kind | delta << DELTA_SHIFT | (id & ID_MASK) << ID_SHIFT);
    }

    /// What the clock says, in units since the last stamp. What does not fit into a record gets one of its own.
    fn stamp(&mut self) -> u64 {
        let now = ticks();
        let units = now.saturating_sub(self.last) >> TICKS_A_UNIT;
        if units < FAST * (self.used - self.mark + 1) as u64 {
            self.fast += 1;
        } else {
            self.fast = 0;
        }
        if units >= DELTA_MASK {
            self.last = now;
            self.push(super::TIME | UNSTAMPED << DELTA_SHIFT);
            self.push(now);
            return 0;
        }
        self.last += units << TICKS_A_UNIT;
        units
    }

    /// Begins what follows a stamp.
    fn stamped(&mut self) {
        self.mark = self.used;
        self.grouped = self.fast >= FAST_IN_A_ROW && (self.known || self.track == 0);
        self.stop = if self.grouped { (self.used + SKIPPED).min(LAST_STOP) } else { 0 };
        // SAFETY: as in `push`.
        let chunk = unsafe { &*self.chunk };
        for line in (0..=SKIPPED).step_by(8) {
            chunk.expect(self.used + AHEAD + line);
        }
    }

    /// One event. `word` is its goroutine's, see `plain`.
    #[inline(always)]
    pub(crate) fn event(&mut self, mode: u64, kind: u64, word: u64, id: u64) {
        if self.quick != mode || self.used >= self.stop || word == 0 || self.pending != 0 {
            return self.event_slowly(mode, kind, id, true);
        }
        self.push(word | kind);
        self.publish();
    }

    /// A goroutine is about to give the stack back, or has done so.
    #[inline(always)]
    pub(crate) fn leaves(&mut self, mode: u64, code: u64, id: u64) {
        if self.quick != mode {
            return self.leaves_slowly(mode, code, id);
        }
        debug_assert!(self.pending == 0, "two goroutines gave one stack back");
        self.pending = super::SWITCH + code;
    }

    #[inline(never)]
    fn leaves_slowly(&mut self, mode: u64, code: u64, id: u64) {
        self.event_slowly(mode, left_kind(code), id, true);
        self.left = true;
    }

    /// A goroutine runs.
    #[inline(always)]
    pub(crate) fn runs(&mut self, mode: u64, word: u64, id: u64) {
        let pending = self.pending;
        if pending == 0 || self.quick != mode || word == 0 {
            return self.runs_slowly(mode, id);
        }
        self.running = id;
        self.pending = 0;
        // SAFETY: the first word of a record was written before this; as in `push`.
        unsafe {
            let chunk = &*self.chunk;
            let last = chunk.get(self.used - 1);
            if last as u32 == JUST_READY {
                // Its last deed was to make one ready: the same word says so.
                let first = last >> ID_SHIFT << FIRST_SHIFT;
                let kind = pending + (super::HANDED - super::SWITCH);
                return chunk.put(self.used - 1, kind | first | id << SECOND_SHIFT);
            }
        }
        if self.used >= self.stop {
            self.quick = 0;
        }
        self.push(word | pending);
        self.publish();
    }

    #[inline(never)]
    fn runs_slowly(&mut self, mode: u64, id: u64) {
        let straight = self.left || self.pending != 0;
        self.event_slowly(mode, super::RUN, id, !straight);
        (self.running, self.known) = (id, true);
    }

    #[inline(never)]
    fn event_slowly(&mut self, mode: u64, kind: u64, id: u64, stamped: bool) {
        self.head(mode, kind, id, stamped, 2);
        self.publish();
    }

    #[inline]
    fn head(&mut self, mode: u64, kind: u64, id: u64, stamped: bool, words: usize) {
        let forced = self.prepare(mode, words);
        let stamps = stamped && self.used >= self.stop;
        let delta = if stamps {
            self.stamp()
        } else if stamped || self.grouped {
            // With the one before it, whenever that was, or between two that have stamps.
            UNSTAMPED
        } else {
            0
        };
        self.record(kind | if forced { FORCED } else { 0 }, delta, id);
        if stamps {
            self.stamped();
        }
        self.quick = if self.grouped { mode } else { 0 };
    }

    /// An event with a number.
    pub(crate) fn number(&mut self, mode: u64, kind: u64, id: u64, number: u64) {
        self.head(mode, kind, id, true, 3);
        self.push(number);
        self.finish(1);
    }

    /// An event with a number below 2^32 and a text of at most [`super::LONGEST`] bytes.
    pub(crate) fn text(&mut self, mode: u64, kind: u64, id: u64, number: u32, text: &[u8]) {
        let words = 1 + text.len().div_ceil(8);
        self.head(mode, kind, id, kind != super::NAME, 2 + words);
        self.push(u64::from(number) | (text.len() as u64) << 32);
        for part in text.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.push(u64::from_le_bytes(word));
        }
        self.finish(words);
    }

    /// A record ends with so many words that are not its first.
    fn finish(&mut self, words: usize) {
        self.quick = 0;
        // They count for no records.
        self.mark += words;
        if self.used < self.stop + words {
            self.stop = (self.stop + words).min(LAST_STOP);
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
