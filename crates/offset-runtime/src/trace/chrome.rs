//! A recording in the Trace Event Format, which Perfetto reads.
//!
//! Process 1 are the machines: on each thread the goroutines that it ran, one slice from resume to switch; hand-offs, moves and logs
//! are instants, collections a thread of their own. Process 2 are the goroutines, a thread each: running, runnable, or why it waits; regions
//! are asynchronous slices there, as they need not nest with those. Process 3 is the pool for blocking calls, in as many lanes as calls
//! went on at once. Times are microseconds since the recording began.

use super::clock::Anchor;
use super::events::{Event, decode};
use super::{
    ATTACHED, CALL, CALL_END, END, FROZE, GC, GC_END, HANDOFF, LOG, MOVE, NAME, NEW, PARK, READY, REGION, REGION_END,
    RUN, Recording, STATE, WAITED, YIELD,
};
use crate::goroutine::WaitReason;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};

const MACHINES: u32 = 1;
const GOROUTINES: u32 = 2;
const POOL: u32 = 3;
/// The thread of process 1 for what belongs to no machine.
const RUNTIME: u64 = 0;
/// ... and the one for collections.
const COLLECTIONS: u64 = 1_000_000;

/// Nanoseconds; shorter waits for the host are not written.
const NOTABLE: u64 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Runnable,
    Running,
    Waiting(WaitReason),
    Dead,
}

/// A wait, or a time in the queue, that is over and not written yet.
struct Wait {
    from: u64,
    to: u64,
    reason: WaitReason,
    waker: Option<u64>,
}

struct Subject {
    name: Option<Box<str>>,
    place: u32,
    creator: u64,
    state: State,
    since: u64,
    waker: Option<u64>,
    /// Its last wait, until it is known where that was.
    wait: Option<Wait>,
    /// Where it froze in this slice, and whether only where it ended up.
    froze: Option<(u32, bool)>,
    computes: Option<bool>,
    /// Nanoseconds of this slice in which it waited for the host.
    late: u64,
}

/// What a machine does.
#[derive(Default)]
struct Track {
    runs: Option<u64>,
    since: u64,
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    stacks: &'a [Vec<String>],
    line: String,
    first: bool,
    cutoff: u64,
    subjects: HashMap<u64, Subject>,
    tracks: BTreeMap<u32, Track>,
    regions: HashMap<u64, Vec<Box<str>>>,
    calls: HashMap<u64, (u64, u64, Box<str>, usize)>,
    lanes: Vec<bool>,
    collecting: Option<u64>,
    seen: BTreeSet<u64>,
}

pub(super) fn write(recording: &Recording, stacks: &[Vec<String>], out: &mut dyn Write) -> io::Result<()> {
    let events = decode(&recording.chunks);
    let Recording { began, ended, .. } = recording;
    let nanos = |ticks| began.nanos_to(ticks, ended);
    let end = nanos(ended.ticks);
    let cutoff = recording.window.map_or(0, |window| nanos(ended.ticks.saturating_sub(window)));
    let mut writer = Writer {
        out,
        stacks,
        line: String::new(),
        first: true,
        cutoff,
        subjects: HashMap::new(),
        tracks: BTreeMap::new(),
        regions: HashMap::new(),
        calls: HashMap::new(),
        lanes: Vec::new(),
        collecting: None,
        seen: BTreeSet::new(),
    };
    writer.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
    // What chunks that are gone by now said of names is not known; what others say later is.
    for event in events.iter().filter(|event| event.kind == NAME) {
        writer.subject(event.id, 0).name.get_or_insert_with(|| event.text.clone().unwrap_or_default());
    }
    for event in &events {
        writer.event(event, nanos(event.time))?;
    }
    writer.finish(end)?;
    let truncated = recording.truncated;
    let Anchor { nanos: at, .. } = *began;
    write!(
        writer.out,
        "\n],\"otherData\":{{\"producer\":\"offset {}\",\"monotonic_start_ns\":{at},\"duration_ns\":{end},\"from_ns\":{cutoff},\"truncated\":{truncated}}}}}\n",
        env!("CARGO_PKG_VERSION"),
    )?;
    writer.out.flush()
}

/// `text` as the inside of a JSON string.
fn escape(text: &str, into: &mut String) {
    for letter in text.chars() {
        match letter {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\u{20}'.. => into.push(letter),
            _ => {
                let _ = write!(into, "\\u{:04x}", letter as u32);
            }
        }
    }
}

