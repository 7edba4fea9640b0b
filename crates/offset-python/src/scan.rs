//! May a parked goroutine go on on another OS thread? A conservative scan of its C stack for frames that must not.
//!
//! CPython's own C frames keep no thread-local address across the calls that can park. Frames of other objects may: PyO3
//! counts attachments per thread, pybind11 keeps per-thread lists, a C++ handler has thread-local state, sqlite's mutexes have
//! owners. Such a frame shows on the stack as a return address into the object that it belongs to, so a stack on which no word
//! points into the code of such an object has none of them. The converse does not hold: a word may only look like an address, or be
//! left over from a call that has returned, on this goroutine or on the one that had the stack before. So where the scan finds
//! something, `frames_may_move` looks at the frames themselves, by their unwind tables, which takes as many microseconds as there
//! are frames. A frame without such a table ends that search, and the goroutine stays where it is.
//!
//! Code that may move: the interpreter, the extension modules of its standard library, the C library and its loader, and this
//! extension. Anonymous memory is not looked for: the trampolines that live there (libffi's, perf's) are entered from objects
//! that are.
//!
//! Invariants: the table holds the code of foreign objects, sorted, disjoint, as of the loader's counts beside it. It is never
//! written, or allocated for, while the loader's lock is held. The table's lock is only tried, but by who forks: the child shall find
//! neither it nor the loader's, which is asked under it, with a thread that it does not have.

#[cfg(target_os = "linux")]
pub(crate) use linux::{after_fork, before_fork, frames_may_move, may_move};

/// Whether no word of `[stack_pointer, stack_base)` points into foreign code. Nothing is known of the objects of other systems.
#[cfg(not(target_os = "linux"))]
pub(crate) fn may_move(_stack_pointer: usize, _stack_base: usize) -> bool {
    false
}

/// Whether no frame of the calling function's stack belongs to foreign code. Nothing is known here either.
#[cfg(not(target_os = "linux"))]
pub(crate) fn frames_may_move(_stack_base: usize) -> bool {
    false
}

/// Nobody looks at the table from here until `after_fork`.
#[cfg(not(target_os = "linux"))]
pub(crate) fn before_fork() {}

