//! The head of a request: where it ends, and what it says.
//!
//! Invariants:
//!
//! * The end is looked for first ([`Scan`]), in what has come since the last look, and the head is parsed once, when it is
//!   there: a client that sends a byte at a time costs no more than one that sends all at once.
//! * Nothing that is here was copied: a [`Head`] has places in the buffer it was read from.
//! * A head that was parsed has one framing that every reader agrees on, or it was refused.

use super::{Limits, Refusal, refuse};
use std::mem::MaybeUninit;
use std::ops::Range;

/// No limit of fields is above this.
pub const MOST_FIELDS: usize = 256;

/// The longest method.
const LONGEST_METHOD: usize = 32;

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Looks for the end of a head.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scan {
    /// So much was looked at.
    at: usize,
    /// The present line begins here.
    line: usize,
    /// Empty lines before the head.
    skipped: usize,
}

impl Scan {
    /// Where the head begins and ends in `buffer`, once the end is there. `buffer` grows from call to call.
    ///
    /// A line that ends without CR is refused here, so that a client that waits for an answer to it gets one.
    pub fn find(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<Range<usize>>, Refusal> {
        while let Some(found) = buffer[self.at..].iter().position(|&byte| byte == b'\n') {
            let end = self.at + found;
            if end == self.line || buffer[end - 1] != b'\r' {
                return refuse(400, "a line ends without CR");
            }
            self.at = end + 1;
            if end - 1 == self.line {
                if self.line != self.skipped {
                    return if end + 1 - self.skipped > limits.head {
                        refuse(431, "the head of the request is too long")
                    } else {
                        Ok(Some(self.skipped..end + 1))
                    };
                }
                // An empty line before a request: clients of old sent one after a body.
                if self.skipped > 0 {
                    return refuse(400, "there are empty lines before the request");
                }
                self.skipped = end + 1;
            }
            self.line = end + 1;
        }
        self.at = buffer.len();
        if self.line == self.skipped && buffer.len() - self.skipped > limits.target + LONGEST_METHOD + 16 {
            return refuse(414, "the request's target is too long");
        }
        if buffer.len() - self.skipped > limits.head {
            return refuse(431, "the head of the request is too long");
        }
        Ok(None)
    }
}

/// A header field: the places of its name and its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl Field {
    /// Its name, out of the buffer it was read from.
    pub fn name<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.name.0 as usize..self.name.1 as usize]
    }

    /// Its value, without white space around it.
    pub fn value<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.value.0 as usize..self.value.1 as usize]
    }
}

/// What a head says.
#[derive(Debug)]
pub struct Head {
    method: (u32, u32),
    target: (u32, u32),
    /// The path inside the target, which may have begun with a scheme and a host.
    path: (u32, u32),
    query: (u32, u32),
    /// The host inside the target, if there is one: it counts, not that of the header.
    authority: (u32, u32),
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// The header fields, in order.
    pub fields: Vec<Field>,
    /// How the body is framed.
    pub framing: Framing,
    /// The client can keep the connection, and wants to.
    pub keep_alive: bool,
    /// It waits for `100 Continue` before it sends the body.
    pub expects: bool,
    /// It asks for another protocol.
    pub upgrade: bool,
    /// The method is HEAD.
    pub is_head: bool,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            method: (0, 0),
            target: (0, 0),
            path: (0, 0),
            query: (0, 0),
            authority: (0, 0),
            minor: 1,
            fields: Vec::new(),
            framing: Framing::Empty,
            keep_alive: false,
            expects: false,
            upgrade: false,
            is_head: false,
        }
    }
}

fn place(buffer: &[u8], part: &[u8]) -> (u32, u32) {
    // What the parser gives lies in the buffer it was given.
    let start = part.as_ptr() as usize - buffer.as_ptr() as usize;
    (start as u32, (start + part.len()) as u32)
}

fn slice(buffer: &[u8], place: (u32, u32)) -> &[u8] {
    &buffer[place.0 as usize..place.1 as usize]
}

