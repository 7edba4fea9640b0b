//! What is said when a goroutine's C stack runs into its guard: recursion that CPython itself leaves unchecked.
//!
//! Machines handle SIGSEGV on a stack of their own. A fault that is not in the guard of the goroutine that runs here goes to
//! whoever handled the signal before.

use offset_runtime::scheduler;
use offset_runtime::stack;
use std::cell::{RefCell, UnsafeCell};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written once, before the handler that reads it can run.
unsafe impl Sync for Before {}

static INSTALLED: AtomicBool = AtomicBool::new(false);
static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));
const ALTERNATE: usize = 64 * 1024;

unsafe extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: a signal handler's arguments; only write, sigaction and raise are called.
    unsafe {
        let address = (*info).si_addr() as usize;
        if let Some(goroutine) = scheduler::current()
            && goroutine.identity() != 0
            && stack::in_guard(address, goroutine.identity())
        {
            let mut text = [0u8; 512];
            let length = {
                use std::io::Write;
                let mut cursor = std::io::Cursor::new(&mut text[..]);
                let _ = write!(cursor, "runtime: goroutine {} [running] ", goroutine.id());
                let _ = crate::goroutine::write_name(goroutine, &mut cursor);
                let _ = write!(
                    cursor,
                    "\nfatal error: stack overflow: it used up its C stack of {} KiB in recursion that Python does not check.\n\
                     Give goroutines more with offset.runtime.set_stack_size(), or run the call on the main thread with \
                     offset.runtime.call_on_main().\n",
                    stack::stack_size() / 1024,
                );
                cursor.position() as usize
            };
            libc::write(2, text.as_ptr().cast(), length);
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::raise(libc::SIGABRT);
            return;
        }
        let before = (*BEFORE.0.get()).assume_init_ref();
        if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
            libc::signal(signal, libc::SIG_DFL);
            // The faulting instruction runs again and ends the process as it would have.
        } else if before.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(before.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: unsafe extern "C" fn(libc::c_int) = std::mem::transmute(before.sa_sigaction);
            handler(signal);
        }
    }
}

/// Installs the handler, once a process and its children.
pub(crate) fn install() {
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: the old action is stored before a fault can ask for it; the new one is valid for the process's life.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGSEGV, std::ptr::null(), (*BEFORE.0.get()).as_mut_ptr());
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
}

thread_local! {
    static STACK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives the calling machine a stack for the handler.
pub(crate) fn arm_thread() {
    STACK.with_borrow_mut(|memory| {
        *memory = vec![0u8; ALTERNATE];
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: ALTERNATE };
        // SAFETY: the memory stays where it is until `disarm_thread`.
        unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
    });
}

/// Takes it back before the thread ends.
pub(crate) fn disarm_thread() {
    let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the handler is not running on it.
    unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) };
    STACK.take();
}
