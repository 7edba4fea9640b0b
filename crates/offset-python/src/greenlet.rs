//! Greenlets in goroutines: each goroutine has greenlets of its own, as each OS thread has.
//!
//! greenlet keeps which one runs in a variable of the OS thread, and copies parts of the C stack that it is called on. Goroutines
//! share an OS thread, and each has a stack of its own: were they to share the variable, a switch in one of them would write to the
//! stack of another. So the variable changes with the goroutine, and a goroutine that has greenlets stays on its OS thread, as the
//! stacks that they keep have not been scanned. At its end they die as those of a thread do.
//!
//! Where the variable is nobody tells. It is looked for among the thread-local variables of greenlet's object, by what it must point
//! to, once a process, when greenlet is there; a program that does not import it pays a look at the number of its modules.
//!
//! Invariants. A goroutine's set of greenlets is in the variable while it runs, and in `Goroutine::bond` while it is parked. Between
//! two goroutines a machine's thread, which runs nothing else, has no set there, or one that is as new: what a goroutine has left
//! unused is there for the next. `FRESH` has further ones. All of it happens attached, on a goroutine's stack, but for `end_one`,
//! which has a thread to itself. Nothing here runs Python code: the goroutine is about to park.

#[cfg(target_os = "linux")]
pub(crate) use linux::{after_fork, before_fork, comes, ends, leaves, machine_ends};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use offset_runtime::goroutine::Goroutine;

    pub(crate) unsafe fn comes(_goroutine: &Goroutine) {}
    pub(crate) unsafe fn leaves(_goroutine: &Goroutine) {}
    pub(crate) unsafe fn ends() {}
    pub(crate) unsafe fn machine_ends() {}
    pub(crate) fn before_fork() {}
    pub(crate) unsafe fn after_fork() {}
}
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{after_fork, before_fork, comes, ends, leaves, machine_ends};

#[cfg(target_os = "linux")]
mod linux {
    use crate::host::{adopt_thread, state_goes};
    use crate::method::Object;
    use crate::shim;
    use crate::shim::{Py_DECREF, PyErr_Clear};
    use offset_runtime::goroutine::Goroutine;
    use offset_runtime::lock::Lock;
    use pyo3_ffi::*;
    use std::ffi::{c_int, c_void};
    use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

    /// What is known of the variable. `MODULE` and `OFFSET` say where it is once it is `FOUND`.
    static PLACE: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 0;
    const FOUND: u8 = 1;
    /// This greenlet is not like those that we know.
    const STRANGE: u8 = 2;

    static MODULE: AtomicUsize = AtomicUsize::new(0);
    static OFFSET: AtomicUsize = AtomicUsize::new(0);

    /// A number, and what it is as long as there is nothing to do here: how many modules the interpreter had when greenlet was not
    /// among them, and has.
    static WATCHED: AtomicPtr<Py_ssize_t> = AtomicPtr::new((&raw const NOTHING).cast_mut());
    static SEEN: AtomicIsize = AtomicIsize::new(ALWAYS);
    static NOTHING: Py_ssize_t = 0;
    /// No number of modules.
    const ALWAYS: Py_ssize_t = -1;

    /// The variable's value on a thread that has used no greenlet yet. Before that it is 0.
    const NONE_YET: usize = 1;

    /// Sets that are as new.
    static FRESH: Lock<Vec<usize>> = Lock::new(Vec::new());

    /// What greenlet gives to other extensions.
    struct Api {
        greenlet: *mut PyTypeObject,
        current: unsafe extern "C" fn() -> Object,
    }

