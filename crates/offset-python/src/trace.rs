//! The trace and the profiles, as far as they know Python: names, stacks, and the functions of `offset.runtime.trace`.
//!
//! A stack is a number, its place in `STACKS`; what it is made of, code objects and offsets into them, is looked at once, when a recording
//! is written. The code objects are held as long as their stacks. Locks here are leaves: under one of them a reference may be taken,
//! but none is dropped and nothing of Python's is called that could run Python or wait.

use crate::error::*;
use crate::host::{adopt_thread, state_goes};
use crate::method::*;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF, PyErr_Clear};
use offset_runtime::goroutine::Goroutine;
use offset_runtime::lock::Lock;
use offset_runtime::scheduler;
use offset_runtime::trace::{self, Kind, Profile, Recording};
use pyo3_ffi::*;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Frames of a stack in a trace, from the innermost, and in a profile.
const TRACED: usize = 24;
const PROFILED: usize = 64;

/// The file whose frames carry a main goroutine's function, and say nothing about the program.
const OWN: &str = "/offset/_run.py:";

/// A code object and the offset of an instruction in it.
type Place = (usize, std::ffi::c_int);
type Stack = Box<[Place]>;
/// By stack: how many waits, how many nanoseconds.
type Records = HashMap<Stack, (f64, u64)>;

#[derive(Default)]
struct Stacks {
    numbers: HashMap<Stack, u32>,
    /// By number; the first stands for none.
    list: Vec<Stack>,
}

static STACKS: Lock<Option<Stacks>> = Lock::new(None);
/// Of each profile, for as long as the process lives, as Go's.
static PROFILES: [Lock<Option<Records>>; 2] = [Lock::new(None), Lock::new(None)];
/// A flight recorder is at work: chunks with names may be gone before what they name.
static FLIGHT: AtomicBool = AtomicBool::new(false);

/// The innermost frames of `state`; the references to their code are the caller's.
///
/// # Safety
/// Attached, and nobody else runs `state`.
unsafe fn frames(state: *mut PyThreadState, most: usize) -> Vec<Place> {
    let mut found = Vec::with_capacity(16);
    // SAFETY: by contract. A frame object is the frame's as well as ours, so none dies here.
    unsafe {
        let mut frame = PyThreadState_GetFrame(state);
        while !frame.is_null() {
            let mut back = std::ptr::null_mut();
            if found.len() < most {
                found.push((PyFrame_GetCode(frame) as usize, PyFrame_GetLasti(frame)));
                back = PyFrame_GetBack(frame);
            }
            Py_DECREF(frame.cast());
            frame = back;
        }
    }
    found
}

/// The caller's own.
///
/// # Safety
/// Attached.
unsafe fn own_frames(most: usize) -> Vec<Place> {
    // SAFETY: attached. On 3.11 an allocation may collect, and so run Python.
    unsafe {
        let collecting = cfg!(not(Py_3_12)) && PyGC_Disable() != 0;
        let found = frames(PyThreadState_Get(), most);
        if collecting {
            PyGC_Enable();
        }
        found
    }
}

/// The number of a stack whose references are taken over.
///
/// # Safety
/// Attached.
unsafe fn number(places: Vec<Place>) -> u32 {
    if places.is_empty() {
        return 0;
    }
    let mut stacks = STACKS.lock();
    let stacks_now = stacks.get_or_insert_with(Stacks::default);
    if let Some(&number) = stacks_now.numbers.get(places.as_slice()) {
        drop(stacks);
        // SAFETY: the caller's references.
        unsafe { forget(&places) };
        return number;
    }
    if stacks_now.list.is_empty() {
        stacks_now.list.push(Box::default());
    }
    let number = stacks_now.list.len() as u32;
    let stack: Stack = places.into();
    stacks_now.list.push(stack.clone());
    stacks_now.numbers.insert(stack, number);
    number
}

/// Drops the references of a stack.
///
/// # Safety
/// Attached, without a lock.
unsafe fn forget(places: &[Place]) {
    for &(code, _) in places {
        // SAFETY: by contract.
        unsafe { Py_DECREF(code as Object) };
    }
}

