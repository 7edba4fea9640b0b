//! `Lock` and `RLock` with the methods of `threading`'s, over the core's mutex: what `offset.syscall.threading` gives.
//!
//! What a wrong call raises differs from one CPython to the next, so a call that must be refused is handed to a lock of
//! `_thread`, which refuses it in its own words.
//!
//! Invariants of an RLock:
//! * Its owner is the thread identity of who holds it, that of a goroutine where one does, whether or not CPython sees it.
//! * Who holds the mutex writes `owner` and `count`, nobody else; `owner` is zero while nobody holds it. So who finds itself
//!   there holds it, and may read both.
//!
//! The originals' types cannot be inherited from for this, so `__class__` names them: `isinstance` with the original holds. `type()` says
//! what they are, and so does the `__class__` of a class that a program derives from `RLock`.

use crate::error::*;
use crate::method::*;
use crate::scope::{Shield, interrupted};
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::bubble;
use offset_runtime::clock::Deadline;
use offset_runtime::error::WaitError;
use offset_runtime::scheduler;
use offset_runtime::sync::Mutex;
use pyo3_ffi::*;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[repr(C)]
struct LockObject {
    head: PyObject,
    mutex: Mutex,
    /// Of an RLock.
    owner: AtomicUsize,
    /// Of an RLock: how often its owner has it.
    count: AtomicUsize,
    weak: Object,
}

fn shell<'a>(object: Object) -> &'a LockObject {
    // SAFETY: `object` is a lock, alive as the caller's argument; its fields are made for use by many.
    unsafe { &*object.cast::<LockObject>() }
}

/// Who calls, as the owner of an RLock.
fn me() -> usize {
    match scheduler::current() {
        Some(goroutine) => goroutine.identity(),
        // SAFETY: plain API call.
        None => unsafe { PyThread_get_thread_ident() as usize },
    }
}

unsafe extern "C" {
    fn PyThread_get_thread_ident() -> std::ffi::c_ulong;
}

/// What `_thread` makes a lock with.
const LOCK: &CStr = if cfg!(Py_3_13) { c"lock" } else { c"allocate_lock" };
const RLOCK: &CStr = c"RLock";

/// Arguments are refused where the original refuses them; a class over an RLock may take what it likes.
unsafe fn new(class: *mut PyTypeObject, args: Object, kwargs: Object, factory: &CStr) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let is_subclass = (*class).tp_base != &raw mut PyBaseObject_Type;
        if !is_subclass && (PyTuple_GET_SIZE(args) > 0 || (!kwargs.is_null() && PyDict_Size(kwargs) > 0)) {
            let module = PyImport_ImportModule(c"_thread".as_ptr());
            let make = if module.is_null() { NULL } else { PyObject_GetAttrString(module, factory.as_ptr()) };
            Py_XDECREF(module);
            let made = if make.is_null() { NULL } else { PyObject_Call(make, args, kwargs) };
            Py_XDECREF(make);
            if made.is_null() {
                return NULL;
            }
            Py_DECREF(made);
        }
        let object = allocate::<LockObject>(class);
        if !object.is_null() {
            std::ptr::write(&raw mut (*object).mutex, Mutex::default());
        }
        object.cast()
    }
}

unsafe extern "C" fn new_lock(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe { new(class, args, kwargs, LOCK) }
}

unsafe extern "C" fn new_rlock(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe { new(class, args, kwargs, RLOCK) }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone. Instances of Python classes over an RLock come here, too.
    unsafe {
        if PyObject_IS_GC(object) != 0 {
            PyObject_GC_UnTrack(object.cast());
        }
        let it = object.cast::<LockObject>();
        if !(*it).weak.is_null() {
            PyObject_ClearWeakRefs(object);
        }
        std::ptr::drop_in_place(&raw mut (*it).mutex);
        free(object);
    }
}

/// Frees the lock, in a forked child: those that held it or waited for it have not come along.
unsafe extern "C" fn at_fork_reinit(object: Object, _: Object) -> Object {
    // SAFETY: by the method's purpose nobody else uses the lock. The old mutex is not dropped: its queue leads through
    // stacks that are no more.
    unsafe { std::ptr::write(&raw mut (*object.cast::<LockObject>()).mutex, Mutex::default()) };
    shell(object).owner.store(0, Ordering::Relaxed);
    shell(object).count.store(0, Ordering::Relaxed);
    none()
}

