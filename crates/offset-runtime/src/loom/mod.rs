//! What stands in for the parts of the runtime that loom cannot look into, and the models.
//!
//! A goroutine's stack is a thread of its own that runs when its machine lets it (`switch`), the clock stands still until
//! the model says that all time is over (`clock`), and the model itself plays the monitor. All the rest is the real code.
//! loom allows five threads a model, and goes through their interleavings with a bounded number of preemptions
//! (`LOOM_MAX_PREEMPTIONS`); queues and counts are as small as the edges that they are to reach.

pub mod clock;
pub(crate) mod kernel;
pub(crate) mod monitor;
pub mod stack;
pub(crate) mod switch;

#[cfg(test)]
mod harness;

#[cfg(test)]
mod chan;
#[cfg(test)]
mod futex;
#[cfg(test)]
mod handoff;
#[cfg(test)]
mod park;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod select;
#[cfg(test)]
mod sync;
