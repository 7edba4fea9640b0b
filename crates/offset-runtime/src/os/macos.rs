//! macOS: `__ulock`, on which the system's own libraries sleep, pipes, pselect.

use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Compare 32 bits and wait; errors are given as negative numbers.
const COMPARE_AND_WAIT: u32 = 1;
const NO_ERRNO: u32 = 0x0100_0000;

unsafe extern "C" {
    /// `timeout` in microseconds, 0 for ever.
    fn __ulock_wait(operation: u32, address: *const AtomicU32, value: u64, timeout: u32) -> libc::c_int;
    fn __ulock_wake(operation: u32, address: *const AtomicU32, value: u64) -> libc::c_int;
}

/// Sleeps while the word is `seen`, or for no reason; true if the time is over.
pub(crate) fn sleep(word: &AtomicU32, seen: u32, time: Option<Duration>) -> bool {
    // Who sleeps for longer than an hour wakes for no reason.
    let most = 3_600_000_000;
    let micros = time.map_or(0, |time| time.as_nanos().div_ceil(1_000).clamp(1, most) as u32);
    // SAFETY: the word outlives the call.
    let result = unsafe { __ulock_wait(COMPARE_AND_WAIT | NO_ERRNO, word, u64::from(seen), micros) };
    result == -libc::ETIMEDOUT && u128::from(micros) < most
}

/// Wakes one who sleeps on the word. May be called in a signal handler.
pub(crate) fn wake_one(word: &AtomicU32) {
    // SAFETY: only the address is used, to look for sleepers on it.
    unsafe { __ulock_wake(COMPARE_AND_WAIT | NO_ERRNO, word, 0) };
}

/// Where the calling thread's error number is.
pub fn errno() -> *mut libc::c_int {
    // SAFETY: no preconditions.
    unsafe { libc::__error() }
}

/// Whether the calling thread is the one with which the process began.
pub fn is_main_thread() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::pthread_main_np() != 0 }
}

fn keep_to_ourselves(descriptor: RawFd) {
    // SAFETY: a descriptor of ours, made just now.
    unsafe {
        libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(descriptor, libc::F_SETFL, libc::O_NONBLOCK);
    }
}

/// The next connection, whose descriptor does not block and is not inherited; -1 with the error number set. A process that is started
/// between the two steps inherits it all the same.
pub fn accept(listener: RawFd) -> RawFd {
    // SAFETY: no address is asked for.
    let made = unsafe { libc::accept(listener, null_mut(), null_mut()) };
    if made >= 0 {
        keep_to_ourselves(made);
    }
    made
}

/// The family of addresses that a socket has, as AF_INET.
pub fn family(socket: RawFd) -> Option<libc::c_int> {
    // SAFETY: bytes only; the system writes no more than `size`.
    let (address, answer) = unsafe {
        let mut address: libc::sockaddr_storage = zeroed();
        let mut size = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let answer = libc::getsockname(socket, (&raw mut address).cast(), &raw mut size);
        (address, answer)
    };
    (answer == 0).then_some(libc::c_int::from(address.ss_family))
}

/// A descriptor that is readable from [`Bell::ring`] to [`Bell::silence`]: the first is, the other one is written to.
pub(crate) struct Bell(RawFd, RawFd);

impl Bell {
    /// None if the system has no descriptors for it.
    pub(crate) fn new() -> Option<Bell> {
        let mut ends = [-1; 2];
        // SAFETY: the system writes two numbers.
        if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
            return None;
        }
        ends.into_iter().for_each(keep_to_ourselves);
        Some(Bell(ends[0], ends[1]))
    }

    pub(crate) fn ring(&self) {
        // A full pipe is readable, too.
        // SAFETY: one byte; the descriptor is open as long as the bell is there.
        unsafe { libc::write(self.1, c"!".as_ptr().cast(), 1) };
    }

    pub(crate) fn silence(&self) {
        let mut bytes = [0u8; 64];
        // SAFETY: as in `ring`; a short answer was all that there is.
        while unsafe { libc::read(self.0, bytes.as_mut_ptr().cast(), bytes.len()) } == bytes.len() as isize {}
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody has them any more.
        unsafe {
            libc::close(self.0);
            libc::close(self.1);
        }
    }
}

/// Waits until `descriptor` is readable, for `nanos` at most, or until one of the signals comes that are blocked now and are not in `mask`. Such
/// a signal ends the wait also if it has come before.
pub(crate) fn poll_with_mask(descriptor: RawFd, nanos: u64, mask: &libc::sigset_t) {
    // A set has no room for greater descriptors: then without one, and not for long.
    let fits = (0..libc::FD_SETSIZE as RawFd).contains(&descriptor);
    let nanos = if fits { nanos } else { nanos.min(10_000_000) };
    let timeout = libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the set, the time and the mask live until the call returns, and the descriptor fits into the set.
    unsafe {
        let mut set: libc::fd_set = zeroed();
        if fits {
            libc::FD_SET(descriptor, &mut set);
        }
        let count = if fits { descriptor + 1 } else { 0 };
        libc::pselect(count, &mut set, null_mut(), null_mut(), &timeout, mask);
    }
}

/// There are none that come by themselves.
///
/// # Safety
/// None is needed.
pub(crate) unsafe fn forbid_huge_pages(_at: *mut libc::c_void, _bytes: usize) {}

/// What the calling OS thread's processor time is asked for with, from any other thread: its port.
pub(crate) fn this_thread() -> i32 {
    // The port lives as long as the thread.
    // SAFETY: no preconditions.
    unsafe { libc::pthread_mach_thread_np(libc::pthread_self()) as i32 }
}

fn ask(clock: i32) -> Option<libc::thread_basic_info> {
    // SAFETY: numbers only.
    let mut info: libc::thread_basic_info = unsafe { zeroed() };
    let mut count = (size_of::<libc::thread_basic_info>() / size_of::<libc::c_int>()) as libc::mach_msg_type_number_t;
    // SAFETY: the kernel writes no more than `count` words; a port of an ended thread makes it fail.
    let result = unsafe {
        libc::thread_info(
            clock as libc::mach_port_t,
            libc::THREAD_BASIC_INFO as libc::thread_flavor_t,
            (&raw mut info).cast(),
            &mut count,
        )
    };
    (result == libc::KERN_SUCCESS).then_some(info)
}

/// The processor time that the OS thread behind `clock` has used, in nanoseconds; 0 once the thread is gone.
pub(crate) fn thread_time(clock: i32) -> u64 {
    let nanos = |time: libc::time_value_t| time.seconds as u64 * 1_000_000_000 + time.microseconds as u64 * 1_000;
    ask(clock).map_or(0, |info| nanos(info.user_time) + nanos(info.system_time))
}

/// Whether the OS thread behind `clock` runs, or would if a processor were free: one that the system lets wait for long uses no
/// processor time either, but is not blocked. False where that cannot be known.
pub(crate) fn thread_runs(clock: i32) -> bool {
    ask(clock).is_some_and(|info| info.run_state == libc::TH_STATE_RUNNING)
}
