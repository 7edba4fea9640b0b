//! `Chan`, its two ends, and `nilchan`.
//!
//! A channel and its ends are one struct: an end is an object of another type with fewer methods over the same core, which
//! it shares by a counted reference. `label` and `core` are written at birth only. The collector sees what is buffered. Values
//! are sent and received without any lock of ours; what the core gives back is dropped attached.

use crate::error::*;
use crate::method::*;
use crate::object::Value;
use crate::scope::interrupted;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::alarm::ChanTimer;
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::{RecvError, SendError};
use offset_runtime::goroutine::WaitReason;
use offset_runtime::scheduler;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
pub(crate) struct ChanObject {
    head: PyObject,
    /// Always set but for the moments of birth and death. None in `nilchan`'s ends.
    core: Option<Arc<Chan<Value>>>,
    label: Object,
    /// An end's channel.
    whole: Object,
    /// The channel of a timer: its length is always 0, as in Go, and the timer ends with it.
    timer: Option<Arc<ChanTimer<Value>>>,
    weak: Object,
}

pub(crate) static CHAN: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
pub(crate) static SEND_CHAN: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
pub(crate) static RECV_CHAN: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());
static NIL_CHAN: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

fn it<'a>(object: Object) -> &'a mut ChanObject {
    // SAFETY: `object` is one of ours, alive as the caller's argument; only birth and death write to it.
    unsafe { &mut *object.cast::<ChanObject>() }
}

/// The core channel behind a channel object or an end; None for `nilchan`.
pub(crate) fn core<'a>(object: Object) -> Option<&'a Arc<Chan<Value>>> {
    it(object).core.as_ref()
}

/// The core channel of an object, if it is a channel or an end of one.
pub(crate) fn shared_core<'a>(object: Object) -> Option<&'a Arc<Chan<Value>>> {
    // SAFETY: attached; the object is alive.
    let class = unsafe { Py_TYPE(object) };
    let ours = [&CHAN, &SEND_CHAN, &RECV_CHAN].iter().any(|known| known.load(Ordering::Relaxed) == class);
    if ours { core(object) } else { None }
}

/// Where those wait who wait at this channel, if it is one.
pub(crate) fn place(object: Object) -> Option<crate::leaks::Place> {
    let core = shared_core(object)?;
    Some(crate::leaks::Place { address: core.address(), owners: Some(Arc::strong_count(core)) })
}

/// A string that names the channel in messages.
pub(crate) fn describe(object: Object) -> String {
    let label = it(object).label;
    // SAFETY: the label is held.
    if label.is_null() { "channel".to_owned() } else { format!("channel '{}'", unsafe { text(label) }) }
}

/// Makes an object of `class` over `core`.
///
/// # Safety
/// Attached; `class` is one of this file's, `whole` is alive or null.
unsafe fn make(
    class: &AtomicPtr<PyTypeObject>,
    core: Option<Arc<Chan<Value>>>,
    label: Object,
    whole: Object,
) -> Object {
    // SAFETY: by contract; the new object is ours alone until it is tracked.
    unsafe {
        let object = allocate::<ChanObject>(class.load(Ordering::Relaxed));
        if object.is_null() {
            return NULL;
        }
        std::ptr::write(&raw mut (*object).core, core);
        std::ptr::write(&raw mut (*object).timer, None);
        (*object).label = if label.is_null() { NULL } else { Py_NewRef(label) };
        (*object).whole = if whole.is_null() { NULL } else { Py_NewRef(whole) };
        object.cast()
    }
}

/// The receive-only end of a timer's channel, and the channel; the timer ends with the channel.
///
/// # Safety
/// Attached.
pub(crate) unsafe fn for_timer() -> Option<(Object, Arc<ChanTimer<Value>>)> {
    let core = Arc::new(Chan::new(1)?);
    let timer = ChanTimer::new(core.clone(), Value::time);
    // SAFETY: by contract.
    unsafe {
        let chan = make(&RECV_CHAN, Some(core), NULL, NULL);
        if chan.is_null() {
            return None;
        }
        it(chan).timer = Some(timer.clone());
        Some((chan, timer))
    }
}