/// `Host::stack`.
pub(crate) fn stack() -> u32 {
    // SAFETY: attached, as the core promises.
    unsafe { number(own_frames(TRACED)) }
}

/// `Host::stack_of`.
pub(crate) fn stack_of(goroutine: u64, still: &dyn Fn() -> bool) -> u32 {
    let state = adopt_thread();
    // SAFETY: the state is new and this thread's. While we are alone in running Python, whoever is where it was stays there.
    unsafe {
        shim::offset_attach(state);
        let found = crate::dump::alone(|| {
            let mut identity = 0;
            if still() {
                scheduler::visit_goroutines(|other| {
                    if other.id() == goroutine {
                        identity = other.identity();
                    }
                });
            }
            let mut other = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
            while identity != 0 && !other.is_null() && shim::offset_thread_identity(other) != identity as u64 {
                other = PyThreadState_Next(other);
            }
            let found = if identity == 0 || other.is_null() { Vec::new() } else { frames(other, TRACED) };
            (found, still())
        });
        let number = match found {
            (found, true) => number(found),
            (found, false) => {
                // It went on meanwhile: these are not the frames that it was in.
                forget(&found);
                0
            }
        };
        state_goes();
        shim::offset_thread_end(state);
        number
    }
}

/// `Host::profile`.
pub(crate) fn profile(profile: Profile, count: f64, nanos: u64) {
    // SAFETY: attached, as the core promises.
    let places = unsafe { own_frames(PROFILED) };
    let mut records = PROFILES[profile as usize].lock();
    let records_now = records.get_or_insert_with(HashMap::new);
    if let Some(record) = records_now.get_mut(places.as_slice()) {
        record.0 += count;
        record.1 = record.1.saturating_add(nanos);
        drop(records);
        // SAFETY: attached; the references of this look.
        unsafe { forget(&places) };
    } else {
        records_now.insert(places.into(), (count, nanos));
    }
}

/// A goroutine starts, in its own stack: says who it is. `place` is where it was made.
pub(crate) unsafe fn starts(goroutine: &Goroutine, name: Object, code: *mut PyCodeObject, at: std::ffi::c_int) {
    if trace::recording() {
        // SAFETY: attached; the name is alive, and the code is held by the goroutine's object.
        unsafe {
            let place = if code.is_null() { 0 } else { number(vec![(Py_NewRef(code.cast()) as usize, at)]) };
            trace::name(goroutine.id(), place, &text(name));
        }
    }
}

/// A goroutine is about to end.
pub(crate) unsafe fn ends(goroutine: &Goroutine, name: impl FnOnce() -> Object) {
    if trace::recording() && FLIGHT.load(Ordering::Relaxed) {
        let name = name();
        // SAFETY: attached; the reference is ours.
        unsafe {
            trace::name(goroutine.id(), 0, &text(name));
            Py_XDECREF(name);
        }
    }
}

/// A blocking call, on a thread of the pool and attached; gives what [`call_ends`] wants.
pub(crate) unsafe fn call_begins(goroutine: u64, function: Object) -> Option<u32> {
    if !trace::recording() {
        return None;
    }
    // SAFETY: attached; the function is alive.
    unsafe {
        let name = crate::goroutine::function_name(function);
        let number = trace::call_begins(goroutine, &text(name));
        Py_XDECREF(name);
        PyErr_Clear();
        Some(number)
    }
}

pub(crate) fn call_ends(call: Option<u32>) {
    if let Some(number) = call {
        trace::call_ends(number);
    }
}

/// Says who is alive, and, at the beginning of a recording, what they do.
unsafe fn introduce(states: bool) {
    let mut found = Vec::new();
    scheduler::visit_goroutines(|goroutine| {
        if states {
            trace::state(goroutine);
        }
        // SAFETY: attached. The goroutine lets go of its object only when it is listed no more.
        found.push((goroutine.id(), unsafe { Py_NewRef(crate::goroutine::object_of(goroutine)) }));
    });
    for (id, object) in found {
        // SAFETY: attached; the references are ours.
        unsafe {
            let (name, place) = crate::goroutine::name_and_place(object);
            let place = place.map_or(0, |(code, at)| number(vec![(Py_NewRef(code.cast()) as usize, at)]));
            trace::name(id, place, &text(name));
            Py_XDECREF(name);
            Py_DECREF(object);
            PyErr_Clear();
        }
    }
}

