//! `Timer`, `Ticker`, `after`, `after_func` and the clock.
//!
//! A channel timer lives as long as its channel object, which stops it when it dies; the `Timer` object holds that. A function
//! timer holds the goroutine that it is to start, prepared; the core hands it back when it is stopped in time.

use crate::chan;
use crate::error::*;
use crate::method::*;
use crate::object::Value;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::alarm::{ChanTimer, FuncTimer};
use offset_runtime::bubble;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

#[repr(C)]
struct TimerObject {
    head: PyObject,
    chan: Object,
    timer: Option<Arc<ChanTimer<Value>>>,
    func: Option<Arc<FuncTimer>>,
    /// What `after_func` calls: for the next `reset`.
    function: Object,
    args: Object,
    kwargs: Object,
    /// Nanoseconds; 0 for a timer.
    period: AtomicU64,
}

static TIMER: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

fn it<'a>(object: Object) -> &'a mut TimerObject {
    // SAFETY: `object` is one of ours, alive as the caller's argument; only birth and death write to it.
    unsafe { &mut *object.cast::<TimerObject>() }
}

fn from_now(nanos: i64) -> u64 {
    bubble::now().saturating_add(nanos.max(0) as u64)
}

/// A positive period in nanoseconds; None with a ValueError set otherwise.
unsafe fn period(seconds: Object, what: &str) -> Option<u64> {
    // SAFETY: attached; `seconds` is alive.
    let nanos = unsafe { nanoseconds(seconds) }?;
    if nanos <= 0 {
        value_error(&format!("{what} needs a period greater than 0 seconds"));
        return None;
    }
    Some(nanos as u64)
}

unsafe fn make(class: *mut PyTypeObject) -> Option<Object> {
    // SAFETY: attached; the object is ours alone.
    unsafe {
        let (chan, timer) = chan::for_timer()?;
        let object = allocate::<TimerObject>(class);
        if object.is_null() {
            Py_DECREF(chan);
            return None;
        }
        std::ptr::write(&raw mut (*object).timer, Some(timer));
        std::ptr::write(&raw mut (*object).func, None);
        (*object).chan = chan;
        Some(object.cast())
    }
}

unsafe fn duration_argument(name: &std::ffi::CStr, args: Object, kwargs: Object) -> Object {
    let mut names = [c"d".as_ptr().cast_mut(), null_mut()];
    let mut seconds = NULL;
    // SAFETY: the arguments of a tp_new.
    unsafe {
        if PyArg_ParseTupleAndKeywords(args, kwargs, name.as_ptr(), names.as_mut_ptr().cast(), &raw mut seconds) == 0 {
            return NULL;
        }
    }
    seconds
}

unsafe extern "C" fn timer_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let seconds = duration_argument(c"O:Timer", args, kwargs);
        if seconds.is_null() {
            return NULL;
        }
        let Some(nanos) = nanoseconds(seconds) else { return NULL };
        if !crate::goroutine::run_started_hook() {
            return NULL;
        }
        let Some(object) = make(class) else { return NULL };
        if let Some(timer) = &it(object).timer {
            timer.reset(from_now(nanos), 0);
        }
        object
    }
}

unsafe extern "C" fn ticker_new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let seconds = duration_argument(c"O:Ticker", args, kwargs);
        if seconds.is_null() {
            return NULL;
        }
        let Some(period) = period(seconds, "Ticker") else { return NULL };
        if !crate::goroutine::run_started_hook() {
            return NULL;
        }
        let Some(object) = make(class) else { return NULL };
        it(object).period.store(period, Ordering::Relaxed);
        if let Some(timer) = &it(object).timer {
            timer.reset(from_now(period as i64), period);
        }
        object
    }
}

unsafe extern "C" fn after(_: Object, seconds: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(nanos) = nanoseconds(seconds) else { return NULL };
        if !crate::goroutine::run_started_hook() {
            return NULL;
        }
        let Some((chan, timer)) = chan::for_timer() else { return NULL };
        timer.reset(from_now(nanos), 0);
        chan
    }
}

/// Gives up a goroutine that will not be started: its object, which nobody else holds, goes with what it was to call.
pub(crate) fn give_up(handle: offset_runtime::goroutine::Handle) {
    let object = handle.payload() as Object;
    drop(handle);
    // SAFETY: attached; the reference that was kept for the start.
    unsafe { Py_DECREF(object) };
}

/// Sets a function timer to `when`; whether it was set, or None with an exception set.
unsafe fn arm(object: Object, when: u64) -> Option<bool> {
    // SAFETY: attached; the fields are held.
    unsafe {
        let timer = it(object);
        let func = timer.func.clone()?;
        let args = if timer.args.is_null() { NULL } else { Py_NewRef(timer.args) };
        let kwargs = if timer.kwargs.is_null() { NULL } else { PyDict_Copy(timer.kwargs) };
        let goroutine = crate::goroutine::prepare(timer.function, args, kwargs);
        if goroutine.is_null() {
            return None;
        }
        // The object's one reference becomes the goroutine's own when the timer starts it.
        let before = func.reset(crate::goroutine::handle(goroutine), when);
        let was_set = before.is_some();
        if let Some(handle) = before {
            give_up(handle);
        }
        Some(was_set)
    }
}

