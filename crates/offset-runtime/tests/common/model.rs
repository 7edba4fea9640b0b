//! Random channel programs beside a naive model of Go's rules.
//!
//! A program is a list of operations on a few channels. Each is done by a party of its own, a goroutine or an OS thread, and the
//! next one starts when this one has ended or waits. So the model, which has no concurrency at all, knows who must end at
//! each step and with what; only a select may choose, among what the model says is ready. A program that fails is shrunk.
//!
//! `OFFSET_MODEL_CASES` says how many programs, `OFFSET_TEST_SEED` repeats a run; a failure prints both.

use super::{go, until};
use offset_runtime::chan::{Chan, Wait};
use offset_runtime::error::{RecvError, SendError};
use offset_runtime::goroutine::Handle;
use offset_runtime::select::{Case, Selected, select};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const CHANS: usize = 3;

#[derive(Clone, Debug)]
enum Action {
    Send(usize),
    Recv(usize),
    TrySend(usize),
    TryRecv(usize),
    Close(usize),
    /// Channel and whether to send; and whether to wait.
    Select(Vec<(usize, bool)>, bool),
    /// Cancels one of the goroutines that wait.
    Cancel(usize),
}

#[derive(Clone, Debug)]
struct Operation {
    thread: bool,
    action: Action,
}

/// How an operation ended. Values are the numbers of the operations that sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Sent(usize),
    Received(usize, usize),
    /// Found closed, by this case.
    Closed(usize),
    WouldBlock,
    Cancelled,
}

fn operations() -> impl Strategy<Value = (Vec<usize>, Vec<Operation>)> {
    let chan = 0..CHANS;
    let action = prop_oneof![
        4 => chan.clone().prop_map(Action::Send),
        4 => chan.clone().prop_map(Action::Recv),
        1 => chan.clone().prop_map(Action::TrySend),
        1 => chan.clone().prop_map(Action::TryRecv),
        1 => chan.clone().prop_map(Action::Close),
        4 => (prop::collection::vec((chan, any::<bool>()), 1..5), prop::bool::weighted(0.8))
            .prop_map(|(cases, wait)| Action::Select(cases, wait)),
        1 => (0..8usize).prop_map(Action::Cancel),
    ];
    let operation = (prop::bool::weighted(0.3), action).prop_map(|(thread, action)| Operation { thread, action });
    (prop::collection::vec(0..3usize, CHANS), prop::collection::vec(operation, 1..25))
}

// ---- the model -----------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct ModelChan {
    capacity: usize,
    buffer: VecDeque<usize>,
    /// Operations that wait to send and to receive.
    senders: VecDeque<usize>,
    receivers: VecDeque<usize>,
    closed: bool,
}

#[derive(Default)]
struct Model {
    chans: Vec<ModelChan>,
    /// The cases of those that wait.
    waiting: BTreeMap<usize, Vec<(usize, bool)>>,
}

/// What is to be seen of one who waited: any of these.
type Expected = Vec<(usize, Vec<Outcome>)>;

impl Model {
    /// Takes one who waited out of all queues; gives the cases that may have served it.
    fn leave(&mut self, party: usize, chan: usize, sends: bool) -> Vec<usize> {
        let cases = self.waiting.remove(&party).expect("it waits");
        for chan in &mut self.chans {
            chan.senders.retain(|&other| other != party);
            chan.receivers.retain(|&other| other != party);
        }
        (0..cases.len()).filter(|&index| cases[index] == (chan, sends)).collect()
    }

    fn ready(&self, (chan, sends): (usize, bool)) -> bool {
        let chan = &self.chans[chan];
        chan.closed
            || if sends {
                !chan.receivers.is_empty() || chan.buffer.len() < chan.capacity
            } else {
                !chan.senders.is_empty() || !chan.buffer.is_empty()
            }
    }

    /// Does a case that is ready: its outcome as case `index`, and whom it woke.
    fn perform(&mut self, party: usize, (at, sends): (usize, bool), index: usize) -> (Outcome, Expected) {
        let chan = &mut self.chans[at];
        if sends {
            if chan.closed {
                return (Outcome::Closed(index), vec![]);
            }
            if let Some(&receiver) = chan.receivers.front() {
                let cases = self.leave(receiver, at, false);
                let outcomes = cases.into_iter().map(|case| Outcome::Received(case, party)).collect();
                return (Outcome::Sent(index), vec![(receiver, outcomes)]);
            }
            chan.buffer.push_back(party);
            return (Outcome::Sent(index), vec![]);
        }
        let buffered = chan.buffer.pop_front();
        let sender = chan.senders.front().copied();
        let Some(value) = buffered.or(sender) else { return (Outcome::Closed(index), vec![]) };
        let mut woken = vec![];
        if let Some(sender) = sender {
            let cases = self.leave(sender, at, true);
            woken.push((sender, cases.into_iter().map(Outcome::Sent).collect()));
            if buffered.is_some() {
                self.chans[at].buffer.push_back(sender);
            }
        }
        (Outcome::Received(index, value), woken)
    }