unsafe fn described(object: Object, details: &str) -> Object {
    // SAFETY: attached; the object is alive.
    let class = unsafe { CStr::from_ptr((*Py_TYPE(object)).tp_name) }.to_string_lossy();
    let state = if shell(object).mutex.counts().0 { "locked" } else { "unlocked" };
    string(&format!("<{state} {class} object{details} at {object:p}>"))
}

// Arguments.

/// A call of `acquire`.
enum Wish {
    Try,
    Wait(Deadline),
}

/// Has a new lock of `_thread` called in the same way. Its answer; null with its exception.
unsafe fn ask_original(
    factory: &CStr,
    method: &CStr,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    // SAFETY: attached; the arguments are those of a call in progress.
    unsafe {
        let module = PyImport_ImportModule(c"_thread".as_ptr());
        if module.is_null() {
            return NULL;
        }
        let mut object = module;
        for (name, call) in [(factory, true), (method, false)] {
            let attribute = PyObject_GetAttrString(object, name.as_ptr());
            Py_DECREF(object);
            if attribute.is_null() {
                return NULL;
            }
            object = attribute;
            if call {
                let made = PyObject_CallNoArgs(object);
                Py_DECREF(object);
                if made.is_null() {
                    return NULL;
                }
                object = made;
            }
        }
        let answer = PyObject_Vectorcall(object, args, count as usize, keywords);
        Py_DECREF(object);
        answer
    }
}

/// Raises what the original raises for a call without arguments that it refuses.
unsafe fn refuse(factory: &CStr, method: &CStr) -> Object {
    // SAFETY: attached.
    unsafe {
        let answer = ask_original(factory, method, std::ptr::null(), 0, NULL);
        if !answer.is_null() {
            Py_DECREF(answer);
            return runtime_error("this lock is not held");
        }
        NULL
    }
}

/// The seconds of a timeout; None, without an exception, for what is no number.
unsafe fn seconds(object: Object) -> Option<f64> {
    // SAFETY: attached; the object is alive.
    unsafe {
        let value =
            if PyFloat_Check(object) != 0 { PyFloat_AsDouble(object) } else { PyLong_AsLongLong(object) as f64 };
        if PyErr_Occurred().is_null() {
            return Some(value);
        }
        PyErr_Clear();
        None
    }
}

/// What `acquire(blocking=True, timeout=-1)` asks for; None with an exception set.
unsafe fn wish(factory: &CStr, args: *const Object, count: Py_ssize_t, keywords: Object) -> Option<Wish> {
    if count == 0 && keywords.is_null() {
        return Some(Wish::Wait(None));
    }
    // SAFETY: the calling convention.
    unsafe {
        if let Some(wish) = understood(args, count, keywords) {
            return Some(wish);
        }
        let answer = ask_original(factory, c"acquire", args, count, keywords);
        if !answer.is_null() {
            // It takes what we do not know: the lock was free, so nothing tells how long it would have waited.
            Py_DECREF(answer);
            type_error("a timeout is a number of seconds, and a flag is true or false");
        }
        None
    }
}

/// As [`wish`]; None, without an exception, if the original must say what is wrong.
unsafe fn understood(args: *const Object, count: Py_ssize_t, keywords: Object) -> Option<Wish> {
    const UNSET: f64 = -1.0;
    // The first number of seconds that is too large for CPython's clock, in nanoseconds of 63 bits.
    const TOO_LONG: f64 = 9_223_372_036.854_776;
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("acquire", args, count, keywords, &["blocking", "timeout"], 0, &mut out) {
            PyErr_Clear();
            return None;
        }
        let blocking = if out[0].is_null() { 1 } else { PyObject_IsTrue(out[0]) };
        if blocking < 0 {
            PyErr_Clear();
            return None;
        }
        let timeout = if out[1].is_null() { UNSET } else { seconds(out[1])? };
        if timeout == UNSET {
            return Some(if blocking == 0 { Wish::Try } else { Wish::Wait(None) });
        }
        if blocking == 0 || !(0.0..TOO_LONG).contains(&timeout) {
            return None;
        }
        let nanos = (timeout * 1e9).ceil() as u64;
        Some(if nanos == 0 { Wish::Try } else { Wish::Wait(Some(bubble::now().saturating_add(nanos))) })
    }
}

