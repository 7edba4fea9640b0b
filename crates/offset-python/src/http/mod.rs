//! `Http`: the server's side of a connection that speaks HTTP/1.1, request by request.
//!
//! It has the protocol and the bytes, and calls nothing of an application: `next` gives a request's environ, the application is
//! called by whoever asked (`offset.wsgi._connection`), and what it answers comes back by `start_response`, `respond`, `write` and
//! `finish`. For ASGI (`offset.asgi._connection`) `next_scope` gives a scope, and the head of the answer, a `ResponseHead`, comes back by
//! `answer` and `begin`.
//!
//! Invariants:
//!
//! * One method at a time is inside (`Inside`); a second one raises. It stays inside over a park, and with it what it has borrowed: all
//!   of that is the object's own, which its caller holds. `drain` and the getters, which others call, touch the flags only.
//! * `idle` is set while `next` waits for the first byte of a request, and only then may the connection be ended without loss. It is
//!   changed, and acted upon, in exclusive sections of the object.
//! * Nothing of a request is read before the one before it was answered in full.

mod environ;
mod head;
mod reply;
mod scope;
mod wire;

use crate::buffer::{Buffer, size_argument};
use crate::error::*;
use crate::method::*;
use crate::shim::Py_DECREF;
use offset_runtime::clock::Deadline;
use offset_runtime::fd::Direction;
use offset_runtime::http::body::Reader;
use offset_runtime::http::head::{Framing, Head, Scan};
use offset_runtime::http::{Limits, Refusal};
use pyo3_ffi::*;
use reply::Reply;
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Trouble, Wire, after};

/// As much of a body that nobody has read is read before the next request; as in Go.
const DRAINED: u64 = 256 * 1024;

/// How long a connection that is told to end has for a request that is on its way, in nanoseconds: one that had none yet, and one
/// that may have been idle for long. As in Go, whose time for the former is longer.
const FIRST_CHANCE: u64 = 500_000_000;
const LAST_LOOK: u64 = 10_000_000;

#[repr(C)]
struct HttpObject {
    head: PyObject,
    /// Held for `Wire`; and the dictionary that environs are copies of.
    stream: Object,
    base: Object,
    inside: AtomicBool,
    idle: AtomicBool,
    draining: AtomicBool,
    state: UnsafeCell<Option<Box<State>>>,
}

/// How long things may take, in nanoseconds; 0 is for ever.
#[derive(Default)]
struct Times {
    /// A request's head, from its first byte.
    head: u64,
    /// The wait for a request.
    idle: u64,
    /// Each wait for a part of a body.
    body: u64,
    /// Each write.
    write: u64,
}

struct State {
    wire: Wire,
    limits: Limits,
    times: Times,
    server: Vec<u8>,
    head: Head,
    body: Reader,
    reply: Reply,
    /// `100 Continue` is waited for.
    expects: bool,
    /// The connection can be used for another request.
    keep: bool,
    /// There was no request yet.
    fresh: bool,
    /// A request was given and not answered in full.
    open: bool,
    /// A write has failed: the client is gone, or takes nothing.
    gone: bool,
    /// Which request it is; what was given for another one writes nothing.
    number: u64,
    refusal: Option<Refusal>,
}

fn it<'a>(object: Object) -> &'a HttpObject {
    // SAFETY: `object` is one of ours, alive as the caller's argument.
    unsafe { &*object.cast::<HttpObject>() }
}

/// The right to the state, until it is dropped.
struct Inside<'a>(&'a HttpObject);

