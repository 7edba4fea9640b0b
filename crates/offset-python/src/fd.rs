//! `Fd` and `Stream`: the operations of a descriptor that park, over the core's.
//!
//! The proxies hold a `Fd`; `offset.net` inherits from `Stream`, so that the calls that matter are calls of these methods. Neither
//! owns the descriptor: who does calls `close` before closing it.
//!
//! Attempts are system calls that do not wait, made without giving up the GIL, and what they read goes through a buffer of the OS
//! thread: a goroutine that waits holds none. No attempt runs Python. An argument's buffer stays exported while its owner is parked.

mod failure;

pub(crate) use failure::{Failure, fail, note_written, settle};

use crate::buffer::{Buffer, flags_argument, size_argument};
use crate::error::*;
use crate::method::*;
use crate::scope::interrupted;
use crate::shim::Py_DECREF;
use offset_runtime::clock::Deadline;
use offset_runtime::error::WaitError;
use offset_runtime::fd::{Attempt, Direction, Fd, FdError};
use offset_runtime::os;
use offset_runtime::sync::Mutex;
use pyo3_ffi::*;
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// As much is read at once, from a stream; each OS thread that reads has so much.
const SCRATCH: usize = 256 * 1024;

#[repr(C)]
struct FdObject {
    head: PyObject,
    /// None once the object dies.
    core: Option<Fd>,
    /// One whole write at a time.
    writing: Mutex,
    kind: Kind,
    /// Errors say what the `socket` module says.
    plain: bool,
    weak: Object,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A pipe, a terminal: `read` and `write` are its calls, and it must be non-blocking.
    File,
    /// A stream socket: a short answer to a read means that there is no more.
    Stream,
    /// A stream socket on which it does not: one of the system's own stops a read where a descriptor came along.
    Ragged,
    /// A socket whose packets must not be cut.
    Socket,
}

static STREAM: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

fn it<'a>(object: Object) -> &'a FdObject {
    // SAFETY: `object` is one of ours, alive as the caller's argument; only birth and death write to it.
    unsafe { &*object.cast::<FdObject>() }
}

pub(crate) fn core<'a>(object: Object) -> &'a Fd {
    match &it(object).core {
        Some(core) => core,
        None => unreachable!("it is given its core at birth"),
    }
}

/// What a system call said: its result, or the error's number.
pub(crate) type Answer = Result<usize, c_int>;

fn last_error() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Makes a call until it is not interrupted. What it gives is the system's word for "would wait", or an answer.
pub(crate) fn call(mut system_call: impl FnMut() -> isize) -> Attempt<Answer> {
    loop {
        let answer = system_call();
        if answer >= 0 {
            return Attempt::Done(Ok(answer as usize));
        }
        match last_error() {
            libc::EINTR => {}
            error if error == libc::EAGAIN || error == libc::EWOULDBLOCK => return Attempt::Again,
            error => return Attempt::Done(Err(error)),
        }
    }
}

