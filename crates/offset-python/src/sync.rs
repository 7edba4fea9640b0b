//! The locks of `offset.sync`, over the core's.
//!
//! All of them but `Cond` and `RLocker` hold no Python object. What can park is called without any lock or borrow of ours.

use crate::error::*;
use crate::method::*;
use crate::scope::{Shield, interrupted};
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::sync::{Cond, Mutex, RwMutex, Semaphore, WaitGroup};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// An object over a core value.
#[repr(C)]
pub(crate) struct Shell<T> {
    head: PyObject,
    core: Option<T>,
    /// A Python object that it works with: the lock of a condition, the mutex behind an `RLocker`. Else null.
    partner: Object,
    weak: Object,
}

pub(crate) fn core<'a, T>(object: Object) -> &'a T {
    // SAFETY: `object` is a shell of this core type, alive as the caller's argument.
    match unsafe { &(*object.cast::<Shell<T>>()).core } {
        Some(core) => core,
        None => unreachable!("a shell is given its core at birth"),
    }
}

fn partner<T>(object: Object) -> Object {
    // SAFETY: as in `core`.
    unsafe { (*object.cast::<Shell<T>>()).partner }
}

unsafe fn birth<T>(class: *mut PyTypeObject, core: T, partner: Object) -> Object {
    // SAFETY: attached; `partner` is alive or null.
    unsafe {
        let object = allocate::<Shell<T>>(class);
        if object.is_null() {
            return NULL;
        }
        std::ptr::write(&raw mut (*object).core, Some(core));
        (*object).partner = if partner.is_null() { NULL } else { Py_NewRef(partner) };
        object.cast()
    }
}

pub(crate) unsafe extern "C" fn dealloc<T>(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        if PyObject_IS_GC(object) != 0 {
            PyObject_GC_UnTrack(object.cast());
        }
        let it = object.cast::<Shell<T>>();
        if !(*it).weak.is_null() {
            PyObject_ClearWeakRefs(object);
        }
        drop((*it).core.take());
        Py_XDECREF((*it).partner);
        free(object);
    }
}

unsafe extern "C" fn traverse<T>(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: `object` is a shell; the collector's calling convention.
    unsafe {
        for child in [partner::<T>(object), Py_TYPE(object).cast()] {
            if !child.is_null() {
                let answer = visit(child, arg);
                if answer != 0 {
                    return answer;
                }
            }
        }
        0
    }
}

pub(crate) unsafe extern "C" fn new_plain<T: Default>(
    class: *mut PyTypeObject,
    args: Object,
    kwargs: Object,
) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        if PyTuple_GET_SIZE(args) > 0 || (!kwargs.is_null() && PyDict_Size(kwargs) > 0) {
            let name = std::ffi::CStr::from_ptr((*class).tp_name).to_string_lossy();
            return type_error(&format!("{name}() takes no arguments"));
        }
        birth(class, T::default(), NULL)
    }
}

/// `__enter__` and `__exit__` and whatever else takes only what it is not interested in.
fn context(enter: NoArgs, exit: Fast) -> Vec<PyMethodDef> {
    vec![
        no_args(c"__enter__", enter, c"Lock, and give the object."),
        PyMethodDef { ml_flags: METH_FASTCALL | METH_KEYWORDS, ..fast(c"__exit__", exit, c"Unlock.") },
    ]
}

macro_rules! waits {
    ($name:ident, $core:ty, $method:literal, $what:literal, $call:ident) => {
        unsafe extern "C" fn $name(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
            // SAFETY: the calling convention.
            let Some(deadline) = (unsafe { only_timeout($method, args, count, keywords) }) else { return NULL };
            if interrupted() {
                return NULL;
            }
            waited(core::<$core>(object).$call(deadline), $what)
        }
    };
}

macro_rules! enters {
    ($enter:ident, $exit:ident, $core:ty, $what:literal, $lock:ident, $unlock:ident) => {
        unsafe extern "C" fn $enter(object: Object, _: Object) -> Object {
            if interrupted() {
                return NULL;
            }
            match core::<$core>(object).$lock(None) {
                // SAFETY: attached.
                Ok(()) => unsafe { Py_NewRef(object) },
                Err(_) => cancelled(),
            }
        }
        unsafe extern "C" fn $exit(object: Object, _: *const Object, _: Py_ssize_t, _: Object) -> Object {
            done(core::<$core>(object).$unlock(), $what)
        }
    };
}

