//! Greenlets in goroutines: each goroutine has greenlets of its own, as each OS thread has.
//!
//! greenlet keeps which one runs in a variable of the OS thread, and copies parts of the C stack that it is called on. Goroutines
//! share an OS thread, and each has a stack of its own: were they to share the variable, a switch in one of them would
//! write to the stack of another. So the variable changes with the goroutine, and a goroutine that has greenlets stays on its OS
//! thread, as a stack that one of them keeps has not been scanned. At its end they die as those of a thread do.
//!
//! Where the variable is nobody tells. It is looked for in the thread-local variables of greenlet's object, by what it must point
//! to, once a process, when greenlet is there; a program that does not import it pays a look at the number of its modules.
//!
//! Invariants. `OWN` is set on an OS thread once the variable has been initialised there, and is its value outside of goroutines;
//! from then on it has that value whenever no goroutine runs there. A goroutine's greenlets are in the variable while it runs, in
//! `Goroutine::bond` while it is parked, and in no third place. All of it happens attached, on the goroutine's stack, but for
//! `end_one`, which has a thread to itself. `FRESH` holds what no goroutine has used, or none that left anything behind; it is never
//! held while Python is called.

#[cfg(target_os = "linux")]
pub(crate) use linux::{after_fork, before_fork, comes, ends, leaves};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use offset_runtime::goroutine::Goroutine;

    pub(crate) unsafe fn comes(_goroutine: &Goroutine) {}
    pub(crate) unsafe fn leaves(_goroutine: &Goroutine) {}
    pub(crate) unsafe fn ends() {}
    pub(crate) fn before_fork() {}
    pub(crate) unsafe fn after_fork() {}
}
#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{after_fork, before_fork, comes, ends, leaves};

#[cfg(target_os = "linux")]
mod linux {
    use crate::host::{adopt_thread, state_goes};
    use crate::method::Object;
    use crate::shim;
    use crate::shim::{Py_DECREF, PyErr_Clear};
    use offset_runtime::goroutine::Goroutine;
    use offset_runtime::lock::Lock;
    use pyo3_ffi::*;
    use std::cell::Cell;
    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;
    use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

    /// What is known of the variable. `MODULE` and `OFFSET` say where it is once it is `FOUND`.
    static PLACE: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 0;
    const FOUND: u8 = 1;
    /// This greenlet is not like those that we know.
    const STRANGE: u8 = 2;

    static MODULE: AtomicUsize = AtomicUsize::new(0);
    static OFFSET: AtomicUsize = AtomicUsize::new(0);

    /// `sys.modules`, and how many there were when greenlet was looked for in vain.
    static MODULES: AtomicPtr<PyDictObject> = AtomicPtr::new(null_mut());
    static SEEN: AtomicIsize = AtomicIsize::new(-1);

    /// greenlet's own values for a thread that has used none yet.
    const NONE_YET: usize = 1;

    /// Sets of greenlets, of one each, that are as new.
    static FRESH: Lock<Vec<usize>> = Lock::new(Vec::new());

    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// What greenlet gives to other extensions.
    struct Api {
        greenlet: *mut PyTypeObject,
        current: unsafe extern "C" fn() -> Object,
    }

