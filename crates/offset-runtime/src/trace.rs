//! What happened: the execution trace, and who waited for how long.
//!
//! **Off** it costs one relaxed load of [`MODE`] at each place: where a machine resumes a goroutine, where a goroutine is made ready,
//! starts, gives the stack back, ends and comes back, where a lock is handed on, and where a blocking call begins.
//!
//! **Who writes.** Everybody writes in the middle of their own work and waits for nobody:
//! * a machine's thread into the machine's own buffer, without a lock: its loop (on the machine's stack, with or without the GIL: that
//!   it runs a goroutine, that one has ended, moves) and the goroutine that it runs (on the goroutine's stack: whom it made ready, how
//!   it gives the stack back, what it started, regions, logs, where it waited). Nothing is kept across a switch: a goroutine asks for
//!   the buffer of the machine on which it is at that moment, each time;
//! * all others (the monitor: hand-offs; the pool's threads: calls; plain threads: whom they made ready; the sampler) into one buffer
//!   under [`OTHERS`], a leaf lock, for which a few dozen instructions at most are waited.
//!
//! An event is written before what it tells of can be seen by another thread: `ready` before the goroutine is queued, `parked` before it
//! is marked (or, while events come fast, with the machine's next one). So sorted by time the events of one goroutine are in order, but
//! for what two cores' clocks differ by.
//!
//! **What it costs** is instructions, some seventy for a switch: so one word says whom the goroutine that left had made ready, how it
//! left and who runs next, as long as nothing else happens in between, and what is compared has been put together before
//! (`Notes::word`, `Buffer::quick`). What is left of that is calls that are not made inline, so that off they are not in the way. The
//! clock costs as much as two words and is read for one in thirty-two.
//!
//! **What it is made of** (`buffer`): words in chunks that are published word by word, so a recording ends, or is looked at while it goes
//! on, without anybody's help. Names and texts lie in the chunks; stacks of the host are numbers that the host gave. Everything else,
//! merging (`events`) and writing (`chrome`), is done afterwards by who wants it, on that thread, without the host.
//!
//! **Stacks.** A goroutine that comes back from a wait of several milliseconds looks at its own frames (attached, on its own stack), as
//! many times between two ticks of the monitor as [`BUDGET`] says. One that makes no progress for 10 ms is looked at by the sampler, a
//! thread that lives while there is a recording and attaches as a thread of its own, if it is still at it when the sampler gets the
//! GIL; one that was missed looks at itself when it parks.
//!
//! **A forked child** records nothing: locks are held over the fork, and all that was recorded is the parent's. **At exit** whatever
//! writes last writes into memory that is never given back; the sampler that wants the GIL by then stays in the shim's frame.
//!
//! Nothing here changes when a goroutine parks, is made ready or is handed on. The one protocol that threads share, that of a chunk, has a
//! model (`loom::trace`).

mod buffer;
#[cfg(not(loom))]
mod chrome;
mod clock;
#[cfg(not(loom))]
mod events;
mod profile;
mod sampler;

pub(crate) use self::buffer::Buffer;
#[cfg(all(loom, test))]
pub(crate) use self::buffer::{Chunk, WORDS};
pub use self::profile::{Profile, set_block_rate, set_mutex_fraction};
pub(crate) use self::profile::{handed_on, waiters_since};
pub(crate) use self::sampler::frozen;

use self::buffer::{CHUNK_BYTES, KIND_BITS, Recorder, Session, next_generation, plain};
use self::clock::Anchor;
use crate::goroutine::{Goroutine, Status, WaitReason};
use crate::host::host;
use crate::lock::{Lock, global};
use crate::machine::{self, Machine};
use crate::processor::Processor;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Flags (8 bits), generation (24), the monitor's ticks (32). One word, so that one load says whether there is anything to do, whether
/// the buffer is still the right one, and whether time has passed. Not through the door to atomics: it orders nothing.
static MODE: AtomicU64 = AtomicU64::new(0);
/// Events are recorded.
pub(crate) const EVENTS: u64 = 1;
/// Waits are measured.
pub(crate) const BLOCK: u64 = 2;
/// Waits for locks are measured.
pub(crate) const MUTEX: u64 = 4;
const ANY: u64 = 0xFF;
/// In what goroutines note of a mode: waits were measured, so it is never what is noted at a glance. No flag of the mode itself.
const MEASURED: u64 = 0x80;
const GENERATION_SHIFT: u32 = 8;
const TICK_SHIFT: u32 = 32;