impl<'a> Inside<'a> {
    /// None, with an exception set, if somebody is.
    fn enter(object: Object) -> Option<Inside<'a>> {
        let it = it(object);
        // Pairs with the store in `drop`.
        if it.inside.swap(true, Ordering::Acquire) {
            runtime_error(
                "this connection is in use by another goroutine; one at a time may read its body or write its response",
            );
            return None;
        }
        Some(Inside(it))
    }

    #[allow(clippy::mut_from_ref)]
    fn state(&self) -> &'a mut State {
        // SAFETY: nobody else is inside; it is given its state at birth. Callers take it once.
        match unsafe { &mut *self.0.state.get() } {
            Some(state) => state,
            None => unreachable!("it is given its state at birth"),
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Pairs with the swap in `enter`.
        self.0.inside.store(false, Ordering::Release);
    }
}

/// Raises `RequestError(status, reason)`.
fn raise_refusal(refusal: Refusal) -> Object {
    // SAFETY: attached; the class is kept for ever.
    unsafe {
        let reason = string(refusal.reason);
        if reason.is_null() {
            return NULL;
        }
        let arguments = Py_BuildValue(c"(iN)".as_ptr(), c_int::from(refusal.status), reason);
        if !arguments.is_null() {
            PyErr_SetObject(REQUEST_ERROR.load(Ordering::Relaxed), arguments);
            Py_DECREF(arguments);
        }
    }
    NULL
}

const TOO_SLOW: Refusal = Refusal { status: 408, reason: "the request took too long to come" };
const CUT: Refusal = Refusal { status: 400, reason: "the connection ended in the middle of a request's body" };

// ---- requests ----

/// What the wait for a request ended with.
enum Next {
    /// So many bytes are its head.
    Request(usize),
    Over,
    Raised,
}

fn refused(state: &mut State, refusal: Refusal) -> Next {
    state.refusal = Some(refusal);
    // What was read of it says nothing about the answer, nor does the request before, or the answer to that.
    state.head = Head::default();
    state.reply.begin();
    Next::Over
}

/// Waits for a request and reads its head.
///
/// # Safety
/// Attached; inside `object`.
unsafe fn await_request(object: Object, state: &mut State) -> Next {
    let it = it(object);
    let mut scan = Scan::default();
    let mut begun: Option<Deadline> = None;
    loop {
        if !state.wire.there().is_empty() || state.wire.ended {
            match scan.find(state.wire.there(), &state.limits) {
                Ok(Some(found)) => {
                    let buffer = &state.wire.there()[..found.end];
                    let parsed = state.head.parse(buffer, found.start, &state.limits).and_then(|()| {
                        state.body = Reader::new(state.head.framing, &state.limits)?;
                        Ok(())
                    });
                    return match parsed {
                        Ok(()) => Next::Request(found.end),
                        Err(refusal) => refused(state, refusal),
                    };
                }
                Ok(None) => {}
                Err(refusal) => return refused(state, refusal),
            }
        }
        let waits = state.wire.there().is_empty();
        let mut deadline = None;
        let mut draining = false;
        if waits {
            // SAFETY: attached; in this section nothing waits and no Python runs.
            unsafe {
                exclusive(object, || {
                    draining = it.draining.load(Ordering::Relaxed);
                    it.idle.store(!draining, Ordering::Relaxed);
                    deadline = after(match (draining, state.fresh) {
                        (false, _) => state.times.idle,
                        // What has come by now is served.
                        (true, true) => FIRST_CHANCE,
                        (true, false) => LAST_LOOK,
                    });
                    // In here: `drain` may move it as soon as `idle` is seen.
                    state.wire.arm(deadline);
                });
            }
        } else {
            deadline = *begun.get_or_insert_with(|| after(state.times.head));
            state.wire.arm(deadline);
        }
        // SAFETY: by contract.
        let result = unsafe { state.wire.fill_armed(deadline) };
        let mut told = false;
        if waits {
            // SAFETY: as above.
            unsafe {
                exclusive(object, || {
                    it.idle.store(false, Ordering::Relaxed);
                    told = !draining && it.draining.load(Ordering::Relaxed);
                    if told {
                        // This is how `drain` has woken it. It sets none from now on.
                        crate::fd::core(it.stream).set_deadline(Direction::Read, None);
                    }
                });
            }
        }
        match result {
            Ok(0) => return Next::Over,
            Ok(_) => {}
            Err(Trouble::Raised) => return Next::Raised,
            Err(Trouble::TimedOut) if told => {}
            Err(Trouble::TimedOut) if !state.wire.there().is_empty() => {
                return refused(state, TOO_SLOW);
            }
            Err(_) => return Next::Over,
        }
    }
}

