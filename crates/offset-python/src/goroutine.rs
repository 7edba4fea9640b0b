//! `go` and the handle. The handle object is the goroutine's payload: it holds the function until it runs.
//!
//! Fields are touched attached only, those that change in exclusive sections of the object. `function`, `args`, `kwargs` and
//! `context` are written at `go` and taken out by the goroutine when it starts, so that they die with it and not with the
//! handle.

mod life;

pub(crate) use self::life::main;

use crate::cancel::{cancel, is_current, raise_thrown, throw, throwing};
use crate::error::*;
use crate::method::*;
use crate::scope::interrupted;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::error::WaitError;
use offset_runtime::goroutine::{Goroutine, Handle, Status};
use offset_runtime::scheduler;
use pyo3_ffi::*;
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
pub(crate) struct GoroutineObject {
    head: PyObject,
    /// Always set but for the moments of birth and death.
    core: Option<Handle>,
    function: Object,
    args: Object,
    kwargs: Object,
    /// The context variables that it starts with; null if none was set.
    context: Object,
    name: Object,
    /// What `main` has taken out of the fields above and holds while it runs, for those who look on.
    held: [Object; 4],
    /// The arguments of the `select` that it is in.
    selecting: *const Object,
    creator_code: *mut PyCodeObject,
    creator_at: std::ffi::c_int,
    /// What `throw` wants raised.
    pub(crate) thrown: Object,
    /// `cancel` was called: it is delivered once.
    pub(crate) exiting: bool,
    /// Its function is over: nothing is raised in it any more.
    pub(crate) over: bool,
    /// To be delivered at its next wait only: it asked for it itself, or it has just been handed something (a lock, a value) that
    /// an exception out of the blue would lose.
    pub(crate) at_wait: bool,
    /// What was thrown last was given to CPython, to be raised where it computes.
    pub(crate) by_async: bool,
    /// The innermost scope that it has entered; the chain holds a reference to each. Belongs to `scope`, as the next two do.
    pub(crate) scope: Object,
    /// How many scopes of the chain are due.
    pub(crate) due: u32,
    /// How many waits are under way that a scope may not end.
    pub(crate) shields: u32,
    weak: Object,
}

static TYPE: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
static UNCAUGHT: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
/// What the goroutines run that settle the counts of others.
static ERRAND: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());
static STARTED_HOOK: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

/// The core's handle of a goroutine object.
pub(crate) fn core<'a>(object: Object) -> &'a Handle {
    // SAFETY: `object` is one of ours, and alive for as long as the caller's argument is.
    match unsafe { &(*object.cast::<GoroutineObject>()).core } {
        Some(handle) => handle,
        None => unreachable!("a goroutine object is given its goroutine at birth"),
    }
}

/// The object of a goroutine that is alive, borrowed; null once it is ending.
pub(crate) fn object_of(goroutine: &Goroutine) -> Object {
    goroutine.payload() as Object
}

/// Whether an object is a goroutine's.
pub(crate) fn is_handle(object: Object) -> bool {
    // SAFETY: attached; the object is alive.
    unsafe { Py_TYPE(object) == TYPE.load(Ordering::Relaxed) }
}

/// What the goroutine of `object` holds by what it was started with, borrowed.
///
/// # Safety
/// The goroutine is parked and stays so.
pub(crate) unsafe fn held(object: Object) -> impl Iterator<Item = Object> {
    // SAFETY: by contract.
    unsafe { (*object.cast::<GoroutineObject>()).held }.into_iter().filter(|part| !part.is_null())
}

/// The tuple that holds the arguments of the `select` that the goroutine of `object` is in, if they are in one: an address, which may be
/// that of something else.
///
/// # Safety
/// As for [`held`].
pub(crate) unsafe fn arguments(object: Object) -> usize {
    // SAFETY: by contract.
    let first = unsafe { (*object.cast::<GoroutineObject>()).selecting } as usize;
    first.saturating_sub(std::mem::offset_of!(PyTupleObject, ob_item))
}

/// Says that the current goroutine is in a `select` with these arguments, or null that it is not.
pub(crate) fn set_selecting(args: *const Object) {
    if let Some(goroutine) = scheduler::current() {
        let object = object_of(goroutine);
        if !object.is_null() {
            // SAFETY: attached, in this very goroutine: nobody else writes it, and who reads it has stopped us.
            unsafe { (*object.cast::<GoroutineObject>()).selecting = args };
        }
    }
}

