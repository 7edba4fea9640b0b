//! The response of an application: `start_response`, and the ways in which its body comes.
//!
//! Invariants:
//!
//! * The head waits for the first bytes of the body and goes out with them, in one write; it is ended (`framing` is known) right
//!   before that.
//! * A body that is longer or shorter than its Content-Length is told to the caller (`WRONG`), and the connection is not kept.
//! * Buffers of an application stay exported, or its bytes referenced, while they are written.

use super::wire::Trouble;
use super::{Inside, State, it};
use crate::buffer::{Buffer, size_argument};
use crate::error::*;
use crate::method::*;
use crate::shim::Py_DECREF;
use offset_runtime::http::response::{Framing, Response, Wrong, date};
use pyo3_ffi::*;
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What `respond` and `finish` say: it is not done here, it is done, its length was not what its head said.
const NOT_TAKEN: u64 = 0;
const DONE: u64 = 1;
const WRONG: u64 = 2;

/// What is longer is not kept for the next head.
const KEPT: usize = 4096;

/// Parts of a response's body that are written without being joined.
const PARTS: usize = 12;

#[derive(Default)]
pub(super) struct Reply {
    response: Response,
    started: bool,
    /// Known once the head is ended.
    framing: Option<Framing>,
    head_sent: bool,
    wrong: bool,
    /// Bytes of the body so far.
    pub sent: u64,
}

impl Reply {
    /// Begins the next one.
    pub fn begin(&mut self) {
        self.response.reset();
        self.started = false;
        self.framing = None;
        self.head_sent = false;
        self.wrong = false;
        self.sent = 0;
    }

    pub fn status(&self) -> u16 {
        self.response.status
    }

    pub fn sent_head(&self) -> bool {
        self.head_sent
    }
}

thread_local! {
    static DATE: Cell<(i64, [u8; 29])> = const { Cell::new((-1, [0; 29])) };
}

/// Today's date. Never inlined: the caller may find itself on another thread after a park.
#[inline(never)]
fn today() -> [u8; 29] {
    // SAFETY: a call without a place to write to.
    let now = unsafe { libc::time(null_mut()) };
    DATE.with(|cell| {
        let (when, text) = cell.get();
        if when == now {
            return text;
        }
        let text = date(now.max(0) as u64);
        cell.set((now, text));
        text
    })
}

/// What an application is given to answer one request, and no other: programs keep both. Made with the module, and never given back.
static START: AtomicPtr<PyMethodDef> = AtomicPtr::new(null_mut());
static WRITE: AtomicPtr<PyMethodDef> = AtomicPtr::new(null_mut());

/// Makes them; false with an exception set if that fails.
pub(super) fn load() -> bool {
    let start = fast(c"start_response", start_for, c"Begin the response to this request, as WSGI has it.");
    START.store(Box::into_raw(Box::new(start)), Ordering::Relaxed);
    let write = one_arg(c"write", write_for, c"Write bytes of the body of the response that was begun.");
    WRITE.store(Box::into_raw(Box::new(write)), Ordering::Relaxed);
    true
}

/// The `start_response` of the request that was given last.
unsafe extern "C" fn starter(object: Object, _: Object) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let number = inside.state().number;
    drop(inside);
    // SAFETY: attached; references that are taken over.
    unsafe {
        let bound = Py_BuildValue(c"(OK)".as_ptr(), object, number as std::ffi::c_ulonglong);
        if bound.is_null() {
            return NULL;
        }
        let function = PyCFunction_NewEx(START.load(Ordering::Relaxed), bound, null_mut());
        Py_DECREF(bound);
        function
    }
}

/// The connection and the request that a function of ours is for.
///
/// # Safety
/// Attached; a pair that `starter` has made, of which both are borrowed.
unsafe fn bound_to(pair: Object) -> (Object, u64) {
    // SAFETY: by contract.
    unsafe { (PyTuple_GetItem(pair, 0), PyLong_AsUnsignedLongLong(PyTuple_GetItem(pair, 1))) }
}

