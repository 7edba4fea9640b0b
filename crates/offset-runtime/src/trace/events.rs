//! From chunks to events in the order of time.
//!
//! An event that was not stamped happened between two that were. They are taken to have come evenly, unless the monitor's tick went up
//! in between: then the time went by in the last of them, and the others came as fast as those before.

use super::buffer::{
    Chunk, DELTA_MASK, DELTA_SHIFT, FIRST_SHIFT, FORCED, ID_BITS, ID_MASK, ID_SHIFT, KIND_BITS, SECOND_SHIFT,
    TICKS_A_UNIT, UNSTAMPED,
};
use super::{
    ATTACHED, CALL, CALL_END, FROZE, GC, GC_END, HANDED, HANDOFF, LOG, MOVE, NAME, NEW, READY, REGION, REGION_END, RUN,
    STATE, SWITCH, TIME, WAITED, WIDE, left_kind,
};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Ticks of the event clock.
    pub(super) time: u64,
    /// The machine that wrote it; 0 for others.
    pub(super) track: u32,
    pub(super) kind: u64,
    pub(super) id: u64,
    pub(super) number: u64,
    pub(super) text: Option<Box<str>>,
}

/// All events of `chunks`, by time; those of one chunk in the order in which they were written.
pub(super) fn decode(chunks: &[Arc<Chunk>]) -> Vec<Event> {
    let mut events = Vec::new();
    // What each track ran last: its chunks are in the order in which they were taken.
    let mut runs = HashMap::new();
    for chunk in chunks {
        let running = runs.entry(chunk.track).or_insert(0);
        read(chunk.track, chunk.base, chunk.sealed(), &chunk.read(), running, &mut events);
    }
    events.sort_by_key(|event| event.time);
    events
}

/// Events that have no time yet.
struct Open {
    /// The last stamp, and how far apart events were before it.
    stamp: u64,
    pace: u64,
    /// The first event since.
    first: usize,
}

impl Open {
    /// The clock says `now`, `and_one` for an event that follows.
    fn close(&mut self, events: &mut [Event], now: u64, forced: bool) {
        let count = (events.len() - self.first) as u64;
        let even = now.saturating_sub(self.stamp) / (count + 1);
        let pace = if forced { self.pace.min(even) } else { even };
        for (event, place) in events[self.first..].iter_mut().zip(1..) {
            event.time = self.stamp + pace * place;
        }
        if !forced {
            self.pace = even;
        }
        self.stamp = now;
        self.first = events.len();
    }
}

/// Reads the words of a chunk, all written between `base` and `sealed`.
fn read(track: u32, base: u64, sealed: u64, words: &[u64], running: &mut u64, events: &mut Vec<Event>) {
    let mut open = Open { stamp: base, pace: 0, first: events.len() };
    let (mut at, mut high, mut clock) = (0, 0, base);
    while at < words.len() {
        let word = words[at];
        at += 1;
        let kind = word & ((1 << KIND_BITS) - 1);
        let mut delta = word >> DELTA_SHIFT & DELTA_MASK;
        match kind {
            TIME => {
                // What follows has a stamp of its own, relative to this.
                clock = words.get(at).copied().unwrap_or(clock);
                at += 1;
                continue;
            }
            WIDE => {
                high = word >> ID_SHIFT << ID_BITS;
                continue;
            }
            _ => {}
        }
        let mut id = high | word >> ID_SHIFT;
        high = 0;
        if kind >= HANDED {
            (id, delta) = (word >> SECOND_SHIFT, UNSTAMPED);
        }
        let mut event = Event { time: 0, track, kind, id, number: 0, text: None };
        if kind >= HANDED {
            events.push(Event { kind: READY, id: word >> FIRST_SHIFT & ID_MASK, ..event.clone() });
        }
        if kind >= SWITCH {
            let code = kind - if kind >= HANDED { HANDED } else { SWITCH };
            // The chunk in which it began to run may be gone.
            if *running != 0 {
                events.push(Event { kind: left_kind(code), id: *running, ..event.clone() });
            }
            event.kind = RUN;
        }
        if event.kind == RUN {
            *running = id;
        }
        match kind {
            NEW | STATE | WAITED | FROZE | ATTACHED | HANDOFF | MOVE | GC | GC_END => {
                event.number = words.get(at).copied().unwrap_or(0);
                at += 1;
            }
            NAME | CALL | CALL_END | REGION | REGION_END | LOG => {
                let size = words.get(at).copied().unwrap_or(0);
                at += 1;
                event.number = size & 0xFFFF_FFFF;
                let len = (size >> 32) as usize;
                let end = (at + len.div_ceil(8)).min(words.len());
                let bytes: Vec<u8> = words[at..end].iter().flat_map(|word| word.to_le_bytes()).take(len).collect();
                event.text = Some(String::from_utf8_lossy(&bytes).into());
                at = end;
            }
            _ => {}
        }
        if delta != UNSTAMPED {
            clock += delta << TICKS_A_UNIT;
            open.close(events, clock, word & FORCED != 0);
            event.time = clock;
            events.push(event);
            open.first = events.len();
        } else {
            events.push(event);
        }
    }
    // They came before what the next chunk has.
    let end = open.stamp + open.pace * ((events.len() - open.first) as u64 + 1);
    open.close(events, end.min(sealed), false);
}