/// Reads what is left of a body, if that is not much; whether its end was reached. False with an exception set if that was raised.
///
/// # Safety
/// Attached; inside.
unsafe fn skip_body(state: &mut State) -> bool {
    let mut left = DRAINED;
    // Nobody has asked for it, so it may not come.
    while !state.body.ended() && !state.expects && state.body.left().is_none_or(|size| size <= left) {
        let Ok(step) = state.body.take(state.wire.there(), usize::MAX) else { return false };
        state.wire.consume(step.consumed);
        left = left.saturating_sub(step.consumed as u64);
        if left == 0 && !state.body.ended() {
            return false;
        }
        if state.body.ended() || !step.data.is_empty() {
            continue;
        }
        // SAFETY: by contract.
        if !matches!(unsafe { state.wire.fill(after(state.times.body)) }, Ok(1..)) {
            return false;
        }
    }
    state.body.ended()
}

unsafe extern "C" fn next(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { next_as(object, environ::make) }
}

unsafe extern "C" fn next_scope(object: Object, _: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { next_as(object, scope::make) }
}

/// Waits for a request, and gives what `make` makes of it; None when the connection is over.
///
/// # Safety
/// Attached; `object` is one of ours.
unsafe fn next_as(object: Object, make: unsafe fn(Object, &Head, &[u8]) -> Object) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    // SAFETY: attached; inside.
    unsafe {
        if !state.keep || state.open || state.refusal.is_some() {
            return none();
        }
        if !state.body.ended() && !skip_body(state) {
            state.keep = false;
            return if PyErr_Occurred().is_null() { none() } else { NULL };
        }
        let size = match await_request(object, state) {
            Next::Request(size) => size,
            Next::Over => {
                state.keep = false;
                return none();
            }
            Next::Raised => return NULL,
        };
        let made = make(it(object).base, &state.head, &state.wire.there()[..size]);
        if made.is_null() {
            return NULL;
        }
        state.wire.consume(size);
        state.expects = state.head.expects;
        state.keep = state.head.keep_alive;
        state.fresh = false;
        state.open = true;
        state.number += 1;
        state.reply.begin();
        made
    }
}

unsafe extern "C" fn read_body(object: Object, size: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { read_at_most(object, size, true) }
}

unsafe extern "C" fn read_there(object: Object, size: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { read_at_most(object, size, false) }
}

/// Reads of the body, up to `size` bytes. If nothing of it is there, waits, or gives None.
///
/// # Safety
/// Attached; `object` is one of ours.
unsafe fn read_at_most(object: Object, size: Object, wait: bool) -> Object {
    // SAFETY: by contract.
    let Some(size) = (unsafe { size_argument(size, "the size of a read") }) else { return NULL };
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    // Chunks that are there already, however small, are given as one: each object has a head that is larger than some of them.
    let mut joined: Vec<u8> = Vec::new();
    // SAFETY: attached; inside.
    unsafe {
        loop {
            if !state.open || size == 0 {
                return bytes(&[]);
            }
            let step = match state.body.take(state.wire.there(), size - joined.len()) {
                Ok(step) => step,
                // The next call finds it broken still.
                Err(_) if !joined.is_empty() => return bytes(&joined),
                Err(refusal) => return give_up(state, refusal),
            };
            let there = state.wire.there();
            let (data, more) = (&there[step.data.clone()], step.consumed < there.len());
            let full = joined.len() + data.len() == size || state.body.ended() || !more;
            if full && joined.is_empty() && (!data.is_empty() || state.body.ended()) {
                let data = bytes(data);
                state.wire.consume(step.consumed);
                return data;
            }
            joined.extend_from_slice(data);
            state.wire.consume(step.consumed);
            if full && !joined.is_empty() {
                return bytes(&joined);
            }
            if more {
                continue;
            }
            if !wait {
                return if state.wire.ended { give_up(state, CUT) } else { none() };
            }
            if let Err(trouble) = tell_to_go_on(state) {
                return trouble.raise(it(object).stream);
            }
            match state.wire.fill(after(state.times.body)) {
                Ok(1..) => {}
                Err(Trouble::Raised) => return NULL,
                Err(Trouble::TimedOut) => return give_up(state, TOO_SLOW),
                Ok(0) | Err(Trouble::Gone(_)) => return give_up(state, CUT),
            }
        }
    }
}

