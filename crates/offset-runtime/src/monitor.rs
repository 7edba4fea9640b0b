//! The monitor: one thread, without the host, that hands a processor on when its machine makes no progress for 10 ms.
//!
//! It looks every few milliseconds while any processor runs a goroutine and sleeps when none does. Waiting to attach is
//! progress. Whether a machine without progress computes or is blocked its thread's clock tells: one that is blocked uses no
//! processor time at all, while one that waits for its turn at the interpreter lock wakes every few milliseconds to ask for it.
//! On a system so busy that it gives a thread no processor for long, that thread's state tells: it is no blocked thread's.
//!
//! It also sends machines at rest on errands: the host may have left something to do for a thread that sleeps (`Host::owes`).
//!
//! Computing machines share one interpreter lock, so they are capped. At the cap only goroutines that have started run on, and
//! those that have not are tried one by one: as long as none computes, at full speed; after each that does, the next one
//! waits, longer every time. So no number of endless loops stops the rest, nor do they make a machine each at once. A started one that
//! computes, or has to wait for the lock so long that it seems to, makes nobody wait.

use crate::bed;
use crate::clock::{self, Instant};
use crate::lock::spawn;
use crate::machine::Machine;
use crate::scheduler::{Runtime, runtime};
use crate::trace;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LOOK: Duration = Duration::from_micros(2_500);
/// No progress for so long, and the processor is handed on.
const PATIENCE: Instant = 10_000_000;
/// A machine computes once its thread has used so much processor time within `PATIENCE` ...
const COMPUTED: u64 = 100_000;
/// ... and until it has used none at all for so long: a blocked thread uses none, one that waits for the lock a little.
const SILENCE: Instant = 25_000_000;
/// One that has used none for so long is blocked: who waits for the lock asks more often (`sys.getswitchinterval`, 5 ms).
const QUIET: Instant = 7_000_000;
/// Computing machines without a processor that there may be before others wait their turn.
const CAP: usize = 4;
/// Above the cap a machine that computes loses its processor this often.
const ABOVE_CAP: Instant = 100_000_000;
/// Above the cap goroutines that have not started wait for so long after one that computes; twice as long after the next.
const FIRST_DELAY: Instant = 100_000_000;
const LONGEST_DELAY: Instant = 1_600_000_000;
/// Looks between two at what was left for machines at rest.
const ERRANDS: u32 = 4;
/// Looks without any goroutine running before the monitor sleeps.
const QUIET_LOOKS: u32 = 200;

/// What was seen of one processor.
#[derive(Clone, Copy, Default)]
struct Seen {
    tick: u64,
    since: Instant,
    used: u64,
    /// The processor time at the last look, and when it was last found to have gone up.
    last_used: u64,
    changed: Instant,
    next_handoff: Instant,
    delay: Instant,
}

/// What one look shows of a processor that runs a goroutine.
struct Sight<'a> {
    now: Instant,
    tick: u64,
    /// Processor time of the machine's thread.
    used: u64,
    /// The goroutine waits to attach.
    attaching: bool,
    /// The goroutine is one that is tried.
    tried: bool,
    /// Whether the machine's thread would run if it could. Not cheap.
    runs: &'a dyn Fn() -> bool,
}

/// The processor is to be handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Verdict {
    /// The goroutine computes; otherwise it is blocked.
    computes: bool,
    /// From when on goroutines that have not started may be tried, if they must wait now.
    fresh_after: Option<Instant>,
}

impl Seen {
    /// Takes note of what is seen now; whether the processor is to be handed on. `full`: as many machines compute as may. A
    /// thread that uses no processor time may only wait for a processor, `slack` longer than on an idle system.
    fn judge(&mut self, sight: &Sight, full: bool, slack: Instant) -> Option<Verdict> {
        let &Sight { now, tick, used, attaching, tried, runs } = sight;
        if tick != self.tick || attaching {
            *self = Seen { tick, since: now, used, last_used: used, changed: now, ..*self };
            return None;
        }
        if used != self.last_used {
            (self.last_used, self.changed) = (used, now);
        }
        if now - self.since < PATIENCE {
            return None;
        }
        let computes = used - self.used >= COMPUTED;
        if !computes && now - self.changed < QUIET + slack && now - self.since < SILENCE + slack {
            // Not much so far, but something of late: that it computes, or waits for the interpreter lock, is soon seen.
            return None;
        }
        let computes = computes || runs();
        let mut fresh_after = None;
        if computes && full {
            if now < self.next_handoff {
                return None;
            }
            self.next_handoff = now + ABOVE_CAP;
            if tried {
                fresh_after = Some(now + self.delay);
                self.delay = (2 * self.delay).min(LONGEST_DELAY);
            }
        }
        Some(Verdict { computes, fresh_after })
    }
}

/// Starts the thread, once a process.
pub(crate) fn start() {
    if !spawn("offset-monitor", 128 * 1024, || watch(runtime())) {
        crate::dump::fatal("the system refuses a thread for the monitor");
    }
}