unsafe extern "C" {
    pub(crate) fn _PyBytes_Resize(bytes: *mut Object, size: Py_ssize_t) -> c_int;
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads what there is, up to `size` bytes, into a new bytes object; null, with an exception set, if there is no memory. Never
/// inlined: the caller may find itself on another thread after a park.
#[inline(never)]
fn read_some(number: RawFd, kind: Kind, size: usize, flags: c_int) -> Attempt<Result<Object, c_int>> {
    BUFFER.with(|buffer| {
        let mut buffer = buffer.borrow_mut();
        buffer.reserve_exact(SCRATCH);
        let buffer = buffer.as_mut_ptr();
        let attempt = call(|| raw_read(number, kind, buffer, size.min(SCRATCH), flags));
        match attempt {
            Attempt::Done(Ok(count)) => {
                // SAFETY: so many bytes were written there just now.
                let bytes = unsafe { PyBytes_FromStringAndSize(buffer.cast(), count as Py_ssize_t) };
                if kind == Kind::Stream && flags == 0 && count > 0 && count < size.min(SCRATCH) {
                    Attempt::Drained(Ok(bytes))
                } else {
                    Attempt::Done(Ok(bytes))
                }
            }
            Attempt::Done(Err(error)) | Attempt::Drained(Err(error)) => Attempt::Done(Err(error)),
            Attempt::Again | Attempt::Drained(Ok(_)) => Attempt::Again,
        }
    })
}

/// Reads what there is onto the end of `to`, from a stream; `clean` if a short answer means that there is no more. Never inlined, as
/// [`read_some`].
#[inline(never)]
pub(crate) fn read_onto(number: RawFd, clean: bool, to: &mut Vec<u8>) -> Attempt<Answer> {
    BUFFER.with(|buffer| {
        let mut buffer = buffer.borrow_mut();
        buffer.reserve_exact(SCRATCH);
        let scratch = buffer.as_mut_ptr();
        let attempt = call(|| raw_read(number, Kind::Stream, scratch, SCRATCH, 0));
        if let Attempt::Done(Ok(count)) = attempt {
            // SAFETY: so many bytes were written there just now.
            to.extend_from_slice(unsafe { std::slice::from_raw_parts(scratch, count) });
            if clean && count > 0 && count < SCRATCH {
                return Attempt::Drained(Ok(count));
            }
        }
        attempt
    })
}

/// Whether it is a `Stream`.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn is_stream(object: Object) -> bool {
    let class = STREAM.load(Ordering::Relaxed);
    // SAFETY: by contract; the class is kept for ever.
    !class.is_null() && unsafe { PyType_IsSubtype(Py_TYPE(object), class) } != 0
}

/// Whether a short answer to a read means that there is no more.
pub(crate) fn is_clean(object: Object) -> bool {
    it(object).kind == Kind::Stream
}

fn raw_read(number: RawFd, kind: Kind, to: *mut u8, size: usize, flags: c_int) -> isize {
    // SAFETY: the caller's buffer has `size` bytes.
    unsafe {
        match kind {
            Kind::File => libc::read(number, to.cast(), size),
            Kind::Stream | Kind::Ragged | Kind::Socket => {
                libc::recv(number, to.cast(), size, flags | libc::MSG_DONTWAIT)
            }
        }
    }
}

fn raw_write(number: RawFd, kind: Kind, from: *const u8, size: usize, flags: c_int) -> isize {
    // SAFETY: the caller's buffer has `size` bytes.
    unsafe {
        match kind {
            Kind::File => libc::write(number, from.cast(), size),
            Kind::Stream | Kind::Ragged | Kind::Socket => {
                libc::send(number, from.cast(), size, flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            }
        }
    }
}

// ---- reading ----

unsafe fn do_read(object: Object, size: usize, flags: c_int, deadline: Deadline) -> Object {
    let kind = it(object).kind;
    if size == 0 && matches!(kind, Kind::Stream | Kind::Ragged) {
        // There is nothing to wait for.
        return match core(object).check(Direction::Read) {
            // SAFETY: attached.
            Ok(()) => unsafe { PyBytes_FromStringAndSize(std::ptr::null(), 0) },
            // SAFETY: attached.
            Err(error) => unsafe { fail(object, error.into(), "read") },
        };
    }
    if interrupted() {
        return NULL;
    }
    if size > SCRATCH && it(object).plain {
        // SAFETY: by contract.
        return unsafe { read_long(object, size, flags, deadline) };
    }
    match core(object).run(Direction::Read, deadline, |number| read_some(number, kind, size, flags)) {
        Ok(Ok(bytes)) => bytes,
        // SAFETY: attached.
        Ok(Err(error)) => unsafe { fail(object, Failure::System(error), "read") },
        // SAFETY: attached.
        Err(error) => unsafe { fail(object, error.into(), "read") },
    }
}

/// What must not be cut, and may be longer than the buffer.
unsafe fn read_long(object: Object, size: usize, flags: c_int, deadline: Deadline) -> Object {
    // SAFETY: attached; the bytes are ours alone until they are given away.
    unsafe {
        let mut bytes = PyBytes_FromStringAndSize(std::ptr::null(), size as Py_ssize_t);
        if bytes.is_null() {
            return NULL;
        }
        let to = PyBytes_AsString(bytes).cast::<u8>();
        let kind = it(object).kind;
        let result =
            core(object).run(Direction::Read, deadline, |number| call(|| raw_read(number, kind, to, size, flags)));
        match settle(result) {
            Ok(count) => {
                _PyBytes_Resize(&raw mut bytes, count as Py_ssize_t);
                bytes
            }
            Err(failure) => {
                Py_DECREF(bytes);
                fail(object, failure, "read")
            }
        }
    }
}

unsafe extern "C" fn read(object: Object, size: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe {
        match size_argument(size, "the size of a read") {
            Some(size) => do_read(object, size, 0, None),
            None => NULL,
        }
    }
}

unsafe extern "C" fn recv(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [null_mut(); 3];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("recv", args, count, keywords, &["bufsize", "flags", "timeout"], 1, &mut out) {
            return NULL;
        }
        let Some(size) = size_argument(out[0], "the size of a read") else { return NULL };
        let Some(flags) = flags_argument(out[1]) else { return NULL };
        let Some(deadline) = deadline(out[2]) else { return NULL };
        do_read(object, size, flags, deadline)
    }
}

