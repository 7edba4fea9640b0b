//! The head of a response: what may stand in it, and how its body is framed.
//!
//! Invariants:
//!
//! * What a program gives ends up in one line: a name or a value with a line's end in it is refused, not written.
//! * A body is framed in one way, and this module says in which: a program's `Transfer-Encoding` is dropped, and there is one
//!   `Content-Length`.

use super::head::Head;

/// How the body of a response is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are to be written still.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection ends.
    Close,
    /// There is none, whatever the head says: the request was HEAD, or the status has none.
    Bodiless,
}

/// What is wrong with a status or a header of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The status is not three digits, a space and words, or 1xx other than 101.
    Status,
    /// A name is no token.
    Name,
    /// A value has a character that would end the line.
    Value,
    /// A Content-Length is no number, or there are two.
    Length,
}

/// A head in the making.
#[derive(Debug, Default)]
pub struct Response {
    /// What was written of it.
    pub head: Vec<u8>,
    /// The status code; 0 before there is one.
    pub status: u16,
    length: Option<u64>,
    close: bool,
    has_date: bool,
    has_server: bool,
}

impl Response {
    /// Begins anew, with a status such as "200 OK".
    pub fn start(&mut self, status: &[u8]) -> Result<(), Wrong> {
        self.reset();
        let code = match status {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
            | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                [*a, *b, *c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(Wrong::Status),
        };
        // The others of 1xx are no answers; one more would be taken for the answer to the next request.
        let answers = code >= 200 || code == 101;
        if !answers || !status.iter().all(in_a_line) {
            return Err(Wrong::Status);
        }
        self.head.extend_from_slice(b"HTTP/1.1 ");
        self.head.extend_from_slice(status);
        if status.len() == 3 {
            self.head.push(b' ');
        }
        self.head.extend_from_slice(b"\r\n");
        self.status = code;
        Ok(())
    }

    /// Forgets what was written.
    pub fn reset(&mut self) {
        self.head.clear();
        let head = std::mem::take(&mut self.head);
        *self = Response { head, ..Response::default() };
    }

    /// Adds a header field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Wrong> {
        if name.is_empty() || !name.iter().all(in_a_token) {
            return Err(Wrong::Name);
        }
        if !value.iter().all(in_a_line) {
            return Err(Wrong::Value);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"date") => self.has_date = true,
            6 if name.eq_ignore_ascii_case(b"server") => self.has_server = true,
            7 if name.eq_ignore_ascii_case(b"upgrade") && self.status != 101 => return Ok(()),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                // The server says what becomes of the connection; a program may say that it is to end.
                for word in value.split(|&byte| byte == b',') {
                    self.close |= word.trim_ascii().eq_ignore_ascii_case(b"close");
                }
                return Ok(());
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = value.trim_ascii();
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
                let digits = value.iter().all(u8::is_ascii_digit);
                match number {
                    // Written in the end, if the status has one.
                    Some(number) if digits && self.length.is_none_or(|length| length == number) => {
                        self.length = Some(number);
                    }
                    _ => return Err(Wrong::Length),
                }
                return Ok(());
            }
            2 | 7 | 8 | 10 | 16 | 17 if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) => return Ok(()),
            _ => {}
        }
        self.head.extend_from_slice(name);
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value);
        self.head.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The length that the program has declared.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Ends the head, as the answer to `request`, and says how the body is framed. `keep` is whether the connection is to be kept,
    /// and becomes whether it can be; `whole` is the length of the body, where all of it is known.
    pub fn end(&mut self, request: &Head, keep: &mut bool, whole: Option<u64>, date: &[u8], server: &[u8]) -> Framing {
        let mut head = std::mem::take(&mut self.head);
        let mut line = |name: &[u8], value: &[u8]| {
            head.extend_from_slice(name);
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        if !self.has_server && !server.is_empty() {
            line(b"Server: ", server);
        }
        if !self.has_date {
            line(b"Date: ", date);
        }
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        // What an application leaves out for HEAD says nothing about the length.
        let length = self.length.or(whole.filter(|&length| !request.is_head || length > 0));
        let framing = if bodiless {
            if let (304, Some(length)) = (self.status, self.length) {
                line(b"Content-Length: ", length.to_string().as_bytes());
            }
            Framing::Bodiless
        } else if let Some(length) = length {
            let mut digits = [0; 20];
            line(b"Content-Length: ", decimal(length, &mut digits));
            if request.is_head { Framing::Bodiless } else { Framing::Length(length) }
        } else if request.is_head {
            Framing::Bodiless
        } else if request.minor > 0 {
            line(b"Transfer-Encoding: ", b"chunked");
            Framing::Chunked
        } else {
            Framing::Close
        };
        *keep &= !self.close && framing != Framing::Close && self.status != 101;
        if self.status == 101 {
            line(b"Connection: ", b"Upgrade");
        } else if !*keep {
            line(b"Connection: ", b"close");
        } else if request.minor == 0 {
            line(b"Connection: ", b"keep-alive");
        }
        head.extend_from_slice(b"\r\n");
        self.head = head;
        framing
    }
}

/// What belongs to a connection, and so to the server.
const HOP_BY_HOP: [&[u8]; 6] =
    [b"te", b"trailer", b"trailers", b"keep-alive", b"transfer-encoding", b"proxy-connection"];

fn in_a_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn in_a_line(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

/// A number in decimal digits.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// A moment, in seconds since 1970, as heads have it: "Sun, 06 Nov 1994 08:49:37 GMT".
pub fn date(seconds: u64) -> [u8; 29] {
    let days = seconds / 86_400;
    // The calendar of Howard Hinnant's "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let week_day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let text =
        format!("{week_day}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", names[month as usize - 1]);
    let mut bytes = [b' '; 29];
    for (byte, from) in bytes.iter_mut().zip(text.bytes()) {
        *byte = from;
    }
    bytes
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
