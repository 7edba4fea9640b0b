"""Random channel programs against a naive model: the differential test of channels and select.

A program is a list of steps: "goroutine 2 sends on channel 1", "channel 0 is closed", "goroutine 0 is
cancelled". The driver, the main goroutine, gives one step to one worker at a time and waits until
every worker has come to rest: it has answered, or it is parked. The same step goes to the model, which
is written to be obviously right: lists, no locks, no wake-ups, one operation after the other.

Invariants:

* A step runs from rest to rest, so the outcome depends on the order of steps alone, except for the
  choice that select makes. There the model gives every allowed outcome and takes over the real one.
* After each step the workers that answered are exactly those that the model says, with the same
  answers, and the lengths, states and numbers of waiters of all channels are the same.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import offset
from helpers import FREE_THREADED, main_goroutine, wait_ended, wait_until
from hypothesis import strategies as st
from offset import ChannelClosed, WouldBlock, default, go, makechan, nilchan, select

WORKERS = 4
CHANNELS = 3
NIL = -1

# The answers that are no values.
CLOSED = "raised ChannelClosed"
WOULD_BLOCK = "raised WouldBlock"
TIMED_OUT = "raised TimeoutError"
DEFAULT = "chose default"
DONE = "done"
ENDED = ("the end", False)


# ---- programs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One case of a select: send (with a value that the driver fills in) or receive."""

    channel: int
    sends: bool


@dataclass(frozen=True)
class Step:
    """What one worker does next; `cancel` is done to it by the driver."""

    worker: int
    operation: str
    channel: int = 0
    cases: tuple[Case, ...] = ()


channel_numbers = st.integers(0, CHANNELS - 1)
channels_or_nil = st.sampled_from([*range(CHANNELS), NIL])
workers = st.integers(0, WORKERS - 1)
cases = st.lists(st.builds(Case, channels_or_nil, st.booleans()), max_size=4).map(tuple)

steps = st.one_of(
    st.builds(
        Step,
        workers,
        st.sampled_from(["send", "recv", "recv_ok", "try_send", "try_recv", "hasty send", "hasty recv"]),
        channels_or_nil,
    ),
    st.builds(Step, workers, st.sampled_from(["select", "select default", "hasty select"]), st.just(0), cases),
    st.builds(Step, workers, st.just("close"), channel_numbers),
    st.builds(Step, workers, st.just("cancel")),
)

programs = st.tuples(
    st.lists(st.integers(0, 3), min_size=CHANNELS, max_size=CHANNELS),
    st.lists(steps, min_size=1, max_size=40),
)


# ---- the model -------------------------------------------------------------------------------


@dataclass
class Waiter:
    """An operation that waits: its worker, and the cases of which one will happen."""

    worker: int
    cases: list[tuple[Case, Any]]
    # How the answer is made from (index, value, ok).
    answer: Any


@dataclass
class ModelChannel:
    """A channel as the language defines it."""

    capacity: int
    buffer: deque[Any] = field(default_factory=deque)
    closed: bool = False


