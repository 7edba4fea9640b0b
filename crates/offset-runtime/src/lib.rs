//! Go's concurrency model for a hosted language: goroutines on their own C stacks, a scheduler, channels, select, timers,
//! locks, and a pool for blocking calls. This crate does not know Python; see [`host`] for what it asks of its host.
//!
//! A goroutine is scheduled onto a machine (an OS thread) that holds a processor (the right to run goroutines). `scheduler`
//! spawns and parks, `machine` runs, `monitor` hands processors on, `park` decides how a wait ends. Each file opens with its
//! invariants.

// The monitor's policy and a fork have tests, and no model.
#![cfg_attr(loom, allow(dead_code))]

pub mod alarm;
mod bed;
pub mod blocking;
pub mod bubble;
pub mod chan;
#[cfg(not(loom))]
pub mod clock;
mod dump;
pub mod error;
pub mod fd;
pub mod fork;
mod futex;
pub mod goroutine;
pub mod host;
pub mod http;
mod inbox;
pub mod lock;
#[cfg(loom)]
mod loom;
mod machine;
#[cfg(not(loom))]
mod monitor;
#[cfg(not(loom))]
mod netpoll;
#[cfg(not(loom))]
pub mod os;
mod park;
mod processor;
mod run_queue;
pub mod scheduler;
pub mod select;
#[cfg(not(loom))]
pub mod signal;
#[cfg(not(loom))]
pub mod stack;
#[cfg(not(loom))]
mod switch;
pub mod sync;
pub mod task;
mod thread;
mod timer;
pub mod trace;
pub mod vigil;
mod wait_queue;

#[cfg(loom)]
pub use self::loom::{clock, stack};
#[cfg(loom)]
use self::loom::{monitor, netpoll, switch};