    /// The beginning of a set of greenlets.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Set {
        main: Object,
        current: Object,
        trace: Object,
    }

    /// The goroutine runs on: its greenlets are those of this OS thread again.
    ///
    /// # Safety
    /// Attached, on the goroutine's stack, right after it came back.
    #[inline]
    pub(crate) unsafe fn comes(goroutine: &Goroutine) {
        if goroutine.bond() != 0 {
            // SAFETY: by contract.
            unsafe { put(goroutine.bond()) };
        }
    }

    /// The goroutine is about to give its stack up: its greenlets go with it.
    ///
    /// # Safety
    /// Attached, on the goroutine's stack.
    #[inline]
    pub(crate) unsafe fn leaves(goroutine: &Goroutine) {
        // SAFETY: by contract.
        unsafe {
            if watched() {
                goroutine.set_bond(take());
            }
        }
    }

    /// The goroutine is over: its greenlets die.
    ///
    /// # Safety
    /// Attached, on the goroutine's stack, which no greenlet will run on again.
    #[inline]
    pub(crate) unsafe fn ends() {
        // SAFETY: by contract.
        unsafe {
            if watched() {
                end();
            }
        }
    }

    /// Whether there may be something to do.
    #[inline]
    unsafe fn watched() -> bool {
        // SAFETY: the interpreter keeps its dictionary of modules; the number may be changed by a thread that runs beside.
        unsafe { WATCHED.load(Ordering::Relaxed).read_volatile() != SEEN.load(Ordering::Relaxed) }
    }

    /// Whether greenlet is there, and known. If so, that stays so.
    unsafe fn found() -> bool {
        match PLACE.load(Ordering::Acquire) {
            FOUND => return true,
            STRANGE => return false,
            _ => {}
        }
        // SAFETY: attached.
        unsafe {
            let Some(api) = api() else { return false };
            if find(&api) {
                return true;
            }
            // This thread has none.
            make(&api);
            if find(&api) {
                return true;
            }
        }
        if PLACE.swap(STRANGE, Ordering::AcqRel) == UNKNOWN {
            eprintln!(
                "offset: this version of greenlet is not one that offset knows: a goroutine that parks inside of a greenlet, or uses \
                 greenlets of another one, crashes the process"
            );
        }
        // Never again, or once more.
        WATCHED.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
        SEEN.store(NOTHING, Ordering::Relaxed);
        false
    }

    /// What of greenlet's table is used, if it is there yet.
    unsafe fn api() -> Option<Api> {
        // SAFETY: attached; what is borrowed is kept by the modules, and the table is a constant. None of this runs Python code.
        unsafe {
            let modules = PyImport_GetModuleDict();
            let number = PyDict_Size(modules);
            let module = PyDict_GetItemString(modules, c"greenlet._greenlet".as_ptr());
            if module.is_null() || PyModule_Check(module) == 0 {
                WATCHED.store(&raw mut (*modules.cast::<PyDictObject>()).ma_used, Ordering::Relaxed);
                SEEN.store(number, Ordering::SeqCst);
                // Another thread may have found it meanwhile: one of the two sees the other.
                if PLACE.load(Ordering::SeqCst) == FOUND {
                    SEEN.store(ALWAYS, Ordering::SeqCst);
                }
                return None;
            }
            // A module that is still being made has none: it is looked for again.
            let capsule = PyDict_GetItemString(PyModule_GetDict(module), c"_C_API".as_ptr());
            let name = c"greenlet._C_API".as_ptr();
            if capsule.is_null() || PyCapsule_IsValid(capsule, name) == 0 {
                return None;
            }
            // The numbers are those of greenlet's header.
            let table = PyCapsule_GetPointer(capsule, name).cast_const().cast::<*const c_void>();
            Some(Api {
                greenlet: table.read().cast_mut().cast(),
                current: std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> Object>(table.add(4).read()),
            })
        }
    }

    /// Has this OS thread, which has none, made a set of greenlets.
    unsafe fn make(api: &Api) {
        // An allocation may collect, and so run anything, on the one version that does not wait for the next instruction.
        // SAFETY: attached.
        #[cfg(not(Py_3_12))]
        let collects = unsafe { PyGC_Disable() } != 0;
        // SAFETY: attached.
        unsafe {
            let current = (api.current)();
            if current.is_null() {
                PyErr_Clear();
            } else {
                Py_DECREF(current);
            }
        }
        #[cfg(not(Py_3_12))]
        if collects {
            // SAFETY: attached.
            unsafe { PyGC_Enable() };
        }
    }

    #[cold]
    unsafe fn put(set: usize) {
        // SAFETY: a goroutine that has a set stays on its thread, where the variable is in use since it was found.
        let unused = unsafe { variable().replace(set) };
        if unused > NONE_YET {
            FRESH.lock().push(unused);
        }
    }

    /// Takes the set of greenlets of the goroutine that runs here; 0 if it has none that anybody could miss.
    #[cold]
    unsafe fn take() -> usize {
        // SAFETY: attached; the variable is used once it has been found.
        unsafe {
            if !found() {
                return 0;
            }
            let variable = variable();
            let set = variable.read();
            if set <= NONE_YET || as_new(set) {
                return 0;
            }
            variable.write(FRESH.lock().pop().unwrap_or(NONE_YET));
            set
        }
    }

    #[cold]
    unsafe fn end() {
        // SAFETY: attached.
        let set = unsafe { take() };
        if set != 0 {
            // Without a thread it is kept for ever.
            let _ = std::thread::Builder::new()
                .name("offset-greenlet".to_owned())
                .stack_size(1 << 20)
                .spawn(move || end_one(set));
        }
    }

    /// Whether nobody could tell a set from one that was made just now: there is but the main greenlet, which each further one would
    /// hold, and nobody holds it, or has written to it.
    unsafe fn as_new(set: usize) -> bool {
        // SAFETY: attached; the set is ours alone, and lives.
        unsafe {
            let set = (set as *const Set).read();
            let class = Py_TYPE(set.main);
            let empty = |at: Py_ssize_t| at > 0 && set.main.byte_offset(at).cast::<Object>().read().is_null();
            set.main == set.current
                && set.trace.is_null()
                && Py_REFCNT(set.main) == 2
                && empty((*class).tp_dictoffset)
                && empty((*class).tp_weaklistoffset)
        }
    }

    /// On a thread of its own: it dies with this set as its own, and greenlet sees to the rest.
    fn end_one(set: usize) {
        let state = adopt_thread();
        // SAFETY: the state is new and this thread's; the variable has been found, and is in use from `make` on.
        unsafe {
            shim::offset_attach(state);
            if let Some(api) = api() {
                make(&api);
                let unused = variable().replace(set);
                if unused > NONE_YET {
                    FRESH.lock().push(unused);
                }
                disown(set);
            }
            state_goes();
            shim::offset_thread_end(state);
        }
    }

    /// Has greenlet count no references to the main greenlet of a set that dies.
    ///
    /// When a set dies whose main greenlet runs, and somebody else seems to have one reference to that, greenlet asks the collector
    /// who it is, and drops a reference that nobody is found to have: it takes it for one that a switch has left on a stack. But the
    /// variables of a function that runs are not found either. And without the GIL the count may be one too many for a while: greenlet
    /// drops its own reference elsewhere than on the thread that made the object, which is told to take note of that
    /// (`Py_REFCNT` of 3.14t and 3.15t). Either way the object is freed under somebody's hands. A set in which no greenlet runs is
    /// not looked at, and what a switch has left is kept.
    unsafe fn disown(set: usize) {
        // SAFETY: attached; the set is ours alone, lives, and holds two references to the greenlet that is both main and current.
        unsafe {
            let set = set as *mut Set;
            let Set { main, current, .. } = set.read();
            if main == current {
                (*set).current = std::ptr::null_mut();
                Py_DECREF(current);
            }
        }
    }

    /// The machine's thread ends: a set that is there dies with it.
    ///
    /// # Safety
    /// Attached, between two goroutines; nothing that uses greenlets runs on this thread again.
    pub(crate) unsafe fn machine_ends() {
        if PLACE.load(Ordering::Acquire) == FOUND {
            // SAFETY: the variable has been found; what it has is this thread's.
            unsafe {
                let set = variable().read();
                if set > NONE_YET {
                    disown(set);
                }
            }
        }
    }

    #[repr(C)]
    struct Index {
        module: usize,
        offset: usize,
    }

    unsafe extern "C" {
        /// The loader's: where this OS thread has a variable.
        fn __tls_get_addr(index: *const Index) -> *mut c_void;
    }

    /// The variable of this OS thread.
    ///
    /// # Safety
    /// It has been found.
    #[inline(never)]
    unsafe fn variable() -> *mut usize {
        let index = Index { module: MODULE.load(Ordering::Relaxed), offset: OFFSET.load(Ordering::Relaxed) };
        // SAFETY: greenlet's object is loaded and stays so.
        unsafe { __tls_get_addr(&raw const index).cast() }
    }

    /// Looks for the variable, on a thread that has greenlets.
    unsafe fn find(api: &Api) -> bool {
        let mut search = Search { code: api.current as usize, module: 0, size: 0 };
        // SAFETY: the callback has the type that the function wants and writes to `search` only. The variables are this thread's.
        unsafe {
            libc::dl_iterate_phdr(Some(look), (&raw mut search).cast());
            if search.module == 0 {
                return false;
            }
            let index = Index { module: search.module, offset: 0 };
            let variables = __tls_get_addr(&raw const index).cast::<usize>();
            for at in 0..search.size / size_of::<usize>() {
                if points_to_greenlets(variables.add(at).read(), api) {
                    MODULE.store(search.module, Ordering::Relaxed);
                    OFFSET.store(at * size_of::<usize>(), Ordering::Relaxed);
                    PLACE.store(FOUND, Ordering::SeqCst);
                    SEEN.store(ALWAYS, Ordering::SeqCst);
                    return true;
                }
            }
        }
        false
    }

    /// Whether a word is the address of two greenlets of the very type. It may be anything.
    unsafe fn points_to_greenlets(word: usize, api: &Api) -> bool {
        if word < 1 << 16 || !word.is_multiple_of(align_of::<Set>()) {
            return false;
        }
        let Some([main, current]) = peek::<[usize; 2]>(word) else { return false };
        [main, current].into_iter().all(|object| {
            object != 0
                && object.is_multiple_of(align_of::<PyObject>())
                && peek::<usize>(object + std::mem::offset_of!(PyObject, ob_type)) == Some(api.greenlet as usize)
        })
    }

    /// Reads memory that may not be there.
    fn peek<T: Copy + Default>(address: usize) -> Option<T> {
        let mut value = T::default();
        let local = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: size_of::<T>() };
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: size_of::<T>() };
        // SAFETY: the kernel reads and writes for us, and says so if it cannot.
        let count = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        (count == size_of::<T>() as isize).then_some(value)
    }

    /// The object that has `code`, and its thread-local variables.
    struct Search {
        code: usize,
        module: usize,
        size: usize,
    }

    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
        // SAFETY: the loader gives its own description of an object; `search` is the caller's.
        unsafe {
            let (info, search) = (&*info, &mut *search.cast::<Search>());
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            let has = |header: &libc::Elf64_Phdr| {
                let start = info.dlpi_addr as usize + header.p_vaddr as usize;
                header.p_type == libc::PT_LOAD && (start..start + header.p_memsz as usize).contains(&search.code)
            };
            if !headers.iter().any(has) {
                return 0;
            }
            if let Some(variables) = headers.iter().find(|header| header.p_type == libc::PT_TLS) {
                search.module = info.dlpi_tls_modid;
                search.size = variables.p_memsz as usize;
            }
            1
        }
    }

    /// Nobody takes or gives fresh greenlets from here until `after_fork`.
    pub(crate) fn before_fork() {
        std::mem::forget(FRESH.lock());
    }

    /// The end of that, in the parent and in the child.
    ///
    /// # Safety
    /// On the thread that called `before_fork`.
    pub(crate) unsafe fn after_fork() {
        // SAFETY: by contract.
        unsafe { FRESH.force_unlock() };
    }
}
