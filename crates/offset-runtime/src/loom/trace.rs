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
                    // SAFETY: the one writer, below WORDS.
                    unsafe {
                        chunk.put(at, 1);
                        chunk.publish(at + 1);
                        // The same, and more.
                        chunk.put(at, 2);
                    }
                }
            })
        };
        if let Some((last, others)) = chunk.read().split_last() {
            assert!([1, 2].contains(last), "a word is read before it was written");
            assert!(others.iter().all(|word| *word == 2), "a word is read that had been replaced before the next one");
        }
        writer.join().unwrap();
        assert_eq!(chunk.read(), [2; WORDS]);
    });
}