fn done(result: Result<(), offset_runtime::error::Misuse>, what: &str) -> Object {
    match result {
        Ok(()) => none(),
        Err(error) => misuse(error, what),
    }
}

// Mutex
waits!(mutex_lock, Mutex, "lock", "lock of a mutex", lock);
enters!(mutex_enter, mutex_exit, Mutex, "mutex", lock, unlock);
unsafe extern "C" fn mutex_unlock(object: Object, _: Object) -> Object {
    done(core::<Mutex>(object).unlock(), "mutex")
}
unsafe extern "C" fn mutex_try_lock(object: Object, _: Object) -> Object {
    boolean(core::<Mutex>(object).try_lock())
}
unsafe extern "C" fn mutex_locked(object: Object, _: *mut std::ffi::c_void) -> Object {
    boolean(core::<Mutex>(object).counts().0)
}
unsafe extern "C" fn mutex_stats(object: Object, _: Object) -> Object {
    let (locked, waiters) = core::<Mutex>(object).counts();
    // SAFETY: attached, new references.
    unsafe { dict(&[(c"locked", boolean(locked)), (c"waiters", int(waiters as u64))]) }
}

// StateMutex: a mutex that no scope ends the wait for, for what is short and must not be left out, such as a close
unsafe extern "C" fn state_enter(object: Object, _: Object) -> Object {
    let _shield = Shield::new();
    match core::<Mutex>(object).lock(None) {
        // SAFETY: attached.
        Ok(()) => unsafe { Py_NewRef(object) },
        Err(_) => cancelled(),
    }
}
unsafe extern "C" fn state_lock(object: Object, _: Object) -> Object {
    let _shield = Shield::new();
    waited(core::<Mutex>(object).lock(None), "lock of a mutex")
}

// RWMutex and its reading side
static RLOCKER: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
waits!(rw_lock, Arc<RwMutex>, "lock", "lock of an RWMutex", lock);
waits!(rw_rlock, Arc<RwMutex>, "rlock", "rlock of an RWMutex", rlock);
enters!(rw_enter, rw_exit, Arc<RwMutex>, "RWMutex", lock, unlock);
enters!(rlocker_enter, rlocker_exit, Arc<RwMutex>, "RWMutex, for reading,", rlock, runlock);
unsafe extern "C" fn rw_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe { new_plain::<Arc<RwMutex>>(class, args, kwargs) }
}
unsafe extern "C" fn rw_unlock(object: Object, _: Object) -> Object {
    done(core::<Arc<RwMutex>>(object).unlock(), "RWMutex")
}
unsafe extern "C" fn rw_runlock(object: Object, _: Object) -> Object {
    done(core::<Arc<RwMutex>>(object).runlock(), "RWMutex, for reading,")
}
unsafe extern "C" fn rw_try_lock(object: Object, _: Object) -> Object {
    boolean(core::<Arc<RwMutex>>(object).try_lock())
}
unsafe extern "C" fn rw_try_rlock(object: Object, _: Object) -> Object {
    boolean(core::<Arc<RwMutex>>(object).try_rlock())
}
unsafe extern "C" fn rw_rlocker(object: Object, _: Object) -> Object {
    // SAFETY: attached; the new object shares the core.
    unsafe { birth(RLOCKER.load(Ordering::Relaxed), core::<Arc<RwMutex>>(object).clone(), NULL) }
}
unsafe extern "C" fn rw_stats(object: Object, _: Object) -> Object {
    let (writing, readers, writers_waiting, readers_waiting) = core::<Arc<RwMutex>>(object).counts();
    let items = [
        (c"locked", boolean(writing)),
        (c"readers", int(readers as u64)),
        (c"writers_waiting", int(writers_waiting as u64)),
        (c"readers_waiting", int(readers_waiting as u64)),
    ];
    // SAFETY: attached, new references.
    unsafe { dict(&items) }
}

