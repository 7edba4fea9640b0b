//! The bytes of an HTTP connection: what has come and was not used yet, and how more comes and goes.
//!
//! Over a plain `Stream` these are the system's own calls, one to read and one to write for a request that is not large. Over
//! anything else that has a descriptor under it (TLS), they are calls of its methods `read` and `write`.
//!
//! A `Wire` belongs to whoever is inside a method of its object, and to nobody else (`http::Inside`), over parks, too. It takes no lock.

use crate::error::{DEADLINE_EXCEEDED, cancelled};
use crate::fd::{self, Failure};
use crate::method::*;
use crate::shim::{self, Py_DECREF, PyErr_Clear};
use offset_runtime::bubble;
use offset_runtime::clock::Deadline;
use offset_runtime::fd::{Direction, FdError};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

/// As much is asked for at once where a method is called.
const PIECE: std::ffi::c_int = 64 * 1024;
/// No more than this is kept for a connection that waits for a request.
const KEPT: usize = 16 * 1024;
/// What is shorter is copied behind the head, to go out with it.
pub(super) const COPIED: usize = 32 * 1024;
/// Parts of one system call.
const PARTS: usize = 16;

/// Why bytes did not come or go.
pub(super) enum Trouble {
    /// An exception is set.
    Raised,
    /// The time was over.
    TimedOut,
    /// The connection is.
    Gone(Failure),
}

pub(super) struct Wire {
    /// The `Stream`, which the object holds.
    pub stream: Object,
    /// Its own system calls do; its methods are to be called otherwise.
    direct: bool,
    clean: bool,
    input: Vec<u8>,
    /// So much of the input was used.
    at: usize,
    /// The other side has said that no more comes.
    pub ended: bool,
}

/// The moment `nanos` from now; never, for 0.
pub(super) fn after(nanos: u64) -> Deadline {
    (nanos != 0).then(|| bubble::now().saturating_add(nanos))
}

impl Wire {
    pub fn new(stream: Object, direct: bool) -> Wire {
        Wire { stream, direct, clean: fd::is_clean(stream), input: Vec::new(), at: 0, ended: false }
    }

    /// What has come and was not used.
    pub fn there(&self) -> &[u8] {
        &self.input[self.at..]
    }

    /// Uses so much of it.
    pub fn consume(&mut self, count: usize) {
        self.at += count;
        debug_assert!(self.at <= self.input.len());
        if self.at == self.input.len() {
            self.at = 0;
            if self.input.capacity() > KEPT {
                self.input = Vec::new();
            } else {
                self.input.clear();
            }
        }
    }

    /// Puts bytes behind what has come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Sets the deadline of the wait that comes, where that is one of the stream's own.
    pub fn arm(&self, deadline: Deadline) {
        if !self.direct {
            fd::core(self.stream).set_deadline(Direction::Read, deadline);
        }
    }

    /// Leaves no deadline on the stream.
    pub fn disarm(&self) {
        if !self.direct {
            fd::core(self.stream).set_deadline(Direction::Read, None);
            fd::core(self.stream).set_deadline(Direction::Write, None);
        }
    }

    /// Waits for more, until `deadline`; the number of bytes, 0 at the end.
    ///
    /// # Safety
    /// Attached; inside a method of the object that holds the stream.
    pub unsafe fn fill(&mut self, deadline: Deadline) -> Result<usize, Trouble> {
        self.arm(deadline);
        // SAFETY: by contract.
        unsafe { self.fill_armed(deadline) }
    }

    /// The same, after [`Wire::arm`], which somebody may have changed since.
    ///
    /// # Safety
    /// As for [`Wire::fill`].
    pub unsafe fn fill_armed(&mut self, deadline: Deadline) -> Result<usize, Trouble> {
        if self.ended {
            return Ok(0);
        }
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        if crate::scope::interrupted() {
            return Err(Trouble::Raised);
        }
        let (clean, input) = (self.clean, &mut self.input);
        let count = if self.direct {
            let result =
                fd::core(self.stream).run(Direction::Read, deadline, |number| fd::read_onto(number, clean, input));
            settle(result)?
        } else {
            // SAFETY: by contract.
            unsafe { self.fill_by_method()? }
        };
        self.ended = count == 0;
        Ok(count)
    }

    unsafe fn fill_by_method(&mut self) -> Result<usize, Trouble> {
        // SAFETY: attached; the stream is alive.
        unsafe {
            let result = call(self.stream, c"read", Py_BuildValue(c"(i)".as_ptr(), PIECE));
            if result.is_null() {
                return Err(raised());
            }
            let (mut data, mut size) = (null_mut(), 0);
            if PyBytes_AsStringAndSize(result, &raw mut data, &raw mut size) < 0 {
                Py_DECREF(result);
                return Err(Trouble::Raised);
            }
            self.input.extend_from_slice(std::slice::from_raw_parts(data.cast(), size as usize));
            Py_DECREF(result);
            Ok(size as usize)
        }
    }