unsafe extern "C" fn new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe {
        let mut names = [c"size".as_ptr().cast_mut(), c"label".as_ptr().cast_mut(), null_mut()];
        let (mut size, mut label) = (NULL, NULL);
        let parsed = PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"|OO:Chan".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut size,
            &raw mut label,
        );
        if parsed == 0 {
            return NULL;
        }
        let mut capacity = 0;
        if !size.is_null() {
            let index = PyNumber_Index(size);
            if index.is_null() {
                return NULL;
            }
            let wanted = PyLong_AsSsize_t(index);
            let zero = PyLong_FromLong(0);
            let negative = PyObject_RichCompareBool(index, zero, Py_LT) == 1;
            Py_DECREF(zero);
            Py_DECREF(index);
            if negative {
                return value_error("a channel's capacity cannot be negative; 0 makes it unbuffered");
            }
            if wanted == -1 && !PyErr_Occurred().is_null() {
                return NULL;
            }
            capacity = wanted as usize;
        }
        if label.is_null() || Py_IsNone(label) != 0 {
            label = NULL;
        } else if PyUnicode_Check(label) == 0 {
            return type_error("a channel's label is a string");
        }
        let Some(core) = Chan::new(capacity) else {
            return raise(PyExc_MemoryError, &format!("a channel of capacity {capacity} does not fit into memory"));
        };
        let _ = class;
        make(&CHAN, Some(Arc::new(core)), label, NULL)
    }
}

/// A channel for what must never wait to send, such as a queue that a finalizer may put something into.
unsafe extern "C" fn unbounded(_: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe { make(&CHAN, Some(Arc::new(Chan::unbounded())), NULL, NULL) }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![no_args(c"unbounded", unbounded, c"unbounded() -> Chan\n\nA channel whose buffer grows: a send never waits.")]
}

fn send_on(object: Object, value: Value, wait: Wait) -> Object {
    if wait != Wait::No && interrupted() {
        return NULL;
    }
    let Some(core) = core(object) else {
        drop(value);
        return nil_wait(wait, WaitReason::ChanSendNil, "send");
    };
    // The caller's frame keeps the object, and with it the core, for as long as the call lasts.
    match core.send(value, wait) {
        Ok(()) => none(),
        Err(SendError::Closed(_)) => sent_on_closed(&describe(object)),
        Err(SendError::TimedOut(_)) if wait == Wait::No => would_block("nobody receives at the moment"),
        Err(SendError::TimedOut(_)) => timed_out(&format!("send on {}", describe(object))),
        Err(SendError::Cancelled(_)) => cancelled(),
    }
}

/// What waiting on `nilchan` comes to.
fn nil_wait(wait: Wait, reason: WaitReason, what: &str) -> Object {
    match wait {
        Wait::No => would_block(&format!("{what} on nilchan blocks for ever")),
        Wait::Until(deadline) => {
            if scheduler::sleep(deadline, reason) {
                timed_out(&format!("{what} on nilchan"))
            } else {
                cancelled()
            }
        }
    }
}

/// Receives; None with the exception set.
fn recv_on(object: Object, wait: Wait) -> Result<Object, RecvError> {
    if wait != Wait::No && interrupted() {
        return Ok(NULL);
    }
    match core(object) {
        Some(core) => core.recv(wait).map(Value::receive),
        None => {
            nil_wait(wait, WaitReason::ChanReceiveNil, "receive");
            Ok(NULL)
        }
    }
}

pub(crate) fn recv_error(object: Object, error: RecvError) -> Object {
    match error {
        RecvError::Closed => channel_closed(&format!(
            "receive on closed {}; `for value in ch` ends with it, and recv_ok() says whether there was a value",
            describe(object)
        )),
        RecvError::TimedOut => timed_out(&format!("receive on {}", describe(object))),
        RecvError::Cancelled => cancelled(),
    }
}

