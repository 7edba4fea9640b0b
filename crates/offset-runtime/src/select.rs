//! Select: one of several sends and receives happens, exactly one, chosen uniformly among those that are ready.
//!
//! All channels are locked in address order, each once; the cases are tried in a random order; if none is ready a waiter is
//! queued at each channel, and whoever claims the common ticket says by its code which case happened. Nothing is allocated
//! for up to [`INLINE`] cases. A task of an event loop goes the same three steps (`attempt`, `enqueue`, `conclude`), with a wait of its own
//! between the last two (see `task`).

use crate::chan::{Chan, State, Wait};
use crate::clock::{now, seed};
use crate::goroutine::WaitReason;
use crate::lock::{Cell, Guard, local};
use crate::park::{CANCELLED, Code, TIMED_OUT};
use crate::scheduler::Party;
use crate::wait_queue::Waiter;

/// Cases that are kept on the caller's stack.
pub const INLINE: usize = 8;

/// One case.
pub enum Case<'a, T> {
    /// Sends the value; it is taken when the case happens.
    Send(&'a Chan<T>, Option<T>),
    /// Receives.
    Recv(&'a Chan<T>),
    /// Never ready: a nil channel.
    Never,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Selected<T> {
    /// This case received a value, or found the channel closed and drained (None).
    Received(usize, Option<T>),
    /// This case sent its value.
    Sent(usize),
    /// This case would have sent, but the channel is closed.
    SendClosed(usize),
    /// No case was ready in time.
    TimedOut,
    /// The goroutine was cancelled while it waited.
    Cancelled,
}

impl<'a, T> Case<'a, T> {
    fn chan(&self) -> Option<&'a Chan<T>> {
        match self {
            Case::Send(chan, _) | Case::Recv(chan) => Some(chan),
            Case::Never => None,
        }
    }
}

/// A list of up to `INLINE` things in place, or any number on the heap.
pub(crate) enum List<T> {
    Inline([Option<T>; INLINE], usize),
    Heap(Vec<Option<T>>),
}

impl<T> List<T> {
    fn new(capacity: usize) -> Self {
        if capacity <= INLINE {
            List::Inline([const { None }; INLINE], 0)
        } else {
            List::Heap(Vec::with_capacity(capacity))
        }
    }

    fn push(&mut self, value: T) {
        match self {
            List::Inline(items, len) => {
                items[*len] = Some(value);
                *len += 1;
            }
            List::Heap(items) => items.push(Some(value)),
        }
    }

    fn items(&mut self) -> &mut [Option<T>] {
        match self {
            List::Inline(items, len) => &mut items[..*len],
            List::Heap(items) => items,
        }
    }
}

local! {
    static RANDOM: Cell<u64> = Cell::new(0);
}

/// A number below `bound`, from a generator of the calling OS thread.
#[inline(never)]
fn random(bound: usize) -> usize {
    if let Some(chosen) = crate::bubble::chosen(bound) {
        return chosen;
    }
    RANDOM.with(|state| {
        let mut x = state.get();
        if x == 0 {
            x = seed();
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        // The high half of a 32-bit product: uniform enough for any number of cases.
        (((x >> 32) * bound as u64) >> 32) as usize
    })
}

/// Locks every channel of `cases` once, in address order.
fn lock_all<'a, T>(cases: &[Case<'a, T>]) -> List<(*const Chan<T>, Guard<'a, State<T>>)> {
    let mut guards = List::new(cases.len());
    let mut last: *const Chan<T> = std::ptr::null();
    loop {
        // Quadratic, and faster than sorting for the handful of cases that a select has.
        let next = cases
            .iter()
            .filter_map(Case::chan)
            .filter(|chan| std::ptr::from_ref(*chan) > last)
            .min_by_key(|chan| std::ptr::from_ref(*chan));
        let Some(next) = next else { return guards };
        last = next;
        guards.push((last, next.lock()));
    }
}

fn state<'g, 'a, T>(guards: &'g mut List<(*const Chan<T>, Guard<'a, State<T>>)>, chan: &Chan<T>) -> &'g mut State<T> {
    let found = guards.items().iter_mut().flatten().find(|(address, _)| std::ptr::eq(*address, chan));
    match found {
        Some((_, guard)) => guard,
        None => unreachable!("all channels were locked"),
    }
}

/// The locks of a select's channels, and the order in which its cases are tried.
pub(crate) type Attempt<'a, T> = (List<(*const Chan<T>, Guard<'a, State<T>>)>, List<usize>);

