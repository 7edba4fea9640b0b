//! What is said before the end, when an invariant of the runtime is broken or the system refuses what it needs.

use crate::goroutine::Goroutine;
use std::io::Write;

/// Reports `what` with the goroutine that runs here, and aborts. Takes no lock.
#[cold]
pub(crate) fn fatal(what: &str) -> ! {
    let goroutine = crate::scheduler::current().map_or(0, Goroutine::id);
    let mut text = std::io::Cursor::new([0u8; 512]);
    let _ = writeln!(text, "fatal error: offset: {what} (goroutine {goroutine})");
    let length = text.position() as usize;
    // SAFETY: the bytes are ours. `write` is all that may be used here: the heap may be broken.
    unsafe { libc::write(2, text.get_ref().as_ptr().cast(), length) };
    std::process::abort();
}
