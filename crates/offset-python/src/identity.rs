//! Virtual thread identity: whether CPython takes a goroutine for a thread of its own.
//!
//! The mechanism is `shim/identity.c`; this is the decision. It is taken once, before the first goroutine starts, and never
//! undone: an RLock that was taken under an identity must be released under the same.

#![expect(clippy::disallowed_types, reason = "the first caller is attached throughout, so nobody forks")]

use crate::shim;
use std::sync::OnceLock;

/// What the environment variable `OFFSET_THREAD_IDENTITY` and the platform made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A goroutine has an identity of its own: RLocks and their like see it as a thread, and it may be moved.
    Virtual,
    /// Turned off by `OFFSET_THREAD_IDENTITY=os`.
    Off,
    /// Not to be had here (musl, macOS, an interpreter that was linked in a way we do not know).
    Impossible,
}

impl Identity {
    /// One word for `runtime.stats()`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Identity::Virtual => "virtual",
            Identity::Off => "off",
            Identity::Impossible => "impossible",
        }
    }
}

static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Decides, at the first call; the decision afterwards.
///
/// # Safety
/// Attached, after [`shim::offset_setup`].
pub(crate) unsafe fn install() -> Identity {
    *IDENTITY.get_or_init(|| {
        if std::env::var_os("OFFSET_THREAD_IDENTITY").is_some_and(|value| value == "os") {
            return Identity::Off;
        }
        // SAFETY: set up, as the caller promises; `OnceLock` lets one thread in.
        match unsafe { shim::offset_identity_install() } {
            0 => Identity::Impossible,
            _ => Identity::Virtual,
        }
    })
}

/// The decision, if it has been taken.
pub(crate) fn decided() -> Option<Identity> {
    IDENTITY.get().copied()
}