/// Looks of the monitor (2.5 ms) in which a goroutine that ran all the time was frozen.
const FROZEN: u64 = 4;
/// ... and after which a wait is worth a look at the stack.
const LONG: u64 = 2;
/// So many looks at stacks between two ticks.
const BUDGET: u32 = 64;
/// A text is cut after so many bytes.
pub(crate) const LONGEST: usize = 4_096;

// The kinds of events. Numbers from PARK on are PARK plus the reason. Those from SWITCH on say how the goroutine that ran gave the
// stack back, as a code: the reason, YIELDED or ENDED; and which one runs next. Those from HANDED on say besides whom it had made
// ready before.
const TIME: u64 = 1;
const WIDE: u64 = 2;
const RUN: u64 = 3;
const YIELD: u64 = 4;
const END: u64 = 5;
const READY: u64 = 6;
const NEW: u64 = 7;
const NAME: u64 = 8;
const STATE: u64 = 9;
const WAITED: u64 = 10;
const FROZE: u64 = 11;
const ATTACHED: u64 = 12;
const HANDOFF: u64 = 13;
const MOVE: u64 = 14;
const CALL: u64 = 15;
const CALL_END: u64 = 16;
const GC: u64 = 17;
const GC_END: u64 = 18;
const REGION: u64 = 19;
const REGION_END: u64 = 20;
const LOG: u64 = 21;
const PARK: u64 = 32;
const SWITCH: u64 = 64;
const HANDED: u64 = 96;
const YIELDED: u64 = 30;
const ENDED: u64 = 31;
const _: () = assert!(WaitReason::COUNT <= YIELDED as usize, "there are more wait reasons than kinds");
const _: () = assert!(SWITCH + 32 <= HANDED, "codes of two kinds are the same");
const _: () = assert!(HANDED + 32 <= 1 << KIND_BITS, "there are more kinds than a record has room for");

/// The kind of event that a code stands for.
fn left_kind(code: u64) -> u64 {
    match code {
        YIELDED => YIELD,
        ENDED => END,
        reason => PARK + reason,
    }
}

global! {
    static RECORDER: Lock<Recorder> = Lock::new(Recorder::new());
}
global! {
    static OTHERS: Lock<Buffer> = Lock::new(Buffer::new());
}

#[inline]
pub(crate) fn mode() -> u64 {
    MODE.load(Ordering::Relaxed)
}

/// Whether anything is to be done under `mode`.
#[inline]
pub(crate) fn any(mode: u64) -> bool {
    mode & ANY != 0
}

/// Whether events are recorded at the moment.
#[inline]
pub fn recording() -> bool {
    mode() & EVENTS != 0
}

fn generation_of(mode: u64) -> u64 {
    mode >> GENERATION_SHIFT & 0xFF_FFFF
}

fn tick_of(mode: u64) -> u64 {
    mode >> TICK_SHIFT
}

fn change(next: impl Fn(u64) -> u64) -> u64 {
    let mut seen = mode();
    loop {
        let wanted = next(seen);
        match MODE.compare_exchange_weak(seen, wanted, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return wanted,
            Err(now) => seen = now,
        }
    }
}

/// The monitor looks: time has passed.
pub(crate) fn tick() {
    if any(mode()) {
        MODE.fetch_add(1 << TICK_SHIFT, Ordering::Relaxed);
        LOOKS.store(0, Ordering::Relaxed);
    }
}

/// The trace is full: events go on only for a flight recorder.
fn stop_events(flight: bool) {
    change(|mode| next_generation(mode, flight));
}

/// What a goroutine notes for itself. Touched by it and the machine that resumes it; `waits_since` is read by who ends its wait.
pub(crate) struct Notes {
    /// The modes when it was last resumed, or got the host, and when it last gave the stack back, as [`noted`].
    ran_under: Cell<u64>,
    left_under: Cell<u64>,
    /// What its records begin as, see `buffer::plain`.
    word: u64,
    /// The monotonic clock, if waits are measured; otherwise 0.
    waits_since: AtomicU64,
}