unsafe extern "C" fn recv_into(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [null_mut(); 4];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("recv_into", args, count, keywords, &["buffer", "nbytes", "flags", "timeout"], 1, &mut out) {
            return NULL;
        }
        let wanted = if out[1].is_null() { Some(0) } else { size_argument(out[1], "the number of bytes") };
        let Some(wanted) = wanted else { return NULL };
        let Some(flags) = flags_argument(out[2]) else { return NULL };
        let Some(deadline) = deadline(out[3]) else { return NULL };
        do_read_into(object, out[0], wanted, flags, deadline)
    }
}

unsafe extern "C" fn read_into(object: Object, buffer: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { do_read_into(object, buffer, 0, 0, None) }
}

unsafe fn do_read_into(object: Object, buffer: Object, wanted: usize, flags: c_int, deadline: Deadline) -> Object {
    // SAFETY: by contract.
    unsafe {
        let Some(buffer) = Buffer::of(buffer, PyBUF_WRITABLE) else { return NULL };
        if wanted > buffer.len() {
            return value_error(&format!("{wanted} bytes are wanted and the buffer has {}", buffer.len()));
        }
        let size = if wanted == 0 { buffer.len() } else { wanted };
        let kind = it(object).kind;
        if size == 0 && matches!(kind, Kind::Stream | Kind::Ragged) {
            return match core(object).check(Direction::Read) {
                Ok(()) => int(0),
                Err(error) => fail(object, error.into(), "read"),
            };
        }
        if interrupted() {
            return NULL;
        }
        let result = core(object).run(Direction::Read, deadline, |number| {
            match call(|| raw_read(number, kind, buffer.at(0), size, flags)) {
                Attempt::Done(Ok(count)) if kind == Kind::Stream && flags == 0 && count > 0 && count < size => {
                    Attempt::Drained(Ok(count))
                }
                other => other,
            }
        });
        match settle(result) {
            Ok(count) => int(count as u64),
            Err(failure) => fail(object, failure, "read"),
        }
    }
}

// ---- writing ----

unsafe fn do_write(object: Object, data: Object, flags: c_int, deadline: Deadline) -> Object {
    // SAFETY: attached; `data` is alive as the caller's argument.
    let Some(buffer) = (unsafe { Buffer::of(data, PyBUF_SIMPLE) }) else { return NULL };
    let (mut written, size, kind) = (0, buffer.len(), it(object).kind);
    let writing = &it(object).writing;
    if interrupted() {
        // SAFETY: attached, with an exception set.
        unsafe { note_written(0) };
        return NULL;
    }
    if let Err(error) = writing.lock(deadline) {
        // SAFETY: attached.
        unsafe {
            let error = if error == WaitError::Cancelled { FdError::Cancelled } else { FdError::TimedOut };
            fail(object, error.into(), "write");
            note_written(0);
        }
        return NULL;
    }
    let result = loop {
        let result = settle(core(object).run(Direction::Write, deadline, |number| {
            call(|| raw_write(number, kind, buffer.at(written), size - written, flags))
        }));
        match result {
            Ok(count) => written += count,
            Err(failure) => break Err(failure),
        }
        if written == size {
            break Ok(size);
        }
    };
    let _ = writing.unlock();
    match result {
        Ok(size) => int(size as u64),
        // SAFETY: attached.
        Err(failure) => unsafe {
            fail(object, failure, "write");
            note_written(written);
            NULL
        },
    }
}

