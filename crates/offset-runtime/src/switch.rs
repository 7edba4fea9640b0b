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

#[cfg(not(tsan))]
pub(crate) type Coroutine = corosensei::Coroutine<(), Switch, (), Stack>;
#[cfg(tsan)]
pub(crate) use fiber::Coroutine;
pub(crate) type Yielder = corosensei::Yielder<(), Switch>;
pub(crate) use corosensei::CoroutineResult;

/// An address on the stack of the caller, below which only its callees' frames lie.
#[inline(never)]
pub(crate) fn here() -> usize {
    let mark = 0u8;
    (&raw const mark) as usize
}

#[cfg(tsan)]
mod fiber {
    //! A coroutine that tells the thread sanitizer of its switches: to it, a goroutine is a thread of its own.
    use super::{CoroutineResult, Stack, Switch, Yielder};
    use std::ffi::{c_uint, c_void};

    unsafe extern "C" {
        fn __tsan_get_current_fiber() -> *mut c_void;
        fn __tsan_create_fiber(flags: c_uint) -> *mut c_void;
        fn __tsan_destroy_fiber(fiber: *mut c_void);
        fn __tsan_switch_to_fiber(fiber: *mut c_void, flags: c_uint);
    }

    pub(crate) struct Coroutine {
        inner: corosensei::Coroutine<(), Switch, (), Stack>,
        fiber: *mut c_void,
    }

    impl Coroutine {
        pub(crate) fn with_stack(stack: Stack, body: impl FnOnce(&Yielder, ()) + 'static) -> Coroutine {
            let inner = corosensei::Coroutine::with_stack(stack, body);
            // SAFETY: the sanitizer's runtime is linked in; no flags.
            Coroutine { inner, fiber: unsafe { __tsan_create_fiber(0) } }
        }

        /// Both switches of the sanitizer are made here, on the machine's side. So each function that is entered on
        /// behalf of the goroutine is left on its behalf too, whatever was inlined, and the sanitizer's stacks stay even.
        pub(crate) fn resume(&mut self, (): ()) -> CoroutineResult<Switch, ()> {
            // SAFETY: the machine's fiber lives as long as its thread, ours until `into_stack`.
            unsafe {
                let machine = __tsan_get_current_fiber();
                __tsan_switch_to_fiber(self.fiber, 0);
                let result = self.inner.resume(());
                __tsan_switch_to_fiber(machine, 0);
                result
            }
        }

        pub(crate) fn into_stack(self) -> Stack {
            // SAFETY: the goroutine has ended, and this is the machine's fiber.
            unsafe { __tsan_destroy_fiber(self.fiber) };
            self.inner.into_stack()
        }
    }
}