impl Head {
    /// The method.
    pub fn method<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        slice(buffer, self.method)
    }

    /// The target as it was sent.
    pub fn target<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        slice(buffer, self.target)
    }

    /// The target's path, not decoded; "*" for the server itself.
    pub fn path<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        slice(buffer, self.path)
    }

    /// What follows the question mark.
    pub fn query<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        slice(buffer, self.query)
    }

    /// The host and the port that the target names; empty if it is a path.
    pub fn authority<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        slice(buffer, self.authority)
    }

    /// Reads the head that [`Scan::find`] has found: `buffer` ends with it, and `start` is where it begins.
    pub fn parse(&mut self, buffer: &[u8], start: usize, limits: &Limits) -> Result<(), Refusal> {
        let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let most = limits.fields.min(MOST_FIELDS);
        match request.parse_with_uninit_headers(&buffer[start..], &mut fields[..most]) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return refuse(400, "the request is not complete"),
            Err(error) => return refuse_parse(error, &buffer[start..]),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return refuse(400, "this is no request of HTTP");
        };
        if method.len() > LONGEST_METHOD {
            return refuse(501, "there is no such method");
        }
        if method == "CONNECT" {
            return refuse(501, "this is no proxy: CONNECT is not served");
        }
        self.method = place(buffer, method.as_bytes());
        self.is_head = method == "HEAD";
        self.minor = minor;
        self.read_target(buffer, target.as_bytes(), method == "OPTIONS", limits)?;
        self.read_fields(buffer, request.headers)
    }

    fn read_target(&mut self, buffer: &[u8], target: &[u8], options: bool, limits: &Limits) -> Result<(), Refusal> {
        if target.len() > limits.target {
            return refuse(414, "the request's target is too long");
        }
        if target.iter().any(|&byte| !(0x21..0x7f).contains(&byte) || byte == b'#') {
            return refuse(400, "the request's target has a character that belongs in no target");
        }
        self.target = place(buffer, target);
        self.authority = (0, 0);
        let mut path = target;
        if target == b"*" {
            if !options {
                return refuse(400, "only OPTIONS may ask about the server itself");
            }
        } else if target[0] != b'/' {
            // What a proxy is sent: with a scheme and a host.
            let after = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
                let (start, rest) = target.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            });
            let Some(after) = after else { return refuse(400, "the request's target is neither a path nor a URL") };
            let host = after.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(after.len());
            if host == 0 {
                return refuse(400, "the request's target has no host");
            }
            if !after[..host].iter().all(is_host) {
                return refuse(400, "the host in the request's target has a character that belongs in none");
            }
            self.authority = place(buffer, &after[..host]);
            path = &after[host..];
        }
        let question = path.iter().position(|&byte| byte == b'?');
        self.path = place(buffer, &path[..question.unwrap_or(path.len())]);
        self.query = place(buffer, question.map_or(&path[path.len()..], |at| &path[at + 1..]));
        Ok(())
    }

    fn read_fields(&mut self, buffer: &[u8], fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
        self.fields.clear();
        self.expects = false;
        self.upgrade = false;
        let (mut close, mut keep, mut upgrade, mut wants_upgrade, mut hosts) = (false, false, false, false, 0);
        let (mut length, mut chunked) = (None, false);
        for field in fields {
            let (name, value) = (field.name.as_bytes(), field.value);
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    hosts += 1;
                    if hosts > 1 || !value.iter().all(is_host) {
                        return refuse(400, "the header Host is not one name of a host");
                    }
                }
                6 if name.eq_ignore_ascii_case(b"expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return refuse(417, "the only thing to expect is 100-continue");
                    }
                    self.expects = true;
                }
                7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    for word in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        close |= word.eq_ignore_ascii_case(b"close");
                        keep |= word.eq_ignore_ascii_case(b"keep-alive");
                        wants_upgrade |= word.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    if length.is_some() {
                        return refuse(400, "there are several headers Content-Length");
                    }
                    length = Some(decimal(value)?);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    if chunked {
                        return refuse(400, "there are several headers Transfer-Encoding");
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        let known = value.split(|&byte| byte == b',').all(|word| {
                            let word = word.trim_ascii();
                            [&b"chunked"[..], b"gzip", b"x-gzip", b"deflate", b"compress"]
                                .iter()
                                .any(|known| word.eq_ignore_ascii_case(known))
                        });
                        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
                        return if known && last.eq_ignore_ascii_case(b"chunked") && last.len() < value.len() {
                            refuse(501, "the only transfer coding that is read is chunked")
                        } else {
                            refuse(400, "the header Transfer-Encoding does not say how the body ends")
                        };
                    }
                    chunked = true;
                }
                _ => {}
            }
            self.fields.push(Field { name: place(buffer, name), value: place(buffer, value) });
        }
        if self.minor > 0 && hosts == 0 {
            return refuse(400, "there is no header Host");
        }
        self.framing = match (length, chunked) {
            (Some(_), true) => return refuse(400, "there are both Content-Length and Transfer-Encoding"),
            (None, true) if self.minor == 0 => return refuse(400, "HTTP/1.0 has no chunks"),
            (None, true) => Framing::Chunked,
            (None | Some(0), false) => Framing::Empty,
            (Some(length), false) => Framing::Length(length),
        };
        self.keep_alive = !close && (self.minor > 0 || keep);
        // Of HTTP/1.0 these mean nothing.
        self.expects &= self.minor > 0 && self.framing != Framing::Empty;
        self.upgrade = self.minor > 0 && upgrade && wants_upgrade;
        Ok(())
    }
}

fn refuse_parse(error: httparse::Error, head: &[u8]) -> Result<(), Refusal> {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => refuse(431, "there are too many header fields"),
        Error::HeaderName => refuse(400, "the name of a header field is broken"),
        Error::HeaderValue | Error::NewLine => refuse(400, "the value of a header field is broken"),
        Error::Version => {
            // "HTTP/2.0" is a version that is not spoken here, "HTTQ/1.1" is none.
            let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
            let word = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
            match word {
                [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                    if major.is_ascii_digit()
                        && minor.is_ascii_digit()
                        && ![&b"1.0"[..], b"1.1"].contains(&&word[5..]) =>
                {
                    refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
                }
                _ => refuse(400, "the version of the request is broken"),
            }
        }
        Error::Token | Error::Status => refuse(400, "this is no request of HTTP"),
    }
}

/// A number in decimal digits, and nothing else.
fn decimal(value: &[u8]) -> Result<u64, Refusal> {
    let mut number: u64 = 0;
    for &byte in value {
        let next = if byte.is_ascii_digit() {
            number.checked_mul(10).and_then(|number| number.checked_add(u64::from(byte - b'0')))
        } else {
            None
        };
        match next {
            // Above this others count in signed numbers.
            Some(next) if next <= i64::MAX as u64 => number = next,
            _ => return refuse(400, "the header Content-Length is not a number"),
        }
    }
    if value.is_empty() { refuse(400, "the header Content-Length is not a number") } else { Ok(number) }
}

/// What names of hosts, addresses and ports are made of.
fn is_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