#[cfg(test)]
mod tests {
    use super::super::{PARK, YIELD, YIELDED};
    use super::*;

    fn word(kind: u64, forced: bool, delta: u64, id: u64) -> u64 {
        kind | if forced { FORCED } else { 0 } | delta << DELTA_SHIFT | id << ID_SHIFT
    }

    fn times(words: &[u64]) -> Vec<(u64, u64)> {
        let mut events = Vec::new();
        read(1, 1_000, u64::MAX, words, &mut 0, &mut events);
        events.iter().map(|event| (event.id, event.time)).collect()
    }

    #[test]
    fn stamps_add_up() {
        let words = [word(RUN, false, 10, 1), word(READY, false, 0, 2), word(READY, false, 5, 3)];
        assert_eq!(times(&words), [(1, 1_040), (2, 1_040), (3, 1_060)]);
    }

    #[test]
    fn a_long_time_has_a_record_of_its_own() {
        let words = [word(TIME, false, UNSTAMPED, 0), 900_000, word(RUN, false, 0, 1), word(READY, false, 1, 2)];
        assert_eq!(times(&words), [(1, 900_000), (2, 900_004)]);
    }

    #[test]
    fn what_was_not_stamped_came_evenly() {
        let none = UNSTAMPED;
        let words =
            [word(RUN, false, 0, 1), word(READY, false, none, 2), word(READY, false, none, 3), word(RUN, false, 75, 4)];
        assert_eq!(times(&words), [(1, 1_000), (2, 1_100), (3, 1_200), (4, 1_300)]);
    }

    #[test]
    fn unless_time_went_by_in_the_last_of_them() {
        let none = UNSTAMPED;
        let words = [
            word(RUN, false, 0, 1),
            word(RUN, false, 10, 2),
            word(READY, false, none, 3),
            word(READY, false, none, 4),
            word(RUN, true, 250_000, 5),
        ];
        assert_eq!(times(&words), [(1, 1_000), (2, 1_040), (3, 1_080), (4, 1_120), (5, 1_001_040)]);
    }

    /// Whom the first record of the next chunk made ready seemed to be so before it waited.
    #[test]
    fn what_was_not_stamped_came_before_the_next_chunk() {
        let words = [
            word(RUN, false, 0, 1),
            word(RUN, false, 100, 2),
            word(READY, false, UNSTAMPED, 3),
            word(READY, false, UNSTAMPED, 4),
        ];
        let mut events = Vec::new();
        read(1, 1_000, 1_430, &words, &mut 0, &mut events);
        assert_eq!(events.iter().map(|event| event.time).collect::<Vec<_>>(), [1_000, 1_400, 1_410, 1_420]);
    }

    #[test]
    fn one_word_for_two_events() {
        let words = [
            word(RUN, false, 0, 1),
            word(SWITCH + 2, false, UNSTAMPED, 5),
            word(SWITCH + YIELDED, false, UNSTAMPED, 6),
        ];
        let mut events = Vec::new();
        read(1, 0, u64::MAX, &words, &mut 0, &mut events);
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.id)).collect();
        assert_eq!(kinds, [(RUN, 1), (PARK + 2, 1), (RUN, 5), (YIELD, 5), (RUN, 6)]);
    }

    #[test]
    fn one_word_for_three_events() {
        let handed = (HANDED + 2) | 4 << FIRST_SHIFT | 5 << SECOND_SHIFT;
        let words = [word(RUN, false, 0, 1), handed, word(RUN, false, 75, 6)];
        let mut events = Vec::new();
        read(1, 1_000, u64::MAX, &words, &mut 0, &mut events);
        let seen: Vec<_> = events.iter().map(|event| (event.kind, event.id, event.time)).collect();
        let wanted = [(RUN, 1, 1_000), (READY, 4, 1_075), (PARK + 2, 1, 1_150), (RUN, 5, 1_225), (RUN, 6, 1_300)];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn large_numbers_and_texts() {
        let words = [
            word(WIDE, false, UNSTAMPED, 3),
            word(NAME, false, 1, 7),
            5 | 10 << 32,
            u64::from_le_bytes(*b"goroutin"),
            0x2165,
        ];
        let mut events = Vec::new();
        read(1, 0, u64::MAX, &words, &mut 0, &mut events);
        assert_eq!(events[0].id, 3 << ID_BITS | 7);
        assert_eq!((events[0].number, events[0].text.as_deref()), (5, Some("goroutine!")));
    }
}