fn watch(runtime: &'static Runtime) {
    let mut seen = vec![Seen::default(); runtime.processors.len()];
    let mut quiet = 0;
    // How late the system wakes this thread, at worst of late: so late it may run the others.
    let mut late = 0;
    let mut looks = 0u32;
    while !runtime.stopping() {
        if quiet >= QUIET_LOOKS {
            bed::sleep(runtime);
            if !bed::any_running(runtime) && !runtime.any_errand() {
                continue;
            }
            quiet = 0;
        }
        let asleep = clock::now();
        clock::pause(LOOK);
        late = (late - late / 8).max((clock::now() - asleep).saturating_sub(LOOK.as_nanos() as Instant));
        trace::tick();
        quiet = if look(runtime, &mut seen, 4 * late) { 0 } else { quiet + 1 };
        looks += 1;
        if looks.is_multiple_of(ERRANDS) {
            runtime.send_errands();
        }
        if runtime.netpoll.neglected(clock::now()) {
            runtime.netpoll.glance();
        }
    }
}

/// One look at everything; whether any goroutine runs. `slack`: see [`Seen::judge`].
fn look(runtime: &'static Runtime, seen: &mut [Seen], slack: Instant) -> bool {
    let now = clock::now();
    let stuck = runtime.machines.lock().stuck.clone();
    let computing = stuck.into_iter().filter(|machine| computes(machine, now, slack)).count();
    let mut any = false;
    for (processor, seen) in runtime.processors.iter().zip(seen) {
        let mut state = processor.lock();
        let was_full = std::mem::replace(&mut state.full, computing >= CAP);
        if !state.full {
            seen.delay = FIRST_DELAY;
            state.fresh_after = 0;
            if was_full {
                state.rouse();
            }
        }
        if !state.running {
            seen.tick = state.tick;
            seen.since = now;
            continue;
        }
        any = true;
        // SAFETY: a running processor has a holder, and machines are never freed.
        let machine = unsafe { &*state.holder };
        let tick = state.tick;
        let sight = Sight {
            now,
            tick,
            used: machine.time_used(),
            attaching: machine.attaching.load(Ordering::Relaxed),
            tried: state.tried == tick,
            runs: &|| machine.thread_runs(),
        };
        drop(state);
        let verdict = seen.judge(&sight, computing >= CAP, slack);
        if now - seen.since >= PATIENCE {
            trace::frozen(machine);
        }
        let Some(verdict) = verdict else { continue };
        if let Some(fresh_after) = verdict.fresh_after {
            processor.lock().fresh_after = fresh_after;
        }
        machine.used.store(sight.used, Ordering::Relaxed);
        machine.used_at.store(now, Ordering::Relaxed);
        machine.computing.store(verdict.computes, Ordering::Relaxed);
        if runtime.hand_off(processor, tick) && trace::recording() {
            trace::handed_off(machine, processor, verdict.computes);
        }
    }
    any
}

/// Whether a machine without a processor computes. The fields are the monitor's own.
fn computes(machine: &Machine, now: Instant, slack: Instant) -> bool {
    let used = machine.time_used();
    let more = used.saturating_sub(machine.used.swap(used, Ordering::Relaxed));
    if more > 0 {
        machine.used_at.store(now, Ordering::Relaxed);
    }
    let silent = now.saturating_sub(machine.used_at.load(Ordering::Relaxed));
    let computed = machine.computing.load(Ordering::Relaxed);
    let computing = goes_on(computed, more, silent, slack) || computed && machine.thread_runs();
    machine.computing.store(computing, Ordering::Relaxed);
    computing
}

