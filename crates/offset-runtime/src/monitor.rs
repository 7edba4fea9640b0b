//! The monitor: one thread, without the host, that hands a processor on when its machine makes no progress for 10 ms.
//!
//! It looks every few milliseconds while any processor runs a goroutine and sleeps when none does. Waiting to attach is
//! progress. Whether a machine without progress computes or is blocked its thread's clock tells: one that is blocked uses no
//! processor time at all, while one that waits for its turn at the interpreter lock wakes every few milliseconds to ask for it.
//!
//! Computing machines share one interpreter lock, so they are capped. At the cap only goroutines that have started run on, and
//! those that have not are tried one by one: as long as none computes, at full speed; after each that does, the next one
//! waits, longer every time. So no number of endless loops stops the rest, nor do they make a machine each at once.

use crate::bed;
use crate::clock::{self, Instant};
use crate::lock::spawn;
use crate::machine::Machine;
use crate::scheduler::{Runtime, runtime};
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
    while !runtime.stopping() {
        if quiet >= QUIET_LOOKS {
            bed::sleep(runtime);
            if !bed::any_running(runtime) {
                continue;
            }
            quiet = 0;
        }
        let asleep = clock::now();
        std::thread::sleep(LOOK);
        late = (late - late / 8).max((clock::now() - asleep).saturating_sub(LOOK.as_nanos() as Instant));
        quiet = if look(runtime, &mut seen, 4 * late) { 0 } else { quiet + 1 };
    }
}

/// One look at everything; whether any goroutine runs. A thread that uses no processor time may only wait for a processor, `slack`
/// longer than on an idle system.
fn look(runtime: &'static Runtime, seen: &mut [Seen], slack: Instant) -> bool {
    let now = clock::now();
    let computing = runtime.machines.lock().stuck.iter().filter(|machine| computes(machine, now, slack)).count();
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
        if state.tick != seen.tick || machine.attaching.load(Ordering::Relaxed) {
            let used = machine.time_used();
            *seen = Seen { tick: state.tick, since: now, used, last_used: used, changed: now, ..*seen };
            continue;
        }
        let used = machine.time_used();
        if used != seen.last_used {
            (seen.last_used, seen.changed) = (used, now);
        }
        if now - seen.since < PATIENCE {
            continue;
        }
        let tick = state.tick;
        let blocked = used - seen.used < COMPUTED;
        if blocked && now - seen.changed < QUIET + slack && now - seen.since < SILENCE + slack {
            // Not much so far, but something of late: that it computes, or waits for the interpreter lock, is soon seen.
            continue;
        }
        if !blocked && computing >= CAP {
            if now < seen.next_handoff {
                continue;
            }
            seen.next_handoff = now + ABOVE_CAP;
            state.fresh_after = now + seen.delay;
            seen.delay = (2 * seen.delay).min(LONGEST_DELAY);
        }
        machine.used.store(used, Ordering::Relaxed);
        machine.used_at.store(now, Ordering::Relaxed);
        machine.computing.store(!blocked, Ordering::Relaxed);
        drop(state);
        runtime.hand_off(processor, tick);
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
    // A look is a quarter of the time in which so much must be used.
    let computing = more >= COMPUTED / 4
        || machine.computing.load(Ordering::Relaxed)
            && now.saturating_sub(machine.used_at.load(Ordering::Relaxed)) < SILENCE + slack;
    machine.computing.store(computing, Ordering::Relaxed);
    computing
}
