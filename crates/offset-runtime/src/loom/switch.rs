//! A coroutine is a thread that runs while its machine waits, and waits while its machine runs. One that never gives up its
//! stack needs no thread: it may run on its machine's, as loom has few.

use crate::lock::{Condvar, Lock, global, spawn};
use crate::machine;
use crate::stack::Stack;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

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

pub(crate) enum CoroutineResult<Y, R> {
    Yield(Y),
    Return(R),
}

/// Whose turn it is.
enum Turn {
    /// The goroutine's, as the current one of this machine.
    Goroutine(machine::Place),
    /// The machine's; None until the goroutine says what it wants, and again once that was taken.
    Machine(Option<CoroutineResult<Switch, ()>>),
}

struct Baton {
    turn: Lock<Turn>,
    changed: Condvar,
}

impl Baton {
    fn pass(&self, turn: Turn) {
        *self.turn.lock() = turn;
        self.changed.notify_one();
    }

    fn wait_on_machine(&self) -> CoroutineResult<Switch, ()> {
        let mut turn = self.turn.lock();
        loop {
            if let Turn::Machine(result) = &mut *turn
                && let Some(result) = result.take()
            {
                return result;
            }
            self.changed.wait(&mut turn);
        }
    }

    fn wait_on_goroutine(&self) {
        let mut turn = self.turn.lock();
        loop {
            if let Turn::Goroutine(place) = &*turn {
                place.take();
                return;
            }
            self.changed.wait(&mut turn);
        }
    }
}

pub(crate) struct Yielder(Arc<Baton>);

impl Yielder {
    pub(crate) fn suspend(&self, switch: Switch) {
        self.0.pass(Turn::Machine(Some(CoroutineResult::Yield(switch))));
        self.0.wait_on_goroutine();
    }
}

type Body = Box<dyn FnOnce(&Yielder, ()) + Send>;

global! {
    /// The numbers of the goroutines that run on their machines' threads.
    static WITHOUT_THREAD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
}

/// The goroutine of that number will never give up its stack.
pub(crate) fn without_thread(id: u64) {
    WITHOUT_THREAD.lock().unwrap().insert(id);
}

fn has_thread() -> bool {
    let id = crate::scheduler::current().map_or(0, |goroutine| goroutine.id());
    !WITHOUT_THREAD.lock().unwrap().contains(&id)
}

pub(crate) struct Coroutine {
    baton: Arc<Baton>,
    /// Until it starts.
    body: Option<Body>,
    stack: Stack,
}

impl Coroutine {
    pub(crate) fn with_stack(stack: Stack, body: impl FnOnce(&Yielder, ()) + Send + 'static) -> Coroutine {
        let baton = Arc::new(Baton { turn: Lock::new(Turn::Machine(None)), changed: Condvar::new() });
        Coroutine { baton, body: Some(Box::new(body)), stack }
    }

    pub(crate) fn resume(&mut self, (): ()) -> CoroutineResult<Switch, ()> {
        if let Some(body) = self.body.take() {
            let yielder = Yielder(self.baton.clone());
            if !has_thread() {
                body(&yielder, ());
                return CoroutineResult::Return(());
            }
            spawn("goroutine", 0, move || {
                yielder.0.wait_on_goroutine();
                body(&yielder, ());
                yielder.0.pass(Turn::Machine(Some(CoroutineResult::Return(()))));
            });
        }
        self.baton.pass(Turn::Goroutine(machine::Place::here()));
        self.baton.wait_on_machine()
    }

    pub(crate) fn into_stack(self) -> Stack {
        self.stack
    }
}

/// An address on the stack of the caller.
pub(crate) fn here() -> usize {
    1
}