/// Tells a client that waits for it to send the body.
///
/// # Safety
/// Attached; inside.
unsafe fn tell_to_go_on(state: &mut State) -> Result<(), Trouble> {
    if !std::mem::take(&mut state.expects) || state.reply.sent_head() {
        return Ok(());
    }
    let go_on: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    // SAFETY: by contract.
    let result = unsafe { state.wire.send(&[go_on], state.times.write) };
    state.keep &= result.is_ok();
    result
}

unsafe extern "C" fn go_on(object: Object, _: Object) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    // SAFETY: attached; inside.
    unsafe {
        match tell_to_go_on(inside.state()) {
            Ok(()) => none(),
            Err(trouble) => trouble.raise(it(object).stream),
        }
    }
}

/// A new object of bytes.
unsafe fn bytes(data: &[u8]) -> Object {
    // SAFETY: attached; so many bytes are there.
    unsafe { PyBytes_FromStringAndSize(data.as_ptr().cast(), data.len() as Py_ssize_t) }
}

fn give_up(state: &mut State, refusal: Refusal) -> Object {
    state.keep = false;
    raise_refusal(refusal)
}

// ---- the rest ----

/// Puts bytes that were read before in front of what comes; b"" is the end.
unsafe extern "C" fn feed(object: Object, data: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(buffer) = (unsafe { Buffer::of(data, PyBUF_SIMPLE) }) else { return NULL };
    let Some(inside) = Inside::enter(object) else { return NULL };
    let wire = &mut inside.state().wire;
    wire.ended |= buffer.len() == 0;
    // SAFETY: as others do that read what a program gives them.
    wire.feed(unsafe { buffer.octets() });
    none()
}

/// Ends the talk of HTTP: what has come after the request.
unsafe extern "C" fn detach(object: Object, _: Object) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    state.keep = false;
    state.open = false;
    // Those of its last reads and writes are nothing to who has it now.
    state.wire.disarm();
    let left = state.wire.there();
    // SAFETY: attached.
    let rest = unsafe { bytes(left) };
    let count = left.len();
    state.wire.consume(count);
    rest
}

unsafe extern "C" fn drain(object: Object, _: Object) -> Object {
    let it = it(object);
    // SAFETY: attached; in this section nothing waits and no Python runs.
    unsafe {
        exclusive(object, || {
            it.draining.store(true, Ordering::Relaxed);
            if it.idle.load(Ordering::Relaxed) {
                crate::fd::core(it.stream).set_deadline(Direction::Read, Some(0));
            }
        });
    }
    none()
}

unsafe extern "C" fn get_idle(object: Object, _: *mut c_void) -> Object {
    boolean(it(object).idle.load(Ordering::Relaxed))
}

/// What is special about the request: 1 if it has a body, 2 if it asks for another protocol.
unsafe extern "C" fn get_special(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let head = &inside.state().head;
    int(u64::from(head.framing != Framing::Empty) | u64::from(head.upgrade) << 1)
}

unsafe extern "C" fn get_body_over(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    boolean(inside.state().body.ended())
}

