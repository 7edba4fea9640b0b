//! The scope of an ASGI application, made of a request's head.
//!
//! The names that nearly every request has are made once, with the module, and never change: any thread reads them.

use super::environ::{KNOWN, METHODS, interned, native, set, unquoted};
use crate::method::*;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::http::head::Head;
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

struct Names {
    method: Object,
    path: Object,
    raw_path: Object,
    query: Object,
    headers: Object,
    version: Object,
    /// "1.0" and "1.1".
    versions: [Object; 2],
    slash: Object,
    raw_slash: Object,
    empty: Object,
    host: Object,
    methods: Vec<(&'static str, Object)>,
    /// By the length of the field's name.
    fields: Vec<Vec<(&'static str, Object)>>,
}

static NAMES: AtomicPtr<Names> = AtomicPtr::new(null_mut());

/// A new object of bytes.
unsafe fn bytes(data: &[u8]) -> Object {
    // SAFETY: attached; so many bytes are there.
    unsafe { PyBytes_FromStringAndSize(data.as_ptr().cast(), data.len() as Py_ssize_t) }
}

/// Makes the names; false with an exception set if there is no memory.
pub(super) fn load() -> bool {
    let every = KNOWN.iter().copied().chain(["content-length", "content-type"]);
    let longest = every.clone().map(str::len).max().unwrap_or_default();
    let mut fields = vec![Vec::new(); longest + 1];
    // SAFETY: attached.
    unsafe {
        for name in every {
            fields[name.len()].push((name, bytes(name.as_bytes())));
        }
        let names = Names {
            method: interned("method"),
            path: interned("path"),
            raw_path: interned("raw_path"),
            query: interned("query_string"),
            headers: interned("headers"),
            version: interned("http_version"),
            versions: [interned("1.0"), interned("1.1")],
            slash: interned("/"),
            raw_slash: bytes(b"/"),
            empty: bytes(b""),
            host: bytes(b"host"),
            methods: METHODS.map(|name| (name, interned(name))).to_vec(),
            fields,
        };
        if !PyErr_Occurred().is_null() {
            return false;
        }
        NAMES.store(Box::into_raw(Box::new(names)), Ordering::Release);
    }
    true
}

fn names() -> &'static Names {
    // SAFETY: made with the module, and never given back. Pairs with the store.
    unsafe { &*NAMES.load(Ordering::Acquire) }
}

/// A new scope: a copy of `base` with what the request says; null with an exception set.
///
/// # Safety
/// Attached; `base` is a dict, `head` was read from `buffer`.
pub(super) unsafe fn make(base: Object, head: &Head, buffer: &[u8]) -> Object {
    // SAFETY: by contract.
    unsafe {
        let scope = PyDict_Copy(base);
        if scope.is_null() {
            return NULL;
        }
        if fill(scope, head, buffer) {
            return scope;
        }
        Py_DECREF(scope);
        NULL
    }
}

unsafe fn fill(scope: Object, head: &Head, buffer: &[u8]) -> bool {
    let names = names();
    // SAFETY: attached; live objects.
    unsafe {
        let method = head.method(buffer);
        let method = match names.methods.iter().find(|(name, _)| name.as_bytes() == method) {
            Some(&(_, known)) => Py_NewRef(known),
            None => native(method),
        };
        let (path, raw) = match head.path(buffer) {
            b"/" | b"" => (Py_NewRef(names.slash), Py_NewRef(names.raw_slash)),
            raw => (decoded(raw), bytes(raw)),
        };
        let query = head.query(buffer);
        let query = if query.is_empty() { Py_NewRef(names.empty) } else { bytes(query) };
        // All of them take over what they are given, whatever became of the one before.
        let ok = set(scope, names.method, method)
            & set(scope, names.path, path)
            & set(scope, names.raw_path, raw)
            & set(scope, names.query, query)
            & (PyDict_SetItem(scope, names.version, names.versions[usize::from(head.minor.min(1))]) == 0);
        ok && set(scope, names.headers, fields(head, buffer))
    }
}

/// A path as text: its escapes are those of UTF-8, and what is none is replaced.
unsafe fn decoded(path: &[u8]) -> Object {
    let plain;
    let octets = if path.contains(&b'%') {
        plain = unquoted(path);
        &plain
    } else {
        path
    };
    // SAFETY: attached; so many bytes are there.
    unsafe { PyUnicode_DecodeUTF8(octets.as_ptr().cast(), octets.len() as Py_ssize_t, c"replace".as_ptr()) }
}

/// The list of the header fields, as pairs of bytes.
unsafe fn fields(head: &Head, buffer: &[u8]) -> Object {
    let names = names();
    // SAFETY: attached; live objects.
    unsafe {
        let list = PyList_New(0);
        if list.is_null() {
            return NULL;
        }
        // A host in the target is the one that counts.
        let authority = head.authority(buffer);
        let mut told = authority.is_empty();
        let ok = head.fields.iter().all(|field| {
            let (name, mut value) = (field.name(buffer), field.value(buffer));
            if !authority.is_empty() && name.eq_ignore_ascii_case(b"host") {
                told = true;
                value = authority;
            }
            add(list, name_of(name), value)
        });
        if ok && (told || add(list, Py_NewRef(names.host), authority)) {
            return list;
        }
        Py_DECREF(list);
        NULL
    }
}

/// A field's name in lower case.
unsafe fn name_of(name: &[u8]) -> Object {
    // SAFETY: attached; live objects.
    unsafe {
        if let Some(known) = names().fields.get(name.len()) {
            let found = known.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
            if let Some(&(_, object)) = found {
                return Py_NewRef(object);
            }
        }
        bytes(&name.to_ascii_lowercase())
    }
}

/// Appends a pair; takes the name over.
unsafe fn add(list: Object, name: Object, value: &[u8]) -> bool {
    // SAFETY: attached; live objects or null. A tuple takes over what is put into it, null, too.
    unsafe {
        let (pair, value) = (PyTuple_New(2), bytes(value));
        if pair.is_null() || name.is_null() || value.is_null() {
            Py_XDECREF(name);
            Py_XDECREF(value);
            Py_XDECREF(pair);
            return false;
        }
        PyTuple_SetItem(pair, 0, name);
        PyTuple_SetItem(pair, 1, value);
        let ok = PyList_Append(list, pair) == 0;
        Py_DECREF(pair);
        ok
    }
}