unsafe extern "C" fn start_for(bound: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention; what `START` is bound to.
    unsafe {
        let (object, number) = bound_to(bound);
        if start(object, Some(number), args, count, keywords) {
            PyCFunction_NewEx(WRITE.load(Ordering::Relaxed), bound, null_mut())
        } else {
            NULL
        }
    }
}

unsafe extern "C" fn write_for(bound: Object, data: Object) -> Object {
    // SAFETY: the calling convention; what `WRITE` is bound to.
    unsafe {
        let (object, number) = bound_to(bound);
        write_to(object, Some(number), data)
    }
}

/// Gives the bytes of a native string to `work`; None, with an exception set, if it is none.
unsafe fn with_native<R>(object: Object, what: &str, work: impl FnOnce(&[u8]) -> R) -> Option<R> {
    // SAFETY: attached; `object` is alive.
    unsafe {
        if PyUnicode_Check(object) == 0 {
            let kind = std::ffi::CStr::from_ptr((*Py_TYPE(object)).tp_name).to_string_lossy();
            type_error(&format!("{what} must be a string, not {kind}"));
            return None;
        }
        let mut size = 0;
        let data = PyUnicode_AsUTF8AndSize(object, &raw mut size);
        if data.is_null() {
            return None;
        }
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), size as usize);
        if bytes.is_ascii() {
            return Some(work(bytes));
        }
        let encoded = PyUnicode_AsLatin1String(object);
        if encoded.is_null() {
            return None;
        }
        let (mut data, mut size) = (null_mut(), 0);
        PyBytes_AsStringAndSize(encoded, &raw mut data, &raw mut size);
        let result = work(std::slice::from_raw_parts(data.cast::<u8>(), size as usize));
        Py_DECREF(encoded);
        Some(result)
    }
}

/// Raises what is wrong with `object`, a status or a header; gives false.
///
/// # Safety
/// Attached; `object` is alive.
pub(super) unsafe fn raise_wrong(wrong: Wrong, object: Object) -> bool {
    // SAFETY: attached; `object` is alive.
    let shown = unsafe {
        let repr = PyObject_Repr(object);
        if repr.is_null() {
            return false;
        }
        let shown = text(repr);
        Py_DECREF(repr);
        shown
    };
    value_error(&match wrong {
        Wrong::Status => {
            format!(
                "the status must be three digits, a space and words, without a line's end, and of 1xx only 101, \
                 not {shown}"
            )
        }
        Wrong::Name => format!("the name of the header {shown} has a character that belongs in no name"),
        Wrong::Value => format!("the value of the header {shown} has a line's end or a control character"),
        Wrong::Length => format!("the header {shown} is no length, or not the only one"),
    });
    false
}

/// An item as a reference of our own, since somebody else may change a list; null with an exception set if it is gone.
unsafe fn item(sequence: Object, is_list: bool, index: Py_ssize_t) -> Object {
    // SAFETY: attached; a list or a tuple.
    unsafe {
        if is_list { compat::PyList_GetItemRef(sequence, index) } else { Py_XNewRef(PyTuple_GetItem(sequence, index)) }
    }
}

