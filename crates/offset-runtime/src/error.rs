//! What can go wrong, as small enums that give the value back.

use std::fmt;

/// Why a send did not happen. Each variant gives the value back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// The channel is closed.
    Closed(T),
    /// The time was over, or nothing was ready and the operation must not wait.
    TimedOut(T),
    /// The goroutine was cancelled while it waited.
    Cancelled(T),
}

/// Why a receive did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// The channel is closed and drained.
    Closed,
    /// The time was over, or nothing was ready and the operation must not wait.
    TimedOut,
    /// The goroutine was cancelled while it waited.
    Cancelled,
}

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitError {
    /// The time was over.
    TimedOut,
    /// The goroutine was cancelled, or the thread interrupted, while it waited.
    Cancelled,
}

/// A use of a lock or a counter that its rules forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// The channel was closed before.
    AlreadyClosed,
    /// The lock is not held.
    NotLocked,
    /// The counter would fall below zero.
    NegativeCounter,
    /// The counter would pass its greatest value.
    Overflow,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misuse::AlreadyClosed => "close of closed channel",
            Misuse::NotLocked => "unlock of unlocked mutex",
            Misuse::NegativeCounter => "negative counter",
            Misuse::Overflow => "counter overflow",
        })
    }
}

impl std::error::Error for Misuse {}
