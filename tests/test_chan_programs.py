"""Go's larger channel programs: the chain of goroutines, power series, bits through a select, the sieve.

They answer to goroutines.go, powser1.go, powser2.go, select.go, select2.go, sieve1.go and sieve2.go of
Go's test/chan. Invariant of this file: a program's result is exact, whatever the schedule.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import islice

import pytest
from helpers import main_goroutine, wait_ended
from offset import go, makechan, nilchan, select

# ---- test/chan/goroutines.go -----------------------------------------------------------------


@main_goroutine
def test_a_value_runs_through_ten_thousand_goroutines():
    def pass_on(left, right):
        left.send(right.recv())

    leftmost = right = makechan()
    for _ in range(10_000):
        left, right = right, makechan()
        go(pass_on, left, right)
    go(right.send, "through")
    assert leftmost.recv() == "through"


# ---- test/chan/powser1.go, powser2.go --------------------------------------------------------


class Series:
    """A power series: a channel along which rational coefficients flow, made by goroutines.

    McIlroy's "Squinting at Power Series", with closed channels where a finite series ends. All
    goroutines of the series end with the run they belong to.
    """

    def __init__(self, generate):
        self.channel = makechan()
        go(self._flow, generate)

    def _flow(self, generate):
        for coefficient in generate():
            self.channel.send(Fraction(coefficient))
        self.channel.close()

    def __iter__(self):
        return iter(self.channel)

    def first(self, count):
        """The next `count` coefficients, fewer if the series ends."""
        return list(islice(self, count))

    def split(self):
        """Two series with the coefficients of this one, to be read at different speeds."""
        left, right = makechan(), makechan()

        def serve():
            held = {left: [], right: []}
            source = self.channel
            while source is not nilchan or any(held.values()):
                cases = [source.if_recv() if not all(held.values()) else nilchan.if_recv()]
                cases += [
                    channel.if_send(queue[0]) if queue else nilchan.if_send(None) for channel, queue in held.items()
                ]
                case = select(*cases)
                if case.index:
                    held[(left, right)[case.index - 1]].pop(0)
                elif case.ok:
                    for queue in held.values():
                        queue.append(case.value)
                else:
                    source = nilchan
                for channel, queue in held.items():
                    if source is nilchan and not queue and not channel.closed:
                        channel.close()

        go(serve)
        return Series.of(left), Series.of(right)

    @classmethod
    def of(cls, channel):
        """The series whose coefficients come from `channel`."""
        series = cls.__new__(cls)
        series.channel = channel
        return series

    def __add__(self, other):
        def generate():
            mine, yours = iter(self), iter(other)
            while True:
                pair = (next(mine, None), next(yours, None))
                if pair == (None, None):
                    return
                yield (pair[0] or 0) + (pair[1] or 0)

        return Series(generate)

    def scaled(self, factor):
        """Every coefficient times `factor`."""
        return Series(lambda: (factor * coefficient for coefficient in self))

    def shifted(self, constant):
        """`constant + x * self`."""

        def generate():
            yield constant
            yield from self

        return Series(generate)

    def __mul__(self, other):
        """With U = u + xU' and V = v + xV': uv + x(uV' + vU') + x^2 U'V'."""

        def generate():
            mine, yours = next(iter(self), None), next(iter(other), None)
            if mine is None or yours is None:
                return
            yield mine * yours
            (rest, rest_again), (tail, tail_again) = self.split(), other.split()
            yield from tail.scaled(mine) + rest.scaled(yours) + (rest_again * tail_again).shifted(0)

        return Series(generate)

    def derivative(self):
        """The series of the derivative."""

        def generate():
            coefficients = iter(self)
            next(coefficients, None)
            for power, coefficient in enumerate(coefficients, 1):
                yield power * coefficient

        return Series(generate)

    def integral(self, constant=0):
        """The series of the integral that is `constant` at 0."""

        def generate():
            yield constant
            for power, coefficient in enumerate(self, 1):
                yield coefficient / power

        return Series(generate)

    def substituted(self, factor, power):
        """The series in `factor * x**power`."""

        def generate():
            scale = Fraction(1)
            for coefficient in self:
                yield coefficient * scale
                yield from [0] * (power - 1)
                scale *= factor

        return Series(generate)

    def exponential(self):
        """Z with Z' = Z * self' and Z(0) = 1: a series that feeds on itself."""
        feedback = makechan()
        slope = self.derivative()
        result, again = (Series.of(feedback) * slope).integral(1).split()

        def feed():
            for coefficient in again:
                feedback.send(coefficient)
            feedback.close()

        go(feed)
        return result


def ones():
    """1 + x + x^2 + ..., which is 1 / (1 - x)."""

    def generate():
        while True:
            yield 1

    return Series(generate)


def polynomial(*coefficients):
    """A series that ends."""
    return Series(lambda: coefficients)


@main_goroutine
def test_power_series():
    assert ones().first(5) == [1] * 5
    assert (ones() + ones()).first(5) == [2] * 5
    assert ones().derivative().first(6) == [1, 2, 3, 4, 5, 6]
    assert ones().integral().first(5) == [0, 1, Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)]
    assert ones().scaled(Fraction(-1, 2)).first(3) == [Fraction(-1, 2)] * 3
    assert ones().substituted(-1, 2).first(7) == [1, 0, -1, 0, 1, 0, -1]
    left, right = ones().derivative().split()
    assert left.first(20) == list(range(1, 21))
    assert right.first(10) == list(range(1, 11))


@main_goroutine
def test_finite_power_series():
    assert list(polynomial(1, 2, 3)) == [1, 2, 3]
    assert list(polynomial(1, 2, 3) + polynomial(5)) == [6, 2, 3]
    assert list(polynomial(1, 2, 3).derivative()) == [2, 6]
    assert list(polynomial(1, 2, 3).integral(7)) == [7, 1, 1, 1]
    left, right = polynomial(4, 5, 6).split()
    assert (list(left), list(right)) == ([4, 5, 6], [4, 5, 6])


@main_goroutine
def test_products_of_power_series():
    assert (ones() * ones()).first(10) == list(range(1, 11))
    product = (polynomial(1, 1) * polynomial(1, 2, 1)).first(8)
    assert product[:4] == [1, 3, 3, 1]
    assert not any(product[4:])


@main_goroutine
def test_the_exponential_of_a_power_series():
    expected = [1, 1, "3/2", "13/6", "73/24", "167/40", "4051/720", "37633/5040"]
    assert ones().exponential().first(8) == [Fraction(each) for each in expected]


@main_goroutine
def test_the_arc_tangent_as_a_power_series():
    series = ones().substituted(-1, 2).integral()
    signs = [0, 1, 0, -1]
    assert series.first(10) == [Fraction(signs[n % 4], n or 1) for n in range(10)]


# ---- test/chan/select.go, select2.go ---------------------------------------------------------


@main_goroutine
def test_a_case_is_switched_off_by_nil_and_on_again():
    """Go's select.go: shifting the bits of numbers into one channel through two selects."""
    numbers = [0, 1, 0b1011, 0xFFFF, 0x8000, 0x1234]

    def bits(channels, value):
        sent = 0
        while value:
            first = channels[0] if value & 1 else nilchan
            second = nilchan if value & 1 else channels[1]
            select(first.if_send(1), second.if_send(0))
            value >>= 1
            sent += 1
        return sent

    for number in numbers:
        one, zero, finished = makechan(), makechan(), makechan()

        def produce(one=one, zero=zero, finished=finished, number=number):
            finished.send(bits((one, zero), number))

        go(produce)
        total = place = 0
        while True:
            case = select(one.if_recv(), zero.if_recv(), finished.if_recv())
            if case.index == 2:
                break
            total |= case.value << place
            place += 1
        assert (total, place) == (number, case.value)


@main_goroutine
def test_select_in_a_loop_leaves_nothing_on_the_other_channel():
    """Go's select2.go: a case that is never served is not queued ten thousand times."""
    served, never = makechan(), makechan()

    def send_all():
        for number in range(10_000):
            served.send(number)

    sender = go(send_all)
    for _ in range(10_000):
        assert select(served.if_recv(), never.if_recv()).index == 0
    wait_ended(sender)
    assert never.stats()["receivers"] == 0


# ---- test/chan/sieve1.go, sieve2.go ----------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1])
@main_goroutine
def test_the_prime_sieve(size):
    def generate(channel):
        number = 2
        while True:
            channel.send(number)
            number += 1

    def strain(source, sink, prime):
        for number in source:
            if number % prime:
                sink.send(number)

    channel = makechan(size)
    go(generate, channel)
    primes = []
    for _ in range(60):
        primes.append(channel.recv())
        strained = makechan(size)
        go(strain, channel, strained, primes[-1])
        channel = strained
    assert primes == [n for n in range(2, 282) if all(n % divisor for divisor in range(2, n))]
