//! The environ of a WSGI application, made of a request's head.
//!
//! The keys that nearly every request has are made once, with the module, and never change: any thread reads them.

use crate::method::*;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::http::head::{Framing, Head};
use pyo3_ffi::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Header fields whose keys are made once.
pub(super) const KNOWN: [&str; 40] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "cookie",
    "dnt",
    "expect",
    "forwarded",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-requested-with",
];
/// Methods whose names are made once.
pub(super) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

struct Names {
    method: Object,
    path: Object,
    query: Object,
    raw: Object,
    host: Object,
    protocol: Object,
    content_type: Object,
    content_length: Object,
    /// HTTP/1.0 and HTTP/1.1.
    versions: [Object; 2],
    empty: Object,
    slash: Object,
    methods: Vec<(&'static str, Object)>,
    /// By the length of the field's name.
    fields: Vec<Vec<(&'static str, Object)>>,
}

static NAMES: AtomicPtr<Names> = AtomicPtr::new(null_mut());

pub(super) fn interned(text: &str) -> Object {
    let mut object = string(text);
    if !object.is_null() {
        // SAFETY: attached; our own reference.
        unsafe { PyUnicode_InternInPlace(&raw mut object) };
    }
    object
}

fn key(name: &str) -> Object {
    interned(&format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_")))
}

/// Makes the names; false with an exception set if there is no memory.
pub(super) fn load() -> bool {
    let longest = KNOWN.iter().map(|name| name.len()).max().unwrap_or_default();
    let mut fields = vec![Vec::new(); longest + 1];
    for name in KNOWN {
        fields[name.len()].push((name, key(name)));
    }
    let names = Names {
        method: interned("REQUEST_METHOD"),
        path: interned("PATH_INFO"),
        query: interned("QUERY_STRING"),
        raw: interned("RAW_URI"),
        host: interned("HTTP_HOST"),
        protocol: interned("SERVER_PROTOCOL"),
        content_type: interned("CONTENT_TYPE"),
        content_length: interned("CONTENT_LENGTH"),
        versions: [interned("HTTP/1.0"), interned("HTTP/1.1")],
        empty: interned(""),
        slash: interned("/"),
        methods: METHODS.map(|name| (name, interned(name))).to_vec(),
        fields,
    };
    // SAFETY: attached.
    if unsafe { !PyErr_Occurred().is_null() } {
        return false;
    }
    NAMES.store(Box::into_raw(Box::new(names)), Ordering::Release);
    true
}

fn names() -> &'static Names {
    // SAFETY: made with the module, and never given back. Pairs with the store.
    unsafe { &*NAMES.load(Ordering::Acquire) }
}

/// Bytes as WSGI has them: a string of the same numbers.
pub(super) unsafe fn native(bytes: &[u8]) -> Object {
    // SAFETY: attached; so many bytes are there.
    unsafe { PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len() as Py_ssize_t, std::ptr::null()) }
}

/// Sets `key` to a value that it takes over.
pub(super) unsafe fn set(environ: Object, key: Object, value: Object) -> bool {
    // SAFETY: attached; live objects or null.
    unsafe {
        let ok = !value.is_null() && PyDict_SetItem(environ, key, value) == 0;
        Py_XDECREF(value);
        ok
    }
}

/// A path without its escapes. What is none stays as it is, as `urllib.parse.unquote` has it.
pub(super) fn unquoted(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let digit = |at: usize| path.get(at).and_then(|&byte| (byte as char).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

/// A new environ: a copy of `base` with what the request says; null with an exception set.
///
/// # Safety
/// Attached; `base` is a dict, `head` was read from `buffer`.
pub(super) unsafe fn make(base: Object, head: &Head, buffer: &[u8]) -> Object {
    // SAFETY: by contract.
    unsafe {
        let environ = PyDict_Copy(base);
        if environ.is_null() {
            return NULL;
        }
        if fill(environ, head, buffer) {
            return environ;
        }
        Py_DECREF(environ);
        NULL
    }
}

unsafe fn fill(environ: Object, head: &Head, buffer: &[u8]) -> bool {
    let names = names();
    // SAFETY: attached; live objects.
    unsafe {
        let method = head.method(buffer);
        let method = match names.methods.iter().find(|(name, _)| name.as_bytes() == method) {
            Some(&(_, known)) => Py_NewRef(known),
            None => native(method),
        };
        let (raw, path, query) = (head.target(buffer), head.path(buffer), head.query(buffer));
        let target = native(raw);
        let path = match path {
            b"/" | b"" => Py_NewRef(names.slash),
            // It is about the server, not about a path.
            b"*" => Py_NewRef(names.empty),
            path if path.contains(&b'%') => native(&unquoted(path)),
            path if path.len() == raw.len() => Py_XNewRef(target),
            path => native(path),
        };
        let query = if query.is_empty() { Py_NewRef(names.empty) } else { native(query) };
        let ok = set(environ, names.method, method)
            & set(environ, names.raw, target)
            & set(environ, names.path, path)
            & set(environ, names.query, query)
            & (PyDict_SetItem(environ, names.protocol, names.versions[usize::from(head.minor.min(1))]) == 0);
        let authority = head.authority(buffer);
        ok && head.fields.iter().all(|field| add(environ, head, field.name(buffer), field.value(buffer)))
            && (authority.is_empty() || set(environ, names.host, native(authority)))
    }
}

/// Adds a header field.
unsafe fn add(environ: Object, head: &Head, name: &[u8], value: &[u8]) -> bool {
    let names = names();
    // SAFETY: attached; live objects.
    unsafe {
        if let Some(known) = names.fields.get(name.len()) {
            let found = known.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
            if let Some(&(known, key)) = found {
                return put(environ, key, value, known == "cookie");
            }
        }
        if name.eq_ignore_ascii_case(b"content-type") {
            return put(environ, names.content_type, value, false);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            // As a number: an application may take its length for granted.
            let mut digits = [0; 20];
            let length = match head.framing {
                Framing::Length(length) => length,
                _ => 0,
            };
            return set(
                environ,
                names.content_length,
                native(offset_runtime::http::response::decimal(length, &mut digits)),
            );
        }
        // With `_` it would be taken for one with `-`; and HTTP_PROXY is read by others as what it is not.
        if name.contains(&b'_') || name.eq_ignore_ascii_case(b"proxy") {
            return true;
        }
        let mut text = b"HTTP_".to_vec();
        text.extend(name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
        let key = native(&text);
        if key.is_null() {
            return false;
        }
        let ok = put(environ, key, value, false);
        Py_DECREF(key);
        ok
    }
}

/// Sets `key`, or adds to it what a further field of the same name says.
unsafe fn put(environ: Object, key: Object, value: &[u8], cookie: bool) -> bool {
    // SAFETY: attached; live objects. The dictionary is nobody else's yet.
    unsafe {
        let text = native(value);
        if text.is_null() {
            return false;
        }
        let before = PyDict_Size(environ);
        let known = PyDict_SetDefault(environ, key, text);
        let there_before = PyDict_Size(environ) == before;
        Py_DECREF(text);
        if known.is_null() || !there_before {
            return !known.is_null();
        }
        let (mut data, mut size) = (null_mut(), 0);
        let bytes = PyUnicode_AsLatin1String(known);
        if bytes.is_null() || PyBytes_AsStringAndSize(bytes, &raw mut data, &raw mut size) < 0 {
            Py_XDECREF(bytes);
            return false;
        }
        let first = std::slice::from_raw_parts(data.cast::<u8>(), size as usize);
        let joined = [first, if cookie { b"; " } else { b"," }, value].concat();
        Py_DECREF(bytes);
        set(environ, key, native(&joined))
    }
}