// WaitGroup
waits!(group_wait, Arc<WaitGroup>, "wait", "wait of a WaitGroup", wait);
unsafe extern "C" fn group_add(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 1];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("add", args, count, keywords, &["delta"], 0, &mut out) {
            return NULL;
        }
        let delta = if out[0].is_null() { 1 } else { PyLong_AsLongLong(out[0]) };
        if delta == -1 && !PyErr_Occurred().is_null() {
            return NULL;
        }
        done(core::<Arc<WaitGroup>>(object).add(delta), "the counter of the WaitGroup")
    }
}
unsafe extern "C" fn group_done(object: Object, _: Object) -> Object {
    done(core::<Arc<WaitGroup>>(object).add(-1), "the counter of the WaitGroup")
}
unsafe extern "C" fn group_stats(object: Object, _: Object) -> Object {
    let (count, waiters) = core::<Arc<WaitGroup>>(object).counts();
    // SAFETY: attached, new references.
    unsafe { dict(&[(c"count", PyLong_FromLongLong(count)), (c"waiters", int(waiters as u64))]) }
}
/// `go` runs a small callable that calls the function and then `done`, so that whatever ends the function counts.
unsafe extern "C" fn group_go(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((function, tuple, keys)) = crate::goroutine::call_parts("go", 0, args, count, keywords) else {
            return NULL;
        };
        if !crate::callable::can_be_called("WaitGroup.go", function) {
            Py_XDECREF(tuple);
            Py_XDECREF(keys);
            return NULL;
        }
        if let Err(error) = core::<Arc<WaitGroup>>(object).add(1) {
            Py_XDECREF(tuple);
            Py_XDECREF(keys);
            return misuse(error, "the counter of the WaitGroup");
        }
        // From here on the member takes the count back when it goes.
        let member = birth(MEMBER.load(Ordering::Relaxed), core::<Arc<WaitGroup>>(object).clone(), function);
        if member.is_null() {
            return NULL;
        }
        let goroutine = crate::goroutine::prepare(member, tuple, keys);
        Py_DECREF(member);
        if goroutine.is_null() {
            return NULL;
        }
        crate::goroutine::start(goroutine);
        goroutine
    }
}
static MEMBER: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
unsafe extern "C" fn member_call(object: Object, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_call.
    unsafe {
        // It has the group until then, so that those who look for leaks see that.
        let result = shim::offset_object_call(partner::<Arc<WaitGroup>>(object), args, kwargs);
        if let Some(group) = (*object.cast::<Shell<Arc<WaitGroup>>>()).core.take()
            && let Err(error) = group.add(-1)
            && !result.is_null()
        {
            // The function has called `done`, too.
            Py_DECREF(result);
            return misuse(error, "the counter of the WaitGroup");
        }
        result
    }
}
/// A goroutine's function will not be called any more: a member that never was, because its goroutine was cancelled before it
/// began, counts as done, too. Its deallocation would not do: without the GIL it may wait for a turn of the thread that made
/// the object, which may be the one that waits for the group.
pub(crate) unsafe fn member_is_over(function: Object) {
    // SAFETY: the caller holds `function`, and is the only one who calls it.
    unsafe {
        if Py_TYPE(function) == MEMBER.load(Ordering::Relaxed)
            && let Some(group) = (*function.cast::<Shell<Arc<WaitGroup>>>()).core.take()
        {
            let _ = group.add(-1);
        }
    }
}
/// A member that never got a goroutine, or one that never ran.
unsafe extern "C" fn member_dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        member_is_over(object);
        dealloc::<Arc<WaitGroup>>(object);
    }
}
unsafe extern "C" fn member_name(object: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: the function is held.
    unsafe { PyObject_GetAttrString(partner::<Arc<WaitGroup>>(object), c"__qualname__".as_ptr()) }
}

