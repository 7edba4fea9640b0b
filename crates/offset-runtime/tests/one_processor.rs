//! The runtime as its users see it, with one processor, as on a build of CPython with the GIL.

#![allow(missing_docs)]

const PROCESSORS: usize = 1;

mod common;
