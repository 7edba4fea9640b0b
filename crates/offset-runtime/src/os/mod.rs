//! What differs between the operating systems: where a thread sleeps on a word, what wakes a poller, the clocks of threads.
//!
//! Linux is what the project is tested on. macOS is compiled only (`make macos`): what stands there is by the system's own documentation,
//! and has never run.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "linux")]
pub use linux::{accept, errno, family, is_main_thread};

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;
#[cfg(target_os = "macos")]
pub use macos::{accept, errno, family, is_main_thread};

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("offset runs on Linux and compiles for macOS; for another system its part of `os` has to be written");