// Cond
unsafe extern "C" fn cond_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let mut names = [c"lock".as_ptr().cast_mut(), null_mut()];
        let mut lock = NULL;
        if PyArg_ParseTupleAndKeywords(args, kwargs, c"O:Cond".as_ptr(), names.as_mut_ptr().cast(), &raw mut lock) == 0
        {
            return NULL;
        }
        for name in [c"lock", c"unlock"] {
            if PyObject_HasAttrString(lock, name.as_ptr()) == 0 {
                return type_error("Cond needs a lock with the methods lock and unlock, such as a Mutex");
            }
        }
        birth(class, Cond::default(), lock)
    }
}
unsafe extern "C" fn cond_wait(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(deadline) = only_timeout("wait", args, count, keywords) else { return NULL };
        let (cond, lock) = (core::<Cond>(object), partner::<Cond>(object));
        if interrupted() {
            return NULL;
        }
        let ticket = cond.enlist();
        if !call_lock(lock, c"unlock") {
            cond.leave(ticket);
            return NULL;
        }
        let result = cond.wait(ticket, deadline);
        // A cancellation is raised once the lock is held again, as the caller's `with` block expects: also one that comes while it is
        // waited for, which counts for more than the end of the time.
        let answer = waited(result, "wait of a Cond");
        let mut exception = take_raised();
        let _shield = Shield::new();
        while !call_lock(lock, c"lock") {
            let failure = take_raised();
            let ordinary = |exception| PyErr_GivenExceptionMatches(exception, PyExc_Exception) != 0;
            // A lock that cannot be had at all is given up.
            let given_up = ordinary(failure);
            if exception.is_null() || ordinary(exception) && !given_up {
                Py_XDECREF(std::mem::replace(&mut exception, failure));
            } else {
                Py_DECREF(failure);
            }
            if given_up {
                break;
            }
        }
        if exception.is_null() {
            return answer;
        }
        Py_XDECREF(answer);
        raise_object(exception);
        Py_DECREF(exception);
        NULL
    }
}
unsafe fn call_lock(lock: Object, method: &std::ffi::CStr) -> bool {
    // SAFETY: attached; the lock is held by the condition.
    unsafe {
        let name = PyUnicode_FromString(method.as_ptr());
        if name.is_null() {
            return false;
        }
        let answer = shim::offset_call_method(lock, name);
        Py_DECREF(name);
        Py_XDECREF(answer);
        !answer.is_null()
    }
}
unsafe extern "C" fn cond_signal(object: Object, _: Object) -> Object {
    core::<Cond>(object).signal();
    none()
}
unsafe extern "C" fn cond_broadcast(object: Object, _: Object) -> Object {
    core::<Cond>(object).broadcast();
    none()
}
unsafe extern "C" fn cond_stats(object: Object, _: Object) -> Object {
    // SAFETY: attached, new references.
    unsafe { dict(&[(c"waiters", int(core::<Cond>(object).len() as u64))]) }
}

// Semaphore
unsafe extern "C" fn semaphore_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let mut names = [c"n".as_ptr().cast_mut(), null_mut()];
        let mut size: std::ffi::c_longlong = 0;
        if PyArg_ParseTupleAndKeywords(args, kwargs, c"L:Semaphore".as_ptr(), names.as_mut_ptr().cast(), &raw mut size)
            == 0
        {
            return NULL;
        }
        if size < 0 {
            return value_error(&format!("a semaphore's size cannot be negative, got {size}"));
        }
        birth(class, Semaphore::new(size as u64), NULL)
    }
}
/// The argument `n` of the three methods: one if it is missing. None with an exception set if it is no count.
unsafe fn units(given: Object) -> Option<u64> {
    if given.is_null() {
        return Some(1);
    }
    // SAFETY: attached; `given` is alive.
    let units = unsafe { PyLong_AsLongLong(given) };
    // SAFETY: attached.
    if units == -1 && unsafe { !PyErr_Occurred().is_null() } {
        return None;
    }
    if units < 0 {
        value_error(&format!("the number of units cannot be negative, got {units}"));
        return None;
    }
    Some(units as u64)
}
unsafe extern "C" fn acquire(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("acquire", args, count, keywords, &["n", "timeout"], 0, &mut out) {
            return NULL;
        }
        let (Some(units), Some(deadline)) = (units(out[0]), deadline(out[1])) else { return NULL };
        if interrupted() {
            return NULL;
        }
        waited(core::<Semaphore>(object).acquire(units, deadline), "acquire of a Semaphore")
    }
}
unsafe extern "C" fn try_acquire(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 1];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("try_acquire", args, count, keywords, &["n"], 0, &mut out) {
            return NULL;
        }
        units(out[0]).map_or(NULL, |units| boolean(core::<Semaphore>(object).try_acquire(units)))
    }
}
unsafe extern "C" fn release(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 1];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("release", args, count, keywords, &["n"], 0, &mut out) {
            return NULL;
        }
        let Some(units) = units(out[0]) else { return NULL };
        done(core::<Semaphore>(object).release(units), "the number of acquired units of the Semaphore")
    }
}
unsafe extern "C" fn semaphore_enter(object: Object, _: Object) -> Object {
    if interrupted() {
        return NULL;
    }
    match core::<Semaphore>(object).acquire(1, None) {
        // SAFETY: attached.
        Ok(()) => unsafe { Py_NewRef(object) },
        Err(_) => cancelled(),
    }
}
unsafe extern "C" fn semaphore_exit(object: Object, _: *const Object, _: Py_ssize_t, _: Object) -> Object {
    done(core::<Semaphore>(object).release(1), "the number of acquired units of the Semaphore")
}
unsafe extern "C" fn semaphore_stats(object: Object, _: Object) -> Object {
    let (size, free, waiters) = core::<Semaphore>(object).counts();
    // SAFETY: attached, new references.
    unsafe { dict(&[(c"size", int(size)), (c"free", int(free)), (c"waiters", int(waiters as u64))]) }
}

