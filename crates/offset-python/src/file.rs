//! `Descriptor`: a descriptor that is closed when nobody uses it any more, and attempts on it that cannot wait.
//!
//! Files that are not non-blocking are used by threads of the blocking pool, which go on when their goroutine has given them up: so the
//! number is closed by whoever is the last to use it, as Go's `fdMutex` has it. `acquire` and `release` enclose a use; what `close` and
//! `release` give says who closes.
//!
//! The attempts need no `O_NONBLOCK`, which would be seen by everybody who shares the open file: Linux is told with each call
//! (`RWF_NOWAIT`). Where it cannot, the answer is NotImplemented.

use crate::buffer::Buffer;
use crate::error::*;
use crate::fd::_PyBytes_Resize;
use crate::method::*;
use crate::scope::interrupted;
use crate::shim::Py_DECREF;
use pyo3_ffi::*;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::null;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As much is moved by one attempt, which keeps the GIL.
const MOST: usize = 256 * 1024;

#[repr(C)]
struct DescriptorObject {
    head: PyObject,
    number: RawFd,
    state: Users,
}

/// Who uses a descriptor, and whether it is closed.
#[derive(Default)]
struct Users(AtomicUsize);

const CLOSED: usize = 1;
const USER: usize = 2;

impl Users {
    /// One more uses it; false if it is closed.
    #[must_use]
    fn enter(&self) -> bool {
        // Acquire pairs with the Release of `leave` and `close`: what is closed is not used any more.
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| (state & CLOSED == 0).then_some(state + USER))
            .is_ok()
    }

    /// One less does; whether the descriptor is to be closed now.
    #[must_use]
    fn leave(&self) -> bool {
        // AcqRel pairs with itself: who closes has seen what the others did with it.
        self.0.fetch_sub(USER, Ordering::AcqRel) == USER | CLOSED
    }

    /// Nobody may use it from now on; whether it is to be closed now. None if it was closed before.
    #[must_use]
    fn close(&self) -> Option<bool> {
        // AcqRel: as in `leave`.
        match self.0.fetch_or(CLOSED, Ordering::AcqRel) {
            state if state & CLOSED != 0 => None,
            state => Some(state == 0),
        }
    }

    fn closed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CLOSED != 0
    }
}

fn it<'a>(object: Object) -> &'a DescriptorObject {
    // SAFETY: `object` is one of ours, alive as the caller's argument; its fields change only through atomics.
    unsafe { &*object.cast::<DescriptorObject>() }
}

fn number(value: RawFd) -> Object {
    // SAFETY: attached, as all methods are.
    unsafe { PyLong_FromLong(value.into()) }
}

unsafe extern "C" fn acquire(object: Object, _: Object) -> Object {
    let it = it(object);
    number(if it.state.enter() { it.number } else { -1 })
}

unsafe extern "C" fn release(object: Object, _: Object) -> Object {
    let it = it(object);
    number(if it.state.leave() { it.number } else { -1 })
}

unsafe extern "C" fn close(object: Object, _: Object) -> Object {
    let it = it(object);
    match it.state.close() {
        None => none(),
        Some(now) => number(if now { it.number } else { -1 }),
    }
}

unsafe extern "C" fn fileno(object: Object, _: Object) -> Object {
    let it = it(object);
    number(if it.state.closed() { -1 } else { it.number })
}

unsafe extern "C" fn closed(object: Object, _: *mut c_void) -> Object {
    boolean(it(object).state.closed())
}

// ---- attempts ----

/// How an attempt went.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there all files are Unable"))]
enum Answer {
    Done(usize),
    /// It would have had to wait.
    Again,
    /// The system has no such attempts for this file.
    Unable,
    Failed(c_int),
}

/// Makes an attempt at `offset`, -1 for the file's own position.
#[cfg(target_os = "linux")]
fn attempt(system_call: impl Fn() -> isize) -> Answer {
    loop {
        let answer = system_call();
        if answer >= 0 {
            return Answer::Done(answer as usize);
        }
        return match std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
            libc::EINTR => continue,
            libc::EAGAIN => Answer::Again,
            // EINVAL: what a file says to a call that it does not know; the one that waits says what it means by it.
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL => Answer::Unable,
            error => Answer::Failed(error),
        };
    }
}

#[cfg(target_os = "linux")]
fn try_read(number: RawFd, to: *mut u8, size: usize, offset: i64) -> Answer {
    let part = libc::iovec { iov_base: to.cast(), iov_len: size };
    // SAFETY: the caller's buffer has `size` bytes.
    attempt(|| unsafe { libc::preadv2(number, &raw const part, 1, offset, libc::RWF_NOWAIT) })
}

#[cfg(target_os = "linux")]
fn try_write(number: RawFd, from: *const u8, size: usize) -> Answer {
    let part = libc::iovec { iov_base: from.cast_mut().cast(), iov_len: size };
    // SAFETY: the caller's buffer has `size` bytes.
    attempt(|| unsafe { libc::pwritev2(number, &raw const part, 1, -1, libc::RWF_NOWAIT) })
}

#[cfg(not(target_os = "linux"))]
fn try_read(_: RawFd, _: *mut u8, _: usize, _: i64) -> Answer {
    Answer::Unable
}