unsafe extern "C" fn write(object: Object, data: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { do_write(object, data, 0, None) }
}

unsafe extern "C" fn sendall(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [null_mut(); 3];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("sendall", args, count, keywords, &["data", "flags", "timeout"], 1, &mut out) {
            return NULL;
        }
        let Some(flags) = flags_argument(out[1]) else { return NULL };
        let Some(deadline) = deadline(out[2]) else { return NULL };
        do_write(object, out[0], flags, deadline)
    }
}

unsafe extern "C" fn send(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [null_mut(); 3];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("send", args, count, keywords, &["data", "flags", "timeout"], 1, &mut out) {
            return NULL;
        }
        let Some(flags) = flags_argument(out[1]) else { return NULL };
        let Some(deadline) = deadline(out[2]) else { return NULL };
        let Some(buffer) = Buffer::of(out[0], PyBUF_SIMPLE) else { return NULL };
        if interrupted() {
            return NULL;
        }
        let kind = it(object).kind;
        let result = core(object).run(Direction::Write, deadline, |number| {
            call(|| raw_write(number, kind, buffer.at(0), buffer.len(), flags))
        });
        match settle(result) {
            Ok(count) => int(count as u64),
            Err(failure) => fail(object, failure, "write"),
        }
    }
}

/// For a write that others make: nobody else writes until `unlock_write`. Gives a copy of the descriptor, which is theirs, so
/// that a `close` in the meantime gives the number to nobody else.
unsafe extern "C" fn lock_write(object: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe {
        if interrupted() {
            return NULL;
        }
        if let Err(error) = it(object).writing.lock(None) {
            let error = if error == WaitError::Cancelled { FdError::Cancelled } else { FdError::TimedOut };
            return fail(object, error.into(), "write");
        }
        let result = core(object)
            .run(Direction::Write, None, |number| call(|| libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) as isize));
        match settle(result) {
            Ok(copy) => int(copy as u64),
            Err(failure) => {
                let _ = it(object).writing.unlock();
                fail(object, failure, "write")
            }
        }
    }
}

unsafe extern "C" fn unlock_write(object: Object, _: Object) -> Object {
    let _ = it(object).writing.unlock();
    none()
}

fn check(object: Object, direction: Direction, what: &str) -> Object {
    if interrupted() {
        return NULL;
    }
    match core(object).check(direction) {
        Ok(()) => none(),
        // SAFETY: attached, as all methods are.
        Err(error) => unsafe { fail(object, error.into(), what) },
    }
}

unsafe extern "C" fn check_read(object: Object, _: Object) -> Object {
    check(object, Direction::Read, "read")
}

unsafe extern "C" fn check_write(object: Object, _: Object) -> Object {
    check(object, Direction::Write, "write")
}

// ---- the rest ----

unsafe extern "C" fn accept(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    let Some(deadline) = (unsafe { only_timeout("accept", args, count, keywords) }) else { return NULL };
    if interrupted() {
        return NULL;
    }
    let result = core(object).run(Direction::Read, deadline, |number| {
        loop {
            let attempt = call(|| os::accept(number) as isize);
            // A connection that has failed by now is none.
            if !matches!(attempt, Attempt::Done(Err(libc::ECONNABORTED | libc::EPROTO))) {
                return attempt;
            }
        }
    });
    match settle(result) {
        Ok(made) => int(made as u64),
        // SAFETY: attached.
        Err(failure) => unsafe { fail(object, failure, "accept") },
    }
}

unsafe fn wait(
    object: Object,
    direction: Direction,
    function: &str,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    // SAFETY: by contract.
    unsafe {
        let Some(deadline) = only_timeout(function, args, count, keywords) else { return NULL };
        if interrupted() {
            return NULL;
        }
        match core(object).wait(direction, deadline) {
            Ok(()) => none(),
            Err(error) => fail(object, error.into(), "wait for"),
        }
    }
}