/// Whether a machine computes that used `more` processor time since the last look and was last seen to use any `silent` ago.
fn goes_on(computed: bool, more: u64, silent: Instant, slack: Instant) -> bool {
    // A look is a quarter of the time in which so much must be used.
    more >= COMPUTED / 4 || computed && silent < SILENCE + slack
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Instant = 1_000_000;

    /// A processor whose machine runs one goroutine, looked at every 2.5 ms.
    struct Watched {
        seen: Seen,
        sight: Sight<'static>,
    }

    impl Watched {
        fn new() -> Watched {
            let mut watched = Watched {
                seen: Seen { delay: FIRST_DELAY, ..Seen::default() },
                sight: Sight { now: 1_000 * MS, tick: 1, used: 5 * MS, attaching: false, tried: true, runs: &|| false },
            };
            // The first look at a new tick takes note of it.
            assert_eq!(watched.seen.judge(&watched.sight, false, 0), None);
            watched
        }

        /// Looks until there is a verdict; after how many milliseconds that is. `used` gives what the thread uses between
        /// two looks, by their number.
        fn verdict(&mut self, full: bool, slack: Instant, used: impl Fn(u64) -> u64) -> (u64, Verdict) {
            let start = self.sight.now;
            for look in 1..10_000 {
                self.sight.now += 5 * MS / 2;
                self.sight.used += used(look);
                if let Some(verdict) = self.seen.judge(&self.sight, full, slack) {
                    return ((self.sight.now - start) / MS, verdict);
                }
            }
            panic!("no verdict after 25 s");
        }

        /// The next goroutine runs.
        fn next(&mut self) {
            self.sight.tick += 1;
            assert_eq!(self.seen.judge(&self.sight, false, 0), None);
        }
    }

    const BLOCKED: Verdict = Verdict { computes: false, fresh_after: None };
    const COMPUTES: Verdict = Verdict { computes: true, fresh_after: None };
    const COMPUTING: fn(u64) -> u64 = |_| 2 * MS;

    #[test]
    fn no_progress_for_ten_milliseconds() {
        assert_eq!(Watched::new().verdict(false, 0, COMPUTING), (10, COMPUTES));
        assert_eq!(Watched::new().verdict(false, 0, |_| 0), (10, BLOCKED));
    }

    #[test]
    fn a_new_goroutine_and_one_that_waits_to_attach_are_progress() {
        let mut watched = Watched::new();
        for _ in 0..100 {
            watched.sight.now += 9 * MS;
            watched.next();
        }
        watched.sight.attaching = true;
        for _ in 0..100 {
            watched.sight.now += 20 * MS;
            assert_eq!(watched.seen.judge(&watched.sight, false, 0), None);
        }
        watched.sight.attaching = false;
        assert_eq!(watched.verdict(false, 0, |_| 0), (10, BLOCKED));
    }

    #[test]
    fn one_that_uses_a_little_of_late_is_watched_for_longer() {
        // It asks for the interpreter lock every 5 ms: neither blocked nor computing until it has been silent for long enough.
        assert_eq!(Watched::new().verdict(false, 0, |look| (look % 2) * 3_000), (25, BLOCKED));
        // It stopped after 5 ms: blocked once it has used nothing for 7 ms.
        assert_eq!(Watched::new().verdict(false, 0, |look| u64::from(look <= 2) * 3_000), (12, BLOCKED));
    }

    #[test]
    fn a_busy_system_is_allowed_for() {
        assert_eq!(Watched::new().verdict(false, 20 * MS, |_| 0), (27, BLOCKED));
        assert_eq!(Watched::new().verdict(false, 20 * MS, COMPUTING), (10, COMPUTES));
    }

    #[test]
    fn one_that_waits_for_the_system_computes() {
        let mut watched = Watched::new();
        watched.sight.runs = &|| true;
        assert_eq!(watched.verdict(false, 0, |_| 0), (10, COMPUTES));
        watched.next();
        // At the cap it is no reason for a hand-off at once, as one that is blocked would be.
        assert_eq!(watched.verdict(true, 0, |_| 0).0, 10);
        watched.next();
        assert_eq!(watched.verdict(true, 0, |_| 0).0, 100);
    }

    #[test]
    fn above_the_cap_each_that_computes_makes_the_next_one_wait_longer() {
        let mut watched = Watched::new();
        let mut handed = Vec::new();
        let mut delays = Vec::new();
        for _ in 0..7 {
            let (after, verdict) = watched.verdict(true, 0, COMPUTING);
            handed.push(after);
            delays.push((verdict.fresh_after.expect("those that have not started wait") - watched.sight.now) / MS);
            watched.next();
        }
        assert_eq!(handed, [10, 100, 100, 100, 100, 100, 100]);
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 1_600, 1_600]);
    }

    #[test]
    fn above_the_cap_a_started_one_that_computes_makes_nobody_wait() {
        let mut watched = Watched::new();
        watched.sight.tried = false;
        for _ in 0..7 {
            assert_eq!(watched.verdict(true, 0, COMPUTING).1, COMPUTES);
            watched.next();
        }
        watched.sight.tried = true;
        let (_, verdict) = watched.verdict(true, 0, COMPUTING);
        assert_eq!(verdict.fresh_after, Some(watched.sight.now + FIRST_DELAY));
    }

    #[test]
    fn above_the_cap_one_that_is_blocked_does_not_wait() {
        let mut watched = Watched::new();
        assert!(watched.verdict(true, 0, COMPUTING).1.computes);
        watched.next();
        assert_eq!(watched.verdict(true, 0, |_| 0), (10, BLOCKED));
        watched.next();
        assert_eq!(watched.verdict(true, 0, |_| 0), (10, BLOCKED));
    }

    #[test]
    fn a_machine_without_a_processor_computes_until_it_was_silent() {
        assert!(goes_on(false, COMPUTED / 4, 0, 0));
        assert!(!goes_on(false, COMPUTED / 4 - 1, 0, 0));
        assert!(goes_on(true, 0, SILENCE - 1, 0));
        assert!(!goes_on(true, 0, SILENCE, 0));
        assert!(goes_on(true, 0, SILENCE, 1));
    }
}