/// The pair that `recv_ok` and `try_recv` give; takes the value over.
fn pair(value: Object, ok: bool) -> Object {
    // SAFETY: attached; the tuple takes both references.
    unsafe {
        let tuple = PyTuple_New(2);
        if tuple.is_null() {
            Py_DECREF(value);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, 0, value);
        PyTuple_SET_ITEM(tuple, 1, boolean(ok));
        tuple
    }
}

unsafe extern "C" fn send(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        if count == 1 && keywords.is_null() {
            return send_on(object, Value::new(*args), Wait::Until(None));
        }
        let mut out = [NULL; 2];
        if !parse("send", args, count, keywords, &["value", "timeout"], 1, &mut out) {
            return NULL;
        }
        let Some(deadline) = deadline(out[1]) else { return NULL };
        send_on(object, Value::new(out[0]), Wait::Until(deadline))
    }
}

unsafe extern "C" fn send_exception(
    object: Object,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let mut out = [NULL; 2];
        if !parse("send_exception", args, count, keywords, &["exc", "timeout"], 1, &mut out) {
            return NULL;
        }
        let is_class = PyType_Check(out[0]) != 0 && PyType_IsSubtype(out[0].cast(), PyExc_BaseException.cast()) != 0;
        if !is_class && PyObject_IsInstance(out[0], PyExc_BaseException) != 1 {
            return type_error("send_exception() takes an exception or an exception class");
        }
        let Some(deadline) = deadline(out[1]) else { return NULL };
        send_on(object, Value::exception(out[0]), Wait::Until(deadline))
    }
}

unsafe extern "C" fn try_send(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(core) = core(object) else { return boolean(false) };
        match core.send(Value::new(value), Wait::No) {
            Ok(()) => boolean(true),
            Err(SendError::Closed(_)) => sent_on_closed(&describe(object)),
            Err(_) => boolean(false),
        }
    }
}

unsafe extern "C" fn recv(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(deadline) = (unsafe { only_timeout("recv", args, count, keywords) }) else { return NULL };
    recv_on(object, Wait::Until(deadline)).unwrap_or_else(|error| recv_error(object, error))
}

unsafe extern "C" fn recv_ok(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(deadline) = (unsafe { only_timeout("recv_ok", args, count, keywords) }) else { return NULL };
    match recv_on(object, Wait::Until(deadline)) {
        Ok(NULL) => NULL,
        Ok(value) => pair(value, true),
        Err(RecvError::Closed) => pair(none(), false),
        Err(error) => recv_error(object, error),
    }
}

unsafe extern "C" fn try_recv(object: Object, _: Object) -> Object {
    match recv_on(object, Wait::No) {
        Ok(NULL) => NULL,
        Ok(value) => pair(value, true),
        Err(RecvError::Closed) => pair(none(), false),
        Err(_) => would_block(&format!("nothing to receive on {} at the moment", describe(object))),
    }
}

/// What iterates over a channel. A channel is not its own iterator: `yield from` would pass a generator's `close` and `send` on
/// to it.
#[repr(C)]
struct IterObject {
    head: PyObject,
    chan: Object,
}

static ITER: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

fn iterated(object: Object) -> Object {
    // SAFETY: `object` is an iterator, alive as the caller's argument.
    unsafe { (*object.cast::<IterObject>()).chan }
}

unsafe extern "C" fn iterate(object: Object) -> Object {
    // SAFETY: attached; the new object is ours.
    unsafe {
        let iterator = allocate::<IterObject>(ITER.load(Ordering::Relaxed));
        if !iterator.is_null() {
            (*iterator).chan = Py_NewRef(object);
        }
        iterator.cast()
    }
}

unsafe extern "C" fn next(object: Object) -> Object {
    match recv_on(iterated(object), Wait::Until(None)) {
        Ok(value) => value,
        Err(RecvError::Closed) => NULL,
        Err(error) => recv_error(iterated(object), error),
    }
}