/// "file:line in function".
unsafe fn describe(&(code, at): &Place) -> String {
    // SAFETY: attached; the code is held by its stack.
    unsafe {
        let code = code as Object;
        let line = PyCode_Addr2Line(code.cast(), at);
        let mut parts = [String::new(), String::new()];
        for (part, name) in parts.iter_mut().zip([c"co_filename", c"co_qualname"]) {
            let found = PyObject_GetAttrString(code, name.as_ptr());
            if found.is_null() {
                PyErr_Clear();
            } else {
                *part = text(found);
                Py_DECREF(found);
            }
        }
        format!("{}:{line} in {}", parts[0], parts[1])
    }
}

/// The texts of all stacks, by number.
unsafe fn described() -> Vec<Vec<String>> {
    let list = STACKS.lock().as_ref().map(|stacks| stacks.list.clone()).unwrap_or_default();
    let mut known = HashMap::new();
    list.iter()
        .map(|stack| {
            stack
                .iter()
                .map(|place| {
                    // SAFETY: attached. Stacks are let go by `clear` alone, which the stop of the last recording calls; their code
                    // is alive until then.
                    let text = known.entry(*place).or_insert_with(|| unsafe { describe(place) });
                    text.clone()
                })
                .filter(|frame: &String| !frame.contains(OWN))
                .collect()
        })
        .collect()
}

/// Lets all stacks go, if nothing is recorded any more.
unsafe fn clear() {
    if trace::active(Kind::Trace) || trace::active(Kind::Flight) {
        return;
    }
    let before = STACKS.lock().take();
    for stack in before.iter().flat_map(|stacks| &stacks.list) {
        // SAFETY: attached, and the lock is free.
        unsafe { forget(stack) };
    }
}

/// Which kind, and where to, of a call with the arguments (flight, descriptor).
unsafe fn target(args: *const Object, count: Py_ssize_t) -> Option<(Kind, std::ffi::c_int)> {
    if count != 2 {
        type_error("which recording, and a descriptor");
        return None;
    }
    // SAFETY: two arguments.
    unsafe {
        let descriptor = PyLong_AsLong(*args.add(1));
        if descriptor == -1 && !PyErr_Occurred().is_null() {
            return None;
        }
        Some((kind(*args), descriptor as std::ffi::c_int))
    }
}

unsafe fn kind(flight: Object) -> Kind {
    // SAFETY: attached; the argument is alive.
    if unsafe { PyObject_IsTrue(flight) } == 1 { Kind::Flight } else { Kind::Trace }
}

/// Writes a recording; gives whether it was truncated, as a Python bool.
unsafe fn write(recording: &Recording, descriptor: std::ffi::c_int) -> Object {
    // SAFETY: attached. What is written is the core's, so the interpreter is not needed meanwhile.
    unsafe {
        let stacks = described();
        let state = shim::offset_detach();
        // The descriptor stays the caller's.
        let file = ManuallyDrop::new(std::fs::File::from_raw_fd(descriptor));
        let result = recording.write(&stacks, &mut std::io::BufWriter::with_capacity(1 << 18, &*file));
        shim::offset_attach(state);
        match result {
            Ok(()) => boolean(recording.truncated),
            Err(error) => {
                *offset_runtime::os::errno() = error.raw_os_error().unwrap_or(libc::EIO);
                PyErr_SetFromErrno(PyExc_OSError)
            }
        }
    }
}