/// The end of that, in the parent and in the child.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn after_fork() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::UnsafeCell;
    use std::ffi::{CStr, c_int, c_void};
    use std::ops::Range;
    use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

    /// How often the loader has added and removed objects: the table is good as long as they stay.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Counts {
        adds: u64,
        removals: u64,
    }

    struct Table {
        counts: Counts,
        foreign: Vec<Range<usize>>,
    }

    static TABLE: Mutex<Table> = Mutex::new(Table { counts: Counts { adds: 0, removals: 0 }, foreign: Vec::new() });

    /// The table while the process forks. Whoever has it writes here.
    struct Kept(UnsafeCell<Option<MutexGuard<'static, Table>>>);

    // SAFETY: see the field.
    unsafe impl Sync for Kept {}

    static KEPT: Kept = Kept(UnsafeCell::new(None));

    /// Nobody looks at the table from here until `after_fork`.
    pub(crate) fn before_fork() {
        let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the lock is held.
        unsafe { *KEPT.0.get() = Some(table) };
    }

    /// The end of that, in the parent and in the child.
    ///
    /// # Safety
    /// On the thread that called `before_fork`.
    pub(crate) unsafe fn after_fork() {
        // SAFETY: by contract the lock is held, until the guard is dropped, which happens after it was taken.
        drop(unsafe { (*KEPT.0.get()).take() });
    }

    /// Whether no word of `[stack_pointer, stack_base)` points into foreign code. Call it without Python's locks or the GIL, or with
    /// them: it takes none that Python could wait for.
    ///
    /// The words must be readable and nobody may be running on that stack: the stack of a parked goroutine.
    pub(crate) fn may_move(stack_pointer: usize, stack_base: usize) -> bool {
        let mut table = match TABLE.try_lock() {
            Ok(table) => table,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if table.counts != counts() {
            refresh(&mut table);
        }
        !any_foreign(&table.foreign, stack_pointer, stack_base)
    }

    /// Whether the frames of the calling function and of those that called it, up to `stack_base`, are all known, and none belongs to
    /// foreign code. To be called on the stack in question, with no more held than for `may_move`, and on any thread: it keeps
    /// nothing of the thread's.
    #[inline(never)]
    pub(crate) fn frames_may_move(stack_base: usize) -> bool {
        let Ok(table) = TABLE.try_lock() else { return false };
        // `may_move` has just brought the table up to date, and what was loaded since has no frame here.
        let mut search = Search { foreign: &table.foreign, stack_base, answer: false };
        // SAFETY: the callback has the type that the function wants and writes to `search` only. The unwinder reads the tables
        // that the loader knows, which belong to the code whose frames these are.
        unsafe { _Unwind_Backtrace(look_at_frame, (&raw mut search).cast()) };
        search.answer
    }

    /// What a walk over frames knows; the answer is yes once it has come to the stack's base.
    struct Search<'a> {
        foreign: &'a [Range<usize>],
        stack_base: usize,
        answer: bool,
    }

    const CONTINUE: c_int = 0;
    const STOP: c_int = 4;

    /// The first frames of a goroutine's stack, which are the switch's, lie so close to its base. Their caller is the machine.
    const FIRST_FRAMES: usize = 64;

    unsafe extern "C" fn look_at_frame(context: *mut c_void, search: *mut c_void) -> c_int {
        // SAFETY: the unwinder's context, and the address of the `Search` above.
        let (search, frame, address) =
            unsafe { (&mut *search.cast::<Search>(), _Unwind_GetCFA(context), _Unwind_GetIP(context)) };
        // The address after a call that never returns may lie in the next function, or in no object.
        if is_foreign(search.foreign, address.wrapping_sub(1)) {
            return STOP;
        }
        search.answer = search.stack_base.wrapping_sub(frame) <= FIRST_FRAMES;
        if search.answer { STOP } else { CONTINUE }
    }

    unsafe extern "C" {
        fn _Unwind_Backtrace(look: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void)
        -> c_int;
        fn _Unwind_GetCFA(context: *mut c_void) -> usize;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
    }

    fn is_foreign(foreign: &[Range<usize>], address: usize) -> bool {
        let after = foreign.partition_point(|range| range.start <= address);
        after > 0 && address < foreign[after - 1].end
    }

    fn any_foreign(foreign: &[Range<usize>], stack_pointer: usize, stack_base: usize) -> bool {
        let (Some(first), Some(last)) = (foreign.first(), foreign.last()) else {
            return false;
        };
        let (low, span) = (first.start, last.end - first.start);
        let aligned = stack_pointer.next_multiple_of(size_of::<usize>());
        (aligned..stack_base & !(size_of::<usize>() - 1)).step_by(size_of::<usize>()).any(|address| {
            // SAFETY: an aligned word of a parked stack, which the caller promises is readable. Volatile, as what is there
            // are other functions' variables.
            let word = unsafe { (address as *const usize).read_volatile() };
            word.wrapping_sub(low) < span && is_foreign(foreign, word)
        })
    }

    /// Reads the loader's counts off the first object that it shows.
    fn counts() -> Counts {
        unsafe extern "C" fn first(object: *mut libc::dl_phdr_info, _size: usize, counts: *mut c_void) -> c_int {
            // SAFETY: the loader's argument, and the address of the `Counts` below.
            unsafe { *counts.cast::<Counts>() = counts_of(&*object) };
            1
        }
        let mut counts = Counts { adds: 0, removals: 0 };
        // SAFETY: the callback has the type that the function wants and writes to `counts` only.
        unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut counts).cast()) };
        counts
    }

    fn counts_of(object: &libc::dl_phdr_info) -> Counts {
        Counts { adds: object.dlpi_adds, removals: object.dlpi_subs }
    }

    /// What a walk over the objects collects; `found` never grows past its capacity.
    struct Walk {
        counts: Counts,
        found: Vec<Range<usize>>,
        wanted: usize,
    }

    fn refresh(table: &mut Table) {
        let mut room = 256;
        let mut walk = loop {
            let mut walk = Walk { counts: table.counts, found: Vec::with_capacity(room), wanted: 0 };
            // SAFETY: the callback has the type that the function wants and writes to `walk` only.
            unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut walk).cast()) };
            if walk.wanted <= room {
                break walk;
            }
            room = 2 * walk.wanted;
        };
        walk.found.sort_unstable_by_key(|range| range.start);
        *table = Table { counts: walk.counts, foreign: walk.found };
    }

    unsafe extern "C" fn collect(object: *mut libc::dl_phdr_info, _size: usize, walk: *mut c_void) -> c_int {
        // SAFETY: the loader's argument, and the address of the `Walk` of `refresh`.
        let (object, walk) = unsafe { (&*object, &mut *walk.cast::<Walk>()) };
        walk.counts = counts_of(object);
        if !is_trusted(object) {
            for range in code(object) {
                walk.wanted += 1;
                if walk.found.len() < walk.found.capacity() {
                    walk.found.push(range);
                }
            }
        }
        0
    }

    fn segments(object: &libc::dl_phdr_info) -> &[libc::Elf64_Phdr] {
        // SAFETY: the loader describes its own table; it outlives the callback.
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) }
    }

    /// The executable segments of an object.
    fn code(object: &libc::dl_phdr_info) -> impl Iterator<Item = Range<usize>> {
        let base = object.dlpi_addr as usize;
        let executable =
            |segment: &&libc::Elf64_Phdr| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_X != 0;
        segments(object).iter().filter(executable).map(move |segment| {
            let start = base + segment.p_vaddr as usize;
            start..start + segment.p_memsz as usize
        })
    }

    fn is_trusted(object: &libc::dl_phdr_info) -> bool {
        let ours = may_move as fn(usize, usize) -> bool as usize;
        let interpreter = crate::shim::offset_interpreter_address();
        if code(object).any(|range| range.contains(&ours) || range.contains(&interpreter)) {
            return true;
        }
        // SAFETY: a string of the loader's, or null.
        let name = if object.dlpi_name.is_null() { c"" } else { unsafe { CStr::from_ptr(object.dlpi_name) } };
        is_trusted_name(name.to_bytes())
    }

    /// Files of the C library that goroutines' frames may come from: name, up to the version.
    const SYSTEM: [&[u8]; 11] = [
        b"libc.so",
        b"libc-2",
        b"libm.so",
        b"libm-2",
        b"libpthread",
        b"libdl.so",
        b"librt.so",
        b"libgcc_s.so",
        b"ld-linux",
        b"ld-2",
        b"linux-vdso",
    ];

    fn is_trusted_name(path: &[u8]) -> bool {
        let mut parts = path.rsplit(|&byte| byte == b'/');
        let file = parts.next().unwrap_or_default();
        SYSTEM.iter().any(|prefix| file.starts_with(prefix)) || parts.next() == Some(b"lib-dynload")
    }
}