/// Whether an object is a goroutine's function that a WaitGroup counts.
pub(crate) fn is_member(object: Object) -> bool {
    // SAFETY: attached; the object is alive.
    unsafe { Py_TYPE(object) == MEMBER.load(Ordering::Relaxed) }
}

/// The types whose objects are waited at; null for those that there are not.
static PLACES: [AtomicPtr<PyTypeObject>; 6] = [const { AtomicPtr::new(null_mut()) }; 6];
const PLACE_NAMES: [&std::ffi::CStr; 6] = [c"Mutex", c"StateMutex", c"RWMutex", c"WaitGroup", c"Cond", c"Semaphore"];

/// Where those wait who wait for this lock, if it is one.
pub(crate) fn place(object: Object) -> Option<crate::leaks::Place> {
    // SAFETY: attached; the object is alive.
    let class = unsafe { Py_TYPE(object) };
    // A member that is over has no group any more.
    // SAFETY: a member is a shell.
    let counts = |object: Object| unsafe { (*object.cast::<Shell<Arc<WaitGroup>>>()).core.as_ref() };
    let (address, owners) = if class == RLOCKER.load(Ordering::Relaxed) {
        let core = core::<Arc<RwMutex>>(object);
        (core.address(), Some(Arc::strong_count(core)))
    } else if class == MEMBER.load(Ordering::Relaxed) {
        let core = counts(object)?;
        (core.address(), Some(Arc::strong_count(core)))
    } else {
        match PLACES.iter().position(|known| known.load(Ordering::Relaxed) == class)? {
            0 | 1 => (core::<Mutex>(object).address(), None),
            2 => {
                let core = core::<Arc<RwMutex>>(object);
                (core.address(), Some(Arc::strong_count(core)))
            }
            3 => {
                let core = core::<Arc<WaitGroup>>(object);
                (core.address(), Some(Arc::strong_count(core)))
            }
            4 => (core::<Cond>(object).address(), None),
            _ => (core::<Semaphore>(object).address(), None),
        }
    };
    Some(crate::leaks::Place { address, owners })
}

/// The goroutine that has taken a lock, 0 for a thread; None while it is free, and for what is no lock with a single owner.
pub(crate) fn taker(object: Object) -> Option<u64> {
    // SAFETY: attached; the object is alive.
    let class = unsafe { Py_TYPE(object) };
    let is = |place: usize| PLACES[place].load(Ordering::Relaxed) == class;
    if is(0) || is(1) {
        core::<Mutex>(object).taker()
    } else if is(2) || class == RLOCKER.load(Ordering::Relaxed) {
        core::<Arc<RwMutex>>(object).writer()
    } else {
        None
    }
}

fn weak<T>() -> (std::ffi::c_int, *mut std::ffi::c_void) {
    slot!(Py_tp_members, crate::goroutine::weak_member(std::mem::offset_of!(Shell<T>, weak)))
}

