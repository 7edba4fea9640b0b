//! The runtime as its users see it, with four processors, as on a free-threaded build of CPython.

#![allow(missing_docs)]

const PROCESSORS: usize = 4;

mod common;