/// Writes the status and the fields; false with an exception set.
unsafe fn write_head(response: &mut Response, status: Object, headers: Object) -> bool {
    // SAFETY: attached; live objects. No Python runs between the size and the items of the list, or they are looked at again.
    unsafe {
        match with_native(status, "the status", |bytes| response.start(bytes)) {
            Some(Ok(())) => {}
            Some(Err(wrong)) => return raise_wrong(wrong, status),
            None => return false,
        }
        if PyList_Check(headers) == 0 && PyTuple_Check(headers) == 0 {
            type_error("the headers must be a list of pairs of strings");
            return false;
        }
        let is_list = PyList_Check(headers) != 0;
        let mut index = 0;
        while index < if is_list { PyList_Size(headers) } else { PyTuple_Size(headers) } {
            let pair = item(headers, is_list, index);
            if pair.is_null() {
                return false;
            }
            if PyTuple_Check(pair) == 0 || PyTuple_Size(pair) != 2 {
                Py_DECREF(pair);
                type_error("each of the headers must be a tuple of a name and a value");
                return false;
            }
            let (name, value) = (PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1));
            let result = with_native(name, "the name of a header", |name| {
                with_native(value, "the value of a header", |value| response.field(name, value))
            });
            let ok = match result.flatten() {
                Some(Ok(())) => true,
                Some(Err(wrong)) => raise_wrong(wrong, pair),
                None => false,
            };
            Py_DECREF(pair);
            if !ok {
                return false;
            }
            index += 1;
        }
        true
    }
}

unsafe extern "C" fn start_response(
    object: Object,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    // SAFETY: the calling convention.
    if unsafe { start(object, None, args, count, keywords) } { none() } else { NULL }
}

/// Takes the status and the headers, for the response to request `number` if there is one; false with an exception set.
///
/// # Safety
/// Attached; `object` is one of ours, and the arguments are as in a call.
unsafe fn start(object: Object, number: Option<u64>, args: *const Object, count: Py_ssize_t, keywords: Object) -> bool {
    let mut out = [NULL; 3];
    // SAFETY: by contract.
    unsafe {
        if !parse("start_response", args, count, keywords, &["status", "headers", "exc_info"], 2, &mut out) {
            return false;
        }
        let Some(inside) = Inside::enter(object) else { return false };
        let state = inside.state();
        if number.is_some_and(|number| !state.open || number != state.number) {
            runtime_error("start_response was called for a request whose response is over");
            return false;
        }
        let failed = !out[2].is_null() && Py_IsNone(out[2]) == 0;
        if failed && state.reply.head_sent {
            let exception = if PyTuple_Check(out[2]) != 0 { PyTuple_GetItem(out[2], 1) } else { NULL };
            if exception.is_null() || PyExceptionInstance_Check(exception) == 0 {
                type_error("exc_info must be what sys.exc_info() gives");
            } else {
                raise_object(exception);
            }
            return false;
        }
        if state.reply.started && !failed {
            raise(PyExc_AssertionError, "start_response was called a second time, without exc_info");
            return false;
        }
        if state.reply.framing.is_some() {
            raise(PyExc_AssertionError, "start_response was called after the response had begun");
            return false;
        }
        state.reply.started = write_head(&mut state.reply.response, out[0], out[1]);
        if !state.reply.started {
            state.reply.response.reset();
        }
        state.reply.started
    }
}

/// Ends the head; false with an exception set if there is none.
fn end_head(object: Object, state: &mut State, whole: Option<u64>) -> Option<Framing> {
    if let Some(framing) = state.reply.framing {
        return Some(framing);
    }
    if !state.reply.started {
        // SAFETY: a constant of the interpreter.
        raise(unsafe { PyExc_AssertionError }, "the application has not called start_response before its first bytes");
        return None;
    }
    // A body that is still to come, and that nobody has asked for, may or may not come.
    state.keep &= !it(object).draining.load(Ordering::Relaxed) && !state.expects;
    let mut keep = state.keep;
    let framing = state.reply.response.end(&state.head, &mut keep, whole, &today(), &state.server);
    state.keep = keep;
    state.reply.framing = Some(framing);
    Some(framing)
}