/// Adds the types to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let closed_type = u64::from(Py_TPFLAGS_DISALLOW_INSTANTIATION as u32);
    let collected = u64::from(Py_TPFLAGS_HAVE_GC as u32);
    let mutex = TypeSpec {
        name: c"offset.Mutex",
        doc: c"A lock for goroutines and threads, handed on in order; owned by nobody (Go: sync.Mutex).",
        size: size_of::<Shell<Mutex>>(),
        flags: 0,
        methods: [
            vec![
                fast(c"lock", mutex_lock, c"lock(timeout=None)\n\nTake the lock; TimeoutError after timeout seconds."),
                no_args(
                    c"unlock",
                    mutex_unlock,
                    c"unlock()\n\nGive it to who waits longest. RuntimeError if it is not locked.",
                ),
                no_args(c"try_lock", mutex_try_lock, c"try_lock() -> bool\n\nTake the lock if it is free."),
                no_args(c"stats", mutex_stats, c"stats() -> dict\n\nWhether it is locked, and how many wait."),
            ],
            context(mutex_enter, mutex_exit),
        ]
        .concat(),
        getters: vec![getter(c"locked", mutex_locked, c"Whether it is locked.")],
        slots: vec![slot!(Py_tp_new, new_plain::<Mutex>), slot!(Py_tp_dealloc, dealloc::<Mutex>), weak::<Mutex>()],
    };
    let state_mutex = TypeSpec {
        name: c"offset._runtime.StateMutex",
        doc: c"A Mutex for short sections of the package's own: scopes do not end the wait for it.",
        size: size_of::<Shell<Mutex>>(),
        flags: 0,
        methods: [
            vec![
                no_args(c"lock", state_lock, c"lock()\n\nTake the lock."),
                no_args(c"unlock", mutex_unlock, c"unlock()\n\nGive it to who waits longest."),
            ],
            context(state_enter, mutex_exit),
        ]
        .concat(),
        getters: vec![],
        slots: vec![slot!(Py_tp_new, new_plain::<Mutex>), slot!(Py_tp_dealloc, dealloc::<Mutex>), weak::<Mutex>()],
    };
    let rwmutex = TypeSpec {
        name: c"offset.RWMutex",
        doc: c"A lock for many readers or one writer; writers are not starved (Go: sync.RWMutex). The context manager takes it for writing.",
        size: size_of::<Shell<Arc<RwMutex>>>(),
        flags: 0,
        methods: [
            vec![
                fast(c"lock", rw_lock, c"lock(timeout=None)\n\nTake it for writing; TimeoutError after timeout seconds."),
                no_args(c"unlock", rw_unlock, c"unlock()\n\nGive up writing. RuntimeError if it is not locked for writing."),
                no_args(c"try_lock", rw_try_lock, c"try_lock() -> bool\n\nTake it for writing if it is free."),
                fast(c"rlock", rw_rlock, c"rlock(timeout=None)\n\nTake it for reading; TimeoutError after timeout seconds."),
                no_args(c"runlock", rw_runlock, c"runlock()\n\nGive up reading. RuntimeError if it is not locked for reading."),
                no_args(c"try_rlock", rw_try_rlock, c"try_rlock() -> bool\n\nTake it for reading if no writer has it or waits."),
                no_args(c"rlocker", rw_rlocker, c"rlocker() -> RLocker\n\nThe reading side as a lock with lock() and unlock()."),
                no_args(c"stats", rw_stats, c"stats() -> dict\n\nWho has it and how many wait on both sides."),
            ],
            context(rw_enter, rw_exit),
        ]
        .concat(),
        getters: vec![],
        slots: vec![slot!(Py_tp_new, rw_new), slot!(Py_tp_dealloc, dealloc::<Arc<RwMutex>>), weak::<Arc<RwMutex>>()],
    };
    let rlocker = TypeSpec {
        name: c"offset.RLocker",
        doc: c"The reading side of an RWMutex as a lock.",
        size: size_of::<Shell<Arc<RwMutex>>>(),
        flags: closed_type,
        methods: [
            vec![
                fast(c"lock", rw_rlock, c"lock(timeout=None)\n\nTake it for reading."),
                no_args(c"unlock", rw_runlock, c"unlock()\n\nGive up reading."),
                no_args(c"stats", rw_stats, c"stats() -> dict\n\nThose of its RWMutex."),
            ],
            context(rlocker_enter, rlocker_exit),
        ]
        .concat(),
        getters: vec![],
        slots: vec![slot!(Py_tp_dealloc, dealloc::<Arc<RwMutex>>)],
    };
    let group = TypeSpec {
        name: c"offset.WaitGroup",
        doc: c"Waits until a counter is zero (Go: sync.WaitGroup).",
        size: size_of::<Shell<Arc<WaitGroup>>>(),
        flags: 0,
        methods: vec![
            fast(c"add", group_add, c"add(delta=1)\n\nAdd to the counter. ValueError if it would become negative."),
            no_args(c"done", group_done, c"done()\n\nTake one from the counter."),
            fast(
                c"wait",
                group_wait,
                c"wait(timeout=None)\n\nWait until the counter is zero; TimeoutError after timeout seconds.",
            ),
            fast(
                c"go",
                group_go,
                c"go(fn, /, *args, **kwargs) -> Goroutine\n\nStart a goroutine that is counted until it ends.",
            ),
            no_args(c"stats", group_stats, c"stats() -> dict\n\nThe counter, and how many wait."),
        ],
        getters: vec![],
        slots: vec![
            slot!(Py_tp_new, new_plain::<Arc<WaitGroup>>),
            slot!(Py_tp_dealloc, dealloc::<Arc<WaitGroup>>),
            weak::<Arc<WaitGroup>>(),
        ],
    };
    let member = TypeSpec {
        name: c"offset._runtime.Member",
        doc: c"The function of a goroutine that a WaitGroup counts.",
        size: size_of::<Shell<Arc<WaitGroup>>>(),
        flags: closed_type | collected,
        methods: vec![],
        getters: vec![getter(c"__qualname__", member_name, c"The function's name.")],
        slots: vec![
            slot!(Py_tp_call, member_call),
            slot!(Py_tp_dealloc, member_dealloc),
            slot!(Py_tp_traverse, traverse::<Arc<WaitGroup>>),
        ],
    };
    let cond = TypeSpec {
        name: c"offset.Cond",
        doc: c"Cond(lock)\n\nA condition that those who hold lock can wait for (Go: sync.Cond).",
        size: size_of::<Shell<Cond>>(),
        flags: collected,
        methods: vec![
            fast(c"wait", cond_wait, c"wait(timeout=None)\n\nUnlock, wait for a signal, lock again. RuntimeError without the lock, TimeoutError after timeout seconds."),
            no_args(c"signal", cond_signal, c"signal()\n\nWake who waits longest."),
            no_args(c"broadcast", cond_broadcast, c"broadcast()\n\nWake all that wait."),
            no_args(c"stats", cond_stats, c"stats() -> dict\n\nHow many wait."),
        ],
        getters: vec![],
        slots: vec![
            slot!(Py_tp_new, cond_new),
            slot!(Py_tp_dealloc, dealloc::<Cond>),
            slot!(Py_tp_traverse, traverse::<Cond>),
            weak::<Cond>(),
        ],
    };
    let semaphore = TypeSpec {
        name: c"offset.Semaphore",
        doc: c"Semaphore(n)\n\nn units, given out first come first served (Go: golang.org/x/sync/semaphore.Weighted).",
        size: size_of::<Shell<Semaphore>>(),
        flags: 0,
        methods: [
            vec![
                fast(
                    c"acquire",
                    acquire,
                    c"acquire(n=1, timeout=None)\n\nTake n units; TimeoutError after timeout seconds.",
                ),
                fast(
                    c"try_acquire",
                    try_acquire,
                    c"try_acquire(n=1) -> bool\n\nTake n units if they are free and nobody waits.",
                ),
                fast(c"release", release, c"release(n=1)\n\nGive n units back. ValueError if fewer are out."),
                no_args(c"stats", semaphore_stats, c"stats() -> dict\n\nSize, free units, and how many wait."),
            ],
            context(semaphore_enter, semaphore_exit),
        ]
        .concat(),
        getters: vec![],
        slots: vec![slot!(Py_tp_new, semaphore_new), slot!(Py_tp_dealloc, dealloc::<Semaphore>), weak::<Semaphore>()],
    };
    for spec in [mutex, state_mutex, rwmutex, group, cond, semaphore] {
        // SAFETY: the slots fit the object.
        if unsafe { new_type(module, spec) }.is_null() {
            return false;
        }
    }
    for (spec, place) in [(rlocker, &RLOCKER), (member, &MEMBER)] {
        // SAFETY: the slots fit the object.
        let made = unsafe { new_type(module, spec) };
        if made.is_null() {
            return false;
        }
        place.store(made, Ordering::Relaxed);
    }
    for (name, place) in PLACE_NAMES.iter().zip(&PLACES) {
        // SAFETY: attached; the module keeps its types.
        unsafe {
            let made = PyObject_GetAttrString(module, name.as_ptr());
            Py_XDECREF(made);
            PyErr_Clear();
            place.store(made.cast(), Ordering::Relaxed);
        }
    }
    true
}
