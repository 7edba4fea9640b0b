//! A chunk of events: one writes, another looks at any moment.

use crate::trace::{Chunk, WORDS};
use loom::thread;
use std::sync::Arc;

#[test]
fn what_is_published_is_whole() {
    loom::model(|| {
        let chunk = Arc::new(Chunk::new(1, 1, 0));
        let writer = {
            let chunk = chunk.clone();
            thread::spawn(move || {
                for at in 0..WORDS {
                    chunk.put(at, at as u64 + 1);
                    chunk.publish(at + 1);
                }
            })
        };
        let seen = chunk.read();
        assert!(seen.iter().copied().eq(1..=seen.len() as u64), "a word is read before it was written");
        writer.join().unwrap();
        assert_eq!(chunk.read().len(), WORDS);
    });
}