/// Writes parts of the body, with the head before them if that is still here.
///
/// # Safety
/// Attached; inside.
unsafe fn send(state: &mut State, parts: &[&[u8]]) -> Result<(), Trouble> {
    let patience = state.times.write;
    let size: usize = parts.iter().map(|part| part.len()).sum();
    let head = std::mem::take(&mut state.reply.response.head);
    // SAFETY: by contract.
    let result = unsafe {
        if head.is_empty() || state.reply.head_sent {
            state.wire.send(parts, patience)
        } else if size <= super::wire::COPIED {
            // The head has room, and goes out by one call.
            let mut whole = head;
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            state.reply.head_sent = true;
            let result = state.wire.send(&[&whole], patience);
            state.reply.response.head = whole;
            return finish_send(state, result);
        } else {
            state.reply.head_sent = true;
            let mut all = Vec::with_capacity(parts.len() + 1);
            all.push(&head[..]);
            all.extend_from_slice(parts);
            state.wire.send(&all, patience)
        }
    };
    state.reply.response.head = head;
    finish_send(state, result)
}

fn finish_send(state: &mut State, result: Result<(), Trouble>) -> Result<(), Trouble> {
    if let Err(trouble) = &result {
        state.keep = false;
        state.gone |= !matches!(trouble, Trouble::Raised);
    }
    result
}

/// Writes bytes of the body as they are framed.
///
/// # Safety
/// Attached; inside.
unsafe fn send_framed(state: &mut State, framing: Framing, parts: &[&[u8]]) -> Result<(), Trouble> {
    let size = parts.iter().map(|part| part.len() as u64).sum::<u64>();
    // SAFETY: by contract.
    unsafe {
        match framing {
            Framing::Bodiless => send(state, &[]),
            Framing::Close => {
                state.reply.sent += size;
                send(state, parts)
            }
            Framing::Chunked => {
                state.reply.sent += size;
                let text = format!("{size:x}\r\n");
                let mut all = Vec::with_capacity(parts.len() + 2);
                all.push(text.as_bytes());
                all.extend_from_slice(parts);
                all.push(b"\r\n");
                send(state, &all)
            }
            Framing::Length(left) if size <= left => {
                state.reply.sent += size;
                state.reply.framing = Some(Framing::Length(left - size));
                send(state, parts)
            }
            Framing::Length(left) => {
                state.reply.sent += left;
                state.reply.framing = Some(Framing::Length(0));
                state.reply.wrong = true;
                state.keep = false;
                let whole = parts.concat();
                send(state, &[&whole[..left as usize]])
            }
        }
    }
}

unsafe extern "C" fn write(object: Object, data: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { write_to(object, None, data) }
}

/// Writes bytes of the body of the present response, if that is the one to request `number`.
///
/// # Safety
/// Attached; `object` is one of ours.
unsafe fn write_to(object: Object, number: Option<u64>, data: Object) -> Object {
    // SAFETY: by contract.
    unsafe {
        let Some(inside) = Inside::enter(object) else { return NULL };
        let state = inside.state();
        if PyBytes_Check(data) == 0 && PyByteArray_Check(data) == 0 && PyMemoryView_Check(data) == 0 {
            let kind = std::ffi::CStr::from_ptr((*Py_TYPE(data)).tp_name).to_string_lossy();
            return type_error(&format!("the body of a response is made of bytes, not {kind}"));
        }
        if !state.open || number.is_some_and(|number| number != state.number) {
            return runtime_error("the response is over");
        }
        let Some(buffer) = Buffer::of(data, PyBUF_SIMPLE) else { return NULL };
        if buffer.len() == 0 {
            // What is empty says nothing, and would end a body of chunks.
            return none();
        }
        let Some(framing) = end_head(object, state, None) else { return NULL };
        let bytes = std::slice::from_raw_parts(buffer.at(0), buffer.len());
        match send_framed(state, framing, &[bytes]) {
            Ok(()) => none(),
            Err(trouble) => trouble.raise(it(object).stream),
        }
    }
}

