//! The stack scan by itself, on arrays that stand for stacks; this executable stands for the interpreter.

#![cfg(target_os = "linux")]

#[path = "../src/scan.rs"]
mod scan;

/// What the scan asks of the shim.
mod shim {
    /// The interpreter is where this function is: its code may move.
    pub(crate) fn offset_interpreter_address() -> usize {
        crate::words_of_the_interpreter_may_move as fn() as usize
    }
}

use std::ffi::{CStr, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A scan that finds the table busy says no: only one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Scans the words as if they were a parked stack.
fn may_move(words: &[usize]) -> bool {
    let _alone = ALONE.lock();
    let range = words.as_ptr_range();
    scan::may_move(range.start as usize, range.end as usize)
}

/// An address inside the code of a library, which is loaded if need be.
fn code_of(library: &CStr, function: &CStr) -> Option<usize> {
    // SAFETY: both are strings; the library runs no constructor that could harm us and stays loaded.
    let address: *mut c_void = unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        if handle.is_null() {
            return None;
        }
        libc::dlsym(handle, function.as_ptr())
    };
    (!address.is_null()).then_some(address as usize + 1)
}

/// A library that is none of ours, found on any Linux with a compiler.
fn foreign() -> usize {
    [
        (c"libz.so.1", c"inflate"),
        (c"libstdc++.so.6", c"__cxa_throw"),
        (c"libcrypt.so.1", c"crypt"),
        (c"liblzma.so.5", c"lzma_code"),
    ]
    .into_iter()
    .find_map(|(library, function)| code_of(library, function))
    .expect("one of these libraries is installed")
}

#[test]
fn words_of_the_interpreter_may_move() {
    assert!(may_move(&[]));
    assert!(may_move(&[0, 1, usize::MAX, words_of_the_interpreter_may_move as fn() as usize]));
}

#[test]
fn the_c_library_may_move() {
    let addresses = [libc::malloc as *const () as usize, libc::poll as *const () as usize + 5];
    assert!(may_move(&addresses));
    assert!(may_move(&[code_of(c"libm.so.6", c"sin").expect("libm is part of the C library")]));
}

#[test]
fn foreign_code_stays() {
    let inside = foreign();
    assert!(!may_move(&[0, inside, 0]));
    assert!(!may_move(&[inside]));
}

#[test]
fn only_words_inside_the_range_count() {
    let words = [foreign(), 0, 0, foreign()];
    assert!(may_move(&words[1..3]));
    assert!(!may_move(&words[1..]));
    assert!(!may_move(&words[..3]));
}

#[test]
fn a_stack_pointer_between_words() {
    let words = [foreign(), 0];
    let start = words.as_ptr() as usize;
    // The first word is cut in half, so it is not one of the stack's.
    let _alone = ALONE.lock();
    assert!(scan::may_move(start + 4, start + 16));
}

#[test]
fn libraries_that_are_loaded_later_are_seen() {
    assert!(may_move(&[0]));
    // Not in the process until now, wherever it is installed.
    let Some(inside) =
        code_of(c"libsqlite3.so.0", c"sqlite3_step").or_else(|| code_of(c"libbz2.so.1.0", c"BZ2_bzCompress"))
    else {
        return;
    };
    assert!(!may_move(&[inside]));
}

#[test]
fn many_threads_at_once() {
    let words = [foreign()];
    let (start, end) = (words.as_ptr() as usize, words.as_ptr() as usize + 8);
    let _alone = ALONE.lock();
    let moved = std::thread::scope(|scope| {
        let scan = || (0..2000).filter(|_| scan::may_move(start, end)).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(scan)).collect();
        threads.into_iter().map(|thread| thread.join().expect("the scan does not panic")).sum::<usize>()
    });
    // Busy or not, the answer for foreign code is never yes.
    assert_eq!(moved, 0);
}

#[test]
fn frames_that_do_not_lead_to_the_base_stay() {
    let _alone = ALONE.lock();
    // No frame of this thread's stack begins at address 0: the walk ends without having seen the base.
    assert!(!scan::frames_may_move(0));
}

#[test]
fn the_child_of_a_fork_finds_the_table_free() {
    let _alone = ALONE.lock();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    scan::may_move(0, 0);
                }
            });
        }
        for _ in 0..200 {
            // The others have to ask the loader again.
            // SAFETY: a string; nothing of the library is used.
            unsafe { libc::dlclose(libc::dlopen(c"libz.so.1".as_ptr(), libc::RTLD_NOW)) };
            scan::before_fork();
            // SAFETY: the child calls nothing that allocates, and leaves without cleaning up.
            let child = unsafe { libc::fork() };
            // SAFETY: on the thread that called the other.
            unsafe { scan::after_fork() };
            if child == 0 {
                // SAFETY: no pointers.
                unsafe {
                    libc::alarm(20);
                    libc::_exit(if scan::may_move(0, 0) { 0 } else { 1 });
                }
            }
            let mut status = 0;
            // SAFETY: the child is this thread's to wait for.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if status != 0 {
                over.store(true, Ordering::Relaxed);
            }
            assert_eq!(status, 0);
        }
        over.store(true, Ordering::Relaxed);
    });
}