class Model:
    """What the channels and the workers do, one operation at a time.

    `waiting` holds every waiter in the order of arrival; it is all the queues at once.
    """

    def __init__(self, capacities: list[int]) -> None:
        self.channels = [ModelChannel(capacity) for capacity in capacities]
        self.waiting: list[Waiter] = []

    def partners(self, channel: int, sends: bool) -> list[tuple[Waiter, list[int]]]:
        """The waiters with such a case on the channel, first come first, and which cases fit."""
        found = []
        for waiter in self.waiting:
            fitting = [
                index for index, (case, _) in enumerate(waiter.cases) if case.channel == channel and case.sends == sends
            ]
            if fitting:
                found.append((waiter, fitting))
        return found

    def can_happen(self, case: Case) -> bool:
        """Would this case go on at once? A send on a closed channel does: it raises."""
        if case.channel == NIL:
            return False
        channel = self.channels[case.channel]
        if channel.closed:
            return True
        if case.sends:
            return len(channel.buffer) < channel.capacity or bool(self.partners(case.channel, sends=False))
        return bool(channel.buffer) or bool(self.partners(case.channel, sends=True))

    def outcomes(self, case: Case, index: int, value: Any) -> list[tuple[Any, dict[int, Any], Any]]:
        """Every way in which a case that can happen may happen now.

        Each is (what the operation gives, what it makes others answer, how to take it over).
        """
        channel = self.channels[case.channel]
        if case.sends:
            if channel.closed:
                return [(CLOSED, {}, lambda: None)]
            partners = self.partners(case.channel, sends=False)
            if not partners:
                return [((index, None, None), {}, lambda: channel.buffer.append(value))]
            # The first in the queue is served; which of its own equal cases is free to choose.
            first, fitting = partners[0]
            return [
                (
                    (index, None, None),
                    {first.worker: first.answer(mine, value, True)},
                    lambda: self.waiting.remove(first),
                )
                for mine in fitting
            ]
        partners = [] if channel.closed else self.partners(case.channel, sends=True)
        if not partners:
            if not channel.buffer:
                return [((index, None, False), {}, lambda: None)]
            return [((index, channel.buffer[0], True), {}, channel.buffer.popleft)]
        first, fitting = partners[0]
        found = []
        for theirs in fitting:
            sent = first.cases[theirs][1]

            def take_over(sent: Any = sent) -> None:
                self.waiting.remove(first)
                if channel.capacity:
                    channel.buffer.popleft()
                    channel.buffer.append(sent)

            got = channel.buffer[0] if channel.capacity else sent
            found.append(((index, got, True), {first.worker: first.answer(theirs, None, None)}, take_over))
        return found

    def close(self, number: int) -> list[tuple[Any, dict[int, Any], Any]]:
        """Every way in which closing a channel may go: who waits on it is woken, all of them."""
        channel = self.channels[number]
        if channel.closed:
            return [(CLOSED, {}, lambda: None)]
        woken = [waiter for waiter in self.waiting if any(case.channel == number for case, _ in waiter.cases)]
        answers: list[dict[int, Any]] = [{}]
        for waiter in woken:
            possible = [
                CLOSED if case.sends else waiter.answer(index, None, False)
                for index, (case, _) in enumerate(waiter.cases)
                if case.channel == number
            ]
            answers = [{**chosen, waiter.worker: answer} for chosen in answers for answer in possible]

        def take_over() -> None:
            channel.closed = True
            for waiter in woken:
                self.waiting.remove(waiter)

        return [(DONE, chosen, take_over) for chosen in answers]

    def waiters(self, number: int, sends: bool) -> int:
        """How many cases are queued on one side of a channel."""
        return sum(case == Case(number, sends) for waiter in self.waiting for case, _ in waiter.cases)


# How an operation's answer is made from what happened to it.


def answer_of_send(index: int, value: Any, ok: Any) -> Any:
    return DONE


def answer_of_recv(index: int, value: Any, ok: Any) -> Any:
    return value if ok else CLOSED


def answer_of_recv_ok(index: int, value: Any, ok: Any) -> Any:
    return (value, True) if ok else ENDED


def answer_of_select(index: int, value: Any, ok: Any) -> Any:
    return (index, value, ok)


ANSWERS = {
    "send": answer_of_send,
    "hasty send": answer_of_send,
    "try_send": lambda index, value, ok: True,
    "recv": answer_of_recv,
    "hasty recv": answer_of_recv,
    "recv_ok": answer_of_recv_ok,
    "try_recv": answer_of_recv_ok,
    "select": answer_of_select,
    "select default": answer_of_select,
    "hasty select": answer_of_select,
}

# What an operation that does not wait answers when it cannot happen; None means that it waits.
REFUSALS = {
    "try_send": False,
    "try_recv": WOULD_BLOCK,
    "hasty send": TIMED_OUT,
    "hasty recv": TIMED_OUT,
    "select default": DEFAULT,
    "hasty select": TIMED_OUT,
}


# ---- the real thing --------------------------------------------------------------------------


def perform(channel: Any, operation: str, value: Any, selected: list[Any]) -> Any:
    """Do one step of a worker on real channels and put what happened into a word or a tuple."""
    try:
        if operation == "send":
            return DONE if channel.send(value) is None else "a send gave something"
        if operation == "hasty send":
            return DONE if channel.send(value, timeout=0) is None else "a send gave something"
        if operation == "recv":
            return channel.recv()
        if operation == "hasty recv":
            return channel.recv(timeout=0)
        if operation in ("recv_ok", "try_recv"):
            received, ok = getattr(channel, operation)()
            return (received, True) if ok else ENDED if received is None else "a value at the end"
        if operation == "try_send":
            return channel.try_send(value)
        if operation == "close":
            return DONE if channel.close() is None else "a close gave something"
        extra = [default] if operation == "select default" else []
        chosen = select(*selected, *extra, timeout=0 if operation == "hasty select" else None)
        if chosen is default:
            return DEFAULT
        assert chosen is selected[chosen.index]
        # A send has neither value nor ok; what its attributes say then is not the model's business.
        return chosen.index, chosen
    except ChannelClosed:
        return CLOSED
    except WouldBlock:
        return WOULD_BLOCK
    except TimeoutError:
        return TIMED_OUT