/// The goroutine that runs here, as a new reference, or None.
unsafe extern "C" fn current(_: Object, _: Object) -> Object {
    // SAFETY: the payload of a running goroutine is its object, kept by its reference.
    unsafe {
        match scheduler::current().map(object_of) {
            Some(object) if !object.is_null() => Py_NewRef(object),
            _ => none(),
        }
    }
}

/// Makes a handle with a goroutine that has not been started.
///
/// # Safety
/// Attached; `function` is alive, `args` is a new tuple or null, `kwargs` a new dict or null; both are taken over.
pub(crate) unsafe fn prepare(function: Object, args: Object, kwargs: Object) -> Object {
    // SAFETY: by contract.
    unsafe {
        if !crate::callable::can_be_called("go", function) {
            Py_XDECREF(args);
            Py_XDECREF(kwargs);
            return null_mut();
        }
        if !run_started_hook() {
            Py_XDECREF(args);
            Py_XDECREF(kwargs);
            return null_mut();
        }
        let object = allocate::<GoroutineObject>(TYPE.load(Ordering::Relaxed));
        let mut context = NULL;
        if object.is_null() || shim::offset_variables_copy(&raw mut context) == 0 {
            Py_XDECREF(object.cast());
            Py_XDECREF(context);
            Py_XDECREF(args);
            Py_XDECREF(kwargs);
            return null_mut();
        }
        std::ptr::write(&raw mut (*object).core, Some(scheduler::prepare(object as usize)));
        (*object).function = Py_NewRef(function);
        (*object).args = args;
        (*object).kwargs = kwargs;
        (*object).context = context;
        (*object).creator_code = shim::offset_caller(&raw mut (*object).creator_at);
        object.cast()
    }
}

/// Starts a prepared goroutine, which from now on holds its object.
///
/// # Safety
/// Attached; `object` comes from [`prepare`], once.
pub(crate) unsafe fn start(object: Object) {
    // SAFETY: by contract.
    unsafe { Py_INCREF(object) };
    scheduler::start(core(object));
}

/// A goroutine, prepared, that does what CPython has left for this OS thread to do: whatever runs Python on it does. None if there is no
/// memory.
pub(crate) fn errand() -> Option<Handle> {
    let function = ERRAND.load(Ordering::Relaxed);
    if function.is_null() {
        return None;
    }
    // SAFETY: attached; the function is kept for ever, and the goroutine has the only reference to its object.
    unsafe {
        let object = prepare(function, NULL, NULL);
        if object.is_null() {
            PyErr_Clear();
            return None;
        }
        Some(handle(object))
    }
}

/// Splits the arguments of a call `f(fn, /, *args, **kwargs)`, whose first `skip` are not for `fn`. False with a TypeError set
/// if there is no function.
///
/// # Safety
/// As for `parse`.
pub(crate) unsafe fn call_parts(
    name: &str,
    skip: usize,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Option<(Object, Object, Object)> {
    let count = count as usize;
    if count <= skip {
        type_error(&format!("{name}() needs a function to call"));
        return None;
    }
    // SAFETY: by contract: `count` arguments, then the values of the keywords.
    unsafe {
        let function = *args.add(skip);
        let extra = count - skip - 1;
        let mut tuple = NULL;
        let mut dict = NULL;
        if extra > 0 || !keywords.is_null() {
            tuple = PyTuple_New(extra as Py_ssize_t);
            if tuple.is_null() {
                return None;
            }
            for index in 0..extra {
                PyTuple_SET_ITEM(tuple, index as Py_ssize_t, Py_NewRef(*args.add(skip + 1 + index)));
            }
        }
        if !keywords.is_null() {
            dict = PyDict_New();
            for index in 0..PyTuple_GET_SIZE(keywords) {
                if dict.is_null()
                    || PyDict_SetItem(dict, PyTuple_GET_ITEM(keywords, index), *args.add(count + index as usize)) < 0
                {
                    Py_XDECREF(dict);
                    Py_DECREF(tuple);
                    return None;
                }
            }
        }
        Some((function, tuple, dict))
    }
}

unsafe extern "C" fn go(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((function, tuple, dict)) = call_parts("go", 0, args, count, keywords) else { return null_mut() };
        let object = prepare(function, tuple, dict);
        if !object.is_null() {
            start(object);
        }
        object
    }
}