    fn close(&mut self, at: usize) -> Expected {
        self.chans[at].closed = true;
        let mut woken = vec![];
        for sends in [false, true] {
            let chan = &mut self.chans[at];
            let mut queue = std::mem::take(if sends { &mut chan.senders } else { &mut chan.receivers });
            while let Some(party) = queue.pop_front() {
                if self.waiting.contains_key(&party) {
                    let cases = self.leave(party, at, sends);
                    woken.push((party, cases.into_iter().map(Outcome::Closed).collect()));
                }
            }
        }
        woken
    }

    fn wait(&mut self, party: usize, cases: &[(usize, bool)]) {
        for &(chan, sends) in cases {
            let chan = &mut self.chans[chan];
            if sends { &mut chan.senders } else { &mut chan.receivers }.push_back(party);
        }
        self.waiting.insert(party, cases.to_vec());
    }
}

// ---- the real thing ------------------------------------------------------------------------------------------------------

fn perform(chans: &[Chan<usize>], me: usize, action: &Action) -> Outcome {
    let ever = Wait::Until(None);
    let send = |chan: usize, wait| match chans[chan].send(me, wait) {
        Ok(()) => Outcome::Sent(0),
        Err(error) => {
            let (value, outcome) = match error {
                SendError::Closed(value) => (value, Outcome::Closed(0)),
                SendError::TimedOut(value) => (value, Outcome::WouldBlock),
                SendError::Cancelled(value) => (value, Outcome::Cancelled),
            };
            assert_eq!(value, me, "another value came back");
            outcome
        }
    };
    let recv = |chan: usize, wait| match chans[chan].recv(wait) {
        Ok(value) => Outcome::Received(0, value),
        Err(RecvError::Closed) => Outcome::Closed(0),
        Err(RecvError::TimedOut) => Outcome::WouldBlock,
        Err(RecvError::Cancelled) => Outcome::Cancelled,
    };
    match action {
        Action::Send(chan) => send(*chan, ever),
        Action::TrySend(chan) => send(*chan, Wait::No),
        Action::Recv(chan) => recv(*chan, ever),
        Action::TryRecv(chan) => recv(*chan, Wait::No),
        Action::Select(cases, waits) => {
            let case = |&(chan, sends): &(usize, bool)| {
                if sends { Case::Send(&chans[chan], Some(me)) } else { Case::Recv(&chans[chan]) }
            };
            let mut cases: Vec<_> = cases.iter().map(case).collect();
            let selected = select(&mut cases, if *waits { ever } else { Wait::No });
            let sent = if let Selected::Sent(index) = selected { Some(index) } else { None };
            for (index, case) in cases.iter().enumerate() {
                if let Case::Send(_, value) = case {
                    assert_eq!(
                        *value,
                        (sent != Some(index)).then_some(me),
                        "a value went with a case that did not happen"
                    );
                }
            }
            match selected {
                Selected::Sent(index) => Outcome::Sent(index),
                Selected::Received(index, Some(value)) => Outcome::Received(index, value),
                Selected::Received(index, None) | Selected::SendClosed(index) => Outcome::Closed(index),
                Selected::TimedOut => Outcome::WouldBlock,
                Selected::Cancelled => Outcome::Cancelled,
            }
        }
        Action::Close(_) | Action::Cancel(_) => unreachable!("done by the program itself"),
    }
}

struct Program {
    chans: Arc<Vec<Chan<usize>>>,
    model: Model,
    goroutines: BTreeMap<usize, Handle>,
    ended: Receiver<(usize, Outcome)>,
    end: Sender<(usize, Outcome)>,
}

type Check = Result<(), TestCaseError>;

impl Program {
    fn new(capacities: &[usize]) -> Program {
        let (end, ended) = channel();
        Program {
            chans: Arc::new(capacities.iter().map(|&capacity| Chan::new(capacity).unwrap()).collect()),
            model: Model {
                chans: capacities.iter().map(|&capacity| ModelChan { capacity, ..Default::default() }).collect(),
                waiting: BTreeMap::new(),
            },
            goroutines: BTreeMap::new(),
            ended,
            end,
        }
    }

    fn start(&mut self, party: usize, operation: &Operation) {
        let (chans, end, action) = (self.chans.clone(), self.end.clone(), operation.action.clone());
        let work = move || {
            let _ = end.send((party, perform(&chans, party, &action)));
        };
        if operation.thread {
            std::thread::spawn(work);
        } else {
            self.goroutines.insert(party, go(work));
        }
    }