unsafe extern "C" fn wait_read(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { wait(object, Direction::Read, "wait_read", args, count, keywords) }
}

unsafe extern "C" fn wait_write(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { wait(object, Direction::Write, "wait_write", args, count, keywords) }
}

/// A point in time on the clock of `time.now()`, or None. The inner None means never, the outer one that an exception is set.
unsafe fn point(object: Object) -> Option<Deadline> {
    // SAFETY: attached; `object` is alive.
    unsafe {
        if Py_IsNone(object) != 0 {
            return Some(None);
        }
        let nanos = nanoseconds(object)?;
        Some(if nanos == i64::MAX { None } else { Some(nanos.max(0) as u64) })
    }
}

unsafe fn set_deadlines(object: Object, when: Object, directions: &[Direction]) -> Object {
    // SAFETY: by contract.
    let Some(deadline) = (unsafe { point(when) }) else { return NULL };
    if core(object).closed() {
        // SAFETY: attached.
        return unsafe { fail(object, FdError::Closed.into(), "set a deadline of") };
    }
    for &direction in directions {
        core(object).set_deadline(direction, deadline);
    }
    none()
}

unsafe extern "C" fn set_deadline(object: Object, when: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { set_deadlines(object, when, &[Direction::Read, Direction::Write]) }
}

unsafe extern "C" fn set_read_deadline(object: Object, when: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { set_deadlines(object, when, &[Direction::Read]) }
}

unsafe extern "C" fn set_write_deadline(object: Object, when: Object) -> Object {
    // SAFETY: the calling convention.
    unsafe { set_deadlines(object, when, &[Direction::Write]) }
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    boolean(core(object).close())
}

unsafe extern "C" fn fileno(object: Object, _: Object) -> Object {
    // SAFETY: attached.
    unsafe { PyLong_FromLong(if core(object).closed() { -1 } else { core(object).number().into() }) }
}

unsafe extern "C" fn closed(object: Object, _: *mut c_void) -> Object {
    boolean(core(object).closed())
}

// ---- the type ----

/// What kind of descriptor it is.
fn kind_of(number: RawFd) -> Kind {
    let mut kind: c_int = 0;
    let mut size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: both are as large as said.
    let answer =
        unsafe { libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut size) };
    match (answer == 0).then_some(kind) {
        Some(libc::SOCK_STREAM) => match os::family(number) {
            Some(libc::AF_INET | libc::AF_INET6) => Kind::Stream,
            _ => Kind::Ragged,
        },
        Some(_) => Kind::Socket,
        None => Kind::File,
    }
}

unsafe extern "C" fn new_fd(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe { birth(class, args, kwargs, true) }
}

unsafe extern "C" fn new_stream(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    // SAFETY: the calling convention of tp_new.
    unsafe { birth(class, args, kwargs, false) }
}