unsafe extern "C" fn get_status(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    int(inside.state().reply.status().into())
}

unsafe extern "C" fn get_sent(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    int(inside.state().reply.sent)
}

unsafe extern "C" fn get_sent_head(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    boolean(inside.state().reply.sent_head())
}

/// The other side may be sending what nobody reads: a close would answer that with a reset, which takes the response along.
unsafe extern "C" fn get_unread(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    boolean(!state.wire.ended && (!state.body.ended() || state.refusal.is_some() || !state.wire.there().is_empty()))
}

unsafe extern "C" fn get_gone(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    boolean(inside.state().gone)
}

unsafe extern "C" fn get_refusal(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    match inside.state().refusal {
        None => none(),
        // SAFETY: attached; the string's reference is taken over.
        Some(refusal) => unsafe {
            let reason = string(refusal.reason);
            if reason.is_null() { NULL } else { Py_BuildValue(c"(iN)".as_ptr(), c_int::from(refusal.status), reason) }
        },
    }
}

/// The bytes of a request that was refused are where they came.
unsafe extern "C" fn get_refused_line(object: Object, _: *mut c_void) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    let there = state.wire.there().trim_ascii_start();
    let end = there.iter().position(|byte| *byte == b'\n').filter(|_| state.refusal.is_some());
    // SAFETY: attached.
    unsafe { bytes(there[..end.unwrap_or(0)].trim_ascii_end()) }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    head::functions()
}

// ---- the type ----

/// Four durations and four sizes; None with an exception set otherwise.
unsafe fn settings(times: Object, sizes: Object) -> Option<(Times, Limits)> {
    // SAFETY: attached; tuples, by the format they were parsed with.
    unsafe {
        if PyTuple_Size(times) != 4 || PyTuple_Size(sizes) != 4 {
            value_error("there are four times and four sizes");
            return None;
        }
        let mut nanos = [0; 4];
        for (index, slot) in nanos.iter_mut().enumerate() {
            let item = PyTuple_GetItem(times, index as Py_ssize_t);
            if Py_IsNone(item) == 0 {
                *slot = nanoseconds(item)?.max(1) as u64;
            }
        }
        let mut bounds = [u64::MAX; 4];
        for (index, slot) in bounds.iter_mut().enumerate() {
            let item = PyTuple_GetItem(sizes, index as Py_ssize_t);
            if Py_IsNone(item) == 0 {
                *slot = size_argument(item, "a limit")? as u64;
            }
        }
        let [head, idle, body, write] = nanos;
        let small = |index: usize| usize::try_from(bounds[index]).unwrap_or(usize::MAX).min(1 << 30);
        let limits = Limits { target: small(0), head: small(1), fields: small(2), body: bounds[3] };
        Some((Times { head, idle, body, write }, limits))
    }
}