/// A goroutine's name, a new reference, and where it was made.
///
/// # Safety
/// Attached; `object` is a goroutine's.
pub(crate) unsafe fn name_and_place(object: Object) -> (Object, Option<(*mut PyCodeObject, std::ffi::c_int)>) {
    // SAFETY: by contract.
    unsafe {
        let it = object.cast::<GoroutineObject>();
        let place = (!(*it).creator_code.is_null()).then(|| ((*it).creator_code, (*it).creator_at));
        (get_name(object, null_mut()), place)
    }
}

pub(crate) unsafe fn function_name(function: Object) -> Object {
    // SAFETY: attached, the function is alive.
    unsafe {
        let name = shim::offset_function_name(function);
        if !name.is_null() {
            return name;
        }
        for name in [c"__qualname__", c"__name__"] {
            let found = PyObject_GetAttrString(function, name.as_ptr());
            if !found.is_null() && PyUnicode_Check(found) != 0 {
                return found;
            }
            Py_XDECREF(found);
            PyErr_Clear();
        }
        let text = PyObject_Repr(function);
        if text.is_null() {
            PyErr_Clear();
            return string("?");
        }
        text
    }
}

unsafe extern "C" fn join(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(deadline) = (unsafe { only_timeout("join", args, count, keywords) }) else { return NULL };
    let goroutine = core(object).clone();
    if interrupted() {
        return NULL;
    }
    if is_current(&goroutine) {
        return runtime_error("a goroutine cannot join itself: it would wait for ever");
    }
    match scheduler::join(&goroutine, deadline) {
        Ok(()) => boolean(true),
        Err(WaitError::TimedOut) => boolean(false),
        Err(WaitError::Cancelled) => cancelled(),
    }
}

unsafe extern "C" fn stats(object: Object, _: Object) -> Object {
    let goroutine = core(object);
    let items = [
        (c"id", int(goroutine.id())),
        (c"status", string(status_name(goroutine.status()))),
        (c"wait_reason", string(goroutine.wait_reason().as_str())),
        // SAFETY: attached.
        (c"waited", unsafe { PyFloat_FromDouble(goroutine.waited() as f64 / 1e9) }),
        (c"creator", int(goroutine.creator())),
    ];
    // SAFETY: attached, new references.
    unsafe { dict(&items) }
}

unsafe extern "C" fn await_(object: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe { crate::task::join(object) }
}

pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Runnable => "runnable",
        Status::Running => "running",
        Status::Waiting => "waiting",
        Status::Dead => "dead",
    }
}

type Closure = *mut std::ffi::c_void;

unsafe extern "C" fn get_id(object: Object, _: Closure) -> Object {
    int(core(object).id())
}
unsafe extern "C" fn get_status(object: Object, _: Closure) -> Object {
    string(status_name(core(object).status()))
}
unsafe extern "C" fn get_reason(object: Object, _: Closure) -> Object {
    match core(object).wait_reason().as_str() {
        "" => none(),
        reason => string(reason),
    }
}
unsafe extern "C" fn get_waited(object: Object, _: Closure) -> Object {
    // SAFETY: attached.
    unsafe { PyFloat_FromDouble(core(object).waited() as f64 / 1e9) }
}
unsafe extern "C" fn get_creator(object: Object, _: Closure) -> Object {
    int(core(object).creator())
}
unsafe extern "C" fn get_ident(object: Object, _: Closure) -> Object {
    int(core(object).identity() as u64)
}
unsafe extern "C" fn get_own(object: Object, _: Closure) -> Object {
    boolean(core(object).is_own())
}
unsafe extern "C" fn get_started(object: Object, _: Closure) -> Object {
    boolean(core(object).started())
}
unsafe extern "C" fn get_name(object: Object, _: Closure) -> Object {
    // SAFETY: `object` is ours; what it holds is not let go inside a section.
    unsafe {
        let it = object.cast::<GoroutineObject>();
        let (name, function) = exclusive(object, || (Py_XNewRef((*it).name), Py_XNewRef((*it).function)));
        if !name.is_null() || function.is_null() {
            Py_XDECREF(function);
            return if name.is_null() { string("?") } else { name };
        }
        // May run Python.
        let found = function_name(function);
        Py_DECREF(function);
        if found.is_null() {
            return NULL;
        }
        exclusive(object, || {
            if (*it).name.is_null() {
                (*it).name = Py_NewRef(found);
            }
        });
        found
    }
}
unsafe extern "C" fn set_name(object: Object, name: Object, _: Closure) -> std::ffi::c_int {
    // SAFETY: `object` is ours, `name` alive or null.
    unsafe {
        if name.is_null() || PyUnicode_Check(name) == 0 {
            type_error("a goroutine's name is a string");
            return -1;
        }
        let it = object.cast::<GoroutineObject>();
        let before = exclusive(object, || std::mem::replace(&mut (*it).name, Py_NewRef(name)));
        if offset_runtime::trace::recording() {
            offset_runtime::trace::name(core(object).id(), 0, &text(name));
        }
        Py_XDECREF(before);
        0
    }
}
unsafe extern "C" fn get_created_at(object: Object, _: Closure) -> Object {
    // SAFETY: `object` is ours; the code, if there is one, is held.
    unsafe {
        let it = object.cast::<GoroutineObject>();
        let code = (*it).creator_code;
        if code.is_null() {
            return string("outside Python");
        }
        let line = PyCode_Addr2Line(code, (*it).creator_at);
        let mut parts = Vec::new();
        for name in [c"co_filename", c"co_qualname"] {
            let part = PyObject_GetAttrString(code.cast(), name.as_ptr());
            if part.is_null() {
                return NULL;
            }
            parts.push(text(part));
            Py_DECREF(part);
        }
        string(&format!("{}:{line} in {}", parts[0], parts[1]))
    }
}