    /// Writes all of the parts. The other side may take nothing for `patience` nanoseconds; 0 is for ever.
    ///
    /// # Safety
    /// As for [`Wire::fill`]. The parts stay where they are meanwhile.
    pub unsafe fn send(&mut self, parts: &[&[u8]], patience: u64) -> Result<(), Trouble> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        if size == 0 {
            return Ok(());
        }
        if crate::scope::interrupted() {
            return Err(Trouble::Raised);
        }
        if !self.direct {
            // SAFETY: by contract.
            return unsafe { self.send_by_method(parts, patience) };
        }
        if size <= COPIED || parts.len() > PARTS {
            if let [part] = parts {
                return self.send_parts(&[part], patience);
            }
            let whole = parts.concat();
            return self.send_parts(&[&whole], patience);
        }
        self.send_parts(parts, patience)
    }

    fn send_parts(&self, parts: &[&[u8]], patience: u64) -> Result<(), Trouble> {
        let mut vectors = [libc::iovec { iov_base: null_mut(), iov_len: 0 }; PARTS];
        let mut count = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            vectors[count] = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
            count += 1;
        }
        let mut vectors = &mut vectors[..count];
        while let Some(first) = vectors.first() {
            let single = vectors.len() == 1;
            let (from, size) = (first.iov_base, first.iov_len);
            // SAFETY: all zeroes are a message without an address.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = vectors.len() as _;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let result = fd::core(self.stream).run(Direction::Write, after(patience), |number| {
                // SAFETY: the vectors are the caller's parts.
                fd::call(|| unsafe {
                    if single {
                        libc::send(number, from, size, flags)
                    } else {
                        libc::sendmsg(number, &raw const message, flags)
                    }
                })
            });
            let mut written = settle(result)?;
            while let Some(first) = vectors.first_mut() {
                if written < first.iov_len {
                    first.iov_base = first.iov_base.wrapping_byte_add(written);
                    first.iov_len -= written;
                    break;
                }
                written -= first.iov_len;
                vectors = &mut vectors[1..];
            }
        }
        Ok(())
    }

    unsafe fn send_by_method(&mut self, parts: &[&[u8]], patience: u64) -> Result<(), Trouble> {
        let whole = parts.concat();
        // How much of a write was taken is not told: each piece has the time anew.
        for piece in whole.chunks(PIECE as usize) {
            // SAFETY: attached; the stream is alive.
            unsafe {
                fd::core(self.stream).set_deadline(Direction::Write, after(patience));
                let bytes = PyBytes_FromStringAndSize(piece.as_ptr().cast(), piece.len() as Py_ssize_t);
                if bytes.is_null() {
                    return Err(Trouble::Raised);
                }
                let arguments = Py_BuildValue(c"(N)".as_ptr(), bytes);
                let result = call(self.stream, c"write", arguments);
                if result.is_null() {
                    return Err(raised());
                }
                Py_DECREF(result);
            }
        }
        Ok(())
    }
}

/// Calls a method with arguments that it takes over.
unsafe fn call(object: Object, name: &'static std::ffi::CStr, arguments: Object) -> Object {
    // SAFETY: attached; the object is alive.
    unsafe {
        if arguments.is_null() {
            return NULL;
        }
        let method = PyObject_GetAttrString(object, name.as_ptr());
        let result = if method.is_null() { NULL } else { shim::offset_object_call(method, arguments, NULL) };
        if !method.is_null() {
            Py_DECREF(method);
        }
        Py_DECREF(arguments);
        result
    }
}

/// What the exception that is set means for the connection: it stays set only if it is none of the connection's own.
fn raised() -> Trouble {
    // SAFETY: attached, with an exception set.
    unsafe {
        // The deadline of a scope is a TimeoutError, too, and the program's own.
        if PyErr_ExceptionMatches(DEADLINE_EXCEEDED.load(Ordering::Relaxed)) != 0 {
            Trouble::Raised
        } else if PyErr_ExceptionMatches(PyExc_TimeoutError) != 0 {
            PyErr_Clear();
            Trouble::TimedOut
        } else if PyErr_ExceptionMatches(PyExc_OSError) != 0 {
            PyErr_Clear();
            Trouble::Gone(Failure::System(libc::ECONNRESET))
        } else {
            Trouble::Raised
        }
    }
}

fn settle(result: Result<fd::Answer, FdError>) -> Result<usize, Trouble> {
    fd::settle(result).map_err(|failure| match failure {
        Failure::Fd(FdError::TimedOut) => Trouble::TimedOut,
        Failure::Fd(FdError::Cancelled) => {
            cancelled();
            Trouble::Raised
        }
        failure => Trouble::Gone(failure),
    })
}

impl Trouble {
    /// Raises what it means for a program that writes.
    ///
    /// # Safety
    /// Attached.
    pub unsafe fn raise(self, stream: Object) -> Object {
        let failure = match self {
            Trouble::Raised => return NULL,
            Trouble::TimedOut => Failure::Fd(FdError::TimedOut),
            Trouble::Gone(failure) => failure,
        };
        // SAFETY: by contract.
        unsafe { fd::fail(stream, failure, "write") }
    }
}