impl Notes {
    pub(crate) const fn new(id: u64) -> Notes {
        Notes { ran_under: Cell::new(0), left_under: Cell::new(0), word: plain(id), waits_since: AtomicU64::new(0) }
    }

    /// Whether something has changed since it gave the stack back, or is to be measured.
    #[inline]
    pub(crate) fn waited(&self, mode: u64) -> bool {
        self.left_under.get() != mode
    }
}

/// A mode as goroutines note it: it is the mode itself if events are recorded and nothing else is done.
#[inline]
fn noted(mode: u64) -> u64 {
    if mode & (BLOCK | MUTEX) != 0 { mode | MEASURED } else { mode }
}

/// What there is of a machine for the sampler.
pub(crate) struct Marks {
    /// Goes up with each goroutine that it resumes under a recording.
    slice: AtomicU64,
    /// That goroutine's number.
    runs: AtomicU64,
    /// The last slices that the sampler was asked about, and of which it has seen the stack.
    asked: AtomicU64,
    seen: AtomicU64,
}

impl Marks {
    pub(crate) const fn new() -> Marks {
        Marks { slice: AtomicU64::new(0), runs: AtomicU64::new(0), asked: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }
}

// ---- who writes ----------------------------------------------------------------------------------

/// Writes into the calling thread's buffer, or the one of all others.
#[inline]
fn write(work: impl FnOnce(&mut Buffer)) {
    // SAFETY: machines are never freed.
    match unsafe { machine::this().as_ref() } {
        // SAFETY: this is the machine's thread, and `work` calls nobody who would come back here.
        Some(machine) => unsafe { machine.with_buffer(work) },
        None => work(&mut OTHERS.lock()),
    }
}

/// `goroutine` is made ready, and not queued yet.
#[inline(never)]
pub(crate) fn ready(goroutine: &Goroutine, mode: u64) {
    // Most often its home is the caller's machine, and that is told more quickly than which one the caller's is.
    // SAFETY: machines are never freed.
    match unsafe { goroutine.home.load(Ordering::Relaxed).as_ref() } {
        // SAFETY: on the machine's thread.
        Some(home) if home.is_here() => unsafe {
            home.with_buffer(|buffer| buffer.event(mode, READY, goroutine.notes.word, goroutine.id()));
        },
        _ => ready_elsewhere(goroutine, mode),
    }
}

#[inline(never)]
fn ready_elsewhere(goroutine: &Goroutine, mode: u64) {
    write(|buffer| buffer.event(mode, READY, goroutine.notes.word, goroutine.id()));
}

/// `goroutine` is about to be queued for the first time.
#[cold]
pub(crate) fn created(goroutine: &Goroutine, mode: u64) {
    write(|buffer| buffer.number(mode, NEW, goroutine.id(), goroutine.creator()));
}

/// On its machine's stack: `goroutine` is about to run.
#[inline(never)]
pub(crate) fn runs(machine: &Machine, goroutine: &Goroutine, mode: u64) {
    // Nobody else writes it.
    machine.marks.slice.store(machine.marks.slice.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    machine.marks.runs.store(goroutine.id(), Ordering::Relaxed);
    if mode & ANY != EVENTS {
        return runs_measured(machine, goroutine, mode);
    }
    goroutine.notes.ran_under.set(mode);
    // SAFETY: on the machine's thread.
    unsafe { machine.with_buffer(|buffer| buffer.runs(mode, goroutine.notes.word, goroutine.id())) };
}

#[inline(never)]
fn runs_measured(machine: &Machine, goroutine: &Goroutine, mode: u64) {
    goroutine.notes.ran_under.set(noted(mode));
    if mode & EVENTS != 0 {
        // SAFETY: on the machine's thread.
        unsafe { machine.with_buffer(|buffer| buffer.runs(mode, goroutine.notes.word, goroutine.id())) };
    }
}

/// How a goroutine that has not ended gives the stack back, as a code.
#[inline(always)]
fn code(goroutine: &Goroutine, parks: bool) -> u64 {
    if parks { u64::from(goroutine.reason_number()) } else { YIELDED }
}

/// On a goroutine's stack, attached: it is about to give the stack back, and nobody else may touch it yet.
#[inline(always)]
pub(crate) fn leaves(goroutine: &Goroutine, mode: u64, parks: bool) {
    // Under this mode events are all there is, and no time has passed since it was resumed.
    if goroutine.notes.ran_under.get() != mode {
        return leaves_slowly(goroutine, mode, parks);
    }
    goroutine.notes.left_under.set(mode);
    // SAFETY: machines are never freed, it runs on its home, and this is that one's thread.
    unsafe {
        let home = &*goroutine.home.load(Ordering::Relaxed);
        home.with_buffer(|buffer| buffer.leaves(mode, code(goroutine, parks), goroutine.id()));
    }
}

#[inline(never)]
fn leaves_slowly(goroutine: &Goroutine, mode: u64, parks: bool) {
    goroutine.notes.left_under.set(noted(mode));
    leaving(goroutine, mode, parks);
    if mode & EVENTS != 0 {
        // SAFETY: as in `leaves`.
        unsafe {
            let home = &*goroutine.home.load(Ordering::Relaxed);
            home.with_buffer(|buffer| buffer.leaves(mode, code(goroutine, parks), goroutine.id()));
        }
    }
}

/// On its machine's stack: `goroutine` has given the stack back for good, and nobody else may touch it yet.
#[inline(never)]
pub(crate) fn ended(machine: &Machine, goroutine: &Goroutine, mode: u64) {
    // SAFETY: on the machine's thread.
    unsafe { machine.with_buffer(|buffer| buffer.leaves(mode, ENDED, goroutine.id())) };
}

/// On its machine's stack: it does something else before it runs the next goroutine, or is about to sleep.
pub(crate) fn rests(machine: &Machine) {
    // SAFETY: on the machine's thread.
    unsafe { machine.with_buffer(Buffer::settle) };
}

/// `goroutine` now is at home on another machine.
#[cold]
pub(crate) fn moved(goroutine: &Goroutine, from: &Machine, to: &Machine) {
    let number = u64::from(from.number()) | u64::from(to.number()) << 32;
    write(|buffer| buffer.number(mode(), MOVE, goroutine.id(), number));
}

/// The monitor has taken the processor from a machine.
#[cold]
pub(crate) fn handed_off(from: &Machine, processor: &Processor, computes: bool) {
    // SAFETY: machines are never freed.
    let to = unsafe { processor.lock().holder.as_ref() }.map_or(0, Machine::number);
    let number = u64::from(from.number()) | u64::from(computes) << 31 | u64::from(to) << 32;
    let goroutine = from.marks.runs.load(Ordering::Relaxed);
    write(|buffer| buffer.number(mode(), HANDOFF, goroutine, number));
}

/// On a goroutine's stack, attached: it is about to give the stack back, and something has changed since it was resumed, or is to be
/// measured.
#[cold]
fn leaving(goroutine: &Goroutine, mode: u64, parks: bool) {
    let measured = parks && mode & (BLOCK | MUTEX) != 0;
    goroutine.notes.waits_since.store(if measured { crate::clock::now() } else { 0 }, Ordering::Relaxed);
    if mode & EVENTS != 0 && passed(goroutine.notes.ran_under.get(), mode) >= FROZEN {
        sampler::look_at_oneself(goroutine, mode);
    }
}

/// On a goroutine's stack, attached: it goes on after a wait, and [`Notes::waited`].
#[cold]
pub(crate) fn back(goroutine: &Goroutine, mode: u64) {
    if mode & EVENTS != 0 && passed(goroutine.notes.left_under.get(), mode) >= LONG && may_look() {
        let stack = host().stack();
        if stack != 0 {
            write(|buffer| buffer.number(mode, WAITED, goroutine.id(), stack.into()));
        }
    }
    let since = goroutine.notes.waits_since.swap(0, Ordering::Relaxed);
    if mode & BLOCK != 0 && since != 0 {
        profile::blocked(goroutine, crate::clock::now().saturating_sub(since));
    }
}

/// How many ticks there were between two modes of one recording; 0 if they are not.
fn passed(before: u64, now: u64) -> u64 {
    if before & EVENTS == 0 || generation_of(before) != generation_of(now) {
        return 0;
    }
    tick_of(now).saturating_sub(tick_of(before))
}

static LOOKS: AtomicU32 = AtomicU32::new(0);

fn may_look() -> bool {
    LOOKS.load(Ordering::Relaxed) < BUDGET && LOOKS.fetch_add(1, Ordering::Relaxed) < BUDGET
}

// ---- what the host tells -------------------------------------------------------------------------

/// On a goroutine's stack: it had to wait for the host, until now.
#[cold]
pub fn attached_late(goroutine: &Goroutine) {
    let mode = mode();
    goroutine.notes.ran_under.set(noted(mode));
    write(|buffer| buffer.number(mode, ATTACHED, goroutine.id(), 0));
}

/// At most [`LONGEST`] bytes of it, in whole characters.
fn cut(text: &str) -> &[u8] {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

fn say(kind: u64, id: u64, number: u32, text: &str) {
    let mode = mode();
    if mode & EVENTS != 0 {
        write(|buffer| buffer.text(mode, kind, id, number, cut(text)));
    }
}

/// A goroutine's name; `place` is the stack at which it was made.
pub fn name(goroutine: u64, place: u32, text: &str) {
    say(NAME, goroutine, place, text);
}

/// What a goroutine was doing when the recording began.
pub fn state(goroutine: &Goroutine) {
    let mode = mode();
    // SAFETY: machines are never freed.
    if let Some(machine) = unsafe { goroutine.home.load(Ordering::Relaxed).as_ref() } {
        // It was resumed before anybody noted that; once its machine resumes another one it notes by itself.
        let slice = machine.marks.slice.load(Ordering::Relaxed);
        if goroutine.status() == Status::Running && machine.marks.slice.load(Ordering::Relaxed) == slice {
            machine.marks.runs.store(goroutine.id(), Ordering::Relaxed);
            // Not the slice that the last recording has asked about.
            machine.marks.slice.fetch_add(1, Ordering::Relaxed);
        }
    }
    if crate::scheduler::current().is_some_and(|current| std::ptr::eq(current, goroutine)) {
        goroutine.notes.ran_under.set(noted(mode));
    }
    let number = goroutine.status() as u64 | u64::from(goroutine.reason_number()) << 8;
    write(|buffer| buffer.number(mode, STATE, goroutine.id(), number));
}

/// A stretch of a goroutine's work that has a name begins, or ends.
pub fn region(goroutine: u64, begins: bool, text: &str) {
    say(if begins { REGION } else { REGION_END }, goroutine, 0, text);
}

/// Something that a goroutine has to say.
pub fn log(goroutine: u64, category: &str, message: &str) {
    say(LOG, goroutine, 0, &format!("{category}\0{message}"));
}

/// The host's collector begins with a generation, or ends, with so many objects collected.
pub fn collection(generation: u32, ended: Option<u64>) {
    let mode = mode();
    if mode & EVENTS != 0 {
        let kind = if ended.is_some() { GC_END } else { GC };
        write(|buffer| buffer.number(mode, kind, generation.into(), ended.unwrap_or(0)));
    }
}

static CALLS: AtomicU32 = AtomicU32::new(0);

/// A call of `goroutine`'s begins on a thread of the pool; its number, for [`call_ends`].
pub fn call_begins(goroutine: u64, text: &str) -> u32 {
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    // The number of the goroutine stands before the text: it may need more than 32 bits.
    say(CALL, number.into(), 0, &format!("{goroutine}\0{text}"));
    number
}

/// The call is over.
pub fn call_ends(number: u32) {
    say(CALL_END, number.into(), 0, "");
}

// ---- recordings ----------------------------------------------------------------------------------

/// Which recording: there may be one of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// From its start to its stop.
    Trace,
    /// The last seconds at any moment.
    Flight,
}

/// Starts a recording that keeps at most `limit` bytes of events, and, if `window` says so, only the last of them. False if there is one
/// already.
#[cfg(not(loom))]
pub fn start(kind: Kind, limit: usize, window: Option<Duration>) -> bool {
    clock::choose();
    let began = Anchor::here();
    let window = window.map(ticks_in);
    let mut recorder = RECORDER.lock();
    let place = if kind == Kind::Trace { &recorder.trace } else { &recorder.flight };
    if place.is_some() {
        return false;
    }
    let first = generation_of(change(|mode| next_generation(mode, true)));
    let session = Session { first, until: None, limit: (limit / CHUNK_BYTES).max(2), window, began };
    if kind == Kind::Trace {
        recorder.restart_count();
        recorder.trace = Some(session);
    } else {
        recorder.flight = Some(session);
    }
    drop(recorder);
    sampler::start();
    true
}

/// How many ticks of the event clock there are in a time: measured, in a fifth of a millisecond.
#[cfg(not(loom))]
fn ticks_in(time: Duration) -> u64 {
    let before = Anchor::here();
    while crate::clock::now() - before.nanos < 200_000 {
        std::hint::spin_loop();
    }
    let after = Anchor::here();
    (time.as_nanos() as f64 * (after.ticks - before.ticks) as f64 / (after.nanos - before.nanos) as f64) as u64
}

/// Whether a recording of this kind goes on.
#[cfg(not(loom))]
pub fn active(kind: Kind) -> bool {
    let recorder = RECORDER.lock();
    if kind == Kind::Trace { recorder.trace.is_some() } else { recorder.flight.is_some() }
}

/// What was recorded.
#[cfg(not(loom))]
pub struct Recording {
    chunks: Vec<std::sync::Arc<buffer::Chunk>>,
    began: Anchor,
    ended: Anchor,
    window: Option<u64>,
    /// It was full before it was stopped.
    pub truncated: bool,
}

/// Ends a recording and gives what it has; None if there was none.
#[cfg(not(loom))]
pub fn stop(kind: Kind) -> Option<Recording> {
    let mut recorder = RECORDER.lock();
    let session = if kind == Kind::Trace { recorder.trace.take() } else { recorder.flight.take() }?;
    let goes_on = recorder.trace.as_ref().is_some_and(|trace| trace.until.is_none()) || recorder.flight.is_some();
    let recording = taken(&recorder, &session);
    change(|mode| next_generation(mode, goes_on));
    recorder.prune();
    drop(recorder);
    if !goes_on {
        sampler::stop();
    }
    Some(recording)
}

/// What a recording that goes on has so far; None if there is none.
#[cfg(not(loom))]
pub fn so_far(kind: Kind) -> Option<Recording> {
    let recorder = RECORDER.lock();
    let session = if kind == Kind::Trace { &recorder.trace } else { &recorder.flight }.as_ref()?;
    Some(taken(&recorder, session))
}

#[cfg(not(loom))]
fn taken(recorder: &Recorder, session: &Session) -> Recording {
    Recording {
        chunks: recorder.collect(session),
        began: session.began,
        ended: Anchor::here(),
        window: session.window,
        truncated: session.until.is_some(),
    }
}

#[cfg(not(loom))]
impl Recording {
    /// Writes it in the Trace Event Format. `stacks` are the host's, by their numbers, each from the innermost frame.
    pub fn write(&self, stacks: &[Vec<String>], out: &mut dyn std::io::Write) -> std::io::Result<()> {
        chrome::write(self, stacks, out)
    }
}

// ---- forks ---------------------------------------------------------------------------------------

/// Holds what a forked child would find half done.
#[cfg(not(loom))]
pub(crate) fn before_fork() {
    // Who writes for all others may need a chunk.
    std::mem::forget(OTHERS.lock());
    std::mem::forget(RECORDER.lock());
    sampler::before_fork();
}

/// Gives it back, in the parent and in the child.
///
/// # Safety
/// After [`before_fork`], on the same thread.
#[cfg(not(loom))]
pub(crate) unsafe fn after_fork() {
    // SAFETY: by contract.
    unsafe {
        sampler::after_fork();
        RECORDER.force_unlock();
        OTHERS.force_unlock();
    }
}

/// In a forked child nothing is recorded.
#[cfg(not(loom))]
pub(crate) fn start_over() {
    change(|mode| next_generation(mode, false) & !ANY);
    sampler::start_over();
    OTHERS.lock().forget();
    let mut recorder = RECORDER.lock();
    // The chunks stay: another thread of the parent's may have been about to let one go.
    std::mem::forget(std::mem::replace(&mut *recorder, Recorder::new()));
}