unsafe extern "C" fn repr(object: Object) -> Object {
    // SAFETY: `object` is ours.
    unsafe {
        let name = get_name(object, null_mut());
        let goroutine = core(object);
        let result =
            string(&format!("<goroutine {} [{}] {}>", goroutine.id(), status_name(goroutine.status()), text(name)));
        Py_XDECREF(name);
        result
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone. An object dies before its goroutine started only if it never will: then the goroutine
    // holds the core's reference for being alive, which goes too.
    unsafe {
        let it = object.cast::<GoroutineObject>();
        if !(*it).weak.is_null() {
            PyObject_ClearWeakRefs(object);
        }
        let unstarted = !(*it).function.is_null();
        for part in [
            (*it).function,
            (*it).args,
            (*it).kwargs,
            (*it).context,
            (*it).thrown,
            (*it).name,
            (*it).creator_code.cast(),
        ] {
            Py_XDECREF(part);
        }
        if let Some(handle) = (*it).core.take()
            && unstarted
        {
            scheduler::abandon(handle.clone());
        }
        free(object);
    }
}

unsafe extern "C" fn gosched(_: Object, _: Object) -> Object {
    if scheduler::current().is_none() {
        // SAFETY: attached; other threads get their chance.
        unsafe {
            let state = shim::offset_detach();
            std::thread::yield_now();
            shim::offset_attach(state);
        }
        return none();
    }
    scheduler::gosched();
    // A loop that only yields can be cancelled, too.
    if let Some(goroutine) = scheduler::current()
        && goroutine.cancelled()
        && offset_runtime::host::Host::take_cancel(&crate::host::Python, goroutine)
    {
        return raise_thrown();
    }
    none()
}

unsafe extern "C" fn sleep(_: Object, seconds: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(deadline) = (unsafe { deadline_of(seconds) }) else { return NULL };
    if interrupted() {
        return NULL;
    }
    if scheduler::sleep(deadline, offset_runtime::goroutine::WaitReason::Sleep) { none() } else { cancelled() }
}

unsafe fn deadline_of(seconds: Object) -> Option<offset_runtime::clock::Deadline> {
    // SAFETY: by contract.
    let nanos = unsafe { nanoseconds(seconds) }?;
    Some(match nanos {
        i64::MAX => None,
        nanos if nanos <= 0 => Some(0),
        nanos => Some(offset_runtime::bubble::now() + nanos as u64),
    })
}

unsafe extern "C" fn goroutines(_: Object, _: Object) -> Object {
    list(|goroutine| !goroutine.is_own())
}

unsafe extern "C" fn all_goroutines(_: Object, _: Object) -> Object {
    list(|_| true)
}

/// The objects of those that are `wanted`, by number.
fn list(wanted: impl Fn(&Goroutine) -> bool) -> Object {
    let mut found = Vec::with_capacity(scheduler::num_goroutine());
    scheduler::visit_goroutines(|goroutine| {
        if wanted(goroutine) {
            // SAFETY: attached. The goroutine lets go of its object only when it is listed no more.
            found.push((goroutine.id(), unsafe { Py_NewRef(object_of(goroutine)) }));
        }
    });
    found.sort_unstable_by_key(|&(id, _)| id);
    // SAFETY: attached; the list takes the references over.
    unsafe {
        let list = PyList_New(found.len() as Py_ssize_t);
        for (index, (_, object)) in found.into_iter().enumerate() {
            if list.is_null() {
                Py_DECREF(object);
            } else {
                PyList_SET_ITEM(list, index as Py_ssize_t, object);
            }
        }
        list
    }
}

unsafe extern "C" fn num_goroutine(_: Object, _: Object) -> Object {
    int(scheduler::num_goroutine() as u64)
}

unsafe extern "C" fn set_uncaught(_: Object, hook: Object) -> Object {
    // SAFETY: the hook is kept for ever.
    UNCAUGHT.store(unsafe { Py_NewRef(hook) }, Ordering::Relaxed);
    none()
}

unsafe extern "C" fn set_errand(_: Object, function: Object) -> Object {
    // SAFETY: the function is kept for ever.
    ERRAND.store(unsafe { Py_NewRef(function) }, Ordering::Relaxed);
    none()
}

unsafe extern "C" fn set_started_hook(_: Object, hook: Object) -> Object {
    // SAFETY: the hook is kept for ever.
    STARTED_HOOK.store(unsafe { Py_NewRef(hook) }, Ordering::Relaxed);
    none()
}

/// What has to be set up before the first goroutine of this process; false with an exception set if the hook raises.
pub(crate) unsafe fn run_started_hook() -> bool {
    if crate::STARTED.load(Ordering::Acquire) {
        return true;
    }
    // Another thread may be here too: nobody goes on before this is done.
    #[expect(clippy::disallowed_types, reason = "the first caller is attached throughout, so nobody forks")]
    static SET_UP: std::sync::Once = std::sync::Once::new();
    SET_UP.call_once(crate::set_up);
    if crate::STARTED.swap(true, Ordering::AcqRel) {
        return true;
    }
    crate::outside::start();
    let hook = STARTED_HOOK.load(Ordering::Relaxed);
    if hook.is_null() {
        return true;
    }
    // SAFETY: attached; the hook is kept.
    unsafe {
        let answer = shim::offset_object_call(hook, NULL, NULL);
        Py_XDECREF(answer);
        if answer.is_null() {
            crate::STARTED.store(false, Ordering::Release);
        }
        !answer.is_null()
    }
}

unsafe extern "C" fn set_package(_: Object, directory: Object) -> Object {
    // SAFETY: the calling convention; the bytes are copied at once.
    unsafe {
        let directory = text(directory);
        shim::offset_package_set(directory.as_ptr().cast(), directory.len());
    }
    none()
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        one_arg(c"set_package", set_package, c"Name the directory of the package: created_at looks past its files."),
        fast(c"go", go, c"go(fn, /, *args, **kwargs) -> Goroutine\n\nStart fn(*args, **kwargs) as a goroutine (Go: the go statement). TypeError if fn is not callable."),
        no_args(c"gosched", gosched, c"gosched()\n\nLet the other runnable goroutines run first (Go: runtime.Gosched)."),
        one_arg(c"sleep", sleep, c"sleep(seconds)\n\nPark for a number of seconds (float or timedelta); others go on (Go: time.Sleep)."),
        no_args(c"current", current, c"current() -> Goroutine | None\n\nThe goroutine that calls; None in a plain thread."),
        no_args(c"goroutines", goroutines, c"goroutines() -> list[Goroutine]\n\nAll goroutines that have not ended, by id."),
        no_args(
            c"all_goroutines",
            all_goroutines,
            c"all_goroutines() -> list[Goroutine]\n\nThe same with those that the runtime has started for itself.",
        ),
        no_args(c"num_goroutine", num_goroutine, c"num_goroutine() -> int\n\nHow many goroutines have not ended (Go: runtime.NumGoroutine)."),
        one_arg(c"set_uncaught", set_uncaught, c"Set the function that is called with a goroutine and the exception that left it."),
        one_arg(c"set_errand", set_errand, c"Set the function that goroutines run to settle what others have left."),
        one_arg(c"set_started_hook", set_started_hook, c"Set the function that is called before the first goroutine of a process starts."),
    ]
}