class Worker:
    """A goroutine that does one step after another, and what the driver sees of it."""

    def __init__(self) -> None:
        self.orders = makechan()
        self.begun = 0
        self.given = 0
        self.answers: list[Any] = []
        self.handle = go(self.work)

    def work(self) -> None:
        for channel, operation, value, selected in self.orders:
            self.begun += 1
            answer = perform(channel, operation, value, selected)
            if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], offset.Case):
                index, chosen = answer
                received = self.receives[index]
                answer = (index, chosen.value if received else None, chosen.ok if received else None)
            self.answers.append(answer)

    def order(self, channel: Any, operation: str, value: Any, selected: list[Any], receives: list[bool]) -> None:
        """Begin a step."""
        self.receives = receives
        self.given += 1
        self.orders.send((channel, operation, value, selected))

    def at_rest(self) -> bool:
        """Has the last step been answered, or does it wait?"""
        if self.begun < self.given:
            return False
        return len(self.answers) == self.given or self.handle.wait_reason is not None


class Driver:
    """Runs a program on real channels and on the model at once."""

    def __init__(self, capacities: list[int]) -> None:
        self.model = Model(capacities)
        self.channels = [makechan(capacity, label=str(n)) for n, capacity in enumerate(capacities)]
        self.workers = [Worker() for _ in range(WORKERS)]
        self.next_value = 0

    def value(self) -> Any:
        """A value that no other send has."""
        self.next_value += 1
        return f"value {self.next_value}"

    def real(self, number: int) -> Any:
        return nilchan if number == NIL else self.channels[number]

    def step(self, step: Step) -> None:
        """Do one step on both sides and compare."""
        busy = any(waiter.worker == step.worker for waiter in self.model.waiting)
        if step.operation == "cancel":
            if busy:
                self.cancel(step.worker)
        elif not busy:
            self.operate(step)
        self.compare()

    def cancel(self, number: int) -> None:
        """End a worker in the middle of its wait, and put a fresh one in its place."""
        self.workers[number].handle.cancel()
        wait_ended(self.workers[number].handle)
        self.model.waiting = [each for each in self.model.waiting if each.worker != number]
        self.workers[number] = Worker()

    def operate(self, step: Step) -> None:
        worker = self.workers[step.worker]
        selects = "select" in step.operation
        chosen = step.cases if selects else (Case(step.channel, "send" in step.operation),)
        valued = [(case, self.value() if case.sends else None) for case in chosen]
        selected = []
        for case, value in valued if selects else []:
            channel = self.real(case.channel)
            selected.append(channel.if_send(value) if case.sends else channel.if_recv())
        value = valued[0][1] if valued else None
        receives = [not case.sends for case in chosen]
        expected = self.expected(step, valued)
        answered = {each: len(each.answers) for each in self.workers}
        worker.order(self.real(step.channel), step.operation, value, selected, receives)
        self.wait_for_rest(answered, expected)
        real = {
            number: each.answers[answered[each]]
            for number, each in enumerate(self.workers)
            if len(each.answers) > answered[each]
        }
        assert all(len(each.answers) <= count + 1 for each, count in answered.items())
        for answers, take_over in expected:
            if answers == real:
                take_over()
                return
        raise AssertionError(f"{step} gave {real}; allowed: {[answers for answers, _ in expected]}")

    def expected(self, step: Step, valued: list[tuple[Case, Any]]) -> list[tuple[dict[int, Any], Any]]:
        """Every allowed outcome: what each worker answers, and how the model takes it over."""
        if step.operation == "close":
            found = self.model.close(step.channel)
            return [({step.worker: own, **others}, take_over) for own, others, take_over in found]
        answer = ANSWERS[step.operation]
        allowed = []
        for index, (case, value) in enumerate(valued):
            if not self.model.can_happen(case):
                continue
            for own, others, take_over in self.model.outcomes(case, index, value):
                mine = own if own is CLOSED else answer(*own)
                allowed.append(({step.worker: mine, **others}, take_over))
        if allowed:
            return allowed
        if step.operation in REFUSALS:
            return [({step.worker: REFUSALS[step.operation]}, lambda: None)]
        waiter = Waiter(step.worker, valued, answer)
        return [({}, lambda: self.model.waiting.append(waiter))]

    def wait_for_rest(self, answered: dict[Worker, int], expected: list[tuple[dict[int, Any], Any]]) -> None:
        """Let everything that this step can bring about happen.

        A worker that was woken is at rest when it has answered; that one should be is known from
        the model, and one that should not be woken is caught by the comparison, now or later.
        """
        wait_until(lambda: all(worker.at_rest() for worker in self.workers), "workers at rest")
        must = set(expected[0][0]).intersection(*[answers for answers, _ in expected])
        for number in must:
            worker = self.workers[number]
            wait_until(lambda worker=worker: len(worker.answers) > answered[worker], f"an answer of {number}")
        if len({frozenset(answers) for answers, _ in expected}) > 1:
            # Who answers depends on select's choice: see which outcome is complete.
            wait_until(
                lambda: any(
                    all(len(self.workers[number].answers) > answered[self.workers[number]] for number in answers)
                    for answers, _ in self.matching(answered, expected)
                ),
                "the answers of one outcome",
            )

    def matching(
        self, answered: dict[Worker, int], expected: list[tuple[dict[int, Any], Any]]
    ) -> list[tuple[dict[int, Any], Any]]:
        """The outcomes that agree with the answers there are so far."""
        return [
            (answers, take_over)
            for answers, take_over in expected
            if all(
                number in answers and answers[number] == each.answers[answered[each]]
                for number, each in enumerate(self.workers)
                if len(each.answers) > answered[each]
            )
        ] or expected

    def compare(self) -> None:
        """The channels and the workers are what the model says."""
        for number, (real, model) in enumerate(zip(self.channels, self.model.channels, strict=True)):
            assert (len(real), real.closed, real.cap) == (len(model.buffer), model.closed, model.capacity)
            counts = real.stats()
            for key, sends in (("senders", True), ("receivers", False)):
                assert counts[key] == self.model.waiters(number, sends), f"{key} of channel {number}"
        waiting = {waiter.worker for waiter in self.model.waiting}
        for number, worker in enumerate(self.workers):
            assert (len(worker.answers) < worker.given) == (number in waiting), f"worker {number}"

    def finish(self) -> None:
        """End the workers and check that nothing came to light late."""
        for number in range(WORKERS):
            if any(waiter.worker == number for waiter in self.model.waiting):
                self.cancel(number)
        self.compare()
        for worker in self.workers:
            worker.orders.close()
        wait_ended(*[worker.handle for worker in self.workers])
        for real, model in zip(self.channels, self.model.channels, strict=True):
            if not model.closed:
                real.close()
            assert list(real) == list(model.buffer)