#[cfg(not(target_os = "linux"))]
fn try_write(_: RawFd, _: *const u8, _: usize) -> Answer {
    Answer::Unable
}

/// Raises an error of the system's.
fn fail(error: c_int) -> Object {
    // SAFETY: the C library's own variable; attached.
    unsafe {
        *offset_runtime::os::errno() = error;
        PyErr_SetFromErrno(PyExc_OSError)
    }
}

/// What an attempt that gave nothing means.
fn nothing(answer: Answer) -> Object {
    match answer {
        Answer::Again => none(),
        // SAFETY: attached; a constant of the interpreter.
        Answer::Unable => unsafe { Py_NewRef(Py_NotImplemented()) },
        Answer::Failed(error) => fail(error),
        Answer::Done(_) => unreachable!("that gave something"),
    }
}

/// Enters for the time of `work`.
fn using(object: Object, work: impl FnOnce(RawFd) -> Object) -> Object {
    let it = it(object);
    if !it.state.enter() {
        return fail(libc::EBADF);
    }
    let result = work(it.number);
    if it.state.leave() {
        // Closed by another thread meanwhile.
        // SAFETY: nobody uses it any more, and it is ours.
        unsafe { libc::close(it.number) };
    }
    result
}

unsafe extern "C" fn read_now(object: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention. The bytes are ours alone until they are given away.
    unsafe {
        if !parse("read_now", args, count, keywords, &["size", "offset"], 1, &mut out) || interrupted() {
            return NULL;
        }
        let size = PyLong_AsSsize_t(out[0]);
        let offset = if out[1].is_null() { -1 } else { PyLong_AsLongLong(out[1]) };
        if !PyErr_Occurred().is_null() {
            return NULL;
        }
        let size = (size.max(0) as usize).min(MOST);
        let mut bytes = PyBytes_FromStringAndSize(null(), size as Py_ssize_t);
        if bytes.is_null() {
            return NULL;
        }
        using(object, |number| match try_read(number, PyBytes_AsString(bytes).cast(), size, offset) {
            Answer::Done(count) => {
                _PyBytes_Resize(&raw mut bytes, count as Py_ssize_t);
                bytes
            }
            other => {
                Py_DECREF(bytes);
                nothing(other)
            }
        })
    }
}

unsafe extern "C" fn write_now(object: Object, data: Object) -> Object {
    if interrupted() {
        return NULL;
    }
    // SAFETY: the calling convention.
    let Some(buffer) = (unsafe { Buffer::of(data, PyBUF_SIMPLE) }) else { return NULL };
    let size = buffer.len().min(MOST);
    using(object, |number| match try_write(number, buffer.at(0), size) {
        Answer::Done(count) => int(count as u64),
        other => nothing(other),
    })
}

// ---- the type ----

unsafe extern "C" fn new(class: *mut PyTypeObject, args: Object, kwargs: Object) -> Object {
    let mut names = [c"fileno".as_ptr().cast_mut(), std::ptr::null_mut()];
    let mut number: c_int = 0;
    // SAFETY: the calling convention of tp_new.
    unsafe {
        if PyArg_ParseTupleAndKeywords(args, kwargs, c"i".as_ptr(), names.as_mut_ptr().cast(), &raw mut number) == 0 {
            return NULL;
        }
        if number < 0 {
            return value_error(&format!("a descriptor must not be negative, got {number}"));
        }
        let object = allocate::<DescriptorObject>(class);
        if !object.is_null() {
            (*object).number = number;
            std::ptr::write(&raw mut (*object).state, Users::default());
        }
        object.cast()
    }
}

unsafe extern "C" fn dealloc(object: Object) {
    // SAFETY: the last reference is gone, and there is nothing to drop.
    unsafe { free(object) };
}

/// Adds the type; false with an exception set if that fails.
///
/// # Safety
/// Attached; `module` is the module that is initialised.
pub(crate) unsafe fn register(module: Object) -> bool {
    let spec = TypeSpec {
        name: c"offset._runtime.Descriptor",
        doc: c"Descriptor(fileno)\n--\n\nA descriptor that is closed when nobody uses it any more.",
        size: size_of::<DescriptorObject>(),
        flags: 0,
        methods: vec![
            no_args(c"acquire", acquire, c"Begin to use it: its number, -1 if it is closed."),
            no_args(c"release", release, c"End a use: the number if it is to be closed now, else -1."),
            no_args(c"close", close, c"Let nobody begin to use it: the number if it is to be closed now, -1 if the last user does; None if it was closed before."),
            no_args(c"fileno", fileno, c"Its number, -1 once it is closed."),
            fast(c"read_now", read_now, c"Read what can be had without waiting; None if nothing can."),
            one_arg(c"write_now", write_now, c"Write what can be written without waiting, and give how much; None if nothing can."),
        ],
        getters: vec![getter(c"closed", closed, c"Whether it is closed.")],
        slots: vec![slot!(Py_tp_new, new), slot!(Py_tp_dealloc, dealloc)],
    };
    // SAFETY: by contract.
    unsafe { !new_type(module, spec).is_null() }
}
