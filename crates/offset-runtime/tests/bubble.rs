//! Bubbles with one processor, as with the GIL.

mod bubbles;

fn configure() {}