unsafe extern "C" fn trace_start(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 3];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("trace_start", args, count, keywords, &["flight", "limit", "seconds"], 2, &mut out) {
            return NULL;
        }
        let limit = PyLong_AsSize_t(out[1]);
        if limit == usize::MAX && !PyErr_Occurred().is_null() {
            return NULL;
        }
        let mut window = None;
        if !out[2].is_null() && Py_IsNone(out[2]) == 0 {
            let Some(nanos) = nanoseconds(out[2]) else { return NULL };
            window = Some(Duration::from_nanos(nanos.max(0) as u64));
        }
        let kind = kind(out[0]);
        if !trace::start(kind, limit, window) {
            return boolean(false);
        }
        if kind == Kind::Flight {
            FLIGHT.store(true, Ordering::Relaxed);
        }
        introduce(true);
        boolean(true)
    }
}

unsafe extern "C" fn trace_stop(_: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((kind, descriptor)) = target(args, count) else { return NULL };
        if trace::active(kind) && descriptor >= 0 {
            introduce(false);
        }
        if kind == Kind::Flight {
            FLIGHT.store(false, Ordering::Relaxed);
        }
        let Some(recording) = trace::stop(kind) else { return none() };
        let result = if descriptor >= 0 { write(&recording, descriptor) } else { boolean(recording.truncated) };
        clear();
        result
    }
}

unsafe extern "C" fn trace_write(_: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((kind, descriptor)) = target(args, count) else { return NULL };
        introduce(false);
        match trace::so_far(kind) {
            Some(recording) => write(&recording, descriptor),
            None => none(),
        }
    }
}

unsafe extern "C" fn trace_active(_: Object, flight: Object) -> Object {
    // SAFETY: the calling convention.
    boolean(trace::active(unsafe { kind(flight) }))
}

/// The number of the goroutine that calls; 0 of a plain thread.
fn caller() -> u64 {
    scheduler::current().map_or(0, Goroutine::id)
}

unsafe extern "C" fn trace_region(_: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    if count != 2 {
        return type_error("trace_region(begins, name)");
    }
    if trace::recording() {
        // SAFETY: two arguments.
        unsafe { trace::region(caller(), PyObject_IsTrue(*args) == 1, &text(*args.add(1))) };
    }
    none()
}

unsafe extern "C" fn trace_log(_: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    if count != 2 {
        return type_error("trace_log(category, message)");
    }
    if trace::recording() {
        // SAFETY: two arguments.
        unsafe { trace::log(caller(), &text(*args), &text(*args.add(1))) };
    }
    none()
}

/// A callback of `gc.callbacks`: begins or ends an event.
unsafe extern "C" fn trace_gc(_: Object, args: *const Object, count: Py_ssize_t, _: Object) -> Object {
    if count != 2 || !trace::recording() {
        return none();
    }
    // SAFETY: two arguments: "start" or "stop", and a dict.
    unsafe {
        let read = |name: &std::ffi::CStr| {
            let value = PyDict_GetItemString(*args.add(1), name.as_ptr());
            if value.is_null() { 0 } else { PyLong_AsUnsignedLongLongMask(value) }
        };
        let ended = (text(*args) == "stop").then(|| read(c"collected"));
        trace::collection(read(c"generation") as u32, ended);
        PyErr_Clear();
    }
    none()
}

unsafe extern "C" fn trace_recording(_: Object, _: Object) -> Object {
    boolean(trace::recording())
}

/// A rate of at least 0; None with an exception set otherwise.
unsafe fn rate(object: Object, what: &str) -> Option<u64> {
    // SAFETY: attached; the argument is alive.
    let value = unsafe { PyLong_AsLongLong(object) };
    // SAFETY: attached.
    if value == -1 && unsafe { !PyErr_Occurred().is_null() } {
        return None;
    }
    if value < 0 {
        value_error(&format!("{what} must be at least 0, got {value}; 0 turns the profile off"));
        return None;
    }
    Some(value as u64)
}

unsafe extern "C" fn set_block_profile_rate(_: Object, nanos: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { rate(nanos, "the rate of the block profile, in nanoseconds,") }
        .map_or(NULL, |nanos| int(trace::set_block_rate(nanos)))
}

