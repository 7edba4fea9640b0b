//! The runtime's clock: nanoseconds of `CLOCK_MONOTONIC` as a `u64`, the same clock as Python's `time.monotonic`.

pub(crate) use crate::os::{this_thread, thread_runs, thread_time};
use std::time::Duration;

/// A point in time, in nanoseconds of the monotonic clock.
pub type Instant = u64;

/// Until when a blocking operation may take: for ever when `None`.
pub type Deadline = Option<Instant>;

/// Now, in nanoseconds of the monotonic clock.
pub fn now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Now, as of the kernel's last tick: some milliseconds old, for a quarter of the price.
pub fn coarse() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[cfg(target_os = "linux")]
    let clock = libc::CLOCK_MONOTONIC_COARSE;
    #[cfg(not(target_os = "linux"))]
    let clock = libc::CLOCK_MONOTONIC;
    // SAFETY: as in `now`.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Sleeps for `time`, or for less if a signal comes. std's sleep goes on for what is left, which is more than it was where signals
/// come faster than the kernel's timer is exact: it may never end (tests/test_os_signal_programs.py).
pub(crate) fn pause(time: Duration) {
    let time = libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: time.subsec_nanos() as libc::c_long };
    // SAFETY: the kernel reads one timespec, which is ours.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
}

/// A start for a generator of random numbers; not zero.
pub(crate) fn seed() -> u64 {
    let here = 0u8;
    now() ^ (&raw const here as u64) << 16 | 1
}

/// The deadline that lies `duration` ahead; durations beyond the clock's range mean for ever.
pub fn after(duration: Duration) -> Deadline {
    u64::try_from(duration.as_nanos()).ok().and_then(|nanos| now().checked_add(nanos))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// With std's sleep a millisecond took thirty, or for ever.
    #[test]
    fn signals_end_a_pause() {
        extern "C" fn nothing(_: libc::c_int) {}
        let handler: extern "C" fn(libc::c_int) = nothing;
        // SAFETY: the handler does nothing, and this thread outlives the other one.
        unsafe {
            libc::signal(libc::SIGWINCH, handler as usize);
            let here = libc::pthread_self();
            let over = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        libc::pthread_kill(here, libc::SIGWINCH);
                    }
                });
                pause(Duration::from_secs(3600));
                over.store(true, std::sync::atomic::Ordering::Relaxed);
            });
        }
    }

    #[test]
    fn a_thread_that_computes_runs_and_one_that_waits_does_not() {
        assert!(thread_runs(this_thread()));
        let (to_here, clocks) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            to_here.send(this_thread()).unwrap();
            let _ = wait.recv();
        });
        let clock = clocks.recv().unwrap();
        while thread_runs(clock) {
            std::thread::yield_now();
        }
        drop(end);
        thread.join().unwrap();
        // It has still some way to go when the join returns.
        while thread_runs(clock) {
            std::thread::yield_now();
        }
    }
}