unsafe extern "C" fn anext(object: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { crate::task::anext(iterated(object)) }
}

unsafe extern "C" fn iter_traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    // SAFETY: the collector's calling convention.
    unsafe {
        let chan = iterated(object);
        let answer = if chan.is_null() { 0 } else { visit(chan, arg) };
        if answer != 0 { answer } else { visit(Py_TYPE(object).cast(), arg) }
    }
}

unsafe extern "C" fn iter_dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        PyObject_GC_UnTrack(object.cast());
        Py_XDECREF(iterated(object));
        free(object);
    }
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    match core(object) {
        None => channel_closed("close of nilchan: it is never open"),
        Some(core) => match core.close() {
            Ok(()) => none(),
            Err(error) => misuse(error, &describe(object)),
        },
    }
}

unsafe extern "C" fn len(object: Object) -> Py_ssize_t {
    if it(object).timer.is_some() { 0 } else { core(object).map_or(0, |core| core.len() as Py_ssize_t) }
}

unsafe extern "C" fn truth(_: Object) -> std::ffi::c_int {
    1
}

unsafe extern "C" fn itself(object: Object) -> Object {
    // SAFETY: attached.
    unsafe { Py_NewRef(object) }
}

unsafe fn end(object: Object, class: &AtomicPtr<PyTypeObject>) -> Object {
    // SAFETY: `object` is ours.
    unsafe { make(class, core(object).cloned(), it(object).label, object) }
}

unsafe extern "C" fn sender(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { end(object, &SEND_CHAN) }
}

unsafe extern "C" fn receiver(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { end(object, &RECV_CHAN) }
}

unsafe extern "C" fn if_recv(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { crate::select::new_case(object, NULL) }
}

unsafe extern "C" fn if_send(object: Object, value: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { crate::select::new_case(object, value) }
}

unsafe extern "C" fn stats(object: Object, _: Object) -> Object {
    let (senders, receivers, passed) = core(object).map_or((0, 0, 0), |core| core.counts());
    // SAFETY: attached, new references.
    unsafe {
        dict(&[
            (c"len", PyLong_FromSsize_t(len(object))),
            (c"cap", get_cap(object, null_mut())),
            (c"closed", get_closed(object, null_mut())),
            (c"senders", int(senders as u64)),
            (c"receivers", int(receivers as u64)),
            (c"passed", int(passed)),
        ])
    }
}

type Closure = *mut std::ffi::c_void;

unsafe extern "C" fn get_closed(object: Object, _: Closure) -> Object {
    boolean(core(object).is_some_and(|core| core.is_closed()))
}
unsafe extern "C" fn get_cap(object: Object, _: Closure) -> Object {
    let hidden = it(object).timer.is_some();
    int(core(object).filter(|_| !hidden).map_or(0, |core| core.capacity() as u64))
}
unsafe extern "C" fn get_label(object: Object, _: Closure) -> Object {
    let label = it(object).label;
    // SAFETY: the label is held.
    if label.is_null() { none() } else { unsafe { Py_NewRef(label) } }
}

unsafe extern "C" fn repr(object: Object) -> Object {
    // SAFETY: `object` is ours.
    let kind = unsafe { std::ffi::CStr::from_ptr((*Py_TYPE(object)).tp_name) }.to_string_lossy().into_owned();
    let Some(core) = core(object) else {
        return string(if kind.ends_with("NilChan") { "offset.nilchan" } else { "<end of offset.nilchan>" });
    };
    let closed = if core.is_closed() { " closed" } else { "" };
    let label = it(object).label;
    // SAFETY: the label is held.
    let label = if label.is_null() { String::new() } else { format!(" '{}'", unsafe { text(label) }) };
    string(&format!("<{kind}{label} {}/{}{closed}>", core.len(), core.capacity()))
}