/// Adds the type to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let mut name = getter(c"name", get_name, c"Its name, the function's qualified name at first. Settable.");
    name.set = Some(set_name);
    let spec = TypeSpec {
        name: c"offset.Goroutine",
        doc: c"The handle of a goroutine, made by go().",
        size: size_of::<GoroutineObject>(),
        // Not seen by the collector, which would run again and again while many start: an unstarted goroutine is a root, and a
        // started one holds nothing.
        flags: u64::from(Py_TPFLAGS_DISALLOW_INSTANTIATION as u32),
        methods: vec![
            fast(c"join", join, c"join(timeout=None) -> bool\n\nWait until it has ended; False when timeout seconds pass before."),
            no_args(c"cancel", cancel, c"cancel()\n\nRaise GoroutineExit in it, where it waits or at its next chance. Nothing if it has ended."),
            no_args(c"_throwing", throwing, c"_throwing() -> bool\n\nWhether what was thrown last has not been raised yet."),
            one_arg(c"throw", throw, c"throw(exc)\n\nLike cancel(), with an exception of your choice."),
            no_args(c"stats", stats, c"stats() -> dict\n\nId, status, wait reason and time, and creator."),
        ],
        getters: vec![
            getter(c"id", get_id, c"Its number, from 1 upwards."),
            name,
            getter(c"status", get_status, c"\"runnable\", \"running\", \"waiting\" or \"dead\"."),
            getter(c"wait_reason", get_reason, c"Why it waits, in Go's words; None when it does not."),
            getter(c"waited", get_waited, c"For how many seconds it has been waiting, to a few milliseconds; 0.0 when it does not."),
            getter(c"creator", get_creator, c"The id of the goroutine that started it; 0 for a plain thread."),
            getter(c"created_at", get_created_at, c"Where it was started: \"file:line in function\"."),
            getter(c"ident", get_ident, c"Its thread identity, the key in sys._current_frames(); 0 when it has none."),
            getter(c"_own", get_own, c"Whether the runtime has started it for itself."),
            getter(c"started", get_started, c"Whether it has run at all."),
        ],
        slots: vec![
            slot!(Py_tp_dealloc, dealloc),
            slot!(Py_tp_repr, repr),
            slot!(Py_am_await, await_slot),
            slot!(Py_tp_members, weak_member(std::mem::offset_of!(GoroutineObject, weak))),
        ],
    };
    // SAFETY: the slots fit the object.
    let made = unsafe { new_type(module, spec) };
    TYPE.store(made, Ordering::Relaxed);
    !made.is_null()
}

