//! `Fd.recvfrom` and `Fd.sendto`: packets and their addresses, by attempts that keep the GIL, as those of streams.
//!
//! Addresses are the `socket` module's: ("127.0.0.1", 80), ("::1", 80, 0, 0), a path, b"\0name". No name is looked up here.

use crate::buffer::{Buffer, flags_argument, size_argument};
use crate::error::*;
use crate::fd::{_PyBytes_Resize, call, core, fail, settle};
use crate::method::*;
use crate::scope::interrupted;
use crate::shim::Py_DECREF;
use offset_runtime::fd::Direction;
use pyo3_ffi::*;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::{offset_of, zeroed};
use std::ptr::null;

/// An address as the system has it.
struct Address {
    storage: libc::sockaddr_storage,
    size: libc::socklen_t,
}

const PATH: usize = offset_of!(libc::sockaddr_un, sun_path);

impl Address {
    fn new() -> Address {
        // SAFETY: plain data, for which zeroes are good.
        Address { storage: unsafe { zeroed() }, size: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    fn of<T>(value: T, size: usize) -> Address {
        let mut address = Address::new();
        address.size = size as libc::socklen_t;
        // SAFETY: the storage is as large as any address, and aligned for it.
        unsafe { (&raw mut address.storage).cast::<T>().write(value) };
        address
    }

    fn at<T>(&self) -> &T {
        // SAFETY: as above; the caller has looked at the family, and all bits of it are good.
        unsafe { &*(&raw const self.storage).cast::<T>() }
    }
}

unsafe extern "C" {
    fn inet_ntop(family: c_int, from: *const c_void, to: *mut c_char, size: libc::socklen_t) -> *const c_char;
    fn inet_pton(family: c_int, from: *const c_char, to: *mut c_void) -> c_int;
}

/// What the `socket` module makes of an address. A new reference, null with an exception set.
unsafe fn to_python(address: &Address) -> Object {
    if address.size == 0 {
        // It came over a connection.
        return none();
    }
    let mut text = [0 as c_char; 64];
    let room = text.len() as libc::socklen_t;
    // SAFETY: attached; each family's addresses are as long as the system said.
    unsafe {
        match c_int::from(address.storage.ss_family) {
            libc::AF_INET => {
                let it: &libc::sockaddr_in = address.at();
                inet_ntop(libc::AF_INET, (&raw const it.sin_addr).cast(), text.as_mut_ptr(), room);
                Py_BuildValue(c"(si)".as_ptr(), text.as_ptr(), c_int::from(u16::from_be(it.sin_port)))
            }
            libc::AF_INET6 => {
                let it: &libc::sockaddr_in6 = address.at();
                inet_ntop(libc::AF_INET6, (&raw const it.sin6_addr).cast(), text.as_mut_ptr(), room);
                let (port, flow) = (c_int::from(u16::from_be(it.sin6_port)), u32::from_be(it.sin6_flowinfo));
                Py_BuildValue(c"(siII)".as_ptr(), text.as_ptr(), port, flow as c_uint, it.sin6_scope_id as c_uint)
            }
            libc::AF_UNIX => {
                let it: &libc::sockaddr_un = address.at();
                let size = (address.size as usize).saturating_sub(PATH).min(it.sun_path.len());
                if size > 0 && it.sun_path[0] == 0 {
                    return PyBytes_FromStringAndSize(it.sun_path.as_ptr(), size as Py_ssize_t);
                }
                let size = it.sun_path[..size].iter().position(|&byte| byte == 0).unwrap_or(size);
                PyUnicode_DecodeFSDefaultAndSize(it.sun_path.as_ptr(), size as Py_ssize_t)
            }
            family => {
                // Its bytes, as the module has what it does not know.
                let head = size_of::<libc::sa_family_t>();
                let size = (address.size as usize).min(size_of::<libc::sockaddr_storage>()).saturating_sub(head);
                let bytes = (&raw const address.storage).cast::<c_char>().add(head);
                Py_BuildValue(c"(iN)".as_ptr(), family, PyBytes_FromStringAndSize(bytes, size as Py_ssize_t))
            }
        }
    }
}

/// The system's form of an address; None with an exception set if it is none.
unsafe fn from_python(object: Object) -> Option<Address> {
    // SAFETY: attached; `object` is alive, and so are the parts that it owns.
    unsafe {
        if PyTuple_Check(object) == 0 {
            return unix(object);
        }
        let (mut host, mut port, mut flow, mut scope) = (null::<c_char>(), 0 as c_int, 0 as c_uint, 0 as c_uint);
        let format = c"si|II;an address is (host, port) or (host, port, flowinfo, scope_id)";
        if PyArg_ParseTuple(object, format.as_ptr(), &raw mut host, &raw mut port, &raw mut flow, &raw mut scope) == 0 {
            return None;
        }
        let Ok(port) = u16::try_from(port) else {
            raise(PyExc_OverflowError, "port must be 0-65535.");
            return None;
        };
        let name = std::ffi::CStr::from_ptr(host);
        if name.to_bytes().contains(&b':') {
            // The scope is in the address already.
            let end = name.to_bytes().iter().position(|&byte| byte == b'%').unwrap_or(name.to_bytes().len());
            let plain = std::ffi::CString::new(&name.to_bytes()[..end]).unwrap_or_default();
            let mut it: libc::sockaddr_in6 = zeroed();
            it.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            it.sin6_port = port.to_be();
            it.sin6_flowinfo = flow.to_be();
            it.sin6_scope_id = scope;
            if inet_pton(libc::AF_INET6, plain.as_ptr(), (&raw mut it.sin6_addr).cast()) == 1 {
                return Some(Address::of(it, size_of::<libc::sockaddr_in6>()));
            }
        } else {
            let mut it: libc::sockaddr_in = zeroed();
            it.sin_family = libc::AF_INET as libc::sa_family_t;
            it.sin_port = port.to_be();
            if inet_pton(libc::AF_INET, host, (&raw mut it.sin_addr).cast()) == 1 {
                return Some(Address::of(it, size_of::<libc::sockaddr_in>()));
            }
        }
        value_error(&format!("{:?} is no IP address: look it up first", name.to_string_lossy()));
        None
    }
}

/// The same of a path, or of an abstract name, which is bytes that begin with a zero.
unsafe fn unix(object: Object) -> Option<Address> {
    let mut bytes = NULL;
    // SAFETY: attached; `object` is alive.
    unsafe {
        if PyBytes_Check(object) != 0 {
            bytes = Py_NewRef(object);
        } else if PyUnicode_FSConverter(object, (&raw mut bytes).cast()) == 0 {
            return None;
        }
        let (path, size) = (PyBytes_AsString(bytes), PyBytes_Size(bytes) as usize);
        let mut it: libc::sockaddr_un = zeroed();
        it.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let abstract_name = size > 0 && *path == 0;
        // A path ends with a zero.
        let fits = size < it.sun_path.len() || abstract_name && size == it.sun_path.len();
        if fits {
            std::ptr::copy_nonoverlapping(path, it.sun_path.as_mut_ptr(), size);
        } else {
            raise(PyExc_OSError, "AF_UNIX path too long");
        }
        Py_DECREF(bytes);
        fits.then(|| Address::of(it, PATH + size + usize::from(!abstract_name)))
    }
}

/// `recvfrom(bufsize, flags=0, timeout=None)`.
///
/// # Safety
/// The calling convention of a method of `Fd`.
pub(crate) unsafe extern "C" fn recvfrom(
    object: Object,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    let mut out = [NULL; 3];
    // SAFETY: the calling convention. The bytes are ours alone until they are given away.
    unsafe {
        if !parse("recvfrom", args, count, keywords, &["bufsize", "flags", "timeout"], 1, &mut out) {
            return NULL;
        }
        let Some(size) = size_argument(out[0], "the size of a read") else { return NULL };
        let Some(flags) = flags_argument(out[1]) else { return NULL };
        let Some(deadline) = deadline(out[2]) else { return NULL };
        if interrupted() {
            return NULL;
        }
        let mut bytes = PyBytes_FromStringAndSize(null(), size as Py_ssize_t);
        if bytes.is_null() {
            return NULL;
        }
        let to = PyBytes_AsString(bytes);
        let mut address = Address::new();
        let result = core(object).run(Direction::Read, deadline, |number| {
            call(|| {
                address.size = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                let (storage, length) = ((&raw mut address.storage).cast(), &raw mut address.size);
                libc::recvfrom(number, to.cast(), size, flags | libc::MSG_DONTWAIT, storage, length)
            })
        });
        match settle(result) {
            Ok(count) => {
                if count != size && _PyBytes_Resize(&raw mut bytes, count as Py_ssize_t) < 0 {
                    return NULL;
                }
                let from = to_python(&address);
                if from.is_null() {
                    Py_DECREF(bytes);
                    return NULL;
                }
                Py_BuildValue(c"(NN)".as_ptr(), bytes, from)
            }
            Err(failure) => {
                Py_DECREF(bytes);
                fail(object, failure, "read")
            }
        }
    }
}

/// `sendto(data, address, flags=0, timeout=None)`.
///
/// # Safety
/// The calling convention of a method of `Fd`.
pub(crate) unsafe extern "C" fn sendto(
    object: Object,
    args: *const Object,
    count: Py_ssize_t,
    keywords: Object,
) -> Object {
    let mut out = [NULL; 4];
    // SAFETY: the calling convention; the buffer is exported until the end.
    unsafe {
        if !parse("sendto", args, count, keywords, &["data", "address", "flags", "timeout"], 2, &mut out) {
            return NULL;
        }
        let Some(address) = from_python(out[1]) else { return NULL };
        let Some(flags) = flags_argument(out[2]) else { return NULL };
        let Some(deadline) = deadline(out[3]) else { return NULL };
        let Some(buffer) = Buffer::of(out[0], PyBUF_SIMPLE) else { return NULL };
        if interrupted() {
            return NULL;
        }
        let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let result = core(object).run(Direction::Write, deadline, |number| {
            let to = (&raw const address.storage).cast();
            call(|| libc::sendto(number, buffer.at(0).cast(), buffer.len(), flags, to, address.size))
        });
        match settle(result) {
            Ok(count) => int(count as u64),
            Err(failure) => fail(object, failure, "write"),
        }
    }
}
