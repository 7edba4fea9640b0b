//! The runtime's clock: nanoseconds of `CLOCK_MONOTONIC` as a `u64`, the same clock as Python's `time.monotonic`.

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

/// The processor time that the OS thread behind `clock` has used, in nanoseconds; 0 once the thread is gone.
pub(crate) fn thread_time(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as in `now`; a clock of an ended thread makes the call fail and leaves the zero in place.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The clock that counts the calling OS thread's processor time and can be read from any other thread.
pub(crate) fn this_thread() -> libc::clockid_t {
    // Linux: the clock of thread `tid` is (~tid << 3) | 6. Asking `pthread_getcpuclockid` instead would go through
    // `pthread_self`, which the host may have redirected.
    // SAFETY: gettid has no preconditions.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    (!thread << 3) | 6
}

/// Whether the OS thread behind `clock` runs, or would if a processor were free: one that the system lets wait for long uses no
/// processor time either, but is not blocked. False where that cannot be known.
pub(crate) fn thread_runs(clock: libc::clockid_t) -> bool {
    use std::io::Read;
    let mut text = [0u8; 128];
    let path = format!("/proc/self/task/{}/stat", !(clock >> 3));
    let Ok(length) = std::fs::File::open(path).and_then(|mut file| file.read(&mut text)) else { return false };
    // "1234 (name) R ...", and a name may contain anything.
    let Some(end) = text[..length].iter().rposition(|&byte| byte == b')') else { return false };
    text[..length].get(end + 2) == Some(&b'R')
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