/// Takes the mutex as wished. Null with an exception set when the wait was ended by one.
fn take(mutex: &Mutex, wish: &Wish) -> Result<bool, ()> {
    match wish {
        Wish::Try => Ok(mutex.try_lock()),
        Wish::Wait(_) if interrupted() => Err(()),
        Wish::Wait(deadline) => match mutex.lock(*deadline) {
            Ok(()) => Ok(true),
            Err(WaitError::TimedOut) => Ok(false),
            Err(WaitError::Cancelled) => {
                cancelled();
                Err(())
            }
        },
    }
}

/// Takes the mutex whatever happens: a condition's `wait` must come back with it. A goroutine gets what it was to be ended with at
/// its next wait; in a plain thread a signal handler's exception is raised as soon as the mutex is there. False with it set.
unsafe fn insist(mutex: &Mutex) -> bool {
    let mut raised = NULL;
    let _shield = Shield::new();
    while mutex.lock(None).is_err() {
        cancelled();
        // SAFETY: attached; the exception was ours.
        unsafe {
            Py_XDECREF(raised);
            raised = take_raised();
        }
    }
    if raised.is_null() {
        return true;
    }
    // SAFETY: attached; the payload of the current goroutine is its object, alive while it runs.
    unsafe {
        let answer = match scheduler::current() {
            Some(goroutine) => crate::cancel::throw(crate::goroutine::object_of(goroutine), raised),
            None => raise_object(raised),
        };
        Py_DECREF(raised);
        if answer.is_null() {
            return false;
        }
        Py_DECREF(answer);
        true
    }
}

// Lock

unsafe extern "C" fn acquire(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(wish) = (unsafe { wish(LOCK, args, count, keywords) }) else { return NULL };
    take(&shell(object).mutex, &wish).map_or(NULL, boolean)
}

unsafe extern "C" fn enter(object: Object, _: Object) -> Object {
    take(&shell(object).mutex, &Wish::Wait(None)).map_or(NULL, boolean)
}

unsafe extern "C" fn release(object: Object, _: Object) -> Object {
    match shell(object).mutex.unlock() {
        Ok(()) => none(),
        // SAFETY: attached.
        Err(_) => unsafe { refuse(LOCK, c"release") },
    }
}

unsafe extern "C" fn exit(object: Object, _: *const Object, _: Py_ssize_t, _: Object) -> Object {
    // SAFETY: as `release`.
    unsafe { release(object, NULL) }
}

unsafe extern "C" fn acquire_restore(object: Object, _: Object) -> Object {
    // SAFETY: attached.
    if unsafe { insist(&shell(object).mutex) } { none() } else { NULL }
}

unsafe extern "C" fn locked(object: Object, _: Object) -> Object {
    boolean(shell(object).mutex.counts().0)
}

unsafe extern "C" fn repr(object: Object) -> Object {
    // SAFETY: attached; the object is alive.
    unsafe { described(object, "") }
}

// RLock

fn held_by_me(it: &LockObject) -> bool {
    it.owner.load(Ordering::Relaxed) == me()
}

fn rlock_take(it: &LockObject, wish: &Wish) -> Object {
    let me = me();
    if it.owner.load(Ordering::Relaxed) == me {
        it.count.fetch_add(1, Ordering::Relaxed);
        return boolean(true);
    }
    match take(&it.mutex, wish) {
        Ok(taken) => {
            if taken {
                it.owner.store(me, Ordering::Relaxed);
                it.count.store(1, Ordering::Relaxed);
            }
            boolean(taken)
        }
        Err(()) => NULL,
    }
}

unsafe extern "C" fn rlock_acquire(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(wish) = (unsafe { wish(RLOCK, args, count, keywords) }) else { return NULL };
    rlock_take(shell(object), &wish)
}

unsafe extern "C" fn rlock_enter(object: Object, _: Object) -> Object {
    rlock_take(shell(object), &Wish::Wait(None))
}

