//! Go's concurrency model for a hosted language: goroutines on their own C stacks, a scheduler, channels, select, timers,
//! locks, and a pool for blocking calls. This crate does not know Python; see [`host`] for what it asks of its host.
//!
//! A goroutine is scheduled onto a machine (an OS thread) that holds a processor (the right to run goroutines). `scheduler`
//! spawns and parks, `machine` runs, `monitor` hands processors on, `park` decides how a wait ends. Each file opens with its
//! invariants.

pub mod alarm;
pub mod blocking;
pub mod chan;
pub mod clock;
mod dump;
pub mod error;
pub mod fork;
pub mod goroutine;
pub mod host;
mod lock;
mod machine;
mod monitor;
mod park;
mod processor;
mod run_queue;
pub mod scheduler;
pub mod select;
pub mod stack;
mod switch;
pub mod sync;
mod thread;
mod timer;
mod wait_queue;