unsafe extern "C" fn traverse(object: Object, visit: visitproc, arg: *mut std::ffi::c_void) -> std::ffi::c_int {
    let mut answer = 0;
    // Buffered values are ours to show only if nobody else shares the core: else each owner would show them again.
    if let Some(core) = core(object)
        && it(object).whole.is_null()
    {
        core.visit(&mut |value| {
            if let Some(child) = value.referent()
                && answer == 0
            {
                // SAFETY: the collector's calling convention; the value is alive in the buffer.
                answer = unsafe { visit(child, arg) };
            }
        });
    }
    // SAFETY: `object` is ours; the collector's calling convention.
    unsafe {
        for child in [it(object).whole, Py_TYPE(object).cast()] {
            if !child.is_null() && answer == 0 {
                answer = visit(child, arg);
            }
        }
    }
    answer
}

unsafe extern "C" fn clear(object: Object) -> std::ffi::c_int {
    if it(object).whole.is_null()
        && let Some(core) = core(object)
    {
        // Taken out under the lock, dropped after it.
        drop(core.take_buffer());
    }
    // SAFETY: `object` is ours; the field is emptied before its reference goes.
    unsafe {
        let whole = std::mem::replace(&mut it(object).whole, NULL);
        Py_XDECREF(whole);
    }
    0
}

/// What `offset_chan_dealloc` calls, which bounds how deep such calls nest.
#[unsafe(no_mangle)]
unsafe extern "C" fn offset_chan_release(object: Object) {
    // SAFETY: the last reference is gone, and the collector has been told.
    unsafe {
        let it = object.cast::<ChanObject>();
        if !(*it).weak.is_null() {
            PyObject_ClearWeakRefs(object);
        }
        if let Some(timer) = (*it).timer.take() {
            timer.stop();
        }
        drop((*it).core.take());
        Py_XDECREF((*it).whole);
        Py_XDECREF((*it).label);
        free(object);
    }
}