@main_goroutine
def drive(program: tuple[list[int], list[Step]]) -> None:
    capacities, todo = program
    driver = Driver(capacities)
    for step in todo:
        driver.step(step)
    driver.finish()


def seeded(test: Any) -> Any:
    """Let OFFSET_TEST_SEED choose the programs; without it hypothesis does, and says how to replay."""
    text = os.environ.get("OFFSET_TEST_SEED", "")
    return hypothesis.seed(int(text))(test) if text else test


@seeded
@hypothesis.settings(
    max_examples=int(os.environ.get("OFFSET_MODEL_EXAMPLES", "150" if FREE_THREADED else "600")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(programs)
def test_random_programs_do_what_the_model_says(program):
    drive(program)


def test_a_known_program():
    """The model and its driver see a run through all kinds of steps; a check of the checker."""
    drive(
        (
            [0, 1, 2],
            [
                Step(0, "send", 0),
                Step(1, "select", 0, (Case(1, False), Case(0, False))),
                Step(1, "select", 0, (Case(1, False), Case(0, False), Case(0, False))),
                Step(2, "recv_ok", 1),
                Step(3, "try_send", 1),
                Step(3, "try_send", 0),
                Step(1, "cancel"),
                Step(0, "send", 1),
                Step(0, "send", 1),
                Step(2, "recv", 1),
                Step(2, "hasty recv", NIL),
                Step(2, "select default", 0, (Case(NIL, True),)),
                Step(2, "select", 0, (Case(2, True), Case(2, False), Case(2, True))),
                Step(3, "recv", 0),
                Step(2, "select", 0, (Case(0, False), Case(0, False))),
                Step(0, "close", 0),
                Step(1, "try_send", 0),
                Step(1, "close", 0),
            ],
        )
    )
