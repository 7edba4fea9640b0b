//! HTTP/1.1 as a server speaks it, on bytes in memory: no socket, no Python, no waiting.
//!
//! [`head`] reads a request's head, [`body`] takes a body out of its framing, [`response`] writes heads. Whoever has a connection
//! brings the bytes and takes what is to be sent, so that one kind of connection code can serve several kinds of application.
//!
//! Strictness is that of RFC 9112, and where that leaves a choice, the answer that no proxy can read in another way: what is
//! doubtful is refused, with a status and a sentence, and the connection is over, as nobody knows where the next request begins.

pub mod body;
pub mod head;
pub mod response;

/// Why a request is not served: the status to answer with, and a sentence for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// What was wrong.
    pub reason: &'static str,
}

pub(crate) const fn refuse<T>(status: u16, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, reason })
}

/// How large a request may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the request line's target.
    pub target: usize,
    /// Bytes of the head, or of the trailer after a body.
    pub head: usize,
    /// How many header fields there may be, up to [`head::MOST_FIELDS`].
    pub fields: usize,
    /// Bytes of a body.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { target: 8192, head: 32 * 1024, fields: 100, body: u64::MAX }
    }
}
