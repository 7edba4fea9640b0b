//! Questions from outside: `offset dump PID` asks a live process what its goroutines do.
//!
//! From the first `go` on, a thread of its own waits at an abstract Unix socket that is named after the process, and answers whoever runs as
//! the same user, or as root. A signal would not do: a process that has no handler for it dies, Python runs handlers on the main
//! thread only, which may be stuck in C, and the answer needs a place to go. Tracing the process from outside (ptrace,
//! `sys.remote_exec`) needs rights that are often missing, and no version before 3.14 has the latter.
//!
//! Invariants:
//! * The thread has no Python state but while it answers, which `host` counts as ours: nobody takes it for one that may wake a goroutine.
//! * `LISTENER` is the descriptor, or -1. A forked child closes its own, and gets another at its first `go`.
//! * With OFFSET_DUMP=off there is no thread and no socket; nor where sockets have no abstract names.

use crate::host::{adopt_thread, state_goes};
use crate::method::*;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF};
use pyo3_ffi::*;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

static LISTENER: AtomicI32 = AtomicI32::new(-1);
static ANSWER: AtomicPtr<PyObject> = AtomicPtr::new(null_mut());

/// How long somebody may take to ask, or to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_QUESTION: u64 = 4096;

/// Starts to listen, if this process does not yet. Failing is no error: it just cannot be asked.
pub(crate) fn start() {
    if std::env::var_os("OFFSET_DUMP").is_some_and(|value| value == "off") || LISTENER.load(Ordering::Relaxed) >= 0 {
        return;
    }
    let Some(listener) = socket::bind() else { return };
    let number = listener.into_raw_fd();
    LISTENER.store(number, Ordering::Relaxed);
    let started =
        std::thread::Builder::new().name("offset-dump".to_owned()).stack_size(1 << 20).spawn(move || listen(number));
    if started.is_err() {
        close();
    }
}

/// Closes the socket: in a forked child it is the parent's.
pub(crate) fn close() {
    let number = LISTENER.swap(-1, Ordering::Relaxed);
    if number >= 0 {
        // SAFETY: ours, by the invariant.
        unsafe { libc::close(number) };
    }
}

fn listen(number: RawFd) {
    // SAFETY: the descriptor is ours; it is not closed here, as its number may be another's by then.
    let listener = std::mem::ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(number) });
    while socket::is_ours(&listener) {
        match listener.accept() {
            // One that breaks off harms nobody.
            Ok((stream, _)) => _ = serve(stream),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // No descriptors, or no memory: later there may be.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn serve(mut stream: UnixStream) -> std::io::Result<()> {
    if !socket::may_ask(&stream) {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = Vec::new();
    (&stream).take(LONGEST_QUESTION).read_to_end(&mut question)?;
    stream.write_all(&answer(&question))
}

/// What Python answers.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let state = adopt_thread();
    // SAFETY: the state is new and this thread's. The vectors are this thread's too, which stays where it is if the interpreter
    // ends meanwhile.
    unsafe {
        shim::offset_attach(state);
        let hook = ANSWER.load(Ordering::Relaxed);
        let bytes = PyBytes_FromStringAndSize(question.as_ptr().cast(), question.len() as Py_ssize_t);
        let args = if bytes.is_null() || hook.is_null() { NULL } else { PyTuple_Pack(1, bytes) };
        let result = if args.is_null() { NULL } else { shim::offset_object_call(hook, args, NULL) };
        let (mut data, mut size) = (null_mut(), 0);
        if !result.is_null() && PyBytes_AsStringAndSize(result, &raw mut data, &raw mut size) == 0 {
            text.extend_from_slice(std::slice::from_raw_parts(data.cast(), size as usize));
        }
        if !PyErr_Occurred().is_null() {
            PyErr_WriteUnraisable(hook);
        }
        Py_XDECREF(result);
        Py_XDECREF(args);
        Py_XDECREF(bytes);
        state_goes();
        shim::offset_thread_end(state);
    }
    text
}

unsafe extern "C" fn set_answer(_: Object, hook: Object) -> Object {
    // SAFETY: the hook is kept for ever.
    let before = ANSWER.swap(unsafe { Py_NewRef(hook) }, Ordering::Relaxed);
    if !before.is_null() {
        // SAFETY: attached; it was ours.
        unsafe { Py_DECREF(before) };
    }
    none()
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![one_arg(c"set_answer", set_answer, c"Set the function that answers questions from outside: bytes to bytes.")]
}

#[cfg(target_os = "linux")]
mod socket {
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    /// Somebody else may have the name of the process, to be a nuisance: so many others are tried. Who asks looks who answers.
    const NAMES: u32 = 8;

    /// The name of this process's socket, and others in its place.
    fn names() -> impl Iterator<Item = String> {
        let process = std::process::id();
        (0..NAMES).map(
            move |index| if index == 0 { format!("offset-{process}") } else { format!("offset-{process}-{index}") },
        )
    }

    /// A socket with one of them; None if all are taken.
    pub(super) fn bind() -> Option<UnixListener> {
        names().find_map(|name| {
            let address = SocketAddr::from_abstract_name(&name).ok()?;
            UnixListener::bind_addr(&address).ok()
        })
    }

    /// Whether a descriptor is still our socket: a program may have closed all that it had, and the number may be another's.
    pub(super) fn is_ours(listener: &UnixListener) -> bool {
        let address = listener.local_addr().ok();
        let name = address.as_ref().and_then(|address| address.as_abstract_name());
        name.is_some_and(|name| names().any(|ours| ours.as_bytes() == name))
    }

    /// Whether who is at the other end may ask.
    pub(super) fn may_ask(stream: &UnixStream) -> bool {
        let mut credentials = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
        let mut size = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `size` bytes, into a structure of ours.
        let known = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut size,
            )
        };
        // SAFETY: no preconditions.
        known == 0 && (credentials.uid == 0 || credentials.uid == unsafe { libc::geteuid() })
    }
}

#[cfg(not(target_os = "linux"))]
mod socket {
    use std::os::unix::net::{UnixListener, UnixStream};

    pub(super) fn bind() -> Option<UnixListener> {
        None
    }

    pub(super) fn is_ours(_listener: &UnixListener) -> bool {
        false
    }

    pub(super) fn may_ask(_stream: &UnixStream) -> bool {
        false
    }
}