/// Adds the types and `nilchan` to the module.
pub(crate) unsafe fn register(module: Object) -> bool {
    let common = || {
        vec![
            no_args(
                c"stats",
                stats,
                c"stats() -> dict\n\nLength, capacity, waiters on both sides, and how many values have passed.",
            ),
            class_getitem(),
        ]
    };
    let closing = || {
        no_args(c"close", close, c"close()\n\nNo more values will be sent. Receivers drain what is buffered (Go: close). ChannelClosed if it is closed already.")
    };
    let sending = || {
        vec![
            fast(c"send", send, c"send(value, timeout=None)\n\nSend, waiting for a receiver or for room (Go: ch <- v). ChannelClosed if it is closed, TimeoutError after timeout seconds."),
            one_arg(c"try_send", try_send, c"try_send(value) -> bool\n\nSend if that is possible at once. ChannelClosed if it is closed."),
            fast(c"send_exception", send_exception, c"send_exception(exc, timeout=None)\n\nSend an exception, which is raised where it is received."),
            one_arg(c"if_send", if_send, c"if_send(value) -> Case\n\nThe case of sending value, for select()."),
            fast(c"asend", crate::task::asend, c"asend(value, timeout=None)\n\nsend() to be awaited in asyncio or trio."),
        ]
    };
    let receiving = || {
        vec![
            fast(c"recv", recv, c"recv(timeout=None)\n\nReceive, waiting for a value (Go: <-ch). ChannelClosed once it is closed and drained, TimeoutError after timeout seconds."),
            fast(c"recv_ok", recv_ok, c"recv_ok(timeout=None) -> (value, ok)\n\nReceive; (None, False) once it is closed and drained (Go: v, ok := <-ch)."),
            no_args(c"try_recv", try_recv, c"try_recv() -> (value, ok)\n\nReceive at once; WouldBlock if there is nothing, (None, False) once it is closed and drained."),
            no_args(c"if_recv", if_recv, c"if_recv() -> Case\n\nThe case of receiving, for select()."),
            fast(c"arecv", crate::task::arecv, c"arecv(timeout=None)\n\nrecv() to be awaited in asyncio or trio."),
        ]
    };
    let ends = || {
        vec![
            no_args(c"sender", sender, c"sender() -> SendChan\n\nThe send-only end."),
            no_args(c"receiver", receiver, c"receiver() -> RecvChan\n\nThe receive-only end."),
        ]
    };
    let slots = |receives: bool| {
        let mut slots = vec![
            slot!(Py_tp_dealloc, crate::shim::offset_chan_dealloc),
            slot!(Py_tp_traverse, traverse),
            slot!(Py_tp_clear, clear),
            slot!(Py_tp_repr, repr),
            slot!(Py_sq_length, len),
            slot!(Py_nb_bool, truth),
            slot!(Py_tp_members, crate::goroutine::weak_member(std::mem::offset_of!(ChanObject, weak))),
        ];
        if receives {
            slots.extend([slot!(Py_tp_iter, iterate), slot!(Py_am_aiter, iterate)]);
        }
        slots
    };
    let getters = || {
        vec![
            getter(c"closed", get_closed, c"Whether it was closed."),
            getter(c"cap", get_cap, c"How many values it buffers at most (Go: cap)."),
            getter(c"label", get_label, c"The label it was made with, or None."),
        ]
    };
    let both = || {
        let mut methods = common();
        methods.push(closing());
        methods.extend(sending());
        methods.extend(receiving());
        methods.extend(ends());
        methods
    };
    let closed_type = u64::from(Py_TPFLAGS_DISALLOW_INSTANTIATION as u32);
    let collected = u64::from(Py_TPFLAGS_HAVE_GC as u32);
    let mut send_methods = common();
    send_methods.push(closing());
    send_methods.extend(sending());
    let mut recv_methods = common();
    recv_methods.extend(receiving());
    let mut chan_slots = slots(true);
    chan_slots.push(slot!(Py_tp_new, new));
    let types = [
        (&CHAN, c"offset.Chan", c"Chan(size=0, label=None)\n\nA channel that buffers up to size values; 0 makes senders and receivers meet. ValueError if size is negative.", both(), chan_slots, 0),
        (&SEND_CHAN, c"offset.SendChan", c"The send-only end of a channel.", send_methods, slots(false), closed_type),
        (&RECV_CHAN, c"offset.RecvChan", c"The receive-only end of a channel.", recv_methods, slots(true), closed_type),
        (&NIL_CHAN, c"offset.NilChan", c"The type of nilchan: its operations block for ever, and select never chooses it.", both(), slots(true), closed_type),
    ];
    for (place, name, doc, methods, slots, flags) in types {
        let spec = TypeSpec {
            name,
            doc,
            size: size_of::<ChanObject>(),
            flags: flags | collected,
            methods,
            getters: getters(),
            slots,
        };
        // SAFETY: the slots fit the object.
        let made = unsafe { new_type(module, spec) };
        if made.is_null() {
            return false;
        }
        place.store(made, Ordering::Relaxed);
    }
    let iterator = TypeSpec {
        name: c"offset._runtime.ChanIterator",
        doc: c"Receives until the channel is closed and drained.",
        size: size_of::<IterObject>(),
        flags: closed_type | collected,
        methods: vec![],
        getters: vec![],
        slots: vec![
            slot!(Py_tp_iter, itself),
            slot!(Py_tp_iternext, next),
            slot!(Py_am_aiter, itself),
            slot!(Py_am_anext, anext),
            slot!(Py_tp_dealloc, iter_dealloc),
            slot!(Py_tp_traverse, iter_traverse),
        ],
    };
    // SAFETY: the slots fit the object.
    ITER.store(unsafe { new_type(module, iterator) }, Ordering::Relaxed);
    if ITER.load(Ordering::Relaxed).is_null() {
        return false;
    }
    // SAFETY: attached; the module takes a reference.
    unsafe {
        let nil = make(&NIL_CHAN, None, NULL, NULL);
        !nil.is_null() && PyModule_AddObjectRef(module, c"nilchan".as_ptr(), nil) == 0
    }
}
