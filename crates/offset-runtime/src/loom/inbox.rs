//! Signals on their way from a handler to who listens: none is lost, whoever ceases to listen at that moment.

use super::harness::{check_with, thread};
use crate::inbox::Inbox;
use std::sync::Arc;

/// An inbox where signal 1 is wanted, and a handler that it comes to.
fn signalled() -> (Arc<Inbox>, impl FnOnce() -> bool + Send + 'static) {
    let inbox = Arc::new(Inbox::new());
    inbox.want(1);
    let handler = {
        let inbox = inbox.clone();
        move || inbox.note(1)
    };
    (inbox, handler)
}

#[test]
fn what_was_noted_is_there_once_it_is_retired() {
    check_with(3, || {
        let (inbox, handler) = signalled();
        let handler = thread(handler);
        inbox.retire(1);
        let taken = inbox.take();
        let noted = handler.join().unwrap();
        assert_eq!(noted, taken == 1, "it was noted, and was not there");
        assert_eq!(inbox.take(), 0, "it was noted after it had been retired");
    });
}

#[test]
fn what_was_noted_is_not_slept_through() {
    check_with(3, || {
        let (inbox, handler) = signalled();
        let handler = thread(handler);
        loop {
            let seen = inbox.count();
            if inbox.take() == 1 {
                break;
            }
            inbox.sleep(seen);
        }
        assert!(handler.join().unwrap());
    });
}

#[test]
fn another_signal_goes_on_being_wanted() {
    check_with(2, || {
        let (inbox, handler) = signalled();
        inbox.want(2);
        let handlers = [thread(handler), {
            let inbox = inbox.clone();
            thread(move || inbox.note(2))
        }];
        inbox.retire(1);
        let taken = inbox.take();
        let noted = handlers.map(|handler| handler.join().unwrap());
        assert_eq!(noted[0], taken & 1 == 1);
        assert!(noted[1]);
        assert_eq!(taken | inbox.take(), 2 | u64::from(noted[0]));
    });
}
