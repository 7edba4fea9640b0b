//! The model plays the monitor: it calls `Runtime::hand_off` itself.

pub(crate) fn start() {}