unsafe extern "C" fn new_http(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    let mut names = [
        c"stream".as_ptr().cast_mut(),
        c"base".as_ptr().cast_mut(),
        c"direct".as_ptr().cast_mut(),
        c"times".as_ptr().cast_mut(),
        c"sizes".as_ptr().cast_mut(),
        c"server".as_ptr().cast_mut(),
        null_mut(),
    ];
    let (mut stream, mut base, mut times, mut sizes) = (null_mut(), null_mut(), null_mut(), null_mut());
    let (mut direct, mut server): (c_int, Object) = (0, null_mut());
    // SAFETY: the calling convention of tp_new; the format's types are those of the places.
    unsafe {
        if PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            c"OO!pO!O!S".as_ptr(),
            names.as_mut_ptr().cast(),
            &raw mut stream,
            &raw mut PyDict_Type,
            &raw mut base,
            &raw mut direct,
            &raw mut PyTuple_Type,
            &raw mut times,
            &raw mut PyTuple_Type,
            &raw mut sizes,
            &raw mut server,
        ) == 0
        {
            return NULL;
        }
        if !crate::fd::is_stream(stream) {
            return type_error("an Http needs a Stream, such as a connection of offset.net");
        }
        let Some((times, limits)) = settings(times, sizes) else { return NULL };
        let object = allocate::<HttpObject>(class);
        if object.is_null() {
            return NULL;
        }
        let state = State {
            wire: Wire::new(stream, direct != 0),
            limits,
            times,
            server: std::slice::from_raw_parts(PyBytes_AsString(server).cast::<u8>(), PyBytes_Size(server) as usize)
                .to_vec(),
            head: Head::default(),
            body: Reader::empty(),
            reply: Reply::default(),
            expects: false,
            keep: true,
            fresh: true,
            open: false,
            gone: false,
            number: 0,
            refusal: None,
        };
        (*object).stream = Py_NewRef(stream);
        (*object).base = Py_NewRef(base);
        std::ptr::write(&raw mut (*object).inside, AtomicBool::new(false));
        std::ptr::write(&raw mut (*object).idle, AtomicBool::new(false));
        std::ptr::write(&raw mut (*object).draining, AtomicBool::new(false));
        std::ptr::write(&raw mut (*object).state, UnsafeCell::new(Some(Box::new(state))));
        object.cast()
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        let it = object.cast::<HttpObject>();
        drop((*it).state.get_mut().take());
        Py_DECREF((*it).stream);
        Py_DECREF((*it).base);
        free(object);
    }
}

/// Adds the type; false with an exception set if that fails.
///
/// # Safety
/// Attached; `module` is the module that is initialised.
pub(crate) unsafe fn register(module: Object) -> bool {
    let spec = TypeSpec {
        name: c"offset._runtime.Http",
        doc: c"Http(stream, base, direct, times, sizes, server)\n--\n\nThe server's side of a connection that speaks HTTP/1.1.",
        size: size_of::<HttpObject>(),
        flags: 0,
        methods: [
            vec![
                no_args(c"next", next, c"Wait for a request and give its environ; None when the connection is over."),
                no_args(c"next_scope", next_scope, c"The same, and give its scope."),
                one_arg(c"read_body", read_body, c"Read up to n bytes of the request's body; b\"\" is its end."),
                one_arg(c"read_there", read_there, c"Read up to n bytes of it without waiting; None if none is there."),
                no_args(c"go_on", go_on, c"Tell a client that waits for it to send the body."),
                one_arg(c"feed", feed, c"Put bytes that were read already before what comes; b\"\" is the end."),
                no_args(c"detach", detach, c"Speak HTTP no more, and give what has come after the request."),
                no_args(c"drain", drain, c"End the connection at the next moment between two requests."),
            ],
            reply::methods(),
        ]
        .concat(),
        getters: vec![
            getter(c"idle", get_idle, c"Whether it waits for a request."),
            getter(c"special", get_special, c"1 if the request has a body, plus 2 if it asks for another protocol."),
            getter(c"body_over", get_body_over, c"Whether the body was read to its end."),
            getter(c"status", get_status, c"The status of the response; 0 before there is one."),
            getter(c"sent", get_sent, c"The bytes of the response's body so far."),
            getter(c"sent_head", get_sent_head, c"Whether the head of the response has gone out."),
            getter(c"unread", get_unread, c"Whether something may be coming that was not read."),
            getter(c"gone", get_gone, c"Whether a write has failed: the client has gone, or takes nothing."),
            getter(c"refused_line", get_refused_line, c"The first line of a request that was refused; b\"\" if it has not come whole."),
            getter(c"refusal", get_refusal, c"The status and the reason with which a request was refused, or None."),
        ],
        slots: vec![slot!(Py_tp_new, new_http), slot!(Py_tp_dealloc, dealloc)],
    };
    // SAFETY: by contract.
    unsafe {
        let loaded = environ::load() && scope::load() && reply::load();
        loaded && head::register(module) && !new_type(module, spec).is_null()
    }
}