/// Does one of `cases` if one is ready; else gives the locks, under which none is.
#[inline(always)]
#[expect(clippy::result_large_err, reason = "it is inlined, and what is large stays where it is")]
pub(crate) fn attempt<'a, T>(cases: &mut [Case<'a, T>]) -> Result<Selected<T>, Attempt<'a, T>> {
    let mut guards = lock_all(cases);
    // A uniform choice among the ready: each ready case is tried with the chance that makes all equal. Trying in a random
    // rotation would favour those behind many that are not ready, so the order is a partial shuffle of indices.
    let count = cases.len();
    let mut indices: List<usize> = List::new(count);
    for index in 0..count {
        indices.push(index);
    }
    let order = indices.items();
    for tried in 0..count {
        let pick = tried + random(count - tried);
        order.swap(tried, pick);
        let Some(index) = order[tried] else { continue };
        match &mut cases[index] {
            Case::Never => {}
            Case::Recv(chan) => {
                let state = state(&mut guards, chan);
                if let Some((value, claim)) = state.accept(chan.capacity()) {
                    drop(guards);
                    if let Some(claim) = claim {
                        claim.wake();
                    }
                    return Ok(Selected::Received(index, Some(value)));
                }
                if state.closed {
                    return Ok(Selected::Received(index, None));
                }
            }
            Case::Send(chan, value) => {
                let state = state(&mut guards, chan);
                if state.closed {
                    return Ok(Selected::SendClosed(index));
                }
                let Some(offered) = value.take() else { continue };
                match state.offer(offered, chan.capacity()) {
                    Ok(claim) => {
                        drop(guards);
                        if let Some(claim) = claim {
                            claim.wake();
                        }
                        return Ok(Selected::Sent(index));
                    }
                    Err(back) => *value = Some(back),
                }
            }
        }
    }
    Err((guards, indices))
}

/// Queues the waiters of `cases`, whose locks are held.
#[inline(always)]
pub(crate) fn enqueue<'w, T: 'w>(
    cases: &[Case<'_, T>],
    (guards, order): &mut Attempt<'_, T>,
    waiter: impl Fn(usize) -> &'w Waiter<T>,
) {
    // In the random order, so that none of several cases on one channel is preferred.
    for &mut index in order.items().iter_mut().flatten() {
        match &cases[index] {
            Case::Recv(chan) => state(guards, chan).receivers.push_back(waiter(index)),
            Case::Send(chan, _) => state(guards, chan).senders.push_back(waiter(index)),
            Case::Never => {}
        }
    }
}

/// After a wait that ended with `code`: takes the waiters out of their queues, and says what happened. Values that were not sent
/// are in their cases again.
#[inline(always)]
pub(crate) fn conclude<'w, T: 'w>(
    cases: &mut [Case<'_, T>],
    code: Code,
    waiter: impl Fn(usize) -> &'w Waiter<T>,
) -> Selected<T> {
    let mut guards = lock_all(cases);
    for (index, case) in cases.iter_mut().enumerate() {
        match case {
            Case::Recv(chan) => state(&mut guards, chan).receivers.remove(waiter(index)),
            Case::Send(chan, value) => {
                state(&mut guards, chan).senders.remove(waiter(index));
                *value = waiter(index).take();
            }
            Case::Never => {}
        }
    }
    drop(guards);
    match code {
        TIMED_OUT => Selected::TimedOut,
        CANCELLED => Selected::Cancelled,
        code => {
            let index = usize::from(code);
            let waiter = waiter(index);
            match &cases[index] {
                Case::Recv(_) => Selected::Received(index, waiter.take()),
                _ if waiter.granted() => Selected::Sent(index),
                _ => Selected::SendClosed(index),
            }
        }
    }
}

/// Does one of `cases`. With `Wait::No` and nothing ready, or after the deadline: `TimedOut`.
pub fn select<T>(cases: &mut [Case<'_, T>], wait: Wait) -> Selected<T> {
    let mut undone = match attempt(cases) {
        Ok(selected) => return selected,
        Err(undone) => undone,
    };
    let deadline = match wait {
        Wait::No => return Selected::TimedOut,
        Wait::Until(deadline) => deadline,
    };
    if deadline.is_some_and(|when| when <= now()) {
        return Selected::TimedOut;
    }
    let count = cases.len();
    let party = Party::new();
    let ticket = party.parker().arm();
    let mut waiters: List<Waiter<T>> = List::new(count);
    let mut any = false;
    for (index, case) in cases.iter_mut().enumerate() {
        let value = if let Case::Send(_, value) = case { value.take() } else { None };
        any |= case.chan().is_some();
        waiters.push(Waiter::new(party.parker(), ticket, index as u16, value));
    }
    // From here on the waiters stay where they are until all of them are out of the queues.
    let waiters = waiters.items();
    let waiter = |index: usize| match &waiters[index] {
        Some(waiter) => waiter,
        None => unreachable!("each case has a waiter"),
    };
    enqueue(cases, &mut undone, waiter);
    drop(undone);
    let reason = if any { WaitReason::Select } else { WaitReason::SelectNoCases };
    let addresses = cases.iter().map(|case| case.chan().map_or(0, Chan::address));
    let mut few = [0; INLINE];
    let many: Vec<usize>;
    let at = if count <= INLINE {
        few.iter_mut().zip(addresses).for_each(|(place, address)| *place = address);
        &few[..count]
    } else {
        many = addresses.collect();
        &many
    };
    let code = party.block(ticket, reason, at, deadline);
    conclude(cases, code, waiter)
}
