//! C stacks for goroutines: lazily committed regions of virtual memory, each with a guard below it.
//!
//! ```text
//!   low address                                                            high address
//!   | guard, 384 KiB | C stack, grows down  <------- base | host's memory, grows up -> |
//!                    ^ low                                ^ not page-aligned          ^ top
//! ```
//!
//! `base` lies in the middle of a page, so that a parked goroutine, which uses a little on both sides of it, costs one page.
//! Regions of the default size are cut from slabs and go back to a free list; they are never unmapped. A region is owned by
//! whoever holds the [`Stack`].

use crate::lock::Lock;
use corosensei::stack::StackPointer;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;
/// One C frame of CPython's decimal module is 262 KB and could step over a smaller guard.
const GUARD: usize = 384 * 1024;
/// Memory above the C stack for the host (CPython's first data-stack chunk).
const HOST: usize = 64 * 1024;
/// How much of the page that `base` lies in belongs to the C stack.
const SHARED: usize = 2048;
const SLAB: usize = 256;
/// The smallest stack that can be asked for.
pub const MIN_STACK: usize = 256 * 1024;
/// Linux's advice that turns pages into a guard without splitting the mapping (kernel 6.13).
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// Usable bytes of the C stacks that are made from now on, unless the host says otherwise.
static SIZE: AtomicUsize = AtomicUsize::new(1024 * 1024);
/// Guards that had to be made by splitting a mapping; bounded by the kernel's limit on mappings.
static SPLIT: AtomicUsize = AtomicUsize::new(0);
const SPLIT_LIMIT: usize = 30_000;

static FREE: Lock<Free> = Lock::new(Free { regions: Vec::new(), stride: 0, next: 0, end: 0 });

struct Free {
    /// Addresses of regions that were given back, all of size `stride`.
    regions: Vec<usize>,
    stride: usize,
    /// What is left of the newest slab.
    next: usize,
    end: usize,
}

/// Sets the usable size of C stacks made from now on, rounded up to whole pages; gives the previous size.
pub fn set_stack_size(bytes: usize) -> usize {
    let bytes = bytes.max(MIN_STACK).next_multiple_of(PAGE);
    SIZE.swap(bytes, Ordering::Relaxed)
}

/// The usable size of C stacks that are made now.
pub fn stack_size() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// One goroutine's region.
pub(crate) struct Stack {
    /// The region's lowest address, where the guard starts.
    region: usize,
    /// Usable bytes of the C stack.
    size: usize,
}

impl Stack {
    /// A region of the present size, fresh or used before; None when there is no memory for it.
    pub(crate) fn new() -> Option<Stack> {
        let size = stack_size();
        let stride = GUARD + size + HOST;
        let mut free = FREE.lock();
        if free.stride != stride {
            // The size was changed: what is left of the old size stays mapped and unused, as it costs no memory.
            *free = Free { regions: Vec::new(), stride, next: 0, end: 0 };
        }
        if let Some(region) = free.regions.pop() {
            return Some(Stack { region, size });
        }
        if free.next == free.end {
            let (address, count) = [SLAB, 16, 1].into_iter().find_map(|n| map(n * stride).map(|at| (at, n)))?;
            free.next = address;
            free.end = address + count * stride;
        }
        let region = free.next;
        free.next += stride;
        drop(free);
        guard(region);
        Some(Stack { region, size })
    }

    /// The lowest usable address, which also serves as the goroutine's identity.
    pub(crate) fn low(&self) -> usize {
        self.region + GUARD
    }

    /// Where the C stack starts, growing down.
    pub(crate) fn base_address(&self) -> usize {
        self.low() + self.size - PAGE + SHARED
    }

    /// The end of the host's memory, which starts at the base.
    pub(crate) fn top(&self) -> usize {
        self.low() + self.size + HOST
    }

    /// Whether this is still the size that is asked for.
    pub(crate) fn is_current(&self) -> bool {
        self.size == stack_size()
    }

    /// Gives the memory back to the system, but for what the next user will touch first.
    pub(crate) fn release_pages(&self) {
        let end = (self.base_address() & !(PAGE - 1)) - 3 * PAGE;
        // SAFETY: the range lies inside our region, above the guard, below the frames of a goroutine that has just started;
        // nobody runs on it.
        unsafe { libc::madvise(self.low() as *mut _, end - self.low(), libc::MADV_DONTNEED) };
    }
}

impl Stack {
    /// Gives the memory of several stacks back to the system. Neighbours go together: each call interrupts every core.
    pub(crate) fn give_back(mut stacks: Vec<Stack>) {
        stacks.sort_unstable_by_key(|stack| stack.region);
        let mut start = 0;
        let mut end = 0;
        for stack in &stacks {
            if stack.region != end {
                discard(start, end);
                start = stack.low();
            }
            end = stack.top();
        }
        discard(start, end);
        let mut free = FREE.lock();
        let stride = free.stride;
        // In this order the lowest is used first again.
        free.regions.extend(stacks.iter().rev().filter(|stack| stack.top() - stack.region == stride).map(|s| s.region));
        drop(free);
        // What was done here is all that their own end would do.
        stacks.into_iter().for_each(std::mem::forget);
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let Stack { region, size } = *self;
        Stack::give_back(vec![Stack { region, size }]);
    }
}

/// Empties `[start, end)`, which belongs to stacks that nobody runs on. Guards in between stay: they are no memory.
fn discard(start: usize, end: usize) {
    if start < end {
        // SAFETY: as said.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
    }
}

// SAFETY: base and limit bound memory that is mapped for as long as the process lives and belongs to this value alone; the guard
// lies below the limit, and the base is aligned to 16.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.base_address()).expect("a mapped address is not null")
    }
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.low()).expect("a mapped address is not null")
    }
}

fn map(bytes: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let at = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping made just now.
    unsafe { crate::os::forbid_huge_pages(at, bytes) };
    Some(at as usize)
}

fn guard(region: usize) {
    // SAFETY: the lowest bytes of a region that was cut from a slab just now.
    unsafe {
        if libc::madvise(region as *mut _, GUARD, MADV_GUARD_INSTALL) != 0
            && SPLIT.fetch_add(1, Ordering::Relaxed) < SPLIT_LIMIT
        {
            libc::mprotect(region as *mut _, GUARD, libc::PROT_NONE);
        }
    }
}

/// Holds the list of free regions for a fork.
#[cfg(not(loom))]
pub(crate) fn before_fork() {
    std::mem::forget(FREE.lock());
}

/// Gives it back, in the parent and in the child.
///
/// # Safety
/// After [`before_fork`], on the same thread.
#[cfg(not(loom))]
pub(crate) unsafe fn after_fork() {
    // SAFETY: by contract.
    unsafe { FREE.force_unlock() };
}

/// If `address` lies in the guard below the stack whose lowest usable address is `low`.
pub fn in_guard(address: usize, low: usize) -> bool {
    (low - GUARD..low).contains(&address)
}