    /// The beginning of what the variable points to.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Greenlets {
        main: Object,
        current: Object,
        trace: Object,
    }

    /// The goroutine runs on: its greenlets are those of this OS thread now.
    ///
    /// # Safety
    /// Attached, on the goroutine's stack, right after it came to this OS thread.
    #[inline]
    pub(crate) unsafe fn comes(goroutine: &Goroutine) {
        // SAFETY: by contract.
        unsafe {
            if wanted() {
                put(goroutine);
            }
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
            if wanted() {
                take(goroutine);
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
            if wanted() {
                end();
            }
        }
    }

    /// Whether greenlet is there.
    #[inline]
    unsafe fn wanted() -> bool {
        match PLACE.load(Ordering::Acquire) {
            // SAFETY: attached.
            UNKNOWN => unsafe { grown() && !api().is_null() },
            place => place == FOUND,
        }
    }

    /// Whether the interpreter may have got modules since greenlet was last looked for.
    #[inline]
    unsafe fn grown() -> bool {
        let modules = MODULES.load(Ordering::Relaxed);
        // SAFETY: the interpreter keeps its dictionary of modules; the number may be changed by a thread that runs beside.
        modules.is_null() || unsafe { (&raw const (*modules).ma_used).read_volatile() } != SEEN.load(Ordering::Relaxed)
    }

    /// greenlet's table, null if it is not there yet.
    #[cold]
    unsafe fn api() -> *const *const c_void {
        // SAFETY: attached; what is borrowed is kept by the modules. None of this runs Python code.
        unsafe {
            let modules = PyImport_GetModuleDict();
            MODULES.store(modules.cast(), Ordering::Relaxed);
            let number = PyDict_Size(modules);
            let module = PyDict_GetItemString(modules, c"greenlet._greenlet".as_ptr());
            if module.is_null() || PyModule_Check(module) == 0 {
                SEEN.store(number, Ordering::Relaxed);
                return std::ptr::null();
            }
            // A module that is still being made has none: it is looked for again.
            let capsule = PyDict_GetItemString(PyModule_GetDict(module), c"_C_API".as_ptr());
            let name = c"greenlet._C_API".as_ptr();
            if capsule.is_null() || PyCapsule_IsValid(capsule, name) == 0 {
                return std::ptr::null();
            }
            PyCapsule_GetPointer(capsule, name).cast_const().cast()
        }
    }

    /// The parts of greenlet's table that are used: the numbers are those of its header.
    unsafe fn parts() -> Option<Api> {
        // SAFETY: attached; the table is a constant of greenlet's.
        unsafe {
            let table = api();
            (!table.is_null()).then(|| Api {
                greenlet: table.read().cast_mut().cast(),
                current: std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> Object>(table.add(4).read()),
            })
        }
    }

    /// Has this OS thread made a set of greenlets, if it has none.
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
    unsafe fn put(goroutine: &Goroutine) {
        // SAFETY: attached.
        unsafe {
            if OWN.get().is_none() && !initialise() {
                return;
            }
            let mut greenlets = goroutine.bond();
            if greenlets == 0 {
                greenlets = FRESH.lock().pop().unwrap_or(NONE_YET);
            }
            variable().write(greenlets);
        }
    }

    #[cold]
    unsafe fn take(goroutine: &Goroutine) {
        // SAFETY: attached. Greenlets that this goroutine has made without our knowledge are there to be found.
        unsafe {
            if PLACE.load(Ordering::Acquire) != FOUND && !find(false) {
                return;
            }
            goroutine.set_bond(away().unwrap_or(0));
        }
    }

    #[cold]
    unsafe fn end() {
        // SAFETY: attached.
        unsafe {
            if PLACE.load(Ordering::Acquire) != FOUND && !find(false) {
                return;
            }
            let Some(greenlets) = away() else { return };
            if as_new(greenlets) {
                FRESH.lock().push(greenlets);
            } else {
                // Without a thread they are kept for ever.
                let _ = std::thread::Builder::new()
                    .name("offset-greenlet".to_owned())
                    .stack_size(1 << 20)
                    .spawn(move || end_one(greenlets));
            }
        }
    }

    /// Takes the goroutine's greenlets out of the variable, if it has any.
    unsafe fn away() -> Option<usize> {
        // SAFETY: the variable has been found.
        unsafe {
            let variable = variable();
            let greenlets = variable.read();
            if greenlets <= NONE_YET {
                if let Some(own) = OWN.get() {
                    variable.write(own);
                }
                return None;
            }
            if OWN.get().is_none() {
                OWN.set(Some(NONE_YET));
            }
            variable.write(OWN.get().unwrap_or(NONE_YET));
            Some(greenlets)
        }
    }

    /// Brings the variable of this OS thread to life, and finds it if that was not done before.
    unsafe fn initialise() -> bool {
        // SAFETY: attached.
        unsafe {
            let Some(api) = parts() else { return false };
            let found = PLACE.load(Ordering::Acquire) == FOUND;
            if !found || variable().read() == 0 {
                make(&api);
            }
            if !found && !find(true) {
                return false;
            }
            OWN.set(Some(variable().read()));
            true
        }
    }

    /// Whether a set of greenlets has nothing that its last goroutine has left there. Each further greenlet holds its main one.
    unsafe fn as_new(greenlets: usize) -> bool {
        // SAFETY: attached; the set is ours alone.
        unsafe {
            let it = (greenlets as *const Greenlets).read();
            if it.main != it.current || !it.trace.is_null() || Py_REFCNT(it.main) != 2 {
                return false;
            }
            let dict = PyObject_GenericGetDict(it.main, null_mut());
            if dict.is_null() {
                PyErr_Clear();
                return false;
            }
            let empty = PyDict_Size(dict) == 0;
            Py_DECREF(dict);
            empty && !weakly_held(it.main)
        }
    }

    unsafe fn weakly_held(object: Object) -> bool {
        // SAFETY: attached; the type says where its instances keep the list.
        unsafe {
            let at = (*Py_TYPE(object)).tp_weaklistoffset;
            at > 0 && !object.byte_offset(at).cast::<Object>().read().is_null()
        }
    }

    /// On a thread of its own: it dies with these greenlets as its own, and they as those of a thread that is no more.
    fn end_one(greenlets: usize) {
        let state = adopt_thread();
        // SAFETY: the state is new and this thread's; the variable has been found.
        unsafe {
            shim::offset_attach(state);
            if let Some(api) = parts() {
                make(&api);
                let variable = variable();
                FRESH.lock().push(variable.read());
                variable.write(greenlets);
            }
            state_goes();
            shim::offset_thread_end(state);
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

    /// Looks for the variable where this OS thread has greenlets. `certain` says that it has.
    unsafe fn find(certain: bool) -> bool {
        // SAFETY: attached.
        unsafe {
            let Some(api) = parts() else { return false };
            let mut search = Search { code: api.current as usize, module: 0, size: 0 };
            libc::dl_iterate_phdr(Some(look), (&raw mut search).cast());
            if search.module != 0 {
                let index = Index { module: search.module, offset: 0 };
                let variables = __tls_get_addr(&raw const index).cast::<usize>();
                for at in 0..search.size / size_of::<usize>() {
                    if points_to_greenlets(variables.add(at).read(), &api) {
                        MODULE.store(search.module, Ordering::Relaxed);
                        OFFSET.store(at * size_of::<usize>(), Ordering::Relaxed);
                        PLACE.store(FOUND, Ordering::Release);
                        return true;
                    }
                }
            }
        }
        if certain && PLACE.swap(STRANGE, Ordering::AcqRel) == UNKNOWN {
            eprintln!(
                "offset: this version of greenlet is not one that offset knows: a goroutine that parks inside of a greenlet, or uses \
                 greenlets of another one, crashes the process"
            );
        }
        false
    }

    /// Whether a word is the address of two greenlets of the very type. It may be anything.
    unsafe fn points_to_greenlets(word: usize, api: &Api) -> bool {
        if word < 1 << 16 || !word.is_multiple_of(align_of::<Greenlets>()) {
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