unsafe extern "C" fn await_slot(object: Object) -> Object {
    // SAFETY: attached.
    unsafe { await_(object, NULL) }
}

/// The member table that makes objects weakly referable.
pub(crate) fn weak_member(offset: usize) -> *mut PyMemberDef {
    let members = vec![
        PyMemberDef {
            name: c"__weaklistoffset__".as_ptr(),
            type_code: Py_T_PYSSIZET,
            offset: offset as Py_ssize_t,
            flags: Py_READONLY,
            doc: std::ptr::null(),
        },
        // SAFETY: all zeroes end the table.
        unsafe { std::mem::zeroed() },
    ];
    members.leak().as_mut_ptr()
}

/// Writes a goroutine's name, as far as it is known without running anything: for a signal handler.
pub(crate) fn write_name(goroutine: &Goroutine, out: &mut impl std::io::Write) -> std::io::Result<()> {
    // SAFETY: the object of a running goroutine is alive. The name's bytes were asked for when it started (`main`), so that
    // this call finds them and allocates nothing.
    unsafe {
        let object = object_of(goroutine).cast::<GoroutineObject>();
        let name = if object.is_null() { NULL } else { (*object).name };
        let mut size = 0;
        let bytes = if name.is_null() { std::ptr::null() } else { PyUnicode_AsUTF8AndSize(name, &raw mut size) };
        if bytes.is_null() { Ok(()) } else { out.write_all(std::slice::from_raw_parts(bytes.cast(), size as usize)) }
    }
}

/// Parts the goroutine from its object, whose reference the caller gets. Nothing is thrown into it from now on.
pub(crate) fn end(goroutine: &Goroutine) -> Object {
    // SAFETY: attached, in this very goroutine.
    unsafe {
        let (object, thrown) = exclusive(object_of(goroutine), || {
            let object = goroutine.ending() as Object;
            (object, std::mem::replace(&mut (*object.cast::<GoroutineObject>()).thrown, NULL))
        });
        // Raised where it computed, it has a traceback, which may hold what holds the object: nobody would find that cycle.
        // `test_what_a_handler_raises_ends_a_wait_of_main` in tests/test_syscall_signal.py fails without this.
        Py_XDECREF(thrown);
        object
    }
}

/// A further core handle of a goroutine object.
pub(crate) fn handle(object: Object) -> Handle {
    core(object).clone()
}