unsafe extern "C" fn set_mutex_profile_fraction(_: Object, fraction: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { rate(fraction, "the fraction of the mutex profile") }
        .map_or(NULL, |fraction| int(trace::set_mutex_fraction(Some(fraction))))
}

/// A list of (count, nanoseconds, [(code, line), ...]).
unsafe extern "C" fn profile_records(_: Object, mutex: Object) -> Object {
    // SAFETY: the calling convention. Records are never dropped, so their code is alive.
    unsafe {
        let which = if PyObject_IsTrue(mutex) == 1 { Profile::Mutex } else { Profile::Block };
        let records: Vec<(Stack, (f64, u64))> =
            PROFILES[which as usize].lock().iter().flatten().map(|(stack, record)| (stack.clone(), *record)).collect();
        let list = PyList_New(0);
        for (stack, (count, nanos)) in records {
            let places = PyList_New(0);
            for (code, at) in stack {
                let line = PyLong_FromLong(PyCode_Addr2Line((code as Object).cast(), at).into());
                let place = PyTuple_Pack(2, code as Object, line);
                Py_XDECREF(line);
                if places.is_null() || place.is_null() || PyList_Append(places, place) < 0 {
                    Py_XDECREF(place);
                    Py_XDECREF(places);
                    Py_XDECREF(list);
                    return NULL;
                }
                Py_DECREF(place);
            }
            let (count, nanos) = (PyLong_FromDouble(count.round()), int(nanos));
            let record = PyTuple_Pack(3, count, nanos, places);
            for part in [count, nanos, places] {
                Py_XDECREF(part);
            }
            if list.is_null() || record.is_null() || PyList_Append(list, record) < 0 {
                Py_XDECREF(record);
                Py_XDECREF(list);
                return NULL;
            }
            Py_DECREF(record);
        }
        list
    }
}

/// In a forked child: what was recorded is the parent's, and so is the profile's past.
pub(crate) fn start_over() {
    FLIGHT.store(false, Ordering::Relaxed);
    // SAFETY: the child has one thread; another one of the parent's may have held them, and left them half changed.
    unsafe {
        STACKS.force_unlock();
        PROFILES.iter().for_each(|profile| profile.force_unlock());
    }
    std::mem::forget(STACKS.lock().take());
    PROFILES.iter().for_each(|profile| std::mem::forget(profile.lock().take()));
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        fast(c"trace_start", trace_start, c"trace_start(flight, limit, seconds=None) -> bool\n\nStart a recording of at most limit bytes of events; False if there is one of this kind."),
        fast(c"trace_stop", trace_stop, c"trace_stop(flight, descriptor) -> bool | None\n\nEnd it, and write it unless the descriptor is negative; whether it was truncated."),
        fast(c"trace_write", trace_write, c"trace_write(flight, descriptor) -> bool | None\n\nWrite what it has so far."),
        one_arg(c"trace_active", trace_active, c"trace_active(flight) -> bool\n\nWhether there is such a recording."),
        no_args(c"trace_recording", trace_recording, c"trace_recording() -> bool\n\nWhether events are recorded."),
        fast(c"trace_region", trace_region, c"trace_region(begins, name)\n\nA region begins or ends."),
        fast(c"trace_log", trace_log, c"trace_log(category, message)\n\nA message."),
        fast(c"trace_gc", trace_gc, c"trace_gc(phase, info)\n\nFor gc.callbacks."),
        one_arg(c"set_block_profile_rate", set_block_profile_rate, c"set_block_profile_rate(rate) -> int\n\nCount one wait in rate nanoseconds of waiting; 1 for all, 0 for none (Go: runtime.SetBlockProfileRate). Gives the previous rate. ValueError below 0."),
        one_arg(c"set_mutex_profile_fraction", set_mutex_profile_fraction, c"set_mutex_profile_fraction(rate) -> int\n\nCount one in rate waits for locks; 1 for all, 0 for none (Go: runtime.SetMutexProfileFraction). Gives the previous rate. ValueError below 0."),
        one_arg(c"profile_records", profile_records, c"profile_records(mutex) -> list\n\n(count, nanoseconds, [(code, line), ...]) of each stack."),
    ]
}
