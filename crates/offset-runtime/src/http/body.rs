//! Taking a body out of its framing.
//!
//! Invariants:
//!
//! * A [`Reader`] never looks past the end of its body: what follows is the next request.
//! * What it consumes is gone, so its state is all that it knows of the past; what it keeps is bounded, whatever is sent.
//! * Once it has refused something it refuses everything.

use super::head::Framing;
use super::{Limits, Refusal, refuse};
use std::ops::Range;

/// Digits of a chunk's size, leading zeroes included.
const MOST_DIGITS: u8 = 16;
/// Bytes of the extensions of all chunks of a body. A few clients sign chunks there.
const MOST_EXTENSION: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left, then the end.
    Length(u64),
    /// In a chunk's size, of which there are so many digits.
    Size(u64, u8),
    /// In its extension; whether a CR was seen.
    Extension(u64, bool),
    /// After its size and a CR.
    SizeEnd(u64),
    /// So many bytes of it are left.
    Data(u64),
    /// After them.
    DataEnd,
    /// After them and a CR.
    DataEndLine,
    /// In the trailer.
    Trailer,
    End,
    Broken(Refusal),
}

/// Takes one body out of its framing.
#[derive(Debug)]
pub struct Reader {
    state: State,
    limits: Limits,
    /// Bytes of the body so far.
    taken: u64,
    extensions: usize,
    /// What has come of the trailer's present line, and how much of the trailer.
    line: Vec<u8>,
    trailer: usize,
    fields: usize,
}

/// What a look at the input gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// So much of the input is done with.
    pub consumed: usize,
    /// Where in the input there are bytes of the body; empty if more must come first.
    pub data: Range<usize>,
}

impl Reader {
    /// A reader of a body. A length above the limit is refused at once.
    pub fn new(framing: Framing, limits: &Limits) -> Result<Reader, Refusal> {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::End,
            Framing::Length(length) if length > limits.body => return refuse(413, "the body is too long"),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size(0, 0),
        };
        Ok(Reader { state, limits: *limits, taken: 0, extensions: 0, line: Vec::new(), trailer: 0, fields: 0 })
    }

    /// A reader of no body.
    pub fn empty() -> Reader {
        let limits = Limits::default();
        Reader { state: State::End, limits, taken: 0, extensions: 0, line: Vec::new(), trailer: 0, fields: 0 }
    }

    /// Whether the end was reached.
    pub fn ended(&self) -> bool {
        self.state == State::End
    }

    /// How many bytes the body still has, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Takes up to `most` bytes of the body out of `input`.
    pub fn take(&mut self, input: &[u8], most: usize) -> Result<Step, Refusal> {
        let result = self.take_some(input, most);
        if let Err(refusal) = result {
            self.state = State::Broken(refusal);
        }
        result
    }

    fn take_some(&mut self, input: &[u8], most: usize) -> Result<Step, Refusal> {
        let mut at = 0;
        loop {
            match self.state {
                State::End => return Ok(Step { consumed: at, data: at..at }),
                State::Broken(refusal) => return Err(refusal),
                State::Length(left) | State::Data(left) => {
                    let size = (input.len() - at).min(most).min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - size as u64;
                    self.taken += size as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::End,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::DataEnd,
                        _ => State::Data(left),
                    };
                    if size > 0 || self.state != State::DataEnd {
                        return Ok(Step { consumed: at + size, data: at..at + size });
                    }
                }
                _ => {
                    let Some(&byte) = input.get(at) else { return Ok(Step { consumed: at, data: at..at }) };
                    at += 1;
                    self.step(byte)?;
                }
            }
        }
    }

    /// A byte of the framing.
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == MOST_DIGITS {
                    return refuse(400, "the size of a chunk has too many digits");
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (State::Size(size, 1..), b';') => State::Extension(size, false),
            (State::Size(size, 1..), b'\r') => State::SizeEnd(size),
            (State::Extension(size, false), b'\r') => State::SizeEnd(size),
            (State::Extension(..), b'\n') => return refuse(400, "the line of a chunk's size is broken"),
            (State::Extension(size, false), b'\t' | b' '..=0x7e | 0x80..) => {
                self.extensions += 1;
                if self.extensions > MOST_EXTENSION {
                    return refuse(400, "the extensions of the chunks are too long");
                }
                State::Extension(size, false)
            }
            (State::SizeEnd(0), b'\n') => State::Trailer,
            (State::SizeEnd(size), b'\n') => {
                if self.taken.checked_add(size).is_none_or(|size| size > self.limits.body) {
                    return refuse(413, "the body is too long");
                }
                State::Data(size)
            }
            (State::DataEnd, b'\r') => State::DataEndLine,
            (State::DataEndLine, b'\n') => State::Size(0, 0),
            (State::Trailer, _) => return self.step_trailer(byte),
            (State::DataEnd | State::DataEndLine, _) => {
                return refuse(400, "a chunk is longer than its size");
            }
            _ => return refuse(400, "the size of a chunk is broken"),
        };
        Ok(())
    }

    /// A byte of the trailer, whose fields are checked and dropped.
    fn step_trailer(&mut self, byte: u8) -> Result<(), Refusal> {
        self.trailer += 1;
        if self.trailer > self.limits.head {
            return refuse(431, "the trailer of the body is too long");
        }
        self.line.push(byte);
        if byte == b'\n' {
            let line = std::mem::take(&mut self.line);
            if line == b"\r\n" {
                self.state = State::End;
                return Ok(());
            }
            self.fields += 1;
            if self.fields > self.limits.fields {
                return refuse(431, "the trailer of the body has too many fields");
            }
            check_field(&line)?;
        }
        Ok(())
    }
}

/// Whether a line is a header field that could stand in a head.
fn check_field(line: &[u8]) -> Result<(), Refusal> {
    let whole = [line, b"\r\n"].concat();
    let mut fields = [httparse::EMPTY_HEADER; 1];
    match httparse::parse_headers(&whole, &mut fields) {
        Ok(httparse::Status::Complete(_)) if line.ends_with(b"\r\n") => Ok(()),
        _ => refuse(400, "a field of the trailer is broken"),
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