/// Frees the mutex of an RLock that the caller has; gives how often it had it.
fn rlock_free(it: &LockObject) -> usize {
    let count = it.count.swap(0, Ordering::Relaxed);
    it.owner.store(0, Ordering::Relaxed);
    let _ = it.mutex.unlock();
    count
}

unsafe extern "C" fn rlock_release(object: Object, _: Object) -> Object {
    let it = shell(object);
    if !held_by_me(it) {
        // SAFETY: attached.
        return unsafe { refuse(RLOCK, c"release") };
    }
    if it.count.load(Ordering::Relaxed) == 1 {
        rlock_free(it);
    } else {
        it.count.fetch_sub(1, Ordering::Relaxed);
    }
    none()
}

unsafe extern "C" fn rlock_exit(object: Object, _: *const Object, _: Py_ssize_t, _: Object) -> Object {
    // SAFETY: as `rlock_release`.
    unsafe { rlock_release(object, NULL) }
}

/// Frees it for a condition's wait, whoever holds it, as the original does.
unsafe extern "C" fn rlock_release_save(object: Object, _: Object) -> Object {
    let it = shell(object);
    let owner = it.owner.load(Ordering::Relaxed);
    if owner == 0 {
        // SAFETY: attached.
        return unsafe { refuse(RLOCK, c"_release_save") };
    }
    let count = rlock_free(it);
    // SAFETY: attached; a tuple of new references, which it takes over.
    unsafe { Py_BuildValue(c"(KK)".as_ptr(), count as std::ffi::c_ulonglong, owner as std::ffi::c_ulonglong) }
}

unsafe extern "C" fn rlock_acquire_restore(object: Object, state: Object) -> Object {
    let (mut count, mut owner): (std::ffi::c_ulonglong, std::ffi::c_ulonglong) = (0, 0);
    // SAFETY: attached; the format names the two places.
    unsafe {
        if PyTuple_Check(state) == 0 {
            return type_error("_acquire_restore() takes what _release_save() gave");
        }
        if PyArg_ParseTuple(state, c"KK:_acquire_restore".as_ptr(), &raw mut count, &raw mut owner) == 0 {
            return NULL;
        }
        let it = shell(object);
        let undisturbed = insist(&it.mutex);
        it.owner.store(owner as usize, Ordering::Relaxed);
        it.count.store(count as usize, Ordering::Relaxed);
        if undisturbed { none() } else { NULL }
    }
}

unsafe extern "C" fn rlock_is_owned(object: Object, _: Object) -> Object {
    boolean(held_by_me(shell(object)))
}

unsafe extern "C" fn rlock_recursion_count(object: Object, _: Object) -> Object {
    let it = shell(object);
    int(if held_by_me(it) { it.count.load(Ordering::Relaxed) as u64 } else { 0 })
}

unsafe extern "C" fn rlock_repr(object: Object) -> Object {
    let it = shell(object);
    let (owner, count) = (it.owner.load(Ordering::Relaxed), it.count.load(Ordering::Relaxed));
    // SAFETY: attached; the object is alive.
    unsafe { described(object, &format!(" owner={owner} count={count}")) }
}

// The types.

/// `__class__`: the original's type, `name` in `_thread`; for an instance of a subclass that class.
unsafe fn class_of(object: Object, name: &CStr) -> Object {
    // SAFETY: attached; the object is alive, and types are never freed.
    unsafe {
        let class = Py_TYPE(object);
        if !TYPES.iter().any(|known| known.load(Ordering::Relaxed) == class) {
            return Py_NewRef(class.cast());
        }
        let module = PyImport_ImportModule(c"_thread".as_ptr());
        let original = if module.is_null() { NULL } else { PyObject_GetAttrString(module, name.as_ptr()) };
        Py_XDECREF(module);
        original
    }
}

unsafe extern "C" fn lock_class(object: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: the calling convention of a getter.
    unsafe { class_of(object, c"LockType") }
}

unsafe extern "C" fn rlock_class(object: Object, _: *mut std::ffi::c_void) -> Object {
    // SAFETY: the calling convention of a getter.
    unsafe { class_of(object, RLOCK) }
}

const CLASS: &CStr = c"The type of the original: isinstance() goes by it.";