impl Writer<'_> {
    fn subject(&mut self, id: u64, now: u64) -> &mut Subject {
        self.subjects.entry(id).or_insert(Subject {
            name: None,
            place: 0,
            creator: 0,
            state: State::Unknown,
            since: now,
            waker: None,
            wait: None,
            froze: None,
            computes: None,
            late: 0,
        })
    }

    fn name(&self, id: u64) -> String {
        match self.subjects.get(&id).and_then(|subject| subject.name.as_deref()) {
            Some(name) if !name.is_empty() => name.into(),
            _ => format!("goroutine {id}"),
        }
    }

    /// Begins an event: what all have in common.
    fn begin(&mut self, phase: char, process: u32, thread: u64, at: u64, category: &str, name: &str) {
        self.line.clear();
        self.line.push_str(if self.first { "" } else { ",\n" });
        self.first = false;
        let _ = write!(
            self.line,
            "{{\"ph\":\"{phase}\",\"pid\":{process},\"tid\":{thread},\"ts\":{}.{:03},\"cat\":\"{category}\",\"name\":\"",
            at / 1000,
            at % 1000
        );
        escape(name, &mut self.line);
        self.line.push('"');
    }

    /// Goes on with a duration: a nanosecond less, as viewers that calculate in floats take what begins where the last one ends for a
    /// part of it.
    fn lasts(&mut self, nanos: u64) {
        let nanos = nanos.saturating_sub(1);
        let _ = write!(self.line, ",\"dur\":{}.{:03}", nanos / 1000, nanos % 1000);
    }

    fn stack(&mut self, stack: u32) {
        let Some(frames) = self.stacks.get(stack as usize).filter(|frames| !frames.is_empty()) else { return };
        self.line.push_str(",\"stack\":[");
        for (index, frame) in frames.iter().enumerate() {
            self.line.push_str(if index > 0 { ",\"" } else { "\"" });
            escape(frame, &mut self.line);
            self.line.push('"');
        }
        self.line.push(']');
    }

    fn end(&mut self, tail: &str) -> io::Result<()> {
        self.line.push_str(tail);
        self.out.write_all(self.line.as_bytes())
    }

    /// A slice of a goroutine's thread.
    fn phase(
        &mut self,
        id: u64,
        category: &str,
        name: &str,
        (from, to): (u64, u64),
        waker: Option<u64>,
        stack: u32,
    ) -> io::Result<()> {
        if to < self.cutoff || from == to {
            return Ok(());
        }
        self.seen.insert(id);
        self.begin('X', GOROUTINES, id, from, category, name);
        self.lasts(to - from);
        let _ = write!(self.line, ",\"args\":{{\"goroutine\":{id}");
        if let Some(waker) = waker {
            let _ = write!(self.line, ",\"woken_by\":{waker}");
        }
        self.stack(stack);
        self.end("}}")
    }

    /// Writes the wait that went before the present slice, now that it is known where it was.
    fn settle(&mut self, id: u64, stack: u32) -> io::Result<()> {
        let Some(wait) = self.subjects.get_mut(&id).and_then(|subject| subject.wait.take()) else { return Ok(()) };
        self.phase(id, "wait", wait.reason.as_str(), (wait.from, wait.to), wait.waker, stack)
    }

    /// The goroutine's state ends at `now`, and another one begins.
    fn becomes(&mut self, id: u64, now: u64, next: State, waker: Option<u64>) -> io::Result<()> {
        let subject = self.subject(id, now);
        let (state, since, before) = (subject.state, subject.since, subject.waker);
        (subject.state, subject.since, subject.waker) = (next, now.max(since), waker);
        let now = now.max(since);
        match state {
            State::Unknown | State::Dead => Ok(()),
            State::Runnable => self.phase(id, "runnable", "runnable", (since, now), before, 0),
            State::Running => {
                self.settle(id, 0)?;
                self.phase(id, "running", "running", (since, now), None, 0)
            }
            State::Waiting(reason) => {
                self.settle(id, 0)?;
                self.subject(id, now).wait = Some(Wait { from: since, to: now, reason, waker });
                Ok(())
            }
        }
    }

    /// The goroutine that a machine ran has given the stack back.
    fn stops(&mut self, track: u32, id: u64, now: u64, how: &str) -> io::Result<()> {
        let place = self.tracks.entry(track).or_default();
        // One that ran when the recording began.
        let from = if place.runs == Some(id) { Some(place.since) } else { None };
        place.runs = None;
        let name = self.name(id);
        let subject = self.subject(id, now);
        let from = from.unwrap_or(if subject.state == State::Running { subject.since } else { now });
        let (froze, computes, late) =
            (subject.froze.take(), subject.computes.take(), std::mem::take(&mut subject.late));
        if now < self.cutoff {
            return Ok(());
        }
        self.seen.insert(id);
        self.begin('X', MACHINES, track.into(), from, "run", &name);
        self.lasts(now.saturating_sub(from));
        let _ = write!(self.line, ",\"args\":{{\"goroutine\":{id},\"end\":\"{how}\"");
        if late >= NOTABLE {
            let _ = write!(self.line, ",\"host_wait_us\":{}.{:03}", late / 1000, late % 1000);
        }
        if let Some(computes) = computes {
            let _ = write!(self.line, ",\"handed_off\":true,\"computes\":{computes}");
        }
        if let Some((stack, afterwards)) = froze {
            if afterwards {
                self.line.push_str(",\"stack_is_of_the_end\":true");
            }
            self.stack(stack);
        }
        self.end("}}")
    }

    fn instant(&mut self, thread: u64, now: u64, category: &str, name: &str, args: &str) -> io::Result<()> {
        if now < self.cutoff {
            return Ok(());
        }
        self.begin('i', MACHINES, thread, now, category, name);
        self.line.push_str(",\"s\":\"t\",\"args\":{");
        self.line.push_str(args);
        self.end("}}")
    }

    fn event(&mut self, event: &Event, now: u64) -> io::Result<()> {
        let &Event { track, kind, id, number, .. } = event;
        let text = event.text.as_deref().unwrap_or_default();
        match kind {
            RUN => {
                let at = self.tracks.entry(track).or_default();
                (at.runs, at.since) = (Some(id), now);
                self.becomes(id, now, State::Running, None)?;
            }
            YIELD => {
                self.stops(track, id, now, "yield")?;
                self.becomes(id, now, State::Runnable, None)?;
            }
            END => {
                self.stops(track, id, now, "end")?;
                self.becomes(id, now, State::Dead, None)?;
            }
            READY => {
                let waker = self.tracks.get(&track).and_then(|track| track.runs);
                self.becomes(id, now, State::Runnable, waker)?;
            }
            NEW => {
                self.subject(id, now).creator = number;
                self.becomes(id, now, State::Runnable, (number != 0).then_some(number))?;
            }
            NAME => {
                let subject = self.subject(id, now);
                subject.name = Some(text.into());
                subject.place = if number != 0 { number as u32 } else { subject.place };
            }
            STATE => {
                let subject = self.subject(id, now);
                if subject.state == State::Unknown {
                    subject.since = now;
                    subject.state = match number & 0xFF {
                        0 => State::Runnable,
                        1 => State::Running,
                        2 => State::Waiting(WaitReason::of((number >> 8) as usize)),
                        _ => State::Dead,
                    };
                }
            }
            WAITED => self.settle(id, number as u32)?,
            FROZE => {
                let subject = self.subject(id, now);
                subject.froze.get_or_insert((number as u32, number >> 32 != 0));
            }
            ATTACHED => {
                let since = self.tracks.get(&track).filter(|at| at.runs == Some(id)).map(|at| at.since);
                if let Some(since) = since {
                    self.subject(id, now).late += now.saturating_sub(since);
                }
            }
            HANDOFF => {
                let (from, computes, to) = (number & 0x7FFF_FFFF, number >> 31 & 1 == 1, number >> 32);
                self.subject(id, now).computes = Some(computes);
                let args = format!("\"goroutine\":{id},\"from\":{from},\"to\":{to},\"computes\":{computes}");
                self.instant(RUNTIME, now, "handoff", "hand-off", &args)?;
            }
            MOVE => {
                let args = format!("\"goroutine\":{id},\"from\":{},\"to\":{}", number & 0xFFFF_FFFF, number >> 32);
                self.instant(RUNTIME, now, "move", "move", &args)?;
            }
            LOG => {
                let (category, message) = text.split_once('\0').unwrap_or(("", text));
                let mut args = format!("\"goroutine\":{id},\"category\":\"");
                escape(category, &mut args);
                args.push('"');
                self.instant(track.into(), now, "log", message, &args)?;
            }
            GC => self.collecting = Some(now),
            GC_END => {
                let from = self.collecting.take().unwrap_or(now);
                if now >= self.cutoff {
                    self.begin('X', MACHINES, COLLECTIONS, from, "gc", &format!("collection of generation {id}"));
                    self.lasts(now - from);
                    self.end(&format!(",\"args\":{{\"generation\":{id},\"collected\":{number}}}}}"))?;
                }
            }
            CALL => {
                let (goroutine, name) = text.split_once('\0').unwrap_or(("0", text));
                let lane = self.lanes.iter().position(|busy| !busy).unwrap_or(self.lanes.len());
                if lane == self.lanes.len() {
                    self.lanes.push(true);
                } else {
                    self.lanes[lane] = true;
                }
                self.calls.insert(id, (now, goroutine.parse().unwrap_or(0), name.into(), lane));
            }
            CALL_END => {
                if let Some(call) = self.calls.remove(&id) {
                    self.call(call, now)?;
                }
            }
            REGION => {
                self.regions.entry(id).or_default().push(text.into());
                self.region('b', id, now, text)?;
            }
            REGION_END => {
                let open = self.regions.entry(id).or_default();
                // One that began before the recording has no beginning to be paired with.
                if let Some(at) = open.iter().rposition(|name| **name == *text) {
                    open.remove(at);
                    self.region('e', id, now, text)?;
                }
            }
            _ if kind >= PARK => {
                let reason = WaitReason::of((kind - PARK) as usize);
                self.stops(track, id, now, reason.as_str())?;
                self.becomes(id, now, State::Waiting(reason), None)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn region(&mut self, phase: char, id: u64, now: u64, name: &str) -> io::Result<()> {
        self.seen.insert(id);
        // Beginnings before the cut-off are kept: their ends may come after it.
        self.begin(phase, GOROUTINES, id, now, "region", name);
        self.end(&format!(",\"id\":\"{id}\",\"args\":{{\"goroutine\":{id}}}}}"))
    }

    fn call(&mut self, (from, goroutine, name, lane): (u64, u64, Box<str>, usize), now: u64) -> io::Result<()> {
        self.lanes[lane] = false;
        if now < self.cutoff {
            return Ok(());
        }
        self.begin('X', POOL, lane as u64 + 1, from, "call", &name);
        self.lasts(now.saturating_sub(from));
        self.end(&format!(",\"args\":{{\"goroutine\":{goroutine}}}}}"))
    }

    /// Ends what is open, and names processes and threads.
    fn finish(&mut self, end: u64) -> io::Result<()> {
        let running: Vec<(u32, u64)> =
            self.tracks.iter().filter_map(|(&track, at)| at.runs.map(|id| (track, id))).collect();
        for (track, id) in running {
            self.stops(track, id, end, "")?;
        }
        let mut ids: Vec<u64> = self.subjects.keys().copied().collect();
        ids.sort_unstable();
        for &id in &ids {
            let subject = self.subject(id, end);
            let waits = matches!(subject.state, State::Waiting(_));
            self.becomes(id, end, State::Dead, None)?;
            if waits {
                self.settle(id, 0)?;
            }
        }
        for (id, names) in std::mem::take(&mut self.regions) {
            for name in names.iter().rev() {
                self.region('e', id, end, name)?;
            }
        }
        let mut calls: Vec<_> = std::mem::take(&mut self.calls).into_values().collect();
        calls.sort();
        for call in calls {
            self.call(call, end)?;
        }
        for (process, name) in [(MACHINES, "machines"), (GOROUTINES, "goroutines"), (POOL, "blocking calls")] {
            self.label("process_name", process, RUNTIME, name)?;
        }
        self.label("thread_name", MACHINES, RUNTIME, "runtime")?;
        self.label("thread_name", MACHINES, COLLECTIONS, "collections")?;
        let tracks: Vec<u32> = self.tracks.keys().copied().filter(|&track| track != 0).collect();
        for track in tracks {
            self.label("thread_name", MACHINES, track.into(), &format!("machine {track}"))?;
        }
        for lane in 1..=self.lanes.len() as u64 {
            self.label("thread_name", POOL, lane, &format!("calls {lane}"))?;
        }
        for id in std::mem::take(&mut self.seen) {
            let name = self.name(id);
            self.label("thread_name", GOROUTINES, id, &name)?;
            let (creator, place) = self.subjects.get(&id).map_or((0, 0), |subject| (subject.creator, subject.place));
            self.begin('M', GOROUTINES, id, 0, "__metadata", "goroutine");
            let _ = write!(self.line, ",\"args\":{{\"creator\":{creator}");
            self.stack(place);
            self.end("}}")?;
        }
        Ok(())
    }

    fn label(&mut self, what: &str, process: u32, thread: u64, name: &str) -> io::Result<()> {
        self.begin('M', process, thread, 0, "__metadata", what);
        self.line.push_str(",\"args\":{\"name\":\"");
        let mut escaped = String::new();
        escape(name, &mut escaped);
        self.line.push_str(&escaped);
        self.end("\"}}")
    }
}
