//! Linux: futex, eventfd, ppoll.

use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while the word is `seen`, or for no reason; true if the time is over.
pub(crate) fn sleep(word: &AtomicU32, seen: u32, time: Option<Duration>) -> bool {
    let time = time.map(|time| libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos() as libc::c_long,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the time outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, seen, time) };
    // SAFETY: the calling thread's own word.
    result != 0 && unsafe { *errno() } == libc::ETIMEDOUT
}

/// Wakes one who sleeps on the word. May be called in a signal handler.
pub(crate) fn wake_one(word: &AtomicU32) {
    // SAFETY: only the address is used, to look for sleepers on it.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
}

/// Where the calling thread's error number is.
pub fn errno() -> *mut libc::c_int {
    // SAFETY: no preconditions.
    unsafe { libc::__errno_location() }
}

/// Whether the calling thread is the one with which the process began.
pub fn is_main_thread() -> bool {
    // SAFETY: plain system calls. Its number is the process's.
    unsafe { libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid()) }
}

/// The next connection, whose descriptor does not block and is not inherited; -1 with the error number set.
pub fn accept(listener: RawFd) -> RawFd {
    // SAFETY: no address is asked for.
    unsafe { libc::accept4(listener, null_mut(), null_mut(), libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) }
}

/// The family of addresses that a socket has, as AF_INET.
pub fn family(socket: RawFd) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both are as large as said.
    let answer =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut value).cast(), &raw mut size) };
    (answer == 0).then_some(value)
}

/// A descriptor that is readable from [`Bell::ring`] to [`Bell::silence`].
pub(crate) struct Bell(RawFd);

impl Bell {
    /// None if the system has no descriptor for it.
    pub(crate) fn new() -> Option<Bell> {
        // SAFETY: plain system call.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        (event >= 0).then_some(Bell(event))
    }

    pub(crate) fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of ours, which eventfd accepts whole; the descriptor is open as long as the bell is there.
        unsafe { libc::write(self.0, (&raw const one).cast(), 8) };
    }

    pub(crate) fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: as in `ring`.
        unsafe { libc::read(self.0, (&raw mut count).cast(), 8) };
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody has it any more.
        unsafe { libc::close(self.0) };
    }
}

/// Waits until `descriptor` is readable, for `nanos` at most, or until one of the signals comes that are blocked now and are not in `mask`. Such
/// a signal ends the wait also if it has come before.
pub(crate) fn poll_with_mask(descriptor: RawFd, nanos: u64, mask: &libc::sigset_t) {
    let timeout = libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    };
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: the pollfd, the time and the set live until the call returns. A negative descriptor is passed over.
    unsafe { libc::ppoll(&mut poll, 1, &timeout, mask) };
}

/// Huge pages would commit two megabytes for the first word of a goroutine's stack.
///
/// # Safety
/// The memory is a mapping of the caller's.
pub(crate) unsafe fn forbid_huge_pages(at: *mut libc::c_void, bytes: usize) {
    // SAFETY: by contract; it is no more than advice.
    unsafe { libc::madvise(at, bytes, libc::MADV_NOHUGEPAGE) };
}

/// The clock that counts the calling OS thread's processor time and can be read from any other thread.
pub(crate) fn this_thread() -> i32 {
    // The clock of thread `tid` is (~tid << 3) | 6. Asking `pthread_getcpuclockid` instead would go through
    // `pthread_self`, which the host may have redirected.
    // SAFETY: gettid has no preconditions.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    (!thread << 3) | 6
}

/// The processor time that the OS thread behind `clock` has used, in nanoseconds; 0 once the thread is gone.
pub(crate) fn thread_time(clock: i32) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours; a clock of an ended thread makes the call fail and leaves the zero in place.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Whether the OS thread behind `clock` runs, or would if a processor were free: one that the system lets wait for long uses no
/// processor time either, but is not blocked. False where that cannot be known.
pub(crate) fn thread_runs(clock: i32) -> bool {
    use std::io::Read;
    let mut text = [0u8; 128];
    let path = format!("/proc/self/task/{}/stat", !(clock >> 3));
    let Ok(length) = std::fs::File::open(path).and_then(|mut file| file.read(&mut text)) else { return false };
    // "1234 (name) R ...", and a name may contain anything.
    let Some(end) = text[..length].iter().rposition(|&byte| byte == b')') else { return false };
    text[..length].get(end + 2) == Some(&b'R')
}