/// Writes all of a response whose body is a list or a tuple of bytes.
unsafe extern "C" fn respond(object: Object, body: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let is_list = PyList_CheckExact(body) != 0;
        if !is_list && PyTuple_CheckExact(body) == 0 {
            return int(NOT_TAKEN);
        }
        let Some(inside) = Inside::enter(object) else { return NULL };
        let state = inside.state();
        let count = if is_list { PyList_Size(body) } else { PyTuple_Size(body) } as usize;
        if !state.open || count > PARTS {
            return int(NOT_TAKEN);
        }
        // The list may be changed by somebody else while this waits: the references are our own.
        let mut held = [NULL; PARTS];
        let mut parts: [&[u8]; PARTS] = [&[]; PARTS];
        let mut taken = 0;
        while taken < count {
            let index = taken as Py_ssize_t;
            let item = item(body, is_list, index);
            if item.is_null() {
                crate::shim::PyErr_Clear();
                break;
            }
            if PyBytes_CheckExact(item) == 0 {
                Py_DECREF(item);
                break;
            }
            held[taken] = item;
            let (data, size) = (PyBytes_AsString(item), PyBytes_Size(item));
            parts[taken] = std::slice::from_raw_parts(data.cast(), size as usize);
            taken += 1;
        }
        let result = if taken < count { int(NOT_TAKEN) } else { respond_with(object, state, &parts[..count]) };
        held.iter().filter(|item| !item.is_null()).for_each(|&item| Py_DECREF(item));
        result
    }
}

/// Takes a head that was made elsewhere for the response; false with an exception set.
///
/// # Safety
/// Attached; `head` is alive.
unsafe fn take_head(state: &mut State, head: Object) -> bool {
    if !state.open || state.reply.started {
        runtime_error(if state.open { "the response was begun before" } else { "the response is over" });
        return false;
    }
    // SAFETY: by contract.
    let Some(response) = (unsafe { super::head::take(head) }) else { return false };
    state.reply.response = response;
    state.reply.started = true;
    true
}

/// What `begin` and `answer` do: both take a head and bytes.
///
/// # Safety
/// The calling convention.
unsafe fn with_head(
    name: &str,
    object: Object,
    (args, count, keywords): (*const Object, Py_ssize_t, Object),
    work: impl FnOnce(&mut State, &[u8]) -> Object,
) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: by contract.
    unsafe {
        if !parse(name, args, count, keywords, &["head", "data"], 2, &mut out) {
            return NULL;
        }
        let Some(buffer) = Buffer::of(out[1], PyBUF_SIMPLE) else { return NULL };
        let Some(inside) = Inside::enter(object) else { return NULL };
        let state = inside.state();
        if take_head(state, out[0]) { work(state, buffer.octets()) } else { NULL }
    }
}

/// Takes the head of a response, and with it the first bytes of its body, or none.
unsafe extern "C" fn begin(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention; inside.
    unsafe {
        with_head("begin", object, (args, count, keywords), |state, data| {
            let Some(framing) = end_head(object, state, None) else { return NULL };
            // An empty chunk would be the last one.
            let result = if data.is_empty() { send(state, &[]) } else { send_framed(state, framing, &[data]) };
            match result {
                Ok(()) => none(),
                Err(trouble) => trouble.raise(it(object).stream),
            }
        })
    }
}

/// Writes all of a response: its head and its body.
unsafe extern "C" fn answer(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention; inside.
    unsafe { with_head("answer", object, (args, count, keywords), |state, data| respond_with(object, state, &[data])) }
}

unsafe fn respond_with(object: Object, state: &mut State, parts: &[&[u8]]) -> Object {
    let size = parts.iter().map(|part| part.len() as u64).sum::<u64>();
    // What was written by `write` before is not known to be all.
    let whole = state.reply.framing.is_none().then_some(size);
    let Some(framing) = end_head(object, state, whole) else { return NULL };
    // SAFETY: attached; inside; the parts are held.
    unsafe {
        if let (Framing::Chunked, 0) = (framing, size) {
            return finish_with(object, state);
        }
        match send_framed(state, framing, parts) {
            Ok(()) => finish_with(object, state),
            Err(trouble) => trouble.raise(it(object).stream),
        }
    }
}