    /// The ends that must come now, in any order, and no others.
    fn expect(&mut self, mut expected: Expected) -> Result<Vec<Outcome>, TestCaseError> {
        let mut outcomes = vec![];
        while !expected.is_empty() {
            let Ok((party, outcome)) = self.ended.recv_timeout(Duration::from_secs(60)) else {
                return Err(TestCaseError::fail(format!("these did not end within a minute: {expected:?}")));
            };
            let Some(index) = expected.iter().position(|(other, _)| *other == party) else {
                return Err(TestCaseError::fail(format!("{party} ended with {outcome:?}, wanted {expected:?}")));
            };
            let (_, wanted) = expected.swap_remove(index);
            prop_assert!(wanted.contains(&outcome), "{} ended with {:?}, wanted {:?}", party, outcome, wanted);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn cases(action: &Action) -> (Vec<(usize, bool)>, bool) {
        match action {
            Action::Send(chan) => (vec![(*chan, true)], true),
            Action::TrySend(chan) => (vec![(*chan, true)], false),
            Action::Recv(chan) => (vec![(*chan, false)], true),
            Action::TryRecv(chan) => (vec![(*chan, false)], false),
            Action::Select(cases, waits) => (cases.clone(), *waits),
            Action::Close(_) | Action::Cancel(_) => unreachable!("has no cases"),
        }
    }

    fn step(&mut self, party: usize, operation: &Operation) -> Check {
        match operation.action {
            Action::Close(chan) => {
                prop_assert_eq!(self.chans[chan].close().is_ok(), !self.model.chans[chan].closed);
                let woken = self.model.close(chan);
                self.expect(woken)?;
            }
            Action::Cancel(number) => {
                let waiting: Vec<_> =
                    self.model.waiting.keys().copied().filter(|party| self.goroutines.contains_key(party)).collect();
                if waiting.is_empty() {
                    return Ok(());
                }
                let victim = waiting[number % waiting.len()];
                self.model.leave(victim, usize::MAX, false);
                prop_assert!(self.goroutines[&victim].cancel(), "it waits");
                self.expect(vec![(victim, vec![Outcome::Cancelled])])?;
            }
            _ => {
                let (cases, waits) = Program::cases(&operation.action);
                let ready: Vec<_> = (0..cases.len()).filter(|&index| self.model.ready(cases[index])).collect();
                self.start(party, operation);
                if ready.is_empty() && waits {
                    self.model.wait(party, &cases);
                } else if ready.is_empty() {
                    self.expect(vec![(party, vec![Outcome::WouldBlock])])?;
                } else {
                    self.happen(party, &cases, &ready)?;
                }
            }
        }
        self.compare()
    }

    /// One of the cases that are ready happens, and wakes whom it must.
    fn happen(&mut self, party: usize, cases: &[(usize, bool)], ready: &[usize]) -> Check {
        // Who is woken may be heard of first.
        let mut early = vec![];
        let outcome = loop {
            let Ok((other, outcome)) = self.ended.recv_timeout(Duration::from_secs(60)) else {
                return Err(TestCaseError::fail(format!("{party} did not end within a minute")));
            };
            if other == party {
                break outcome;
            }
            early.push((other, outcome));
        };
        let (Outcome::Sent(index) | Outcome::Received(index, _) | Outcome::Closed(index)) = outcome else {
            return Err(TestCaseError::fail(format!("{party} ended with {outcome:?}, ready were {ready:?}")));
        };
        prop_assert!(ready.contains(&index), "{} ended with {:?}, ready were {:?}", party, outcome, ready);
        let (wanted, woken) = self.model.perform(party, cases[index], index);
        prop_assert_eq!(outcome, wanted, "by {}", party);
        for end in early {
            self.end.send(end).expect("we have the receiver");
        }
        self.expect(woken).map(drop)
    }

    /// Waits until as many wait as the model says, and compares what is buffered.
    fn compare(&mut self) -> Check {
        for (real, model) in self.chans.iter().zip(&self.model.chans) {
            let wanted = (model.senders.len(), model.receivers.len());
            until("as many wait as in the model", || {
                let (senders, receivers, _) = real.counts();
                (senders, receivers) == wanted
            });
            prop_assert_eq!(real.len(), model.buffer.len());
            prop_assert_eq!(real.is_closed(), model.closed);
        }
        Ok(())
    }

    /// Closes everything: all must end then.
    fn finish(&mut self) -> Check {
        for chan in 0..CHANS {
            if !self.model.chans[chan].closed {
                self.step(usize::MAX, &Operation { thread: false, action: Action::Close(chan) })?;
            }
        }
        prop_assert!(self.model.waiting.is_empty());
        let extra: Vec<_> = self.ended.try_iter().collect();
        prop_assert!(extra.is_empty(), "these ended twice: {:?}", extra);
        Ok(())
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn random_programs_do_what_the_model_does() {
    let cases = variable("OFFSET_MODEL_CASES").unwrap_or(150) as u32;
    let seed = variable("OFFSET_TEST_SEED").unwrap_or_else(offset_runtime::clock::now);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&operations(), |(capacities, operations)| {
        let mut program = Program::new(&capacities);
        for (party, operation) in operations.iter().enumerate() {
            program.step(party, operation)?;
        }
        program.finish()
    });
    if let Err(error) = result {
        panic!("OFFSET_TEST_SEED={seed} OFFSET_MODEL_CASES={cases}\n{error}");
    }
}
