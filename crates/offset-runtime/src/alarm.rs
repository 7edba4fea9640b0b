//! Timers that a program holds: those that send the time on a channel, and those that start a goroutine.
//!
//! Go 1.23's rules: after `stop` or `reset` has returned, no value of an earlier setting is received. What decides is `live`,
//! the turn (see `timer`) that may ring, which changes under the channel's lock together with the heap.

use crate::bubble;
use crate::chan::Chan;
use crate::clock::Instant;
use crate::goroutine::Handle;
use crate::lock::Lock;
use crate::lock::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::scheduler::{runtime, start, wake_up};
use crate::timer::{Alarm, Node};
use std::sync::Arc;

/// Sends the time on a channel, once or again and again.
pub struct ChanTimer<T> {
    node: Node,
    chan: Arc<Chan<T>>,
    /// Makes the value that is sent; runs without the host.
    value: fn(Instant) -> T,
    /// The turn that may ring, 0 for none. Under the channel's lock.
    live: AtomicU64,
    /// Whether that turn has rung. Under the channel's lock.
    rung: AtomicBool,
    /// When the latest value was made. Under the channel's lock.
    latest: AtomicU64,
    /// It belongs to the bubble's clock.
    bubbled: bool,
}

impl<T: Send + 'static> ChanTimer<T> {
    /// A timer that is not set. `chan` must buffer one value and be used for nothing else.
    pub fn new(chan: Arc<Chan<T>>, value: fn(Instant) -> T) -> Arc<Self> {
        let (live, rung, latest) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(ChanTimer { node: Node::new(), chan, value, live, rung, latest, bubbled: bubble::inside() })
    }

    /// Sets it to `when`, and then to every `period` nanoseconds if that is not 0; false if it was not set before.
    pub fn reset(self: &Arc<Self>, when: Instant, period: u64) -> bool {
        let runtime = runtime();
        let alarm: Arc<dyn Alarm> = self.clone();
        let mut state = self.chan.lock();
        let stale = state.buffer.pop_front();
        let pending = self.live.load(Ordering::Relaxed) != 0 && !self.rung.load(Ordering::Relaxed);
        let timers = bubble::timers(runtime, self.bubbled);
        let (was_set, earliest) = timers.set(&alarm, when, period);
        self.live.store(timers.turn(&self.node), Ordering::Relaxed);
        self.rung.store(false, Ordering::Relaxed);
        drop(state);
        wake_up(runtime);
        if earliest {
            runtime.poke();
        }
        was_set || pending || stale.is_some()
    }

    /// Unsets it; false if it was not set, or its value has been received.
    pub fn stop(&self) -> bool {
        let mut state = self.chan.lock();
        let stale = state.buffer.pop_front();
        let pending = self.live.swap(0, Ordering::Relaxed) != 0 && !self.rung.load(Ordering::Relaxed);
        let removed = bubble::timers(runtime(), self.bubbled).remove(&self.node);
        drop(state);
        removed || pending || stale.is_some()
    }
}

impl<T: Send + 'static> Alarm for ChanTimer<T> {
    fn node(&self) -> &Node {
        &self.node
    }

    fn ring(&self, turn: u64, now: Instant) {
        let mut state = self.chan.lock();
        if self.live.load(Ordering::Relaxed) != turn {
            return;
        }
        self.rung.store(true, Ordering::Relaxed);
        // A tick that nobody has taken yet stands for the later ones.
        if !state.buffer.is_empty() {
            return;
        }
        // Nobody holds the heap any more: another machine may have rung for the next period before this one came here. Time does not
        // go back for who receives (`ticks_do_not_go_back`).
        if now < self.latest.load(Ordering::Relaxed) {
            return;
        }
        self.latest.store(now, Ordering::Relaxed);
        let claim = state.offer((self.value)(now), 1).ok().flatten();
        drop(state);
        if let Some(claim) = claim {
            claim.wake();
        }
    }
}

/// Starts a goroutine.
pub struct FuncTimer {
    node: Node,
    state: Lock<FuncState>,
    /// It belongs to the bubble's clock.
    bubbled: bool,
}

struct FuncState {
    /// Prepared, not started.
    goroutine: Option<Handle>,
    live: u64,
}

impl FuncTimer {
    /// A timer that is not set.
    pub fn new() -> Arc<Self> {
        let state = Lock::new(FuncState { goroutine: None, live: 0 });
        Arc::new(FuncTimer { node: Node::new(), state, bubbled: bubble::inside() })
    }

    /// Sets it to start `goroutine`, a prepared one, at `when`. Gives the one that it was set to start before; that will
    /// never be started.
    pub fn reset(self: &Arc<Self>, goroutine: Handle, when: Instant) -> Option<Handle> {
        let runtime = runtime();
        let alarm: Arc<dyn Alarm> = self.clone();
        let mut state = self.state.lock();
        let before = state.goroutine.replace(goroutine);
        let timers = bubble::timers(runtime, self.bubbled);
        let (_, earliest) = timers.set(&alarm, when, 0);
        state.live = timers.turn(&self.node);
        drop(state);
        wake_up(runtime);
        if earliest {
            runtime.poke();
        }
        before
    }

    /// Unsets it; gives the goroutine that it was set to start.
    pub fn stop(&self) -> Option<Handle> {
        let mut state = self.state.lock();
        state.live = 0;
        bubble::timers(runtime(), self.bubbled).remove(&self.node);
        state.goroutine.take()
    }
}

impl Alarm for FuncTimer {
    fn node(&self) -> &Node {
        &self.node
    }

    fn ring(&self, turn: u64, _now: Instant) {
        let mut state = self.state.lock();
        if state.live != turn {
            return;
        }
        let goroutine = state.goroutine.take();
        drop(state);
        if let Some(goroutine) = goroutine {
            start(&goroutine);
        }
    }

    fn abandon(&self) -> Option<Handle> {
        let mut state = self.state.lock();
        state.live = 0;
        state.goroutine.take()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ticks_do_not_go_back() {
        let chan = Arc::new(Chan::new(1).unwrap());
        let timer = ChanTimer::new(chan.clone(), |instant| instant);
        timer.live.store(1, Ordering::Relaxed);
        // The machine that took the first period out of the heap rings after the one that took the second.
        timer.ring(1, 20);
        assert_eq!(chan.lock().buffer.pop_front(), Some(20));
        timer.ring(1, 10);
        assert_eq!(chan.lock().buffer.pop_front(), None);
        timer.ring(1, 20);
        assert_eq!(chan.lock().buffer.pop_front(), Some(20));
        timer.ring(1, 30);
        assert_eq!(chan.lock().buffer.pop_front(), Some(30));
    }
}
