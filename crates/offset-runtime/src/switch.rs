//! The switch between a machine's stack and a goroutine's.
//!
//! corosensei does it; here are the two types, and the only two calls. No value is passed across but the [`Switch`] that
//! says what the goroutine wants.

use crate::stack::Stack;

/// What a goroutine wants when it gives up its stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Switch {
    /// To run again after the others.
    Yield,
    /// To sleep until its park word is claimed.
    Park,
    /// Nothing: this is the answer to whether its frames may move (see `Machine::let_it_look`).
    Answer(bool),
}

pub(crate) type Coroutine = corosensei::Coroutine<(), Switch, (), Stack>;
pub(crate) type Yielder = corosensei::Yielder<(), Switch>;
pub(crate) use corosensei::CoroutineResult;

/// An address on the stack of the caller, below which only its callees' frames lie.
#[inline(never)]
pub(crate) fn here() -> usize {
    let mark = 0u8;
    (&raw const mark) as usize
}