const ACQUIRE: &CStr = c"acquire(blocking=True, timeout=-1) -> bool\n\nTake the lock; wait while it is held, at most timeout seconds. False if that took too long.";
const RELEASE: &CStr = c"release()\n\nGive it to who waits longest, or free it. RuntimeError if it is not held.";
const SAVE: &CStr = c"Free it for a condition's wait.";
const RESTORE: &CStr = c"Take it again after a condition's wait, whatever happens.";
const LOCKED: &CStr = c"locked() -> bool\n\nWhether it is held.";

fn context(enter: NoArgs, exit: Fast) -> [PyMethodDef; 3] {
    [
        no_args(c"__enter__", enter, c"Take the lock."),
        fast(c"__exit__", exit, c"Release the lock."),
        no_args(c"_at_fork_reinit", at_fork_reinit, c"Free it in a forked child."),
    ]
}

fn slots(new: newfunc, repr: unsafe extern "C" fn(Object) -> Object) -> Vec<(c_int, *mut std::ffi::c_void)> {
    let weak = crate::goroutine::weak_member(std::mem::offset_of!(LockObject, weak));
    vec![slot!(Py_tp_new, new), slot!(Py_tp_dealloc, dealloc), slot!(Py_tp_repr, repr), slot!(Py_tp_members, weak)]
}

static TYPES: [AtomicPtr<PyTypeObject>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];

/// Where those wait who wait for this lock, if it is one.
pub(crate) fn place(object: Object) -> Option<crate::leaks::Place> {
    // SAFETY: attached; the object is alive, and types are never freed.
    let ours = unsafe { TYPES.iter().any(|known| PyObject_TypeCheck(object, known.load(Ordering::Relaxed)) != 0) };
    ours.then(|| crate::leaks::Place { address: shell(object).mutex.address(), owners: None })
}

/// Adds the types to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let mut methods =
        vec![no_args(c"_release_save", release, SAVE), one_arg(c"_acquire_restore", acquire_restore, RESTORE)];
    for name in [c"acquire", c"acquire_lock"] {
        methods.push(fast(name, acquire, ACQUIRE));
    }
    for name in [c"release", c"release_lock"] {
        methods.push(no_args(name, release, RELEASE));
    }
    for name in [c"locked", c"locked_lock"] {
        methods.push(no_args(name, locked, LOCKED));
    }
    methods.extend(context(enter, exit));
    let lock = TypeSpec {
        name: c"offset.syscall.threading.Lock",
        doc: c"A lock with the methods of threading.Lock, for goroutines and threads, handed on in order.",
        size: size_of::<LockObject>(),
        flags: 0,
        methods,
        getters: vec![getter(c"__class__", lock_class, CLASS)],
        slots: slots(new_lock, repr),
    };
    let mut methods = vec![
        fast(c"acquire", rlock_acquire, ACQUIRE),
        no_args(c"release", rlock_release, c"release()\n\nUndo one acquire. RuntimeError unless the caller holds it."),
        no_args(c"locked", locked, LOCKED),
        no_args(c"_is_owned", rlock_is_owned, c"Whether the caller holds it."),
        no_args(c"_recursion_count", rlock_recursion_count, c"How often the caller has it."),
        no_args(c"_release_save", rlock_release_save, SAVE),
        one_arg(c"_acquire_restore", rlock_acquire_restore, RESTORE),
    ];
    methods.extend(context(rlock_enter, rlock_exit));
    let rlock = TypeSpec {
        name: c"offset._runtime.RLock",
        doc: c"A lock with the methods of threading.RLock, which its owner, a goroutine or a thread, may take again.",
        size: size_of::<LockObject>(),
        flags: u64::from(Py_TPFLAGS_BASETYPE as u32),
        methods,
        getters: vec![getter(c"__class__", rlock_class, CLASS)],
        slots: slots(new_rlock, rlock_repr),
    };
    for (spec, place) in [lock, rlock].into_iter().zip(&TYPES) {
        // SAFETY: the slots fit the object.
        let made = unsafe { new_type(module, spec) };
        if made.is_null() {
            return false;
        }
        place.store(made, Ordering::Relaxed);
    }
    true
}