/// Ends the response.
unsafe fn finish_with(object: Object, state: &mut State) -> Object {
    let Some(framing) = end_head(object, state, Some(0)) else { return NULL };
    let end: &[u8] = if framing == Framing::Chunked { b"0\r\n\r\n" } else { b"" };
    // SAFETY: attached; inside.
    unsafe {
        if (!end.is_empty() || !state.reply.head_sent)
            && let Err(trouble) = send(state, &[end])
        {
            return trouble.raise(it(object).stream);
        }
    }
    state.open = false;
    if state.reply.response.head.capacity() > KEPT {
        // A connection that waits takes no room for it.
        state.reply.response.head = Vec::new();
    }
    if let Some(Framing::Length(1..)) = state.reply.framing {
        state.reply.wrong = true;
        state.keep = false;
    }
    int(if state.reply.wrong { WRONG } else { DONE })
}

unsafe extern "C" fn finish(object: Object, _: Object) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    if !state.open {
        return int(DONE);
    }
    // SAFETY: attached; inside.
    unsafe { finish_with(object, state) }
}

/// Writes the head of a response whose body, of so many bytes, the caller writes to the connection: how many of them it is to
/// write, or None if that cannot be.
unsafe extern "C" fn begin_file(object: Object, size: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(size) = size_argument(size, "the size of a file") else { return NULL };
        let Some(inside) = Inside::enter(object) else { return NULL };
        let state = inside.state();
        if !state.open || state.reply.framing.is_some() {
            return none();
        }
        let Some(framing) = end_head(object, state, Some(size as u64)) else { return NULL };
        let count = match framing {
            Framing::Length(left) => left.min(size as u64),
            _ => 0,
        };
        match send(state, &[]) {
            Ok(()) => int(count),
            Err(trouble) => trouble.raise(it(object).stream),
        }
    }
}

/// Says how many bytes of the body the caller has written.
unsafe extern "C" fn sent_file(object: Object, size: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        let Some(size) = size_argument(size, "the number of bytes") else { return NULL };
        let Some(inside) = Inside::enter(object) else { return NULL };
        let reply = &mut inside.state().reply;
        reply.sent += size as u64;
        if let Some(Framing::Length(left)) = reply.framing {
            reply.framing = Some(Framing::Length(left.saturating_sub(size as u64)));
        }
    }
    none()
}

/// Takes back a response of which nothing has gone out.
unsafe extern "C" fn take_back(object: Object, _: Object) -> Object {
    let Some(inside) = Inside::enter(object) else { return NULL };
    let state = inside.state();
    if state.reply.head_sent {
        return boolean(false);
    }
    state.reply.begin();
    state.keep = false;
    // A request that was refused has not been opened; the answer to it is as one to any other.
    state.open = true;
    boolean(true)
}

pub(super) fn methods() -> Vec<PyMethodDef> {
    vec![
        no_args(c"starter", starter, c"Give the start_response, as WSGI has it, of the request that was given last."),
        fast(c"start_response", start_response, c"Begin the response to whatever request there is, or to none."),
        one_arg(c"write", write, c"Write bytes of the response's body."),
        one_arg(
            c"respond",
            respond,
            c"Write a list of bytes and end the response: 0 if it is none, 1, or 2 if its length is wrong.",
        ),
        fast(c"begin", begin, c"Write a head that was made elsewhere, and the first bytes of the body, or none."),
        fast(
            c"answer",
            answer,
            c"Write a head that was made elsewhere, and all of the body: 1, or 2 if its length is wrong.",
        ),
        no_args(c"finish", finish, c"End the response: 1, or 2 if its length is wrong."),
        one_arg(c"begin_file", begin_file, c"Write the head before a file of n bytes: how many are to follow."),
        one_arg(c"sent_file", sent_file, c"Say how many bytes have followed."),
        no_args(c"take_back", take_back, c"Forget a response of which nothing has gone out; False if something has."),
    ]
}