unsafe extern "C" fn after_func(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some((function, tuple, dict)) = crate::goroutine::call_parts("after_func", 1, args, count, keywords) else {
            return NULL;
        };
        let object = allocate::<TimerObject>(TIMER.load(Ordering::Relaxed));
        if object.is_null() {
            Py_XDECREF(tuple);
            Py_XDECREF(dict);
            return NULL;
        }
        std::ptr::write(&raw mut (*object).timer, None);
        std::ptr::write(&raw mut (*object).func, Some(FuncTimer::new()));
        (*object).function = Py_NewRef(function);
        (*object).args = tuple;
        (*object).kwargs = dict;
        let object: Object = object.cast();
        let armed = match nanoseconds(*args) {
            Some(nanos) => arm(object, from_now(nanos)),
            None => None,
        };
        if armed.is_none() {
            Py_DECREF(object);
            return NULL;
        }
        object
    }
}

fn stop_timer(object: Object) -> bool {
    let timer = it(object);
    match (&timer.timer, &timer.func) {
        (Some(timer), _) => timer.stop(),
        (None, Some(func)) => match func.stop() {
            Some(handle) => {
                give_up(handle);
                true
            }
            None => false,
        },
        (None, None) => false,
    }
}

unsafe extern "C" fn timer_stop(object: Object, _: Object) -> Object {
    boolean(stop_timer(object))
}

unsafe extern "C" fn ticker_stop(object: Object, _: Object) -> Object {
    stop_timer(object);
    none()
}

unsafe extern "C" fn timer_reset(object: Object, seconds: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(nanos) = nanoseconds(seconds) else { return NULL };
        match &it(object).timer {
            Some(timer) => boolean(timer.reset(from_now(nanos), 0)),
            None => arm(object, from_now(nanos)).map_or(NULL, boolean),
        }
    }
}

unsafe extern "C" fn ticker_reset(object: Object, seconds: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(period) = period(seconds, "Ticker.reset()") else { return NULL };
        it(object).period.store(period, Ordering::Relaxed);
        if let Some(timer) = &it(object).timer {
            timer.reset(from_now(period as i64), period);
        }
    }
    none()
}

unsafe extern "C" fn get_c(object: Object, _: *mut std::ffi::c_void) -> Object {
    let chan = it(object).chan;
    // SAFETY: the channel is held.
    if chan.is_null() { none() } else { unsafe { Py_NewRef(chan) } }
}

unsafe extern "C" fn stats(object: Object, _: Object) -> Object {
    // SAFETY: attached, new references.
    unsafe {
        dict(&[
            (c"period", PyFloat_FromDouble(it(object).period.load(Ordering::Relaxed) as f64 / 1e9)),
            (c"function", boolean(it(object).func.is_some())),
        ])
    }
}

unsafe extern "C" fn now(_: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe { PyFloat_FromDouble(bubble::now() as f64 / 1e9) }
}

unsafe extern "C" fn traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: `object` is ours; the collector's calling convention.
    unsafe {
        for child in [it(object).chan, it(object).function, it(object).args, it(object).kwargs, Py_TYPE(object).cast()]
        {
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

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone. A function timer that is set stays set: its goroutine will be started.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        let timer = it(object);
        drop(timer.timer.take());
        drop(timer.func.take());
        for child in [timer.chan, timer.function, timer.args, timer.kwargs] {
            Py_XDECREF(child);
        }
        free(object);
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        no_args(c"now", now, c"now() -> float\n\nSeconds of the monotonic clock, the same as time.monotonic()."),
        one_arg(c"after", after, c"after(d) -> RecvChan\n\nA channel that receives the time once, in d seconds (Go: time.After)."),
        fast(c"after_func", after_func, c"after_func(d, fn, /, *args, **kwargs) -> Timer\n\nCall fn in a goroutine of its own in d seconds (Go: time.AfterFunc)."),
    ]
}

/// Adds the types to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let slots = |new: *mut std::ffi::c_void| {
        vec![(Py_tp_new, new), slot!(Py_tp_dealloc, dealloc), slot!(Py_tp_traverse, traverse)]
    };
    let timer = TypeSpec {
        name: c"offset.Timer",
        doc: c"Timer(d)\n\nSends the time on its channel c once, in d seconds (Go: time.Timer, by the rules of 1.23).",
        size: size_of::<TimerObject>(),
        flags: u64::from(Py_TPFLAGS_HAVE_GC as u32),
        methods: vec![
            no_args(
                c"stop",
                timer_stop,
                c"stop() -> bool\n\nUnset it; whether it was set. Nothing is received after that.",
            ),
            one_arg(c"reset", timer_reset, c"reset(d) -> bool\n\nSet it to d seconds from now; whether it was set."),
            no_args(c"stats", stats, c"stats() -> dict"),
        ],
        getters: vec![getter(c"c", get_c, c"The channel; None for what after_func() made.")],
        slots: slots(timer_new as *mut std::ffi::c_void),
    };
    let ticker = TypeSpec {
        name: c"offset.Ticker",
        doc: c"Ticker(d)\n\nSends the time on its channel c every d seconds, leaving out ticks for slow receivers (Go: time.Ticker). ValueError unless d is greater than 0.",
        size: size_of::<TimerObject>(),
        flags: u64::from(Py_TPFLAGS_HAVE_GC as u32),
        methods: vec![
            no_args(c"stop", ticker_stop, c"stop()\n\nNo more ticks. The channel is not closed."),
            one_arg(c"reset", ticker_reset, c"reset(d)\n\nTick every d seconds from now on."),
            no_args(c"stats", stats, c"stats() -> dict"),
        ],
        getters: vec![getter(c"c", get_c, c"The channel.")],
        slots: slots(ticker_new as *mut std::ffi::c_void),
    };
    // SAFETY: the slots fit the object.
    unsafe {
        let made = new_type(module, timer);
        TIMER.store(made, Ordering::Relaxed);
        !made.is_null() && !new_type(module, ticker).is_null()
    }
}