unsafe fn birth(class: *mut PyTypeObject, args: Object, kwargs: Object, plain: bool) -> Object {
    let mut names = [c"fileno".as_ptr().cast_mut(), null_mut()];
    let mut number: c_int = 0;
    // SAFETY: by contract.
    unsafe {
        if PyArg_ParseTupleAndKeywords(args, kwargs, c"i".as_ptr(), names.as_mut_ptr().cast(), &raw mut number) == 0
            || !crate::goroutine::run_started_hook()
        {
            return NULL;
        }
        let core = match Fd::new(number) {
            Ok(core) => core,
            Err(error) => {
                let text = format!("descriptor {number} cannot be waited for: {error}");
                let text = std::ffi::CString::new(text).unwrap_or_default();
                let arguments =
                    Py_BuildValue(c"(is)".as_ptr(), error.raw_os_error().unwrap_or(libc::EIO), text.as_ptr());
                if !arguments.is_null() {
                    PyErr_SetObject(PyExc_OSError, arguments);
                    Py_DECREF(arguments);
                }
                return NULL;
            }
        };
        let object = allocate::<FdObject>(class);
        if object.is_null() {
            return NULL;
        }
        std::ptr::write(&raw mut (*object).core, Some(core));
        std::ptr::write(&raw mut (*object).writing, Mutex::default());
        (*object).kind = kind_of(number);
        (*object).plain = plain;
        object.cast()
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone.
    unsafe {
        if PyObject_IS_GC(object) != 0 {
            PyObject_GC_UnTrack(object.cast());
        }
        let it = object.cast::<FdObject>();
        if !(*it).weak.is_null() {
            PyObject_ClearWeakRefs(object);
        }
        drop((*it).core.take());
        std::ptr::drop_in_place(&raw mut (*it).writing);
        free(object);
    }
}

/// Adds the types; false with an exception set if that fails.
///
/// # Safety
/// Attached; `module` is the module that is initialised.
pub(crate) unsafe fn register(module: Object) -> bool {
    let common = || {
        vec![
            one_arg(c"set_deadline", set_deadline, c"Let operations fail from then on."),
            one_arg(c"set_read_deadline", set_read_deadline, c"Let reads fail from then on."),
            one_arg(c"set_write_deadline", set_write_deadline, c"Let writes fail from then on."),
            no_args(c"fileno", fileno, c"The descriptor's number, -1 once it is closed."),
        ]
    };
    let spec = |name, doc, new: newfunc, flags, methods: Vec<PyMethodDef>| TypeSpec {
        name,
        doc,
        size: size_of::<FdObject>(),
        flags,
        methods: [common(), methods].concat(),
        getters: vec![getter(c"closed", closed, c"Whether it is closed.")],
        slots: vec![
            slot!(Py_tp_new, new),
            slot!(Py_tp_dealloc, dealloc),
            slot!(Py_tp_members, crate::goroutine::weak_member(std::mem::offset_of!(FdObject, weak))),
        ],
    };
    let fd = spec(
        c"offset._runtime.Fd",
        c"Fd(fileno)\n--\n\nThe operations of a descriptor that park only the goroutine.",
        new_fd,
        0,
        vec![
            fast(c"recv", recv, c"As socket.recv, with a timeout."),
            fast(c"recv_into", recv_into, c"As socket.recv_into, with a timeout."),
            fast(c"send", send, c"As socket.send, with a timeout."),
            fast(c"sendall", sendall, c"Write all of it, with a timeout, and give its length."),
            fast(c"recvfrom", crate::packet::recvfrom, c"As socket.recvfrom, with a timeout."),
            fast(c"sendto", crate::packet::sendto, c"As socket.sendto to an address without names, with a timeout."),
            fast(c"accept", accept, c"Accept a connection and give its descriptor, which is non-blocking."),
            fast(c"wait_read", wait_read, c"Wait until reading may be possible."),
            fast(c"wait_write", wait_write, c"Wait until writing may be possible."),
            no_args(c"check_read", check_read, c"Raise what a read would before it tries anything."),
            no_args(c"check_write", check_write, c"Raise what a write would before it tries anything."),
            no_args(c"close", close, c"Let all operations fail; False if that was done before."),
        ],
    );
    let stream = spec(
        c"offset._runtime.Stream",
        c"Stream(fileno)\n--\n\nWhat connections have in common.",
        new_stream,
        Py_TPFLAGS_BASETYPE,
        vec![
            one_arg(c"read", read, c"Read up to n bytes; b\"\" is the end."),
            one_arg(c"read_into", read_into, c"Read into a buffer; 0 is the end."),
            one_arg(c"write", write, c"Write all of it and give its length."),
            fast(c"_wait_read", wait_read, c"Wait until reading may be possible."),
            fast(c"_wait_write", wait_write, c"Wait until writing may be possible."),
            no_args(c"_lock_write", lock_write, c"Keep other writes out; a copy of the descriptor to write to."),
            no_args(c"_unlock_write", unlock_write, c"Let other writes in."),
            no_args(c"_check_write", check_write, c"Raise what a write would before it tries anything."),
            no_args(c"_close", close, c"Let all operations fail; False if that was done before."),
        ],
    );
    // SAFETY: by contract.
    unsafe {
        let stream = new_type(module, stream);
        STREAM.store(stream, Ordering::Relaxed);
        !new_type(module, fd).is_null() && !stream.is_null()
    }
}
